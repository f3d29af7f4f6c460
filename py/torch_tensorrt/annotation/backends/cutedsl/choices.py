# SPDX-License-Identifier: BSD-3-Clause

"""A value that follows from where an expression lies.

A launcher branches on sizes: for fast division by a number of tiles, it looks for the
power of two above it. Both ways are taken, each under what it says of the size, and
what comes out is a choice: an expression for each interval of the size. The invariant:
the intervals are those that the size can be in, in order and without a gap, and in each
the piece is what the machine computes there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min

Bounds: TypeAlias = Callable[[sympy.Expr], tuple[int, int]]
Interval: TypeAlias = tuple[int, int]  # inclusive

_max: Any = Max  # which torch does not annotate
_min: Any = Min


class Piece(NamedTuple):
    """What a choice is where its size lies from ``lower`` to ``upper``."""

    lower: int
    upper: int
    value: Any


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        size: what decides.
        symbol: that stands for it in the pieces.
    """

    size: sympy.Expr
    symbol: sympy.Symbol
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return f"a choice by {self.size}"

    def __getitem__(self, size: int) -> Any:
        """The piece that holds there."""
        return next(value for _, upper, value in self.pieces if size <= upper)

    def expression(self, bounds: Bounds) -> sympy.Expr | None:
        """One expression; None where a piece cannot be a part of one.

        Each piece is multiplied with 1 where it holds, else 0. Beyond its interval, it
        is computed of the interval's end, so that it stays in its own bounds.
        """
        total, ends = sympy.S.Zero, list[int]()
        for lower, upper, value in self.pieces:
            if not isinstance(value, sympy.Expr):
                return None
            within = _max(lower, _min(upper, self.size)) if lower < upper else lower
            held = value.xreplace({self.symbol: sympy.sympify(within)})
            total += held * (self._from(lower) - self._from(upper + 1))
            ends += bounds(held)
        return _max(min(ends), _min(max(ends), total))

    def _from(self, least: int) -> sympy.Expr:
        """1 where the size is at least that, else 0."""
        first, last = self.pieces[0].lower, self.pieces[-1].upper
        if not first < least <= last:
            return sympy.Integer(least <= first)
        return _min(1, FloorDiv(self.size, least))


def chosen(size: sympy.Expr, symbol: sympy.Symbol, pieces: Sequence[Piece]) -> Any:
    """The choice of these pieces, or the one value that all of them are."""
    kept = list[Piece]()
    for lower, upper, value in sorted(pieces, key=lambda piece: piece.lower):
        if isinstance(value, sympy.Basic):
            value = value.xreplace({size: symbol})
        if kept and kept[-1].value == value:
            lower = kept.pop().lower
        kept.append(Piece(lower, upper, value))
    if len(kept) > 1:
        return Choice(size, symbol, tuple(kept))
    value = kept[0].value
    return value.xreplace({symbol: size}) if isinstance(value, sympy.Basic) else value


def split(
    condition: Any, bounds: Bounds
) -> tuple[sympy.Expr, Interval, Interval] | None:
    """A size, where it lies if a condition holds, and where if not; None if the
    condition does not compare a size with a number, or leaves one in two intervals."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return None
    if condition.lhs.is_Integer:
        condition = condition.reversed
    size, point = condition.args
    if size.is_Integer or not point.is_Integer:
        return None
    (lower, upper), point = bounds(size), int(point)
    if lower < 0:
        return None
    ends = {
        sympy.Lt: (point - 1, True),
        sympy.Le: (point, True),
        sympy.Gt: (point, False),
        sympy.Ge: (point - 1, False),
    }
    if point == lower:
        ends |= {sympy.Eq: (point, True), sympy.Ne: (point, False)}
    elif point == upper:
        ends |= {sympy.Eq: (point - 1, False), sympy.Ne: (point - 1, True)}
    if (found := ends.get(type(condition))) is None:
        return None
    end, holds_below = found
    below, above = (lower, end), (end + 1, upper)
    return (size, below, above) if holds_below else (size, above, below)
