# SPDX-License-Identifier: BSD-3-Clause

"""FlashAttention 4: the functions of ``flash_attn.cute.interface``."""

from ..case import Library

op = Library("flash-attn-4", "cutedsl")


@op(
    "attention",
    q="2 s 16 128 bf16",
    k="2 s 16 128 bf16",
    v="2 s 16 128 bf16",
    out="q",
    s=(64, 512, 1024),
)
def flash_attn():
    from flash_attn.cute.interface import flash_attn_func

    return lambda q, k, v: flash_attn_func(q, k, v, causal=True)[0]


@op(
    "attention",
    partial="4 n s h d f32",
    lse="4 n h s f32",
    out="n s h d bf16",
    s=(64, 128, 512),
    n=2,
    h=16,
    d=128,
)
def flash_attn_combine():
    import torch
    from flash_attn.cute.interface import flash_attn_combine

    return lambda partial, lse: flash_attn_combine(
        partial, lse.mT, out_dtype=torch.bfloat16, return_lse=False
    )[0]
