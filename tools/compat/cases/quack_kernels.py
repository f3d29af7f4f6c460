# SPDX-License-Identifier: BSD-3-Clause

"""QuACK: the forward functions of its CuTe DSL kernels."""

from ..case import Library

op = Library("quack-kernels", "cutedsl")

ROWS = (1, 64, 512)


@op("norm", x="rows 4096 bf16", w="4096 f32", out="x", rows=ROWS)
def rmsnorm():
    from quack.rmsnorm import rmsnorm_fwd

    return lambda x, w: rmsnorm_fwd(x, w)[0]


@op("norm", x="rows 4096 bf16", w="4096 f32", out="x", rows=ROWS)
def layernorm():
    from quack.rmsnorm import layernorm_fwd

    return lambda x, w: layernorm_fwd(x, w)


@op("reduction", x="rows 4096 bf16", out="x", rows=ROWS)
def softmax():
    from quack.softmax import softmax_fwd

    return lambda x: softmax_fwd(x)


@op(
    "cross-entropy",
    x="rows 32000 bf16",
    target="rows i64<32000",
    out="rows f32",
    rows=ROWS,
)
def cross_entropy():
    from quack.cross_entropy import cross_entropy_fwd

    return lambda x, target: cross_entropy_fwd(x, target)


@op("reduction", x="rows 1024 bf16", out=("rows 8 x", "rows 8 i32"), rows=ROWS)
def topk():
    from quack.topk import topk_fwd

    return lambda x: topk_fwd(x, 8)


@op("reduction", x="rows 32 f32+", out="rows f32", rows=ROWS)
def rms_final_reduce():
    from quack.rms_final_reduce import rms_final_reduce

    return lambda x: rms_final_reduce(x, 1 / 4096)


@op(
    "rotary",
    x="2 s 16 128 bf16",
    cos="512 64 f32",
    sin="512 64 f32",
    out="x",
    s=(64, 128, 512),
)
def apply_rotary():
    from quack.rotary import apply_rotary

    return lambda x, cos, sin: apply_rotary(x, cos, sin)


@op("elementwise", x="rows 4096 bf16", out="x", rows=ROWS)
def hadamard_transform():
    from quack.transform.hadamard import hadamard_transform_fwd

    return lambda x: hadamard_transform_fwd(x)


@op("GEMM", a="rows 1024 bf16", b="1024 n bf16", out="rows n a", rows=ROWS, n=2048)
def gemm():
    from quack.gemm_interface import gemm

    return lambda a, b: gemm(a, b, tuned=False)


@op(
    "GEMM",
    a="rows 1024 bf16",
    b="1024 n bf16",
    out="rows n a",
    rows=ROWS,
    n=2048,
)
def gemm_act():
    from quack.gemm_interface import gemm_act

    return lambda a, b: gemm_act(
        a, b, activation="relu", store_preact=False, tuned=False
    )[1]


@op("reduction", ws="4 rows n f32", out="1 rows n bf16", rows=ROWS, n=1024)
def split_k_reduce():
    import torch
    from quack.split_k_reduce import split_k_reduce

    def body(ws):
        out = ws.new_empty(1, *ws.shape[1:], dtype=torch.bfloat16)
        split_k_reduce(ws, out, 4)
        return out

    return body
