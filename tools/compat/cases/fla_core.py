# SPDX-License-Identifier: BSD-3-Clause

"""flash-linear-attention: the forward functions of ``fla.ops`` and ``fla.modules``."""

from ..case import Library

op = Library("fla-core", "triton")

TOKENS = (64, 512, 2048)


@op("reduction", x="rows k bf16", out="rows k f32", rows=(1, 64, 512), k=4096)
def softmax():
    from fla.ops.utils.softmax import softmax_fwd

    return lambda x: softmax_fwd(x)


@op("reduction", x="rows 4096 bf16", out="rows f32", rows=(1, 64, 512))
def logsumexp():
    from fla.ops.utils.logsumexp import logsumexp_fwd

    return lambda x: logsumexp_fwd(x)


@op("reduction", g="2 t 8 f32", out="g", t=TOKENS)
def chunk_local_cumsum():
    from fla.ops.utils.cumsum import chunk_local_cumsum_scalar

    return lambda g: chunk_local_cumsum_scalar(g, 64)


@op("reduction", s="2 t 8 64 f32", out="s", t=TOKENS)
def chunk_global_cumsum():
    from fla.ops.utils.cumsum import chunk_global_cumsum_vector

    return lambda s: chunk_global_cumsum_vector(s)


@op(
    "reduction",
    x="n t h d bf16",
    out="n t+63//64 h d x",
    t=(64, 512, 512),
    n=2,
    h=8,
    d=64,
)
def mean_pooling():
    from fla.ops.utils.pooling import mean_pooling_fwd

    return lambda x: mean_pooling_fwd(x, 64)


@op("GEMM", a="rows 1024 bf16", b="1024 k bf16", out="rows k a", rows=TOKENS, k=2048)
def matmul():
    from fla.ops.utils.matmul import matmul

    return lambda a, b: matmul(a, b)


@op(
    "GEMM",
    a="rows 1024 bf16",
    b="1024 k bf16",
    x="rows k bf16",
    out="rows k a",
    rows=TOKENS,
    k=2048,
)
def addmm():
    from fla.ops.utils.matmul import addmm

    return lambda a, b, x: addmm(x, a, b)


@op("norm", x="rows 128 bf16", out=("x", "rows f32"), rows=TOKENS)
def l2norm():
    from fla.modules.norm.l2norm import l2norm_fwd

    return lambda x: l2norm_fwd(x)


@op("norm", x="rows 2048 bf16", w="2048 bf16", b="2048 bf16", out="x", rows=TOKENS)
def layer_norm():
    from fla.modules.norm.layernorm import layer_norm_fwd

    return lambda x, w, b: layer_norm_fwd(x, w, b)[0]


@op("norm", x="rows 256 bf16", g="rows 256 bf16", w="256 bf16", out="x", rows=TOKENS)
def rms_norm_gated():
    from fla.modules.norm.fused_norm_gate import layer_norm_gated_fwd

    return lambda x, g, w: layer_norm_gated_fwd(x, g, w, None, is_rms_norm=True)[0]


# It rounds to 1/127 of a row's largest value. Where a sum of another order is a little
# larger or smaller, a value in the middle of two steps becomes the other one.
@op(
    "quantisation",
    x="rows 2048 bf16",
    w="2048 bf16",
    out="x",
    rows=TOKENS,
    tolerance=0.08,
)
def rms_norm_quant():
    from fla.modules.norm.layernorm_quant import layer_norm_quant_fwd

    return lambda x, w: layer_norm_quant_fwd(x, w, None, 1e-5, is_rms_norm=True)[0]


@op(
    "rotary",
    x="2 t 8 64 bf16",
    cos="2048 32 bf16",
    sin="2048 32 bf16",
    out="x",
    t=TOKENS,
)
def rotary_embedding():
    from fla.modules.rotary.ops import rotary_embedding

    return lambda x, cos, sin: rotary_embedding(x, cos, sin)


@op("activation", x="rows 4096 bf16", y="rows 4096 bf16", out="x", rows=TOKENS)
def swiglu():
    from fla.modules.activations.ops import swiglu_fwd

    return lambda x, y: swiglu_fwd(x, y)


@op("activation", x="rows 4096 bf16", out="x", rows=TOKENS)
def logsigmoid():
    from fla.modules.activations.ops import logsigmoid_fwd

    return lambda x: logsigmoid_fwd(x)


@op("state-space", x="2 t 1024 bf16", out="x", t=TOKENS)
def token_shift():
    from fla.modules.token_shift import token_shift_fwd

    return lambda x: token_shift_fwd(x)[0]


@op("convolution", x="2 t 1024 bf16", w="1024 4 bf16", out="x", t=TOKENS)
def causal_conv1d():
    from fla.modules.causal_conv1d.ops import causal_conv1d_fwd

    return lambda x, w: causal_conv1d_fwd(x, w, None, None, activation="silu")[0]


@op(
    "cross-entropy",
    logits="rows 32000 bf16",
    target="rows i64<32000",
    out="rows f32",
    rows=(2, 64, 512),
)
def cross_entropy():
    from fla.modules.fused_cross_entropy.ops import cross_entropy_fwd

    return lambda logits, target: cross_entropy_fwd(logits, target)[0]


@op(
    "attention",
    q="2 t 8 64 bf16",
    k="2 t 8 64 bf16",
    v="2 t 8 64 bf16",
    out="q",
    t=TOKENS,
)
def parallel_attn():
    from fla.ops.attn.parallel import parallel_attn_fwd

    return lambda q, k, v: parallel_attn_fwd(q, k, v, None, None, 0.125)[0]


@op(
    "state-space",
    q="n t h 64 bf16",
    k="n t h 64 bf16",
    v="n t h d bf16",
    g="n t h f32",
    out="n t h d f32",
    t=TOKENS,
    n=2,
    h=4,
    d=64,
)
def fused_recurrent_simple_gla():
    from fla.ops.common.fused_recurrent import fused_recurrent_fwd

    return lambda q, k, v, g: fused_recurrent_fwd(q, k, v, g=g, scale=0.125)[0]


@op(
    "state-space",
    k="n t h dk bf16",
    v="n t h dv bf16",
    g="n t h f32",
    out="n t+63//64 h dk dv k",
    t=(64, 512, 512),
    n=2,
    h=4,
    dk=64,
    dv=64,
)
def chunk_fwd_h():
    from fla.ops.common.chunk_h import chunk_fwd_h

    return lambda k, v, g: chunk_fwd_h(k, v, g=g)[0]


@op(
    "state-space",
    q="2 t 4 64 bf16",
    k="2 t 4 64 bf16",
    v="2 t 4 64 bf16",
    h="2 t+63//64 4 64 64 bf16",
    g="2 t 4 f32",
    out="v",
    t=(64, 512, 512),
)
def chunk_fwd_o():
    from fla.ops.common.chunk_o import chunk_fwd_o

    return lambda q, k, v, h, g: chunk_fwd_o(q, k, v, h, g=g, scale=0.125)


@op(
    "state-space",
    k="n t h 64 bf16",
    beta="n t h f32",
    out="n t h 64 f32",
    t=TOKENS,
    n=2,
    h=4,
)
def chunk_scaled_dot_kkt():
    from fla.ops.common.chunk_scaled_dot_kkt import chunk_scaled_dot_kkt_fwd

    return lambda k, beta: chunk_scaled_dot_kkt_fwd(k, beta=beta)


@op("state-space", a="2 t 4 64 f32", out="a", t=TOKENS)
def solve_tril():
    from fla.ops.utils.solve_tril import solve_tril

    return lambda a: solve_tril(a)


@op(
    "state-space",
    q="2 t 4 64 bf16",
    k="2 t 4 64 bf16",
    v="2 t 4 64 bf16",
    g="2 t 4 f32",
    beta="2 t 4 bf16",
    out="v",
    t=(64, 128, 512),
)
def fused_recurrent_gated_delta_rule():
    from fla.ops.gated_delta_rule.fused_recurrent import (
        fused_recurrent_gated_delta_rule_fwd,
    )

    return lambda q, k, v, g, beta: fused_recurrent_gated_delta_rule_fwd(
        q, k, v, g=g, beta=beta, scale=0.125
    )[0]


@op("state-space", x="2 t 512 f32", g="2 t 512 f32", out="x", t=TOKENS)
def fused_recurrent_hgrn():
    from fla.ops.hgrn.fused_recurrent import fused_recurrent_hgrn_fwd

    return lambda x, g: fused_recurrent_hgrn_fwd(x, g)[0]
