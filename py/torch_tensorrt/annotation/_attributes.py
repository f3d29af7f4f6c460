# SPDX-License-Identifier: BSD-3-Clause

"""An op's arguments that are not tensors, as plugin attributes: build-time constants.

TensorRT has scalar and one-dimensional attributes, and text. A list, and a value that
may be None, travel as one array: 1 and the values, or 0 for None; so it is never empty.
What only torch has, such as a dtype, travels as torch's number of it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class ArrayAnnotation(types.GenericAlias):
    """The annotation of an array attribute, equal to every other spelling of it.

    TensorRT's validators want a function's annotations to be equal to those that its
    plugin was registered with. People, and versions of Torch-TensorRT, write
    ``np.ndarray[Any, np.dtype[...]]`` or ``npt.NDArray[...]``, which differ; and the
    latter is a type alias from NumPy 2.5 on.
    """

    def __eq__(self, other: object) -> bool:
        return array_dtype(other) is array_dtype(self)

    def __ne__(self, other: object) -> bool:  # GenericAlias has one of its own
        return not self == other

    def __hash__(self) -> int:
        return hash(array_dtype(self))


def np_scalar_attr_annotation(dtype: Any) -> Any:
    """The annotation of a scalar plugin attribute: a one-element array of ``dtype``."""
    return ArrayAnnotation(np.ndarray, (Any, np.dtype[dtype]))


def array_dtype(annotation: object) -> Any:
    """The dtype in an annotation of an array; None in any other annotation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is np.ndarray and len(arguments) == 2:
        return next(iter(typing.get_args(arguments[1])), None)
    return arguments[0] if arguments and origin is npt.NDArray else None


@dataclass(frozen=True)
class _Torchs:
    """A type of torch's that travels as a number.

    Attributes:
        to_number: raises ValueError for a value without one.
        of_number: raises ValueError for a number that stands for nothing.
        of_text: what a person writes; raises ValueError.
        neutral: a value to try an op with.
    """

    to_number: Callable[[Any], int]
    of_number: Callable[[int], Any]
    of_text: Callable[[str], Any]
    neutral: Any


# c10::ScalarType, in order. An engine may be read by another version of torch.
_DTYPE_NAMES = (
    *("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"),
    *("complex32", "complex64", "complex128", "bool", "qint8", "quint8", "qint32"),
    *("bfloat16", "quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2", "bits8"),
    *("bits16", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz"),
    *("float8_e4m3fnuz", "uint16", "uint32", "uint64", "uint1", "uint2", "uint3"),
    *("uint4", "uint5", "uint6", "uint7", "int1", "int2", "int3", "int4", "int5"),
    *("int6", "int7", "float8_e8m0fnu", "float4_e2m1fn_x2"),
)
# c10::MemoryFormat, in order.
_MEMORY_FORMAT_NAMES = (
    *("contiguous_format", "preserve_format", "channels_last", "channels_last_3d"),
)
# c10::DeviceType, in order, of what an op of an engine may be asked for.
_DEVICE_NAMES = ("cpu", "cuda")
_MOST_DEVICES = 1024


def _named(kind: type, names: Sequence[str], neutral: Any) -> _Torchs:
    """A type whose values are members of the module ``torch``."""

    def of_text(text: str) -> Any:
        value = getattr(torch, text.removeprefix("torch."), None)
        if not isinstance(value, kind):
            raise ValueError(f"{text!r} is not a {kind.__name__}")
        return value

    return _Torchs(
        to_number=lambda value: names.index(str(value).removeprefix("torch.")),
        of_number=lambda number: of_text(dict(enumerate(names)).get(number, "")),
        of_text=of_text,
        neutral=neutral,
    )


def _number_of_device(device: torch.device) -> int:
    index = -1 if device.index is None else device.index
    return _DEVICE_NAMES.index(device.type) * _MOST_DEVICES + index + 1


def _device_of_number(number: int) -> torch.device:
    type_, index = divmod(number, _MOST_DEVICES)
    return torch.device(_DEVICE_NAMES[type_], *([index - 1] if index else []))


def _device_of_text(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise ValueError(f"{text!r} is not a device") from error


# The only table of attribute kinds.
_DTYPES = {float: np.float64, int: np.int64, bool: np.bool_}
_TORCHS = {
    torch.dtype: _named(torch.dtype, _DTYPE_NAMES, torch.float16),
    torch.memory_format: _named(
        torch.memory_format, _MEMORY_FORMAT_NAMES, torch.contiguous_format
    ),
    torch.device: _Torchs(
        _number_of_device, _device_of_number, _device_of_text, torch.device("cuda")
    ),
}


@dataclass(frozen=True)
class AttributeKind:
    """The type of one attribute.

    Attributes:
        element: float, int, bool, str, torch.dtype, torch.device or
            torch.memory_format.
        is_list: whether it holds several.
        is_optional: whether it may be None.
    """

    element: type
    is_list: bool = False
    is_optional: bool = False

    def __str__(self) -> str:
        before = "list of " if self.is_list else ""
        return before + self.element.__name__ + (" or None" if self.is_optional else "")

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number; all else travels as several elements."""
        return not (self.element is str or self.is_list or self.is_optional)

    @property
    def annotation(self) -> Any:
        """As TensorRT's validators want it.

        Builtins would make it call ``int()`` on an array, which NumPy refuses.
        """
        return str if self.element is str else np_scalar_attr_annotation(self._dtype)

    @property
    def _dtype(self) -> Any:
        """Of the array. Several elements are led by a 1 or 0, which is not a bool."""
        is_listed_bool = self.element is bool and not self.is_scalar
        return np.int64 if is_listed_bool else _DTYPES.get(self.element, np.int64)

    @property
    def is_torchs(self) -> bool:
        """Whether its values are neither numbers nor text, but something of torch's."""
        return self.element in _TORCHS

    def convert(self, value: Any) -> Any:
        """``value`` as this kind's Python value; NumPy's scalars are taken, too.

        What is torch's may be given as its number, as schemas have defaults, or by its
        name.

        Raises:
            TypeError, ValueError: it is not such a value.
        """
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if value is None and self.is_optional:
            return None
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        items = value if is_sequence else [value]
        if self.is_torchs:
            items = list(map(self._as_torchs, items))
        accepted = (float, int) if self.element is float else self.element
        is_sound = is_sequence or not self.is_list
        if not is_sound or not all(isinstance(item, accepted) for item in items):
            raise TypeError(f"{value!r} is not a {self}")
        converted = list(items if self.is_torchs else map(self.element, items))
        if self.is_list:
            return converted
        (one,) = converted
        return one

    def _as_torchs(self, value: Any) -> Any:
        if type(value) is int:
            return _TORCHS[self.element].of_number(value)
        return _TORCHS[self.element].of_text(value) if type(value) is str else value

    def encode(self, value: Any) -> Any:
        """What TensorRT is given: text, or a one-dimensional array."""
        if self.element is str:
            return value
        values = value if self.is_list and value is not None else [value]
        if self.is_torchs and value is not None:
            values = list(map(_TORCHS[self.element].to_number, values))
        if not self.is_scalar:
            values = [0] if value is None else [1, *values]
        return np.asarray(values, dtype=self._dtype)

    def decode(self, given: Any) -> Any:
        """The Python value of what TensorRT gives back; a scalar may come bare."""
        if self.element is str:
            return given
        values = np.atleast_1d(given).tolist()
        element: Callable[[Any], Any] = self.element
        if self.is_torchs:
            element = _TORCHS[self.element].of_number
        if self.is_scalar:
            return element(values[0])
        if not values[0]:
            return None
        elements = [element(value) for value in values[1:]]
        return elements if self.is_list else elements[0]

    def neutral(self) -> Any:
        """A value to try the op with: None, a list of 1, 1, False, no text, float16."""
        if self.is_optional:
            return None
        if self.is_torchs:
            one = _TORCHS[self.element].neutral
            return [one] if self.is_list else one
        one = self.element() if self.element in (bool, str) else self.element(1)
        return [one] if self.is_list else one
