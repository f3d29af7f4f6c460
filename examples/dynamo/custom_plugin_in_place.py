# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_in_place:

A rotary embedding in place
===========================

Kernel libraries rotate queries and keys where they are: the op returns nothing and
declares what it writes with ``mutates_args``. In the engine it is a plugin whose
outputs are its inputs, by a preview feature of TensorRT. The plugin gets a copy that no
other layer reads, so nothing else sees the change.
"""

# %%
# The op, as a library defines it
# -------------------------------
# One block rotates one token: all heads of the queries, or of the fewer keys.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

HEADS, GROUPS, DIM = 4, 2, 64


@triton.jit
def rotate_kernel(
    q_ptr,
    k_ptr,
    cos_ptr,
    sin_ptr,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    half = tl.arange(0, HALF)
    cos = tl.load(cos_ptr + token * HALF + half)
    sin = tl.load(sin_ptr + token * HALF + half)
    for head in tl.static_range(HEADS + GROUPS):
        if head < HEADS:
            first = q_ptr + (token * HEADS + head) * 2 * HALF + half
        else:
            first = k_ptr + (token * GROUPS + head - HEADS) * 2 * HALF + half
        x, y = tl.load(first).to(tl.float32), tl.load(first + HALF).to(tl.float32)
        tl.store(first, (x * cos - y * sin).to(q_ptr.dtype.element_ty))
        tl.store(first + HALF, (y * cos + x * sin).to(q_ptr.dtype.element_ty))


@torch.library.custom_op("example::rotate_", mutates_args={"q", "k"})
def rotate_(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> None:
    tokens, heads, dim = q.shape
    rotate_kernel[(tokens,)](q, k, cos, sin, heads, k.shape[1], dim // 2)


# %%
# One call
# --------

trt_plugins.custom_op(
    "example::rotate_",
    impl=tta.triton(configs=[{"num_warps": 1}, {"num_warps": 4}]),
    supports_dynamic_shapes=True,
)


def angles(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    steps = torch.arange(0, DIM, 2, device=positions.device) / DIM
    turns = positions.float()[:, None] * 10000.0**-steps
    return turns.cos(), turns.sin()


class Rotated(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = torch.nn.Linear(width, HEADS * DIM, bias=False)
        self.k = torch.nn.Linear(width, GROUPS * DIM, bias=False)

    def forward(self, x, cos, sin, rotate=rotate_) -> tuple[torch.Tensor, torch.Tensor]:
        q = self.q(x).unflatten(-1, (HEADS, DIM))
        k = self.k(x).unflatten(-1, (GROUPS, DIM))
        rotate(q, k, cos, sin)
        return q * 1.0, k * 1.0


# %%
# An engine, or a dry run
# -----------------------
# A reference writes what the op writes. A rotation keeps lengths, and this one makes
# the product of a query and a key depend on the distance of their positions alone. The
# last line shows both with the reference that the kernel was compared with.


def plain(q, k, cos, sin) -> None:
    for x in (q, k):
        first, second = x.float().chunk(2, -1)
        c, s = cos[:, None], sin[:, None]
        x.copy_(torch.cat([first * c - second * s, second * c + first * s], -1))


def invariants(report) -> str:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, DIM, generator=generator) for _ in range(2))
    products = []
    for start in (0, 100):
        turned = q.repeat(8, 1)[:, None], k.repeat(8, 1)[:, None]
        plain(*turned, *angles(torch.arange(start, start + 8)))
        products.append((turned[0][7] * turned[1][2]).sum().item())
    grown = abs(turned[0].norm(dim=-1) / q.norm() - 1).max().item()
    return (
        f"Rotating changes a query's length by {grown:.0e} of it at most. The product "
        f"of a query and the key 5 tokens before it is {products[0]:.4f} at token 7, "
        f"and {products[1]:.4f} at token 107."
    )


def per_token(*extents: int, dtype=torch.float16) -> torch_tensorrt.Input:
    return torch_tensorrt.Input(
        min_shape=(2, *extents),
        opt_shape=(256, *extents),
        max_shape=(4096, *extents),
        dtype=dtype,
    )


if __name__ == "__main__":
    model = Rotated(256).half().eval()
    tables = [per_token(DIM // 2, dtype=torch.float32)] * 2
    show(
        model,
        lambda x, cos, sin: model(x, cos, sin, plain),
        [per_token(256), *tables],
        lambda target: tta.dry_run(
            "example::rotate_",
            [per_token(HEADS, DIM), per_token(GROUPS, DIM), *tables],
            target,
            reference=plain,
        ),
        summary=invariants,
    )
