# SPDX-License-Identifier: BSD-3-Clause

"""Check a registered op from a test suite, as ``torch.library.opcheck`` checks an op.

::

    def test_silu():
        x = torch_tensorrt.Input(
            min_shape=(1, 99), opt_shape=(8, 99), max_shape=(64, 99), dtype=torch.half
        )
        tta.testing.check(
            "my::silu", [x], torch.nn.functional.silu, targets=["sm_80", "sm_90"]
        )

A check asks what decides whether an engine is right. Do schema, fake kernel and launch
function describe one op, at every dtype and shape? Does the embedded code read and
write what it should? Do its values agree with a reference?
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode

from . import _target, errors
from ._compile.pool import worker_count
from ._dry_run import dry_run, info_of, named_shapes, plugin_of, shapes_of, torch_op
from ._dry_run.case import MakeInputs, random_inputs
from ._dry_run.interpret import patient
from ._dry_run.memory import tolerance_of
from ._dry_run.program_report import ProgramReport, RunReport
from ._dry_run.report import Dims, DryRunReport, ShapeReport
from ._dry_run.text import extents
from ._plugin import Plugin, Request, registered
from ._record import as_tensors
from ._record.replay import MOST_SHAPES
from ._target import Target
from ._tensors import Range, TensorInfo
from .errors import AnnotationError, CheckError, RecordError, SpecError

__all__ = ["CheckReport", "Failure", "check"]

_SCHEMA, _FAKE, _EXPORT = "schema", "fake kernel", "export"
_RECORDING, _CODE, _VALUES = "recording", "code", "values"
_REMEDIES = {  # in the order of the checks
    _SCHEMA: "Correct the op's schema (parameters, mutates_args, number of outputs) or "
    "the reference, whichever is wrong.",
    _FAKE: "Correct the fake kernel (meta_impl, or register_fake) or the reference, "
    "whichever is wrong.",
    _EXPORT: "Torch-TensorRT exports models in this way. Correct the fake kernel.",
    _RECORDING: "",  # the error says it
    _CODE: "",
    _VALUES: "Correct the kernel, its launch function or the reference. "
    "tta.dry_run(...).show() has every launch.",
}
_OPCHECK = {
    "test_schema": _SCHEMA,
    "test_faketensor": _FAKE,
    "test_aot_dispatch_dynamic": _EXPORT,
}
# Not of the op, but of the call, or of what this machine lacks.
_OF_THE_CALL = (
    *(errors.SpecError, errors.TargetError, errors.ToolchainError),
    errors.DryRunError,
)
_SHOWN = 4  # places of one message


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong.

    Attributes:
        check: which check found it: ``schema``, ``fake kernel``, ``export``,
            ``recording``, ``code`` or ``values``.
        inputs: dtypes and shapes of the inputs, and the target where it matters.
        where: tactic and shape; empty where it is all of them.
        message: what is wrong: what was expected, and what was found.
    """

    check: str
    inputs: str
    where: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What was checked of an op. Prints as text.

    Attributes:
        op: ``"ns::name"``.
        reports: what the dry runs found, in the order of dtypes, shapes and targets.
        checked: names of the checks that ran.
        failures: what is wrong.
        not_checked: what could not be checked, and why.
    """

    op: str
    reports: tuple[DryRunReport, ...]
    checked: tuple[str, ...]
    failures: tuple[Failure, ...]
    not_checked: tuple[str, ...]

    def __str__(self) -> str:
        if not self.failures:
            parts = [f"{self.op} passes {', '.join(self.checked)}."]
        else:
            wrong = {failure.check for failure in self.failures}
            parts = [
                f"{self.op} fails {', '.join(n for n in _REMEDIES if n in wrong)}."
            ]
        blocks: dict[tuple[str, str], dict[str, list[str]]] = {}
        for failure in self.failures:
            block = blocks.setdefault((failure.check, failure.inputs), {})
            block.setdefault(failure.message, []).append(failure.where)
        order = list(_REMEDIES)
        for (name, inputs), messages in sorted(
            blocks.items(), key=lambda block: order.index(block[0][0])
        ):
            lines = (f"{_places(where)}{what}" for what, where in messages.items())
            parts.append(_indented(f"{name}, {inputs}", *lines, _REMEDIES[name]))
        if self.not_checked:
            parts.append(_indented("Not checked:", *self.not_checked))
        return "\n".join(parts)


def _places(where: Sequence[str]) -> str:
    more = len(where) - _SHOWN
    shown = [*filter(None, where[:_SHOWN]), *([f"{more} more"] if more > 0 else [])]
    return f"{'; '.join(shown)}: " if shown else ""


def _indented(heading: str, *lines: str) -> str:
    text = "\n".join(filter(None, lines))
    return f"{heading}\n{textwrap.indent(text, '  ')}"


@errors.raised_here
def check(
    op: str,
    inputs: Sequence[Any],
    reference: Callable[..., Any] | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    dtypes: Sequence[torch.dtype] = (),
    shapes: Sequence[Sequence[Sequence[int] | None]] = (),
    targets: Sequence[Target | str | None] = (None,),
    tolerance: float | Mapping[torch.dtype, float] | None = None,
    make_inputs: MakeInputs | None = None,
    execute: bool | None = None,
    replay: int = MOST_SHAPES,
    seconds: float = 30.0,
) -> CheckReport:
    """Check an op that is registered with ``custom_op(impl=...)``.

    The checks are ``schema``, ``fake kernel`` and ``export`` (``torch.library.opcheck``
    on the op; without a GPU the reference runs in its place), ``recording`` (the launch
    function is recorded, and replayed on plain ints), ``code`` (every tactic compiles,
    and reads and writes what the op declares) and ``values`` (a GPU, or Triton's
    interpreter, runs every tactic on poisoned memory).

    Args:
        op: ``"ns::name"``.
        inputs: the op's tensor inputs, as :func:`.dry_run` takes them. Tensors with
            values are run on as they are; for a ``torch_tensorrt.Input``, a tensor of
            the device ``meta``, and all other shapes and dtypes, values are random.
        reference: called as the op is, and returns the expected outputs; it writes the
            inputs that the op writes. Without one, values are compared with the op's
            own eager run on a GPU, and with nothing elsewhere.
        attributes: values of the op's other arguments, by name.
        dtypes: check once for each, with it in place of the dtype of every
            floating-point input.
        shapes: more shapes to check at: for each, the extents of every input. They are
            points of the profile; without one, each is compiled for by itself.
        targets: check for each, as :func:`.dry_run` takes it.
        tolerance: the largest error allowed in floats, as :func:`.dry_run` takes it; or
            one for each of ``dtypes``.
        make_inputs: takes the extents of each input and returns the tensors.
        execute, replay: as :func:`.dry_run` takes them.
        seconds: of CPU time, for which the kernels of one dry run are interpreted,
            without a GPU.

    Returns:
        What was checked, with the reports of the dry runs, and what was not, and why.

    Raises:
        CheckError: a check failed; an ``AssertionError`` that lists all failures.
        SpecError: the inputs, attributes or shapes are not those of the op.
        DryRunError: the op is not registered with kernels of its own.
        TargetError: there is nothing to compile for.
        ToolchainError: the kernels' language is not installed.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    how: dict[str, Any] = {
        "attributes": attributes,
        "make_inputs": make_inputs,
        "execute": execute,
        "replay": replay,
    }
    this = _Check(plugin_of(op), inputs, reference, how, tolerance)
    with patient(seconds):
        report = this(dtypes, shapes, targets)
    if report.failures:
        raise CheckError(report)
    return report


class _Check:
    """One call of :func:`check`: what it found so far, in the order it was found."""

    def __init__(
        self,
        plugin: Plugin,
        inputs: Sequence[Any],
        reference: Callable[..., Any] | None,
        how: dict[str, Any],
        tolerance: float | Mapping[torch.dtype, float] | None,
    ) -> None:
        self._plugin, self._how = plugin, how
        self._reference = None if reference is None else self._noting(reference)
        self._raised: BaseException | None = None  # by the reference
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._attributes = {**plugin.defaults, **(how["attributes"] or {})}
        omitted = [None] * (len(plugin.tensors) - len(inputs))
        self._inputs = [*inputs, *omitted]
        if len(self._inputs) != len(plugin.tensors):
            raise SpecError(
                f"check: {plugin.op} takes {len(plugin.tensors)} tensors, "
                f"{', '.join(plugin.tensors)}; got {len(inputs)}."
            )
        self._infos = tuple(map(info_of, self._inputs))
        self._tolerance = tolerance
        self._reports: list[DryRunReport] = []
        self._checked: set[str] = set()
        self._failures: dict[Failure, None] = {}
        self._not_checked: dict[str, list[str]] = {}

    def __call__(
        self,
        dtypes: Sequence[torch.dtype],
        shapes: Sequence[Sequence[Sequence[int] | None]],
        targets: Sequence[Target | str | None],
    ) -> CheckReport:
        is_dynamic = any(info and info.is_dynamic for info in self._infos)
        for infos in self._of_dtypes(dtypes):
            if is_dynamic:
                self._check(infos, shapes, targets)
                continue
            for static in (infos, *(self._at(infos, dims) for dims in shapes)):
                self._check(static, (), targets)
        if not is_dynamic and not shapes:
            self._no_ragged_shapes()
        if self._reference is None:
            self._skip("there is no reference= to compare with", _VALUES)
        not_checked = (
            f"{_places(list(dict.fromkeys(what)))}{why}"
            for why, what in self._not_checked.items()
        )
        return CheckReport(
            self._plugin.op,
            tuple(self._reports),
            tuple(name for name in _REMEDIES if name in self._checked),
            tuple(self._failures),
            tuple(not_checked),
        )

    def _noting(self, reference: Callable[..., Any]) -> Callable[..., Any]:
        """The reference, which keeps what it raises in ``_raised``."""

        @functools.wraps(reference)
        def call(*args: Any, **keywords: Any) -> Any:
            try:
                return reference(*args, **keywords)
            except Exception as error:
                self._raised = error
                raise

        return call

    def _fail(self, name: str, inputs: str, where: str, message: str) -> None:
        self._checked.add(name)
        self._failures[Failure(name, inputs, where, message)] = None

    def _skip(self, why: str, what: str) -> None:
        self._not_checked.setdefault(why, []).append(what)

    def _no_ragged_shapes(self) -> None:
        more = "give more with shapes=[...]"
        if registered[self._plugin.op].dynamic:
            more += ", or a profile: torch_tensorrt.Input(min_shape=..., ...)"
        self._skip(f"the inputs are static; {more}", "other shapes")

    def _of_dtypes(
        self, dtypes: Sequence[torch.dtype]
    ) -> Iterator[tuple[TensorInfo | None, ...]]:
        """The inputs in each dtype; as they are, where none is given."""
        if not dtypes:
            yield self._infos
            return
        if not any(info and info.dtype.is_floating_point for info in self._infos):
            raise SpecError(
                f"check: dtypes= replaces the dtype of floating-point inputs, and "
                f"{self._plugin.op} gets none. Call check with each dtype of inputs."
            )
        for dtype in dtypes:
            yield tuple(
                replace(info, dtype=dtype)
                if info and info.dtype.is_floating_point
                else info
                for info in self._infos
            )

    def _at(
        self,
        infos: Sequence[TensorInfo | None],
        dims: Sequence[Sequence[int] | None],
    ) -> tuple[TensorInfo | None, ...]:
        """Static inputs of other extents."""
        if [d is None for d in dims] != [info is None for info in infos]:
            raise SpecError(
                f"check: {self._plugin.op} gets {len(infos)} inputs, and shapes= has "
                f"{dims!r}. Give the extents of every input; None for one that is None."
            )
        return tuple(
            info and TensorInfo(tuple(map(int, d or ())), info.dtype)
            for info, d in zip(infos, dims, strict=True)
        )

    # --- One dtype, one profile -------------------------------------------------------

    def _check(
        self,
        infos: tuple[TensorInfo | None, ...],
        shapes: Sequence[Sequence[Sequence[int] | None]],
        targets: Sequence[Target | str | None],
    ) -> None:
        inputs = ", ".join(
            f"{name}: {_shown(info)}"
            for name, info in zip(self._plugin.tensors, infos, strict=True)
            if info is not None
        )
        before = len(self._failures)
        given = (*infos, *self._plugin.weight_infos)
        request = Request.of(given, self._attributes, None)
        tried = shapes_of(self._plugin, request, self._device == "cpu")
        tried |= named_shapes(self._plugin, shapes)
        differing = [
            name
            for name, dims in tried.items()
            if not self._compare_fakes(infos, name, dims[: len(infos)], inputs)
        ]
        if differing:
            where = f"{_VALUES} of {inputs}"
            self._skip("the reference is for other outputs", where)
        for target in targets:
            of_target = f"{inputs}; {target}" if target else inputs
            how = self._how | ({"execute": False} if differing else {})
            report = self._dry_run(infos, shapes, target, how, of_target)
            if report is not None:
                self._reports.append(report)
                if not differing:
                    self._look_at(report, of_target)
        # Where something is wrong, opcheck would tell it again; and it runs the op
        # without guards around its tensors.
        if len(self._failures) == before:
            name = next(n for n in ("ragged", "static", "min") if n in tried)
            self._opcheck(infos, tried[name][: len(infos)], inputs)

    def _dry_run(
        self,
        infos: Sequence[TensorInfo | None],
        shapes: Sequence[Sequence[Sequence[int] | None]],
        target: Target | str | None,
        how: Mapping[str, Any],
        inputs: str,
    ) -> DryRunReport | None:
        how = {**how, "make_inputs": self._makes_inputs(infos)}
        self._checked.update((_RECORDING, _CODE))
        try:
            report = dry_run(
                self._plugin.op,
                infos,
                target,
                reference=self._reference,
                tolerance=self._tolerance_for(infos),
                shapes=shapes,
                **how,
            )
        except Exception as error:
            if error is self._raised:
                told = f"the reference raises {type(error).__name__}: {error}"
                self._fail(_VALUES, inputs, "", told)
                return None
            is_ours = isinstance(error, AnnotationError)
            if not is_ours or isinstance(error, _OF_THE_CALL):
                raise
            name = _RECORDING if isinstance(error, RecordError) else _CODE
            self._fail(name, inputs, "", str(error))
            return None
        if not isinstance(report, ProgramReport):
            with _target.compiling_for(target):
                here = _target.current_target()
            given = (*infos, *self._plugin.weight_infos)
            request = Request.of(given, self._attributes, here, self._how["replay"])
            for tactic in self._plugin.kernels(request):
                if tactic.error is not None:
                    self._left_out(tactic.error, inputs, f"tactic {tactic.number}")
        return report

    def _left_out(self, error: AnnotationError, inputs: str, where: str) -> None:
        if isinstance(error, errors.ToolchainError):
            self._skip(str(error), where)  # another machine has the language
            return
        name = _RECORDING if isinstance(error, RecordError) else _CODE
        self._fail(name, inputs, where, str(error))

    def _tolerance_for(self, infos: Sequence[TensorInfo | None]) -> float | None:
        if not isinstance(self._tolerance, Mapping):
            return self._tolerance
        dtypes = (info.dtype for info in infos if info)
        known = (self._tolerance[d] for d in dtypes if d in self._tolerance)
        return next(known, None)

    def _makes_inputs(self, infos: Sequence[TensorInfo | None]) -> MakeInputs | None:
        """What makes the tensors; the user's own have their own values."""
        if (make := self._how["make_inputs"]) is not None:
            return make  # type: ignore[no-any-return]
        dtypes = [torch.bool if info is None else info.dtype for info in infos]
        if not any(isinstance(value, torch.Tensor) for value in self._inputs):
            return None

        def made(dims: Dims) -> Sequence[torch.Tensor | None]:
            each = zip(self._inputs, random_inputs(dims, dtypes, "cpu"), strict=True)
            return [given if _is_like(given, other) else other for given, other in each]

        return made

    def _look_at(self, report: DryRunReport, inputs: str) -> None:
        """What a dry run found by running the kernels."""
        if report.was_run:
            self._checked.add(_VALUES)
        found: list[tuple[str, Any]] = []
        for launch in report.launches:
            step = "" if launch is report else f"{launch.op}, "
            for tactic in launch.tactics:
                which = f"{step}tactic {tactic.tactic}"
                if tactic.error is not None and step:
                    self._fail(_CODE, inputs, which, tactic.error)
                found += [(f"{which} at {_named(s)}", s) for s in tactic.shapes]
        if isinstance(report, ProgramReport):
            found += [(f"all steps at {_named(run)}", run) for run in report.runs]
        for where, shape in found:
            if shape.failure:
                self._fail(_VALUES, inputs, where, shape.failure)
            elif shape.ok is None:
                self._skip(shape.skipped or self._why_not_run(report), where)

    def _why_not_run(self, report: DryRunReport) -> str:
        if self._how["execute"] is False:
            return "execute=False runs nothing"
        if worker_count() == 0:
            return "with TTA_JOBS=1 there is no process to interpret kernels in"
        languages = {t.backend for launch in report.launches for t in launch.tactics}
        return (
            f"{' and '.join(sorted(languages))} has no interpreter, and no GPU here "
            f"runs code for {report.target}; check it on one"
        )

    # --- The op as torch sees it ------------------------------------------------------

    def _by_name(self, tensors: Sequence[torch.Tensor | None]) -> dict[str, Any]:
        return dict(zip(self._plugin.tensors, tensors, strict=True)) | self._attributes

    def _compare_fakes(
        self,
        infos: Sequence[TensorInfo | None],
        name: str,
        dims: Dims,
        inputs: str,
    ) -> bool:
        """Whether fake kernel and reference agree on the outputs at one shape."""
        if self._reference is None:
            return True
        where = f"at {name} {_dims(dims)}"

        with FakeTensorMode(allow_non_fake_inputs=True):
            try:
                given = _empty(infos, dims, "cuda")  # as the op is recorded
                called = torch_op(self._plugin)(**self._by_name(given))
                found = as_tensors(called, "the op")
            except Exception as error:  # of the user's own function
                told = f"the fake kernel raises {type(error).__name__}: {error}"
                self._fail(_FAKE, inputs, where, told)
                return False
            try:
                given = _empty(infos, dims, self._device)
                called = self._reference(*given, **self._attributes)
                expected = as_tensors(called, "the reference")
            except Exception as error:  # it need not run on fake tensors
                why = f"the reference does not run on fake tensors: {error}"
                self._skip(why, f"{_FAKE} against the reference")
                return True
        self._checked.add(_FAKE)
        if len(found) != len(expected):
            told = f"the op has {len(found)} outputs, the reference {len(expected)}."
            self._fail(_SCHEMA, inputs, "", told)
            return False
        agrees = True
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            gives = [f"{str(t.dtype)[6:]} {extents(t.shape)}" for t in (ours, theirs)]
            if gives[0] != gives[1]:
                told = f"output {index}: the fake kernel gives {gives[0]}, the "
                self._fail(_FAKE, inputs, where, f"{told}reference {gives[1]}.")
                agrees = False
        return agrees

    def _opcheck(
        self, infos: Sequence[TensorInfo | None], dims: Dims, inputs: str
    ) -> None:
        """What ``torch.library.opcheck`` says of the op, or of the reference as it."""
        op, where = torch_op(self._plugin).default, f"at {_dims(dims)}"
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        is_own = self._device == "cuda" or has_kernel(self._plugin.op, "CPU")
        if not is_own and (why := self._why_not_in_place(infos, dims)):
            self._skip(why, f"{_SCHEMA}, {_EXPORT}")
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # torch's, about its own code
            stack.enter_context(torch.random.fork_rng())
            if not is_own:
                stack.enter_context(self._in_place_of(op))
            tensors = self._tensors(infos, dims)
            copies = [t if t is None else t.clone() for t in tensors]
            try:
                outputs = as_tensors(op(**self._by_name(copies)), "the op")
            except Exception as error:  # of the user's own function
                who = "the op's own eager run" if is_own else "the reference"
                told = f"{who} raises {type(error).__name__}: {error}"
                self._fail(_VALUES, inputs, where, told)
                return
            floats = [t.dtype for t in outputs if t.dtype.is_floating_point]
            tests = list(_OPCHECK)
            definition = torch._library.custom_ops.OPDEFS.get(self._plugin.op)
            rules = definition._torch_dispatch_fns if definition else ()
            if not is_own and FunctionalTensorMode in rules:
                self._skip("torch.library.triton_op needs a GPU for it", _EXPORT)
                tests.remove("test_aot_dispatch_dynamic")
            given = self._tolerance_for(infos)
            allowed = max([tolerance_of(d, given) for d in floats], default=1e-5)
            results = torch.library.opcheck(
                op,
                (),
                self._by_name(tensors),
                test_utils=tests,
                raise_exception=False,
                rtol=allowed,
                atol=allowed,
            )
        for test, result in results.items():
            name, told = _OPCHECK[test], f"torch.library.opcheck, {test}: {result}"
            if "not implemented for" in told:
                self._skip(told, name)  # torch lacks an operation for the dtype
            elif isinstance(result, BaseException):
                self._fail(name, inputs, where, told)
            else:
                self._checked.add(name)

    def _tensors(
        self, infos: Sequence[TensorInfo | None], dims: Dims
    ) -> list[torch.Tensor | None]:
        dtypes = [torch.bool if info is None else info.dtype for info in infos]
        make = self._makes_inputs(infos)
        made = make(dims) if make else random_inputs(dims, dtypes, self._device)
        return [t if t is None else t.to(self._device) for t in made]

    def _why_not_in_place(self, infos: Sequence[TensorInfo | None], dims: Dims) -> str:
        """Why the reference cannot take the op's place on the CPU; empty if it can."""
        if self._reference is None:
            return "no GPU here runs the op, and no reference= takes its place"
        try:
            with FakeTensorMode():
                torch_op(self._plugin)(**self._by_name(_empty(infos, dims, "cpu")))
        except Exception as error:  # of the user's own function
            return f"the fake kernel does not take tensors of the CPU: {error}"
        return ""

    @contextlib.contextmanager
    def _in_place_of(self, op: torch._ops.OpOverload) -> Iterator[None]:
        """Meanwhile the op runs the reference on the CPU, into outputs of its own."""
        arguments = [argument.name for argument in op._schema.arguments]
        tensors = self._plugin.tensors

        def run(*args: Any, **keywords: Any) -> Any:
            assert self._reference is not None, "it takes the op's place"
            named = dict(zip(arguments, args, strict=False)) | keywords
            rest = {k: named.get(k, v) for k, v in self._attributes.items()}
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                fakes = {
                    name: mode.from_tensor(value)
                    if isinstance(value, torch.Tensor)
                    else value
                    for name, value in named.items()
                }
                like = as_tensors(torch_op(self._plugin)(**fakes), "the op")
            returned = self._reference(*(named.get(n) for n in tensors), **rest)
            outputs = tuple(
                torch.empty_strided(t.shape, fake.stride(), dtype=t.dtype).copy_(t)
                for t, fake in zip(as_tensors(returned, ""), like, strict=True)
            )
            return outputs[0] if len(outputs) == 1 else (outputs or None)

        namespace, _, name = self._plugin.op.partition("::")
        with torch.library._scoped_library(namespace, "FRAGMENT") as library:
            library.impl(name, run, "CPU")
            yield


def _empty(
    infos: Sequence[TensorInfo | None], dims: Dims, device: str
) -> list[torch.Tensor | None]:
    return [
        None if info is None else torch.empty(of or (), dtype=info.dtype, device=device)
        for info, of in zip(infos, dims, strict=True)
    ]


def _is_like(given: Any, other: torch.Tensor | None) -> bool:
    """Whether a user's tensor, with its values, is of the shape and dtype wanted."""
    return (
        isinstance(given, torch.Tensor)
        and other is not None
        and given.device.type != "meta"
        and (given.shape, given.dtype) == (other.shape, other.dtype)
    )


def _shown(info: TensorInfo) -> str:
    each = (f"{e.min}..{e.max}" if isinstance(e, Range) else str(e) for e in info.shape)
    return f"{str(info.dtype).removeprefix('torch.')} {'x'.join(each) or 'scalar'}"


def _dims(dims: Dims) -> str:
    return ", ".join(map(extents, dims))


def _named(shape: ShapeReport | RunReport) -> str:
    dims = _dims(shape.dims)
    return dims if dims == shape.name else f"{shape.name} {dims}"
