# SPDX-License-Identifier: BSD-3-Clause

"""Recording a cuTile launch: every argument in its role, or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernels import info

from torch_tensorrt.annotation._record.program import Constant, Pointer, Scalar
from torch_tensorrt.annotation._tensors import symbol
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    LaunchCountError,
    UnsupportedKernelError,
)

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402
from cutile_tools import (  # noqa: E402
    DYNAMIC,
    NO_LAUNCH,
    assert_passes_tensorrts_arguments,
    compiled,
    copy_kernel,
    recorded,
)


def test_arrays_are_recorded_with_the_layout_of_the_view_that_was_passed() -> None:
    launch = recorded(kernels.launch_relu, info(DYNAMIC, 30)).launch
    d = symbol(0, 0)
    assert launch.arguments == (
        Pointer("out", 1, torch.float16, (30 * d,), (1,)),
        Pointer("x", 0, torch.float16, (30 * d,), (1,)),
        Constant("TILE", 256),
    )


def test_scalars_are_expressions_and_constants() -> None:
    program = recorded(kernels.launch_scale, info(DYNAMIC, 30, dtype=torch.float32))
    arguments = {a.name: a for a in program.launch.arguments}
    assert arguments["alpha"] == Constant("alpha", 0.3)
    assert arguments["negate"] == Constant("negate", True)
    assert arguments["n"] == Scalar("n", 30 * symbol(0, 0))


def test_the_items_of_a_tuple_are_arguments_of_their_own() -> None:
    def meta(a: Any, b: Any) -> Any:
        return a.new_empty(a.shape[0], b.shape[1])

    program = recorded(kernels.launch_matmul, info(8, 32), info(32, 64), meta=meta)
    named = {a.name: a for a in program.launch.arguments}
    assert [named[f"tiles[{i}]"] for i in range(3)] == [
        Constant("tiles[0]", 64),
        Constant("tiles[1]", 64),
        Constant("tiles[2]", 32),
    ]


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        (64, r"`tiles`: the kernel declares a tuple, got 64"),
        ((64, 64), r"`tiles`: a tuple of 2, and the kernel declares one of 3"),
    ],
)
def test_a_tuple_that_does_not_fit_its_annotation_is_refused(
    tiles: Any, message: str
) -> None:
    def launch_fn(a: Any, b: Any, c: Any) -> None:
        ct.launch(0, (1, 1), kernels.matmul_kernel, (a, b, c, tiles))

    with pytest.raises(ArgumentError, match=message):
        recorded(launch_fn, info(8, 32), info(32, 64), meta=lambda a, b: b.new_empty(8))


@ct.kernel
def counted_relu(
    out, x, count: ct.Constant[int], even: ct.Constant[bool], TILE: ct.Constant[int]
):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(out, index=(ct.bid(0),), tile=ct.maximum(tile, 0))


def test_a_constant_that_the_kernel_never_reads_may_follow_a_size() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        count = x.numel()
        args = out.view(-1), x.view(-1), count, count % 4 == 0, 64
        ct.launch(0, (ct.cdiv(count, 64),), counted_relu, args)

    arguments = recorded(launch_fn, info(DYNAMIC, 30)).launch.arguments
    unread, read = [Constant("count", 0), Constant("even", False)], Constant("TILE", 64)
    assert list(arguments[2:]) == [*unread, read]
    assert_passes_tensorrts_arguments(compiled(launch_fn, info(DYNAMIC, 30)), 1)


def test_launches_of_other_threads_are_made() -> None:
    """The real launch fails on an argument of the wrong kind: it was called."""
    failures: list[BaseException] = []

    def elsewhere() -> None:
        recording.wait()
        try:
            ct.launch(0, (1,), kernels.relu_kernel, (1,))
        except BaseException as error:
            failures.append(error)

    def launch_fn(x: Any, out: Any) -> None:
        recording.set()
        thread.join()
        kernels.launch_relu(x, out)

    recording, thread = threading.Event(), threading.Thread(target=elsewhere)
    thread.start()
    assert recorded(launch_fn, info(8, 30)).launch.name == "relu_kernel"
    assert failures
    assert all(isinstance(error, NO_LAUNCH) for error in failures)


def test_the_launch_is_itself_again_after_recording() -> None:
    before = ct.launch, kernels.ct_launch
    recorded(kernels.launch_relu, info(8, 30))
    with pytest.raises(LaunchCountError):
        recorded(lambda x, out: None, info(8, 30))
    assert (ct.launch, kernels.ct_launch) == before


def test_who_imports_the_launch_while_it_is_replaced_launches_later() -> None:
    kept: list[Any] = []

    def launch_fn(x: Any, out: Any) -> None:
        from cuda.tile import launch

        kept.append(launch)
        kernels.launch_relu(x, out)

    recorded(launch_fn, info(8, 30))
    with pytest.raises(NO_LAUNCH):
        kept[-1](0, (1,), kernels.relu_kernel, (1,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, out: (out, x), r"relu_kernel: it takes a tuple of 3 .* with 2"),
        (lambda x, out: [out, x, 64], r"relu_kernel: it takes a tuple of 3"),
        (lambda x, out: (out, x, x.numel()), "`TILE`: a compile-time constant that"),
    ],
)
def test_arguments_that_an_engine_cannot_pass_are_refused(
    arguments: Callable[..., Any], message: str
) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, arguments(x, out))

    with pytest.raises(ArgumentError, match=message):
        recorded(launch_fn, info(DYNAMIC, 30))


def test_a_grid_that_is_not_a_tuple_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, 4, kernels.relu_kernel, (out, x, 64))

    with pytest.raises(ArgumentError, match=r"the grid is 4; write it as a tuple"):
        recorded(launch_fn, info(8))


def test_a_dependent_launch_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(
            0,
            (1,),
            kernels.relu_kernel,
            (out, x, 64),
            programmatic_dependent_launch=True,
        )

    with pytest.raises(UnsupportedKernelError, match="programmatic dependent launch"):
        recorded(launch_fn, info(8))


def test_a_function_that_is_not_a_kernel_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.launch_relu, (out, x, 64))

    with pytest.raises(ArgumentError, match=r"not a kernel\. Decorate it: @ct.kernel"):
        recorded(launch_fn, info(8))


@pytest.mark.parametrize("value", [None, "text"], ids=str)
def test_a_value_that_cutile_does_not_take_is_refused(value: Any) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), copy_kernel, (x, out, value))

    with pytest.raises(ArgumentError, match=r"copy_kernel, argument `what`: cuTile"):
        compiled(launch_fn, info(8))
