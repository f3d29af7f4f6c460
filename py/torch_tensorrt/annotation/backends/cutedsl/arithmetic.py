"""A host launcher's integer arithmetic, on expressions of the extents.

Machine integers wrap around, and their division truncates. A result is an expression
only where the profile's ranges prove that it is what the machine computes; anything
else is ``Unknown``, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from torch_tensorrt.annotation._symbolic import Ranges, bounds
from torch_tensorrt.annotation.backends._cutedsl_values import (
    Comparison,
    Number,
    Unknown,
    compare_conditions,
    logical,
    show,
)

_COMPARISONS = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")


class Arithmetic:
    """Operations of LLVM's dialect for given ranges of the extents."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._operations: Mapping[str, Callable[..., Number]] = {
            "add": lambda a, b, bits: self._fitted(a + b, bits),
            "sub": lambda a, b, bits: self._fitted(a - b, bits),
            "mul": lambda a, b, bits: self._fitted(a * b, bits),
            "shl": self._shift_left,
            "sdiv": self._divide,
            "udiv": self._divide_unsigned,
            "srem": self._remainder,
            "urem": self._remainder,
            "ashr": self._shift_right,
            "lshr": self._shift_right_logical,
            "and": self._and,
            "or": self._or,
            "xor": self._xor,
            "intr.smax": lambda a, b, bits: self._largest(a, b),
            "intr.smin": lambda a, b, bits: self._smallest(a, b),
            "intr.umax": lambda a, b, bits: self._unsigned(self._largest, a, b),
            "intr.umin": lambda a, b, bits: self._unsigned(self._smallest, a, b),
        }

    def knows(self, operation: str) -> bool:
        """Whether :meth:`binary` has ``operation``."""
        return operation in self._operations

    def binary(self, operation: str, left: Number, right: Number, bits: int) -> Number:
        """``operation`` on integers of ``bits`` bits."""
        for value in (left, right):
            if isinstance(value, Unknown):
                return value
        if bits == 1:
            return logical(operation, left, right)
        if isinstance(left, Comparison) or isinstance(right, Comparison):
            return Unknown(f"{operation} of a comparison")
        return self._operations[operation](left, right, bits)

    def compare(self, predicate: int, left: Number, right: Number) -> Number:
        """``llvm.icmp``: 1, 0, or the comparison where the profile leaves it open."""
        for value in (left, right):
            if isinstance(value, Unknown):
                return value
        name = _COMPARISONS[predicate]
        if isinstance(left, Comparison) or isinstance(right, Comparison):
            return compare_conditions(name, left, right)
        if name.startswith("u") and not self._are_natural(left, right):
            return Unknown(f"an unsigned comparison of {left} and {right}")
        relation = name if name in ("eq", "ne") else name[1:]
        decided = self._decide(relation, left, right)
        if decided is None:
            return Comparison(relation, left, right)
        return sympy.Integer(int(decided))

    def select(self, condition: Number, first: Number, second: Number) -> Number:
        """``first`` where ``condition`` holds, else ``second``."""
        if isinstance(condition, Unknown):
            return condition
        if not isinstance(condition, Comparison):
            return first if condition == 1 else second
        if first == second:
            return first
        pair = {condition.left, condition.right}
        if condition.relation not in ("eq", "ne") and pair == {first, second}:
            is_less = condition.relation in ("lt", "le")
            takes_left = first == condition.left
            operation = Min if is_less == takes_left else Max
            return operation(first, second)
        rounded_up = self._ceiling(condition, first, second)
        if rounded_up is not None:
            return rounded_up
        return Unknown(f"a choice by {show(condition)}, which the profile leaves open")

    def _ceiling(
        self, condition: Comparison, first: Number, second: Number
    ) -> sympy.Expr | None:
        """Ceiling division as MLIR expands it: the floor, plus 1 if not exact."""
        if condition.relation not in ("eq", "ne"):
            return None
        up, floor = (first, second) if condition.relation == "ne" else (second, first)
        if not isinstance(floor, FloorDiv) or up != floor + 1:
            return None
        left, right = condition.left, condition.right
        for value, product in ((left, right), (right, left)):
            divisor = product / floor
            if not divisor.is_integer or self._bounds(divisor)[0] < 1:
                continue
            if FloorDiv(value, divisor) == floor:
                return FloorDiv(value + divisor - 1, divisor)
        return None

    def convert(self, operation: str, value: Number, source: int, bits: int) -> Number:
        """``trunc``, ``sext`` or ``zext`` from ``source`` to ``bits`` bits."""
        if isinstance(value, Unknown):
            return value
        if isinstance(value, Comparison):
            if operation == "zext":
                return value  # 0 or 1, as wide as it takes
            return Unknown(f"the value of {show(value)}, which the profile leaves open")
        if operation == "sext":
            return -value if source == 1 else value
        if operation == "zext":
            if self._bounds(value)[0] >= 0:
                return value
            return Unknown(f"{value}, which may be negative, as unsigned")
        if bits == 1:
            return (
                sympy.Integer(int(value) & 1) if value.is_Integer else Unknown("a bit")
            )
        return self._fitted(value, bits)

    def _bounds(self, expr: sympy.Expr) -> tuple[int, int]:
        if expr.is_Integer:
            return int(expr), int(expr)
        return bounds(expr, self._ranges)

    def _are_natural(self, *exprs: sympy.Expr) -> bool:
        return all(self._bounds(expr)[0] >= 0 for expr in exprs)

    def _fitted(self, expr: sympy.Expr, bits: int) -> Number:
        lower, upper = self._bounds(expr)
        limit = 2 ** (bits - 1)
        if -limit <= lower and upper < limit:
            return expr
        if expr.is_Integer:
            return sympy.Integer((int(expr) + limit) % (2 * limit) - limit)
        return Unknown(
            f"{expr}, which reaches {upper if upper >= limit else lower} within the "
            f"profile, and is computed in {bits} bits"
        )

    def _divide(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        """Truncated division: floor where the operands have one sign."""
        if self._bounds(right)[0] >= 1:
            lower, upper = self._bounds(left)
            if lower >= 0:
                return FloorDiv(left, right)
            if upper <= 0:
                return -FloorDiv(-left, right)
        if left.is_Integer and right.is_Integer and right != 0:
            quotient = abs(int(left)) // abs(int(right))
            same_sign = (int(left) < 0) == (int(right) < 0)
            return self._fitted(
                sympy.Integer(quotient if same_sign else -quotient), bits
            )
        return Unknown(f"{left} / {right}, whose signs the profile leaves open")

    def _divide_unsigned(
        self, left: sympy.Expr, right: sympy.Expr, bits: int
    ) -> Number:
        if self._are_natural(left, right):
            return self._divide(left, right, bits)
        return Unknown(f"an unsigned division of {left} by {right}")

    def _remainder(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        if self._are_natural(left) and self._bounds(right)[0] >= 1:
            return Mod(left, right)
        return Unknown(f"{left} % {right}, whose signs the profile leaves open")

    def _shift_left(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        if right.is_Integer and 0 <= right < bits:
            return self._fitted(left * 2 ** int(right), bits)
        return Unknown(f"{left} << {right}")

    def _shift_right(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        if right.is_Integer and 0 <= right < bits:
            return FloorDiv(left, 2 ** int(right))
        return Unknown(f"{left} >> {right}")

    def _shift_right_logical(
        self, left: sympy.Expr, right: sympy.Expr, bits: int
    ) -> Number:
        if self._are_natural(left):
            return self._shift_right(left, right, bits)
        return Unknown(f"{left}, which may be negative, shifted as unsigned")

    def _and(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        """With a mask of the low bits, or of all but those."""
        if left.is_Integer and right.is_Integer:
            return sympy.Integer(int(left) & int(right))
        value, mask = (right, left) if left.is_Integer else (left, right)
        if mask.is_Integer and self._are_natural(value):
            low = int(mask) + 1 if mask >= 0 else -int(mask)
            if low & (low - 1) == 0:
                rest = Mod(value, sympy.Integer(low))
                return rest if mask >= 0 else value - rest
        return Unknown(f"{left} & {right}")

    def _or(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        if left.is_Integer and right.is_Integer:
            return sympy.Integer(int(left) | int(right))
        return Unknown(f"{left} | {right}")

    def _xor(self, left: sympy.Expr, right: sympy.Expr, bits: int) -> Number:
        if left.is_Integer and right.is_Integer:
            return sympy.Integer(int(left) ^ int(right))
        if right == -1:
            return -left - 1
        return Unknown(f"{left} ^ {right}")

    def _largest(self, left: sympy.Expr, right: sympy.Expr) -> Number:
        is_right = self._decide("le", left, right)
        if is_right is None:
            return Max(left, right)  # type: ignore[no-untyped-call]
        return right if is_right else left

    def _smallest(self, left: sympy.Expr, right: sympy.Expr) -> Number:
        is_left = self._decide("le", left, right)
        if is_left is None:
            return Min(left, right)  # type: ignore[no-untyped-call]
        return left if is_left else right

    def _unsigned(
        self, operation: Callable[..., Number], left: sympy.Expr, right: sympy.Expr
    ) -> Number:
        if self._are_natural(left, right):
            return operation(left, right)
        return Unknown(f"an unsigned comparison of {left} and {right}")

    def _decide(
        self, relation: str, left: sympy.Expr, right: sympy.Expr
    ) -> bool | None:
        """What the profile says of ``left relation right``."""
        if relation in ("eq", "ne"):
            lower, upper = self._bounds(left - right)
            if lower == upper == 0:
                return relation == "eq"
            return relation == "ne" if lower > 0 or upper < 0 else None
        if relation in ("gt", "ge"):
            left, right = right, left
        lower, upper = self._bounds(left - right)
        limit = 0 if relation in ("lt", "gt") else 1
        if upper < limit:
            return True
        return False if lower >= limit else None
