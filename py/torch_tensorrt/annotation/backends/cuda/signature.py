# SPDX-License-Identifier: BSD-3-Clause

"""The arguments of a launch, as the parameters that the kernel declares take them.

What a parameter is stands in two places: its size in the PTX entry, and its type in the
mangled name of a variable of the kernel's type. The host passes a number in the type
that its library gives it, and the kernel reads as many bytes as it declares. Where the
two do not fit, the kernel would read something else than what was passed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sympy
import torch

from ..._code.ptx import Entry, Kind, Parameter, Slot
from ..._record.program import Argument
from ..._sizes.expressions import shown
from ...errors import ArgumentError
from .. import Constant, Parameters, Pointer, Program, Scalar
from .entry import double, integer


@dataclass(frozen=True)
class CType:
    """The type of a parameter.

    Attributes:
        name: of the type, ``"float"``; of what a pointer points to.
        is_pointer: whether it is a pointer.
    """

    name: str
    is_pointer: bool = False

    def __str__(self) -> str:
        return f"{self.name}*" if self.is_pointer else self.name

    @property
    def host(self) -> str:
        """NumPy's name of the type; empty where it has none."""
        return "" if self.is_pointer else _HOSTS.get(self.name, "")


_BUILTIN = {
    "v": "void", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char",
    "s": "short", "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long",
    "m": "unsigned long", "x": "long long", "y": "unsigned long long", "f": "float",
    "d": "double",
}  # fmt: skip
_HOSTS = {
    "bool": "bool", "char": "int8", "signed char": "int8", "unsigned char": "uint8",
    "short": "int16", "unsigned short": "uint16", "int": "int32",
    "unsigned int": "uint32", "long": "int64", "unsigned long": "uint64",
    "long long": "int64", "unsigned long long": "uint64", "float": "float32",
    "double": "float64",
}  # fmt: skip
_PROBE = re.compile(r"_Z\d+(tta_signature)IPFv(.*)EE")
_FUNCTION = re.compile(r"_Z(\d+)(.*)")

# What a kernel reads floats as is what the tensor holds. Integers of one size are often
# read as others, and packs of them too.
_FLOATS = {
    "float": torch.float32,
    "double": torch.float64,
    "__half": torch.float16,
    "__nv_bfloat16": torch.bfloat16,
    "__nv_fp8_e4m3": torch.float8_e4m3fn,
    "__nv_fp8_e5m2": torch.float8_e5m2,
}


def parameter_types(mangled: str, count: int) -> tuple[CType | None, ...]:
    """The types that a mangled name says; None for each that it does not.

    Args:
        mangled: of :data:`.nvrtc.Compiled.signature`, or of an entry.
        count: of the parameters that there are.
    """
    if probe := _PROBE.fullmatch(mangled):
        types = _Demangler(probe[2], ["tta_signature"]).types()
    elif (function := _FUNCTION.fullmatch(mangled)) and int(function[1]) < len(
        function[2]
    ):
        types = _Demangler(function[2][int(function[1]) :], []).types()
    else:
        types = []
    return tuple(types) if len(types) == count else (None,) * count


class _Demangler:
    """Reads the types of a mangled name (Itanium C++ ABI), as far as kernels have them.

    Args:
        known: what ``S_``, ``S0_``, ... stand for already.
    """

    def __init__(self, text: str, known: list[str]) -> None:
        self._text, self._at = text, 0
        self._known: list[str] = known

    def types(self) -> list[CType | None]:
        """All types; none where one is not understood."""
        found: list[CType | None] = []
        while self._at < len(self._text):
            if (name := self._type()) is None:
                return []
            if name != "void":
                found.append(_as_type(name))
        return found

    def _type(self) -> str | None:
        """The next type: ``"const float*"``; None where it is not understood."""
        letter = self._text[self._at : self._at + 1]
        if letter in _BUILTIN:
            self._at += 1
            return _BUILTIN[letter]
        if letter == "S":
            return self._substitution()
        if letter.isdigit():
            return self._new(self._name())
        if letter in ("P", "K", "V", "r") and letter:
            self._at += 1
            if (inner := self._type()) is None:
                return None
            suffix = {"P": "*", "K": " const", "V": " volatile", "r": ""}[letter]
            return self._new(inner + suffix)
        return None

    def _new(self, name: str) -> str:
        self._known.append(name)
        return name

    def _name(self) -> str:
        length = re.match(r"\d+", self._text[self._at :])
        assert length is not None, "it starts with a digit"
        start = self._at + length.end()
        self._at = start + int(length[0])
        return self._text[start : self._at]

    def _substitution(self) -> str | None:
        found = re.match(r"S([0-9A-Z]*)_", self._text[self._at :])
        if found is None:
            return None
        index = int(found[1], 36) + 1 if found[1] else 0
        self._at += found.end()
        return self._known[index] if index < len(self._known) else None


def _as_type(name: str) -> CType | None:
    name = name.removesuffix(" const")
    pointee = name.removesuffix("*")
    plain = re.sub(r" (?:const|volatile)\b", "", pointee)
    return CType(plain, is_pointer=pointee != name)


class Signature(Parameters):
    """The parameters of the entry.

    Args:
        program, aligned: as in any :class:`Parameters`.
        entry: of the kernel's code.
        types: of its parameters, where they are known.
        arguments: of the launch, without its geometry.
        hosts: the types that the host gives them.
        library: that passes them.

    Attributes:
        constants: for :func:`.entry.baked`.

    Raises:
        ArgumentError: TensorRT cannot pass an argument, or it does not fit.
    """

    def __init__(
        self,
        program: Program,
        aligned: bool,
        entry: Entry,
        types: Sequence[CType | None],
        arguments: Sequence[Argument],
        hosts: Sequence[str],
        library: str,
    ) -> None:
        super().__init__(program, aligned)
        self.constants: dict[str, tuple[str, str]] = {}
        self._library = library or "CUDAKernel"
        if len(arguments) != len(entry.parameters):
            declared = ", ".join(
                str(t or p) for t, p in zip(types, entry.parameters, strict=True)
            )
            raise ArgumentError(
                f"kernel {program.launch.name}: it takes {len(entry.parameters)} "
                f"arguments ({declared}), and was launched with {len(arguments)}."
            )
        for each in zip(arguments, entry.parameters, types, hosts, strict=True):
            self._add(*each)

    def _add(
        self,
        argument: Argument,
        parameter: Parameter,
        declared: CType | None,
        host: str,
    ) -> None:
        name, size = argument.name, _size(parameter)
        takes_pointer = declared.is_pointer if declared else size == 8
        if isinstance(argument, Pointer):
            if size != 8 or not takes_pointer or parameter.type == "f64":
                self._misfit(name, "a tensor", declared or parameter)
            self._require_type(argument, declared)
            self.add_pointer(argument)
            return
        value = argument.value if isinstance(argument, Constant) else None
        if isinstance(argument, Constant) and value is None:
            if size != 8 or not takes_pointer:
                self._misfit(name, "None", declared or parameter)
            self._bake(parameter, integer(0))
            return
        if declared is not None and declared.is_pointer:
            self._misfit(
                name,
                f"{value!r}" if isinstance(argument, Constant) else "a number",
                declared,
            )
        self._require_host(name, host, parameter, declared)
        is_float = _is_float(parameter, declared, value)
        if isinstance(argument, Scalar):
            self._add_number(argument, parameter, declared, is_float)
        elif isinstance(value, bool):
            number = Scalar(name, sympy.Integer(int(value)))
            self._add_number(number, parameter, declared, is_float)
        elif isinstance(value, float) and is_float:
            self._add_real(name, value, parameter)
        else:
            self._misfit(name, f"{argument.type} {value!r}", declared or parameter)

    def _add_real(self, name: str, value: float, parameter: Parameter) -> None:
        if _size(parameter) == 8:
            self._bake(parameter, double(value))
        else:
            self.add_float(name, value)

    def _add_number(
        self,
        scalar: Scalar,
        parameter: Parameter,
        declared: CType | None,
        is_float: bool,
    ) -> None:
        """An integer, or a condition, whatever type it becomes."""
        name, expr = scalar.name, scalar.expr
        if is_float:
            if not expr.is_Integer:
                raise self.refused(
                    name,
                    f"{shown(expr)} follows a dynamic size, and the kernel takes "
                    f"{declared or parameter}. TensorRT passes 32-bit integers only: "
                    "let the kernel take an int, and convert it there.",
                )
            self._add_real(name, float(int(expr)), parameter)
            return
        size, known = _size(parameter), self.facts(expr)
        is_signed = not (declared and declared.host.startswith("u"))
        lower, upper = _range(size, declared, is_signed)
        if not (lower <= known.lower and known.upper <= upper):
            worst = known.lower if known.lower < lower else known.upper
            raise self.refused(
                name,
                f"{shown(expr)} reaches {worst} within the profile, which "
                f"{declared or parameter} of {size} bytes does not hold. Narrow the "
                "profile, or declare a larger type.",
            )
        if expr.is_Integer and not known.fits_int32:
            if size == 8:
                self._bake(parameter, integer(int(expr)))
                return
            expr = expr - 2**32  # the same 32 bits
        self.require_int32(name, expr, "make the dimension static")
        self.add_extra(expr, name)

    def _bake(self, parameter: Parameter, operand: tuple[str, str]) -> None:
        self.slots.append(Slot(Kind.UNUSED))
        self.constants[parameter.name] = operand

    def _require_type(self, pointer: Pointer, declared: CType | None) -> None:
        """A kernel reads floats as what they are."""
        wanted = _FLOATS.get(declared.name) if declared else None
        holds_floats = pointer.dtype.is_floating_point
        reads_integers = declared is not None and declared.name in ("int", "long long")
        if (wanted or pointer.dtype) != pointer.dtype or (
            holds_floats and reads_integers
        ):
            raise self.refused(
                pointer.name,
                f"the kernel takes {declared}, and the tensor holds "
                f"{str(pointer.dtype).removeprefix('torch.')}. Launch the kernel of "
                "the tensor's type (a template, with T=x.dtype), convert the tensor, "
                "or pass it as what the kernel reads, x.view(dtype).",
            )

    def _require_host(
        self, name: str, host: str, parameter: Parameter, declared: CType | None
    ) -> None:
        """The bytes that the host passes are those that the kernel reads."""
        if not host:
            return
        size = _size(parameter)
        is_float = parameter.type.startswith("f") or (
            declared is not None and declared.host.startswith("float")
        )
        given = 1 if host == "bool" else int(re.sub(r"\D", "", host)) // 8
        fits = given == size if is_float else given >= size
        if fits and is_float == host.startswith("float"):
            return
        raise self.refused(
            name,
            f"{self._library} passes it as {host}, {given} bytes, and the kernel reads "
            f"{declared or parameter} of {size} bytes: it would read something else. "
            "Declare the parameter as what is passed, or pass it in its type "
            f"({_remedy(self._library, declared)}).",
        )

    def _misfit(self, name: str, what: str, declared: CType | Parameter) -> None:
        raise self.refused(
            name, f"the kernel takes {declared} there, and the launch passes {what}."
        )


def _remedy(library: str, declared: CType | None) -> str:
    host = (declared.host if declared else "") or "int32"
    if library == "torch":
        return "torch passes int32 and float64 only; tta.CUDAKernel converts"
    return f"np.{host}(...)"


def _size(parameter: Parameter) -> int:
    return int(re.sub(r"\D", "", parameter.type)) // 8


def _is_float(parameter: Parameter, declared: CType | None, value: object) -> bool:
    if declared is not None and declared.host:
        return declared.host.startswith("float")
    is_untyped = parameter.type in ("b32", "b64")
    return parameter.type.startswith("f") or (is_untyped and isinstance(value, float))


def _range(size: int, declared: CType | None, is_signed: bool) -> tuple[int, int]:
    """What a parameter of so many bytes holds; both kinds, where it is not known."""
    if declared is not None and declared.name == "bool":
        return 0, 1
    bits = 8 * size
    unsigned = 2**bits - 1
    signed = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if declared is None or not declared.host:
        return signed[0], unsigned
    return signed if is_signed else (0, unsigned)
