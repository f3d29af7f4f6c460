# SPDX-License-Identifier: BSD-3-Clause

"""A host launcher's integer arithmetic, on expressions of the extents.

Machine integers wrap around, and their division truncates. The invariant: a result is
an expression only where the profile's ranges prove that the machine computes the same.
Any other result is :class:`Unknown`, and says why. What is computed from an unknown
value is unknown too. A comparison that the ranges do not decide is an open
condition: a value of 0 or 1, for which sympy's relations and logic stand.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from ..._sizes.facts import bounds, is_condition
from ..._tensors import Range, Ranges
from .choices import Choice, Interval, Piece, chosen

P = ParamSpec("P")


@dataclass(frozen=True)
class Unknown:
    """A value that no expression stands for."""

    reason: str

    def __str__(self) -> str:
        return self.reason


# An integer, an open condition, or what follows from where a size lies.
Number: TypeAlias = sympy.Basic | Choice | Unknown


class _Inexact(Exception):
    """An expression is not what the machine computes, for some shape of the profile."""


def show(value: Any) -> str:
    """A value, for messages."""
    if isinstance(value, sympy.Rel):
        return f"{value.lhs} {value.rel_op} {value.rhs}"
    return str(value)


def _or_unknown(method: Callable[P, Number]) -> Callable[P, Number]:
    """``method``, with an unknown result where an operand is, or it is not exact."""

    @functools.wraps(method)
    def call(*args: P.args, **keywords: P.kwargs) -> Number:
        for value in args:
            if isinstance(value, Unknown):
                return value
        if choices := [value for value in args if isinstance(value, Choice)]:
            return _by_pieces(method.__name__, choices, *args)
        try:
            return method(*args, **keywords)
        except _Inexact as error:
            return Unknown(str(error))

    return call


def _by_pieces(method: str, choices: Sequence[Choice], *args: Any) -> Number:
    """An operation on choices, done in each interval that all of them have one of."""
    arithmetic, *operands = args
    size, symbol = choices[0].size, choices[0].symbol
    if any(choice.symbol != symbol for choice in choices):
        return Unknown(" and ".join(map(str, choices)))
    lower = max(choice.pieces[0].lower for choice in choices)
    last = min(choice.pieces[-1].upper for choice in choices)
    ends = {piece.upper for choice in choices for piece in choice.pieces}
    pieces = []
    for upper in sorted(end for end in ends if lower <= end <= last):
        within = arithmetic.within(symbol, (lower, upper))
        values = (
            operand[lower]
            if isinstance(operand, Choice)
            else operand.xreplace({size: symbol})
            if isinstance(operand, sympy.Basic)
            else operand
            for operand in operands
        )
        pieces.append(Piece(lower, upper, getattr(within, method)(*values)))
        lower = upper + 1
    result: Number = chosen(size, symbol, pieces)
    return result


class Arithmetic:
    """Operations of LLVM's dialect for given ranges of the extents."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges

    def within(self, symbol: sympy.Symbol, interval: Interval) -> Arithmetic:
        """The same where a symbol lies in an interval."""
        lower, upper = interval
        return Arithmetic({**self.ranges, symbol: Range(lower, lower, upper)})

    @_or_unknown
    def binary(self, operation: str, left: Number, right: Number, bits: int) -> Number:
        """An operation of ``OPERATIONS`` on integers of ``bits`` bits."""
        if bits == 1 and operation in _LOGICAL:
            return _settled(_LOGICAL[operation](_truth(left), _truth(right)))
        if bits == 1 or is_condition(left) or is_condition(right):
            raise _Inexact(f"{operation} of {show(left)} and {show(right)}")
        return OPERATIONS[operation](self, left, right, bits)

    @_or_unknown
    def compare(self, predicate: int, left: Any, right: Any, bits: int = 64) -> Number:
        """``llvm.icmp``: 1, 0, or the condition where the profile leaves it open."""
        relation = _PREDICATES[predicate]
        if is_condition(left) or is_condition(right):
            if relation not in (sympy.Eq, sympy.Ne):
                raise _Inexact(f"a comparison of {show(left)} and {show(right)}")
            differ = _xor(_truth(left), _truth(right))
            return _settled(differ if relation is sympy.Ne else sympy.Not(differ))
        if predicate >= _FIRST_UNSIGNED:
            left, right = (
                value % 2**bits if value.is_Integer else self._natural(value)
                for value in (left, right)
            )
        return self._compare(relation, left, right)

    @_or_unknown
    def select(self, condition: Any, first: Any, second: Any) -> Number:
        """``first`` where an open condition holds, else ``second``.

        That is a maximum or minimum of what is compared; or a ceiling division as MLIR
        expands it, the floor, plus 1 if floor times divisor is not the dividend.
        """
        if first == second:
            return first
        if isinstance(condition, sympy.Integer):
            return first if condition == 1 else second
        is_less = isinstance(condition, (sympy.Lt, sympy.Le))
        is_more = isinstance(condition, (sympy.Gt, sympy.Ge))
        if (is_less or is_more) and {*condition.args} == {first, second}:
            return (Min if is_less == (first == condition.lhs) else Max)(first, second)
        is_rest = isinstance(condition, sympy.Ne)
        up, floor = (first, second) if is_rest else (second, first)
        is_exact = isinstance(condition, sympy.Eq)
        if (is_rest or is_exact) and isinstance(floor, FloorDiv) and up == floor + 1:
            for value, product in itertools.permutations(condition.args):
                divisor = product / floor
                is_positive = divisor.is_integer and self.bounds(divisor)[0] >= 1
                if is_positive and FloorDiv(value, divisor) == floor:
                    return FloorDiv(value + divisor - 1, divisor)
        raise _Inexact(f"a choice by {show(condition)}, which the profile leaves open")

    @_or_unknown
    def convert(self, operation: str, value: Any, source: int, bits: int) -> Number:
        """``trunc``, ``sext`` or ``zext`` from ``source`` to ``bits`` bits."""
        if is_condition(value):
            if operation == "zext" or source > 1:
                return value  # 0 or 1, however wide
            raise _Inexact(f"the value of {show(value)}, which the profile leaves open")
        if operation == "sext":
            return -value if source == 1 else value
        if operation == "zext":
            return self._natural(value)
        if bits == 1:
            return self._bitwise("and_", value, sympy.S.One)
        lower, upper = self.bounds(value)
        half = 2 ** (bits - 1)
        if lower >= 0 and half <= upper < 2 * half and not value.is_Integer:
            low: Any = value - 2 * half * FloorDiv(value, half)
            pick: Any = Max, Min
            return pick[0](-half, pick[1](half - 1, low))  # as bounds do not see
        return self._fitted(value, bits)

    def bounds(self, expr: sympy.Expr) -> tuple[int, int]:
        """Inclusive, of an expression."""
        return bounds(expr, self.ranges)

    def _natural(self, expr: sympy.Expr) -> sympy.Expr:
        """``expr``, which is not negative: it means the same as an unsigned number."""
        if self.bounds(expr)[0] < 0:
            raise _Inexact(f"{expr}, which may be negative, as an unsigned number")
        return expr

    def _fitted(self, expr: sympy.Expr, bits: int) -> sympy.Expr:
        """``expr``, which stays in the range of ``bits`` bits; a constant wraps."""
        lower, upper = self.bounds(expr)
        limit = 2 ** (bits - 1)
        if -limit <= lower and upper < limit:
            return expr
        if expr.is_Integer:
            return sympy.Integer((int(expr) + limit) % (2 * limit) - limit)
        raise _Inexact(
            f"{expr}, which reaches {upper if upper >= limit else lower} within the "
            f"profile, and is computed in {bits} bits"
        )

    def _power(self, exponent: sympy.Expr, bits: int) -> int:
        """What a shift by ``exponent`` multiplies with, or divides by."""
        if not (exponent.is_Integer and 0 <= exponent < bits):
            raise _Inexact(f"a shift by {exponent}")
        return 1 << int(exponent)

    def _quotient(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> sympy.Expr:
        """Truncated division: floor where the operands have one sign."""
        if self.bounds(right)[0] >= 1:
            lower, upper = self.bounds(left)
            if lower >= 0:
                return FloorDiv(left, right)
            if upper <= 0:
                return -FloorDiv(-left, right)
        if left.is_Integer and right.is_Integer and right != 0:
            return self._fitted(sympy.Integer(left / right), bits)  # which truncates
        raise _Inexact(f"{left} / {right}, whose signs the profile leaves open")

    def _remainder(self, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        if self.bounds(left)[0] < 0 or self.bounds(right)[0] < 1:
            raise _Inexact(f"{left} % {right}, whose signs the profile leaves open")
        return Mod(left, right)

    def _bitwise(self, name: str, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        """Of constants, with a mask of the low bits or of all but those, or ``~x``."""
        if left.is_Integer and right.is_Integer:
            return sympy.Integer(getattr(operator, name)(int(left), int(right)))
        mask, value = (left, right) if left.is_Integer else (right, left)
        if name == "xor" and mask == -1:
            return -value - 1
        if name == "and_" and mask.is_Integer and self.bounds(value)[0] >= 0:
            modulus = int(mask) + 1 if mask >= 0 else -int(mask)
            if modulus & (modulus - 1) == 0:
                if self.bounds(value)[1] < modulus:
                    return value if mask >= 0 else sympy.S.Zero
                rest = Mod(value, sympy.Integer(modulus))
                return rest if mask >= 0 else value - rest
        raise _Inexact(f"{left} {name.rstrip('_')} {right}, bit by bit")

    def _extreme(self, pick: Any, left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        """``Max`` or ``Min``; one of the two where the profile decides."""
        is_left = self._compare(sympy.Ge if pick is Max else sympy.Le, left, right)
        if is_condition(is_left):
            return pick(left, right)
        return left if is_left == 1 else right

    def _compare(
        self, relation: Any, left: sympy.Expr, right: sympy.Expr
    ) -> sympy.Basic:
        """``left relation right`` as far as the profile decides it.

        A relation to zero changes at zero only. So it holds for the whole range of the
        difference if it holds at its ends, and at the point that is nearest to zero.
        """
        lower, upper = self.bounds(left - right)
        places = {lower, min(max(0, lower), upper), upper}
        outcomes = {bool(relation(sympy.Integer(place), 0)) for place in places}
        if len(outcomes) == 1:
            return sympy.Integer(outcomes.pop())
        return relation(left, right, evaluate=False)


OPERATIONS: Mapping[str, Callable[[Arithmetic, Any, Any, int], sympy.Expr]] = {
    "add": lambda m, a, b, bits: m._fitted(a + b, bits),
    "sub": lambda m, a, b, bits: m._fitted(a - b, bits),
    "mul": lambda m, a, b, bits: m._fitted(a * b, bits),
    "shl": lambda m, a, b, bits: m._fitted(a * m._power(b, bits), bits),
    "ashr": lambda m, a, b, bits: FloorDiv(a, m._power(b, bits)),
    "lshr": lambda m, a, b, bits: FloorDiv(m._natural(a), m._power(b, bits)),
    "sdiv": lambda m, a, b, bits: m._quotient(a, b, bits),
    "udiv": lambda m, a, b, bits: m._quotient(m._natural(a), m._natural(b), bits),
    "srem": lambda m, a, b, bits: m._remainder(a, b),
    "urem": lambda m, a, b, bits: m._remainder(a, b),
    "and": lambda m, a, b, bits: m._bitwise("and_", a, b),
    "or": lambda m, a, b, bits: m._bitwise("or_", a, b),
    "xor": lambda m, a, b, bits: m._bitwise("xor", a, b),
    "intr.smax": lambda m, a, b, bits: m._extreme(Max, a, b),
    "intr.smin": lambda m, a, b, bits: m._extreme(Min, a, b),
    "intr.umax": lambda m, a, b, bits: m._extreme(Max, m._natural(a), m._natural(b)),
    "intr.umin": lambda m, a, b, bits: m._extreme(Min, m._natural(a), m._natural(b)),
}

# In the order of LLVM's ICmpPredicate; the last four are unsigned.
_PREDICATES = (
    *(sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge),
    *(sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge),
)
_FIRST_UNSIGNED = 6


def _xor(left: sympy.Basic, right: sympy.Basic) -> sympy.Basic:
    """In operations that TensorRT has, and the cache's JSON."""
    only_left = sympy.And(left, sympy.Not(right))
    return sympy.Or(only_left, sympy.And(sympy.Not(left), right))


# Operations on single bits: arithmetic on them is modulo 2.
_LOGICAL: Mapping[str, Callable[[Any, Any], sympy.Basic]] = {
    **{"and": sympy.And, "mul": sympy.And, "or": sympy.Or},
    **{"xor": _xor, "add": _xor, "sub": _xor},
}


def _truth(value: sympy.Basic) -> sympy.Basic:
    """A bit as a condition."""
    if not is_condition(value) and value not in (0, 1):
        raise _Inexact(f"{value} as a condition")
    return value if is_condition(value) else sympy.sympify(value == 1)


def _settled(condition: sympy.Basic) -> sympy.Basic:
    """A condition; 1 or 0 where it is settled."""
    is_settled = condition in (sympy.true, sympy.false)
    return sympy.Integer(bool(condition)) if is_settled else condition
