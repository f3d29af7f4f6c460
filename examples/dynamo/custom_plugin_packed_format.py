# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_packed_format:

A kernel for a packed tensor format
===================================

TensorRT's convolutions prefer channels in groups: in ``CHW32``, 32 channels of one
pixel are adjacent. A plugin for row-major tensors only makes TensorRT convert before
and after it. With a kernel for each layout, both are tactics, and TensorRT takes the
faster one with its conversions counted.
"""

# %%
# Two kernels
# -----------
# ``hardswish`` treats all elements alike, so one kernel serves both layouts. In CHW32
# it gets the tensor as it lies in memory, ``[N, C / 32, H, W, 32]``, and ``numel``
# includes the padding.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def hardswish_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n).to(tl.float32)
    y = x * tl.minimum(tl.maximum(x + 3, 0), 6) / 6
    tl.store(out_ptr + offsets, y.to(out_ptr.dtype.element_ty), mask=offsets < n)


def launch_hardswish(x, out, BLOCK=1024):
    n = x.numel()
    hardswish_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK)


# %%
# The mean over all pixels reads CHW32 directly: a block takes the 32 channels of a
# group. The output is row-major and has no room for the padding. Its shape gives the
# number of channels; so does ``x.logical_shape[1]``.


@triton.jit
def mean_kernel(
    x_ptr, out_ptr, channels, groups, places, BLOCK: tl.constexpr, LANES: tl.constexpr
):
    image, group = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    total = tl.zeros((LANES,), tl.float32)
    start = x_ptr + (image * groups + group).to(tl.int64) * places * LANES
    for step in range(0, places, BLOCK):
        place = step + tl.arange(0, BLOCK)
        x = tl.load(
            start + place[:, None] * LANES + lane[None, :],
            mask=place[:, None] < places,
            other=0.0,
        )
        total += tl.sum(x.to(tl.float32), axis=0)
    channel = group * LANES + lane
    mean = (total / places).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + image * channels + channel, mean, mask=channel < channels)


def launch_mean(x, out, BLOCK=16):
    images, groups, height, width, lanes = x.shape
    mean_kernel[(images, groups)](
        x, out, out.shape[1], groups, height * width, BLOCK=BLOCK, LANES=lanes
    )


# %%
# Two calls
# ---------
# One format applies to all tensors; a tuple names one for each.

trt_plugins.custom_op(
    "example::hardswish",
    impl=tta.custom_plugin(
        [
            tta.triton(launch_hardswish, [{"BLOCK": 512}, {"BLOCK": 2048}]),
            tta.triton(
                launch_hardswish,
                [{"BLOCK": 512}, {"BLOCK": 2048}],
                input_formats="CHW32",
                output_formats="CHW32",
            ),
        ],
        meta_impl=lambda x: torch.empty_like(x),
    ),
    supports_dynamic_shapes=True,
)
trt_plugins.custom_op(
    "example::mean_of_places",
    impl=tta.custom_plugin(
        tta.triton(launch_mean, [{"BLOCK": 16}, {"BLOCK": 64}], input_formats="CHW32"),
        meta_impl=lambda x: x.new_empty(x.shape[:2]),
    ),
    supports_dynamic_shapes=True,
)


class Features(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.ops.example.hardswish(self.convolution(x))
        return torch.ops.example.mean_of_places(x)


# %%
# An engine, or a dry run
# -----------------------
# With 40 channels the second group of 32 is mostly padding.

SIZE, CHANNELS = 28, 40


def images(channels: int) -> torch_tensorrt.Input:
    return torch_tensorrt.Input(
        min_shape=(1, channels, SIZE, SIZE),
        opt_shape=(8, channels, SIZE, SIZE),
        max_shape=(32, channels, SIZE, SIZE),
        dtype=torch.float16,
    )


def mean_of_places(x: torch.Tensor) -> torch.Tensor:
    return x.float().mean((2, 3)).to(x.dtype)


def padding(report, _) -> str:
    packed, rows = (
        next(t for t in report.tactics if t.formats[0] == name).at((1, 40, SIZE, SIZE))
        for name in ("CHW32", "LINEAR")
    )
    return (
        f"An image of {CHANNELS} channels has {rows.extras[0]} elements row by row, "
        f"and {packed.extras[0]} in CHW32, as if it had 64: {packed.grid[0]} blocks "
        f"of 512 instead of {rows.grid[0]}. In return, no layer before or after "
        "converts."
    )


if __name__ == "__main__":
    hardswish = torch.nn.functional.hardswish
    model = Features(CHANNELS).half().eval()
    show(
        model,
        lambda x: mean_of_places(hardswish(model.convolution(x))),
        [images(3)],
        lambda target: tta.dry_run(
            "example::hardswish", [images(CHANNELS)], target, reference=hardswish
        ),
        lambda target: tta.dry_run(
            "example::mean_of_places",
            [images(CHANNELS)],
            target,
            reference=mean_of_places,
        ),
        summary=padding,
    )
