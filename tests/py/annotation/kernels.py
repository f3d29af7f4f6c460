# SPDX-License-Identifier: BSD-3-Clause

"""Launch functions in the styles people write them, each with inputs to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from values import info as info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._tensors import Range, TensorInfo

BATCH = Range(1, 8, 64)


@dataclass(frozen=True)
class Case:
    """A spec, the fake kernel of its op, and a profile for its inputs."""

    name: str
    kernel: Any  # what tta.triton, or tta.cutile, made
    meta: Callable[..., Any]
    dynamic: tuple[TensorInfo | None, ...]  # None: not given
    outputs: int = 1
    tactics: int | None = None  # where not the spec's configs, but an autotuner's
    keywords: Mapping[str, Any] = field(default_factory=dict)  # weights and attributes
    arguments: Mapping[str, Any] = field(default_factory=dict)  # that are not tensors

    @property
    def count(self) -> int:
        """How many tactics there are."""
        return self.tactics or len(self.kernel.configs)

    @property
    def static(self) -> tuple[TensorInfo | None, ...]:
        """The inputs at the profile's opt."""
        return tuple(t and TensorInfo(t.at("opt"), t.dtype) for t in self.dynamic)

    @property
    def plugin(self) -> tta.CustomPluginSpec:
        return tta.custom_plugin(self.kernel, self.meta, **self.keywords)


@triton.jit
def add_kernel(x_ptr, y_ptr, n, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    x = tl.load(x_ptr + offsets, mask=mask)
    y = tl.load(y_ptr + offsets, mask=mask)
    tl.store(out_ptr + offsets, x + y, mask=mask)


def launch_add(x, y, out, BLOCK=1024):
    n = x.numel()
    add_kernel[(triton.cdiv(n, BLOCK),)](x, y, n, out, BLOCK=BLOCK)


@triton.jit
def silu_kernel(out_ptr, x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n).to(tl.float32)
    y = (x * tl.sigmoid(x)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, y, mask=offsets < n)


def launch_silu(x, out, BLOCK=256):
    n = x.numel()
    silu_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](
        out, x.contiguous().reshape(-1), n, BLOCK=BLOCK
    )


@triton.jit
def scale_kernel(alpha, n, out_ptr, negate, x_ptr, bias_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if bias_ptr is not None:
        x += tl.load(bias_ptr + offsets, mask=offsets < n)
    if negate:
        x = -x
    tl.store(out_ptr + offsets, x * alpha, mask=offsets < n)


def launch_scale(x, out, alpha=0.3):
    n = x.shape[0] * x.shape[1]
    scale_kernel[(-(-n // 512),)](alpha, n, out, True, x, None, 512)


@triton.jit
def tail_kernel(x_ptr, out_ptr, n, is_even, size, is_long, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if is_even:
        x = x * 2
    if is_long:
        x = x + size
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def launch_tail(x, out, BLOCK=256):
    """Conditions on sizes as arguments, and quotients of either sign."""
    n = x.numel()
    quotient, remainder = divmod(n - 700, 16)
    tail_kernel[(triton.cdiv(n, BLOCK),)](
        x, out, n, n % 2 == 0, quotient * 16 + remainder, x.shape[0] > 20, BLOCK
    )


@triton.jit
def softmax_kernel(out_ptr, x_ptr, x_stride, out_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    x = tl.load(
        x_ptr + row * x_stride + offsets, mask=offsets < columns, other=-float("inf")
    ).to(tl.float32)
    exponentials = tl.exp(x - tl.max(x, axis=0))
    y = exponentials / tl.sum(exponentials, axis=0)
    tl.store(
        out_ptr + row * out_stride + offsets,
        y.to(out_ptr.dtype.element_ty),
        mask=offsets < columns,
    )


def launch_softmax(x, out):
    rows, columns = x.shape
    softmax_kernel[(rows,)](
        out,
        x,
        x.stride(0),
        out.stride(0),
        columns,
        BLOCK=triton.next_power_of_2(columns),
        num_warps=8,
    )


@triton.jit
def rms_norm_kernel(x_ptr, weight_ptr, out_ptr, stride, N, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < N
    x = tl.load(x_ptr + row * stride + offsets, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / N + eps)
    weight = tl.load(weight_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = (x * scale * weight).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * stride + offsets, y, mask=mask)


def launch_rms_norm(x, weight, out, eps=1e-6, num_warps=4):
    N = x.shape[-1]
    BLOCK = triton.next_power_of_2(N)
    rms_norm_kernel[(x.numel() // N,)](
        x, weight, out, x.stride(-2), N, eps, BLOCK=BLOCK, num_warps=num_warps
    )


@triton.jit
def transpose_kernel(
    x_ptr, xs0, xs1, M, N, out_ptr, os0, os1, BM: tl.constexpr, BN: tl.constexpr
):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    columns = tl.program_id(1) * BN + tl.arange(0, BN)[None, :]
    mask = (rows < M) & (columns < N)
    x = tl.load(x_ptr + rows * xs0 + columns * xs1, mask=mask)
    tl.store(out_ptr + columns * os0 + rows * os1, x, mask=mask)


def launch_transpose(x, out, BM=32, BN=32):
    M, N = x.shape
    grid = [triton.cdiv(M, BM), triton.cdiv(N, BN)]
    transpose_kernel[grid](
        x, x.stride(0), x.stride(1), M, N, out, *out.stride(), BM=BM, BN=BN
    )


@triton.jit
def min_max_kernel(x_ptr, low_ptr, n, high_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(low_ptr + offsets, tl.minimum(x, 0).to(tl.float32), mask=offsets < n)
    tl.store(high_ptr + offsets, tl.maximum(x, 0), mask=offsets < n)


def launch_min_max(x, low, high, stream):
    n = x.numel()
    min_max_kernel[(triton.cdiv(n, 256),)](x, low, n, high, BLOCK=256)


@triton.jit
def multiply_kernel(a_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(a_ptr + offsets, mask=offsets < n)
    b = tl.load(b_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, a * b, mask=offsets < n)


def launch_square(x, unused, out):
    n = x.numel()
    multiply_kernel[(triton.cdiv(n, 128),)](x, x, out, n, BLOCK=128)


@triton.jit
def row_sum_kernel(x_ptr, out_ptr, N: tl.constexpr):
    row = tl.program_id(0)
    x = tl.load(x_ptr + row * N + tl.arange(0, N)).to(tl.float32)
    tl.store(out_ptr + row, tl.sum(x, axis=0))


def launch_row_sum(x, out):
    row_sum_kernel[(x.shape[0],)](x, out, x.shape[1])


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    accumulator = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        a = tl.load(
            a_ptr + rows[:, None] * K + (k + inner)[None, :],
            mask=(rows[:, None] < M) & ((k + inner)[None, :] < K),
            other=0.0,
        )
        b = tl.load(
            b_ptr + (k + inner)[:, None] * N + columns[None, :],
            mask=((k + inner)[:, None] < K) & (columns[None, :] < N),
            other=0.0,
        )
        accumulator = tl.dot(a, b, accumulator)
    tl.store(
        c_ptr + rows[:, None] * N + columns[None, :],
        accumulator.to(c_ptr.dtype.element_ty),
        mask=(rows[:, None] < M) & (columns[None, :] < N),
    )


def launch_matmul(a, b, c, BM=64, BN=64, BK=32):
    M, K = a.shape
    N = b.shape[1]
    matmul_kernel[(triton.cdiv(M, BM), triton.cdiv(N, BN))](
        a, b, c, M, N, K, BM=BM, BN=BN, BK=BK
    )


BLOCKS = [{"BLOCK": 256}, {"BLOCK": 1024, "num_warps": 8}]

CASES = [
    Case(
        "add",
        tta.triton(launch_add, BLOCKS),
        lambda x, y: torch.empty_like(x),
        (info(BATCH, 4096), info(BATCH, 4096)),
    ),
    Case(
        "add_ragged",
        tta.triton(launch_add, BLOCKS),
        lambda x, y: torch.empty_like(x),
        (info(BATCH, Range(1, 100, 777)), info(BATCH, Range(1, 100, 777))),
    ),
    Case(
        "silu",
        tta.triton(launch_silu, BLOCKS),
        lambda x: torch.empty_like(x),
        (info(BATCH, 30, dtype=torch.bfloat16),),
    ),
    Case(
        "scale",
        tta.triton(launch_scale, [{"num_warps": 4}, {"num_warps": 8}], alpha=0.3),
        lambda x: torch.empty_like(x),
        (info(BATCH, Range(1, 64, 4096), dtype=torch.float32),),
    ),
    Case(
        "tail",
        tta.triton(launch_tail, BLOCKS),
        lambda x: torch.empty_like(x),
        (info(BATCH, 75, dtype=torch.float32),),
    ),
    Case(
        "softmax",
        tta.triton(launch_softmax, [{}, {"num_warps": 4}]),
        lambda x: torch.empty_like(x),
        (info(BATCH, 1000),),
    ),
    Case(
        "rms_norm",
        tta.triton(launch_rms_norm, [{"num_warps": 4}, {"num_warps": 8}]),
        lambda x, weight: torch.empty_like(x),
        (
            info(BATCH, 128, 512, dtype=torch.bfloat16),
            info(512, dtype=torch.bfloat16),
        ),
    ),
    Case(
        "transpose",
        tta.triton(launch_transpose, [{"BM": 32}, {"BM": 64, "BN": 64}]),
        lambda x: x.new_empty(x.shape[1], x.shape[0]),
        (info(BATCH, Range(1, 48, 333), dtype=torch.float32),),
    ),
    Case(
        "min_max",
        tta.triton(launch_min_max, [{"num_warps": 2}, {"num_warps": 4}]),
        lambda x: (torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)),
        (info(BATCH, 3, 7),),
        outputs=2,
    ),
    Case(
        "square",
        tta.triton(launch_square),
        lambda x, unused: torch.empty_like(x),
        (info(BATCH, 129), info(5, dtype=torch.int32)),
    ),
    Case(
        "row_sum",
        tta.triton(launch_row_sum, [{"num_warps": 1}, {"num_warps": 4}]),
        lambda x: x.new_empty(x.shape[0], dtype=torch.float32),
        (info(BATCH, 256),),
    ),
    Case(
        "matmul",
        tta.triton(launch_matmul, [{}, {"BN": 128, "num_warps": 8, "num_stages": 2}]),
        lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        (info(BATCH, 256), info(256, 512)),
    ),
]
