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

from .._code.ptx import Kind, Slot, parse
from .._record.address import ALIGNMENT as ALIGNMENT
from .._record.program import Grid, Pointer, Program
from .._sizes.expressions import shown
from .._sizes.facts import Facts, bounds, facts
from .._target import SHARED_MEMORY, STATIC_DRIVER, Target, newest_ptx_isa
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
        names: of the kernel's own parameters that they are, by index, with the type of
            a float (``"eps: f32"``); empty where one stands for several, or for none.
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        shared_memory: dynamic shared memory, in bytes a block. Over 48 KiB it becomes
            a static array.
        ptxas: path of the assembler that checks the code.
        facts: what the compiler knew about the arguments, for people.
        retargeted: the PTX ISA that the compiler emitted, where the code was lowered
            from it to that of the driver.
        scratch: bytes a block of the grid, of each scratch buffer. A parameter with
            ``Slot(Kind.SCRATCH, i)`` takes the address of buffer ``i``: bytes times
            blocks, at a multiple of ``SCRATCH_ALIGNMENT``, and this launch's alone.
            Nothing is in it when the kernel starts.
        cluster: blocks along x, y and z of the clusters that it is launched in.
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
    cluster: tuple[int, int, int] = (1, 1, 1)
    names: tuple[str, ...] = ()


class Parameters:
    """The parameters of a kernel's entry, added one by one in the entry's order.

    Args:
        program: the launch whose kernel it is, and the tensors around it.
        aligned: every tensor starts at a multiple of ``ALIGNMENT`` bytes.

    Attributes:
        slots, extras, names, scratch: of :class:`CompiledKernel`.
        told: the facts that the compiler gets, for people: ``"x%16"``.
    """

    def __init__(self, program: Program, aligned: bool) -> None:
        self.program = program
        self.aligned = aligned
        self.slots: list[Slot] = []
        self.extras: list[sympy.Basic] = []
        self.scratch: list[int] = []
        self.names: list[str] = []
        self.told: list[str] = []

    def slot_of(self, pointer: Pointer) -> Slot:
        """Where TensorRT passes the address of a pointer's tensor."""
        inputs = len(self.program.inputs)
        if pointer.tensor < inputs:
            return Slot(Kind.INPUT, pointer.tensor)
        return Slot(Kind.OUTPUT, pointer.tensor - inputs)

    def address_of(self, pointer: Pointer) -> Slot:
        """Its slot, with the offset of a view. One that follows the shape is an extra.

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
            self.names.append(f"{pointer.name}.storage_offset()")
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

    def add_extra(self, expr: sympy.Basic, name: str = "") -> None:
        """A parameter that takes a 32-bit integer, or a condition.

        Args:
            name: the kernel's, for people.
        """
        self.slots.append(Slot(Kind.EXTRA, len(self.extras)))
        self.extras.append(expr)
        self.names.append(name)

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
        self.add_extra(sympy.Integer(bits), f"{name}: f32")

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
                f"{shown(expr)} reaches {worst} within the profile, and TensorRT "
                f"passes 32-bit integers only. Narrow the profile, or {remedy}.",
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
        UnsupportedKernelError: for its block, its clusters, or its dynamic shared
            memory.
        ArgumentError: for its grid.
    """
    kernel, block = program.launch.name, compiled.block
    threads, most = math.prod(block), max(MOST_THREADS)
    if threads > most or any(map(operator.gt, block, MOST_THREADS)):
        raise unsupported(
            kernel,
            f"blocks of {_by(block)} = {threads} threads; CUDA launches {most} at "
            f"most, and {MOST_THREADS[2]} along z. Launch smaller blocks.",
        )
    require_cluster(kernel, compiled.cluster, target)
    require_shared_memory(kernel, compiled.shared_memory, compiled.code, target)
    for axis, size, limit in zip("xyz", compiled.grid, _MOST_BLOCKS, strict=True):
        lower, upper = bounds(size, program.ranges)
        if lower < 1 or upper > limit:
            raise ArgumentError(
                f"kernel {kernel}: the grid's {axis}, {shown(size)}, runs from "
                f"{lower} to {upper} within the profile; CUDA launches 1 to {limit} "
                "blocks there. Narrow the profile, or change the grid."
            )
    for axis, size, blocks in zip("xyz", compiled.grid, compiled.cluster, strict=True):
        if facts(size, program.ranges).divisor % blocks:
            raise ArgumentError(
                f"kernel {kernel}: it is launched in clusters of "
                f"{_by(compiled.cluster)} blocks, and the grid's {axis}, {size}, is "
                f"not known to be a multiple of {blocks} at every shape of the "
                "profile. Round the grid up to one, or make the dimension static."
            )


MOST_BLOCKS_OF_CLUSTER = 8  # more are not portable ("Thread Block Clusters", as above)
_OLDEST_WITH_CLUSTERS = 90


def require_cluster(kernel: str, cluster: tuple[int, int, int], target: Target) -> None:
    """Raise where a launch in such clusters is not possible.

    Raises:
        UnsupportedKernelError: they are too large, or the GPU has none.
    """
    what = f"it is launched in clusters of {_by(cluster)} blocks"
    if math.prod(cluster) > MOST_BLOCKS_OF_CLUSTER:
        most = MOST_BLOCKS_OF_CLUSTER
        raise unsupported(kernel, f"{what}; {most} are possible. Take fewer.")
    if math.prod(cluster) > 1 and target.capability < _OLDEST_WITH_CLUSTERS:
        raise unsupported(
            kernel,
            f"{what}, which {target.arch} does not have: Hopper (sm_90) is the first. "
            "Launch it, or choose a config, without.",
        )


def require_shared_memory(kernel: str, size: int, code: str, target: Target) -> None:
    """Raise where a block cannot have ``size`` bytes of shared memory.

    Raises:
        UnsupportedKernelError: the GPU has less, or its driver may not give as much.
    """
    if target.ptx_isa is None:  # its driver loads the code's at least
        target = replace(target, ptx_isa=parse(code).version)
    if size <= target.shared_memory:
        return
    what = f"it asks for {size} bytes of shared memory for a block"
    remedy = "take smaller tiles or fewer stages"
    if (most := target.max_shared_memory) is not None:
        why = f"{what}; Target.max_shared_memory is {most}. Raise it, or {remedy}."
    elif (known := target.most_shared_memory) is None:
        why = (
            f"{what}. Any launch gives {SHARED_MEMORY}, and no way to more is known on "
            f"{target.arch}: Hopper (sm_90) is the first GPU with one. "
            f"{remedy.capitalize()}."
        )
    elif size > known:
        why = f"{what}; {target.arch} has {known}. {remedy.capitalize()}."
    else:
        cuda, isa = ".".join(map(str, STATIC_DRIVER)), newest_ptx_isa(STATIC_DRIVER)
        why = (
            f"{what}. Any launch gives {SHARED_MEMORY}; a driver of CUDA {cuda} or "
            f"newer (PTX ISA {isa}) gives more, and the target's is known to take PTX "
            f"ISA {target.ptx_isa}. If it is newer, name it: "
            f"'{target.arch},ptx_isa={isa}'. If not, {remedy}."
        )
    raise unsupported(kernel, why)


def _by(sizes: tuple[int, int, int]) -> str:
    return "x".join(map(str, sizes))
