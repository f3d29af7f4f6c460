"""CuTe DSL kernels on a GPU: compiled beforehand, launched as an engine would.

    python benchmarks/cutedsl.py compile DIR [--target sm_90,ptx_isa=8.8]
    python benchmarks/cutedsl.py run DIR [--json FILE]

The first needs CuTe DSL and no GPU; the second a GPU and no CuTe DSL, which may be on
another machine. Every tactic of the tests' kernels is checked against torch at each
shape of its profile; some are timed against a device copy of as many bytes, the matrix
product against cuBLAS.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))

import torch_tensorrt  # noqa: E402
import torch_tensorrt.annotation as tta  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["compile", "run"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--target", default="sm_90,ptx_isa=8.8")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.step == "compile":
        options.directory.mkdir(parents=True, exist_ok=True)
        compile_all(options.directory, options.target)
    else:
        results = run_all(options.directory)
        print(json.dumps(results, indent=2))
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")


def compile_all(directory: Path, target: str) -> None:
    """One report for each kernel and kind of shape, as JSON."""
    from cutedsl_kernels import CUTEDSL_CASES, Gemm, launch_rms_norm, launch_wide_add

    import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
    from torch_tensorrt.annotation._builder import corner

    def report(name: str, key: str, plugin: Any, inputs: list[Any]) -> None:
        trt_plugins.custom_op(
            f"cute::{name}", impl=plugin, supports_dynamic_shapes=True
        )
        made = tta.dry_run(f"cute::{name}", inputs, target, execute=False, strict=True)
        (directory / f"{key}.json").write_text(made.to_json())
        print(made)

    for case in CUTEDSL_CASES:
        for kind, tensors in (("static", case.static), ("dynamic", case.dynamic)):
            inputs = [
                torch_tensorrt.Input(
                    **{f"{w}_shape": corner([t], w)[0] for w in ("min", "opt", "max")},
                    dtype=t.dtype,
                )
                for t in tensors
            ]
            report(case.name, f"{case.name}.{kind}", case.plugin, inputs)

    def timed(name: str, spec: Any, meta: Callable[..., Any], *shapes: Any) -> None:
        plugin = tta.custom_plugin(spec, meta_impl=meta)
        inputs = [torch.empty(s, dtype=torch.float16, device="meta") for s in shapes]
        report(f"{name}_timed", f"{name}.timed", plugin, inputs)

    threads = [{"THREADS": n} for n in (128, 256, 512)]
    blocks = [{"BLOCK": n} for n in (128, 256, 512, 1024)]
    timed(
        "cute_wide_add",
        tta.cutedsl(launch_wide_add, blocks),
        lambda x, y: torch.empty_like(x),
        *[(16384, 4096)] * 2,
    )
    timed(
        "cute_rms_norm",
        tta.cutedsl(launch_rms_norm, threads),
        lambda x, w: torch.empty_like(x),
        (16384, 4096),
        (4096,),
    )
    timed(
        "cute_matmul",
        [tta.cutedsl(Gemm()), tta.cutedsl(Gemm((128, 128, 32)))],
        lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        *[(4096, 4096)] * 2,
    )


def run_all(directory: Path) -> list[dict[str, Any]]:
    """Each report's tactics, checked and timed."""
    from cutedsl_references import REFERENCES

    results = []
    for path in sorted(directory.glob("*.json")):
        name, kind = path.stem.split(".")
        reference = REFERENCES[name]
        report = tta.DryRunReport.from_json(path.read_text())
        report = tta.execute(report, reference)
        print(report, flush=True)
        result: dict[str, Any] = {
            "kernel": name,
            "shapes": kind,
            "ok": report.ok,
            "times_us": {
                f"{t.tactic} {t.config}": [shape.time_us for shape in t.shapes]
                for t in report.tactics
            },
            "max_error": max(s.max_error for t in report.tactics for s in t.shapes),
        }
        if kind == "timed":
            result |= peers(name, report)
        results.append(result)
    return results


def peers(name: str, report: Any) -> dict[str, Any]:
    """The best tactic beside a copy of as many bytes, or cuBLAS."""
    from triton.testing import do_bench

    (shape,) = report.best.shapes
    tensors = [
        torch.randn(s, device="cuda").half() for s in (*shape.dims, *shape.outputs)
    ]
    moved = sum(t.numel() * t.element_size() for t in tensors)
    time = shape.time_us
    if name == "cute_matmul":
        a, b, _ = tensors
        peer = 1000 * do_bench(lambda: a @ b.t(), return_mode="median")
        flops = 2 * a.shape[0] * a.shape[1] * b.shape[0]
        return {
            "best_us": time,
            "cublas_us": peer,
            "of_cublas": peer / time,
            "tflops": flops / time / 1e6,
        }
    source = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    peer = 1000 * do_bench(lambda: target.copy_(source), return_mode="median")
    return {
        "best_us": time,
        "copy_us": peer,
        "of_copy": peer / time,
        "tb_per_s": moved / time / 1e6,
    }


if __name__ == "__main__":
    main()
