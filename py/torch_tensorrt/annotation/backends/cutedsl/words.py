# SPDX-License-Identifier: BSD-3-Clause

"""Words that a host launcher packs of several values, bit by bit.

A launcher makes a tensor map by shifts, masks and ``or`` of an address, extents and
strides. What reads such a word wants its parts, so it is kept as those. The invariant:
parts do not overlap, and no other bit of the word is set. What is not proved to be so
is not a word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sympy

BITS = 64


@dataclass(frozen=True)
class Part:
    """A value in a word, which is not negative.

    Attributes:
        shift: the bit of the word that its lowest bit is at; where negative, as many of
            its lowest bits are cut off. They come back if the word is shifted back, so
            what reads it requires them to be 0.
        width: bits of the value, at most.
    """

    value: Any
    width: int
    shift: int = 0

    @property
    def mask(self) -> int:
        """Bits of the word that it may set."""
        is_known = isinstance(self.value, sympy.Integer)
        bits = int(self.value) if is_known else 2**self.width - 1
        return bits << self.shift if self.shift >= 0 else bits >> -self.shift


@dataclass(frozen=True)
class Word:
    """Parts of 64 bits; at most one is a constant, which comes first."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "a word of several values"

    @classmethod
    def constant(cls, value: int) -> Word:
        """The word of an integer."""
        value %= 2**BITS
        part = Part(sympy.Integer(value), value.bit_length())
        return cls((part,) if value else ())

    @property
    def known(self) -> int:
        """The bits that are constant."""
        return sum(p.mask for p in self.parts if isinstance(p.value, sympy.Integer))

    @property
    def open(self) -> tuple[Part, ...]:
        """The parts that are not constant."""
        return tuple(p for p in self.parts if not isinstance(p.value, sympy.Integer))

    def shifted(self, count: int) -> Word | None:
        """To the left, or to the right where negative; None where it loses a bit."""
        moved = tuple(replace(part, shift=part.shift + count) for part in self.open)
        known = self.known << count if count >= 0 else self.known >> -count
        if known >> BITS or any(part.mask >> BITS for part in moved):
            return None
        return Word(Word.constant(known).parts + moved)

    def masked(self, mask: int) -> Word | None:
        """The parts whose bits ``mask`` holds; None where it cuts one in two."""
        if any(part.mask & mask not in (0, part.mask) for part in self.open):
            return None
        kept = tuple(part for part in self.open if part.mask & mask)
        return Word(Word.constant(self.known & mask).parts + kept)

    def joined(self, other: Word) -> Word | None:
        """Both; None where they may overlap."""
        both, taken = (*self.open, *other.open), self.known | other.known
        for part in both:
            if taken & part.mask:
                return None
            taken |= part.mask
        return Word(Word.constant(self.known | other.known).parts + both)


def combined(operation: str, left: Word, right: Word) -> Word | None:
    """The word that an operation of LLVM's dialect gives, if it gives one."""
    if operation == "or":
        return left.joined(right)
    if right.open:
        return None
    count = right.known
    match operation:
        case "and":
            return left.masked(count)
        case "shl":
            return left.shifted(count)
        case "lshr":
            return left.shifted(-count)
        case "udiv" if count and count & (count - 1) == 0:
            return left.shifted(1 - count.bit_length())
    return None
