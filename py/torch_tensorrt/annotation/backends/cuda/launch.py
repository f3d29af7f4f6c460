# SPDX-License-Identifier: BSD-3-Clause

"""One launch of a CUDA kernel: caught while a function is recorded, or made."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..._code.loaded import LoadedKernel
from ..._code.ptx import parse
from ..._record.address import Address
from ...errors import ArgumentError
from .. import CaughtLaunch
from .entry import only_entry
from .kernel import Code
from .scalars import CTYPES, Sized, host_type
from .signature import parameter_types

# The last arguments of a caught launch, which no parameter of the kernel takes.
GEOMETRY = ("block.x", "block.y", "block.z", "shared_memory")


@dataclass(frozen=True)
class BoundKernel:
    """A kernel, and what the host passes it.

    Attributes:
        hosts: for each argument the type that the library gives it, as NumPy names it;
            ``"pointer"`` for a tensor; empty where the kernel's parameter decides.
        library: that passes them, for messages; empty for :class:`CUDAKernel`.
    """

    code: Code
    hosts: tuple[str, ...]
    library: str = ""

    def __str__(self) -> str:
        digest = hashlib.sha256(self.code.text.encode()).hexdigest()
        return f"{self.code} of source {digest[:8]}"


@dataclass(frozen=True)
class Call:
    """A call of a kernel, as the user's code makes it.

    Attributes:
        library: whose call it is; empty for :class:`CUDAKernel`.
    """

    code: Code
    grid: Any
    block: Any
    args: Sequence[Any]
    shared_memory: Any = 0
    cluster: Any = (1, 1, 1)
    library: str = ""

    @property
    def sizes(self) -> tuple[tuple[Any, Any, Any], ...]:
        """Grid, block and cluster, each along x, y and z."""
        names = ("grid", "block", "cluster")
        return tuple(self._three(name, getattr(self, name)) for name in names)

    def _three(self, what: str, sizes: Any) -> tuple[Any, Any, Any]:
        given = tuple(sizes) if isinstance(sizes, tuple | list) else (sizes,)
        if not 1 <= len(given) <= 3:
            raise ArgumentError(
                f"kernel {self.code.base}: the {what} has {len(given)} dimensions; "
                "1 to 3 are possible."
            )
        x, y, z = [*map(_number, given), 1, 1][:3]
        return x, y, z


def _number(value: Any) -> Any:
    return value.value if isinstance(value, Sized) else value


class _Catching(threading.local):
    """Of each thread: where it reports its launches, while it records."""

    on_launch: Callable[[CaughtLaunch], None] | None = None
    overrides: Mapping[str, Any] | None = None


_catching = _Catching()


@contextlib.contextmanager
def catching(
    on_launch: Callable[[CaughtLaunch], None], overrides: Mapping[str, Any] | None
) -> Iterator[None]:
    """While entered, launches of this thread are reported and not made."""
    before = _catching.on_launch, _catching.overrides
    _catching.on_launch, _catching.overrides = on_launch, overrides
    try:
        yield
    finally:
        _catching.on_launch, _catching.overrides = before


def is_catching() -> bool:
    """Whether this thread records."""
    return _catching.on_launch is not None


def launched(call: Call) -> bool:
    """Report a call, if this thread records; whether it does.

    Raises:
        ArgumentError: the call is not one that an engine can make.
    """
    if _catching.on_launch is None:
        return False
    if overrides := _catching.overrides:
        raise ArgumentError(
            f"kernel {call.code.base}: the config sets {', '.join(overrides)}, and the "
            "op's body computes its grid without. Give tta.cuda() a function that "
            "takes them as keywords, and launches the kernel with them."
        )
    _catching.on_launch(_read(call))
    return True


def _read(call: Call) -> CaughtLaunch:
    grid, block, cluster = call.sizes
    if not all(type(blocks) is int for blocks in cluster):
        raise ArgumentError(
            f"kernel {call.code.base}: its clusters are {cluster} blocks; they must be "
            "ints that follow no dynamic size."
        )
    names = call.code.parameters(len(call.args))
    values = [_as_argument(call, *each) for each in zip(names, call.args, strict=True)]
    arguments = [
        (name, value, False) for name, (value, _) in zip(names, values, strict=True)
    ]
    geometry = zip(GEOMETRY, (*block, _number(call.shared_memory)), strict=True)
    arguments += [(name, value, True) for name, value in geometry]
    return CaughtLaunch(
        kernel=BoundKernel(call.code, tuple(host for _, host in values), call.library),
        name=call.code.base,
        grid=grid,
        arguments=tuple(arguments),
        options={"cluster": cluster},
    )


def _as_argument(call: Call, name: str, value: Any) -> tuple[Any, str]:
    """An argument as the recorder takes it, and the type that the host gives it."""
    if (tensor := getattr(value, "tta_tensor", None)) is not None:
        return tensor, "pointer"
    if isinstance(value, torch.Tensor):
        return value, "pointer"
    if type(value) is Address:
        return (value if value.tensor is None else value.tensor), "pointer"
    if value is None:
        return None, "pointer"
    host = host_type(value, call.library)
    if host is None:
        raise ArgumentError(
            f"kernel {call.code.base}, argument `{name}`: {type(value).__name__} "
            f"{value!r} is not what {call.library or 'CUDAKernel'} passes. Pass "
            "tensors, ints, floats and bools."
        )
    if isinstance(value, Sized):
        is_float = value.host.startswith("float")
        return (value.as_float() if is_float else value.value), host
    if isinstance(value, np.generic):
        return value.item(), host
    return getattr(value, "value", value), host  # of ctypes


# --- On a GPU, where nothing is recorded ----------------------------------------------


@lru_cache(256)
def _loaded(code: Code, device: int) -> tuple[LoadedKernel, tuple[Any, ...]]:
    """The kernel on a GPU, and the types of its parameters."""
    from .nvrtc import compile_source

    if code.is_ptx:
        text, entry, signature = code.text, code.name, code.name
    else:
        major, minor = torch.cuda.get_device_capability(device)
        architecture = code.architecture or f"sm_{major}{minor}"
        compiled = compile_source(code, architecture.replace("sm_", "compute_"))
        text, entry, signature = compiled.ptx, compiled.entry, compiled.signature
    text = only_entry(text, entry, code.base)
    types = parse(text).parameters
    return LoadedKernel(text, entry), tuple(
        zip(types, parameter_types(signature, len(types)), strict=True)
    )


def launch_here(call: Call, stream: Any) -> None:
    """Launch on this machine's GPU, as the user's own call does.

    Raises:
        ArgumentError: the arguments do not fit the kernel.
        LaunchError: the driver does not launch it.
    """
    kernel, parameters = _loaded(call.code, torch.cuda.current_device())
    if len(parameters) != len(call.args):
        raise ArgumentError(
            f"kernel {call.code.base}: it takes {len(parameters)} arguments, and was "
            f"launched with {len(call.args)}."
        )
    values: list[Any] = []
    types: list[Any] = []
    for (parameter, declared), value in zip(parameters, call.args, strict=True):
        if isinstance(value, torch.Tensor) and not value.is_cuda:
            raise ArgumentError(
                f"kernel {call.code.base}: launched with a tensor on {value.device}. "
                "Move it to the GPU."
            )
        if value is None or isinstance(value, torch.Tensor):
            values.append(0 if value is None else value.data_ptr())
            types.append(ctypes.c_void_p)
            continue
        number = value.item() if isinstance(value, np.generic) else value
        number = getattr(number, "value", number)  # of ctypes
        kind = parameter.type
        if isinstance(number, float):  # bits that PTX does not call floats
            kind = {"b32": "f32", "b64": "f64"}.get(kind, kind)
        values.append(number)
        types.append(CTYPES[(declared.host if declared else "") or kind])
    grid, block, _ = call.sizes
    stream = torch.cuda.current_stream() if stream is None else stream
    handle = getattr(stream, "cuda_stream", stream)
    kernel.launch_as_is(
        (*grid, *block), call.shared_memory, handle, (tuple(values), tuple(types))
    )
