# SPDX-License-Identifier: BSD-3-Clause

"""A plugin's kernels for a request, and the ops that are registered in this process.

:meth:`Plugin.kernels` is the one place that drives recording and compiling. Autotune,
the ahead-of-time implementation, the capability check and the dry run index into it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol

import torch

from . import errors
from ._attributes import AttributeKind
from ._code.effects import COMPARED, LOADED, NEVER_STORED, STORED
from ._code.kernel import Kernel
from ._compile.job import Job, compile_all
from ._fingerprint import fingerprint
from ._hidden import (
    Room,
    Shape,
    any_extents,
    in_words,
    scratch_buffer,
    shortage,
    to_align,
    widest,
)
from ._record import Call, as_tensors, buffers, describe, record
from ._record.program import Grid, Output, Pointer, Program
from ._record.recording import Purpose, noticing_target
from ._record.replay import MOST_SHAPES, PlainInputs
from ._sizes.to_tensorrt import require_expressible
from ._specs import Config, CustomPluginSpec, KernelSpec
from ._steps import Step, Structure, have_same_steps, layout
from ._target import Target, known_target
from ._tensors import DType, TensorInfo, of_any_size, ranges_of
from .backends import backend
from .errors import AnnotationError, as_ours


@dataclass(frozen=True)
class Request:
    """What TensorRT asks kernels for. Equal requests get the same kernels.

    Attributes:
        inputs: the plugin's inputs, weights last; None for one that is not given.
        texts: the op's other arguments, by name, as text. It tells 0.0 from -0.0, and 1
            from True, which are equal as values, and NaN is equal to itself.
        values: the same as values; a list is kept as a tuple.
        target: the GPU; None where only recording is wanted.
        replay: shapes to run launch functions at again, if the profile has as many.
    """

    inputs: tuple[TensorInfo | None, ...]
    texts: tuple[tuple[str, str], ...]
    values: tuple[tuple[str, Any], ...] = field(compare=False)
    target: Target | None
    replay: int = MOST_SHAPES

    @classmethod
    def of(
        cls,
        inputs: Sequence[TensorInfo | None],
        attributes: Mapping[str, Any],
        target: Target | None,
        replay: int = MOST_SHAPES,
    ) -> Request:
        """A request with these attributes, by name."""
        values = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(attributes.items())
        )
        texts = tuple((name, repr(value)) for name, value in values)
        return cls(tuple(inputs), texts, values, target, replay)

    @property
    def attributes(self) -> dict[str, Any]:
        """The op's other arguments as Python has them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.values
        }


@dataclass(frozen=True)
class Tactic:
    """One kernel to time; ``number`` is positive and the same in every process.

    Attributes:
        choice: the autotuner's config, where the spec has none of its own.
        launch: which launch the choice is of, where there are several.
        program: what the launch function does; None where it could not be recorded.
        kernel: what TensorRT gets; None where it was not compiled, or is refused.
        error: why it is left out; None where it is not.
    """

    number: int
    spec: KernelSpec
    config: Config
    choice: Config | None = None
    launch: int | None = None
    program: Program | None = None
    kernel: Kernel | None = None
    error: AnnotationError | None = None

    @property
    def identity(self) -> str:
        """A digest of its config and choice, whatever the inputs are."""
        spec = self.spec.fingerprint
        return fingerprint(spec, self.config, self.choice, self.launch)

    @property
    def buffers(self) -> tuple[Output, ...]:
        """What its kernel gets beside the op's tensors, by the kernel's own numbers."""
        if self.program is None or self.kernel is None:
            return ()
        sizes, grid = self.kernel.scratch, self.kernel.grid
        scratch = (scratch_buffer(grid, size) for size in sizes)
        return (*_aligned(self.program.hidden, self.kernel.aligned), *scratch)

    @property
    def settings(self) -> dict[str, Any]:
        """Config and choice, for people."""
        return dict((*self.config, *(self.choice or ())))

    @property
    def description(self) -> str:
        """Language and config, for people."""
        return f"{self.spec.backend}, {self.settings}"


@dataclass(eq=False)
class Plugin:
    """A plugin spec bound to an op, and the kernels built for it so far.

    TensorRT asks for a kernel several times, and needs the same answer each time.

    Attributes:
        op: ``"ns::name"``.
        spec: what was registered.
        meta: from fake inputs, and attributes by keyword, to fake outputs.
        tensors: names of the op's tensor arguments.
        optional: of those, the ones that may be None.
        attributes: names and kinds of the op's other arguments.
        defaults: values of those that have one.
        writable: of the tensors, those that the op says it writes, by number.
        prepare: lets the next plugin object of TensorRT's have the outputs in
            :attr:`hidden`; what registers the plugin sets it.
    """

    op: str
    spec: CustomPluginSpec
    meta: Callable[..., Any]
    tensors: Sequence[str]
    attributes: Mapping[str, AttributeKind]
    optional: Collection[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    writable: frozenset[int] = frozenset()
    prepare: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._programs: dict[Request, tuple[Tactic, ...]] = {}
        self._kernels: dict[Request, tuple[Tactic, ...]] = {}
        self._structures: dict[Request, Structure | None] = {}
        self._hidden: dict[str, tuple[Tactic, frozenset[int]]] = {}
        self._scratch: dict[str, tuple[int, ...]] = {}  # bytes a block, of any kernel
        self._aligned: dict[str, frozenset[int]] = {}  # buffers, by any kernel
        self._grids: dict[tuple[Request, str], dict[Grid, None]] = {}
        self._room: dict[Any, Room] = {}

    @property
    def _configs(self) -> list[tuple[KernelSpec, Config]]:
        """Every config, with its spec."""
        return [(spec, c) for spec in self.spec.specs for c in spec.configs]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Constants that follow the tensors among the plugin's inputs.

        They are on the host, contiguous, and as they are now: one that was changed in
        place makes another engine.
        """
        return {n: w.detach().cpu().contiguous() for n, w in self.spec.weights}

    @property
    def weight_infos(self) -> tuple[TensorInfo, ...]:
        """What TensorRT knows of the weights."""
        return tuple(TensorInfo(tuple(w.shape), w.dtype) for _, w in self.spec.weights)

    @property
    def hidden(self) -> HiddenOutputs:
        """The hidden outputs that serve every kernel compiled so far."""
        with self._lock:
            kept = ((t, tuple(sorted(which))) for t, which in self._hidden.values())
            return HiddenOutputs(self, tuple(kept))

    def programs(self, request: Request) -> tuple[Tactic, ...]:
        """Every config of every kernel spec, recorded and numbered from 1.

        A spec without configs has those of the autotuned kernel that it launches.
        """
        anywhere = replace(request, target=None)
        here = replace(request, target=request.target or known_target())
        with self._lock:
            for known in (anywhere, here):
                if known in self._programs:
                    return self._programs[known]
            with noticing_target() as notice:
                recorded = enumerate(self._recorded(here), start=1)
                tactics = tuple(replace(t, number=number) for number, t in recorded)
            if not notice.was_asked:
                self._programs[anywhere] = tactics
            elif here.target is not None:
                self._programs[here] = tactics
            return tactics

    def kernels(self, request: Request) -> tuple[Tactic, ...]:
        """Every tactic with its kernel, or with the error that leaves it out.

        Gaps in the numbering are tactics whose kernel duplicates an earlier one's.
        """
        with self._lock:
            if request not in self._kernels:
                self._kernels[request] = tuple(self._compiled(request))
            return self._kernels[request]

    def tactic(self, number: int, request: Request) -> Tactic:
        """The tactic of this number, which has a kernel.

        Raises:
            UnsupportedKernelError: TensorRT asks for its default tactic, 0, which it
                does where autotune left nothing.
            AnnotationError: the tactic is left out.
        """
        tactics = self.kernels(request)
        for tactic in tactics:
            if tactic.number == number:
                if tactic.error is not None:
                    raise errors.to_raise(tactic.error)
                return tactic
        raise errors.UnsupportedKernelError(
            f"{self.op}: no tactic can serve these inputs. tta.dry_run({self.op!r}, "
            f"...) tries them one by one.{errors_of(tactics)}"
        )

    def _recorded(self, request: Request) -> Iterator[Tactic]:
        """The tactic of each config; or one for each choice of an autotuner."""
        plain = PlainInputs(request.inputs, request.replay)
        for spec, config in self._configs:
            tactic = self._record(Tactic(0, spec, config), request, plain)
            launches = tactic.program.launches if tactic.program else ()
            tuned = [(i, launch.choices) for i, launch in enumerate(launches)]
            tuned = [] if spec.chooses(config) else [t for t in tuned if t[1]]
            if len(launches) == 1:
                tactic = replace(tactic, choice=tuned[0][1][0] if tuned else None)
            yield tactic
            for index, choices in tuned:
                for choice in choices[1:]:
                    which = None if len(launches) == 1 else index
                    other = Tactic(0, spec, config, choice, which)
                    yield self._record(other, request, plain)

    def _record(
        self,
        tactic: Tactic,
        request: Request,
        plain: PlainInputs | None,
        somewhere: bool = False,
    ) -> Tactic:
        spec, call = tactic.spec, self._call(tactic, request.attributes, request.target)
        try:
            program = record(
                backend(spec.backend),
                spec.function,
                partial(self.meta, **request.attributes),
                request.inputs,
                call,
                plain,
                somewhere,
            )
            for output in program.outputs:
                DType.of(output.dtype)  # or TensorRT has no such outputs
        except Exception as error:
            what = f"{self.op}, {tactic.description}"
            ours = as_ours(what, error, errors.RecordError)
            return replace(tactic, program=None, error=self._explained(ours, tactic))
        return replace(tactic, program=program)

    def _call(
        self, tactic: Tactic, attributes: Mapping[str, Any], target: Target | None
    ) -> Call:
        """How the launch function of a tactic is called."""
        spec = tactic.spec
        options = spec.compiler_options(tactic.config)
        overrides = spec.kernel_keywords(tactic.config) or None
        return Call(
            {**dict(self.spec.attributes), **attributes}
            | spec.launch_keywords(tactic.config),
            overrides if tactic.choice is None else dict(tactic.choice),
            self.tensors if spec.returns_outputs else None,
            spec.input_formats,
            spec.output_formats,
            len(self.spec.weights),
            self.writable,
            Purpose(target, self.spec.aligned, options, tactic.launch),
        )

    def buffers_of(
        self,
        step: Step,
        tensors: Sequence[torch.Tensor | None],
        between: Sequence[torch.Tensor],
        attributes: Mapping[str, Any],
    ) -> tuple[torch.Tensor, ...]:
        """What the plugin of a launch returns, within a recording.

        Args:
            tensors: of the op, fake.
            between: what the launch reads beside them.
        """
        weights = (
            torch.empty(w.shape, dtype=w.dtype, device="cuda")
            for _, w in self.spec.weights
        )
        given, (spec, config) = (*tensors, *weights), self._configs[step.config]
        made = buffers(
            backend(spec.backend),
            spec.function,
            as_tensors(self.meta(*tensors, **attributes), self.op),
            given,
            self._call(Tactic(0, spec, config), attributes, known_target()),
        )
        outputs = [made[number - len(given)] for number in step.outputs]
        read = dict(zip(step.reads, between, strict=True))
        aliased = [read[number] for number in step.aliased]
        return tuple(map(torch.empty_like, (*outputs, *aliased)))

    def outputs_of(
        self, step: Step, inputs: Sequence[TensorInfo | None], are_known: bool
    ) -> tuple[Output, ...] | None:
        """What a launch makes, as recorded where the op was taken apart.

        TensorRT does not say which profile it asks for. What is constant tells some
        apart; the others must agree on the extents.

        Args:
            inputs: of its plugin.
            are_known: whether TensorRT knows their extents. If not, dtypes decide.

        Returns:
            None where no recording has the extents.

        Raises:
            UnsupportedKernelError: the op was not taken apart for these dtypes.
        """
        count = len(self.tensors)
        found = [
            (request.inputs[:count], structure.outputs(step))
            for request, structure in self.structures.items()
            if step in structure.steps
        ]
        made = _recorded_of(found, inputs[:count], are_known)
        if made is None and not are_known:
            raise errors.UnsupportedKernelError(
                f"{self.op}: its launches are plugins for inputs of other dtypes than "
                f"{_dtypes(inputs[:count])}. Compile the model once more."
            )
        return made

    def recorded_outputs(
        self, inputs: Sequence[TensorInfo | None], are_known: bool
    ) -> tuple[Output, ...] | None:
        """What the op makes, as recorded, for a fake kernel that takes no others.

        Args:
            inputs, are_known: as in :meth:`outputs_of`.
        """
        with self._lock:
            found = [
                (request.inputs, tactic.program.outputs)
                for request, tactics in self._programs.items()
                for tactic in tactics
                if tactic.program is not None
            ]
        return _recorded_of(found, inputs, are_known)

    def _compiled(self, request: Request) -> Iterator[Tactic]:
        assert request.target is not None, "kernels are compiled for a target"
        tactics = self.programs(request)
        tactics = tuple(map(self._unless_steps, tactics))
        jobs = {
            tactic.number: self.job(tactic, tactic.program, request.target)
            for tactic in tactics
            if tactic.program is not None and tactic.error is None
        }
        compiled = compile_all(list(jobs.values()), self.op)
        outcomes = dict(zip(jobs, compiled, strict=True))
        launches: set[Any] = set()
        for tactic in tactics:
            outcome = outcomes.get(tactic.number)
            if isinstance(outcome, Kernel) and tactic.program is not None:
                outcome = (
                    self._objection(tactic.program, outcome)
                    or self._without_room(tactic, request, outcome)
                    or outcome
                )
            if isinstance(outcome, AnnotationError):
                yield replace(tactic, error=self._explained(outcome, tactic))
            elif outcome is None or tactic.program is None:
                yield tactic
            else:
                launch = (outcome.launched_as, tactic.program.formats)
                if launch not in launches:
                    launches.add(launch)
                    entry = self._entry(tactic, tactic.program, outcome)
                    self._keep(tactic, outcome.hidden)
                    yield replace(tactic, kernel=outcome.named(entry))

    def job(self, tactic: Tactic, program: Program, target: Target) -> Job:
        """What compiles a launch of a tactic."""
        return Job(
            f"{self.op}, tactic {tactic.number}",
            tactic.spec.backend,
            program,
            target,
            tactic.spec.compiler_options(tactic.config),
            self.spec.aligned,
        )

    def _unless_steps(self, tactic: Tactic) -> Tactic:
        """The tactic; with an error, unless it is one launch into new outputs."""
        if tactic.program is None or tactic.program.is_plugin:
            return tactic
        steps = ", ".join(step.name for step in tactic.program.steps)
        error = errors.UnsupportedKernelError(
            f"{self.op}: it is several steps, {steps}. Each launch becomes a plugin of "
            "its own when a model is compiled."
        )
        return replace(tactic, error=error)

    def structure(self, request: Request) -> Structure | None:
        """The steps that the op is taken apart into; None where it is one plugin.

        Raises:
            AnnotationError: it cannot be taken apart.
        """
        with self._lock:
            if request not in self._structures:
                try:
                    self._structures[request] = self._taken_apart(request)
                except errors.UnsupportedKernelError as error:
                    whose = Tactic(0, *self._configs[0])
                    raise self._explained(error, whose) from error.__cause__
            return self._structures[request]

    @property
    def structures(self) -> dict[Request, Structure]:
        """The steps of each request for which the op was taken apart so far."""
        with self._lock:
            return {r: s for r, s in self._structures.items() if s is not None}

    def _taken_apart(self, request: Request) -> Structure | None:
        every = self.programs(request)
        tactics = [tactic for tactic in every if tactic.program is not None]
        if not tactics:
            errors_there = (t.error for t in every if t.error is not None)
            raise errors.to_raise(next(errors_there))
        first = tactics[0].program
        assert first is not None, "those without were left out"
        if first.is_plugin:
            return None
        self._require_no_weights(first)
        if (target := request.target) is None:
            raise errors.TargetError(
                f"{self.op}: to take it apart, its kernels must be compiled, and there "
                "is no target. Set TTA_TARGET=sm_90, or compile on a machine with a "
                "GPU."
            )
        alike = [t for t in tactics if t.program and have_same_steps(first, t.program)]
        count = len(self.tensors)
        config = self._configs.index((tactics[0].spec, tactics[0].config))
        steps = layout(first, count, None, config)
        for _ in range(_MOST_LAYOUTS):
            each = [
                (step, self.job(tactic, step.part(tactic.program), target))
                for step in steps
                for tactic in alike
                if tactic.program and tactic.launch in (None, step.index)
            ]
            jobs = [job for _, job in each]
            outcomes = compile_all(jobs, self.op)
            stored: dict[int, set[int]] = {}
            for (step, _), outcome in zip(each, outcomes, strict=True):
                if isinstance(outcome, Kernel):
                    self._require_inputs_kept(step, outcome)
                    stored.setdefault(step.index, set()).update(step.stored(outcome))
            for step in steps:
                if step.index not in stored:
                    pairs = zip(each, outcomes, strict=True)
                    why = next(outcome for (s, _), outcome in pairs if s is step)
                    refused = errors.UnsupportedKernelError(
                        f"{self.op}: launch {step.index}, of kernel {step.name}, has "
                        f"no tactic. {why}"
                    )
                    raise self._explained(refused, tactics[0])
            before, steps = steps, layout(first, count, stored, config)
            both = zip(before, steps, strict=True)
            if all(a.without_aliases == b.without_aliases for a, b in both):
                break
        return Structure(first, steps, frozenset(t.number for t in alike))

    def _require_no_weights(self, program: Program) -> None:
        """Raise if one of torch's operations takes a weight, which no graph has."""
        weights = dict(enumerate(dict(self.spec.weights), start=len(self.tensors)))
        for operation in program.operations:
            for view in operation.views:
                if view.tensor in weights:
                    raise errors.UnsupportedKernelError(
                        f"{self.op}: {operation.name} takes weight "
                        f"`{weights[view.tensor]}`, which only kernels are given. Pass "
                        "what it computes as the weight, or the tensor as an input."
                    )

    def _require_inputs_kept(self, step: Step, kernel: Kernel) -> None:
        """Raise if a launch stores to a tensor that the op does not say it writes."""
        for number, name in enumerate(self.tensors):
            effect = kernel.effects.get(f"input {number}", "")
            if STORED in effect and number not in self.writable:
                raise errors.UnsupportedKernelError(
                    f"{self.op}: launch {step.index}, of kernel {step.name}, stores to "
                    f"input `{name}`, which the op does not say it writes. Declare it "
                    "(mutates_args of torch.library.custom_op), or store to a copy."
                )

    def _objection(self, program: Program, kernel: Kernel) -> AnnotationError | None:
        """The error for a kernel that writes an input, or no element of an output."""
        inputs = {
            f"input {i}": n
            for i, n in enumerate((*self.tensors, *dict(self.spec.weights)))
        }
        aliased = {f"input {i}" for i in program.aliased}
        empty = {f"output {i}" for i, o in enumerate(program.outputs) if 0 in o.shape}
        hidden = {f"hidden {i}": buffer for i, buffer in enumerate(program.hidden)}
        for tensor, effect in kernel.effects.items():
            if tensor in hidden:
                if not (why := self._misuse(program, tensor, effect)):
                    continue
            elif tensor in aliased:
                continue
            elif tensor in inputs and STORED in effect:
                why = (
                    f"stores to input `{inputs[tensor]}`, which an engine does not let "
                    "it change. Store to an output. A launch function takes the op's "
                    "inputs first, and its outputs last."
                )
            elif tensor.startswith("scratch"):
                continue
            elif tensor not in inputs.keys() | empty and effect in NEVER_STORED:
                why = (
                    f"never stores to {tensor}, which would hold whatever was in its "
                    "memory before. Store to it, or do not return it."
                )
            else:
                continue
            return errors.UnsupportedKernelError(
                f"{self.op}: kernel {program.launch.name} {why}"
            )
        return None

    @staticmethod
    def _misuse(program: Program, tensor: str, effect: str) -> str:
        """What is wrong with how a kernel uses ``"hidden 0"``, where something is."""
        index = int(tensor.split()[1])
        number = len(program.inputs) + len(program.outputs) + index
        pointers = (a for a in program.launch.arguments if isinstance(a, Pointer))
        what = f"argument `{next(p.name for p in pointers if p.tensor == number)}`"
        if 0 not in program.hidden[index].shape:
            if effect != LOADED:
                return ""
            return (
                f"loads from {what}, a buffer from torch.empty that nothing stores to. "
                "Store to it first, or pass an input."
            )
        if effect != COMPARED:
            return ""
        return (
            f"compares the address of {what}, a buffer without elements: it is null "
            "in eager mode, and not in an engine. Pass None, or a flag."
        )

    def in_names(self, error: AnnotationError) -> AnnotationError:
        """The error with sizes in the names of this op's tensors."""
        return errors.in_names(error, self.tensors)

    def _explained(self, error: AnnotationError, tactic: Tactic) -> AnnotationError:
        """The same, with the launch function, unless a message has a line already."""
        error, function = self.in_names(error), describe(tactic.spec.function)
        has_line = isinstance(error, errors.CompileError) and re.search(
            r"\.py:\d+", str(error)
        )
        if has_line or function in str(error):
            return error
        located = errors.to_raise(error)
        located.args = (f"{error} The launch function is {function}.",)
        return located

    # --- Hidden outputs ---------------------------------------------------------------

    def _keep(self, tactic: Tactic, which: Collection[int]) -> None:
        """Let these hidden buffers of a tactic be outputs of the plugin."""
        if which:
            bare = Tactic(0, tactic.spec, tactic.config, tactic.choice, tactic.launch)
            _, known = self._hidden.get(bare.identity, (bare, frozenset[int]()))
            self._hidden[bare.identity] = bare, known.union(which)

    def room(self, tactic: Tactic, request: Request) -> Room:
        """What TensorRT allocates for the hidden buffers of a tactic.

        It asks for the sizes of outputs before it has a profile, so this does not know
        one either. The launch function runs at a few sizes, and each expression that
        one of these runs has for a buffer counts. What a program needs in its profile
        is compared with the result.
        """
        request, spec, config = _without_profile(request), tactic.spec, tactic.config
        with self._lock:
            scratch = self._scratch.get(tactic.identity, ())
            aligned = self._aligned.get(tactic.identity, frozenset())
            grids = tuple(self._grids.get((request, tactic.identity), ()))
            # Configs that differ for the compiler alone allocate the same.
            keywords = spec.launch_keywords(config), spec.kernel_keywords(config)
            choice = tactic.choice, tactic.launch
            call = fingerprint(spec.fingerprint, *keywords, choice)
            of_kernels = scratch, aligned, grids
            key = request, call, any(of_kernels) and (tactic.identity, of_kernels)
            if key not in self._room:
                self._room[key] = self._find_room(tactic, request, *of_kernels)
            return self._room[key]

    def _find_room(
        self,
        tactic: Tactic,
        request: Request,
        scratch: Sequence[int],
        aligned: Collection[int],
        grids: Sequence[Grid],
    ) -> Room:
        """
        Args:
            scratch: bytes a block, of each scratch buffer.
            aligned: buffers whose addresses are rounded up.
            grids: of kernels that have others than their programs say.
        """
        ranges, failure = any_extents(ranges_of(request.inputs)), ""
        found: dict[int, list[Shape]] = {}
        for size in _ANY_SIZES if ranges else _ANY_SIZES[:1]:
            inputs = tuple(of_any_size(info, size) for info in request.inputs)
            ran = self._record(tactic, replace(request, inputs=inputs), None, True)
            failure = failure or str(ran.error or "")
            # A function that takes no such sizes counts as it is in its profile.
            if (program := ran.program or tactic.program) is None:
                continue
            hidden = list(enumerate(_aligned(program.hidden, aligned)))
            known = [*(n.grid for n in program.launches if n.grid), *grids]
            for index, size in enumerate(scratch, start=len(hidden)):
                hidden += [(index, scratch_buffer(grid, size)) for grid in known]
            for index, buffer in hidden:
                try:
                    require_expressible(shape := in_words(buffer), ranges, True)
                    found.setdefault(index, []).append(shape)
                except errors.ArgumentError as error:
                    failure = failure or str(error)
        return Room({index: widest(shapes) for index, shapes in found.items()}, failure)

    def _without_room(
        self, tactic: Tactic, request: Request, kernel: Kernel
    ) -> AnnotationError | None:
        """The error for a hidden buffer that is larger than what TensorRT allocates.

        Only a branch on a size that the profile decides can make it so.
        """
        if not kernel.hidden or (program := tactic.program) is None:
            return None
        if kernel.scratch:
            known = self._scratch.get(tactic.identity, ())
            most = map(max, zip_longest(known, kernel.scratch, fillvalue=0))
            self._scratch[tactic.identity] = tuple(most)
            if program.launch.grid != kernel.grid:
                key = _without_profile(request), tactic.identity
                self._grids.setdefault(key, {})[kernel.grid] = None
        if kernel.aligned:
            known_aligned = self._aligned.get(tactic.identity, frozenset())
            self._aligned[tactic.identity] = known_aligned.union(kernel.aligned)
        needed = replace(tactic, kernel=kernel).buffers
        room = self.room(tactic, request)
        for index in kernel.hidden:
            buffer, given = needed[index], room.shapes.get(index)
            why = room.failure or "it is not allocated at every size."
            if given is not None:
                try:
                    where = shortage(buffer, given, program.ranges)
                except errors.ArgumentError as error:
                    return error
                if not where:
                    continue
                why = f"it would be {list(given)} words of 32 bits, too few {where}."
            what = f"a buffer of shape {list(buffer.shape)} that the op does not return"
            remedy = "Return the buffer from the op, or make the dimensions static."
            if index >= len(program.hidden):
                what = f"scratch memory of {buffer.shape[0]} words of 32 bits"
                remedy = "Make the dimensions static, or the grid free of branches."
            return errors.UnsupportedKernelError(
                f"{self.op}: kernel {program.launch.name} needs {what}. TensorRT asks "
                f"for its size before it has a profile, where it is not known: {why} "
                f"{remedy}"
            )
        return None

    def _entry(self, tactic: Tactic, program: Program, kernel: Kernel) -> str:
        """Unique to op, tactic, dtypes and code: TensorRT confuses equal names."""
        dtypes = [t and t.dtype for t in (*program.inputs, *program.outputs)]
        digest = fingerprint(self.op, dtypes, kernel.digest)
        op = re.sub(r"\W", "_", self.op)
        return f"{op}_t{tactic.number}_{digest[:12]}"


def _aligned(buffers: Sequence[Output], which: Collection[int]) -> list[Output]:
    """``buffers``, where those that an entry aligns have the room for it."""
    return [to_align(b) if i in which else b for i, b in enumerate(buffers)]


def _recorded_of(
    found: Sequence[tuple[Sequence[TensorInfo | None], tuple[Output, ...]]],
    inputs: Sequence[TensorInfo | None],
    are_known: bool,
) -> tuple[Output, ...] | None:
    """The outputs that every recording of such inputs has; of the first, if unknown."""
    if not are_known:
        dtypes = _dtypes(inputs)
        return next((outputs for i, outputs in found if _dtypes(i) == dtypes), None)
    known = list(map(of_any_size, inputs))
    alike = [outputs for i, outputs in found if list(map(of_any_size, i)) == known]
    return alike[0] if alike and alike == alike[:1] * len(alike) else None


def _dtypes(tensors: Sequence[TensorInfo | None]) -> list[torch.dtype | None]:
    return [None if tensor is None else tensor.dtype for tensor in tensors]


def _without_profile(request: Request) -> Request:
    """What TensorRT knows when it asks for the sizes of outputs."""
    inputs = tuple(map(of_any_size, request.inputs))
    target = request.target or known_target()
    return replace(request, inputs=inputs, target=target, replay=MOST_SHAPES)


_MOST_LAYOUTS = 3  # until what kernels store agrees with what was expected
_ANY_SIZES = (192, 8, 1 << 16)  # of dynamic extents, where no profile is known


@dataclass(frozen=True)
class HiddenOutputs:
    """The outputs of a plugin object that the op does not return.

    TensorRT fixes a plugin's outputs before it asks for tactics, so all tactics share
    these. Each is a row-major tensor of 32-bit words, as large as the largest buffer
    that some tactic has there.

    Attributes:
        kept: by tactic, the hidden buffers that a kernel of it needs.
    """

    plugin: Plugin
    kept: tuple[tuple[Tactic, tuple[int, ...]], ...] = ()

    @property
    def count(self) -> int:
        return max((len(which) for _, which in self.kept), default=0)

    def shapes(self, request: Request) -> list[Shape]:
        """The shape of each in words, whatever the profile of the request is."""
        places: list[list[Shape]] = [[] for _ in range(self.count)]
        for tactic, which in self.kept:
            room = self.plugin.room(tactic, request).shapes
            for place, index in zip(places, which, strict=False):
                place += [room[index]] if index in room else []
        return list(map(widest, places))

    def places(self, tactic: Tactic) -> dict[int, int] | None:
        """For each hidden buffer that a tactic's kernel needs, which output it is.

        None: it needs a buffer that no kernel of this tactic needed when the plugin
        object was made.
        """
        assert tactic.kernel is not None, "only tactics with a kernel are offered"
        if not (needed := tactic.kernel.hidden):
            return {}
        known = {kept.identity: which for kept, which in self.kept}
        which = known.get(tactic.identity, ())
        if not set(needed) <= set(which):
            return None
        return {index: which.index(index) for index in needed}


@dataclass(eq=False)
class StepPlugin(Plugin):
    """The plugin of one launch of an op that is several steps.

    Attributes:
        of: the op's plugin.
        step: which launch.
    """

    of: Plugin = None  # type: ignore[assignment]
    step: Step = None  # type: ignore[assignment]

    def whole(self, request: Request) -> Request:
        """The request for the op that one for this plugin belongs to."""
        count = len(self.of.tensors)
        inputs = request.inputs[:count], request.inputs[count + len(self.step.reads) :]
        return replace(request, inputs=sum(inputs, ()))

    def programs(self, request: Request) -> tuple[Tactic, ...]:
        """This launch of each config that has the same steps, and of each choice."""
        with self._lock:
            if request not in self._programs:
                self._programs[request] = tuple(self._parts(request))
            return self._programs[request]

    def _parts(self, request: Request) -> Iterator[Tactic]:
        whole = self.whole(request)
        structure = self.of.structure(whole)
        if structure is None or self.step not in structure.steps:
            raise errors.UnsupportedKernelError(
                f"{self.op}: {self.of.op} has other steps for inputs {whole.inputs} "
                "than it was taken apart into. Compile the model once more."
            )
        number = 0
        for tactic in self.of.programs(whole):
            if tactic.launch not in (None, self.step.index):
                continue
            number += 1
            known, tactic = tactic.number, replace(tactic, number=number)
            if tactic.program is None:
                yield tactic
            elif known in structure.numbers:
                program = self.step.part(tactic.program)
                choices = program.launch.choices
                if choices and not tactic.choice and not tactic.config:
                    first, index = choices[0], self.step.index
                    tactic = replace(tactic, choice=first, launch=index)
                yield replace(tactic, program=program)
            else:
                yield replace(tactic, program=None, error=self._other_steps(tactic))

    def _other_steps(self, tactic: Tactic) -> AnnotationError:
        return errors.UnsupportedKernelError(
            f"{self.of.op}, {tactic.description}: its steps, or the tensors between "
            "them, differ from those of the first config. TensorRT times each launch "
            "alone: register an op for each kind of config."
        )

    def _record(
        self,
        tactic: Tactic,
        request: Request,
        plain: PlainInputs | None,
        somewhere: bool = False,
    ) -> Tactic:
        """The launch somewhere in the profile; :meth:`_parts` has it everywhere."""
        ran = self.of._record(tactic, self.whole(request), plain, somewhere)
        if ran.program is None:
            return ran
        try:
            return replace(ran, program=self.step.part(ran.program))
        except LookupError:
            where = f"{self.op}: at sizes outside of the profile it has other steps"
            return replace(ran, program=None, error=errors.RecordError(f"{where}."))


def errors_of(tactics: Sequence[Tactic]) -> str:
    """Why each of these tactics is left out, in sentences."""
    return "".join(f" Tactic {t.number}: {t.error}" for t in tactics if t.error)


# --- What is registered ---------------------------------------------------------------


class StepNames(Protocol):
    """The ops of the launches of an op."""

    def name(self, step: Step) -> str:
        """``"ns::name"`` of the op of a launch, registered."""


@dataclass(frozen=True)
class RegisteredOp:
    """One op.

    Attributes:
        plugin: its ahead-of-time plugin; None where only its Python implementation is
            registered.
        dynamic: whether nodes of dynamic shape are converted.
        identity: digest of what it was registered with.
        location: ``file:line`` of the call.
        undo: removes it from every registry; may be called again.
        redo: puts it into ``registered``, and every registry, again after that.
        steps: takes it apart, where its kernels are its own.
    """

    plugin: Plugin | None
    dynamic: bool
    identity: str
    location: str
    undo: Callable[[], None]
    redo: Callable[[], None]
    steps: StepNames | None = None


registered: dict[str, RegisteredOp] = {}
lock = threading.RLock()  # held while an op is registered, or forgotten


def unregister(op: str) -> None:
    """Undo ``custom_op``: the torch op it defined, the plugin and the converter.

    Args:
        op: ``"ns::name"``.

    Raises:
        RegistrationError: it is not registered.
    """
    with lock:
        if op not in registered:
            raise errors.RegistrationError(
                f"{op}: not registered with custom_op. Registered: "
                f"{', '.join(registered) or 'none'}."
            )
        with kept_on_error(op):
            registered[op].undo()
            del registered[op]


@contextlib.contextmanager
def kept_on_error(name: str) -> Iterator[None]:
    """Around what replaces an op, or undoes it: on an error it is there again."""
    op = registered[name]
    try:
        yield
    except BaseException:
        if registered.get(name, op) is op:
            op.undo()
            op.redo()
        raise
