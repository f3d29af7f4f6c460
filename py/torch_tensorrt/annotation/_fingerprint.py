# SPDX-License-Identifier: BSD-3-Clause

"""One digest for functions, kernels and values, the same in every process.

A function is its source text with everything that text refers to: defaults, closure
values, and the globals it names, helpers and kernels included, down to the packages
whose version stands for their code. An object is its class and its fields.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import linecache
import os
import sys
import sysconfig
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import sympy
import torch

# The version of these packages stands for their code, as the version of Python does for
# the standard library and that of a toolchain for a kernel language.
_NAMED_PACKAGES = {"torch", "torch_tensorrt", "tensorrt", "numpy", "sympy"}
_STDLIB = sysconfig.get_path("stdlib") + os.sep  # asked for once: it takes long
Parts: TypeAlias = tuple[Any, ...] | None  # of an object; None: its repr says it all
_languages: dict[str, Callable[[Any], Parts]] = {}

_SCALARS = (bool, int, float, complex, str, bytes)
_TORCH = (torch.dtype, torch.device, torch.memory_format)
_DESCRIBED = (range, slice, *_TORCH, sympy.Symbol, sympy.Number)  # by their text
_COMMUTATIVE = frozenset(["Add", "Mul", "Max", "Min", "And", "Or"])
_MOST_VALUES, _MOST_DEPTH = 200_000, 150  # what launch functions refer to is far less
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
            encoder.add_members()
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
        self._names: set[str] = set()  # that functions use
        # The user's modules, with the members that were added.
        self._modules: dict[ModuleType, set[str]] = {}
        self._alive: list[Any] = []  # ids stay unique while what they name lives

    def add(self, value: Any) -> None:
        """Append the tokens of ``value``."""
        if isinstance(value, ModuleType) and _is_users(value):
            self._modules.setdefault(value, set())
        if (token := _atom(value)) is not None:
            self.tokens.append(token)
            return
        self._values += 1
        self._depth += 1
        if self._values > _MOST_VALUES or self._depth > _MOST_DEPTH:
            raise RecursionError("more than any launch function refers to")
        self._add_composite(value)
        self._depth -= 1

    def add_members(self) -> None:
        """Append what code may mean by ``module.name``, where it met both.

        A function may pass a module on, and name its members in another.
        """
        while new := [
            (module, names)
            for module, added in self._modules.items()
            if (names := self._names & vars(module).keys() - added)
        ]:
            for module, names in new:
                self._modules[module] |= names
                self.tokens.append(f"members={module.__name__}")
                self._add_named(vars(module), names)

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
        cls = type(value)
        kind = _label(cls)
        if isinstance(value, sympy.Basic):
            is_ordered = cls.__name__ not in _COMMUTATIVE
            (self._add_all if is_ordered else self._add_unordered)(kind, value.args)
        elif isinstance(value, set | frozenset):
            self._add_unordered(kind, sorted(value, key=repr))
        elif isinstance(value, tuple | list):
            self._add_all(kind, value)
        elif isinstance(value, Mapping):
            # A launch function may keep what it compiled; its source stands for that.
            lasting = [key for key in value if _parts(value[key]) != ()]
            self._add_all(kind, [(k, value[k]) for k in sorted(lasting, key=repr)])
        elif isinstance(value, _SCALARS):  # of a subclass, which may have its own repr
            base = next(base for base in _SCALARS if isinstance(value, base))
            self.tokens.append(f"{kind}={base.__repr__(value)}")
        elif isinstance(value, enum.Enum):
            self._add_all(kind, (value.name, value.value))
        elif inspect.ismethod(value):
            self._add_all(kind, (value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self._add_all(kind, (value.func, value.args, value.keywords))
        elif isinstance(value, property):
            self._add_all(kind, (value.fget, value.fset, value.fdel))
        else:
            self._add_once(value)
            return
        if not is_versioned(cls.__module__):  # a subclass has methods, and attributes
            self._add_once(cls)
            self.add(getattr(value, "__dict__", None))

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
        cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
        closure = {name: content_of(cell) for name, cell in cells}
        self.tokens.append(f"function={_label(function)}")
        if not _is_users(function):  # it may hold one that is
            held = [f for f in closure.values() if isinstance(f, FunctionType)]
            self.add([f for f in held if _is_users(f)])
            return
        self.tokens += _source(function, code, self._as_it_runs)
        self.add((function.__defaults__, function.__kwdefaults__))
        names = _names(code)
        self._names |= names
        self._add_named(ChainMap(closure, function.__globals__), names)
        for module in _imported(names, function.__globals__.get("__package__")):
            self.add(module)

    def _add_named(self, namespace: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in sorted(names):
            if name in namespace:
                self.tokens.append(f"name={name}")
                self.add(namespace[name])


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
    is_plain = isinstance(value, FunctionType) and not value.__closure__
    if isinstance(value, BuiltinFunctionType) or (is_plain and not _is_users(value)):
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


def is_versioned(module: str | None, file: str | None = None) -> bool:
    """Whether the version of a module's package stands for its code.

    A user's module may be called like one of the standard library: its file tells.

    Args:
        file: None for that of the module that is imported under this name.
    """
    package = (module or "").partition(".")[0]
    if package in _NAMED_PACKAGES or package in _languages:
        return True
    if package not in sys.stdlib_module_names or package == "__main__":
        return False
    file = file or getattr(sys.modules.get(package), "__file__", None)
    return file is None or file.startswith((_STDLIB, "<frozen "))


def _is_users(value: FunctionType | ModuleType) -> bool:
    """Whether no version stands for its code.

    A function may have the name and module of another that it wraps.
    """
    if isinstance(value, ModuleType):
        return not is_versioned(value.__name__, getattr(value, "__file__", None))
    file, home = value.__code__.co_filename, value.__globals__.get("__name__")
    return not (is_versioned(value.__module__, file) and is_versioned(home, file))


# --- The text of a function, as it runs in this process -------------------------------


_texts: WeakKeyDictionary[FunctionType, tuple[CodeType, str]] = WeakKeyDictionary()


def _source(function: FunctionType, code: CodeType, as_it_runs: bool) -> list[str]:
    """The text of ``function``; its bytecode where the text does not say it all."""
    text, bytecode = _text(function, code), _bytecode(code)
    file = ""
    if as_it_runs:
        linecache.checkcache(code.co_filename)
        file = "".join(linecache.getlines(code.co_filename))
    is_edited = as_it_runs and (code.co_firstlineno, bytecode) not in _functions(file)
    return [text, bytecode] if is_edited or not text else [text]


def _text(function: FunctionType, code: CodeType) -> str:
    """What ``inspect`` says, which takes the tokenizer; a replay asks at each shape."""
    known, text = _texts.get(function, (None, ""))
    if known is not code:
        if function.__name__ != "<lambda>":  # the lines of a lambda may hold several
            with contextlib.suppress(OSError, TypeError):  # typed in, or made by exec
                text = textwrap.dedent(inspect.getsource(code))
        _texts[function] = code, text
    return text


@functools.lru_cache(64)
def _functions(text: str) -> frozenset[tuple[int, str]]:
    """Line and bytecode of each function in the text of a module."""

    def of(code: CodeType) -> Iterator[tuple[int, str]]:
        yield code.co_firstlineno, _bytecode(code)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from of(constant)

    try:
        return frozenset(of(compile(text, "", "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):  # it is being edited
        return frozenset()


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
    """The names it uses, also as text, without those that pytest's assertions use."""
    nested = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    texts = {c for c in code.co_consts if isinstance(c, str) and c.isidentifier()}
    own = {n for n in (*code.co_names, *code.co_freevars) if not n.startswith("@")}
    return (own | texts).union(*nested)


def _imported(names: Iterable[str], package: str | None) -> Iterator[ModuleType]:
    """The user's modules that a function in ``package`` may import by these names."""
    parents = accumulate((package or "").split("."), "{}.{}".format, initial="")
    for parent, name in product(parents, sorted(names)):
        module = sys.modules.get(f"{parent}.{name}".lstrip("."))
        if module is not None and _is_users(module):
            yield module


def content_of(cell: CellType) -> Any:
    """What a closure's variable holds; text where it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return "an empty cell"
