# SPDX-License-Identifier: BSD-3-Clause

"""The table of features in CuTe DSL."""

from __future__ import annotations

import cutlass
import cutlass.cute as cute
import torch
from cutedsl_kernels import flattened, thread_index
from cutlass import Constexpr, Float32
from cutlass.cute.runtime import from_dlpack

BLOCK = 128


@cute.kernel
def double_kernel(x: cute.Tensor, out: cute.Tensor, is_bool: Constexpr):
    """A bool has eight bits in memory, and make_tensor knows of no others."""
    i = thread_index()
    if i < cute.size(x):
        if cutlass.const_expr(is_bool):
            out[i] = (x[i] == 0).to(out.element_type)
        elif cutlass.const_expr(x.element_type is cutlass.Float8E4M3FN):
            out[i] = (x[i].to(Float32) * 2).to(x.element_type)
        else:
            out[i] = x[i] + x[i]


@cute.kernel
def weighted_kernel(x: cute.Tensor, weight: cute.Tensor, out: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        out[i] = x[i] * weight[i % cute.size(weight)]


@cute.kernel
def affine_kernel(x: cute.Tensor, out: cute.Tensor, scale: Constexpr, shift: Constexpr):
    i = thread_index()
    if i < cute.size(x):
        out[i] = (x[i].to(Float32) * scale + shift).to(x.element_type)


@cute.kernel
def two_kernel(x: cute.Tensor, total: cute.Tensor, negative: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        total[i] = x[i] + x[i]
        negative[i] = (-x[i].to(Float32)).to(negative.element_type)


@cute.kernel
def biased_kernel(x: cute.Tensor, bias: cute.Tensor | None, out: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        more = x[i]
        if cutlass.const_expr(bias is not None):
            more = bias[i % cute.size(bias)]
        out[i] = x[i] + more


@cute.kernel
def difference_kernel(a: cute.Tensor, b: cute.Tensor, out: cute.Tensor):
    i = thread_index()
    if i < cute.size(out):
        at = i // out.shape[1], i % out.shape[1]
        out[at] = a[at] - b[at]


@cute.jit
def double(x: cute.Tensor, out: cute.Tensor):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    is_bool = x.element_type is cutlass.Boolean
    double_kernel(flattened(x), flattened(out), is_bool).launch(
        grid=(blocks, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.jit
def weighted(x: cute.Tensor, weight: cute.Tensor, out: cute.Tensor):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    weighted_kernel(flattened(x), weight, flattened(out)).launch(
        grid=(blocks, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.jit
def biased(x: cute.Tensor, bias: cute.Tensor | None, out: cute.Tensor):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    biased_kernel(flattened(x), bias, flattened(out)).launch(
        grid=(blocks, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.jit
def affine(x: cute.Tensor, out: cute.Tensor, scale: Constexpr, shift: Constexpr):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    affine_kernel(flattened(x), flattened(out), scale, shift).launch(
        grid=(blocks, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.jit
def two(x: cute.Tensor, total: cute.Tensor, negative: cute.Tensor):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    two_kernel(flattened(x), flattened(total), flattened(negative)).launch(
        grid=(blocks, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.jit
def difference(a: cute.Tensor, b: cute.Tensor, out: cute.Tensor):
    blocks = cute.ceil_div(cute.size(out), BLOCK)
    difference_kernel(a, b, out).launch(grid=(blocks, 1, 1), block=(BLOCK, 1, 1))


def halves(x, out):
    difference(*map(from_dlpack, (*x.chunk(2, -1), out)))


def packed(x, out):
    difference(from_dlpack(x[0]), from_dlpack(x[1]), from_dlpack(out))


def stacked(x, out):
    two(from_dlpack(x), from_dlpack(out[0]), from_dlpack(out[1]))


def hidden(x, total):
    two(x, total, torch.empty_like(x, dtype=torch.float32))
