# SPDX-License-Identifier: BSD-3-Clause

"""``cuda.core``, while a function is recorded."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..._record.device import Properties, capability
from ..._record.recording import refuse, users_line
from ...errors import ArgumentError, UnsupportedKernelError
from ..abi import unlaunchable
from .kernel import Code
from .launch import Call, is_catching, launched
from .library import (
    Kernel,
    Stream,
    Swap,
    attribute,
    forget,
    in_recordings,
    made,
    nothing,
    refuse_compiled,
)

MODULES = ("cuda.core", "cuda.core.experimental")


class _CoreKernel(Kernel):
    """A ``Kernel``."""

    library = "cuda.core"

    def launch(self, config: Any, args: Sequence[Any]) -> None:
        """What ``cuda.core.launch`` does with it."""
        name = self._code.base
        for asks in ("is_cooperative", "programmatic_stream_serialization"):
            if getattr(config, asks, False):
                refuse(unlaunchable(name, f"it is launched with {asks}"))
        call = Call(
            self._code,
            config.grid,
            config.block,
            args,
            config.shmem_size or 0,
            config.cluster or (1, 1, 1),
            self.library,
        )
        clusters, _, cluster = call.sizes  # its grid is in clusters
        grid = tuple(n * size for n, size in zip(clusters, cluster, strict=True))
        if not launched(replace(call, grid=grid)):
            refuse(
                ArgumentError(
                    f"kernel {name}: made while its launch function was recorded, and "
                    "launched outside. Make it anew."
                )
            )


_Capability = namedtuple("_Capability", "major minor")


class _Device:
    """A ``Device``: the target."""

    device_id = 0
    set_current = sync = nothing

    def __init__(self, device_id: Any = None) -> None:
        self.properties = _Properties()

    @property
    def compute_capability(self) -> Any:
        """The target's."""
        return _Capability(*capability())

    @property
    def arch(self) -> str:
        """The target's, as ``"90"``."""
        return "".join(map(str, capability()))

    @property
    def name(self) -> str:
        """The target's."""
        return str(Properties().name)

    def create_stream(self, *_: Any, **__: Any) -> Any:
        """A stream that nothing runs on."""
        return Stream()

    default_stream = property(create_stream)


class _Properties:
    """What ``Device.properties`` has, by torch's names and by those of its own."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(Properties(), _TORCHS.get(name, name))


_TORCHS = {
    "multiprocessor_count": "multi_processor_count",
    "max_shared_memory_per_block": "shared_memory_per_block",
    "max_shared_memory_per_block_optin": "shared_memory_per_block_optin",
    "max_threads_per_multiprocessor": "max_threads_per_multi_processor",
    "max_registers_per_multiprocessor": "regs_per_multiprocessor",
}


class _Program:
    """A ``Program``."""

    close = nothing

    def __init__(self, code: Any, code_type: str, options: Any = None) -> None:
        self._text = code.decode() if isinstance(code, bytes) else str(code)
        self._kind = str(code_type).lower()
        written = () if options is None else options.as_bytes("nvrtc")
        self._options = [option.decode() for option in written]
        if self._kind not in ("c++", "ptx"):
            why = "Write it in CUDA C++, or pass PTX."
            what = f"cuda.core.Program of {code_type} at {users_line()}"
            refuse(UnsupportedKernelError(f"{what}: an engine has PTX. {why}"))

    def compile(self, *_: Any, **__: Any) -> _ObjectCode:
        """The code, which is compiled for the target, and later."""
        return _ObjectCode(self._text, self._options, self._kind == "ptx")


class _ObjectCode:
    """An ``ObjectCode``."""

    def __init__(self, text: str, options: Sequence[str], is_ptx: bool) -> None:
        self._text, self._options, self._is_ptx = text, options, is_ptx
        made.add(self)

    @staticmethod
    def from_ptx(module: Any, **_: Any) -> _ObjectCode:
        """Ready PTX: its text as bytes, or a path."""
        is_text = isinstance(module, bytes)
        text = module.decode() if is_text else Path(module).read_text()
        return _ObjectCode(text.rstrip("\0"), (), True)

    def get_kernel(self, name: Any) -> _CoreKernel:
        """A kernel of it."""
        name = name.decode() if isinstance(name, bytes) else name
        if self._is_ptx:
            code = Code(self._text, name, is_ptx=True)
        else:
            code = Code.of(self._text, name, self._options)
        return _CoreKernel(code, nothing)  # it launches nothing outside

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        what = f"`{name}` of a cuda.core.ObjectCode at {users_line()}"
        why = "It is compiled for the target, and later. Use get_kernel(name)."
        refuse(ArgumentError(f"{what} is not known while recording. {why}"))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


def _config(
    grid: Any = None,
    cluster: Any = None,
    block: Any = None,
    shmem_size: Any = None,
    **asks: Any,
) -> Any:
    return SimpleNamespace(
        grid=grid, cluster=cluster, block=block, shmem_size=shmem_size, **asks
    )


def swaps() -> Iterator[Swap]:
    """What is replaced of ``cuda.core``, where it is imported."""
    for module in filter(None, map(sys.modules.get, MODULES)):
        forget(module.Kernel, module.ObjectCode)
        for name, stand_in in {
            "Device": _Device,
            "LaunchConfig": _config,
            "ObjectCode": _ObjectCode,
            "Program": _Program,
            "Stream": Stream,
        }.items():
            either = in_recordings(getattr(module, name), stand_in)
            yield attribute(module, name, either)
        options = _options(module.ProgramOptions)
        yield attribute(module, "ProgramOptions", options)
        yield attribute(module, "launch", _launching(module.launch))


def _options(original: Any) -> Callable[..., Any]:
    def options(*args: Any, **keywords: Any) -> Any:
        if is_catching() and len(args) < 2 and keywords.get("arch") is None:
            keywords["arch"] = f"sm_{_Device().arch}"
        return original(*args, **keywords)

    return options


def _launching(original: Callable[..., Any]) -> Callable[..., Any]:
    def launch(stream: Any, config: Any, kernel: Any, *args: Any) -> None:
        if isinstance(kernel, _CoreKernel):
            kernel.launch(config, args)
        elif is_catching():
            refuse_compiled("of cuda.core", "cuda.core")
        else:
            original(stream, config, kernel, *args)

    return launch
