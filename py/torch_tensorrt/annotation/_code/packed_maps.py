# SPDX-License-Identifier: BSD-3-Clause

"""Where a tensor map holds what, as toolchains pack maps on the host.

Nothing here is written by an entry, which makes its maps in the documented way
(:mod:`.tensor_maps`): it is for reading what a toolchain's own maps are of. The fields
were found by compiling kernels that differ in one of them. On an H200, maps that
``tensormap.replace`` makes, and those of the driver (``cuTensorMapEncodeTiled``), hold
the same in all of them, except where a comment says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WORDS = 8  # of 64 bits; the other half of a map is not packed


class Field(NamedTuple):
    """Bits of a map: the word, the first bit in it, and how many."""

    word: int
    first: int
    width: int

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1 << self.first

    def of(self, words: Sequence[int]) -> int:
        """The number that it holds in a map."""
        return (words[self.word] & self.mask) >> self.first


ADDRESS = Field(0, 0, 64)
MAKER = Field(1, 0, 4)  # 0 in maps of `tensormap.replace` and the driver
TOOLCHAINS = 2  # as a maker
LAST_AXIS = Field(1, 4, 3)
TYPE = Field(1, 7, 4)
SWIZZLE = Field(1, 13, 2)
FILL = Field(1, 15, 1)
ROUNDS = Field(1, 16, 1)
# What makes no difference to a copy: how much the L2 cache fetches, and whether the
# tensor has 128 KiB or more, which is 0 in maps of `tensormap.replace` and the driver.
PROMOTION = Field(1, 17, 2)
IS_LARGE = Field(1, 21, 1)
ATOMICITY = Field(1, 19, 2)  # of a swizzle; 0 is 16 bytes
STRIDES = [Field((i + 3) // 2, 32 * ((i + 1) % 2), 32) for i in range(4)]
LAST_INDICES = [Field(4 + i // 2, 32 * (i % 2), 32) for i in range(5)]
LAST_IN_BOX = [Field(6, 56, 8), *(Field(7, 8 * i, 8) for i in range(4))]

STRIDE_UNIT = 16  # bytes, which also divide the address
# Bytes of an element, by the number of its type, which `tensormap.replace` takes, too.
ITEM_SIZES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 9: 8, 10: 2}
FLOAT32, TF32 = 7, 11  # tf32 has a number for `tensormap.replace` alone: it rounds
