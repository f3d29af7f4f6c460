"""Kernels compiled on one machine, checked and timed on another: what scripts share."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._builder import corner
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._trace import as_tensors
from torch_tensorrt.annotation.errors import AnnotationError


def two_steps(
    doc: str,
    target: str,
    compile_all: Callable[[Path, str], None],
    run_all: Callable[[Path, Path | None], None],
) -> None:
    """The command line of a script that compiles here and runs there.

    Args:
        doc: the script's docstring.
        target: what it compiles for, unless told otherwise.
        compile_all: writes reports to a path, for a target.
        run_all: runs them, and writes its figures to another path, if one is given.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("step", choices=["compile", "run"])
    parser.add_argument("path", type=Path, help="where the reports are")
    parser.add_argument("--target", default=target)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    if options.step == "compile":
        compile_all(options.path, options.target)
    else:
        run_all(options.path, options.json)


def compile_op(path: Path, plugin: Any, inputs: Sequence[Any], target: str) -> None:
    """The dry run of a plugin, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trt_plugins.custom_op(
        "elsewhere::op", impl=plugin, supports_dynamic_shapes=True, replace=True
    )
    report = tta.dry_run(
        "elsewhere::op", inputs, target, execute=False, ragged=True, strict=False
    )
    tta.unregister("elsewhere::op")
    path.write_text(report.to_json())
    left_out = [f"tactic {t.tactic}: {t.error}" for t in report.tactics if t.error]
    print(path.name, f"{len(report.tactics)} tactics", *left_out, flush=True)


def compile_cases(directory: Path, cases: Sequence[Any], target: str) -> None:
    """The tests' kernels, for static and for dynamic shapes."""
    for case in cases:
        for kind, tensors in (("static", case.static), ("dynamic", case.dynamic)):
            inputs = [
                torch_tensorrt.Input(
                    **{f"{w}_shape": corner([t], w)[0] for w in ("min", "opt", "max")},
                    dtype=t.dtype,
                )
                for t in tensors
            ]
            compile_op(
                directory / f"{case.name}.{kind}.json", case.plugin, inputs, target
            )


def run_report(path: Path, reference: Callable[..., Any]) -> Any:
    """Check and time a report, against ``reference`` rounded to the outputs' dtypes.

    Raises:
        AnnotationError: a tactic is wrong.
    """
    report = tta.DryRunReport.from_json(path.read_text())
    tactic = next(t for t in report.tactics if t.error is None)
    tokens = tactic.dtypes[len(tactic.shapes[0].dims) :]

    def rounded(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = as_tensors(reference(*tensors), "the reference")
        dtypes = (_dtypes.from_token(token).torch for token in tokens)
        return tuple(v.to(d) for v, d in zip(values, dtypes, strict=True))

    report = tta.execute(report, rounded)
    if not all(tactic.ok for tactic in report.tactics if tactic.shapes):
        raise AnnotationError(f"{path.name}: a tactic is wrong.\n{report}")
    return report


def run_cases(directory: Path, references: dict[str, Any]) -> list[dict[str, Any]]:
    """Every tactic of every kernel, at every shape; what ran, and the largest error."""
    results = []
    for path in sorted(directory.glob("*.static.json")) + sorted(
        directory.glob("*.dynamic.json")
    ):
        name, kind, _ = path.name.split(".")
        report = run_report(path, references[name])
        shapes = [shape for tactic in report.tactics for shape in tactic.shapes]
        results.append(
            {
                "kernel": name,
                "shapes": kind,
                "tactics": sum(t.error is None for t in report.tactics),
                "launches": len(shapes),
                "ok": all(shape.ok for shape in shapes),
                "max_error": max(shape.max_error for shape in shapes),
            }
        )
        print(results[-1], flush=True)
    return results


def median_us(function: Callable[[], object]) -> float:
    """Median microseconds of ``triton.testing.do_bench``."""
    from triton.testing import do_bench

    return 1e3 * float(do_bench(function, rep=200, return_mode="median"))


def copy_us(moved: int) -> float:
    """Microseconds of a device copy that reads and writes as many bytes."""
    source = torch.empty(moved // 2, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return median_us(lambda: target.copy_(source))


def environment() -> dict[str, str]:
    """Date, versions, GPU and driver."""
    import triton

    found = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    if torch.cuda.is_available():
        query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
        command = ["nvidia-smi", *query]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        name, driver = run.stdout.splitlines()[0].split(", ")
        found |= {"gpu": name, "driver": driver, "target": str(current_target())}
    return found


def write(path: Path | None, figures: dict[str, Any]) -> None:
    print(figures["environment"])
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
