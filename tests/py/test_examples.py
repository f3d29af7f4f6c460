# SPDX-License-Identifier: BSD-3-Clause

"""Every example runs as it is, and its model is one engine up to the builder."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from up_to_the_builder import HAS_GPU, plugin_layers

from torch_tensorrt.annotation._plugin import registered

DIRECTORY = Path(__file__).resolve().parents[2] / "examples/dynamo"
EXAMPLES = sorted(DIRECTORY.glob("custom_plugin_*.py"))
TOOLCHAINS = ("triton", "cuda.tile", "cutlass")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_shows_what_an_engine_would_hold(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for toolchain in TOOLCHAINS:
        if f"import {toolchain}" in path.read_text():
            pytest.importorskip(toolchain, reason=f"the example uses {toolchain}")
    monkeypatch.setattr(sys, "path", [str(DIRECTORY), *sys.path])
    import engine_or_dry_run

    show, shown = engine_or_dry_run.show, []

    def keep(model: Any, reference: Any, inputs: Any, *rest: Any, **named: Any) -> None:
        shown.append((model, inputs))
        show(model, reference, inputs, *rest, **named)

    monkeypatch.setattr(engine_or_dry_run, "show", keep)
    runpy.run_path(str(path), run_name="__main__")
    output = capsys.readouterr().out
    if not HAS_GPU:
        monkeypatch.setenv("TTA_TARGET", "sm_90")
    layers = {layer.op for each in shown for layer in plugin_layers(*each)}
    assert layers == set(registered)
    for op in layers if "a dry run instead" in output else ():
        _, _, table = output.partition(f"{op} for sm_")
        assert "│      1 │ " in table[: table.index("└")]


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_the_demo_shows_distinct_tactics_for_each_architecture(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DIRECTORY)
    runpy.run_path(str(DIRECTORY / "custom_plugin_triton.py"), run_name="__main__")
    output = capsys.readouterr().out
    if "a dry run instead" not in output:
        pytest.skip("here the demo builds an engine")
    _, _, table = output.partition(f"example::swiglu for {target}")
    rows = table[: table.index("└")]
    entries = re.findall(r"example__swiglu_t\d_\w+", rows)
    assert len(entries) == len(set(entries)) >= 3
    assert rows.count(f"│ {target} ") == len(entries)
    assert len(re.findall(r"PTX \d\.\d", rows)) == len(entries)
    for point in ("min 1x5632", "opt 512x5632", "max 4096x5632"):
        assert rows.count(point) == len(entries)
