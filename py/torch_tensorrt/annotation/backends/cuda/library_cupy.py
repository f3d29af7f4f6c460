# SPDX-License-Identifier: BSD-3-Clause

"""``RawKernel`` and ``RawModule`` of CuPy, while a function is recorded.

They keep their source, and compile it when they are first launched. So those that the
user's code holds already are replaced as well.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import CellType, SimpleNamespace
from typing import Any

import torch

from ..._record.recording import refuse
from ...errors import UnsupportedKernelError
from ..abi import unlaunchable
from .kernel import Code
from .launch import is_catching
from .library import Kernel, Stream, Swap, attribute, in_recordings, nothing

# What CuPy adds to the options that a kernel is given.
_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


class _CuPyKernel(Kernel):
    """A ``RawKernel``, or a function of a ``RawModule``."""

    library = "CuPy"
    max_dynamic_shared_size_bytes = 0  # an engine gets what a launch asks for
    compile = nothing  # for the target, and later

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: Any = 0
    ) -> None:
        if not self._launch(grid, block, args, shared_mem):
            self._original(grid, block, args, shared_mem=shared_mem)


class _CuPyModule:
    """A ``RawModule``."""

    compile = nothing  # for the target, and later

    def __init__(self, original: Any) -> None:
        self._original = original

    def get_function(self, name: str) -> _CuPyKernel:
        """A kernel of it."""
        code = _code(name, self._original)
        return _CuPyKernel(code, lambda: self._original.get_function(name))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


def _standing_for(original: Any) -> Any:
    """A call of CuPy's kernel, or module, that is made when it is used."""
    if hasattr(original, "get_function"):
        return _CuPyModule(original)
    return _CuPyKernel(_code(original.name, original), lambda: original)


def _code(name: str, original: Any) -> Code:
    """The code of a kernel, or of a kernel in a module."""
    path = original.file_path
    asks = {
        "backend='nvcc'": original.backend != "nvrtc",
        "a CUBIN": path is not None and not str(path).endswith(".ptx"),
    }
    for what, is_asked in asks.items():
        if is_asked:
            why = f"it is made with {what}. Make it of CUDA C++ with NVRTC, or of PTX."
            refuse(UnsupportedKernelError(f"kernel {name}: {why}"))
    if original.enable_cooperative_groups:
        refuse(unlaunchable(name, "it is launched cooperatively"))
    if path is not None:
        return Code(Path(path).read_text(), name, is_ptx=True)
    return Code.of(original.code, name, [*original.options, *_OPTIONS])


def _array(tensor: torch.Tensor) -> Any:
    """A CuPy array that shares a tensor's memory, and knows the tensor."""
    return SimpleNamespace(
        tta_tensor=tensor,
        data=SimpleNamespace(ptr=tensor.data_ptr()),
        size=tensor.numel(),
        shape=tensor.shape,
        ndim=tensor.dim(),
        itemsize=tensor.element_size(),
    )


def swaps() -> Iterator[Swap]:
    """What is replaced of CuPy, where it is imported."""
    if (cupy := sys.modules.get("cupy")) is None:
        return

    def making(original: Any) -> Any:
        def make(*args: Any, **keywords: Any) -> Any:
            return _standing_for(original(*args, **keywords))

        return in_recordings(original, make)

    def sharing(original: Any) -> Any:
        def share(value: Any, *args: Any, **keywords: Any) -> Any:
            if is_catching() and isinstance(value, torch.Tensor):
                return _array(value)
            return original(value, *args, **keywords)

        return share

    for name in ("RawKernel", "RawModule"):
        yield attribute(cupy, name, making(getattr(cupy, name)))
    for name in ("asarray", "from_dlpack"):
        yield attribute(cupy, name, sharing(getattr(cupy, name)))
    for name in ("Stream", "ExternalStream"):
        stream = in_recordings(getattr(cupy.cuda, name), Stream)
        yield attribute(cupy.cuda, name, stream)


def kernels() -> Iterator[Swap]:
    """The kernels and modules of CuPy's that the user's code holds."""
    if (raw := sys.modules.get("cupy._core.raw")) is None:
        return
    kinds = (raw.RawKernel, raw.RawModule)
    for value in [each for each in gc.get_objects() if type(each) in kinds]:
        stand_in = _standing_for(value)
        for holder in gc.get_referrers(value):
            if type(holder) is dict:
                for key in [key for key, held in holder.items() if held is value]:
                    yield partial(holder.__setitem__, key), value, stand_in
            elif type(holder) is CellType:  # a variable of a closure
                yield attribute(holder, "cell_contents", stand_in)
