# SPDX-License-Identifier: BSD-3-Clause

"""Kernels in CUDA C++, launched as people do, each with inputs to try it on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from kernels import Case, info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._tensors import Range

SOURCES = Path(__file__).parent / "cuda_sources"

# Compiled by each way that there is.
SOURCE = """
extern "C" __global__ void scaled(const float* x, float* out, int n, float by) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] * by;
}
template <class T, int K>
__global__ void shifted(const T* x, T* out, unsigned long long n, float by) {
    unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i] * (T)by + (T)K;
}
"""


def cdiv(a: Any, b: Any) -> Any:
    return (a + b - 1) // b


# --- Vector add, with torch's own compiler of kernels ---------------------------------

ADD = """
extern "C" __global__ void add(const float* x, const float* y, float* out, int n) {
    int i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < n) out[i] = x[i] + y[i];
}
"""


@functools.cache
def compiled_add(block: int) -> Any:
    options = [f"-DBLOCK={block}"]
    return torch.cuda._compile_kernel(ADD, "add", nvcc_options=options)


def launch_add(x, y, out, BLOCK=256):
    n = x.numel()
    compiled_add(BLOCK)(
        grid=(cdiv(n, BLOCK), 1, 1), block=(BLOCK, 1, 1), args=[x, y, out, n]
    )


# --- RMS norm, one template for all dtypes --------------------------------------------

rms_norm = tta.CUDAKernel(
    """
    #include <cuda_bf16.h>
    #include <cuda_fp16.h>

    template <class T, int BLOCK>
    __global__ void __launch_bounds__(BLOCK) rms_norm(
        const T* x, const T* weight, T* out, int columns, float eps) {
      __shared__ float partial[BLOCK / 32];
      const T* row = x + (size_t)blockIdx.x * columns;
      float sum = 0.0f;
      for (int c = threadIdx.x; c < columns; c += BLOCK) {
        const float value = float(row[c]);
        sum += value * value;
      }
      for (int lane = 16; lane > 0; lane /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lane);
      if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
      __syncthreads();
      sum = 0.0f;
      for (int warp = 0; warp < BLOCK / 32; ++warp) sum += partial[warp];
      const float scale = rsqrtf(sum / columns + eps);
      for (int c = threadIdx.x; c < columns; c += BLOCK)
        out[(size_t)blockIdx.x * columns + c] =
            T(float(row[c]) * scale * float(weight[c]));
    }
    """,
    "rms_norm<{T}, {BLOCK}>",
    options=["-std=c++17"],
)


def launch_rms_norm(x, weight, out, BLOCK=256):
    rows, columns = x.shape
    arguments = (x, weight, out, columns, 1e-6)
    rms_norm((rows,), (BLOCK,), arguments, T=x.dtype, BLOCK=BLOCK)


# --- A matrix product with tensor cores, of a file ------------------------------------

gemm = tta.CUDAKernel(SOURCES / "gemm.cu", "gemm<{BM}, {BN}, {BK}, {WM}, {WN}>")
SMALL_TILES = {"BM": 64, "BN": 64, "BK": 32, "WM": 32, "WN": 32}
LARGE_TILES = {"BM": 128, "BN": 128, "BK": 64, "WM": 64, "WN": 32}  # 64 KiB of them


def launch_gemm(a, b, out, BM=64, BN=64, BK=32, WM=32, WN=32):
    (m, k), n = a.shape, b.shape[0]
    gemm(
        (cdiv(n, BN), cdiv(m, BM)),
        (BM // WM * (BN // WN) * 32,),
        (a, b, out, m, n, k),
        shared_mem=max(2 * (BM + BN) * (BK + 8), 4 * BM * BN),
        BM=BM,
        BN=BN,
        BK=BK,
        WM=WM,
        WN=WN,
    )


# --- Integers to float16, four at a time ----------------------------------------------

dequantize = tta.CUDAKernel(
    """
    #include <cuda_fp16.h>

    extern "C" __global__ void dequantize(
        const char4* values, const float* scales, __half2* out, int quarters,
        float offset) {
      const int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i >= quarters) return;
      const size_t place = (size_t)blockIdx.y * quarters + i;
      const char4 v = values[place];
      const float scale = scales[blockIdx.y];
      out[2 * place] = __floats2half2_rn(v.x * scale + offset, v.y * scale + offset);
      out[2 * place + 1] =
          __floats2half2_rn(v.z * scale + offset, v.w * scale + offset);
    }
    """,
    "dequantize",
)


def launch_dequantize(values, scales, out, BLOCK=256):
    rows, quarters = values.shape[0], values.shape[1] // 4
    arguments = (values, scales, out, quarters, 0.5)
    dequantize((cdiv(quarters, BLOCK), rows), (BLOCK,), arguments)


# --- Parameters of all types that TensorRT does not pass as they are ------------------

scalars = tta.CUDAKernel(
    """
    extern "C" __global__ void scalars(
        const float* x, const float* bias, float* out, long long n, double by,
        size_t large, unsigned char small, bool negate, short shift) {
      const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
      if (i >= n) return;
      double y = x[i] * by + (bias == nullptr ? small : bias[i]) + shift;
      if (large == 1ull << 40) y += 1;
      out[i] = negate ? -y : y;
    }
    """,
    "scalars",
)


def launch_scalars(x, out):
    n = x.numel()
    arguments = (x, None, out, n, 0.1, 2**40, 200, n % 2 == 0, -n)
    scalars((cdiv(n, 64),), (64,), arguments)


# --- With headers ---------------------------------------------------------------------

silu = tta.CUDAKernel(
    """
    #include "activations.cuh"

    namespace activation {
    template <class T>
    __global__ void apply(const T* x, T* out, unsigned n) {
      const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i < n) out[i] = silu(x[i]);
    }
    }  // namespace activation
    """,
    "activation::apply<float>",
    include_dirs=[SOURCES],
)


def launch_silu(x, out, BLOCK=128):
    n = x.numel()
    silu(cdiv(n, BLOCK), BLOCK, (x, out, n))


ROWS = Range(1, 8, 16)
FEW = Range(33, 40, 70)

CUDA_CASES = [
    Case(
        "cuda_add",
        tta.cuda(launch_add, configs=[{"BLOCK": 128}, {"BLOCK": 256, "maxnreg": 32}]),
        lambda x, y: torch.empty_like(x),
        (info(ROWS, 1000, dtype=torch.float32),) * 2,
    ),
    Case(
        "cuda_rms_norm",
        tta.cuda(launch_rms_norm, configs=[{"BLOCK": 128}]),
        lambda x, weight: torch.empty_like(x),
        (info(ROWS, FEW), info(FEW)),
    ),
    Case(
        "cuda_gemm",
        tta.cuda(launch_gemm, configs=[SMALL_TILES]),
        lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        (info(FEW, 64), info(ROWS, 64)),
    ),
    Case(
        "cuda_dequantize",
        tta.cuda(launch_dequantize),
        lambda values, scales: torch.empty_like(values, dtype=torch.float16),
        (info(ROWS, 64, dtype=torch.int8), info(ROWS, dtype=torch.float32)),
    ),
    Case(
        "cuda_scalars",
        tta.cuda(launch_scalars),
        lambda x: torch.empty_like(x),
        (info(ROWS, 33, dtype=torch.float32),),
    ),
    Case(
        "cuda_silu",
        tta.cuda(launch_silu),
        lambda x: torch.empty_like(x),
        (info(ROWS, FEW, dtype=torch.float32),),
    ),
]
