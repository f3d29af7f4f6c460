"""Run a launch function on fake tensors and keep the one kernel launch it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import sympy
import torch

from torch_tensorrt.annotation._environment import Operators
from torch_tensorrt.annotation._explore import ShapesRejected, trace, trace_somewhere
from torch_tensorrt.annotation._launch import (
    Argument,
    Constant,
    Grid,
    Launch,
    LaunchRecord,
    Output,
    Outputs,
    Pointer,
    Scalar,
    scalar,
)
from torch_tensorrt.annotation._trace import TensorInfo, Trace, as_tensors
from torch_tensorrt.annotation.errors import ArgumentError, LaunchCountError


class Interceptor(Protocol):
    """The part of a backend that catches launches while a function is recorded."""

    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[None]: ...


def infer_outputs(
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo],
    what: str,
    sizes_matter: bool = True,
) -> Outputs:
    """Shapes and dtypes of what the fake kernel ``meta`` returns for ``inputs``.

    Args:
        what: how errors name it.
        sizes_matter: False where only ranks and dtypes are wanted.

    Raises:
        RecordError: see its subclasses.
    """

    def run(run: Trace) -> Outputs:
        return _read_outputs(run, _fake_outputs(run, meta, what))

    return (trace if sizes_matter else trace_somewhere)(run, inputs, what)


@dataclass(frozen=True)
class Call:
    """How a launch function is called.

    Attributes:
        keywords: config and attributes; a ``stream`` is added where it is declared.
        overrides: keywords of the kernel's launch, in place of what it says; None lets
            an autotuner take its first choice.
        names: of the inputs, for an op's body, which is called by name and returns its
            outputs; None for a function that is handed its outputs.
    """

    keywords: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None


def record(
    interceptor: Interceptor,
    launch_fn: Callable[..., Any],
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo],
    call: Call = Call(),
) -> LaunchRecord:
    """The one launch that ``launch_fn`` makes.

    Args:
        interceptor: catches the launch.
        meta: gives the outputs for the inputs.

    Raises:
        RecordError: see its subclasses.
    """
    what = f"launch function {describe(launch_fn)}"

    launches: list[Launch] = []

    def run(run: Trace) -> LaunchRecord:
        # An engine's outputs are contiguous and their own, whatever the fake kernel's.
        outputs = tuple(
            torch.empty(o.shape, dtype=o.dtype, device="cuda")
            for o in _fake_outputs(run, meta, "the fake kernel")
        )
        launches.clear()
        operators = Operators((*run.inputs, *outputs), what)
        with operators:
            if call.names is None:
                _call_with_outputs(launch_fn, what, run, outputs, call.keywords)
            else:
                named = dict(zip(call.names, run.inputs, strict=True))
                result = launch_fn(**named, **call.keywords)
                outputs = _own_outputs(run, result, outputs, operators, what)
        launch = _only(launches, what)
        return LaunchRecord(
            kernel=launch.kernel,
            name=launch.name,
            grid=_read_grid(run, launch),
            arguments=tuple(_read_arguments(run, launch, outputs)),
            options=tuple(sorted(launch.options.items())),
            choices=launch.choices,
            inputs=(),
            outputs=_read_outputs(run, outputs),
        )

    with interceptor.intercept(launches.append, call.overrides):
        return replace(trace(run, inputs, what), inputs=tuple(inputs))


def _call_with_outputs(
    launch_fn: Callable[..., Any],
    what: str,
    run: Trace,
    outputs: Sequence[torch.Tensor],
    keywords: Mapping[str, Any],
) -> None:
    signature = inspect.signature(launch_fn)
    if "stream" in signature.parameters:
        keywords = {"stream": 0, **keywords}
    try:
        signature.bind(*run.inputs, *outputs, **keywords)
    except TypeError as error:
        raise ArgumentError(
            f"{what} takes {signature}, and would be called with {len(run.inputs)} "
            f"inputs, {len(outputs)} outputs of the meta function, "
            f"and keywords {', '.join(keywords) or 'none'}: {error}."
        ) from error
    launch_fn(*run.inputs, *outputs, **keywords)


def _own_outputs(
    run: Trace,
    result: Any,
    expected: Sequence[torch.Tensor],
    operators: Operators,
    what: str,
) -> tuple[torch.Tensor, ...]:
    """What an op's body returned, if an engine can stand in for its allocations."""
    outputs = as_tensors(result, what)
    if _read_outputs(run, outputs) != _read_outputs(run, expected):
        raise ArgumentError(
            f"{what} returns {_read_outputs(run, outputs).tensors}, and the op's fake "
            f"kernel {_read_outputs(run, expected).tensors}. One of them is wrong."
        )
    for index, output in enumerate(outputs):
        if not output.is_contiguous() or output.storage_offset() != 0:
            raise ArgumentError(
                f"{what}: output {index} has strides {list(output.stride())}. An "
                "engine's outputs are contiguous: return the tensor as allocated."
            )
    operators.require_only_allocated(outputs)
    return outputs


def _fake_outputs(
    run: Trace, meta: Callable[..., Any], what: str
) -> tuple[torch.Tensor, ...]:
    try:
        outputs = meta(*run.inputs)
    except Exception as error:
        raise ShapesRejected(what) from error
    return as_tensors(outputs, what)


def describe(function: Callable[..., Any]) -> str:
    """``name (file:line)`` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def _only(launches: list[Launch], what: str) -> Launch:
    if len(launches) == 1:
        return launches[0]
    if not launches:
        raise LaunchCountError(
            f"{what} launched no kernel. It must launch exactly one, "
            "whatever the sizes are, in the language of its spec."
        )
    seen = ", ".join(launch.name for launch in launches)
    raise LaunchCountError(
        f"{what} launched {len(launches)} kernels: {seen}. A plugin is one launch: "
        "register an op for each kernel, or fuse them."
    )


def _read_outputs(run: Trace, tensors: Iterable[torch.Tensor]) -> Outputs:
    return Outputs(
        tuple(Output(tuple(map(run.expr, t.shape)), t.dtype) for t in tensors)
    )


def _read_grid(run: Trace, launch: Launch) -> Grid | None:
    if launch.grid is None:
        return None
    if not 1 <= len(launch.grid) <= 3:
        raise ArgumentError(
            f"kernel {launch.name}: the grid has {len(launch.grid)} dimensions; "
            "1 to 3 are possible."
        )
    sizes = [*launch.grid, 1, 1][:3]
    for size in sizes:
        if not _is_integer(size):
            raise ArgumentError(
                f"kernel {launch.name}: the grid holds {size!r}, which is not an int. "
                "Divide with //, triton.cdiv or ct.cdiv."
            )
    x, y, z = (run.expr(size) for size in sizes)
    return x, y, z


def _read_arguments(
    run: Trace, launch: Launch, outputs: Sequence[torch.Tensor]
) -> Iterable[Argument]:
    owners = {
        tensor.untyped_storage()._cdata: index
        for index, tensor in enumerate((*run.inputs, *outputs))
    }
    for name, value, is_constant in launch.arguments:
        where = f"kernel {launch.name}, argument `{name}`"
        if isinstance(value, torch.Tensor):
            pointer = _read_pointer(name, value, owners, where)
            yield (
                _with_layout(run, pointer, value) if launch.passes_layouts else pointer
            )
        elif isinstance(value, torch.SymInt | torch.SymBool) and not is_constant:
            yield scalar(name, run.expr(value))
        elif isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            yield _read_symbolic_constant(name, value, is_constant, where)
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


def _read_pointer(
    name: str, tensor: torch.Tensor, owners: Mapping[int, int], where: str
) -> Pointer:
    owner = owners.get(tensor.untyped_storage()._cdata)
    if owner is None:
        raise ArgumentError(
            f"{where}: a tensor of shape {list(tensor.shape)} that is neither an input "
            "nor an output. An engine passes no other buffers: let the kernel write "
            "the output it was given, and copy nothing on the way."
        )
    if tensor.storage_offset() != 0:
        raise ArgumentError(
            f"{where}: a view that starts {tensor.storage_offset()} elements into its "
            f"tensor (strides {list(tensor.stride())}). An engine passes the tensor's "
            "start: pass the tensor and the offset."
        )
    return Pointer(name, owner, tensor.dtype)


def _with_layout(run: Trace, pointer: Pointer, tensor: torch.Tensor) -> Pointer:
    return replace(
        pointer,
        shape=tuple(map(run.expr, tensor.shape)),
        strides=tuple(map(run.expr, tensor.stride())),
    )


def _read_symbolic_constant(
    name: str, value: Any, is_constant: bool, where: str
) -> Constant:
    """A value that follows the shape, where only a constant can go."""
    known = value.node.expr
    shown = str(known) if len(str(known)) < 100 else f"{str(known)[:100]}..."
    if isinstance(value, torch.SymInt) and known.is_number:
        return Constant(name, int(known))
    if isinstance(value, torch.SymBool) and known in (sympy.true, sympy.false):
        return Constant(name, bool(known))
    if is_constant:
        raise ArgumentError(
            f"{where}: a compile-time constant that follows a dynamic size ({shown}). "
            "It would need a kernel for each size: make that dimension static."
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
