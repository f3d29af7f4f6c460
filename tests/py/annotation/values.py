# SPDX-License-Identifier: BSD-3-Clause

"""Tensors of given extents, and what an expression over extents is worth."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
import torch

from torch_tensorrt.annotation._tensors import Range, TensorInfo


def info(*shape: int | Range, dtype: torch.dtype = torch.float16) -> TensorInfo:
    return TensorInfo(shape, dtype)


def evaluate(expr: sympy.Basic, values: Mapping[sympy.Symbol, int]) -> int:
    """The value of ``expr``, an integer or a condition, for concrete extents."""
    result = expr.xreplace({s: sympy.Integer(v) for s, v in values.items()})
    if result in (sympy.true, sympy.false):
        return int(bool(result))
    assert result.is_Integer, f"{expr} is {result} for {dict(values)}"
    return int(result)
