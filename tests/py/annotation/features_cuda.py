# SPDX-License-Identifier: BSD-3-Clause

"""The table of features in CUDA C++."""

from __future__ import annotations

from typing import Any

import torch
from cuda_kernels import cdiv

import torch_tensorrt.annotation as tta

BLOCK = 128
SOURCE = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define INDEX const int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return

template <class T> __device__ T twice(T x) { return x + x; }
template <> __device__ bool twice(bool x) { return !x; }
template <> __device__ __nv_fp8_e4m3 twice(__nv_fp8_e4m3 x) {
  return __nv_fp8_e4m3(float(x) * 2);
}

template <class T> __global__ void doubled(const T* x, T* out, int n) {
  INDEX;
  out[i] = twice(x[i]);
}

template <class T>
__global__ void weighted(const T* x, const T* weight, T* out, int n, int columns) {
  INDEX;
  out[i] = x[i] * weight[i % columns];
}

template <class T>
__global__ void affine(const T* x, T* out, int n, float scale, int shift) {
  INDEX;
  out[i] = T(float(x[i]) * scale + shift);
}

template <class T>
__global__ void biased(const T* x, const T* bias, T* out, int n, int columns) {
  INDEX;
  out[i] = x[i] + (bias == nullptr ? x[i] : bias[i % columns]);
}

template <class T, class U>
__global__ void two(const T* x, T* sum, U* negative, int n) {
  INDEX;
  sum[i] = x[i] + x[i];
  negative[i] = U(-float(x[i]));
}

template <class T>
__global__ void difference(
    const T* a, const T* b, T* out, int n, int columns, long long stride) {
  INDEX;
  const long long place = i / columns * stride + i % columns;
  out[i] = a[place] - b[place];
}
"""


def run(name: str, n: Any, *arguments: Any, **types: torch.dtype) -> None:
    """Launch one of the kernels, over n elements."""
    template = f"{name}<{', '.join(f'{{{each}}}' for each in types)}>"
    kernel = tta.CUDAKernel(SOURCE, template)
    kernel((cdiv(n, BLOCK),), (BLOCK,), arguments, **types)


def double(x, out):
    run("doubled", x.numel(), x, out, x.numel(), T=x.dtype)


def weighted(x, weight, out):
    n = x.numel()
    run("weighted", n, x, weight, out, n, x.shape[-1], T=x.dtype)


def affine(x, out, scale, shift):
    n = x.numel()
    run("affine", n, x, out, n, scale, shift, T=x.dtype)


def biased(x, bias, out):
    n = x.numel()
    run("biased", n, x, bias, out, n, x.shape[-1], T=x.dtype)


def two(x, total, negative):
    n = x.numel()
    run("two", n, x, total, negative, n, T=x.dtype, U=negative.dtype)


def halves(x, out):
    a, b = x.chunk(2, -1)
    n = out.numel()
    run("difference", n, a, b, out, n, out.shape[1], x.stride(0), T=x.dtype)


def packed(x, out):
    n = out.numel()
    run("difference", n, x[0], x[1], out, n, out.shape[1], x.stride(1), T=x.dtype)


def stacked(x, out):
    two(x, out[0], out[1])


def hidden(x, total):
    two(x, total, torch.empty_like(x, dtype=torch.float32))
