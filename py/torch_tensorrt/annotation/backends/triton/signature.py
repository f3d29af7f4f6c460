# SPDX-License-Identifier: BSD-3-Clause

"""A recorded launch as Triton's compiler takes it: types, constants, hints.

The choices follow Triton's JIT: the compiler learns which pointers and integers are
divisible by 16, the integer 1 is compiled in, floats and bools stay arguments. TensorRT
passes 32-bit integers: a float travels as the integer of its bits.
"""

from __future__ import annotations

from typing import Any

import sympy
from triton._utils import canonicalize_dtype

from ..._sizes.facts import is_condition
from ..._tensors import DType
from ...errors import ArgumentError
from .. import Constant, Pointer, Program, Scalar
from ..abi import ALIGNMENT, Parameters

_INTEGERS = ("i32", "u32", "i64", "u64")
_BOOLS = ("u1", "i1")


class Signature(Parameters):
    """What ``ASTSource`` takes, and what TensorRT passes for the rest.

    Attributes:
        types: by parameter; ``"constexpr"`` for what is compiled in.
        constants: the values that are compiled in.
        hints: by parameter index.

    Raises:
        ArgumentError: TensorRT cannot pass an argument.
    """

    def __init__(self, program: Program, aligned: bool) -> None:
        super().__init__(program, aligned)
        self.types: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.hints: dict[tuple[int], list[list[Any]]] = {}
        launch = program.launch
        parameters = zip(launch.arguments, launch.kernel.params, strict=True)
        for index, (argument, parameter) in enumerate(parameters):
            if isinstance(argument, Pointer):
                self._add_pointer(index, argument, parameter)
            elif isinstance(argument, Scalar):
                self._add_scalar(index, argument, parameter)
            elif parameter.is_constexpr or argument.value is None:
                self._compile_in(argument.name, argument.value)
            else:
                self._add_constant(argument, parameter)

    def _add_pointer(self, index: int, argument: Pointer, parameter: Any) -> None:
        const = "k" if parameter.is_const else ""
        dtype = canonicalize_dtype(DType.of(argument.dtype).name)
        self.types[argument.name] = f"*{const}{dtype}"
        self.add_pointer(argument)
        is_aligned = self.alignment_of(argument) == ALIGNMENT
        self._tell(index, argument.name, parameter, is_aligned)

    def _add_scalar(self, index: int, argument: Scalar, parameter: Any) -> None:
        name, annotation = argument.name, parameter.annotation_type or None
        if is_condition(argument.expr):
            if annotation not in (None, *_BOOLS):
                raise self._mistyped(name, annotation, "a bool")
            self.types[name] = "u1"
            self.add_extra(argument.expr)
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
        self.add_extra(argument.expr)
        self._tell(index, name, parameter, known.divisor % ALIGNMENT == 0)

    def _add_constant(self, argument: Constant, parameter: Any) -> None:
        """A float or a bool, which the JIT does not compile in."""
        annotation = parameter.annotation_type or None
        if isinstance(argument.value, bool) and annotation in (None, *_BOOLS):
            self.types[argument.name] = "u1"
            self.add_extra(sympy.Integer(int(argument.value)))
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
