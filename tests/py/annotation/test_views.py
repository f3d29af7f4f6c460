# SPDX-License-Identifier: BSD-3-Clause

"""Views that start inside a tensor: the tensor's address and an offset.

``features.py`` has some for every language. Here they are looked at more closely: what
is recorded, what the compiler is told, what the entry does, and what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from compiled_elsewhere import as_inputs
from kernels import info
from torch.utils._sympy.functions import Min

import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpretation
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.effects import LOADED, STORED, effects
from torch_tensorrt.annotation._code.ptx import Kind, Slot
from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.program import Pointer, Program
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import Parameters, backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DynamicControlFlowError,
    RecordError,
)

ROWS = Range(1, 5, 16)
OP = "views::op"


@triton.jit
def difference_kernel(
    a_ptr, b_ptr, out_ptr, n, columns, a_stride, b_stride, BLOCK: tl.constexpr
):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = offsets // columns, offsets % columns
    a = tl.load(a_ptr + row * a_stride + column, mask=offsets < n)
    b = tl.load(b_ptr + row * b_stride + column, mask=offsets < n)
    tl.store(out_ptr + offsets, a - b, mask=offsets < n)


def difference(a: Any, b: Any, out: Any, BLOCK: int = 128) -> None:
    """Of two views, whose rows have the extents of ``out``'s."""
    n, columns = out.numel(), out.shape[-1]
    rest = n, columns, a.stride(-2), b.stride(-2)
    difference_kernel[(triton.cdiv(n, BLOCK),)](a, b, out, *rest, BLOCK=BLOCK)


def halves(x: Any, out: Any) -> None:
    difference(*x.chunk(2, -1), out)


def half(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[1] // 2)


def program(
    launch_fn: Callable[..., Any], *inputs: TensorInfo, meta: Any = half, **call: Any
) -> Program:
    return record(backend("triton"), launch_fn, meta, inputs, Call(**call))


def pointers(found: Program) -> list[tuple[int, Any]]:
    """The tensor and offset of each pointer."""
    arguments = found.launch.arguments
    return [(a.tensor, a.offset) for a in arguments if isinstance(a, Pointer)]


# --- recorded -------------------------------------------------------------------------


def test_a_view_is_its_tensor_and_an_offset_in_elements() -> None:
    found = program(halves, info(ROWS, 50))
    assert pointers(found) == [(0, 0), (0, 25), (1, 0)]


D, N = symbol(0, 0), symbol(0, 1)


@pytest.mark.parametrize(
    ("views", "offsets"),
    [
        (lambda x: x.split([20, 30], -1), (0, 20)),
        (lambda x: (x[:, 10:20], x[:, -7:]), (10, 43)),
        (lambda x: (x.narrow(1, 3, 8), x.narrow(0, 0, 1)), (3, 0)),
        (lambda x: x.view(-1, 2, 25).unbind(1), (0, 25)),
        (lambda x: (x[..., None, 7:], x.select(1, 4)[:, None]), (7, 4)),
        (lambda x: (x[x.shape[0] - 1 :], x.t()[1:]), (50 * D - 50, 1)),
        (lambda x: (x.view(torch.int16)[:, 6:], x[:, 2:].view(torch.int32)), (6, 1)),
    ],
    ids=["split", "slice", "narrow", "unbind", "index", "dynamic", "dtype"],
)
def test_every_way_to_write_a_view_is_recorded(
    views: Any, offsets: tuple[Any, Any]
) -> None:
    found = program(lambda x, out: difference(*views(x), out), info(ROWS, 50))
    assert [offset for _, offset in pointers(found)][:2] == list(offsets)


def test_an_offset_follows_the_sizes() -> None:
    found = program(
        lambda x, out: difference(x[0], x[1], out),
        info(2, ROWS, Range(1, 30, 99)),
        meta=lambda x: x.new_empty(x.shape[1:]),
    )
    assert pointers(found)[1] == (0, symbol(0, 1) * symbol(0, 2))


def test_views_of_an_output_are_recorded() -> None:
    def launch(x: Any, out: Any) -> None:
        difference(x, x, out[1])

    found = program(launch, info(ROWS, 8), meta=lambda x: x.new_empty(2, *x.shape))
    assert pointers(found)[2] == (1, 8 * D)


@pytest.mark.parametrize(
    "start",
    [lambda n: 5, lambda n: 1 - n, lambda n: 8 - n],
    ids=["clamped", "zero or from the end", "from either end"],
)
def test_a_slice_starts_where_its_bound_says_at_every_size(
    start: Callable[[Any], Any],
) -> None:
    view: Callable[[Any], Any] = lambda x: x[start(x.shape[0]) :]  # noqa: E731
    launch: Callable[..., None] = lambda x, out: difference(view(x), x, out)  # noqa: E731
    found = pointers(program(launch, info(ROWS, 2), meta=torch.empty_like))[0][1]
    for rows in (1, 2, 5, 7, 8, 9, 16):
        assert found.subs(D, rows) == view(torch.empty(rows, 2)).storage_offset()


def test_a_slice_past_the_end_is_clamped_and_narrow_is_refused() -> None:
    columns = Range(4, 30, 99)
    view: Callable[[Any], Any] = lambda x: x[:, 5:]  # noqa: E731
    found = program(lambda x, out: difference(view(x), x, out), info(ROWS, columns))
    assert pointers(found)[0] == (0, Min(5, N))
    view = lambda x: x.narrow(1, 5, 1)  # noqa: E731
    with pytest.raises(DynamicControlFlowError, match="branches on `5 <= d0_1`"):
        program(lambda x, out: difference(view(x), x, out), info(ROWS, columns))


def test_an_offset_that_only_tracing_sees_is_found_by_the_replay() -> None:
    def launch(x: Any, out: Any) -> None:
        start = 1 if isinstance(x.shape[0], int) else 2
        difference(x[:, start:], x, out)

    with pytest.raises(RecordError, match=r"argument `a_ptr`, offset .* is 1, and was"):
        program(launch, info(ROWS, 50))


# --- told to the compiler -------------------------------------------------------------


def parameters(pointer: Pointer, aligned: bool = True) -> Parameters:
    whole = program(halves, info(ROWS, 50))
    result = Parameters(whole, aligned)
    result.add_pointer(pointer)
    return result


@pytest.mark.parametrize(
    ("offset", "dtype", "alignment"),
    [
        (0, torch.float16, 16),
        (8, torch.float16, 16),
        (12, torch.float16, 8),
        (25, torch.float16, 2),
        (25, torch.int8, 1),
        (4, torch.float32, 16),
        (6, torch.float32, 8),
        (8 * D, torch.float16, 16),
        (6 * D, torch.float16, 4),
        (8 * D + 2, torch.float16, 4),
    ],
    ids=str,
)
def test_the_alignment_follows_from_the_offset(
    offset: Any, dtype: torch.dtype, alignment: int
) -> None:
    pointer = Pointer("x", 0, dtype, offset=0 * D + offset)
    assert parameters(pointer).alignment_of(pointer) == alignment
    assert parameters(pointer, aligned=False).alignment_of(pointer) == 1


def test_a_constant_offset_is_in_the_slot_and_another_an_extra() -> None:
    constant = parameters(Pointer("x", 0, torch.float16, offset=0 * D + 25))
    assert (constant.slots, constant.extras) == ([Slot(Kind.INPUT, 0, 50)], [])
    follows = parameters(Pointer("x", 0, torch.float16, offset=3 * D))
    follows.add_pointer(Pointer("y", 1, torch.int8, offset=3 * D))
    assert follows.extras == [3 * D]
    assert follows.slots == [Slot(Kind.INPUT, 0, 2, 0), Slot(Kind.OUTPUT, 0, 1, 0)]


def test_an_offset_that_passes_32_bits_is_refused() -> None:
    pointer = Pointer("x", 0, torch.int8, offset=D * 2**28)
    with pytest.raises(ArgumentError, match=r"`x`: 268435456\*d0_0 reaches 4294967296"):
        parameters(pointer)
    far = Pointer("x", 0, torch.float16, offset=0 * D + 2**33)
    assert parameters(far).slots == [Slot(Kind.INPUT, 0, 2**34)]


# --- compiled, and run ----------------------------------------------------------------


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes, and however busy the machine is."""
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 60.0)


def run(
    launch: Callable[..., Any], reference: Any, meta: Any, *inputs: TensorInfo
) -> Any:
    """The tactic's report: executed on a GPU, interpreted without one."""
    impl = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op(OP, impl=impl, supports_dynamic_shapes=True)
    target = None if torch.cuda.is_available() else "sm_90"
    report = tta.dry_run(OP, as_inputs(inputs), target, reference=reference)
    (tactic,) = report.tactics
    assert [
        shape.failure or shape.skipped for shape in tactic.shapes if not shape.ok
    ] == []
    assert tactic.shapes and report.ok
    return tactic


def registered_types(tactic: Any) -> list[str]:
    header = tactic.code[tactic.code.index(".entry") :].partition(")")[0]
    return re.findall(r"\.param \.(\w+)", header)


def test_two_views_of_an_input_are_one_parameter_and_two_addresses() -> None:
    tactic = run(halves, lambda x: x[:, :25] - x[:, 25:], half, info(ROWS, 50))
    assert registered_types(tactic) == ["u64", "u32", "u32", "u32", "u32", "u64"]
    assert len(re.findall(r"add\.s64 (%\w+), \1, 50;", tactic.code)) == 1
    assert "a_ptr%16" in tactic.facts and "b_ptr%16" not in tactic.facts
    assert list(effects(tactic.code).values()) == [LOADED, STORED]


def test_an_aligned_view_is_told_to_be_aligned() -> None:
    tactic = run(halves, lambda x: x[:, :24] - x[:, 24:], half, info(ROWS, 48))
    assert "a_ptr%16 b_ptr%16" in tactic.facts


def test_packed_queries_keys_and_values_are_three_addresses() -> None:
    def launch(qkv: Any, out: Any) -> None:
        assert qkv[:, :, 1].storage_offset() == 4 * 8
        q, _, v = qkv.view(-1, 3, 4 * 8).unbind(1)
        difference(q, v, out)

    def expected(qkv: torch.Tensor) -> torch.Tensor:
        return (qkv[:, :, 0] - qkv[:, :, 2]).reshape(-1, 4 * 8)

    inputs = info(Range(1, 2, 4), Range(1, 3, 9), 3, 4, 8)
    run(launch, expected, lambda x: x.new_empty(x.shape[0] * x.shape[1], 32), inputs)


def test_an_offset_that_follows_the_shape_is_an_extra() -> None:
    """Half of the rows, of a size that is known when the engine runs."""

    def launch(x: Any, out: Any) -> None:
        middle = x.shape[0] // 2
        difference(x.narrow(0, middle, middle), x, out)

    def expected(x: torch.Tensor) -> torch.Tensor:
        middle = len(x) // 2
        return x[middle : 2 * middle] - x[:middle]

    tactic = run(
        launch,
        expected,
        lambda x: x.new_empty(x.shape[0] // 2, x.shape[1]),
        info(Range(2, 9, 16), 30),
    )
    assert "mad.wide.s32" in tactic.code
    assert {s.name: s.extras[0] for s in tactic.shapes}["opt"] == 9 // 2 * 30


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_rest_of_an_output_stays_unwritten() -> None:
    def launch(x: Any, out: Any) -> None:
        difference(x[:, :30], x[:, 30:], out[1])
        assert out[0].storage_offset() == 0

    with pytest.raises(AssertionError, match="never written"):
        run(
            launch,
            None,
            lambda x: x.new_empty(2, x.shape[0], 30),
            info(ROWS, 60),
        )


@triton.jit
def split_kernel(x_ptr, low_ptr, high_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(low_ptr + offsets, x & 0xF, mask=offsets < n)
    tl.store(high_ptr + offsets, x >> 4, mask=offsets < n)


def test_views_of_other_dtypes_are_at_the_right_bytes() -> None:
    """Halves of the bytes of integers, in an output that holds one after the other."""

    def launch(x: Any, out: Any) -> None:
        low, high = out.chunk(2)
        x = x[3:].view(torch.int8)
        split_kernel[(triton.cdiv(x.numel(), 128),)](x, low, high, x.numel(), BLOCK=128)

    def expected(x: torch.Tensor) -> torch.Tensor:
        x = x[3:].view(torch.int8)
        return torch.cat([x & 0xF, x >> 4])

    tactic = run(
        launch,
        expected,
        lambda x: x.new_empty(8 * (x.numel() - 3), dtype=torch.int8),
        info(Range(30, 99, 400), dtype=torch.int32),
    )
    assert re.search(r"add\.s64 (%\w+), \1, 12;", tactic.code)
