# SPDX-License-Identifier: BSD-3-Clause

"""An op's arguments that are not tensors, as plugin attributes: build-time constants.

TensorRT has scalar and one-dimensional attributes, and text. A list, and a value that
may be None, travel as one array: 1 and the values, or 0 for None; so it is never empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_tensorrt.annotation.errors import SpecError


def np_scalar_attr_annotation(dtype: Any) -> Any:
    """The annotation of a scalar plugin attribute: a one-element array of ``dtype``.

    ``numpy.typing.NDArray`` works only where it is not a type alias (NumPy < 2.5).
    """
    return np.ndarray[Any, np.dtype[dtype]]


_DTYPES: Mapping[type, Any] = {float: np.float64, int: np.int64, bool: np.bool_}
_DTYPES_OF_ARRAYS: Mapping[type, Any] = {**_DTYPES, bool: np.int64}


@dataclass(frozen=True)
class AttributeKind:
    """The type of one attribute.

    Attributes:
        element: float, int, bool or str.
        is_list: whether it holds several.
        is_optional: whether it may be None.
    """

    element: type
    is_list: bool = False
    is_optional: bool = False

    def __post_init__(self) -> None:
        if self.element not in (float, int, bool, str):
            raise SpecError(f"an attribute of {self.element} is not possible.")
        if self.element is str and (self.is_list or self.is_optional):
            raise SpecError("a text attribute can be neither a list nor None.")

    def __str__(self) -> str:
        name = self.element.__name__
        return (f"list of {name}" if self.is_list else name) + (
            " or None" if self.is_optional else ""
        )

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number; all else travels as several elements."""
        return not (self.element is str or self.is_list or self.is_optional)

    @property
    def annotation(self) -> Any:
        """As TensorRT's validators want it.

        Builtins would make it call ``int()`` on an array, which NumPy refuses.
        """
        if self.element is str:
            return str
        dtypes = _DTYPES if self.is_scalar else _DTYPES_OF_ARRAYS
        return np_scalar_attr_annotation(dtypes[self.element])

    def convert(self, value: Any) -> Any:
        """``value`` as this kind's Python value; NumPy's scalars are taken, too.

        Raises:
            TypeError: it is not such a value.
        """
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if value is None and self.is_optional:
            return None
        if not self.is_list:
            if isinstance(value, Sequence) and not isinstance(value, str):
                (value,) = value
            return self._element(value)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"{value!r} is not a {self}")
        return [self._element(item) for item in value]

    def _element(self, value: Any) -> Any:
        accepted = (float, int) if self.element is float else self.element
        if not isinstance(value, accepted):
            raise TypeError(f"{value!r} is not a {self}")
        return self.element(value)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` has exactly this kind: 1 is neither a float nor a bool."""
        if value is None:
            return self.is_optional
        if self.is_list:
            is_list = isinstance(value, list | tuple)
            return is_list and all(type(item) is self.element for item in value)
        return type(value) is self.element

    def encode(self, value: Any) -> Any:
        """What TensorRT is given: text, or a one-dimensional array."""
        if self.element is str:
            return value
        if self.is_scalar:
            return np.asarray([value], dtype=_DTYPES[self.element])
        values = [] if value is None else [1, *(value if self.is_list else [value])]
        return np.asarray(values or [0], dtype=_DTYPES_OF_ARRAYS[self.element])

    def decode(self, given: Any) -> Any:
        """The Python value of what TensorRT gives back; a scalar may come bare."""
        if self.element is str:
            return given
        values = np.atleast_1d(np.asarray(given)).tolist()
        if self.is_scalar:
            return self.element(values[0])
        if not values[0]:
            return None
        elements = [self.element(value) for value in values[1:]]
        return elements if self.is_list else elements[0]

    def neutral(self) -> Any:
        """A value to try the op with: None, a list of 1, 1, False or no text."""
        if self.is_optional:
            return None
        one = self.element(1) if self.element in (int, float) else self.element()
        return [one] if self.is_list else one
