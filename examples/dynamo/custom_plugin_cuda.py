# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_cuda:

A CUDA C++ kernel inside a TensorRT engine
==========================================

A linear layer with int8 weights, dequantized while the product is computed. The kernel
is a template: each config instantiates it with another number of warps, and TensorRT
times the instances.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# A warp computes one element of the output. Names in braces are template arguments,
# which the launch gives by name.

import torch
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

int8_linear_kernel = tta.CUDAKernel(
    """
    #include <cuda_bf16.h>
    #include <cuda_fp16.h>

    template <class T, int WARPS>
    __global__ void __launch_bounds__(WARPS * 32) int8_linear(
        const T* __restrict__ x, const signed char* __restrict__ weight,
        const float* __restrict__ scale, T* out, int columns, int depth) {
      const int column = blockIdx.x * WARPS + threadIdx.x / 32;
      const int lane = threadIdx.x % 32;
      if (column >= columns) return;
      const T* row = x + (size_t)blockIdx.y * depth;
      const signed char* line = weight + (size_t)column * depth;
      float sum = 0.0f;
      for (int k = lane; k < depth; k += 32) sum += float(row[k]) * line[k];
      for (int other = 16; other > 0; other /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, other);
      if (lane == 0)
        out[(size_t)blockIdx.y * columns + column] = T(sum * scale[column]);
    }
    """,
    "int8_linear<{T}, {WARPS}>",
)


def launch_int8_linear(x, weight, scale, out, WARPS=4):
    columns, depth = weight.shape
    rows = x.numel() // depth
    int8_linear_kernel(
        grid=((columns + WARPS - 1) // WARPS, rows),
        block=(WARPS * 32,),
        args=(x, weight, scale, out, columns, depth),
        T=x.dtype,
        WARPS=WARPS,
    )


# %%
# One call
# --------

trt_plugins.custom_op(
    "example::int8_linear",
    impl=tta.custom_plugin(
        tta.cuda(launch_int8_linear, configs=[{"WARPS": 4}, {"WARPS": 8}]),
        meta_impl=lambda x, weight, scale: x.new_empty(*x.shape[:-1], weight.shape[0]),
    ),
    supports_dynamic_shapes=True,
)


class Int8Linear(torch.nn.Module):
    def __init__(self, depth: int, columns: int) -> None:
        super().__init__()
        weight = torch.randint(-127, 128, (columns, depth), dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", torch.rand(columns) / (127 * depth**0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.example.int8_linear(x, self.weight, self.scale)
        return torch.nn.functional.gelu(y)


# %%
# An engine, or a dry run
# -----------------------

DEPTH, COLUMNS = 512, 384
ROWS = torch_tensorrt.Input(
    min_shape=(1, 1, DEPTH),
    opt_shape=(1, 16, DEPTH),
    max_shape=(1, 64, DEPTH),
    dtype=torch.float16,
)


def plain(x, weight, scale):
    y = x.float() @ weight.float().t() * scale
    return y.to(x.dtype)


if __name__ == "__main__":
    model = Int8Linear(DEPTH, COLUMNS).eval()
    weights = [
        torch_tensorrt.Input((COLUMNS, DEPTH), dtype=torch.int8),
        torch_tensorrt.Input((COLUMNS,), dtype=torch.float32),
    ]
    show(
        model,
        lambda x: torch.nn.functional.gelu(plain(x, model.weight, model.scale)),
        [ROWS],
        lambda target: tta.dry_run(
            "example::int8_linear", [ROWS, *weights], target, reference=plain
        ),
    )
