# SPDX-License-Identifier: BSD-3-Clause

"""What a kernel does to the memory behind its pointers, read from its PTX.

Each register is described by the addresses it may hold: sums of pointers with integer
factors, and anything else. Compilers express one pointer by another and the difference
of the two, so names without factors are not enough. A pointer enters by ``ld.param``,
moves through arithmetic, and is used by loads, stores and atomics. Control flow is
ignored: a register holds whatever any instruction puts into it, and the instructions
are read again until nothing changes.

A bulk tensor copy gets the address of a tensor map, which holds the tensor's. Kernels
make maps in shared memory and copy them to where they are used. The register that a map
is copied to stands for the map from then on: what is done through it is done to the
tensor whose address was put in last, in the order of the text, before it was copied.
Where a prologue of :mod:`.tensor_maps` makes maps, it is known which register is which.

The invariant: an effect is true, or it is :data:`UNKNOWN`. Unknown are pointers whose
address goes where this reading does not follow (into memory, into a function, into an
instruction that is not known here), and pointers that only may be behind an access.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import TypeAlias

from ..errors import UnsupportedKernelError
from . import tensor_maps
from .ptx import closing_brace, parse, without_debug_info

# The pointers in an address, with their factors; None is an unknown one.
Base: TypeAlias = "frozenset[tuple[str, int | None]]"
Bases: TypeAlias = "frozenset[Base]"  # what a register may hold; none: not read yet

LOADED, STORED, UNKNOWN = "loaded", "stored", "unknown"
COMPARED = "compared"
NEVER_STORED = ("", COMPARED, LOADED)
_NOT_READ: Bases = frozenset()
_NO_ADDRESS: Bases = frozenset([frozenset()])
_MOST_BASES = 16  # of one register; more become one of unknown factors
_STATEMENT = re.compile(r"(?<![\w.%$@!:])([a-z]\w*(?:(?:\.|::)\w+)*)\s+([^;]*);")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]*[^\s,{}\[\]]")
_NAME = re.compile(r"(?<![\w.$%])[%$A-Za-z_][\w.$]*")
_AT_START = re.compile(r"\[\s*[^\s+,\]]*\s*(?:\+\s*0\s*)?[,\]]")  # of a register
_SPACES = frozenset({"global", "shared", "local", "const", "param"})
_ACCESSES = {
    **dict.fromkeys(("ld", "ldu"), (LOADED,)),
    **dict.fromkeys(("atom", "red"), (LOADED, STORED)),
    "st": (STORED,),
}
# What gives no address, whatever it is made from.
_NUMBERS = frozenset({"ld", "ldu", "atom", "setp", "call", "isspacep", "ldmatrix"})
_COMPARISONS = frozenset({"setp", "set", "slct"})
# What gives one of its operands, perhaps with other low bits.
_COPIES = frozenset({"mov", "cvta", "cvt", "selp", "min", "max", "and", "or"})
_EXACT_COPIES = frozenset({"mov", "cvta", "cvt", "selp"})  # with all bits
_SUMS = {"add": 1, "addc": 1, "sub": -1, "subc": -1}
_HARMLESS = frozenset(
    {"prefetch", "prefetchu", "applypriority", "createpolicy", "fence"}
)


def effects(text: str) -> dict[str, str]:
    """For each pointer that the entry takes, by name, what is done behind it.

    That is ``LOADED`` and ``STORED`` in the order of the first of each, or ``UNKNOWN``.
    An atomic operation does both. Where nothing is done behind it, it is ``COMPARED``
    if the kernel compares its address, and empty if the address makes no difference.
    """
    reading = _read(text)
    for done in reading.done.values():
        if reading.stores_anywhere and STORED not in done:
            done[UNKNOWN] = None
    return {
        name: UNKNOWN
        if UNKNOWN in done
        else ", ".join(done) or (COMPARED if name in reading.compared else "")
        for name, done in reading.done.items()
    }


def _read(text: str) -> _Reading:
    plain = without_debug_info(text)
    entry = parse(plain)
    body = plain[entry.match.end() : closing_brace(plain, entry.match.end())]
    pointers = [p.name for p in entry.parameters if p.type.endswith("64")]
    made = tensor_maps.made(body)
    reading = _Reading(pointers, _STATEMENT.findall(body), made)
    for instruction in reading.instructions:
        reading.use(instruction)
    return reading


def places_of_maps(text: str) -> set[str]:
    """The pointers, by name, whose memory holds maps that the kernel copies tensors by.

    Those of the entry's prologue are not among them. The name of a map whose address
    does not come from a pointer of the entry is empty.
    """
    return _read(text).places


class _Instruction:
    """One instruction. An operand is the names in it, and whether it is an address.

    Attributes:
        targets: names of what it sets.
        sources: its other operands.
        addresses: the text of those that are addresses.
    """

    def __init__(self, op: str, text: str) -> None:
        self.kind, *self.modifiers = re.split(r"[.:]+", op)
        self.spaces = [word for word in self.modifiers if word in _SPACES]
        texts = _OPERAND.findall(text)
        operands = [(one.startswith("["), _NAME.findall(one)) for one in texts]
        writes = bool(operands) and not operands[0][0] and self.kind != "call"
        self.targets = operands[0][1] if writes else []
        self.sources = operands[1:] if writes else operands
        self.addresses = [one for one in texts if one.startswith("[")]
        self.is_parameter = self.kind == "ld" and "param" in self.spaces


def _maps(found: list[tuple[str, str]]) -> dict[str, list[str]]:
    """For each register that a map is copied to, what holds its tensor's address.

    A register that is set more than once, or that several maps are copied to, is not
    among them.
    """
    if not any(op.startswith("tensormap.cp_fenceproxy") for op, _ in found):
        return {}
    instructions = [_Instruction(*one) for one in found]
    times_set = Counter(name for each in instructions for name in each.targets)
    sources = {
        each.targets[0]: each.sources[0][1]
        for each in instructions
        if each.kind in ("mov", "cvt") and len(each.targets) == 1
    }

    def place(address: str) -> tuple[str, str]:
        """The same for two registers that are copies of one, at equal offsets."""
        name, _, offset = (part.strip() for part in address.partition("+"))
        for _ in sources:
            if times_set[name] != 1 or len(sources.get(name, ())) != 1:
                break
            (name,) = sources[name]
        return name, offset or "0"

    put: dict[tuple[str, str], list[str]] = {}  # into the map in shared memory there
    copied: dict[str, list[list[str]]] = {}
    for each in instructions:
        if each.kind == "tensormap":
            places = [place(address[1:-1]) for address in each.addresses]
            if "global_address" in each.modifiers:
                put[places[0]] = each.sources[1][1]
            elif "cp_fenceproxy" in each.modifiers:
                target = each.sources[0][1][0] if each.sources[0][1] else ""
                is_start = _AT_START.match(each.addresses[0])
                address = put.get(places[1], []) if is_start else []
                copied.setdefault(target, []).append(address)
    return {
        name: addresses[0]
        for name, addresses in copied.items()
        if times_set[name] == 1 and len(addresses) == 1 and addresses[0]
    }


class _Reading:
    """What the registers of a kernel may hold, and what is done with it.

    Attributes:
        instructions: those that have to do with addresses.
        done: by pointer, what is done behind it, in order.
        compared: pointers whose address a comparison sees.
        stores_anywhere: whether it stores to an address that is not understood.
        places: pointers to memory that holds maps; empty for one that is not known.
    """

    def __init__(
        self,
        pointers: list[str],
        found: list[tuple[str, str]],
        made: dict[str, list[str]],
    ) -> None:
        self.done: dict[str, dict[str, None]] = {name: {} for name in pointers}
        self.compared: set[str] = set()
        self.stores_anywhere = False
        self.places: set[str] = set()
        self._may_hold = set(pointers)  # names that may hold an address
        # The name of a parameter is an address of its own, in another state space.
        own: dict[str, Bases]
        own = {name: frozenset([frozenset([(name, None)])]) for name in pointers}
        self._maps = _maps(found) | made
        own |= {name: frozenset([frozenset([(name, 1)])]) for name in self._maps}
        self._may_hold |= self._maps.keys()
        self._places: dict[str, Bases] = dict.fromkeys(self._maps, _NOT_READ)
        self._registers = own
        self.instructions = self._relevant(found)
        while sum(map(self._execute, self.instructions)):
            pass

    def _relevant(self, found: list[tuple[str, str]]) -> list[_Instruction]:
        names = [frozenset(_NAME.findall(text)) for _, text in found]
        relevant = {
            index: _Instruction(*one)
            for index, one in enumerate(found)
            if one[0].startswith("cp.") and ".tensor." in one[0]
        }
        known, count = self._may_hold, 0
        while len(known) > count:
            count = len(known)
            for index, used in enumerate(names):
                if index not in relevant and not known.isdisjoint(used):
                    new = relevant[index] = _Instruction(*found[index])
                    if new.is_parameter or new.kind not in _NUMBERS:
                        known.update(new.targets)
        return [relevant[index] for index in sorted(relevant)]

    def _execute(self, instruction: _Instruction) -> bool:
        """Whether the targets of an instruction may then hold more than before."""
        bases, more = self._result(instruction), False
        for name in instruction.targets:
            held = self._places if name in self._maps else self._registers
            before = held.get(name, _NOT_READ)
            held[name] = _merged(before | bases)
            more = more or held[name] != before
        return more

    def _result(self, instruction: _Instruction) -> Bases:
        kind, sources = instruction.kind, [names for _, names in instruction.sources]
        held = [n for names in sources for n in names if n in self._may_hold]
        if instruction.is_parameter and held and self.done.keys() >= set(held):
            return frozenset(frozenset([(name, 1)]) for name in held)
        if kind in _NUMBERS or not held:
            return _NO_ADDRESS
        if kind in _COPIES:
            return self._value(held, kind in _EXACT_COPIES)
        values = list(map(self._value, sources))
        if kind == "mad" and values[0] == values[1] == _NO_ADDRESS:
            return values[2]
        if kind in _SUMS:
            pairs = itertools.product(values[0], values[1])
            return frozenset(_sum(*pair, _SUMS[kind]) for pair in pairs)
        return _mixed(self._value(held))

    def _value(self, names: list[str], with_maps: bool = False) -> Bases:
        """What an operand may hold.

        Args:
            with_maps: let maps be; otherwise they are addresses as any other.
        """
        held = [self._registers.get(n, _NOT_READ) for n in names if n in self._may_hold]
        bases = _NOT_READ.union(*held) if held else _NO_ADDRESS
        return bases if with_maps else self._without_maps(bases)

    def _without_maps(self, bases: Bases) -> Bases:
        """The same, with the addresses that maps are at."""
        found = _NOT_READ
        for base in bases:
            maps = [name for name, _ in base if name in self._maps]
            places = _NOT_READ.union(*(self._places[name] for name in maps))
            if not maps:
                found |= {base}
            elif base == {(maps[0], 1)}:
                found |= self._without_maps(places)
            else:
                rest = frozenset(pair for pair in base if pair[0] not in maps)
                found |= _mixed(self._without_maps(places) | {rest})
        return found

    def use(self, instruction: _Instruction) -> None:
        """Note what an instruction does with the addresses that it is given."""
        kind, sources = instruction.kind, instruction.sources
        if instruction.is_parameter or kind in _HARMLESS:
            return
        if kind in _COMPARISONS:
            held = (self._value(names) for _, names in sources)
            self.compared.update(n for bases in held for base in bases for n, _ in base)
        if kind == "tensormap":
            self._make(instruction)
            return
        if kind == "cp" and "tensor" in instruction.modifiers:
            sources = self._copy(instruction)
        count = sum(is_address for is_address, _ in sources)
        accesses = [_ACCESSES[kind]] if kind in _ACCESSES else []
        if kind == "cp" and "tensor" not in instruction.modifiers:
            first = (LOADED, STORED) if "reduce" in instruction.modifiers else (STORED,)
            accesses = [(LOADED,)] if count == 1 else [first, (LOADED,)]
        remaining, spaces = iter(accesses), iter(instruction.spaces)
        for is_address, names in sources:
            if is_address and (does := next(remaining, ())):
                if next(spaces, "global") == "global":
                    self._access(self._value(names), does)
            elif count or kind == "call":  # kept somewhere, or used in some other way
                self._access(_mixed(self._value(names)), (UNKNOWN,))

    def _make(self, instruction: _Instruction) -> None:
        """Note what making a map does."""
        place, *others = (self._value(names) for _, names in instruction.sources)
        if "cp_fenceproxy" in instruction.modifiers:
            self._access(place, (STORED, LOADED))
            return
        if "global_address" in instruction.modifiers and not any(
            itertools.chain.from_iterable(others)
        ):
            raise UnsupportedKernelError(
                "the kernel makes a tensor map of an address that it reads from memory."
                " An engine has its tensors elsewhere each time: pass them to the "
                "kernel, and compute the address from theirs."
            )
        known = itertools.chain.from_iterable(self._maps.values())
        if "shared" not in instruction.spaces:
            self._access(_mixed(place), (UNKNOWN,))
        if not set(instruction.sources[-1][1]) <= set(known):
            for bases in others:
                self._access(_mixed(bases), (UNKNOWN,))

    def _copy(self, instruction: _Instruction) -> list[tuple[bool, list[str]]]:
        """Note what a bulk tensor copy does to its tensor. Returns the other operands.

        The map is the operand in global memory, with the coordinates behind it.
        """
        to_global = instruction.spaces[:1] == ["global"]
        is_prefetch = "prefetch" in instruction.modifiers
        index = 0 if to_global or is_prefetch else 1
        operand = [s for s in instruction.sources if s[0]][index]
        does: tuple[str, ...] = (STORED,) if to_global else (LOADED,)
        if "reduce" in instruction.modifiers:
            does = (LOADED, STORED)
        is_start = _AT_START.match(instruction.addresses[index])
        held = self._value(operand[1][:1], with_maps=True)
        maps = [name for name in self._maps if held == {frozenset([(name, 1)])}]
        if is_prefetch:
            pass
        elif maps and is_start:
            self._access(self._value(self._maps[maps[0]]), does)
        else:  # any map may be meant, or one that the kernel did not make
            places = self._without_maps(held)
            self._access(places, (LOADED,))
            for base in places:
                self.places.update({name for name, _ in base} or {""})
            for address in self._maps.values():
                self._access(_mixed(self._value(address)), (UNKNOWN,))
            self.stores_anywhere |= STORED in does
        return [s for s in instruction.sources if s is not operand]

    def _access(self, bases: Bases, does: tuple[str, ...]) -> None:
        is_sure = len(bases) == 1 and [f for base in bases for _, f in base] == [1]
        for name, _ in itertools.chain.from_iterable(bases):
            self.done[name].update(dict.fromkeys(does if is_sure else (UNKNOWN,)))
        if STORED in does and not all(base and _is_known(base) for base in bases):
            self.stores_anywhere = True


def _sum(left: Base, right: Base, sign: int) -> Base:
    factors = dict(left)
    for name, factor in right:
        known = factors.get(name, 0)
        if known is None or factor is None:
            factors[name] = None
        else:
            factors[name] = known + sign * factor
    return frozenset((name, factor) for name, factor in factors.items() if factor != 0)


def _merged(bases: Bases) -> Bases:
    """The same; mixed where that is more than can be kept, and from then on."""
    is_known = len(bases) <= _MOST_BASES and all(map(_is_known, bases))
    return bases if is_known else _mixed(bases)


def _is_known(base: Base) -> bool:
    return all(factor is not None for _, factor in base)


def _mixed(bases: Bases) -> Bases:
    """The same pointers in some sum that is not understood."""
    return frozenset([frozenset((name, None) for base in bases for name, _ in base)])
