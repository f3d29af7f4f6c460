# SPDX-License-Identifier: BSD-3-Clause

"""A recorded launch as cuTile's compiler takes it: constraints that always hold.

The entry of a kernel takes, for each array in the kernel's argument order, a pointer,
then the extents, then the strides; a constant extent or stride keeps its parameter. A
scalar is one parameter, of the type that ``ct.launch`` gives it. A compile-time
constant has none. TensorRT passes everything but the pointers as extra arguments.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import cuda.tile as ct
import sympy
import torch
from cuda.tile import compilation

from ..._code.tensor_maps import build
from ..._sizes.facts import is_condition
from ...errors import DTypeError
from .. import Kind, Parameters, Pointer, Program, Scalar, Slot
from . import FactSet
from .host_maps import HiddenMap
from .launch import Notes


class Signature(Parameters):
    """The parameters of the entry, and what the compiler knows about the kernel's.

    Args:
        program, aligned: as in any :class:`Parameters`.
        fact_set: which of the proved facts the compiler gets.

    Attributes:
        constraints: for each parameter of the kernel, what ``KernelSignature`` takes.

    Raises:
        ArgumentError: TensorRT cannot pass an argument.
        DTypeError: cuTile has no such dtype.
    """

    def __init__(self, program: Program, aligned: bool, fact_set: FactSet) -> None:
        super().__init__(program, aligned)
        self._set, launch = fact_set, program.launch
        pointers = (a for a in launch.arguments if isinstance(a, Pointer))
        self._sharing = Counter(map(self._alias_group, pointers))
        rest = iter(launch.arguments)
        self.constraints = [self._add(note, rest) for note in launch.kernel.parameters]

    def _add(self, note: Notes, rest: Iterator[Any]) -> Any:
        """The constraint of the next argument, or of as many as make up a tuple."""
        if isinstance(note, tuple):
            return compilation.TupleConstraint([self._add(each, rest) for each in note])
        argument = next(rest)
        if isinstance(argument, Pointer):
            return self._add_array(argument, note.array or ct.ArrayAnnotation())
        if isinstance(argument, Scalar):
            remedy = "compute it in the kernel from the arrays' shapes"
            self.require_int32(argument.name, argument.expr, remedy)
            self.add_extra(argument.expr, argument.name)
            natural = ct.bool_ if is_condition(argument.expr) else ct.int32
            dtype = note.scalar.dtype if note.scalar else natural
            return compilation.ScalarConstraint(dtype)
        value = argument.value
        if note.constant:
            with contextlib.suppress(TypeError):  # raised where cuTile has no such kind
                return compilation.ConstantConstraint(value)
        elif isinstance(value, bool):
            self.add_extra(sympy.Integer(int(value)), argument.name)
            return compilation.ScalarConstraint(ct.bool_)
        elif type(value) is float:
            self.add_float(argument.name, value)
            return compilation.ScalarConstraint(ct.float32)
        raise self.refused(
            argument.name,
            f"cuTile does not take {argument.type} {value!r} here. Pass a tensor, an "
            "int, a float or a bool, or name the value in the kernel itself.",
        )

    def _add_array(self, pointer: Pointer, note: Any) -> Any:
        """Pointer, extents and strides: the parameters of an array, in that order."""
        self.add_pointer(pointer)
        base = min(self._set.granule, self.alignment_of(pointer))
        if base > 1:
            self.told.append(f"{pointer.name}%{base}")
        tells_extents = self._set.constant_extents
        shape = self._add_axes(pointer, "shape", note.static_shape_dims, tells_extents)
        strides = self._add_axes(pointer, "strides", note.static_stride_dims, True)
        group = self._alias_group(pointer)
        return compilation.ArrayConstraint(
            _dtype(pointer.dtype),
            len(pointer.shape),
            index_dtype=note.index_dtype,
            stride_lower_bound_incl=0,  # torch has no negative strides
            alias_groups=(group,) if self._sharing[group] > 1 else (),
            may_alias_internally=self._may_overlap(pointer),
            stride_constant=[constant for constant, _ in strides],
            shape_constant=[constant for constant, _ in shape],
            stride_divisible_by=[divisor for _, divisor in strides],
            shape_divisible_by=[divisor for _, divisor in shape],
            base_addr_divisible_by=base,
        )

    def _add_axes(
        self, pointer: Pointer, what: str, static: Sequence[int], tells_constants: bool
    ) -> list[tuple[int | None, int]]:
        """Pass extents or strides, and tell what is known about them.

        Args:
            what: ``"shape"`` or ``"strides"``.
            static: axes that the kernel declares static. It takes them for constants,
                so the compiler gets them with any fact set.

        Returns:
            For each axis the constant, if there is one to tell, and a divisor.
        """
        exprs = getattr(pointer, what)
        rank, hints = len(exprs), []
        declared = {axis % rank for axis in static if -rank <= axis < rank}
        unit = max(1, self._set.granule // pointer.dtype.itemsize)
        for axis, expr in enumerate(exprs):
            name = f"{pointer.name}.{what}[{axis}]"
            known = self.require_int32(name, expr, "pass a view with smaller extents")
            self.add_extra(expr, name)
            constant = known.constant if tells_constants or axis in declared else None
            if axis in declared and constant is None:
                raise self.refused(
                    name,
                    "it is declared static, and is not the same for every shape of the "
                    "profile. Make its dimension static.",
                )
            divisor = min(unit, known.divisor) if constant is None else 1
            if constant is not None:
                self.told.append(f"{name}={constant}")
            elif divisor > 1:
                self.told.append(f"{name}%{divisor}")
            hints.append((constant, divisor))
        return hints

    def with_maps(self, code: str, maps: Sequence[HiddenMap]) -> str:
        """Code that makes the maps which it takes behind the other parameters."""
        if not maps:
            return code
        own = len(self.slots)
        self.slots += [self.slots[each.tensor] for each in maps]
        fields = {own + index: each.fields for index, each in enumerate(maps)}
        built = build(code, self.slots, fields, Slot(Kind.SCRATCH, 0))
        self.slots = list(built.slots)
        self.scratch += [built.size] if built.size else []
        return built.code

    def _alias_group(self, pointer: Pointer) -> str:
        """TensorRT may pass one tensor for several inputs; an output has its own."""
        slot = self.slot_of(pointer)
        return "inputs" if slot.kind is Kind.INPUT else f"output{slot.index}"

    def _may_overlap(self, pointer: Pointer) -> bool:
        """Whether two indices may reach one element.

        They cannot where, from the smallest stride up, each stride steps over all that
        the smaller ones reach. An axis that always has extent 1 reaches nothing.
        """
        axes = [a for a, n in enumerate(pointer.shape) if self.facts(n).upper > 1]
        lower = [self.facts(stride).lower for stride in pointer.strides]
        reach: sympy.Expr = sympy.S.One
        for axis in sorted(axes, key=lambda axis: (lower[axis], -axis)):
            stride = pointer.strides[axis]
            if self.facts(sympy.expand(stride - reach)).lower < 0:
                return True
            reach = stride * pointer.shape[axis]
        return False


def _dtype(dtype: torch.dtype) -> Any:
    """cuTile's dtype: it has torch's name, except for bool.

    A view may have one that TensorRT lacks, such as an 8-bit float of a uint8 tensor.
    """
    name = str(dtype).removeprefix("torch.")
    found = getattr(ct, "bool_" if name == "bool" else name, None)
    if not isinstance(found, ct.DType):
        raise DTypeError(f"dtype {dtype}: cuTile has none. Convert it before the op.")
    return found
