# SPDX-License-Identifier: BSD-3-Clause

"""A launch of a larger op on CUDA, where Torch-TensorRT leaves it in PyTorch.

It runs the compiled kernel that an engine would embed: there is no Python function of
this launch alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.annotation._code.loaded import LoadedKernel
from torch_tensorrt.annotation._plugin import Request, StepPlugin
from torch_tensorrt.annotation._record.address import ALIGNMENT
from torch_tensorrt.annotation._sizes.expressions import on_ints
from torch_tensorrt.annotation._tensors import TensorInfo, by_symbol


@dataclass(frozen=True)
class _Sizes:
    """How a kernel is launched for some extents."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    extras: tuple[int, ...]
    shared_memory: int


def launch(
    plugin: StepPlugin, request: Request, tensors: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, ...]:
    """What the plugin of a launch returns, computed by its first tactic.

    Args:
        request: whose profile holds the tensors.
        tensors: the plugin's inputs, weights included. None is written: the kernel
            gets copies of those that it writes.

    Raises:
        UnsupportedKernelError: no tactic serves the request.
        LaunchError: the driver has no Python bindings, or does not launch the kernel.
    """
    tactics = plugin.kernels(request)
    first = next((t.number for t in tactics if t.kernel is not None), 0)
    tactic = plugin.tactic(first, request)
    kernel, program = tactic.kernel, tactic.program
    assert kernel is not None and program is not None, "this tactic has a kernel"
    extents = by_symbol(None if tensor is None else tensor.shape for tensor in tensors)

    def numbers(*expressions: Any) -> tuple[int, ...]:
        return tuple(int(on_ints(e)(extents)) for e in expressions)

    inputs = [None if t is None else _as_in_an_engine(t) for t in tensors]
    for index in program.aliased:
        if (tensor := inputs[index]) is not None:
            inputs[index] = tensor.clone()
    device = next(tensor.device for tensor in inputs if tensor is not None)
    made = [
        torch.empty(numbers(*buffer.shape), dtype=buffer.dtype, device=device)
        for buffer in (*program.outputs, *tactic.buffers)
    ]
    grid = numbers(*kernel.grid)
    if 0 not in grid:
        sizes = _Sizes(
            grid, kernel.block, numbers(*kernel.extras), kernel.shared_memory
        )
        with torch.cuda.device(device):
            _loaded(kernel.code, kernel.entry, device.index).launch(
                sizes,
                [0 if tensor is None else tensor.data_ptr() for tensor in inputs],
                [tensor.data_ptr() for tensor in made],
            )
    written = [t for i in program.aliased if (t := inputs[i]) is not None]
    return (*made[: len(program.outputs)], *written)


def holds(request: Request, tensors: Sequence[torch.Tensor | None]) -> bool:
    """Whether tensors lie in the profile of a request."""
    return len(request.inputs) == len(tensors) and all(
        map(_lies_in, tensors, request.inputs)
    )


def _lies_in(tensor: torch.Tensor | None, info: TensorInfo | None) -> bool:
    if tensor is None or info is None:
        return tensor is None and info is None
    return tensor.dtype == info.dtype and info.holds(tensor.shape)


@functools.lru_cache(maxsize=256)
def _loaded(code: str, entry: str, device: int) -> LoadedKernel:
    """A kernel on the current device, which is this one."""
    del device
    return LoadedKernel(code, entry)


def _as_in_an_engine(tensor: torch.Tensor) -> torch.Tensor:
    """Row-major, and at an address that kernels are promised."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
