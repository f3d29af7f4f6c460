# SPDX-License-Identifier: BSD-3-Clause

"""A table of models whose ops are several steps, or write their inputs.

Each op is as people write them: its body launches kernels, and calls torch between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import info
from torch import Tensor
from up_to_the_builder import as_input

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._tensors import Range

half, f32, fp8 = torch.float16, torch.float32, torch.float8_e4m3fn
ROWS = Range(1, 48, 128)
CONFIGS = [{"num_warps": 2}, {"num_warps": 4}]


@dataclass(frozen=True)
class ProgramModel:
    """A model around one op.

    Attributes:
        body: of the op.
        fake: its fake kernel.
        reference: the op in torch; it writes what the op writes.
        writes: names of the inputs that the op writes.
        module: calls the op between layers of TensorRT's own.
        inputs: of the model, static.
        dynamic: the same with a dynamic dimension.
        layers: the graph of the engine in order, without what is not the op's.
        copies: identity layers in front of what is written.
        attributes: of the op.
        takes_one_shape: all of the op's inputs have the shape of the model's first.
    """

    name: str
    body: Callable[..., Any]
    fake: Callable[..., Any]
    reference: Callable[..., Any]
    module: Callable[..., Any]
    inputs: tuple[torch_tensorrt.Input, ...]
    dynamic: tuple[torch_tensorrt.Input, ...]
    layers: tuple[str, ...]
    writes: tuple[str, ...] = ()
    copies: int = 0
    tolerance: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    takes_one_shape: bool = False

    @property
    def op(self) -> str:
        return f"program::{self.name}"

    def register(self) -> str:
        """Define the op, if torch does not know it, and register its kernels."""
        if not hasattr(torch.ops.program, self.name):
            made = torch.library.custom_op(self.op, self.body, mutates_args=self.writes)
            made.register_fake(self.fake)
        impl = tta.triton(configs=CONFIGS)
        trt_plugins.custom_op(self.op, impl=impl, supports_dynamic_shapes=True)
        return self.op

    def make(self) -> torch.nn.Module:
        return _calling(len(self.inputs))(self.module)

    def given(self, kind: str) -> tuple[torch_tensorrt.Input, ...]:
        """The model's inputs, ``"static"`` or ``"dynamic"``."""
        return self.inputs if kind == "static" else self.dynamic

    def given_to_op(self, kind: str) -> tuple[torch_tensorrt.Input, ...]:
        """The inputs of the op within the model."""
        given = self.given(kind)
        return given[: 1 if self.takes_one_shape else None] * (
            len(given) if self.takes_one_shape else 1
        )


class _Calling(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function


def _calling(count: int) -> type[_Calling]:
    """torch.export names the inputs by the parameters of ``forward``."""

    class One(_Calling):
        def forward(self, x: Tensor) -> Any:
            return self._function(x)

    class Two(_Calling):
        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self._function(x, y)

    class Three(_Calling):
        def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
            return self._function(x, y, z)

    return (One, Two, Three)[count - 1]


def inputs(*shapes: Any) -> tuple[torch_tensorrt.Input, ...]:
    return tuple(as_input(info(*shape)) for shape in shapes)


# --- Split-K: partial products, and their sum -----------------------------------------

SPLITS = 4


@triton.jit
def split_k_kernel(
    a, b, parts, m, n, k,
    PART: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, PART, INNER):
        inner = part * PART + start + tl.arange(0, INNER)
        left, right = inner[None, :], inner[:, None]
        x = tl.load(a + row * k + left, (row < m) & (left < k), other=0.0)
        y = tl.load(b + right * n + column, (right < k) & (column < n), other=0.0)
        total += tl.dot(x, y)
    at = parts + (part * m + row) * n + column
    tl.store(at, total, (row < m) & (column < n))


@triton.jit
def add_parts_kernel(parts, out, size, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(COUNT):
        total += tl.load(parts + part * size + at, at < size, other=0.0)
    tl.store(out + at, total.to(out.dtype.element_ty), at < size)


def split_k(a: Tensor, b: Tensor) -> Tensor:
    m, k = a.shape
    n = b.shape[1]
    parts = torch.empty(SPLITS, m, n, dtype=f32, device=a.device)
    part = triton.cdiv(k, SPLITS * 32) * 32
    grid = triton.cdiv(m, 16), triton.cdiv(n, 64), SPLITS
    split_k_kernel[grid](a, b, parts, m, n, k, part, 16, 64, 32)
    out = torch.empty(m, n, dtype=a.dtype, device=a.device)
    add_parts_kernel[(triton.cdiv(m * n, 512),)](parts, out, m * n, SPLITS, 512)
    return out


def like_a_product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


SPLIT_K = ProgramModel(
    "split_k",
    split_k,
    like_a_product,
    lambda a, b: (a.float() @ b.float()).half(),
    lambda a, b: torch.ops.program.split_k(a * 0.5, b).relu(),
    inputs((48, 256), (256, 96)),
    inputs((ROWS, 256), (256, 96)),
    ("split_k_step0", "split_k_step1"),
)


# --- FP8: quantize, multiply, dequantize ----------------------------------------------


@triton.jit
def quantize_kernel(x, out, scales, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + column, column < n, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value)), 1e-6) / 448.0
    tl.store(scales + row, scale)
    result = (value / scale).to(tl.float8e4nv)
    tl.store(out + row * n + column, result, column < n)


@triton.jit
def fp8_matmul_kernel(
    x, w, out, m, n, k,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, k, INNER):
        inner = (start + tl.arange(0, INNER))[None, :]
        of_x, of_w = row[:, None], column[:, None]
        a = tl.load(x + of_x * k + inner, (of_x < m) & (inner < k), other=0.0)
        b = tl.load(w + of_w * k + inner, (of_w < n) & (inner < k), other=0.0)
        total = tl.dot(a, tl.trans(b), total)
    at = out + row[:, None] * n + column[None, :]
    tl.store(at, total, (row[:, None] < m) & (column[None, :] < n))


@triton.jit
def dequantize_kernel(x, rows, columns, out, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + column, column < n, other=0.0)
    scale = tl.load(columns + column, column < n, other=0.0) * tl.load(rows + row)
    tl.store(out + row * n + column, (value * scale).to(tl.float16), column < n)


def fp8_linear(x: Tensor, w: Tensor) -> Tensor:
    (m, k), n = x.shape, w.shape[0]
    narrow, scales = torch.empty_like(x, dtype=fp8), x.new_empty(m, dtype=f32)
    quantize_kernel[(m,)](x, narrow, scales, k, BLOCK=triton.next_power_of_2(k))
    weight, weight_scales = torch.empty_like(w, dtype=fp8), w.new_empty(n, dtype=f32)
    quantize_kernel[(n,)](w, weight, weight_scales, k, triton.next_power_of_2(k))
    total, out = x.new_empty(m, n, dtype=f32), x.new_empty(m, n)
    grid = triton.cdiv(m, 64), triton.cdiv(n, 32)
    fp8_matmul_kernel[grid](narrow, weight, total, m, n, k, 64, 32, 64)
    block = triton.next_power_of_2(n)
    dequantize_kernel[(m,)](total, scales, weight_scales, out, n, BLOCK=block)
    return out


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.float().abs().amax(1, keepdim=True).clamp(min=1e-6) / 448.0
    return (x.float() / scale).to(fp8).float(), scale


def fp8_linear_in_torch(x: Tensor, w: Tensor) -> Tensor:
    (a, of_a), (b, of_b) = quantized(x), quantized(w)
    return ((a @ b.T) * (of_a * of_b.T)).half()


FP8_LINEAR = ProgramModel(
    "fp8_linear",
    fp8_linear,
    lambda x, w: x.new_empty(x.shape[0], w.shape[0]),
    fp8_linear_in_torch,
    lambda x, w: torch.ops.program.fp8_linear(x * 0.5, w).relu(),
    inputs((48, 256), (96, 256)),
    inputs((ROWS, 256), (96, 256)),
    tuple(f"fp8_linear_step{i}" for i in range(4)),
    # Hopper's FP8 units add with fewer bits, and a quotient may round the other way.
    tolerance=6e-2,  # where torch and Triton round a tie to another FP8 number
)


# --- Normalization in two passes ------------------------------------------------------


@triton.jit
def statistics_kernel(x, means, scales, n, eps, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + column, column < n, other=0.0).to(tl.float32)
    mean = tl.sum(value) / n
    away = tl.where(column < n, value - mean, 0.0)
    tl.store(means + row, mean)
    tl.store(scales + row, 1.0 / tl.sqrt(tl.sum(away * away) / n + eps))


@triton.jit
def normalize_kernel(x, means, scales, weight, out, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + column, column < n, other=0.0).to(tl.float32)
    value = (value - tl.load(means + row)) * tl.load(scales + row)
    value *= tl.load(weight + column, column < n, other=0.0).to(tl.float32)
    tl.store(out + row * n + column, value.to(tl.float16), column < n)


def two_pass_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    m, n = x.shape
    means, scales = (torch.empty(m, dtype=f32, device=x.device) for _ in range(2))
    block = triton.next_power_of_2(n)
    statistics_kernel[(m,)](x, means, scales, n, eps, BLOCK=block)
    out = torch.empty_like(x)
    normalize_kernel[(m,)](x, means, scales, weight, out, n, BLOCK=block)
    return out


def norm_in_torch(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    shape = (x.shape[1],)
    norm = torch.nn.functional.layer_norm(x.float(), shape, weight.float(), eps=eps)
    return norm.half()


TWO_PASS_NORM = ProgramModel(
    "two_pass_norm",
    two_pass_norm,
    lambda x, weight, eps=1e-5: torch.empty_like(x),
    norm_in_torch,
    lambda x, weight: torch.ops.program.two_pass_norm(x * 0.5, weight, 0.25).relu(),
    inputs((48, 300), (300,)),
    inputs((ROWS, 300), (300,)),
    ("two_pass_norm_step0", "two_pass_norm_step1"),
    attributes={"eps": 0.25},
)


# --- In place: a rotary embedding -----------------------------------------------------


@triton.jit
def rotary_kernel(q, cos, sin, HEADS: tl.constexpr, HALF: tl.constexpr):
    row, head, column = tl.program_id(0), tl.program_id(1), tl.arange(0, HALF)
    first = q + (row * HEADS + head) * 2 * HALF + column
    second = first + HALF
    a, b = tl.load(first).to(tl.float32), tl.load(second).to(tl.float32)
    c = tl.load(cos + row * HALF + column).to(tl.float32)
    s = tl.load(sin + row * HALF + column).to(tl.float32)
    tl.store(first, (a * c - b * s).to(tl.float16))
    tl.store(second, (b * c + a * s).to(tl.float16))


def rotary(q: Tensor, cos: Tensor, sin: Tensor) -> None:
    m, heads, width = q.shape
    rotary_kernel[(m, heads)](q, cos, sin, HEADS=heads, HALF=width // 2)


def rotary_in_torch(q: Tensor, cos: Tensor, sin: Tensor) -> None:
    (a, b), c, s = q.float().chunk(2, -1), cos.float()[:, None], sin.float()[:, None]
    q.copy_(torch.cat([a * c - b * s, b * c + a * s], -1))


def rotate(q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q = q * 0.5
    torch.ops.program.rotary(q, cos, sin)
    return q + 1


ROTARY = ProgramModel(
    "rotary",
    rotary,
    lambda q, cos, sin: None,
    rotary_in_torch,
    rotate,
    inputs((48, 4, 64), (48, 32), (48, 32)),
    inputs((ROWS, 4, 64), (ROWS, 32), (ROWS, 32)),
    ("rotary_step0",),
    writes=("q",),
    copies=1,
)


# --- In place: add to the residual, and normalize -------------------------------------


@triton.jit
def add_norm_kernel(x, residual, out, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    at = row * n + column
    total = tl.load(x + at, column < n, other=0.0)
    total += tl.load(residual + at, column < n, other=0.0)
    tl.store(residual + at, total, column < n)
    value = total.to(tl.float32)
    value /= tl.sqrt(tl.sum(value * value) / n + 1e-6)
    tl.store(out + at, value.to(tl.float16), column < n)


def add_norm(x: Tensor, residual: Tensor) -> Tensor:
    m, n = x.shape
    out = torch.empty_like(x)
    add_norm_kernel[(m,)](x, residual, out, n, BLOCK=triton.next_power_of_2(n))
    return out


def add_norm_in_torch(x: Tensor, residual: Tensor) -> Tensor:
    residual += x
    value = residual.float()
    return (value / (value.square().mean(1, keepdim=True) + 1e-6).sqrt()).half()


def add_and_norm(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    residual = residual * 0.5
    y = torch.ops.program.add_norm(x.relu(), residual)
    return y + 1, residual + 1


def add_and_norm_of_a_view(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    residual = residual * 0.5  # of three dimensions
    y = torch.ops.program.add_norm_view(x.relu(), residual.view(-1, x.shape[1]))
    return y + 1, residual + 1


ADD_NORM = ProgramModel(
    "add_norm",
    add_norm,
    lambda x, residual: torch.empty_like(x),
    add_norm_in_torch,
    add_and_norm,
    inputs((48, 300), (48, 300)),
    inputs((ROWS, 300), (ROWS, 300)),
    ("add_norm_step0",),
    writes=("residual",),
    copies=1,
)
ADD_NORM_OF_A_VIEW = ProgramModel(
    "add_norm_view",
    add_norm,
    lambda x, residual: torch.empty_like(x),
    add_norm_in_torch,
    add_and_norm_of_a_view,
    inputs((48, 300), (1, 48, 300)),
    inputs((ROWS, 300), (1, ROWS, 300)),
    ("add_norm_view_step0",),
    writes=("residual",),
    copies=1,
    takes_one_shape=True,
)


# --- Between torch's operations, and into zeros ---------------------------------------


@triton.jit
def swish_kernel(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < n, other=0.0)
    tl.store(out + at, value * tl.sigmoid(value), at < n)


def between(x: Tensor) -> Tensor:
    wide = x.float()
    out = torch.empty_like(wide)
    n = x.numel()
    swish_kernel[(triton.cdiv(n, 512),)](wide, out, n, BLOCK=512)
    return out.to(x.dtype)


BETWEEN = ProgramModel(
    "between",
    between,
    torch.empty_like,
    lambda x: torch.nn.functional.silu(x.float()).half(),
    lambda x: torch.ops.program.between(x * 0.5).relu(),
    inputs((48, 300)),
    inputs((ROWS, 300)),
    ("aten._to_copy", "between_step0", "aten._to_copy"),
)


@triton.jit
def column_sums_kernel(x, sums, n, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + column, column < n, other=0.0).to(tl.float32)
    tl.atomic_add(sums + column, value, column < n)


def column_sums(x: Tensor) -> Tensor:
    m, n = x.shape
    sums = torch.zeros(n, dtype=f32, device=x.device)
    column_sums_kernel[(m,)](x, sums, n, BLOCK=triton.next_power_of_2(n))
    return sums


COLUMN_SUMS = ProgramModel(
    "column_sums",
    column_sums,
    lambda x: x.new_empty(x.shape[1], dtype=f32),
    lambda x: x.float().sum(0),
    lambda x: torch.ops.program.column_sums(x * 0.5).relu(),
    inputs((48, 300)),
    inputs((ROWS, 300)),
    ("column_sums_step0",),  # the zeros are a constant of the graph
    copies=1,
    tolerance=1e-3,  # atomics add in any order
)

PROGRAMS = (
    *(SPLIT_K, FP8_LINEAR, TWO_PASS_NORM, ROTARY, ADD_NORM, ADD_NORM_OF_A_VIEW),
    *(BETWEEN, COLUMN_SUMS),
)
each_program = pytest.mark.parametrize("model", PROGRAMS, ids=lambda model: model.name)
