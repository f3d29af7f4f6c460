# SPDX-License-Identifier: BSD-3-Clause

"""Run a compiled CuTe DSL host launcher natively, with no GPU.

The functions of the CUDA runtime that it calls are replaced by ones that note what the
launch was given: what symbolic execution of the same code must foretell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cutlass._mlir import ir
from cutlass._mlir.execution_engine import ExecutionEngine


class _Config(ctypes.Structure):
    """``cudaLaunchConfig_t``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )


@dataclass(frozen=True)
class NativeLaunch:
    """What one launch was given; the bytes of each parameter."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_memory: int
    parameters: tuple[bytes, ...]


class HostOracle:
    """The host function ``function`` of ``module``.

    Args:
        sizes: bytes of each parameter of the kernel.
    """

    def __init__(self, module: Any, function: str, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._launches: list[NativeLaunch] = []
        self._engine = ExecutionEngine(module, opt_level=0, shared_libs=[])
        launch = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(_Config),
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
        )
        succeed = ctypes.CFUNCTYPE(ctypes.c_int)
        self._callbacks = [launch(self._note), succeed(lambda: 0)]  # kept alive
        note, nothing = (ctypes.cast(c, ctypes.c_void_p) for c in self._callbacks)
        with module.context:
            for operation in (o.operation for o in module.body.operations):
                if operation.name != "llvm.func":
                    continue
                name = ir.StringAttr(operation.attributes["sym_name"]).value
                is_declared_only = not operation.regions[0].blocks
                if is_declared_only and name != "printf":
                    is_launch = name == "_cudaLaunchKernelEx"
                    self._engine.raw_register_runtime(
                        name, note if is_launch else nothing
                    )
        self._function = self._engine.lookup(function)

    def __call__(self, arguments: Sequence[int]) -> list[NativeLaunch]:
        """The launches for these addresses and numbers, each passed in 64 bits."""
        self._launches.clear()
        values = [ctypes.c_int64(value) for value in (*arguments, -1)]  # and a result
        pointers = [ctypes.addressof(value) for value in values]
        self._function((ctypes.c_void_p * len(values))(*pointers))
        return list(self._launches)

    def _note(self, config: Any, kernel: Any, arguments: Any) -> int:
        given = config.contents
        self._launches.append(
            NativeLaunch(
                tuple(given.grid),
                tuple(given.block),
                given.shared_memory,
                tuple(
                    ctypes.string_at(arguments[index], size)
                    for index, size in enumerate(self._sizes)
                ),
            )
        )
        return 0


def field(data: bytes, offset: int, size: int) -> int:
    """The signed integer in ``size`` bytes of ``data``."""
    return int.from_bytes(data[offset : offset + size], "little", signed=True)
