# SPDX-License-Identifier: BSD-3-Clause

"""Tensors between guard bands, which a kernel runs on, and the check of its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .._tensors import FORMATS, LINEAR
from ..errors import DryRunError

_GUARD = 1 << 20  # bytes on either side: more than a block's tile
# As bytes: NaN in every floating-point dtype, a large number, and its negative, since
# a maximum or a minimum passes over a NaN.
POISONS = (0xFF, 0x5A, 0xDA)


class GuardedTensor:
    """A tensor in a format's layout, between guard bands.

    Args:
        format_name: TensorRT's.
        poison: the byte that it, its padding and the memory around are filled with.
        shift: bytes by which it starts after an address as torch aligns them.

    Attributes:
        buffer: its memory, as a kernel gets it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        format_name: str,
        poison: int,
        device: torch.device | str = "cuda",
        shift: int = 0,
    ) -> None:
        self._shape, self._format = tuple(shape), FORMATS[format_name]
        self._poison = poison
        extents = self._format.buffer_shape(self._shape)
        size = math.prod(extents) * dtype.itemsize
        start, total = _GUARD + shift, size + shift + 2 * _GUARD
        memory = torch.full((total,), poison, dtype=torch.uint8, device=device)
        self.buffer = memory[start : start + size].view(dtype).view(extents)
        self._guards = (memory[:start], memory[start + size :])

    @property
    def tensor(self) -> torch.Tensor:
        """The values, row-major; a view of the memory where that is possible."""
        return self._format.unpack(self.buffer, self._shape)

    def write(self, tensor: torch.Tensor) -> None:
        """Put ``tensor``'s values in; padding stays as it is."""
        self._format.pack(tensor, self.buffer)

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written around the tensor."""
        return all(bool((guard == self._poison).all()) for guard in self._guards)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether values and padding, bit by bit, are still those of ``tensor``."""
        expected = tensor
        if self._format is not LINEAR:
            expected = torch.empty_like(self.buffer)
            expected.view(torch.uint8).fill_(self._poison)
            self._format.pack(tensor, expected)
        return torch.equal(
            self.buffer.reshape(-1).view(torch.uint8),
            expected.contiguous().reshape(-1).view(torch.uint8),
        )


# Relative to the element and to the output's root mean square together, since sums of
# many terms cancel: a few units in the last place of the dtype, after float32 sums.
TOLERANCES = {
    torch.float32: 1e-4,
    torch.float16: 4e-3,
    torch.bfloat16: 2e-2,
    torch.float8_e4m3fn: 0.15,
}


def tolerance_of(dtype: torch.dtype, given: float | None = None) -> float:
    """The largest error allowed. Integers and bools must be equal.

    Args:
        given: the tolerance for floats; None for that of ``TOLERANCES``.

    Raises:
        DryRunError: ``TOLERANCES`` lacks this floating-point dtype.
    """
    if not dtype.is_floating_point:
        return 0.0
    if given is not None:
        return given
    if dtype not in TOLERANCES:
        raise DryRunError(
            f"outputs of {dtype} have no tolerance of their own. Pass tolerance=..."
        )
    return TOLERANCES[dtype]


class Comparison(NamedTuple):
    """How far a tensor is from the expected one.

    Attributes:
        max_error: the largest; infinite where one is NaN and the other is not.
        message: empty where every element is within the tolerance.
    """

    max_error: float
    message: str


def compare(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None
) -> Comparison:
    """Compare two tensors; integers and bools exactly.

    The error of an element is ``|found - expected| / (|expected| + rms(expected))``.

    Args:
        tolerance: the largest error allowed in floats; None for the dtype's.

    Raises:
        DryRunError: the dtype has no tolerance.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return Comparison(
            math.inf,
            f"the reference is {expected.dtype} {list(expected.shape)}, the output "
            f"{found.dtype} {list(found.shape)}",
        )
    tolerance = tolerance_of(found.dtype, tolerance)
    if found.numel() == 0:
        return Comparison(0.0, "")
    errors = errors_of(found, expected)
    max_error, wrong = float(errors.max()), errors > tolerance
    if not (message := located(wrong, "are wrong")):
        return Comparison(max_error, "")
    got, right = (_bits(t).reshape(-1)[_first(wrong)].item() for t in (found, expected))
    return Comparison(max_error, f"{message}: {got} instead of {right}")


def located(which: torch.Tensor, what: str) -> str:
    """``5 of 3000 elements are wrong, the first at [2, 995]``; empty without any."""
    if not (count := int(which.sum())):
        return ""
    where = [int(i) for i in torch.unravel_index(_first(which), which.shape)]
    return f"{count} of {which.numel()} elements {what}, the first at {where}"


def _first(which: torch.Tensor) -> torch.Tensor:
    # nonzero() would find it too, but takes 8 bytes a dimension and element.
    return which.reshape(-1).to(torch.uint8).argmax().cpu()


def errors_of(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The error of each element, as :func:`compare` defines it."""
    if not found.dtype.is_floating_point:
        return (_bits(found) != _bits(expected)).double()
    f, e = found.float(), expected.float()
    finite = torch.where(e.isfinite(), e, 0.0)
    rms = finite.double().square().mean().sqrt().float()
    errors = (f - e).abs() / (finite.abs() + rms).clamp(min=torch.finfo(f.dtype).tiny)
    same = (f == e) | (f.isnan() & e.isnan())
    return torch.where(same, 0.0, torch.where(errors.isnan(), math.inf, errors))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """A poisoned bool is neither true nor false, so a bool is compared as its byte."""
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor
