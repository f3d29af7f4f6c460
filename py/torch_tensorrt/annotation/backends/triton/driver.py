# SPDX-License-Identifier: BSD-3-Clause

"""``triton.runtime.driver.active`` while a function is recorded: the target's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ..._record.device import (
    MAX_REGISTERS,
    WARP_SIZE,
    refuse_to_say,
    shared_memory,
    sm_count,
)
from ..._record.recording import target


class _Facts(dict[str, Any]):
    """What Triton's driver says of a GPU, as far as the target does."""

    def __missing__(self, name: str) -> Any:
        answer = _ANSWERS.get(name)
        self[name] = refuse_to_say(name) if answer is None else answer()
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


_ANSWERS: dict[str, Callable[[], Any]] = {
    "multiprocessor_count": sm_count,
    "max_shared_mem": shared_memory,
    "max_num_regs": lambda: MAX_REGISTERS,
    "warpSize": lambda: WARP_SIZE,
}


class _Utils:
    def get_device_properties(self, device: Any = 0) -> _Facts:
        return _Facts()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        refuse_to_say(f"driver.active.utils.{name}")


class _Driver:
    """A driver that knows its GPU by name only."""

    utils = _Utils()

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", target("the GPU").capability, WARP_SIZE)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: Any) -> None:
        pass

    def get_current_stream(self, device: Any = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def get_device_interface(self) -> Any:
        return torch.cuda

    def is_active(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        refuse_to_say(f"driver.active.{name}")


@contextlib.contextmanager
def answering_for_target() -> Any:
    """Inside, this thread sees the target's driver; other threads see Triton's."""
    thread, stand_in = threading.get_ident(), _Driver()
    owner: Any = type(driver)
    original = vars(owner).get("active")

    def active(config: Any) -> Any:
        if threading.get_ident() == thread:
            return stand_in
        return original.fget(config) if original else vars(config)["active"]

    owner.active = property(active, getattr(original, "fset", None))
    try:
        yield
    finally:
        if original is None:
            del owner.active
        else:
            owner.active = original
