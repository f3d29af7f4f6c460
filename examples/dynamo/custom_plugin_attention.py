# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_attention:

Attention for prefill and decode
================================

A language model attends in two ways. Prefill computes a whole prompt, so a block takes
some queries and passes over the keys before them. Decode computes one token, so there
is one query for each head, and too little work for a GPU: the keys are divided among
blocks, and a second launch combines what they found.
"""

# %%
# Prefill: one launch
# -------------------
# A block of ``ROWS`` queries reads keys and values once, ``COLUMNS`` at a time, and
# stops at the diagonal. It keeps the largest score and the sum of the exponentials, so
# the matrix of scores is never in memory.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show
from torch.nn import functional

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def prefill_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    length,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    start, dim = tl.program_id(0) * ROWS, tl.arange(0, DIM)
    head = tl.program_id(1).to(tl.int64) * length * DIM
    row = start + tl.arange(0, ROWS)
    rows = head + row[:, None] * DIM + dim[None, :]
    q = tl.load(q_ptr + rows, row[:, None] < length, other=0.0)
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, DIM), tl.float32)
    for first in range(0, tl.minimum(start + ROWS, length), COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        columns = head + column[:, None] * DIM + dim[None, :]
        k = tl.load(k_ptr + columns, column[:, None] < length, other=0.0)
        v = tl.load(v_ptr + columns, column[:, None] < length, other=0.0)
        scores = tl.dot(q, k.T) * (DIM**-0.5)
        scores = tl.where(row[:, None] >= column[None, :], scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, axis=1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(most - larger)
        total = total * shrink + tl.sum(weights, axis=1)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * shrink[:, None])
        most = larger
    out = (mixed / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + rows, out, row[:, None] < length)


def launch_prefill(q, k, v, out, ROWS=64, COLUMNS=64):
    batch, heads, length, dim = q.shape
    grid = triton.cdiv(length, ROWS), batch * heads
    prefill_kernel[grid](q, k, v, out, length, DIM=dim, ROWS=ROWS, COLUMNS=COLUMNS)


trt_plugins.custom_op(
    "attention::prefill",
    impl=tta.custom_plugin(
        tta.triton(
            launch_prefill,
            configs=[
                {"ROWS": 64, "COLUMNS": 64, "num_warps": 4},
                {"ROWS": 128, "COLUMNS": 64, "num_warps": 8},
            ],
        ),
        meta_impl=lambda q, k, v: torch.empty_like(q),
    ),
    supports_dynamic_shapes=True,
)

# %%
# Decode: two launches
# --------------------
# ``decode`` is an op as a kernel library defines it. Its body allocates the partial
# results and launches twice. In the engine, each launch is a plugin layer with tactics
# of its own, and the partial results are tensors between the two.

PARTS = 8


@triton.jit
def part_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    mixed_ptr,
    sums_ptr,
    length,
    share,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    part, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    dim = tl.arange(0, DIM)
    q = tl.load(q_ptr + head * DIM + dim).to(tl.float32)
    most, total = float("-inf"), 0.0
    mixed = tl.zeros((DIM,), tl.float32)
    end = tl.minimum((part + 1) * share, length)
    for first in range(part * share, end, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        columns = (head * length + column[:, None]) * DIM + dim[None, :]
        k = tl.load(k_ptr + columns, column[:, None] < end, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + columns, column[:, None] < end, other=0.0).to(tl.float32)
        scores = tl.sum(q[None, :] * k, axis=1) * (DIM**-0.5)
        scores = tl.where(column < end, scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, axis=0))
        weights = tl.exp(scores - larger)
        shrink = tl.exp(most - larger)
        total = total * shrink + tl.sum(weights, axis=0)
        mixed = mixed * shrink + tl.sum(weights[:, None] * v, axis=0)
        most = larger
    place = head * tl.num_programs(0) + part
    tl.store(mixed_ptr + place * DIM + dim, mixed)
    tl.store(sums_ptr + place * 2, most)
    tl.store(sums_ptr + place * 2 + 1, total)


@triton.jit
def combine_kernel(
    mixed_ptr, sums_ptr, out_ptr, DIM: tl.constexpr, PARTS: tl.constexpr
):
    head, dim = tl.program_id(0).to(tl.int64), tl.arange(0, DIM)
    place = head * PARTS + tl.arange(0, PARTS)
    most, total = tl.load(sums_ptr + place * 2), tl.load(sums_ptr + place * 2 + 1)
    weights = tl.exp(most - tl.max(most, axis=0))
    mixed = tl.load(mixed_ptr + place[:, None] * DIM + dim[None, :])
    out = tl.sum(mixed * weights[:, None], axis=0) / tl.sum(total * weights, axis=0)
    tl.store(out_ptr + head * DIM + dim, out.to(out_ptr.dtype.element_ty))


@torch.library.custom_op("attention::decode", mutates_args=())
def decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    batch, heads, length, dim = k.shape
    shape = batch, heads, PARTS
    mixed = torch.empty(*shape, dim, dtype=torch.float32, device=q.device)
    sums = torch.empty(*shape, 2, dtype=torch.float32, device=q.device)
    out = torch.empty_like(q)
    share = triton.cdiv(length, PARTS)
    part_kernel[(PARTS, batch * heads)](
        q, k, v, mixed, sums, length, share, DIM=dim, COLUMNS=64
    )
    combine_kernel[(batch * heads,)](mixed, sums, out, DIM=dim, PARTS=PARTS)
    return out


decode.register_fake(lambda q, k, v: torch.empty_like(q))

trt_plugins.custom_op(
    "attention::decode",
    impl=tta.triton(configs=[{"num_warps": 2}, {"num_warps": 4}]),
    supports_dynamic_shapes=True,
)


# %%
# An engine, or a dry run
# -----------------------
# A model has an engine for each of the two. Here one module calls both.

HEADS, DIM = 2, 64


class Attention(torch.nn.Module):
    def forward(self, q, k, v, one) -> tuple[torch.Tensor, torch.Tensor]:
        whole = torch.ops.attention.prefill(q, k, v)
        return whole, decode(one, k, v)


def tokens(least: int, usual: int, most: int) -> torch_tensorrt.Input:
    least, usual, most = ((1, HEADS, length, DIM) for length in (least, usual, most))
    return torch_tensorrt.Input(
        min_shape=least, opt_shape=usual, max_shape=most, dtype=torch.float16
    )


def prefill(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def work(prefill, decode) -> str:
    rows = prefill.tactics[0].config["ROWS"]  # as many as COLUMNS
    blocks = prefill.tactics[0].at(*[(1, HEADS, 1000, DIM)] * 3).grid[0]
    visited = blocks * (blocks + 1) // 2
    parts = decode.launches[0].tactics[0].shapes[1].grid
    return (
        f"At length 1000, prefill computes {visited} of {blocks**2} tiles of "
        f"{rows}x{rows} scores for each head, and skips those above the diagonal. "
        f"Decode would launch {parts[0] * parts[1]} blocks and then {HEADS}, where one "
        f"launch has {HEADS}."
    )


if __name__ == "__main__":
    prompt, cache, one = tokens(20, 512, 2048), tokens(20, 1000, 4096), tokens(1, 1, 1)
    attend = functional.scaled_dot_product_attention
    show(
        Attention(),
        lambda q, k, v, one: (prefill(q, k, v), attend(one, k, v)),
        [prompt] * 3 + [one],
        lambda target: tta.dry_run(
            "attention::prefill", [prompt] * 3, target, reference=prefill
        ),
        lambda target: tta.dry_run(
            "attention::decode", [one, cache, cache], target, reference=attend
        ),
        summary=work,
    )
