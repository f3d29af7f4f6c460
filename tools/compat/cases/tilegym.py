# SPDX-License-Identifier: BSD-3-Clause

"""TileGym: the cuTile ops of ``tilegym.ops`` and of its suites."""

from ..case import Library

op = Library("tilegym", "cutile")

ROWS = (1, 64, 512)


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def relu():
    from tilegym.ops.cutile.activation.relu import relu

    return lambda x: relu(x)


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def gelu():
    from tilegym.ops.cutile.activation.gelu import gelu

    return lambda x: gelu(x)


@op("activation", x="rows k bf16", out="rows k//2 x", rows=ROWS, k=8192)
def geglu():
    from tilegym.ops.cutile.activation.geglu import geglu

    return lambda x: geglu(x)


@op("activation", x="rows k bf16", out="rows k//2 x", rows=ROWS, k=8192)
def silu_and_mul():
    from tilegym.ops.cutile.silu_and_mul import silu_and_mul

    return lambda x: silu_and_mul(x)


@op("activation", a="rows 4096 bf16", b="rows 4096 bf16", out="a", rows=ROWS)
def swiglu():
    from tilegym.ops.cutile.swiglu import swiglu

    return lambda a, b: swiglu(a, b)


@op("reduction", x="rows 4096 bf16", out="x", rows=ROWS)
def softmax():
    from tilegym.ops.cutile.softmax import softmax

    return lambda x: softmax(x)


@op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def rms_norm():
    from tilegym.ops.cutile.rms_norm import rms_norm

    return lambda x, w: rms_norm(x, [4096], w, 1e-6)


@op("norm", x="rows 4096 bf16", w="4096 bf16", b="4096 bf16", out="x", rows=ROWS)
def layer_norm():
    from tilegym.ops.cutile.layer_norm import layer_norm

    return lambda x, w, b: layer_norm(x, 1, 2, w, b, 1e-5)


@op(
    "rotary",
    q="2 32 s 128 bf16",
    k="2 8 s 128 bf16",
    cos="1 s 128 bf16",
    sin="1 s 128 bf16",
    mutates="q k",
    s=(64, 128, 512),
)
def apply_rope():
    from tilegym.ops.cutile.rope import apply_rope_base

    def body(q, k, cos, sin):
        apply_rope_base(q, k, cos, sin)  # which returns them, too

    return body


@op("GEMM", a="rows 1024 bf16", b="1024 n bf16", out="rows n a", rows=ROWS, n=2048)
def matmul():
    from tilegym.ops.cutile.matmul import matmul

    return lambda a, b: matmul(a, b)


@op(
    "GEMM",
    a="n i 512 bf16",
    b="n 512 j bf16",
    out="n i j a",
    n=(1, 4, 16),
    i=256,
    j=256,
)
def bmm():
    from tilegym.ops.cutile.bmm import bmm

    return lambda a, b: bmm(a, b)


@op(
    "GEMM",
    a="rows 2048 f8",
    b="n 2048 f8",
    a_s="rows 16 f32+",
    b_s="8 16 f32+",
    out="rows n f16",
    limit_s=300,  # a kernel is 2 MB of PTX
    rows=ROWS,
    n=1024,
)
def w8a8_block_fp8_matmul():
    from tilegym.ops.cutile.fp8_quantization_matmul import w8a8_block_fp8_matmul

    return lambda a, b, a_s, b_s: w8a8_block_fp8_matmul(a, b, a_s, b_s)


@op("indexing", x="rows k bf16", out="k rows x", rows=ROWS, k=1024)
def transpose():
    from tilegym.ops.cutile.transpose import transpose

    return lambda x: transpose(x)


@op(
    "attention",
    q="2 16 s 64 bf16",
    k="2 16 s 64 bf16",
    v="2 16 s 64 bf16",
    out="q",
    s=(64, 512, 1024),
)
def fmha():
    from tilegym.ops.cutile.attention import tile_fmha

    return lambda q, k, v: tile_fmha(q, k, v, 0.125)


@op(
    "attention",
    q="n 16 1 64 bf16",
    k="n 4 1024 64 bf16",
    v="n 4 1024 64 bf16",
    out="q",
    n=(1, 4, 16),
)
def fmha_decode():
    from tilegym.ops.cutile.flash_decode import fmha_decode

    return lambda q, k, v: fmha_decode(q, k, v, 0.125)


@op(
    "attention",
    q="1 16 s 128 bf16",
    k="1 1 s 128 bf16",
    v="1 1 s 128 bf16",
    qpe="1 16 s 64 bf16",
    kpe="1 1 s 64 bf16",
    out="q",
    s=(64, 512, 1024),
)
def mla():
    from tilegym.ops.cutile.mla import tile_mla

    return lambda q, k, v, qpe, kpe: tile_mla(q, k, v, qpe, kpe, True, 0.07)


@op(
    "reduction",
    partial="n h 8 d f32",
    lse="n h 8 f32",
    out="n h d bf16",
    n=(1, 4, 16),
    h=16,
    d=128,
)
def splitk_reduce():
    import torch
    from tilegym.ops.cutile.splitk_reduce import splitk_reduce

    def body(partial, lse):
        n, h, _, d = partial.shape
        out = partial.new_empty(n, h, d, dtype=torch.bfloat16)
        return splitk_reduce(partial, lse, out, 1024)

    return body


@op(
    "state-space",
    q="n 1 8 128 bf16",
    k="n 1 8 128 bf16",
    v="n 1 8 128 bf16",
    g="n 1 8 f32",
    beta="n 1 8 bf16",
    state="n 8 128 128 f32",
    out="v",
    n=(1, 4, 16),
)
def recurrent_gated_delta_rule():
    from tilegym.ops.cutile.recurrent_gated_delta_rule import recurrent_gated_delta_rule

    return lambda q, k, v, g, beta, state: recurrent_gated_delta_rule(
        q, k, v, g, beta, state
    )[0]


@op(
    "MoE",
    ids="rows i32<8",
    out=("rows+504 i32", "rows+567//64 i32", "1 i32"),
    rows=(1, 64, 64),
)
def moe_align_block_size():
    from tilegym.ops.cutile.moe_align_block import moe_align_block_size

    return lambda ids: moe_align_block_size(ids, 64, 8)[:3]


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def liger_relu_squared():
    from tilegym.suites.liger.cutile.relu_squared import relu_squared

    return lambda x: relu_squared(x)


@op("loss", p="rows 4096 f32", q="rows 4096 f32+", out="f32", rows=(2, 64, 512))
def liger_kl_div():
    from tilegym.suites.liger.cutile.kl_div import kl_div

    return lambda p, q: kl_div(p, q)


@op(
    "cross-entropy",
    logits="rows 32000 bf16",
    labels="rows i64<32000",
    out="f32",
    rows=(2, 64, 512),
)
def unsloth_cross_entropy_loss():
    from tilegym.suites.unsloth.cutile.cross_entropy_loss import cross_entropy_loss

    return lambda logits, labels: cross_entropy_loss(
        logits.unsqueeze(0), labels.unsqueeze(0)
    )


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows k//128 f32"),
    rows=ROWS,
    k=2048,
)
def unsloth_act_quant():
    from tilegym.suites.unsloth.cutile.fp8 import act_quant

    return lambda x: act_quant(x)


@op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def unsloth_rms_layernorm():
    from tilegym.suites.unsloth.cutile.rms_layernorm import rms_layernorm

    return lambda x, w: rms_layernorm(x, w)
