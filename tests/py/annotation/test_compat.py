# SPDX-License-Identifier: BSD-3-Clause

"""tools/compat: the list of ops, how each is tried, and what is shown of it.

No library is installed or imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernels import launch_silu
from torch._subclasses.fake_tensor import FakeTensorMode

from torch_tensorrt.annotation._dry_run import case as one_launch
from torch_tensorrt.annotation._dry_run import steps as several_launches
from torch_tensorrt.annotation.errors import RecordError

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from compat import own, packages, render, run
from compat.case import KINDS, Case, Library, all_cases
from compat.verdict import YET, Outcome, cause_of, first_sentence, with_executed

CASES = list(all_cases())
RESULTS = packages.PROJECT / "tools" / "compat" / "results.json"
DOCUMENT = packages.PROJECT / "docsrc" / "compatibility.md"

without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a forked process cannot ask a GPU"
)
forks = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")


# --- The list -------------------------------------------------------------------------


def test_the_list_has_many_ops_of_many_libraries_in_every_language() -> None:
    assert len(CASES) >= 80
    assert len({case.id for case in CASES}) == len({case.op for case in CASES})
    assert len({case.library for case in CASES}) >= 6
    assert {case.language for case in CASES} == {*render.LANGUAGES}
    assert {case.kind for case in CASES} == {*KINDS}


def test_every_library_of_the_list_is_installed() -> None:
    assert {case.library for case in CASES} == {*packages.LIBRARIES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fake_kernel_describes_every_output(case: Case) -> None:
    sizes = {name: opt for name, (_, opt, _) in case.sizes.items()}
    with FakeTensorMode():
        made = case.fake(
            *(torch.empty(t.shape(sizes), dtype=t.dtype) for t in case.inputs.values())
        )
    outputs = made if isinstance(made, tuple) else (made,) if case.outputs else ()
    assert len(outputs) == len(case.outputs)
    assert all(isinstance(output, torch.Tensor) for output in outputs)


def case_of(load: Callable[[], Any], **described: Any) -> Case:
    library = Library("mine", "triton")
    described = described or {"x": "rows 512 f16", "rows": (1, 8, 64)}
    library("activation", out="x", **described)(load)
    return library.cases[0]


def test_extents_are_computed_from_left_to_right() -> None:
    case = case_of(
        lambda: None, x="rows k f32", y="rows+31//32 i32", rows=(1, 40, 64), k=8
    )
    assert case.inputs["y"].shape({"rows": 40}) == (2,)
    assert case.is_dynamic
    assert case.schema == "(Tensor x, Tensor y) -> Tensor"


def test_a_fake_kernel_ties_extents_of_one_name() -> None:
    case = case_of(lambda: None, x="rows 8 f32", y="rows f32", rows=(1, 4, 8))
    assert case.fake(torch.empty(5, 8), torch.empty(5)).shape == (5, 8)
    with pytest.raises(ValueError, match="rows is 5 and 4"):
        case.fake(torch.empty(5, 8), torch.empty(4))
    case = case_of(lambda: None, x="rows f32", y="rows+3//4 f32", rows=(1, 4, 8))
    assert case.fake(torch.empty(5), torch.empty(2)).shape == (5,)
    with pytest.raises(ValueError, match="y has 1, not rows"):
        case.fake(torch.empty(5), torch.empty(1))


@pytest.mark.parametrize(
    ("described", "error"),
    [
        ({"x": "rows f32"}, "have a range"),
        ({"x": "8 f32", "rows": 8}, "have a range"),
        ({"x": "rows*2 f32", "rows": 8}, "extents of an input"),
        ({"x": "8 f31"}, "'f31' is not one of"),
        ({"x": "8-1 f32"}, "is not an extent"),
    ],
)
def test_a_slip_in_the_list_is_an_error(described: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        case_of(lambda: None, **described)


# --- Trying an op ---------------------------------------------------------------------


def body(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    launch_silu(x, out)
    return out


@forks
@without_gpu
def test_an_op_is_compiled_static_and_dynamic() -> None:
    results = run.run(case_of(lambda: body), 100, executes=False)
    assert {mode: r["status"] for mode, r in results.items()} == {
        "static": "in",
        "dynamic": "in",
    }
    assert results["static"]["compiled"] == results["static"]["tactics"] == 1


@forks
@without_gpu
def test_a_library_that_ends_the_process_is_a_failure() -> None:
    results = run.run(case_of(lambda: os._exit(3)), 100, executes=False)
    assert results["static"]["status"] == "failed"
    assert results["static"]["error"] == "the process ended with exit code 3"


@forks
@without_gpu
def test_an_op_that_takes_too_long_is_a_failure() -> None:
    slow = replace(case_of(lambda: time.sleep(60)), limit_s=0.6)
    results = run.run(slow, 0.2, executes=False)
    assert results["static"]["error"] == "it took more than 1 seconds"
    assert results["dynamic"]["status"] == "failed"


@forks
@without_gpu
def test_a_refusal_is_not_a_failure() -> None:
    refused = run.run(case_of(lambda: lambda x: x * 2), 100, executes=False)
    assert {r["status"] for r in refused.values()} == {"refused"}

    def broken() -> Any:
        raise ImportError("no such module")

    failed = run.run(case_of(broken), 100, executes=False)
    assert failed["static"]["error"] == "no such module"
    assert {r["status"] for r in failed.values()} == {"failed"}


def launched(x: torch.Tensor, written: int = 99) -> torch.Tensor:
    out = torch.empty_like(x)
    out[:written] = x[:written]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.bool])
def test_what_the_own_launch_leaves_to_chance_is_not_compared(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (one_launch, several_launches):
        monkeypatch.setattr(module, "compare", module.compare)
    own.compare_determined()
    launch = own.OwnLaunch(launched, None)
    (expected,) = launch(torch.ones(100, dtype=dtype))
    assert launch.undetermined == 1
    found = torch.ones(100, dtype=dtype)
    found[99] = 0
    for module in (one_launch, several_launches):
        assert not module.compare(found, expected).message
    found[0] = 0
    message = one_launch.compare(found, expected).message
    assert message.startswith("1 of 100 elements are wrong, the first at [0]")


def test_sums_in_another_order_are_determined() -> None:
    noise = iter((0.0, 1e-6))
    launch = own.OwnLaunch(lambda x: x + next(noise), None)
    launch(torch.randn(100))
    assert launch.undetermined == 0


def test_an_own_launch_that_leaves_much_to_chance_is_a_failure() -> None:
    with pytest.raises(ValueError, match="differ in 20 of 100 elements"):
        own.OwnLaunch(lambda x: launched(x, 80), None)(torch.randn(100))


def test_a_tactic_that_is_wrong_is_a_failure() -> None:
    def tactic(*ok: bool | None, error: str = "") -> Any:
        shapes = [SimpleNamespace(ok=o, failure="off by one. Much.") for o in ok]
        return SimpleNamespace(error=error, shapes=shapes)

    report = SimpleNamespace(
        tactics=[tactic(True, True), tactic(error="refused"), tactic(True, False)]
    )
    report.launches = [report]
    outcome = Outcome.of_report(report)
    assert (outcome.status, outcome.error) == ("failed", "off by one.")
    assert (outcome.tactics, outcome.compiled, outcome.executed) == (3, 2, 1)
    report.tactics.pop()
    outcome = Outcome.of_report(report)
    assert (outcome.status, outcome.error) == ("in", "refused")


def test_what_ran_on_a_gpu_is_kept_while_the_op_compiles_as_it_did() -> None:
    ran = Outcome("in", tactics=3, compiled=2, executed=2, undetermined=1)
    before = {"static": ran.to_json()}
    same = {"static": Outcome("in", tactics=3, compiled=2).to_json()}
    assert with_executed(same, before) == before
    for changed in (Outcome("in", tactics=3, compiled=3), Outcome("refused")):
        found = with_executed({"static": changed.to_json()}, before)
        assert "executed" not in found["static"]


# --- What is shown --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            "kernel k: it asks for 279552 bytes of shared memory for a block.",
            "hardware",
        ),
        ("kernel k: a cooperative launch, which TensorRT does not do.", "launch"),
        ("the launcher branches on `Eq(d0_0, 4)` at a.py:3 in f.", "sizes"),
        ("the launcher asks for the values of a tensor, at a.py:3 in f.", "values"),
        ("at a.py:3 in f: Torch not compiled with CUDA enabled", "values"),
        ("the launch function asks for a tensor's address.", "address"),
        ("Triton does not compile it: Block pointers have been removed", "library"),
        ("nobody has seen this", "not yet"),
    ],
)
def test_a_refusal_has_a_cause(error: str, kind: str) -> None:
    assert cause_of({"error": error}).kind == kind


def test_an_error_is_shown_without_this_machine() -> None:
    text = (
        "compat::mine_op: launch function op.<locals>.<lambda> (/a/compat/cases.py:12) "
        "returns\nd0_0 at /home/me/.compat/site/fla/ops.py:3. Return another."
    )
    expected = "the launcher returns d0_0 at fla/ops.py:3."
    assert first_sentence(text) == expected
    assert first_sentence(text.replace("/home/me/", "")) == expected
    outcome = Outcome.of(RecordError(text))
    assert (outcome.error, outcome.place) == (expected, "cases.py:12")


def test_of_a_long_error_both_ends_are_shown() -> None:
    shown = first_sentence(f"it does not compile: {'x = y + z ' * 100} undefined name")
    assert len(shown) == 400
    assert shown.startswith("it does not compile: x = y")
    assert shown.endswith("undefined name")


def test_every_op_has_a_result_and_the_document_shows_it() -> None:
    results = json.loads(RESULTS.read_text())
    assert {*results} == {case.id for case in CASES}
    rendered = render.document(CASES, results, run.MOST_CONFIGS)
    assert DOCUMENT.read_text() == rendered, "run `make compat`"
    assert all(f"| `{case.name}` |" in rendered for case in CASES)


@pytest.mark.parametrize("mode", run.MODES)
def test_every_refusal_names_a_line_and_is_not_this_projects_own(mode: str) -> None:
    """Of an op, and of a tactic of one that is in."""
    outcomes = {name: r[mode] for name, r in json.loads(RESULTS.read_text()).items()}
    refused = {name: o for name, o in outcomes.items() if o.get("error")}
    assert refused and {o["status"] for o in refused.values()} <= {"in", "refused"}
    assert [n for n, o in refused.items() if not o.get("place")] == []
    assert [n for n, o in refused.items() if cause_of(o).kind == YET] == []
