# SPDX-License-Identifier: BSD-3-Clause

"""Expressions in JSON: every operation there and back, and nothing else in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sympy
from torch.utils._sympy import functions

from torch_tensorrt.annotation._sizes.expressions import EncodingError, decode, encode
from torch_tensorrt.annotation._tensors import symbol

N, M = symbol(0, 0), symbol(1, 2)
EXPRESSIONS = [
    sympy.Integer(0),
    sympy.Integer(-(2**40)),
    sympy.Rational(1, 2) * N,
    N * M + 3,
    N**2 - M,
    functions.FloorDiv(N + 255, 256),
    -functions.FloorDiv(-N, 16),
    functions.CleanDiv(N * 4, 2 * M),
    functions.Max(N, M, 7),
    functions.Min(N, functions.Max(M, 2)),
    sympy.Max(N, M),
    sympy.Abs(N - M),
    functions.Mod(N, 3),
    functions.PythonMod(N - 700, 16),
    functions.BitwiseFn_bitwise_and(N, 15),
    functions.CeilToInt(functions.IntTrueDiv(N, M)),
    functions.TruncToInt(functions.IntTrueDiv(N, sympy.Integer(3))),
    sympy.true,
    sympy.false,
    sympy.Eq(functions.Mod(N, 2), 0),
    sympy.And(N > 3, sympy.Or(M < 2, sympy.Ne(N, M))),
]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_an_expression_comes_back_as_it_was(expr: sympy.Basic) -> None:
    assert decode(json.loads(json.dumps(encode(expr)))) == expr


@pytest.mark.parametrize(
    "expr",
    [
        sympy.Symbol("d0_0"),  # of other assumptions
        sympy.Symbol("n", integer=True, nonnegative=True),
        sympy.sin(N),
        sympy.Float(0.5),
    ],
    ids=str,
)
def test_an_expression_that_is_not_known_has_no_json(expr: sympy.Basic) -> None:
    with pytest.raises(EncodingError):
        encode(expr)


@pytest.mark.parametrize(
    "data",
    [
        "__import__('os').abort()",
        ["sin", "d0_0"],
        ["Integer", 3],
        ["Rational", 1, 0],
        ["Rational", 1.5, 2],
        ["Pow", "d0_0"],
        ["Add", None],
        [],
        [["Add"], 1],
        1.5,
        None,
        {"Add": 1},
    ],
    ids=repr,
)
def test_json_that_does_not_encode_an_expression_is_refused(data: Any) -> None:
    with pytest.raises(EncodingError):
        decode(data)
