# SPDX-License-Identifier: BSD-3-Clause

"""One form for expressions that people write in several.

A ceiling is ``(n + 3) // 4``, ``-(-n // 4)``, ``(n - 1) // 4 + 1`` or
``math.ceil(n / 4)``. Here all of them become floor divisions of a base with a constant
from 0 to less than the divisor, and of one sign. Expressions of one form are equal for
every shape of the profile. Others may be equal, too: nothing follows from two forms.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import sympy
from torch.utils._sympy.functions import FloorDiv, IntTrueDiv

from .._tensors import Range, Ranges
from ..errors import ArgumentError
from .facts import bounds

LARGEST_EXACT = 2**53  # of a float64: math.ceil(a / b) is exact below


def canonical(expr: sympy.Basic, ranges: Ranges) -> Any:
    """The form of ``expr``; of a condition that its form decides, true or false."""
    return _canonical(expr, tuple(ranges.items()))


@lru_cache(maxsize=4096)
def _canonical(
    expr: sympy.Basic, extents: tuple[tuple[sympy.Symbol, Range], ...]
) -> Any:
    if not expr.args:
        return expr
    ranges = dict(extents)
    name = expr.func.__name__
    args = [_canonical(argument, extents) for argument in expr.args]
    match name, args:
        case "FloorDiv" | "CleanDiv", (base, divisor):
            if _is_within(divisor, 1, math.inf, ranges):
                return _floor(base, divisor)
        case "Mod" | "PythonMod", (base, divisor):
            is_floored = name == "PythonMod" or _is_within(base, 0, math.inf, ranges)
            if is_floored and _is_within(divisor, 1, math.inf, ranges):
                return sympy.expand(base - divisor * _floor(base, divisor))
        case "CeilToInt" | "FloorToInt" | "TruncToInt", (IntTrueDiv() as ratio,):
            base, divisor = ratio.args
            is_exact = _is_within(base, 0, LARGEST_EXACT - 1, ranges)
            if is_exact and _is_within(divisor, 1, math.inf, ranges):
                up = int(name == "CeilToInt")
                return sympy.expand(_floor(base - up, divisor) + up)
    if isinstance(expr, sympy.core.relational.Relational):
        return _comparison(expr.func, *args)
    formed = expr.func(*args)
    return sympy.expand(formed) if isinstance(formed, sympy.Expr) else formed


def cancelled(condition: sympy.Basic, ranges: Ranges) -> sympy.Basic:
    """``condition``; one that compares products, without factors that both have.

    ``4 * n == 4 * m`` says that two extents agree, which a guard must see.
    """
    if not isinstance(condition, sympy.Eq | sympy.Ne):
        return condition
    left, right = (list(sympy.Mul.make_args(side)) for side in condition.args)
    for factor in tuple(left):
        if factor in right and _is_within(factor, 1, math.inf, ranges):
            left.remove(factor)
            right.remove(factor)
    return condition.func(sympy.Mul(*left), sympy.Mul(*right))


def _is_within(expr: sympy.Basic, least: int, most: float, ranges: Ranges) -> bool:
    """Whether that is proved of ``expr``: it is not where interval arithmetic ends."""
    try:
        lower, upper = bounds(expr, ranges)
    except ArgumentError:
        return False
    return least <= lower and upper <= most


def _floor(base: sympy.Expr, divisor: sympy.Expr) -> Any:
    """``base // divisor`` of a divisor that is at least 1."""
    whole, constant, rest = sympy.S.Zero, sympy.S.Zero, sympy.S.Zero
    for term in sympy.Add.make_args(sympy.expand(base)):
        if (term / divisor).is_integer:
            whole += term / divisor
        elif term.is_Integer:
            constant = term
        else:
            rest += term
    if rest.could_extract_minus_sign():  # a // b is -(-a // b) rounded up
        return sympy.expand(whole - _floor(-rest - constant - 1, divisor) - 1)
    if divisor.is_Integer:
        more, constant = divmod(constant, divisor)
        whole += more
    return sympy.expand(FloorDiv(rest + constant, divisor) + whole)


def _comparison(relation: Any, left: sympy.Basic, right: sympy.Basic) -> Any:
    if left.is_integer and right.is_integer:
        difference = sympy.expand(left - right)
        if difference.is_Integer:
            return relation(difference, 0)
    return relation(left, right)
