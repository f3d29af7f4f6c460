# SPDX-License-Identifier: BSD-3-Clause

"""One op, and kernels for it in Triton, cuTile and CuTe DSL: which is the fastest.

    python benchmarks/side_by_side.py compile DIR [--target sm_90,ptx_isa=9.0]
    python benchmarks/side_by_side.py run DIR [--json FILE]

The first step needs the three toolchains and no GPU; the second a GPU and none but
Triton, which may be on another machine. RMSNorm of 16384 rows of 4096, fp16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from common import Contest, compile_here, median_us, tactic_times, two_steps
from torch.nn import functional

ROWS, COLUMNS = 16384, 4096


def compile_all(directory: Path, target: str) -> None:
    import cutedsl_kernels
    import cutile_kernels
    import kernels
    from compiled_elsewhere import SUFFIX

    import torch_tensorrt.annotation as tta

    specs = [
        tta.triton(kernels.launch_rms_norm, [{"num_warps": n} for n in (2, 4, 8)]),
        tta.cutile(cutile_kernels.launch_rms_norm, [{"TILE": n} for n in (1024, 4096)]),
        tta.cutedsl(
            cutedsl_kernels.launch_rms_norm, [{"THREADS": n} for n in (128, 256)]
        ),
    ]
    shapes = ((ROWS, COLUMNS), (COLUMNS,))
    compile_here(directory / f"rms_norm{SUFFIX}", specs, shapes, target)


def run_all(directory: Path) -> Iterator[Contest]:
    import kernels
    from compiled_elsewhere import SUFFIX, run_report
    from cutile_references import rms_norm

    report = run_report(directory / f"rms_norm{SUFFIX}", rms_norm)
    x, weight = (torch.randn(s, device="cuda").half() for s in ((ROWS, COLUMNS), 4096))
    out = torch.empty_like(x)
    jit = min(
        median_us(lambda n=n: kernels.launch_rms_norm(x, weight, out, num_warps=n))
        for n in (2, 4, 8)
    )
    yield Contest.of(
        f"RMSNorm in three languages, fp16, {ROWS} x {COLUMNS}",
        (2 * (2 * ROWS * COLUMNS + COLUMNS), "TB/s"),
        tactic_times(report),
        lambda: functional.rms_norm(x, weight.shape, weight, 1e-6),
        {"Triton's JIT": jit},
    )


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=9.0", compile_all, run_all)
