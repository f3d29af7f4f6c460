# SPDX-License-Identifier: BSD-3-Clause

"""A dry run of an op of several steps, and of a launch that writes its inputs."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpreter
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run.steps import _fastest, _Outcome
from torch_tensorrt.annotation._steps import PREVIEW
from torch_tensorrt.annotation.errors import (
    DryRunError,
    DynamicControlFlowError,
    UnsupportedKernelError,
)

f32 = torch.float32
X = torch.empty(3, 100)


@triton.jit
def multiply_kernel(
    x, w, out, n, last, LIMIT: tl.constexpr, BLOCK: tl.constexpr, IN: tl.constexpr
):
    """With a store that the PTX does not show: where, is decided by a condition."""
    row, column = tl.program_id(0) * n, tl.arange(0, BLOCK)
    value = tl.load(x + row + column, column < n, other=0.0)
    value *= tl.load(w + column, column < n, other=0.0)
    if IN:
        where = tl.where(column < last, x + row + column, out + row + column)
        tl.store(where, value, column < n)
    tl.store(out + row + column, value, column < n + LIMIT)


def multiply(x: Tensor, w: Tensor, out: Tensor, past: int = 0, where: int = 0) -> None:
    n = x.shape[1]
    multiply_kernel[(x.shape[0],)](x, w, out, n, n // 2, past, 128, where)


@triton.jit
def add_to_kernel(x, total, n, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    value = tl.load(x + tl.program_id(0) * n + column, column < n, other=0.0)
    tl.atomic_add(total + column, value, column < n)


def twice(
    x: Tensor, w: Tensor, out: Tensor, first: int = 0, second: int = 0, where: int = 0
) -> None:
    """``out`` is ``(x * w + 1) * w``."""
    between = torch.empty_like(x)
    multiply(x, w, between, first, where)
    multiply(between + 1, w, out, second)


def twice_in_torch(x: Tensor, w: Tensor) -> Tensor:
    return (x * w + 1) * w


def add_to(x: Tensor, total: Tensor) -> None:
    n = x.shape[1]
    add_to_kernel[(x.shape[0],)](x, total, n, BLOCK=128)


def add_to_in_torch(x: Tensor, total: Tensor) -> None:
    total += x.sum(0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes, and however busy the machine is."""
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setattr(interpreter, "MOST_SECONDS", 60.0)


def run_twice(config: dict[str, Any], **how: Any) -> tta.ProgramReport:
    impl = tta.custom_plugin(
        tta.triton(twice, [config]), meta_impl=lambda x, w: torch.empty_like(x)
    )
    trt_plugins.custom_op("several::twice", impl=impl, replace=True)
    how = {"target": "sm_90", "reference": twice_in_torch, **how}
    report = tta.dry_run("several::twice", [X, torch.empty(100)], **how)
    assert isinstance(report, tta.ProgramReport)
    return report


needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is none")
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_a_report_has_each_step_with_the_tactics_of_a_launch() -> None:
    report = run_twice({}, execute=False)
    names = "multiply_kernel", "aten.add.Tensor", "multiply_kernel"
    assert tuple(step.name for step in report.steps) == names
    assert [step.launch is None for step in report.steps] == [False, True, False]
    first, second = report.launches
    assert (first.op, second.op) == ("several::twice_step0", "several::twice_step1")
    (tactic,) = second.tactics
    (shape,) = tactic.shapes
    assert shape.dims == ((3, 100), (100,), (3, 100))  # the last is between launches
    assert "multiply_kernel" in tactic.code
    assert report.ok and report.tactics == () and report.shapes == ("static",)


def test_a_report_prints_and_comes_back_from_json() -> None:
    report = run_twice({}, execute=False)
    text = str(report)
    assert "step 2: aten.add.Tensor, by torch" in text
    assert "2 launches and 1 operation of torch's for sm_90; not run" in text
    assert re.search(r"static +3x100, 100 +not run", text)
    back = tta.DryRunReport.from_json(report.to_json())
    assert isinstance(back, tta.ProgramReport)
    assert back == report and str(back) == text


def test_the_page_has_every_step_and_its_code() -> None:
    report = run_twice({}, execute=False)
    page = report.to_html()
    assert "<h2>Step 2: aten.add.Tensor, by torch</h2>" in page
    assert "<td>3x100, 100</td>" in page and ">not run</td>" in page
    for number, launch in ((1, report.launches[0]), (3, report.launches[1])):
        assert f"<h2>Step {number}: multiply_kernel, plugin {launch.op}</h2>" in page
        assert f"PTX of {launch.tactics[0].entry}</summary>" in page


def test_the_report_of_another_machine_is_not_run() -> None:
    report = run_twice({}, execute=False)
    with pytest.raises(DryRunError, match="a report of several steps has no torch"):
        tta.execute(report, reference=twice_in_torch)


@needs_no_gpu
@pytest.mark.parametrize("reference", [twice_in_torch, None], ids=["values", "alone"])
def test_steps_that_are_right_are_right(reference: Any) -> None:
    report = run_twice({}, reference=reference)
    assert report.ok and report.interpreted
    assert [run.ok for run in report.runs] == [True]
    assert [s.ok for r in report.launches for t in r.tactics for s in t.shapes] == [
        *(True, True)
    ]
    assert "interpreted on the CPU" in report.verdict


@needs_no_gpu
@pytest.mark.parametrize(
    ("bug", "found"),
    [
        (
            {"first": 2},
            "twice_step0, tactic 1 at static: the kernel writes past the end",
        ),
        ({"second": 2}, "twice_step1, tactic 1 at static: the kernel writes past the "),
        ({"first": -2}, "output 0: 6 of 300 elements depend on memory that nothing wr"),
        ({"second": -2}, "output 0: 6 of 300 elements depend on memory that nothing w"),
        ({"where": 1}, "launch 0 of kernel multiply_kernel writes into its input 0"),
    ],
    ids=["past the first", "past the last", "too little", "less", "an input"],
)
@pytest.mark.parametrize("reference", [twice_in_torch, None], ids=["values", "alone"])
def test_a_planted_bug_is_found(
    bug: dict[str, int], found: str, reference: Any
) -> None:
    report = run_twice(bug, reference=reference)
    assert not report.ok
    assert any(found in problem for problem in report.problems), report.problems
    with pytest.raises(DryRunError, match="a tactic is wrong"):
        run_twice(bug, strict=True)


@needs_a_gpu
@pytest.mark.parametrize(
    ("bug", "found"),
    [
        ({"first": 2}, "launch 0 of kernel multiply_kernel writes outside of its out"),
        ({"second": 2}, "launch 1 of kernel multiply_kernel writes outside of its out"),
        ({"first": -2}, "output 0: 6 of 300 elements are wrong"),
        ({"second": -2}, "output 0: 6 of 300 elements are wrong"),
        ({"where": 1}, "launch 0 of kernel multiply_kernel writes into its input 0"),
    ],
    ids=["past the first", "past the last", "too little", "less", "an input"],
)
def test_a_planted_bug_is_found_on_a_gpu(bug: dict[str, int], found: str) -> None:
    report = run_twice(bug)
    assert report.gpu and not report.ok
    assert any(found in problem for problem in report.problems), report.problems


@needs_a_gpu
@pytest.mark.parametrize("reference", [twice_in_torch, None], ids=["values", "eager"])
def test_steps_that_are_right_are_right_on_a_gpu(reference: Any) -> None:
    report = run_twice({}, reference=reference, strict=True)
    (run,) = report.runs
    assert run.ok and run.time_us and run.eager_us
    assert all(launch.best is not None for launch in report.launches)
    assert (report.against == "the op's own eager run") is (reference is None)


def test_the_fastest_tactics_that_are_right_are_timed_together() -> None:
    def ran(us: float, ok: bool = True) -> _Outcome:
        return _Outcome(ok, times={0: (us, 1 / us), 1: (9.0, 1.0)})

    tactics = [{1: None, 2: None, 3: None}, {4: None}]
    whole: Any = SimpleNamespace(offered=tactics, first=(1, 4))
    outcomes = {("max", (1, 4)): ran(5.0), ("max", (2, 4)): ran(4.0)}
    outcomes["max", (3, 4)] = ran(1.0, ok=False)
    assert _fastest(whole, outcomes, "max") == (2, 4)
    outcomes = {key: replace(ran, ok=False) for key, ran in outcomes.items()}
    assert _fastest(whole, outcomes, "max") == (1, 4)


@needs_no_gpu
def test_a_wrong_value_is_found() -> None:
    report = run_twice({}, reference=lambda x, w: x * w * w)
    assert not report.ok
    assert report.runs[0].ok is False
    assert "output 0: 300 of 300 elements are wrong" in report.runs[0].failure


@needs_no_gpu
def test_the_reference_has_as_many_outputs_as_the_op() -> None:
    with pytest.raises(DryRunError, match="gives 2 tensors; the op has 1 outputs"):
        run_twice({}, reference=lambda x, w: (x, w))


@triton.jit
def scale_kernel(x, by, other, out, n, HAS_OTHER: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < n, other=0.0) * tl.load(by)
    if HAS_OTHER:
        value += tl.load(other + at, at < n, other=0.0)
    tl.store(out + at, value, at < n)


def scale_twice(x: Tensor, by: Tensor, other: Tensor | None, out: Tensor) -> None:
    between = torch.empty_like(x)
    n, grid = x.numel(), (triton.cdiv(x.numel(), 128),)
    scale_kernel[grid](x, by, other, between, n, other is not None, BLOCK=128)
    scale_kernel[grid](between, by, other, out, n, other is not None, BLOCK=128)


@needs_no_gpu
@pytest.mark.parametrize("is_given", [True, False])
def test_inputs_may_be_scalars_or_left_out(is_given: bool) -> None:
    def like(x: Tensor, by: Tensor, other: Tensor | None) -> Tensor:
        return torch.empty_like(x)

    def reference(x: Tensor, by: Tensor, other: Tensor | None) -> Tensor:
        more = 0.0 if other is None else other
        return (x * by + more) * by + more

    impl = tta.custom_plugin(tta.triton(scale_twice), meta_impl=like)
    trt_plugins.custom_op("several::scale_twice", impl=impl)
    inputs = [X, torch.empty(()), X if is_given else None]
    report = tta.dry_run(
        "several::scale_twice", inputs, "sm_90", reference=reference, tolerance=1e-3
    )
    assert isinstance(report, tta.ProgramReport)
    assert [run.ok for run in report.runs] == [True], report


@needs_no_gpu
def test_weights_are_what_the_spec_says() -> None:
    weight = torch.full((100,), 2.0)
    impl = tta.custom_plugin(
        tta.triton(twice), meta_impl=lambda x: torch.empty_like(x), w=weight
    )
    trt_plugins.custom_op("several::twice_by_weight", impl=impl)
    how = {"target": "sm_90", "reference": lambda x: (x * 2 + 1) * 2}
    report = tta.dry_run("several::twice_by_weight", [X], **how)
    assert isinstance(report, tta.ProgramReport)
    assert [run.ok for run in report.runs] == [True], report


# --- Writing inputs -------------------------------------------------------------------


@pytest.fixture
def adding() -> str:
    """An op that adds the rows of a matrix to its second argument."""
    if not hasattr(torch.ops.several, "add_to"):
        made = torch.library.custom_op(
            "several::add_to", add_to, mutates_args=("total",)
        )
        made.register_fake(lambda x, total: None)
    trt_plugins.custom_op("several::add_to", impl=tta.triton())
    return "several::add_to"


@needs_no_gpu
def test_an_input_that_the_op_writes_is_compared_with_what_the_reference_writes(
    adding: str,
) -> None:
    how = {"target": "sm_90", "reference": add_to_in_torch}
    report = tta.dry_run(adding, [X, torch.empty(100)], **how)
    assert report.ok and "right at 1 of 1 shape, with 1 of 1 tactic" in report.verdict
    how["reference"] = lambda x, total: total.add_(1)
    with pytest.raises(DryRunError, match="gives 1 tensors; the op has 0 outputs"):
        tta.dry_run(adding, [X, torch.empty(100)], **how)
    how["reference"] = lambda x, total: None
    report = tta.dry_run(adding, [X, torch.empty(100)], **how)
    assert "input 1, which the op writes: 100 of 100" in report.runs[0].failure


def test_a_launch_that_writes_an_input_has_one_buffer_in_two_places(
    adding: str,
) -> None:
    inputs = [X, torch.empty(100)]
    report = tta.dry_run(adding, inputs, "sm_90", execute=False)
    assert isinstance(report, tta.ProgramReport)
    (launch,) = report.launches
    (tactic,) = launch.tactics
    assert tactic.aliased == (2,)  # the current value of `total`, after the op's own
    (shape,) = tactic.shapes
    assert shape.dims == ((3, 100), (100,), (100,)) and shape.outputs == ((100,),)
    assert tactic.notes[-1] == f"writes `between1` in place. {PREVIEW}"
    assert report.notes[-1] == f"several::add_to_step0: {tactic.notes[-1]}"
    assert "preview feature of TensorRT's" in " ".join(str(report).split())


@needs_no_gpu
def test_the_launch_alone_is_dry_run_as_any_plugin(adding: str) -> None:
    inputs = [X, torch.empty(100)]
    tta.dry_run(adding, inputs, "sm_90", execute=False)
    inputs = [*inputs, torch.empty(100)]
    right = lambda x, _, total: total + x.sum(0)  # noqa: E731
    launch = "several::add_to_step0"
    report = tta.dry_run(launch, inputs, "sm_90", reference=right)
    assert [s.ok for t in report.tactics for s in t.shapes] == [True]
    report = tta.dry_run(launch, inputs, "sm_90", reference=lambda x, _, total: total)
    (shape,) = report.tactics[0].shapes
    assert "output 0: 100 of 100 elements are wrong" in shape.failure


def in_parts(x: Tensor, w: Tensor, out: Tensor) -> None:
    rows, n = x.shape
    part = x.new_empty(rows // 32 if rows >= 32 else 1, n)
    multiply(x[: len(part)], w, part)
    multiply(part, w, out)


def parts(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(max(x.shape[0] // 32, 1), x.shape[1])


def test_a_tensor_between_launches_may_have_a_size_that_the_profile_decides() -> None:
    """TensorRT asks for it without a profile, where `rows >= 32` is open."""
    impl = tta.custom_plugin(tta.triton(in_parts), meta_impl=parts)
    trt_plugins.custom_op("several::in_parts", impl=impl, supports_dynamic_shapes=True)

    def outputs_at(rows: int, low: int, high: int) -> Any:
        shapes = {"min_shape": (low, 100), "opt_shape": (low, 100)}
        x = torch_tensorrt.Input(**shapes, max_shape=(high, 100), dtype=torch.float32)
        inputs = [x, torch.empty(100)]
        report = tta.dry_run("several::in_parts", inputs, "sm_90", execute=False)
        return report.launches[0].tactics[0].at((rows, 100), (100,)).outputs

    assert outputs_at(96, 64, 512) == ((3, 100),)
    assert outputs_at(20, 20, 20) == ((1, 100),)
    # Of two profiles that disagree, nothing says which one TensorRT asks for.
    with pytest.raises(DynamicControlFlowError, match=r"shape\[0\] >= 32"):
        outputs_at(9, 2, 16)


def of_parts(x: Tensor, y: Tensor, w: Tensor, out: Tensor) -> None:
    multiply(y, w, out)


def like_parts(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    if y.shape[0] != (x.shape[0] + 31) // 32:
        raise ValueError("a row of y for 32 of x")
    return torch.empty_like(y)


def test_a_fake_kernel_may_take_only_sizes_that_the_profile_has() -> None:
    """TensorRT asks it at sizes of its own, which are not such."""
    impl = tta.custom_plugin(tta.triton(of_parts), meta_impl=like_parts)
    trt_plugins.custom_op("several::of_parts", impl=impl, supports_dynamic_shapes=True)
    x, y = (
        torch_tensorrt.Input(
            min_shape=(low, 100), opt_shape=(low, 100), max_shape=(high, 100), dtype=f32
        )
        for low, high in ((64, 512), (2, 16))
    )
    inputs = [x, y, torch.empty(100)]
    report = tta.dry_run("several::of_parts", inputs, "sm_90", execute=False)
    shapes = (96, 100), (3, 100), (100,)
    assert report.tactics[0].at(*shapes).outputs == ((3, 100),)


# --- Refused --------------------------------------------------------------------------


def widened(x: Tensor, w: Tensor, out: Tensor) -> None:
    multiply(x, w.float(), out)


def test_an_operation_on_a_weight_is_refused() -> None:
    impl = tta.custom_plugin(
        tta.triton(widened),
        meta_impl=lambda x: torch.empty_like(x),
        w=torch.ones(100, dtype=torch.float16),
    )
    trt_plugins.custom_op("several::widened", impl=impl)
    with pytest.raises(UnsupportedKernelError, match=r"aten\._to_copy.* weight `w`"):
        tta.dry_run("several::widened", [X], "sm_90")


def test_an_input_that_a_launch_writes_must_be_declared() -> None:
    def scaled_relu(x: Tensor, w: Tensor) -> Tensor:
        multiply(x, w, x)
        return torch.relu(x)

    op = torch.library.custom_op("steps::undeclared", scaled_relu, mutates_args=())
    op.register_fake(lambda x, w: torch.empty_like(x))
    trt_plugins.custom_op("steps::undeclared", impl=tta.triton())
    with pytest.raises(UnsupportedKernelError, match="`x`, which the op does not say"):
        tta.dry_run("steps::undeclared", [X, X[0]], target="sm_90")
