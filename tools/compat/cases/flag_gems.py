# SPDX-License-Identifier: BSD-3-Clause

"""FlagGems: replacements of ATen ops, and of ops that serving fuses."""

from ..case import Library

op = Library("flag_gems", "triton")

ROWS = (1, 64, 512)


@op("elementwise", a="rows 4096 bf16", b="rows 4096 bf16", out="a", rows=ROWS)
def add():
    from flag_gems.ops.add import add

    return lambda a, b: add(a, b)


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def gelu():
    from flag_gems.ops.gelu import gelu

    return lambda x: gelu(x)


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def silu():
    from flag_gems.ops.silu import silu

    return lambda x: silu(x)


@op("activation", a="rows 4096 bf16", b="rows 4096 bf16", out="a", rows=ROWS)
def silu_and_mul():
    from flag_gems.fused.silu_and_mul import silu_and_mul

    return lambda a, b: silu_and_mul(a, b)


@op("reduction", x="rows 4096 bf16", out="x", rows=ROWS)
def softmax():
    from flag_gems.ops.softmax import softmax

    return lambda x: softmax(x, -1)


@op("reduction", x="rows 4096 bf16", out="rows x", rows=ROWS)
def sum_dim():
    from flag_gems.ops.sum import sum_dim

    return lambda x: sum_dim(x, [1])


@op("reduction", x="rows 4096 bf16", out="rows i64", rows=ROWS)
def argmax():
    from flag_gems.ops.argmax import argmax

    return lambda x: argmax(x, 1)


@op("reduction", x="rows 1024 f32", out="x", rows=ROWS)
def cumsum():
    from flag_gems.ops.cumsum import cumsum

    return lambda x: cumsum(x, 1)


@op("reduction", x="rows 1024 f32", out=("rows 8 x", "rows 8 i64"), rows=ROWS)
def topk():
    from flag_gems.ops.topk import topk

    return lambda x: topk(x, 8)


@op("norm", x="rows 4096 bf16", w="4096 bf16", b="4096 bf16", out="x", rows=ROWS)
def layer_norm():
    from flag_gems.ops.layernorm import layer_norm

    return lambda x, w, b: layer_norm(x, [4096], w, b)[0]


@op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def rms_norm():
    from flag_gems.ops.rms_norm import rms_norm_forward

    return lambda x, w: rms_norm_forward(x, [4096], w)[0]


@op("norm", x="n 64 32 32 f32", w="64 f32", b="64 f32", out="x", n=(1, 4, 16))
def group_norm():
    from flag_gems.ops.groupnorm import group_norm

    return lambda x, w, b: group_norm(x, w, b, x.shape[0], 64, 1024, 8)[0]


@op(
    "norm",
    x="rows 4096 bf16",
    residual="rows 4096 bf16",
    w="4096 bf16",
    mutates="x residual",
    rows=ROWS,
)
def fused_add_rms_norm():
    from flag_gems.fused.fused_add_rms_norm import fused_add_rms_norm

    def body(x, residual, w):
        fused_add_rms_norm(x, residual, [4096], w)

    return body


@op("GEMM", a="rows 1024 bf16", b="1024 n bf16", out="rows n a", rows=ROWS, n=2048)
def mm():
    from flag_gems.ops.mm import mm

    return lambda a, b: mm(a, b)


@op(
    "GEMM",
    bias="n bf16",
    a="rows 1024 bf16",
    b="1024 n bf16",
    out="rows n a",
    rows=ROWS,
    n=2048,
)
def addmm():
    from flag_gems.ops.addmm import addmm

    return lambda bias, a, b: addmm(bias, a, b)


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
    from flag_gems.ops.bmm import bmm

    return lambda a, b: bmm(a, b)


@op(
    "GEMM",
    a="rows 2048 f8",
    b="n 2048 f8",
    a_s="rows 16 f32+",
    b_s="8 16 f32+",
    out="rows n bf16",
    rows=ROWS,
    n=1024,
)
def w8a8_block_fp8_matmul():
    from flag_gems.ops.w8a8_block_fp8_matmul import w8a8_block_fp8_matmul

    return lambda a, b, a_s, b_s: w8a8_block_fp8_matmul(a, b, a_s, b_s, [128, 128])


@op(
    "quantisation",
    x="rows k bf16",
    out=("rows k f8", "rows k//128 f32"),
    rows=ROWS,
    k=2048,
)
def per_token_group_quant_fp8():
    from flag_gems.ops.per_token_group_quant_fp8 import per_token_group_quant_fp8

    return lambda x: per_token_group_quant_fp8(x, 128)


@op("indexing", w="32000 k bf16", i="rows i64<32000", out="rows k w", rows=ROWS, k=1024)
def embedding():
    from flag_gems.ops.embedding import embedding

    return lambda w, i: embedding(w, i)


@op("indexing", x="1000 k bf16", i="rows i64<1000", out="rows k x", rows=ROWS, k=1024)
def index_select():
    from flag_gems.ops.index_select import index_select

    return lambda x, i: index_select(x, 0, i)


@op("indexing", a="rows k bf16", b="rows k bf16", out="rows k*2 a", rows=ROWS, k=512)
def cat():
    from flag_gems.ops.cat import cat

    return lambda a, b: cat([a, b], 1)


@op(
    "convolution",
    x="n 32 h w f16",
    f="c 32 3 3 f16",
    out="n c h w x",
    n=(1, 4, 16),
    c=64,
    h=28,
    w=28,
)
def conv2d():
    from flag_gems.ops.conv2d import conv2d

    return lambda x, f: conv2d(x, f, None, 1, 1)


@op(
    "attention",
    q="2 16 s 64 bf16",
    k="2 16 s 64 bf16",
    v="2 16 s 64 bf16",
    out="q",
    s=(64, 512, 1024),
)
def scaled_dot_product_attention():
    from flag_gems.ops.attention import scaled_dot_product_attention_forward

    return lambda q, k, v: scaled_dot_product_attention_forward(
        q, k, v, is_causal=True
    )[0]


@op(
    "rotary",
    q="t 16 64 bf16",
    k="t 4 64 bf16",
    cos="4096 32 f32",
    sin="4096 32 f32",
    pos="t i64<4096",
    out=("q", "k"),
    t=ROWS,
)
def apply_rotary_pos_emb():
    from flag_gems.fused.rotary_embedding import apply_rotary_pos_emb

    return lambda q, k, cos, sin, pos: apply_rotary_pos_emb(q, k, cos, sin, pos)


@op("cross-entropy", x="rows 32000 f32", target="rows i64<32000", out="f32", rows=ROWS)
def cross_entropy_loss():
    from flag_gems.fused.cross_entropy_loss import cross_entropy_loss

    return lambda x, target: cross_entropy_loss(x, target)


@op(
    "MoE",
    scores="rows 64 f32",
    bias="64 f32",
    out=("rows 4 scores", "rows 4 i32"),
    rows=ROWS,
)
def grouped_topk():
    from flag_gems.fused.grouped_topk import grouped_topk

    return lambda scores, bias: grouped_topk(scores, 8, 4, 4, True, 1.0, bias, 1)


@op("MoE", x="rows 4 k bf16", out="rows k x", rows=ROWS, k=1024)
def moe_sum():
    from flag_gems.fused.moe_sum import moe_sum

    def body(x):
        out = x.new_empty(x.shape[0], x.shape[2])
        moe_sum(x, out)
        return out

    return body


@op(
    "MoE",
    x="rows 512 bf16",
    w1="8 1024 512 bf16",
    w2="8 512 512 bf16",
    weights="rows 2 f32+",
    ids="rows 2 i32<8",
    out="x",
    rows=ROWS,
)
def fused_experts():
    from flag_gems.fused.fused_moe import outplace_fused_experts

    return lambda x, w1, w2, weights, ids: outplace_fused_experts(
        x, w1, w2, weights, ids
    )
