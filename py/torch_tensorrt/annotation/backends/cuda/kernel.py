# SPDX-License-Identifier: BSD-3-Clause

"""A kernel in CUDA C++ or PTX, called as those of torch and CuPy are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...errors import ArgumentError, SpecError
from .headers import included

# torch's dtypes as template arguments.
CPP_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "__half",
    torch.bfloat16: "__nv_bfloat16",
    torch.float8_e4m3fn: "__nv_fp8_e4m3",
    torch.float8_e5m2: "__nv_fp8_e5m2",
    torch.int8: "signed char",
    torch.uint8: "unsigned char",
    torch.int16: "short",
    torch.int32: "int",
    torch.int64: "long long",
    torch.bool: "bool",
}

_FIELD = re.compile(r"\{(\w+)\}")  # of a name: "scale<{T}, {BLOCK}>"
_BASE = re.compile(r"[\w$]+(?=\s*(?:<|$))")  # the name without namespaces and arguments
_IS_PATH = re.compile(r"[^\n{;]+\.(?:cu|cuh|cpp|ptx)")

# Options of NVRTC that are not passed on as they are. An option's value may follow it
# after `=`, or as an argument of its own.
_ARCHITECTURE = ("-arch", "--gpu-architecture")
_INCLUDE = ("-I", "--include-path")
_REGISTERS = ("-maxrregcount", "--maxrregcount")
_LINKED = (
    "-dc", "--device-c", "-rdc", "--relocatable-device-code", "-dlto",
    "--dlink-time-opt", "-ewp", "--extensible-whole-program",
)  # fmt: skip
_ASSEMBLER = ("-Xptxas", "--ptxas-options", "-G", "--device-debug")
_PRECOMPILED = (
    "-pch", "--pch", "--create-pch", "--use-pch", "--pch-dir", "--pch-verbose"
)  # fmt: skip
_WITH_VALUE = (
    *_ARCHITECTURE, *_INCLUDE, *_REGISTERS, "-Xptxas", "-D", "-U", "-std", "--std",
    "--define-macro", "--undefine-macro",
)  # fmt: skip


@dataclass(frozen=True)
class Code:
    """The code of one kernel, as it is when a launch is recorded.

    Attributes:
        text: CUDA C++, or PTX.
        name: of the kernel, an expression of C++ (``"scale<float, 256>"``) or an entry.
        options: of NVRTC.
        headers: what the text includes, by name and digest.
        architecture: that the options name, ``"sm_90a"``; empty for the target's.
        maxnreg: registers a thread at most, that the options name; 0 for any number.
        folders: with headers. Their contents count, and not where they are.
    """

    text: str
    name: str
    options: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    architecture: str = ""
    maxnreg: int = 0
    is_ptx: bool = False
    folders: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        text: str,
        name: str,
        options: Sequence[str] = (),
        folders: Sequence[Any] = (),
    ) -> Code:
        """Code with the options that a user gives NVRTC.

        Raises:
            ArgumentError: an option asks for something that PTX cannot be.
        """
        found, others = _read_options(name, options)
        folders = (*map(str, folders), *found.get("-I", ()))
        return cls(
            text=text,
            name=name,
            options=others,
            headers=included(text, folders),
            architecture=found.get("-arch", ("",))[-1].replace("compute_", "sm_"),
            maxnreg=int(found.get("-maxrregcount", ("0",))[-1]),
            folders=folders,
        )

    def __str__(self) -> str:
        return " ".join([self.name, *self.options])

    @property
    def base(self) -> str:
        """The name of the kernel without namespaces and template arguments."""
        if self.is_ptx:
            return self.name
        found = _BASE.search(self.name.strip())
        return found[0] if found else re.sub(r"\W+", "_", self.name)

    def parameters(self, count: int) -> tuple[str, ...]:
        """Names of its parameters, for messages: the source's, or numbers."""
        numbers = tuple(map(str, range(count)))
        if self.is_ptx:
            return numbers
        pattern = rf"\b{re.escape(self.base)}\s*\(([^)]*)\)\s*\{{"
        for declared in re.findall(pattern, self.text):
            names = re.findall(r"(\w+)\s*(?:\[\w*\])?\s*(?:,|$)", declared)
            if len(names) == count and len(set(names)) == count:
                return tuple(names)
        return numbers


def _read_options(
    name: str, options: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Those with a meaning here, by their short names; and the others."""
    found: dict[str, tuple[str, ...]] = {}
    others: list[str] = []
    waiting = list(options)
    while waiting:
        option = str(waiting.pop(0))
        key, equals, value = option.partition("=")
        if key.startswith("-I") and key != "-I":
            key, value = "-I", option[2:]
        elif key in _WITH_VALUE and not equals and waiting:
            value = str(waiting.pop(0))
            option = f"{option}{'' if len(option) == 2 else '='}{value}"
        is_off = value in ("false", "0")
        if key in (*_LINKED, *_ASSEMBLER) and not is_off:
            raise ArgumentError(
                f"kernel {name}: option {option} is not for PTX, which an engine has "
                "and the CUDA driver assembles. Compile it without."
            )
        for short, names in (
            ("-arch", _ARCHITECTURE),
            ("-I", _INCLUDE),
            ("-maxrregcount", _REGISTERS),
        ):
            if key in names:
                found[short] = (*found.get(short, ()), value)
                break
        else:
            if key not in (*_PRECOMPILED, *_LINKED, *_ASSEMBLER):
                others.append(option)
    return found, tuple(others)


@dataclass(frozen=True, eq=False)
class CUDAKernel:
    """A kernel in CUDA C++, which NVRTC compiles for the GPU that it is launched on.

    It is called as kernels of ``torch.cuda._compile_kernel`` and CuPy's ``RawKernel``
    are. A launch function that is handed to :func:`cuda` calls it, with a GPU and,
    while it is recorded, without.

    Args:
        source: CUDA C++, or the path of a file with it.
        name: of the kernel, an expression of C++: ``"add"``, ``"ns::scale<float>"``.
            Names in braces are keywords of a launch: ``"scale<{T}, {BLOCK}>"``.
        options: of NVRTC: ``("-std=c++17", "--use_fast_math")``.
        include_dirs: folders with headers. The folder of a source file, and those of
            the CUDA toolkit's headers, are among them.
        is_ptx: the source is PTX, and ``name`` an entry of it.

    Raises:
        SpecError: there is no such file, or an argument is of the wrong kind.

    Example::

        add = tta.CUDAKernel(
            '''
            extern "C" __global__ void add(const float* x, float* out, int n) {
                int i = blockIdx.x * BLOCK + threadIdx.x;
                if (i < n) out[i] = x[i] + 1;
            }
            ''',
            "add",
        )

        def launch(x, out, BLOCK=256):
            n = x.numel()
            add(((n + BLOCK - 1) // BLOCK,), (BLOCK,), (x, out, n), BLOCK=BLOCK)
    """

    source: str | Path = field(repr=False)
    name: str
    options: Sequence[str] = ()
    include_dirs: Sequence[str | Path] = ()
    is_ptx: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str | Path) or not isinstance(self.name, str):
            raise SpecError(
                f"CUDAKernel: source is a {type(self.source).__name__}, and name "
                f"{self.name!r}. Pass the text or the path of the source, and the "
                "kernel's name."
            )
        if isinstance(self.options, str) or isinstance(self.include_dirs, str | Path):
            raise SpecError(
                f"CUDAKernel {self.name}: options and include_dirs are lists: "
                "options=['-std=c++17']."
            )
        if self._path is not None and not self._path.is_file():
            raise SpecError(f"CUDAKernel {self.name}: there is no file {self._path}.")

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def _path(self) -> Path | None:
        """That of the source, if it is not text."""
        is_path = isinstance(self.source, Path) or _IS_PATH.fullmatch(self.source)
        return Path(self.source) if is_path else None

    def _read(self) -> tuple[str, tuple[str, ...]]:
        """The source as it is now, and where its headers may be."""
        folders, path = tuple(map(str, self.include_dirs)), self._path
        if path is None:
            return str(self.source), folders
        return path.read_text(), (str(path.parent), *folders)

    def code(self, keywords: Mapping[str, Any]) -> Code:
        """Its code, as it is now.

        Args:
            keywords: of a launch: the name's template arguments, and macros.

        Raises:
            ArgumentError: one cannot be written in C++, or the name asks for another.
        """
        text, folders = self._read()
        if self.is_ptx:
            if keywords:
                raise ArgumentError(
                    f"kernel {self.name}: launched with {', '.join(keywords)}. Ready "
                    "PTX has neither macros nor template arguments."
                )
            return Code(text, self.name, is_ptx=True)
        written = {n: _written(self.name, n, v) for n, v in keywords.items()}
        if missing := [n for n in _FIELD.findall(self.name) if n not in written]:
            raise ArgumentError(
                f"kernel {self.name}: launched without {', '.join(missing)}, which "
                "its name asks for. Pass it by name: "
                f"kernel(grid, block, args, {missing[0]}=...)."
            )
        name = _FIELD.sub(lambda field: written[field[1]], self.name)
        others = sorted(written.keys() - set(_FIELD.findall(self.name)))
        macros = [f"-D{macro}={written[macro]}" for macro in others]
        return Code.of(text, name, [*self.options, *macros], folders)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What decides its code, without the keywords of a launch."""
        text, folders = self._read()
        headers = () if self.is_ptx else included(text, folders)
        return text, self.name, tuple(self.options), self.is_ptx, headers

    def __call__(
        self,
        grid: Any = (1, 1, 1),
        block: Any = (1, 1, 1),
        args: Sequence[Any] = (),
        shared_mem: Any = 0,
        stream: Any = None,
        **keywords: Any,
    ) -> None:
        """Launch it.

        Args:
            grid: blocks along x, y and z, up to three ints or one.
            block: threads along x, y and z.
            args: tensors, ints, floats and bools, and None for a null pointer. Numbers
                become what the kernel declares.
            shared_mem: dynamic shared memory, in bytes a block.
            stream: torch's; None for the current one.
            **keywords: template arguments where the name has them in braces, and macros
                otherwise. A ``torch.dtype`` stands for the type in C++.

        Raises:
            ArgumentError: an argument does not fit the kernel.
        """
        from .launch import Call, launch_here, launched

        call = Call(self.code(keywords), grid, block, args, shared_mem)
        if not launched(call):
            launch_here(call, stream)


def _written(kernel: str, name: str, value: Any) -> str:
    """A value as C++ has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat):
        raise ArgumentError(
            f"kernel {kernel}: {name} is {value}, which follows a dynamic size, and is "
            "compiled in. Make the dimension static, or pass it as an argument."
        )
    if isinstance(value, int | str):
        return str(value)
    if isinstance(value, float):
        return repr(value) if "e" in repr(value) or "." in repr(value) else f"{value}"
    if value in CPP_TYPES:
        return CPP_TYPES[value]
    raise ArgumentError(
        f"kernel {kernel}: {name} is {value!r}; pass an int, a bool, a float, text, or "
        "a torch.dtype."
    )
