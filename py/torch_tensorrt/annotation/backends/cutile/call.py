# SPDX-License-Identifier: BSD-3-Clause

"""Call machine code of this host on buffers, in a process of its own.

    python call.py CODE SIZE < code and buffers > buffers

The input starts with CODE bytes of a function whose fourth argument is a pointer. It is
called on each of the buffers of SIZE bytes that follow, which are then written out.
What goes wrong in it ends this process and no other. Nothing else is imported here.
"""

import ctypes
import mmap
import sys

_READ_AND_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC
_ROOM = 4096  # bytes that are ours, on both sides of a buffer


def main() -> None:
    length, size = map(int, sys.argv[1:])
    given = sys.stdin.buffer.read()
    code, address = _pages(length)
    code.write(given[:length])
    system = ctypes.CDLL(None, use_errno=True)
    protected = ctypes.c_void_p(address), ctypes.c_size_t(len(code)), _READ_AND_EXECUTE
    if system.mprotect(*protected) != 0:
        sys.exit("the system lets no memory be executed")
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(address)
    _, room = _pages(size + 2 * _ROOM)
    for start in range(length, len(given), size):
        ctypes.memmove(room + _ROOM, given[start : start + size], size)
        function(None, None, None, room + _ROOM)
        sys.stdout.buffer.write(ctypes.string_at(room + _ROOM, size))


def _pages(size: int) -> tuple[mmap.mmap, int]:
    """New memory, at the start of a page, and its address."""
    pages = mmap.mmap(-1, size)
    return pages, ctypes.addressof(ctypes.c_char.from_buffer(pages))


if __name__ == "__main__":
    main()
