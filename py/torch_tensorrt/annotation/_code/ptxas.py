# SPDX-License-Identifier: BSD-3-Clause

"""Assemble PTX: whether it is valid, for which architecture, and what it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

from .. import errors
from .._target import newest_ptx_isa
from .ptx import SHARED_ALIGNMENT, TARGET, parse, static_shared

# What `ptxas -v` says of registers, spills and static shared memory.
_TAKES = (
    r"Used (\d+) registers",
    r"(\d+) bytes spill (?:stores|loads)",
    r"(\d+) bytes smem",
)
_TOO_MUCH_SHARED = re.compile(
    r"uses too much shared data \(0x([0-9a-f]+) bytes, 0x([0-9a-f]+) max\)"
)
# Where Python packages keep one, below a directory of sys.path.
_IN_PACKAGES = (
    "nvidia/cu*/bin/ptxas",
    "nvidia/cuda_nvcc/bin/ptxas",
    "*/backends/nvidia/bin/ptxas*",
)
# The distributions of those in `nvidia`; any other package is named like its own.
_NVIDIA = {"cuda_nvcc": "nvidia-cuda-nvcc-cu12"}


@dataclass(frozen=True)
class Assembler:
    """A ``ptxas``, and the newest PTX ISA it takes: 88 for 8.8."""

    path: str
    ptx_version: int


@cache
def find_ptxas() -> Assembler:
    """The newest ``ptxas`` of this environment, for toolchains that bring none.

    Raises:
        CompileError: there is none.
    """
    if not (found := [(_cuda_version(path), path) for path in _candidates()]):
        raise errors.CompileError(
            "there is no ptxas here, which every kernel is assembled with. Install "
            "nvidia-cuda-nvcc, or set CUDA_HOME."
        )
    version, path = max(found)
    return Assembler(path, int(newest_ptx_isa(version).replace(".", "")))


@cache
def ptxas_versions() -> str | None:
    """What :func:`find_ptxas` chooses from; None if there is nothing.

    A package's metadata gives its version; only a ``ptxas`` from elsewhere is started.
    """
    return ", ".join(sorted(set(map(_version, _candidates())))) or None


def _version(path: str) -> str:
    for folder in sys.path:
        if folder and Path(path).is_relative_to(folder):
            parts = Path(path).relative_to(folder).parts
            package = parts[0]
            if package == "nvidia":
                package = _NVIDIA.get(parts[1], "nvidia-cuda-nvcc")
            try:
                return f"{package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                break
    major, minor = _cuda_version(path)
    return f"CUDA {major}.{minor}"


def _candidates() -> Iterator[str]:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for path in (Path(home, "bin", "ptxas"), shutil.which("ptxas")):
        if path is not None and os.access(path, os.X_OK):
            yield str(path)
    for folder in filter(None, dict.fromkeys(sys.path)):
        for pattern in _IN_PACKAGES:
            yield from map(str, sorted(Path(folder).glob(pattern)))


def _cuda_version(ptxas: str) -> tuple[int, int]:
    match = re.search(r"release (\d+)\.(\d+)", output_of(ptxas, "--version"))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def output_of(*command: str) -> str:
    """What a command writes to its standard output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Assembled:
    """A CUBIN, and what it takes: registers a thread, bytes spilled, static bytes."""

    cubin: bytes = field(compare=False)
    registers: int
    spills: int
    static_shared_memory: int


def settle(text: str, arch: str, ptxas: str) -> tuple[str, Assembled]:
    """Assemble ``text``, for the plain architecture where that is enough.

    Compilers emit ``sm_90a`` for kernels that may need no more than ``sm_90``.

    Args:
        arch: the architecture asked for.
        ptxas: path of the assembler.

    Returns:
        The text, for the architecture that it needs, and what is assembled from it.

    Raises:
        PTXError: the assembler refuses it.
        UnsupportedKernelError: it needs more static shared memory than there is.
    """
    emitted = parse(text).target
    if arch != emitted and arch == emitted.rstrip("af"):
        plain = retarget(text, arch)
        try:
            return plain, assemble(plain, ptxas, arch)
        except (errors.PTXError, errors.UnsupportedKernelError):
            pass  # it uses what only the specific architecture has: as emitted, then
    return text, assemble(text, ptxas, emitted)


def assemble(text: str, ptxas: str, arch: str) -> Assembled:
    """Assemble ``text``.

    Raises:
        PTXError: ``ptxas`` refuses it; the message is its own.
        UnsupportedKernelError: it needs more static shared memory than there is.
    """
    with tempfile.TemporaryDirectory(prefix="tta-") as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(text)
        command = [ptxas, "-v", f"--gpu-name={arch}", source.name, "-o", cubin.name]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if run.returncode == 0:
            takes = (sum(map(int, re.findall(p, run.stderr))) for p in _TAKES)
            return Assembled(cubin.read_bytes(), *takes)
    if over := _TOO_MUCH_SHARED.search(run.stderr):
        needed, limit = (int(number, 16) for number in over.groups())
        raise errors.UnsupportedKernelError(
            f"the kernel needs {needed} bytes of static shared memory; {arch} has "
            f"{limit} for a block. Take smaller tiles."
        )
    raise errors.PTXError(f"ptxas refuses the kernel for {arch}:\n{run.stderr.strip()}")


_LARGE_STATIC = 90  # PTX ISA of the oldest ptxas that takes over 48 KiB: CUDA 13.0's


def with_static_shared(text: str, dynamic: int, static: int) -> tuple[str, int]:
    """``text`` with its dynamic shared memory static, and what all of that takes.

    It is for the architecture-specific target, the only one for which an assembler
    takes as much. An assembler too old to check it is not asked.

    Args:
        dynamic, static: bytes that it takes as it is.

    Raises:
        PTXError: the assembler refuses it.
        UnsupportedKernelError: it needs more than there is.
    """
    if dynamic:
        text = static_shared(text, dynamic)
    arch = f"{parse(text).target.rstrip('af')}a"
    text = retarget(text, arch)
    newest, align = find_ptxas(), SHARED_ALIGNMENT
    if newest.ptx_version < _LARGE_STATIC:
        return text, dynamic + -(-static // align) * align
    return text, assemble(text, newest.path, arch).static_shared_memory


def retarget(text: str, arch: str) -> str:
    """``text`` with another ``.target``; ``assemble`` says whether it holds."""
    return TARGET.sub(rf"\g<1>{arch}", text, count=1)
