# SPDX-License-Identifier: BSD-3-Clause

"""Run a recorded launch on the CPU, by Triton's own interpreter."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import (
    GridExecutor,
    InterpretedFunction,
    InterpreterBuilder,
    ReduceOps,
    ScanOps,
    TensorHandle,
    _get_np_dtype,
)
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from ..._record.program import Descriptor
from .. import OutOfBoundsError, Pointer, Program
from .descriptors import users_line
from .signature import Signature


def interpret(
    program: Program,
    grid: tuple[int, ...],
    extras: Sequence[int],
    tensors: Sequence[torch.Tensor],
    aligned: bool,
) -> None:
    """Run the program's launch with the arguments that the compiled kernel would get.

    It changes Triton and the kernel's module for good, so it runs in a process of its
    own: the interpreter adds its names to the module, and patches ``tl``.

    Raises:
        NotImplementedError: the interpreter computes this wrongly, or not at all.
        OutOfBoundsError: the kernel accesses memory outside of its tensors.
    """
    launch, signature = program.launch, Signature(program, aligned)
    slots = iter(signature.slots)
    arguments: dict[str, Any] = dict(signature.constants)
    pointers: dict[str, torch.Tensor] = {}
    for argument in launch.arguments:
        if argument.name not in arguments:
            slot, type_ = next(slots), signature.types[argument.name]
            if isinstance(argument, Pointer):
                factor = 1 if slot.factor is None else extras[slot.factor]
                memory = tensors[argument.tensor].reshape(-1).view(torch.uint8)
                view = _as_dtype(memory[slot.offset * factor :], argument.dtype)
                arguments[argument.name] = view
                pointers[argument.name] = tensors[argument.tensor]
                if isinstance(argument, Descriptor):
                    sizes = (
                        [s if isinstance(s, int) else extras[s.index] for s in each]
                        for each in (
                            [signature.size_of(argument, s) for s in argument.shape],
                            [signature.size_of(argument, s) for s in argument.strides],
                        )
                    )
                    arguments[argument.name] = TensorDescriptor(
                        view, *sizes, list(argument.block), **dict(argument.options)
                    )
            else:
                arguments[argument.name] = _scalar(extras[slot.index], type_)
    # The grid counts blocks, and a program may be a cluster of them.
    num_ctas = dict(launch.options).get("num_ctas", 1)
    grid = (grid[0] // num_ctas, *grid[1:])
    _prepare()
    _memory.set(_Memory(pointers))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # numpy's, of poison
        function = InterpretedFunction(launch.kernel.fn).rewrite()
        GridExecutor(function, launch.kernel.arg_names, grid)(**arguments)


# The interpreter holds these as integers of their bits. It moves them, and converts
# them to float32 and back. All other operations take the bits for the value.
_BITS = (tl.bfloat16, tl.float8e5, tl.float8e4nv, tl.float8e4b15, tl.float8e4b8)
_MOVES = (
    *("load", "masked_load", "store", "masked_store", "addptr", "bitcast", "select"),
    *("fp_to_fp", "fp_ext", "fp_trunc", "splat", "unsplat", "broadcast", "reshape"),
    *("expand_dims", "trans", "cat", "join", "split", "gather", "fabs"),
    *("descriptor_load", "descriptor_store", "tensor_pointer_store"),
)


@cache
def _prepare() -> None:
    """Let kernels call functions, and refuse what the interpreter gets wrong."""
    # Functions that a kernel calls, Triton's own among them, are for the compiler.
    JITFunction.__call__ = _call
    for name in dir(InterpreterBuilder):
        operation = name.removeprefix("create_")
        if operation != name and operation not in _MOVES:
            method = getattr(InterpreterBuilder, name)
            setattr(InterpreterBuilder, name, _checked(operation, method))
    for what in (ReduceOps, ScanOps):
        what.apply_impl = _checked(what.__name__, what.apply_impl)
    for name in _ACCESSES:
        method = _within_bounds(name, getattr(InterpreterBuilder, f"create_{name}"))
        setattr(InterpreterBuilder, f"create_{name}", method)


def _call(function: JITFunction[Any], *args: Any, **keywords: Any) -> Any:
    return InterpretedFunction(function.fn)(*args, **keywords)


def _checked(operation: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: Any, *args: Any, **keywords: Any) -> Any:
        for value in args[0] if args and isinstance(args[0], tuple) else args:
            dtype = getattr(getattr(value, "dtype", value), "scalar", None)
            if dtype in _BITS:
                raise NotImplementedError(f"no {operation} of {dtype} in interpreter")
        return method(self, *args, **keywords)

    return checked


# --- Accesses of memory ---------------------------------------------------------------

# Operation -> the places of its pointers and its mask, and what it does. All others
# that access memory call these.
_ACCESSES: dict[str, tuple[int, int | None, str]] = {
    "masked_load": (0, 1, "reads"),
    "masked_store": (0, 2, "writes"),
    "atomic_cas": (0, None, "writes"),
    "atomic_rmw": (1, 3, "writes"),
}
_REMEDIES = {
    "reads": "Mask the load: tl.load(..., mask=offsets < n)",
    "writes": "Mask the store: tl.store(..., mask=offsets < n). Or correct the "
    "output's shape in the function that describes it (meta_impl), or a buffer's where "
    "the launch function allocates it",
}


class _Memory:
    """The tensors of a launch, by address.

    The guard bands around them tell only of what an output depends on, or of what is
    written. An engine's tensors have none, so any other access may end its process.
    """

    def __init__(self, pointers: Mapping[str, torch.Tensor]) -> None:
        each = sorted((t.data_ptr(), t.nbytes, name) for name, t in pointers.items())
        self._names = [name for _, _, name in each]
        self._starts = np.array([start for start, _, _ in each], np.uint64)
        self._ends = np.array([start + size for start, size, _ in each], np.uint64)

    def outside(self, addresses: Any, size: int) -> str:
        """Where the first access outside of all tensors is; empty without one."""
        last = addresses + np.uint64(size)
        tensor = (self._starts.searchsorted(addresses, "right") - 1).clip(0)
        wrong = (addresses < self._starts[tensor]) | (last > self._ends[tensor])
        if not wrong.any():
            return ""
        first = wrong.argmax()
        # The tensor that the same instruction finds elsewhere, or else the next below.
        meant = tensor[first] if wrong.all() else tensor[(~wrong).argmax()]
        is_past = last[first] > self._ends[meant]
        where = "past the end" if is_past else "before the start"
        return f"{where} of the tensor `{self._names[meant]}`"


_memory: ContextVar[_Memory] = ContextVar("_memory")


def _within_bounds(operation: str, method: Callable[..., Any]) -> Callable[..., Any]:
    place, mask, does = _ACCESSES[operation]

    def access(self: Any, *args: Any, **keywords: Any) -> Any:
        pointers = args[place]
        active = True if mask is None else args[mask].data
        addresses = pointers.data[np.broadcast_to(active, pointers.data.shape)]
        size = max(8, pointers.get_element_ty().primitive_bitwidth) // 8
        if addresses.size and (where := _memory.get().outside(addresses, size)):
            raise OutOfBoundsError(
                f"the kernel {does} {where}, at {users_line()}. {_REMEDIES[does]}"
            )
        return method(self, *args, **keywords)

    return access


def _as_dtype(memory: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As many elements as there are, at the address where ``memory`` starts."""
    return memory[: len(memory) // dtype.itemsize * dtype.itemsize].view(dtype)


def _scalar(value: int, type_: str) -> Any:
    """A value of the kernel's own type; of a float, TensorRT passes the bits."""
    known = tl.str_to_ty(type_, None)
    if type_ == "fp32":
        (value,) = struct.unpack("<f", struct.pack("<i", value))
    data = np.array([value], _get_np_dtype(known))
    return tl.tensor(TensorHandle(data, known), known)
