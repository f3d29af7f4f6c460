"""A launch's grid and arguments, each in one role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from torch_tensorrt.annotation._launch import (
    Argument,
    Constant,
    Grid,
    Launch,
    Pointer,
    Scalar,
    scalar,
)
from torch_tensorrt.annotation._trace import Trace
from torch_tensorrt.annotation.errors import ArgumentError, DataDependentError


def read_grid(run: Trace, launch: Launch) -> Grid | None:
    """Blocks along x, y and z; None where only the compiled kernel says it.

    Raises:
        ArgumentError: it is not of one to three ints.
    """
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


def read_arguments(
    run: Trace, launch: Launch, tensors: Sequence[torch.Tensor | None]
) -> Iterable[Argument]:
    """Each argument in its role: one of the plugin's tensors, a number, or a constant.

    Raises:
        ArgumentError: it is none of these.
    """
    owners = {
        tensor.untyped_storage()._cdata: index
        for index, tensor in enumerate(tensors)
        if tensor is not None
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
    if free_unbacked_symbols(value):
        raise DataDependentError(
            f"{where}: it follows from the values of a tensor, which nothing looks at "
            "before the kernel runs in an engine. Read it inside the kernel."
        )
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
