# SPDX-License-Identifier: BSD-3-Clause

"""End an example: build an engine if possible, otherwise make a dry run."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer

try:
    from _torch_tensorrt_annotation import quiet
except ImportError:  # in Torch-TensorRT's own tree
    quiet = contextlib.nullcontext()
with quiet:  # the imports' own warnings would come before everything else
    import tensorrt as trt

    import torch_tensorrt
    from torch_tensorrt.annotation import DryRunReport, ProgramReport

Model = Callable[..., Any]


def show(
    model: torch.nn.Module,
    reference: Model,
    inputs: Sequence[torch_tensorrt.Input],
    *dry_runs: Callable[[str | None], DryRunReport],
    summary: Callable[..., str] | None = None,
) -> None:
    """Compile ``model`` and compare it with ``reference``, which is plain PyTorch.

    If no engine can be built, show each of ``dry_runs`` for the GPU of this machine, or
    sm_90, and what was compared. On a GPU a dry run executes its tactics. ``summary``
    makes of the reports what the example shows.
    """
    has_gpu = torch.cuda.is_available()
    standard = trt.EngineCapability.STANDARD
    has_builder = trt.get_builder_plugin_registry(standard) is not None
    if has_gpu:
        model.cuda()
    if has_builder and has_gpu:
        print("TensorRT and a GPU are here: building an engine with the kernels in it.")
        engine = torch_tensorrt.compile(
            model, ir="dynamo", inputs=list(inputs), min_block_size=1
        )
        compare("TensorRT", engine, reference, inputs)
        return
    needs = {"TensorRT's builder": has_builder, "a GPU": has_gpu}
    missing = " and ".join(name for name, is_here in needs.items() if not is_here)
    print(f"No engine can be built here without {missing}: a dry run instead.")
    known = has_gpu or "TTA_TARGET" in os.environ
    reports = []
    for dry_run in dry_runs:
        report = dry_run(None if known else "sm_90")
        report.show()
        print(compared(report))
        if not report.ok:
            raise SystemExit("A tactic failed, or gives wrong values.")
        reports.append(report)
    if summary is not None:
        print(textwrap.fill(summary(*reports), 80))
    if has_gpu:
        compare("eager", model, reference, inputs)


def loads(code: str) -> str:
    """What a thread loads from global memory, by the PTX: "3 loads of 16 bytes"."""
    sizes: Counter[int] = Counter()
    for vector, bits in re.findall(r"\bld\.global\S*?(?:\.v(\d))?\.b(\d+)\b", code):
        sizes[int(vector or 1) * int(bits) // 8] += 1
    return ", ".join(
        f"{n} load{'s' * (n > 1)} of {size} bytes" for size, n in sizes.most_common()
    )


def compared(report: DryRunReport) -> str:
    """What the dry run compared with the reference, in a sentence."""
    shapes = [shape for tactic in report.tactics for shape in tactic.shapes]
    if isinstance(report, ProgramReport):
        shapes = list(report.runs)
    errors = [shape.max_error for shape in shapes if shape.max_error is not None]
    if not errors:
        return f"{report.op}: no values were compared; that needs a GPU for its target."
    where = ", ".join(dict.fromkeys(s.name for s in shapes if s.ok is not None))
    return (
        f"{report.op}: every element was compared with PyTorch's\n"
        f"at {where}; the largest error is {max(errors):.1e}."
    )


@torch.inference_mode()
def compare(
    name: str, model: Model, reference: Model, inputs: Sequence[torch_tensorrt.Input]
) -> None:
    """Compare and time both at the profile's min, opt and max."""
    for which in ("min_shape", "opt_shape", "max_shape"):
        x = [
            torch.randn(
                i.shape[which] if isinstance(i.shape, dict) else i.shape, device="cuda"
            ).to(i.dtype.to(torch.dtype))
            for i in inputs
        ]
        torch.testing.assert_close(model(*x), reference(*x), rtol=2e-2, atol=2e-2)
        theirs, ours = (
            Timer("f(*x)", globals={"f": f, "x": x}).blocked_autorange().median
            for f in (reference, model)
        )
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in x)
        print(f"{shapes}: PyTorch {theirs * 1e6:.1f} us, {name} {ours * 1e6:.1f} us")
