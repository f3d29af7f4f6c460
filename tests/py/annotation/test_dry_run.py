# SPDX-License-Identifier: BSD-3-Clause

"""The dry run: what TensorRT would embed, without an engine and without a GPU."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernels import BLOCKS, launch_add, launch_matmul, launch_silu
from network import with_sequences
from warned import warned

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _plugin
from torch_tensorrt.annotation._dry_run import plugin_of
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._dry_run.report import TacticReport
from torch_tensorrt.annotation._plugin import Request
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    DryRunError,
    DTypeError,
    SpecError,
    TargetError,
    UnsupportedKernelError,
)

PROFILE = torch_tensorrt.Input(
    min_shape=(1, 4096),
    opt_shape=(16, 4096),
    max_shape=(64, 4096),
    dtype=torch.float16,
)


@pytest.fixture
def add() -> str:
    spec = tta.custom_plugin(
        tta.triton(launch_add, BLOCKS), meta_impl=lambda x, y: torch.empty_like(x)
    )
    trt_plugins.custom_op("dry::add", impl=spec, supports_dynamic_shapes=True)
    return "dry::add"


@pytest.fixture
def matmul() -> str:
    """One config within the limit of shared memory, and one over it."""
    configs = [{"num_stages": 1}, {"BM": 128, "BN": 128, "BK": 64, "num_stages": 9}]
    spec = tta.custom_plugin(
        tta.triton(launch_matmul, configs),
        meta_impl=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
    )
    trt_plugins.custom_op("dry::matmul", impl=spec)
    return "dry::matmul"


def built(op: str, *inputs: TensorInfo) -> list[TacticReport]:
    """What TensorRT's builder would get for an op without attributes."""
    return build(plugin_of(op), Request.of(inputs, {}, Target("sm_90")))


def squares(dtype: torch.dtype = torch.float16) -> list[torch.Tensor]:
    return [torch.empty(512, 512, dtype=dtype)] * 2


def test_a_profile_is_reported_at_min_opt_max_and_a_ragged_shape(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    assert [
        [(s.name, s.dims[0], s.grid, s.extras) for s in tactic.shapes]
        for tactic in report.tactics
    ] == [
        [
            ("min", (1, 4096), (4096 // block, 1, 1), (4096,)),
            ("opt", (16, 4096), (65536 // block, 1, 1), (65536,)),
            ("max", (64, 4096), (262144 // block, 1, 1), (262144,)),
            ("ragged", (43, 4096), (176128 // block, 1, 1), (176128,)),
        ]
        for block in (256, 1024)
    ]


def test_a_static_shape_is_reported_once(add: str) -> None:
    x = torch.empty(3, 1000)
    report = tta.dry_run(add, [x, x], "sm_90")
    assert [[s.name for s in t.shapes] for t in report.tactics] == [["static"]] * 2
    assert report.tactics[0].shapes[0].grid == (12, 1, 1)
    assert report.tactics[0].dtypes == ("FP32", "FP32", "FP32")


def test_a_report_is_read_back_from_json(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    assert tta.DryRunReport.from_json(report.to_json()) == report


def timed(report: tta.DryRunReport, times: dict[int, float]) -> tta.DryRunReport:
    """As if run on a GPU, with these microseconds at every shape."""
    tactics = (
        replace(
            tactic,
            shapes=tuple(
                replace(s, ok=True, max_error=0.0, time_us=times[tactic.tactic])
                for s in tactic.shapes
            ),
        )
        for tactic in report.tactics
    )
    return replace(report, tactics=tuple(tactics))


def test_the_fastest_tactic_is_the_best_and_marked(add: str) -> None:
    report = timed(tta.dry_run(add, [PROFILE, PROFILE], "sm_90"), {1: 3.0, 2: 2.0})
    assert report.best is not None
    assert report.best.tactic == 2
    assert "fastest 2.0 us (tactic 2)" in str(report).replace("\n", " ")
    verbose = str(replace(report, verbose=True))
    assert "best" in verbose and "2.0 ±" in verbose


def test_a_tactic_that_was_wrong_is_not_the_best(add: str) -> None:
    report = timed(tta.dry_run(add, [PROFILE, PROFILE], "sm_90"), {1: 3.0, 2: 2.0})
    first, second = report.tactics
    wrong = replace(second.shapes[0], ok=False, failure="output 0: 1 of 4", max_error=9)
    second = replace(second, shapes=(wrong, *second.shapes[1:]))
    report = replace(report, tactics=(first, second))
    assert report.best == first
    assert not report.ok
    assert "tactic 2 at min: output 0: 1 of 4" in str(report)


def test_what_was_only_compiled_has_no_times(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    assert "time" not in str(report).split()
    assert report.best is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_running_a_report_without_a_gpu_is_refused(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90")
    with pytest.raises(DryRunError, match="no GPU here"):
        tta.execute(report, torch.add)
    with pytest.raises(DryRunError, match="no GPU here"):
        tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=True)


def test_an_input_of_static_shape_may_be_a_torch_tensorrt_input(add: str) -> None:
    x = torch_tensorrt.Input(shape=(3, 1000), dtype=torch.bfloat16)
    (tactic, _) = tta.dry_run(add, [x, x], "sm_90").tactics
    assert tactic.shapes[0].extras == (3000,)
    assert tactic.dtypes == ("BF16", "BF16", "BF16")


def test_every_tactic_has_code_of_its_own_under_its_own_name(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_100")
    assert [t.config for t in report.tactics] == BLOCKS
    assert [t.tactic for t in report.tactics] == [1, 2]
    assert len({t.entry for t in report.tactics}) == 2
    for tactic in report.tactics:
        assert f".visible .entry {tactic.entry}(" in tactic.code
        assert f".version {tactic.ptx_isa}" in tactic.code
        assert f".target {tactic.target}" in tactic.code
        assert tactic.target == "sm_100"
        assert tactic.backend == "triton"
        assert tactic.registers > 0
        assert tactic.spills == 0
        assert tactic.error is None
    assert [t.shapes[0].block[0] for t in report.tactics] == [128, 256]


def test_shared_memory_is_what_the_kernel_takes(matmul: str) -> None:
    tactic = tta.dry_run(matmul, squares(), "sm_80").tactics[0]
    assert tactic.shared_memory >= 2 * 2 * 64 * 32


def test_the_report_is_the_same_in_json(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90")
    data = json.loads(report.to_json())
    assert data["ok"] is True
    assert data["target"] == "sm_90"
    first = report.tactics[0]
    assert data["tactics"][0]["entry"] == first.entry
    assert data["tactics"][0]["code"] == first.code
    assert data["tactics"][0]["shapes"][2]["grid"] == list(first.shapes[2].grid)


def test_the_report_prints_as_a_table(add: str) -> None:
    how: dict[str, Any] = {"execute": False, "verbose": True}
    text = str(tta.dry_run(add, [PROFILE, PROFILE], "sm_90", **how))
    assert text.startswith("dry::add: 2 of 2 tactics compile for sm_90")
    assert "opt 16x4096" in text and "n=65536" in text
    assert "BLOCK=1024" in text
    assert max(map(len, text.splitlines())) <= 150


def test_a_tactic_that_is_left_out_is_reported_with_its_reason(matmul: str) -> None:
    report = tta.dry_run(matmul, squares(), "sm_90")
    assert not report.ok
    assert report.tactics[0].error is None
    assert "bytes of shared memory" in str(report.tactics[1].error)
    assert "left out" in str(report)


def test_a_strict_dry_run_raises_for_a_tactic_that_is_left_out(matmul: str) -> None:
    with pytest.raises(UnsupportedKernelError, match="bytes of shared memory"):
        tta.dry_run(matmul, squares(), "sm_90", strict=True)


def test_tensorrt_is_warned_of_a_tactic_that_is_left_out(matmul: str) -> None:
    inputs = [TensorInfo((512, 512), torch.float16)] * 2
    with warned(r"dry::matmul: tactic 2 .*is left out"):
        launches = built(matmul, *inputs)
    assert [launch.tactic for launch in launches] == [1]


def test_autotune_raises_nothing_and_the_launch_says_why_nothing_is_left(
    add: str,
) -> None:
    """An error in autotune would end the process; one in the launch is reported."""
    inputs = [TensorInfo((Range(1, 2, 2**20), 4096), torch.float16)] * 2
    with (
        warned("4294967296"),
        pytest.raises(UnsupportedKernelError, match=r"these inputs.* Tactic 1.*42949"),
    ):
        built(add, *inputs)


@pytest.mark.parametrize("step", ["record", "compile_all"])
def test_autotune_raises_nothing_that_nobody_expected(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_silu), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("dry::unexpected", impl=spec)

    def fail(*args: Any) -> Any:
        raise RecursionError("too deep")

    monkeypatch.setattr(_plugin, step, fail)
    with (
        warned("dry::unexpected: .*RecursionError: too deep"),
        pytest.raises((UnsupportedKernelError, RecursionError)),  # of the launch
    ):
        built("dry::unexpected", TensorInfo((512,), torch.float16))


def test_with_no_tactic_left_the_first_error_is_raised(add: str) -> None:
    large = torch_tensorrt.Input(
        min_shape=(1, 4096),
        opt_shape=(2, 4096),
        max_shape=(2**20, 4096),
        dtype=torch.float16,
    )
    with pytest.raises(ArgumentError, match=r"`n`: 4096\*x.shape\[0\] reaches"):
        tta.dry_run(add, [large, large], "sm_90")


BAD_CALLS: dict[str, tuple[Any, Any, type[AnnotationError], str]] = {
    "no target": ([torch.empty(8)] * 2, None, TargetError, "there is no GPU here"),
    "unknown target": ([torch.empty(8)] * 2, "sm_99", TargetError, "sm_99 is not one"),
    "malformed target": ([torch.empty(8)] * 2, "hopper", TargetError, "as 'sm_90'"),
    "unsupported dtype": (
        [torch.empty(8, dtype=torch.complex64)] * 2,
        "sm_90",
        DTypeError,
        "complex64 has no counterpart",
    ),
    "not a tensor": ([8, 8], "sm_90", SpecError, "input 8: pass a tensor"),
    "empty tensor": (
        [torch.empty(0)] * 2,
        "sm_90",
        ArgumentError,
        "grid's x, 0, runs from 0 to 0",
    ),
}


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS
)
def test_bad_calls_are_refused(
    add: str,
    inputs: Any,
    target: Any,
    error: type[AnnotationError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TTA_TARGET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        tta.dry_run(add, inputs, target)


def test_the_number_of_inputs_must_be_the_ops(add: str) -> None:
    with pytest.raises(SpecError, match=r"dry::add takes 2 tensors, x, y; got 1"):
        tta.dry_run(add, [torch.empty(8)], "sm_90")
    with pytest.raises(SpecError, match=r"got 1\. .*write def meta\(x, y: float\)"):
        tta.dry_run(add, [torch.empty(8)], "sm_90", attributes={"y": 2.0})


def test_attributes_must_be_the_ops(add: str) -> None:
    x = torch.empty(8)
    with pytest.raises(SpecError, match=r"dry::add takes no attributes; got alpha"):
        tta.dry_run(add, [x, x], "sm_90", attributes={"alpha": 1.0})


def test_an_op_that_is_not_registered_is_refused_with_those_that_are(add: str) -> None:
    with pytest.raises(DryRunError, match=r"dry::none: .* Registered: dry::add"):
        tta.dry_run("dry::none", [torch.empty(8)], "sm_90")


def test_nothing_stays_changed_after_a_dry_run(
    add: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TTA_TARGET", raising=False)
    filters = list(warnings.filters)
    tta.dry_run(add, [PROFILE, PROFILE], "sm_90")
    assert warnings.filters == filters


def launch_subtract(x: Any, y: Any, out: Any, swap: bool = False) -> None:
    a, b = (y, x) if swap else (x, y)
    launch_add(a, b, out)


def test_kernels_that_differ_only_in_their_arguments_have_names_of_their_own() -> None:
    def meta(x: torch.Tensor, y: torch.Tensor, swap: bool = False) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_subtract), meta_impl=meta)
    trt_plugins.custom_op("dry::subtract", impl=spec)
    x = torch.empty(64, 64)
    entries = {
        tta.dry_run("dry::subtract", [x, x], "sm_90", attributes={"swap": swap})
        .tactics[0]
        .entry
        for swap in (False, True)
    }
    assert len(entries) == 2


def test_a_ptx_isa_that_lacks_the_architecture_is_refused(add: str) -> None:
    x = torch.empty(8)
    for target in ("sm_100,ptx_isa=8.5", "sm_120,ptx_isa=8.5", "sm_90,ptx_isa=6.0"):
        with pytest.raises(TargetError, match="is the oldest that does"):
            tta.dry_run(add, [x, x], target)


def test_many_threads_may_dry_run_at_once(add: str) -> None:
    def run() -> str:
        return str(tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False))

    expected = run()
    with ThreadPoolExecutor(6) as pool:
        runs = [pool.submit(run) for _ in range(24)]
    assert {run.result() for run in runs} == {expected}


def test_inputs_that_are_not_a_list_are_refused(add: str) -> None:
    with pytest.raises(SpecError, match="inputs is Tensor; pass a list"):
        tta.dry_run(add, torch.empty(8), "sm_90")


def test_an_attribute_has_the_type_that_torch_makes_of_it() -> None:
    def meta(x: torch.Tensor, k: int, alpha: float) -> torch.Tensor:
        return torch.empty_like(x)

    def launch(x: Any, out: Any, k: int, alpha: float) -> None:
        launch_silu(x, out)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("dry::k", impl=spec)
    with pytest.raises(
        SpecError, match=r"attribute k=2\.7 of dry::k must be of type i"
    ):
        tta.dry_run("dry::k", [torch.empty(8)], "sm_90", attributes={"k": 2.7})
    given = {"k": 1, "alpha": 1}
    report = tta.dry_run("dry::k", [torch.empty(8)], "sm_90", attributes=given)
    assert repr(report.attributes) == "{'alpha': 1.0, 'k': 1}"


def test_an_input_without_a_dtype_is_refused(add: str) -> None:
    x = torch_tensorrt.Input(shape=(8,))
    with pytest.raises(SpecError, match=r"Name it: Input\(\.\.\., dtype="):
        tta.dry_run(add, [x, x], "sm_90")


def test_a_dynamic_shape_that_would_stay_in_pytorch_is_refused() -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_silu), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("dry::static", impl=spec)
    with pytest.raises(DryRunError, match="without supports_dynamic_shapes=True"):
        tta.dry_run("dry::static", [PROFILE], "sm_90")
    report = tta.dry_run("dry::static", [torch.empty(8, 64)], "sm_90", execute=False)
    assert "; not run, so what" in report.verdict


@with_sequences
def test_attributes_left_out_have_the_ops_defaults() -> None:
    def launch(x: Any, out: Any, factors: list[float], k: int | None) -> None:
        assert (factors, k) in (([1.5, 2.0], None), ([1.0], None), ([3.0], 7))
        launch_silu(x, out)

    def meta(
        x: torch.Tensor, factors: Sequence[float] = (1.5, 2.0), k: int | None = None
    ) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("dry::listed", impl=spec)
    schema = str(torch.ops.dry.listed.default._schema)
    assert "float[] factors=[1.5, 2.]" in schema and "k=None" in schema
    x = torch.empty(8, 64)
    given = {"factors": [3.0], "k": 7}
    for attributes in ({}, given):
        how: dict[str, Any] = {"attributes": attributes, "execute": False}
        assert tta.dry_run("dry::listed", [x], "sm_90", **how).ok


def test_attributes_are_the_ops_in_whatever_order_they_are_given() -> None:
    def launch(x: Any, out: Any, scale: float, k: int) -> None:
        assert (scale, k) == (2.0, 5) or (scale, k) == (1.0, 3)
        launch_silu(x, out)

    def meta(x: torch.Tensor, scale: float, k: int = 3) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("dry::ordered", impl=spec)
    for given in ({"k": 5, "scale": 2.0}, {"scale": 2.0, "k": 5}, {"scale": 1.0}):
        how: dict[str, Any] = {"attributes": given, "execute": False}
        assert tta.dry_run("dry::ordered", [torch.empty(64)], "sm_90", **how).ok


def test_every_tactic_is_recorded_once_and_all_are_compiled_at_once(
    add: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        original = getattr(_plugin, name)

        def call(*args: Any, **keywords: Any) -> Any:
            calls.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(_plugin, name, call)

    counted("record")
    counted("compile_all")
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    assert len(report.tactics) == 2
    assert sorted(calls) == ["compile_all", "record", "record"]


def test_an_optional_tensor_that_is_not_given_reads_none() -> None:
    def launch(x: Any, bias: Any, out: Any) -> None:
        assert bias is None
        launch_silu(x, out)

    def meta(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("dry::optional", impl=spec, supports_dynamic_shapes=True)
    how: dict[str, Any] = {"execute": False, "verbose": True}
    report = tta.dry_run("dry::optional", [PROFILE], "sm_90", **how)
    (tactic,) = report.tactics
    assert [shape.dims[1] for shape in tactic.shapes] == [None] * 4
    assert tactic.dtypes == ("FP16", "BOOL", "FP16")  # TensorRT has a constant there
    assert "opt 16x4096, none" in str(report)
    assert "bias none" in report.to_html()
    assert tta.DryRunReport.from_json(report.to_json()) == report


def test_the_ragged_shape_is_odd_and_equal_ranges_stay_equal(add: str) -> None:
    how: dict[str, Any] = {"execute": False}
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", **how)
    assert report.shapes == ("min", "opt", "max", "ragged")
    assert report.tactics[0].shapes[3].dims == ((43, 4096),) * 2


def test_the_ragged_shape_keeps_what_the_fake_kernel_demands() -> None:
    """Whole groups of four rows, and as many in y: no odd extent is."""

    def meta(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != y.shape[0] or x.shape[0] % 4 != 0:
            raise ValueError("whole groups")
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_add), meta_impl=meta)
    trt_plugins.custom_op("dry::groups", impl=spec, supports_dynamic_shapes=True)
    rows = {"min_shape": (4, 8), "opt_shape": (8, 8), "max_shape": (64, 8)}
    x = torch_tensorrt.Input(**rows, dtype=torch.float32)
    report = tta.dry_run("dry::groups", [x, x], "sm_90", execute=False)
    assert report.tactics[0].shapes[3].dims == ((44, 8), (44, 8))


def test_a_fake_kernel_that_asks_for_the_target_has_a_ragged_shape() -> None:
    def meta(x: torch.Tensor) -> torch.Tensor:
        assert torch.cuda.get_device_capability() == (9, 0)
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
    trt_plugins.custom_op("dry::asking", impl=spec, supports_dynamic_shapes=True)
    report = tta.dry_run("dry::asking", [PROFILE], "sm_90", execute=False)
    assert report.shapes == ("min", "opt", "max", "ragged")


def test_where_the_op_has_no_shape_between_min_and_max_none_is_ragged() -> None:
    def meta(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] % 4 != 0:
            raise ValueError("whole groups")
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
    trt_plugins.custom_op("dry::four", impl=spec, supports_dynamic_shapes=True)
    rows = {"min_shape": (4, 8), "opt_shape": (8, 8), "max_shape": (8, 8)}
    x = torch_tensorrt.Input(**rows, dtype=torch.float32)
    report = tta.dry_run("dry::four", [x], "sm_90", execute=False)
    assert report.shapes == ("min", "opt", "max")


def test_a_tactic_says_what_is_launched_anywhere_in_the_profile(add: str) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    tactic = report.tactics[0]
    found = tactic.at((37, 4096), [37, 4096])
    assert (found.grid, found.block) == ((37 * 16, 1, 1), (128, 1, 1))
    assert (found.extras, found.outputs) == ((37 * 4096,), ((37, 4096),))
    for shape in tactic.shapes:
        assert replace(tactic.at(*shape.dims), name=shape.name) == shape


@pytest.mark.parametrize(
    "shapes",
    [
        ((65, 4096), (65, 4096)),
        ((0, 4096), (0, 4096)),
        ((8, 4095), (8, 4095)),
        ((8,), (8,)),
        ((8, 4096, 1), (8, 4096, 1)),
        ((8, 4096),),
        ((8, 4096), None),
        ((8, 4096), (8, 4096), (8, 4096)),
    ],
    ids=str,
)
def test_a_launch_outside_of_the_profile_is_refused(add: str, shapes: Any) -> None:
    report = tta.dry_run(add, [PROFILE, PROFILE], "sm_90", execute=False)
    with pytest.raises(SpecError, match="dry::add: the profile does not hold"):
        report.tactics[0].at(*shapes)


def test_a_static_input_at_the_end_may_be_left_out_of_a_launch(add: str) -> None:
    x = torch.empty(8, 4096)
    (tactic, _) = tta.dry_run(add, [x, x], "sm_90", execute=False).tactics
    assert tactic.at() == tactic.at((8, 4096)) == tactic.at((8, 4096), (8, 4096))


def test_only_a_tactic_that_tensorrt_gets_has_launches(matmul: str) -> None:
    report = tta.dry_run(matmul, squares(), "sm_90", execute=False)
    with pytest.raises(DryRunError, match=r"tactic 2 .* bytes of shared memory"):
        report.tactics[1].at((512, 512), (512, 512))
    read = tta.DryRunReport.from_json(report.to_json())
    with pytest.raises(DryRunError, match=r"tactic 1 .* was read from JSON"):
        read.tactics[0].at((512, 512), (512, 512))
