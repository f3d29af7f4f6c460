# SPDX-License-Identifier: BSD-3-Clause

"""What an expression over extents is worth."""

from __future__ import annotations

from collections.abc import Mapping

import sympy


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, int]) -> int:
    """The value of ``expr``, an integer or a condition, for concrete extents."""
    result = expr.xreplace({s: sympy.Integer(v) for s, v in values.items()})
    if result in (sympy.true, sympy.false):
        return int(bool(result))
    assert result.is_Integer, f"{expr} is {result} for {dict(values)}"
    return int(result)
