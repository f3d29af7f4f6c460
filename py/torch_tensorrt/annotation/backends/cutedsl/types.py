"""Types of MLIR's LLVM dialect: where the scalars of a struct lie in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias


class HostCodeError(Exception):
    """What a host launcher does that is not understood, or that an engine does not."""


@dataclass(frozen=True)
class Scalar:
    """An integer, float, pointer or vector: ``size`` bytes, aligned to as many."""

    name: str
    size: int

    @property
    def align(self) -> int:
        return self.size

    def leaves(self, offset: int = 0) -> Iterator[tuple[int, Scalar]]:
        yield offset, self

    def element(self, index: int) -> tuple[int, Type]:
        raise HostCodeError(f"its host code looks into a {self.name}")


@dataclass(frozen=True)
class Struct:
    """Fields one after the other, each at its alignment."""

    fields: tuple[Type, ...]

    @property
    def align(self) -> int:
        return max((field.align for field in self.fields), default=1)

    @property
    def offsets(self) -> tuple[int, ...]:
        offsets, end = [], 0
        for field in self.fields:
            offsets.append(_round_up(end, field.align))
            end = offsets[-1] + field.size
        return tuple(offsets)

    @property
    def size(self) -> int:
        if not self.fields:
            return 0
        return _round_up(self.offsets[-1] + self.fields[-1].size, self.align)

    def leaves(self, offset: int = 0) -> Iterator[tuple[int, Scalar]]:
        """Each scalar and its place."""
        for start, field in zip(self.offsets, self.fields, strict=True):
            yield from field.leaves(offset + start)

    def element(self, index: int) -> tuple[int, Type]:
        """Offset and type of one field."""
        return self.offsets[index], self.fields[index]


@dataclass(frozen=True)
class Array:
    """``count`` elements of one type."""

    count: int
    item: Type

    @property
    def align(self) -> int:
        return self.item.align

    @property
    def size(self) -> int:
        return self.count * self.item.size

    def leaves(self, offset: int = 0) -> Iterator[tuple[int, Scalar]]:
        for index in range(self.count):
            yield from self.item.leaves(offset + index * self.item.size)

    def element(self, index: int) -> tuple[int, Type]:
        return index * self.item.size, self.item


Type: TypeAlias = Scalar | Struct | Array

_TOKEN = re.compile(
    r"struct<\(|\)>|array<\d+ x |vector<\d+x\w+>|ptr<\d+>|ptr|i\d+|bf16|f\d+|>"
)
_BITS = re.compile(r"\D+(\d+)")


@cache
def parse_type(text: str) -> Type:
    """The type that MLIR prints as ``text``.

    Raises:
        HostCodeError: it is of a kind that is not known here.
    """
    plain = re.sub(r"!llvm\.|,", " ", text)
    tokens = _TOKEN.findall(plain)
    if re.sub(r"\s", "", plain) != "".join(re.sub(r"\s", "", t) for t in tokens):
        raise HostCodeError(f"its host code uses the type {text}")
    parsed, rest = _parse(tokens)
    if rest:
        raise HostCodeError(f"its host code uses the type {text}")
    return parsed


def locate(type_: Type, path: Sequence[int]) -> tuple[int, Type]:
    """Offset and type of what ``path`` leads to."""
    offset = 0
    for index in path:
        start, type_ = type_.element(index)
        offset += start
    return offset, type_


def _parse(tokens: Sequence[str]) -> tuple[Type, Sequence[str]]:
    head, rest = tokens[0], tokens[1:]
    if head == "struct<(":
        fields = []
        while rest[0] != ")>":
            field, rest = _parse(rest)
            fields.append(field)
        return Struct(tuple(fields)), rest[1:]
    if head.startswith("array<"):
        item, rest = _parse(rest)
        return Array(int(head.removeprefix("array<").partition(" ")[0]), item), rest[1:]
    return Scalar(head, _scalar_size(head)), rest


def _scalar_size(name: str) -> int:
    if name.startswith("ptr"):
        return 8
    if name.startswith("vector<"):
        count, _, item = name.removeprefix("vector<").rstrip(">").partition("x")
        return int(count) * _scalar_size(item)
    bits = int(_BITS.fullmatch(name)[1])  # type: ignore[index]
    return max(1, bits // 8)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
