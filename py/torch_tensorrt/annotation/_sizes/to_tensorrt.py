"""Integer expressions over extents, in the operations that TensorRT has for them.

TensorRT has sums, products, differences, floor and ceiling divisions, max, min, ``==``
and ``<``. How it divides negative numbers is not documented, so no division here has a
negative operand: a base that may be negative is shifted first.

``torch.utils._sympy.interp`` would walk an expression as well, but hands its handlers
values alone, and a division needs the bounds of its operands' expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import sympy
from torch.utils._sympy.functions import CeilToInt, IntTrueDiv, PythonMod

from torch_tensorrt.annotation._sizes.facts import bounds
from torch_tensorrt.annotation._tensors import Ranges
from torch_tensorrt.annotation.errors import ArgumentError

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

    def visit(self, expr: sympy.Basic) -> Any:
        if expr.is_Integer:
            return self._constant(int(expr))
        if expr in (sympy.true, sympy.false):
            return self._constant(int(expr == sympy.true))
        if expr.is_Symbol:
            return self._shape_exprs[expr]
        visitor = _VISITORS.get(expr.func.__name__)
        if visitor is None:
            raise self._refused(expr)
        return visitor(self, expr)

    def _constant(self, value: int) -> Any:
        return self._trtp.ShapeExpr(value)

    def _reduced(self, operation: Callable[[Any, Any], Any], expr: sympy.Basic) -> Any:
        return reduce(operation, map(self.visit, expr.args))

    def sum(self, expr: sympy.Expr) -> Any:
        return self._reduced(lambda a, b: a + b, expr)

    def product(self, expr: sympy.Expr) -> Any:
        if not expr.as_coeff_Mul()[0].is_Integer:
            raise self._refused(expr)
        return self._reduced(lambda a, b: a * b, expr)

    def power(self, expr: sympy.Expr) -> Any:
        base, exponent = expr.args
        if not (exponent.is_Integer and 1 <= int(exponent) <= 8):
            raise self._refused(expr)
        return reduce(lambda a, b: a * b, [self.visit(base)] * int(exponent))

    def floor_div(self, expr: sympy.Expr) -> Any:
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

    def rounded_quotient(self, expr: sympy.Expr) -> Any:
        """``math.ceil(a / b)`` and its like: exact below 2**53, as floats are."""
        (quotient,) = expr.args
        if not isinstance(quotient, IntTrueDiv):
            raise self._refused(expr)
        base, divisor = quotient.args
        lower, upper = bounds(base, self._ranges)
        is_exact = lower >= 0 and upper < _LARGEST_EXACT
        if not is_exact or bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(expr)
        if isinstance(expr, CeilToInt):
            return self._trtp.cdiv(self.visit(base), self.visit(divisor))
        return self.visit(base) // self.visit(divisor)

    def abs(self, expr: sympy.Expr) -> Any:
        (value,) = expr.args
        return self._trtp.max(self.visit(value), self.visit(-value))

    def mod(self, expr: sympy.Expr) -> Any:
        base, divisor = expr.args
        quotient = self._quotient(base, divisor, expr)
        return self.visit(base) - quotient * self.visit(divisor)

    def bitwise_and(self, expr: sympy.Expr) -> Any:
        """With ``2**k - 1``, or its complement, which rounds down."""
        mask, value = sorted(expr.args, key=lambda arg: not arg.is_Integer)
        if not mask.is_Integer:
            raise self._refused(expr)
        power = int(mask) + 1 if mask >= 0 else -int(mask)
        if power & (power - 1):
            raise self._refused(expr)
        modulus = sympy.Integer(power)
        if mask >= 0:
            return self.mod(PythonMod(value, modulus, evaluate=False))
        return self._quotient(value, modulus, expr) * self._constant(power)

    def max(self, expr: sympy.Basic) -> Any:
        return self._reduced(self._trtp.max, expr)

    def min(self, expr: sympy.Basic) -> Any:
        return self._reduced(self._trtp.min, expr)

    def equal(self, expr: sympy.Basic) -> Any:
        return self._reduced(lambda a, b: a == b, expr)

    def less(self, expr: sympy.Basic) -> Any:
        return self._reduced(lambda a, b: a < b, expr)

    def greater(self, expr: sympy.Basic) -> Any:
        return self.visit(sympy.Lt(*reversed(expr.args), evaluate=False))

    def negated(self, expr: sympy.Basic) -> Any:
        """``not``; and ``!=``, ``>=``, ``<=`` by what they are not."""
        opposite = expr.args[0] if isinstance(expr, sympy.Not) else sympy.Not(expr)
        return self._constant(1) - self.visit(opposite)

    def _refused(self, expr: sympy.Basic) -> ArgumentError:
        text = str(expr)
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
        return ArgumentError(
            f"TensorRT cannot compute the expression {shown}. It has sums, products, "
            "differences, floor and ceiling divisions, max, min and comparisons of "
            "extents. Compute it inside the kernel from the extents instead."
        )


# By the name of the sympy function; torch has functions of its own under the same
# names.
_VISITORS: Mapping[str, Callable[[_Translator, Any], Any]] = {
    "Add": _Translator.sum,
    "Mul": _Translator.product,
    "Pow": _Translator.power,
    "FloorDiv": _Translator.floor_div,
    "CleanDiv": _Translator.floor_div,
    "CeilToInt": _Translator.rounded_quotient,
    "FloorToInt": _Translator.rounded_quotient,
    "TruncToInt": _Translator.rounded_quotient,
    "Abs": _Translator.abs,
    "Mod": _Translator.mod,
    "PythonMod": _Translator.mod,
    "BitwiseFn_bitwise_and": _Translator.bitwise_and,
    "Max": _Translator.max,
    "Min": _Translator.min,
    "And": _Translator.min,
    "Or": _Translator.max,
    "Not": _Translator.negated,
    "Equality": _Translator.equal,
    "StrictLessThan": _Translator.less,
    "StrictGreaterThan": _Translator.greater,
    "Unequality": _Translator.negated,
    "GreaterThan": _Translator.negated,
    "LessThan": _Translator.negated,
}
