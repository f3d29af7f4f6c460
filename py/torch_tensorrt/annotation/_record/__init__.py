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

from .._sizes.values import describe_values, only_value
from .._target import known_target
from .._tensors import MAX_RANK, Formats, TensorInfo, empty_buffers, formats_of
from ..errors import (
    AnnotationError,
    ArgumentError,
    DataDependentError,
    LaunchCountError,
)
from .address import Address
from .branches import ShapesRejected, trace, trace_somewhere
from .program import (
    Argument,
    CaughtLaunch,
    Constant,
    Grid,
    Launch,
    Output,
    Pointer,
    Program,
    Scalar,
    are_equal,
    scalar,
)
from .recording import Purpose, raise_refusals, recorded_for
from .replay import PlainInputs, numbers_in
from .tracing import Operators, Trace
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

    def run(run: Trace) -> Program:
        return Program((), _read_outputs(run, _fake_outputs(run, meta, what)))

    with recorded_for(Purpose(known_target())):
        if not sizes_matter:
            return trace_somewhere(run, inputs, what).outputs
        # What is compiled is replayed in full; this is asked for often, and for any
        # size.
        return trace(run, inputs, what, PlainInputs(inputs, _FEW_SHAPES)).outputs


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
        purpose: what the function is recorded for.
    """

    keywords: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None
    input_formats: Formats = None
    output_formats: Formats = None
    weights: int = 0
    purpose: Purpose = field(default_factory=Purpose)


def record(
    interceptor: Interceptor,
    launch_fn: Callable[..., Any],
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo | None],
    call: Call = Call(),
    plain: PlainInputs | None = None,
    only_buffers: bool = False,
) -> Program:
    """The program of ``launch_fn``: the one launch that it makes.

    Args:
        interceptor: catches the launch.
        meta: gives the outputs for the inputs.
        plain: inputs to replay on, where several functions with this ``meta`` share
            them.
        only_buffers: read the outputs and the hidden buffers and no launch, of one run
            somewhere in the profile. What that finds is a proposal, and needs a check.

    Raises:
        RecordError: see its subclasses.
    """
    what = f"launch function {describe(launch_fn)}"
    _require_ranks("input", [len(info.shape) if info else 0 for info in inputs])
    launches: list[CaughtLaunch] = []
    keywords: dict[int, Mapping[str, Any]] = {}  # by the number of outputs

    def run(run: Trace) -> Program:
        # An engine's outputs are contiguous and their own, whatever the fake kernel's.
        outputs = tuple(
            torch.empty(o.shape, dtype=o.dtype, device="cuda")
            for o in _fake_outputs(run, meta, "the fake kernel")
        )
        launches.clear()
        formats = (
            *formats_of(call.input_formats, run.inputs, call.weights, "input"),
            *formats_of(call.output_formats, outputs, 0, "output"),
        )
        tensors = empty_buffers(formats, (*run.inputs, *outputs))
        operators = Operators((t for t in tensors if t is not None), what)
        with operators, _rejecting(what) if only_buffers else nullcontext():
            if call.names is None:
                if (count := len(outputs)) not in keywords:
                    keywords[count] = _keywords(launch_fn, what, tensors, count, call)
                launch_fn(*tensors, **keywords[count])
            else:
                named = dict(zip(call.names, run.inputs, strict=True))
                result = launch_fn(**named, **call.keywords)
                outputs = _own_outputs(run, result, outputs, operators, what)
                tensors = (*run.inputs, *outputs)
        raise_refusals()
        # What follows only reads tensors, which is faster past torch's modes.
        with torch._C.DisableTorchFunction():
            caught = _only(launches, what)
            buffers = _hidden_buffers(caught, tensors, operators)
            tensors = (*tensors, *buffers)
            hidden = _read_outputs(run, buffers, "hidden buffer")
            if only_buffers:
                return Program((), _read_outputs(run, outputs), hidden=hidden)
            launch = Launch(
                kernel=caught.kernel,
                name=caught.name,
                grid=_read_grid(run, caught),
                arguments=tuple(_read_arguments(run, caught, tensors)),
                options=tuple(sorted(caught.options.items())),
            )
            return Program(
                inputs=(),
                outputs=_read_outputs(run, outputs),
                steps=(launch,),
                formats=tuple(fmt.name for fmt in formats),
                choices=caught.choices,
                hidden=hidden,
            )

    with (
        recorded_for(call.purpose),
        interceptor.intercept(launches.append, call.overrides),
    ):
        if only_buffers:
            return trace_somewhere(run, inputs, what)
        plain = plain or PlainInputs(inputs)
        program = trace(run, inputs, what, plain, numbers_in(launch_fn, meta))
    program = replace(program, inputs=tuple(inputs))
    _require_outputs_written(program)
    return program


@contextmanager
def _rejecting(what: str) -> Iterator[None]:
    """Around a function that may run at other sizes than those that it raises at."""
    try:
        yield
    except AnnotationError:
        raise
    except Exception as error:
        raise ShapesRejected(what) from error


def _require_outputs_written(program: Program) -> None:
    """Every output must reach the kernel: nothing else in an engine fills it."""
    arguments = program.launch.arguments
    passed = {
        argument.tensor for argument in arguments if isinstance(argument, Pointer)
    }
    for index in range(len(program.outputs)):
        if len(program.inputs) + index not in passed:
            raise ArgumentError(
                f"kernel {program.launch.name}: output {index} of the meta function is "
                "not an argument of the launch, so nothing would write it. Let the "
                "meta function return what the launch function takes after the inputs."
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
        "after the inputs; or make it the body of a torch.library.custom_op, and pass "
        "impl=tta.triton() without a function."
    )


def _own_outputs(
    run: Trace,
    result: Any,
    expected: Sequence[torch.Tensor],
    operators: Operators,
    what: str,
) -> tuple[torch.Tensor, ...]:
    """What an op's body returned, if an engine can stand in for its allocations."""
    outputs = as_tensors(result, what)
    found, wanted = _read_outputs(run, outputs), _read_outputs(run, expected)
    if not are_equal(found, wanted, run.ranges):
        raise ArgumentError(
            f"{what} returns {found}, and the op's fake kernel {wanted}. One of them "
            "is wrong."
        )
    for index, output in enumerate(outputs):
        if not output.is_contiguous() or output.storage_offset() != 0:
            raise ArgumentError(
                f"{what}: output {index} has strides {list(output.stride())}. An "
                "engine's outputs are contiguous: return the tensor as allocated."
            )
        size = run.expr(output.numel()) * output.dtype.itemsize
        more = run.expr(output.untyped_storage().nbytes()) - size
        if more.is_number and more != 0:  # of a symbol, plain ints decide
            raise ArgumentError(
                f"{what}: output {index} is a part of a larger tensor. An engine's "
                "outputs are memory of their own: allocate each, and return it."
            )
    operators.require_only_allocated(outputs)
    return outputs


def _fake_outputs(
    run: Trace, meta: Callable[..., Any], what: str
) -> tuple[torch.Tensor, ...]:
    if run.outputs is None:
        try:
            outputs = meta(*run.inputs)
        except Exception as error:
            raise ShapesRejected(what) from error
        run.outputs = as_tensors(outputs, what)
    return run.outputs


def describe(function: Callable[..., Any]) -> str:
    """``name (file:line)`` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def _only(launches: list[CaughtLaunch], what: str) -> CaughtLaunch:
    if not launches:
        raise LaunchCountError(
            f"{what} launched no kernel. It must launch exactly one, "
            "whatever the sizes are, in the language of its spec."
        )
    launch, *others = launches
    if others:
        seen = ", ".join(launch.name for launch in launches)
        raise LaunchCountError(
            f"{what} launched {len(launches)} kernels: {seen}. A plugin is one launch: "
            "register an op for each kernel, or fuse them."
        )
    return launch


def _read_outputs(
    run: Trace, tensors: Iterable[torch.Tensor], what: str = "output"
) -> tuple[Output, ...]:
    outputs = [Output(tuple(map(run.expr, t.shape)), t.dtype) for t in tensors]
    _require_ranks(what, [len(output.shape) for output in outputs])
    return tuple(outputs)


def _hidden_buffers(
    launch: CaughtLaunch,
    tensors: Sequence[torch.Tensor | None],
    operators: Operators,
) -> tuple[torch.Tensor, ...]:
    """What the launch is passed beside the plugin's ``tensors``, in its order."""
    known = {t.untyped_storage()._cdata for t in tensors if t is not None}
    found: list[torch.Tensor] = []
    for name, value, _ in launch.arguments:
        if not isinstance(value, torch.Tensor):
            continue
        if (storage := value.untyped_storage()._cdata) not in known:
            known.add(storage)
            where = f"kernel {launch.name}, argument `{name}`"
            found.append(operators.allocated(value, where))
    return tuple(found)


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


def _read_arguments(
    run: Trace, launch: CaughtLaunch, tensors: Sequence[torch.Tensor | None]
) -> Iterator[Argument]:
    """Each argument in its role: a tensor of the plugin's, a number, or a constant."""
    owners = {
        tensor.untyped_storage()._cdata: index
        for index, tensor in enumerate(tensors)
        if tensor is not None
    }
    for name, value, is_constant in launch.arguments:
        where = f"kernel {launch.name}, argument `{name}`"
        if isinstance(value, torch.Tensor):
            layout = (
                (value.shape, value.stride()) if launch.passes_layouts else ((), ())
            )
            shape, strides = (tuple(map(run.expr, sizes)) for sizes in layout)
            owner = owners[value.untyped_storage()._cdata]
            offset = run.expr(value.storage_offset())
            yield Pointer(name, owner, value.dtype, shape, strides, offset)
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
    shown = str(known) if len(str(known)) < 100 else f"{str(known)[:100]}..."
    if isinstance(value, torch.SymInt) and known.is_number:
        return Constant(name, int(known))
    if isinstance(value, torch.SymBool) and known in (sympy.true, sympy.false):
        return Constant(name, bool(known))
    is_float = isinstance(value, torch.SymFloat)
    only = None if is_float else only_value(known, run.ranges)
    if only is not None:
        return Constant(name, only)
    if is_constant:
        values = "" if is_float else f"{describe_values(known, run.ranges)} "
        raise ArgumentError(
            f"{where}: a compile-time constant that follows a dynamic size ({shown}), "
            f"and would need a kernel for each value. {values}Narrow the profile, or "
            "make that dimension static."
        )
    raise ArgumentError(
        f"{where}: a {type(value).__name__.removeprefix('Sym').lower()} that is not "
        f"constant ({shown}). TensorRT passes 32-bit integers only: compute it inside "
        "the kernel, or make the dimensions it depends on static."
    )


def _is_integer(value: Any) -> bool:
    if isinstance(value, torch.SymInt):
        return True
    return hasattr(value, "__index__") and not isinstance(value, bool | torch.Tensor)
