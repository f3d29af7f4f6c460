# SPDX-License-Identifier: BSD-3-Clause

"""Matrix products and attention for Hopper, as benchmarks/hardware.py launches them.

Each kernel reads its tensors through pointers, through descriptors that it makes
itself, or through descriptors that its launch function makes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

POINTERS, DEVICE, HOST = "pointers", "device descriptors", "host descriptors"

# --- c = a @ b.T ----------------------------------------------------------------------


@triton.jit
def _place(tile, M, N, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """Row and column of a tile. Tiles of GROUP rows come together, to share L2."""
    across = tl.cdiv(N, BN)
    first = tile // (GROUP * across) * GROUP
    rows = min(tl.cdiv(M, BM) - first, GROUP)
    inside = tile % (GROUP * across)
    return (first + inside % rows) * BM, inside // rows * BN


@triton.jit
def _tile(
    a, b, c, M, N, K, tile,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    DESCRIBED: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    row, column = _place(tile, M, N, BM, BN, GROUP)
    sums = tl.zeros((BM, BN), tl.float32)
    if DESCRIBED:
        for k in range(0, K, BK):
            sums = tl.dot(a.load([row, k]), b.load([column, k]).T, sums)
        c.store([row, column], sums.to(OUT))
    else:
        rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BN)
        depths = tl.arange(0, BK)
        # Rows past the end wrap around: what they give is not stored.
        xs = a + (rows % M)[:, None] * K + depths[None, :]
        ys = b + (columns % N)[None, :] * K + depths[:, None]
        for k in range(0, K, BK):
            x = tl.load(xs + k, mask=depths[None, :] < K - k, other=0.0)
            y = tl.load(ys + k, mask=depths[:, None] < K - k, other=0.0)
            sums = tl.dot(x, y, sums)
        mask = (rows[:, None] < M) & (columns[None, :] < N)
        tl.store(c + rows[:, None] * N + columns[None, :], sums.to(OUT), mask=mask)


@triton.jit
def _tiles(
    a, b, c, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    DESCRIBED: tl.constexpr, OUT: tl.constexpr, PERSISTENT: tl.constexpr,
):  # fmt: skip
    if PERSISTENT:
        tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN)
        start, step = tl.program_id(0), tl.num_programs(0)
        for tile in tl.range(start, tiles, step, flatten=True):
            _tile(a, b, c, M, N, K, tile, BM, BN, BK, GROUP, DESCRIBED, OUT)
    else:
        tile = tl.program_id(0)
        _tile(a, b, c, M, N, K, tile, BM, BN, BK, GROUP, DESCRIBED, OUT)


@triton.jit
def matmul_pointers(
    a, b, c, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):  # fmt: skip
    OUT: tl.constexpr = c.dtype.element_ty
    _tiles(a, b, c, M, N, K, BM, BN, BK, GROUP, False, OUT, PERSISTENT)


@triton.jit
def matmul_device(
    a, b, c, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):  # fmt: skip
    OUT: tl.constexpr = c.dtype.element_ty
    a = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    b = tl.make_tensor_descriptor(b, [N, K], [K, 1], [BN, BK])
    c = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    _tiles(a, b, c, M, N, K, BM, BN, BK, GROUP, True, OUT, PERSISTENT)


@triton.jit
def matmul_host(
    a, b, c, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):  # fmt: skip
    OUT: tl.constexpr = c.dtype
    _tiles(a, b, c, M, N, K, BM, BN, BK, GROUP, True, OUT, PERSISTENT)


MATMULS = {POINTERS: matmul_pointers, DEVICE: matmul_device, HOST: matmul_host}


def launch_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    how: str = POINTERS,
    persistent: bool = False,
    BM: int = 128,
    BN: int = 128,
    BK: int = 64,
    **options: int,
) -> None:
    """c = a @ b.T; each dimension but c's first may be split in two."""
    if b.dim() == 4:
        a, b, c = a.flatten(1), b.flatten(2).flatten(0, 1), c.flatten(1)
    (M, K), N = a.shape, b.shape[0]
    tensors: tuple[Any, ...] = a, b, c
    if how == HOST:
        blocks = [BM, BK], [BN, BK], [BM, BN]
        pairs = zip(tensors, blocks, strict=True)
        tensors = tuple(TensorDescriptor.from_tensor(*pair) for pair in pairs)
    programs = triton.cdiv(M, BM) * triton.cdiv(N, BN)
    if persistent:
        programs = torch.cuda.get_device_properties(a.device).multi_processor_count
    MATMULS[how][(programs,)](
        *(*tensors, M, N, K, BM, BN, BK),
        GROUP=8,
        PERSISTENT=persistent,
        **options,
    )


# --- softmax(q @ k.T / sqrt(D)) @ v ---------------------------------------------------


@triton.jit
def _rows(source, row, R: tl.constexpr, D: tl.constexpr, DESCRIBED: tl.constexpr):
    if DESCRIBED:
        return source.load([row, 0])
    else:  # noqa: RET505 - Triton compiles one branch, and else what follows as well
        rows = row + tl.arange(0, R)
        return tl.load(source + rows[:, None] * D + tl.arange(0, D)[None, :])


@triton.jit
def _attend(
    q, k, v, sums, most, total, head, row, first, last,
    SCALE: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    DESCRIBED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Go on with the columns from first to last."""
    for column in tl.range(first, last, BN):
        keys = _rows(k, head + column, BN, D, DESCRIBED)
        scores = tl.dot(q, keys.T) * SCALE
        if MASKED:
            ahead = column + tl.arange(0, BN)[None, :]
            scores = tl.where(
                row + tl.arange(0, BM)[:, None] >= ahead, scores, float("-inf")
            )
        now = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - now[:, None])
        shrink = tl.exp2(most - now)
        total = total * shrink + tl.sum(weights, 1)
        values = _rows(v, head + column, BN, D, DESCRIBED)
        sums = tl.dot(weights.to(values.dtype), values, sums * shrink[:, None])
        most = now
    return sums, most, total


@triton.jit
def _attention(
    q, k, v, out, S,
    SCALE: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    DESCRIBED: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    if CAUSAL:
        block = tl.num_programs(0) - 1 - block  # the longest rows first
    row, head = block * BM, tl.program_id(1) * S
    queries = _rows(q, head + row, BM, D, DESCRIBED)
    sums = tl.zeros((BM, D), tl.float32)
    most = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    if CAUSAL:
        sums, most, total = _attend(
            queries, k, v, sums, most, total, head, row, 0, row,
            SCALE, D, BM, BN, DESCRIBED, False,
        )  # fmt: skip
        sums, most, total = _attend(
            queries, k, v, sums, most, total, head, row, row, row + BM,
            SCALE, D, BM, BN, DESCRIBED, True,
        )  # fmt: skip
    else:
        sums, most, total = _attend(
            queries, k, v, sums, most, total, head, row, 0, S,
            SCALE, D, BM, BN, DESCRIBED, False,
        )  # fmt: skip
    mean = (sums / total[:, None]).to(queries.dtype)
    if DESCRIBED:
        out.store([head + row, 0], mean)
    else:
        rows = head + row + tl.arange(0, BM)
        tl.store(out + rows[:, None] * D + tl.arange(0, D)[None, :], mean)


@triton.jit
def attention_pointers(
    q, k, v, out, rows, S,
    SCALE: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    _attention(q, k, v, out, S, SCALE, D, BM, BN, False, CAUSAL)


@triton.jit
def attention_device(
    q, k, v, out, rows, S,
    SCALE: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    q = tl.make_tensor_descriptor(q, [rows, D], [D, 1], [BM, D])
    k = tl.make_tensor_descriptor(k, [rows, D], [D, 1], [BN, D])
    v = tl.make_tensor_descriptor(v, [rows, D], [D, 1], [BN, D])
    out = tl.make_tensor_descriptor(out, [rows, D], [D, 1], [BM, D])
    _attention(q, k, v, out, S, SCALE, D, BM, BN, True, CAUSAL)


@triton.jit
def attention_host(
    q, k, v, out, rows, S,
    SCALE: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    _attention(q, k, v, out, S, SCALE, D, BM, BN, True, CAUSAL)


ATTENTIONS = {
    POINTERS: attention_pointers,
    DEVICE: attention_device,
    HOST: attention_host,
}


def launch_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    how: str = POINTERS,
    causal: bool = False,
    BM: int = 128,
    BN: int = 128,
    **options: int,
) -> None:
    """Attention of heads of S rows; S must be a multiple of BM, and BM one of BN."""
    heads, S, D = q.shape
    if S % BM or BM % BN:
        raise ValueError(f"{S} rows of blocks of {BM} and {BN}")
    tensors: tuple[Any, ...] = tuple(t.flatten(0, 1) for t in (q, k, v, out))
    if how == HOST:
        pairs = zip(tensors, (BM, BN, BN, BM), strict=True)
        tensors = tuple(TensorDescriptor.from_tensor(t, [b, D]) for t, b in pairs)
    ATTENTIONS[how][(S // BM, heads)](
        *(*tensors, heads * S, S),
        SCALE=math.log2(math.e) / math.sqrt(D),
        D=D,
        BM=BM,
        BN=BN,
        CAUSAL=causal,
        **options,
    )
