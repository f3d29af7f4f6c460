"""Inputs to try a function on of which nothing is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from torch_tensorrt.annotation._configs import Formats
from torch_tensorrt.annotation._formats import FORMATS
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


def guesses(count: int, formats: Formats = None) -> Iterator[tuple[TensorInfo, ...]]:
    """Inputs to try a function on of which nothing is known: ranks and dtypes.

    Args:
        formats: what they must be able to have, one name for all or one for each.
            Where there are too few, recording says so.
    """
    names = (formats or ("LINEAR",)) * (1 if len(formats or ()) > 1 else count)
    each = [FORMATS[name] for name in (*names, *["LINEAR"] * count)[:count]]
    for dtype, rank in itertools.product(_DTYPES, _RANKS):
        yield tuple(
            TensorInfo(
                (_EXTENT,) * max(rank, -fmt.channel),
                dtype if dtype in fmt.dtypes or not fmt.dtypes else fmt.dtypes[0],
            )
            for fmt in each
        )
