# SPDX-License-Identifier: BSD-3-Clause

"""``tileiras``, cuTile's compiler: found, run for any GPU, and the PTX taken from it.

It writes CUBINs only, and keeps the PTX of each in a debug section.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cuda.tile import PaddingMode, _compile, compilation
from cuda.tile._ir2bytecode import BytecodeContext, padding_mode_to_bytecode

from ... import errors
from ..._code.lowering import sections
from ..._code.ptxas import output_of
from .. import Launch, Target, Toolchain

_SETTINGS = (
    "CUDA_TILE_TESTING_DISABLE_DIV",
    "CUDA_TILE_TESTING_DISABLE_TOKEN_ORDER",
    "EXPERIMENTAL_CUDA_TILE_DEBUG_BUILD",
)


def tool(name: str) -> str:
    """Path of the compiler, ``"tileiras"``, or of the ``"ptxas"`` beside it.

    Raises:
        ToolchainError: it is missing.
    """
    with contextlib.suppress(FileNotFoundError):
        path = Path(_compile._find_compiler_bin().path).with_name(name)
        if path.is_file():
            return str(path)
    raise errors.ToolchainError(
        f"cutile: there is no {name} here, which belongs to cuTile's compiler. Install "
        "it: pip install 'torch-tensorrt-annotation[cutile]'."
    )


def toolchain() -> Toolchain:
    """cuTile's version, the settings that change its code, and its compiler's."""
    settings = [(name, os.environ.get(name, "")) for name in _SETTINGS]
    try:
        compiler = _version(tool("tileiras"))
    except errors.ToolchainError:
        compiler = None
    return Toolchain(
        (("cuda-tile", metadata.version("cuda-tile")), *settings), compiler
    )


@cache
def _version(tileiras: str) -> str:
    """From its packages, or from itself where it came with a CUDA toolkit."""
    if tileiras == _compile._find_pip_tileiras():
        return " ".join(map(metadata.version, _compile._PIP_TILEIRAS_PACKAGES))
    return output_of(tileiras, "--version")


@cache
def _architectures(tileiras: str) -> list[str]:
    return re.findall(r"=(sm_\d+)\b", output_of(tileiras, "--help"))


def compile_cubin(
    launch: Launch, hints: dict[str, Any], constraints: Any, target: Target, tma: bool
) -> bytes:
    """Compile the kernel of a launch for the given constraints of its parameters.

    Args:
        hints: compiler options, in place of the kernel's own.
        constraints: for each parameter of the kernel.
        tma: whether TMA loads are allowed.

    Raises:
        CompileError: the compiler refuses it.
        TargetError: the compiler does not know the target.
    """
    known, arch = _architectures(tool("tileiras")), f"sm_{target.capability}"
    # From sm_90 on there is TMA, and all code that it emits is architecture-specific.
    has_tma = target.capability >= 90
    suffixes = ("", "a") if has_tma else ("",)
    if arch not in known or target.arch.removeprefix(arch) not in suffixes:
        raise errors.TargetError(
            f"target {target.arch} is not one that this cuTile compiles for. It knows "
            f"{', '.join(known)}."
        )
    kernel, output = launch.kernel.kernel, io.BytesIO()
    try:
        kernel = kernel.replace_hints(**hints)
        signature = compilation.KernelSignature(
            constraints,
            compilation.CallingConvention.cutile_python_v2(),
            re.sub(r"\W", "_", launch.name, flags=re.ASCII),
        )
        with _encoded(without_tma=has_tma and not tma):
            compilation.export_kernel(
                kernel, [signature], output, gpu_code=arch, output_format="cubin"
            )
    except Exception as error:  # cuTile raises whatever its passes raise
        raise errors.CompileError(
            f"kernel {launch.name}: cuTile does not compile it for {arch} with "
            f"{kernel._compiler_options}: {type(error).__name__}: "
            f"{errors.reasons(error)}"
        ) from error
    return output.getvalue()


@contextlib.contextmanager
def _encoded(without_tma: bool) -> Iterator[None]:
    """How loads and stores are encoded, for this thread's compilation.

    A load whose padding the kernel leaves undetermined pads with zero. The compiler may
    choose the padding, and TMA and ``cp.async`` fill in zero, so kernels come to rely
    on that. An ordinary load leaves in a register what was there, which differs from
    launch to launch.

    Args:
        without_tma: whether every load and store says ``allow_tma=False``.

    cuTile has no options for these, so what encodes them is replaced. cuTile compiles
    under a lock, which is held here: no other compilation sees it.
    """
    with _compile._compiler_lock:
        hints, paddings = BytecodeContext.load_store_hints, padding_mode_to_bytecode
        undetermined = paddings[PaddingMode.UNDETERMINED]

        def hints_without_tma(self: Any, latency: Any, allow_tma: Any) -> Any:
            return hints(self, latency, False)

        if without_tma:
            BytecodeContext.load_store_hints = hints_without_tma
        paddings[PaddingMode.UNDETERMINED] = paddings[PaddingMode.ZERO]
        try:
            yield
        finally:
            BytecodeContext.load_store_hints = hints
            paddings[PaddingMode.UNDETERMINED] = undetermined


# --- The PTX inside a CUBIN -----------------------------------------------------------

_SECTION = b".nv_debug_ptx_txt"
_SOURCE = b".nv_intermediate_source_section"
_OF_TILES = re.compile(r"^\s*\.(?:language\s+\d+|blocksareclusters)\s*\n", re.M)


def embedded_ptx(cubin: bytes) -> str:
    """The PTX that the assembler keeps in a debug section, its lines ended by NUL.

    After the code comes the TileIR it was made from, for debuggers.

    Raises:
        PTXError: there is none.
    """
    if (section := sections(cubin).get(_SECTION)) is None:
        raise errors.PTXError(
            "cuTile's CUBIN holds no PTX, which it does for every kernel compiled "
            "without debug information. Unset EXPERIMENTAL_CUDA_TILE_DEBUG_BUILD."
        )
    code, _, _ = section.partition(_SOURCE)
    lines = (line for line in code.split(b"\0") if line.strip())
    return b"\n".join(lines).decode("ascii") + "\n"


def as_plain_kernel(text: str) -> str:
    """``text`` as a kernel that is launched with the threads it requires.

    ``.language`` marks a kernel of tiles, which ``ct.launch`` launches with one thread
    a block. Without the mark its machine code is the same, and it is launched like any
    other kernel. So it is without ``.blocksareclusters``, which says that the grid of a
    launch is in clusters, and not in blocks.
    """
    return _OF_TILES.sub("", text)
