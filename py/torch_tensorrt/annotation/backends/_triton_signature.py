"""A recorded launch as Triton's compiler takes it: types, constants, hints.

The choices are those of Triton's JIT: divisibility by 16 is told of each pointer and
integer that has it, and the integer 1 is compiled in.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._launch import Constant, LaunchRecord, Pointer, Scalar
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._symbolic import Facts, facts
from torch_tensorrt.annotation.errors import ArgumentError

_ALIGNMENT = 16


@dataclass(frozen=True)
class Signature:
    """A record as ``ASTSource`` takes it, with what TensorRT passes for the rest."""

    types: dict[str, str]
    constants: dict[str, Any]
    hints: dict[tuple[int], list[list[Any]]]
    slots: tuple[Slot, ...]
    extras: tuple[Any, ...]
    facts: str

    @classmethod
    def of(cls, record: LaunchRecord, aligned: bool) -> Signature:
        types: dict[str, str] = {}
        constants: dict[str, Any] = {}
        divisible: list[int] = []
        slots: list[Slot] = []
        extras: list[Any] = []
        told: list[str] = []
        for index, (argument, parameter) in enumerate(
            zip(record.arguments, record.kernel.params, strict=True)
        ):
            if isinstance(argument, Constant):
                types[argument.name] = "constexpr"
                constants[argument.name] = _constant(argument, parameter)
                continue
            if isinstance(argument, Pointer):
                types[argument.name] = _pointer_type(argument, parameter)
                slots.append(_pointer_slot(argument, len(record.inputs)))
                is_divisible = aligned
            else:
                known = facts(argument.expr, record.ranges)
                if (value := _baked(argument, parameter, record, known)) is not None:
                    types[argument.name] = "constexpr"
                    constants[argument.name] = value
                    told.append(f"{argument.name}={value}")
                    continue
                types[argument.name] = parameter.annotation_type or "i32"
                slots.append(Slot(Kind.EXTRA, len(extras)))
                extras.append(argument.expr)
                is_divisible = known.divisor % _ALIGNMENT == 0
            if is_divisible and _is_specialized(parameter):
                divisible.append(index)
                told.append(f"{argument.name}%{_ALIGNMENT}")
        hints = {(i,): [["tt.divisibility", _ALIGNMENT]] for i in divisible}
        return cls(types, constants, hints, tuple(slots), tuple(extras), " ".join(told))


def _constant(argument: Constant, parameter: Any) -> Any:
    """The value to compile in: what Triton's JIT would pass, rounded as it would be."""
    value = argument.value
    is_runtime = isinstance(value, float) and not parameter.is_constexpr
    if is_runtime and parameter.annotation_type in (None, "", "fp32"):
        return ctypes.c_float(value).value
    return value


def _pointer_type(argument: Pointer, parameter: Any) -> str:
    const = "k" if parameter.is_const else ""
    return f"*{const}{_dtypes.from_torch(argument.dtype).triton}"


def _pointer_slot(argument: Pointer, inputs: int) -> Slot:
    if argument.tensor < inputs:
        return Slot(Kind.INPUT, argument.tensor)
    return Slot(Kind.OUTPUT, argument.tensor - inputs)


def _is_specialized(parameter: Any) -> bool:
    return not (parameter.do_not_specialize or parameter.do_not_specialize_on_alignment)


def _baked(
    argument: Scalar, parameter: Any, record: LaunchRecord, known: Facts
) -> int | float | None:
    """The constant to compile in for an integer argument; None to pass it as an extra.

    Triton's JIT compiles in the integer 1, and so does this. A constant that is no
    32-bit integer to the kernel is compiled in because TensorRT could not pass it.
    """
    where = f"kernel {record.name}, argument `{argument.name}`"
    annotation = parameter.annotation_type or None
    if annotation in (None, "i32", "u32") and known.fits_int32:
        specialized = annotation is None and not parameter.do_not_specialize
        return 1 if specialized and known.constant == 1 else None
    if known.constant is not None:
        is_float = annotation is not None and annotation[:2] in ("fp", "bf")
        return float(known.constant) if is_float else known.constant
    if not known.fits_int32:
        raise ArgumentError(
            f"{where}: {argument.expr} reaches {known.upper} within the profile, and "
            "TensorRT passes 32-bit integers only. Narrow the profile, or pass the "
            "factors and multiply in the kernel."
        )
    raise ArgumentError(
        f"{where}: declared as {annotation}, and TensorRT passes 32-bit integers only. "
        "Drop the annotation and convert in the kernel."
    )
