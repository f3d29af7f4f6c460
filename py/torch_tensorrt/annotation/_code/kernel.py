# SPDX-License-Identifier: BSD-3-Clause

"""The kernel that TensorRT gets: code in its order, and how to launch it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy

from ..errors import AnnotationError
from . import ptx


@dataclass(frozen=True)
class Kernel:
    """What TensorRT gets: code whose entry takes inputs, extras and outputs.

    Attributes:
        entry: name of the kernel in the code; unique once it is :meth:`named`.
        code: PTX.
        digest: of the code, whatever the entry's name.
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        extras: the expressions of the 32-bit arguments.
        shared_memory: dynamic, in bytes a block.
        static_shared_memory: in bytes a block.
        registers: a thread.
        spills: bytes spilled to local memory, loads and stores.
        facts: what the compiler knew about the arguments, for people.
        retargeted: the PTX ISA that the code was lowered from, where it was.
    """

    entry: str
    code: str
    digest: str
    grid: tuple[sympy.Basic, ...]
    block: tuple[int, ...]
    extras: tuple[sympy.Basic, ...]
    shared_memory: int
    static_shared_memory: int
    registers: int
    spills: int
    facts: str
    retargeted: str

    def named(self, entry: str) -> Kernel:
        """The same kernel under a name of its own: TensorRT confuses equal ones."""
        code = ptx.rename(self.code, self.entry, entry)
        return replace(self, entry=entry, code=code)

    @property
    def launched_as(self) -> tuple[Any, ...]:
        """Equal for kernels that are the same code, launched in the same way."""
        return self.digest, self.grid, self.block, self.extras, self.shared_memory


Outcome: TypeAlias = Kernel | AnnotationError  # of compiling one launch
