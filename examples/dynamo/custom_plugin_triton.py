"""
.. _custom_plugin_triton:

A Triton kernel inside a TensorRT engine
========================================

A gated feed-forward block computes ``down(silu(gate(x)) * up(x))``. The middle,
SwiGLU, is one pass over memory when it is one kernel. Here that kernel is written in
Triton, and one call puts it into a TensorRT engine: compiled ahead of time, each of its
configs a tactic that TensorRT times, and no Python when the engine runs.

Run it anywhere. With a GPU and TensorRT it builds the engine, compares it with PyTorch
and times both. Without, it shows what TensorRT would embed.
"""

# %%
# The kernel, and the function that launches it
# ---------------------------------------------
# Nothing here knows of TensorRT. ``gate`` and ``up`` come as the two halves of one
# matrix product, which is also one product fewer.

import tensorrt as trt
import torch
import triton
import triton.language as tl

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
# ``configs`` are the tactics. ``num_warps`` is Triton's, ``BLOCK`` the launch
# function's. The op ``torch.ops.example.swiglu`` did not exist, so it is defined, too.

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
# With a GPU and TensorRT: an engine
# ----------------------------------


def build_and_compare() -> None:
    model = GatedFFN(WIDTH, HIDDEN).half().eval().cuda()
    profile = {f"{which}_shape": (rows, WIDTH) for which, rows in ROWS.items()}
    inputs = [torch_tensorrt.Input(**profile, dtype=torch.float16)]
    with torch.inference_mode():
        engine = torch_tensorrt.compile(
            model, ir="dynamo", inputs=inputs, min_block_size=1
        )
        for rows in (*ROWS.values(), 77):
            x = torch.randn(rows, WIDTH, device="cuda", dtype=torch.float16)
            torch.testing.assert_close(engine(x), model(x), rtol=1e-2, atol=1e-2)
            eager, embedded = (
                triton.testing.do_bench(lambda f=f, x=x: f(x), return_mode="median")
                for f in (model, engine)
            )
            print(
                f"{rows:5d} rows: PyTorch {eager * 1e3:7.1f} us, "
                f"TensorRT {embedded * 1e3:7.1f} us"
            )


# %%
# Without: a dry run
# ------------------
# The calls of TensorRT's builder are made on the real plugin. What it would embed for
# each tactic, and launch for each shape, is reported; kernels are compiled for the GPUs
# named, which need not be here.


def dry_run(targets: list[str]) -> None:
    profile = {f"{which}_shape": (rows, 2 * HIDDEN) for which, rows in ROWS.items()}
    gate_up = torch_tensorrt.Input(**profile, dtype=torch.float16)
    for target in targets:
        print(tta.dry_run("example::swiglu", [gate_up], target=target))


# %%


def main() -> None:
    standard = trt.EngineCapability.STANDARD
    has_builder = trt.get_builder_plugin_registry(standard) is not None
    if has_builder and torch.cuda.is_available():
        print("TensorRT and a GPU are here: building an engine with the kernel in it.")
        build_and_compare()
    else:
        needs = {"TensorRT's builder": has_builder, "a GPU": torch.cuda.is_available()}
        missing = " and ".join(name for name, is_here in needs.items() if not is_here)
        print(f"No engine can be built here, for want of {missing}: a dry run instead.")
        dry_run(["sm_80", "sm_90", "sm_100"])


if __name__ == "__main__":
    main()
