"""Integer expressions over extents, in the operations that TensorRT has for them.

It has sums, products, differences, floor and ceiling divisions, max, min, ``==`` and
``<``. How it divides negative numbers is not documented: no operand here is negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import sympy
from torch.utils._sympy.functions import (
    BitwiseFn_bitwise_and,
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

from torch_tensorrt.annotation._symbolic import Ranges, bounds
from torch_tensorrt.annotation.errors import ArgumentError

_MOST_SHOWN = 200  # characters of an expression in a message


def to_tensorrt(
    expr: sympy.Basic, shape_exprs: Mapping[sympy.Symbol, Any], ranges: Ranges
) -> Any:
    """``expr`` as a ``trtp.ShapeExpr``; call it only inside a callback of TensorRT.

    Args:
        expr: an integer, or a condition, which is 0 or 1.
        shape_exprs: TensorRT's extents.
        ranges: the profile.

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

    def visit(self, expr: sympy.Basic) -> Any:
        if expr.is_Integer:
            return self._constant(int(expr))
        if expr in (sympy.true, sympy.false):
            return self._constant(int(expr == sympy.true))
        if expr.is_Symbol:
            return self._shape_exprs[expr]
        visitor = self._VISITORS.get(expr.func)
        if visitor is None:
            raise self._refused(expr)
        return visitor(self, expr)

    def _constant(self, value: int) -> Any:
        return self._trtp.ShapeExpr(value)

    def _sum(self, expr: sympy.Expr) -> Any:
        terms = [(self._is_negative(arg), arg) for arg in expr.args]
        added = [self.visit(arg) for negative, arg in terms if not negative]
        total = reduce(lambda a, b: a + b, added) if added else self._constant(0)
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
        return self._quotient(base, divisor, expr)

    def _quotient(
        self, base: sympy.Expr, divisor: sympy.Expr, whole: sympy.Expr
    ) -> Any:
        """``base // divisor`` as Python has it; ``whole`` is what a refusal names."""
        if bounds(divisor, self._ranges)[1] < 0:
            base, divisor = -base, -divisor
        if bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(whole)
        lower, upper = bounds(base, self._ranges)
        if lower >= 0:
            return self.visit(base) // self.visit(divisor)
        if upper <= 0:  # floor(-a / b) = -ceil(a / b)
            ceiling = self._trtp.cdiv(self.visit(-base), self.visit(divisor))
            return self._constant(0) - ceiling
        # floor(a / b) = floor((a + k * b) / b) - k, and k * b >= -a as b >= 1
        shifted = self.visit(base) + self._constant(-lower) * self.visit(divisor)
        return shifted // self.visit(divisor) - self._constant(-lower)

    def _rounded_quotient(self, expr: sympy.Expr) -> Any:
        """``math.ceil(a / b)`` and its like: exact below 2**53, as floats are."""
        (quotient,) = expr.args
        if not isinstance(quotient, IntTrueDiv):
            raise self._refused(expr)
        base, divisor = quotient.args
        lower, upper = bounds(base, self._ranges)
        if lower < 0 or upper >= 2**53 or bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(expr)
        if isinstance(expr, CeilToInt):
            return self._trtp.cdiv(self.visit(base), self.visit(divisor))
        return self.visit(base) // self.visit(divisor)

    def _abs(self, expr: sympy.Expr) -> Any:
        (value,) = expr.args
        return self._trtp.max(self.visit(value), self.visit(-value))

    def _mod(self, expr: sympy.Expr) -> Any:
        base, divisor = expr.args
        quotient = self._quotient(base, divisor, expr)
        return self.visit(base) - quotient * self.visit(divisor)

    def _bitwise_and(self, expr: sympy.Expr) -> Any:
        """With ``2**k - 1``, or its complement, which rounds down."""
        mask, value = sorted(expr.args, key=lambda arg: not arg.is_Integer)
        if not mask.is_Integer:
            raise self._refused(expr)
        power = int(mask) + 1 if mask >= 0 else -int(mask)
        if power & (power - 1):
            raise self._refused(expr)
        modulus = sympy.Integer(power)
        if mask >= 0:
            return self._mod(PythonMod(value, modulus, evaluate=False))
        return self._quotient(value, modulus, expr) * self._constant(power)

    def _max(self, expr: sympy.Expr) -> Any:
        return reduce(self._trtp.max, map(self.visit, expr.args))

    def _min(self, expr: sympy.Expr) -> Any:
        return reduce(self._trtp.min, map(self.visit, expr.args))

    def _equal(self, expr: sympy.Basic) -> Any:
        first, second = map(self.visit, expr.args)
        return first == second

    def _less(self, expr: sympy.Basic) -> Any:
        first, second = map(self.visit, expr.args)
        return first < second

    def _greater(self, expr: sympy.Basic) -> Any:
        return self.visit(sympy.Lt(*reversed(expr.args), evaluate=False))

    def _opposite(self, expr: sympy.Basic) -> Any:
        """``!=``, ``>=`` and ``<=``, by what they are not; and ``not``."""
        return self._constant(1) - self.visit(sympy.Not(expr))

    def _not(self, expr: sympy.Basic) -> Any:
        (condition,) = expr.args
        return self._constant(1) - self.visit(condition)

    def _refused(self, expr: sympy.Basic) -> ArgumentError:
        text = str(expr)
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
        return ArgumentError(
            f"the expression {shown} cannot be computed by TensorRT, which has sums, "
            "products, differences, floor and ceiling divisions, max, min and "
            "comparisons of extents. Compute it inside the kernel from the extents "
            "instead."
        )

    _VISITORS: Mapping[Any, Callable[[_Translator, Any], Any]] = {
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
        BitwiseFn_bitwise_and: _bitwise_and,
        Max: _max,
        Min: _min,
        sympy.Max: _max,
        sympy.Min: _min,
        sympy.And: _min,
        sympy.Or: _max,
        sympy.Not: _not,
        sympy.Eq: _equal,
        sympy.Lt: _less,
        sympy.Gt: _greater,
        sympy.Ne: _opposite,
        sympy.Ge: _opposite,
        sympy.Le: _opposite,
    }
