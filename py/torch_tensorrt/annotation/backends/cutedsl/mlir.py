"""Read what operations of MLIR say in attributes and types."""

from __future__ import annotations

import re
import struct
from typing import Any

import sympy
from cutlass._mlir import ir

from torch_tensorrt.annotation.backends._cutedsl_values import Number, Unknown

_FLOATS = {"f16": "e", "bf16": "f", "f32": "f", "f64": "d"}  # codes of struct.pack


def bits(value: Any) -> int:
    """The width of an integer type."""
    match = re.fullmatch(r"i(\d+)", str(value.type))
    return int(match[1]) if match else 64


def symbol(attribute: Any) -> str:
    return str(attribute).lstrip("@").strip('"')


def integers(attribute: Any) -> list[int]:
    """The elements of ``array<i32: 0, 1>``."""
    return [
        int(text) for text in re.findall(r"-?\d+", str(attribute).partition(":")[2])
    ]


def constant(attribute: Any) -> Number:
    """A constant; a float is the integer of its bits, as a parameter holds it."""
    text = str(attribute)
    if text in ("true", "false"):
        return sympy.Integer(int(text == "true"))
    if isinstance(attribute, ir.IntegerAttr):
        return sympy.Integer(attribute.value)
    code = _FLOATS.get(str(getattr(attribute, "type", "")))
    if isinstance(attribute, ir.FloatAttr) and code is not None:
        bits = int.from_bytes(struct.pack(f"<{code}", attribute.value), "little")
        return sympy.Integer(bits >> 16 if str(attribute.type) == "bf16" else bits)
    return Unknown(f"the constant {text}")
