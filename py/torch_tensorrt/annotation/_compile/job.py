"""One launch to compile, and the kernel that TensorRT gets for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import sympy

from torch_tensorrt.annotation._code import ptx
from torch_tensorrt.annotation._code.ptx import Kind
from torch_tensorrt.annotation._code.ptxas import settle
from torch_tensorrt.annotation._fingerprint import (
    Fingerprint,
    fingerprint,
    lasting_fingerprint,
)
from torch_tensorrt.annotation._record.program import Program
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import Toolchain, backend
from torch_tensorrt.annotation.backends.abi import require_grid
from torch_tensorrt.annotation.errors import AnnotationError, as_ours

# Part of every cache key. Raise it when a change here makes other code of the same
# launch: in a backend's signature, in the PTX rewriter, or in what is told as a fact.
# tests/py/annotation/test_golden.py fails where that is forgotten.
CODE_GENERATION = 1

_ENTRY = "tta_entry"  # the name of an entry that has none yet
_LOGGER = logging.getLogger(__name__)


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
        facts: what the compiler was told of the arguments, for people.
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


Outcome: TypeAlias = Kernel | AnnotationError


@dataclass(frozen=True)
class Job:
    """A recorded launch, and how it is to be compiled.

    Attributes:
        what: how errors and progress name it.
        backend: of the kernel's language.
        options: compiler options of the config.
        aligned: every tensor starts at a multiple of 16 bytes.
    """

    what: str = field(compare=False)
    backend: str
    program: Program
    target: Target
    options: Mapping[str, Any]
    aligned: bool

    @cached_property
    def toolchain(self) -> Toolchain:
        """What would compile it here."""
        return backend(self.backend).toolchain()

    def run(self) -> Outcome:
        """Compile and assemble it; only this package's own errors come out."""
        try:
            return self._run()
        except Exception as error:
            return as_ours(self.what, error)

    def _run(self) -> Kernel:
        compiled = backend(self.backend).compile(
            self.program, self.target, self.options, self.aligned
        )
        require_grid(self.program, compiled.grid)
        counts = {
            Kind.INPUT: len(self.program.inputs),
            Kind.EXTRA: len(compiled.extras),
            Kind.OUTPUT: len(self.program.outputs),
        }
        code = ptx.reorder(compiled.code, compiled.slots, counts, _ENTRY)
        code, resources = settle(code, self.target.arch, compiled.ptxas)
        return Kernel(
            entry=_ENTRY,
            code=code,
            digest=fingerprint(ptx.without_debug_info(code)),
            grid=compiled.grid,
            block=compiled.block,
            extras=compiled.extras,
            shared_memory=compiled.shared_memory,
            static_shared_memory=resources.static_shared_memory,
            registers=resources.registers,
            spills=resources.spills,
            facts=compiled.facts,
            retargeted=compiled.retargeted,
        )


def keys_of(jobs: Sequence[Job]) -> list[str | None]:
    """For each job, a digest of all that decides its code but the compiler's version.

    None where another process could not tell the kernel from others: it is then
    compiled anew in each process, and a log message says why. A kernel that many
    tactics share is read once.
    """
    kernels: dict[int, Fingerprint] = {}
    return [_key(job, kernels) for job in jobs]


def _key(job: Job, kernels: dict[int, Fingerprint]) -> str | None:
    launch = job.program.launch
    kernel = kernels.get(id(launch.kernel))
    if kernel is None:
        kernel = kernels[id(launch.kernel)] = lasting_fingerprint(launch.kernel)
    step = replace(launch, kernel=kernel.digest)
    plain = replace(job, program=replace(job.program, steps=(step,)))
    rest = lasting_fingerprint(CODE_GENERATION, job.toolchain.versions, plain)
    if obstacle := kernel.obstacle or rest.obstacle:
        _LOGGER.warning(
            "%s is not cached: it refers to %s, which another process cannot tell from "
            "others.",
            job.what,
            obstacle,
        )
        return None
    return rest.digest
