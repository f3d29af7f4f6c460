# SPDX-License-Identifier: BSD-3-Clause

"""An op that is taken apart computes what its body computes.

A body is launches of a few kernels, views, and torch's operations. It runs on the CPU,
where each launch is a reference implementation of its kernel on the memory behind the
pointers. The model that calls the op is exported and the op taken apart; then the graph
runs, with the same reference implementations in the ops of the launches. What a body
never writes holds NaN, and decides nothing.
"""

from __future__ import annotations

import itertools
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bodies import (
    accumulate_kernel,
    copy_kernel,
    eagerly,
    every_other_kernel,
    launch,
    launched,
)
from conftest import IS_THOROUGH
from torch import Tensor
from torch.export import Dim

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered, unregister
from torch_tensorrt.annotation._steps import Step
from torch_tensorrt.annotation.errors import ArgumentError, UnsupportedKernelError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion.plugins import _program

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

from fuzz_bodies import Body, defined, numbers


def carried_out(steps: Any, step: Step, *args: Any, **kwargs: Any) -> Any:
    """What the op of a launch returns."""
    between = [kwargs.pop(_program.buffer_name(number)) for number in step.reads]
    values, attributes = steps.schema.bind(args, kwargs)
    part = step.part(steps.structure(values, attributes).program)
    made = launched(part, [*values, *between])
    return tuple(made) if len(made) > 1 else made[0]


# --- A body, beside the graph that it becomes -----------------------------------------

_numbers = itertools.count()


def require_equal(
    body: Callable[..., Any],
    model: Callable[..., Any],
    inputs: Sequence[Tensor],
    writes: Sequence[str] = (),
    dynamic: Any = None,
    fake: Callable[..., Any] | None = None,
) -> list[str]:
    """Compare a model in eager mode with its graph, in which the op is taken apart.

    Args:
        body: of the op.
        model: of the op, and tensors.
        fake: the op's fake kernel; what ``body.outputs`` says, where it is None.

    Returns:
        The names of the steps.
    """
    number = next(_numbers)
    name = f"values::op{number}"
    with eagerly():
        expected = model(body, *(tensor.clone() for tensor in inputs))

    def of_outputs(*args: Any) -> Any:
        if args[0].shape[-1] == 256 or args[0].dtype != torch.float32:
            raise ValueError("the body is for other tensors")
        outputs = body_outputs(body, args)
        return outputs[0] if len(outputs) == 1 else outputs or None

    op = torch.library.custom_op(name, body, mutates_args=writes)
    op.register_fake(fake or of_outputs)
    libraries = []
    try:
        trt_plugins.custom_op(name, impl=tta.triton(), strict=True)
        steps = registered[name].steps
        define = steps._define

        def define_for_the_cpu(step_name: str, step: Step) -> None:
            define(step_name, step)
            library = torch.library.Library("values", "FRAGMENT")  # type: ignore[no-untyped-call]
            run = lambda *a, **k: carried_out(steps, step, *a, **k)  # noqa: E731
            library.impl(step_name.partition("::")[2], run, "CPU")  # type: ignore[no-untyped-call]
            libraries.append(library)

        steps._define = define_for_the_cpu

        class Model(torch.nn.Module):
            def forward(self, *tensors: Tensor) -> Any:
                return model(getattr(torch.ops.values, f"op{number}"), *tensors)

        shapes = dynamic and (dynamic,)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own
            made = torch.export.export(Model(), tuple(inputs), dynamic_shapes=shapes)
            graph = made.run_decompositions({}).module()
        _program.take_apart(graph, CompilationSettings())
        called = [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]
        if not any("_step" in each for each in called):
            return []  # it is one launch
        found = graph(*inputs)
        for one, other in zip(_tuple(found), _tuple(expected), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            one, other = (t.view(torch.float32) for t in (one, other))
            is_defined = ~other.isnan()
            torch.testing.assert_close(one[is_defined], other[is_defined])
        return [each.rpartition("_")[2] for each in called if "_step" in each]
    finally:
        if name in registered:
            unregister(name)
        op._lib._destroy()


def body_outputs(body: Callable[..., Any], args: Sequence[Tensor]) -> tuple[Any, ...]:
    """Outputs in the shapes that ``body`` returns."""
    return tuple(
        args[0].new_empty(shape(*args) if callable(shape) else shape, dtype=dtype)
        for shape, dtype in body.outputs  # type: ignore[attr-defined]
    )


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def returning(*shapes: Any) -> Callable[..., Any]:
    def decorate(body: Any) -> Any:
        body.outputs = [(shape, torch.float32) for shape in shapes]
        return body

    return decorate


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_90")


# --- Cases ----------------------------------------------------------------------------


@returning(lambda x: x.shape)
def fills_what_it_allocates(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[2:].fill_(3)
    launch(accumulate_kernel, x, out, x.numel() - 8)
    return out


@returning(lambda x: x.shape)
def writes_halves(x: Tensor) -> Tensor:
    out, half = torch.empty_like(x), x.numel() // 2
    launch(copy_kernel, x, out, half)
    launch(copy_kernel, x, out.view(-1)[half:], half)
    return out


@returning(lambda x: x.shape)
def drops_what_a_launch_writes(x: Tensor) -> Tensor:
    unused, out = torch.empty_like(x), torch.empty_like(x)
    launch(copy_kernel, x, unused, x.numel())
    launch(copy_kernel, x, out, x.numel())
    return out + 1


@returning(lambda x: x.shape[1:])
def views_as_another_dtype(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    launch(every_other_kernel, x, out, x.numel() // 2)
    launch(copy_kernel, x.view(torch.int32), out.view(torch.int32)[0], x.shape[1])
    return out.sum(0).view(torch.int32).view(torch.float32)


@returning((2, 2))
def takes_parts_of_memory(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    launch(copy_kernel, x, out, x.numel())
    return out.t().as_strided((2, 2), (3, 1), 1) + x.as_strided((2, 2), (3, 1), 1)


@returning(lambda x: x.shape, lambda x: x.shape[1:])
def returns_views_of_one_buffer(x: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.zeros_like(x)
    row = out[1]
    launch(accumulate_kernel, x, out, x.numel())
    row.mul_(2)
    launch(accumulate_kernel, x, row, x.shape[1])
    return out, row


BODIES = [
    fills_what_it_allocates,
    writes_halves,
    drops_what_a_launch_writes,
    views_as_another_dtype,
    takes_parts_of_memory,
    returns_views_of_one_buffer,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_the_graph_computes_what_the_body_does(body: Callable[..., Any]) -> None:
    require_equal(body, lambda op, x: op(x * 1), [numbers(4, 8)])


def test_a_launch_that_nothing_needs_is_left_out() -> None:
    body = drops_what_a_launch_writes
    assert require_equal(body, lambda op, x: op(x * 1), [numbers(4, 8)]) == [
        "step1.default"
    ]


def test_sizes_may_be_dynamic() -> None:
    rows = ({0: Dim("rows", min=3, max=64)},)
    body = fills_what_it_allocates
    require_equal(body, lambda op, x: op(x * 1), [numbers(5, 8)], dynamic=rows)


def test_an_input_that_is_no_contiguous_tensor_is_made_one() -> None:
    def model(op: Any, x: Tensor) -> Any:
        is_graph = isinstance(op, torch._ops.OpOverloadPacket)
        x = x.t() * 1
        return op(x if is_graph else x.contiguous())

    require_equal(takes_parts_of_memory, model, [numbers(8, 4)])


# --- Ops that write their inputs ------------------------------------------------------


@returning()
def adds_to_each_other(x: Tensor, y: Tensor) -> None:
    launch(accumulate_kernel, x, y, x.numel())
    launch(accumulate_kernel, y, x, x.numel())


Split = Callable[[Tensor], tuple[Tensor, Tensor]]
APART: dict[str, Split] = {
    "halves": lambda x: (x[:2], x[2:]),
    "rows": lambda x: (x[3], x[1]),
}
SHARED: dict[str, Split] = {
    "one": lambda x: (x, x),
    "overlapping": lambda x: (x[:3], x[1:]),
    "strided": lambda x: (x[::2], x[1:3]),
}


def writing(split: Split) -> Callable[..., Any]:
    def model(op: Any, x: Tensor) -> Any:
        x = x * 2
        op(*split(x))
        return x + 0

    return model


@pytest.mark.parametrize("split", APART.values(), ids=list(APART))
def test_views_of_one_tensor_are_written(split: Split) -> None:
    model, writes = writing(split), ("x", "y")
    require_equal(adds_to_each_other, model, [numbers(4, 8)], writes)


@pytest.mark.parametrize("split", SHARED.values(), ids=list(SHARED))
def test_arguments_that_share_memory_are_not_both_written(split: Split) -> None:
    model, writes = writing(split), ("x", "y")
    with pytest.raises(UnsupportedKernelError, match="`x` and `y` may share memory"):
        require_equal(adds_to_each_other, model, [numbers(4, 8)], writes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_apart_where_they_end_before_others_begin(axis: int) -> None:
    base = numbers(6, 4, 8)
    for start, end in itertools.combinations(range(base.shape[axis] + 1), 2):
        for first, last in itertools.combinations(range(base.shape[axis] + 1), 2):
            one = base.narrow(axis, start, end - start)
            other = base.narrow(axis, first, last - first)
            is_apart = end <= first or last <= start
            assert _program._are_apart(one, other) is is_apart


def test_a_graph_that_is_not_functionalized_would_lose_what_is_written() -> None:
    graph = torch.fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    for node in (x, y):
        node.meta["val"] = numbers(4, 8)

    op = torch.library.custom_op(
        "values::lost", adds_to_each_other, mutates_args=("x", "y")
    )
    op.register_fake(lambda x, y: None)
    try:
        trt_plugins.custom_op("values::lost", impl=tta.triton(), strict=True)
        graph.call_function(torch.ops.values.lost.default, (x, y))
        graph.output((x, y))
        module = torch.fx.GraphModule({}, graph)
        with pytest.raises(UnsupportedKernelError, match="is not functionalized"):
            _program.take_apart(module, CompilationSettings())
    finally:
        if "values::lost" in registered:
            unregister("values::lost")
        op._lib._destroy()


# --- Random bodies --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25 if IS_THOROUGH else 4))
def test_a_random_body_is_taken_apart_in_a_graph(seed: int) -> None:
    found = Body.of(random.Random(seed))

    def model(op: Any, x: Tensor, y: Tensor) -> Any:
        both = torch.cat([x.view(-1), y])
        x, y = both[: x.numel()].view(x.shape), both[x.numel() :]
        return op(x, y) + 0, both + 0

    inputs = [numbers(*info.at("opt")) for info in found.infos]
    body, fake = defined(found.source), defined(found.fake)
    try:
        require_equal(body, model, inputs, found.writable, fake=fake)
    except (ArgumentError, UnsupportedKernelError) as error:
        refused = ("nothing would write it", "that nothing stores to", "as_strided")
        refused = (*refused, "in a way that torch does not tell")
        if not any(each in str(error) for each in refused):
            raise
