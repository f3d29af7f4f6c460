"""GPU tensors between guard bands, to see what a kernel writes that it should not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_GUARD = 1 << 20  # bytes on either side: more than a block's tile
POISONS = (0xFF, 0x5A)  # as bytes; the first is NaN in every floating-point dtype


class GuardedTensor:
    """A contiguous tensor on the GPU, filled like the memory around it.

    Args:
        poison: the byte it is filled with.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, poison: int) -> None:
        size = math.prod(shape) * dtype.itemsize
        self._poison = poison
        self._end = _GUARD + size
        self._bytes = torch.full(
            (size + 2 * _GUARD,), poison, dtype=torch.uint8, device="cuda"
        )
        self.tensor = self._bytes[_GUARD : self._end].view(dtype).view(tuple(shape))

    @classmethod
    def copy_of(cls, tensor: torch.Tensor) -> GuardedTensor:
        """``tensor``'s values between guards that are NaN."""
        guarded = cls(tensor.shape, tensor.dtype, POISONS[0])
        guarded.tensor.copy_(tensor)
        return guarded

    @property
    def address(self) -> int:
        return self.tensor.data_ptr()

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written around the tensor."""
        guards = (self._bytes[:_GUARD], self._bytes[self._end :])
        return all(bool((guard == self._poison).all()) for guard in guards)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the values are those of ``tensor``, bit by bit."""
        return torch.equal(
            self.tensor.reshape(-1).view(torch.uint8),
            tensor.contiguous().reshape(-1).view(torch.uint8),
        )
