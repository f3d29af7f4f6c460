# SPDX-License-Identifier: BSD-3-Clause

"""What the tests of the CuTe DSL backend share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass.cute as cute
from cutedsl_kernels import flattened
from cutlass import Constexpr, Int32

from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.program import Program
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.backends.abi import require_launchable

SM_90 = Target("sm_90")
ROWS = Range(1, 8, 64)


def recorded(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Callable[..., Any] = lambda x, *rest: torch.empty_like(x),
    overrides: dict[str, Any] | None = None,
    **keywords: Any,
) -> Program:
    call = Call(keywords, overrides)
    return record(backend("cutedsl"), launch_fn, meta, inputs, call)


def compiled(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    target: Target = SM_90,
    aligned: bool = True,
    options: dict[str, Any] | None = None,
    **how: Any,
) -> CompiledKernel:
    program = recorded(launch_fn, *inputs, **how)
    result = backend("cutedsl").compile(program, target, options or {}, aligned)
    require_launchable(program, result, target)
    return result


@cute.kernel
def copy_kernel(x: cute.Tensor, out: cute.Tensor, n: Int32):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    i = block * 128 + thread
    if i < n:
        out[i] = x[i]


@cute.jit
def launch_copy(x: cute.Tensor, out: cute.Tensor, **options: Constexpr):
    blocks = cute.ceil_div(cute.size(x), 128)
    copy_kernel(flattened(x), flattened(out), cute.size(x)).launch(
        grid=(blocks, 1, 1), block=(128, 1, 1), **options
    )
