"""What is known of a number: an expression, an open condition, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import sympy

_RELATIONS = {
    "eq": sympy.Eq,
    "ne": sympy.Ne,
    "lt": sympy.Lt,
    "le": sympy.Le,
    "gt": sympy.Gt,
    "ge": sympy.Ge,
}
_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_NEGATED = {"eq": "ne", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "ne": "eq"}


@dataclass(frozen=True)
class Unknown:
    """A value that no expression stands for."""

    reason: str


@dataclass(frozen=True)
class Comparison:
    """``left relation right``, which the profile does not decide."""

    relation: str
    left: sympy.Expr
    right: sympy.Expr

    @classmethod
    def of(cls, condition: sympy.Basic) -> Comparison | Unknown:
        """The comparison that a sympy condition is."""
        for relation, kind in _RELATIONS.items():
            if isinstance(condition, kind):
                return cls(relation, *condition.args)
        return Unknown(f"the condition {condition}")

    @property
    def condition(self) -> sympy.Basic:
        """As sympy has it; its value is 0 or 1."""
        return _RELATIONS[self.relation](self.left, self.right)

    def negated(self) -> Comparison:
        return Comparison(_NEGATED[self.relation], self.left, self.right)


Number: TypeAlias = sympy.Expr | Unknown | Comparison


def show(value: Number) -> str:
    """A value, for messages."""
    if isinstance(value, Unknown):
        return value.reason
    if isinstance(value, Comparison):
        return f"{value.left} {_SIGNS[value.relation]} {value.right}"
    return str(value)


def logical(operation: str, left: Number, right: Number) -> Number:
    """Operations on single bits, one of which may be an open comparison."""
    if isinstance(left, Comparison):
        left, right = right, left
    if isinstance(left, Comparison | Unknown) or isinstance(right, Unknown):
        return Unknown(f"{operation} of {show(left)} and {show(right)}")
    first = abs(int(left))  # one bit's minus one is its one
    if isinstance(right, Comparison):
        absorbing = {"and": 0, "or": 1}
        if operation == "xor":
            return right.negated() if first == 1 else right
        if operation in absorbing:
            return left if first == absorbing[operation] else right
        return Unknown(f"{operation} of {show(right)}")
    second = abs(int(right))
    results = {"and": first & second, "or": first | second, "xor": first ^ second}
    results |= {"add": first ^ second, "sub": first ^ second, "mul": first & second}
    if operation not in results:
        return Unknown(f"{operation} of single bits")
    return sympy.Integer(results[operation])


def compare_conditions(name: str, left: Number, right: Number) -> Number:
    """``name`` (``eq`` or ``ne``) of an open comparison and a bit."""
    condition, bit = (left, right) if isinstance(left, Comparison) else (right, left)
    is_equal = {"eq": True, "ne": False}.get(name)
    if is_equal is None or isinstance(bit, Comparison | Unknown):
        return Unknown(f"a comparison of {show(left)} and {show(right)}")
    assert isinstance(condition, Comparison)
    if abs(int(bit)) > 1:
        return sympy.Integer(int(not is_equal))
    return condition if (bit != 0) == is_equal else condition.negated()
