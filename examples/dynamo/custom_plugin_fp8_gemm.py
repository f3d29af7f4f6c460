# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_fp8_gemm:

A matrix product in FP8
=======================

In FP8, tensor cores do twice as many operations a second as in float16, and weights
take half the memory. Each element has a sign, four bits of exponent and three of
mantissa, so a row of activations and a row of weights have a scale each. The kernel
multiplies the codes and then applies both scales.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# Hopper's tensor cores add FP8 products with fewer bits than float32 has. With
# ``max_num_imprecise_acc``, the kernel adds no more than ``BK`` of them in that way.

import re

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

FP8 = torch.float8_e4m3fn


@triton.jit
def product_kernel(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    out_ptr,
    M,
    N,
    K,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        x = tl.load(
            x_ptr + row[:, None] * K + k[None, :], mask=row[:, None] < M, other=0.0
        )
        w = tl.load(
            weight_ptr + column[None, :] * K + k[:, None],
            mask=column[None, :] < N,
            other=0.0,
        )
        sums = tl.dot(x, w, sums, max_num_imprecise_acc=BK)
    x_scale = tl.load(x_scale_ptr + row, mask=row < M, other=0.0)
    weight_scale = tl.load(weight_scale_ptr + column, mask=column < N, other=0.0)
    out = sums * x_scale[:, None] * weight_scale[None, :]
    inside = (row[:, None] < M) & (column[None, :] < N)
    tl.store(out_ptr + row[:, None] * N + column[None, :], out.to(tl.float16), inside)


def launch_product(x, weight, x_scale, weight_scale, out, BM=64, BN=128, BK=64):
    (M, K), N = x.shape, weight.shape[0]
    grid = triton.cdiv(M, BM), triton.cdiv(N, BN)
    product_kernel[grid](
        *(x, weight, x_scale, weight_scale, out, M, N, K), BM=BM, BN=BN, BK=BK
    )


# %%
# One call
# --------

trt_plugins.custom_op(
    "example::fp8_product",
    impl=tta.custom_plugin(
        tta.triton(
            launch_product,
            configs=[
                {"BM": 64, "BN": 128, "BK": 128, "num_warps": 4, "num_stages": 3},
                {"BM": 128, "BN": 128, "BK": 128, "num_warps": 8, "num_stages": 3},
            ],
        ),
        meta_impl=lambda x, weight, x_scale, weight_scale: x.new_empty(
            x.shape[0], weight.shape[0], dtype=torch.float16
        ),
    ),
    supports_dynamic_shapes=True,
)


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and a scale for each row: the largest element becomes the largest code."""
    scale = x.float().abs().amax(-1) / torch.finfo(FP8).max
    return (x.float() / scale[:, None]).to(FP8), scale


class Linear(torch.nn.Module):
    """Weights are quantized once, activations arrive quantized."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        codes, scale = quantized(torch.randn(rows, columns) / columns**0.5)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor, x_scale: torch.Tensor) -> torch.Tensor:
        y = torch.ops.example.fp8_product(x, self.codes, x_scale, self.scale)
        return torch.relu(y)


# %%
# An engine, or a dry run
# -----------------------
# Triton's interpreter gets FP8 wrong, so without a GPU no values are compared. The last
# lines say what the code does with FP8, and what FP8 itself costs.

COLUMNS, ROWS = 1024, 512


def plain(x, weight, x_scale, weight_scale) -> torch.Tensor:
    y = (x.float() * x_scale[:, None]) @ (weight.float() * weight_scale[:, None]).T
    return y.half()


def cost(report) -> str:
    products = re.findall(r"\bw?gmma\.mma\S+|\bmma\.sync\S+", report.tactics[0].code)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, COLUMNS, generator=generator) for n in (64, ROWS))
    (x8, x_scale), (w8, w_scale) = quantized(x), quantized(w)
    exact = x @ w.T
    error = (plain(x8, w8, x_scale, w_scale).float() - exact).norm() / exact.norm()
    return (
        f"Tactic 1 multiplies with {len(products)} instructions {products[0]}. The "
        f"weights take "
        f"{w8.nbytes // 1024} KiB instead of {w.half().nbytes // 1024} in float16. For "
        f"normally distributed x and weights, quantizing both changes the product by "
        f"{error:.1%}."
    )


if __name__ == "__main__":
    x, x_scale = (
        torch_tensorrt.Input(
            min_shape=(1, *extents),
            opt_shape=(256, *extents),
            max_shape=(4096, *extents),
            dtype=dtype,
        )
        for extents, dtype in (((COLUMNS,), FP8), ((), torch.float32))
    )
    weight = torch_tensorrt.Input((ROWS, COLUMNS), dtype=FP8)
    weight_scale = torch_tensorrt.Input((ROWS,), dtype=torch.float32)
    model = Linear(COLUMNS, ROWS)
    show(
        model,
        lambda x, x_scale: torch.relu(plain(x, model.codes, x_scale, model.scale)),
        [x, x_scale],
        lambda target: tta.dry_run(
            "example::fp8_product",
            [x, weight, x_scale, weight_scale],
            target,
            reference=plain,
        ),
        summary=cost,
    )
