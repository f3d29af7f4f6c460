# SPDX-License-Identifier: BSD-3-Clause

"""PTX as an older driver loads it, where that gives the same machine code."""

from __future__ import annotations

import struct

from .. import errors
from .ptx import parse
from .ptxas import assemble


def for_driver(
    text: str, newest: str | None, kernel: str, ptxas: str, emits: str
) -> tuple[str, str]:
    """``text`` as PTX that the driver loads, and the ISA it was lowered from, if any.

    That ``ptxas`` takes a lowered text proves only that the older ISA has all of its
    instructions. The machine code must be the same, too.

    Args:
        newest: PTX ISA that the driver loads; None for any.
        kernel: its name, for messages.
        ptxas: path of the assembler.
        emits: what made the text, for messages: ``"NVRTC emits"``.

    Raises:
        UnsupportedKernelError: it cannot be lowered.
    """
    entry = parse(text)
    if newest is None or float(entry.version) <= float(newest):
        return text, ""
    older = text.replace(f".version {entry.version}", f".version {newest}", 1)
    reason = "it gives other machine code."
    try:
        if _machine_code(older, ptxas) == _machine_code(text, ptxas):
            return older, entry.version
    except errors.PTXError as error:
        reason = str(error)
    raise errors.UnsupportedKernelError(
        f"kernel {kernel}: {emits} PTX {entry.version} for {entry.target}, and the "
        f"driver takes {newest} at most. As that, {reason}\nUpdate the driver, or try "
        "another config."
    )


def _machine_code(text: str, ptxas: str) -> dict[bytes, bytes]:
    found = sections(assemble(text, ptxas, parse(text).target).cubin)
    return {name: found[name] for name in found if name.startswith(b".text.")}


def sections(elf: bytes) -> dict[bytes, bytes]:
    """The sections of a CUBIN, a 64-bit little-endian ELF file, by their names.

    Raises:
        PTXError: it is not one.
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise errors.PTXError("the compiler did not write a CUBIN.")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    rows = range(table, table + size * count, size)
    # A header starts with the section's name, type, flags, address, offset and size.
    headers = [struct.unpack_from("<IIQQQQ", elf, row) for row in rows]
    strings = elf[headers[names][4] :]
    return {
        strings[name : strings.index(b"\0", name)]: elf[offset : offset + length]
        for name, _, _, _, offset, length in headers
    }
