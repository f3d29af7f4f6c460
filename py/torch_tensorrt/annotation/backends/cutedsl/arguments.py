"""What a launcher is called with while it is compiled.

It is called by a host function of our own. Every number that follows the shapes is an
argument of that, whatever expression it is: so the compiled code says of each value it
computes what it is in terms of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cutlass
import cutlass.cute as cute
import sympy
from cutlass.cute.runtime import make_fake_stream, make_ptr

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._launch import LaunchRecord, Pointer, Scalar
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._symbolic import INT32_MAX, bounds, facts
from torch_tensorrt.annotation.backends._cutedsl_launch import (
    Fixed,
    Leaf,
    Stream,
    Template,
)
from torch_tensorrt.annotation.backends._cutedsl_memory import Address, Value
from torch_tensorrt.annotation.backends._cutedsl_values import Comparison
from torch_tensorrt.annotation.errors import ArgumentError

ALIGNMENT = 16
_LARGEST_DIVISOR = 1024  # more gains nothing: no access is as wide


class HostArguments:
    """The arguments of the host function, found while its launcher's are taken apart.

    Attributes:
        samples: what CuTe DSL compiles for.
        values: what they are, in terms of the extents.
    """

    def __init__(self, record: LaunchRecord, aligned: bool) -> None:
        self._record = record
        self._aligned = aligned
        self._numbers: dict[tuple[sympy.Expr, str], Callable[..., Any]] = {}
        self.samples: list[Any] = []
        self.values: list[Value] = []
        self.tensors: dict[str, Slot] = {}
        self.told: list[str] = []

    def builder(self, template: Template, default: str = "Int32") -> Callable[..., Any]:
        """What makes, from the host function's arguments, one of the launcher's."""
        if isinstance(template, Stream):
            return self._add(make_fake_stream(), Address("stream"))
        if isinstance(template, tuple):
            items = [self.builder(item, "") for item in template]
            return lambda values: tuple(item(values) for item in items)
        argument = self._record.arguments[template.index]
        if isinstance(argument, Pointer):
            return self._tensor(argument, template)
        if isinstance(argument, Scalar):
            return self._number(argument, template.type or default)
        value = argument.value
        constant = value.value if isinstance(value, Fixed) else value
        if template.type is not None:
            typed = getattr(cutlass, template.type)
            return lambda values: typed(constant)
        return lambda values: constant

    def _add(self, sample: Any, value: Value) -> Callable[..., Any]:
        index = len(self.samples)
        self.samples.append(sample)
        self.values.append(value)
        return lambda values: values[index]

    def _tensor(self, argument: Pointer, leaf: Leaf) -> Callable[..., Any]:
        row = _dtypes.from_torch(argument.dtype)
        element = getattr(cutlass, leaf.type or row.cutedsl)
        stored = cutlass.Int8 if element is cutlass.Boolean else element
        alignment = ALIGNMENT if self._aligned else argument.dtype.itemsize
        if self._aligned:
            self.told.append(f"{argument.name}%{ALIGNMENT}")
        memory = cute.AddressSpace.gmem
        address = Address(f"tensor {len(self.samples)}")
        pointer = self._add(
            make_ptr(stored, ALIGNMENT, memory, assumed_align=alignment), address
        )
        inputs = len(self._record.inputs)
        self.tensors[address.object] = (
            Slot(Kind.INPUT, argument.tensor)
            if argument.tensor < inputs
            else Slot(Kind.OUTPUT, argument.tensor - inputs)
        )
        shape = [
            self._extent(extent, f"{argument.name}.shape[{axis}]")
            for axis, extent in enumerate(argument.shape)
        ]
        self._require_small(argument)
        strides = [
            self._extent(stride, f"{argument.name}.stride[{axis}]")
            for axis, stride in enumerate(argument.strides)
        ]

        def build(values: Sequence[Any]) -> Any:
            extents = tuple(extent(values) for extent in shape)
            steps = tuple(stride(values) for stride in strides)
            layout = cute.make_layout(extents, stride=steps)
            tensor = cute.make_tensor(pointer(values), layout)
            return type(tensor)(tensor.value, element)

        return build

    def _require_small(self, argument: Pointer) -> None:
        """CuTe DSL computes offsets in 32 bits, unless a stride has 64 of its own."""
        size = sympy.prod(argument.shape)
        upper = bounds(sympy.sympify(size), self._record.ranges)[1]
        if upper > INT32_MAX:
            raise ArgumentError(
                f"kernel {self._record.name}, argument `{argument.name}`: a tensor of "
                f"up to {upper} elements within the profile, whose offsets pass 32 "
                "bits. Narrow the profile, or split the tensor."
            )

    def _extent(self, expr: sympy.Expr, name: str) -> Callable[..., Any]:
        if expr.is_Integer:
            value = int(expr)
            return lambda values: value
        divisor = facts(expr, self._record.ranges).divisor
        if divisor > 1:
            self.told.append(f"{name}%{divisor}")
        return self._expression(expr, "Int32", name)

    def _number(self, argument: Scalar, type_: str) -> Callable[..., Any]:
        if argument.expr.is_Integer:
            value = int(argument.expr)
            typed = getattr(cutlass, type_) if type_ else int
            return lambda values: typed(value)
        if type_ == "Boolean":
            return self._add(cutlass.Boolean(True), Comparison.of(argument.expr))
        if type_ and not type_.lstrip("U").lower().startswith("int"):
            raise ArgumentError(
                f"kernel {self._record.name}, argument `{argument.name}`: a {type_} "
                f"that follows the shape ({argument.expr}). TensorRT passes 32-bit "
                "integers only: compute it inside the kernel."
            )
        return self._expression(argument.expr, type_ or "Int32", argument.name)

    def _expression(
        self, expr: sympy.Expr, type_: str, name: str
    ) -> Callable[..., Any]:
        """An argument for ``expr``; one serves for all that are equal."""
        known = facts(expr, self._record.ranges)
        if not known.fits_int32:
            raise ArgumentError(
                f"kernel {self._record.name}, argument `{name}`: {expr} reaches "
                f"{known.upper} within the profile, and TensorRT passes 32-bit "
                "integers only. Narrow the profile, or make the dimension static."
            )
        if (expr, type_) not in self._numbers:
            typed = getattr(cutlass, type_)
            plain = self._add(typed(1), expr)
            divisor = min(known.divisor, _LARGEST_DIVISOR)
            self._numbers[expr, type_] = (
                (lambda values: cute.assume(plain(values), divby=divisor))
                if divisor > 1
                else plain
            )
        return self._numbers[expr, type_]
