"""Read a CUBIN, and give its kernel's parameters the order TensorRT passes them in.

For each parameter a CUBIN says which argument it is (its ordinal), and where it lies in
the constant bank. The driver copies the arguments there, so other ordinals are another
order, and the machine code stays what it was. This is not documented: it was tried with
drivers of CUDA 13.0, and whatever is not exactly as expected is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

# A name of fixed length: a final one takes its place in every table of the file.
PLACEHOLDER = "tta_entry_".ljust(64, "0")

_INFO = b".nv.info."
_VALUE_FOLLOWS = 4  # the format of an attribute: its size, then as many bytes
_PARAMETER = 0x45
_REGISTERS = 0x2F
_SIZES = {Kind.INPUT: 8, Kind.EXTRA: 4, Kind.OUTPUT: 8}


@dataclass(frozen=True)
class Section:
    """A section of an ELF file, and where its content starts in it."""

    name: bytes
    offset: int
    content: bytes


def sections(elf: bytes) -> Iterator[Section]:
    """Each section of a 64-bit little-endian ELF file, which a CUBIN is.

    Raises:
        PTXError: it is none.
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise PTXError("the compiler did not write a CUBIN.")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [
        struct.unpack_from("<IIQQQQ", elf, table + size * index)
        for index in range(count)
    ]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        start = strings + name
        title = elf[start : elf.index(b"\0", start)]
        yield Section(title, offset, elf[offset : offset + length])


def reorder(
    cubin: bytes, slots: Sequence[Slot], counts: Mapping[Kind, int], name: str
) -> bytes:
    """``cubin`` with its entry, ``PLACEHOLDER``, named ``name``, in TensorRT's order.

    Args:
        slots: for each parameter of the entry, in its order, what it is to be given.
        counts: how many inputs, extras and outputs TensorRT passes.

    Raises:
        UnsupportedKernelError: an argument has no parameter of its own, or several.
        PTXError: the CUBIN is not as expected.
    """
    order = [
        Slot(kind, index)
        for kind in (Kind.INPUT, Kind.EXTRA, Kind.OUTPUT)
        for index in range(counts[kind])
    ]
    if sorted(map(repr, slots)) != sorted(map(repr, order)):
        raise UnsupportedKernelError(
            f"{name}: in a CUBIN, every input and output is one argument of the "
            "kernel, and TensorRT would pass others. Take PTX: Target(code='ptx')."
        )
    found = _parameters(cubin)
    if [size for _, size in found] != [_SIZES[slot.kind] for slot in slots]:
        raise PTXError(f"the CUBIN's parameters are {found}, and not as told: {slots}.")
    result = bytearray(cubin)
    for (position, _), slot in zip(found, slots, strict=True):
        struct.pack_into("<H", result, position, order.index(slot))
    renamed = bytes(result).replace(PLACEHOLDER.encode(), padded(name).encode())
    if [size for _, size in _parameters(renamed)] != [_SIZES[s.kind] for s in order]:
        raise PTXError("the CUBIN does not have TensorRT's parameters afterwards.")
    return renamed


def registers(cubin: bytes) -> int:
    """Registers a thread of the kernel.

    Raises:
        PTXError: the CUBIN does not say.
    """
    for section in sections(cubin):
        if section.name == _INFO[:-1]:
            for _, value in _attributes(section, _REGISTERS):
                _, count = struct.unpack("<II", value)
                return int(count)
    raise PTXError("the CUBIN does not say how many registers its kernel takes.")


def padded(name: str) -> str:
    """The entry's name as :func:`reorder` leaves it; a long one keeps both ends."""
    size = len(PLACEHOLDER)
    if len(name) > size:
        name = name[: size // 2] + name[-size // 2 :]
    return name.ljust(size, "_")


def _parameters(cubin: bytes) -> list[tuple[int, int]]:
    """For each parameter by ordinal: where its ordinal is written, and its size."""
    infos = [s for s in sections(cubin) if s.name.startswith(_INFO)]
    if len(infos) != 1:
        raise PTXError(f"a CUBIN of one kernel was expected; it has {len(infos)}.")
    found: dict[int, tuple[int, int]] = {}
    for position, value in _attributes(infos[0], _PARAMETER):
        if len(value) != 12:
            raise PTXError(f"a CUBIN's parameter takes {len(value)} bytes, not 12.")
        _, ordinal, _, size, _ = struct.unpack("<IHHHH", value)
        found[ordinal] = (position + 4, size)
    if sorted(found) != list(range(len(found))) or not found:
        raise PTXError(f"the CUBIN numbers its parameters {sorted(found)}.")
    return [found[ordinal] for ordinal in range(len(found))]


def _attributes(info: Section, kind: int) -> Iterator[tuple[int, bytes]]:
    """Where in the file each attribute of ``kind`` has its value, and the value."""
    at = 0
    while at < len(info.content):
        form, attribute, size = struct.unpack_from("<BBH", info.content, at)
        at += 4
        if form != _VALUE_FOLLOWS:
            continue  # what would be the size is the value
        if attribute == kind:
            yield info.offset + at, info.content[at : at + size]
        at += size
