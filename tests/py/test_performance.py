# SPDX-License-Identifier: BSD-3-Clause

"""docsrc/performance.md shows what was measured, and what is measured is labelled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import common
import render
import triton_facts

AGAIN = "run `make performance`, and commit what it writes"


def test_the_document_is_of_the_committed_results() -> None:
    assert render.DOCUMENT.read_text() == render.render(), AGAIN


@pytest.mark.parametrize("name", render.KERNELS)
def test_each_plot_is_of_the_committed_results(name: str) -> None:
    plot = render.DOCUMENT.parent / render.PLOTS / f"{name}.svg"
    assert render.digest(name) in plot.read_text(), AGAIN


def test_a_plot_has_every_tactic_and_every_peer(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    render.plot("side_by_side", tmp_path / "plots" / "plot.svg")
    text = (tmp_path / "plots" / "plot.svg").read_text()
    (contest,) = render.contests("side_by_side")
    for label in (*contest.ours, *contest.peers):
        assert f">{label}</text>" in text


def test_the_kernel_without_facts_is_never_the_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache knows a kernel by what is told of it, and would not tell them apart."""
    monkeypatch.setenv("TTA_TARGET", "sm_90")
    tensors = [torch.empty(64, 64, dtype=torch.float16, device="meta")] * 2
    ours = triton_facts.built(triton_facts.CONTESTS[0], tensors)
    with triton_facts.without_facts():
        plain = triton_facts.built(triton_facts.CONTESTS[0], tensors)
    assert plain.code != ours.code
    assert triton_facts.built(triton_facts.CONTESTS[0], tensors).code == ours.code


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> common.Contest:
    """Of work that torch.compile fails on; a GPU is not needed to time nothing."""

    def fail(*args: Any, **keywords: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setattr(common, "median_us", lambda function: 4.0)
    monkeypatch.setattr(common, "copy_us", lambda moved: 3.0)
    return common.Contest.of(
        "add", (8 * 10**6, "TB/s"), {"one": 2.0, "two": 5.0}, int, {"JIT": 1.0}
    )


def test_a_contest_times_torch_and_a_copy_beside_what_it_is_given(
    contest: common.Contest,
) -> None:
    assert contest.peers == {"JIT": 1.0, "torch eager": 4.0, "device copy": 3.0}
    assert contest.not_run == {"torch.compile": "RuntimeError: no compiler"}
    assert (contest.best, contest.rate(contest.best)) == (2.0, 4.0)


def test_results_are_read_back_as_they_were_written(
    contest: common.Contest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    common.finish(path, {"gpu": "H200", "date": "today"}, [contest], extra=1)
    data = json.loads(path.read_text())
    assert [common.Contest(**fields) for fields in data["contests"]] == [contest]
    assert (data["environment"]["gpu"], data["extra"]) == ("H200", 1)
    output = capsys.readouterr().out
    assert "gpu H200, date today" in output
    assert "0.500 x" in output
