# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_cutedsl:

A CuTe DSL kernel inside a TensorRT engine
==========================================

Pass the ``@cute.jit`` function that launches the kernel. Its host code is compiled once
and executed on expressions of the sizes. TensorRT gets the grid and every argument for
any shape of the profile.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# ``gelu(x + bias)``. Each thread takes one vector of 16 bytes. The width is static, so
# the kernel reads ``bias`` as vectors too.

import cutlass
import cutlass.cute as cute
import torch
from engine_or_dry_run import loads, show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@cute.kernel
def bias_gelu_kernel(x: cute.Tensor, bias: cute.Tensor, out: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    width, _, _ = cute.arch.block_dim()
    i = block * width + thread
    rows, columns = cute.size(x, mode=[1, 0]), cute.size(x, mode=[1, 1])
    if i < rows * columns:
        row, column = i // columns, i % columns
        y = x[None, (row, column)].load().to(cutlass.Float32)
        y = y + bias[None, (0, column)].load().to(cutlass.Float32)
        inner = 0.7978845608028654 * (y + 0.044715 * y * y * y)
        gelu = y / (1.0 + cute.math.exp(-2.0 * inner))
        out[None, (row, column)].store(gelu.to(out.element_type))


@cute.jit
def launch_bias_gelu(
    x: cute.Tensor,
    bias: cute.Tensor,
    out: cute.Tensor,
    THREADS: cutlass.Constexpr = 256,
):
    row = cute.make_tensor(
        bias.iterator, cute.make_layout((1, bias.shape[0]), stride=(0, 1))
    )
    tiler = (1, 128 // x.element_type.width)
    tiles = [cute.zipped_divide(t, tiler) for t in (x, row, out)]
    blocks = cute.ceil_div(cute.size(tiles[0], mode=[1]), THREADS)
    bias_gelu_kernel(*tiles).launch(grid=(blocks, 1, 1), block=(THREADS, 1, 1))


# %%
# One call
# --------
# A config sets the ``Constexpr`` parameters.

trt_plugins.custom_op(
    "example::bias_gelu",
    impl=tta.custom_plugin(
        tta.cutedsl(launch_bias_gelu, configs=[{"THREADS": 128}, {"THREADS": 256}]),
        meta_impl=lambda x, bias: torch.empty_like(x),
    ),
    supports_dynamic_shapes=True,
)


class FeedForward(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = torch.nn.Linear(width, 4 * width, bias=False)
        self.bias = torch.nn.Parameter(torch.randn(4 * width))
        self.down = torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.ops.example.bias_gelu(self.up(x), self.bias))


# %%
# An engine, or a dry run
# -----------------------
# The grid below was computed by the launcher's own host code, at a shape that no
# compiler has seen.


def rows_of(width: int) -> torch_tensorrt.Input:
    shapes = {"min_shape": (1, width), "opt_shape": (64, width)}
    return torch_tensorrt.Input(**shapes, max_shape=(4096, width), dtype=torch.float16)


def plain(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    y = torch.nn.functional.gelu(x.float() + bias.float(), approximate="tanh")
    return y.to(x.dtype)


def launches(report) -> str:
    tactic = report.tactics[0]
    launch = tactic.at((37, 2048), (2048,))
    return (
        f"Each thread has {loads(tactic.code)}, one of x and one of bias. For 37 rows "
        f"TensorRT would launch {launch.grid[0]} blocks of {launch.block[0]} threads, "
        f"for {launch.grid[0] * launch.block[0]} vectors of 8 elements."
    )


if __name__ == "__main__":
    model = FeedForward(512).half().eval()
    bias = torch_tensorrt.Input((2048,), dtype=torch.float16)
    show(
        model,
        lambda x: model.down(plain(model.up(x), model.bias)),
        [rows_of(512)],
        lambda target: tta.dry_run(
            "example::bias_gelu", [rows_of(2048), bias], target, reference=plain
        ),
        summary=launches,
    )
