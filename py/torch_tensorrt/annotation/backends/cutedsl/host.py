# SPDX-License-Identifier: BSD-3-Clause

"""Execute a compiled host launcher on expressions: what it would launch, for any shape.

CuTe DSL compiles the launcher to one function of MLIR's LLVM dialect, which uses few
kinds of operations: integer arithmetic, structs, memory of its own, branches, and the
call that launches. :func:`execute` runs it as a machine would, but on the expressions
of its arguments. Memory holds scalars by object and byte offset. When the launch is
called, memory holds the grid, the block, the attributes, and every field of every
parameter of the kernel.

Two invariants keep that sound. An operation that is not known gives an unknown value,
and is refused where it could write to memory or do something that an engine does not.
And where the profile does not decide a branch, both ways are taken, each where its
condition holds, up to where they meet again. They may only compute: the values that
differ become a :class:`.Choice`. What is written, and launched, is on the one path that
all shapes have in common.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import sympy
from cutlass._mlir import ir
from cutlass._mlir.dialects import llvm

from ..._sizes.facts import bounds, is_condition
from ..._tensors import Ranges
from ...errors import UnsupportedKernelError
from .. import Slot
from . import arithmetic
from .arithmetic import Number, Unknown, show
from .choices import Choice, Interval, Piece, chosen, split
from .words import BITS, Part, Word, combined

_MOST_STEPS = 100_000
_DYNAMIC_INDEX = -(2**31)  # in rawConstantIndices: the next operand is the index
_LAUNCH = "_cudaLaunchKernelEx"
_HARMLESS = frozenset({"intr.assume", "intr.lifetime.start", "intr.lifetime.end"})
_FLOATS = {"f16": "e", "bf16": "f", "f32": "f", "f64": "d"}  # codes of struct.pack

# Offsets in a cudaLaunchConfig_t of the CUDA runtime; the grid is at 0, block at 12.
_SHARED_MEMORY, _ATTRIBUTES, _ATTRIBUTE_COUNT = 24, 40, 48
_ATTRIBUTE_SIZE = 72  # of a cudaLaunchAttribute: its id, and from 8 on its value
_KERNEL_HANDLE = "*@kernels_"  # what is loaded from a global named after the kernel
_ADDRESS_BITS = 57  # of a GPU's virtual addresses, at most


class HostCodeError(Exception):
    """A host launcher does what is not understood here, or what no engine does."""


@dataclass(frozen=True)
class Address:
    """So many bytes into an object.

    Attributes:
        object: the slot of a tensor, or a name: ``%1`` is memory that the launcher
            allocates, ``@name`` a global, ``*@name`` what a global points to.
    """

    object: Slot | str
    offset: int = 0

    def __str__(self) -> str:
        return "an address"


Value: TypeAlias = Number | Address | Word


def as_word(value: Value, ranges: Ranges) -> Word | Unknown:
    """The parts of a value."""
    if isinstance(value, Word | Unknown):
        return value
    if isinstance(value, Address):
        return Word((Part(value, _ADDRESS_BITS),))
    if isinstance(value, Choice):
        return Unknown(str(value))
    if isinstance(value, sympy.Integer):
        return Word.constant(int(value))
    shift = 0
    if not is_condition(value):  # a product with a power of two is a shift
        content = int(value.as_content_primitive()[0])
        shift = (content & -content).bit_length() - 1
        value = value / 2**shift
    lower, upper = bounds(value, ranges)
    if lower < 0:
        return Unknown(f"of {value}, which may be negative")
    return Word((Part(value, upper.bit_length(), shift),))


class Cell(NamedTuple):
    """One scalar in memory."""

    value: Value
    size: int


@dataclass(frozen=True)
class HostLaunch:
    """One launch that a host launcher makes.

    Attributes:
        kernel: the entry's name.
        shared_memory: dynamic, in bytes.
        attributes: by id, the three words of the value.
        parameters: fields of each by offset, in order; those of no size left out.
    """

    kernel: str
    grid: tuple[Value, ...]
    block: tuple[Value, ...]
    shared_memory: Value
    attributes: Mapping[int, tuple[Value, ...]]
    parameters: tuple[Mapping[int, Cell], ...]


@dataclass(frozen=True)
class Host:
    """A launcher as CuTe DSL compiles it.

    Attributes:
        code: PTX of the kernels.
        module, function: the host launcher.
        arguments: its arguments, in terms of the extents.
    """

    code: str
    module: Any
    function: str
    arguments: Sequence[Value]


def execute(host: Host, ranges: Ranges, name: str) -> list[HostLaunch]:
    """The launches that a host launcher makes for its arguments.

    Args:
        name: how errors name the launcher.

    Raises:
        UnsupportedKernelError: it branches on something that ``ranges`` leave open, or
            calls what an engine does not.
    """
    with host.module.context:
        symbols = ir.SymbolTable(host.module.operation)
        machine = _Machine(ranges)
        try:
            machine.run(symbols[host.function].regions[0].blocks[0], host.arguments)
        except HostCodeError as error:
            raise UnsupportedKernelError(f"launcher {name}: {error}.") from error
    return machine.launches


# --- Types ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where the scalars of a type lie in memory: as in C, each at its alignment.

    Attributes:
        parts: offset and layout of each field or element; None for a scalar.
    """

    size: int
    align: int
    parts: tuple[tuple[int, Layout], ...] | None = None

    @classmethod
    def of(cls, kind: Any) -> Layout:
        """The layout of a type of MLIR's LLVM dialect.

        Raises:
            HostCodeError: the type is not known here.
        """
        fields, size, is_vector = [], 0, _is_vector(kind)
        if isinstance(kind, llvm.StructType) and not kind.packed:
            fields = [cls.of(field) for field in kind.body]
        elif isinstance(kind, llvm.ArrayType):
            fields = [cls.of(kind.element_type)] * kind.num_elements
        elif isinstance(kind, llvm.PointerType):
            size = 8
        elif is_vector and _bits(kind.element_type) >= 8:
            fields = [cls.of(kind.element_type)] * math.prod(kind.shape)
        elif isinstance(kind, ir.IntegerType | ir.FloatType):
            size = max(1, kind.width // 8)
        else:
            raise HostCodeError(f"its host code uses the type {kind}")
        if size:
            return cls(size, size)
        parts, end = [], 0
        for field in fields:
            end += -end % field.align  # up to the next multiple
            parts.append((end, field))
            end += field.size
        align = max((field.align for field in fields), default=1)
        if is_vector:
            align = 1 << (end - 1).bit_length()
        return cls(end + -end % align, align, tuple(parts))

    def scalars(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Offset and size of each scalar."""
        if self.parts is None:
            yield start, self.size
        for offset, part in self.parts or ():
            yield from part.scalars(start + offset)

    def locate(self, path: Sequence[int]) -> tuple[int, Layout]:
        """Offset and layout of what ``path`` leads to."""
        offset, found = 0, self
        for index in path:
            if found.parts is None:
                raise HostCodeError("its host code looks into a scalar")
            start, found = found.parts[index]
            offset += start
        return offset, found


def _is_vector(kind: Any) -> bool:
    return isinstance(kind, ir.VectorType)


def _bits(kind: Any) -> int:
    """The width of an integer type."""
    return kind.width if isinstance(kind, ir.IntegerType) else 64


def _constants(attribute: Any, kind: Any) -> dict[int, Value]:
    """The scalars of a constant by offset."""
    if not _is_vector(kind):
        return {0: _constant(attribute)}
    offsets = [offset for offset, _ in Layout.of(kind).scalars()]
    if not isinstance(attribute, ir.DenseIntElementsAttr):
        return dict.fromkeys(offsets, Unknown(f"the constant {attribute}"))
    numbers = (sympy.Integer(int(number)) for number in attribute)
    return dict(zip(offsets, numbers, strict=True))


def _constant(attribute: Any) -> Number:
    """A constant; a float is the integer of its bits, as a parameter holds it."""
    if isinstance(attribute, ir.BoolAttr | ir.IntegerAttr):
        return sympy.Integer(int(attribute.value))
    code = _FLOATS.get(str(getattr(attribute, "type", "")))
    if not isinstance(attribute, ir.FloatAttr) or code is None:
        return Unknown(f"the constant {attribute}")
    bits = int.from_bytes(struct.pack(f"<{code}", attribute.value), "little")
    is_half = isinstance(attribute.type, ir.BF16Type)  # the upper one of a float32
    return sympy.Integer(bits >> 16 if is_half else bits)


# --- The machine ----------------------------------------------------------------------


class _Machine:
    """Runs one function, block by block.

    Every value is a mapping of scalars by byte offset, as a struct or an array is; a
    scalar is at 0. What an offset lacks is undefined.
    """

    def __init__(self, ranges: Ranges) -> None:
        self._arithmetic = arithmetic.Arithmetic(ranges)
        self._values: dict[str, Mapping[int, Value]] = {}
        # By object and offset.
        self._memory: dict[Slot | str, dict[int, Cell]] = {}
        self._allocations = self._steps = 0
        # The sizes that the launcher branches on, by the symbol that stands for each;
        # and the symbols by size, on the ways from such a branch.
        self._sizes: dict[sympy.Symbol, sympy.Expr] = {}
        self._renamed: dict[sympy.Basic, sympy.Basic] = {}
        self.launches: list[HostLaunch] = []

    def run(self, block: Any, arguments: Sequence[Value]) -> None:
        self._until(None, block, [{0: argument} for argument in arguments])

    def _until(
        self, end: Any, block: Any, values: Sequence[Mapping[int, Value]]
    ) -> Sequence[Mapping[int, Value]]:
        """Run blocks up to ``end``, or to the function's end; what ``end`` is given."""
        while end is None or block != end:
            for parameter, value in zip(block.arguments, values, strict=True):
                self._values[parameter.get_name()] = value
            for operation in block.operations:
                op = operation.operation
                self._steps += 1
                if self._steps > _MOST_STEPS:
                    raise HostCodeError("its host code does not end")
                if op.name == "llvm.return":
                    return ()
                if op.name in ("llvm.br", "llvm.cond_br"):
                    block, values = self._branch(block, op)
                    break
                given = self._evaluate(op)
                value = given if isinstance(given, Mapping) else {0: given}
                for result in op.results:
                    self._values[result.get_name()] = value
        return values

    def _branch(self, block: Any, op: Any) -> tuple[Any, Sequence[Mapping[int, Value]]]:
        """The block that comes next, and what it is given."""
        operands = list(op.operands)
        if op.name == "llvm.br":
            return op.successors[0], [*map(self._get, operands)]
        condition = self._number(operands[0])
        _, count, _ = op.attributes["operandSegmentSizes"]
        given = operands[1 : 1 + count], operands[1 + count :]
        ways = [
            (successor, [*map(self._get, values)])
            for successor, values in zip(op.successors, given, strict=True)
        ]
        if isinstance(condition, sympy.Integer):
            return ways[int(condition == 0)]
        if (merged := self._both(block, condition, ways)) is None:
            raise HostCodeError(
                f"its host code branches on {show(condition)}, which the profile "
                "leaves open. Narrow the profile, "
                "make the dimension static, or branch inside the kernel"
            )
        return merged

    def _both(
        self, block: Any, condition: Any, ways: Sequence[tuple[Any, Any]]
    ) -> tuple[Any, Sequence[Mapping[int, Value]]] | None:
        """Take both ways, each where its condition holds, to where they meet again.

        Returns:
            That block, and what it is given; None where the condition does not split
            a size, or a way does more than compute.
        """
        found, meeting = split(condition, self._arithmetic.bounds), _meeting(block)
        if found is None or meeting is None:
            return None
        size, *intervals = found
        if (symbol := self._symbol(size)) is None:
            return None
        before = self._arithmetic, self._renamed
        values, memory = self._values, {o: {**at} for o, at in self._memory.items()}
        launches, allocations = len(self.launches), self._allocations
        ends = []
        for interval, way in zip(intervals, ways, strict=True):
            self._arithmetic = before[0].within(symbol, interval)
            self._renamed = {**before[1], size: symbol}
            self._values = dict(values)
            passed = self._until(meeting, *way)
            ends.append((passed, self._values))
        self._arithmetic, self._renamed = before
        if (
            memory != self._memory
            or launches != len(self.launches)
            or allocations != self._allocations
        ):
            return None

        def merged(one: Mapping[int, Value], two: Mapping[int, Value]) -> Any:
            return {
                at: self._merged(symbol, intervals, (one[at], two[at]))
                for at in one.keys() & two.keys()
            }

        (first, theirs), (second, others) = ends
        self._values = {
            name: merged(theirs[name], others[name])
            for name in theirs.keys() & others.keys()
        }
        return meeting, [merged(*pair) for pair in zip(first, second, strict=True)]

    def _symbol(self, size: sympy.Expr) -> sympy.Symbol | None:
        """What stands for a size in the pieces of choices by it. None for a size that
        contains another, on the ways from a branch on that."""
        if size not in self._sizes and self._sizes.keys() & size.free_symbols:
            return None
        symbols = {size: symbol for symbol, size in self._sizes.items()}
        name = f"size{len(symbols)}"
        new = sympy.Symbol(name, integer=True, nonnegative=True)
        symbol = size if size in self._sizes else symbols.get(size, new)
        self._sizes.setdefault(symbol, size)
        return symbol

    def _leading_zeros(self, number: Number, bits: int, least: int) -> Number:
        """Of an integer; of a size, by the powers of two that it lies between.

        Args:
            least: 1 where those of 0 are undefined.
        """
        if not isinstance(number, sympy.Expr):
            return Unknown(f"the leading zeros of {show(number)}")
        lower, upper = self._arithmetic.bounds(number)
        if lower < least:
            return Unknown(f"the leading zeros of {number}, which may be {lower}")
        pieces = [
            Piece(
                max(lower, 2**length // 2),
                min(upper, 2**length - 1),
                sympy.Integer(bits - length),
            )
            for length in range(lower.bit_length(), upper.bit_length() + 1)
        ]
        if len(pieces) == 1:
            return pieces[0].value
        if (symbol := self._symbol(number)) is None:
            return Unknown(f"the leading zeros of {number}")
        result: Number = chosen(self._sizes[symbol], symbol, pieces)
        return result

    def _merged(
        self,
        symbol: sympy.Symbol,
        intervals: Sequence[Interval],
        values: tuple[Value, Value],
    ) -> Value:
        """A value that is another one in each interval."""
        if values[0] == values[1]:
            same: Any = values[0]
            is_expression = isinstance(same, sympy.Basic)
            return same.xreplace(self._sizes) if is_expression else same
        pieces = list[Piece]()
        for (lower, upper), value in zip(intervals, values, strict=True):
            if isinstance(value, Address | Word):
                return Unknown(f"{value} chosen by {self._sizes[symbol]}")
            if isinstance(value, Choice) and value.symbol == symbol:
                pieces += value.pieces
            else:
                pieces.append(Piece(lower, upper, value))
        result: Value = chosen(self._sizes[symbol], symbol, pieces)
        return result

    def _evaluate(self, op: Any) -> Value | Mapping[int, Value]:
        """What an operation gives; anything, if it gives nothing."""
        name, operands = op.name.removeprefix("llvm."), list(op.operands)
        kind = op.results[0].type if op.results else None
        match name:
            case "mlir.constant":
                return _constants(op.attributes["value"], kind)
            case "mlir.addressof":
                return Address(f"@{op.attributes['global_name'].value}")
            case "mlir.undef" | "mlir.poison":
                return {}
            case "mlir.zero":
                return {at: sympy.S.Zero for at, _ in Layout.of(kind).scalars()}
            case "alloca":
                self._allocations += 1
                return Address(f"%{self._allocations}")
            case "getelementptr":
                return self._element(op)
            case "store":
                self._store(*operands)
            case "load":
                place = self._address(operands[0])
                scalars = Layout.of(kind).scalars()
                return {at: self._load(place, at, size) for at, size in scalars}
            case "extractvalue":
                whole, layout = self._get(operands[0]), Layout.of(operands[0].type)
                start, part = layout.locate(list(op.attributes["position"]))
                return {at: _at(whole, start + at) for at, _ in part.scalars()}
            case "insertvalue":
                whole, value = map(self._get, operands)
                start, _ = Layout.of(kind).locate(list(op.attributes["position"]))
                return {**whole, **{start + at: one for at, one in value.items()}}
            case "icmp":
                predicate = op.attributes["predicate"].value
                left, right = map(self._number, operands)
                bits = _bits(operands[0].type)
                return self._arithmetic.compare(predicate, left, right, bits)
            case "select":
                condition = self._number(operands[0])
                first, second = map(self._get, operands[1:])
                return {
                    at: self._select(condition, _at(first, at), _at(second, at))
                    for at in {**first, **second}
                }
            case "trunc" | "sext" | "zext":
                number, source = self._number(operands[0]), _bits(operands[0].type)
                if name == "zext" and source == 1 and isinstance(number, Unknown):
                    return Word((Part(number, 1),))
                return self._arithmetic.convert(name, number, source, _bits(kind))
            case "freeze" | "bitcast" | "addrspacecast" | "inttoptr" | "ptrtoint":
                return self._get(operands[0])
            case "intr.ctlz":
                least = int(op.attributes["is_zero_poison"].value)
                number = self._number(operands[0])
                return self._leading_zeros(number, _bits(kind), least)
            case "call":
                return self._call(op)
            case "unreachable":
                raise HostCodeError("its host code ends in an error of its own")
            case _ if name in arithmetic.OPERATIONS and not _is_vector(kind):
                left, right = map(self._number, operands)
                number = self._arithmetic.binary(name, left, right, _bits(kind))
                if isinstance(number, Unknown) and _bits(kind) == BITS:
                    return self._packed(name, operands, number)
                return number
            case _ if name not in _HARMLESS:
                reads = (_at(self._get(operand), 0) for operand in operands)
                if kind is None or any(isinstance(read, Address) for read in reads):
                    raise HostCodeError(
                        f"its host code does {op.name}, which an engine cannot"
                    )
        return Unknown(f"a result of {op.name}")

    def _get(self, operand: Any) -> Mapping[int, Value]:
        found = self._values[operand.get_name()]
        if not self._renamed:
            return found
        return {
            at: value.xreplace(self._renamed)
            if isinstance(value, sympy.Basic)
            else value
            for at, value in found.items()
        }

    def _number(self, operand: Any) -> Number:
        value = _at(self._get(operand), 0)
        return Unknown(str(value)) if isinstance(value, Address | Word) else value

    def _packed(self, operation: str, operands: Any, otherwise: Unknown) -> Value:
        """The word that an operation makes of its operands' bits, if it does."""
        ranges = self._arithmetic.ranges
        left, right = (as_word(_at(self._get(each), 0), ranges) for each in operands)
        if isinstance(left, Word) and isinstance(right, Word):
            return combined(operation, left, right) or otherwise
        reasons = (each for each in (left, right) if isinstance(each, Unknown))
        return next(reasons) if operation == "or" else otherwise

    def _address(self, operand: Any) -> Address:
        value = _at(self._get(operand), 0)
        if not isinstance(value, Address):
            raise HostCodeError(f"its host code computes an address from {show(value)}")
        return value

    def _element(self, op: Any) -> Address:
        """``getelementptr``, whose first index counts whole objects."""
        base, *operands = op.operands
        dynamic = map(self._index, operands)
        at, layout = self._address(base), Layout.of(op.attributes["elem_type"].value)
        first, *path = (
            next(dynamic) if index == _DYNAMIC_INDEX else index
            for index in op.attributes["rawConstantIndices"]
        )
        offset, _ = layout.locate(path)
        return Address(at.object, at.offset + first * layout.size + offset)

    def _index(self, operand: Any) -> int:
        value = self._number(operand)
        if not isinstance(value, sympy.Integer):
            raise HostCodeError(
                f"its host code computes an address from {show(value)}. Offset the "
                "tensor inside the kernel"
            )
        return int(value)

    def _select(self, condition: Number, first: Value, second: Value) -> Value:
        if isinstance(condition, sympy.Integer):
            return first if condition == 1 else second
        for value in (first, second):
            if isinstance(value, Address | Word):
                return Unknown(f"{value} chosen by {show(condition)}")
        return self._arithmetic.select(condition, first, second)

    def _store(self, operand: Any, place: Any) -> None:
        value, at = self._get(operand), self._address(place)
        cells = self._memory.setdefault(at.object, {})
        for offset, size in Layout.of(operand.type).scalars():
            start = at.offset + offset
            for other, cell in list(cells.items()):
                if start - cell.size < other < start + size:
                    del cells[other]  # it is overwritten, as a whole or in part
            if offset in value:
                cells[start] = Cell(value[offset], size)

    def _load(self, at: Address, offset: int, size: int) -> Value:
        if str(at.object).startswith("@"):
            return Address(f"*{at.object}")
        cell = self._memory.get(at.object, {}).get(at.offset + offset)
        if cell is None or cell.size != size:
            return Unknown("memory that the launcher has not written")
        return cell.value

    def _call(self, op: Any) -> Value:
        is_direct = "callee" in op.attributes
        callee = op.attributes["callee"].value if is_direct else "a function"
        if callee == _LAUNCH:
            self.launches.append(self._launch(*map(self._address, op.operands)))
        elif callee != "printf":
            raise HostCodeError(
                f"its host code calls {callee.lstrip('_')}, and an engine only launches"
                " the kernel. Do without tensor maps (TMA) and queries of the GPU"
            )
        return sympy.S.Zero  # cudaSuccess

    def _launch(
        self, config: Address, kernel: Address, arguments: Address
    ) -> HostLaunch:
        """What ``cudaLaunchKernelEx`` is given."""
        count: Any = self._load(config, _ATTRIBUTE_COUNT, 4)
        first: Any = self._load(config, _ATTRIBUTES, 8)
        attributes: dict[int, tuple[Value, ...]] = {}
        for start in range(0, int(count) * _ATTRIBUTE_SIZE, _ATTRIBUTE_SIZE):
            key: Any = self._load(first, start, 4)
            attributes[int(key)] = self._words(first, start + 8)
        return HostLaunch(
            kernel=str(kernel.object).removeprefix(_KERNEL_HANDLE),
            grid=self._words(config, 0),
            block=self._words(config, 12),
            shared_memory=self._load(config, _SHARED_MEMORY, 8),
            attributes=attributes,
            parameters=tuple(self._parameters(arguments)),
        )

    def _words(self, at: Address, offset: int) -> tuple[Value, ...]:
        """Three integers of 32 bits."""
        return tuple(self._load(at, offset + word, 4) for word in (0, 4, 8))

    def _parameters(self, arguments: Address) -> Iterator[dict[int, Cell]]:
        """What the addresses from ``arguments`` on lead to."""
        offset, cells = arguments.offset, self._memory.get(arguments.object, {})
        while offset in cells:
            place = cells[offset].value
            assert isinstance(place, Address)
            scalars = sorted(self._memory.get(place.object, {}).items())
            start = place.offset
            if fields := {at - start: cell for at, cell in scalars if at >= start}:
                yield fields
            offset += 8  # of an address


def _meeting(block: Any) -> Any:
    """The first block that every way from ``block`` to the end leads to, if any."""
    for here in _way_out(block, None):
        if not _way_out(block, here):
            return here
    return None


def _way_out(block: Any, closed: Any) -> list[Any]:
    """A way from a block to one that returns, around another; empty without one."""
    ways, seen = [[block]], {block} if closed is None else {block, closed}
    for way in ways:
        last = way[-1].operations[len(way[-1].operations) - 1].operation
        if last.name == "llvm.return":
            return way[1:]
        ways += [[*way, each] for each in last.successors if each not in seen]
        seen |= set(last.successors)
    return []


def _at(value: Mapping[int, Value], offset: int) -> Value:
    return value.get(offset, Unknown("an undefined value"))
