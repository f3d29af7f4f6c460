# SPDX-License-Identifier: BSD-3-Clause

"""End an example: build an engine if possible, otherwise make a dry run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorrt as trt
import torch
from torch.utils.benchmark import Timer

import torch_tensorrt
from torch_tensorrt.annotation import DryRunReport

Model = Callable[..., Any]


def show(
    model: torch.nn.Module,
    reference: Model,
    inputs: Sequence[torch_tensorrt.Input],
    *dry_runs: Callable[[str | None], DryRunReport],
    targets: Sequence[str] = (),
) -> None:
    """Compile ``model`` and compare it with ``reference``, which is plain PyTorch.

    If no engine can be built, print each of ``dry_runs`` for each of ``targets`` (by
    default the GPU of this machine, or sm_90). On a GPU a dry run executes its tactics.
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
    print(f"No engine can be built here, for want of {missing}: a dry run instead.")
    known = has_gpu or "TTA_TARGET" in os.environ
    for target in targets or [None if known else "sm_90"]:
        for dry_run in dry_runs:
            report = dry_run(target)
            print(report)
            if not report.ok:
                raise SystemExit("A tactic failed, or gives wrong values.")
    if has_gpu:
        compare("eager", model, reference, inputs)


@torch.inference_mode()
def compare(
    name: str, model: Model, reference: Model, inputs: Sequence[torch_tensorrt.Input]
) -> None:
    """Compare and time both at the profile's min, opt and max."""
    for which in ("min_shape", "opt_shape", "max_shape"):
        x = [
            torch.randn(
                i.shape[which] if isinstance(i.shape, dict) else i.shape,
                dtype=i.dtype.to(torch.dtype),
                device="cuda",
            )
            for i in inputs
        ]
        torch.testing.assert_close(model(*x), reference(*x), rtol=2e-2, atol=2e-2)
        theirs, ours = (
            Timer("f(*x)", globals={"f": f, "x": x}).blocked_autorange().median
            for f in (reference, model)
        )
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in x)
        print(f"{shapes}: PyTorch {theirs * 1e6:.1f} us, {name} {ours * 1e6:.1f} us")
