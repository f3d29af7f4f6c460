# SPDX-License-Identifier: BSD-3-Clause

"""The dtype table against the real torch, TensorRT and Triton."""

from __future__ import annotations

import pytest
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from tensorrt_bindings.plugin._utils import _str_to_data_type
from triton._utils import canonicalize_dtype, canonicalize_ptr_dtype
from triton.language import str_to_ty

from torch_tensorrt.annotation._tensors import DTYPES, DType
from torch_tensorrt.annotation.errors import AnnotationError, DTypeError

every_row = pytest.mark.parametrize("row", DTYPES, ids=lambda row: row.token)


@pytest.mark.parametrize("column", ["torch", "tensorrt", "token"])
def test_no_name_is_there_twice(column: str) -> None:
    names = [getattr(row, column) for row in DTYPES]
    assert len(set(names)) == len(names)


@every_row
def test_tensorrt_has_the_dtype(row: DType) -> None:
    assert row.to_tensorrt() is getattr(trt.DataType, row.tensorrt)


@every_row
def test_the_way_to_tensorrt_and_back_is_the_identity(row: DType) -> None:
    assert DType.of_tensorrt(row.to_tensorrt()) is row


@every_row
def test_autotune_reads_the_token_as_the_same_dtype(row: DType) -> None:
    assert _str_to_data_type(row.token) == getattr(trt.DataType, row.tensorrt)


@every_row
def test_an_autotune_combination_takes_the_token(row: DType) -> None:
    combination = trtp.AutoTuneCombination(f"{row.token}, {row.token}", "LINEAR", [1])
    (expected,) = {getattr(trt.DataType, row.tensorrt)}
    assert [c.types for c in combination._get_combinations()] == [[expected] * 2]


@every_row
def test_an_element_has_the_same_size_in_tensorrt_as_in_torch(row: DType) -> None:
    assert getattr(trt.DataType, row.tensorrt).itemsize == row.torch.itemsize


@every_row
def test_each_name_leads_to_the_row(row: DType) -> None:
    assert DType.of(row.torch) is row
    assert DType.of_token(row.token) is row
    assert row.name == str(row.torch).removeprefix("torch.")


@every_row
def test_triton_reads_the_name_as_its_own_jit_would_call_the_dtype(row: DType) -> None:
    of_the_jit = canonicalize_ptr_dtype(row.torch, is_const=False)
    assert str_to_ty(f"*{canonicalize_dtype(row.name)}", None) == str_to_ty(
        of_the_jit, None
    )


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.int16, torch.uint32, torch.complex64, torch.float8_e5m2],
    ids=str,
)
def test_a_torch_dtype_that_tensorrt_lacks_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(DTypeError, match=f"dtype {dtype} has no counterpart") as caught:
        DType.of(dtype)
    assert "float16, bfloat16" in str(caught.value)


@pytest.mark.parametrize("name", ["INT4", "FP4"])
def test_a_tensorrt_dtype_that_torch_lacks_is_refused(name: str) -> None:
    with pytest.raises(DTypeError, match=f"{name} has none in torch"):
        DType.of_tensorrt(getattr(trt.DataType, name))


def test_the_refusal_is_both_a_type_error_and_one_of_ours() -> None:
    with pytest.raises(AnnotationError) as caught:
        DType.of(torch.float64)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("name", ["HALF", "fp16", ""])
def test_a_token_that_autotune_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(DTypeError, match=f"'{name}' is not a dtype"):
        DType.of_token(name)
