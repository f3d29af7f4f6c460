# SPDX-License-Identifier: BSD-3-Clause

"""One digest for functions, kernels and values, the same in every process.

A function is its source text with everything that text refers to: defaults, closure
values, and the globals it names, helpers and kernels included, down to the packages
whose version stands for their code. An object is its class and its fields.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import os
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import sympy
import torch

# The version of these packages stands for their code, as the version of Python does for
# the standard library and that of a toolchain for a kernel language.
_NAMED_PACKAGES = {"torch", "torch_tensorrt", "tensorrt", "numpy", "sympy"}
_STDLIB = sysconfig.get_path("stdlib")  # asked for once: it takes long
Parts: TypeAlias = tuple[Any, ...] | None  # of an object; None: its repr says it all
_languages: dict[str, Callable[[Any], Parts]] = {}

_SCALARS = (bool, int, float, complex, str, bytes)
_TORCH = (torch.dtype, torch.device, torch.memory_format)
_DESCRIBED = (range, slice, *_TORCH, sympy.Symbol, sympy.Number)  # by their text
_COMMUTATIVE = frozenset(["Add", "Mul", "Max", "Min", "And", "Or"])
_MOST_VALUES, _MOST_DEPTH = 200_000, 150  # what launch functions refer to is far less
_CLOCKS_DIFFER = 1.0  # seconds, at most, of a file system and of the process table
_unknown: dict[int, Any] = {}  # keeps what is told apart by its id, so that ids are


def describe_language(packages: Iterable[str], parts: Callable[[Any], Parts]) -> None:
    """Say how to tell the objects of a kernel language's packages apart.

    Args:
        packages: top-level names, as ``"triton"``.
        parts: gives the values that an object is made of; None where its ``repr`` says
            it all; and nothing, ``()``, for what a launch function merely keeps, such
            as a compiled kernel.
    """
    _languages.update(dict.fromkeys(packages, parts))


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """A digest that lasts, or the reason why it does not.

    Attributes:
        digest: hexadecimal.
        obstacle: the value that another process could not tell from others; empty where
            the digest is the same in every process.
    """

    digest: str
    obstacle: str = ""


def fingerprint(*values: Any) -> str:
    """A hex digest of ``values``; ``1``, ``1.0`` and ``True`` differ.

    A value that cannot be told across processes, or that refers to too much, counts as
    itself alone: the digest then holds in this process only.
    """
    return _digest(values, as_it_runs=False).digest


def lasting_fingerprint(*values: Any) -> Fingerprint:
    """A digest for what is kept from process to process.

    It describes what runs here, so it is a different one where a file was edited since
    this process imported it.
    """
    return _digest(values, as_it_runs=True)


def _digest(values: tuple[Any, ...], as_it_runs: bool) -> Fingerprint:
    encoder, digest, obstacle = _Encoder(as_it_runs), hashlib.sha256(), ""
    for value in values:
        try:
            encoder.tokens.clear()
            encoder.add(value)
        except Exception as error:  # a user's object may raise anything
            if isinstance(error, RecursionError):
                obstacle = f"{_label(value)}, which refers to too much"
            else:
                kind, why = type(value), type(error).__name__
                obstacle = f"a {kind.__module__}.{kind.__name__}, which raises {why}"
            encoder = _Encoder(as_it_runs)
            encoder.tokens.append(_identity(value))
        for token in ("value", *encoder.tokens):
            digest.update(f"{len(token)}:{token}".encode())
        obstacle = obstacle or encoder.obstacle
    return Fingerprint(digest.hexdigest(), obstacle)


def _identity(value: Any) -> str:
    _unknown.setdefault(id(value), value)
    return f"@{id(value)}"


class _Encoder:
    """Writes values as tokens; an object met again is written as its number.

    Attributes:
        tokens: of the value that is being written.
        obstacle: the first value that nothing but its identity tells from others.
    """

    def __init__(self, as_it_runs: bool) -> None:
        self.tokens: list[str] = []
        self.obstacle = ""
        self._as_it_runs = as_it_runs
        self._values = self._depth = 0
        self._seen: dict[int, int] = {}
        self._members: set[tuple[int, str]] = set()  # of the user's modules
        self._alive: list[Any] = []  # ids stay unique while what they name lives

    def add(self, value: Any) -> None:
        """Append the tokens of ``value``."""
        if (token := _atom(value)) is not None:
            self.tokens.append(token)
            return
        self._values += 1
        self._depth += 1
        if self._values > _MOST_VALUES or self._depth > _MOST_DEPTH:
            raise RecursionError("more than any launch function refers to")
        self._add_composite(value)
        self._depth -= 1

    def _add_all(self, kind: str, parts: Sequence[Any]) -> None:
        self.tokens.append(f"{kind}[{len(parts)}]")
        for part in parts:
            self.add(part)

    def _add_unordered(self, kind: str, members: Iterable[Any]) -> None:
        """Members in the order of their digests: they have no other."""
        outer, digests = self.tokens, list[str]()
        for member in members:
            self.tokens = []
            self.add(member)
            digests.append(hashlib.sha256("\0".join(self.tokens).encode()).hexdigest())
        self.tokens = outer
        self.tokens += [f"{kind}[{len(digests)}]", *sorted(digests)]

    def _add_composite(self, value: Any) -> None:
        kind = _label(type(value))
        if isinstance(value, sympy.Basic):
            is_ordered = type(value).__name__ not in _COMMUTATIVE
            (self._add_all if is_ordered else self._add_unordered)(kind, value.args)
        elif isinstance(value, set | frozenset):
            self._add_unordered(kind, value)
        elif isinstance(value, tuple | list):
            self._add_all(kind, value)
        elif isinstance(value, Mapping):
            # A launch function may keep what it compiled; its source stands for that.
            lasting = [key for key in value if _parts(value[key]) != ()]
            self._add_all(kind, [(k, value[k]) for k in sorted(lasting, key=repr)])
        elif isinstance(value, _SCALARS):  # of a subclass
            self.tokens.append(f"{kind}={value!r}")
            self._add_once(type(value))
        elif isinstance(value, enum.Enum):
            self._add_all(kind, (value.name, value.value))
        elif inspect.ismethod(value):
            self._add_all(kind, (value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self._add_all(kind, (value.func, value.args, value.keywords))
        else:
            self._add_once(value)

    def _add_once(self, value: Any) -> None:
        if (earlier := self._seen.get(id(value))) is not None:
            self.tokens.append(f"again={earlier}")
            return
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        if isinstance(value, type):
            self._add_class(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif (parts := _parts(value)) is not None:
            self._add_all(_label(type(value)), parts)
        elif _package(type(value)) in _languages and " at 0x" not in repr(value):
            self.tokens += [_label(type(value)), repr(value)]
        else:
            self._add_class(type(value))
            if dataclasses.is_dataclass(value):
                names = [f.name for f in dataclasses.fields(value) if f.compare]
                self.add([(name, getattr(value, name)) for name in names])
            elif type(getattr(value, "__dict__", None)) is dict:
                self.add(vars(value))
            else:
                self.obstacle = self.obstacle or _label(value)
                self.tokens.append(_identity(value))

    def _add_class(self, cls: type) -> None:
        self.tokens.append(f"class={_label(cls)}")
        if not is_versioned(cls.__module__):
            members = {
                name: getattr(member, "__func__", member)
                for name, member in vars(cls).items()
                if isinstance(member, FunctionType) or not name.startswith("__")
            }
            self.add((cls.__bases__, members))

    def _add_function(self, function: FunctionType) -> None:
        # The code as written: a decorator that replaces it may keep it under this name.
        code: CodeType = getattr(function, "_original_code", function.__code__)
        self.tokens += [f"function={_label(function)}", _source(function, code)]
        if self._as_it_runs and _was_edited(code.co_filename):
            self.tokens.append(_bytecode(code))
        self.add((function.__defaults__, function.__kwdefaults__))
        names = sorted(_names(code))
        cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
        closure = {name: _content(cell) for name, cell in cells}
        self._add_named(closure, code.co_freevars, names)
        self._add_named(function.__globals__, names, names)

    def _add_named(
        self, namespace: Mapping[str, Any], names: Iterable[str], members: list[str]
    ) -> None:
        """What code may mean by ``name``, and by ``module.member``."""
        for name in names:
            if name not in namespace:
                continue
            value = namespace[name]
            self.tokens.append(f"name={name}")
            self.add(value)
            if isinstance(value, ModuleType) and not is_versioned(value.__name__):
                new = [m for m in members if (id(value), m) not in self._members]
                self._members |= {(id(value), member) for member in new}
                self._add_named(vars(value), new, members)


def _atom(value: Any) -> str | None:
    """A value that one token says."""
    kind = type(value)
    if kind in _SCALARS or value is None:
        return f"{kind.__name__}={value!r}"
    if isinstance(value, _DESCRIBED):
        return f"{kind.__name__}={value}"
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"numpy={kind.__name__}{value.dtype.str}{value.shape}{content}"
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content = hashlib.sha256(flat.numpy().data).hexdigest()
        return f"tensor={value.dtype}{tuple(value.shape)}{content}"
    if isinstance(value, ModuleType):
        return f"module={value.__name__}"
    is_versions = isinstance(value, FunctionType) and is_versioned(value.__module__)
    if is_versions or isinstance(value, BuiltinFunctionType):
        return f"code={_label(value)}"
    return None


def _parts(value: Any) -> Parts:
    """What an object of a kernel language, or one of ours, is made of."""
    language = _languages.get(_package(type(value)))
    describe = getattr(type(value), "fingerprint_parts", language)
    return describe(value) if describe else None


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def _label(value: Any) -> str:
    """``module.name`` of a class or function; the class's for anything else."""
    if not isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"a {_label(type(value))}"
    return f"{getattr(value, '__module__', '?')}.{value.__qualname__}"


def is_versioned(module: str | None) -> bool:
    """Whether the version of a module's package stands for its code.

    A user's module may be called like one of the standard library: its file tells.
    """
    package = (module or "").partition(".")[0]
    if package in _NAMED_PACKAGES or package in _languages:
        return True
    if package not in sys.stdlib_module_names or package == "__main__":
        return False
    spec = getattr(sys.modules.get(package), "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin in (None, "built-in", "frozen"):
        return True
    return Path(str(origin)).is_relative_to(_STDLIB)


# --- The text of a function, as it runs in this process -------------------------------


def _source(function: FunctionType, code: CodeType) -> str:
    """The text of ``function``; its bytecode where it has none of its own."""
    if function.__name__ != "<lambda>":  # the lines of a lambda may hold several
        try:
            return textwrap.dedent(inspect.getsource(code))
        except (OSError, TypeError):
            pass  # typed into an interpreter, or made by exec: the bytecode says it
    return _bytecode(code)


def _bytecode(code: CodeType) -> str:
    def constant(value: Any) -> str:
        if isinstance(value, CodeType):
            return _bytecode(value)
        return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)

    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames)
    constants = list(map(constant, code.co_consts))
    return repr((counts, code.co_flags, code.co_code.hex(), constants, names))


def _names(code: CodeType) -> set[str]:
    """The names it uses, without those that pytest puts into assertions."""
    nested = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    own = {name for name in code.co_names if not name.startswith("@")}
    return own.union(*nested)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "an empty cell"


def _was_edited(path: str) -> bool:
    """Whether a file may say by now what this process does not do: it is newer."""
    try:
        return Path(path).stat().st_mtime >= _process_start() - _CLOCKS_DIFFER
    except OSError:  # a notebook's cell, which is text in memory
        return False


@functools.cache
def _process_start() -> float:
    """In seconds since the epoch."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5), starttime
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
