# SPDX-License-Identifier: BSD-3-Clause

"""What every language's kernel has in common: the slots to fill, limits and refusals.

TensorRT launches with input pointers, 32-bit extras and output pointers, a grid, a
block and dynamic shared memory. A backend describes each parameter of its kernel's
entry by what TensorRT passes for it; whatever does not fit is refused here, in one
place.
"""

from __future__ import annotations

import math
import operator
import struct
from dataclasses import dataclass, replace

import sympy

from .._code.ptx import Kind, Slot
from .._record.address import ALIGNMENT as ALIGNMENT
from .._record.program import Grid, Pointer, Program
from .._sizes.facts import Facts, bounds, facts
from .._target import Target
from ..errors import ArgumentError, UnsupportedKernelError

# "Technical Specifications per Compute Capability", CUDA C++ programming guide.
MOST_THREADS = (1024, 1024, 64)  # along x, y and z; and as many as along x together
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel in its toolchain's own parameter order.

    Attributes:
        code: PTX with one entry.
        slots: for each parameter of the entry, what TensorRT passes.
        extras: the expressions of the extra arguments, by index.
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        shared_memory: dynamic shared memory, in bytes a block.
        ptxas: path of the assembler that checks the code.
        facts: what the compiler knew about the arguments, for people.
        retargeted: the PTX ISA that the compiler emitted, where the code was lowered
            from it to that of the driver.
        scratch: bytes a block of the grid, of each scratch buffer. A parameter with
            ``Slot(Kind.SCRATCH, i)`` takes the address of buffer ``i``: bytes times
            blocks, at a multiple of ``SCRATCH_ALIGNMENT``, and this launch's alone.
            Nothing is in it when the kernel starts.
    """

    code: str
    slots: tuple[Slot, ...]
    extras: tuple[sympy.Basic, ...]
    grid: Grid
    block: tuple[int, int, int]
    shared_memory: int
    ptxas: str
    facts: str = ""
    retargeted: str = ""
    scratch: tuple[int, ...] = ()


class Parameters:
    """The parameters of a kernel's entry, added one by one in the entry's order.

    Args:
        program: the launch whose kernel it is, and the tensors around it.
        aligned: every tensor starts at a multiple of ``ALIGNMENT`` bytes.

    Attributes:
        slots, extras, scratch: of :class:`CompiledKernel`.
        told: the facts that the compiler gets, for people: ``"x%16"``.
    """

    def __init__(self, program: Program, aligned: bool) -> None:
        self.program = program
        self.aligned = aligned
        self.slots: list[Slot] = []
        self.extras: list[sympy.Basic] = []
        self.scratch: list[int] = []
        self.told: list[str] = []

    def slot_of(self, pointer: Pointer) -> Slot:
        """Where TensorRT passes the address of a pointer's tensor."""
        inputs = len(self.program.inputs)
        if pointer.tensor < inputs:
            return Slot(Kind.INPUT, pointer.tensor)
        return Slot(Kind.OUTPUT, pointer.tensor - inputs)

    def address_of(self, pointer: Pointer) -> Slot:
        """The same, with the offset of a view; one that follows the shape is an extra.

        Raises:
            ArgumentError: the offset leaves the range of 32 bits within the profile.
        """
        slot, itemsize = self.slot_of(pointer), pointer.dtype.itemsize
        offset = pointer.offset
        if offset.is_Integer:
            return replace(slot, offset=int(offset) * itemsize)
        remedy = "pass the tensor, and offset it in the kernel"
        self.require_int32(pointer.name, offset, remedy)
        if offset not in self.extras:
            self.extras.append(offset)
        return replace(slot, offset=itemsize, factor=self.extras.index(offset))

    def alignment_of(self, pointer: Pointer) -> int:
        """Bytes, up to ``ALIGNMENT``, that divide the address at every shape; or 1."""
        divisor = self.facts(pointer.offset).divisor * pointer.dtype.itemsize
        return min(ALIGNMENT, divisor) if self.aligned else 1

    def add_pointer(self, pointer: Pointer) -> None:
        """A parameter that takes the address of a tensor, or of a view of it."""
        self.slots.append(self.address_of(pointer))

    def add_scratch(self, size: int) -> None:
        """A parameter that takes a buffer of ``size`` bytes for each block of the grid.

        The loads of this parameter round the address up, so the code has to read it as
        one 64-bit value: ``ld.param.u64 %rd, [name];``.
        """
        self.slots.append(Slot(Kind.SCRATCH, len(self.scratch)))
        self.scratch.append(size)

    def add_extra(self, expr: sympy.Basic) -> None:
        """A parameter that takes a 32-bit integer, or a condition."""
        self.slots.append(Slot(Kind.EXTRA, len(self.extras)))
        self.extras.append(expr)

    def add_float(self, name: str, value: float) -> None:
        """A parameter that takes a float: TensorRT passes the integer of its bits.

        Raises:
            ArgumentError: it is too large for 32 bits.
        """
        try:
            (bits,) = struct.unpack("<i", struct.pack("<f", value))
        except OverflowError as error:
            why = f"{value} is too large for a 32-bit float. Write it into the kernel."
            raise self.refused(name, why) from error
        self.add_extra(sympy.Integer(bits))

    def facts(self, expr: sympy.Basic) -> Facts:
        """What holds of ``expr`` over the profile."""
        return facts(expr, self.program.ranges)

    def require_int32(self, name: str, expr: sympy.Basic, remedy: str) -> Facts:
        """The facts of a value that becomes an extra argument.

        Args:
            name: of the kernel's parameter.
            remedy: a clause that follows "Narrow the profile, or".

        Raises:
            ArgumentError: it leaves the range of 32 bits within the profile.
        """
        if not (known := self.facts(expr)).fits_int32:
            worst = known.lower if known.upper <= 2**31 - 1 else known.upper
            raise self.refused(
                name,
                f"{expr} reaches {worst} within the profile, and TensorRT passes "
                f"32-bit integers only. Narrow the profile, or {remedy}.",
            )
        return known

    def refused(self, name: str, why: str) -> ArgumentError:
        """The error for an argument that TensorRT cannot pass."""
        kernel = self.program.launch.name
        return ArgumentError(f"kernel {kernel}, argument `{name}`: {why}")


def unsupported(kernel: str, why: str) -> UnsupportedKernelError:
    """The error for a kernel that TensorRT cannot launch; ``why`` ends in a remedy."""
    return UnsupportedKernelError(f"kernel {kernel}: {why}")


def unlaunchable(kernel: str, why: str) -> UnsupportedKernelError:
    """The error for a launch that is more than a grid, a block and shared memory."""
    return unsupported(
        kernel,
        f"{why}, which TensorRT does not do. Launch it, or choose a config, without.",
    )


def require_launchable(
    program: Program, compiled: CompiledKernel, target: Target
) -> None:
    """Raise where CUDA would not launch a kernel for some shape of the profile.

    Raises:
        UnsupportedKernelError: for its block, or its dynamic shared memory.
        ArgumentError: for its grid.
    """
    kernel, block = program.launch.name, compiled.block
    threads, most = math.prod(block), max(MOST_THREADS)
    if threads > most or any(map(operator.gt, block, MOST_THREADS)):
        shape = "x".join(map(str, block))
        raise unsupported(
            kernel,
            f"blocks of {shape} = {threads} threads; CUDA launches {most} at most, and "
            f"{MOST_THREADS[2]} along z. Launch smaller blocks.",
        )
    if compiled.shared_memory > target.max_shared_memory:
        raise unsupported(
            kernel,
            f"it asks for {compiled.shared_memory} bytes of dynamic shared memory; the "
            f"limit is {target.max_shared_memory}. Take smaller tiles or fewer stages, "
            "or raise Target.max_shared_memory.",
        )
    for axis, size, limit in zip("xyz", compiled.grid, _MOST_BLOCKS, strict=True):
        lower, upper = bounds(size, program.ranges)
        if lower < 1 or upper > limit:
            raise ArgumentError(
                f"kernel {kernel}: the grid's {axis}, {size}, runs from "
                f"{lower} to {upper} within the profile; CUDA launches 1 to {limit} "
                "blocks there. Narrow the profile, or change the grid."
            )
