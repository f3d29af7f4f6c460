# SPDX-License-Identifier: BSD-3-Clause

"""A launch to compile: found in the cache, or compiled beside others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from .. import _fingerprint, _settings
from .._code import ptx
from .._code.effects import effects
from .._code.kernel import Kernel, Outcome
from .._code.ptxas import settle, with_static_shared
from .._record.program import Program
from .._target import SHARED_MEMORY, Target
from .._tensors import TensorInfo
from ..backends import Kind, Slot, Toolchain, backend
from ..backends.abi import require_launchable, require_shared_memory
from ..errors import as_ours
from . import pool
from .cache import kernel_cache

# Part of every cache key. Raise it when a change here makes other code of the same
# launch: in a backend's signature, in the PTX rewriter, or in the facts that a compiler
# gets. tests/py/annotation/test_golden.py fails where that is forgotten.
CODE_GENERATION = 7

_UNNAMED = "tta_entry"  # until Kernel.named() gives it a name of its own
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A recorded launch, and how to compile it.

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

    def __post_init__(self) -> None:
        inputs = tuple(map(_without_optimum, self.program.inputs))
        object.__setattr__(self, "program", replace(self.program, inputs=inputs))
        # What follows from it is in the program.
        object.__setattr__(
            self, "target", replace(self.target, sm_count=None, name=None)
        )

    @cached_property
    def toolchain(self) -> Toolchain:
        """What would compile it here."""
        return toolchain_of(self.backend)

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
        if compiled.cluster == (1, 1, 1):  # the code alone may have one
            declared = ptx.parse(compiled.code).cluster
            compiled = replace(compiled, cluster=declared or compiled.cluster)
        require_launchable(self.program, compiled, self.target)
        inputs, outputs = len(self.program.inputs), len(self.program.outputs)
        hidden, scratch = len(self.program.hidden), len(compiled.scratch)
        counts = inputs, len(compiled.extras), outputs + hidden + scratch

        def placed(slot: Slot) -> Slot:
            """Scratch memory is the last of the outputs."""
            if slot.kind is not Kind.SCRATCH:
                return slot
            index = outputs + hidden + slot.index
            return Slot(Kind.OUTPUT, index, alignment=ptx.SCRATCH_ALIGNMENT)

        slots = list(map(placed, compiled.slots))
        code = ptx.reorder(compiled.code, slots, counts, _UNNAMED)
        if compiled.cluster != (1, 1, 1):
            code = ptx.in_clusters(code, compiled.cluster)
        code, assembled = settle(code, self.target.arch, compiled.ptxas)
        dynamic, static = compiled.shared_memory, assembled.static_shared_memory
        is_override = self.target.max_shared_memory is not None
        if dynamic + static > SHARED_MEMORY and not is_override:
            name = self.program.launch.name
            require_shared_memory(name, dynamic + static, code, self.target)
            code, static = with_static_shared(code, dynamic, static)
            require_shared_memory(name, static, code, self.target)
            dynamic = 0
        pointers = [f"input {index}" for index in range(inputs)]
        pointers += [f"output {index}" for index in range(outputs)]
        pointers += [f"hidden {index}" for index in range(hidden)]
        pointers += [f"scratch {index}" for index in range(scratch)]
        return Kernel(
            entry=_UNNAMED,
            code=code,
            digest=_fingerprint.fingerprint(ptx.without_debug_info(code)),
            grid=compiled.grid,
            block=compiled.block,
            extras=compiled.extras,
            shared_memory=dynamic,
            facts=compiled.facts,
            retargeted=compiled.retargeted,
            scratch=compiled.scratch,
            aligned=tuple(
                index
                for index in range(hidden)
                if any(s.alignment > 1 and s.index == outputs + index for s in slots)
            ),
            effects=dict(zip(pointers, effects(code).values(), strict=True)),
            registers=assembled.registers,
            spills=assembled.spills,
            static_shared_memory=static,
            names=compiled.names,
        )


def _without_optimum(info: TensorInfo | None) -> TensorInfo | None:
    """Code holds for the whole profile: jobs that differ in its optimum are equal."""
    if info is None:
        return None
    ranges = (e if isinstance(e, int) else replace(e, opt=e.min) for e in info.shape)
    return replace(info, shape=tuple(ranges))


def toolchain_of(language: str) -> Toolchain:
    """What compiles here; nothing, where it does not say: a broken one."""
    try:
        return backend(language).toolchain()
    except Exception as error:  # which compiling meets, too: only its jobs fail
        return Toolchain((("broken", repr(error)),), None)


def keys_of(jobs: Sequence[Job]) -> list[str | None]:
    """For each job, a digest of all that decides its code but the compiler's version.

    None where another process could not tell the kernel from others: it is then
    compiled anew in each process, and a log message says why. A kernel that many
    tactics share is read once.
    """
    lasting = _fingerprint.lasting_fingerprint
    kernels = {id(job.program.launch.kernel): job.program.launch.kernel for job in jobs}
    digests = {identity: lasting(kernel) for identity, kernel in kernels.items()}
    keys: list[str | None] = []
    for job in jobs:
        kernel = digests[id(job.program.launch.kernel)]
        step = replace(job.program.launch, kernel=kernel.digest)
        plain = replace(job, program=replace(job.program, steps=(step,)))
        rest = lasting(CODE_GENERATION, job.toolchain.versions, plain)
        if obstacle := kernel.obstacle or rest.obstacle:
            _LOGGER.warning(
                f"{job.what} is not cached: it refers to {obstacle}, which another "
                "process cannot tell from others."
            )
        keys.append(None if obstacle else rest.digest)
    return keys


def compile_all(jobs: Sequence[Job], what: str) -> list[Outcome]:
    """The outcome of each job, from the cache where it is there.

    The others are compiled in parallel, in processes of their own. Jobs that would
    compile the same are compiled once.

    Args:
        what: is compiled, for the progress bar.
    """
    cache = kernel_cache(_settings.cache_folder())
    outcomes: dict[str | int, Outcome] = {}
    missing: dict[str | int, tuple[str | None, Job]] = {}
    keys = keys_of(jobs)
    slots = [key or number for number, key in enumerate(keys)]
    for key, slot, job in zip(keys, slots, jobs, strict=True):
        if key and (found := cache.load(key, job.toolchain.compiler)):
            outcomes[slot] = found
        else:
            missing.setdefault(slot, (key, job))
    places = list(missing)
    with pool.progress(what, len(missing)) as advance:

        def done(index: int, outcome: Outcome) -> None:
            key, job = missing[places[index]]
            outcomes[places[index]] = outcome
            if key:
                labels = {"name": job.program.launch.name, "target": job.target.arch}
                cache.store(key, job.toolchain.compiler, outcome, labels)
            advance()

        try:
            limit = _settings.cache_size()
            for language in {job.backend for _, job in missing.values()}:
                with contextlib.suppress(Exception):  # which its jobs meet, too
                    backend(language).warm_up()
            if missing:
                pool.run_all([(job.what, job.run) for _, job in missing.values()], done)
                cache.keep_within(limit)
        except Exception as error:  # no process available, or a malformed setting
            for slot in missing:
                outcomes.setdefault(slot, as_ours(what, error))
    return [outcomes[slot] for slot in slots]
