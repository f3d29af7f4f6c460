"""Rewrite the entry of CuTe DSL's PTX to take what TensorRT passes.

A CuTe tensor reaches a kernel as one parameter: a struct of its address, extents and
strides. Each load from such a parameter becomes the load of an argument of TensorRT's,
or a constant: as many instructions, and as many registers, as before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from torch_tensorrt.annotation import _ptx
from torch_tensorrt.annotation._ptx import Kind, Parameter, Slot
from torch_tensorrt.annotation._symbolic import Ranges, facts
from torch_tensorrt.annotation.backends._cutedsl_memory import Address, Field
from torch_tensorrt.annotation.backends._cutedsl_values import (
    Comparison,
    Number,
    Unknown,
    show,
)
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    PTXError,
    UnsupportedKernelError,
)

_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>[a-z]+\d+)[^,]*?\s+"
    r"(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?"
)
_ENTRY = re.compile(r"\.visible\s+\.entry\s+(?P<name>[\w$]+)[^{]*\{")
_ALIGNED = re.compile(r"\.param\s+\.align\s+(\d+)")
_TENSOR_MAP = 64  # the alignment of one: a parameter's is 16 bytes at most otherwise


@dataclass(frozen=True)
class Rewritten:
    """An entry whose parameters are scalars.

    Attributes:
        slots: for each parameter, what TensorRT is to pass.
        extras: the values of the extra arguments.
    """

    code: str
    slots: tuple[Slot, ...]
    extras: tuple[sympy.Basic, ...]


def require_no_tensor_maps(code: str, kernel: str) -> None:
    """Raise for parameters that only a CUDA driver can fill.

    Raises:
        UnsupportedKernelError: there is one.
    """
    alignments = map(int, _ALIGNED.findall(code))
    if max(alignments, default=0) >= _TENSOR_MAP or "cp.async.bulk.tensor" in code:
        raise UnsupportedKernelError(
            f"kernel {kernel}: it takes a tensor map (TMA), which TensorRT does not "
            "make. Load with cp.async or plain loads."
        )


def keep_entry(code: str, entry: str) -> str:
    """``code`` without its other entries, which a launcher chose not to launch.

    Raises:
        PTXError: it has no such entry.
    """
    kept, end, found = [], 0, False
    for match in _ENTRY.finditer(code):
        stop = _closing_brace(code, match.end())
        if match["name"] == entry:
            found = True
            continue
        kept.append(code[end : match.start()])
        end = stop
    if not found:
        raise PTXError(f"the launcher launches {entry}, which its code lacks.")
    return "".join((*kept, code[end:]))


def _closing_brace(code: str, start: int) -> int:
    """Where what is open at ``start`` is closed."""
    depth = 1
    for brace in re.compile("[{}]").finditer(code, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    raise PTXError("the braces of the compiled code do not match.")


def rewrite(
    code: str,
    parameters: Sequence[Sequence[Field]],
    tensors: Mapping[str, Slot],
    ranges: Ranges,
    kernel: str,
) -> Rewritten:
    """``code`` with its parameters, field by field, as inputs, extras and outputs.

    Args:
        parameters: what the launcher puts into each of them.
        tensors: which tensor starts at an address, by the address's object.
        kernel: how errors name it.

    Raises:
        UnsupportedKernelError: the kernel reads a field that nothing can fill.
        ArgumentError: a field can pass 32 bits.
        PTXError: the code is not what is expected.
    """
    match = _ptx.find_entry(code)
    names = _names(match["parameters"], parameters, kernel)
    arguments = _Arguments(tensors, ranges, kernel)
    body = code[match.end() :]
    for name, fields in zip(names, parameters, strict=True):
        body = _Loads(name, {f.offset: f for f in fields}, arguments).replace(body)
    declared = ",\n\t".join(f"{parameter}" for parameter in arguments.parameters)
    header = f".visible .entry {match['name']}(\n\t{declared}\n){match['directives']}{{"
    return Rewritten(
        code[: match.start()] + header + body,
        tuple(arguments.slots),
        tuple(arguments.extras),
    )


def _names(
    text: str, parameters: Sequence[Sequence[Field]], kernel: str
) -> tuple[str, ...]:
    declared = [_PARAMETER.fullmatch(part.strip()) for part in text.split(",")]
    if not text.strip():
        declared = []
    sizes = [
        int(p["count"]) if p["count"] else int(re.sub(r"\D", "", p["type"])) // 8
        for p in declared
        if p is not None
    ]
    ends = [max(f.offset + f.size for f in fields) for fields in parameters]
    if len(sizes) != len(parameters) or any(
        not end <= size < end + 8 for size, end in zip(sizes, ends, strict=True)
    ):
        raise PTXError(
            f"kernel {kernel}: the entry takes {text.strip()}, and its launcher passes "
            f"parameters of {ends} bytes. Please report this, with the kernel."
        )
    return tuple(p["name"] for p in declared if p is not None)


class _Arguments:
    """The new entry's parameters, in the order in which loads ask for them."""

    def __init__(
        self, tensors: Mapping[str, Slot], ranges: Ranges, kernel: str
    ) -> None:
        self._tensors = tensors
        self._ranges = ranges
        self.kernel = kernel
        self.slots: list[Slot] = []
        self.extras: list[sympy.Basic] = []

    @property
    def parameters(self) -> list[Parameter]:
        return [
            Parameter("u32" if slot.kind is Kind.EXTRA else "u64", _name(slot))
            for slot in self.slots
        ]

    def tensor(self, address: Address) -> str:
        """The parameter that holds an address."""
        slot = self._tensors.get(address.object)
        if slot is None or address.offset != 0:
            where = f" {address.offset} bytes into a tensor" if slot else ""
            raise UnsupportedKernelError(
                f"kernel {self.kernel}: its launcher passes it an address{where} that "
                "is no tensor's start. An engine passes tensors alone: offset them in "
                "the kernel."
            )
        return self._take(slot)

    def extra(self, expr: sympy.Basic) -> str:
        """The parameter that holds a number; a condition is 0 or 1."""
        known = facts(expr, self._ranges)
        if not known.fits_int32:
            raise ArgumentError(
                f"kernel {self.kernel}: {expr} reaches {known.upper} within the "
                "profile, and TensorRT passes 32-bit integers only. Narrow the "
                "profile, or pass the factors and multiply in the kernel."
            )
        if expr not in self.extras:
            self.extras.append(expr)
        return self._take(Slot(Kind.EXTRA, self.extras.index(expr)))

    def _take(self, slot: Slot) -> str:
        if slot not in self.slots:
            self.slots.append(slot)
        return _name(slot)


def _name(slot: Slot) -> str:
    return f"tta_{slot.kind.value}_{slot.index}"


class _Loads:
    """The loads from one old parameter."""

    def __init__(
        self, name: str, fields: Mapping[int, Field], arguments: _Arguments
    ) -> None:
        self._name = name
        self._fields = fields
        self._arguments = arguments

    def replace(self, body: str) -> str:
        """``body`` without the parameter.

        Raises:
            UnsupportedKernelError: it is used otherwise than by loads.
        """
        name = re.escape(self._name)
        load = re.compile(
            r"(?P<guard>@!?%\w+\s+)?ld\.param(?:::entry)?(?:\.v[248])?\.(?P<type>[a-z]+\d+)\s+"
            rf"(?P<to>\{{[^}}]*\}}|%\w+),\s*\[{name}(?:\+(?P<offset>\d+))?\];"
        )
        result = load.sub(self._replaced, body)
        if _ptx.identifier(self._name).search(result):
            raise UnsupportedKernelError(
                f"kernel {self._arguments.kernel}: it takes the address of a "
                "parameter, as it does of a tensor map, or of a tuple that it indexes "
                "at run time. TensorRT passes plain values only."
            )
        return result

    def _replaced(self, match: re.Match[str]) -> str:
        size = int(re.sub(r"\D", "", match["type"])) // 8
        offset = int(match["offset"] or 0)
        targets = [to.strip() for to in match["to"].strip("{}").split(",")]
        loads = (
            (match["guard"] or "") + self._one(to, match["type"], offset + i * size)
            for i, to in enumerate(targets)
        )
        return "\n\t".join(loads)

    def _one(self, to: str, type_: str, offset: int) -> str:
        field, size = self._fields.get(offset), int(re.sub(r"\D", "", type_)) // 8
        if field is None or field.size != size:
            raise PTXError(
                f"kernel {self._arguments.kernel}: it reads {size} bytes at "
                f"{self._name}+{offset}, and the launcher writes "
                f"{field.size if field else 'none'} there. Please report this."
            )
        if isinstance(field.value, Address):
            return f"ld.param.u64 {to}, [{self._arguments.tensor(field.value)}];"
        expr = self._known(field.value)
        if getattr(expr, "is_Integer", False):
            value = int(expr) % 2 ** (8 * size)
            if type_.startswith("s") and value >= 2 ** (8 * size - 1):
                value -= 2 ** (8 * size)
            return f"mov.b{max(8 * size, 16)} {to}, {value};"
        extra = self._arguments.extra(expr)
        if size == 8:  # a destination may be wider than what is loaded
            return f"ld.param.s32 {to}, [{extra}];"
        return f"ld.param.{type_} {to}, [{extra}];"

    def _known(self, value: Number) -> sympy.Basic:
        if isinstance(value, Comparison):
            return value.condition
        if isinstance(value, Unknown):
            raise UnsupportedKernelError(
                f"kernel {self._arguments.kernel}: its launcher passes it "
                f"{show(value)}. TensorRT passes sums, products, quotients, max and "
                "min of extents: narrow the profile, or compute it inside the kernel."
            )
        return value
