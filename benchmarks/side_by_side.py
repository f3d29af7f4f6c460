"""One op, and kernels for it in Triton, cuTile and CuTe DSL: which is the fastest.

    python benchmarks/side_by_side.py compile FILE [--target sm_90,ptx_isa=9.0]
    python benchmarks/side_by_side.py run FILE [--json FILE]

The first step needs the three toolchains and no GPU; the second a GPU and none of them,
which may be on another machine. RMSNorm of 16384 rows of 4096, fp16.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))

from elsewhere import compile_op, copy_us, environment, run_report, two_steps, write  # noqa: E402

ROWS, COLUMNS = 16384, 4096


def compile_all(path: Path, target: str) -> None:
    import cutedsl_kernels
    import cutile_kernels
    import kernels

    import torch_tensorrt.annotation as tta

    plugin = tta.custom_plugin(
        [
            tta.triton(kernels.launch_rms_norm, [{"num_warps": n} for n in (2, 4, 8)]),
            tta.cutile(
                cutile_kernels.launch_rms_norm, [{"TILE": 1024}, {"TILE": 4096}]
            ),
            tta.cutedsl(
                cutedsl_kernels.launch_rms_norm, [{"THREADS": n} for n in (128, 256)]
            ),
        ],
        meta_impl=lambda x, weight: torch.empty_like(x),
    )
    shapes = [(ROWS, COLUMNS), (COLUMNS,)]
    tensors = [torch.empty(s, dtype=torch.float16, device="meta") for s in shapes]
    compile_op(path, plugin, tensors, target)


def run_all(path: Path, destination: Path | None) -> None:
    from cutile_references import rms_norm

    report = run_report(path, rms_norm)
    print(report)
    moved = 2 * (2 * ROWS * COLUMNS + COLUMNS)
    peer = copy_us(moved)
    tactics = [
        {
            "tactic": t.tactic,
            "backend": t.backend,
            "config": t.config,
            "facts": t.facts,
            "us": t.shapes[0].time_us,
            "tb_per_s": moved / t.shapes[0].time_us / 1e6,
            "of_copy": peer / t.shapes[0].time_us,
            "best": t == report.best,
        }
        for t in report.tactics
        if t.error is None
    ]
    print(json.dumps(tactics, indent=2))
    write(
        destination,
        {"environment": environment(), "copy_us": peer, "tactics": tactics},
    )


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=9.0", compile_all, run_all)
