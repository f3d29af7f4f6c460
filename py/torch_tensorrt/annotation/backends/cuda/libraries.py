# SPDX-License-Identifier: BSD-3-Clause

"""Kernels of torch, CuPy and ``cuda.core``, while a function is recorded.

Each library compiles a kernel for the GPU of the machine, and keeps no source of what
it compiled. So its functions that compile are replaced: what they return keeps the
source, and reports its launches.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

from ..._fingerprint import is_versioned
from ..._record.tables import drop
from . import library_core, library_cupy, library_torch, scalars
from .kernel import CUDAKernel
from .library import Swap, made

_LIBRARIES = ("cupy", *library_core.MODULES)
_lock = threading.RLock()


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """While entered, kernels of this thread's that the libraries make are reported."""
    with _lock, contextlib.ExitStack() as stack:
        swaps = [
            *library_torch.swaps(),
            *library_cupy.swaps(),
            *library_core.swaps(),
        ]
        stand_ins = {id(original): new for _, original, new in swaps}
        swaps += [*_held_by_users(stand_ins), *library_cupy.kernels()]
        for put, original, new in swaps:
            stack.callback(put, original)
            put(new)
        try:
            yield
        finally:
            drop(made)  # cuda.core launches nothing but its own
            made.clear()


def _held_by_users(stand_ins: dict[int, Any]) -> Iterator[Swap]:
    """Names in the user's modules that mean something replaced.

    Numbers with a size are replaced only beside kernels: other code may rely on what
    the types are.
    """
    numbers = {id(original): new for original, new in scalars.stand_ins()}
    libraries = {*stand_ins, *map(id, filter(None, map(sys.modules.get, _LIBRARIES)))}
    for full_name, module in tuple(sys.modules.items()):
        if not isinstance(module, ModuleType) or is_versioned(full_name):
            continue
        names = ModuleType.__getattribute__(module, "__dict__")
        values = tuple(names.items())
        has_kernels = any(
            id(value) in libraries or type(value) is CUDAKernel for _, value in values
        )
        known = {**numbers, **stand_ins} if has_kernels else stand_ins
        for name, value in values:
            if id(value) in known:
                yield partial(names.__setitem__, name), value, known[id(value)]
