# SPDX-License-Identifier: BSD-3-Clause

"""Compile-time constants that follow a dynamic size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import add_kernel, info

from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._record.program import Constant, Launch, Scalar
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import ArgumentError


@triton.jit
def ignoring(x, M: tl.constexpr):
    return x * 2


@triton.jit
def reading(x, M: tl.constexpr):
    return x * M


@triton.jit
def recursive(x, M: tl.constexpr):
    return recursive(x, M)


@triton.jit
def copy_kernel(
    x_ptr,
    out_ptr,
    n,
    key: tl.constexpr,
    passed_on: tl.constexpr,
    by_name: tl.constexpr,
    read: tl.constexpr,
    read_there: tl.constexpr,
    asserted: tl.constexpr,
    called: tl.constexpr,
    in_recursion: tl.constexpr,
    in_list: tl.constexpr,
    BLOCK: tl.constexpr = 128,
):
    tl.static_assert(asserted >= 0)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    x = ignoring(x, passed_on)
    x = ignoring(x, M=by_name)
    if read > 5:
        x = reading(x, read_there) + called(x, in_list)
        x = recursive(x, in_recursion) + ignoring(*(x, in_list))
    tl.store(out_ptr + offsets, x, mask=offsets < n)


UNREAD = {"key", "passed_on", "by_name"}
NAMES = [p.name for p in copy_kernel.params if p.is_constexpr and p.name != "BLOCK"]


def recorded(
    number: Callable[[Any], Any], rows: Range, name: str = "read", kernel: Any = None
) -> Launch:
    """The launch that passes ``number(rows)`` as the constant ``name``."""

    def launch(x: Any, out: Any) -> None:
        constants = {**dict.fromkeys(NAMES, 1), name: number(x.shape[0])}
        copy_kernel[(1,)](x, out, 8, **constants)

    def meta(x: Any) -> Any:
        return torch.empty_like(x)

    return record(backend("triton"), launch, meta, [info(rows, 48)]).launch


@pytest.mark.parametrize("name", sorted(UNREAD))
@pytest.mark.parametrize(
    "number",
    [
        lambda n: n,
        lambda n: n / 2,
        lambda n: n > 8,
        lambda n: math.ceil(math.log2(n)),
    ],
)
def test_a_constant_that_the_body_never_reads_is_dropped(
    name: str, number: Callable[[Any], Any]
) -> None:
    result = recorded(number, Range(1, 8, 64_000), name)
    assert Constant(name, None) in result.arguments


@pytest.mark.parametrize("name", sorted({*NAMES} - UNREAD))
def test_a_constant_that_the_body_reads_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"`{name}`: a compile-time constant"):
        recorded(lambda n: n, Range(1, 8, 64_000), name)


def test_a_function_that_is_replaced_may_read_what_the_first_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded(lambda n: n, Range(1, 8, 64_000), "passed_on")
    monkeypatch.setitem(globals(), "ignoring", reading)
    with pytest.raises(ArgumentError, match="`passed_on`: a compile-time constant"):
        recorded(lambda n: n, Range(1, 8, 64_000), "passed_on")


def test_a_dropped_constant_still_counts_in_the_grid() -> None:
    def launch(x: Any, out: Any) -> None:
        constants = {**dict.fromkeys(NAMES, 1), "key": x.shape[0]}
        copy_kernel[lambda meta: (meta["key"],)](x, out, 8, **constants)

    def meta(x: Any) -> Any:
        return torch.empty_like(x)

    inputs = [info(Range(1, 8, 64), 48)]
    assert record(backend("triton"), launch, meta, inputs).launch.grid == (
        symbol(0, 0),
        1,
        1,
    )


@pytest.mark.parametrize(
    ("number", "rows", "value"),
    [
        (triton.next_power_of_2, Range(33, 40, 64), 64),
        (lambda n: math.ceil(math.log2(n)), Range(33, 40, 64), 6),
        (lambda n: triton.cdiv(n, 64) * 64, Range(1, 8, 64), 64),
        (lambda n: min(n, 16), Range(16, 40, 64_000_000), 16),
        (lambda n: triton.next_power_of_2(n) > 32, Range(33, 40, 64), True),
    ],
)
def test_a_constant_with_one_value_over_the_profile_is_it(
    number: Callable[[Any], Any], rows: Range, value: Any
) -> None:
    assert Constant("read", value) in recorded(number, rows).arguments


def test_the_refusal_names_the_values_and_the_bounds_that_make_it_one() -> None:
    with pytest.raises(
        ArgumentError,
        match=r"13 values within the profile \(1 <= d0_0 <= 4096\): 1, 2, 4, 8, 16, "
        r"32, \.\.\.\. It is 64 for 33 <= d0_0 <= 64\. Narrow",
    ):
        recorded(triton.next_power_of_2, Range(1, 40, 4096))
    with pytest.raises(
        ArgumentError,
        match=r"3 values or more within .*: 64, 128, 1000000. It is 128 for 65 <= "
        r"d0_0 <= 128\.",
    ):
        recorded(lambda n: triton.cdiv(n, 64) * 64, Range(1, 100, 1_000_000))


def launched(block: Callable[[Any], Any], rows: Range, **options: Any) -> Launch:
    """The launch with a block, and options, that follow the number of elements."""

    def launch(x: Any, out: Any) -> None:
        n = x.numel()
        chosen = {name: option(n) for name, option in options.items()}
        grid = (triton.cdiv(n, block(n)),)
        add_kernel[grid](x, x, n, out, BLOCK=block(n), **chosen)

    def meta(x: Any) -> Any:
        return torch.empty_like(x)

    return record(backend("triton"), launch, meta, [info(rows, 48)]).launch


@pytest.mark.parametrize("most", [64, 64_000_000])
def test_a_block_with_one_value_over_the_profile_is_it_in_the_grid(most: int) -> None:
    result = launched(lambda n: min(256, triton.next_power_of_2(n)), Range(6, 40, most))
    assert Constant("BLOCK", 256) in result.arguments
    assert result.grid is not None
    assert str(result.grid[0]) == "((48*d0_0 + 255)//256)"


def test_an_option_with_one_value_over_the_profile_is_it() -> None:
    warps = launched(
        lambda n: 256, Range(8, 40, 64), num_warps=lambda n: max(1, min(8, n // 48))
    )
    assert warps.options == (("num_warps", 8),)


def test_an_option_with_several_values_is_refused() -> None:
    with pytest.raises(
        ArgumentError,
        match=r"option `num_warps`: .* It is 8 for 8 <= d0_0 <= 64\. Narrow",
    ):
        launched(
            lambda n: 256, Range(1, 40, 64), num_warps=lambda n: max(1, min(8, n // 48))
        )


def test_a_run_time_number_is_none_of_this() -> None:
    def launch(x: Any, out: Any) -> None:
        add_kernel[(1,)](x, x, x.shape[0], out, BLOCK=16)

    def meta(x: Any) -> Any:
        return torch.empty_like(x)

    inputs = [info(Range(1, 8, 64), 48)]
    result = record(backend("triton"), launch, meta, inputs).launch
    assert result.arguments[2] == Scalar("n", symbol(0, 0))


# --- Constants that are arguments in an engine ----------------------------------------


@triton.jit
def sum_rows(x_ptr, out_ptr, n: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    if pid >= n:
        return
    offsets = pid * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(0, n):
        total += tl.load(x_ptr + row * k + offsets, (offsets < k) & (row < n), 0.0)
    tl.store(out_ptr + offsets, total, offsets < k)


@triton.jit
def branching(x_ptr, out_ptr, n: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets)
    if n > BLOCK:
        x = x + 1
    tl.store(out_ptr + offsets, x, offsets < n)


@triton.jit
def folding(x_ptr, out_ptr, n: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets), offsets < n * k)


@triton.jit
def averaging(x_ptr, out_ptr, n: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets) * n)


@triton.jit
def narrowing(x_ptr, out_ptr, n: tl.constexpr, k: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets)
    tl.store(out_ptr + offsets, (x.to(tl.int16) * n).to(tl.float32))


def compiled(kernel: Any, rows: int | Range, axis: int = 1) -> Any:
    def launch(x: Any, out: Any) -> None:
        kernel[(1,)](x, out, x.shape[0], x.shape[axis], BLOCK=64)

    def meta(x: Any) -> Any:
        return x.new_empty(48)

    inputs = [info(rows, 48, dtype=torch.float32)]
    program = record(backend("triton"), launch, meta, inputs)
    return backend("triton").compile(program, Target("sm_90"), {}, True)


def test_a_constant_that_bounds_a_loop_and_masks_is_an_argument() -> None:
    result = compiled(sum_rows, Range(1, 40, 64_000))
    assert (result.extras, result.names) == ((symbol(0, 0),), ("n",))


def test_two_constants_may_be_the_same_size() -> None:
    assert compiled(sum_rows, Range(1, 40, 64_000), axis=0).names == ("n", "k")


def test_a_constant_that_bounds_a_loop_stays_one_in_a_static_shape() -> None:
    assert compiled(sum_rows, 40).extras == ()


@pytest.mark.parametrize("kernel", [branching, folding, averaging, narrowing])
def test_a_constant_that_decides_an_operation_is_refused(kernel: Any) -> None:
    refused = r"`n`: a compile-time constant .* kernel for each value"
    with pytest.raises(ArgumentError, match=refused):
        compiled(kernel, Range(1, 40, 4096))
