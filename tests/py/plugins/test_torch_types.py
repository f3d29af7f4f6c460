# SPDX-License-Identifier: BSD-3-Clause

"""Arguments that only torch has: dtypes, devices, memory formats; and enums."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import add_kernel
from network import with_sequences
from torch.library import Library, custom_op, register_fake

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.errors import RegistrationError, SpecError

X = torch.empty(8, 64, dtype=torch.float16)


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    yield
    while registered:
        registered.popitem()[1].undo()


@triton.jit
def cast_kernel(x_ptr, out_ptr, n, MODE: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if MODE == 2:
        x = x * 2
    tl.store(out_ptr + offsets, x.to(out_ptr.dtype.element_ty), mask=offsets < n)


@custom_op("types::cast", mutates_args=())
def cast(
    x: torch.Tensor,
    required: torch.dtype,
    dtype: torch.dtype = torch.float16,
    device: torch.device = torch.device("cuda"),  # noqa: B008
) -> torch.Tensor:
    for value in (required, dtype):
        assert isinstance(value, torch.dtype)
    assert isinstance(device, torch.device)
    out = torch.empty(x.shape, dtype=dtype, device=device)
    blocks = 8 if required == torch.int8 else 4
    cast_kernel[(blocks,)](x, out, x.numel(), 1, BLOCK=64)
    return out


@register_fake("types::cast")
def _(x: Any, required: Any, dtype: Any = torch.float16, device: Any = None) -> Any:
    return torch.empty_like(x, dtype=dtype)


def tactic(op: str, **attributes: Any) -> Any:
    report = tta.dry_run(op, [X], "sm_90", attributes=attributes, execute=False)
    assert report.ok is not False
    return report.tactics[0]


def test_a_dtype_reaches_the_body_of_an_op_with_and_without_its_default() -> None:
    trt_plugins.custom_op("types::cast", impl=tta.triton())
    found = tactic("types::cast", required=torch.int8)
    assert (found.shapes[0].grid, found.dtypes) == ((8, 1, 1), ("FP16", "FP16"))
    other = tactic("types::cast", required=torch.half, dtype=torch.float32)
    assert (other.shapes[0].grid, other.dtypes) == ((4, 1, 1), ("FP16", "FP32"))
    on = tactic("types::cast", required=torch.half, device=torch.device("cuda", 0))
    assert on.error is None


def test_a_new_op_takes_them_as_its_fake_kernel_declares() -> None:
    def launch(x: Any, out: Any, dtype: Any, device: Any) -> None:
        assert dtype == out.dtype
        assert device.type == "cuda"
        cast_kernel[(8,)](x, out, x.numel(), 1, BLOCK=64)

    def meta(
        x: torch.Tensor,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device = torch.device("cuda", 0),  # noqa: B008
    ) -> torch.Tensor:
        return torch.empty_like(x, dtype=dtype)

    spec = tta.custom_plugin(tta.triton(launch), meta)
    trt_plugins.custom_op("types::to", impl=spec)
    assert tactic("types::to").dtypes == ("FP16", "BF16")
    assert tactic("types::to", dtype=torch.float32).dtypes == ("FP16", "FP32")


@with_sequences
def test_optional_and_several_dtypes_reach_the_launch_function() -> None:
    seen = set()

    def launch(x: Any, out: Any, dtype: Any, more: Any) -> None:
        seen.add((dtype, *more))
        cast_kernel[(8,)](x, out, x.numel(), 1, BLOCK=64)

    library = Library("types", "FRAGMENT")
    library.define("several(Tensor x, ScalarType? dtype, ScalarType[] more) -> Tensor")
    register_fake(
        "types::several", lambda x, dtype, more: torch.empty_like(x), lib=library
    )
    try:
        trt_plugins.custom_op("types::several", impl=tta.triton(launch))
        seen.clear()
        more = [torch.int8, torch.float8_e4m3fn]
        tactic("types::several", dtype=None, more=more)
        assert seen == {(None, *more)}
    finally:
        while registered:
            registered.popitem()[1].undo()
        library._destroy()


def test_a_memory_format_reaches_the_launch_function() -> None:
    seen = set()

    def launch(x: Any, out: Any, memory_format: Any) -> None:
        seen.add(memory_format)
        cast_kernel[(8,)](x, out, x.numel(), 1, BLOCK=64)

    library = Library("types", "FRAGMENT")
    library.define("formatted(Tensor x, MemoryFormat memory_format) -> Tensor")
    register_fake(
        "types::formatted", lambda x, memory_format: torch.empty_like(x), lib=library
    )
    try:
        trt_plugins.custom_op("types::formatted", impl=tta.triton(launch))
        seen.clear()
        tactic("types::formatted", memory_format=torch.channels_last)
        assert seen == {torch.channels_last}
    finally:
        while registered:
            registered.popitem()[1].undo()
        library._destroy()


def test_a_value_of_another_type_is_refused() -> None:
    trt_plugins.custom_op("types::cast", impl=tta.triton())
    with pytest.raises(SpecError, match="required"):
        tactic("types::cast", required="five")


def test_what_has_no_number_is_refused_by_its_type() -> None:
    library = Library("types", "FRAGMENT")
    library.define("laid_out(Tensor x, Layout layout) -> Tensor")
    register_fake("types::laid_out", lambda x, layout: x, lib=library)
    try:
        with pytest.raises(RegistrationError, match=r"type Layout cannot .* torch.dt"):
            trt_plugins.custom_op("types::laid_out", impl=tta.triton(lambda x, o: 0))
    finally:
        library._destroy()


class Mode(enum.IntEnum):
    SAME = 1
    TWICE = 2


class Where(enum.Enum):
    HERE = "here"


def test_an_enum_is_an_attribute_of_the_spec() -> None:
    def launch(x: Any, out: Any, mode: Mode, where: Where) -> None:
        assert mode is Mode.TWICE
        assert where is Where.HERE
        cast_kernel[(int(mode),)](x, out, x.numel(), MODE=mode, BLOCK=64)

    spec = tta.custom_plugin(
        tta.triton(launch),
        lambda x: torch.empty_like(x),
        mode=Mode.TWICE,
        where=Where.HERE,
    )
    trt_plugins.custom_op("types::mode", impl=spec)
    found = tactic("types::mode")
    assert found.error is None
    assert found.shapes[0].grid == (2, 1, 1)


def test_an_enum_is_a_run_time_number_where_it_is_one() -> None:
    def launch(x: Any, out: Any, mode: Mode) -> None:
        add_kernel[(8,)](x, x, mode, out, BLOCK=64)

    spec = tta.custom_plugin(
        tta.triton(launch), lambda x: torch.empty_like(x), mode=Mode.TWICE
    )
    trt_plugins.custom_op("types::number", impl=spec)
    assert tactic("types::number").shapes[0].extras == (2,)


def test_an_enum_in_a_schema_is_refused() -> None:
    def meta(x: torch.Tensor, mode: Mode) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(lambda x, out, mode: None), meta)
    with pytest.raises((SpecError, RegistrationError), match="mode"):
        trt_plugins.custom_op("types::enum", impl=spec)
