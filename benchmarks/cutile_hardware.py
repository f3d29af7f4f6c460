# SPDX-License-Identifier: BSD-3-Clause

"""cuTile kernels with TMA and clusters on a GPU, beside their own launches.

    python benchmarks/cutile_hardware.py compile DIR [--target sm_90,ptx_isa=9.0]
    python benchmarks/cutile_hardware.py run DIR [--json FILE]

The first step needs cuTile and no GPU; the second a GPU and no cuTile, which may be on
another machine. A kernel's own launch is that of the CUBIN which the PTX comes from, in
the way of ``ct.launch``: the driver makes its tensor maps. Both must give the same
bits. cuBLAS, or torch's attention, is timed in the same rounds.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import Contest, cache_of_its_own, compile_here, like_first, two_steps
from hardware import (
    OWN,
    Launch,
    interleaved,
    largest_error,
    result,
    same_bits,
)
from torch.nn.functional import scaled_dot_product_attention

from torch_tensorrt.annotation._dry_run.execute import load
from torch_tensorrt.annotation._dry_run.report import TacticReport

MATMUL: list[dict[str, Any]] = [
    {"tiles": (128, 128, 64)},
    {"tiles": (128, 256, 64), "num_worker_warps": 8},
    {"tiles": (256, 128, 64), "num_worker_warps": 8},
    {"tiles": (256, 128, 64), "num_ctas": 2},
    {"tiles": (256, 256, 64), "num_ctas": 2, "num_worker_warps": 8},
]
ATTENTION: list[dict[str, Any]] = [
    {"TM": 64, "TN": 64},
    {"TM": 128, "TN": 64, "num_worker_warps": 8},
    {"TM": 128, "TN": 128, "num_worker_warps": 8},
]
HEADS, ROWS, WIDTH = 16, 8192, 128
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "matmul_4096": [(4096, 4096)] * 2,
    "matmul_8192": [(8192, 8192)] * 2,
    "attention": [(1, HEADS, ROWS, WIDTH)] * 3,
}
OPERATIONS = {
    "matmul_4096": 2 * 4096**3,
    "matmul_8192": 2 * 8192**3,
    "attention": 4 * HEADS * ROWS**2 * WIDTH,
}
PEERS: dict[str, tuple[str, Any]] = {
    "matmul_4096": ("cuBLAS", torch.mm),
    "matmul_8192": ("cuBLAS", torch.mm),
    "attention": ("torch's attention", scaled_dot_product_attention),
}
TOLERANCE = 0.02
_KEPT = ".own.json"


# --- Compiled -------------------------------------------------------------------------


def like_query(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(q)


def compile_all(directory: Path, target: str) -> None:
    from compiled_elsewhere import SUFFIX
    from cutile_kernels import launch_attention, launch_matmul

    import torch_tensorrt.annotation as tta

    for name, shapes in SHAPES.items():
        launch, configs, meta = launch_matmul, MATMUL, like_first
        if name == "attention":
            launch, configs, meta = launch_attention, ATTENTION, like_query
        spec = tta.cutile(launch, configs, fact_sets="tma16")
        with keeping() as kept:
            compile_here(directory / f"{name}{SUFFIX}", spec, shapes, target, meta)
        (directory / f"{name}{_KEPT}").write_text(json.dumps(kept))


@contextmanager
def keeping() -> Iterator[list[dict[str, Any]]]:
    """Kernels are compiled in turn; what an own launch takes is kept of each."""
    from torch_tensorrt.annotation.backends.cutile import compiler, tileiras

    compile_cubin, hidden_maps = tileiras.compile_cubin, compiler.hidden_maps
    kept: list[dict[str, Any]] = []

    def compiled(launch: Any, *rest: Any) -> bytes:
        cubin = compile_cubin(launch, *rest)
        text = base64.b64encode(cubin).decode()
        grid = [int(blocks) for blocks in launch.grid]
        kept.append({"kernel": launch.name, "cubin": text, "grid": grid})
        return cubin

    def read(cubin: bytes, code: str, given: Any) -> Any:
        kept[-1]["slots"] = [(slot.kind.value, slot.index) for slot in given.slots]
        return hidden_maps(cubin, code, given)

    with ExitStack() as stack:
        stack.enter_context(cache_of_its_own())
        stack.enter_context(mock.patch.dict(os.environ, TTA_JOBS="1"))
        stack.enter_context(mock.patch.object(tileiras, "compile_cubin", compiled))
        stack.enter_context(mock.patch.object(compiler, "hidden_maps", read))
        yield kept


# --- Run ------------------------------------------------------------------------------


def run_all(directory: Path) -> Iterator[Contest]:
    from compiled_elsewhere import SUFFIX, read

    for name, shapes in SHAPES.items():
        kept = json.loads((directory / f"{name}{_KEPT}").read_text())
        inputs = [torch.randn(shape, device="cuda").half() for shape in shapes]
        peer, function = PEERS[name]
        expected, out = function(*inputs), torch.empty_like(inputs[0])
        launches: dict[str, Launch] = {peer: lambda f=function, i=inputs: f(*i)}
        for tactic in read(directory / f"{name}{SUFFIX}").tactics:
            label = ", ".join(f"{k}={v}" for k, v in tactic.config.items())
            if tactic.error is not None:
                raise RuntimeError(f"{name}, {label}: {tactic.error}")
            ours = plain_launch(tactic, inputs, out)
            extras = tactic.shapes[0].extras
            own = own_launch(kept[tactic.tactic - 1], inputs, extras, out)
            found, owns = result(ours, out), result(own, out)
            if (error := largest_error(found, expected)) > TOLERANCE:
                raise RuntimeError(f"{name}, {label}: {error} from the reference")
            if not same_bits(found, owns):
                raise RuntimeError(f"{name}, {label}: not the bits of {OWN}")
            launches |= {label: ours, f"{label}, {OWN}": own}
        times = interleaved(launches)
        ours_us = {n: us for n, us in times.items() if f"{n}, {OWN}" in times}
        best = min(ours_us, key=ours_us.__getitem__)
        peers = {OWN: times[f"{best}, {OWN}"], peer: times[peer]}
        size = " x ".join(map(str, shapes[0]))
        title = f"{name.partition('_')[0]}, fp16, {size}"
        yield Contest(title, "TFLOP/s", OPERATIONS[name], ours_us, peers)


def plain_launch(
    tactic: TacticReport, inputs: Sequence[torch.Tensor], out: torch.Tensor
) -> Launch:
    """A launch with TensorRT's arguments."""
    (shape,) = tactic.shapes
    hidden = [
        torch.empty(extents, dtype=torch.int32, device="cuda")
        for extents in shape.hidden
    ]
    kernel, addresses = load(tactic), [tensor.data_ptr() for tensor in inputs]

    def launch() -> None:
        outputs = [tensor.data_ptr() for tensor in (out, *hidden)]
        kernel.launch(shape, addresses, outputs)

    return launch


def own_launch(
    kept: Mapping[str, Any],
    inputs: Sequence[torch.Tensor],
    extras: Sequence[int],
    out: torch.Tensor,
) -> Launch:
    """A launch of the CUBIN with the kernel's own parameters, a thread for a tile."""
    from cuda.bindings import driver

    def call(function: str, *arguments: Any) -> Any:
        status, *values = getattr(driver, function)(*arguments)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{function}: {status.name}")
        return values[0] if values else None

    torch.cuda.synchronize()  # makes torch's context current
    module = call("cuModuleLoadData", base64.b64decode(kept["cubin"]))
    kernel = call("cuModuleGetFunction", module, kept["kernel"].encode())
    tensors = {"input": [t.data_ptr() for t in inputs], "output": [out.data_ptr()]}
    passed = {**tensors, "extra": extras}
    values = tuple(passed[kind][index] for kind, index in kept["slots"])
    types = tuple(
        ctypes.c_int32 if kind == "extra" else ctypes.c_void_p
        for kind, _ in kept["slots"]
    )

    def launch() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        sizes = (*kept["grid"], 1, 1, 1, 0)
        call("cuLaunchKernel", kernel, *sizes, stream, (values, types), 0)

    return launch


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=9.0", compile_all, run_all)
