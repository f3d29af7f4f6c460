# SPDX-License-Identifier: BSD-3-Clause

"""`make first-engine` runs up to the builder, and survives what a step may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunPython
from up_to_the_builder import HAS_GPU

TOOL = Path(__file__).resolve().parents[2] / "tools/first_engine"

PROGRAM = """
import os, sys, time
sys.path.insert(0, {tool!r})
import run
from steps import CAN_BUILD, step

if not run.HAS_GPU:  # where there is one, a step's process does not know these

    @step("one that crashes", first="It answers.", second="It answers again.")
    def crashes(bench):
        bench.note("still here")
        os.abort()

    @step("one that takes too long", ask="It ends.", seconds=1)
    def sleeps(bench):
        time.sleep(60)

    @step("one that raises", ask="It is right.")
    def raises(bench):
        raise KeyError("what")

sys.exit(run.main(sys.argv[1:]))
"""


STEPS = ["ptx-copy", "ptx-tactics", "ptx-aliased", "ptx-clusters", "tactics"]
PLANTED = [] if HAS_GPU else ["crashes", "sleeps", "raises"]
needs_planted = pytest.mark.skipif(
    HAS_GPU, reason="the steps' own processes do not know the planted ones"
)


def run(run_python: RunPython, out: Path, names: list[str], fails: bool) -> Any:
    program = PROGRAM.format(tool=str(TOOL))
    only = ["--only", *names] if names else []
    run_python(["-c", program, "--out", out, *only], fails=fails)
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, run_python: RunPython) -> Path:
    """Reports of some steps, planted ones before the last."""
    out = tmp_path_factory.mktemp("first-engine")
    names = [*STEPS[:-1], *PLANTED, STEPS[-1]]
    run(run_python, out, names, fails=bool(PLANTED))
    return out


@pytest.fixture
def steps(out: Path) -> dict[str, Any]:
    found = json.loads((out / "report.json").read_text())
    if found["environment"]["builder"] and HAS_GPU:
        pytest.skip("here the steps build engines")
    assert found["environment"]["torch"] == torch.__version__
    return {step["name"]: step for step in found["steps"]}


def test_steps_go_up_to_the_builder_and_say_what_they_would_ask(
    steps: dict[str, Any], out: Path
) -> None:
    found = {name: steps[name] for name in STEPS}
    assert {step["outcome"] for step in found.values()} == {"up to the builder"}
    assert not any(step["answers"] for step in found.values())
    if HAS_GPU:  # plain launches rehearse what the PTX does
        assert found["ptx-tactics"]["notes"][0].startswith("rehearsed: runs: yes")
    else:
        assert "plugin first::own_names" in found["ptx-tactics"]["told"]
    assert found["tactics"]["told"] == "1 plugin layer: first_engine::tactics"
    text = (out / "report.txt").read_text()
    assert "would ask: The input and the aliased output of a kernel are one" in text


@needs_planted
def test_a_step_that_crashes_hangs_or_raises_ends_alone(
    steps: dict[str, Any], out: Path
) -> None:
    told = {name: (steps[name]["outcome"], steps[name]["told"]) for name in PLANTED}
    assert told["crashes"] == ("ended", "the process ended: SIGABRT")
    assert told["sleeps"] == ("ended", "stopped after 1 s")
    assert told["raises"] == ("failed", "KeyError: 'what'")
    assert steps["crashes"]["unanswered"] == ["first", "second"]
    assert "unanswered: It answers again." in (out / "report.txt").read_text()
    assert "KeyError: 'what'" in (out / "raises.txt").read_text()


@pytest.mark.slow
def test_every_step_goes_up_to_the_builder(
    tmp_path: Path, run_python: RunPython
) -> None:
    steps = run(run_python, tmp_path, [], fails=bool(PLANTED))["steps"]
    well = {"done", "up to the builder", "not here"}
    assert {s["outcome"] for s in steps if s["name"] not in PLANTED} <= well
