# SPDX-License-Identifier: BSD-3-Clause

"""What a launcher is called with while it is compiled.

A host function of our own calls it. The invariant: every number that follows the shapes
is an argument of that function, whatever expression it is, and everything else is
compiled in. So what the compiled host code computes, it computes from values whose
expressions are known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import cutlass
import cutlass.cute as cute
import sympy
from cutlass.base_dsl.typing import Integer, Numeric
from cutlass.cute.runtime import make_fake_stream, make_ptr

from ..._sizes.facts import is_condition
from ..._tensors import INT32_MAX
from .. import Parameters, Pointer, Scalar
from ..abi import ALIGNMENT
from . import launch
from .arithmetic import Unknown
from .host import Address, Value

_LARGEST_DIVISOR = 1024  # more gains nothing: no access is as wide

# Makes an argument of the launcher's from those of the host function.
Builder: TypeAlias = Callable[[Sequence[Any]], Any]


class HostArguments:
    """The arguments of the host function, found while its launcher's are taken apart.

    Args:
        parameters: of the kernel; the facts that the compiler gets are added to it.
        is_static: numbers that are known are compiled in; otherwise 0 and 1 alone.

    Attributes:
        samples: what CuTe DSL compiles for.
        values: what they are, in terms of the extents.
        compiled_in: whether a number other than 0 and 1 is.
    """

    def __init__(self, parameters: Parameters, is_static: bool = True) -> None:
        self._parameters, self._is_static = parameters, is_static
        self._numbers: dict[tuple[sympy.Basic, type[Numeric]], Builder] = {}
        self.samples: list[Any] = []
        self.values: list[Value] = []
        self.compiled_in = False

    def builder(self, template: launch.Template) -> Builder:
        """What makes one argument of the launcher's."""
        if template is launch.STREAM:
            return self._add(make_fake_stream(), Address("stream"))
        if isinstance(template, tuple):
            return _together(map(self.builder, template))
        if isinstance(template, launch.Record):
            cls = template.cls
            members = {name: self.builder(each) for name, each in template.fields}
            return lambda values: cls(**{n: b(values) for n, b in members.items()})
        argument = self._parameters.program.launch.arguments[template.index]
        if isinstance(argument, Pointer):
            return self._tensor(argument, template)
        if isinstance(argument, Scalar):
            return self._number(argument.expr, template.kind, argument.name)
        value, kind = argument.value, template.kind
        constant = value.value if isinstance(value, launch.Fixed) else value
        return lambda values: kind(constant) if kind else constant

    def _add(self, sample: Any, value: Value) -> Builder:
        index = len(self.samples)
        self.samples.append(sample)
        self.values.append(value)
        return lambda values: values[index]

    def _tensor(self, argument: Pointer, template: launch.Leaf) -> Builder:
        element: Any = template.kind
        size = sympy.sympify(sympy.prod(argument.shape))
        # CuTe DSL computes offsets in 32 bits, unless a stride has 64 of its own.
        if (upper := self._parameters.facts(size).upper) > INT32_MAX:
            raise self._parameters.refused(
                argument.name,
                f"a tensor of up to {upper} elements within the profile, whose offsets "
                "pass 32 bits. Narrow the profile, or split the tensor.",
            )
        alignment = argument.dtype.itemsize
        if self._parameters.aligned:
            alignment = self._parameters.alignment_of(argument)
            self._parameters.told.append(f"{argument.name}%{alignment}")
        stored = cutlass.Int8 if element is cutlass.Boolean else element
        memory = cute.AddressSpace.gmem
        sample = make_ptr(stored, ALIGNMENT, memory, assumed_align=alignment)
        pointer = self._add(sample, Address(self._parameters.address_of(argument)))
        if template.is_address:
            return pointer
        shape = self._numbers_of(argument.shape, f"{argument.name}.shape")
        strides = self._numbers_of(argument.strides, f"{argument.name}.stride")

        def build(values: Sequence[Any]) -> Any:
            layout = cute.make_layout(shape(values), stride=strides(values))
            tensor = cute.make_tensor(pointer(values), layout)
            return type(tensor)(tensor.value, element)

        return build

    def _numbers_of(self, sizes: Sequence[sympy.Basic], name: str) -> Builder:
        return _together(
            self._number(size, None, f"{name}[{axis}]")
            for axis, size in enumerate(sizes)
        )

    def _number(self, expr: sympy.Basic, kind: Any, name: str) -> Builder:
        """A number; where ``kind`` is None, an Int32, or a static int.

        One argument of the host function serves for all that are equal.
        """
        if expr.is_Integer and (self._is_static or expr in (0, 1)):
            self.compiled_in |= expr not in (0, 1)
            value, make = int(expr), kind or int
            return lambda values: make(value)
        if kind is cutlass.Boolean:
            unknown = Unknown(f"{expr} as a condition")
            return self._add(kind(True), expr if is_condition(expr) else unknown)
        if kind is not None and not issubclass(kind, Integer):
            raise self._parameters.refused(
                name,
                f"a {kind.__name__} that follows the shape ({expr}). TensorRT passes "
                "32-bit integers only: compute it inside the kernel.",
            )
        kind = kind or cutlass.Int32
        known = self._parameters.require_int32(name, expr, "make the dimension static")
        limit = 2 ** (kind.width - 1)
        if known.lower < -limit or known.upper >= (limit if kind.signed else 2 * limit):
            raise self._parameters.refused(
                name,
                f"{expr} leaves the range of {kind.__name__} within the profile. "
                "Narrow the profile, or declare a wider type.",
            )
        divisor = min(known.divisor, _LARGEST_DIVISOR)
        if divisor > 1:
            self._parameters.told.append(f"{name}%{divisor}")
        plain = self._numbers.get((expr, kind)) or self._add(kind(1), expr)
        self._numbers[expr, kind] = plain
        if divisor == 1:
            return plain
        return lambda values: cute.assume(plain(values), divby=divisor)


def _together(builders: Iterable[Builder]) -> Builder:
    """Makes a tuple of what each makes."""
    items = list(builders)
    return lambda values: tuple(item(values) for item in items)
