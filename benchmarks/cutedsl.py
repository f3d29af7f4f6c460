"""CuTe DSL kernels on a GPU: that every tactic is right, and how fast some are.

    python benchmarks/cutedsl.py compile DIR [--target sm_90,ptx_isa=8.8]
    python benchmarks/cutedsl.py run DIR [--json FILE]

The first step needs CuTe DSL and no GPU; the second a GPU and no CuTe DSL, which may be
on another machine. Every tactic of the tests' kernels is checked against torch at each
shape of its profile. Three are timed at full size, beside a device copy of as many
bytes, or cuBLAS.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))

from elsewhere import (  # noqa: E402
    compile_cases,
    compile_op,
    copy_us,
    environment,
    median_us,
    run_cases,
    run_report,
    two_steps,
    write,
)

N = 4096
ROWS, COLUMNS = 16384, 4096


def compile_all(directory: Path, target: str) -> None:
    from cutedsl_kernels import CUTEDSL_CASES, Gemm, launch_rms_norm, launch_wide_add

    import torch_tensorrt.annotation as tta

    compile_cases(directory, CUTEDSL_CASES, target)
    add = tta.cutedsl(launch_wide_add, [{"BLOCK": n} for n in (128, 256, 512)])
    rms_norm = tta.cutedsl(launch_rms_norm, [{"THREADS": n} for n in (128, 256, 512)])
    gemm = [tta.cutedsl(Gemm()), tta.cutedsl(Gemm((128, 128, 32)))]
    big, weight, square = (ROWS, COLUMNS), (COLUMNS,), (N, N)
    timed: list[tuple[str, Any, Any, list[tuple[int, ...]]]] = [
        ("add", add, lambda x, y: torch.empty_like(x), [big, big]),
        ("rms_norm", rms_norm, lambda x, w: torch.empty_like(x), [big, weight]),
        ("matmul", gemm, lambda a, b: a.new_empty(N, N), [square, square]),
    ]
    for name, spec, meta, shapes in timed:
        tensors = [torch.empty(s, dtype=torch.float16, device="meta") for s in shapes]
        plugin = tta.custom_plugin(spec, meta_impl=meta)
        compile_op(directory / f"{name}.timed.json", plugin, tensors, target)


def run_all(directory: Path, json: Path | None) -> None:
    from cutedsl_references import REFERENCES

    figures: dict[str, Any] = {"environment": environment()}
    figures["kernels"] = run_cases(directory, REFERENCES)
    a, b = (torch.randn(N, N, device="cuda").half() for _ in range(2))
    matrix, row = 2 * ROWS * COLUMNS, 2 * COLUMNS
    amounts = {"add": 3 * matrix, "rms_norm": 2 * matrix + row, "matmul": 2 * N**3}
    for name, reference in (
        ("add", lambda x, y: x + y),
        ("rms_norm", REFERENCES["cute_rms_norm"]),
        ("matmul", lambda a, b: a @ b.t()),
    ):
        report = run_report(directory / f"{name}.timed.json", reference)
        times = {
            f"tactic {t.tactic} {t.config or ''}": t.shapes[0].time_us
            for t in report.tactics
            if t.error is None
        }
        is_matmul = name == "matmul"
        peer = median_us(lambda: a @ b.t()) if is_matmul else copy_us(amounts[name])
        times["cuBLAS" if is_matmul else "device copy"] = peer
        figures[name] = times
        unit = "TFLOP/s" if is_matmul else "TB/s"
        Console(width=100).print(table(name, times, unit, amounts[name], peer))
    write(json, figures)


def table(
    name: str, times: dict[str, float], unit: str, amount: int, peer: float
) -> Table:
    made = Table(title=f"CuTe DSL, {name}, fp16", title_justify="left")
    for heading in ("kernel", "us", unit, "of the last"):
        made.add_column(heading, justify="left" if heading == "kernel" else "right")
    for label, time in times.items():
        rate = f"{amount / time / 1e6:.2f}"
        made.add_row(label, f"{time:.1f}", rate, f"{peer / time:.3f} x")
    return made


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=8.8", compile_all, run_all)
