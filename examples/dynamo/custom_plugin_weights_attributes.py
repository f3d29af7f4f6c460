# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_weights_attributes:

Weights and attributes
======================

A kernel may take more than the tensors that flow through the network: tables that never
change, and numbers that are known when the engine is built. Tensors that you pass to
``custom_plugin`` become constants of the engine. Other arguments, from
``custom_plugin`` or from each call of the op, are compiled into the kernel.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# int8 weights with a scale for each group of columns, as in quantized models. The
# launch function takes inputs, weights and outputs, and the attributes by name.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

CLASSES, WIDTH, GROUP = 96, 512, 64


@triton.jit
def scores_kernel(
    x_ptr,
    codes_ptr,
    scales_ptr,
    out_ptr,
    columns,
    temperature,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    total = tl.zeros((BLOCK,), tl.float32)
    for group in range(WIDTH // GROUP):
        k = group * GROUP + tl.arange(0, GROUP)
        x = tl.load(x_ptr + row * WIDTH + k).to(tl.float32)
        codes = tl.load(
            codes_ptr + column[:, None] * WIDTH + k[None, :], mask=mask[:, None]
        )
        scale = tl.load(scales_ptr + column * (WIDTH // GROUP) + group, mask=mask)
        total += tl.sum(codes.to(tl.float32) * x[None, :], axis=1) * scale
    out = (total / temperature).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * columns + column, out, mask=mask)


def launch_scores(x, codes, scales, out, temperature, GROUP, BLOCK=32):
    rows, width = x.shape
    columns = out.shape[1]
    scores_kernel[(rows, triton.cdiv(columns, BLOCK))](
        x, codes, scales, out, columns, temperature, width, GROUP, BLOCK=BLOCK
    )


# %%
# One call
# --------
# The op takes the arguments of ``meta_impl``, ``x`` and ``temperature``. ``codes`` and
# ``scales`` are weights, passed between inputs and outputs. ``GROUP`` is an attribute
# that all calls share.

generator = torch.Generator().manual_seed(0)
codes = torch.randint(-128, 128, (CLASSES, WIDTH), generator=generator).to(torch.int8)
scales = torch.rand(CLASSES, WIDTH // GROUP, generator=generator) / 1000


def scores_meta(x: torch.Tensor, temperature: float) -> torch.Tensor:
    return x.new_empty(x.shape[0], CLASSES)


trt_plugins.custom_op(
    "example::scores",
    impl=tta.custom_plugin(
        tta.triton(launch_scores, configs=[{"BLOCK": 16}, {"BLOCK": 32}]),
        meta_impl=scores_meta,
        codes=codes,
        scales=scales,
        GROUP=GROUP,
    ),
    supports_dynamic_shapes=True,
)


class Ensemble(torch.nn.Module):
    """Two calls with two temperatures: two layers, and a kernel for each."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sharp = torch.ops.example.scores(x, 0.5)
        smooth = torch.ops.example.scores(x, 2.0)
        return torch.softmax(sharp, -1) + torch.softmax(smooth, -1)


# %%
# An engine, or a dry run
# -----------------------

ROWS = torch_tensorrt.Input(
    min_shape=(1, WIDTH),
    opt_shape=(64, WIDTH),
    max_shape=(1024, WIDTH),
    dtype=torch.float16,
)


def plain(x: torch.Tensor, temperature: float) -> torch.Tensor:
    dense = codes.float() * scales.repeat_interleave(GROUP, 1)
    return (x.float() @ dense.t().to(x.device) / temperature).to(x.dtype)


if __name__ == "__main__":
    show(
        Ensemble(),
        lambda x: sum(torch.softmax(plain(x, t), -1) for t in (0.5, 2.0)),
        [ROWS],
        *(
            lambda target, t=temperature: tta.dry_run(
                "example::scores",
                [ROWS],
                target,
                attributes={"temperature": t},
                reference=plain,
            )
            for temperature in (0.5, 2.0)
        ),
    )
