# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_dynamic_shapes:

Dynamic shapes
==============

One engine serves every shape between a minimum and a maximum. The launch function runs
once, with symbols in place of the dynamic sizes. The grid and every integer argument
become expressions, which TensorRT evaluates for each shape. The kernel's compiler gets
the facts that hold for the whole profile, for example that a size is divisible by 16.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# LayerNorm of rows of any length, in steps of ``BLOCK``. A dynamic size can decide
# neither a branch nor the ``BLOCK`` of a reduction.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import loads, show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def normalize_kernel(x_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * width
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(0, width, BLOCK):
        column = step + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + start + column, mask=column < width, other=0.0)
        total += x.to(tl.float32)
    mean = tl.sum(total, axis=0) / width
    squares = tl.zeros((BLOCK,), tl.float32)
    for step in range(0, width, BLOCK):
        column = step + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + start + column, mask=column < width, other=0.0)
        centered = tl.where(column < width, x.to(tl.float32) - mean, 0.0)
        squares += centered * centered
    scale = tl.rsqrt(tl.sum(squares, axis=0) / width + eps)
    for step in range(0, width, BLOCK):
        column = step + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + start + column, mask=column < width, other=0.0)
        y = ((x.to(tl.float32) - mean) * scale).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + start + column, y, mask=column < width)


def launch_normalize(x, out, eps=1e-5, BLOCK=512):
    width = x.shape[-1]
    rows = x.numel() // width
    normalize_kernel[(rows,)](x, out, width, eps, BLOCK=BLOCK)


# %%
# One call
# --------

trt_plugins.custom_op(
    "example::normalize",
    impl=tta.custom_plugin(
        tta.triton(
            launch_normalize,
            configs=[{"BLOCK": 512, "num_warps": 2}, {"BLOCK": 1024, "num_warps": 4}],
        ),
        meta_impl=lambda x: torch.empty_like(x),
    ),
    supports_dynamic_shapes=True,
)


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.ops.example.normalize(x * 0.5))


# %%
# An engine, or a dry run
# -----------------------
# In the first profile the rows have 2048 columns, a constant that is divisible by 16.
# In the second the columns are dynamic too: a row may start at any even address, and
# each thread loads its elements one by one. The last line shows the difference, and on
# a GPU the times do.


def profile(*shapes: tuple[int, ...]) -> torch_tensorrt.Input:
    names = ("min_shape", "opt_shape", "max_shape")
    return torch_tensorrt.Input(
        **dict(zip(names, shapes, strict=True)), dtype=torch.float16
    )


ROWS = profile((1, 1, 2048), (4, 128, 2048), (8, 512, 2048))
ROWS_AND_COLUMNS = profile((1, 1, 64), (4, 128, 2048), (8, 512, 4100))


def plain(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def facts(rows, rows_and_columns) -> str:
    one, other = rows.tactics[0], rows_and_columns.tactics[0]
    launch = other.at((3, 37, 1001))
    return (
        f"With 2048 columns a thread has {loads(one.code)}, with any number "
        f"{loads(other.code)}. For 3x37x1001 TensorRT would launch {launch.grid[0]} "
        f"blocks, with {launch.extras[0]} as the width."
    )


if __name__ == "__main__":
    show(
        Model(),
        lambda x: torch.relu(plain(x * 0.5)),
        [ROWS_AND_COLUMNS],
        *(
            lambda target, x=x: tta.dry_run(
                "example::normalize", [x], target, reference=plain
            )
            for x in (ROWS, ROWS_AND_COLUMNS)
        ),
        summary=facts,
    )
