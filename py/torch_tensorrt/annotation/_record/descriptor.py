# SPDX-License-Identifier: BSD-3-Clause

"""A tensor descriptor that a launch function makes on the host.

The function's own launch makes a tensor map of it, and fails where the map cannot
exist. An engine makes the map in the kernel, where nothing fails: a stride that is not
a multiple of 16 bytes would be cut off. So what a map asks for must hold at every shape
of the profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sympy

from .._code.tensor_maps import LEAST_BOX, LEAST_STRIDE, MOST_DIMENSIONS, MOST_STRIDE
from .._sizes.facts import facts
from .._tensors import INT32_MAX, Ranges
from ..errors import ArgumentError
from .program import CaughtDescriptor, Descriptor
from .recording import purpose


def read_descriptor(
    name: str,
    caught: CaughtDescriptor,
    tensor: int,
    expr: Callable[[Any], sympy.Expr],
    ranges: Ranges,
    where: str,
) -> Descriptor:
    """The argument of a program.

    Args:
        name: of the kernel's parameter.
        tensor: the number of the descriptor's.
        expr: gives the expression of a size.
        ranges: the profile.
        where: how errors name the argument.

    Raises:
        ArgumentError: at some shape of the profile, it cannot be a tensor map.
    """
    shape, strides = (tuple(map(expr, s)) for s in (caught.shape, caught.strides))
    offset, dtype = expr(caught.tensor.storage_offset()), caught.tensor.dtype
    view = name, tensor, dtype, shape, strides, offset
    found = Descriptor(*view, caught.block, caught.options)
    for why in _objections(found, ranges):
        made = f", a tensor descriptor made at {caught.made_at}"
        raise ArgumentError(f"{where}{made if caught.made_at else ''}: {why}")
    return found


def _objections(descriptor: Descriptor, ranges: Ranges) -> Iterator[str]:
    """What keeps it from being a tensor map, each with what to do instead."""
    rank, size = len(descriptor.shape), descriptor.dtype.itemsize
    strides, block = descriptor.strides, descriptor.block
    if not 1 <= rank <= MOST_DIMENSIONS:
        yield f"it has {rank} dimensions; a tensor map has 1 to {MOST_DIMENSIONS}."
        return
    if not rank == len(strides) == len(block):
        yield (
            f"it has {rank} extents, {len(strides)} strides and a block of "
            f"{len(block)} dimensions. Pass as many of each."
        )
        return
    if not purpose().aligned:
        yield (
            f"a tensor map needs an address that {LEAST_STRIDE} bytes divide, and the "
            "spec says aligned=False, so no address is known to be. Leave it out, or "
            "pass the tensor itself."
        )
    start = facts(descriptor.offset * size, ranges)
    if start.divisor % LEAST_STRIDE:
        yield (
            f"the tensor starts {descriptor.offset * size} bytes inside its buffer, "
            f"and a tensor map needs an address that {LEAST_STRIDE} bytes divide. Pass "
            "the buffer, and start inside it in the kernel."
        )
    for axis, extent in enumerate(descriptor.shape):
        known = facts(extent, ranges)
        if known.lower < 1 or known.upper > INT32_MAX:
            yield (
                f"extent {axis}, {extent}, runs from {known.lower} to {known.upper} "
                f"within the profile; a tensor map takes 1 to {INT32_MAX} here. Narrow "
                "the profile."
            )
    for axis, stride in enumerate(strides[:-1]):
        known = facts(stride * size, ranges)
        if known.divisor % LEAST_STRIDE:
            yield (
                f"stride {axis} is {stride} elements, {stride * size} bytes; a tensor "
                f"map needs a multiple of {LEAST_STRIDE} bytes at every shape of the "
                f"profile, and only one of {known.divisor} is proved. Pad the rows, "
                "make the dimension static, or split it in two, the last static: "
                f"[..., n, {LEAST_STRIDE // size}], and take a view."
            )
        if known.lower < 1 or known.upper >= MOST_STRIDE:
            yield (
                f"stride {axis} runs from {known.lower} to {known.upper} bytes within "
                f"the profile; a tensor map takes 1 to {MOST_STRIDE - 1}. Narrow the "
                "profile, or make the tensor contiguous."
            )
    if facts(strides[-1], ranges).constant != 1:
        yield (
            f"the last stride is {strides[-1]}; a tensor map needs 1. Transpose the "
            "descriptor, and the blocks in the kernel."
        )
    if block[-1] * size % LEAST_BOX:
        yield (
            f"a row of its block is {block[-1]} elements, {block[-1] * size} bytes; a "
            f"tensor map needs a multiple of {LEAST_BOX} bytes. Take larger blocks."
        )
