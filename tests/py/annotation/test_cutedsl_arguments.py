# SPDX-License-Identifier: BSD-3-Clause

"""What a CuTe DSL launcher is compiled with: numbers that always fit, and facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass
import cutlass.cute as cute
from cutedsl_tools import compiled, copy_kernel, recorded
from cutlass.cute.runtime import from_dlpack
from kernels import info

from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import Kind, Parameters, Slot
from torch_tensorrt.annotation.backends.cutedsl.arguments import HostArguments
from torch_tensorrt.annotation.backends.cutedsl.arithmetic import Unknown
from torch_tensorrt.annotation.backends.cutedsl.host import Address
from torch_tensorrt.annotation.errors import ArgumentError

N = symbol(0, 0)
_FOLLOWS = (Kind.INPUT, 0, 2, 0)  # two bytes, so often as the first extra says


class Arguments:
    """What the host function takes for a launcher of a tensor, a value and an output.

    Args:
        value: of the input, what the launcher is called with.
        kind: how the launcher declares it.
    """

    def __init__(
        self,
        value: Callable[[Any], Any] = lambda x: 5,
        kind: Any = None,
        x: TensorInfo | None = None,
        aligned: bool = True,
    ) -> None:
        def launcher(x, value, out):
            pass

        if kind is not None:
            launcher.__annotations__ = {"value": kind}
        launcher = cute.jit(launcher)

        def launch_fn(x: Any, out: Any) -> None:
            launcher(x, value(x), out)

        program = recorded(launch_fn, x or info(Range(3, 4, 6)))
        parameters = Parameters(program, aligned)
        self.host = HostArguments(parameters)
        self.builders = {
            name: self.host.builder(template)
            for name, template in program.launch.kernel.parameters
        }
        self.told = parameters.told

    @property
    def numbers(self) -> list[Any]:
        """What is passed beside addresses."""
        return [v for v in self.host.values if not isinstance(v, Address)]

    def value(self, *passed: Any) -> Any:
        """The launcher's argument, where the host function is passed ``passed``."""
        return self.builders["value"](passed)


@pytest.mark.parametrize(
    ("kind", "lower", "upper"),
    [
        (cutlass.Int8, -128, 127),
        (cutlass.Uint8, -128, 255),
        (cutlass.Int16, -(2**15), 2**15 - 1),
        (cutlass.Int32, -(2**31), 2**31 - 1),
        (cutlass.Uint32, -(2**31), 2**31 - 1),
        (cutlass.Int64, -(2**31), 2**31 - 1),
    ],
    ids=str,
)
def test_a_number_fits_its_type_and_32_bits(kind: Any, lower: int, upper: int) -> None:
    def passed(first: int, last: int) -> list[Any]:
        """For the numbers from first to last, none of which any extent is."""
        x = info(Range(0, 1, last - first), dtype=torch.int8)
        return Arguments(lambda x: x.shape[0] + first, kind, x).numbers[-1:]

    assert passed(lower, lower + 1) == [N + lower]
    assert passed(upper - 1, upper) == [N + upper - 1]
    for first in (lower - 1, upper):
        with pytest.raises(ArgumentError, match=r"argument `value`: "):
            passed(first, first + 1)


@pytest.mark.parametrize(
    ("kind", "given", "made"),
    [
        (None, 5, cutlass.Int32(5)),
        (None, 0.5, cutlass.Float32(0.5)),
        (None, True, cutlass.Boolean(True)),
        (cutlass.Int8, 5, cutlass.Int8(5)),
        (cutlass.Float32, 3, cutlass.Float32(3.0)),
        (cutlass.Constexpr, 5, 5),
        (cutlass.Constexpr, "tanh", "tanh"),
    ],
)
def test_a_value_that_follows_no_shape_is_compiled_in(
    kind: Any, given: Any, made: Any
) -> None:
    arguments = Arguments(lambda x: given, kind)
    assert all(number.free_symbols == {N} for number in arguments.numbers)
    found = arguments.value()
    assert type(found) is type(made)
    assert getattr(found, "value", found) == getattr(made, "value", made)


def test_an_object_is_compiled_in_as_it_is() -> None:
    given = object()
    assert Arguments(lambda x: given, cutlass.Constexpr).value() is given


def test_a_tuple_keeps_its_items_together_and_static_extents_are_ints() -> None:
    arguments = Arguments(
        lambda x: (x.shape[0], (x.shape[1], 2.0)), x=info(Range(1, 8, 64), 48)
    )
    assert arguments.numbers == [N]
    passed = ["x", "out"]
    passed.insert(arguments.host.values.index(N), "n")
    first, (second, third) = arguments.value(*passed)
    assert (first, second, third.value) == ("n", 48, 2.0)


def test_a_condition_is_a_boolean_and_nothing_else_is() -> None:
    (*_, condition) = Arguments(lambda x: x.shape[0] > 4, cutlass.Boolean).numbers
    assert condition == sympy.Gt(N, 4)
    (*_, unknown) = Arguments(lambda x: x.shape[0], cutlass.Boolean).numbers
    assert isinstance(unknown, Unknown)


def test_a_float_that_follows_the_shape_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"a Float32 that follows the shape \(d0_0"):
        Arguments(lambda x: x.shape[0], cutlass.Float32)


def test_a_stream_is_passed() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        cute.jit(lambda x, out, stream: None)(x, out, 0)

    assert Address("stream") in host_values(launch_fn)


def host_values(launch_fn: Callable[..., Any]) -> list[Any]:
    program = recorded(launch_fn, info(64))
    host = HostArguments(Parameters(program, True))
    for _, template in program.launch.kernel.parameters:
        host.builder(template)
    return host.values


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (1, []),
        (2, ["value%2"]),
        (48, ["value%16"]),
        (4096, ["value%1024"]),
    ],
)
def test_a_divisor_is_a_fact_up_to_1024(columns: int, told: list[str]) -> None:
    x = info(Range(1, 8, 64), columns)
    found = Arguments(lambda x: x.shape[0] * columns, cutlass.Int32, x, aligned=False)
    assert [fact for fact in found.told if fact.startswith("value")] == told


def test_equal_numbers_are_one_argument_for_each_type() -> None:
    assert Arguments(lambda x: (x.shape[0], x.shape[0])).numbers == [N]
    assert Arguments(lambda x: x.shape[0], cutlass.Int64).numbers == [N, N]


@pytest.mark.parametrize(("aligned", "told"), [(True, ["x%16", "out%16"]), (False, [])])
def test_alignment_is_a_fact_where_it_is_promised(
    aligned: bool, told: list[str]
) -> None:
    arguments = Arguments(x=info(64), aligned=aligned)
    assert arguments.told == told
    slots = [Address(Slot(Kind.INPUT, 0)), Address(Slot(Kind.OUTPUT, 0))]
    assert arguments.host.values == slots


@pytest.mark.parametrize(
    ("start", "told", "slot"),
    [(4, "value%8", Slot(Kind.INPUT, 0, 8)), (None, "value%2", Slot(*_FOLLOWS))],
    ids=str,
)
def test_a_view_is_aligned_as_its_offset_is(start: Any, told: str, slot: Slot) -> None:
    def view(x: Any) -> Any:
        return x[x.shape[0] // 3 if start is None else start :]

    arguments = Arguments(view, x=info(Range(9, 30, 90)))
    assert [fact for fact in arguments.told if fact.startswith("value%")] == [told]
    assert Address(slot) in arguments.host.values
    assert Arguments(view, x=info(Range(9, 30, 90)), aligned=False).told == []


def test_the_largest_tensor_has_offsets_of_32_bits() -> None:
    assert Arguments(x=info(2**31 - 1, dtype=torch.int8)).told
    with pytest.raises(ArgumentError, match="`x`: a tensor of up to 2147483648"):
        Arguments(x=info(2**31, dtype=torch.int8))


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(torch.float16, cutlass.Float16), (torch.bool, cutlass.Int8)],
    ids=str,
)
def test_a_bool_is_stored_in_a_byte(dtype: torch.dtype, stored: Any) -> None:
    address, *_ = Arguments(x=info(64, dtype=dtype)).host.samples
    assert address.dtype is stored


@cute.jit
def launch_counted(x: cute.Tensor, out: cute.Tensor, blocks: cutlass.Int32):
    copy_kernel(x, out, x.shape[0]).launch(grid=(blocks, 1, 1), block=(128, 1, 1))


def test_a_launch_function_may_divide_a_size_as_cute_does() -> None:
    def launch(x: Any, out: Any) -> None:
        blocks = cute.ceil_div(x.shape[0], 128)
        launch_counted(from_dlpack(x), from_dlpack(out), blocks)

    size, _, _ = compiled(launch, info(Range(127, 128, 129))).grid
    blocks = [size.xreplace({N: sympy.Integer(n)}) for n in (127, 128, 129)]
    assert blocks == [1, 1, 2]
