# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_autotuned:

A kernel with ``@triton.autotune``
==================================

A kernel with ``@triton.autotune`` works as it is. The configs of its decorator become
tactics, and TensorRT times them when it builds the engine: for the shapes of the
profile, and beside the layers around the plugin. Nothing is tuned at run time.
"""

# %%
# The kernel, decorators included
# -------------------------------
# ``@triton.heuristics`` works too. Here it decides whether the columns need a mask.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.autotune(
    configs=[
        triton.Config({"ROWS": 1}, num_warps=2),
        triton.Config({"ROWS": 2}, num_warps=4),
        triton.Config({"ROWS": 4}, num_warps=8),
    ],
    key=["rows", "columns"],
)
@triton.heuristics({"WHOLE": lambda args: args["BLOCK"] == args["columns"]})
@triton.jit
def softmax_kernel(
    x_ptr,
    out_ptr,
    rows,
    columns,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = row < rows
    if not WHOLE:
        mask = mask & (column < columns)
    offsets = row * columns + column
    x = tl.load(x_ptr + offsets, mask=mask, other=-float("inf")).to(tl.float32)
    exponentials = tl.exp(x - tl.max(x, axis=1, keep_dims=True))
    y = exponentials / tl.sum(exponentials, axis=1, keep_dims=True)
    tl.store(out_ptr + offsets, y.to(out_ptr.dtype.element_ty), mask=mask)


def launch_softmax(x, out):
    columns = x.shape[-1]
    rows = x.numel() // columns
    softmax_kernel[lambda meta: (triton.cdiv(rows, meta["ROWS"]),)](
        x, out, rows, columns, BLOCK=triton.next_power_of_2(columns)
    )


# %%
# One call
# --------
# No ``configs`` here, so the decorator's configs are the tactics.

trt_plugins.custom_op(
    "example::softmax",
    impl=tta.custom_plugin(
        tta.triton(launch_softmax), meta_impl=lambda x: torch.empty_like(x)
    ),
    supports_dynamic_shapes=True,
)


class Classifier(torch.nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.example.softmax(self.linear(x))


# %%
# An engine, or a dry run
# -----------------------


def rows_of(width: int) -> torch_tensorrt.Input:
    shapes = {"min_shape": (1, width), "opt_shape": (64, width)}
    return torch_tensorrt.Input(**shapes, max_shape=(4096, width), dtype=torch.float16)


def plain(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


if __name__ == "__main__":
    model = Classifier(256, 1000).half().eval()
    show(
        model,
        lambda x: plain(model.linear(x)),
        [rows_of(256)],
        lambda target: tta.dry_run(
            "example::softmax", [rows_of(1000)], target, reference=plain
        ),
    )
