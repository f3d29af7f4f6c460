# SPDX-License-Identifier: BSD-3-Clause

"""cuTile kernels on a GPU: what facts are worth.

    python benchmarks/cutile_facts.py compile DIR [--target sm_90,ptx_isa=9.0]
    python benchmarks/cutile_facts.py run DIR [--json FILE]

The first step needs cuTile and no GPU; the second a GPU and no cuTile, which may be on
another machine. Two kernels are checked against torch, and timed at full size: with
each set of facts, with none told, and beside torch (whose matmul is cuBLAS) and a
device copy of as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import (
    FACTLESS,
    Contest,
    cache_of_its_own,
    compile_here,
    tactic_times,
    two_steps,
)
from torch.nn import functional

TILES = ((128, 128, 64), (128, 128, 32), (128, 64, 32))
N = 4096
ROWS, COLUMNS = 16384, 4096
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "matmul": [(N, N), (N, N)],
    "rms_norm": [(ROWS, COLUMNS), (COLUMNS,)],
}
AMOUNTS = {
    "matmul": (2 * N**3, "TFLOP/s"),
    "rms_norm": (2 * (2 * ROWS * COLUMNS + COLUMNS), "TB/s"),
}
TORCH: dict[str, Any] = {
    "matmul": lambda a, b: a @ b,
    "rms_norm": lambda x, w: functional.rms_norm(x, w.shape, w, 1e-6),
}


def compile_all(directory: Path, target: str) -> None:
    from compiled_elsewhere import SUFFIX
    from cutile_kernels import launch_matmul, launch_rms_norm

    import torch_tensorrt.annotation as tta

    specs = {
        "matmul": tta.cutile(launch_matmul, [{"tiles": tiles} for tiles in TILES]),
        "rms_norm": tta.cutile(
            launch_rms_norm, [{"TILE": tile} for tile in (1024, 2048, 4096)]
        ),
    }
    for name, spec in specs.items():
        path, shapes = directory / f"{name}{SUFFIX}", SHAPES[name]
        compile_here(path, spec, shapes, target)
        with without_facts():
            plain = directory / f"{name}.plain{SUFFIX}"
            compile_here(plain, spec, shapes, target)


@contextmanager
def without_facts() -> Iterator[None]:
    """Tell the compiler nothing about the arrays, not even the last stride."""
    from torch_tensorrt.annotation.backends.cutile import FACT_SETS
    from torch_tensorrt.annotation.backends.cutile.signature import Signature

    original, sets = Signature._add_axes, dict(FACT_SETS)

    def none_told(self: Any, *args: Any) -> Any:
        return [(None, 1) for _ in original(self, *args)]

    Signature._add_axes = none_told  # type: ignore[method-assign]
    FACT_SETS.update(dict.fromkeys(sets, sets["strides"]))
    try:
        with cache_of_its_own():
            yield
    finally:
        Signature._add_axes = original  # type: ignore[method-assign]
        FACT_SETS.update(sets)


def run_all(directory: Path) -> Iterator[Contest]:
    from compiled_elsewhere import SUFFIX, run_report

    for name, function in TORCH.items():
        ours = run_report(directory / f"{name}{SUFFIX}", function)
        plain = run_report(directory / f"{name}.plain{SUFFIX}", function)
        tensors = [torch.randn(s, device="cuda").half() for s in SHAPES[name]]
        yield Contest.of(
            f"{name}, fp16, {' x '.join(map(str, SHAPES[name][0]))}",
            AMOUNTS[name],
            tactic_times(ours),
            lambda f=function, t=tensors: f(*t),
            {FACTLESS: min(tactic_times(plain).values())},
            "torch eager" if name != "matmul" else "cuBLAS",
        )


if __name__ == "__main__":
    two_steps(__doc__, "sm_90,ptx_isa=9.0", compile_all, run_all)
