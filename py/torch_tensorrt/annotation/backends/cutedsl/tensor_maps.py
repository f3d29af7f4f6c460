# SPDX-License-Identifier: BSD-3-Clause

"""Tensor maps as CuTe DSL's host code packs them, read field by field.

CuTe DSL does not ask the CUDA driver for a map: its launcher packs the fields into
words itself. They are read from there, and the entry makes a map of them in the
documented way. The invariant: every bit that the launcher may set belongs to a field
that is known here, or the map is refused. Where the fields are was found by compiling
maps that differ in one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sympy

from ..._tensors import Ranges
from .arithmetic import Unknown
from .host import Address, Cell, HostCodeError, as_word
from .words import Word

_WORDS = 8  # of 64 bits; the other half of a map is not written


class _Field(NamedTuple):
    """Bits of a map: the word, the first bit in it, and how many."""

    word: int
    first: int
    width: int

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1 << self.first


_ADDRESS = _Field(0, 0, 64)
_VERSION = _Field(1, 0, 4)
_LAST_AXIS = _Field(1, 4, 3)
_TYPE = _Field(1, 7, 4)
_SWIZZLE = _Field(1, 13, 2)
_ROUND = _Field(1, 16, 1)
_PROMOTION = _Field(1, 17, 2)  # of what the L2 cache fetches
_ATOMICITY = _Field(1, 19, 2)
_IS_LARGE = _Field(1, 21, 1)  # follows from the extents
_STRIDES = [_Field((i + 3) // 2, 32 * ((i + 1) % 2), 32) for i in range(4)]
_EXTENTS = [_Field(4 + i // 2, 32 * (i % 2), 32) for i in range(5)]
_BOX = [_Field(6, 56, 8), *(_Field(7, 8 * i, 8) for i in range(4))]
_FIELDS = (
    *(_ADDRESS, _VERSION, _LAST_AXIS, _TYPE, _SWIZZLE, _ROUND, _PROMOTION, _ATOMICITY),
    *(_IS_LARGE, *_STRIDES, *_EXTENTS, *_BOX),
)
_OURS = 2  # the version whose fields these are
_TF32 = 11  # as `tensormap.replace` numbers it; a map has that of float32, and a flag
_FLOAT32 = 7
# Bytes of an element, by the number of its type. Others were not seen.
_ITEM_SIZES = {0: 1, 1: 2, 2: 4, 4: 8, 6: 2, 7: 4, 9: 8, 10: 2}
STRIDE_UNIT = 16  # bytes, which also divide the address


@dataclass(frozen=True)
class PackedMap:
    """The fields of a map. Dimensions are innermost first.

    Attributes:
        address: of the tensor.
        extents: in elements.
        strides: in units of 16 bytes, of all dimensions but the innermost.
        box: elements along each dimension.
        item_size: bytes of an element.
        element_type, swizzle: as ``tensormap.replace`` numbers them.
    """

    address: Address
    extents: tuple[sympy.Expr, ...]
    strides: tuple[sympy.Expr, ...]
    box: tuple[int, ...]
    item_size: int
    element_type: int
    swizzle: int


def read(cells: Mapping[int, Cell], ranges: Ranges) -> PackedMap:
    """The map that a launcher packs.

    Args:
        cells: what is in the parameter, by offset.

    Raises:
        HostCodeError: it sets something that is not known here.
    """
    words = [_word(cells.get(8 * i), i, ranges) for i in range(_WORDS)]
    rest = [cell.value for offset, cell in cells.items() if offset >= 8 * _WORDS]
    if any(not isinstance(value, Unknown) and value != 0 for value in rest):
        raise HostCodeError("it makes a tensor map of more than 64 bytes")
    _require_known(words)

    def constant(field: _Field) -> int:
        value = _value(words, field)
        if not isinstance(value, sympy.Integer):
            raise HostCodeError(
                f"it makes a tensor map whose kind follows the shape ({value})"
            )
        return int(value)

    if constant(_VERSION) != _OURS:
        raise HostCodeError("it makes a tensor map of a version that is not known here")
    if constant(_ATOMICITY):
        raise HostCodeError(
            "it makes a tensor map that swizzles units of more than 16 bytes"
        )
    kind, rank = constant(_TYPE), constant(_LAST_AXIS) + 1
    if kind not in _ITEM_SIZES or rank > len(_EXTENTS):
        raise HostCodeError(
            f"it makes a tensor map of elements of kind {kind} in {rank} dimensions, "
            "which is not known here"
        )
    rounds = constant(_ROUND)
    if rounds and kind != _FLOAT32:
        raise HostCodeError("it makes a tensor map that rounds other than float32")
    address = words[_ADDRESS.word].parts
    if len(address) != 1 or not isinstance(address[0].value, Address):
        raise HostCodeError("it makes a tensor map of something else than a tensor")
    unused = (*_EXTENTS[rank:], *_STRIDES[rank - 1 :], *_BOX[rank:])
    if any(_value(words, field) != 0 for field in unused):
        raise HostCodeError(f"it makes a tensor map of more than {rank} dimensions")
    return PackedMap(
        address=address[0].value,
        extents=tuple(_value(words, field) + 1 for field in _EXTENTS[:rank]),
        strides=tuple(_value(words, field) for field in _STRIDES[: rank - 1]),
        box=tuple(constant(field) + 1 for field in _BOX[:rank]),
        item_size=_ITEM_SIZES[kind],
        element_type=_TF32 if rounds else kind,
        swizzle=constant(_SWIZZLE),
    )


def _word(cell: Cell | None, index: int, ranges: Ranges) -> Word:
    word = as_word(Unknown("not written") if cell is None else cell.value, ranges)
    if isinstance(word, Unknown):
        raise HostCodeError(
            f"in its tensor map, word {index} is {word}. Narrow the "
            "profile, or make the dimensions static"
        )
    return word


def _require_known(words: Sequence[Word]) -> None:
    """Raise where a word has bits, or values, that are in none of the fields."""
    for index, word in enumerate(words):
        fields = [field for field in _FIELDS if field.word == index]
        unknown = word.known & ~sum(field.mask for field in fields)
        for part in word.open:
            if not any(part.mask & ~field.mask == 0 for field in fields):
                unknown |= part.mask
        if unknown:
            bit = (unknown & -unknown).bit_length() - 1
            raise HostCodeError(
                f"it makes a tensor map of a kind that is not known here (bit {bit} of "
                f"word {index})"
            )


def _value(words: Sequence[Word], field: _Field) -> sympy.Expr:
    """What a field holds."""
    word = words[field.word]
    value = sympy.Integer((word.known & field.mask) >> field.first)
    for part in word.open:
        if part.mask & field.mask:
            value += part.value * 2 ** (part.shift - field.first)
    return value
