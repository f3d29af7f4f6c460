# SPDX-License-Identifier: BSD-3-Clause

"""Draw the dry run of the main example: ``python docsrc/dry_run_svg.py``."""

import io
import runpy
import sys
from pathlib import Path

import torch
from rich.console import Console

import torch_tensorrt
import torch_tensorrt.annotation as tta

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "_static/dry_run.svg"
DEMO = HERE.parent / "examples/dynamo/custom_plugin_triton.py"


def draw() -> str:
    sys.path.insert(0, str(DEMO.parent))  # where examples find what they share
    runpy.run_path(str(DEMO))  # registers example::swiglu
    gate_up = torch_tensorrt.Input(
        min_shape=(1, 5632),
        opt_shape=(512, 5632),
        max_shape=(4096, 5632),
        dtype=torch.half,
    )
    report = tta.dry_run("example::swiglu", [gate_up], "sm_90", execute=False)
    console = Console(record=True, file=io.StringIO(), width=80)
    console.print(report)
    call = 'print(tta.dry_run("example::swiglu", [gate_up], target="sm_90"))'
    return console.export_svg(title=call, unique_id="dry-run")


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(PICTURE)
