# SPDX-License-Identifier: BSD-3-Clause

"""What a launch function learns of the GPU: the target's, whatever is here."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton
from kernels import add_kernel, info
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation._record import Call, infer_outputs, record
from torch_tensorrt.annotation._record.device import Properties
from torch_tensorrt.annotation._record.program import Launch
from torch_tensorrt.annotation._record.recording import Purpose
from torch_tensorrt.annotation._target import Target, compiling_for
from torch_tensorrt.annotation._tensors import Range
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import TargetError

X = info(Range(1, 8, 64), 48)
TARGET = Target("sm_89", sm_count=58)


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    while registered:
        registered.popitem()[1].undo()


def recorded(ask: Callable[[], Any], target: Target | None = TARGET) -> Launch:
    """The launch of a function that passes the answer to its kernel."""

    def launch(x: Any, out: Any) -> None:
        add_kernel[(1,)](x, x, ask(), out, BLOCK=64)

    def meta(x: Any) -> Any:
        return torch.empty_like(x)

    call = Call(purpose=Purpose(target))
    return record(backend("triton"), launch, meta, [X], call).launch


def answer(ask: Callable[[], Any], target: Target | None = TARGET) -> Any:
    return recorded(ask, target).arguments[2].expr  # type: ignore[union-attr]


def facts() -> Any:
    return triton.runtime.driver.active.utils.get_device_properties(0)


def test_what_does_not_launch_on_fake_tensors_launches() -> None:
    assert answer(lambda: 5 if active_fake_mode() is None else 6) == 5
    with FakeTensorMode() as mode:
        assert active_fake_mode() is mode


QUESTIONS: dict[str, tuple[Callable[[], Any], int]] = {
    "count": (
        lambda: torch.cuda.get_device_properties("cuda").multi_processor_count,
        58,
    ),
    "count, of no device": (
        lambda: torch.cuda.get_device_properties().multi_processor_count,
        58,
    ),
    "count, of a tensor's device": (
        lambda: (
            torch.cuda.get_device_properties(
                torch.empty(1, device="cuda").device
            ).multi_processor_count
        ),
        58,
    ),
    "count, of Triton": (lambda: facts()["multiprocessor_count"], 58),
    "count, of Triton, got": (lambda: facts().get("multiprocessor_count"), 58),
    "shared memory": (lambda: facts()["max_shared_mem"], 49152),
    "shared memory, of torch": (
        lambda: torch.cuda.get_device_properties(0).shared_memory_per_block_optin,
        49152,
    ),
    "registers": (lambda: facts()["max_num_regs"], 65536),
    "warp": (lambda: facts()["warpSize"], 32),
    "threads": (
        lambda: torch.cuda.get_device_properties(0).max_threads_per_multi_processor,
        1536,
    ),
    "major": (lambda: torch.cuda.get_device_properties(0).major, 8),
    "capability": (lambda: 10 * torch.cuda.get_device_capability()[0], 80),
    "minor": (lambda: torch.cuda.get_device_capability(0)[1], 9),
    "target": (lambda: triton.runtime.driver.active.get_current_target().arch, 89),
    "device": (lambda: torch.cuda.current_device() + 2, 2),
    "device, of Triton": (
        lambda: triton.runtime.driver.active.get_current_device() + 2,
        2,
    ),
    "devices": (lambda: torch.cuda.device_count() + 1, 2),
    "available": (lambda: 3 if torch.cuda.is_available() else 4, 3),
    "accelerator": (lambda: 3 if torch.accelerator.is_available() else 4, 3),
    "bf16": (lambda: 3 if torch.cuda.is_bf16_supported() else 4, 3),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_the_target_answers(what: str) -> None:
    ask, expected = QUESTIONS[what]
    assert answer(ask) == expected


UNKNOWN: dict[str, Callable[[], Any]] = {
    "total_memory": lambda: torch.cuda.get_device_properties(0).total_memory,
    "L2_cache_size": lambda: torch.cuda.get_device_properties(0).L2_cache_size,
    "mem_clock_rate": lambda: facts()["mem_clock_rate"],
    "torch.cuda.mem_get_info()": lambda: torch.cuda.mem_get_info(),
    "torch.cuda.memory_allocated()": lambda: torch.cuda.memory_allocated(),
    "torch.cuda.get_arch_list()": lambda: torch.cuda.get_arch_list(),
    "driver.active.utils.load_binary": lambda: (
        triton.runtime.driver.active.utils.load_binary
    ),
    "driver.active.get_benchmarker": lambda: (
        triton.runtime.driver.active.get_benchmarker
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_no_target_says_is_refused_by_name(what: str) -> None:
    with pytest.raises(TargetError, match=f"`{re.escape(what)}` .*test_devices.py:"):
        recorded(lambda: UNKNOWN[what]() and 3)


def test_a_count_that_the_target_does_not_say_is_refused() -> None:
    with pytest.raises(
        TargetError,
        match=r"multiprocessors at .*test_devices.py:.*Target\('sm_90', sm_count=...\)",
    ):
        recorded(QUESTIONS["count"][0], Target("sm_90"))
    with pytest.raises(TargetError, match="sm_count="):
        recorded(QUESTIONS["count, of Triton"][0], Target("sm_90"))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.cuda.get_device_name(),
        lambda: torch.cuda.get_device_properties(0).name,
    ],
)
def test_the_name_is_what_the_target_says(ask: Callable[[], str]) -> None:
    table = {"NVIDIA H100 80GB HBM3": 5, "NVIDIA L4": 6}
    for name, number in table.items():
        target = Target.parse(f"sm_90,name={name}")
        assert answer(lambda: table[ask()], target) == number
    with pytest.raises(TargetError, match=r"name .* at .*test_devices.py:.*name='NVID"):
        answer(lambda: table[ask()], Target.parse("H100 SXM"))


def test_without_a_target_the_refusal_says_how_to_name_one() -> None:
    with pytest.raises(TargetError, match="asks for the number of multiprocessors at"):
        recorded(QUESTIONS["count"][0], None)


def test_a_refusal_that_the_function_swallows_stands() -> None:
    def swallowing() -> int:
        try:
            return int(torch.cuda.get_device_properties(0).multi_processor_count)
        except Exception:
            return 4

    with pytest.raises(TargetError, match="sm_count"):
        recorded(swallowing, Target("sm_90"))


def test_afterwards_and_elsewhere_the_machine_answers() -> None:
    before = torch.cuda.is_available(), torch.cuda.device_count()
    elsewhere = []
    asked, answered = threading.Event(), threading.Event()

    def other() -> None:
        asked.wait(60)
        elsewhere.append((torch.cuda.is_available(), torch.cuda.device_count()))
        answered.set()

    def ask() -> int:
        asked.set()
        answered.wait(60)
        return 3

    thread = threading.Thread(target=other)
    thread.start()
    recorded(ask)
    thread.join()
    assert elsewhere == [before]
    assert (torch.cuda.is_available(), torch.cuda.device_count()) == before


def test_properties_that_are_kept_answer_for_the_machine_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Any] = []

    def ask() -> int:
        kept.append(torch.cuda.get_device_properties(0))
        return 3

    recorded(ask)
    here = Properties.__new__(Properties)
    vars(here)["multi_processor_count"] = 7
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: here)
    assert kept[0].multi_processor_count == 7


def test_a_fake_kernel_is_told_of_the_target_too() -> None:
    def meta(x: Any) -> Any:
        count = torch.cuda.get_device_properties(x.device).multi_processor_count
        return x.new_empty(count, x.shape[1])

    with compiling_for(TARGET):
        (output,) = infer_outputs(meta, [X], "the fake kernel")
    assert output.shape[0] == 58


# --- Persistent kernels ---------------------------------------------------------------


def launch_persistent(x: Any, out: Any) -> None:
    count = torch.cuda.get_device_properties(x.device).multi_processor_count
    grid = (min(count, triton.cdiv(x.numel(), 64)),)
    add_kernel[grid](x, x, x.numel(), out, BLOCK=64)


def grids(op: str, target: Target | str) -> Any:
    x = torch.empty(64, 64, dtype=torch.float16)
    report = tta.dry_run(op, [x], target, execute=False, strict=True)
    return report.tactics[0].shapes[0].grid[0]


def test_a_persistent_kernel_follows_its_target() -> None:
    """One registration, recorded for each target; it registers without a target."""
    spec = tta.custom_plugin(
        tta.triton(launch_persistent), lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("devices::persistent", impl=spec)
    assert grids("devices::persistent", Target("sm_90", sm_count=5)) == 5
    assert grids("devices::persistent", Target("sm_90", sm_count=6)) == 6
    assert grids("devices::persistent", "L4") == 58
    assert grids("devices::persistent", "sm_90,sm_count=7") == 7
    with pytest.raises(TargetError, match="sm_count="):
        grids("devices::persistent", "sm_90")
    assert grids("devices::persistent", Target("sm_90", sm_count=5)) == 5


def test_a_recording_that_does_not_ask_serves_every_target() -> None:
    runs = []

    def launch(x: Any, out: Any) -> None:
        runs.append(1)
        add_kernel[(1,)](x, x, 5, out, BLOCK=64)

    spec = tta.custom_plugin(tta.triton(launch), lambda x: torch.empty_like(x))
    trt_plugins.custom_op("devices::plain", impl=spec)
    grids("devices::plain", "sm_90")
    before = len(runs)
    assert grids("devices::plain", Target("sm_90", sm_count=5)) == 1
    assert len(runs) == before
