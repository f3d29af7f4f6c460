# SPDX-License-Identifier: BSD-3-Clause

"""The values that an expression takes over the profile, for what takes constants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sympy

from .._tensors import Range, Ranges
from ..errors import ArgumentError
from .expressions import on_ints, shown
from .facts import bounds

_MOST_SHAPES = 100_000  # tried one by one, in a tenth of a second
_MOST_SHOWN = 6
_ENDS = ("min", "opt", "max")


def only_value(expr: sympy.Basic, ranges: Ranges) -> Any:
    """The value of ``expr`` at every shape of the profile; None for several, or many
    shapes that bounds do not decide."""
    used = _used(expr, ranges)
    try:
        ends = [{s: getattr(r, end) for s, r in used.items()} for end in _ENDS]
        if len(set(map(on_ints(expr), ends))) > 1:
            return None
        values = _values(expr, tuple(used.items()))
        if values is not None:
            return values[0] if len(values) == 1 else None
        lower, upper = bounds(expr, ranges)
    except (ZeroDivisionError, ArgumentError):
        return None
    return lower if lower == upper and isinstance(expr, sympy.Expr) else None


def describe_values(expr: sympy.Basic, ranges: Ranges) -> str:
    """Which values ``expr`` takes, and the bounds around opt within which it is one."""
    used = _used(expr, ranges)
    function = on_ints(expr)
    at_opt = {s: extent.opt for s, extent in used.items()}
    values = _values(expr, tuple(used.items()))
    if values is None:
        ends = itertools.product(*({r.min, r.opt, r.max} for r in used.values()))
        values = _distinct(function(dict(zip(used, end, strict=True))) for end in ends)
        count = f"{len(values)} values or more"
    else:
        count = f"{len(values)} values"
    first = ", ".join(map(str, values[:_MOST_SHOWN]))
    more = ", ..." if len(values) > _MOST_SHOWN else ""
    profile = ", ".join(f"{r.min} <= {s} <= {r.max}" for s, r in used.items())
    text = f"It takes {count} within the profile ({profile}): {first}{more}."
    if len(used) > 1:
        return text
    ((only, extent),) = used.items()
    value = function(at_opt)

    def last(extents: range) -> int:
        same = itertools.takewhile(lambda e: function({only: e}) == value, extents)
        return max(same, default=extent.opt, key=lambda e: abs(e - extent.opt))

    low = last(range(extent.opt, max(extent.min, extent.opt - _MOST_SHAPES) - 1, -1))
    high = last(range(extent.opt, min(extent.max, extent.opt + _MOST_SHAPES) + 1))
    return f"{text} It is {value} for {low} <= {only} <= {high}."


def needs_one_value(
    name: str, expr: sympy.Basic, ranges: Ranges, is_float: bool = False
) -> str:
    """Why the constant ``name`` cannot be ``expr``, and what to do."""
    values = "" if is_float else f"{describe_values(expr, ranges)} "
    return (
        f"a compile-time constant that follows a dynamic size ({shown(expr)}), and "
        f"would need a kernel for each value. {values}Narrow the profile; make that "
        "dimension static; or pass one value that is enough for all, as the config key "
        f"{name}, and mask what is beyond the size."
    )


def _used(expr: sympy.Basic, ranges: Ranges) -> dict[sympy.Symbol, Range]:
    return {s: extent for s, extent in ranges.items() if s in expr.free_symbols}


@lru_cache
def _values(
    expr: sympy.Basic, used: tuple[tuple[sympy.Symbol, Range], ...]
) -> tuple[Any, ...] | None:
    """The values of ``expr``; None where there are too many shapes to try."""
    spans = {s: range(extent.min, extent.max + 1) for s, extent in used}
    if math.prod(map(len, spans.values())) > _MOST_SHAPES:
        return None
    function = on_ints(expr)
    shapes = itertools.product(*spans.values())
    try:
        return _distinct(function(dict(zip(spans, s, strict=True))) for s in shapes)
    except ZeroDivisionError:
        return None


def _distinct(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(values)))
