# SPDX-License-Identifier: BSD-3-Clause

"""What tracing gets wrong: right all the same, or refused, and seen by a replay.

Each class of errors has three functions. A function gives a number for two inputs of
shapes (n, 8) and (m, 8); the launch passes the number to the kernel.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from multiprocessing.pool import ThreadPool
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import triton
from kernels import add_kernel, info
from torch.fx.experimental.symbolic_shapes import guard_or_false, statically_known_true
from torch.utils._pytree import tree_leaves
from values import evaluate

from torch_tensorrt.annotation._record import (
    Call,
    branches,
    infer_outputs,
    record,
    replay,
    tracing,
)
from torch_tensorrt.annotation._record.program import (
    Constant,
    Operation,
    Program,
    Scalar,
)
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    DynamicControlFlowError,
    RecordError,
)

Number = Callable[[Any, Any], Any]
FEW, MANY = Range(1, 8, 20), Range(1, 1000, 5000)
TABLE = {1234: 7}
SIZE = 64


def recorded(number: Number, rows: Range, others: Range | None = None) -> Program:
    """The program that launches a kernel with ``number`` of its inputs."""

    def launch(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, number(x, y), out, BLOCK=256)

    inputs = info(rows, 8), info(others or rows, 8)
    meta = lambda x, y: torch.empty_like(x)  # noqa: E731
    return record(backend("triton"), launch, meta, inputs)


def shapes(program: Program) -> Iterable[tuple[int, int]]:
    """Ends, powers of two, constants of this file, and their neighbours."""
    for first, second in itertools.product(*(program.ranges.values(),) * 2):
        near = {1, 5, 16, 60, 64, 777, 1000, 1234, 4096}
        near |= {v + step for v in near for step in (-1, 1)} | set(range(1, 40))
        for n in sorted(v for v in near if first.min <= v <= first.max):
            for m in {n, n - 1, n + 1, second.min, second.max}:
                if second.min <= m <= second.max:
                    yield n, m


def wrong_at(program: Program, number: Number) -> tuple[int, int] | None:
    """A shape for which ``program`` passes another number; the function may raise."""
    argument = program.launch.arguments[2]
    for n, m in shapes(program):
        x, y = torch.empty(n, 8), torch.empty(m, 8)
        try:
            expected = number(x, y)
        except Exception:
            assert n != m, "the function says that it does not take this shape"
            continue
        extents = {symbol(0, 0): n, symbol(1, 0): m}
        found = (
            argument.value
            if isinstance(argument, Constant)
            else evaluate(argument.expr, extents)
        )
        if found != expected:
            return n, m
    return None


# --- The functions --------------------------------------------------------------------


def swallowed(table: Mapping[int, int], key: Any, default: Any) -> Any:
    try:
        return table[key]
    except Exception:
        return default


def diagonal(x: Any, y: Any) -> Any:
    n, m = len(x), len(y)
    if n == m:
        return n
    if m == n + 1:
        return n + 7
    raise ValueError("not such shapes")


def second_diagonal(x: Any, y: Any) -> Any:
    if len(x) == len(y):
        return 3
    if len(x) == len(y) + 1:
        return 4
    raise ValueError("not such shapes")


def one_beside(x: Any, y: Any) -> Any:
    if len(y) not in (len(x), 1):
        raise ValueError("not such shapes")
    return len(y)


def counted(x: Any, y: Any) -> Any:
    return sum(1 for _ in range(len(x) // 4))


def rows(x: Any, y: Any) -> Any:
    return len(x)


CLASSES: dict[str, dict[str, Number]] = {
    "guards with many values": {
        "int of a division": lambda x, y: int(len(x) / 4),
        "a list": lambda x, y: [1, 2, 4, 8, 16, 32][len(x) // 4],
        "a range": counted,
        "a root": lambda x, y: int(math.sqrt(len(x))),
    },
    "divisors below zero": {
        "twice": lambda x, y: -((len(x) // 2) // -4),
        "remainder": lambda x, y: (len(x) // 3) % -5,
        "ceiling": lambda x, y: -(-(len(x) // 2) // 128) + len(x) // -7,
    },
    "broadcasting is no contract": {
        "sum": lambda x, y: (x + y).shape[0],
        "maximum": lambda x, y: torch.maximum(x, y).shape[0] - len(y),
        "by hand": one_beside,
    },
    "a branch on a diagonal": {
        "after": diagonal,
        "before": second_diagonal,
        "by a constant": lambda x, y: 7 if len(x) == len(y) + 16 else len(x),
    },
    "a symbol is no int": {
        "isinstance": lambda x, y: len(x) * (2 - isinstance(len(x), int)),
        "type": lambda x, y: len(x) if type(x.shape[0]) is int else 3,
        "text": lambda x, y: {"5": 1, "777": 2}.get(str(len(x)), len(x)),
        "format": lambda x, y: int(f"{x.shape[0]:d}"[:1]),
        "table": lambda x, y: swallowed(TABLE, x.shape[0], 5),
        "known": lambda x, y: 3 if statically_known_true(x.shape[0] == 5) else 4,
        "guarded": lambda x, y: 3 if guard_or_false(x.shape[0] == 777) else 4,
        "is": lambda x, y: 3 if x.shape[0] is SIZE else 4,
    },
    "a rank that depends on a size": {
        "squeeze": lambda x, y: x.squeeze().dim(),
        "of a part": lambda x, y: x[:, :1].squeeze().dim() + len(y),
        "extents": lambda x, y: len([s for s in x.shape if s != 1]),
    },
}
FUNCTIONS = [
    pytest.param(number, id=f"{name}: {what}")
    for name, numbers in CLASSES.items()
    for what, number in numbers.items()
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extent", [FEW, MANY], ids=["few shapes", "many shapes"])
@pytest.mark.parametrize("number", FUNCTIONS)
def test_it_is_right_or_refused(number: Number, extent: Range) -> None:
    try:
        program = recorded(number, extent)
    except AnnotationError as error:
        assert "launch function" in str(error)
    else:
        assert wrong_at(program, number) is None


# --- Without the remedy at the root, a replay sees it ---------------------------------


def test_a_replay_sees_what_torch_simplifies_wrongly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = CLASSES["divisors below zero"]["twice"]
    monkeypatch.setattr(tracing, "_REPLACED", tracing._REPLACED[:4])  # the builtins
    with pytest.raises(RecordError, match="on plain ints"):
        recorded(number, MANY)


@pytest.mark.parametrize("what", CLASSES["guards with many values"])
def test_a_replay_sees_a_value_that_was_not_explored(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches._Explorer, "explore", lambda self: None)
    with pytest.raises(RecordError, match="on plain ints"):
        recorded(CLASSES["guards with many values"][what], FEW)


@pytest.mark.parametrize("what", ["text", "table"])
def test_a_replay_tries_the_numbers_that_a_function_names(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_REPLACED", tracing._REPLACED[:4])  # the builtins
    with pytest.raises(RecordError, match="on plain ints"):
        recorded(CLASSES["a symbol is no int"][what], MANY)


def test_a_guard_with_many_values_is_explored_to_the_end() -> None:
    """Each value of ``int(n // 4)`` gives another number; here they give the same."""
    same = recorded(lambda x, y: 0 * int(x.shape[0] // 4), FEW).launch
    assert same.arguments[2].expr == 0
    with pytest.raises(DynamicControlFlowError, match=r"`\(d0_0 // 4\) == "):
        recorded(lambda x, y: int(x.shape[0] // 4), MANY)


def test_what_all_shapes_show_is_accepted() -> None:
    """Nothing decides this guard but trying."""

    def number(x: Any, y: Any) -> int:
        return 2 if (x.shape[0] * y.shape[0]) % 7919 == 7918 else 1

    assert recorded(number, FEW).launch.arguments[2].expr == 1
    with pytest.raises(DynamicControlFlowError):
        recorded(number, MANY)


def test_the_message_names_shape_and_difference() -> None:
    with pytest.raises(
        RecordError, match=r"at d0_0=64, .*: argument `n` is 3, and was recorded as 4"
    ):
        recorded(CLASSES["a symbol is no int"]["is"], MANY)


def test_a_function_that_raises_on_plain_ints_is_refused() -> None:
    def number(x: Any, y: Any) -> int:
        if isinstance(x.shape[0], int):
            raise ValueError("only symbols, please")
        return 1

    with pytest.raises(RecordError, match=r"on plain ints .* only symbols"):
        recorded(number, FEW)


# --- Everything that a launch does is compared ----------------------------------------


def is_int(x: Any) -> bool:
    """Whether sizes are plain ints: no branch on them, and so seen by a replay only."""
    return isinstance(x.shape[0], int)


@triton.jit
def other_kernel(x_ptr, y_ptr, n, out_ptr, BLOCK):  # type: ignore[no-untyped-def]
    pass


def passed(x: Any, out: Any, *, kernel: Any = add_kernel, grid: Any = 1, **how: Any):  # type: ignore[no-untyped-def]
    arguments = {"x_ptr": x, "y_ptr": x, "n": 8, "out_ptr": out, "BLOCK": 256, **how}
    kernel[(grid,)](**arguments)


DIFFERENT: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "kernel": (
        lambda x, out: passed(x, out, kernel=other_kernel if is_int(x) else add_kernel),
        "it has JITFunction.*other_kernel.*, and JITFunction.*add_kernel.* was record",
    ),
    "option": (
        lambda x, out: passed(x, out, num_warps=8 if is_int(x) else 4),
        r"it has \(\('num_warps', 8\),\), and \(\('num_warps', 4\),\) was recorded",
    ),
    "another option": (
        lambda x, out: passed(x, out, **{"num_stages": 2} if is_int(x) else {}),
        r"it has \(\('num_stages', 2\),\), and \(\) was recorded",
    ),
    "constant": (
        lambda x, out: passed(x, out, BLOCK=512 if is_int(x) else 256),
        "it has .*'BLOCK', .*512.*, and .*'BLOCK', .*256.* was recorded",
    ),
    "type of a constant": (
        lambda x, out: passed(x, out, n=1.0 if is_int(x) else True),
        r"it has .*'n', .*1\.0.*, and .*'n', 'bool'.* was recorded",
    ),
    "int or condition": (
        lambda x, out: passed(x, out, n=1 if is_int(x) else x.shape[0] > 0),
        "it has .*'n', 'int'.*, and .*'n', 'bool'.* was recorded",
    ),
    "condition": (
        lambda x, out: passed(x, out, n=x.shape[0] > (7 if is_int(x) else 9)),
        "argument `n` is 1, and was recorded as 0",
    ),
    "decided condition": (
        lambda x, out: passed(x, out, n=not is_int(x)),
        "argument `n` is 0, and was recorded as 1",
    ),
    "number": (
        lambda x, out: passed(x, out, n=x.shape[0] + int(is_int(x))),
        "argument `n` is 2, and was recorded as 1",
    ),
    "tensor": (
        lambda x, out: passed(x, out, x_ptr=out if is_int(x) else x),
        "it has .*'x_ptr', 'tensor', 1.*, and .*'x_ptr', 'tensor', 0.* was recorded",
    ),
    "no tensor": (
        lambda x, out: passed(x, out, y_ptr=None if is_int(x) else x),
        "it has .*'y_ptr', 'constant'.*, and .*'y_ptr', 'tensor', 0.* was recorded",
    ),
    "dtype": (
        lambda x, out: passed(x.view(torch.int16) if is_int(x) else x, out),
        r"it has .*torch\.int16.*, and .*torch\.float16.* was recorded",
    ),
    "grid": (
        lambda x, out: passed(x, out, grid=2 if is_int(x) else 1),
        "the grid's axis 0 is 2, and was recorded as 1",
    ),
    "third axis": (
        lambda x, out: add_kernel[(1, 1, 1 + is_int(x))](x, x, 8, out, BLOCK=256),
        "the grid's axis 2 is 2, and was recorded as 1",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_difference_on_plain_ints_is_refused(what: str) -> None:
    launch, message = DIFFERENT[what]
    meta = lambda x: torch.empty_like(x)  # noqa: E731
    with pytest.raises(RecordError, match=f"something else .*: {message}"):
        record(backend("triton"), launch, meta, (info(FEW, 8),))


OUTPUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "extent": (
        lambda x: x.new_empty(3 + is_int(x), x.shape[0]),
        "output 0, extent 0 is 4, and was recorded as 3",
    ),
    "rank": (
        lambda x: x.new_empty((3,) * (1 + is_int(x))),
        "it has .'output', 2, .*, and .'output', 1, .* was recorded",
    ),
    "dtype": (
        lambda x: x.new_empty(3, dtype=torch.int32 if is_int(x) else torch.int8),
        r"it has .*torch\.int32.*, and .*torch\.int8.* was recorded",
    ),
    "number": (
        lambda x: (x.new_empty(3),) * (1 + is_int(x)),
        r"it has .'output', 1, .*, and None was recorded",
    ),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_an_output_that_differs_on_plain_ints_is_refused(what: str) -> None:
    meta, message = OUTPUTS[what]
    with pytest.raises(RecordError, match=f"something else .*: {message}"):
        infer_outputs(meta, [info(FEW, 8)], "the fake kernel")


def test_a_condition_is_the_same_as_a_bool() -> None:
    """On plain ints it is a constant, which is no difference."""
    meta = lambda x: torch.empty_like(x)  # noqa: E731
    launch = lambda x, out: passed(x, out, n=x.shape[0] > 9)  # noqa: E731
    (_, _, n, *_) = record(
        backend("triton"), launch, meta, (info(FEW, 8),)
    ).launch.arguments
    assert n == Scalar("n", symbol(0, 0) > 9)


# --- What it is replayed on -----------------------------------------------------------

USES: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda x: None,
    "sizes": lambda x: (x.size(dim=0), x.stride(dim=1), x.size(), x.dim(), x.numel()),
    "views": lambda x: (x.view(-1), x[0], x[:, 1:3], x[None], x.view(dtype=torch.int8)),
    "a transpose": lambda x: x.transpose(dim0=0, dim1=1),
    "its parts": lambda x: (torch.split(x, 4, dim=1), torch.unbind(x, dim=1)),
    "two of it": lambda x: torch.cat([x, x], dim=1) + torch.stack((x, x)).sum(0)[:, :1],
    "a list of it": lambda x: torch.broadcast_tensors(x, x[:1]),
    "an allocation": lambda x: (
        torch.empty_like(x),
        x.new_empty(4, dtype=torch.int32),
        torch.empty(x.shape, device=x.device),
        torch.empty(3, device="cuda"),
        torch.empty(size=(3, 4), device=torch.device("cuda", 0)),
    ),
}


@pytest.mark.parametrize("what", USES)
def test_what_people_write_is_replayed_on_tensors_without_memory(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They pass for CUDA tensors, as does all that is made of them."""
    at = replay.PlainInputs.at

    def fast(self: replay.PlainInputs, point: replay.Point, fast: bool) -> Any:
        assert fast, f"not possible at {point}"
        return at(self, point, fast)

    def launch(x: Any, out: Any) -> None:
        for tensor in tree_leaves((x, out, USES[what](x))):
            if isinstance(tensor, torch.Tensor):
                assert (tensor.device, tensor.is_cuda, tensor.is_meta) == (
                    torch.device("cuda", 0),
                    True,
                    False,
                )
        passed(x, out)

    meta = lambda x: torch.empty_like(x)  # noqa: E731
    monkeypatch.setattr(replay.PlainInputs, "at", fast)
    record(backend("triton"), launch, meta, (info(FEW, 8),))


def test_a_tensor_of_another_device_stays_there() -> None:
    def launch(x: Any, out: Any) -> None:
        assert torch.empty(3).device == torch.empty(3, device="cpu").device
        assert torch.empty(3, device="cpu").is_cpu
        assert torch.empty(3, device="meta").is_meta
        passed(x, out)

    meta = lambda x: torch.empty_like(x)  # noqa: E731
    record(backend("triton"), launch, meta, (info(FEW, 8),))


# --- What is replayed -----------------------------------------------------------------


def points(*ranges: Range, **how: Any) -> tuple[list[tuple[int, ...]], bool]:
    extents = {symbol(0, axis): extent for axis, extent in enumerate(ranges)}
    return replay.points_of(extents, how.get("tied", {}), how.get("named", ()))


def test_few_shapes_are_all_replayed() -> None:
    assert points(Range(1, 2, 20), Range(0, 1, 24)) == (
        list(itertools.product(range(1, 21), range(25))),
        True,
    )
    assert points(Range(1, 2, 500))[1]
    assert not points(Range(1, 2, 501))[1]
    assert points() == ([()], True)


def test_of_many_shapes_those_are_replayed_that_functions_branch_on() -> None:
    found, are_all = points(Range(0, 100, 5000), Range(1, 7, 9000), named={1234})
    assert not are_all
    assert len(found) == len(set(found)) == replay.MOST_SHAPES
    firsts, seconds = map(set, zip(*found, strict=True))
    assert {0, 1, 2, 4999, 5000, 64, 4096, 1233, 1234, 1235, 2468} <= firsts
    assert {1, 2, 8999, 9000, 64, 8192, 1234} <= seconds
    corners = itertools.product((0, 5000), (1, 9000))
    assert {(100, 7), *corners} <= set(found)
    assert any(n == m for n, m in found)
    assert any(m == n + 1 for n, m in found)
    assert points(Range(0, 100, 5000), Range(1, 7, 9000), named={1234})[0] == found


def test_the_first_of_many_shapes_are_these() -> None:
    """The optimum, edges, what is named and its neighbours; then random ones."""
    extents = Range(3, 50, 5000)
    edges = {3, 4, 4999, 5000} | {2**k for k in range(2, 13)}
    wanted = {50, 1233, 1234, 1235, 2467, 2468, 2469} | edges
    (first,), *_ = found = points(extents, named={1234})[0]
    assert first == 50
    assert {n for (n,) in found[: len(wanted)]} == wanted
    assert all(3 <= n <= 5000 for (n,) in found)


def test_each_dimension_is_swept_alone_and_beside_its_equals() -> None:
    edges = (1, 2, 3, 4, 8, 16, 29, 30)
    wanted = {(first, second) for first in (1, 30) for second in (1, 30)}
    wanted |= {(n, other) for n in edges for other in (7, 1, 30)}
    wanted |= {(other, n) for n in edges for other in (5, 1, 30)}
    wanted |= {(n, m) for n in edges for m in (n, n + 1) if m <= 30}
    wanted |= {(m, n) for n in edges for m in (n, n + 1) if m <= 30}
    found, are_all = points(Range(1, 5, 30), Range(1, 7, 30))
    assert not are_all
    assert set(found[: len(wanted) + 1]) == {(5, 7), *wanted}


def test_every_combination_of_ends_is_replayed() -> None:
    found, _ = points(*(Range(1, 5, 30),) * 4)
    assert set(itertools.product((1, 30), repeat=4)) <= set(found)


def test_many_numbers_are_tried_in_each_dimension_before_their_neighbours() -> None:
    named = {*range(1001, 1400, 2)}
    found, _ = points(Range(1, 100, 5000), Range(1, 7, 9000), named=named)
    assert {(n, 7) for n in named} | {(100, n) for n in named} <= set(found)


def test_as_many_shapes_are_replayed_as_are_asked_for() -> None:
    extents = {symbol(0, 0): Range(1, 2, 3), symbol(0, 1): Range(2, 9, 100)}
    for most in (1, 5, 60, 200):
        found, are_all = replay.points_of(extents, {}, (), most)
        assert len(set(found)) == most
        assert not are_all


def test_where_dimensions_agree_they_are_also_made_to_differ() -> None:
    first, second, third = (symbol(0, axis) for axis in range(3))
    ranges = {first: Range(2, 10, 40), second: Range(1, 10, 50), third: Range(1, 7, 9)}
    found = replay.unequal_points(ranges, {first: first, second: first}, {1, 3})
    beside = {  # ends, 1, 3, and by 1, 2 and 3: more, less, times and a part;
        # beside an end also the optimum
        10: {1, 50, 11, 9, 12, 8, 13, 7, 20, 30, 5, 3},
        2: {1, 10, 50, 3, 4, 5, 6},
        40: {1, 10, 50, 41, 39, 42, 38, 43, 37, 20, 13},
    }
    wanted = {(n, m, 7) for n, others in beside.items() for m in others}
    beside = {
        10: {2, 40, 11, 9, 12, 8, 13, 7, 20, 30, 5, 3},
        2: {10, 40, 3, 4, 5, 6},
        40: {2, 10, 39, 38, 37, 20, 13},
    }
    wanted |= {(n, m, 7) for m, others in beside.items() for n in others}
    assert set(found) == wanted
    assert len(found) == len(wanted)


def test_of_many_numbers_the_ends_are_tried_where_dimensions_differ() -> None:
    first, second = symbol(0, 0), symbol(0, 1)
    ranges = {first: Range(2, 10, 4000), second: Range(1, 10, 5000)}
    named = {*range(1001, 1400, 2), 9000}
    found = replay.unequal_points(ranges, {first: first, second: first}, named)
    beside = {m for n, m in found if n == 10}
    assert {1001, 1003, 1397, 1399} <= beside
    assert len(beside) < 200


def test_dimensions_that_agree_with_others_stay_equal() -> None:
    first, second, third = (symbol(0, axis) for axis in range(3))
    ranges = dict.fromkeys((first, second, third), Range(1, 4, 8))
    found = replay.unequal_points(ranges, dict.fromkeys(ranges, first), set())
    assert found
    assert all(len(set(point)) == 2 for point in found)


def test_more_shapes_find_what_500_do_not() -> None:
    """Nothing names the shape at which an int differs from a symbol."""

    def launch(x: Any, out: Any) -> None:
        n = x.shape[0]
        odd = isinstance(n, int) and (n * 7919) % 4993 == 4801
        add_kernel[(1,)](x, x, 3 if odd else n, out, BLOCK=256)

    def recorded_at(most: int) -> Program:
        inputs = (info(MANY, 8),)
        plain = replay.PlainInputs(inputs, most)
        return record(
            backend("triton"), launch, torch.empty_like, inputs, Call(), plain
        )

    assert recorded_at(500).launch.arguments[2].expr == symbol(0, 0)
    with pytest.raises(RecordError, match="argument `n` is 3"):
        recorded_at(5000)


def test_dimensions_that_agree_are_replayed_together() -> None:
    first, second = symbol(0, 0), symbol(0, 1)
    tied = {first: first, second: first}
    found, are_all = points(Range(1, 2, 400), Range(1, 2, 400), tied=tied)
    assert are_all
    assert found == [(n, n) for n in range(1, 401)]


def test_numbers_are_found_where_a_function_names_them() -> None:
    offset = 91

    def helper(n: int, other: int = 92) -> int:
        return n + 93 + offset + other

    def function(n: int) -> Any:
        return [helper(n) for _ in (94, 95)], TABLE, SIZE, "96", lambda: 97

    found = replay.numbers_in(function)
    assert {91, 92, 93, 94, 95, 96, 97, 1234, 64} <= found


def test_numbers_are_found_behind_partials_and_methods() -> None:
    class Launcher:
        def __init__(self) -> None:
            self.table = {"91": None}

        def launch(self, n: int, block: int) -> bool:
            return n == 92

    found = replay.numbers_in(partial(Launcher().launch, block=93))
    assert {91, 92, 93} <= found


@lru_cache
def cached(n: int) -> int:
    return {91: n}.get(n, 0)


class Tuner:
    """What a launch function may keep."""

    limits = (92,)

    def __init__(self) -> None:
        self.best = {"first": SimpleNamespace(size=93)}

    @property
    def most(self) -> int:
        return 94

    @staticmethod
    def least() -> int:
        return 95


TUNER = Tuner()


def test_numbers_are_found_behind_caches_objects_and_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = ModuleType("a_users_tables")
    tables.__dict__.update(SIZES={96: 0}, array=np.array([97]), unused=98)
    monkeypatch.setitem(sys.modules, "a_users_tables", tables)

    def function(n: int) -> Any:
        import a_users_tables as found  # type: ignore[import-not-found]

        return cached(n), TUNER.most, lambda: (found.SIZES, found.array, SIZE)

    found = replay.numbers_in(function)
    assert {91, 92, 93, 94, 95, 96, 97, 64} <= found
    assert 98 not in found


def test_numbers_are_found_within_a_text() -> None:
    def function(n: int) -> Any:
        return {"91x92": 1, f"{n}_93": 2, "9" * 30: 3, "\N{SUPERSCRIPT TWO}": 4}

    assert replay.numbers_in(function) - {1, 2, 3, 4} == {91, 92, 93}


def test_a_replay_tries_the_sizes_that_a_key_names_together() -> None:
    def number(x: Any, y: Any) -> int:
        return {"777x640": 3}.get(f"{x.shape[0]}x{y.shape[0]}", 2)

    with pytest.raises(RecordError, match=r"at d0_0=777, d1_0=640: .* is 3"):
        recorded(number, MANY)


def test_a_large_table_costs_no_more_than_a_small_one() -> None:
    table = dict.fromkeys(range(1_000, 100_000))
    others = [[object()] for _ in range(100_000)]

    def function(n: int) -> Any:
        return table, others, 91

    found = replay.numbers_in(function)
    assert {91, 1_000} <= found
    assert len(found) < 500


@pytest.mark.parametrize(
    "special",
    [
        lambda x, y: cached(x.shape[0]),
        lambda x, y: isinstance(x.shape[0], int) and x.shape[0] in TUNER.limits,
    ],
    ids=["cache", "object"],
)
def test_a_replay_tries_the_numbers_that_caches_and_objects_hold(
    special: Number,
) -> None:
    with pytest.raises(RecordError, match="on plain ints"):
        recorded(lambda x, y: 3 if special(x, y) else 4, MANY)


def test_a_tensor_larger_than_any_memory_is_not_replayed() -> None:
    both = Range(1, 8, 2**31 - 1)
    inputs = replay.PlainInputs((None, info(both, 8), info(4, both)))
    assert inputs.cannot_exist((2**59, 1))
    assert not inputs.cannot_exist((2**59 - 1, 1))
    assert inputs.cannot_exist((1, 2**60))
    assert not inputs.cannot_exist((1, 2**60 - 1))


def test_inputs_are_made_once_for_each_shape_and_kind() -> None:
    inputs = replay.PlainInputs((info(FEW, 8), None))
    first = inputs.at((5,), True)
    assert first is inputs.at((5,), True)
    assert first is not inputs.at((6,), True)
    assert first is not inputs.at((5,), False)
    assert [t if t is None else tuple(t.shape) for t in first.inputs] == [(5, 8), None]


# --- Writes, threads and buffers ------------------------------------------------------


def launched(act: Callable[[Any, Any], Any], rows: Range = FEW) -> Program:
    def launch(x: Any, y: Any, out: Any) -> None:
        act(x, out)
        add_kernel[(1,)](x, y, 8, out, BLOCK=256)

    meta = lambda x, y: torch.empty_like(x)  # noqa: E731
    return record(backend("triton"), launch, meta, (info(rows, 8), info(rows, 8)))


def try_to(act: Callable[..., Any]) -> Callable[..., None]:
    def tried(*tensors: Any) -> None:
        with contextlib.suppress(Exception):
            act(*tensors)

    return tried


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "two lists": lambda x, out: torch._foreach_add_([x], [out]),
    "a view in a list": lambda x, out: torch._foreach_mul_([x.view(-1)], 2),
    "in place": lambda x, out: x.mul_(2),
    "swallowed": try_to(lambda x, out: x.mul_(2)),
    "out=": try_to(lambda x, out: torch.neg(out, out=x)),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_write_to_an_input_is_refused(what: str) -> None:
    with pytest.raises(RecordError, match=r"writes an input with aten.* at .*test_"):
        launched(WRITES[what])


RUNNING, POOL = ThreadPoolExecutor(1), ThreadPool(1)
atexit.register(POOL.terminate)


@pytest.mark.parametrize(
    "start",
    [
        lambda work: threading.Thread(target=work).start(),
        try_to(lambda work: threading.Thread(target=work).start()),
        lambda work: threading.Timer(0, work).start(),
        lambda work: ThreadPoolExecutor(1).submit(work),
        lambda work: RUNNING.submit(work),
        try_to(lambda work: list(RUNNING.map(lambda _: work(), [0]))),
        lambda work: POOL.apply(work),
        try_to(lambda work: list(POOL.imap(lambda _: work(), [0]))),
    ],
)
def test_work_for_another_thread_is_refused(start: Callable[..., Any]) -> None:
    assert RUNNING.submit(int).result() == 0
    with pytest.raises(RecordError, match="hands work to another thread"):
        launched(lambda x, out: start(lambda: None))


def test_a_refusal_that_the_function_swallows_stands() -> None:
    with pytest.raises(ArgumentError, match="address"):
        launched(try_to(lambda x, out: int(out.data_ptr())))
    again = try_to(lambda x, out: add_kernel[(1.5,)](x, x, 8, out, BLOCK=256))
    with pytest.raises(AnnotationError):
        launched(again)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.sort(x).values,
        lambda x: torch.cummax(x, dim=0).values,
        lambda x: x.clone(),
    ],
)
def test_an_output_at_the_address_of_a_freed_buffer_is_torchs_result(
    make: Callable[[Any], Any],
) -> None:
    def body(x: Any) -> Any:
        for _ in range(8):
            torch.empty_like(x)  # freed at once
        out = make(x)
        add_kernel[(1,)](x, x, 8, out, BLOCK=256)
        return out

    inputs = (info(FEW, 8),)
    meta = lambda x: torch.empty_like(x)  # noqa: E731
    program = record(backend("triton"), body, meta, inputs, Call(names=("x",)))
    operation, launch = program.steps
    assert isinstance(operation, Operation)
    assert program.returned[0].tensor in operation.results
    assert launch.pointers[2].tensor == program.returned[0].tensor


def test_a_variable_without_a_value_yet_holds_no_number() -> None:
    def launch(x: Any, out: Any) -> None:
        if x.dtype is torch.int8:
            later(x)
        add_kernel[(1,)](x, x, x.shape[0], out, BLOCK=256)

    program = record(backend("triton"), launch, torch.empty_like, (info(FEW, 8),))
    later = print
    assert program.launch.arguments[2].expr == symbol(0, 0)
    assert later is print


def test_extents_that_are_equal_by_chance_at_the_optimum_are_not_tied() -> None:
    def number(x: Any, y: Any) -> Any:
        n, m = x.shape[0], y.shape[0]
        return n if n == m else n + 0

    assert recorded(number, Range(1, 8, 500)).launch.arguments[2].expr == symbol(0, 0)
