"""A recorded launch as cuTile's compiler takes it: constraints that always hold.

Scalars are typed as ``ct.launch`` types them. TensorRT passes 32-bit integers: a float
goes as the integer of its bits, and every extent and stride as an extra argument, also
a constant one, which keeps its parameter.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cuda.tile as ct
import sympy
from cuda.tile import compilation

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._launch import Constant, LaunchRecord, Pointer, Scalar
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._symbolic import (
    Facts,
    Ranges,
    bounds,
    facts,
    is_condition,
)
from torch_tensorrt.annotation.backends._cutile_launch import Tree
from torch_tensorrt.annotation.errors import ArgumentError


@dataclass(frozen=True)
class FactSet:
    """Which of the facts are told.

    Attributes:
        granule: bytes, up to which divisibility and alignment are told.
        constant_extents: whether constant extents are.
        tma: whether the compiler may make TMA loads, where the GPU has them. Without,
            it makes no ``cp.async`` either.
    """

    granule: int
    constant_extents: bool
    tma: bool


FACT_SETS = {
    "vector16": FactSet(granule=16, constant_extents=True, tma=False),
    # An address that is a multiple of 8 bytes rules TMA out by itself.
    "async8": FactSet(granule=8, constant_extents=True, tma=True),
    "strides": FactSet(granule=1, constant_extents=False, tma=True),
    "tma": FactSet(granule=16, constant_extents=True, tma=True),
}


@dataclass(frozen=True)
class Signature:
    """What ``KernelSignature`` takes, and what TensorRT is to pass.

    Attributes:
        parameters: a constraint for each parameter of the kernel.
        slots, extras: for the parameters of the entry, in order.
        facts: the hints and constants, for people.
    """

    parameters: tuple[Any, ...]
    slots: tuple[Slot, ...]
    extras: tuple[sympy.Expr, ...]
    facts: str

    @classmethod
    def of(cls, record: LaunchRecord, aligned: bool, told: FactSet) -> Signature:
        """The signature of a recorded launch.

        Raises:
            ArgumentError: an argument cannot be passed by TensorRT.
        """
        builder = _Builder(record, aligned, told)
        leaves = iter(
            [
                builder.add(argument, annotation)
                for argument, annotation in zip(
                    record.arguments, record.kernel.annotations, strict=True
                )
            ]
        )
        return cls(
            tuple(_assemble(tree, leaves) for tree in record.kernel.trees),
            tuple(builder.slots),
            tuple(builder.extras),
            " ".join(builder.told),
        )


def _assemble(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree is None:
        return next(leaves)
    return compilation.TupleConstraint([_assemble(branch, leaves) for branch in tree])


class _Builder:
    def __init__(self, record: LaunchRecord, aligned: bool, told: FactSet) -> None:
        self._record = record
        self._aligned = aligned
        self._set = told
        self._groups = Counter(
            self._alias_group(a) for a in record.arguments if isinstance(a, Pointer)
        )
        self.slots: list[Slot] = []
        self.extras: list[sympy.Expr] = []
        self.told: list[str] = []

    def add(self, argument: Pointer | Scalar | Constant, annotation: Any) -> Any:
        """The constraint of one argument."""
        if isinstance(argument, Pointer):
            return self._array(argument, annotation.array or ct.ArrayAnnotation())
        if isinstance(argument, Scalar):
            return self._integer(argument, annotation)
        value = argument.value
        if annotation.constant:
            try:
                return compilation.ConstantConstraint(value)
            except TypeError as error:
                raise self._refused(argument.name, value, "a constant") from error
        if isinstance(value, bool):
            return self._pass(ct.bool_, sympy.Integer(int(value)))
        if type(value) is float:
            return self._pass(ct.float32, sympy.Integer(_float_bits(value)))
        raise self._refused(argument.name, value, "an argument")

    def _array(self, pointer: Pointer, annotation: Any) -> Any:
        """Pointer, extents and strides: the parameters of an array, in that order."""
        inputs = len(self._record.inputs)
        self.slots.append(
            Slot(Kind.INPUT, pointer.tensor)
            if pointer.tensor < inputs
            else Slot(Kind.OUTPUT, pointer.tensor - inputs)
        )
        extents = self._known(pointer, "shape", pointer.shape)
        strides = self._known(pointer, "strides", pointer.strides)
        base = self._set.granule if self._aligned else 1
        if base > 1:
            self.told.append(f"{pointer.name}%{base}")
        unit = max(1, self._set.granule // pointer.dtype.itemsize)
        static = self._static(pointer, "shape", extents, annotation.static_shape_dims)
        self._static(pointer, "strides", strides, annotation.static_stride_dims)
        every = set(range(len(extents)))
        fixed = every if self._set.constant_extents else static
        shape = self._hints(f"{pointer.name}.shape", extents, unit, fixed)
        stride = self._hints(f"{pointer.name}.strides", strides, unit, every)
        group = self._alias_group(pointer)
        return compilation.ArrayConstraint(
            getattr(ct, _dtypes.from_torch(pointer.dtype).cutile),
            len(extents),
            index_dtype=annotation.index_dtype,
            stride_lower_bound_incl=0,
            alias_groups=(group,) if self._groups[group] > 1 else (),
            may_alias_internally=_may_overlap(pointer, self._record.ranges),
            stride_constant=stride.constants,
            shape_constant=shape.constants,
            stride_divisible_by=stride.divisors,
            shape_divisible_by=shape.divisors,
            base_addr_divisible_by=base,
        )

    def _known(
        self, pointer: Pointer, what: str, exprs: Sequence[sympy.Expr]
    ) -> list[Facts]:
        """The facts of extents or strides, which go as extra arguments."""
        known = [facts(expr, self._record.ranges) for expr in exprs]
        for axis, (expr, fact) in enumerate(zip(exprs, known, strict=True)):
            if fact.lower < 0 or not fact.fits_int32:
                raise ArgumentError(
                    f"kernel {self._record.name}, array `{pointer.name}`: "
                    f"{what}[{axis}], {expr}, runs from {fact.lower} to {fact.upper} "
                    "within the profile; TensorRT passes 32-bit integers only. Narrow "
                    "the profile, or pass a view with smaller extents."
                )
            self.slots.append(Slot(Kind.EXTRA, len(self.extras)))
            self.extras.append(expr)
        return known

    def _static(
        self, pointer: Pointer, what: str, known: Sequence[Facts], axes: Sequence[int]
    ) -> set[int]:
        """The axes that the kernel declares static, which are constants to it."""
        rank = len(known)
        for axis in axes:
            if -rank <= axis < rank and known[axis].constant is None:
                raise ArgumentError(
                    f"kernel {self._record.name}, array `{pointer.name}`: "
                    f"{what}[{axis % rank}] is declared static, and is not the same "
                    "for every shape of the profile. Make its dimension static."
                )
        return {axis % rank for axis in axes if -rank <= axis < rank}

    def _hints(
        self, what: str, known: Sequence[Facts], unit: int, fixed: set[int]
    ) -> _Hints:
        constants: list[int | None] = []
        divisors: list[int] = []
        for axis, fact in enumerate(known):
            constant = fact.constant if axis in fixed else None
            divisor = 1 if constant is not None else min(unit, fact.divisor)
            constants.append(constant)
            divisors.append(divisor)
            if constant is not None:
                self.told.append(f"{what}[{axis}]={constant}")
            elif divisor > 1:
                self.told.append(f"{what}[{axis}]%{divisor}")
        return _Hints(tuple(constants), tuple(divisors))

    def _alias_group(self, pointer: Pointer) -> str:
        """TensorRT may pass one tensor for several inputs; outputs are their own."""
        inputs = len(self._record.inputs)
        return "inputs" if pointer.tensor < inputs else f"tensor{pointer.tensor}"

    def _integer(self, argument: Scalar, annotation: Any) -> Any:
        known = facts(argument.expr, self._record.ranges)
        if not known.fits_int32:
            raise ArgumentError(
                f"kernel {self._record.name}, argument `{argument.name}`: "
                f"{argument.expr} reaches {known.upper} within the profile, and "
                "TensorRT passes 32-bit integers only. Narrow the profile, or compute "
                "it in the kernel from the arrays' shapes."
            )
        natural = ct.bool_ if is_condition(argument.expr) else ct.int32
        dtype = annotation.scalar.dtype if annotation.scalar else natural
        return self._pass(dtype, argument.expr)

    def _pass(self, dtype: Any, expr: sympy.Expr) -> Any:
        self.slots.append(Slot(Kind.EXTRA, len(self.extras)))
        self.extras.append(expr)
        return compilation.ScalarConstraint(dtype)

    def _refused(self, name: str, value: Any, role: str) -> ArgumentError:
        return ArgumentError(
            f"kernel {self._record.name}, argument `{name}`: cuTile does not take "
            f"{type(value).__name__} {value!r} for {role}. Pass a tensor, an int, a "
            "float or a bool, or name the value in the kernel itself."
        )


@dataclass(frozen=True)
class _Hints:
    constants: tuple[int | None, ...]
    divisors: tuple[int, ...]


def _may_overlap(pointer: Pointer, ranges: Ranges) -> bool:
    """Whether two indices may mean one element.

    They do not where each stride steps over all that the smaller ones reach.
    """
    axes = [
        (facts(stride, ranges).lower, -axis, stride, extent)
        for axis, (stride, extent) in enumerate(
            zip(pointer.strides, pointer.shape, strict=True)
        )
        if facts(extent, ranges).upper > 1
    ]
    reach: sympy.Expr = sympy.S.One
    for _, _, stride, extent in sorted(axes, key=lambda axis: axis[:2]):
        if bounds(sympy.expand(stride - reach), ranges)[0] < 0:
            return True
        reach = stride * extent
    return False


def _float_bits(value: float) -> int:
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return int(bits)
