"""The PTX inside cuTile's CUBIN: where it is, and whether it means the same alone."""

from __future__ import annotations

import re

from torch_tensorrt.annotation._cubin import sections
from torch_tensorrt.annotation._ptx import parse
from torch_tensorrt.annotation._ptxas import to_cubin
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

_SECTION = b".nv_debug_ptx_txt"
_SOURCE = b".nv_intermediate_source_section"
_HIDDEN = re.compile(r"\.hidden\s+\.param\b")
_HIDDEN_PARAMETER = re.compile(r",?\s*\.hidden\s+\.param[^,)]*")
_CLUSTER = re.compile(r"^\s*\.(reqnctapercluster|explicitcluster|maxclusterrank)", re.M)
_VERSION = re.compile(r"^(\.version\s+)\d+\.\d+", re.M)
_LANGUAGE = re.compile(r"^\s*\.language\s+\d+\s*\n", re.M)


def embedded_ptx(cubin: bytes) -> str:
    """The PTX that the assembler keeps in a debug section, its lines ended by NUL.

    After the code comes the TileIR it was made from, for debuggers.

    Raises:
        PTXError: there is none.
    """
    for section in sections(cubin):
        if section.name == _SECTION:
            code, _, _ = section.content.partition(_SOURCE)
            lines = (line for line in code.split(b"\0") if line.strip())
            return b"\n".join(lines).decode("ascii") + "\n"
    raise PTXError(
        "cuTile's CUBIN holds no PTX, which it does for every kernel compiled without "
        "debug information. Unset EXPERIMENTAL_CUDA_TILE_DEBUG_BUILD."
    )


def without_hidden(text: str) -> tuple[str, bool]:
    """``text`` less its hidden parameters, to read its header; and if it had any."""
    shown, count = _HIDDEN_PARAMETER.subn("", text)
    return shown, count > 0


def require_self_contained(text: str, kernel: str) -> None:
    """Raise for what TensorRT's launch leaves out.

    Raises:
        UnsupportedKernelError: the kernel has hidden parameters, or clusters.
    """
    if _HIDDEN.search(text):
        raise UnsupportedKernelError(
            f"kernel {kernel}: it has hidden parameters (tensor maps, for TMA), which "
            "are filled for cuTile's CUBIN alone; as PTX it would read garbage. Take "
            "the fact set 'vector16', write ct.load(..., allow_tma=False), or try "
            "Target(code='cubin')."
        )
    require_no_cluster(text, kernel)


def require_no_cluster(text: str, kernel: str) -> None:
    """Raise :class:`UnsupportedKernelError` for a kernel that launches clusters."""
    if _CLUSTER.search(text):
        raise UnsupportedKernelError(
            f"kernel {kernel}: it launches clusters, which TensorRT does not. Compile "
            "it with num_ctas=1."
        )


def as_plain_kernel(text: str) -> str:
    """``text`` as a kernel that is launched with the threads it requires.

    ``.language`` marks a kernel of tiles, which ``ct.launch`` launches with one thread
    a block. Without the mark its machine code is the same, and TensorRT's launch is any
    other kernel's.
    """
    return _LANGUAGE.sub("", text)


def at_version(text: str, version: str, kernel: str, ptxas: str) -> str:
    """``text`` as PTX of an older ISA, which the assembler makes the same code of.

    Raises:
        UnsupportedKernelError: it does not.
    """
    entry = parse(text)
    older = _VERSION.sub(rf"\g<1>{version}", text, count=1)
    try:
        code = _machine_code(to_cubin(older, ptxas, entry.target))
        if code == _machine_code(to_cubin(text, ptxas, entry.target)):
            return older
        reason: Exception = PTXError("it gives other machine code.")
    except PTXError as error:
        reason = error
    raise UnsupportedKernelError(
        f"kernel {kernel}: cuTile emits PTX {entry.version} for {entry.target}, and "
        f"the driver takes {version} at most. As that, {reason}\nUpdate the driver, or "
        "try another config."
    ) from reason


def _machine_code(cubin: bytes) -> dict[bytes, bytes]:
    return {s.name: s.content for s in sections(cubin) if s.name.startswith(b".text.")}
