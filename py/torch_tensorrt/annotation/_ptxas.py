"""Assemble PTX: whether it holds, for which architecture, and what it takes."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch_tensorrt.annotation._ptx import parse
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

_TOO_MUCH_SHARED = re.compile(
    r"uses too much shared data \(0x([0-9a-f]+) bytes, 0x([0-9a-f]+) max\)"
)
_TARGET = re.compile(r"^(\.target\s+)(sm_\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What the assembler reports: registers a thread, bytes spilled, static bytes."""

    registers: int
    spills: int
    static_shared_memory: int


def settle(text: str, arch: str, ptxas: str) -> tuple[str, Resources]:
    """Assemble ``text``; for the plain architecture where the kernel holds to it.

    Compilers emit for ``sm_90a`` what may need no more than ``sm_90``.

    Args:
        arch: the architecture asked for.
        ptxas: path of the assembler.

    Returns:
        The text, for the architecture that it needs, and its resources.

    Raises:
        PTXError: the assembler refuses it.
        UnsupportedKernelError: it needs more static shared memory than there is.
    """
    emitted = parse(text).target
    if arch != emitted and arch == emitted.rstrip("af"):
        plain = retarget(text, arch)
        try:
            return plain, assemble(plain, ptxas, arch)
        except (PTXError, UnsupportedKernelError):
            pass  # it uses what only the specific architecture has: as emitted, then
    return text, assemble(text, ptxas, emitted)


def assemble(text: str, ptxas: str, arch: str) -> Resources:
    """Assemble ``text``, and say what it takes.

    Raises:
        PTXError: ``ptxas`` refuses it; the message is its own.
        UnsupportedKernelError: it needs more static shared memory than there is.
    """
    with tempfile.TemporaryDirectory(prefix="tta-") as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        command = [ptxas, "-v", f"--gpu-name={arch}", source.name, "-o", "kernel.cubin"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if over := _TOO_MUCH_SHARED.search(run.stderr):
        needed, limit = (int(number, 16) for number in over.groups())
        raise UnsupportedKernelError(
            f"kernel {parse(text).name}: it needs {needed} bytes of static shared "
            f"memory; {arch} has {limit} for a block. Take smaller tiles."
        )
    if run.returncode != 0:
        raise PTXError(f"ptxas refuses the kernel for {arch}:\n{run.stderr.strip()}")
    return Resources(
        registers=_number(r"Used (\d+) registers", run.stderr),
        spills=_number(r"(\d+) bytes spill stores", run.stderr)
        + _number(r"(\d+) bytes spill loads", run.stderr),
        static_shared_memory=_number(r"(\d+) bytes smem", run.stderr),
    )


def retarget(text: str, arch: str) -> str:
    """``text`` with another ``.target``; ``assemble`` says whether it holds."""
    return _TARGET.sub(rf"\g<1>{arch}", text, count=1)


def _number(pattern: str, text: str) -> int:
    return sum(int(number) for number in re.findall(pattern, text))
