# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_library:

A public library's norm, in one line
====================================

Kernel libraries come with functions that allocate, choose a block size and launch. Here
``rms_norm_forward`` of Liger-Kernel goes into an engine as it is: no line of it is
copied or changed. An op calls it, and ``impl=tta.triton()`` is all that TensorRT needs.

Liger-Kernel is not part of this project: ``pip install --no-deps liger-kernel``.
Without it, a function of the same signature takes its place.
"""

# %%
# The library
# -----------

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

try:
    from liger_kernel.ops.rms_norm import rms_norm_forward
except ImportError:

    @triton.jit
    def rms_norm_kernel(x, weight, y, rstd, width, eps, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
        value = tl.load(x + row * width + column, column < width, other=0.0)
        value = value.to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
        tl.store(rstd + row, scale)
        out = (value * scale).to(y.dtype.element_ty)
        out *= tl.load(weight + column, column < width)
        tl.store(y + row * width + column, out, column < width)

    def rms_norm_forward(X, W, eps, offset, casting_mode, row_mode):
        """As Liger's, for the arguments below."""
        shape, X = X.shape, X.view(-1, X.shape[-1])
        rows, width = X.shape
        Y, RSTD = torch.empty_like(X), X.new_empty(rows, dtype=torch.float32)
        BLOCK = triton.next_power_of_2(width)
        rms_norm_kernel[(rows,)](X, W, Y, RSTD, width, eps, BLOCK=BLOCK)
        return Y.view(*shape), X, RSTD, BLOCK, 4, casting_mode


# %%
# The op
# ------
# The function also returns what training needs. The engine gets the first result; the
# others are buffers that the op does not return.


@torch.library.custom_op("library::rms_norm", mutates_args=())
def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rms_norm_forward(x, weight, 1e-6, 0.0, "llama", None)[0]


rms_norm.register_fake(lambda x, weight: torch.empty_like(x))

# %%
# One line
# --------

trt_plugins.custom_op(
    "library::rms_norm", impl=tta.triton(), supports_dynamic_shapes=True
)

# %%
# An engine, or a dry run
# -----------------------

WIDTH = 1024


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(WIDTH))
        self.linear = torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(rms_norm(x, self.weight))


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    return (x.float() * scale).to(x.dtype) * weight


def origin(report) -> str:
    hidden = report.tactics[0].at((37, WIDTH), (WIDTH,)).hidden
    return (
        f"The kernel is of {rms_norm_forward.__module__}, unchanged. For 37 rows, the "
        f"engine has {len(hidden)} buffer that the op does not return, with "
        f"{hidden[0][0]} elements: what the library keeps for training."
    )


if __name__ == "__main__":
    model = Block().half().eval()
    rows = torch_tensorrt.Input(
        min_shape=(2, WIDTH),
        opt_shape=(64, WIDTH),
        max_shape=(4096, WIDTH),
        dtype=torch.float16,
    )
    weight = torch_tensorrt.Input((WIDTH,), dtype=torch.float16)
    show(
        model,
        lambda x: x + model.linear(plain(x, model.weight)),
        [rows],
        lambda target: tta.dry_run(
            "library::rms_norm", [rows, weight], target, reference=plain
        ),
        summary=origin,
    )
