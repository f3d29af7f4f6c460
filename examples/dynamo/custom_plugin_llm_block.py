# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_llm_block:

A decoder layer with three plugins
==================================

A decoder layer of a language model computes RMSNorm, the rotary embedding and SwiGLU
between its matrix products. Here they are three Triton kernels, and TensorRT computes
the products and the attention. The layer is one engine with four plugin layers.
"""

# %%
# RMSNorm
# -------
# A block computes one row. The width is static, and so is the ``BLOCK`` that holds it.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show
from torch.nn import functional

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

WIDTH, HEADS, HIDDEN, LENGTH = 512, 8, 1408, 1024
DIM = WIDTH // HEADS


@triton.jit
def rms_norm_kernel(x_ptr, weight_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    offsets = tl.program_id(0).to(tl.int64) * width + columns
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    weight = tl.load(weight_ptr + columns, mask=mask).to(tl.float32)
    y = (x * scale * weight).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, y, mask=mask)


def launch_rms_norm(x, weight, out, eps):
    width = x.shape[-1]
    rows = x.numel() // width
    BLOCK = triton.next_power_of_2(width)
    rms_norm_kernel[(rows,)](x, weight, out, width, eps, BLOCK=BLOCK)


def rms_norm_meta(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.empty_like(x)


# %%
# The rotary embedding
# --------------------
# The kernel takes queries, keys and values from one matrix product and rotates the
# first two. It writes all three in attention's layout. The angles are constants of the
# engine.


@triton.jit
def rotary_kernel(
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    length,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """Move one head at one position from ``[batch, length, 3, heads, dim]`` to
    ``[batch, heads, length, dim]``."""
    position, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    columns = tl.arange(0, HALF)
    cos = tl.load(cos_ptr + position * HALF + columns)
    sin = tl.load(sin_ptr + position * HALF + columns)
    token = (batch * length + position).to(tl.int64)
    source = qkv_ptr + (token * 3 * HEADS + head) * 2 * HALF + columns
    row = (batch * HEADS + head).to(tl.int64) * length + position
    target = row * 2 * HALF + columns
    kind = q_ptr.dtype.element_ty
    for part in tl.static_range(2):
        out_ptr = q_ptr if part == 0 else k_ptr
        first = tl.load(source + part * HEADS * 2 * HALF).to(tl.float32)
        second = tl.load(source + part * HEADS * 2 * HALF + HALF).to(tl.float32)
        tl.store(out_ptr + target, (first * cos - second * sin).to(kind))
        tl.store(out_ptr + target + HALF, (second * cos + first * sin).to(kind))
    tl.store(v_ptr + target, tl.load(source + 4 * HEADS * HALF))
    tl.store(v_ptr + target + HALF, tl.load(source + 4 * HEADS * HALF + HALF))


def launch_rotary(qkv, cos, sin, q, k, v):
    batch, heads, length, dim = q.shape
    rotary_kernel[(length, heads, batch)](
        qkv, cos, sin, q, k, v, length, heads, dim // 2
    )


def rotary_meta(qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (qkv.shape[0], HEADS, qkv.shape[1], DIM)
    return qkv.new_empty(shape), qkv.new_empty(shape), qkv.new_empty(shape)


# %%
# SwiGLU
# ------


@triton.jit
def swiglu_kernel(gate_up_ptr, out_ptr, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    gate_ptr = gate_up_ptr + row * 2 * hidden + columns
    gate = tl.load(gate_ptr, mask=mask).to(tl.float32)
    up = tl.load(gate_ptr + hidden, mask=mask).to(tl.float32)
    y = (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * hidden + columns, y, mask=mask)


def launch_swiglu(gate_up, out, BLOCK=1024):
    hidden = out.shape[-1]
    rows = out.numel() // hidden
    swiglu_kernel[(rows, triton.cdiv(hidden, BLOCK))](gate_up, out, hidden, BLOCK=BLOCK)


def swiglu_meta(gate_up: torch.Tensor) -> torch.Tensor:
    return gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


# %%
# Three calls
# -----------

angles = torch.outer(torch.arange(LENGTH), 10000.0 ** (-torch.arange(0, DIM, 2) / DIM))
cos, sin = angles.cos(), angles.sin()
warps = [{"num_warps": 1}, {"num_warps": 4}]
trt_plugins.custom_op(
    "decoder::rms_norm",
    impl=tta.custom_plugin(tta.triton(launch_rms_norm, warps), rms_norm_meta),
    supports_dynamic_shapes=True,
)
trt_plugins.custom_op(
    "decoder::rotary",
    impl=tta.custom_plugin(
        tta.triton(launch_rotary, [{"num_warps": 1}]), rotary_meta, cos=cos, sin=sin
    ),
    supports_dynamic_shapes=True,
)
trt_plugins.custom_op(
    "decoder::swiglu",
    impl=tta.custom_plugin(
        tta.triton(launch_swiglu, [{"BLOCK": 512}, {"BLOCK": 2048}]), swiglu_meta
    ),
    supports_dynamic_shapes=True,
)

# %%
# The layer
# ---------
# It runs with the plugins, or with ``Plain``, the same ops in PyTorch for comparison.


class Plain:
    @staticmethod
    def rms_norm(x, weight, eps):
        y = functional.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
        return y.to(x.dtype)

    @staticmethod
    def rotary(qkv):
        parts = qkv.unflatten(-1, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4)
        first, second = parts[:2].float().chunk(2, -1)
        c, s = (table[: qkv.shape[1]].to(qkv.device) for table in (cos, sin))
        turned = torch.cat([first * c - second * s, second * c + first * s], -1)
        return (*turned.to(qkv.dtype), parts[2])

    @staticmethod
    def swiglu(gate_up):
        gate, up = gate_up.float().chunk(2, -1)
        return (functional.silu(gate) * up).to(gate_up.dtype)


class DecoderLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ParameterList(torch.rand(WIDTH) for _ in range(2))
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate_up = torch.nn.Linear(WIDTH, 2 * HIDDEN, bias=False)
        self.down = torch.nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, ops=torch.ops.decoder) -> torch.Tensor:
        q, k, v = ops.rotary(self.qkv(ops.rms_norm(x, self.norms[0], 1e-6)))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(
            ops.swiglu(self.gate_up(ops.rms_norm(x, self.norms[1], 1e-6)))
        )


# %%
# What TensorRT gets
# ------------------
# ``explain`` exports, lowers and partitions the layer as ``torch_tensorrt.compile``
# does. Each of the four calls is a plugin layer, and the whole layer is one engine.


def tokens(width: int) -> torch_tensorrt.Input:
    return torch_tensorrt.Input(
        min_shape=(1, 1, width),
        opt_shape=(1, 128, width),
        max_shape=(1, LENGTH, width),
        dtype=torch.float16,
    )


layer = DecoderLayer().half().eval()
if __name__ == "__main__":
    target = None if torch.cuda.is_available() else "sm_90"
    tta.explain(layer, [tokens(WIDTH)], target=target, min_block_size=1).show()

# %%
# An engine, or a dry run
# -----------------------

if __name__ == "__main__":
    weight = torch_tensorrt.Input((WIDTH,), dtype=torch.float16)
    show(
        layer,
        lambda x: layer(x, Plain),
        [tokens(WIDTH)],
        lambda target: tta.dry_run(
            "decoder::rms_norm",
            [tokens(WIDTH), weight],
            target,
            attributes={"eps": 1e-6},
            reference=Plain.rms_norm,
        ),
        lambda target: tta.dry_run(
            "decoder::rotary", [tokens(3 * WIDTH)], target, reference=Plain.rotary
        ),
        lambda target: tta.dry_run(
            "decoder::swiglu", [tokens(2 * HIDDEN)], target, reference=Plain.swiglu
        ),
    )
