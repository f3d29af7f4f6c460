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

import sympy

from ..._code import packed_maps as maps
from ..._tensors import Ranges
from .arithmetic import Unknown
from .host import Address, Cell, HostCodeError, as_word
from .words import Word

_FIELDS = (
    *(maps.ADDRESS, maps.MAKER, maps.LAST_AXIS, maps.TYPE, maps.SWIZZLE, maps.ROUNDS),
    *(maps.PROMOTION, maps.ATOMICITY, maps.IS_LARGE),
    *(*maps.STRIDES, *maps.LAST_INDICES, *maps.LAST_IN_BOX),
)


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
    words = [_word(cells.get(8 * i), i, ranges) for i in range(maps.WORDS)]
    rest = [cell.value for offset, cell in cells.items() if offset >= 8 * maps.WORDS]
    if any(not isinstance(value, Unknown) and value != 0 for value in rest):
        raise HostCodeError("it makes a tensor map of more than 64 bytes")
    _require_known(words)

    def constant(field: maps.Field) -> int:
        value = _value(words, field)
        if not isinstance(value, sympy.Integer):
            raise HostCodeError(
                f"it makes a tensor map whose kind follows the shape ({value})"
            )
        return int(value)

    if constant(maps.MAKER) != maps.TOOLCHAINS:
        raise HostCodeError("it makes a tensor map of a version that is not known here")
    if constant(maps.ATOMICITY):
        raise HostCodeError(
            "it makes a tensor map that swizzles units of more than 16 bytes"
        )
    kind, rank = constant(maps.TYPE), constant(maps.LAST_AXIS) + 1
    if kind not in maps.ITEM_SIZES or rank > len(maps.LAST_INDICES):
        raise HostCodeError(
            f"it makes a tensor map of elements of kind {kind} in {rank} dimensions, "
            "which is not known here"
        )
    rounds = constant(maps.ROUNDS)
    if rounds and kind != maps.FLOAT32:
        raise HostCodeError("it makes a tensor map that rounds other than float32")
    address = words[maps.ADDRESS.word].parts
    if (
        len(address) != 1
        or not isinstance(address[0].value, Address)
        or address[0].shift != 0
    ):
        raise HostCodeError("it makes a tensor map of something else than a tensor")
    unused = (
        *maps.LAST_INDICES[rank:],
        *maps.STRIDES[rank - 1 :],
        *maps.LAST_IN_BOX[rank:],
    )
    if any(_value(words, field) != 0 for field in unused):
        raise HostCodeError(f"it makes a tensor map of more than {rank} dimensions")
    return PackedMap(
        address=address[0].value,
        extents=tuple(_value(words, field) + 1 for field in maps.LAST_INDICES[:rank]),
        strides=tuple(_value(words, field) for field in maps.STRIDES[: rank - 1]),
        box=tuple(constant(field) + 1 for field in maps.LAST_IN_BOX[:rank]),
        item_size=maps.ITEM_SIZES[kind],
        element_type=maps.TF32 if rounds else kind,
        swizzle=constant(maps.SWIZZLE),
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


def _value(words: Sequence[Word], field: maps.Field) -> sympy.Expr:
    """What a field holds."""
    word = words[field.word]
    value = sympy.Integer((word.known & field.mask) >> field.first)
    for part in word.open:
        if part.mask & field.mask:
            shift = part.shift - field.first
            if shift < 0 and field not in maps.STRIDES:  # whose bytes are compared
                raise HostCodeError(
                    f"it makes a tensor map of the upper bits of {part.value}"
                )
            value += part.value * sympy.Integer(2) ** shift
    return value
