# SPDX-License-Identifier: BSD-3-Clause

"""Mamba: the forward functions of ``mamba_ssm.ops.triton``."""

from ..case import Library

op = Library("mamba-ssm", "triton")

CHUNKS = (1, 4, 16)


@op(
    "norm",
    x="rows 2048 bf16",
    w="2048 bf16",
    residual="rows 2048 bf16",
    out=("x", "residual"),
    rows=(1, 64, 512),
)
def rms_norm_residual():
    from mamba_ssm.ops.triton.layer_norm import rms_norm_fn

    return lambda x, w, residual: rms_norm_fn(x, w, None, residual, prenorm=True)


@op(
    "norm",
    x="rows 2048 bf16",
    z="rows 2048 bf16",
    w="2048 bf16",
    out="x",
    rows=(1, 64, 512),
)
def rmsnorm_gated():
    from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn

    return lambda x, z, w: rmsnorm_fn(x, w, None, z)


@op("activation", xy="rows k bf16", out="rows k//2 xy", rows=(1, 64, 512), k=4096)
def swiglu():
    from mamba_ssm.ops.triton.k_activations import _swiglu_fwd

    return lambda xy: _swiglu_fwd(xy)


@op(
    "state-space",
    state="n 1024 16 f32",
    x="n 1024 bf16",
    dt="n 1024 bf16",
    a="1024 16 f32-",
    b="n 16 bf16",
    c="n 16 bf16",
    d="1024 f32",
    dt_bias="1024 f32",
    out="x",
    mutates="state",
    n=(1, 8, 64),
)
def selective_state_update():
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    # Without D and the bias, the library's launcher fails in PyTorch, too.
    return lambda state, x, dt, a, b, c, d, dt_bias: selective_state_update(
        state, x, dt, a, b, c, d, dt_bias=dt_bias
    )


@op(
    "state-space",
    dt="n t h f32+",
    a="h f32-",
    out=("n h t//256 256 f32", "n h t//256 256 f32"),
    n=(1, 2, 8),
    t=1024,
    h=8,
)
def chunk_cumsum():
    from mamba_ssm.ops.triton.ssd_chunk_state import _chunk_cumsum_fwd

    return lambda dt, a: _chunk_cumsum_fwd(dt, a, 256)[::-1]


@op(
    "state-space",
    b="n t g s bf16",
    x="n t h d bf16",
    dt="n h c l f32+",
    da="n h c l f32",
    out="n c h d s f32",
    n=(1, 2, 8),
    t=1024,
    g=1,
    s=128,
    h=8,
    d=64,
    c=4,
    l=256,
)
def chunk_state():
    from mamba_ssm.ops.triton.ssd_chunk_state import _chunk_state_fwd

    return lambda b, x, dt, da: _chunk_state_fwd(b, x, dt, da)


@op(
    "state-space",
    states="n chunks h d f32",
    da="n h chunks f32",
    out=("states", "n h d f32"),
    chunks=CHUNKS,
    n=2,
    h=8,
    d=4096,
)
def state_passing():
    from mamba_ssm.ops.triton.ssd_state_passing import _state_passing_fwd

    return lambda states, da: _state_passing_fwd(states, da)


@op(
    "GEMM",
    a="n t g 128 bf16",
    b="n t g 128 bf16",
    out="n t//256 g 256 256 a",
    n=(1, 2, 8),
    t=1024,
    g=1,
)
def bmm_chunk():
    from mamba_ssm.ops.triton.ssd_bmm import _bmm_chunk_fwd

    return lambda a, b: _bmm_chunk_fwd(a, b, 256)


@op(
    "state-space",
    cb="n 4 1 256 256 f32",
    x="n 1024 8 64 bf16",
    dt="n 8 4 256 f32+",
    da="n 8 4 256 f32",
    c="n 1024 1 128 bf16",
    states="n 4 8 64 128 bf16",
    out="x",
    n=(1, 2, 8),
)
def chunk_scan():
    from mamba_ssm.ops.triton.ssd_chunk_scan import _chunk_scan_fwd

    return lambda cb, x, dt, da, c, states: _chunk_scan_fwd(cb, x, dt, da, c, states)[0]


@op(
    "state-space",
    x="n 1024 8 64 bf16",
    dt="n 1024 8 f32+",
    a="8 f32-",
    b="n 1024 1 128 bf16",
    c="n 1024 1 128 bf16",
    out="x",
    n=(1, 2, 8),
)
def chunk_scan_combined():
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return lambda x, dt, a, b, c: mamba_chunk_scan_combined(x, dt, a, b, c, 256)
