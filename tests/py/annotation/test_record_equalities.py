# SPDX-License-Identifier: BSD-3-Clause

"""What people take for equal is: sizes by any name, ceilings, extents that agree."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import triton
import triton.language as tl
from kernels import info
from torch.utils._sympy.functions import (
    CeilToInt,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Mod,
    PythonMod,
)

from torch_tensorrt.annotation._record import Call, branches, record
from torch_tensorrt.annotation._record.program import Program, Scalar
from torch_tensorrt.annotation._record.replay import points_near, solving_points
from torch_tensorrt.annotation._sizes.canonical import cancelled, canonical
from torch_tensorrt.annotation._sizes.expressions import on_ints
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DynamicControlFlowError,
    RecordError,
)

N, M = symbol(0, 0), symbol(1, 0)
MANY = Range(1, 100, 3_000_000)  # more than are tried one by one
RANGES = {N: Range(0, 100, 2**40), M: Range(1, 100, 2**40)}


@triton.jit
def number_kernel(x_ptr, out_ptr, n):
    tl.store(out_ptr, tl.load(x_ptr) + n)


def launch(x: Any, out: Any, n: Any) -> None:
    number_kernel[(1,)](x, out, n)


def program(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Any = lambda x, *_: torch.empty_like(x),
    **call: Any,
) -> Program:
    given = inputs or (info(MANY, 7),)
    return record(backend("triton"), launch_fn, meta, given, Call(**call))


def number(found: Program) -> Any:
    """What the kernel gets for ``n``."""
    argument = found.launch.arguments[2]
    assert isinstance(argument, Scalar)
    return argument.expr


# --- sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (lambda x: len(x), N),
        (lambda x: x.size()[0], N),
        (lambda x: x.size(0), N),
        (lambda x: x.t().size(-1), N),
        (lambda x: x.numel(), 7 * N),
        (lambda x: x.nelement(), 7 * N),
        (torch.numel, 7 * N),
        (lambda x: math.prod(x.shape), 7 * N),
        (lambda x: x.shape.numel(), 7 * N),
        (lambda x: x.size()[:-1].numel(), N),
        (lambda x: len(x.shape) * isinstance(x.shape, torch.Size), 2),
        (lambda x: torch.empty((*x.shape, 3)).shape[:2].numel(), 7 * N),
        (lambda x: x.numel() // x.shape[-1], N),
        (lambda x: x.t().stride(0) * x.size(0), N),
    ],
)
def test_a_size_has_many_names(size: Any, expected: Any) -> None:
    found = program(lambda x, out: launch(x, out, size(x)))
    assert number(found) == expected


# --- ceilings -------------------------------------------------------------------------

CEILINGS: dict[str, Callable[[Any], Any]] = {
    "math.ceil": lambda n: math.ceil(n / 4),
    "plus": lambda n: (n + 3) // 4,
    "minus": lambda n: -(-n // 4),
    "one more": lambda n: (n - 1) // 4 + 1,
    "cdiv": lambda n: triton.cdiv(n, 4),
    "math.floor": lambda n: math.floor((n + 3) / 4),
    "shift": lambda n: (n + 3) >> 2,
    "remainder": lambda n: (n + 3 - (n + 3) % 4) // 4,
    "and a rest": lambda n: n // 4 + (n % 4 != 0),
    "but no rest": lambda n: 1 - (n % 4 == 0) + n // 4,
}


@pytest.mark.parametrize("name", CEILINGS)
def test_ceilings_are_equal_in_the_fake_kernel_and_the_body(name: str) -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty((x.shape[0] + 3) // 4)
        launch(x, out, x.shape[0])
        return out

    program(body, meta=lambda x: x.new_empty(CEILINGS[name](len(x))), names=("x",))


@pytest.mark.parametrize("name", CEILINGS)
def test_a_check_of_two_ceilings_is_no_branch(name: str) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        n = x.shape[0] + 1
        if CEILINGS[name](n) == (n + 3) // 4:
            launch(x, out, n)

    program(launch_fn)


def test_ceilings_in_two_branches_are_one_result() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        n = x.shape[0]
        launch(x, out, -(-n // 4) if n > 5000 else math.ceil(n / 4))

    program(launch_fn)


def test_ceilings_that_differ_stay_a_branch_and_an_error() -> None:
    def branch(x: Any, out: Any) -> None:
        n = x.shape[0]
        launch(x, out, -(-n // 4) if n > 5000 else (n + 4) // 4)

    with pytest.raises(DynamicControlFlowError, match="branches on"):
        program(branch)

    def body(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty((x.shape[0] + 4) // 4)
        launch(x, out, 1)
        return out

    with pytest.raises(ArgumentError, match="One of them is wrong"):
        program(body, meta=lambda x: x.new_empty((len(x) + 3) // 4), names=("x",))


def test_a_divisor_may_follow_the_shape() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        a, b = x.shape[0], y.shape[0]
        assert -(-a // b) == (a + b - 1) // b == math.ceil(a / b)
        launch(x, out, a)

    program(launch_fn, info(MANY, 7), info(MANY, 7))


DIVIDE = {
    "floor": FloorDiv,
    "python mod": PythonMod,
    "ceil": lambda a, b: CeilToInt(IntTrueDiv(a, b)),
    "round down": lambda a, b: FloorToInt(IntTrueDiv(a, b)),
    "mod": Mod,
}


def random_expression(generator: random.Random, depth: int = 3) -> Any:
    if depth == 0 or generator.random() < 0.2:
        return generator.choice([N, M, sympy.Integer(generator.randint(-9, 9))])
    first = random_expression(generator, depth - 1)
    second = random_expression(generator, depth - 1)
    kind = generator.choice(["add", "sub", "mul", *DIVIDE])
    if kind in DIVIDE:
        divisor = generator.choice([M, *map(sympy.Integer, range(1, 9))])
        is_unsigned = kind not in ("floor", "python mod")
        return DIVIDE[kind](first**2 if is_unsigned else first, divisor)
    return getattr(operator, kind)(first, second)


def test_the_form_has_the_same_value() -> None:
    generator = random.Random(5)
    ranges = {N: Range(0, 5, 30), M: Range(1, 5, 30)}
    changed = 0
    for _ in range(400):
        expr = sympy.sympify(random_expression(generator))
        form = canonical(expr, ranges)
        changed += form != sympy.expand(expr)
        for _ in range(20):
            point = {N: generator.randint(0, 30), M: generator.randint(1, 30)}
            try:
                value = on_ints(expr)(point)
            except ZeroDivisionError:
                continue
            assert on_ints(form)(point) == value, (expr, form, point)
    assert changed > 100


@pytest.mark.parametrize(
    "expr",
    [
        CeilToInt(IntTrueDiv(2**20 * N, 3)),  # floats round above 2**53
        CeilToInt(IntTrueDiv(2**13 * N, 3)),
        CeilToInt(IntTrueDiv(N - 1, 3)),
        CeilToInt(IntTrueDiv(N, M - 1)),
        FloorDiv(-N, M - 1),
        Mod(N - 1, 3),
        Mod(N, M - 1),
    ],
    ids=str,
)
def test_what_is_not_sure_keeps_its_form(expr: Any) -> None:
    assert canonical(expr, RANGES) == expr


def test_conditions_are_decided_by_their_forms() -> None:
    up, also = FloorDiv(N + 3, 4), -FloorDiv(-N, 4)
    assert canonical(sympy.Eq(up, also), RANGES) == sympy.true
    assert canonical(sympy.Ne(up, also), RANGES) == sympy.false
    assert canonical(also < up + 1, RANGES) == sympy.true
    assert canonical(sympy.Eq(up, also + N), RANGES) not in (sympy.true, sympy.false)
    both = sympy.And(sympy.Eq(up, also), sympy.Gt(N, 3))
    assert canonical(both, RANGES) == sympy.Gt(N, 3)


# --- extents that agree ---------------------------------------------------------------


def fake_of_one_batch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if x.shape[0] != y.shape[0]:
        raise ValueError("x and y have the same batch")
    return torch.empty_like(x)


def both(x: Any, y: Any, out: Any) -> None:
    launch(x, out, x.shape[0] + y.shape[0])


def checked(x: Any, y: Any, out: Any) -> None:
    n, m = x.shape[0], y.shape[0]
    assert n == m
    launch(x, out, n + m)


def chosen(x: Any, y: Any, out: Any) -> None:
    launch(x, out, x.shape[0] + y.shape[0] if x.shape == y.shape else 0)


def counted(x: Any, y: Any, out: Any) -> None:
    assert x.numel() == y.numel()
    n = x.shape[0]
    launch(x, out, n + y.shape[0] if n == y.shape[0] else 0)


def viewed(x: Any, y: Any, out: Any) -> None:
    y.view(x.shape)
    launch(x, out, x.shape[0] + y.shape[0] if x.shape == y.shape else 0)


@pytest.mark.parametrize(
    ("launch_fn", "meta"),
    [
        (both, fake_of_one_batch),
        (chosen, fake_of_one_batch),
        (checked, lambda x, y: torch.empty_like(x)),
        (counted, lambda x, y: torch.empty_like(x)),
        (viewed, lambda x, y: torch.empty_like(x)),
    ],
)
def test_extents_that_must_agree_are_one(launch_fn: Any, meta: Any) -> None:
    inputs = info(MANY, 4), info(MANY, 4)
    assert number(program(launch_fn, *inputs, meta=meta)) in (2 * N, 2 * M)


def test_extents_that_may_differ_are_two() -> None:
    inputs, meta = (info(MANY, 4), info(MANY, 4)), lambda x, y: torch.empty_like(x)
    assert number(program(both, *inputs, meta=meta)) == N + M
    with pytest.raises(DynamicControlFlowError, match=r"branches on `.*d\d_0.*d\d_0"):
        program(chosen, *inputs, meta=meta)


def test_a_factor_that_may_be_zero_is_not_cancelled() -> None:
    assert cancelled(sympy.Eq(4 * N, 4 * M), RANGES) == sympy.Eq(N, M)
    K = symbol(2, 0)
    ranges = {**RANGES, K: Range(1, 2, 3)}
    assert cancelled(sympy.Ne(4 * N * M, 4 * M * K), ranges) == sympy.Ne(N, K)
    assert cancelled(sympy.Eq(N * M, N * K), ranges) == sympy.Eq(N * M, N * K)
    assert cancelled(N > M, ranges) == (N > M)


TABLE = (64, 777)


def one_of(x: Any, y: Any, out: Any) -> None:
    n, m = x.shape[0], y.shape[0]
    if m not in (n, 64):  # pytest would ask more in an assertion that fails
        raise ValueError("one for each row, or 64")
    launch(x, out, n + m)


def checked_fake(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    torch._check(y.shape[0] in (x.shape[0], 64))
    return torch.empty_like(x)


def in_a_table(x: Any, y: Any, out: Any) -> None:
    n, m = x.shape[0], y.shape[0]
    if n != m:
        assert m in TABLE[1:]
    launch(x, out, n)


def by_row_or_column(x: Any, y: Any, out: Any) -> None:
    rows, columns = x.shape
    if y.shape[0] not in (rows, columns):
        raise ValueError("one for each row, or for each column")
    launch(x, out, rows if y.shape[0] == rows else -1)


def or_longer(x: Any, y: Any, out: Any) -> None:
    n, m = x.shape[0], y.shape[0]
    if m not in (n, 3 * n + 7):
        raise ValueError("as long as x, or longer")
    launch(x, out, n + m)


def message_of_sizes(x: Any, y: Any, out: Any) -> None:
    n, m = x.shape[0], y.shape[0]
    if n != m:
        raise ValueError(f"{x.shape} and {y.shape}, {n // 4} and {2 * m}")
    launch(x, out, n + m)


@pytest.mark.parametrize(
    ("launch_fn", "meta"),
    [
        (one_of, lambda x, y: torch.empty_like(x)),
        (both, checked_fake),
        (in_a_table, lambda x, y: torch.empty_like(x)),
        (by_row_or_column, lambda x, y: torch.empty_like(x)),
        (or_longer, lambda x, y: torch.empty_like(x)),
    ],
    ids=["function", "fake kernel", "table", "column", "expression"],
)
def test_extents_that_agree_but_for_one_are_not_one(launch_fn: Any, meta: Any) -> None:
    """At 64, 777 or 3n + 7 the function goes on, and does something else."""
    rows = Range(2, 100, 5000)
    inputs = info(rows, 64 if launch_fn is by_row_or_column else 4), info(rows, 4)
    with pytest.raises(DynamicControlFlowError, match=r"== "):
        program(launch_fn, *inputs, meta=meta)


def test_a_replay_sees_that_extents_agree_but_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(branches._Explorer, "_exception", lambda *given: None)
    inputs = info(Range(2, 100, 5000), 64), info(Range(2, 100, 5000), 4)
    with pytest.raises(RecordError, match="on plain ints"):
        program(by_row_or_column, *inputs, meta=lambda x, y: torch.empty_like(x))


def test_a_message_that_has_the_sizes_makes_no_exception() -> None:
    inputs, meta = (info(MANY, 4), info(MANY, 4)), lambda x, y: torch.empty_like(x)
    found = number(program(message_of_sizes, *inputs, meta=meta))
    assert found in (2 * N, 2 * M)


# --- equations ------------------------------------------------------------------------


def packed_fake(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``y`` holds two values of each pair of columns."""
    if x.shape[0] != 2 * y.shape[0] + 1:
        raise ValueError("y does not belong to x")
    return torch.empty_like(y)


PACKED = info(Range(3, 101, 3_000_000), 4), info(Range(1, 50, 1_400_000), 4)
SMALL = info(Range(3, 9, 12), 4), info(Range(1, 4, 9), 4)


def test_shapes_that_satisfy_an_equation_of_the_op_are_replayed() -> None:
    seen: set[tuple[int, int]] = set()

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        if isinstance(x.shape[0], int):
            seen.add((x.shape[0], y.shape[0]))
        launch(x, out, x.shape[0] + y.shape[0])

    assert number(program(launch_fn, *PACKED, meta=packed_fake)) in (3 * M + 1, N + M)
    assert len(seen) > 300
    assert all(n == 2 * m + 1 for n, m in seen)


def asserting(x: Any, y: Any, out: Any) -> None:
    assert x.shape[0] == 2 * y.shape[0] + 1
    launch(x, out, x.shape[0] + y.shape[0])


def like_y(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(y)


@pytest.mark.parametrize("inputs", [PACKED, SMALL])
def test_an_equation_that_the_function_insists_on_is_its_contract(inputs: Any) -> None:
    assert number(program(asserting, *inputs, meta=like_y)) in (3 * M + 1, N + M)


@pytest.mark.parametrize("passing", [1, 2, 700_000])
def test_an_equation_that_the_function_does_not_insist_on_is_a_branch(
    passing: int,
) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n, m = x.shape[0], y.shape[0]
        if n != 2 * m + 1 and m != passing:
            raise ValueError("y does not belong to x")
        launch(x, out, n + m if n == 2 * m + 1 else 0)

    with pytest.raises((DynamicControlFlowError, RecordError)):
        program(launch_fn, *PACKED, meta=like_y)


@pytest.mark.parametrize("named", [41, 40_001])
@pytest.mark.parametrize("which", [0, 1])
def test_what_only_ints_show_is_found_where_an_equation_holds(
    named: int, which: int
) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        table = {str(named): 3}
        launch(x, out, table.get(str((x, y)[which].shape[0]), 4))

    with pytest.raises(RecordError, match="does something else on plain ints"):
        program(launch_fn, *PACKED, meta=packed_fake)


def test_points_near_an_equation_miss_it() -> None:
    ranges = {N: Range(1, 2, 9), M: Range(1, 2, 9)}
    found = set(points_near([(6, 3)], ranges, {}, [sympy.Eq(N, 2 * M)]))
    assert found >= {(5, 3), (7, 3), (1, 3), (9, 3), (6, 2), (6, 4), (6, 1), (6, 9)}
    found = set(points_near([(6, 3)], ranges, {}, [sympy.Eq(N, 2 * M)], {7, 10}))
    assert found >= {(7, 3), (6, 7)}
    assert (6, 10) not in found
    tied = {M: N, N: N}
    assert all(n == m for n, m in points_near([(6, 6)], ranges, tied, [sympy.Eq(N, 4)]))


def test_points_are_moved_to_where_equations_hold() -> None:
    K = symbol(2, 0)
    ranges = {N: Range(1, 2, 90), M: Range(1, 2, 90), K: Range(1, 2, 90)}
    point = [(6, 5, 7)]
    moved = solving_points(point, ranges, {}, [sympy.Eq(N, 2 * M)])
    assert list(moved) == [(10, 5, 7), (6, 3, 7)]
    moved = solving_points(point, ranges, {}, [sympy.Eq(N * M, 3 * K)])
    assert list(moved) == [(6, 5, 10)]  # 21 is no multiple of 5, nor of 6
    moved = solving_points(point, ranges, {K: M, M: M}, [sympy.Eq(N + 1, K)])
    assert list(moved) == [(4, 5, 7), (6, 7, 7)]
    assert list(solving_points(point, ranges, {}, [sympy.Eq(N, 100 * M)])) == []
    assert list(solving_points(point, ranges, {}, [sympy.Eq(N**2, M**2)])) == []
    both = [sympy.Eq(N, 2 * M), sympy.Eq(K, N + 1)]
    assert list(solving_points(point, ranges, {}, both)) == [(10, 5, 11), (6, 3, 7)]
