# SPDX-License-Identifier: BSD-3-Clause

"""What to compile for: given, from the environment, or nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from torch_tensorrt.annotation import _target
from torch_tensorrt.annotation._target import (
    Target,
    as_target,
    compiling_for,
    current_target,
)
from torch_tensorrt.annotation.errors import TargetError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture(autouse=True)
def no_target_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTA_TARGET", raising=False)


# --- Target ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "capability"),
    [("sm_75", 75), ("sm_90", 90), ("sm_90a", 90), ("sm_100f", 100), ("sm_120", 120)],
)
def test_the_capability_is_the_architecture_as_a_number(
    arch: str, capability: int
) -> None:
    assert Target(arch).capability == capability


@pytest.mark.parametrize(
    ("ptx_isa", "version"), [(None, None), ("8.5", 85), ("9.0", 90), ("10.1", 101)]
)
def test_the_ptx_version_is_the_isa_as_a_number(
    ptx_isa: str | None, version: int | None
) -> None:
    assert Target("sm_90", ptx_isa=ptx_isa).ptx_version == version


@pytest.mark.parametrize(
    "arch",
    [
        *("", "90", "sm90", "sm_9", "sm_1000", "sm_90b", "SM_90", "compute_90"),
        *("sm_90\n", "sm_\u0669\u0660"),
    ],
)
def test_a_malformed_architecture_is_refused(arch: str) -> None:
    with pytest.raises(TargetError, match=r"not an architecture\. Write .* 'sm_90'"):
        Target(arch)


@pytest.mark.parametrize("ptx_isa", ["", "8", "85", "8.55", "8.x", "v8.5", "8.5\n"])
def test_a_malformed_ptx_isa_is_refused(ptx_isa: str) -> None:
    with pytest.raises(TargetError, match=r"is not a version\. Write it as '8.5'"):
        Target("sm_90", ptx_isa=ptx_isa)


@pytest.mark.parametrize("name", ["sm_count", "max_shared_memory"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "132"])
def test_a_number_that_is_no_count_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TargetError, match=f"{name} is .*must be an int"):
        Target("sm_90", **{name: value})


def test_an_unknown_product_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TargetError, match=r"'GTX 1080'.*known: T4, .*H100 SXM"):
        Target.parse("GTX 1080")


def test_every_product_is_a_target() -> None:
    for name, (arch, count) in _target._PRODUCTS.items():
        assert Target.parse(name) == Target(arch, sm_count=count)


@pytest.mark.parametrize(
    ("cuda", "ptx_isa"),
    [("12.0", "8.0"), ("12.6", "8.5"), ("13.0", "9.0"), ("13.1", "9.1")],
)
def test_a_driver_is_named_by_what_nvidia_smi_prints(cuda: str, ptx_isa: str) -> None:
    assert Target("sm_90", cuda=cuda) == Target("sm_90", ptx_isa=ptx_isa)


@pytest.mark.parametrize("cuda", ["13", "580.159", "v13.0", "11.8"])
def test_a_driver_that_is_not_a_cuda_version_is_refused(cuda: str) -> None:
    with pytest.raises(TargetError, match=r"nvidia-smi|12\.0 or newer is needed"):
        Target("sm_90", cuda=cuda)


def test_a_driver_and_a_ptx_isa_are_one_too_many() -> None:
    with pytest.raises(TargetError, match="Name one of them"):
        Target("sm_90", ptx_isa="8.5", cuda="13.0")


def test_code_is_for_the_oldest_driver_that_runs_tensorrt_or_has_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def isa(arch: str) -> str | None:
        with compiling_for(arch):
            return current_target().ptx_isa

    monkeypatch.setattr(_target, "_tensorrts_cuda", lambda: 12)
    assert [isa(a) for a in ("sm_80", "sm_90a", "sm_100", "sm_120")] == [
        *("8.0", "8.0", "8.6", "8.7")
    ]
    monkeypatch.setattr(_target, "_tensorrts_cuda", lambda: 13)
    assert [isa(a) for a in ("sm_80", "sm_120", "sm_90,cuda=12.4")] == [
        *("9.0", "9.0", "8.4")
    ]


def test_the_oldest_driver_of_an_engine_is_that_of_tensorrt_or_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def isas() -> list[str]:
        isas = (None, "8.4", "9.2")
        return [Target("sm_80", ptx_isa=isa).least_ptx_isa for isa in isas]

    monkeypatch.setattr(_target, "_tensorrts_cuda", lambda: 12)
    assert isas() == ["8.0", "8.0", "8.0"]
    monkeypatch.setattr(_target, "_tensorrts_cuda", lambda: 13)
    assert isas() == ["9.0", "8.4", "9.0"]


def test_equal_targets_are_one_key() -> None:
    assert {Target("sm_90", "8.5"): 1}[Target("sm_90", ptx_isa="8.5")] == 1


# --- Target.parse ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("sm_90", Target("sm_90")),
        (" sm_90a ", Target("sm_90a")),
        ("sm_90,ptx_isa=8.5", Target("sm_90", ptx_isa="8.5")),
        ("sm_90, max_shared_memory=1024", Target("sm_90", max_shared_memory=1024)),
        ("sm_90,sm_count=132", Target("sm_90", sm_count=132)),
        ("sm_90,cuda=13.0", Target("sm_90", ptx_isa="9.0")),
        ("H100", Target("sm_90")),
        ("H100 SXM", Target("sm_90", sm_count=132)),
        ("NVIDIA H100 80GB HBM3", Target("sm_90")),
        ("NVIDIA A100-SXM4-80GB", Target("sm_80", sm_count=108)),
        ("NVIDIA RTX 6000 Ada Generation", Target("sm_89", sm_count=142)),
        ("NVIDIA L4", Target("sm_89", sm_count=58)),
        ("nvidia-geforce_rtx 4090", Target("sm_89", sm_count=128)),
        ("l4, ptx_isa=8.5", Target("sm_89", ptx_isa="8.5", sm_count=58)),
        (
            "sm_80 , max_shared_memory=99 , ptx_isa=8.0",
            Target("sm_80", ptx_isa="8.0", max_shared_memory=99),
        ),
    ],
)
def test_the_text_of_a_target_is_read(text: str, target: Target) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("sm_90,8.5", "8.5"),
        ("sm_90,", ""),
        ("sm_90,ptx=8.5", "ptx=8.5"),
        ("sm_90,max_shared_memory=much", "max_shared_memory=much"),
        ("sm_90,max_shared_memory=-1", "max_shared_memory=-1"),
        ("sm_90,sm_count=all", "sm_count=all"),
        ("sm_90,max_shared_memory=\u00b2", "max_shared_memory=\u00b2"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_known_ones(
    text: str, setting: str
) -> None:
    with pytest.raises(
        TargetError, match=r"Known settings: cuda=13\.0, ptx_isa=8\.5"
    ) as caught:
        Target.parse(text)
    assert f"cannot read {setting!r}" in str(caught.value)


@pytest.mark.parametrize("text", ["", ",ptx_isa=8.5", "sm_90,ptx_isa=new"])
def test_the_text_of_no_target_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match=r"Write (one|it) as"):
        Target.parse(text)


def test_a_target_and_its_text_are_taken_alike() -> None:
    target = Target("sm_90", ptx_isa="8.5")
    assert as_target(target) is target
    assert as_target("sm_90,ptx_isa=8.5") == target


# --- The target in force --------------------------------------------------------------


def test_the_environment_names_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_80,ptx_isa=8.0")
    assert current_target() == Target("sm_80", ptx_isa="8.0")


def test_the_block_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_80")
    with compiling_for("sm_90"):
        assert current_target().arch == "sm_90"


def test_a_malformed_environment_is_an_error_that_quotes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_TARGET", "hopper")
    with pytest.raises(TargetError, match="'hopper'"):
        current_target()


@no_gpu
@pytest.mark.parametrize("empty", [None, ""])
def test_without_any_target_the_error_says_how_to_name_one(
    empty: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty is not None:
        monkeypatch.setenv("TTA_TARGET", empty)
    with pytest.raises(TargetError, match=r"target='sm_90'.*TTA_TARGET=sm_90"):
        current_target()


def test_a_target_object_is_in_force_as_it_is() -> None:
    target = Target("sm_100", ptx_isa="9.0", max_shared_memory=1)
    with compiling_for(target):
        assert current_target() is target


def test_the_inner_block_goes_before_the_outer() -> None:
    seen = []
    with compiling_for("sm_80"):
        with compiling_for("sm_90"):
            seen.append(current_target().arch)
        seen.append(current_target().arch)
    assert seen == ["sm_90", "sm_80"]


def test_none_leaves_the_outer_block_in_force() -> None:
    with compiling_for("sm_80"), compiling_for(None):
        assert current_target().arch == "sm_80"


@no_gpu
def test_after_an_error_the_block_is_over() -> None:
    with pytest.raises(KeyError), compiling_for("sm_80"):
        raise KeyError
    with pytest.raises(TargetError, match="no target"):
        current_target()


@no_gpu
def test_a_malformed_target_puts_none_in_force() -> None:
    with pytest.raises(TargetError, match="not an architecture"):
        compiling_for("hopper").__enter__()
    with pytest.raises(TargetError, match="no target"):
        current_target()


def test_each_thread_has_its_own_block() -> None:
    names = [f"sm_{number}" for number in (75, 80, 86, 90)]
    barrier = threading.Barrier(len(names))

    def inside(name: str) -> tuple[Any, ...]:
        with compiling_for(name):
            barrier.wait(timeout=60)  # every thread is in its block now
            return name, current_target().arch

    with ThreadPoolExecutor(len(names)) as threads:
        assert list(threads.map(inside, names)) == [(n, n) for n in names]


@no_gpu
def test_another_thread_does_not_see_the_block() -> None:
    def current() -> str:
        try:
            return current_target().arch
        except TargetError:
            return "none"

    with compiling_for("sm_90"), ThreadPoolExecutor(1) as thread:
        assert thread.submit(current).result() == "none"


# --- Shared memory --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Target("sm_90"), 49152),  # no driver is named
        (Target("sm_90", ptx_isa="8.8"), 49152),
        (Target("sm_90", ptx_isa="9.0"), 232448),
        (Target("sm_90a", ptx_isa="10.0"), 232448),
        (Target("sm_103", ptx_isa="9.0"), 232448),
        (Target("sm_120", ptx_isa="9.0"), 101376),
        (Target("sm_89", ptx_isa="9.0"), 49152),
        (Target("sm_89", max_shared_memory=99_000), 99_000),
        (Target("sm_90", ptx_isa="9.0", max_shared_memory=50_000), 50_000),
    ],
    ids=str,
)
def test_a_block_has_what_the_gpu_has_where_the_driver_gives_it(
    target: Target, size: int
) -> None:
    assert target.shared_memory == size


def test_before_hopper_no_way_to_more_shared_memory_is_known() -> None:
    assert Target("sm_89").most_shared_memory is None
    assert Target("sm_90").most_shared_memory == 232448
