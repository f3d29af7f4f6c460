# SPDX-License-Identifier: BSD-3-Clause

"""The kernels of language models, in the style that public projects write them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from kernels import BATCH, Case, info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._tensors import Range

TOKENS = Range(1, 48, 333)


@triton.jit
def layer_norm_kernel(X, Y, W, B, stride_x, stride_y, N, eps, BLOCK_SIZE: tl.constexpr):
    row = tl.program_id(0)
    X += row * stride_x
    Y += row * stride_y
    columns = tl.arange(0, BLOCK_SIZE)
    mask = columns < N
    x = tl.load(X + columns, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / N
    centered = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centered * centered, axis=0) / N
    normal = centered * (1 / tl.sqrt(variance + eps))
    w = tl.load(W + columns, mask=mask).to(tl.float32)
    b = tl.load(B + columns, mask=mask).to(tl.float32)
    tl.store(Y + columns, (normal * w + b).to(Y.dtype.element_ty), mask=mask)


def launch_layer_norm(x, weight, bias, out, eps=1e-5):
    x_2d = x.reshape(-1, x.shape[-1])
    y_2d = out.reshape(-1, out.shape[-1])
    M, N = x_2d.shape
    BLOCK_SIZE = triton.next_power_of_2(N)
    layer_norm_kernel[(M,)](
        x_2d,
        y_2d,
        weight,
        bias,
        x_2d.stride(0),
        y_2d.stride(0),
        N,
        eps,
        BLOCK_SIZE=BLOCK_SIZE,
        num_warps=min(max(BLOCK_SIZE // 256, 1), 8),
    )


@triton.jit
def add_rms_norm_kernel(X, RESIDUAL, W, Y, SUM, N, eps, BLOCK_SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK_SIZE)
    mask = columns < N
    x = tl.load(X + row * N + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(RESIDUAL + row * N + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(SUM + row * N + columns, x.to(SUM.dtype.element_ty), mask=mask)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / N + eps)
    w = tl.load(W + columns, mask=mask).to(tl.float32)
    tl.store(Y + row * N + columns, (x * scale * w).to(Y.dtype.element_ty), mask=mask)


def launch_add_rms_norm(x, residual, weight, out, total, eps=1e-6):
    N = x.shape[-1]
    rows = x.numel() // N
    add_rms_norm_kernel[(rows,)](
        x, residual, weight, out, total, N, eps, BLOCK_SIZE=triton.next_power_of_2(N)
    )


@triton.jit
def gated_kernel(
    gate_up, out, stride_in, stride_out, hidden, GELU: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    gate = tl.load(gate_up + row * stride_in + columns, mask=mask).to(tl.float32)
    up = tl.load(gate_up + row * stride_in + hidden + columns, mask=mask)
    if GELU:
        gate = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    else:
        gate = gate * tl.sigmoid(gate)
    result = (gate * up.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + row * stride_out + columns, result, mask=mask)


def launch_swiglu(gate_up, out, BLOCK=256):
    hidden = gate_up.shape[-1] // 2
    grid = lambda meta: (gate_up.shape[0], triton.cdiv(hidden, meta["BLOCK"]))  # noqa: E731
    gated_kernel[grid](
        gate_up, out, gate_up.stride(0), out.stride(0), hidden, False, BLOCK=BLOCK
    )


def launch_geglu(gate_up, out, BLOCK=256):
    hidden = gate_up.shape[-1] // 2
    grid = (gate_up.shape[0], (hidden + BLOCK - 1) // BLOCK)
    gated_kernel[grid](
        gate_up, out, gate_up.stride(0), out.stride(0), hidden, GELU=True, BLOCK=BLOCK
    )


@triton.jit
def rotary_kernel(
    x,
    cos,
    sin,
    out,
    stride_batch,
    stride_seq,
    stride_head,
    seq,
    HALF: tl.constexpr,
):
    batch = tl.program_id(0)
    position = tl.program_id(1)
    head = tl.program_id(2)
    columns = tl.arange(0, HALF)
    offset = batch * stride_batch + position * stride_seq + head * stride_head
    c = tl.load(cos + position * HALF + columns)
    s = tl.load(sin + position * HALF + columns)
    first = tl.load(x + offset + columns).to(tl.float32)
    second = tl.load(x + offset + HALF + columns).to(tl.float32)
    kind = out.dtype.element_ty
    tl.store(out + offset + columns, (first * c - second * s).to(kind))
    tl.store(out + offset + HALF + columns, (second * c + first * s).to(kind))


def launch_rotary(x, cos, sin, out):
    assert x.shape[1] == cos.shape[0]
    batch, seq, heads, dim = x.shape
    rotary_kernel[(batch, seq, heads)](
        x, cos, sin, out, x.stride(0), x.stride(1), x.stride(2), seq, dim // 2
    )


@triton.autotune(
    configs=[
        triton.Config({"BM": 32, "BN": 64, "BK": 32, "GROUP": 4}, num_warps=4),
        triton.Config(
            {"BM": 64, "BN": 64, "BK": 32, "GROUP": 8}, num_warps=4, num_stages=2
        ),
    ],
    key=["M", "N", "K"],
)
@triton.jit
def swizzled_matmul_kernel(
    a_ptr,
    b_ptr,
    c_ptr,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    stride_cm,
    stride_cn,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
):
    m, n = tl.swizzle2d(
        tl.program_id(0), tl.program_id(1), tl.cdiv(M, BM), tl.cdiv(N, BN), GROUP
    )
    rows = (m * BM + tl.arange(0, BM)) % M
    columns = (n * BN + tl.arange(0, BN)) % N
    inner = tl.arange(0, BK)
    a = a_ptr + rows[:, None] * stride_am + inner[None, :] * stride_ak
    b = b_ptr + inner[:, None] * stride_bk + columns[None, :] * stride_bn
    accumulator = tl.zeros((BM, BN), tl.float32)
    for k in range(0, tl.cdiv(K, BK)):
        left = K - k * BK
        accumulator = tl.dot(
            tl.load(a, mask=inner[None, :] < left, other=0.0),
            tl.load(b, mask=inner[:, None] < left, other=0.0),
            accumulator,
        )
        a += BK * stride_ak
        b += BK * stride_bk
    rows = m * BM + tl.arange(0, BM)[:, None]
    columns = n * BN + tl.arange(0, BN)[None, :]
    tl.store(
        c_ptr + rows * stride_cm + columns * stride_cn,
        accumulator.to(c_ptr.dtype.element_ty),
        mask=(rows < M) & (columns < N),
    )


def launch_swizzled_matmul(a, b, c):
    M, K = a.shape
    _, N = b.shape
    grid = lambda META: (triton.cdiv(M, META["BM"]), triton.cdiv(N, META["BN"]))  # noqa: E731
    swizzled_matmul_kernel[grid](
        a, b, c, M, N, K, *a.stride(), *b.stride(), *c.stride()
    )


@triton.jit
def cross_entropy_kernel(
    logits, stride, labels, losses, V, ignore_index, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    columns = tl.arange(0, BLOCK)
    x = tl.load(
        logits + row * stride + columns, mask=columns < V, other=-float("inf")
    ).to(tl.float32)
    highest = tl.max(x, axis=0)
    lse = highest + tl.log(tl.sum(tl.exp(x - highest), axis=0))
    chosen = tl.sum(tl.where(columns == label, x, 0.0), axis=0)
    tl.store(losses + row, tl.where(label == ignore_index, 0.0, lse - chosen))


def launch_cross_entropy(logits, labels, losses, ignore_index=-100):
    rows, V = logits.shape
    cross_entropy_kernel[(rows,)](
        logits,
        logits.stride(0),
        labels,
        losses,
        V,
        ignore_index,
        BLOCK=triton.next_power_of_2(V),
    )


@triton.jit
def dequantize_kernel(q, scale, out, groups, GROUP: tl.constexpr):
    row = tl.program_id(0)
    group = tl.program_id(1)
    columns = group * GROUP + tl.arange(0, GROUP)
    at = row * groups * GROUP + columns
    s = tl.load(scale + row * groups + group)
    tl.store(out + at, (tl.load(q + at).to(tl.float32) * s).to(out.dtype.element_ty))


def launch_dequantize(q, scale, out, GROUP=64):
    rows, groups = scale.shape
    dequantize_kernel[(rows, groups)](q, scale, out, groups, GROUP=GROUP)


@triton.jit
def permute_kernel(
    x, out, B, C, xs0, xs1, xs2, xs3, os0, os1, os2, os3, D, BLOCK: tl.constexpr
):
    """[B, S, C, D] to [B, C, S, D]."""
    s = tl.program_id(0)
    b = tl.program_id(1) // C
    c = tl.program_id(1) % C
    d = tl.arange(0, BLOCK)
    value = tl.load(x + b * xs0 + s * xs1 + c * xs2 + d * xs3, mask=d < D)
    tl.store(out + b * os0 + c * os1 + s * os2 + d * os3, value, mask=d < D)


def launch_permute(x, out):
    B, S, C, D = x.shape
    permute_kernel[(S, B * C)](
        x,
        out,
        B,
        C,
        x.stride(0),
        x.stride(1),
        x.stride(2),
        x.stride(3),
        *out.stride(),
        D,
        BLOCK=triton.next_power_of_2(D),
    )


half, bf16, f32 = torch.float16, torch.bfloat16, torch.float32

MODEL_CASES = [
    Case(
        "layer_norm",
        tta.triton(launch_layer_norm),
        lambda x, weight, bias: torch.empty_like(x),
        (info(BATCH, TOKENS, 320), info(320), info(320)),
    ),
    Case(
        "add_rms_norm",
        tta.triton(launch_add_rms_norm, [{"num_warps": 4}, {"num_warps": 8}]),
        lambda x, r, weight: (torch.empty_like(x), torch.empty_like(x)),
        (
            info(BATCH, TOKENS, 512, dtype=bf16),
            info(BATCH, TOKENS, 512, dtype=bf16),
            info(512, dtype=bf16),
        ),
        outputs=2,
    ),
    Case(
        "swiglu",
        tta.triton(launch_swiglu, [{"BLOCK": 128}, {"BLOCK": 512}]),
        lambda x: x.new_empty(x.shape[0], x.shape[1] // 2),
        (info(TOKENS, 1408, dtype=bf16),),
    ),
    Case(
        "geglu",
        tta.triton(launch_geglu, [{"BLOCK": 128}, {"BLOCK": 512}]),
        lambda x: x.new_empty(x.shape[0], x.shape[1] // 2),
        (info(TOKENS, 720, dtype=f32),),
    ),
    Case(
        "rotary",
        tta.triton(launch_rotary, [{"num_warps": 1}, {"num_warps": 2}]),
        lambda x, cos, sin: torch.empty_like(x),
        (
            info(BATCH, TOKENS, 8, 64),
            info(TOKENS, 32, dtype=f32),
            info(TOKENS, 32, dtype=f32),
        ),
    ),
    Case(
        "swizzled_matmul",
        tta.triton(launch_swizzled_matmul),
        lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        (info(TOKENS, 192), info(192, 320)),
        tactics=2,
    ),
    Case(
        "cross_entropy",
        tta.triton(launch_cross_entropy, [{"num_warps": 4}, {"num_warps": 8}]),
        lambda logits, labels: logits.new_empty(logits.shape[0], dtype=torch.float32),
        (info(TOKENS, 1000), info(TOKENS, dtype=torch.int64)),
    ),
    Case(
        "dequantize",
        tta.triton(launch_dequantize),
        lambda q, scale: q.new_empty(q.shape, dtype=torch.float16),
        (info(TOKENS, 512, dtype=torch.int8), info(TOKENS, 8, dtype=f32)),
    ),
    Case(
        "permute",
        tta.triton(launch_permute),
        lambda x: x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]),
        (info(Range(1, 2, 4), TOKENS, 6, 40),),
    ),
]
