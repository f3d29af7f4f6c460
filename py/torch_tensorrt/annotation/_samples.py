"""Extents within a profile that satisfy some conditions and break another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import sympy

from torch_tensorrt.annotation._symbolic import Range, Ranges
from torch_tensorrt.annotation._trace import Guard

_MOST_CANDIDATES = 20_000
_MOST_SOLUTIONS = 16


def solutions(
    ranges: Ranges,
    tied: Mapping[sympy.Symbol, sympy.Symbol],
    required: Sequence[Guard],
    guard: Guard,
) -> Iterator[dict[sympy.Symbol, int]]:
    """A few extents for which ``required`` holds and ``guard`` does not.

    The ends of the ranges come first, in every combination; then what conditions name.
    """
    conditions = [g.condition for g in (*required, guard)]
    asked = set().union(*(c.free_symbols for c in conditions))
    named = set().union(*(map(int, c.atoms(sympy.Integer)) for c in conditions))
    free = sorted({tied.get(s, s) for s in asked}, key=str)
    found: list[dict[sympy.Symbol, int]] = []
    for samples in (_ends, lambda extent: _samples(extent, named)):
        choices = itertools.product(*(samples(ranges[s]) for s in free))
        for choice in itertools.islice(choices, _MOST_CANDIDATES):
            chosen = dict(zip(free, choice, strict=True))
            extents = {s: chosen.get(tied.get(s, s), r.opt) for s, r in ranges.items()}
            if extents in found or guard.holds(extents):
                continue
            if all(g.holds(extents) for g in required):
                found.append(extents)
                yield extents
                if len(found) == _MOST_SOLUTIONS:
                    return
        if found:
            return


def _ends(extent: Range) -> list[int]:
    """The ends of a range, and one extent between."""
    ends = {extent.min, extent.opt, extent.max}
    ends |= {extent.min + 1} if len(ends) < 3 else set()
    return sorted(v for v in ends if v <= extent.max)


def _samples(extent: Range, named: set[int]) -> list[int]:
    """Extents worth trying: the ends, small ones, and what a condition names."""
    near = {extent.min, extent.opt, extent.max} | named
    near |= {value + step for value in near for step in (-1, 1)} | {1, 2, 3}
    if extent.max - extent.min < 64:
        near |= set(range(extent.min, extent.max + 1))
    return sorted(v for v in near if extent.min <= v <= extent.max)
