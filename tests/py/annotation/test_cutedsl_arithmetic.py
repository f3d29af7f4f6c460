# SPDX-License-Identifier: BSD-3-Clause

"""A host launcher's arithmetic, types and memory, against what the machine does."""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Callable

import pytest
import sympy

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

from cutlass._mlir import ir
from values import evaluate

from torch_tensorrt.annotation._sizes.facts import is_condition
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends.cutedsl.arithmetic import (
    OPERATIONS,
    Arithmetic,
    Unknown,
)
from torch_tensorrt.annotation.backends.cutedsl.host import (
    Host,
    HostCodeError,
    Layout,
    execute,
)
from torch_tensorrt.annotation.backends.cutedsl.words import Part, Word, combined
from torch_tensorrt.annotation.errors import UnsupportedKernelError

BITS = 8  # narrow, so that overflow is near
N, M = symbol(0, 0), symbol(0, 1)
RANGES = {N: Range(0, 5, 20), M: Range(1, 3, 7)}
OPERANDS = [N, M, N - 10, -M, 3 * M, N + 100, *map(sympy.Integer, (-8, -1, 0, 1, 4, 7))]


def wrapped(value: int, bits: int = BITS) -> int:
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def unsigned(value: int) -> int:
    return value % 2**BITS


def truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


MACHINE: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << b,
    "ashr": lambda a, b: a >> b,
    "lshr": lambda a, b: unsigned(a) >> b,
    "sdiv": truncated,
    "udiv": lambda a, b: unsigned(a) // unsigned(b),
    "srem": lambda a, b: a - truncated(a, b) * b,
    "urem": lambda a, b: unsigned(a) % unsigned(b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "intr.smax": max,
    "intr.smin": min,
    "intr.umax": lambda a, b: max(unsigned(a), unsigned(b)),
    "intr.umin": lambda a, b: min(unsigned(a), unsigned(b)),
}
PREDICATES: list[Callable[[int, int], bool]] = [
    lambda a, b: a == b,
    lambda a, b: a != b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
    lambda a, b: unsigned(a) < unsigned(b),
    lambda a, b: unsigned(a) <= unsigned(b),
    lambda a, b: unsigned(a) > unsigned(b),
    lambda a, b: unsigned(a) >= unsigned(b),
]
POINTS = [{N: n, M: m} for n in (0, 1, 7, 8, 9, 16, 20) for m in (1, 2, 4, 7)]


def is_defined(name: str, a: int, b: int) -> bool:
    if name in ("shl", "ashr", "lshr"):
        return 0 <= b < BITS
    return b != 0 if name in ("sdiv", "udiv", "srem", "urem") else True


@pytest.mark.parametrize("name", MACHINE)
def test_an_operation_is_what_the_machine_computes_or_unknown(name: str) -> None:
    arithmetic, known = Arithmetic(RANGES), 0
    for left, right in itertools.product(OPERANDS, OPERANDS):
        result = arithmetic.binary(name, left, right, BITS)
        if isinstance(result, Unknown):
            continue
        for point in POINTS:
            a, b = evaluate(left, point), evaluate(right, point)
            if is_defined(name, a, b):
                known += 1
                assert evaluate(result, point) == wrapped(MACHINE[name](a, b))
    assert known > 100


@pytest.mark.parametrize("predicate", range(10))
def test_a_comparison_is_decided_only_where_the_profile_does(predicate: int) -> None:
    arithmetic = Arithmetic(RANGES)
    open_ones = 0
    for left, right in itertools.product(OPERANDS, OPERANDS):
        result = arithmetic.compare(predicate, left, right)
        if isinstance(result, Unknown):
            continue
        open_ones += is_condition(result)
        for point in POINTS:
            expected = PREDICATES[predicate](
                evaluate(left, point), evaluate(right, point)
            )
            assert evaluate(result, point) == expected
            if is_condition(result):
                assert evaluate(sympy.Not(result), point) == (not expected)
    assert open_ones


@pytest.mark.parametrize("name", ["and", "or", "xor", "add", "sub", "mul"])
def test_an_operation_on_single_bits_is_a_condition(name: str) -> None:
    arithmetic = Arithmetic(RANGES)
    bits = [sympy.S.Zero, sympy.S.One]
    bits += [arithmetic.compare(p, N, M) for p in range(6)]
    for left, right in itertools.product(bits, bits):
        result = arithmetic.binary(name, left, right, 1)
        assert not isinstance(result, Unknown)
        for point in POINTS:
            a, b = evaluate(left, point), evaluate(right, point)
            assert evaluate(result, point) == MACHINE[name](a, b) % 2


@pytest.mark.parametrize("predicate", [0, 1])
def test_a_condition_is_compared_with_a_bit(predicate: int) -> None:
    arithmetic = Arithmetic(RANGES)
    condition = arithmetic.compare(2, N, M)
    for bit in (sympy.S.Zero, sympy.S.One, condition):
        result = arithmetic.compare(predicate, condition, bit)
        for point in POINTS:
            a, b = evaluate(condition, point), evaluate(bit, point)
            assert evaluate(result, point) == PREDICATES[predicate](a, b)
    assert isinstance(arithmetic.compare(predicate, condition, N), Unknown)


def test_every_operation_is_tested() -> None:
    assert set(MACHINE) == set(OPERATIONS)


def test_a_choice_is_a_maximum_a_minimum_a_ceiling_or_unknown() -> None:
    arithmetic = Arithmetic(RANGES)
    for predicate, (a, b) in itertools.product(
        range(6), itertools.product([N, M], [M, N])
    ):
        condition = arithmetic.compare(predicate, a, b)
        for first, second in ((N, M), (M, N)):
            result = arithmetic.select(condition, first, second)
            if isinstance(result, Unknown):
                continue
            for point in POINTS:
                holds = evaluate(condition, point)
                chosen = first if holds else second
                assert evaluate(result, point) == evaluate(chosen, point)
    quotient = arithmetic.binary("sdiv", N, sympy.Integer(8), 32)
    product = arithmetic.binary("mul", quotient, sympy.Integer(8), 32)
    more = arithmetic.binary("add", quotient, sympy.S.One, 32)
    for predicate, choice in ((1, (more, quotient)), (0, (quotient, more))):
        exact = arithmetic.compare(predicate, N, product)
        ceiling = arithmetic.select(exact, *choice)
        for point in POINTS:
            assert evaluate(ceiling, point) == -(-point[N] // 8)


@pytest.mark.parametrize("operation", ["trunc", "sext", "zext"])
def test_a_conversion_is_what_the_machine_does_or_unknown(operation: str) -> None:
    source, bits = (16, 8) if operation == "trunc" else (8, 16)
    for operand in [*OPERANDS, *([N * 100] if source == 16 else [])]:
        result = Arithmetic(RANGES).convert(operation, operand, source, bits)
        if isinstance(result, Unknown):
            continue
        for point in POINTS:
            value = evaluate(operand, point)
            if operation == "zext":
                value = unsigned(value)
            assert evaluate(result, point) == wrapped(value, bits)


ON_WORDS: dict[str, Callable[[int, int], int]] = {
    "or": operator.or_,
    "and": operator.and_,
    "shl": operator.lshift,
    "lshr": operator.rshift,
    "udiv": operator.floordiv,
}


@pytest.mark.parametrize("constant", [0, 0b101, 1 << 63])
@pytest.mark.parametrize("operation", ON_WORDS)
def test_a_word_holds_the_bits_that_the_machine_computes(
    operation: str, constant: int
) -> None:
    def held(word: Word, value: int) -> int:
        shifts = [part.shift for part in word.open]
        moved = (value << s if s >= 0 else value >> -s for s in shifts)
        return sum(moved, word.known)

    for count in range(operation == "udiv", 9):
        parts = (Part(N, 4, 3), *Word.constant(constant).parts)
        word = combined(operation, Word(parts), Word.constant(count))
        for value in range(16 if word is not None else 0):
            before = constant + (value << 3)
            assert held(word, value) == ON_WORDS[operation](before, count)


def test_what_may_overflow_is_unknown_and_says_where() -> None:
    result = Arithmetic(RANGES).binary("mul", N, sympy.Integer(7), BITS)
    assert isinstance(result, Unknown)
    assert result.reason.startswith("7*d0_0, which reaches 140 within the profile")


class _Inner(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_int64 * 2), ("c", ctypes.c_int8))


class _Outer(ctypes.Structure):
    _fields_ = (
        ("flag", ctypes.c_int8),
        ("address", ctypes.c_void_p),
        ("inner", _Inner),
        ("small", ctypes.c_int16),
        ("last", ctypes.c_float),
    )


OUTER = "!llvm.struct<(i8, ptr<1>, struct<(i32, array<2 x i64>, i8)>, i16, f32)>"


def layout(text: str) -> Layout:
    with ir.Context():
        return Layout.of(ir.Type.parse(text))


def test_a_struct_is_laid_out_as_in_c() -> None:
    outer = layout(OUTER)
    assert outer.size == ctypes.sizeof(_Outer)
    names = [name for name, *_ in _Outer._fields_]
    offsets = [offset for offset, _ in outer.parts or ()]
    assert offsets == [getattr(_Outer, name).offset for name in names]
    offset, second = outer.locate([2, 1, 1])
    assert offset == _Outer.inner.offset + _Inner.b.offset + 8
    assert second.size == 8
    scalars = [offset for offset, _ in outer.scalars()]
    assert len(scalars) == 8 and scalars == sorted(scalars)


def test_an_empty_struct_takes_no_room() -> None:
    assert layout("!llvm.struct<(ptr<1>, struct<()>)>").size == 8


@pytest.mark.parametrize("kind", ["struct<packed (i8, i32)>", "token"])
def test_an_unknown_type_is_refused(kind: str) -> None:
    with pytest.raises(HostCodeError, match=kind.split()[0]):
        layout(f"!llvm.{kind}")


MEMORY = """
llvm.func @launcher(%x: i32) {{
  %one = llvm.mlir.constant(1 : i64) : i64
  %place = llvm.alloca %one x i64 : (i64) -> !llvm.ptr
  llvm.store %one, %place : i64, !llvm.ptr
  %part = llvm.getelementptr %place[{offset}] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.store %x, %part : i32, !llvm.ptr
  %value = llvm.load %place : !llvm.ptr -> i64
  %same = llvm.icmp "eq" %value, %one : i64
  llvm.cond_br %same, ^left, ^right
^left:
  llvm.return
^right:
  llvm.unreachable
}}
"""


def executed(offset: int) -> None:
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(MEMORY.format(offset=offset))
        execute(Host("", module, "launcher", (N,)), RANGES, "launcher")


def test_memory_holds_what_was_stored_beside_other_scalars() -> None:
    executed(offset=8)


@pytest.mark.parametrize("offset", [0, 4])
def test_memory_that_is_overwritten_in_part_is_unknown(offset: int) -> None:
    with pytest.raises(UnsupportedKernelError, match="branches on memory"):
        executed(offset)


VECTOR = """
llvm.func @launcher(%x: i32) {{
  %one = llvm.mlir.constant(1 : i64) : i64
  %two = llvm.mlir.constant({expected} : i32) : i32
  %both = llvm.mlir.constant(dense<[1, 2]> : vector<2xi32>) : vector<2xi32>
  %place = llvm.alloca %one x i64 : (i64) -> !llvm.ptr
  llvm.store %both, %place : vector<2xi32>, !llvm.ptr
  %part = llvm.getelementptr %place[4] : (!llvm.ptr) -> !llvm.ptr, i8
  %value = llvm.load %part : !llvm.ptr -> i32
  %same = llvm.icmp "eq" %value, %two : i32
  llvm.cond_br %same, ^left, ^right
^left:
  llvm.return
^right:
  llvm.unreachable
}}
"""


def test_a_vector_lies_in_memory_as_an_array_does() -> None:
    vector = layout("!llvm.struct<(i8, vector<3xi32>)>")
    assert vector.size == 32  # at a multiple of its size, a power of two
    assert [offset for offset, _ in vector.scalars()] == [0, 16, 20, 24]
    for expected in (1, 2):
        with ir.Context(), ir.Location.unknown():
            module = ir.Module.parse(VECTOR.format(expected=expected))
            host = Host("", module, "launcher", (N,))
            if expected == 2:
                assert execute(host, RANGES, "launcher") == []
            else:
                with pytest.raises(UnsupportedKernelError, match="error of its own"):
                    execute(host, RANGES, "launcher")
