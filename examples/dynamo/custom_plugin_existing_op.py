# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_existing_op:

A PyTorch custom op that launches a kernel
==========================================

An op defined with ``torch.library.triton_op`` or ``torch.library.custom_op`` already
has everything a plugin needs. Its fake kernel describes the outputs and its body
launches the kernel, so ``impl=tta.triton()`` needs no function.
"""

# %%
# The ops, as they were
# ---------------------
# A grid computed from ``meta`` follows the config, with TensorRT as with Triton.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show
from torch.library import custom_op, triton_op, wrap_triton

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def squared_relu_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.maximum(tl.load(x_ptr + offsets, mask=offsets < n), 0)
    tl.store(out_ptr + offsets, x * x, mask=offsets < n)


@triton_op("example::squared_relu", mutates_args={})
def squared_relu(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    wrap_triton(squared_relu_kernel)[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](
        x, out, n, BLOCK=1024
    )
    return out


@triton.jit
def soft_cap_kernel(x_ptr, out_ptr, n, cap, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n).to(tl.float32)
    tanh = 2 * tl.sigmoid(2 * x / cap) - 1
    tl.store(
        out_ptr + offsets, (cap * tanh).to(x_ptr.dtype.element_ty), mask=offsets < n
    )


@custom_op("example::soft_cap", mutates_args=())
def soft_cap(x: torch.Tensor, cap: float) -> torch.Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    soft_cap_kernel[(triton.cdiv(n, 1024),)](x, out, n, cap, BLOCK=1024)
    return out


@soft_cap.register_fake
def _(x: torch.Tensor, cap: float) -> torch.Tensor:
    return torch.empty_like(x)


# %%
# One call each
# -------------
# ``configs`` replace keywords of the launch in the body. ``cap`` is an argument of the
# op and a constant of each layer: a call with another value gets another kernel.

trt_plugins.custom_op(
    "example::squared_relu",
    impl=tta.triton(configs=[{"BLOCK": 512}, {"BLOCK": 2048, "num_warps": 8}]),
    supports_dynamic_shapes=True,
)
trt_plugins.custom_op(
    "example::soft_cap",
    impl=tta.triton(configs=[{"num_warps": 2}, {"num_warps": 4}]),
    supports_dynamic_shapes=True,
)


class Head(torch.nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(width, 4 * width)
        self.outer = torch.nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return soft_cap(self.outer(squared_relu(self.inner(x))), 30.0)


# %%
# An engine, or a dry run
# -----------------------
# Pass the values of the op's other arguments to the dry run as ``attributes``.


def rows_of(width: int) -> torch_tensorrt.Input:
    shapes = {"min_shape": (1, width), "opt_shape": (64, width)}
    return torch_tensorrt.Input(**shapes, max_shape=(2048, width), dtype=torch.float16)


def squared(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) ** 2


def capped(x: torch.Tensor, cap: float) -> torch.Tensor:
    return (cap * torch.tanh(x.float() / cap)).to(x.dtype)


if __name__ == "__main__":
    head = Head(256, 1000).half().eval()
    show(
        head,
        lambda x: capped(head.outer(squared(head.inner(x))), 30.0),
        [rows_of(256)],
        lambda target: tta.dry_run(
            "example::squared_relu", [rows_of(1024)], target, reference=squared
        ),
        lambda target: tta.dry_run(
            "example::soft_cap",
            [rows_of(1000)],
            target,
            attributes={"cap": 30.0},
            reference=capped,
        ),
    )
