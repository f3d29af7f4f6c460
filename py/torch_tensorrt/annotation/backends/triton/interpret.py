# SPDX-License-Identifier: BSD-3-Clause

"""Run a recorded launch on the CPU, by Triton's own interpreter."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Sequence
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
from .. import Pointer, Program
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
    """
    launch, signature = program.launch, Signature(program, aligned)
    slots = iter(signature.slots)
    arguments: dict[str, Any] = dict(signature.constants)
    for argument in launch.arguments:
        if argument.name not in arguments:
            slot, type_ = next(slots), signature.types[argument.name]
            if isinstance(argument, Pointer):
                factor = 1 if slot.factor is None else extras[slot.factor]
                memory = tensors[argument.tensor].reshape(-1).view(torch.uint8)
                view = _as_dtype(memory[slot.offset * factor :], argument.dtype)
                arguments[argument.name] = view
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
