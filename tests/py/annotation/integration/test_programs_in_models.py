# SPDX-License-Identifier: BSD-3-Clause

"""Models whose ops are several steps, up to TensorRT's builder and through a GPU."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from programs import CONFIGS, PROGRAMS, ProgramModel, each_program
from up_to_the_builder import HAS_GPU, Recorder, partitioned

import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpreter

slow = pytest.mark.slow
static_and_dynamic = pytest.mark.parametrize(
    "kind", ["static", pytest.param("dynamic", marks=slow)]
)


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_GPU:
        monkeypatch.setenv("TTA_TARGET", "sm_90")


def engine(model: ProgramModel, kind: str) -> torch.fx.GraphModule:
    """The one engine that the model becomes."""
    parts = partitioned(model.make(), model.given(kind))
    ran = {node.target for node in parts.graph.nodes if node.op.startswith("call")}
    assert ran - {operator.getitem} == {"_run_on_acc_0"}, parts.graph
    return parts._run_on_acc_0  # type: ignore[return-value]


def recorded(graph_module: torch.fx.GraphModule) -> Recorder:
    from network import tensor

    recorder = Recorder(graph_module)
    nodes = graph_module.graph.nodes
    recorder.run(*(tensor(node.name) for node in nodes if node.op == "placeholder"))
    return recorder


@static_and_dynamic
@each_program
def test_each_launch_is_a_plugin_layer_in_order(model: ProgramModel, kind: str) -> None:
    model.register()
    found = engine(model, kind)
    names = [
        str(node.target).removeprefix("program.").removesuffix(".default")
        for node in found.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    ]
    places = iter(names)
    assert all(name in places for name in model.layers), names
    recorder = recorded(found)
    launches = [f"program::{name}" for name in model.layers if "_step" in name]
    assert [layer.op for layer in recorder.layers] == launches
    assert len(recorder.network.copies) == model.copies
    for layer in recorder.layers:
        report = tta.dry_run(
            layer.op, layer.profile, attributes=layer.attributes, execute=False
        )
        assert report.ok, report
        assert [tactic.tactic for tactic in report.tactics] == [1, 2]
        assert [dict(tactic.config) for tactic in report.tactics] == CONFIGS
        assert layer.attributes == model.attributes


def dry_run(model: ProgramModel, inputs: Any, **how: Any) -> tta.ProgramReport:
    report = tta.dry_run(
        model.register(),
        inputs,
        attributes=model.attributes,
        tolerance=model.tolerance,
        **how,
    )
    assert isinstance(report, tta.ProgramReport)
    return report


@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU here")
@pytest.mark.parametrize("against", ["reference", "eager"])
@static_and_dynamic
@each_program
def test_all_steps_give_what_the_op_gives(
    model: ProgramModel, kind: str, against: str
) -> None:
    inputs = model.given_to_op(kind)
    reference = model.reference if against == "reference" else None
    report = dry_run(model, inputs, reference=reference, strict=True)
    shapes = {"static"} if kind == "static" else {"min", "opt", "max", "ragged"}
    assert {run.name for run in report.runs if run.ok} == shapes
    assert all(run.time_us and run.eager_us for run in report.runs)
    for launch in report.launches:
        assert [tactic.tactic for tactic in launch.tactics] == [1, 2]
        for tactic in launch.tactics:
            assert {shape.name for shape in tactic.shapes if shape.ok} == shapes
        assert launch.best is not None


@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU here")
@static_and_dynamic
@each_program
def test_launches_that_are_left_in_pytorch_give_the_same_there(
    model: ProgramModel, kind: str
) -> None:
    model.register()
    given = model.given(kind)
    parts = partitioned(model.make(), given)
    for which in ("min_shape", "opt_shape", "max_shape"):
        shapes = (
            i.shape[which] if isinstance(i.shape, dict) else i.shape for i in given
        )
        x = [torch.randn(tuple(shape), device="cuda").half() for shape in shapes]
        found, expected = parts(*x), model.make()(*x)
        if isinstance(expected, torch.Tensor):
            expected = (expected,)
        if isinstance(found, torch.Tensor):
            found = (found,)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


INTERPRETED = [m for m in PROGRAMS if m.name != "fp8_linear"]  # Triton has no FP8 there


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(m, id=m.name, marks=[slow] * (i > 2))
        for i, m in enumerate(INTERPRETED)
    ],
)
def test_all_steps_are_interpreted_without_a_gpu(
    model: ProgramModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setattr(interpreter, "MOST_SECONDS", 60.0)
    inputs = [
        torch.empty(small(i), dtype=torch.float16) for i in model.given_to_op("static")
    ]
    report = dry_run(model, inputs, reference=model.reference)
    assert report.ok, report
    assert [run.ok for run in report.runs] == [True], report
    for launch in report.launches:
        assert [s.ok for t in launch.tactics for s in t.shapes] == [True, True]


def small(given: Any) -> tuple[int, ...]:
    """Three rows in place of 48."""
    return tuple(3 if extent == 48 else extent for extent in given.shape)
