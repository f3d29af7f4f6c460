# SPDX-License-Identifier: BSD-3-Clause

"""Integer expressions over extents, in the operations that TensorRT has for them.

TensorRT has sums, products, differences, floor and ceiling divisions, max, min, ``==``
and ``<``. How it divides negative numbers is not documented, so no division here has a
negative operand: a base that may be negative is shifted first.

``torch.utils._sympy.interp`` would walk an expression as well, but hands its handlers
values alone, and a division needs the bounds of its operands' expressions.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any

import sympy
from torch.utils._sympy.functions import CeilToInt, IntTrueDiv

from .._tensors import Ranges
from ..errors import ArgumentError
from .facts import bounds

_MOST_SHOWN = 200  # characters of an expression in a message
_LARGEST_EXACT = 2**53  # of a float64: math.ceil(a / b) is exact below


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
        # What combines the operands from left to right. Keys here and below are names
        # of sympy's functions; torch has functions of its own under the same names.
        self._folds = {
            "Add": operator.add,
            "Equality": operator.eq,
            "StrictLessThan": operator.lt,
            **dict.fromkeys(("Max", "Or"), trtp.max),
            **dict.fromkeys(("Min", "And"), trtp.min),
        }

    def visit(self, expr: sympy.Basic) -> Any:
        """The translation of ``expr``; what is not listed here is refused."""
        if expr.is_Integer:
            return self._constant(int(expr))
        if expr in (sympy.true, sympy.false):
            return self._constant(int(bool(expr)))
        if expr.is_Symbol:
            return self._shape_exprs[expr]
        name = expr.func.__name__
        if name in self._folds:
            return reduce(self._folds[name], map(self.visit, expr.args))
        match name, expr.args:
            case "Mul", factors if expr.as_coeff_Mul()[0].is_Integer:
                return reduce(operator.mul, map(self.visit, factors))
            case "Pow", (base, exponent) if exponent.is_Integer and 1 <= exponent <= 8:
                return reduce(operator.mul, [self.visit(base)] * int(exponent))
            case "FloorDiv" | "CleanDiv", (base, divisor):
                return self._quotient(base, divisor, expr)
            case "Mod" | "PythonMod", (base, divisor):
                return self._remainder(base, divisor, expr)
            case "CeilToInt" | "FloorToInt" | "TruncToInt", (IntTrueDiv() as ratio,):
                return self._rounded(ratio, expr)
            case "BitwiseFn_bitwise_and", (left, right):
                mask, value = (left, right) if left.is_Integer else (right, left)
                if mask.is_Integer:
                    return self._masked(value, int(mask), expr)
            case "Abs", (value,):
                return self._trtp.max(self.visit(value), self.visit(-value))
            case "StrictGreaterThan", (left, right):
                return self.visit(sympy.Lt(right, left, evaluate=False))
            case "Not", (opposite,):
                return self._constant(1) - self.visit(opposite)
            case "Unequality" | "GreaterThan" | "LessThan", _:
                return self._constant(1) - self.visit(sympy.Not(expr))
        raise self._refused(expr)

    def _constant(self, value: int) -> Any:
        return self._trtp.ShapeExpr(value)

    def _quotient(self, base: Any, divisor: Any, whole: sympy.Basic) -> Any:
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

    def _remainder(self, base: Any, divisor: Any, whole: sympy.Basic) -> Any:
        """``base % divisor`` as Python has it."""
        quotient = self._quotient(base, divisor, whole)
        return self.visit(base) - quotient * self.visit(divisor)

    def _rounded(self, ratio: IntTrueDiv, whole: sympy.Basic) -> Any:
        """``math.ceil(a / b)`` and its like: exact below 2**53, as floats are."""
        base, divisor = ratio.args
        lower, upper = bounds(base, self._ranges)
        is_exact = lower >= 0 and upper < _LARGEST_EXACT
        if not is_exact or bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(whole)
        if isinstance(whole, CeilToInt):
            return self._trtp.cdiv(self.visit(base), self.visit(divisor))
        return self.visit(base) // self.visit(divisor)

    def _masked(self, value: Any, mask: int, whole: sympy.Basic) -> Any:
        """``value & mask``, of ``2**k - 1`` or of its complement, which rounds down."""
        power = mask + 1 if mask >= 0 else -mask
        if power & (power - 1):
            raise self._refused(whole)
        if mask >= 0:
            return self._remainder(value, sympy.Integer(power), whole)
        quotient = self._quotient(value, sympy.Integer(power), whole)
        return quotient * self._constant(power)

    def _refused(self, expr: sympy.Basic) -> ArgumentError:
        text = str(expr)
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
        return ArgumentError(
            f"TensorRT cannot compute the expression {shown}. It has sums, products, "
            "differences, floor and ceiling divisions, max, min and comparisons of "
            "extents. Compute it inside the kernel from the extents instead."
        )
