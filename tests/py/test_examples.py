# SPDX-License-Identifier: BSD-3-Clause

"""Every example runs as it is, and its model is one engine up to the builder."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import RunPython
from up_to_the_builder import HAS_GPU, plugin_layers

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._plugin import registered

DIRECTORY = Path(__file__).resolve().parents[2] / "examples/dynamo"
# Those that compile many kernels, of many steps, in some 8 s.
SLOW = {"custom_plugin_attention", "custom_plugin_two_launches"}
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.slow] * (path.stem in SLOW), id=path.stem)
    for path in sorted(DIRECTORY.glob("custom_plugin_*.py"))
]
LIBRARIES = ("triton", "cuda.tile", "cutlass", "conch")


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_shows_what_an_engine_would_hold(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in LIBRARIES:
        if re.search(rf"^ *(import|from) {library}\b", path.read_text(), re.MULTILINE):
            pytest.importorskip(library, reason=f"the example uses {library}")
    monkeypatch.setattr(sys, "path", [str(DIRECTORY), *sys.path])
    import engine_or_dry_run

    show, shown = engine_or_dry_run.show, []

    def keep(
        model: Any, reference: Any, inputs: Any, *dry_runs: Any, **more: Any
    ) -> None:
        shown.append((model, inputs, dry_runs))
        show(model, reference, inputs, *dry_runs, **more)

    monkeypatch.setattr(engine_or_dry_run, "show", keep)
    runpy.run_path(str(path), run_name="__main__")
    output = capsys.readouterr().out
    if not HAS_GPU:
        monkeypatch.setenv("TTA_TARGET", "sm_90")
    layers = {
        op_of(layer.op)
        for model, inputs, _ in shown
        for layer in plugin_layers(model, inputs)
    }
    assert layers == set(map(op_of, registered))
    for op in layers if "a dry run instead" in output else ():
        report = re.search(rf"^{op}: (\d .*?) for sm_", output, re.MULTILINE)
        assert report and re.match(r"(\d) of \1 tactic|\d launch", report[1])
        assert re.search(rf"^{op}: (every element|no values) w", output, re.MULTILINE)
    checked: list[str] = []

    def check(op: str, inputs: Any, target: Any, reference: Any, **how: Any) -> None:
        report = tta.testing.check(op, inputs, reference, targets=[target], **how)
        left = {"schema", "fake kernel", "recording", "code"} - {*report.checked}
        # torch's own check of a schema has no FP8 on a CPU.
        assert not left or (left == {"schema"} and "Float8" in str(report.not_checked))
        checked.append(op)

    monkeypatch.setattr(tta, "dry_run", check)
    for dry_run in (dry_run for *_, dry_runs in shown for dry_run in dry_runs):
        dry_run(None if HAS_GPU else "sm_90")
    assert {*checked} == layers


def op_of(layer: str) -> str:
    """The op of a plugin layer, which may be one of its steps."""
    return re.sub(r"_step\d+$", "", layer)


def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads((DIRECTORY / "first_kernel.ipynb").read_text())
    module = ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        path = tmp_path / f"{number}.py"  # as Jupyter does, for who reads sources
        path.write_text("".join(cell["source"]))
        exec(compile(path.read_text(), str(path), "exec"), vars(module))
        shown = "".join("".join(o.get("text", "")) for o in cell["outputs"])
        assert capsys.readouterr().out.endswith(shown)
    assert module.report.ok


def test_the_demo_is_short_and_ends_in_what_was_compared(run_python: RunPython) -> None:
    demo = DIRECTORY / "custom_plugin_triton.py"
    done = run_python([demo], env={"TTA_JOBS": "2"})  # with 1 nothing is interpreted
    if "a dry run instead" not in done.stdout:
        pytest.skip("here the demo builds an engine")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("No engine can be built here without ")
    said = [line for line in done.stderr.splitlines() if "SyntaxWarning" in line]
    # Python 3.12 says them of TensorRT's bindings, where these are compiled at import.
    assert said or not done.stderr, "nothing but the demo's own output"
    assert max(map(len, lines[1:])) <= 80 and len(lines) < 35
    assert "4 of 4 tactics compile for sm_" in lines[1]
    assert "every element was compared with PyTorch's\nat " in done.stdout
    assert re.search(r"; the largest error is \d\.\de[+-]\d\d\.", done.stdout)
