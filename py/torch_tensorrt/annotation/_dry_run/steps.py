# SPDX-License-Identifier: BSD-3-Clause

"""Run the steps of an op in order, as an engine would; check what comes out.

Torch operations are run by torch. Each launch runs with TensorRT's arguments, between
guard bands, with every one of its tactics in turn, while all others have their first.
What is compared are the op's outputs and the inputs that it writes: a value that is
wrong in between, and reaches none of them, is found by nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch

from .._code.loaded import LoadedKernel, driver
from .._compile.pool import Job, progress, run_in_workers, worker_count
from .._hidden import WORD
from .._record import as_tensors, describe
from .._record.address import ALIGNMENT
from .._record.program import Program
from .._steps import Step, Structure, run, sizes_of
from .._tensors import absent
from ..backends import OutOfBoundsError, backend
from ..errors import AnnotationError, DryRunError, LaunchError
from . import interpret as interpreter
from .case import MakeInputs, random_inputs
from .execute import copy_gbps, load, time_launch
from .memory import POISONS, GuardedTensor, compare, located
from .program_report import ProgramReport, RunReport, StepReport
from .report import Dims, DryRunReport, ShapeReport, TacticReport

Chosen: TypeAlias = tuple[int, ...]  # for each launch, a tactic


@dataclass(frozen=True)
class Whole:
    """An op of several steps, with all that its launches need.

    Attributes:
        programs: for each launch, those of its tactics, by number.
        weights: the constants, on the device.
        aligned: whether all tensors are.
    """

    structure: Structure
    launches: tuple[DryRunReport, ...]
    programs: tuple[Mapping[int, Program], ...]
    weights: tuple[torch.Tensor, ...]
    aligned: bool

    @property
    def offered(self) -> list[dict[int, TacticReport]]:
        """For each launch, its tactics that TensorRT is offered."""
        return [
            {t.tactic: t for t in launch.tactics if t.error is None}
            for launch in self.launches
        ]

    @property
    def first(self) -> Chosen:
        """The first tactic of each launch."""
        return tuple(min(tactics) for tactics in self.offered)

    @property
    def choices(self) -> list[Chosen]:
        """Each tactic of each launch, with the first of all others."""
        return list(
            dict.fromkeys(
                (*self.first[:index], number, *self.first[index + 1 :])
                for index, tactics in enumerate(self.offered)
                for number in tactics
            )
        )

    def results(
        self, outcomes: Mapping[tuple[str, Chosen], _Outcome]
    ) -> tuple[DryRunReport, ...]:
        """The launches' reports, with what was found of their tactics."""
        found = []
        for index, launch in enumerate(self.launches):
            tactics = []
            for tactic in launch.tactics:
                choice = list(self.first)
                choice[index] = tactic.tactic
                shapes = tuple(
                    outcomes[shape.name, tuple(choice)].applied_to(shape, index)
                    if (shape.name, tuple(choice)) in outcomes
                    else shape
                    for shape in tactic.shapes
                )
                tactics.append(replace(tactic, shapes=shapes))
            found.append(replace(launch, tactics=tuple(tactics)))
        return tuple(found)


@dataclass(frozen=True)
class _Outcome:
    """What came of one run of all steps.

    Attributes:
        times: of the launches, in microseconds, with the interquartile range.
    """

    ok: bool | None
    failure: str = ""
    skipped: str = ""
    max_error: float | None = None
    times: Mapping[int, tuple[float, float]] | None = None

    def applied_to(self, shape: ShapeReport, launch: int) -> ShapeReport:
        time, spread = (self.times or {}).get(launch, (None, None))
        return replace(
            shape,
            ok=self.ok,
            failure=self.failure,
            skipped=self.skipped,
            max_error=self.max_error,
            time_us=time,
            spread_us=spread,
        )

    def of_all(self, name: str, dims: Dims) -> RunReport:
        known = self.ok, self.failure, self.skipped, self.max_error
        return RunReport(name, dims, *known)


def dims_of(structure: Structure, step: Step, dims: Dims) -> Dims:
    """The extents of a launch's inputs, from those of the op's inputs and weights."""
    program, count = structure.program, step.tensors
    size = sizes_of(
        [None if d is None else torch.empty(d, device="meta") for d in dims]
    )
    first, between = len(program.inputs), list[Any]()
    for number in step.reads:
        if number < first:
            between.append(dims[number])
        else:
            shape = program.hidden[number - first].shape
            between.append(tuple(int(size(extent)) for extent in shape))
    return (*dims[:count], *between, *dims[count:])


# --- One run --------------------------------------------------------------------------

# Launches one tactic of a launch, with these tensors.
Launcher: TypeAlias = Callable[
    [int, TacticReport, ShapeReport, Sequence[GuardedTensor], Sequence[GuardedTensor]],
    Callable[[], None],
]


class _Run:
    """All steps, on poisoned memory.

    Attributes:
        problems: what launches do that they should not.
        launched: the last call of each launch, by number.
    """

    def __init__(
        self, whole: Whole, chosen: Chosen, poison: int, launcher: Launcher
    ) -> None:
        self._whole, self._poison, self._launcher = whole, poison, launcher
        self._tactics = [
            offered[number]
            for offered, number in zip(whole.offered, chosen, strict=True)
        ]
        self._chosen = chosen
        self.problems: list[str] = []
        self.launched: dict[int, Callable[[], None]] = {}

    def __call__(self, values: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """What the op returns, then the new values of the inputs that it writes."""

        def launch(step: Step, between: dict[int, torch.Tensor]) -> Any:
            return self._launch(
                step, [*values, *between.values(), *self._whole.weights]
            )

        returned, written = run(self._whole.structure, values, launch)
        return [*returned, *(tensor for tensor in written if tensor is not None)]

    def _launch(
        self, step: Step, given: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor]:
        tactic, index = self._tactics[step.index], step.index
        device = next(tensor.device for tensor in given if tensor is not None)
        shape = tactic.at(*(None if t is None else tuple(t.shape) for t in given))
        originals = [absent().to(device) if t is None else t for t in given]
        inputs = [self._guarded(t.shape, t.dtype, device) for t in originals]
        for guarded, tensor in zip(inputs, originals, strict=True):
            guarded.write(tensor)
        own = len(shape.outputs) - len(tactic.aliased)
        dtypes = tactic.torch_dtypes[len(inputs) :]
        outputs = [
            self._guarded(extents, dtype, device)
            for extents, dtype in zip(shape.outputs[:own], dtypes, strict=False)
        ]
        hidden = self._hidden(index, shape, device)
        outputs += [inputs[place] for place in tactic.aliased]
        call = self._launcher(index, tactic, shape, inputs, [*outputs, *hidden])
        self.launched[index] = call
        call()
        self._check(step, inputs, originals, outputs, hidden)
        return [output.tensor for output in outputs]

    def _guarded(
        self,
        extents: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        shift: int = 0,
    ) -> GuardedTensor:
        return GuardedTensor(extents, dtype, "LINEAR", self._poison, device, shift)

    def _hidden(
        self, index: int, shape: ShapeReport, device: torch.device
    ) -> list[GuardedTensor]:
        """With the alignment that TensorRT promises, and no more."""
        program = self._whole.programs[index][self._chosen[index]]
        buffers = [(list(extents), WORD) for extents in shape.hidden]
        if device.type != "cuda":  # as the launch function allocates them
            buffers = interpreter.hidden_buffers(program, shape.dims)
        return [self._guarded(*buffer, device, ALIGNMENT) for buffer in buffers]

    def _check(
        self,
        step: Step,
        inputs: Sequence[GuardedTensor],
        originals: Sequence[torch.Tensor],
        outputs: Sequence[GuardedTensor],
        hidden: Sequence[GuardedTensor],
    ) -> None:
        where = f"launch {step.index} of kernel {step.name}"
        for index, (tensor, original) in enumerate(zip(inputs, originals, strict=True)):
            if tensor not in outputs and not tensor.holds(original):
                self.problems.append(f"{where} writes into its input {index}")
        each = {"input": inputs, "output": outputs, "hidden buffer": hidden}
        for what, tensors in each.items():
            for index, tensor in enumerate(tensors):
                if not tensor.is_intact and not (what == "output" and tensor in inputs):
                    place = f"{what} {index}"
                    self.problems.append(f"{where} writes outside of its {place}")


# --- What it runs on ------------------------------------------------------------------


class _Inputs:
    """The inputs of one shape, and what the op should make of them.

    Args:
        reference: is called as the op is; None where nobody knows.
    """

    def __init__(
        self,
        whole: Whole,
        name: str,
        dims: Dims,
        make_inputs: MakeInputs | None,
        reference: Callable[..., Any] | None,
        device: str,
    ) -> None:
        program = whole.structure.program
        count = len(program.inputs) - len(whole.weights)
        given, infos = dims[:count], program.inputs[:count]
        dtypes = [torch.bool if info is None else info.dtype for info in infos]
        made = (
            make_inputs(given) if make_inputs else random_inputs(given, dtypes, device)
        )
        self.values = [None if t is None else t.to(device).contiguous() for t in made]
        found = [v if v is None else (tuple(v.shape), v.dtype) for v in self.values]
        pairs = zip(given, dtypes, strict=True)
        wanted = [None if dims is None else (dims, dtype) for dims, dtype in pairs]
        if found != wanted:
            raise DryRunError(
                f"dry run at {name}: the inputs are {found}, and the kernels were "
                f"compiled for {wanted}. Let make_inputs make those."
            )
        self.names = [f"output {i}" for i in range(len(program.returned))]
        writes = [i for i in program.writable if self.values[i] is not None]
        self.names += [f"input {i}, which the op writes" for i in writes]
        self.expected: list[torch.Tensor] | None = None
        if reference is not None:
            copies = self.copies()
            returned = as_tensors(reference(*copies), "the reference")
            if len(returned) != len(program.returned):
                raise DryRunError(
                    f"the reference gives {len(returned)} tensors; the op has "
                    f"{len(program.returned)} outputs. Return one tensor for each, and "
                    "write the inputs that the op writes."
                )
            written = (t for i in writes if (t := copies[i]) is not None)
            self.expected = [*returned, *written]

    def copies(self) -> list[torch.Tensor | None]:
        """Copies of the inputs, for code that may write them."""
        return [None if value is None else value.clone() for value in self.values]

    def compared(
        self, found: Sequence[torch.Tensor], tolerance: float | None
    ) -> tuple[float, list[str]]:
        """The largest error, and what is wrong."""
        errors, problems = [0.0], []
        each = zip(self.names, found, self.expected or (), strict=False)
        for name, tensor, expected in each:
            error, wrong = compare(tensor.contiguous(), expected, tolerance)
            errors.append(error)
            if wrong:
                problems.append(f"{name}: {wrong}")
        return max(errors), problems


# --- On a GPU -------------------------------------------------------------------------


def execute(
    report: ProgramReport,
    whole: Whole,
    reference: Callable[..., Any],
    eager: Callable[..., Any],
    make_inputs: MakeInputs,
    tolerance: float | None,
    is_reference: bool,
) -> ProgramReport:
    """Run all steps at each shape, check and time them.

    Args:
        reference, make_inputs, tolerance: those of :func:`execute`, of a plugin.
        eager: the op itself.
        is_reference: whether ``reference`` is the user's, and not the op itself.

    Raises:
        DryRunError: as there.
    """
    if not torch.cuda.is_available():
        raise DryRunError(f"{report.op}: there is no GPU here to run kernels on.")
    driver()
    whole, kernels = _loaded(whole)

    def launcher(
        index: int,
        tactic: TacticReport,
        shape: ShapeReport,
        inputs: Sequence[GuardedTensor],
        outputs: Sequence[GuardedTensor],
    ) -> Callable[[], None]:
        return partial(_call, kernels[index][tactic.tactic], shape, inputs, outputs)

    outcomes: dict[tuple[str, Chosen], _Outcome] = {}
    runs: list[RunReport] = []
    expected = partial(reference, **report.attributes)
    with progress(
        f"running {report.op}", len(report.runs) * len(whole.choices)
    ) as done:
        for asked in report.runs:
            try:
                how = asked.name, asked.dims, make_inputs, expected
                inputs = _Inputs(whole, *how, "cuda")
                for chosen in whole.choices:
                    ran = _executed(whole, chosen, inputs, launcher, tolerance)
                    outcomes[asked.name, chosen] = ran
                    done()
                fastest = _fastest(whole, outcomes, asked.name)
                timed = _timed(whole, fastest, kernels, inputs, eager, report)
                ran = outcomes[asked.name, whole.first]
                runs.append(replace(ran.of_all(asked.name, asked.dims), **timed))
            except torch.cuda.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                failure = f"not run: out of GPU memory. {str(error).splitlines()[0]}"
                runs.append(replace(asked, failure=failure))
    launches = whole.results(outcomes)
    copied, gpu = copy_gbps(), torch.cuda.get_device_name()
    named = f"the reference {describe(reference)}"
    against = named if is_reference else "the op's own eager run"
    known: dict[str, Any] = {"copy_gbps": copied, "gpu": gpu, "against": against}
    launches = tuple(replace(launch, **known) for launch in launches)
    return replace(
        report, steps=_with(report.steps, launches), runs=tuple(runs), **known
    )


def _loaded(whole: Whole) -> tuple[Whole, list[dict[int, LoadedKernel]]]:
    """The kernels of each launch by tactic; those that cannot be loaded are left out.

    Raises:
        LaunchError: a launch has no kernel left.
    """
    launches, kernels = [], []
    for launch in whole.launches:
        loaded: dict[int, LoadedKernel] = {}
        tactics = []
        for tactic in launch.tactics:
            try:
                if tactic.error is None:
                    loaded[tactic.tactic] = load(tactic)
            except LaunchError as error:
                tactic = replace(tactic, error=str(error))
            tactics.append(tactic)
        if not loaded:
            raise LaunchError(f"{launch.op}: {tactics[0].error}")
        launches.append(replace(launch, tactics=tuple(tactics)))
        kernels.append(loaded)
    return replace(whole, launches=tuple(launches)), kernels


def _call(
    kernel: LoadedKernel,
    shape: ShapeReport,
    inputs: Sequence[GuardedTensor],
    outputs: Sequence[GuardedTensor],
) -> None:
    addresses = (
        [tensor.buffer.data_ptr() for tensor in each] for each in (inputs, outputs)
    )
    kernel.launch(shape, *addresses)


def _executed(
    whole: Whole,
    chosen: Chosen,
    inputs: _Inputs,
    launcher: Launcher,
    tolerance: float | None,
) -> _Outcome:
    """Run all steps with each poison; check, and time the launches."""
    errors, problems = list[float](), list[str]()
    for poison in POISONS:
        this = _Run(whole, chosen, poison, launcher)
        try:
            found = this(inputs.copies())
            torch.cuda.synchronize()
        except LaunchError as error:  # a block needs too many registers
            return _Outcome(False, str(error))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise DryRunError(
                f"tactics {chosen} of the launches fail, and the CUDA context with "
                f"them: {str(error).splitlines()[0]}. Do they read or write out of "
                "bounds? compute-sanitizer finds where."
            ) from error
        max_error, wrong = inputs.compared(found, tolerance)
        errors.append(max_error)
        problems = problems or [*this.problems, *wrong]
    times = {i: time_launch(call) for i, call in this.launched.items()}
    return _Outcome(not problems, "; ".join(problems), "", max(errors), times)


def _fastest(
    whole: Whole, outcomes: Mapping[tuple[str, Chosen], _Outcome], name: str
) -> Chosen:
    """The tactics that TensorRT would pick, launch by launch."""
    fastest = []
    for index, tactics in enumerate(whole.offered):
        times = {}
        for number in tactics:
            chosen = (*whole.first[:index], number, *whole.first[index + 1 :])
            outcome = outcomes[name, chosen]
            if outcome.ok and outcome.times:
                times[outcome.times[index][0], number] = number
        fastest.append(times[min(times)] if times else whole.first[index])
    return tuple(fastest)


def _timed(
    whole: Whole,
    chosen: Chosen,
    kernels: Sequence[Mapping[int, LoadedKernel]],
    inputs: _Inputs,
    eager: Callable[..., Any],
    report: ProgramReport,
) -> dict[str, Any]:
    """Times of all steps, and of the op itself, in microseconds."""
    shapes: dict[int, ShapeReport] = {}

    def launch(step: Step, between: dict[int, torch.Tensor]) -> Any:
        number = chosen[step.index]
        tactic = whole.offered[step.index][number]
        given = [*inputs.values, *between.values(), *whole.weights]
        tensors = [given_absent if t is None else t.contiguous() for t in given]
        if step.index not in shapes:
            dims = (None if t is None else tuple(t.shape) for t in given)
            shapes[step.index] = tactic.at(*dims)
        shape = shapes[step.index]
        for place in tactic.aliased:
            tensors[place] = tensors[place].clone()
        own = len(shape.outputs) - len(tactic.aliased)
        dtypes = tactic.torch_dtypes[len(tensors) :][:own]
        kinds = (*zip(shape.outputs[:own], dtypes, strict=True),)
        outputs = [torch.empty(e, dtype=d, device="cuda") for e, d in kinds]
        outputs += [tensors[place] for place in tactic.aliased]
        hidden = [torch.empty(e, dtype=WORD, device="cuda") for e in shape.hidden]
        addresses = [t.data_ptr() for t in tensors]
        results = [t.data_ptr() for t in (*outputs, *hidden)]
        kernels[step.index][number].launch(shape, addresses, results)
        return outputs

    given_absent = absent().cuda()
    whole_us, spread = time_launch(lambda: run(whole.structure, inputs.values, launch))
    copies = inputs.copies()
    eager_us, _ = time_launch(lambda: eager(*copies, **report.attributes))
    return {"time_us": whole_us, "spread_us": spread, "eager_us": eager_us}


def _with(
    steps: Sequence[StepReport], launches: Sequence[DryRunReport]
) -> tuple[StepReport, ...]:
    """The steps with other reports of their launches."""
    each = iter(launches)
    return tuple(
        s if s.launch is None else replace(s, launch=next(each)) for s in steps
    )


# --- Without a GPU --------------------------------------------------------------------


def interpret(
    report: ProgramReport,
    whole: Whole,
    reference: Callable[..., Any] | None,
    make_inputs: MakeInputs | None,
    tolerance: float | None,
) -> ProgramReport:
    """Run all steps on the CPU, where the language has an interpreter.

    Args:
        reference, make_inputs, tolerance: those of :func:`interpret`, of a plugin.
    """
    languages = {t.backend for launch in whole.launches for t in launch.tactics}
    if any(backend(name).interpreter is None for name in languages):
        return report
    expected = reference and partial(reference, **report.attributes)
    left, seconds = interpreter.limits()
    budget = interpreter.Budget(seconds)
    outcomes: dict[tuple[str, Chosen], _Outcome] = {}
    jobs: dict[tuple[str, Chosen], Job] = {}
    for asked in sorted(report.runs, key=lambda r: interpreter.order(r.name)):
        inputs: _Inputs | None = None
        for chosen in whole.choices:
            key, count = (asked.name, chosen), _programs(whole, chosen, asked.name)
            try:
                if count > left:
                    raise TimeoutError("it would take long")
                if inputs is None:
                    how = asked.name, asked.dims, make_inputs, expected
                    with torch.random.fork_rng(devices=()):
                        inputs = _Inputs(whole, *how, "cpu")
            except DryRunError:
                raise
            except Exception as error:  # of the reference, which may need a GPU
                outcomes[key] = _skipped(error)
                continue
            left -= count
            run = partial(_interpreted, whole, chosen, inputs, tolerance, budget)
            jobs[key] = f"tactics {chosen}", run

    def done(job: int, outcome: Any) -> None:
        if failure := interpreter.crash_of(outcome):
            outcome = _Outcome(False, failure)
        elif isinstance(outcome, AnnotationError):
            outcome = _skipped(outcome)
        outcomes[list(jobs)[job]] = outcome

    if jobs:
        run_in_workers(list(jobs.values()), worker_count() or 1, done)
    against = f"the reference {describe(reference)}" if reference else ""
    known: dict[str, Any] = {"interpreted": True, "against": against}
    launches = (replace(launch, **known) for launch in whole.results(outcomes))
    runs = (outcomes[r.name, whole.first].of_all(r.name, r.dims) for r in report.runs)
    steps = _with(report.steps, tuple(launches))
    return replace(report, steps=steps, runs=tuple(runs), **known)


def _programs(whole: Whole, chosen: Chosen, name: str) -> int:
    """How many programs an interpreter would run."""
    return len(interpreter.INTERPRETED) * sum(
        math.prod(shape.grid)
        for offered, number in zip(whole.offered, chosen, strict=True)
        for shape in offered[number].shapes
        if shape.name == name
    )


def _skipped(error: BaseException) -> _Outcome:
    cause = interpreter.cause_of(error)
    if isinstance(cause, OutOfBoundsError):
        return _Outcome(False, str(cause))
    return _Outcome(None, skipped=interpreter.reason(error))


def _interpreted(
    whole: Whole,
    chosen: Chosen,
    inputs: _Inputs,
    tolerance: float | None,
    budget: interpreter.Budget,
) -> _Outcome:
    """Run all steps with two poisons; in a worker."""

    def launcher(
        index: int,
        tactic: TacticReport,
        shape: ShapeReport,
        given: Sequence[GuardedTensor],
        outputs: Sequence[GuardedTensor],
    ) -> Callable[[], None]:
        program = whole.programs[index][tactic.tactic]
        own = len(program.outputs)
        made = [*outputs[:own], *outputs[own + len(tactic.aliased) :]]
        buffers = [tensor.buffer for tensor in (*given, *made)]
        interpret = backend(tactic.backend).interpreter
        assert interpret is not None, "else nothing is interpreted"
        return partial(
            interpret, program, shape.grid, shape.extras, buffers, whole.aligned
        )

    found, problems, max_error = [], list[str](), 0.0
    try:
        with budget.limited():
            for poison in interpreter.INTERPRETED:
                this = _Run(whole, chosen, poison, launcher)
                found.append(this(inputs.copies()))
                max_error, wrong = inputs.compared(found[-1], tolerance)
                problems = problems or [*this.problems, *wrong]
    except Exception as error:  # an interpreter may raise anything
        return _skipped(error)
    problems = [*_differences(inputs.names, *found), *problems]
    known = max_error if inputs.expected is not None else None
    return _Outcome(not problems, "; ".join(problems), "", known)


def _differences(
    names: Sequence[str], first: Sequence[torch.Tensor], other: Sequence[torch.Tensor]
) -> Iterator[str]:
    """What depends on memory that nobody wrote."""
    for name, *pair in zip(names, first, other, strict=True):
        one, two = (t.contiguous().unsqueeze(-1).view(torch.uint8) for t in pair)
        what = "depend on memory that nothing writes"
        if difference := located((one != two).any(-1), what):
            yield f"{name}: {difference}"
