"""cuTile's compiler: found where it is installed, and run for any GPU."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cuda.tile import compilation
from cuda.tile._compile import (
    _compiler_lock,
    _find_compiler_bin,
    _find_pip_tileiras,
)
from cuda.tile._ir2bytecode import BytecodeContext

from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import Toolchain
from torch_tensorrt.annotation.errors import (
    CompileError,
    TargetError,
    ToolchainError,
)

_FIRST_WITH_TMA = 90
_PACKAGES = ("nvidia-cuda-tileiras", "nvidia-cuda-nvcc")  # tileiras, and its ptxas
_SETTINGS = (
    "CUDA_TILE_TESTING_DISABLE_DIV",
    "CUDA_TILE_TESTING_DISABLE_TOKEN_ORDER",
    "EXPERIMENTAL_CUDA_TILE_DEBUG_BUILD",
)


def toolchain() -> Toolchain:
    """cuTile's version, the settings that change its code, and its compiler's."""
    settings = [(name, os.environ.get(name, "")) for name in _SETTINGS]
    versions = (("cuda-tile", metadata.version("cuda-tile")), *settings)
    try:
        compiler = _find_compiler_bin().path
    except FileNotFoundError:
        return Toolchain(versions, compiler=None)
    return Toolchain(versions, compiler=_version(compiler))


@cache
def _version(tileiras: str) -> str:
    """From its package, or from itself where it came with a CUDA toolkit."""
    if tileiras == _find_pip_tileiras():
        return " ".join(map(_package_version, _PACKAGES))
    command = [tileiras, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # there may be no ptxas
        return "none"


def ptxas() -> str:
    """Path of the assembler that belongs to cuTile's compiler.

    Raises:
        ToolchainError: it is missing.
    """
    path = _tileiras().with_name("ptxas")
    if not path.is_file():
        raise ToolchainError(f"cutile: there is no ptxas beside the compiler. {_HOW}")
    return str(path)


def require_known(target: Target) -> str:
    """``target``'s architecture as the compiler names it.

    Raises:
        TargetError: it does not know the target.
        ToolchainError: it is missing.
    """
    known = _architectures(_tileiras())
    arch = f"sm_{target.capability}"
    # From sm_90 on it emits architecture-specific code for every kernel.
    suffix = target.arch.removeprefix(arch)
    if arch not in known or (suffix and target.capability < 90) or suffix == "f":
        raise TargetError(
            f"target {target.arch} is not one that this cuTile compiles for. It knows "
            f"{', '.join(known)}."
        )
    return arch


def compile_cubin(
    kernel: Any,
    name: str,
    parameters: Sequence[Any],
    arch: str,
    tma: bool,
    symbol: str | None = None,
) -> bytes:
    """Compile a ``ct.kernel`` for the given parameter constraints.

    Args:
        name: how errors name it.
        tma: whether TMA loads are allowed.
        symbol: the entry's name; None makes one of ``name``.

    Raises:
        CompileError: the compiler refuses it.
    """
    has_tma = int(arch.removeprefix("sm_")) >= _FIRST_WITH_TMA
    restricted = contextlib.nullcontext() if tma or not has_tma else _without_tma()
    signature = compilation.KernelSignature(
        parameters,
        compilation.CallingConvention.cutile_python_v2(),
        symbol or re.sub(r"\W", "_", name, flags=re.ASCII),
    )
    output = io.BytesIO()
    try:
        with restricted:
            compilation.export_kernel(
                kernel, [signature], output, gpu_code=arch, output_format="cubin"
            )
    except Exception as error:  # cuTile raises whatever its passes raise
        raise CompileError(
            f"kernel {name}: cuTile does not compile it for {arch} with "
            f"{kernel._compiler_options}: {type(error).__name__}: {error}"
        ) from error
    return output.getvalue()


@contextlib.contextmanager
def _without_tma() -> Iterator[None]:
    """Every load and store says ``allow_tma=False``, for this thread's compilation.

    cuTile compiles under a lock of its own, so no other compilation sees it.
    """
    with _compiler_lock:
        original = BytecodeContext.load_store_hints

        def hints(self: Any, latency: Any, allow_tma: Any) -> Any:
            del allow_tma
            return original(self, latency, False)

        BytecodeContext.load_store_hints = hints
        try:
            yield
        finally:
            BytecodeContext.load_store_hints = original


_HOW = "Install it: pip install 'torch-tensorrt-annotation[cutile]'."


def _tileiras() -> Path:
    try:
        return Path(_find_compiler_bin().path)
    except FileNotFoundError as error:
        raise ToolchainError(
            f"cutile: tileiras, cuTile's compiler, is not installed. {_HOW}"
        ) from error


@cache
def _architectures(tileiras: Path) -> tuple[str, ...]:
    text = subprocess.run(
        [tileiras, "--help"], capture_output=True, text=True, check=True
    ).stdout
    return tuple(re.findall(r"=(sm_\d+)\b", text))
