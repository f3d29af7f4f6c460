# SPDX-License-Identifier: BSD-3-Clause

"""What is emitted for a few kernels of each language, against files in ``golden/``.

The files hold what this package decides (parameters, facts, launches), and none of the
compilers' instructions. ``make golden`` writes them anew. It refuses if something
changed and ``CODE_GENERATION``, which is part of every cache key, was not raised.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._compile.job import CODE_GENERATION
from torch_tensorrt.annotation._dry_run import dry_run
from torch_tensorrt.annotation._tensors import Range, TensorInfo

FOLDER = Path(__file__).parent / "golden"
CASES = {  # the modules of kernels, and those that are looked at
    "triton": ("kernels", "CASES", ("add", "rms_norm", "transpose", "matmul")),
    "cutile": ("cutile_kernels", "CUTILE_CASES", ("rms_norm", "matmul", "scale")),
    "cutedsl": ("cutedsl_kernels", "CUTEDSL_CASES", ("cute_silu", "cute_rms_norm")),
    "cuda": ("cuda_kernels", "CUDA_CASES", ("cuda_rms_norm", "cuda_dequantize")),
}


def as_input(info: TensorInfo) -> Any:
    import torch_tensorrt

    corners = {f"{w}_shape": info.at(w) for w in ("min", "opt", "max")}
    if not any(isinstance(extent, Range) for extent in info.shape):
        return torch_tensorrt.Input(shape=info.at("opt"), dtype=info.dtype)
    return torch_tensorrt.Input(**corners, dtype=info.dtype)


def emitted(language: str) -> dict[str, Any]:
    """For each kernel and tactic, what goes to TensorRT beside the instructions."""
    module, table, names = CASES[language]
    known = getattr(importlib.import_module(module), table)
    cases = {case.name: case for case in known}
    found: dict[str, Any] = {}
    for name in names:
        case = cases[name]
        op = f"golden::{re.sub(r'[^a-zA-Z0-9]', '_', name)}"
        trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
        report = dry_run(op, list(map(as_input, case.dynamic)), "sm_90", execute=False)
        tta.unregister(op)
        for tactic in report.tactics:
            header = tactic.code[tactic.code.index(".entry") :].partition(")")[0]
            found[f"{name}, tactic {tactic.tactic}"] = {
                "config": str(tactic.config),
                "parameters": re.findall(r"\.param \.(\w+)", header),
                "facts": tactic.facts,
                "tensors": tactic.tensors,
                "block": tactic.shapes[0].block,
                "launches": {s.name: [s.grid, s.extras] for s in tactic.shapes[:3]},
            }
    assert found
    result: dict[str, Any] = json.loads(json.dumps(found))
    return result


def committed(language: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((FOLDER / f"{language}.json").read_text())
    return result


@pytest.mark.parametrize("language", CASES)
def test_what_is_emitted_is_what_was_committed(language: str) -> None:
    pytest.importorskip(CASES[language][0])
    assert emitted(language) == committed(language)["kernels"], (
        "what is emitted has changed: raise CODE_GENERATION in _compile/job.py, so "
        "that cached kernels are not used, and run `make golden`"
    )


@pytest.mark.parametrize("language", CASES)
def test_the_files_are_of_this_code_generation(language: str) -> None:
    assert committed(language)["code generation"] == CODE_GENERATION


def refresh() -> None:
    """Write the files anew."""
    FOLDER.mkdir(exist_ok=True)
    for language in CASES:
        path, kernels = FOLDER / f"{language}.json", emitted(language)
        if path.exists():
            before = committed(language)
            is_same = before["kernels"] == kernels
            if not is_same and before["code generation"] == CODE_GENERATION:
                raise SystemExit(
                    f"{language}: something changed. Raise CODE_GENERATION in "
                    "_compile/job.py first, so that cached kernels are not used."
                )
        content = {"code generation": CODE_GENERATION, "kernels": kernels}
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    refresh()
