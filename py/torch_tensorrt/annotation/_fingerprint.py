"""One digest for functions, kernels and values, the same in every process.

A function is its source text with everything that text refers to: defaults, closure
values, and the globals it names, helpers and kernels included, down to the packages
whose version stands for their code.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import (
    CellType,
    CodeType,
    FunctionType,
    ModuleType,
)
from typing import Any

from torch_tensorrt.annotation._source import (
    bytecode_if_edited,
    source,
    written_code,
)
from torch_tensorrt.annotation._values import (
    NAMED_PACKAGES,
    atom,
    is_named,
    package_of,
    parts_of,
    qualified_name,
)

_KERNEL_SETTINGS = (
    "configs",
    "values",
    "do_not_specialize",
    "do_not_specialize_on_alignment",
    "noinline",
    "_compiler_options",
)
_LANGUAGES = ("triton", "cuda")
_unknown: dict[int, Any] = {}  # keeps what is told apart by its id, so that ids are


def fingerprint(*values: Any) -> str:
    """A hex digest of ``values``; ``1``, ``1.0`` and ``True`` differ.

    A value of a kind that cannot be told across processes, or that refers to too much,
    counts as itself alone: the digest then holds in this process only.
    """
    return _digest(values, _Encoder)[0]


def stable_fingerprint(*values: Any) -> str | None:
    """A digest like :func:`fingerprint`, for what is kept from process to process.

    None where it would hold in this one only. It is of what runs here, and so another
    one where a file was edited since.
    """
    digest, is_stable = _digest(values, functools.partial(_Encoder, as_it_runs=True))
    return digest if is_stable else None


def _digest(values: tuple[Any, ...], new: Callable[[], _Encoder]) -> tuple[str, bool]:
    """A digest, and whether every process has the same one."""
    digest = hashlib.sha256()
    encoder, is_stable = new(), True
    for value in values:
        try:
            tokens = list(encoder.tokens(value))
        except _TooMuch:
            encoder, tokens, is_stable = new(), [_itself(value)], False
        for token in ("value", *tokens):
            digest.update(f"{len(token)}:{token}".encode())
        is_stable = is_stable and encoder.is_stable
    return digest.hexdigest(), is_stable


def _itself(value: Any) -> str:
    _unknown.setdefault(id(value), value)
    return f"@{id(value)}"


@dataclass
class _Budget:
    """What launch functions refer to is far less."""

    values: int = 10_000
    depth: int = 100


class _TooMuch(Exception):
    """A value refers to more than a budget allows."""


class _Encoder:
    """Says a value in tokens; an object met again is said by its number.

    Attributes:
        is_stable: another process says all of it so far in the same tokens.
    """

    def __init__(self, budget: _Budget | None = None, as_it_runs: bool = False) -> None:
        self.is_stable = True
        self._as_it_runs = as_it_runs
        self._budget = budget or _Budget()  # shared with the encoders of set members
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay unique while what they name lives

    def tokens(self, value: Any) -> Iterator[str]:
        if (token := atom(value)) is not None:
            yield token
            return
        self._budget.values -= 1
        self._budget.depth -= 1
        if self._budget.values < 0 or self._budget.depth < 0:
            raise _TooMuch
        yield from self._composite(value)
        self._budget.depth += 1

    def _composite(self, value: Any) -> Iterator[str]:
        if isinstance(value, set | frozenset):
            yield f"{qualified_name(type(value))}[{len(value)}]"
            yield from sorted(map(self._digest, value))
        elif (parts := parts_of(value)) is not None:
            yield f"{qualified_name(type(value))}[{len(parts)}]"
            for part in parts:
                yield from self.tokens(part)
        elif (earlier := self._seen.get(id(value))) is not None:
            yield f"again={earlier}"
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        if isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif package_of(type(value)) in _LANGUAGES:
            yield from self._kernel(value)
        else:
            yield from self._class(type(value))
            if type(getattr(value, "__dict__", None)) is dict:
                yield from self.tokens(vars(value))
            else:
                yield self._itself(value)

    def _itself(self, value: Any) -> str:
        """A value that nothing but its identity tells from others."""
        self.is_stable = False
        return _itself(value)

    def _digest(self, member: Any) -> str:
        """A set has no order but that of its members' digests."""
        encoder = _Encoder(self._budget, self._as_it_runs)
        tokens = "\0".join(encoder.tokens(member))
        self.is_stable = self.is_stable and encoder.is_stable
        return hashlib.sha256(tokens.encode()).hexdigest()

    def _kernel(self, value: Any) -> Iterator[str]:
        """A kernel, or what wraps one; another object of its language."""
        yield f"{package_of(type(value))}={type(value).__name__}"
        inner = getattr(value, "fn", None) or getattr(value, "_pyfunc", None)
        if callable(inner):
            settings = [getattr(value, name, None) for name in _KERNEL_SETTINGS]
            # What is compiled is the text at decoration, whatever the file says now.
            yield from self.tokens((inner, str(settings), getattr(value, "src", None)))
        else:
            said = repr(value)
            yield self._itself(value) if " at 0x" in said else said

    def _class(self, cls: type) -> Iterator[str]:
        yield f"class={qualified_name(cls)}"
        if package_of(cls) not in NAMED_PACKAGES:
            members = {
                name: getattr(member, "__func__", member)
                for name, member in vars(cls).items()
                if isinstance(member, FunctionType) or not name.startswith("__")
            }
            yield from self.tokens((cls.__bases__, members))

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield f"function={qualified_name(function)}"
        yield source(function)
        if self._as_it_runs:
            yield bytecode_if_edited(function)
        yield from self.tokens((function.__defaults__, function.__kwdefaults__))
        names = sorted(_names(written_code(function)))
        free = function.__code__.co_freevars
        cells = zip(free, function.__closure__ or (), strict=True)
        closure = {name: _content(cell) for name, cell in cells}
        yield from self._named(closure, free, names)
        yield from self._named(function.__globals__, names, names)

    def _named(
        self, namespace: Mapping[str, Any], names: Sequence[str], members: Sequence[str]
    ) -> Iterator[str]:
        """What code may mean by ``name``, and by ``module.member``."""
        for name in names:
            if name not in namespace:
                continue
            value = namespace[name]
            yield f"name={name}"
            yield from self.tokens(value)
            is_users = isinstance(value, ModuleType) and not is_named(value)
            if is_users and id(value) not in self._seen:
                self._seen[id(value)] = len(self._seen)
                yield from self._named(vars(value), members, members)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "an empty cell"


def _names(code: CodeType) -> set[str]:
    """The names it uses, without those that pytest puts into assertions."""
    nested = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    own = {name for name in code.co_names if not name.startswith("@")}
    return own.union(*nested)
