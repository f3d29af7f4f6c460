"""One kernel to compile: everything that decides the code, and the code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeAlias

import sympy

from torch_tensorrt.annotation import _cubin, _ptx
from torch_tensorrt.annotation._encoding import EncodingError, encode
from torch_tensorrt.annotation._fingerprint import fingerprint, stable_fingerprint
from torch_tensorrt.annotation._launch import (
    Constant,
    LaunchRecord,
    Output,
    Outputs,
    Pointer,
    Scalar,
)
from torch_tensorrt.annotation._ptx import Kind
from torch_tensorrt.annotation._ptxas import Resources, assemble, retarget, settle
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, Toolchain, backend
from torch_tensorrt.annotation.errors import AnnotationError, CompileError

_ANY = "kernel"  # the name of an entry that has none yet


@dataclass(frozen=True)
class Assembled:
    """A compiled kernel that its assembler takes.

    Attributes:
        arch: what the code needs: ``sm_90a`` where ``sm_90`` does not do.
        resources: as the assembler reports them.
        digest: of the code, whatever the entry's name.
    """

    compiled: CompiledKernel
    arch: str
    resources: Resources
    digest: str

    def code(self, record: LaunchRecord, entry: str) -> str | bytes:
        """The code as TensorRT launches ``record``, its entry named ``entry``."""
        if self.compiled.cubin:
            cubin = base64.b64decode(self.compiled.cubin)
            counts = _counts(self.compiled, record)
            return _cubin.reorder(cubin, self.compiled.slots, counts, entry)
        return retarget(_reordered(self.compiled, record, entry), self.arch)


Outcome: TypeAlias = Assembled | AnnotationError


@dataclass(frozen=True)
class Job:
    """A recorded launch, and how it is to be compiled.

    Attributes:
        what: how errors and progress name it.
        backend: of the kernel's language.
        options: compiler options of the config.
        aligned: every tensor starts at a multiple of 16 bytes.
        fact_set: which facts the compiler is told.
    """

    what: str
    backend: str
    record: LaunchRecord
    target: Target
    options: Mapping[str, Any]
    aligned: bool
    fact_set: str

    @cached_property
    def toolchain(self) -> Toolchain:
        """What would compile it here."""
        return backend(self.backend).toolchain()

    @cached_property
    def key(self) -> str | None:
        """A digest of all that decides the code but the compiler's version.

        None where another process could not tell the kernel from others.
        """
        try:
            launch = _plain(replace(self.record, choices=()))
        except EncodingError:
            return None
        return stable_fingerprint(
            own_source(),
            (self.backend, self.toolchain.versions, repr(self.target)),
            (dict(self.options), self.aligned, self.fact_set),
            launch,
        )

    def run(self) -> Outcome:
        """Compile and assemble it; no error but this package's own comes out."""
        try:
            return self._run()
        except Exception as error:
            return as_ours(self.what, error)

    def _run(self) -> Assembled:
        compiled = backend(self.backend).compile(
            self.record, self.target, self.options, self.aligned, self.fact_set
        )
        if compiled.cubin:
            return _with_cubin(compiled)
        code = _reordered(compiled, self.record, _ANY)
        digest = fingerprint(_ptx.without_debug_info(code))
        code, resources = settle(code, self.target.arch, compiled.ptxas)
        return Assembled(compiled, _ptx.parse(code).target, resources, digest)


def as_ours(what: str, error: Exception) -> AnnotationError:
    """``error``, or what stands for it where it is none of this package's.

    TensorRT must see no other: it ends the process for one in autotune.
    """
    if isinstance(error, AnnotationError):
        return error
    result = CompileError(
        f"{what}: unexpected {type(error).__name__}: {error}. Please report this."
    )
    result.__cause__ = error
    return result


def _with_cubin(compiled: CompiledKernel) -> Assembled:
    """A kernel that goes out as it was assembled; its PTX says what it takes."""
    arch = _ptx.target_of(compiled.code)
    resources = replace(
        assemble(compiled.code, compiled.ptxas, arch),
        registers=_cubin.registers(base64.b64decode(compiled.cubin)),
    )
    digest = fingerprint("cubin", _ptx.without_debug_info(compiled.code))
    return Assembled(compiled, arch, resources, digest)


def _reordered(compiled: CompiledKernel, record: LaunchRecord, entry: str) -> str:
    counts = _counts(compiled, record)
    return _ptx.reorder(compiled.code, compiled.slots, counts, entry)


def _counts(compiled: CompiledKernel, record: LaunchRecord) -> dict[Kind, int]:
    return {
        Kind.INPUT: len(record.inputs),
        Kind.EXTRA: len(compiled.extras),
        Kind.OUTPUT: len(record.outputs.tensors),
    }


def _plain(value: Any) -> Any:
    """A record's parts in tuples; expressions as text, the same in every process."""
    if isinstance(value, sympy.Basic):
        return "expression", json.dumps(encode(value))
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, LaunchRecord | Pointer | Scalar | Constant | Outputs | Output):
        parts = ((f.name, _plain(getattr(value, f.name))) for f in fields(value))
        return type(value).__name__, *parts
    return repr(value) if isinstance(value, TensorInfo) else value


@cache
def own_source(folder: Path = Path(__file__).parent) -> str:
    """A digest of a package, by default this: other code may compile otherwise."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
