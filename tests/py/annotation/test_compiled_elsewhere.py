# SPDX-License-Identifier: BSD-3-Clause

"""On a GPU: kernels whose languages need not be there, compiled elsewhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import compiled_elsewhere as elsewhere
import pytest
import torch
from compiled_elsewhere import GROUPS, PROJECT, SUFFIX, Group
from kernels import CASES

from torch_tensorrt.annotation._target import Target, runs_here
from torch_tensorrt.annotation.errors import AnnotationError

FOLDER = PROJECT / "wheelhouse" / "kernels"
REPORTS = sorted(FOLDER.rglob(f"*{SUFFIX}"))

with_reports = pytest.mark.skipif(
    not REPORTS, reason="`make kernels` was not run where cuTile and CuTe DSL are"
)
on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


@on_a_gpu
@with_reports
@pytest.mark.parametrize("path", REPORTS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_every_tactic_gives_the_reference(path: Path) -> None:
    (group,) = (group for group in GROUPS if group.name == path.parent.name)
    if not runs_here(Target.parse(group.target)):
        pytest.skip(f"this GPU does not run code for {group.target}")
    name, kind = path.name.removesuffix(SUFFIX).rsplit(".", 1)
    reference, weights = group.load("references")[name], group.load("weights").get(name)
    report = elsewhere.run_report(path, reference, weights)
    is_dynamic = kind == "dynamic" and "static" not in report.shapes  # as of rank 0
    ran = {"min", "opt", "max"} if is_dynamic else {"static"}
    for tactic in report.tactics:
        assert tactic.error is None
        assert {shape.name for shape in tactic.shapes if shape.ok} >= ran


@with_reports
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_kernel_was_compiled(group: Group) -> None:
    found = {p.name for p in REPORTS if p.parent.name == group.name}
    assert found == {
        f"{name}.{kind}{SUFFIX}"
        for name in group.load("references")
        for kind in ("static", "dynamic")
    }


@pytest.fixture
def compiled(tmp_path: Path) -> tuple[Path, Any]:
    (case,) = (case for case in CASES if case.name == "add")
    path = tmp_path / f"add.dynamic{SUFFIX}"
    inputs = elsewhere.as_inputs(case.dynamic)
    return path, elsewhere.compile_op(path, case.plugin, inputs, "sm_80")


def test_a_report_is_read_back_as_it_was(compiled: tuple[Path, Any]) -> None:
    path, report = compiled
    assert elsewhere.read(path) == report
    assert [shape.name for shape in report.tactics[0].shapes] == [
        "min",
        "opt",
        "max",
        "ragged",
    ]


def test_a_report_of_other_sources_is_refused(compiled: tuple[Path, Any]) -> None:
    path, _ = compiled
    data = json.loads(gzip.decompress(path.read_bytes()))
    data["sources"] = data["sources"][::-1]
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    with pytest.raises(AnnotationError, match="other sources than are here"):
        elsewhere.run_report(path, lambda x, y: x + y)
