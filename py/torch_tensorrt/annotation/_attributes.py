# SPDX-License-Identifier: BSD-3-Clause

"""An op's arguments that are not tensors, as plugin attributes: build-time constants.

TensorRT has scalar and one-dimensional attributes, and text. A list, and a value that
may be None, travel as one array: 1 and the values, or 0 for None; so it is never empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def np_scalar_attr_annotation(dtype: Any) -> Any:
    """The annotation of a scalar plugin attribute: a one-element array of ``dtype``.

    ``numpy.typing.NDArray`` works only where it is not a type alias (NumPy < 2.5).
    """
    return np.ndarray[Any, np.dtype[dtype]]


_DTYPES = {float: np.float64, int: np.int64, bool: np.bool_}


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
        return np.int64 if is_listed_bool else _DTYPES[self.element]

    def convert(self, value: Any) -> Any:
        """``value`` as this kind's Python value; NumPy's scalars are taken, too.

        Raises:
            TypeError: it is not such a value.
        """
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if value is None and self.is_optional:
            return None
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        items = value if is_sequence else [value]
        accepted = (float, int) if self.element is float else self.element
        is_sound = is_sequence or not self.is_list
        if not is_sound or not all(isinstance(item, accepted) for item in items):
            raise TypeError(f"{value!r} is not a {self}")
        converted = [self.element(item) for item in items]
        if self.is_list:
            return converted
        (one,) = converted
        return one

    def holds(self, value: Any) -> bool:
        """Whether ``value`` has exactly this kind: 1 is neither a float nor a bool."""
        if value is None:
            return self.is_optional
        items = value if self.is_list else [value]
        is_list = isinstance(items, list | tuple)
        return is_list and all(type(item) is self.element for item in items)

    def encode(self, value: Any) -> Any:
        """What TensorRT is given: text, or a one-dimensional array."""
        if self.element is str:
            return value
        values = value if self.is_list and value is not None else [value]
        if not self.is_scalar:
            values = [0] if value is None else [1, *values]
        return np.asarray(values, dtype=self._dtype)

    def decode(self, given: Any) -> Any:
        """The Python value of what TensorRT gives back; a scalar may come bare."""
        if self.element is str:
            return given
        values = np.atleast_1d(given).tolist()
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
        one = self.element() if self.element in (bool, str) else self.element(1)
        return [one] if self.is_list else one
