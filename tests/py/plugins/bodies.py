# SPDX-License-Identifier: BSD-3-Clause

"""Kernels that bodies of ops launch, and what a program of such launches computes.

On the CPU, each launch is a reference implementation of its kernel on the memory behind
the pointers. What a body never writes holds NaN.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_tensorrt.annotation._record.program import Pointer, Program, Scalar
from torch_tensorrt.annotation._sizes.expressions import on_ints
from torch_tensorrt.annotation._tensors import symbol

# --- Kernels, and what they do --------------------------------------------------------


@triton.jit
def copy_kernel(a, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, at < n), at < n)


@triton.jit
def add_kernel(a, b, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, at < n) + tl.load(b + at, at < n), at < n)


@triton.jit
def accumulate_kernel(a, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, at < n) + tl.load(out + at, at < n), at < n)


@triton.jit
def every_other_kernel(a, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + 2 * at, tl.load(a + at, at < n), at < n)


def _copied(a: Tensor, out: Tensor, n: int) -> None:
    out[:n] = a[:n].clone()


def _added(a: Tensor, b: Tensor, out: Tensor, n: int) -> None:
    out[:n] = a[:n] + b[:n]


def _accumulated(a: Tensor, out: Tensor, n: int) -> None:
    out[:n] += a[:n].clone()


def _every_other(a: Tensor, out: Tensor, n: int) -> None:
    out[: 2 * n : 2] = a[:n].clone()


REFERENCES: dict[Any, Callable[..., None]] = {
    copy_kernel: _copied,
    add_kernel: _added,
    accumulate_kernel: _accumulated,
    every_other_kernel: _every_other,
}

_here = threading.local()


def launch(kernel: Any, *arguments: Any) -> None:
    """Launch a kernel, or carry out its reference on the memory behind the tensors."""
    if getattr(_here, "is_eager", False):
        REFERENCES[kernel](
            *(memory(a) if isinstance(a, Tensor) else a for a in arguments)
        )
    else:
        kernel[(triton.cdiv(arguments[-1], 16),)](*arguments, BLOCK=16)


def memory(tensor: Tensor) -> Tensor:
    """All that follows a pointer."""
    return tensor.as_strided((room(tensor),), (1,))


def room(tensor: Tensor) -> int:
    size: int = tensor.untyped_storage().nbytes() // tensor.element_size()
    return size - tensor.storage_offset()


_ALLOCATING = {
    *("aten::empty", "aten::empty_like", "aten::empty_permuted"),
    *("aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
}


class Poisoned(TorchDispatchMode):
    """Memory that torch allocates holds NaN."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return poison(result) if func._schema.name in _ALLOCATING else result


def poison(tensor: Tensor) -> Tensor:
    return tensor.fill_(torch.nan if tensor.is_floating_point() else 0x7FC00000)


@contextmanager
def eagerly() -> Iterator[None]:
    _here.is_eager = True
    try:
        with Poisoned():  # type: ignore[no-untyped-call]
            yield
    finally:
        _here.is_eager = False


def launched(part: Program, given: Sequence[Tensor | None]) -> list[Tensor]:
    """What the plugin of a launch returns: outputs, then what it writes in place."""
    given = [None if t is None else t.contiguous().clone() for t in given]
    extents = {
        symbol(i, axis): extent
        for i, value in enumerate(given)
        if value is not None
        for axis, extent in enumerate(value.shape)
    }

    def known(expr: Any) -> int:
        return int(on_ints(expr)(extents))

    buffers = (
        torch.empty(list(map(known, buffer.shape)), dtype=buffer.dtype)
        for buffer in (*part.outputs, *part.hidden)
    )
    tensors = [*given, *map(poison, buffers)]
    before = [tensor is not None and tensor.clone() for tensor in given]
    arguments = []
    for argument in part.launch.arguments:
        if isinstance(argument, Pointer):
            flat = tensors[argument.tensor].view(-1).view(argument.dtype)
            arguments.append(flat[known(argument.offset) :])
        elif isinstance(argument, Scalar):
            arguments.append(known(argument.expr))
        elif argument.name != "BLOCK":
            arguments.append(argument.value)
    REFERENCES[part.launch.kernel](*arguments)
    for index, tensor in enumerate(given):
        if tensor is not None and index not in part.aliased:
            assert torch.equal(
                tensor.view(torch.int32), before[index].view(torch.int32)
            )
    first = len(part.inputs)
    made = tensors[first : first + len(part.outputs)]
    return [*made, *(tensors[index] for index in part.aliased)]
