# SPDX-License-Identifier: BSD-3-Clause

"""What the tests of the cuTile backend share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernels import info

from torch_tensorrt.annotation._code.ptx import parse, reorder
from torch_tensorrt.annotation._code.ptxas import settle
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._record.program import Program
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.backends.abi import require_launchable
from torch_tensorrt.annotation.backends.cutile import FACT_SETS

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402

from torch_tensorrt.annotation.backends.cutile.signature import Signature  # noqa: E402

SM_90 = Target("sm_90")

DYNAMIC = Range(1, 8, 64)
# What ct.launch itself raises: without a driver; for arguments that do not fit.
NO_LAUNCH = (OSError, TypeError)


def like(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def recorded(
    launch_fn: Callable[..., Any], *inputs: TensorInfo, meta: Any = like
) -> Program:
    return record(backend("cutile"), launch_fn, meta, inputs)


def compiled(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Any = like,
    target: Target = SM_90,
    aligned: bool = True,
    facts: str = "vector16",
    **options: Any,
) -> CompiledKernel:
    program = recorded(launch_fn, *inputs, meta=meta)
    options["facts"] = facts
    result = backend("cutile").compile(program, target, options, aligned)
    require_launchable(program, result, target)
    return result


def one(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def two(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def matmul_meta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def matmul(M: int | Range, N: int, K: int, **keywords: Any) -> CompiledKernel:
    inputs = (info(M, K), info(K, N))
    return compiled(kernels.launch_matmul, *inputs, meta=matmul_meta, **keywords)


def constraints(program: Program, facts: str = "vector16") -> list[Any]:
    return Signature(program, True, FACT_SETS[facts]).constraints


@ct.kernel
def annotated_kernel(
    x: ct.IndexedWithInt64, out: Any, alpha: float, n: ct.ScalarInt64, negate: bool
):
    tile = ct.load(x, index=(ct.bid(0),), shape=(64,)) * alpha + n
    tile = ct.where(negate, -tile, tile)
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(tile, out.dtype))


def assert_passes_tensorrts_arguments(result: CompiledKernel, inputs: int) -> None:
    counts = inputs, len(result.extras), 1
    code = reorder(result.code, result.slots, counts, "k")
    types = [parameter.type for parameter in parse(code).parameters]
    assert types == ["u64"] * inputs + ["u32"] * len(result.extras) + ["u64"]
    settle(code, "sm_90", result.ptxas)


@ct.kernel
def copy_kernel(x, out, what):
    ct.store(out, index=(0,), tile=ct.load(x, index=(0,), shape=(8,)))
