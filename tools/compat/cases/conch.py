# SPDX-License-Identifier: BSD-3-Clause

"""Conch: the ops of ``conch.ops``."""

from ..case import Library

op = Library("conch-triton-kernels", "triton")

ROWS = (1, 64, 512)


@op("activation", x="rows k bf16", out="rows k//2 x", rows=ROWS, k=8192)
def silu_and_mul():
    from conch.ops.activation.silu_and_mul import silu_and_mul

    return lambda x: silu_and_mul(x)


@op("activation", x="rows k f32", out="rows k//2 x", rows=ROWS, k=8192)
def gelu_tanh_and_mul():
    from conch.ops.activation.gelu_tanh_and_mul import gelu_tanh_and_mul

    return lambda x: gelu_tanh_and_mul(x)


@op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def rms_norm():
    from conch.ops.normalization.rms_norm import rms_norm

    return lambda x, w: rms_norm(x, w, 1e-6)


@op(
    "norm",
    x="rows 4096 bf16",
    residual="rows 4096 bf16",
    w="4096 bf16",
    mutates="x residual",
    rows=ROWS,
)
def fused_add_rms_norm():
    from conch.ops.normalization.rms_norm import fused_add_rms_norm

    def body(x, residual, w):
        fused_add_rms_norm(x, residual, w, 1e-6)

    return body


@op(
    "rotary",
    positions="t i64<4096",
    q="t 2048 bf16",
    k="t 512 bf16",
    cache="4096 128 bf16",
    mutates="q k",
    t=ROWS,
)
def rotary_embedding():
    from conch.ops.embedding.rotary_embedding import rotary_embedding

    def body(positions, q, k, cache):
        rotary_embedding(positions, q, k, 128, cache)

    return body


@op("quantisation", x="rows k bf16", s="1 f32+", out="rows k f8", rows=ROWS, k=4096)
def scaled_fp8_quant():
    from conch.ops.quantization.fp8 import scaled_fp8_quant

    return lambda x, s: scaled_fp8_quant(x, s)[0]


@op("quantisation", x="rows k bf16", s="1 f32+", out="rows k i8", rows=ROWS, k=4096)
def scaled_int8_quant():
    from conch.ops.quantization.int8 import scaled_int8_quant

    return lambda x, s: scaled_int8_quant(x, s)[0]


@op(
    "GEMM",
    a="rows 1024 i8",
    b="1024 n i8",
    a_s="rows 1 f32+",
    b_s="n 1 f32+",
    out="rows n bf16",
    rows=ROWS,
    n=2048,
)
def scaled_gemm():
    import torch
    from conch.ops.quantization.gemm import scaled_gemm

    return lambda a, b, a_s, b_s: scaled_gemm(a, b, a_s, b_s, torch.bfloat16)


@op(
    "attention",
    q="n 16 128 bf16",
    k="256 16 4 128 bf16",
    v="256 16 4 128 bf16",
    table="n 16 i32<256",
    lengths="n i32<256",
    out="q",
    n=(1, 8, 32),
)
def paged_attention():
    from conch.ops.attention.paged_attention import paged_attention

    return lambda q, k, v, table, lengths: paged_attention(q, k, v, table, lengths)
