# SPDX-License-Identifier: BSD-3-Clause

"""The GPU that a function sees while it is recorded: the target's, not this machine's.

Launch functions ask for the number of multiprocessors, the compute capability, and the
shared memory of a block. The target answers as far as it is known; what it does not say
is refused, so that nothing of the build machine gets into an engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.utils._python_dispatch
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

from .._target import SHARED_MEMORY
from ..errors import TargetError
from .recording import in_torch, is_running, is_users, refuse, target, users_line

WARP_SIZE = 32
MAX_REGISTERS = 65536  # of a multiprocessor, and of a block, from 7.5 on

# "Technical Specifications per Compute Capability", CUDA C++ programming guide.
_MOST_RESIDENT_THREADS = {
    **{75: 1024, 80: 2048, 86: 1536, 87: 1536, 89: 1536, 90: 2048, 100: 2048},
    **{103: 2048, 120: 1536, 121: 1536},
}


def sm_count() -> int:
    """The target's number of multiprocessors.

    Raises:
        TargetError: it does not say.
    """
    gpu = target("the number of multiprocessors")
    if gpu.sm_count is None:
        refuse(
            TargetError(
                "the launch function asks for the number of multiprocessors at "
                f"{users_line()}, and target {gpu.arch} does not say it: pass "
                f"Target({gpu.arch!r}, sm_count=...), or its text "
                f"'{gpu.arch},sm_count=132', or name the GPU, as 'H100 SXM'."
            )
        )
    return gpu.sm_count


def _name() -> str:
    """What the driver calls the target.

    Raises:
        TargetError: it does not say.
    """
    gpu = target("the name of the GPU")
    if gpu.name is None:
        refuse(
            TargetError(
                f"the launch function asks for the name of the GPU at {users_line()}, "
                f"and target {gpu.arch} does not say it: pass Target({gpu.arch!r}, "
                f"name='NVIDIA ...'), or its text '{gpu.arch},name=NVIDIA ...'."
            )
        )
    return gpu.name


def refuse_to_say(what: str) -> NoReturn:
    """Refuse what no target says of itself."""
    gpu = target(f"`{what}` of the GPU")
    refuse(
        TargetError(
            f"the launch function asks for `{what}` of the GPU at {users_line()}, "
            f"which target {gpu.arch} does not say. Decide by its compute capability "
            "or number of multiprocessors, or make the choice a config key."
        )
    )


class Properties:
    """What ``torch.cuda.get_device_properties`` returns, of the target.

    Outside of a recording it answers for the machine: the user's code may have kept it.
    """

    def __init__(self, device: Any = None) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not is_running():
            return getattr(torch.cuda.get_device_properties(self._device), name)
        answer = _PROPERTIES.get(name)
        return refuse_to_say(name) if answer is None else answer()


def _resident_threads() -> int:
    gpu = target("the threads of a multiprocessor")
    known = _MOST_RESIDENT_THREADS.get(gpu.capability)
    return known or refuse_to_say("max_threads_per_multi_processor")


def shared_memory() -> int:
    """The bytes of shared memory that a block of an engine may ask for."""
    return target("the shared memory of a block").shared_memory


_PROPERTIES: dict[str, Callable[[], Any]] = {
    "name": _name,
    "major": lambda: capability()[0],
    "minor": lambda: capability()[1],
    "multi_processor_count": sm_count,
    "warp_size": lambda: WARP_SIZE,
    "regs_per_multiprocessor": lambda: MAX_REGISTERS,
    "max_threads_per_block": lambda: 1024,
    "max_threads_per_multi_processor": _resident_threads,
    "shared_memory_per_block": lambda: SHARED_MEMORY,
    "shared_memory_per_block_optin": shared_memory,
}


def capability() -> tuple[int, int]:
    """The target's compute capability."""
    major, minor = divmod(target("the compute capability").capability, 10)
    return major, minor


def _bf16_is_supported(including_emulation: bool = True) -> bool:
    return including_emulation or capability() >= (8, 0)


def _of_users(answer: Any) -> Callable[..., Any]:
    """For the user's code; torch asks of the machine that it runs on."""

    def ask(original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        asking = sys._getframe(2).f_code.co_filename
        return original(*args, **keywords) if in_torch(asking) else answer

    return ask


def _unknown(name: str) -> Callable[..., Any]:
    """Refuse a question of the user's code about the machine that records."""

    def ask(original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        asking = sys._getframe(2).f_code.co_filename
        if in_torch(asking):
            return original(*args, **keywords)
        return refuse_to_say(f"torch.cuda.{name}()")

    return ask


_OF_THE_MACHINE = (
    *("mem_get_info", "memory_allocated", "max_memory_allocated", "memory_reserved"),
    *("max_memory_reserved", "memory_stats", "get_arch_list"),
)


def _modes(original: Callable[..., Any]) -> Any:
    """What torch's ``active_fake_mode()`` looks through.

    Libraries compile and do not launch where there is a fake mode.
    """
    asking = sys._getframe(2)
    is_asked_for = asking.f_code is active_fake_mode.__code__
    if is_asked_for and asking.f_back and is_users(asking.f_back.f_code.co_filename):
        return [mode for mode in original() if not isinstance(mode, FakeTensorMode)]
    return original()


def _always(answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda original, *args, **keywords: answer(*args, **keywords)


# Functions of torch's, and what answers in their place. An answer gets the original
# function first, and then the arguments.
QUESTIONS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (torch.cuda, "get_device_properties", _always(Properties)),
    (torch.cuda, "_get_device_properties", _always(Properties)),
    (torch.cuda, "get_device_capability", _always(lambda device=None: capability())),
    (torch.cuda, "get_device_name", _always(lambda device=None: _name())),
    (torch.cuda, "is_bf16_supported", _always(_bf16_is_supported)),
    (torch.cuda, "current_device", _always(lambda: 0)),
    (torch.cuda, "device_count", _of_users(1)),
    (torch.cuda, "is_available", _of_users(True)),
    (torch.cuda, "is_current_stream_capturing", _of_users(False)),
    *((torch.cuda, name, _unknown(name)) for name in _OF_THE_MACHINE),
    (torch.utils._python_dispatch, "_get_current_dispatch_mode_stack", _modes),
    (torch.accelerator, "current_device_index", _always(lambda: 0)),
    (torch.accelerator, "device_count", _of_users(1)),
    (torch.accelerator, "is_available", _of_users(True)),
)
