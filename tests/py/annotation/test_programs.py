# SPDX-License-Identifier: BSD-3-Clause

"""Functions that launch several kernels, or compute with torch beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import triton
import triton.language as tl
from kernels import info

from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.operations import called
from torch_tensorrt.annotation._record.program import (
    Constant,
    Launch,
    Operation,
    Output,
    Program,
    View,
)
from torch_tensorrt.annotation._steps import have_same_steps, layout
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DataDependentError,
    FormatError,
    RecordError,
)

ROWS = Range(1, 64, 512)
aten = torch.ops.aten


@triton.jit
def add_kernel(x_ptr, y_ptr, n, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, offsets < n)
    y = tl.load(y_ptr + offsets, offsets < n)
    tl.store(out_ptr + offsets, x + y, offsets < n)


def add(x: Any, y: Any, out: Any, block: int = 256) -> None:
    n = out.numel()
    add_kernel[(triton.cdiv(n, block),)](x, y, n, out, BLOCK=block)


def of(
    function: Callable[..., Any],
    *inputs: Any,
    meta: Callable[..., Any] = lambda x, *_: torch.empty_like(x),
    names: tuple[str, ...] | None = ("x",),
    **call: Any,
) -> Program:
    infos = inputs or (info(ROWS, 8),)
    return record(backend("triton"), function, meta, infos, Call(names=names, **call))


def kinds(program: Program) -> list[str]:
    return [step.name for step in program.steps]


def test_launches_and_the_buffers_between_them_are_kept_in_order() -> None:
    def body(x: Any) -> Any:
        twice, out = torch.empty_like(x), torch.empty_like(x)
        add(x, x, twice)
        add(twice, x, out, 512)
        return out

    program = of(body)
    assert kinds(program) == ["add_kernel", "add_kernel"]
    assert [[p.tensor for p in s.pointers] for s in program.launches] == [
        [0, 0, 1],
        [1, 0, 2],
    ]
    assert program.returned == (View(2),)
    assert program.hidden == 2 * (Output((symbol(0, 0), 8), torch.float16),)
    assert not program.is_plugin


def test_a_function_that_is_handed_its_outputs_may_launch_twice() -> None:
    def launch(x: Any, out: Any) -> None:
        buffer = torch.empty_like(x)
        add(x, x, buffer)
        add(buffer, x, out)

    program = of(launch, names=None)
    assert [[p.tensor for p in s.pointers] for s in program.launches] == [
        [0, 0, 1],
        [1, 0, 2],
    ]
    assert program.returned == (View(2),)


def test_torch_operations_are_steps_with_their_arguments() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        return (out.t() * 2).sum(1, dtype=torch.float32)

    program = of(body, meta=lambda x: x.new_empty(8, dtype=torch.float32))
    launch, multiply, total = program.steps
    assert isinstance(launch, Launch)
    assert isinstance(multiply, Operation)
    assert isinstance(total, Operation)
    assert dict(multiply.arguments)["self"] == View(1, ((aten.t.default, ()),))
    assert dict(total.arguments)["dim"] == (sympy.Integer(1),)
    assert dict(total.arguments)["dtype"] == Constant("dtype", torch.float32)
    assert program.returned == (View(total.results[0]),)


def test_operations_that_nothing_needs_are_dropped() -> None:
    def body(x: Any) -> Any:
        torch.empty_like(x).zero_()
        (x + 1).relu_()
        out = torch.empty_like(x)
        add(x, x, out)
        out.sum()
        return out

    assert of(body).is_plugin


@pytest.mark.parametrize(
    ("view", "is_plugin"),
    [
        (lambda out: out.squeeze(0), True),
        (lambda out: out.view(-1, 8), True),
        (lambda out: out[0].view(-1), True),
        (lambda out: out[0, 1:], False),
    ],
)
def test_a_buffer_that_is_returned_with_other_extents_is_an_output(
    view: Callable[[Any], Any], is_plugin: bool
) -> None:
    def body(x: Any) -> Any:
        out = x.new_empty(1, *x.shape)
        add(x, x, out)
        return view(out)

    program = of(body, meta=lambda x: torch.empty_like(view(x.unsqueeze(0))))
    assert program.is_plugin == is_plugin


def test_a_returned_view_is_a_view_of_what_the_kernel_writes() -> None:
    def body(x: Any) -> Any:
        both = x.new_empty(2, x.shape[0], 8)
        add(x, x, both)
        return both[1].t()

    program = of(body, meta=lambda x: x.new_empty(8, x.shape[0]))
    ((select, arguments), (transpose, _)) = program.returned[0].path
    assert (select, transpose) == (aten.select.int, aten.t.default)
    assert dict(arguments) == {"dim": 0, "index": 1}


def test_an_input_that_is_returned_is_refused() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        return out, x

    with pytest.raises(ArgumentError, match="output 1 comes from an input"):
        of(body, meta=lambda x: (torch.empty_like(x), torch.empty_like(x)))


FILLS: dict[str, Callable[[Any], Any]] = {
    "zeros": lambda x: torch.zeros_like(x),
    "full": lambda x: torch.full(x.shape, 2.0, dtype=x.dtype, device=x.device),
    "zero_": lambda x: torch.empty_like(x).zero_(),
    "copy_": lambda x: torch.empty_like(x).copy_(x),
    "a view": lambda x: torch.empty_like(x).view(-1).fill_(1).view_as(x),
    "a list": lambda x: torch._foreach_add([x], 1)[0],
}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_what_torch_puts_into_a_buffer_first_is_read_and_written(
    fill: Callable[[Any], Any],
) -> None:
    def body(x: Any) -> Any:
        out = fill(x)
        add(x, out, out)
        return out

    program = of(body)
    assert kinds(program)[-1] == "add_kernel"
    (step,) = layout(program, 1, None)
    (out,) = {view.tensor for view in program.returned}
    assert (step.reads, step.outputs, step.aliased) == ((out,), (), (out,))
    assert step.part(program).aliased == (1,)


def test_a_buffer_that_only_one_launch_needs_stays_with_it() -> None:
    def body(x: Any) -> Any:
        scratch, between = torch.empty_like(x), torch.empty_like(x)
        out = torch.empty_like(x)
        add_kernel[(1,)](x, scratch, 8, between, BLOCK=16)
        add(between, x, out)
        return out

    first, second = layout(of(body), 1, None)
    assert (first.hidden, first.outputs, second.reads) == ((1,), (2,), (2,))
    part = second.part(of(body))
    assert part.inputs == (info(ROWS, 8), info(ROWS, 8))
    assert [p.tensor for p in part.launch.pointers] == [1, 0, 2]
    assert part.is_plugin


def test_weights_come_after_the_tensors_between_launches() -> None:
    def launch(x: Any, weight: Any, out: Any) -> None:
        buffer = torch.empty_like(x)
        add(x, weight, buffer)
        add(buffer, weight, out)

    inputs = info(ROWS, 8), info(4, 8)
    program = of(launch, *inputs, names=None, weights=1)
    _, step = layout(program, 1, None)
    part = step.part(program)
    assert part.inputs == (inputs[0], inputs[0], inputs[1])
    assert [p.tensor for p in part.launch.pointers] == [1, 2, 3]


def test_an_input_that_the_op_writes_is_read_as_it_is_now() -> None:
    def body(x: Any) -> None:
        add(x, x, x)
        add(x, x, x)

    program = of(body, meta=lambda x: None, writable=frozenset({0}))
    assert program.writable == (0,)
    first, second = layout(program, 1, None)
    assert first.reads == first.aliased == (0,)
    assert second.reads == second.aliased == (0,)
    assert [p.tensor for p in first.part(program).launch.pointers] == [1, 1, 1]


def test_what_a_kernel_only_loads_is_no_alias() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, torch.ones_like(x), out)
        return out

    program = of(body)
    (guessed,) = layout(program, 1, None)
    assert guessed.aliased == (1,)
    (step,) = layout(program, 1, {0: {2}})
    assert (step.reads, step.outputs, step.aliased) == ((1,), (2,), ())


def test_steps_are_the_same_whatever_the_kernels_blocks() -> None:
    def body(x: Any, block: int, extra: int = 0) -> Any:
        buffer, out = x.new_empty(x.shape[0] + extra, 8), torch.empty_like(x)
        add(x, x, buffer[: x.shape[0]], block)
        add(buffer, x, out, block)
        return out

    first, second, third = (
        of(body, keywords=keywords)
        for keywords in ({"block": 128}, {"block": 256}, {"block": 128, "extra": 1})
    )
    assert have_same_steps(first, second)
    assert not have_same_steps(first, third)


def test_launches_that_take_other_tensors_are_other_steps() -> None:
    def body(x: Any, y: Any, which: int = 0) -> Any:
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        out = torch.empty_like(x)
        add(x, (first, second)[which], out)
        return out + first + second

    inputs, names = [info(ROWS, 8)] * 2, ("x", "y")
    programs = [
        of(body, *inputs, names=names, keywords={"which": which}) for which in (0, 1)
    ]
    assert not have_same_steps(*programs)


def test_steps_are_the_same_whatever_the_order_of_a_kernels_arguments() -> None:
    def body(x: Any, y: Any, swapped: bool = False) -> Any:
        out = torch.empty_like(x)
        add(*((y, x) if swapped else (x, y)), out)
        return out + 1

    inputs, names = [info(ROWS, 8)] * 2, ("x", "y")
    first, second = (
        of(body, *inputs, names=names, keywords={"swapped": swapped})
        for swapped in (False, True)
    )
    assert have_same_steps(first, second)


# --- Replayed -------------------------------------------------------------------------


def test_an_operation_that_is_another_on_plain_ints_is_found() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        return out * 2 if isinstance(x.shape[0], int) else out + 2

    with pytest.raises(RecordError, match=r"aten\.mul"):
        of(body)


def test_a_size_in_an_operation_that_is_another_on_plain_ints_is_found() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        start = 1 if isinstance(x.shape[0], int) else 0
        return torch.cumsum(out, start)

    with pytest.raises(RecordError, match=r"aten\.cumsum\.default, number 0 is 1, and"):
        of(body)


def test_an_operation_only_in_one_branch_is_found() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        return out.relu() if x.shape[0] > 7 else out

    with pytest.raises(RecordError):
        of(body)


# --- Refused --------------------------------------------------------------------------


def test_random_numbers_are_refused() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, torch.rand_like(x), out)
        return out

    with pytest.raises(RecordError, match=r"aten\.rand_like.* at .*: random numbers"):
        of(body)


def test_a_float_that_follows_a_size_is_refused() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        return out * (1.0 / x.shape[0])

    with pytest.raises(RecordError, match="a float that follows a dynamic size"):
        of(body)


def test_a_tensors_values_are_refused() -> None:
    def body(x: Any) -> Any:
        out = x.new_empty(int(x.sum()), 8)
        add(x, x, out)
        return out

    with pytest.raises((DataDependentError, RecordError)):
        of(body)


def test_formats_of_several_steps_are_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        add(x, x, out)
        out.mul_(2)

    shape = info(2, 8, 4, 4)
    with pytest.raises(FormatError, match="formats of a function that does more than"):
        of(launch, shape, names=None, input_formats=("CHW2",), output_formats=("CHW2",))


def test_what_no_step_writes_is_refused() -> None:
    def body(x: Any) -> Any:
        add(x, x, torch.empty_like(x))
        return torch.empty_like(x).t().t()[:, :]

    with pytest.raises(ArgumentError, match="nothing would write it"):
        of(body)


def test_a_buffer_with_gaps_is_refused_as_a_kernels_argument() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(torch.empty_strided((8, 8), (16, 1), device=x.device).zero_(), x, out)
        return out

    with pytest.raises(ArgumentError, match=r"or call contiguous\(\) on what torch"):
        of(body)


def test_a_part_of_memory_whose_order_torch_chose_is_refused() -> None:
    def body(x: Any) -> Any:
        moved, out = x.t() + 1, torch.empty_like(x)
        add(moved.as_strided((2, 2), (3, 1)), x, out)
        return out + moved.as_strided((2, 2), (3, 1)).sum()

    with pytest.raises(ArgumentError, match="in a way that torch does not tell"):
        of(body, info(Range(2, 64, 512), 8))


def test_what_torch_makes_of_numbers_is_where_the_ops_tensors_are() -> None:
    arguments = (("fill_value", Constant("", 2.0)), ("size", (sympy.Integer(3),)))
    meta = torch.device("meta")
    made = called(aten.full.default, arguments, int, lambda view: None, meta)  # type: ignore
    assert made.device == meta and made.shape == (3,)
    one = lambda view: torch.ones(3)  # noqa: E731
    made = called(aten.zeros_like.default, (("self", View(0)),), int, one, meta)
    assert made.device == torch.device("cpu")


def test_what_lies_transposed_in_memory_is_a_permuted_buffer() -> None:
    def body(x: Any) -> Any:
        moved = x.t() + 1  # torch keeps the order of the axes in memory
        out = torch.empty_like(moved)
        add(moved, x, out)
        return out

    rows = Range(2, 64, 512)
    program = of(body, info(rows, 8), meta=lambda x: x.new_empty(8, x.shape[0]))
    plus, _ = program.steps
    assert isinstance(plus, Operation)
    assert plus.orders == ((1, 0),)
    assert [buffer.shape for buffer in program.hidden] == 2 * [(symbol(0, 0), 8)]
    assert program.returned == (
        View(2, ((aten.permute.default, (("dims", (1, 0)),)),)),
    )


SMALL: dict[str, Callable[[Any], Any]] = {
    "a number": lambda x: torch.tensor(2.0, dtype=x.dtype, device=x.device),
    "one element": lambda x: torch.tensor([2.0], dtype=x.dtype, device=x.device),
}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_a_tensor_of_one_number_is_filled_by_torch(make: Callable[[Any], Any]) -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, make(x), out)
        return out

    program = of(body)
    fill, *_ = program.steps
    assert isinstance(fill, Operation)
    assert fill.op == aten.full.default
    assert dict(fill.arguments)["fill_value"] == Constant("fill_value", 2.0)


def test_a_tensor_of_no_elements_costs_nothing() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        dummy = torch.tensor([[]], dtype=torch.int32, device=x.device)
        add_kernel[(1,)](x, dummy, 0, out, BLOCK=16)
        return out

    assert of(body).is_plugin


def test_a_tensor_of_several_numbers_is_refused() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, torch.tensor([1.0, 2.0], device=x.device), out)
        return out

    with pytest.raises(ArgumentError, match="comes from outside of the function"):
        of(body)


COPIES: dict[str, Callable[[Any, Any], Any]] = {
    "copy_": lambda out, x: out.copy_(x),
    "a slice": lambda out, x: out.__setitem__((slice(None), slice(0, 4)), x[:, 4:]),
    "a row": lambda out, x: out.__setitem__(0, 1.0),
    "the host's": lambda out, x: out.__setitem__(0, torch.arange(8).to(out.device)),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_between_tensors_are_recorded_without_cuda_in_torch(
    copy: Callable[[Any, Any], Any],
) -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        copy(out, x)
        return out

    program = of(body)
    *_, last = program.steps
    assert isinstance(last, Operation)
    assert [view.tensor for view in last.written] == [1]


INDEXED: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda x, i: x[i],
    "columns": lambda x, i: x[:, i],
    "an axis more": lambda x, i: x[i[:, None], i],
    "rows set": lambda x, i: torch.zeros_like(x).__setitem__(i, 1.0) or x[i],
    "contiguous": lambda x, i: x.t().contiguous()[i],
}


@pytest.mark.parametrize("index", INDEXED.values(), ids=INDEXED)
def test_a_torch_without_cuda_indexes_and_copies_as_one_with(
    index: Callable[[Any, Any], Any],
) -> None:
    def body(x: Any) -> Any:
        i = torch.arange(4, device=x.device)
        found = index(x, i).contiguous()
        out = torch.empty_like(found)
        add(found, found, out)
        return out

    expected = index(torch.zeros(8, 8), torch.arange(4)).shape
    program = of(body, info(8, 8), meta=lambda x: x.new_empty(expected))
    assert program.outputs == (Output(tuple(expected), torch.float16),)


def test_a_values_use_in_a_branch_is_refused_at_the_users_line() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, x, out)
        if (x > 0).sum().item() == 1:
            out.zero_()
        return out

    with pytest.raises(DataDependentError, match=r"at .*test_programs\.py:\d+ in body"):
        of(body)


VALUES: dict[str, Callable[[Any], Any]] = {
    "if": lambda x: bool((x < 0).any()),
    "item": lambda x: x.sum().item() > 1,
    "equal": lambda x: torch.equal(x, x + 1),
    "unique": lambda x: x.unique().shape[0] > 1,
    "where": lambda x: torch.where(x > 0)[0].shape[0] > 1,
    "tolist": lambda x: x[0].tolist()[0] > 1,
}


@pytest.mark.parametrize("shape", [(8, 8), (ROWS, 8)], ids=["static", "dynamic"])
@pytest.mark.parametrize("ask", VALUES.values(), ids=VALUES)
def test_a_failure_to_read_values_that_the_function_swallows_is_refused(
    ask: Callable[[Any], Any], shape: tuple[Any, ...]
) -> None:
    def body(x: Any) -> Any:
        try:
            block = 256 if ask(x) else 512
        except Exception:
            block = 128
        out = torch.empty_like(x)
        add(x, x, out, block)
        return out

    with pytest.raises(DataDependentError, match=r"with aten\..*, at .*test_programs"):
        of(body, info(*shape))


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.cpu().numpy().sum() > 1,
        lambda x: np.asarray(x.cpu())[0, 0] > 1,
        lambda x: x[x > 0].shape[0] > 1,
        lambda x: float(x[0, 0]) > 1,
    ],
    ids=["numpy", "asarray", "mask", "float"],
)
def test_an_error_of_fake_tensors_alone_that_is_swallowed_is_refused(
    ask: Callable[[Any], Any],
) -> None:
    def body(x: Any) -> Any:
        block = 512
        with contextlib.suppress(Exception):
            block = 256 if ask(x) else 128
        out = torch.empty_like(x)
        add(x, x, out, block)
        return out

    with pytest.raises(RecordError, match=r"at .*test_programs\.py:\d+ in <lambda>"):
        of(body)


def test_values_that_are_known_are_no_refusal() -> None:
    def body(x: Any) -> Any:
        with contextlib.suppress(RuntimeError):
            x.view(3, 5, 7)
        out = torch.empty_like(x)
        add(x, x[torch.arange(4, device=x.device)], out, torch.tensor(128).item())
        return out

    *others, launch = kinds(of(body, info(8, 8)))
    assert others == ["aten.arange.default", "aten.index.Tensor"]
    assert launch == "add_kernel"


@pytest.fixture
def define() -> Iterator[Callable[[str, Callable[..., Any]], Any]]:
    """Defines an op of the library ``programs``, by its schema and fake kernel."""
    library = torch.library.Library("programs", "FRAGMENT")

    def define(schema: str, fake: Callable[..., Any]) -> Any:
        library.define(schema)
        name = schema.partition("(")[0]
        torch.library.register_fake(f"programs::{name}", fake, lib=library)
        return getattr(torch.ops.programs, name)

    yield define
    library._destroy()


SILENT: dict[str, tuple[str, Callable[..., Any]]] = {
    "nothing": ("silent(Tensor x, Tensor out) -> ()", lambda x, out: None),
    "lists": ("silent(Tensor x, Tensor[] out) -> ()", lambda x, out: None),
    "an argument": ("silent(Tensor x, Tensor out) -> Tensor", lambda x, out: out),
    "one of two": (
        "silent(Tensor x, Tensor out) -> (Tensor, Tensor)",
        lambda x, out: (torch.empty_like(x), out),
    ),
}


@pytest.mark.parametrize("what", SILENT)
def test_an_op_that_does_not_say_what_it_writes_is_refused(
    what: str, define: Callable[..., Any]
) -> None:
    silent = define(*SILENT[what])

    def body(x: Any) -> Any:
        between, out = x + 1, torch.empty_like(x)
        silent(x, [between] if what == "lists" else between)
        add(x, between, out)
        return out

    message = r"programs\.silent\.default at .*test_programs\.py.*mutates_args"
    with pytest.raises(RecordError, match=message):
        of(body)


SAID: dict[str, tuple[str, Callable[..., Any], list[str]]] = {
    "a result": ("said(Tensor x) -> Tensor", torch.empty_like, ["said"]),
    "a write": ("said(Tensor(a!) x) -> ()", lambda x: None, ["said"]),
    "writes": ("said(Tensor(a!) x) -> Tensor(a!)", lambda x: x, ["said"]),
    "a view": ("said(Tensor(a) x) -> Tensor(a)", lambda x: x.t().t(), []),
    "a number": ("said(Tensor x) -> int", lambda x: 8, []),
}


@pytest.mark.parametrize("what", SAID)
def test_an_op_that_says_what_it_makes_and_writes_is_recorded(
    what: str, define: Callable[..., Any]
) -> None:
    schema, fake, expected = SAID[what]
    said = define(schema, fake)

    def body(x: Any) -> Any:
        between, out = x + 1, torch.empty_like(x)
        result = said(between)
        add(x, result if isinstance(result, torch.Tensor) else between, out)
        return out

    found = [name for name in kinds(of(body)) if name.startswith("programs.")]
    assert found == [f"programs.{name}.default" for name in expected]


RESHAPED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "t_": (lambda y: y.t_(), lambda y: y.t()),
    "transpose_": (lambda y: y.transpose_(0, 1), lambda y: y.transpose(0, 1)),
    "unsqueeze_": (lambda y: y.unsqueeze_(1), lambda y: y.unsqueeze(1)),
    "squeeze_": (lambda y: y[:, :1].squeeze_(1), lambda y: y[:, :1].squeeze(1)),
    "as_strided_": (
        lambda y: y.as_strided_((4,), (1,)),
        lambda y: y.as_strided((4,), (1,)),
    ),
}


@pytest.mark.parametrize("what", RESHAPED)
def test_a_tensor_that_is_reshaped_in_place_is_a_view_from_then_on(what: str) -> None:
    in_place, view = RESHAPED[what]

    def body(x: Any, reshape: Callable[[Any], Any]) -> Any:
        y, out = torch.empty_like(x), torch.empty_like(x)
        add(x, x, y)
        add(y, y.sum(1), out)
        z = reshape(y)
        add(x, z, out)
        return out, z * 2

    def meta(x: Any) -> Any:
        return torch.empty_like(x), torch.empty_like(view(x), memory_format=dense)

    dense = torch.contiguous_format
    found, expected = (
        of(body, info(8, 8), meta=meta, keywords={"reshape": how})
        for how in (in_place, view)
    )
    assert found == expected


def test_a_vector_times_a_matrix_is_a_view_of_the_matrix_that_torch_makes() -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x[0] @ torch.ones(8, 8, dtype=x.dtype, device=x.device), x, out)
        return out

    program = of(body, info(8, 8))
    assert kinds(program) == ["aten.ones.default", "aten.mm.default", "add_kernel"]
    assert program.hidden[1].shape == (1, 8)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (lambda x: (x + 1).resize_(4, 4), r"aten\.resize_.*Allocate another tensor"),
        (lambda x: (x + 1).set_(x * 2), r"aten\.set_.*Allocate another tensor"),
        (lambda x: x.t_(), r"with aten\.t_\.default at .*Use what aten\.t\.default"),
    ],
)
def test_a_tensor_that_becomes_another_in_place_is_refused(
    reshape: Callable[[Any], Any], message: str
) -> None:
    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(reshape(x), x, out)
        return out

    with pytest.raises(RecordError, match=message):
        of(body, info(8, 8))


def test_an_op_with_empty_in_its_name_is_no_allocation(
    define: Callable[..., Any],
) -> None:
    nonempty = define("nonempty(Tensor x) -> Tensor", torch.empty_like)

    def body(x: Any) -> Any:
        out = torch.empty_like(x)
        add(x, nonempty(x), out)
        return out

    assert kinds(of(body)) == ["programs.nonempty.default", "add_kernel"]


ALLOCATED: dict[str, Callable[[Any], Any]] = {
    "empty": lambda x: torch.empty(x.shape, dtype=x.dtype, device=x.device),
    "new_empty": lambda x: x.new_empty(x.shape),
    "empty_strided": lambda x: torch.empty_strided(
        x.shape, x.stride(), dtype=x.dtype, device=x.device
    ),
    "new_empty_strided": lambda x: x.new_empty_strided(x.shape, x.stride()),
    "empty_permuted": lambda x: torch.empty_permuted(
        x.shape, (0, 1), dtype=x.dtype, device=x.device
    ),
}


@pytest.mark.parametrize("allocate", ALLOCATED.values(), ids=ALLOCATED)
def test_what_torch_only_allocates_is_no_step(allocate: Callable[[Any], Any]) -> None:
    def body(x: Any) -> Any:
        out = allocate(x)
        add(x, x, out)
        return out

    assert of(body).is_plugin
