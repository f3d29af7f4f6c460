# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL kernels on a GPU: how fast they are as an engine launches them.

    python benchmarks/cutedsl.py compile DIR [--target sm_90,ptx_isa=8.8]
    python benchmarks/cutedsl.py run DIR [--json FILE]

The first step needs CuTe DSL and no GPU; the second a GPU and no CuTe DSL, which may be
on another machine. Each tactic is checked against torch, and timed at full size, beside
torch (whose matmul is cuBLAS) and a device copy of as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import Contest, compile_here, tactic_times, two_steps
from torch.nn import functional

N = 4096
ROWS, COLUMNS = 16384, 4096
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "add": [(ROWS, COLUMNS)] * 2,
    "rms_norm": [(ROWS, COLUMNS), (COLUMNS,)],
    "matmul": [(N, N)] * 2,
}
MATRIX, ROW = 2 * ROWS * COLUMNS, 2 * COLUMNS  # bytes
AMOUNTS = {
    "add": (3 * MATRIX, "TB/s"),
    "rms_norm": (2 * MATRIX + ROW, "TB/s"),
    "matmul": (2 * N**3, "TFLOP/s"),
}
TORCH: dict[str, Any] = {
    "add": lambda x, y: x + y,
    "rms_norm": lambda x, w: functional.rms_norm(x, w.shape, w, 1e-6),
    "matmul": lambda a, b: a @ b.t(),
}


def compile_all(directory: Path, target: str) -> None:
    from compiled_elsewhere import SUFFIX
    from cutedsl_kernels import Gemm, launch_rms_norm, launch_wide_add

    import torch_tensorrt.annotation as tta

    specs: dict[str, Any] = {
        "add": tta.cutedsl(launch_wide_add, [{"BLOCK": n} for n in (128, 256, 512)]),
        "rms_norm": tta.cutedsl(
            launch_rms_norm, [{"THREADS": n} for n in (128, 256, 512)]
        ),
        "matmul": [tta.cutedsl(Gemm()), tta.cutedsl(Gemm((128, 128, 32)))],
    }
    for name, spec in specs.items():
        compile_here(directory / f"{name}{SUFFIX}", spec, SHAPES[name], target)


def run_all(directory: Path) -> Iterator[Contest]:
    from compiled_elsewhere import SUFFIX, run_report

    for name, function in TORCH.items():
        report = run_report(directory / f"{name}{SUFFIX}", function)
        tensors = [torch.randn(s, device="cuda").half() for s in SHAPES[name]]
        yield Contest.of(
            f"{name}, fp16, {' x '.join(map(str, SHAPES[name][0]))}",
            AMOUNTS[name],
            tactic_times(report),
            lambda f=function, t=tensors: f(*t),
            {},
            "torch eager" if name != "matmul" else "cuBLAS",
        )


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=8.8", compile_all, run_all)
