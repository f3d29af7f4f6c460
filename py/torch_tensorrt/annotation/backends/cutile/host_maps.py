# SPDX-License-Identifier: BSD-3-Clause

"""The tensor maps that a cuTile kernel takes in hidden parameters, found out.

``ct.launch`` knows nothing of a kernel's tensor maps. The CUBIN brings a function for
them, in machine code of the host, which the CUDA driver calls before a launch: it reads
the other parameters and writes the maps behind them. Nothing else says what the maps
hold. So the function is called here, in a process of its own (``call.py``).

It is called on parameters that all differ, first. Each field of a map then is constant,
or has the value of one parameter, and that proposes a map. The proposal proves nothing:
the function is also called on the parameters of all shapes that launch functions are
replayed at, and each bit that it writes must be the one that is packed here from the
proposal. A difference is a refusal.
"""

from __future__ import annotations

import platform
import random
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import sympy

from ..._code import packed_maps as maps
from ..._code.lowering import sections
from ..._code.tensor_maps import MAP, SIZE, Size, TensorMap, parameters
from ..._record.replay import points_of
from ..._sizes.to_tensorrt import compiled
from ...errors import CompileError, PTXError
from .. import Kind
from ..abi import Parameters, unsupported

Words: TypeAlias = tuple[int, ...]  # of a map, 64 bits each

_SEED = 20_261_126
_TRIES = 4  # of parameters that all differ


class _Unknown(Exception):
    """What is not understood of a kernel's maps, as a clause."""


class _NotCalled(_Unknown):
    """The function was not called, or did not return; elsewhere it may."""


@dataclass(frozen=True)
class HiddenMap:
    """A tensor map that a kernel takes.

    Attributes:
        tensor: the parameter that holds its tensor's address, by number.
        fields: what is in it.
    """

    tensor: int
    fields: TensorMap


def hidden_maps(cubin: bytes, code: str, given: Parameters) -> list[HiddenMap]:
    """The maps that a kernel takes behind its other parameters.

    Args:
        code: the PTX in ``cubin``.
        given: what TensorRT passes for the other parameters.

    Raises:
        UnsupportedKernelError: one of them is not understood.
        CompileError: this host cannot tell.
    """
    types = [kind for kind, _ in parameters(code)]
    own, count = types[: len(given.slots)], types.count(MAP)
    if not count:
        return []
    try:
        if types != [*own, *[MAP] * count]:
            raise _Unknown(f"its parameters are {', '.join(types)}")
        return _found(_HostFunction(cubin, own, count), given)
    except (_Unknown, PTXError) as error:
        kernel = given.program.launch.name
        why = (
            "it takes tensor maps (TMA), and its entry cannot make them: "
            f"{str(error).rstrip('.')}. Take the fact set 'vector16', or write "
            "ct.load(..., allow_tma=False)."
        )
        if isinstance(error, _NotCalled):
            raise CompileError(f"kernel {kernel}: {why}") from error
        raise unsupported(kernel, why) from error


def _found(function: _HostFunction, given: Parameters) -> list[HiddenMap]:
    """Propose maps, and compare them with those that are made."""
    extras, ranges = given.extras, given.program.ranges
    generator = random.Random(_SEED)
    constants = [given.facts(expr).constant for expr in extras]
    tries = [  # the compiler may rely on extents and strides that divide by up to 16
        [16 * generator.randrange(1, 2**24) if c is None else c for c in constants]
        for _ in range(_TRIES)
    ]
    named = {int(n) for expr in extras for n in expr.atoms(sympy.Integer)}
    points, _ = points_of(ranges, {}, named)
    values = [*tries, *map(compiled(extras, list(ranges), ranges), points)]

    def passed(at: Sequence[int]) -> list[int]:
        slots = enumerate(given.slots)
        return [at[s.index] if s.kind is Kind.EXTRA else _address(i) for i, s in slots]

    made = function.maps([passed(at) for at in values])
    found = [_proposed(like, tries, given) for like in zip(*made[:_TRIES], strict=True)]
    for at, those in zip(values, made, strict=True):
        for each, words in zip(found, those, strict=True):
            expected = _packed(each.fields, at, _address(each.tensor))
            if _without_hints(words) != expected:
                raise _Unknown(
                    f"its launch with {at} makes one of {_shown(words)}, where "
                    f"{_shown(expected)} was expected"
                )
    return found


def _address(parameter: int) -> int:
    """A tensor's: a multiple of 16, and another one for each parameter."""
    return (parameter + 1) * 0x1_0000_1010


# --- The function ---------------------------------------------------------------------

_SECTION = b".nv.host"
_FUNCTION = re.compile(rb"__CUDA_TILEIR_FUNC_ON_ARGUMENTS_CHANGE_\d+")
_X86_64 = 62  # a machine's number in an ELF file
_SYMBOL, _RELOCATION = struct.Struct("<IBBHQQ"), struct.Struct("<QQq")
_TIMEOUT = 60  # seconds
_MAP_WORDS = struct.Struct(f"<{maps.WORDS}Q")
_WRITTEN = _MAP_WORDS.size  # bytes of a map; the others are 0


class _HostFunction:
    """What packs a kernel's maps.

    Args:
        own: the types of the parameters before them.
        count: how many maps there are.

    Raises:
        _Unknown: it cannot be called here.
    """

    def __init__(self, cubin: bytes, own: Sequence[str], count: int) -> None:
        self._code, self._count = _machine_code(cubin), count
        self._formats, self._size = list[tuple[int, str]](), 0
        for kind in own:
            size = int(re.sub(r"\D", "", kind)) // 8
            self._size = -(-self._size // size) * size
            self._formats.append((self._size, {1: "B", 2: "H", 4: "I", 8: "Q"}[size]))
            self._size += size

    def maps(self, passed: Sequence[Sequence[int]]) -> list[list[Words]]:
        """For each list of parameters, the maps that it makes of them.

        It is called twice, on memory that holds other bytes behind the parameters: what
        it writes does not depend on them, and nothing else is written.
        """
        room = SIZE * self._count + _WRITTEN
        before = [self._buffer(p) + fill * room for p in passed for fill in _FILLS]
        after = self._call(before)
        first = self._first(after[:2])
        ends = range(first, first + SIZE * self._count, SIZE)
        found = []
        for one, other in zip(before, after, strict=True):
            made = [_MAP_WORDS.unpack_from(other, at) for at in ends]
            expected = bytearray(one)
            for at, words in zip(ends, made, strict=True):
                _MAP_WORDS.pack_into(expected, at, *words)
            if expected != other:
                raise _Unknown("its launch writes something else than maps")
            found.append(made)
        if found[::2] != found[1::2]:
            raise _Unknown("its launch does not write whole maps")
        return found[::2]

    def _buffer(self, passed: Sequence[int]) -> bytes:
        buffer = bytearray(self._size)
        for (at, code), value in zip(self._formats, passed, strict=True):
            bits = 8 * struct.calcsize(code)
            struct.pack_into(f"<{code}", buffer, at, value % (1 << bits))
        return bytes(buffer)

    def _first(self, pair: Sequence[bytes]) -> int:
        """Where the maps begin: what they are aligned to depends on the GPU."""
        bytes_of_both = enumerate(zip(*pair, strict=True))
        written = (at for at, (x, y) in bytes_of_both if at >= self._size and x == y)
        first = next(written, self._size + _WRITTEN)
        if first >= self._size + _WRITTEN:
            raise _Unknown("its launch makes none")
        return first

    def _call(self, buffers: Sequence[bytes]) -> list[bytes]:
        """What the buffers hold afterwards."""
        script, size = str(Path(__file__).with_name("call.py")), len(buffers[0])
        command = [sys.executable, "-I", "-S", script, str(len(self._code)), str(size)]
        given = self._code + b"".join(buffers)
        try:
            run = subprocess.run(
                command, input=given, capture_output=True, timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _NotCalled(f"what its launch makes is not known ({error})") from error
        if run.returncode or len(run.stdout) != size * len(buffers):
            said = run.stderr.decode(errors="replace").strip()
            why = said or f"exit status {run.returncode}"
            raise _NotCalled(f"what its launch makes is not known ({why})")
        starts = range(0, len(run.stdout), size)
        return [run.stdout[start : start + size] for start in starts]


_FILLS = (b"\0", b"\xff")


def _machine_code(cubin: bytes) -> bytes:
    """The function's, which needs nothing from outside.

    Raises:
        _Unknown: there is none that can be called.
    """
    if (host := sections(cubin).get(_SECTION)) is None:
        raise _Unknown("its CUBIN says nothing of them")
    (machine,) = struct.unpack_from("<H", host, 0x12)
    if machine != _X86_64 or platform.machine() != "x86_64":
        raise _NotCalled(
            f"its CUBIN has code for them that runs on another host than this one, "
            f"which is {platform.machine()}"
        )
    found = sections(host)
    strings = found[b".strtab"]
    functions = []
    for name, _, _, section, start, size in _SYMBOL.iter_unpack(found[b".symtab"]):
        if _FUNCTION.fullmatch(strings[name : strings.index(b"\0", name)]):
            functions.append((list(found)[section], start, start + size))
    if len(functions) != 1:
        raise _Unknown(f"its CUBIN has {len(functions)} functions for them, not one")
    ((section, start, end),) = functions
    table = b".rela" + section  # spellchecker:disable-line
    relocated = _RELOCATION.iter_unpack(found.get(table, b""))
    if any(start <= at < end for at, _, _ in relocated):
        raise _Unknown("its CUBIN's code for them refers to other code")
    return found[section][start:end]


# --- What is in a map -----------------------------------------------------------------


_HINTS = (maps.PROMOTION, maps.IS_LARGE)


def _packed(fields: TensorMap, extras: Sequence[int], address: int) -> Words:
    """The map for these extras, without hints.

    Raises:
        PTXError: such a map is not possible.
    """

    def known(sizes: Sequence[Size]) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else extras[s.index] for s in sizes)

    extents, strides = known(fields.extents), known(fields.strides)
    replace(fields, extents=extents, strides=strides)  # raises
    rounds = fields.element_type == maps.TF32
    values = {
        maps.ADDRESS: address,
        maps.MAKER: maps.TOOLCHAINS,
        maps.LAST_AXIS: len(extents) - 1,
        maps.TYPE: maps.FLOAT32 if rounds else fields.element_type,
        maps.SWIZZLE: fields.swizzle,
        maps.FILL: fields.fill,
        maps.ROUNDS: int(rounds),
    }
    for axis, extent in enumerate(extents):
        values[maps.LAST_INDICES[axis]] = extent - 1
        values[maps.LAST_IN_BOX[axis]] = fields.box[axis] - 1
    for axis, stride in enumerate(strides):
        values[maps.STRIDES[axis]] = stride * fields.item_size // maps.STRIDE_UNIT
    words = [0] * maps.WORDS
    for field, value in values.items():
        words[field.word] |= value << field.first
    return tuple(words)


def _proposed(
    made: Sequence[Words], tries: Sequence[Sequence[int]], given: Parameters
) -> HiddenMap:
    """The map that is like these.

    Args:
        made: one for each of ``tries``, which are the extras.

    Raises:
        _Unknown: there is none.
    """
    words = made[0]
    rank, kind = maps.LAST_AXIS.of(words) + 1, maps.TYPE.of(words)
    if kind not in maps.ITEM_SIZES:
        raise _Unknown(f"one has elements of a type, {kind}, that is not known here")
    item_size = maps.ITEM_SIZES[kind]
    tensors = (i for i, s in enumerate(given.slots) if s.kind is not Kind.EXTRA)
    tensor = next((i for i in tensors if _address(i) == maps.ADDRESS.of(words)), None)
    if tensor is None:
        raise _Unknown("one is of something else than a tensor from its start on")

    def size(values: Sequence[int], unit: int) -> Size:
        """What has such values, and is a multiple of ``unit`` at every shape."""
        if len(set(values)) == 1:
            return values[0]
        for slot in given.slots:
            if slot.kind is Kind.EXTRA and values == [at[slot.index] for at in tries]:
                known = given.facts(given.extras[slot.index])
                if known.lower < 1 or known.divisor % unit:
                    raise _Unknown(
                        f"a size of one is {given.extras[slot.index]}, which is not "
                        f"known to be a multiple of {unit}, and above 0"
                    )
                return slot
        raise _Unknown("a size of one is neither constant nor a parameter")

    per_unit = maps.STRIDE_UNIT // item_size
    return HiddenMap(
        tensor,
        TensorMap(
            extents=tuple(
                size([field.of(one) + 1 for one in made], 1)
                for field in maps.LAST_INDICES[:rank]
            ),
            strides=tuple(
                size([field.of(one) * per_unit for one in made], per_unit)
                for field in maps.STRIDES[: rank - 1]
            ),
            box=tuple(field.of(words) + 1 for field in maps.LAST_IN_BOX[:rank]),
            item_size=item_size,
            element_type=maps.TF32 if maps.ROUNDS.of(words) else kind,
            swizzle=maps.SWIZZLE.of(words),
            fill=maps.FILL.of(words),
        ),
    )


def _without_hints(words: Words) -> Words:
    kept = list(words)
    for field in _HINTS:
        kept[field.word] &= ~field.mask
    return tuple(kept)


def _shown(words: Words) -> str:
    return " ".join(f"{word:x}" for word in words)
