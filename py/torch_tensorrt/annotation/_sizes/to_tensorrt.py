# SPDX-License-Identifier: BSD-3-Clause

"""Integer expressions over extents, in the operations that TensorRT has for them.

TensorRT has sums, products, differences, floor and ceiling divisions, max, min, ``==``
and ``<``. How it divides negative numbers is not documented, so no division here has a
negative operand: a base that may be negative is shifted first.

``torch.utils._sympy.interp`` would walk an expression as well, but hands its handlers
values alone, and a division needs the bounds of its operands' expressions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from types import SimpleNamespace
from typing import Any

import sympy
from torch.utils._sympy.functions import CeilToInt, IntTrueDiv

from .._tensors import Ranges
from ..errors import ArgumentError
from .canonical import LARGEST_EXACT
from .expressions import on_ints, shown
from .facts import bounds
from .values import only_value

_MOST_SHOWN = 200  # characters of an expression in a message


def to_tensorrt(
    expr: sympy.Basic,
    shape_exprs: Mapping[sympy.Symbol, Any],
    ranges: Ranges,
    may_overflow: bool = False,
) -> Any:
    """``expr`` as a ``trtp.ShapeExpr``; call it only inside a callback of TensorRT.

    Args:
        expr: an integer, or a condition, which is 0 or 1.
        shape_exprs: TensorRT's extents.
        ranges: the profile.
        may_overflow: ``ranges`` are wider than the profile, in which
            :func:`require_expressible` rules out that a value passes 64 bits.

    Raises:
        ArgumentError: TensorRT's operations cannot express ``expr``.
    """
    import tensorrt.plugin as trtp

    return _Translator(trtp, shape_exprs, ranges, may_overflow).visit(expr)


def compiled(
    exprs: Iterable[sympy.Basic], order: Sequence[sympy.Symbol], ranges: Ranges
) -> Callable[[Sequence[int]], list[int]]:
    """What TensorRT computes for ``exprs``, as a function of ``order``'s extents.

    What TensorRT cannot compute is what Python says; :func:`to_tensorrt` refuses it.
    """
    extents = {s: _Computed(operator.itemgetter(i)) for i, s in enumerate(order)}
    translator = _Translator(_ALGEBRA, extents, ranges)

    def function(expr: sympy.Basic) -> Callable[[Sequence[int]], int]:
        try:
            computed: _Computed = translator.visit(expr)
        except ArgumentError:
            exact = on_ints(expr)
            return lambda point: exact(dict(zip(order, point, strict=True)))
        return computed.at

    functions = list(map(function, exprs))
    return lambda point: [int(at(point)) for at in functions]


def require_expressible(
    exprs: Iterable[sympy.Basic], ranges: Ranges, may_overflow: bool = False
) -> None:
    """Raise where :func:`to_tensorrt` would, and can be called anywhere.

    Raises:
        ArgumentError: TensorRT's operations cannot express one of ``exprs``.
    """
    extents = dict.fromkeys(ranges, _Computed(0))
    translator = _Translator(_ALGEBRA, extents, ranges, may_overflow)
    for expr in exprs:
        translator.visit(expr)


def expressible(expr: sympy.Basic, ranges: Ranges) -> Any:
    """``expr``, in TensorRT's operations if need be and as far as it can be.

    A part that they cannot compute is replaced by its value, if it has one within the
    profile, such as ``min(256, triton.next_power_of_2(n))`` of a large ``n``.
    """
    try:
        require_expressible([expr], ranges)
        return expr
    except ArgumentError:
        if isinstance(only := only_value(expr, ranges), int):
            return sympy.sympify(only)
    parts = [expressible(part, ranges) for part in expr.args]
    return expr.func(*parts) if parts else expr


def _operation(
    function: Callable[[int, int], int],
) -> Callable[[_Computed, _Computed], _Computed]:
    def apply(first: _Computed, second: _Computed) -> _Computed:
        a, b = first.at, second.at
        return _Computed(lambda point: function(a(point), b(point)))

    return apply


class _Computed:
    """A ``trtp.ShapeExpr`` in plain Python: ``at`` gives its value for some extents.

    ``_ALGEBRA`` is the part of ``trtp`` that makes them.
    """

    def __init__(self, value: int | Callable[[Sequence[int]], int]) -> None:
        self.at = value if callable(value) else lambda _: value

    __add__ = _operation(operator.add)
    __sub__ = _operation(operator.sub)
    __mul__ = _operation(operator.mul)
    __floordiv__ = _operation(operator.floordiv)
    __lt__ = _operation(operator.lt)
    __eq__ = _operation(operator.eq)  # type: ignore[assignment]


_ALGEBRA = SimpleNamespace(
    ShapeExpr=_Computed,
    max=_operation(max),
    min=_operation(min),
    cdiv=_operation(lambda a, b: -(-a // b)),
)


class _Translator:
    """Translates expressions into TensorRT's, or into those of ``_ALGEBRA``."""

    def __init__(
        self,
        algebra: Any,
        shape_exprs: Mapping[sympy.Symbol, Any],
        ranges: Ranges,
        may_overflow: bool = False,
    ) -> None:
        self._algebra = algebra
        self._shape_exprs = shape_exprs
        self._ranges = ranges
        self._may_overflow = may_overflow
        # What combines the operands from left to right. Keys here and below are names
        # of sympy's functions; torch has functions of its own under the same names.
        self._folds = {
            "Add": operator.add,
            "Equality": operator.eq,
            "StrictLessThan": operator.lt,
            **dict.fromkeys(("Max", "Or"), algebra.max),
            **dict.fromkeys(("Min", "And"), algebra.min),
        }

    def visit(self, expr: sympy.Basic) -> Any:
        """The translation of ``expr``, which does not overflow in the profile."""
        translated = self._visit(expr)
        if isinstance(expr, sympy.Add | sympy.Mul | sympy.Pow):
            self._require_64_bits(expr)
        return translated

    def _visit(self, expr: sympy.Basic) -> Any:
        """What is not listed here is refused."""
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
                return self._algebra.max(self.visit(value), self.visit(-value))
            case "StrictGreaterThan", (left, right):
                return self.visit(sympy.Lt(right, left, evaluate=False))
            case "Not", (opposite,):
                return self._constant(1) - self.visit(opposite)
            case "Unequality" | "GreaterThan" | "LessThan", _:
                return self._constant(1) - self.visit(sympy.Not(expr))
        raise self._refused(expr)

    def _constant(self, value: int) -> Any:
        return self._algebra.ShapeExpr(value)

    def _require_64_bits(self, expr: sympy.Basic) -> None:
        """Whatever the order of the operands, no sum or product of some overflows."""
        if self._may_overflow:
            return
        base, exponent = expr.as_base_exp()
        operands = [base] * int(exponent) if isinstance(expr, sympy.Pow) else expr.args
        sizes = [max(map(abs, bounds(a, self._ranges))) for a in operands]
        total = sum if isinstance(expr, sympy.Add) else math.prod
        if total(max(size, 1) for size in sizes) >= 2**63:
            raise ArgumentError(
                "an expression may pass the 64 bits that TensorRT computes with: "
                f"{shown(expr, _MOST_SHOWN)}. Narrow the profile, or compute it inside "
                "the kernel."
            )

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
            ceiling = self._algebra.cdiv(self.visit(-base), self.visit(divisor))
            return self._constant(0) - ceiling
        # floor(a / b) = floor((a + k * b) / b) - k, and k * b >= -a as b >= 1
        shifted = self.visit(base - lower * divisor)
        return shifted // self.visit(divisor) - self._constant(-lower)

    def _remainder(self, base: Any, divisor: Any, whole: sympy.Basic) -> Any:
        """``base % divisor`` as Python has it."""
        quotient = self._quotient(base, divisor, whole)
        return self.visit(base) - quotient * self.visit(divisor)

    def _rounded(self, ratio: IntTrueDiv, whole: sympy.Basic) -> Any:
        """``math.ceil(a / b)`` and its like: exact below 2**53, as floats are."""
        base, divisor = ratio.args
        lower, upper = bounds(base, self._ranges)
        is_exact = lower >= 0 and upper < LARGEST_EXACT
        if not is_exact or bounds(divisor, self._ranges)[0] < 1:
            raise self._refused(whole)
        if isinstance(whole, CeilToInt):
            return self._algebra.cdiv(self.visit(base), self.visit(divisor))
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
        return ArgumentError(
            f"TensorRT cannot compute the expression: {shown(expr, _MOST_SHOWN)}. It "
            "has sums, products, differences, floor and ceiling divisions, max, min "
            "and comparisons of extents. Compute it inside the kernel from the extents "
            "instead."
        )
