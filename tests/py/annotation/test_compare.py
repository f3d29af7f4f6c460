# SPDX-License-Identifier: BSD-3-Clause

"""Every element of an output is compared, and none is let through for its size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torch_tensorrt.annotation._dry_run.memory import TOLERANCES, compare, tolerance_of
from torch_tensorrt.annotation._tensors import DTYPES
from torch_tensorrt.annotation.errors import DryRunError

NAN, INF = float("nan"), float("inf")


def test_equal_tensors_have_no_error() -> None:
    x = torch.randn(3, 5)
    result = compare(x, x.clone())
    assert (result.max_error, result.message) == (0.0, "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_error_of_rounding_is_let_through(dtype: torch.dtype) -> None:
    exact = torch.linspace(-9, 9, 1000)
    rounded = exact.to(dtype)
    ulp = torch.finfo(dtype).eps
    assert compare(rounded, (exact * (1 + ulp)).to(dtype)).message == ""


def test_the_first_wrong_element_is_named() -> None:
    expected = torch.ones(4, 6)
    found = expected.clone()
    found[2, 3] = found[3, 1] = 1.5
    message = compare(found, expected).message
    assert message == (
        "2 of 24 elements are wrong, the first at [2, 3]: 1.5 instead of 1.0"
    )


@pytest.mark.parametrize(
    ("found", "expected"), [(NAN, 0.0), (0.0, NAN), (INF, 1.0), (1.0, INF), (INF, -INF)]
)
def test_what_is_not_finite_must_be_so_in_both(found: float, expected: float) -> None:
    ones = torch.ones(3)
    a, b = ones.clone(), ones.clone()
    a[1], b[1] = found, expected
    result = compare(a, b)
    assert "1 of 3 elements" in result.message
    assert result.max_error == INF


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_in_both_is_right(value: float) -> None:
    x = torch.tensor([1.0, value])
    assert compare(x, x.clone()).message == ""


def test_an_expected_infinity_hides_no_other_error() -> None:
    expected = torch.tensor([INF, 1.0, 1.0])
    assert "at [1]" in compare(torch.tensor([INF, 2.0, 1.0]), expected).message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8])
def test_integers_are_compared_exactly(dtype: torch.dtype) -> None:
    expected = torch.full((1000,), 100, dtype=dtype)
    found = expected.clone()
    found[999] = 101
    assert "the first at [999]: 101 instead of 100" in compare(found, expected).message


def test_a_large_int64_is_not_rounded() -> None:
    expected = torch.tensor([2**60])
    assert compare(expected + 1, expected).message != ""


def test_a_byte_that_is_neither_true_nor_false_is_wrong() -> None:
    poisoned = torch.tensor([0xFF], dtype=torch.uint8).view(torch.bool)
    assert "255 instead of 1" in compare(poisoned, torch.tensor([True])).message


def test_zeros_must_be_zeros() -> None:
    zeros = torch.zeros(4)
    assert compare(zeros, zeros).message == ""
    assert "4 of 4" in compare(zeros + 1e-30, zeros).message


def test_another_shape_or_dtype_is_wrong() -> None:
    x = torch.zeros(4)
    assert "[2, 2]" in compare(x, x.view(2, 2)).message
    assert "float16" in compare(x, x.half()).message


def test_an_empty_tensor_is_right() -> None:
    assert compare(torch.empty(0, 3), torch.empty(0, 3)).message == ""


def test_a_tolerance_can_be_given() -> None:
    x = torch.ones(4)
    assert compare(x * 1.3, x).message != ""
    assert compare(x * 1.3, x, tolerance=0.2).message == ""


def test_every_float_of_tensorrts_has_a_tolerance() -> None:
    floats = {row.torch for row in DTYPES if row.torch.is_floating_point}
    assert set(TOLERANCES) == floats


def test_a_float_without_a_tolerance_is_an_error() -> None:
    x = torch.ones(4, dtype=torch.float64)
    with pytest.raises(DryRunError, match=r"torch\.float64 have no tolerance"):
        compare(x, x)
    assert compare(x, x, tolerance=0.1).message == ""


@pytest.mark.parametrize("row", DTYPES, ids=lambda row: row.name)
def test_a_tolerance_that_is_given_is_for_floats_alone(row: Any) -> None:
    expected = 5.0 if row.torch.is_floating_point else 0.0
    assert tolerance_of(row.torch, 5.0) == expected
