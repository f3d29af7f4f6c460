"""GPU tensors between guard bands, to see what a kernel should not read, or write."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from torch_tensorrt.annotation._formats import FORMATS, LINEAR

_GUARD = 1 << 20  # bytes on either side: more than a block's tile
# As bytes: NaN in every floating-point dtype, a large number, and its negative, since
# a maximum or a minimum passes over a NaN.
POISONS = (0xFF, 0x5A, 0xDA)


class GuardedTensor:
    """A tensor on the GPU, in a format's layout, filled like the memory around it.

    Args:
        poison: the byte that it, its padding and the memory around are filled with.
        format_name: TensorRT's.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        poison: int,
        format_name: str = LINEAR.name,
    ) -> None:
        self._shape, self._format = tuple(shape), FORMATS[format_name]
        extents = self._format.buffer_shape(self._shape)
        size = math.prod(extents) * dtype.itemsize
        self._poison = poison
        self._end = _GUARD + size
        self._bytes = torch.full(
            (size + 2 * _GUARD,), poison, dtype=torch.uint8, device="cuda"
        )
        self._buffer = self._bytes[_GUARD : self._end].view(dtype).view(extents)

    @classmethod
    def copy_of(
        cls, tensor: torch.Tensor, format_name: str = LINEAR.name
    ) -> GuardedTensor:
        """``tensor``'s values, in poison."""
        guarded = cls(tensor.shape, tensor.dtype, POISONS[0], format_name)
        guarded.write(tensor)
        return guarded

    def surround(self, poison: int) -> None:
        """Fill memory and padding around the values: what is read there shows."""
        self._poison = poison
        if self._format is LINEAR:
            for guard in self._guards:
                guard.fill_(poison)
        else:
            values = self.tensor.clone()
            self._bytes.fill_(poison)
            self.write(values)

    @property
    def tensor(self) -> torch.Tensor:
        """The values, row-major; a view of the memory where that is possible."""
        return self._format.unpack(self._buffer, self._shape)

    def write(self, tensor: torch.Tensor) -> None:
        """Put ``tensor``'s values in; padding stays as it is."""
        self._format.pack(tensor, self._buffer)

    @property
    def address(self) -> int:
        return self._buffer.data_ptr()

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written around the tensor."""
        return all(bool((guard == self._poison).all()) for guard in self._guards)

    @property
    def _guards(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._bytes[:_GUARD], self._bytes[self._end :]

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the values are those of ``tensor``, bit by bit; and the padding's."""
        expected = tensor
        if self._format is not LINEAR:
            expected = torch.empty_like(self._buffer)
            expected.view(torch.uint8).fill_(self._poison)
            self._format.pack(tensor, expected)
        return torch.equal(
            self._buffer.reshape(-1).view(torch.uint8),
            expected.contiguous().reshape(-1).view(torch.uint8),
        )
