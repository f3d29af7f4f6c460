"""cuTile kernels on a GPU: what facts are worth, and that every tactic is right.

    python benchmarks/cutile_facts.py compile DIR [--target sm_90,ptx_isa=9.0]
    python benchmarks/cutile_facts.py run DIR [--json FILE]

The first step needs cuTile and no GPU; the second a GPU and no cuTile, which may be on
another machine. Every tactic of the tests' kernels is checked against torch at each
shape of its profile. Two kernels are timed at full size: with each set of facts (`tma`
goes out as a CUBIN, the others as PTX), with none told, and beside cuBLAS or a device
copy of as many bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

TILES = ((128, 128, 64), (128, 128, 32), (128, 64, 32))
N = 4096
ROWS, COLUMNS = 16384, 4096


def compile_all(directory: Path, target: str) -> None:
    from cutile_kernels import CUTILE_CASES, launch_matmul, launch_rms_norm

    import torch_tensorrt.annotation as tta

    compile_cases(directory, CUTILE_CASES, target)
    configs = [{"tiles": tiles} for tiles in TILES]
    matmul = tta.custom_plugin(
        tta.cutile(launch_matmul, configs),
        meta_impl=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
    )
    rms_norm = tta.custom_plugin(
        tta.cutile(launch_rms_norm, [{"TILE": tile} for tile in (1024, 2048, 4096)]),
        meta_impl=lambda x, weight: torch.empty_like(x),
    )
    timed: list[tuple[str, Any, list[tuple[int, ...]]]] = [
        ("matmul", matmul, [(N, N), (N, N)]),
        ("rms_norm", rms_norm, [(ROWS, COLUMNS), (COLUMNS,)]),
    ]
    for name, plugin, shapes in timed:
        tensors = [torch.empty(s, dtype=torch.float16, device="meta") for s in shapes]
        with_cubin = f"{target},code=cubin"
        compile_op(directory / f"{name}.timed.json", plugin, tensors, with_cubin)
        with without_facts():
            compile_op(directory / f"{name}.plain.json", plugin, tensors, target)


@contextmanager
def without_facts() -> Iterator[None]:
    """Tell the compiler nothing of the arrays, not even the last stride."""
    from torch_tensorrt.annotation.backends import _cutile_signature as signature

    original, sets = signature._Builder._hints, dict(signature.FACT_SETS)

    def none_told(self: Any, what: str, known: Any, unit: int, fixed: Any) -> Any:
        del self, what, unit, fixed
        return signature._Hints((None,) * len(known), (1,) * len(known))

    signature._Builder._hints = none_told  # type: ignore[method-assign]
    for name in sets:
        signature.FACT_SETS[name] = sets["strides"]
    try:
        yield
    finally:
        signature._Builder._hints = original  # type: ignore[method-assign]
        signature.FACT_SETS.update(sets)


def run_all(directory: Path, json: Path | None) -> None:
    from cutile_references import CUTILE_REFERENCES, rms_norm

    figures: dict[str, Any] = {"environment": environment()}
    figures["kernels"] = run_cases(directory, CUTILE_REFERENCES)
    figures["matmul"] = contest(directory, "matmul", lambda a, b: a @ b)
    figures["rms_norm"] = contest(directory, "rms_norm", rms_norm)
    flops, moved = 2 * N**3, 2 * (2 * ROWS * COLUMNS + COLUMNS)
    a, b = (torch.randn(N, N, device="cuda").half() for _ in range(2))
    figures["matmul"]["cuBLAS"] = median_us(lambda: a @ b)
    figures["rms_norm"]["copy"] = copy_us(moved)
    console = Console(width=110)
    console.print(table("matmul fp16 4096^3", figures["matmul"], "TFLOP/s", flops))
    console.print(
        table("RMSNorm fp16 16384 x 4096", figures["rms_norm"], "TB/s", moved)
    )
    write(json, figures)


def contest(directory: Path, name: str, reference: Any) -> dict[str, float]:
    """Microseconds of each tactic, and of the best one that was told nothing."""
    times = {
        f"{tactic.config} {tactic.facts.partition(':')[0]}": tactic.shapes[0].time_us
        for tactic in run_report(directory / f"{name}.timed.json", reference).tactics
        if tactic.error is None
    }
    plain = run_report(directory / f"{name}.plain.json", reference)
    times["no facts, best config"] = min(
        t.shapes[0].time_us for t in plain.tactics if t.error is None
    )
    return times


def table(title: str, times: dict[str, float], unit: str, amount: int) -> Table:
    made = Table(title=title, title_justify="left")
    for heading in ("kernel", "us", unit, "of no facts"):
        made.add_column(heading, justify="left" if heading == "kernel" else "right")
    plain = times["no facts, best config"]
    for name, time in times.items():
        made.add_row(
            name, f"{time:.1f}", f"{amount / time / 1e6:.2f}", f"{plain / time:.2f} x"
        )
    return made


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=9.0", compile_all, run_all)
