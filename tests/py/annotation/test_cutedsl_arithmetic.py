"""A host launcher's arithmetic and types, against what the machine does."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import sympy

from torch_tensorrt.annotation._symbolic import Range, evaluate, symbol
from torch_tensorrt.annotation.backends._cutedsl_arithmetic import Arithmetic
from torch_tensorrt.annotation.backends._cutedsl_types import (
    HostCodeError,
    Struct,
    locate,
    parse_type,
)
from torch_tensorrt.annotation.backends._cutedsl_values import Comparison, Unknown

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


def value_at(value: Any, point: dict[sympy.Symbol, int]) -> int:
    known = value.condition if isinstance(value, Comparison) else value
    return evaluate(known, point)


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
                assert value_at(result, point) == wrapped(MACHINE[name](a, b))
    assert known > 100


@pytest.mark.parametrize("predicate", range(10))
def test_a_comparison_is_decided_only_where_the_profile_does(predicate: int) -> None:
    arithmetic = Arithmetic(RANGES)
    open_ones = 0
    for left, right in itertools.product(OPERANDS, OPERANDS):
        result = arithmetic.compare(predicate, left, right)
        if isinstance(result, Unknown):
            continue
        open_ones += isinstance(result, Comparison)
        for point in POINTS:
            expected = PREDICATES[predicate](
                evaluate(left, point), evaluate(right, point)
            )
            assert value_at(result, point) == expected
            if isinstance(result, Comparison):
                assert value_at(result.negated(), point) == (not expected)
    assert open_ones


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
                holds = value_at(condition, point)
                chosen = first if holds else second
                assert value_at(result, point) == evaluate(chosen, point)
    quotient = arithmetic.binary("sdiv", N, sympy.Integer(8), 32)
    product = arithmetic.binary("mul", quotient, sympy.Integer(8), 32)
    more = arithmetic.binary("add", quotient, sympy.S.One, 32)
    for predicate, choice in ((1, (more, quotient)), (0, (quotient, more))):
        exact = arithmetic.compare(predicate, N, product)
        ceiling = arithmetic.select(exact, *choice)
        for point in POINTS:
            assert value_at(ceiling, point) == -(-point[N] // 8)


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
            assert value_at(result, point) == wrapped(value, bits)


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


def test_a_struct_is_laid_out_as_in_c() -> None:
    outer = parse_type(OUTER)
    assert isinstance(outer, Struct)
    assert outer.size == ctypes.sizeof(_Outer)
    names = [name for name, *_ in _Outer._fields_]
    assert outer.offsets == tuple(getattr(_Outer, name).offset for name in names)
    offset, second = locate(outer, [2, 1, 1])
    assert offset == _Outer.inner.offset + _Inner.b.offset + 8
    assert second.size == 8
    leaves = [offset for offset, _ in outer.leaves()]
    assert len(leaves) == 8 and leaves == sorted(leaves)


def test_an_empty_struct_takes_no_room() -> None:
    assert parse_type("!llvm.struct<(ptr<1>, struct<()>)>").size == 8


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(HostCodeError, match="packed"):
        parse_type("!llvm.struct<packed (i8, i32)>")
