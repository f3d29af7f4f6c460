# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_several_backends:

One op, kernels in three languages
==================================

Which language gives the fastest kernel depends on the op, the GPU and the compiler's
version. An op can have kernels in several languages. All their configs are tactics of
one plugin, and TensorRT times them against each other.
"""

# %%
# Triton
# ------
# Squared ReLU in each language. The launch functions take the same tensors.

import cuda.tile as ct
import cutlass
import cutlass.cute as cute
import torch
import triton
import triton.language as tl
from engine_or_dry_run import loads, show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def triton_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.maximum(tl.load(x_ptr + offsets, mask=offsets < n), 0)
    tl.store(out_ptr + offsets, x * x, mask=offsets < n)


def launch_triton(x, out, BLOCK=1024):
    n = x.numel()
    triton_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK)


# %%
# cuTile
# ------


@ct.kernel
def cutile_kernel(x, out, TILE: ct.Constant[int]):
    tile = ct.maximum(ct.load(x, index=(ct.bid(0),), shape=(TILE,)), 0)
    ct.store(out, index=(ct.bid(0),), tile=tile * tile)


def launch_cutile(x, out, TILE=1024):
    stream = torch.cuda.current_stream()
    grid = (ct.cdiv(x.numel(), TILE),)
    ct.launch(stream, grid, cutile_kernel, (x.view(-1), out.view(-1), TILE))


# %%
# CuTe DSL
# --------


@cute.kernel
def cutedsl_kernel(x: cute.Tensor, out: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    width, _, _ = cute.arch.block_dim()
    i = block * width + thread
    if i < cute.size(x):
        value = cute.arch.fmax(x[i].to(cutlass.Float32), cutlass.Float32(0.0))
        out[i] = (value * value).to(out.element_type)


@cute.jit
def launch_cutedsl(x: cute.Tensor, out: cute.Tensor, BLOCK: cutlass.Constexpr = 256):
    blocks = cute.ceil_div(cute.size(x), BLOCK)
    cutedsl_kernel(x, out).launch(grid=(blocks, 1, 1), block=(BLOCK, 1, 1))


# %%
# One call
# --------

trt_plugins.custom_op(
    "example::relu_squared",
    impl=tta.custom_plugin(
        [
            tta.triton(launch_triton, configs=[{"BLOCK": 512}, {"BLOCK": 2048}]),
            tta.cutile(launch_cutile, configs=[{"TILE": 2048}]),
            tta.cutedsl(launch_cutedsl, configs=[{"BLOCK": 256}]),
        ],
        meta_impl=lambda x: torch.empty_like(x),
    ),
    supports_dynamic_shapes=True,
)


class Model(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.example.relu_squared(self.linear(x))


# %%
# An engine, or a dry run
# -----------------------

ROWS = torch_tensorrt.Input(
    min_shape=(1, 512), opt_shape=(64, 512), max_shape=(4096, 512), dtype=torch.float16
)


def plain(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) ** 2


def by_language(report) -> str:
    first = {tactic.backend: tactic for tactic in reversed(report.tactics)}
    names = {"triton": "Triton", "cutile": "cuTile", "cutedsl": "CuTe DSL"}
    each = (
        f"{loads(first[key].code)} and {first[key].registers} registers in {name}"
        for key, name in names.items()
    )
    return f"In each language's first tactic, a thread has {'; '.join(each)}."


if __name__ == "__main__":
    model = Model(512).half().eval()
    show(
        model,
        lambda x: plain(model.linear(x)),
        [ROWS],
        lambda target: tta.dry_run(
            "example::relu_squared", [ROWS], target, reference=plain
        ),
        summary=by_language,
    )
