"""The one table of dtypes: torch, TensorRT and the kernel languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.annotation.errors import DTypeError


@dataclass(frozen=True)
class DType:
    """One element type under each of its names.

    ``tensorrt`` is the member of ``trt.DataType``, ``token`` what
    ``AutoTuneCombination`` calls it, ``triton`` what a Triton signature does,
    ``cutile`` its name in ``cuda.tile``, and ``cutedsl`` that of CuTe DSL's class.
    """

    torch: torch.dtype
    tensorrt: str
    token: str
    triton: str
    cutile: str
    cutedsl: str


_TABLE = (
    DType(torch.float32, "FLOAT", "FP32", "fp32", "float32", "Float32"),
    DType(torch.float16, "HALF", "FP16", "fp16", "float16", "Float16"),
    DType(torch.bfloat16, "BF16", "BF16", "bf16", "bfloat16", "BFloat16"),
    DType(
        torch.float8_e4m3fn, "FP8", "FP8", "fp8e4nv", "float8_e4m3fn", "Float8E4M3FN"
    ),
    DType(torch.int64, "INT64", "INT64", "i64", "int64", "Int64"),
    DType(torch.int32, "INT32", "INT32", "i32", "int32", "Int32"),
    DType(torch.int8, "INT8", "INT8", "i8", "int8", "Int8"),
    DType(torch.uint8, "UINT8", "UINT8", "u8", "uint8", "Uint8"),
    DType(torch.bool, "BOOL", "BOOL", "i1", "bool_", "Boolean"),
)
_BY_TORCH = {row.torch: row for row in _TABLE}
TOKENS = tuple(row.token for row in _TABLE)
_BY_TENSORRT = {row.tensorrt: row for row in _TABLE}


def from_torch(dtype: torch.dtype) -> DType:
    """The row of a torch dtype. Raises :class:`DTypeError` if TensorRT has none."""
    try:
        return _BY_TORCH[dtype]
    except KeyError:
        raise DTypeError(
            f"dtype {dtype} has no counterpart in TensorRT plugins. "
            f"Convert to one of {_names()} before the op."
        ) from None


def from_tensorrt(dtype: Any) -> DType:
    """The row of a ``trt.DataType``. Raises :class:`DTypeError` if torch has none."""
    try:
        return _BY_TENSORRT[dtype.name]
    except KeyError:
        raise DTypeError(
            f"TensorRT dtype {dtype} has no counterpart here. "
            f"Convert to one of {_names()} before the op."
        ) from None


def from_token(token: str) -> DType:
    """The row of what ``AutoTuneCombination`` calls a dtype."""
    return next(row for row in _TABLE if row.token == token)


def to_tensorrt(dtype: torch.dtype) -> Any:
    """The ``trt.DataType`` of a torch dtype."""
    import tensorrt as trt

    return getattr(trt.DataType, from_torch(dtype).tensorrt)


def _names() -> str:
    return ", ".join(str(row.torch).removeprefix("torch.") for row in _TABLE)
