# SPDX-License-Identifier: BSD-3-Clause

"""benchmarks/hardware.py without a GPU: its kernels are right, and they compile."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import common
import hardware
import render
from hardware_kernels import DEVICE, HOST, POINTERS

import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpretation
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

SMALL = {"BM": 32, "BN": 32, "num_warps": 4, "num_stages": 2}
BY_NAME = {work.name: work for work in hardware.WORKS}
MATMUL, FP8 = BY_NAME["matmul fp16, 4096^3"], BY_NAME["matmul fp8, 4096^3"]
ATTENTION = BY_NAME["attention fp16, 16 heads, 8192 x 128, causal"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_JOBS", "2")  # the interpreter has processes of its own
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 120.0)


def interpreted(work: hardware.Work, inputs: Any, **config: Any) -> tta.DryRunReport:
    impl = tta.custom_plugin(
        tta.triton(work.launch, [{**SMALL, **config}]), meta_impl=work.meta
    )
    trt_plugins.custom_op("bench::op", impl=impl)
    how: dict[str, Any] = {"tolerance": work.tolerance, "strict": True}
    how["reference"] = work.reference
    target = "sm_90,cuda=13.0,sm_count=6"  # fewer than tiles
    try:
        return tta.dry_run("bench::op", inputs, target, **how)
    finally:
        tta.unregister("bench::op")


def assert_interpreted(report: tta.DryRunReport) -> None:
    assert [s.skipped for t in report.tactics for s in t.shapes] == [""]
    assert [s.ok for t in report.tactics for s in t.shapes] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("how", [POINTERS, DEVICE, HOST])
def test_the_matrix_product_is_torchs(how: str, persistent: bool) -> None:
    inputs = [torch.randn(n, 72).half() for n in (100, 136)]
    report = interpreted(MATMUL, inputs, how=how, persistent=persistent, BK=32)
    assert_interpreted(report)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("how", [POINTERS, DEVICE, HOST])
def test_attention_is_torchs(how: str, causal: bool) -> None:
    work = hardware.attention(causal)
    inputs = [torch.randn(2, 96, 32).half() for _ in range(3)]
    report = interpreted(work, inputs, how=how, causal=causal, BN=16)
    assert_interpreted(report)


@pytest.mark.parametrize("work", hardware.WORKS, ids=lambda work: work.name)
def test_labels_tell_the_configs_of_a_kernel_apart(work: hardware.Work) -> None:
    for configs in work.kernels.values():
        assert len({hardware.label(config) for config in configs}) == len(configs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "kind"),
    [
        *((MATMUL, f"{POINTERS}, clusters of 2"), (MATMUL, f"{HOST}, persistent")),
        *((FP8, f"{DEVICE}, persistent"), (ATTENTION, HOST)),
    ],
)
def test_a_kernel_compiles_at_full_size(work: hardware.Work, kind: str) -> None:
    inputs = [torch.empty(s, dtype=dtype) for s, dtype in work.inputs]
    config = work.kernels[kind][0]
    (tactic,) = hardware.built(work.launch, [config], work.meta, inputs)
    assert tactic.error is None
    assert tactic.config == config
    assert tactic.shared_memory > 49152
    assert tactic.spills == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [POINTERS, f"{HOST}, persistent"])
def test_one_binary_takes_all_shapes(kind: str) -> None:
    _, unit, tactic = hardware.dynamic_tactic(kind)
    assert tactic.error is None
    for rows, columns, depth in hardware.SHAPES:
        launch = tactic.at((rows, depth, unit), (columns, unit, depth, unit))
        assert launch.outputs == ((rows, columns, unit),)


def test_an_error_is_relative_and_a_nan_is_infinite() -> None:
    expected = torch.full((4,), 2.0)
    assert hardware.largest_error(expected + 0.4, expected) == pytest.approx(0.1)
    assert hardware.largest_error(expected / 0 * 0, expected) == float("inf")


def test_bits_tell_zeros_apart_and_nans_from_nothing() -> None:
    zero = torch.zeros(2, dtype=torch.float16)
    assert hardware.same_bits(zero, zero.clone())
    assert not hardware.same_bits(zero, -zero)


def test_a_step_that_fails_is_noted_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("why")

    path, done = tmp_path / "figures.json", list[str]()
    arguments = ["hardware.py", "--json", str(path), "--only", "step"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(common, "environment", dict)
    steps = {"step 1": fail, "other": fail, "step 2": lambda: done.append("step 2")}
    with pytest.raises(SystemExit) as ended:
        common.step_by_step("A script.", lambda only: 0, lambda figures: steps.items())
    assert ended.value.code == 1 and done == ["step 2"]
    assert json.loads(path.read_text())["failed"] == {"step 1": "RuntimeError: why"}


def test_what_was_measured_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    assert render.hardware("hardware", "Triton's.\n") == ""
    peers = {hardware.OWN: 198.0, "cuBLAS": 190.0}
    ours = {"128x256x64": 200.0, "128x128x64": 220.0}
    name = f"{MATMUL.name}: {HOST}"
    row = {"work": MATMUL.name, "kernel": HOST, "bit_equal": True}
    row |= {"registers": 154, "shared_memory": 147480}
    ran = {"kernel": HOST, "bit_equal": True, "M, N, K": [7, 24, 40]}
    figures = hardware.Figures(
        [hardware.Contest(name, "TFLOP/s", MATMUL.operations, ours, peers)],
        [{**row, "config": config, "us": us} for config, us in ours.items()],
        [ran, {**ran, "bit_equal": False}],
        {"one": "RuntimeError: why"},
    )
    figures.write(tmp_path / "hardware.json", {"gpu": "H200"})
    text = render.hardware("hardware", "Triton's.\n")
    assert (
        "| host descriptors | 128x256x64 | 687 | 0.990 | 0.950 | yes | 154 | 147480 |"
    ) in text
    assert "at 1 of 2 shapes (7 x 24 x 40)" in text
    assert "Failed: one: RuntimeError: why" in text
