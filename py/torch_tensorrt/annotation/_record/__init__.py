# SPDX-License-Identifier: BSD-3-Clause

"""Record a launch function: run it on fake tensors, and keep what it launches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .._sizes.expressions import shown
from .._sizes.values import needs_one_value, only_value
from .._target import known_target
from .._tensors import (
    LINEAR,
    MAX_RANK,
    Formats,
    TensorInfo,
    empty_buffers,
    formats_of,
)
from ..errors import (
    AnnotationError,
    ArgumentError,
    DataDependentError,
    FormatError,
    LaunchCountError,
    place,
)
from .address import Address
from .branches import ShapesRejected, Subject, trace, trace_somewhere
from .descriptor import read_descriptor
from .operations import CaughtOperation, Operations, read_operation, storage_of
from .program import (
    Argument,
    CaughtDescriptor,
    CaughtLaunch,
    Constant,
    Grid,
    Launch,
    Operation,
    Output,
    Pointer,
    Program,
    Scalar,
    View,
    are_equal,
    scalar,
)
from .recording import (
    Purpose,
    count_launch,
    in_torch,
    raise_refusals,
    recorded_for,
)
from .replay import PlainInputs, numbers_in
from .tracing import Trace
from .tracing import as_tensors as as_tensors

_FEW_SHAPES = 8


class Interceptor(Protocol):
    """The part of a backend that catches launches while a function is recorded."""

    def intercept(
        self,
        on_launch: Callable[[CaughtLaunch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[None]: ...


def infer_outputs(
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo | None],
    what: str,
    sizes_matter: bool = True,
) -> tuple[Output, ...]:
    """Shapes and dtypes of what the fake kernel ``meta`` returns for ``inputs``.

    Args:
        what: how errors name it.
        sizes_matter: False where only ranks and dtypes are wanted.

    Raises:
        RecordError: see its subclasses.
    """

    subject = Subject(what)

    def run(run: Trace) -> Program:
        return Program((), _read_outputs(run, _fake_outputs(run, meta, what)))

    with recorded_for(Purpose(known_target())):
        if not sizes_matter:
            return trace_somewhere(run, inputs, subject).outputs
        # What is compiled is replayed in full; this is asked for often, and for any
        # size.
        return trace(run, inputs, subject, PlainInputs(inputs, _FEW_SHAPES)).outputs


@dataclass(frozen=True)
class Call:
    """How a launch function is called.

    Attributes:
        keywords: config and attributes; a ``stream`` is added where it is declared.
        overrides: keywords of the kernel's launch, in place of what it says; None lets
            an autotuner take its first choice.
        names: of the inputs, for an op's body, which is called by name and returns its
            outputs; None for a function that is handed its outputs.
        input_formats, output_formats: of the tensors, as a spec names them.
        weights: how many of the inputs are constants.
        writable: the inputs that the op says it writes, by number.
        purpose: what the function is recorded for.
    """

    keywords: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None
    input_formats: Formats = None
    output_formats: Formats = None
    weights: int = 0
    writable: frozenset[int] = frozenset()
    purpose: Purpose = field(default_factory=Purpose)


def record(
    interceptor: Interceptor,
    launch_fn: Callable[..., Any],
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo | None],
    call: Call = Call(),
    plain: PlainInputs | None = None,
    somewhere: bool = False,
) -> Program:
    """The program of ``launch_fn``.

    Args:
        interceptor: catches its launches.
        meta: gives the outputs for the inputs.
        plain: inputs to replay on, where several functions with this ``meta`` share
            them.
        somewhere: run the function once, at some sizes of the profile. The result is a
            proposal, which the caller checks.

    Raises:
        RecordError: see its subclasses.
    """
    _require_ranks("input", [len(info.shape) if info else 0 for info in inputs])
    function = _Function(launch_fn, call)
    what = function.what

    def run(run: Trace) -> Program:
        expected = _fake_outputs(run, meta, "the fake kernel")
        if run.buffers is None:
            run.buffers = _engines_own(expected)
        with _rejecting(function.subject) if somewhere else nullcontext():
            ran = function.run(run.inputs, run.buffers)
        if call.names is not None:
            _require_as_declared(run, ran.outputs, expected, what)
        # What follows only reads tensors, which is faster past torch's modes.
        with torch._C.DisableTorchFunction():
            return _Reader(run, ran, what).program(call.writable)

    with (
        recorded_for(call.purpose),
        interceptor.intercept(function.catch, call.overrides),
    ):
        if somewhere:
            program = trace_somewhere(run, inputs, function.subject)
            return replace(program, inputs=tuple(inputs))
        plain = plain or PlainInputs(inputs)
        read = numbers_in(launch_fn, meta)
        program = trace(run, inputs, function.subject, plain, read)
    program = replace(program, inputs=tuple(inputs))
    _require_outputs_written(program, what)
    return program


def buffers(
    interceptor: Interceptor,
    launch_fn: Callable[..., Any],
    expected: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor | None],
    call: Call,
) -> list[torch.Tensor]:
    """The tensors that a launch function makes, within a recording of another function.

    Args:
        expected: what the fake kernel returns.
        inputs: fake tensors of the recording.

    Returns:
        Those of ``record(...).hidden``, unless the program is a plugin.
    """
    function = _Function(launch_fn, call)
    with (
        recorded_for(call.purpose),
        interceptor.intercept(function.catch, call.overrides),
    ):
        ran = function.run(inputs, _engines_own(expected))
    with torch._C.DisableTorchFunction():
        return _Reader(None, ran, function.what).buffers()


@dataclass(frozen=True)
class _Ran:
    """One run of a launch function.

    Attributes:
        inputs: as the function got them.
        outputs: as torch sees them.
        returned: their memory.
        formats: of all.
    """

    operations: Operations
    inputs: tuple[torch.Tensor | None, ...]
    outputs: tuple[torch.Tensor, ...]
    returned: tuple[torch.Tensor, ...]
    formats: tuple[str, ...]


def _engines_own(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Contiguous memory for each, as an engine has it, whatever the fake kernel's."""
    return tuple(torch.empty(o.shape, dtype=o.dtype, device="cuda") for o in outputs)


class _Function:
    """A launch function, and how it is called; each run is noted."""

    def __init__(self, launch_fn: Callable[..., Any], call: Call) -> None:
        self.what = f"launch function {describe(launch_fn)}"
        how = "with the op's inputs, then with its outputs"
        if call.names is not None:
            how = "as the op is, and returns its outputs"
        self.subject = Subject(self.what, f"It is called {how}.")
        self._launch_fn, self._call = launch_fn, call
        self._keywords: dict[int, Mapping[str, Any]] = {}  # by the number of outputs
        self._operations = Operations(self.what)

    def catch(self, launch: CaughtLaunch) -> None:
        """Note a launch of the current run."""
        self._operations.steps.append(launch)
        count_launch()

    def run(
        self,
        inputs: Sequence[torch.Tensor | None],
        outputs: tuple[torch.Tensor, ...],
    ) -> _Ran:
        """Call it with fake tensors.

        Args:
            outputs: buffers for what the fake kernel returns.
        """
        launch_fn, call, what = self._launch_fn, self._call, self.what
        self._operations = operations = Operations(what)
        tensors: tuple[torch.Tensor | None, ...] = (*inputs, *outputs)
        formats = (LINEAR,) * len(tensors)
        if call.input_formats or call.output_formats:
            formats = (
                *formats_of(call.input_formats, inputs, call.weights, "input"),
                *formats_of(call.output_formats, outputs, 0, "output"),
            )
            tensors = empty_buffers(formats, tensors)
        given, buffers = tensors[: len(inputs)], tensors[len(inputs) :]
        operations.begin(given, buffers, call.writable)
        with operations:
            if call.names is None:
                if (count := len(outputs)) not in self._keywords:
                    self._keywords[count] = _keywords(
                        launch_fn, what, tensors, count, call
                    )
                launch_fn(*tensors, **self._keywords[count])
                returned = tuple(t for t in buffers if t is not None)
            else:
                named = dict(zip(call.names, inputs, strict=True))
                returned = as_tensors(launch_fn(**named, **call.keywords), what)
                outputs = returned
        raise_refusals()
        names = tuple(fmt.name for fmt in formats)
        return _Ran(operations, given, outputs, returned, names)


@contextmanager
def _rejecting(subject: Subject) -> Iterator[None]:
    """Around a function that may run at other sizes than those that it raises at."""
    try:
        yield
    except AnnotationError:
        raise
    except Exception as error:
        raise ShapesRejected(subject) from error


def _require_outputs_written(program: Program, what: str) -> None:
    """Every output must reach a step: nothing else in an engine fills it."""
    reached = {p.tensor for launch in program.launches for p in launch.pointers}
    for step in program.steps:
        if isinstance(step, Operation):
            reached |= {*step.results, *(view.tensor for view in step.written)}
    first = len(program.inputs)
    own = range(first, first + len(program.outputs))
    for index, tensor in enumerate(
        v.tensor for v in program.returned or map(View, own)
    ):
        if tensor < first:
            raise ArgumentError(
                f"{what}: output {index} comes from an input. An engine's outputs are "
                "memory of their own: return a tensor that the op allocates."
            )
        if tensor not in reached:
            where = f"kernel {program.launch.name}" if program.is_plugin else what
            raise ArgumentError(
                f"{where}: output {index} of the meta function is not an argument of "
                "the launch, so nothing would write it. Let the meta function return "
                "what the launch function takes after the inputs."
            )


def _keywords(
    launch_fn: Callable[..., Any],
    what: str,
    tensors: Sequence[torch.Tensor | None],
    num_outputs: int,
    call: Call,
) -> Mapping[str, Any]:
    """The keywords for ``launch_fn``, which takes the tensors and them."""
    signature, keywords = inspect.signature(launch_fn), call.keywords
    if "stream" in signature.parameters:
        keywords = {"stream": 0, **keywords}
    given = (
        f"{what} takes {signature}, and would be called with "
        f"{len(tensors) - num_outputs} inputs, {num_outputs} outputs of the meta "
        f"function, and keywords {', '.join(keywords) or 'none'}"
    )
    try:
        bound = signature.bind(*tensors, **keywords)
    except TypeError as error:
        raise ArgumentError(
            f"{given}: {error}.{_instead(signature, tensors, num_outputs, keywords)}"
        ) from error
    for name, value in bound.arguments.items():
        default = signature.parameters[name].default
        if isinstance(value, torch.Tensor) and isinstance(default, int | float | str):
            raise ArgumentError(
                f"{given}: `{name}={default!r}` would get a tensor. Take one parameter "
                "for each input, weight and output before it."
            )
    return keywords


def _instead(
    signature: inspect.Signature,
    tensors: Sequence[torch.Tensor | None],
    num_outputs: int,
    keywords: Mapping[str, Any],
) -> str:
    """What to do where a function takes the inputs alone."""
    try:
        signature.bind(*tensors[: len(tensors) - num_outputs], **keywords)
    except TypeError:
        return ""
    return (
        " If it allocates and returns its outputs, let it take them as parameters "
        "after the inputs; or make it the body of a torch.library.custom_op, and leave "
        "the function out of impl=."
    )


def _require_as_declared(
    run: Trace,
    returned: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    what: str,
) -> None:
    """Raise unless an op's body returned what its fake kernel says."""
    found, wanted = _read_outputs(run, returned), _read_outputs(run, expected)
    if not are_equal(found, wanted, run.ranges):
        raise ArgumentError(
            f"{what} returns {found}, and the op's fake kernel {wanted}. One of them "
            "is wrong, unless dimensions are always equal: then let the fake kernel "
            "say so, torch._check(x.shape[0] == y.shape[0])."
        )


def _fake_outputs(
    run: Trace, meta: Callable[..., Any], what: str
) -> tuple[torch.Tensor, ...]:
    if run.outputs is None:
        try:
            outputs = meta(*run.inputs)
        except AnnotationError:
            raise
        except Exception as error:
            raise ShapesRejected(Subject(what)) from error
        run.outputs = as_tensors(outputs, what)
    return run.outputs


def describe(function: Callable[..., Any]) -> str:
    """``name (file:line)`` of a function, for messages; of torch's, its full name."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    if code and in_torch(code.co_filename):
        return f"{function.__module__}.{name}"
    return f"{name} ({place(code.co_filename, code.co_firstlineno)})" if code else name


class _Reader:
    """Reads the program of one run, which is over.

    Args:
        run: None where only the buffers are wanted.
    """

    def __init__(self, run: Trace | None, ran: _Ran, what: str) -> None:
        self._trace, self._ran, self._what = run, ran, what
        self._operations = ran.operations
        numbered = enumerate(ran.inputs)
        self._numbers = {storage_of(t): i for i, t in numbered if t is not None}
        self._buffers: list[torch.Tensor] = []  # numbered from there on

    @property
    def _run(self) -> Trace:
        assert self._trace is not None, "it was made to read a program"
        return self._trace

    def program(self, writable: frozenset[int]) -> Program:
        """The program, without what is known of its inputs."""
        ran, steps = self._ran, self._live()
        if not self._operations.launches:
            raise LaunchCountError(
                f"{self._what} launched no kernel. It must launch one or more, "
                "whatever the sizes are, in the language of its spec."
            )
        self._settle(steps)
        storages = set(map(storage_of, ran.returned))
        is_plugin = len(steps) == 1 and not writable
        is_plugin &= all(map(self._operations.is_whole, ran.returned))
        is_plugin &= len(storages) == len(ran.returned)
        if is_plugin:
            for tensor in ran.returned:
                self._number(tensor)
        elif {*ran.formats} - {"LINEAR"}:
            raise FormatError(
                f"{self._what}: formats of a function that does more than one launch "
                f"into new outputs: {', '.join(ran.formats)}. Leave the formats out."
            )
        read = tuple(map(self._step, steps))
        views = tuple(map(self._view, () if is_plugin else ran.returned))
        hidden = self._buffers[len(ran.outputs) :] if is_plugin else self._buffers
        return Program(
            inputs=(),
            outputs=_read_outputs(self._run, ran.outputs),
            steps=read,
            formats=ran.formats,
            hidden=_read_outputs(self._run, hidden, "hidden buffer"),
            returned=views,
            writable=tuple(sorted(writable)),
        )

    def buffers(self) -> list[torch.Tensor]:
        """The tensors that the function makes, in the order of a program's steps."""
        steps = self._live()
        self._settle(steps)
        for step in steps:
            if isinstance(step, CaughtLaunch):
                tensors = step.tensors
            else:
                tensors = [*step.tensors, *step.results]
            for tensor in tensors:
                self._number(tensor)
        for tensor in self._ran.returned:
            self._number(tensor)
        return self._buffers

    def _settle(self, steps: Sequence[CaughtLaunch | CaughtOperation]) -> None:
        for step in steps:
            if isinstance(step, CaughtLaunch):
                for _, value, _ in step.arguments:
                    if isinstance(value, torch.Tensor):
                        self._operations.settle(value)

    def _live(self) -> list[CaughtLaunch | CaughtOperation]:
        """The launches, and the operations that one of them or the result needs."""
        needed = self._numbers.keys() | set(map(storage_of, self._ran.returned))
        live: list[CaughtLaunch | CaughtOperation] = []
        for step in reversed(self._operations.steps):
            if isinstance(step, CaughtOperation):
                made = {*step.written, *map(storage_of, step.results)}
                if not needed & made:
                    continue
            needed |= set(map(storage_of, step.tensors))
            live.append(step)
        return live[::-1]

    def _step(self, step: CaughtLaunch | CaughtOperation) -> Launch | Operation:
        if isinstance(step, CaughtLaunch):
            return Launch(
                kernel=step.kernel,
                name=step.name,
                grid=_read_grid(self._run, step),
                arguments=tuple(_read_arguments(self._run, step, self._pointed)),
                options=tuple(_read_options(self._run, step)),
                choices=step.choices,
            )
        how = self._view, self._number, self._run.expr, self._operations
        return read_operation(step, *how)

    def _pointed(self, tensor: torch.Tensor, where: str) -> int:
        """The number of a tensor that a kernel gets."""
        self._operations.require_dense(tensor, where)
        return self._number(tensor)

    def _number(self, tensor: torch.Tensor) -> int:
        storage = storage_of(tensor)
        if storage not in self._numbers:
            whole = self._operations.made(tensor, self._what).tensor
            self._numbers[storage] = len(self._ran.inputs) + len(self._buffers)
            self._buffers.append(whole)
        return self._numbers[storage]

    def _view(self, tensor: torch.Tensor) -> View:
        return self._operations.view(tensor, self._number(tensor), self._run.expr)


def _read_outputs(
    run: Trace, tensors: Iterable[torch.Tensor], what: str = "output"
) -> tuple[Output, ...]:
    outputs = [Output(tuple(map(run.expr, t.shape)), t.dtype) for t in tensors]
    _require_ranks(what, [len(output.shape) for output in outputs])
    return tuple(outputs)


def _require_ranks(what: str, ranks: Sequence[int]) -> None:
    for index, rank in enumerate(ranks):
        if rank > MAX_RANK:
            raise ArgumentError(
                f"{what} {index} has {rank} dimensions; TensorRT's tensors have "
                f"{MAX_RANK} at most. Merge some before the op."
            )


def _read_grid(run: Trace, launch: CaughtLaunch) -> Grid | None:
    """Blocks along x, y and z; None where only the compiled kernel says it."""
    if launch.grid is None:
        return None
    if not 1 <= len(launch.grid) <= 3:
        raise ArgumentError(
            f"kernel {launch.name}: the grid has {len(launch.grid)} dimensions; "
            "1 to 3 are possible."
        )
    for size in launch.grid:
        if not _is_integer(size):
            raise ArgumentError(
                f"kernel {launch.name}: the grid holds {size!r}, which is not an int. "
                "Divide with //, or with your language's cdiv."
            )
    x, y, z = map(run.expr, [*launch.grid, 1, 1][:3])
    return x, y, z


def _read_options(run: Trace, launch: CaughtLaunch) -> Iterator[tuple[str, Any]]:
    """The options by name; one that follows the shape must have one value."""
    for name, value in sorted(launch.options.items()):
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            where = f"kernel {launch.name}, option `{name}`"
            value = _read_symbolic_constant(run, name, value, True, where).value
        yield name, value


def _read_arguments(
    run: Trace, launch: CaughtLaunch, number: Callable[[torch.Tensor, str], int]
) -> Iterator[Argument]:
    """Each argument in its role: a tensor of the program's, a number, or a constant."""
    for name, value, is_constant in launch.arguments:
        where = f"kernel {launch.name}, argument `{name}`"
        if isinstance(value, torch.Tensor):
            layout = (
                (value.shape, value.stride()) if launch.passes_layouts else ((), ())
            )
            shape, strides = (tuple(map(run.expr, sizes)) for sizes in layout)
            offset = run.expr(value.storage_offset())
            tensor = number(value, where)
            yield Pointer(name, tensor, value.dtype, shape, strides, offset)
        elif isinstance(value, CaughtDescriptor):
            tensor = number(value.tensor, where)
            yield read_descriptor(name, value, tensor, run.expr, run.ranges, where)
        elif type(value) is Address:
            raise ArgumentError(
                f"{where}: the launch function asks for a tensor's address and passes "
                "it on. An engine knows it when it runs: pass the tensor itself."
            )
        elif isinstance(value, torch.SymInt | torch.SymBool) and not is_constant:
            yield scalar(name, run.expr(value))
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            yield _read_symbolic_constant(run, name, value, is_constant, where)
        elif _is_integer(value) and not is_constant:
            yield Scalar(name, run.expr(value))
        elif is_constant or value is None or isinstance(value, float | bool | str):
            yield Constant(name, value)
        else:
            raise ArgumentError(
                f"{where}: {type(value).__name__} {value!r} is neither an input, an "
                "output, an int, nor a constant that can be compiled in. Pass the "
                "tensors the launch function was given, and sizes computed from them."
            )


def _read_symbolic_constant(
    run: Trace, name: str, value: Any, is_constant: bool, where: str
) -> Constant:
    """A value that follows the shape, where only a constant can go."""
    if free_unbacked_symbols(value):
        raise DataDependentError(
            f"{where}: it depends on the values of a tensor, which nothing looks at "
            "before the kernel runs in an engine. Read it inside the kernel."
        )
    known = run.expr(value)
    if isinstance(value, torch.SymInt) and known.is_number:
        return Constant(name, int(known))
    if isinstance(value, torch.SymBool) and known in (sympy.true, sympy.false):
        return Constant(name, bool(known))
    is_float = isinstance(value, torch.SymFloat)
    only = None if is_float else only_value(known, run.ranges)
    if only is not None:
        return Constant(name, only)
    if is_constant:
        why = needs_one_value(name, known, run.ranges, is_float)
        raise ArgumentError(f"{where}: {why}")
    raise ArgumentError(
        f"{where}: a {type(value).__name__.removeprefix('Sym').lower()} that is not "
        f"constant ({shown(known)}). TensorRT passes 32-bit integers only: compute it "
        "inside the kernel, or make the dimensions it depends on static."
    )


def _is_integer(value: Any) -> bool:
    if isinstance(value, torch.SymInt):
        return True
    return hasattr(value, "__index__") and not isinstance(value, bool | torch.Tensor)
