"""GPU tensors between guard bands, to see what a kernel should not read, or write."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_GUARD = 1 << 20  # bytes on either side: more than a block's tile
# As bytes: NaN in every floating-point dtype, a large number, and its negative, since
# a maximum or a minimum passes over a NaN.
POISONS = (0xFF, 0x5A, 0xDA)


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
        """``tensor``'s values between guards."""
        guarded = cls(tensor.shape, tensor.dtype, POISONS[0])
        guarded.tensor.copy_(tensor)
        return guarded

    def surround(self, poison: int) -> None:
        """Fill the memory around the tensor: what is read there shows in the output."""
        self._poison = poison
        for guard in self._guards:
            guard.fill_(poison)

    @property
    def address(self) -> int:
        return self.tensor.data_ptr()

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written around the tensor."""
        return all(bool((guard == self._poison).all()) for guard in self._guards)

    @property
    def _guards(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._bytes[:_GUARD], self._bytes[self._end :]

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the values are those of ``tensor``, bit by bit."""
        return torch.equal(
            self.tensor.reshape(-1).view(torch.uint8),
            tensor.contiguous().reshape(-1).view(torch.uint8),
        )
