# SPDX-License-Identifier: BSD-3-Clause

"""What Triton's compiler is told of the arguments, and what TensorRT passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import triton
from kernels import info

from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.backends.triton.signature import Signature
from torch_tensorrt.annotation.errors import ArgumentError

N = symbol(0, 0)
DIVISIBLE = [["tt.divisibility", 16]]


def signature(
    value: Callable[[torch.Tensor], Any],
    annotation: str | None = None,
    aligned: bool = False,
    **options: Any,
) -> Signature:
    """Of a kernel that takes ``value`` of its input, as a parameter so annotated."""

    def kernel(x_ptr, value, out_ptr):
        return value

    kernel.__annotations__ = {"x_ptr": "tl.const"}
    if annotation:
        kernel.__annotations__["value"] = annotation
    jitted = triton.jit(kernel, **options)

    def launch_fn(x: Any, out: Any) -> None:
        jitted[(1,)](x, value(x), out)

    inputs = [info(Range(3, 4, 6))]
    program = record(backend("triton"), launch_fn, torch.empty_like, inputs)
    return Signature(program, aligned)


@pytest.mark.parametrize(
    ("annotation", "value", "kind", "passed"),
    [
        (None, lambda x: 5, "i32", 5),
        (None, lambda x: 0, "i32", 0),
        (None, lambda x: 2, "i32", 2),
        (None, lambda x: x.shape[0], "i32", N),
        (None, lambda x: True, "u1", 1),
        (None, lambda x: False, "u1", 0),
        (None, lambda x: x.shape[0] > 4, "u1", sympy.Gt(N, 4)),
        (None, lambda x: 0.5, "fp32", 0x3F000000),
        ("tl.int1", lambda x: True, "u1", 1),
        ("tl.int1", lambda x: x.shape[0] > 4, "u1", sympy.Gt(N, 4)),
        ("tl.int32", lambda x: 1, "i32", 1),
        ("tl.int64", lambda x: 5, "i64", 5),
        ("tl.uint32", lambda x: x.shape[0], "u32", N),
        ("tl.float32", lambda x: 3, "fp32", 0x40400000),
        ("tl.float32", lambda x: 0.5, "fp32", 0x3F000000),
    ],
)
def test_a_scalar_is_passed_in_32_bits_as_its_declared_type(
    annotation: str | None, value: Any, kind: str, passed: Any
) -> None:
    found = signature(value, annotation)
    assert found.types == {"x_ptr": "*kfp16", "value": kind, "out_ptr": "*fp16"}
    assert (found.extras, found.constants) == ([passed], {})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, 1),
        (None, None),
        (None, 2**40),
        ("tl.int64", 2**40),
        ("tl.int32", None),
        ("tl.constexpr", 0.5),
        ("tl.constexpr", True),
    ],
)
def test_a_value_that_tritons_jit_compiles_in_or_tensorrt_cannot_pass_is_compiled_in(
    annotation: str | None, value: Any
) -> None:
    found = signature(lambda x: value, annotation)
    assert found.types["value"] == "constexpr"
    assert (found.extras, found.constants) == ([], {"value": value})


@pytest.mark.parametrize(
    ("annotation", "value", "given"),
    [
        ("tl.int32", lambda x: 0.5, "declared as i32, and given float"),
        ("tl.int32", lambda x: True, "declared as i32, and given bool"),
        ("tl.int32", lambda x: x.shape[0] > 4, "declared as i32, and given a bool"),
        ("tl.int1", lambda x: 0.5, "declared as u1, and given float"),
        ("tl.int1", lambda x: 5, "declared as u1, and given an integer"),
        ("tl.float32", lambda x: True, "declared as fp32, and given bool"),
        ("tl.float32", lambda x: x.shape[0], "declared as fp32, and given an integer"),
        ("tl.float32", lambda x: x.shape[0] > 4, "declared as fp32, and given a bool"),
        ("tl.float16", lambda x: 0.5, "declared as fp16, and given float"),
        (None, lambda x: "tanh", "not a tl.constexpr, and given str"),
    ],
)
def test_a_scalar_of_another_type_than_declared_is_refused(
    annotation: str | None, value: Any, given: str
) -> None:
    with pytest.raises(ArgumentError, match=f"argument `value`: {given}"):
        signature(value, annotation)


@pytest.mark.parametrize(
    ("value", "options", "hints"),
    [
        (lambda x: 48, {}, {(1,): DIVISIBLE}),
        (lambda x: 0, {}, {(1,): DIVISIBLE}),
        (lambda x: x.shape[0] * 16, {}, {(1,): DIVISIBLE}),
        (lambda x: x.shape[0] * 8, {}, {}),
        (lambda x: 24, {}, {}),
        (lambda x: 48, {"do_not_specialize": ["value"]}, {}),
        (lambda x: 1, {"do_not_specialize": ["value"]}, {}),
        (lambda x: 48, {"do_not_specialize_on_alignment": ["value"]}, {}),
    ],
)
def test_a_hint_is_what_is_proved_and_wanted(
    value: Any, options: dict[str, Any], hints: Any
) -> None:
    found = signature(value, **options)
    assert found.hints == hints
    assert found.told == ["value%16"] * len(hints)
    assert len(found.extras) == 1


def test_aligned_pointers_are_hints() -> None:
    found = signature(lambda x: 5, aligned=True)
    assert found.hints == {(0,): DIVISIBLE, (2,): DIVISIBLE}
    assert found.told == ["x_ptr%16", "out_ptr%16"]
