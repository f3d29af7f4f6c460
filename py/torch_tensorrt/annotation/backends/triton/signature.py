"""A recorded launch as Triton's compiler takes it: types, constants, hints.

The choices are those of Triton's JIT: divisibility by 16 is told of each pointer and
integer that has it, the integer 1 is compiled in, floats and bools stay arguments.
TensorRT passes 32-bit integers: a float goes as the integer of its bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import sympy

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._launch import Constant, LaunchRecord, Pointer, Scalar
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._symbolic import Facts, facts, is_condition
from torch_tensorrt.annotation.errors import ArgumentError

_ALIGNMENT = 16
_INTEGERS = ("i32", "u32", "i64", "u64")
_BOOLS = ("u1", "i1")


@dataclass(frozen=True)
class Signature:
    """What ``ASTSource`` takes, and what TensorRT is to pass for the rest.

    Attributes:
        types: by parameter; ``"constexpr"`` for what is compiled in.
        constants: what is.
        hints: by parameter index.
        slots, extras: for the parameters that stay, in order.
        facts: the hints and constants, for people.
    """

    types: dict[str, str]
    constants: dict[str, Any]
    hints: dict[tuple[int], list[list[Any]]]
    slots: tuple[Slot, ...]
    extras: tuple[sympy.Expr, ...]
    facts: str

    @classmethod
    def of(cls, record: LaunchRecord, aligned: bool) -> Signature:
        """The signature of a recorded launch.

        Raises:
            ArgumentError: an argument cannot be passed by TensorRT.
        """
        builder = _Builder(record, aligned)
        parameters = zip(record.arguments, record.kernel.params, strict=True)
        for index, (argument, parameter) in enumerate(parameters):
            builder.add(index, argument, parameter)
        hints = {(i,): [["tt.divisibility", _ALIGNMENT]] for i in builder.divisible}
        return cls(
            builder.types,
            builder.constants,
            hints,
            tuple(builder.slots),
            tuple(builder.extras),
            " ".join(builder.told),
        )


class _Builder:
    def __init__(self, record: LaunchRecord, aligned: bool) -> None:
        self._record = record
        self._aligned = aligned
        self.types: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.divisible: list[int] = []
        self.slots: list[Slot] = []
        self.extras: list[sympy.Expr] = []
        self.told: list[str] = []

    def add(
        self, index: int, argument: Pointer | Scalar | Constant, parameter: Any
    ) -> None:
        if isinstance(argument, Pointer):
            self._add_pointer(index, argument, parameter)
        elif isinstance(argument, Scalar) and is_condition(argument.expr):
            self._add_condition(argument, parameter)
        elif isinstance(argument, Scalar):
            self._add_integer(index, argument, parameter)
        elif parameter.is_constexpr or argument.value is None:
            self._compile_in(argument.name, argument.value)
        else:
            bits = self._bits(argument, parameter)
            kind = "u1" if isinstance(argument.value, bool) else "fp32"
            self._pass(argument.name, kind, sympy.Integer(bits))

    def _add_pointer(self, index: int, argument: Pointer, parameter: Any) -> None:
        const = "k" if parameter.is_const else ""
        dtype = _dtypes.from_torch(argument.dtype).triton
        self.types[argument.name] = f"*{const}{dtype}"
        inputs = len(self._record.inputs)
        is_input = argument.tensor < inputs
        self.slots.append(
            Slot(Kind.INPUT, argument.tensor)
            if is_input
            else Slot(Kind.OUTPUT, argument.tensor - inputs)
        )
        self._tell(index, argument.name, parameter, self._aligned)

    def _add_integer(self, index: int, argument: Scalar, parameter: Any) -> None:
        known = facts(argument.expr, self._record.ranges)
        annotation = parameter.annotation_type or None
        if annotation == "fp32" and known.constant is not None:
            bits = _float_bits(float(known.constant))
            self._pass(argument.name, "fp32", sympy.Integer(bits))
            return
        if annotation not in (None, *_INTEGERS):
            raise self._refused(argument.name, annotation, "an integer")
        is_specialized = annotation is None and not parameter.do_not_specialize
        if is_specialized and known.constant == 1:
            self._compile_in(argument.name, 1)
            self.told.append(f"{argument.name}=1")
            return
        if not known.fits_int32:
            self._add_wide(argument, known)
            return
        self._pass(argument.name, annotation or "i32", argument.expr)
        self._tell(index, argument.name, parameter, known.divisor % _ALIGNMENT == 0)

    def _add_condition(self, argument: Scalar, parameter: Any) -> None:
        annotation = parameter.annotation_type or None
        if annotation not in (None, *_BOOLS):
            raise self._refused(argument.name, annotation, "a bool")
        self._pass(argument.name, "u1", argument.expr)

    def _add_wide(self, argument: Scalar, known: Facts) -> None:
        if known.constant is None:
            raise ArgumentError(
                f"kernel {self._record.name}, argument `{argument.name}`: "
                f"{argument.expr} reaches {known.upper} within the profile, and "
                "TensorRT passes 32-bit integers only. Narrow the profile, or pass the "
                "factors and multiply in the kernel."
            )
        self._compile_in(argument.name, known.constant)
        self.told.append(f"{argument.name}={known.constant}")

    def _compile_in(self, name: str, value: Any) -> None:
        self.types[name] = "constexpr"
        self.constants[name] = value

    def _pass(self, name: str, kind: str, expr: sympy.Expr) -> None:
        self.types[name] = kind
        self.slots.append(Slot(Kind.EXTRA, len(self.extras)))
        self.extras.append(expr)

    def _tell(self, index: int, name: str, parameter: Any, is_divisible: bool) -> None:
        unwanted = (
            parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
        )
        if is_divisible and not unwanted:
            self.divisible.append(index)
            self.told.append(f"{name}%{_ALIGNMENT}")

    def _bits(self, argument: Constant, parameter: Any) -> int:
        """The 32-bit integer whose bytes are the argument's."""
        annotation = parameter.annotation_type or None
        if isinstance(argument.value, bool) and annotation in (None, *_BOOLS):
            return int(argument.value)
        if type(argument.value) is float and annotation in (None, "fp32"):
            return _float_bits(argument.value)
        raise self._refused(argument.name, annotation, argument.type)

    def _refused(self, name: str, annotation: str | None, given: str) -> ArgumentError:
        declared = f"declared as {annotation}" if annotation else "not a tl.constexpr"
        return ArgumentError(
            f"kernel {self._record.name}, argument `{name}`: {declared}, and given "
            f"{given}. TensorRT passes 32-bit integers and floats, and bools: declare "
            "it so, or as tl.constexpr."
        )


def _float_bits(value: float) -> int:
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return int(bits)
