# SPDX-License-Identifier: BSD-3-Clause

"""A plugin's kernels: each made once, numbered for good, and none of them twice."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from kernels import add_kernel, info, launch_add, launch_silu
from model_kernels import MODEL_CASES

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import _plugin
from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.errors import (
    CompileError,
    DTypeError,
    LaunchCountError,
    RecordError,
    UnsupportedKernelError,
)

X = info(Range(1, 8, 64), 512)
SM_90 = Target("sm_90")


def plugin(*specs: Any, meta: Any = lambda x: torch.empty_like(x)) -> Plugin:
    return Plugin("test::op", tta.custom_plugin(list(specs), meta), meta, ["x"], {})


def request(
    *inputs: TensorInfo | None, target: Target | None = SM_90, **attributes: Any
) -> Request:
    return Request.of(inputs or (X,), attributes, target)


def launch(x: Any, out: Any, BLOCK: int = 256, alias: str = "") -> None:
    launch_silu(x, out, BLOCK)


def launch_nothing(x: Any, out: Any) -> None: ...


# --- Requests -------------------------------------------------------------------------


def test_equal_requests_are_equal_keys() -> None:
    same = {request(X, alpha=1.0, axes=[1, 2]), request(X, alpha=1.0, axes=[1, 2])}
    assert len(same) == 1
    (one,) = same
    assert one.attributes == {"alpha": 1.0, "axes": [1, 2]}
    assert request(X, axes=(1, 2), alpha=1.0) == one  # TensorRT has its own order
    assert request(X, alpha=float("nan")) == request(X, alpha=float("nan"))


def test_an_error_that_is_kept_does_not_keep_who_met_it() -> None:
    """A traceback refers to every frame on its way, and so to a caller's tensors."""
    left_out, asked = plugin(tta.triton(launch_nothing)), request()
    for _ in range(2):
        with pytest.raises(LaunchCountError) as caught:
            left_out.tactic(1, asked)
    (tactic,) = left_out.kernels(asked)
    assert tactic.error is not caught.value
    frames = [frame.name for frame in traceback.extract_tb(tactic.error.__traceback__)]
    assert "tactic" not in frames


@pytest.mark.parametrize(
    "other",
    [
        request(X, alpha=True),
        request(X, alpha=1.0),
        request(X, alpha="1"),
        request(X, alpha=[1]),
        request(X, beta=1),
        request(X, X, alpha=1),
        request(X, None, alpha=1),
        request(info(64, 512), alpha=1),
        request(X, alpha=1, target=Target("sm_80")),
        request(X, alpha=1, target=None),
    ],
    ids=str,
)
def test_requests_differ_in_any_part(other: Request) -> None:
    assert other != request(X, alpha=1)
    assert request(X, alpha=0.0) != request(X, alpha=-0.0)


# --- Once -----------------------------------------------------------------------------


@dataclass
class Calls:
    """How often each stage was asked, and for what."""

    recorded: list[Any] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found, record, compile_all = Calls(), _plugin.record, _plugin.compile_all

    def recording(interceptor: Any, launch_fn: Any, *rest: Any) -> Any:
        found.recorded.append(launch_fn)
        return record(interceptor, launch_fn, *rest)

    def compiling(jobs: Any, what: str) -> Any:
        found.compiled += [job.what for job in jobs]
        return compile_all(jobs, what)

    monkeypatch.setattr(_plugin, "record", recording)
    monkeypatch.setattr(_plugin, "compile_all", compiling)
    return found


def test_each_stage_is_asked_once_for_a_request(calls: Calls) -> None:
    made = plugin(tta.triton(launch, [{"BLOCK": 64}, {"BLOCK": 128}]))
    first = made.kernels(request())
    assert made.kernels(request()) is first
    assert [made.tactic(n, request()).number for n in (2, 1)] == [2, 1]
    made.programs(request())
    assert len(calls.recorded) == 2
    assert calls.compiled == ["test::op, tactic 1", "test::op, tactic 2"]


def test_recording_serves_every_target(calls: Calls) -> None:
    made = plugin(tta.triton(launch))
    programs = made.programs(request(target=None))
    assert made.programs(request()) is programs
    for target in ("sm_80", "sm_90"):
        (tactic,) = made.kernels(request(target=Target(target)))
        assert tactic.program is programs[0].program
    assert len(calls.recorded) == 1
    assert len(calls.compiled) == 2


def test_another_request_is_recorded_and_compiled_anew(calls: Calls) -> None:
    made = plugin(tta.triton(launch))
    for inputs in (X, info(8, 512), info(8, 512, dtype=torch.float32)):
        assert made.kernels(request(inputs))[0].kernel is not None
    assert (len(calls.recorded), len(calls.compiled)) == (3, 3)


def test_threads_that_ask_at_once_get_the_same_kernels(calls: Calls) -> None:
    made = plugin(tta.triton(launch))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(made.kernels, [request()] * 4))
    assert all(kernels is found[0] for kernels in found)
    assert len(calls.recorded) == len(calls.compiled) == 1


# --- Tactics --------------------------------------------------------------------------


def test_tactics_are_numbered_from_one_in_the_order_of_the_configs() -> None:
    made = plugin(
        tta.triton(launch, [{"BLOCK": 64}, {"BLOCK": 128, "num_warps": 8}]),
        tta.triton(launch, [{"BLOCK": 512}]),
    )
    tactics = made.kernels(request())
    assert [(t.number, t.settings) for t in tactics] == [
        (1, {"BLOCK": 64}),
        (2, {"BLOCK": 128, "num_warps": 8}),
        (3, {"BLOCK": 512}),
    ]
    entries = [tactic.kernel.entry for tactic in tactics if tactic.kernel]
    assert [entry.rpartition("_")[0] for entry in entries] == [
        f"test__op_t{number}" for number in (1, 2, 3)
    ]
    assert tactics[0].description == "triton, {'BLOCK': 64}"


def test_an_autotuners_configs_are_tactics_where_the_spec_has_none() -> None:
    (case,) = (case for case in MODEL_CASES if case.name == "swizzled_matmul")
    made = Plugin("test::op", case.plugin, case.meta, ["a", "b"], {})
    tactics = made.kernels(request(*case.static))
    assert [(t.number, t.settings["BM"]) for t in tactics] == [(1, 32), (2, 64)]
    assert all(tactic.config == () for tactic in tactics)


def test_tactics_of_the_same_code_and_launch_are_one() -> None:
    """Whatever made them equal; the numbers of the others stay."""
    made = plugin(
        tta.triton(launch, [{"alias": "a"}, {"alias": "b"}, {"BLOCK": 512}]),
        tta.triton(lambda x, out: launch_silu(x, out, 256)),
        tta.triton(launch, [{"num_warps": 4}, {"num_warps": 8}]),  # 4 is the default
    )
    tactics = made.kernels(request())
    assert [tactic.number for tactic in tactics] == [1, 3, 6]
    assert all(tactic.kernel is not None for tactic in tactics)


def launch_twice_the_blocks(x: Any, y: Any, out: Any, twice: bool = False) -> None:
    blocks = (x.numel() + 255) // 256
    grid = (2 * blocks if twice else blocks,)
    add_kernel[grid](x, y, x.numel(), out, BLOCK=256)


def test_tactics_of_the_same_code_and_another_launch_are_two() -> None:
    spec = tta.triton(launch_twice_the_blocks, [{"twice": False}, {"twice": True}])
    meta = lambda x, y: torch.empty_like(x)  # noqa: E731
    made = Plugin("test::op", tta.custom_plugin(spec, meta), meta, ["x", "y"], {})
    one, two = made.kernels(request(X, X))
    assert one.kernel is not None and two.kernel is not None
    assert one.kernel.digest == two.kernel.digest
    assert one.kernel.entry != two.kernel.entry


def test_tactics_of_the_same_code_and_other_formats_are_two() -> None:
    formats = {"input_formats": "CHW32", "output_formats": "CHW32"}
    made = plugin(tta.triton(launch), tta.triton(launch, **formats))
    image = info(4, 64, 8, 8)
    one, two = made.kernels(request(image))
    assert one.kernel is not None and two.kernel is not None
    assert one.kernel.digest == two.kernel.digest


def test_names_of_kernels_differ_between_ops_and_dtypes() -> None:
    entries = set()
    for op in ("test::op", "test::other"):
        spec = tta.custom_plugin(tta.triton(launch), lambda x: torch.empty_like(x))
        made = Plugin(op, spec, lambda x: torch.empty_like(x), ["x"], {})
        for dtype in (torch.float16, torch.bfloat16):
            (tactic,) = made.kernels(request(info(8, 512, dtype=dtype)))
            assert tactic.kernel is not None
            entries.add(tactic.kernel.entry)
    assert len(entries) == 4


# --- What is left out -----------------------------------------------------------------


def test_a_tactic_that_fails_has_its_error_and_the_others_stand() -> None:
    made = plugin(
        tta.triton(launch_nothing),
        tta.triton(launch, [{"num_warps": 3}, {"BLOCK": 64}]),
    )
    nothing, refused, good = made.kernels(request())
    assert isinstance(nothing.error, LaunchCountError)
    assert isinstance(refused.error, CompileError)
    assert (nothing.kernel, refused.kernel, good.error) == (None, None, None)
    assert (nothing.program, refused.program is None) == (None, False)


def test_the_tactic_that_is_left_out_raises_its_own_error() -> None:
    made = plugin(tta.triton(launch_nothing), tta.triton(launch))
    with pytest.raises(LaunchCountError):
        made.tactic(1, request())
    assert made.tactic(2, request()).kernel is not None


@pytest.mark.parametrize("number", [0, 2, 7])
def test_a_number_without_a_tactic_is_an_error_that_says_what_to_do(
    number: int,
) -> None:
    """TensorRT asks for 0, its default, where autotune left nothing; 2 is a double."""
    made = plugin(tta.triton(launch, [{"alias": "a"}, {"alias": "b"}]))
    with pytest.raises(UnsupportedKernelError, match=r"tta.dry_run\('test::op', "):
        made.tactic(number, request())


def test_an_unexpected_error_of_recording_is_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorRT ends the process for any other."""

    def fail(*args: Any) -> Any:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(_plugin, "record", fail)
    (tactic,) = plugin(tta.triton(launch)).kernels(request())
    assert type(tactic.error) is RecordError
    message = "test::op, triton, {}: unexpected ZeroDivisionError: by chance"
    assert message in str(tactic.error)


def test_an_output_of_a_dtype_that_tensorrt_lacks_is_an_error() -> None:
    made = plugin(tta.triton(launch), meta=lambda x: torch.empty_like(x).double())
    (tactic,) = made.kernels(request())
    assert isinstance(tactic.error, DTypeError)


# --- Weights and attributes -----------------------------------------------------------


def test_weights_are_kept_as_a_plugin_can_hold_them() -> None:
    weight = torch.ones(4, 6, requires_grad=True).t()
    spec = tta.custom_plugin(tta.triton(launch_add), lambda x: x, w=weight)
    made = Plugin("test::op", spec, lambda x: x, ["x"], {})
    assert made.weight_infos == (TensorInfo((6, 4), torch.float32),)
    kept = made.weights["w"]
    assert kept.is_contiguous() and not kept.requires_grad


def test_attributes_of_the_call_reach_fake_kernel_and_launch_function() -> None:
    def scaled(x: Any, out: Any, alias: str) -> None:
        assert alias == "name"
        launch(x, out)

    def meta(x: torch.Tensor, alias: str) -> torch.Tensor:
        assert alias == "name"
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(scaled), meta)
    made = Plugin("test::op", spec, meta, ["x"], {"alias": AttributeKind(str)})
    (tactic,) = made.kernels(request(X, alias="name"))
    assert tactic.error is None
