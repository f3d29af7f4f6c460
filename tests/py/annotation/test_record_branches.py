# SPDX-License-Identifier: BSD-3-Clause

"""The branches of a recorded function, and the shapes that an op does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from traceback import FrameSummary
from typing import Any

import pytest
import sympy
import torch
from kernels import add_kernel, info
from torch.utils._sympy.functions import FloorDiv

from torch_tensorrt.annotation._record import branches, infer_outputs, record
from torch_tensorrt.annotation._record.program import Launch, Output, Program, Scalar
from torch_tensorrt.annotation._record.replay import PlainInputs
from torch_tensorrt.annotation._record.tracing import Guard
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DynamicControlFlowError,
    TargetError,
    UserCodeError,
)

X = info(Range(1, 8, 64), 4096)


def recorded(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Callable[..., Any] = lambda x, *rest: torch.empty_like(x),
) -> Launch:
    """The launch, replayed at eight shapes: what exploration finds stands."""
    few = PlainInputs(inputs, 8)
    return record(backend("triton"), launch_fn, meta, inputs, plain=few).launch


def launch(x: Any, y: Any, out: Any, n: Any) -> None:
    add_kernel[(1,)](x, y, n, out, BLOCK=256)


def test_a_guard_knows_what_it_asks() -> None:
    n, m = symbol(0, 0), symbol(1, 0)
    where = FrameSummary("model.py", 7, "launch")
    guards = [
        Guard(condition, str(where), False)
        for condition in (sympy.Eq(n, m), sympy.Eq(n, 16), n < m, sympy.Eq(n, m + 1))
    ]
    assert [guard.is_equality for guard in guards] == [True, False, False, False]
    assert [guard.constants for guard in guards] == [set(), {16}, set(), {1}]
    assert [guard.holds({n: 16, m: 16}) for guard in guards] == [1, 1, 0, 0]
    assert [guard.negated().holds({n: 16, m: 16}) for guard in guards] == [0, 0, 1, 1]


def test_a_guard_that_divides_by_zero_does_not_hold() -> None:
    n, m = symbol(0, 0), symbol(1, 0)
    guard = Guard(sympy.Eq(FloorDiv(n, m), 2), "", False)
    assert guard.holds({n: 8, m: 4})
    assert not guard.holds({n: 8, m: 0})


def test_what_the_fake_kernel_rejects_is_no_branch() -> None:
    def meta(x: Any, y: Any) -> Any:
        assert x.shape[0] % 8 == 0
        assert x.shape[0] <= 4000
        return torch.empty_like(x)

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = 3 if x.shape[0] % 8 == 0 else 4
        launch(x, y, out, n if x.shape[0] <= 4040 else 5)

    def branching(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 3 if x.shape[0] <= 3960 else 4)

    inputs = info(Range(1, 16, 5000), 8), info(8)
    found = recorded(launch_fn, *inputs, meta=meta)
    assert found.arguments[2] == Scalar("n", sympy.Integer(3))
    with pytest.raises(DynamicControlFlowError, match="d0_0 <= 3960"):
        recorded(branching, *inputs, meta=meta)


def test_a_shape_that_is_rejected_but_for_one_is_a_branch() -> None:
    def meta(x: Any, y: Any) -> Any:
        if x.shape[0] != y.shape[0] and y.shape[0] != 640:
            raise ValueError("as many rows, or 640")
        return x.new_empty(8)

    def same(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 3)

    def differs(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 3 if x.shape[0] == y.shape[0] else 4)

    inputs = info(Range(2, 16, 5000), 8), info(Range(2, 16, 5000), 8)
    assert recorded(same, *inputs, meta=meta).arguments[2].expr == 3
    with pytest.raises(DynamicControlFlowError, match="d0_0"):
        recorded(differs, *inputs, meta=meta)


def test_what_is_rejected_in_one_branch_may_exist_in_another() -> None:
    def meta(x: Any) -> Any:
        if x.shape[0] > 100 and x.shape[1] % 8 != 0:
            raise ValueError("long rows are aligned")
        return torch.empty_like(x)

    def same(x: Any, out: Any) -> None:
        launch(x, x, out, 3 + 0 * bool(x.shape[1] % 8 == 0))

    def differs(x: Any, out: Any) -> None:
        launch(x, x, out, 3 if x.shape[1] % 8 == 0 else 4)

    inputs = info(Range(2, 200, 5000), Range(8, 80, 4000))
    assert recorded(same, inputs, meta=meta).arguments[2].expr == 3
    with pytest.raises(DynamicControlFlowError, match=r"d0_1 % 8"):
        recorded(differs, inputs, meta=meta)


def test_a_branch_where_one_size_follows_from_another_is_found() -> None:
    def same(x: Any, out: Any) -> None:
        launch(x, x, out, 3 + 0 * bool(x.shape[0] == 3 * x.shape[1] + 7))

    inputs = info(Range(2, 200, 50_000), Range(8, 80, 4000))
    assert recorded(same, inputs).arguments[2].expr == 3


@pytest.mark.parametrize(
    "launched",
    [
        lambda x, out, first: add_kernel[(2 - first,)](x, x, 5, out, BLOCK=64),
        lambda x, out, first: add_kernel[(1,)](x, x, 5, out, BLOCK=64 << first),
        lambda x, out, first: add_kernel[(1,)](x, x, 5, out, 64, num_warps=1 << first),
        lambda x, out, first: add_kernel[(1,)](x, x, 5 + first, out, BLOCK=64),
        lambda x, out, first: add_kernel[(1,)](x if first else out, x, 5, out, 64),
        lambda x, out, first: add_kernel[(1,)](x, None if first else x, 5, out, 64),
    ],
    ids=["grid", "constant", "option", "number", "tensor", "none"],
)
def test_a_branch_may_differ_in_nothing(launched: Any) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        launched(x, out, bool(x.shape[0] <= 4000))

    with pytest.raises(DynamicControlFlowError, match="d0_0 <= 4000"):
        recorded(launch_fn, info(Range(1, 16, 5000), 8))


def test_programs_that_do_the_same_are_equal_whatever_there_was_to_choose() -> None:
    outputs = (Output((symbol(0, 0),), torch.int8),)
    choices = ((("BLOCK", 64),), (("BLOCK", 128),))
    launch = Launch(None, "kernel", None, (), ())
    tuned = replace(launch, choices=choices)
    assert Program((), outputs, (launch,)) == Program((), outputs, (tuned,))
    assert Program((), outputs) != Program((), outputs, formats=("HWC8",))


def sized(size: Callable[..., Any], *ranges: Range) -> Any:
    """The extent of an output that a fake kernel computes from its inputs' extents.

    Only eight shapes are replayed, so what exploration finds stands.
    """

    def meta(*inputs: Any) -> Any:
        return inputs[0].new_empty(size(*(x.shape[0] for x in inputs)))

    inputs = [info(extent, 8) for extent in ranges]
    return infer_outputs(meta, inputs, "the fake kernel")[0].shape[0]


def test_a_question_of_two_sizes_is_explored_until_no_answer_is_left() -> None:
    extents = Range(5, 6, 9), Range(5, 6, 9)
    assert sized(lambda n, m: 3 + 0 * int((n + m) // 4), *extents) == 3
    for answer in (2, 3, 4):  # of 10..18 // 4
        with pytest.raises(DynamicControlFlowError):
            sized(lambda n, m, a=answer: 3 + (int((n + m) // 4) == a), *extents)


def test_a_condition_that_no_size_of_the_profile_meets_is_no_branch() -> None:
    """It is met by 0 and by 21."""
    never = lambda n: 4 if n % 7 + n % 3 == 0 else 3  # noqa: E731
    assert sized(never, Range(1, 8, 20)) == 3
    for extent in (Range(0, 8, 20), Range(1, 8, 21)):
        with pytest.raises(DynamicControlFlowError):
            sized(never, extent)


def test_a_branch_that_an_earlier_one_makes_impossible_is_none() -> None:
    def size(n: Any, m: Any) -> int:
        if n * m % 16 == 0:
            return 3
        return 4 if n == 16 else 2 + 1

    assert sized(size, Range(1, 9, 500), Range(1, 9, 500)) == 3


def test_a_branch_behind_the_last_answer_to_a_question_is_found() -> None:
    def size(n: Any, m: Any) -> int:
        answer = (n + m) // 4  # 2 or 3
        if answer == 2:
            return 3
        return 4 if answer == 3 and n == 7 else 3

    with pytest.raises(DynamicControlFlowError):
        sized(size, Range(5, 5, 9), Range(3, 3, 6))


def test_what_only_a_search_of_two_sizes_shows_to_be_impossible_is_no_branch() -> None:
    def size(n: Any, m: Any) -> int:
        return 4 if n * m % 11 == 7 and (n + m) % 5 == 1 else 3

    assert sized(size, Range(1, 1, 2), Range(1, 2, 3)) == 3
    with pytest.raises(DynamicControlFlowError):
        sized(size, Range(1, 1, 9), Range(1, 2, 9))


def test_sizes_that_are_tried_are_the_ends_small_ones_and_those_named() -> None:
    tried = branches._samples(Range(1, 500, 1000), {40})
    assert tried == [1, 2, 3, 39, 40, 41, 499, 500, 501, 999, 1000]
    assert branches._samples(Range(7, 9, 70), {400}) == list(range(7, 71))
    assert branches._samples(Range(7, 9, 71), set()) == [7, 8, 9, 10, 70, 71]


@pytest.mark.parametrize("most", [140, 163])
def test_a_size_that_no_condition_names_is_found_in_a_small_range(most: int) -> None:
    """It is 116. Of a range of 64 sizes all are tried."""

    def same(n: Any) -> int:
        return 3 if n % 37 == 5 else 2 + 1

    assert sized(same, Range(100, 120, most)) == 3


def test_all_sizes_of_a_large_range_can_show_that_a_condition_never_holds() -> None:
    def size(n: Any) -> int:
        return 4 if n * n % 4 == 3 else 3

    assert sized(size, Range(1, 8, 20_000)) == 3
    with pytest.raises(DynamicControlFlowError):
        sized(size, Range(1, 8, 20_001))


def test_what_is_tried_for_a_rejected_size_is_the_next_one() -> None:
    seen: list[int] = []

    def meta(x: Any) -> Any:
        seen.append(int(x.shape[0]))
        if len(seen) < 3:
            raise ValueError("another size, please")
        return torch.empty_like(x)

    infer_outputs(meta, [info(Range(8, 8, 64))], "the fake kernel", sizes_matter=False)
    assert seen == [8, 9, 8]


@pytest.mark.parametrize("only", [1, 2, 8, 19, 20])
def test_a_branch_of_one_size_is_found(only: int) -> None:
    with pytest.raises(DynamicControlFlowError):
        sized(lambda n: 4 if n == only else 3, Range(1, 8, 20))
    with pytest.raises(DynamicControlFlowError):
        sized(lambda n: 4 if n * n == only * only else 3, Range(1, 8, 20))


def test_no_more_branches_are_explored_than_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def same(n: Any) -> Any:
        return 3 + 0 * int(n)

    monkeypatch.setattr(branches, "_MOST_RUNS", 9)
    assert sized(same, Range(1, 8, 10)) == 3
    with pytest.raises(DynamicControlFlowError, match="`d0_0 == "):
        sized(same, Range(1, 8, 11))


def test_sizes_that_torch_insists_on_are_taken_for_equal() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, torch.cat([x, y], dim=1).shape[0])

    inputs = info(Range(1, 16, 5000), 8), info(Range(1, 16, 5000), 8)
    few = PlainInputs(inputs, 8)
    found = record(
        backend("triton"),
        launch_fn,
        lambda x, y: torch.empty_like(x),
        inputs,
        plain=few,
    )
    assert found.launch.arguments[2].expr in (symbol(0, 0), symbol(1, 0))


def test_what_torch_asks_again_in_other_words_is_no_branch() -> None:
    def meta(x: Any) -> Any:
        assert x.shape[0] % 4 == 0
        return torch.empty_like(x)

    def launch_fn(x: Any, out: Any) -> None:
        rows, columns = x.shape
        launch(x.view(rows // 4, 4 * columns), x, out, rows)

    inputs = info(Range(4, 16, 5000), Range(1, 8, 4000))
    found = recorded(launch_fn, inputs, meta=meta)
    assert found.arguments[2] == Scalar("n", symbol(0, 0))


def test_another_branch_may_not_fail() -> None:
    def launches_less(x: Any, y: Any, out: Any) -> None:
        if x.shape[0] <= 4000:
            launch(x, y, out, 5)

    def raises(x: Any, y: Any, out: Any) -> None:
        if x.shape[0] > 4000:
            raise ValueError("too long")
        launch(x, y, out, 5)

    line = launches_less.__code__.co_firstlineno + 1
    inputs = info(Range(1, 16, 5000), 8)
    with pytest.raises(DynamicControlFlowError, match=f"<= 4000` at .*py:{line} "):
        recorded(launches_less, inputs, info(8))
    with pytest.raises(DynamicControlFlowError, match="d0_0"):
        recorded(raises, inputs, info(8))


def test_where_only_ranks_are_wanted_the_fake_kernel_runs_at_sizes_that_it_takes() -> (
    None
):
    def meta(x: Any) -> Any:
        if x.shape[0] % 3 != 0:
            raise ValueError("a multiple of 3, please")
        if x.shape[0] > 64:
            raise ValueError("at most 64, please")
        return x.new_empty(x.shape[0], 2, dtype=torch.int8)

    (output,) = infer_outputs(
        meta, [info(Range(1, 500, 1000), 4)], "the fake kernel", sizes_matter=False
    )
    assert (len(output.shape), output.dtype) == (2, torch.int8)


def test_a_fake_kernel_that_takes_no_size_is_refused() -> None:
    calls: list[None] = []

    def never(x: Any) -> Any:
        calls.append(None)
        raise ValueError("never")

    def even_less(x: Any) -> Any:
        raise ValueError("even" if x.shape[0] % 2 == 0 else "odd")

    for meta in (never, even_less):
        with pytest.raises(UserCodeError, match="the fake kernel raised ValueError"):
            infer_outputs(meta, [X], "the fake kernel", sizes_matter=False)
    assert len(calls) == 2
    with pytest.raises(ArgumentError, match="the fake kernel returned int"):
        infer_outputs(lambda x: 5, [X], "the fake kernel", sizes_matter=False)


def test_a_question_that_is_refused_is_not_a_shape_that_the_op_lacks() -> None:
    def meta(x: Any) -> Any:
        if x.shape[0] > 32:
            torch.cuda.mem_get_info()
        return torch.empty_like(x)

    def launch_fn(x: Any, out: Any) -> None:
        launch(x, x, out, x.shape[0])

    with pytest.raises(DynamicControlFlowError, match=r"branches on `d0_0"):
        recorded(launch_fn, X, meta=meta)
    with pytest.raises(TargetError, match=r"asks for `torch\.cuda\.mem_get"):
        infer_outputs(lambda x: torch.cuda.mem_get_info(), [X], "the fake kernel")
