# SPDX-License-Identifier: BSD-3-Clause

"""Liger-Kernel: the forward functions of ``liger_kernel.ops``, and of its CuTe DSL."""

from ..case import Library

op = Library("liger-kernel", "triton")
cute = Library("liger-kernel", "cutedsl")

ROWS = (1, 64, 512)
PROMPT = (64, 128, 512)


@op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def rms_norm():
    from liger_kernel.ops.rms_norm import rms_norm_forward

    return lambda x, w: rms_norm_forward(x, w, 1e-6, 0.0, "llama", None)[0]


@op("norm", x="rows 4096 bf16", w="4096 bf16", b="4096 bf16", out="x", rows=ROWS)
def layer_norm():
    from liger_kernel.ops.layer_norm import layer_norm_forward

    return lambda x, w, b: layer_norm_forward(x, w, b, 1e-6)[0]


@op("norm", x="n 64 256 f32", w="64 f32", b="64 f32", out="x", n=(1, 4, 16))
def group_norm():
    from liger_kernel.ops.group_norm import group_norm_forward

    return lambda x, w, b: group_norm_forward(x, 64, 8, w, b, 1e-6)[0]


@op(
    "norm",
    x="rows 4096 bf16",
    residual="rows 4096 bf16",
    w="4096 bf16",
    out=("x", "residual"),
    rows=ROWS,
)
def fused_add_rms_norm():
    from liger_kernel.ops.fused_add_rms_norm import fused_add_rms_norm_forward

    return lambda x, residual, w: fused_add_rms_norm_forward(
        x, residual, w, 1e-6, 0.0, "llama"
    )[:2]


@op(
    "norm",
    x="rows 2048 bf16",
    w="2048 bf16",
    scale="rows 2048 bf16",
    shift="rows 2048 bf16",
    out="x",
    rows=ROWS,
)
def modulated_rms_norm():
    from liger_kernel.ops.modulated_rms_norm import modulated_rms_norm_forward

    return lambda x, w, scale, shift: modulated_rms_norm_forward(
        x, w, scale, shift, 1e-6, 0.0, "llama"
    )[0]


@op("norm", x="rows 4096 bf16", w="3 bf16", b="1 bf16", out="x", rows=ROWS)
def poly_norm():
    from liger_kernel.ops.poly_norm import poly_norm_forward

    return lambda x, w, b: poly_norm_forward(x, w, b, 1e-6)[0]


@op(
    "norm",
    x="rows 4096 bf16",
    alpha="1 bf16",
    gamma="4096 bf16",
    beta="4096 bf16",
    out="x",
    rows=ROWS,
)
def dyt():
    from liger_kernel.ops.dyt import liger_dyt_fwd

    return lambda x, alpha, gamma, beta: liger_dyt_fwd(x, alpha, gamma, beta)


@op("activation", a="rows 11008 bf16", b="rows 11008 bf16", out="a", rows=ROWS)
def swiglu():
    from liger_kernel.ops.swiglu import swiglu_forward

    return lambda a, b: swiglu_forward(a, b)[2]


@op("activation", a="rows 11008 bf16", b="rows 11008 bf16", out="a", rows=ROWS)
def geglu():
    from liger_kernel.ops.geglu import geglu_forward

    return lambda a, b: geglu_forward(a, b)[2]


@op("activation", x="rows 4096 bf16", out="x", rows=ROWS)
def relu_squared():
    from liger_kernel.ops.relu_squared import relu_squared_forward

    return lambda x: relu_squared_forward(x)


@op("reduction", x="rows 4096 bf16", out="x", rows=ROWS)
def softmax():
    from liger_kernel.ops.softmax import _softmax_forward

    return lambda x: _softmax_forward(x)[0]


@op("reduction", x="rows 1024 f32", out="x", rows=ROWS)
def sparsemax():
    from liger_kernel.ops.sparsemax import _sparsemax_forward

    return lambda x: _sparsemax_forward(x, -1)[0]


@op(
    "rotary",
    q="2 32 s 128 bf16",
    k="2 8 s 128 bf16",
    cos="1 s 128 bf16",
    sin="1 s 128 bf16",
    out=("q", "k"),
    s=PROMPT,
)
def rope():
    from liger_kernel.ops.rope import rope_forward

    return lambda q, k, cos, sin: rope_forward(q, k, cos, sin)[:2]


@op(
    "rotary",
    q="2 32 s 128 bf16",
    k="2 8 s 128 bf16",
    cos="3 2 s 128 bf16",
    sin="3 2 s 128 bf16",
    out=("q", "k"),
    s=PROMPT,
)
def qwen2vl_mrope():
    from liger_kernel.ops.qwen2vl_mrope import qwen2vl_mrope_forward

    return lambda q, k, cos, sin: qwen2vl_mrope_forward(q, k, cos, sin, [16, 24, 24])[
        :2
    ]


@op(
    "cross-entropy",
    logits="rows 32000 bf16",
    target="rows i64<32000",
    out="f32",
    mutates="logits",
    rows=(2, 64, 512),
)
def cross_entropy():
    from liger_kernel.ops.cross_entropy import cross_entropy_forward

    return lambda logits, target: cross_entropy_forward(
        logits, target, None, -100, 0.0, 0.0, "mean", None, False
    )[0]


@op(
    "cross-entropy",
    x="rows 1024 bf16",
    w="32000 1024 bf16",
    target="rows i64<32000",
    out="f32",
    rows=(2, 64, 512),
)
def fused_linear_cross_entropy():
    from liger_kernel.ops.fused_linear_cross_entropy import (
        fused_linear_cross_entropy_forward,
    )

    return lambda x, w, target: fused_linear_cross_entropy_forward(x, w, target)[0]


@op(
    "loss", p="rows v f32", q="rows v f32+", out="rows v f32", rows=(2, 64, 512), v=4096
)
def kl_div():
    from liger_kernel.ops.kl_div import kldiv_forward_triton

    return lambda p, q: kldiv_forward_triton(p, q, False, "none", 1e-10)


@op(
    "loss",
    p="rows v f32+",
    q="rows v f32+",
    out="rows v f32",
    rows=(2, 64, 512),
    v=4096,
)
def tvd():
    from liger_kernel.ops.tvd import tv_distance_forward_triton

    return lambda p, q: tv_distance_forward_triton(p, q, None, "none", -100, False)[0]


@op(
    "GEMM",
    x="rows 4096 bf16",
    phi="4096 m bf16",
    out=("rows m f32", "rows f32"),
    rows=ROWS,
    m=24,
)
def mhc_mm_norm():
    from liger_kernel.ops.mhc import mhc_mm_norm_fwd

    return lambda x, phi: mhc_mm_norm_fwd(x, phi, 1e-6)


@op(
    "elementwise",
    x="rows 4 c bf16",
    h_pre="rows 4 f32",
    out="rows c f32",
    rows=ROWS,
    c=1024,
)
def mhc_pre():
    from liger_kernel.ops.mhc import mhc_pre_fwd

    return lambda x, h_pre: mhc_pre_fwd(x, h_pre)


@op(
    "elementwise",
    x="rows h c bf16",
    f_out="rows c bf16",
    h_post="rows h f32",
    h_res="rows h h f32",
    out="rows h c f32",
    rows=ROWS,
    h=4,
    c=1024,
)
def mhc_post_res():
    from liger_kernel.ops.mhc import mhc_post_res_fwd

    return lambda x, f_out, h_post, h_res: mhc_post_res_fwd(x, f_out, h_post, h_res)


@op(
    "attention",
    blocks="6 rows d bf16",
    w_query="d bf16",
    w_norm="d bf16",
    out="rows d blocks",
    rows=ROWS,
    d=1024,
)
def attn_res():
    from liger_kernel.ops.attn_res import attn_res_forward

    return lambda blocks, w_query, w_norm: attn_res_forward(blocks, w_query, w_norm)[0]


@op(
    "attention",
    q="1 8 s 64 f16",
    k="1 8 s 64 f16",
    v="1 8 s 64 f16",
    out="q",
    s=(64, 256, 512),
)
def fused_neighborhood_attention():
    from liger_kernel.ops.fused_neighborhood_attention import (
        fused_neighborhood_attention_forward,
    )

    return lambda q, k, v: fused_neighborhood_attention_forward(q, k, v)[0]


@op("GEMM", a="rows 1024 i8", b="256 n u8", out="rows n i32", rows=(1, 64, 512), n=1024)
def mm_int8int2():
    from liger_kernel.ops.experimental.mm_int8int2 import matmul

    return lambda a, b: matmul(a, b)


@cute("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=ROWS)
def cute_rms_norm():
    from liger_kernel.ops.cutedsl.ops.rms_norm import rms_norm_forward

    return lambda x, w: rms_norm_forward(x, w, 1e-6, 0.0, "llama", None)[0]


@cute("activation", a="rows 11008 bf16", b="rows 11008 bf16", out="a", rows=ROWS)
def cute_swiglu():
    from liger_kernel.ops.cutedsl.ops.swiglu import swiglu_forward

    return lambda a, b: swiglu_forward(a, b)[2]


@cute(
    "rotary",
    q="2 32 s 128 bf16",
    k="2 8 s 128 bf16",
    cos="1 s 128 bf16",
    sin="1 s 128 bf16",
    out=("q", "k"),
    s=PROMPT,
)
def cute_rope():
    from liger_kernel.ops.cutedsl.ops.rope import rope_forward

    return lambda q, k, cos, sin: rope_forward(q, k, cos, sin)[:2]


@cute(
    "cross-entropy",
    logits="rows 32000 bf16",
    target="rows i64<32000",
    out="f32",
    mutates="logits",
    rows=(2, 64, 512),
)
def cute_cross_entropy():
    from liger_kernel.ops.cutedsl.ops.cross_entropy import cross_entropy_forward

    return lambda logits, target: cross_entropy_forward(
        logits, target, None, -100, 0.0, 0.0, "mean", None, False
    )[0]
