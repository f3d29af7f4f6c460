# SPDX-License-Identifier: BSD-3-Clause

"""NVRTC, the compiler of CUDA C++: found, and run for any GPU."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import CompileError, ToolchainError
from .kernel import Code

# Where Python packages keep it, below a directory of sys.path, and their headers.
_LIBRARIES = ("nvidia/cu*/lib", "nvidia/cuda_nvrtc/lib")
_HEADERS = ("nvidia/cu*/include", "nvidia/cuda_runtime/include")
_VERSION = re.compile(r"#define\s+CUDART_VERSION\s+(\d+)")

# Instantiated with a kernel's type, its mangled name says the kernel's signature.
_PROBE = "\ntemplate <class> __device__ int tta_signature;\n"


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a source.

    Attributes:
        ptx: with every kernel of the source.
        entry: the name of the one that was asked for.
        signature: the mangled name of a variable of the kernel's type.
    """

    ptx: str
    entry: str
    signature: str


class _Library:
    """NVRTC's functions; each raises where NVRTC returns an error."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def call(self, function: str, *arguments: object) -> None:
        """Call ``nvrtc<function>``.

        Raises:
            CompileError: it returns an error.
        """
        status = getattr(self._library, f"nvrtc{function}")(*arguments)
        if status:
            said = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(f"NVRTC {self.version}: nvrtc{function}: {said}.")

    def text_of(self, program: ctypes.c_void_p, what: str) -> str:
        """The program's ``"PTX"`` or ``"ProgramLog"``."""
        size = ctypes.c_size_t()
        self.call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(1, size.value))
        self.call(f"Get{what}", program, buffer)
        return buffer.value.decode(errors="replace")


@cache
def library() -> _Library:
    """NVRTC, from a Python package or a CUDA toolkit.

    Raises:
        ToolchainError: it is not installed.
    """
    for path in _candidates():
        return _Library(str(path))
    raise ToolchainError(
        "cuda: there is no NVRTC here, which compiles CUDA C++. Install it: "
        "pip install 'torch-tensorrt-annotation[cuda]', or set CUDA_HOME. Ready PTX "
        "needs none: tta.ptx(path, entry, launch)."
    )


def _candidates() -> Iterator[Path]:
    for folder in _folders(_LIBRARIES, "lib64"):
        yield from sorted(folder.glob("libnvrtc.so.*"), key=lambda path: len(path.name))


def _folders(patterns: tuple[str, ...], in_toolkit: str) -> Iterator[Path]:
    for folder in filter(None, dict.fromkeys(sys.path)):
        for pattern in patterns:
            yield from sorted(Path(folder).glob(pattern))
    yield Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), in_toolkit)


@cache
def toolkit_headers() -> tuple[tuple[str, str], ...]:
    """Folders with the toolkit's headers, as ``mma.h``, and the version of each."""
    found = {}
    for folder in _folders(_HEADERS, "include"):
        api = folder / "cuda_runtime_api.h"
        if api.is_file() and (version := _VERSION.search(api.read_text())):
            number = int(version[1])
            found[str(folder)] = f"{number // 1000}.{number % 1000 // 10}"
    return tuple(found.items())


def compile_source(code: Code, architecture: str) -> Compiled:
    """Compile a source to PTX.

    Args:
        architecture: ``"compute_90"``.

    Raises:
        CompileError: NVRTC refuses it; the message has its log.
        ToolchainError: it is not installed.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    # As if it lay in a folder that holds no headers: folders are named, not guessed.
    file = f"/nowhere/{re.sub(r'[^0-9A-Za-z_]+', '_', code.name)}.cu".encode()
    text = (code.text + _PROBE).encode()
    nvrtc.call("CreateProgram", ctypes.byref(program), text, file, 0, None, None)
    try:
        is_mangled = code.name.startswith("_Z")
        probe = (
            b"" if is_mangled else f"&tta_signature<decltype(&{code.name})>".encode()
        )
        names = [] if is_mangled else [code.name.encode(), probe]
        for name in names:
            nvrtc.call("AddNameExpression", program, name)
        folders = [*code.folders, *(folder for folder, _ in toolkit_headers())]
        options = [f"--gpu-architecture={architecture}", *code.options]
        options += [f"--include-path={folder}" for folder in folders]
        array = (ctypes.c_char_p * len(options))(*map(str.encode, options))
        try:
            nvrtc.call("CompileProgram", program, len(options), array)
        except CompileError as error:
            log = nvrtc.text_of(program, "ProgramLog").strip()
            raise CompileError(
                f"kernel {code.name}: NVRTC {nvrtc.version} does not compile it for "
                f"{architecture} with {' '.join(code.options) or 'no options'}:\n{log}"
            ) from error
        lowered = [_lowered(nvrtc, program, name) for name in names]
        ptx = nvrtc.text_of(program, "PTX")
    finally:
        nvrtc.call("DestroyProgram", ctypes.byref(program))
    entry, signature = lowered or (code.name, code.name)
    return Compiled(ptx, entry, signature)


def _lowered(nvrtc: _Library, program: ctypes.c_void_p, name: bytes) -> str:
    lowered = ctypes.c_char_p()
    nvrtc.call("GetLoweredName", program, name, ctypes.byref(lowered))
    return (lowered.value or b"").decode()
