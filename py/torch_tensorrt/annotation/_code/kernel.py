# SPDX-License-Identifier: BSD-3-Clause

"""The kernel that TensorRT gets: code in its order, and how to launch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy

from ..errors import AnnotationError
from . import ptx
from .effects import LOADED, STORED, UNKNOWN

_NOTES = {
    f"{LOADED}, {STORED}": "is loaded before it is stored to, and starts uninitialized",
    UNKNOWN: "is used in a way that cannot be read from the code",
}

_HIDDEN = ("hidden", "scratch")  # kinds of parameters that the op does not return


@dataclass(frozen=True)
class Kernel:
    """What TensorRT gets: code whose entry takes inputs, extras and outputs.

    Its hidden buffers are its last parameters, all of them, until it is :meth:`placed`
    among the outputs of a plugin: those of its program, and then its scratch memory.

    Attributes:
        entry: name of the kernel in the code; unique once it is :meth:`named`.
        code: PTX.
        digest: of the code, whatever the entry's name.
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        extras: the expressions of the 32-bit arguments.
        names: of the kernel's parameters that they are, for people.
        shared_memory: dynamic, in bytes a block.
        static_shared_memory: in bytes a block.
        registers: a thread.
        spills: bytes spilled to local memory, loads and stores.
        facts: what the compiler knew about the arguments, for people.
        retargeted: the PTX ISA that the code was lowered from, where it was.
        scratch: bytes a block of the grid, of each scratch buffer.
        aligned: hidden buffers whose address the entry rounds up, by their number.
        effects: by ``"input 0"``, ``"output 0"``, ``"hidden 0"`` and ``"scratch 0"``,
            what :mod:`.effects` finds.
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
    scratch: tuple[int, ...]
    aligned: tuple[int, ...]
    effects: dict[str, str]
    names: tuple[str, ...]

    def named(self, entry: str) -> Kernel:
        """The same kernel under a name of its own: TensorRT confuses equal ones."""
        return replace(self, entry=entry, code=ptx.rename(self.code, self.entry, entry))

    @property
    def hidden(self) -> tuple[int, ...]:
        """The hidden buffers that it needs; any address is good enough for others."""
        named = ((n.split()[0], does) for n, does in self.effects.items())
        hidden = (does for kind, does in named if kind in _HIDDEN)
        return tuple(index for index, does in enumerate(hidden) if does)

    def placed(self, places: Mapping[int, int], count: int, aliased: int = 0) -> Kernel:
        """The kernel of a plugin that has ``count`` hidden outputs.

        A buffer without a place gets the address of the first input.

        Args:
            aliased: outputs before them that are inputs, too; it takes their inputs.
            places: for a hidden buffer, which of the hidden outputs it is.
        """
        kinds = [name.split()[0] for name in self.effects]
        inputs, outputs = map(kinds.count, ("input", "output"))
        hidden = sum(map(kinds.count, _HIDDEN))
        if not count and not hidden and not aliased:
            return self
        slots = [ptx.Slot(ptx.Kind.INPUT, index) for index in range(inputs)]
        slots += [ptx.Slot(ptx.Kind.EXTRA, index) for index in range(len(self.extras))]
        slots += [ptx.Slot(ptx.Kind.OUTPUT, index) for index in range(outputs)]
        for index in range(hidden):
            place = places.get(index)
            nowhere = ptx.Slot(ptx.Kind.INPUT, 0)
            somewhere = ptx.Slot(ptx.Kind.OUTPUT, outputs + aliased + (place or 0))
            slots.append(nowhere if place is None else somewhere)
        taken = "_".join(str(places.get(index, "x")) for index in range(hidden))
        made = f"a{aliased}_h{count}" if aliased else f"h{count}"
        entry = f"{self.entry}_{made}_{taken}".rstrip("_")  # as unique as the code
        counts = inputs, len(self.extras), outputs + aliased + count
        code = ptx.reorder(self.code, slots, counts, entry)
        return replace(self, entry=entry, code=code)

    @property
    def launched_as(self) -> tuple[Any, ...]:
        """Equal for kernels that are the same code, launched in the same way."""
        return self.digest, self.grid, self.block, self.extras, self.shared_memory

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the code, and may be right; for people."""
        return tuple(
            f"{tensor} {_NOTES[does]}"
            for tensor, does in self.effects.items()
            if does in _NOTES
            and not tensor.startswith("scratch")
            # An input that is written holds something before.
            and not (tensor.startswith("input") and STORED in does)
        )


Outcome: TypeAlias = Kernel | AnnotationError  # of compiling one launch
