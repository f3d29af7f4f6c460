"""Inputs to try a function on of which nothing is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from torch_tensorrt.annotation._trace import TensorInfo

_EXTENT = 256  # divisible by what blocks and heads divide by
_RANKS = (2, 3, 1, 4)
_DTYPES = (
    torch.float16,
    torch.float32,
    torch.bfloat16,
    torch.int32,
    torch.int8,
    torch.int64,
    torch.bool,
)


def guesses(count: int) -> Iterator[tuple[TensorInfo, ...]]:
    """Inputs to try a function on of which nothing is known: ranks and dtypes."""
    for dtype, rank in itertools.product(_DTYPES, _RANKS):
        yield (TensorInfo((_EXTENT,) * rank, dtype),) * count
