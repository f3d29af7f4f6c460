# SPDX-License-Identifier: BSD-3-Clause

"""The sizes of buffers that a kernel needs and its op does not return.

TensorRT gives an ahead-of-time kernel no workspace, so such a buffer is an output of
the plugin, which the converter drops. It is in 32-bit words, whatever the buffer holds:
a dtype that TensorRT neither quantizes nor converts. It may be larger than the buffer.

Scratch memory, which a toolchain asks for and the function knows nothing of, is such a
buffer too: so many bytes for each block of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv, Max

from ._code.ptx import SCRATCH_ALIGNMENT
from ._record.program import Output
from ._record.replay import points_of
from ._sizes.to_tensorrt import compiled, require_expressible
from ._tensors import INT32_MAX, Range, Ranges

WORD = torch.int32
Shape: TypeAlias = tuple[sympy.Expr, ...]


@dataclass(frozen=True)
class Room:
    """What TensorRT allocates for hidden buffers: shapes in words, by their index.

    Attributes:
        failure: why one that is needed may not be here.
    """

    shapes: Mapping[int, Shape]
    failure: str


def scratch_buffer(grid: Sequence[sympy.Expr], size: int) -> Output:
    """The buffer of a launch whose blocks have ``size`` bytes each.

    The entry rounds its address up, so it is longer by the alignment.
    """
    words = -(-size // WORD.itemsize)
    return to_align(Output((sympy.Mul(*grid, words),), WORD))


def to_align(buffer: Output) -> Output:
    """The same with room for an entry that rounds its address up."""
    more = SCRATCH_ALIGNMENT // WORD.itemsize
    return Output((sympy.Mul(*in_words(buffer)) + more,), WORD)


def in_words(buffer: Output) -> Shape:
    """A shape in words that has room for ``buffer``; one word at least, if static."""
    if not buffer.shape or 0 in buffer.shape:
        return (sympy.Integer(-(-buffer.dtype.itemsize // WORD.itemsize)),)
    *others, last = buffer.shape
    words, rest = divmod(buffer.dtype.itemsize, WORD.itemsize)
    if rest:
        size = WORD.itemsize
        return (*others, FloorDiv(last * rest + size - 1, size))
    return (*others, last * words)


def widest(shapes: Sequence[Shape]) -> Shape:
    """A shape that has room for any one of ``shapes``; one word without any."""
    shapes = shapes or [(sympy.Integer(1),)]
    rank, one = max(map(len, shapes)), sympy.Integer(1)
    aligned = [(*[one] * (rank - len(shape)), *shape) for shape in shapes]
    extents = zip(*aligned, strict=True)
    return tuple(Max(*each) for each in extents)  # type: ignore[no-untyped-call]


def any_extents(ranges: Ranges) -> dict[sympy.Symbol, Range]:
    """What stands for a profile in expressions that are made without one."""
    return dict.fromkeys(ranges, Range(1, 1, INT32_MAX))


def shortage(buffer: Output, room: Shape, ranges: Ranges) -> str:
    """Where ``room`` is too small for ``buffer``; empty if it never is.

    Args:
        ranges: the profile.

    Raises:
        ArgumentError: ``room`` may pass TensorRT's 64 bits in the profile.
    """
    needed, order = in_words(buffer), list(ranges)
    require_expressible(room, ranges)
    if needed == room:
        return ""
    own = compiled(needed, order, ranges)
    given = compiled(room, order, any_extents(ranges))
    named = {int(n) for e in (*needed, *room) for n in e.atoms(sympy.Integer)}
    for point in points_of(ranges, {}, named)[0]:
        if math.prod(own(point)) > math.prod(given(point)):
            where = ", ".join(f"{s}={n}" for s, n in zip(ranges, point, strict=True))
            return f"at {where}"
    return ""
