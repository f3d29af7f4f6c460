"""Integer expressions over tensor extents: bounds, facts and values.

An expression is a sympy one over the symbols of :func:`symbol`; what a launch function
computes with sizes arrives in torch's integer functions (``FloorDiv``, ``Mod``, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import sympy
from sympy.logic.boolalg import Boolean
from torch.utils._sympy.functions import Max, Min, Mod, PythonMod
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from torch_tensorrt.annotation.errors import ArgumentError, SpecError

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)
_LARGEST_POWER = 2**31  # what zero, divisible by everything, is said to be divisible by


@dataclass(frozen=True)
class Range:
    """The extents one dynamic dimension may have: an optimization profile's entry."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.opt <= self.max:
            raise SpecError(
                f"dimension range min={self.min}, opt={self.opt}, max={self.max}: "
                "must be 0 <= min <= opt <= max."
            )


Extent: TypeAlias = int | Range
Ranges: TypeAlias = Mapping[sympy.Symbol, Range]


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


def symbol(tensor: int, axis: int) -> sympy.Symbol:
    """The extent of input ``tensor`` along ``axis``, as long as it is not known."""
    return sympy.Symbol(f"d{tensor}_{axis}", integer=True, nonnegative=True)


def is_condition(expr: sympy.Basic) -> bool:
    """Whether it is true or false, and no integer."""
    return isinstance(expr, Boolean) and not expr.is_Symbol


def facts(expr: sympy.Expr, ranges: Ranges) -> Facts:
    """Bounds and divisibility of ``expr`` over the whole profile."""
    lower, upper = bounds(expr, ranges)
    return Facts(lower, upper, _power_of_two(expr))


def bounds(expr: sympy.Expr, ranges: Ranges) -> tuple[int, int]:
    """Inclusive bounds of ``expr`` by interval arithmetic; a condition is 0 or 1."""
    if is_condition(expr):
        return (int(expr == sympy.true), int(expr != sympy.false))
    intervals = {s: ValueRanges(r.min, r.max) for s, r in ranges.items()}
    interval = bound_sympy(expr, intervals)
    if not (interval.lower.is_Integer and interval.upper.is_Integer):
        raise ArgumentError(
            f"the value {expr} has no bound over the profile. Give every dynamic "
            "dimension a max."
        )
    return int(interval.lower), int(interval.upper)


def evaluate(expr: sympy.Expr, values: Mapping[sympy.Symbol, int]) -> int:
    """The value of ``expr`` for concrete extents."""
    result = expr.xreplace({s: sympy.Integer(v) for s, v in values.items()})
    if result in (sympy.true, sympy.false):
        return int(bool(result))
    if not result.is_Integer:
        raise ArgumentError(f"{expr} is not an integer for {dict(values)}: {result}.")
    return int(result)


def _power_of_two(expr: sympy.Expr) -> int:
    """The largest power of two that is proved to divide ``expr``; at least 1."""
    if expr.is_Integer:
        value = int(expr)
        return min(value & -value, _LARGEST_POWER) if value else _LARGEST_POWER
    if isinstance(expr, sympy.Mul):
        if not expr.as_coeff_Mul()[0].is_Integer:
            return 1
        return min(math.prod(map(_power_of_two, expr.args)), _LARGEST_POWER)
    if isinstance(expr, sympy.Pow) and expr.args[1].is_Integer and expr.args[1] > 0:
        factors = [_power_of_two(expr.args[0])] * int(expr.args[1])
        return min(math.prod(factors), _LARGEST_POWER)
    if isinstance(
        expr, sympy.Add | sympy.Max | sympy.Min | Max | Min | Mod | PythonMod
    ):
        return min(map(_power_of_two, expr.args))
    return 1
