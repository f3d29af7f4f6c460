# SPDX-License-Identifier: BSD-3-Clause

"""Attributes: what is given comes back from the array TensorRT keeps it in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_tensorrt.annotation._attributes import AttributeKind

INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
DTYPES = st.sampled_from([v for v in vars(torch).values() if type(v) is torch.dtype])
MEMORY_FORMATS = [v for v in vars(torch).values() if type(v) is torch.memory_format]
DEVICES = st.sampled_from(["cuda", "cuda:0", "cuda:7", "cpu"]).map(torch.device)


def lists(values: Any) -> Any:
    return st.lists(values, max_size=5)


KINDS: list[tuple[AttributeKind, Any]] = [
    (AttributeKind(float), FLOATS),
    (AttributeKind(int), INTS),
    (AttributeKind(bool), st.booleans()),
    (AttributeKind(str), st.text()),
    (AttributeKind(int, is_list=True), lists(INTS)),
    (AttributeKind(float, is_list=True), lists(FLOATS)),
    (AttributeKind(bool, is_list=True), lists(st.booleans())),
    (AttributeKind(int, is_optional=True), st.none() | INTS),
    (AttributeKind(float, is_optional=True), st.none() | FLOATS),
    (AttributeKind(bool, is_optional=True), st.none() | st.booleans()),
    (AttributeKind(int, True, True), st.none() | lists(INTS)),
    (AttributeKind(torch.dtype), DTYPES),
    (AttributeKind(torch.dtype, is_optional=True), st.none() | DTYPES),
    (AttributeKind(torch.dtype, is_list=True), lists(DTYPES)),
    (AttributeKind(torch.device), DEVICES),
    (AttributeKind(torch.device, is_optional=True), st.none() | DEVICES),
    (AttributeKind(torch.memory_format), st.sampled_from(MEMORY_FORMATS)),
]


def holds(kind: AttributeKind, value: Any) -> bool:
    """Whether ``value`` has exactly this kind: 1 is neither a float nor a bool."""
    if value is None:
        return kind.is_optional
    items = value if kind.is_list else [value]
    return all(type(item) is kind.element for item in items)


@given(st.data())
@pytest.mark.parametrize(("kind", "values"), KINDS, ids=lambda k: str(k)[:30])
def test_what_is_encoded_is_decoded(
    kind: AttributeKind, values: Any, data: st.DataObject
) -> None:
    value = data.draw(values)
    assert holds(kind, value)
    assert kind.convert(value) == value
    encoded = kind.encode(value)
    decoded = kind.decode(encoded)
    assert decoded == value
    assert holds(kind, decoded)
    if kind.element is not str:
        assert encoded.ndim == 1
        assert encoded.size > 0


@pytest.mark.parametrize(
    ("kind", "value", "converted"),
    [
        (AttributeKind(float), 1, 1.0),
        (AttributeKind(float), np.float32(0.5), 0.5),
        (AttributeKind(int), np.array([3]), 3),
        (AttributeKind(int, is_list=True), np.array([3, 4]), [3, 4]),
        (AttributeKind(int, is_list=True), (3, 4), [3, 4]),
        (AttributeKind(torch.dtype), "float16", torch.float16),
        (AttributeKind(torch.dtype), "torch.float16", torch.float16),
        (AttributeKind(torch.dtype, is_list=True), (5,), [torch.float16]),
        (AttributeKind(torch.memory_format), "channels_last", torch.channels_last),
        (AttributeKind(torch.device), "cuda:1", torch.device("cuda", 1)),
    ],
    ids=repr,
)
def test_what_a_graph_may_hold_is_converted(
    kind: AttributeKind, value: Any, converted: Any
) -> None:
    result = kind.convert(value)
    assert result == converted
    assert holds(kind, result)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AttributeKind(float), None),
        (AttributeKind(int), 1.5),
        (AttributeKind(int), "1"),
        (AttributeKind(int), [1, 2]),
        (AttributeKind(bool), b"x"),
        (AttributeKind(bool), 1),
        (AttributeKind(int, is_list=True), 3),
        (AttributeKind(int, is_list=True), [1, 2.5]),
        (AttributeKind(int, is_list=True), None),
        (AttributeKind(torch.dtype), None),
        (AttributeKind(torch.dtype), "float17"),
        (AttributeKind(torch.dtype), 4096),
        (AttributeKind(torch.dtype), True),
        (AttributeKind(torch.dtype), torch.channels_last),
        (AttributeKind(torch.device), "gpu"),
        (AttributeKind(torch.memory_format), "float16"),
    ],
    ids=repr,
)
def test_another_kind_of_value_is_refused(kind: AttributeKind, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        kind.convert(value)


def test_torchs_numbers_are_those_of_its_schemas() -> None:
    kind = AttributeKind(torch.dtype)
    for value in (v for v in vars(torch).values() if type(v) is torch.dtype):
        name = str(value).removeprefix("torch.")
        schema = torch._C.parse_schema(f"t::op(ScalarType x={name}) -> ()")
        number = schema.arguments[0].default_value
        assert kind.encode(value).tolist() == [number]
        assert kind.convert(number) == value


def test_a_value_to_try_is_of_its_kind() -> None:
    for kind, _ in KINDS:
        assert holds(kind, kind.neutral())
