# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_triton:

A Triton kernel inside a TensorRT engine
========================================

A gated feed-forward block computes ``down(silu(gate(x)) * up(x))``. As one kernel, the
SwiGLU in the middle takes one pass over memory. Here that kernel is written in Triton,
and one call puts it into a TensorRT engine. The kernel is compiled ahead of time,
TensorRT times each of its configs as a tactic, and the engine runs without Python.

This example runs anywhere. With a GPU and TensorRT it builds the engine, compares it
with PyTorch and times both. Elsewhere it shows what TensorRT would embed, and compares
the kernel's values with PyTorch's.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# Nothing here depends on TensorRT. One matrix product computes both ``gate`` and
# ``up``, as the two halves of its output.

import torch
import triton
import triton.language as tl
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@triton.jit
def swiglu_kernel(gate_up_ptr, out_ptr, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < hidden
    gate_ptr = gate_up_ptr + row * 2 * hidden + columns
    gate = tl.load(gate_ptr, mask=mask).to(tl.float32)
    up = tl.load(gate_ptr + hidden, mask=mask).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    out_ptr += row * hidden + columns
    tl.store(out_ptr, result.to(out_ptr.dtype.element_ty), mask=mask)


def launch_swiglu(gate_up, out, BLOCK=1024):
    hidden = out.shape[-1]
    rows = out.numel() // hidden
    swiglu_kernel[(rows, triton.cdiv(hidden, BLOCK))](gate_up, out, hidden, BLOCK=BLOCK)


def swiglu_meta(gate_up):
    return gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


# %%
# One call
# --------
# Each config is a tactic. ``num_warps`` goes to Triton, ``BLOCK`` to the launch
# function. The call also defines the op ``torch.ops.example.swiglu``, which did not
# exist.

trt_plugins.custom_op(
    "example::swiglu",
    impl=tta.custom_plugin(
        tta.triton(
            launch_swiglu,
            configs=[
                {"BLOCK": 512, "num_warps": 2},
                {"BLOCK": 1024, "num_warps": 4},
                {"BLOCK": 2048, "num_warps": 4},
                {"BLOCK": 4096, "num_warps": 8},
            ],
        ),
        meta_impl=swiglu_meta,
    ),
    supports_dynamic_shapes=True,
)


class GatedFFN(torch.nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = torch.nn.Linear(width, 2 * hidden, bias=False)
        self.down = torch.nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.ops.example.swiglu(self.gate_up(x)))


WIDTH, HIDDEN = 1024, 2816
ROWS = {"min": 1, "opt": 512, "max": 4096}


# %%
# An engine, or a dry run
# -----------------------
# With TensorRT and a GPU, ``show`` compiles the model and compares it with PyTorch.
# Elsewhere it makes the calls of TensorRT's builder on the real plugin, and shows each
# tactic that TensorRT would embed. The GPU to compile for need not be present: Triton's
# interpreter then computes the values that are compared with PyTorch's.


def profile(width: int) -> torch_tensorrt.Input:
    shapes = {f"{which}_shape": (rows, width) for which, rows in ROWS.items()}
    return torch_tensorrt.Input(**shapes, dtype=torch.float16)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.float().chunk(2, -1)
    return (torch.nn.functional.silu(gate) * up).to(gate_up.dtype)


def main() -> None:
    model = GatedFFN(WIDTH, HIDDEN).half().eval()
    show(
        model,
        lambda x: model.down(swiglu(model.gate_up(x))),
        [profile(WIDTH)],
        lambda target: tta.dry_run(
            "example::swiglu", [profile(2 * HIDDEN)], target, reference=swiglu
        ),
    )


if __name__ == "__main__":
    main()
