# SPDX-License-Identifier: BSD-3-Clause

"""A recorded launch as Triton's compiler takes it: types, constants, hints.

The choices follow Triton's JIT: the compiler learns which pointers and integers are
divisible by 16, the integer 1 is compiled in, floats and bools stay arguments. TensorRT
passes 32-bit integers: a float travels as the integer of its bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sympy
from triton._utils import canonicalize_dtype

from ..._code.ptx import find_entry, identifier
from ..._code.tensor_maps import MAP, Size, TensorMap, build, parameters
from ..._record.program import Descriptor
from ..._sizes.facts import is_condition
from ..._sizes.values import needs_one_value, only_value
from ..._tensors import DType
from ...errors import ArgumentError, DTypeError
from .. import Constant, Kind, Pointer, Program, Scalar, Slot
from ..abi import ALIGNMENT, Parameters
from .descriptors import decomposed, tensor_map

_INTEGERS = ("i32", "u32", "i64", "u64")
_BOOLS = ("u1", "i1")


class Signature(Parameters):
    """What ``ASTSource`` takes, and what TensorRT passes for the rest.

    Attributes:
        types: by parameter; ``"constexpr"`` for what is compiled in.
        constants: the values that are compiled in.
        hints: by parameter index.
        stand_ins: arguments in place of constants that follow the shape; ``constants``
            says when they do the same.

    Raises:
        ArgumentError: TensorRT cannot pass an argument.
    """

    def __init__(self, program: Program, aligned: bool) -> None:
        super().__init__(program, aligned)
        self.types: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.hints: dict[tuple[int], list[list[Any]]] = {}
        self.stand_ins: list[Scalar] = []
        launch = program.launch
        parameters = zip(launch.arguments, launch.kernel.params, strict=True)
        for index, (argument, parameter) in enumerate(parameters):
            if isinstance(argument, Descriptor):
                self._add_descriptor(argument)
            elif isinstance(argument, Pointer):
                self._add_pointer(index, argument, parameter)
            elif isinstance(argument, Scalar) and parameter.is_constexpr:
                self._add_size(index, argument, parameter)
            elif isinstance(argument, Scalar):
                self._add_scalar(index, argument, parameter)
            elif parameter.is_constexpr or argument.value is None:
                self._compile_in(argument.name, argument.value)
            else:
                self._add_constant(argument, parameter)

    def _add_pointer(self, index: int, argument: Pointer, parameter: Any) -> None:
        const = "k" if parameter.is_const else ""
        tensors: tuple[Any, ...] = (*self.program.inputs, *self.program.outputs)
        if argument.tensor < len(tensors):  # a hidden buffer may have any dtype
            DType.of(tensors[argument.tensor].dtype)
        try:
            dtype = canonicalize_dtype(str(argument.dtype))
        except KeyError as error:
            raise DTypeError(
                f"dtype {argument.dtype}: Triton has none. Convert it before the op."
            ) from error
        self.types[argument.name] = f"*{const}{dtype}"
        self.add_pointer(argument)
        is_aligned = self.alignment_of(argument) == ALIGNMENT
        self._tell(index, argument.name, parameter, is_aligned)

    def _add_descriptor(self, argument: Descriptor) -> None:
        """Its address, until it is expanded. Sizes that follow the shape are extras."""
        dtype = canonicalize_dtype(DType.of(argument.dtype).name)
        self.types[argument.name] = f"tensordesc<{dtype}{list(argument.block)}>"
        self.add_pointer(argument)
        for size in (*argument.shape, *argument.strides):
            if not size.is_Integer:
                self.size_of(argument, size)

    def size_of(self, argument: Descriptor, size: sympy.Expr) -> Size:
        """An extent or a stride of a descriptor: known, or an extra."""
        if size.is_Integer:
            return int(size)
        self.require_int32(argument.name, size, "make the dimensions static")
        return self._extra(size)

    def _extra(self, expr: sympy.Basic) -> Slot:
        if expr not in self.extras:
            self.extras.append(expr)
        return Slot(Kind.EXTRA, self.extras.index(expr))

    def expand(self, code: str, metadata: Any) -> dict[int, TensorMap]:
        """Give each descriptor the parameters that the compiler made of it.

        Args:
            code, metadata: the compiler's.

        Returns:
            For each parameter that is a tensor map, by number, what is in it.
        """
        launch, maps = self.program.launch, dict[int, TensorMap]()
        declared, body = parameters(code), code[find_entry(code).end() :]
        described = iter(getattr(metadata, "tensordesc_meta", None) or ())
        slots, self.slots = iter(self.slots), []
        for argument in launch.arguments:
            if argument.name in self.constants:
                continue
            at = len(self.slots)
            self.slots.append(next(slots))
            if not isinstance(argument, Descriptor):
                continue
            sizes: Sequence[sympy.Basic] = decomposed(argument)
            rank, end = len(argument.shape), at + 1 + len(sizes)
            if meta := next(described, None):
                size_of = partial(self.size_of, argument)
                maps[at] = tensor_map(launch.name, argument, meta, size_of)
                sizes, end = (*argument.shape, *argument.strides), at + 1 + 2 * rank
            types, names = zip(*declared[at:end], strict=True)
            if meta and types != (MAP, *["u32"] * rank, *["u64"] * rank):
                raise self.refused(
                    argument.name,
                    f"Triton passes a tensor descriptor as {types}, which is not known "
                    "here. Please report this, with the version of Triton.",
                )
            for name, size in zip(names[1:], sizes, strict=True):
                is_read = identifier(name).search(body)
                self.slots.append(self._extra(size) if is_read else Slot(Kind.UNUSED))
        return maps

    def with_maps(self, code: str, maps: Mapping[int, TensorMap]) -> tuple[str, int]:
        """Code that makes its tensor maps itself, and bytes of shared memory that it
        needs for that."""
        if not maps:
            return code, 0
        built = build(code, self.slots, maps, Slot(Kind.SCRATCH, len(self.scratch)))
        self.slots = list(built.slots)
        self.scratch += [built.size] if built.size else []
        return built.code, built.size

    def _add_size(self, index: int, argument: Scalar, parameter: Any) -> None:
        """A constant that may be an argument, and is one if it has several values."""
        only = only_value(argument.expr, self.program.ranges)
        if only is not None:
            self._compile_in(argument.name, only)
            return
        known = self.facts(argument.expr)
        if not known.fits_int32:
            why = needs_one_value(argument.name, argument.expr, self.program.ranges)
            raise self.refused(argument.name, why)
        self.stand_ins.append(argument)
        self.types[argument.name] = "i32"
        self.add_extra(argument.expr, argument.name)
        self._tell(index, argument.name, parameter, known.divisor % ALIGNMENT == 0)

    def _add_scalar(self, index: int, argument: Scalar, parameter: Any) -> None:
        name, annotation = argument.name, parameter.annotation_type or None
        if is_condition(argument.expr):
            if annotation not in (None, *_BOOLS):
                raise self._mistyped(name, annotation, "a bool")
            self.types[name] = "u1"
            self.add_extra(argument.expr, name)
            return
        known = self.facts(argument.expr)
        if annotation == "fp32" and known.constant is not None:
            self.types[name] = "fp32"
            self.add_float(name, float(known.constant))
            return
        if annotation not in (None, *_INTEGERS):
            raise self._mistyped(name, annotation, "an integer")
        is_specialized = annotation is None and not parameter.do_not_specialize
        if (is_specialized and known.constant == 1) or (
            known.constant is not None and not known.fits_int32
        ):
            self._compile_in(name, known.constant)
            self.told.append(f"{name}={known.constant}")
            return
        remedy = "pass the factors and multiply in the kernel"
        self.require_int32(name, argument.expr, remedy)
        self.types[name] = annotation or "i32"
        self.add_extra(argument.expr, name)
        self._tell(index, name, parameter, known.divisor % ALIGNMENT == 0)

    def _add_constant(self, argument: Constant, parameter: Any) -> None:
        """A float or a bool, which the JIT does not compile in."""
        annotation = parameter.annotation_type or None
        if isinstance(argument.value, bool) and annotation in (None, *_BOOLS):
            self.types[argument.name] = "u1"
            self.add_extra(sympy.Integer(int(argument.value)), argument.name)
        elif type(argument.value) is float and annotation in (None, "fp32"):
            self.types[argument.name] = "fp32"
            self.add_float(argument.name, argument.value)
        else:
            raise self._mistyped(argument.name, annotation, argument.type)

    def _compile_in(self, name: str, value: Any) -> None:
        self.types[name] = "constexpr"
        self.constants[name] = value

    def _tell(self, index: int, name: str, parameter: Any, is_divisible: bool) -> None:
        if is_divisible and not (
            parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
        ):
            self.hints[index,] = [["tt.divisibility", ALIGNMENT]]
            self.told.append(f"{name}%{ALIGNMENT}")

    def _mistyped(self, name: str, annotation: str | None, given: str) -> ArgumentError:
        declared = f"declared as {annotation}" if annotation else "not a tl.constexpr"
        return self.refused(
            name,
            f"{declared}, and given {given}. TensorRT passes 32-bit integers and "
            "floats, and bools: declare it so, or as tl.constexpr.",
        )
