# SPDX-License-Identifier: BSD-3-Clause

"""cuTile kernels in the styles people write them, each with inputs to try it on."""

from __future__ import annotations

import math
from typing import Any

import cuda.tile as ct
import torch
from cuda.tile import launch as ct_launch
from kernels import BATCH, Case, info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._tensors import Range

Int = ct.Constant[int]
ZERO = ct.PaddingMode.ZERO


def stream() -> Any:
    return torch.cuda.current_stream()


@ct.kernel
def relu_kernel(out, x, TILE: Int):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(out, index=(ct.bid(0),), tile=ct.maximum(tile, 0))


def launch_relu(x, out, TILE=256):
    grid = (ct.cdiv(x.numel(), TILE), 1, 1)
    flat = x.contiguous().reshape(-1)
    ct.launch(stream(), grid, relu_kernel, (out.view(-1), flat, TILE))


@ct.kernel
def reglu_kernel(gate, up, out, TILE: Int):
    block = ct.bid(0)
    g = ct.load(gate, index=(block,), shape=(TILE,))
    u = ct.load(up, index=(block,), shape=(TILE,))
    ct.store(out, index=(block,), tile=ct.maximum(g, 0) * u)


def launch_reglu(gate, up, out, stream, TILE=512):
    flat = [tensor.reshape(-1) for tensor in (gate, up, out)]
    ct_launch(stream, (-(-gate.numel() // TILE),), reglu_kernel, (*flat, TILE))


@ct.kernel
def rms_norm_kernel(x, weight, out, eps: ct.Constant[float], TILE: Int):
    row = ct.bid(0)
    tiles = ct.num_tiles(x, axis=1, shape=(1, TILE))
    total = ct.zeros((1, TILE), dtype=ct.float32)
    for j in range(tiles):
        tile = ct.load(x, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        tile = ct.astype(tile, ct.float32)
        total = total + tile * tile
    scale = ct.rsqrt(ct.sum(total, axis=1, keepdims=True) / x.shape[1] + eps)
    for j in range(tiles):
        tile = ct.load(x, index=(row, j), shape=(1, TILE), padding_mode=ZERO)
        w = ct.load(weight, index=(j,), shape=(TILE,), padding_mode=ZERO)
        y = ct.astype(tile, ct.float32) * scale * ct.astype(w, ct.float32)
        ct.store(out, index=(row, j), tile=ct.astype(y, out.dtype))


def launch_rms_norm(x, weight, out, eps=1e-6, TILE=1024):
    N = x.shape[-1]
    rows = x.view(-1, N)
    arguments = (rows, weight, out.view(-1, N), eps, TILE)
    ct.launch(stream(), (rows.shape[0],), rms_norm_kernel, arguments)


@ct.kernel
def softmax_kernel(x, out, TILE: Int):
    row = ct.bid(0)
    tile = ct.load(
        x, index=(row, 0), shape=(1, TILE), padding_mode=ct.PaddingMode.NEG_INF
    )
    tile = ct.astype(tile, ct.float32)
    exponentials = ct.exp(tile - ct.max(tile, axis=1, keepdims=True))
    y = exponentials / ct.sum(exponentials, axis=1, keepdims=True)
    ct.store(out, index=(row, 0), tile=ct.astype(y, out.dtype))


def launch_softmax(x, out):
    rows, columns = x.shape
    tile = 1 << (columns - 1).bit_length()
    ct.launch(stream(), (rows,), softmax_kernel, (x, out, tile))


@ct.kernel
def matmul_kernel(a, b, c, tiles: ct.Constant[tuple[int, int, int]]):
    tm, tn, tk = tiles
    m, n = ct.bid(0), ct.bid(1)
    total = ct.zeros((tm, tn), dtype=ct.float32)
    for k in range(ct.num_tiles(a, axis=1, shape=(tm, tk))):
        x = ct.load(a, index=(m, k), shape=(tm, tk), padding_mode=ZERO)
        y = ct.load(b, index=(k, n), shape=(tk, tn), padding_mode=ZERO)
        total = ct.mma(x, y, total)
    ct.store(c, index=(m, n), tile=ct.astype(total, c.dtype))


def launch_matmul(a, b, c, tiles=(64, 64, 32)):
    grid = (ct.cdiv(a.shape[0], tiles[0]), ct.cdiv(b.shape[1], tiles[1]))
    ct.launch(stream(), grid, matmul_kernel, (a, b, c, tiles))


@ct.kernel
def transpose_kernel(x, out, TM: Int, TN: Int):
    m, n = ct.bid(0), ct.bid(1)
    tile = ct.load(x, index=(m, n), shape=(TM, TN))
    ct.store(out, index=(n, m), tile=ct.transpose(tile))


def launch_transpose(x, out, TM=32, TN=32):
    M, N = x.shape
    grid = (ct.cdiv(M, TM), ct.cdiv(N, TN))
    ct.launch(stream(), grid, transpose_kernel, (x, out, TM, TN))


@ct.kernel
def linear_gelu_kernel(x, weight, bias, out, TM: Int, TN: Int, TK: Int):
    m, n = ct.bid(0), ct.bid(1)
    total = ct.zeros((TM, TN), dtype=ct.float32)
    for k in range(ct.num_tiles(x, axis=1, shape=(TM, TK))):
        a = ct.load(x, index=(m, k), shape=(TM, TK), padding_mode=ZERO)
        w = ct.load(weight, index=(n, k), shape=(TN, TK), padding_mode=ZERO)
        total = ct.mma(a, ct.transpose(w), total)
    b = ct.load(bias, index=(n,), shape=(TN,), padding_mode=ZERO)
    y = total + ct.astype(b, ct.float32)
    inner = 0.7978845608028654 * (y + 0.044715 * y * y * y)
    gelu = 0.5 * y * (1.0 + ct.tanh(inner))
    ct.store(out, index=(m, n), tile=ct.astype(gelu, out.dtype))


def launch_linear_gelu(x, weight, bias, out, TM=64, TN=64, TK=32):
    rows, N = x.numel() // x.shape[-1], weight.shape[0]
    views = (x.reshape(rows, -1), weight, bias, out.reshape(rows, N))
    grid = (ct.cdiv(rows, TM), ct.cdiv(N, TN))
    ct.launch(stream(), grid, linear_gelu_kernel, (*views, TM, TN, TK))


@ct.kernel
def batch_matmul_kernel(a, b, c, tm: Int, tn: Int, tk: Int):
    batch, m, n = ct.bid(0), ct.bid(1), ct.bid(2)
    total = ct.zeros((tm, tn), dtype=ct.float32)
    for k in range(ct.num_tiles(a, axis=2, shape=(1, tm, tk))):
        x = ct.load(a, index=(batch, m, k), shape=(1, tm, tk), padding_mode=ZERO)
        y = ct.load(b, index=(batch, k, n), shape=(1, tk, tn), padding_mode=ZERO)
        total = ct.mma(ct.reshape(x, (tm, tk)), ct.reshape(y, (tk, tn)), total)
    tile = ct.reshape(ct.astype(total, c.dtype), (1, tm, tn))
    ct.store(c, index=(batch, m, n), tile=tile)


def launch_batch_matmul(a, b, c):
    batch, M, _ = a.shape
    grid = (batch, ct.cdiv(M, 32), ct.cdiv(b.shape[2], 64))
    ct.launch(stream(), grid, batch_matmul_kernel, (a, b, c, 32, 64, 32))


@ct.kernel
def attention_kernel(q, k, v, out, scale: float, heads: int, TM: Int, TN: Int, D: Int):
    """Online softmax; ``scale`` and ``heads`` are runtime scalars."""
    m, batch, head = ct.bid(0), ct.bid(1) // heads, ct.bid(1) % heads
    length = k.shape[2]
    query = ct.load(
        q, index=(batch, head, m, 0), shape=(1, 1, TM, D), padding_mode=ZERO
    )
    query = ct.reshape(query, (TM, D))
    highest = ct.full((TM, 1), -math.inf, dtype=ct.float32)
    total = ct.zeros((TM, 1), dtype=ct.float32)
    result = ct.zeros((TM, D), dtype=ct.float32)
    for n in range(ct.cdiv(length, TN)):
        keys = ct.load(
            k, index=(batch, head, n, 0), shape=(1, 1, TN, D), padding_mode=ZERO
        )
        scores = ct.zeros((TM, TN), dtype=ct.float32)
        scores = ct.mma(query, ct.transpose(ct.reshape(keys, (TN, D))), scores)
        column = n * TN + ct.arange(TN, dtype=ct.int32)
        scores = ct.where(column[None, :] < length, scores * scale, -math.inf)
        higher = ct.maximum(highest, ct.max(scores, axis=1, keepdims=True))
        weights = ct.exp(scores - higher)
        correction = ct.exp(highest - higher)
        total = total * correction + ct.sum(weights, axis=1, keepdims=True)
        values = ct.load(
            v, index=(batch, head, n, 0), shape=(1, 1, TN, D), padding_mode=ZERO
        )
        values = ct.reshape(values, (TN, D))
        result = ct.mma(ct.astype(weights, v.dtype), values, result * correction)
        highest = higher
    tile = ct.reshape(ct.astype(result / total, out.dtype), (1, 1, TM, D))
    ct.store(out, index=(batch, head, m, 0), tile=tile)


def launch_attention(q, k, v, out, TM=64, TN=32):
    batch, heads, length, D = q.shape
    grid = (ct.cdiv(length, TM), batch * heads)
    arguments = (q, k, v, out, 1 / math.sqrt(D), heads, TM, TN, D)
    ct.launch(stream(), grid, attention_kernel, arguments)


@ct.kernel(occupancy=2, opt_level=2)
def scale_kernel(alpha: float, x, negate: bool, n: ct.ScalarInt64, out, TILE: Int):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,)) * alpha
    tile = ct.where(negate, -tile, tile)
    column = ct.bid(0) * TILE + ct.arange(TILE, dtype=ct.int32)
    tile = ct.where(column < n, tile, 0.0)
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(tile, out.dtype))


def launch_scale(x, out, alpha=0.3):
    n = x.shape[0] * x.shape[1]
    arguments = (alpha, x.reshape(-1), True, n, out.reshape(-1), 256)
    ct.launch(stream(), (ct.cdiv(n, 256),), scale_kernel, arguments)


@ct.kernel
def permute_kernel(x, out, T: Int):
    tile = ct.load(x, index=(ct.bid(0), 0, ct.bid(1), 0, 0), shape=(1, 2, T, 1, T))
    index = (ct.bid(0), ct.bid(1), 0, 0, 0)
    ct.store(out, index=index, tile=ct.permute(tile, (0, 2, 3, 1, 4)))


def launch_permute(x, out):
    """Through rank 5, with a view of other strides than its tensor's."""
    B, S, H, D = x.shape
    heads = x.view(B, S, 2, H // 2, D).permute(0, 2, 1, 3, 4)[:, :, :, :1]
    target = out.view(B, S, 1, 2, D)
    ct.launch(stream(), (B, ct.cdiv(S, 16)), permute_kernel, (heads, target, 16))


@ct.kernel
def min_max_kernel(x, low, high, TILE: Int):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(low, index=(ct.bid(0),), tile=ct.astype(ct.minimum(tile, 0), low.dtype))
    ct.store(high, index=(ct.bid(0),), tile=ct.maximum(tile, 0))


def launch_min_max(x, low, high, TILE=256):
    """Two outputs, of different types."""
    flat = [tensor.reshape(-1) for tensor in (x, low, high)]
    ct.launch(stream(), (ct.cdiv(x.numel(), TILE),), min_max_kernel, (*flat, TILE))


LENGTH = Range(1, 40, 100)
# A kernel takes seconds to compile, so most are with three of the four sets.
WITHOUT_TMA = ("vector16", "async8", "strides")
WITH_TMA = ("vector16", "async8", "tma16")

CUTILE_CASES = [
    Case(
        "relu",
        tta.cutile(launch_relu, fact_sets=WITHOUT_TMA),
        lambda x: torch.empty_like(x),
        (info(BATCH, 30, dtype=torch.bfloat16),),
    ),
    Case(
        "reglu",
        tta.cutile(
            launch_reglu, [{}, {"TILE": 1024, "occupancy": 4}], fact_sets=WITHOUT_TMA
        ),
        lambda gate, up: torch.empty_like(gate),
        (info(BATCH, 4096), info(BATCH, 4096)),
    ),
    Case(
        "rms_norm",
        tta.cutile(launch_rms_norm),
        lambda x, weight: torch.empty_like(x),
        (info(BATCH, Range(1, 16, 32), 2560), info(2560)),
    ),
    Case(
        "softmax",
        tta.cutile(launch_softmax, fact_sets=WITH_TMA),
        lambda x: torch.empty_like(x),
        (info(BATCH, 1000),),
    ),
    Case(
        "matmul",
        tta.cutile(launch_matmul),
        lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        (info(BATCH, 256), info(256, 512)),
    ),
    Case(
        "matmul_tails",
        tta.cutile(launch_matmul, tiles=(32, 32, 32), fact_sets=WITHOUT_TMA),
        lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        (
            info(BATCH, 100, dtype=torch.bfloat16),
            info(100, Range(1, 50, 200), dtype=torch.bfloat16),
        ),
    ),
    Case(
        "transpose",
        tta.cutile(launch_transpose, fact_sets=WITHOUT_TMA),
        lambda x: x.new_empty(x.shape[1], x.shape[0]),
        (info(BATCH, Range(1, 48, 333), dtype=torch.float32),),
    ),
    Case(
        "linear_gelu",
        tta.cutile(launch_linear_gelu, TM=32, TN=32, fact_sets=WITH_TMA),
        lambda x, weight, bias: x.new_empty(*x.shape[:-1], weight.shape[0]),
        (info(BATCH, LENGTH, 128), info(192, 128), info(192)),
    ),
    Case(
        "batch_matmul",
        tta.cutile(launch_batch_matmul, fact_sets=WITH_TMA),
        lambda a, b: a.new_empty(a.shape[0], a.shape[1], b.shape[2]),
        (info(BATCH, LENGTH, 64), info(BATCH, 64, 96)),
    ),
    Case(
        "attention",
        tta.cutile(launch_attention, TM=32, fact_sets=WITH_TMA),
        lambda q, k, v: torch.empty_like(q),
        (info(BATCH, 4, LENGTH, 32),) * 3,
    ),
    Case(
        "scale",
        tta.cutile(
            launch_scale,
            [{"alpha": 0.3}, {"alpha": 0.3, "opt_level": 3}],
            fact_sets=WITHOUT_TMA,
        ),
        lambda x: torch.empty_like(x),
        (info(BATCH, Range(1, 64, 4096), dtype=torch.float32),),
    ),
    Case(
        "permute",
        tta.cutile(launch_permute, fact_sets=WITHOUT_TMA),
        lambda x: x.new_empty(x.shape[0], x.shape[1], 2, x.shape[3]),
        (info(BATCH, LENGTH, 6, 16),),
    ),
    Case(
        "min_max",
        tta.cutile(launch_min_max, fact_sets=WITHOUT_TMA),
        lambda x: (torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)),
        (info(BATCH, 3, 7),),
        outputs=2,
    ),
]
