# SPDX-License-Identifier: BSD-3-Clause

"""What holds of an integer expression for every shape in the profile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
from sympy.logic.boolalg import Boolean
from torch.utils._sympy.functions import Max, Min, Mod, PythonMod
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.value_ranges import SymPyValueRangeAnalysis, ValueRanges

from .._tensors import INT32_MAX, INT32_MIN, Range, Ranges
from ..errors import ArgumentError
from .expressions import shown

_LARGEST_POWER = 2**31  # zero is divisible by everything; this stands for it


@dataclass(frozen=True)
class Facts:
    """What holds of an expression for every shape in the profile.

    Attributes:
        lower, upper: inclusive bounds (safe, not always tight).
        divisor: the largest power of two proved to divide it.
    """

    lower: int
    upper: int
    divisor: int

    @property
    def constant(self) -> int | None:
        return self.lower if self.lower == self.upper else None

    @property
    def fits_int32(self) -> bool:
        return self.lower >= INT32_MIN and self.upper <= INT32_MAX


def is_condition(expr: sympy.Basic) -> bool:
    """Whether it is true or false, and not an integer."""
    return isinstance(expr, Boolean) and not expr.is_Symbol


def facts(expr: sympy.Basic, ranges: Ranges) -> Facts:
    """Bounds and divisibility of ``expr`` over the whole profile."""
    lower, upper = bounds(expr, ranges)
    return Facts(lower, upper, _power_of_two(expr))


def bounds(expr: sympy.Basic, ranges: Ranges) -> tuple[int, int]:
    """Inclusive bounds of ``expr`` by interval arithmetic; a condition is 0 or 1."""
    if is_condition(expr):
        return (int(expr == sympy.true), int(expr != sympy.false))
    interval = _interval(expr, tuple(ranges.items()))
    if not (interval.lower.is_Integer and interval.upper.is_Integer):
        raise ArgumentError(
            f"the value {shown(expr)} has no bound over the profile. Give every "
            "dynamic dimension a max."
        )
    return int(interval.lower), int(interval.upper)


@lru_cache  # asked of the same expressions by TensorRT, and by those that hold them
def _interval(expr: sympy.Basic, ranges: tuple[tuple[sympy.Symbol, Range], ...]) -> Any:
    known = {s: ValueRanges(r.min, r.max) for s, r in ranges}
    unknown = ValueRanges.unknown_int()
    return sympy_interp(_Intervals, known, expr, missing_handler=lambda _: unknown)


class _Intervals(SymPyValueRangeAnalysis):
    """torch's interval arithmetic, with a tighter ``|``.

    ``triton.next_power_of_2(n)`` is a chain of them, and is at least ``n``.
    """

    @classmethod
    def bitwise_or(cls, a: Any, b: Any) -> Any:
        interval = super().bitwise_or(a, b)  # type: ignore[no-untyped-call]
        lower = max(a.lower, b.lower) if min(a.lower, b.lower) >= 0 else interval.lower
        return ValueRanges(lower, interval.upper)


def _power_of_two(expr: sympy.Basic) -> int:
    """The largest power of two that is proved to divide ``expr``; at least 1."""
    if expr.is_Integer:
        value = int(expr)
        return min(value & -value, _LARGEST_POWER) if value else _LARGEST_POWER
    if isinstance(expr, sympy.Mul):
        if not expr.as_coeff_Mul()[0].is_Integer:
            return 1
        return min(math.prod(map(_power_of_two, expr.args)), _LARGEST_POWER)
    if isinstance(expr, sympy.Pow) and expr.args[1].is_Integer:
        factors = [_power_of_two(expr.args[0])] * int(expr.args[1])
        return min(math.prod(factors), _LARGEST_POWER)
    if isinstance(
        expr, sympy.Add | sympy.Max | sympy.Min | Max | Min | Mod | PythonMod
    ):
        return min(map(_power_of_two, expr.args))
    return 1
