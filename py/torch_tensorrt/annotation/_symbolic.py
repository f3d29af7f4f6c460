"""Integer expressions over tensor extents: bounds, facts, values, TensorRT's form.

An expression is a sympy one over the symbols of :func:`symbol`; what a launch function
computes with sizes arrives in torch's integer functions (``FloorDiv``, ``Mod``, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import sympy
from torch.utils._sympy.functions import (
    CeilToInt,
    CleanDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Max,
    Min,
    Mod,
    PythonMod,
    TruncToInt,
)
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


def facts(expr: sympy.Expr, ranges: Ranges) -> Facts:
    """Bounds and divisibility of ``expr`` over the whole profile."""
    lower, upper = bounds(expr, ranges)
    return Facts(lower, upper, _power_of_two(expr))


def bounds(expr: sympy.Expr, ranges: Ranges) -> tuple[int, int]:
    """Inclusive bounds of ``expr`` by interval arithmetic."""
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
    if not result.is_Integer:
        raise ArgumentError(f"{expr} is not an integer for {dict(values)}: {result}.")
    return int(result)


def to_tensorrt(
    expr: sympy.Expr, shape_exprs: Mapping[sympy.Symbol, Any], ranges: Ranges
) -> Any:
    """``expr`` as a ``trtp.ShapeExpr``; call it only inside a callback of TensorRT.

    Floor and ceiling division are used on non-negative operands alone, where every
    definition of them agrees.

    Raises:
        ArgumentError: TensorRT's operations cannot express ``expr``.
    """
    return _Translator(shape_exprs, ranges).visit(expr)


class _Translator:
    def __init__(self, shape_exprs: Mapping[sympy.Symbol, Any], ranges: Ranges) -> None:
        import tensorrt.plugin as trtp

        self._trtp = trtp
        self._shape_exprs = shape_exprs
        self._ranges = ranges

    def visit(self, expr: sympy.Expr) -> Any:
        if expr.is_Integer:
            return self._trtp.ShapeExpr(int(expr))
        if expr.is_Symbol:
            return self._shape_exprs[expr]
        visitor = self._VISITORS.get(expr.func)
        if visitor is None:
            raise self._refused(expr)
        return visitor(self, expr)

    def _sum(self, expr: sympy.Expr) -> Any:
        terms = [(self._is_negative(arg), arg) for arg in expr.args]
        added = [self.visit(arg) for negative, arg in terms if not negative]
        total = reduce(lambda a, b: a + b, added) if added else self.visit(sympy.S.Zero)
        for negative, arg in terms:
            if negative:
                total = total - self.visit(-arg)
        return total

    @staticmethod
    def _is_negative(term: sympy.Expr) -> bool:
        return bool(term.as_coeff_Mul()[0].is_negative)

    def _product(self, expr: sympy.Expr) -> Any:
        if not expr.as_coeff_Mul()[0].is_Integer:
            raise self._refused(expr)
        return reduce(lambda a, b: a * b, map(self.visit, expr.args))

    def _power(self, expr: sympy.Expr) -> Any:
        base, exponent = expr.args
        if not (exponent.is_Integer and 1 <= int(exponent) <= 8):
            raise self._refused(expr)
        return reduce(lambda a, b: a * b, [self.visit(base)] * int(exponent))

    def _floor_div(self, expr: sympy.Expr) -> Any:
        base, divisor = expr.args
        self._require_positive(divisor, expr)
        lower, upper = bounds(base, self._ranges)
        if lower >= 0:
            return self.visit(base) // self.visit(divisor)
        if upper <= 0:  # floor(-a / b) = -ceil(a / b)
            ceiling = self._trtp.cdiv(self.visit(-base), self.visit(divisor))
            return self._trtp.ShapeExpr(0) - ceiling
        raise self._refused(expr)

    def _rounded_quotient(self, expr: sympy.Expr) -> Any:
        """``math.ceil(a / b)`` and its like: exact below 2**53, as floats are."""
        (quotient,) = expr.args
        if not isinstance(quotient, IntTrueDiv):
            raise self._refused(expr)
        base, divisor = quotient.args
        self._require_positive(divisor, expr)
        lower, upper = bounds(base, self._ranges)
        if lower < 0 or upper >= 2**53:
            raise self._refused(expr)
        if isinstance(expr, CeilToInt):
            return self._trtp.cdiv(self.visit(base), self.visit(divisor))
        return self.visit(base) // self.visit(divisor)

    def _abs(self, expr: sympy.Expr) -> Any:
        (value,) = expr.args
        return self._trtp.max(self.visit(value), self.visit(-value))

    def _mod(self, expr: sympy.Expr) -> Any:
        base, divisor = expr.args
        self._require_positive(divisor, expr)
        if bounds(base, self._ranges)[0] < 0:
            raise self._refused(expr)
        quotient = self.visit(base) // self.visit(divisor)
        return self.visit(base) - quotient * self.visit(divisor)

    def _max(self, expr: sympy.Expr) -> Any:
        return reduce(self._trtp.max, map(self.visit, expr.args))

    def _min(self, expr: sympy.Expr) -> Any:
        return reduce(self._trtp.min, map(self.visit, expr.args))

    def _require_positive(self, divisor: sympy.Expr, whole: sympy.Expr) -> None:
        if bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(whole)

    def _refused(self, expr: sympy.Expr) -> ArgumentError:
        return ArgumentError(
            f"the expression {expr} cannot be computed by TensorRT, which has sums, "
            "products, differences, floor and ceiling divisions, max and min of "
            "extents. Compute it inside the kernel from the extents instead."
        )

    _VISITORS: Mapping[Any, Callable[[_Translator, sympy.Expr], Any]] = {
        sympy.Add: _sum,
        sympy.Mul: _product,
        sympy.Pow: _power,
        FloorDiv: _floor_div,
        CleanDiv: _floor_div,
        CeilToInt: _rounded_quotient,
        FloorToInt: _rounded_quotient,
        TruncToInt: _rounded_quotient,
        sympy.Abs: _abs,
        Mod: _mod,
        PythonMod: _mod,
        Max: _max,
        Min: _min,
        sympy.Max: _max,
        sympy.Min: _min,
    }


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
