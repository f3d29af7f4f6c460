# SPDX-License-Identifier: BSD-3-Clause

"""What torch and Triton say of an H100, where there is no GPU.

Libraries ask for the GPU when they are imported, and launchers ask for its number of
multiprocessors. Where torch sees a GPU, nothing here applies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.utils._triton
import triton
from triton.backends.compiler import GPUTarget

_NAME = "NVIDIA H100 80GB HBM3"
TARGET = f"H100 SXM,ptx_isa=9.0,name={_NAME}"  # of CUDA 13.0
_PROPERTIES = SimpleNamespace(
    name=_NAME,
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=85_029_158_912,
    warp_size=32,
    L2_cache_size=52_428_800,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2048,
    shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448,
    shared_memory_per_multiprocessor=233_472,
)

# What libraries read here rather than ask the driver for it.
_ENVIRONMENT = {
    "CUTE_DSL_ARCH": "sm_90a",
    "FLASH_ATTENTION_ARCH": "sm_90a",
    "FLASH_ATTENTION_NUM_SMS": "132",
    "GEMS_VENDOR": "nvidia",
}


class _Driver:
    """Triton's driver, as far as launchers ask it."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {
            "multiprocessor_count": _PROPERTIES.multi_processor_count,
            "max_shared_mem": _PROPERTIES.shared_memory_per_block_optin,
            "max_num_regs": _PROPERTIES.regs_per_multiprocessor,
            "warpSize": _PROPERTIES.warp_size,
        }
    )

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return torch.cuda

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)


def answer(language: str) -> None:
    """For the rest of this process: what does not depend on there being a GPU."""
    if torch.cuda.is_available():
        return
    for name, value in {
        "current_device": 0,
        "device_count": 1,
        "get_device_capability": (9, 0),
        "get_device_name": _NAME,
        "get_device_properties": _PROPERTIES,
    }.items():
        setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    os.environ |= _ENVIRONMENT
    torch.version.cuda = "13.0"
    torch.utils._triton.has_triton = lambda: True
    triton.runtime.driver.set_active(_Driver())
    if language == "cutedsl":
        _answer_cutlass()


def _answer_cutlass() -> None:
    """What CuTe DSL asks the driver, and schedulers of persistent kernels ask it."""
    from cutlass.utils import HardwareInfo

    sms = _PROPERTIES.multi_processor_count
    HardwareInfo.__init__ = lambda self, device_id=0: None
    HardwareInfo.get_device_multiprocessor_count = lambda self: sms
    HardwareInfo.get_max_active_clusters = lambda self, cluster_size, *_, **__: (
        sms // cluster_size
    )


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside, torch says that there is a GPU. Libraries ask when they are imported."""
    with mock.patch.object(torch.cuda, "is_available", lambda: True):
        yield
