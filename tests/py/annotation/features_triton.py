# SPDX-License-Identifier: BSD-3-Clause

"""The table of features in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = tl.constexpr(128)


@triton.jit
def double_kernel(x_ptr, out_ptr, n):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if x.dtype == tl.int1:
        y = x == 0
    elif x.dtype == tl.float8e4nv:
        y = (x.to(tl.float32) * 2).to(x.dtype)
    else:
        y = x + x
    tl.store(out_ptr + offsets, y, mask=offsets < n)


@triton.jit
def weighted_kernel(x_ptr, weight_ptr, out_ptr, n, columns):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    weight = tl.load(weight_ptr + offsets % columns)
    tl.store(out_ptr + offsets, x * weight, mask=offsets < n)


@triton.jit
def affine_kernel(x_ptr, out_ptr, n, scale, shift):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    y = (x * scale + shift).to(x.dtype)
    tl.store(out_ptr + offsets, y, mask=offsets < n)


@triton.jit
def two_kernel(x_ptr, sum_ptr, negative_ptr, n):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(sum_ptr + offsets, x + x, mask=offsets < n)
    tl.store(negative_ptr + offsets, -x.to(tl.float32), mask=offsets < n)


@triton.jit
def biased_kernel(x_ptr, bias_ptr, out_ptr, n, columns):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    bias = x
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + offsets % columns, mask=offsets < n)
    tl.store(out_ptr + offsets, x + bias, mask=offsets < n)


@triton.jit
def difference_kernel(a_ptr, b_ptr, out_ptr, n, columns, stride):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    places = offsets // columns * stride + offsets % columns
    a = tl.load(a_ptr + places, mask=offsets < n)
    b = tl.load(b_ptr + places, mask=offsets < n)
    tl.store(out_ptr + offsets, a - b, mask=offsets < n)


def grid(x):
    return (triton.cdiv(x.numel(), BLOCK.value),)


def double(x, out):
    double_kernel[grid(x)](x, out, x.numel())


def weighted(x, weight, out):
    weighted_kernel[grid(x)](x, weight, out, x.numel(), x.shape[-1])


def affine(x, out, scale, shift):
    affine_kernel[grid(x)](x, out, x.numel(), scale, shift)


def biased(x, bias, out):
    biased_kernel[grid(x)](x, bias, out, x.numel(), x.shape[-1])


def two(x, total, negative):
    two_kernel[grid(x)](x, total, negative, x.numel())


def halves(x, out):
    a, b = x.chunk(2, -1)
    rest = out.numel(), out.shape[1], x.stride(0)
    difference_kernel[grid(out)](a, b, out, *rest)


def packed(x, out):
    difference_kernel[grid(out)](
        x[0], x[1], out, out.numel(), out.shape[1], x.stride(1)
    )


def stacked(x, out):
    two_kernel[grid(x)](x, out[0], out[1], x.numel())


def hidden(x, total):
    two(x, total, torch.empty_like(x, dtype=torch.float32))
