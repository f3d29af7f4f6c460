# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_cutile:

A cuTile kernel inside a TensorRT engine
========================================

RMSNorm in cuTile, fused with the residual addition before it. What cuTile's compiler
knows about the arrays can change a kernel's speed by a factor of ten and more. Each
config therefore becomes several tactics, one for each set of facts. All facts hold for
every shape of the profile.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# It has two outputs: the normalized rows, and the sum that the next block adds to.

import cuda.tile as ct
import torch
from engine_or_dry_run import loads, show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

ZERO = ct.PaddingMode.ZERO


@ct.kernel
def add_rms_norm_kernel(
    x, residual, weight, out, total, eps: ct.Constant[float], TILE: ct.Constant[int]
):
    row = ct.bid(0)
    tiles = ct.num_tiles(x, axis=1, shape=(1, TILE))
    squares = ct.zeros((1, TILE), dtype=ct.float32)
    for j in range(tiles):
        tile = ct.load(x, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        other = ct.load(residual, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        tile = ct.astype(tile, ct.float32) + ct.astype(other, ct.float32)
        ct.store(total, index=(row, j), tile=ct.astype(tile, total.dtype))
        squares = squares + tile * tile
    scale = ct.rsqrt(ct.sum(squares, axis=1, keepdims=True) / x.shape[1] + eps)
    for j in range(tiles):
        tile = ct.load(x, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        other = ct.load(residual, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        tile = ct.astype(tile, ct.float32) + ct.astype(other, ct.float32)
        w = ct.load(weight, index=(j,), shape=(TILE,), padding_mode=ZERO)
        y = tile * scale * ct.astype(w, ct.float32)
        ct.store(out, index=(row, j), tile=ct.astype(y, out.dtype))


def launch_add_rms_norm(x, residual, weight, out, total, eps=1e-6, TILE=1024):
    width = x.shape[-1]
    rows = [tensor.view(-1, width) for tensor in (x, residual, out, total)]
    stream = torch.cuda.current_stream()
    arguments = (*rows[:2], weight, *rows[2:], eps, TILE)
    ct.launch(stream, (rows[0].shape[0],), add_rms_norm_kernel, arguments)


# %%
# One call
# --------
# ``TILE`` goes to the launch function, ``occupancy`` to cuTile.

trt_plugins.custom_op(
    "example::add_rms_norm",
    impl=tta.custom_plugin(
        tta.cutile(
            launch_add_rms_norm,
            configs=[{"TILE": 1024}, {"TILE": 2048, "occupancy": 2}],
        ),
        meta_impl=lambda x, residual, weight: (
            torch.empty_like(x),
            torch.empty_like(x),
        ),
    ),
    supports_dynamic_shapes=True,
)


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(width))
        self.linear = torch.nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y, total = torch.ops.example.add_rms_norm(x, residual, self.weight)
        return self.linear(y) + total


# %%
# An engine, or a dry run
# -----------------------
# cuTile's compiler loads 16 bytes at once only where it knows that addresses and
# strides are multiples of 16 bytes. The last line says what the facts change.

WIDTH = 2048
ROWS = torch_tensorrt.Input(
    min_shape=(1, 1, WIDTH),
    opt_shape=(1, 64, WIDTH),
    max_shape=(1, 512, WIDTH),
    dtype=torch.float16,
)


def plain(x, residual, weight):
    total = x.float() + residual.float()
    y = torch.nn.functional.rms_norm(total, (WIDTH,), weight.float(), 1e-6)
    return y.to(x.dtype), total.to(x.dtype)


def widths(report) -> str:
    each = {tactic.config["facts"]: loads(tactic.code) for tactic in report.tactics[:3]}
    listed = "; ".join(f"with {facts}, {what}" for facts, what in each.items())
    return f"The code of a thread has, at TILE=1024, {listed}."


def plain_block(block: Block, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    y, total = plain(x, residual, block.weight)
    return block.linear(y) + total


if __name__ == "__main__":
    block = Block(WIDTH).half().eval()
    weight = torch_tensorrt.Input((WIDTH,), dtype=torch.float16)
    show(
        block,
        lambda x, residual: plain_block(block, x, residual),
        [ROWS, ROWS],
        lambda target: tta.dry_run(
            "example::add_rms_norm", [ROWS, ROWS, weight], target, reference=plain
        ),
        summary=widths,
    )
