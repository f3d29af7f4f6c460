# SPDX-License-Identifier: BSD-3-Clause

"""Integer expressions over tensor extents, and their JSON form.

An expression is a sympy one over the symbols of ``_tensors.symbol``. What a launch
function computes with sizes arrives in torch's integer functions (``FloorDiv``,
``Mod``, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions
from torch.utils._sympy.printers import PythonPrinter

from .._tensors import symbol


@lru_cache(maxsize=4096)
def on_ints(expr: sympy.Basic) -> Callable[[Mapping[sympy.Symbol, int]], Any]:
    """``expr`` as Python code that computes it from extents, as Python's ints do.

    It takes a microsecond, where putting numbers into ``expr`` takes hundreds.
    """
    symbols = sorted(expr.free_symbols, key=str)
    # What the printer does not know it calls by its name.
    names = {"torch": torch, **vars(functions)}
    function = sympy.lambdify(symbols, expr, [names], PythonPrinter, cse=True)
    return lambda extents: function(*[extents[s] for s in symbols])


def shown(expr: sympy.Basic, most: int = 100) -> str:
    """``expr`` as Python code, for people; what it follows from, if that is long."""
    try:
        text = str(PythonPrinter().doprint(expr)).replace("torch.sym_float", "float")
    except TypeError:  # a power whose exponent is not a number
        text = str(expr)
    if len(text) <= most:
        return text
    symbols = sorted(str(symbol) for symbol in expr.free_symbols)
    return f"a long expression of {', '.join(symbols)}"


# --- JSON -----------------------------------------------------------------------------
#
# An integer is a number, a condition that is decided is a bool, an extent is its
# symbol's name, and everything else is a list: the name of an operation, and its
# operands. Nothing evaluates text: sympy's own readers do, and a cache entry may come
# from anywhere.

_SYMBOL = re.compile(r"d(\d+)_(\d+)", re.ASCII)
_OPERATIONS: dict[str, Any] = {
    **{
        name: getattr(sympy, name)
        for name in (
            *("Add", "Mul", "Pow", "Abs", "Max", "Min"),
            *("And", "Or", "Not", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"),
        )
    },
    **{
        f"torch.{name}": getattr(functions, name)
        for name in (
            *("FloorDiv", "CleanDiv", "Mod", "PythonMod", "ModularIndexing"),
            *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat"),
            *("IntTrueDiv", "FloatTrueDiv", "PowByNatural", "Max", "Min", "Where"),
            *("LShift", "RShift", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or"),
        )
    },
}
_NAMES = {operation: name for name, operation in _OPERATIONS.items()}
_COMMUTATIVE = frozenset(
    ["Add", "Mul", "Max", "Min", "And", "Or", "torch.Max", "torch.Min"]
)


class EncodingError(ValueError):
    """Something has no JSON form here, or some JSON has none of these forms."""


def encode(expr: sympy.Basic) -> Any:
    """``expr`` as JSON, the same in every process.

    Raises:
        EncodingError: it has an operation, or a symbol, that is not known.
    """
    if expr in (sympy.true, sympy.false):
        return bool(expr)
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if isinstance(expr, sympy.Rational):
        return ["Rational", int(expr.p), int(expr.q)]
    if isinstance(expr, sympy.Symbol):
        if _symbol(expr.name) != expr:
            raise EncodingError(f"symbol {expr} is not an extent.")
        return expr.name
    name = _NAMES.get(type(expr))
    if name is None:
        raise EncodingError(
            f"{type(expr).__name__} in {expr} is not a known operation."
        )
    operands = [encode(operand) for operand in expr.args]
    if name in _COMMUTATIVE:  # sympy's order may follow the process's hashes
        operands.sort(key=json.dumps)
    return [name, *operands]


def decode(data: Any) -> sympy.Basic:
    """The expression that :func:`encode` turned into ``data``.

    Raises:
        EncodingError: it did not.
    """
    if isinstance(data, bool):
        return sympy.true if data else sympy.false
    if isinstance(data, int):
        return sympy.Integer(data)
    if isinstance(data, str):
        return _symbol(data)
    match data:
        case ["Rational", int(p), int(q)] if q and type(p) is type(q) is int:
            return sympy.Rational(p, q)
        case [str(name), *operands] if name in _OPERATIONS:
            try:
                expr: sympy.Basic = _OPERATIONS[name](*map(decode, operands))
            except Exception as error:  # sympy and torch raise whatever their checks do
                why = f"{data!r} is not an expression: {error}."
                raise EncodingError(why) from error
            return expr
    raise EncodingError(f"{data!r} is not an expression of known operations.")


def _symbol(name: str) -> sympy.Symbol:
    match = _SYMBOL.fullmatch(name)
    if match is None:
        raise EncodingError(f"{name!r} is not the symbol of an extent.")
    return symbol(int(match[1]), int(match[2]))
