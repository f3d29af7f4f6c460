# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_two_launches:

An op of two launches
=====================

To quantize a tensor with one scale, a kernel must know the largest element before it
can divide the first. No block waits for another, so this takes two launches: each block
of the first finds its largest element, and the second divides. Between them, torch
takes the maximum. In the engine, each launch is a plugin layer with tactics of its own,
and TensorRT computes the scale.
"""

# %%
# The op, as it was
# -----------------

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

BLOCK = 1024


@triton.jit
def largest_kernel(x_ptr, largest_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0.0).to(tl.float32)
    tl.store(largest_ptr + tl.program_id(0), tl.max(tl.abs(x), axis=0))


@triton.jit
def divide_kernel(x_ptr, scale_ptr, codes_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0.0).to(tl.float32)
    y = tl.div_rn(x, tl.load(scale_ptr))
    codes = tl.where(y < 0, y - 0.5, y + 0.5).to(tl.int8)  # rounds
    tl.store(codes_ptr + offsets, codes, mask=offsets < n)


@torch.library.custom_op("example::quantize", mutates_args=())
def quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n = x.numel()
    blocks = triton.cdiv(n, BLOCK)
    largest = torch.empty(blocks, dtype=torch.float32, device=x.device)
    largest_kernel[(blocks,)](x, largest, n, BLOCK=BLOCK)
    scale = largest.amax(0, keepdim=True) / 127
    codes = torch.empty_like(x, dtype=torch.int8)
    divide_kernel[(blocks,)](x, scale, codes, n, BLOCK=BLOCK)
    return codes, scale


@quantize.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, dtype=torch.int8), x.new_empty(1, dtype=torch.float32)


# %%
# One call
# --------
# Every config is tried for each launch.

trt_plugins.custom_op(
    "example::quantize",
    impl=tta.triton(configs=[{"num_warps": 2}, {"num_warps": 4}]),
    supports_dynamic_shapes=True,
)


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, scale = quantize(torch.relu(x))
        return codes.float() * scale


# %%
# An engine, or a dry run
# -----------------------
# The dry run runs all steps in order. The codes are integers, and must be exactly the
# reference's. So the kernel calls ``div_rn``, which rounds as torch's division does.


def plain(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = x.float().abs().amax().reshape(1) / 127
    y = x.float() / scale
    return (y + 0.5 * y.sign()).to(torch.int8), scale


def steps(report) -> str:
    names = ", ".join(step.name for step in report.steps)
    blocks = report.launches[0].tactics[0].shapes[1].grid[0]
    return (
        f"The engine would compute {names}. At 64x1024, each of the two kernels has "
        f"{blocks} blocks, and the first writes {blocks} elements."
    )


if __name__ == "__main__":
    rows = torch_tensorrt.Input(
        min_shape=(1, 1024),
        opt_shape=(64, 1024),
        max_shape=(4096, 1024),
        dtype=torch.float16,
    )
    show(
        Model(),
        lambda x: (lambda codes, scale: codes.float() * scale)(*plain(torch.relu(x))),
        [rows],
        lambda target: tta.dry_run(
            "example::quantize", [rows], target, reference=plain
        ),
        summary=steps,
    )
