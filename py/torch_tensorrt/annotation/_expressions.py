"""Stands in for TensorRT's native expression builder, which no Python can be given.

Its expressions remember how they were made, so that one pass of the builder's calls
gives the launch for every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

from torch_tensorrt.annotation._symbolic import Extent, Range

Extents: TypeAlias = tuple[tuple[int, ...], ...]


@cache
def _expression_class() -> Any:
    import tensorrt as trt

    class Expression(trt.IDimensionExpr):  # type: ignore[misc]
        """Made with ``__new__`` alone: the native part is an interface."""

        value: Callable[[Extents], int]
        constant: int | None

        def is_constant(self) -> bool:
            return self.constant is not None

        def get_constant_value(self) -> int | None:
            return self.constant

        def is_size_tensor(self) -> bool:
            return False

    return Expression


def _expression(value: Callable[[Extents], int], constant: int | None = None) -> Any:
    cls = _expression_class()
    expression = cls.__new__(cls)
    expression.value, expression.constant = value, constant
    return expression


@cache
def expression_builder() -> Any:
    import tensorrt as trt

    kind = trt.DimensionOperation
    operations: dict[Any, Callable[[int, int], int]] = {
        kind.SUM: lambda a, b: a + b,
        kind.PROD: lambda a, b: a * b,
        kind.SUB: lambda a, b: a - b,
        kind.MAX: max,
        kind.MIN: min,
        kind.FLOOR_DIV: lambda a, b: a // b,
        kind.CEIL_DIV: lambda a, b: -(-a // b),
        kind.EQUAL: lambda a, b: int(a == b),
        kind.LESS: lambda a, b: int(a < b),
    }

    class Builder:
        def constant(self, value: int) -> Any:
            return _expression(lambda _: value, value)

        def operation(self, operation: Any, first: Any, second: Any) -> Any:
            function = operations[operation]
            if first.constant is not None and second.constant is not None:
                return self.constant(function(first.constant, second.constant))
            return _expression(lambda e: function(first.value(e), second.value(e)))

    return Builder()


def dimensions(tensor: int, shape: Sequence[Extent]) -> list[Any]:
    def dimension(axis: int, extent: Extent) -> Any:
        known = None if isinstance(extent, Range) else extent
        return _expression(lambda extents: extents[tensor][axis], known)

    return [dimension(axis, extent) for axis, extent in enumerate(shape)]
