# SPDX-License-Identifier: BSD-3-Clause

"""Rewrite the entry of CuTe DSL's PTX to take what TensorRT passes.

A CuTe tensor reaches a kernel as one parameter: a struct of its address, extents and
strides. The host launcher, executed on expressions, says what is in each field. So each
load from such a parameter becomes the load of one of TensorRT's arguments, or a
constant: as many instructions, and as many registers, as before.

The invariant: a destination register holds the same bits as before. Therefore a load
must read exactly one field; a field of 64 bits takes an argument of 32, sign-extended,
whose value is proved to fit; and a parameter that is used in any other way than by such
loads is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import sympy

from torch_tensorrt.annotation._code.ptx import find_entry, identifier
from torch_tensorrt.annotation.backends import Kind, Parameters, Slot
from torch_tensorrt.annotation.backends.abi import unsupported
from torch_tensorrt.annotation.backends.cutedsl.arithmetic import Unknown, show
from torch_tensorrt.annotation.backends.cutedsl.host import Address, Cell, HostLaunch
from torch_tensorrt.annotation.errors import PTXError

_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z]+(?P<bits>\d+)[^,]*?\s+"
    r"(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?"
)
_LOAD = re.compile(
    r"(?P<guard>@!?%\w+\s+)?ld\.param(?:::entry)?(?:\.v[248])?\.(?P<type>[a-z]+\d+)\s+"
    r"(?P<to>\{[^}]*\}|%\w+),\s*\[(?P<name>[\w$]+)(?:\+(?P<offset>\d+))?\];"
)
_ENTRY = re.compile(r"\.visible\s+\.entry\s+(?P<name>[\w$]+)[^{]*\{")
_BRACE = re.compile(r"[{}]")
_ALIGNED = re.compile(r"\.param\s+\.align\s+(\d+)")
_TENSOR_MAP = 64  # the alignment of one: a parameter's is 16 bytes at most otherwise


def require_no_tensor_maps(code: str, kernel: str) -> None:
    """Raise for parameters that only a CUDA driver can fill.

    Raises:
        UnsupportedKernelError: there is one.
    """
    alignments = map(int, _ALIGNED.findall(code))
    if max(alignments, default=0) >= _TENSOR_MAP or "cp.async.bulk.tensor" in code:
        raise unsupported(
            kernel,
            "it takes a tensor map (TMA), which TensorRT does not make. Load with "
            "cp.async or plain loads.",
        )


def rewrite(code: str, launch: HostLaunch, parameters: Parameters) -> str:
    """The launched kernel's code, with an entry that takes inputs, extras and outputs.

    Args:
        launch: says what the launcher puts into each of the old entry's parameters.
        parameters: those of the new entry are added to it.

    Raises:
        UnsupportedKernelError: the kernel reads a field that nothing can fill.
        ArgumentError: a field can pass 32 bits.
        PTXError: the code is not what is expected.
    """
    code = _keep_entry(code, launch.kernel)
    match, kernel = find_entry(code), parameters.program.launch.name
    names = _names(match["parameters"], launch, kernel)
    fields = dict(zip(names, launch.parameters, strict=True))
    loads = _Loads(fields, parameters)
    body = _LOAD.sub(loads.replaced, code[match.end() :])
    if any(identifier(name).search(body) for name in names):
        raise unsupported(
            kernel,
            "it takes the address of a parameter, as it does of a tensor map, or of a "
            "tuple that it indexes at run time. TensorRT passes plain values only.",
        )
    declared = ",\n\t".join(
        f".param .{'u32' if slot.kind is Kind.EXTRA else 'u64'} {_name(slot)}"
        for slot in parameters.slots
    )
    header = f".visible .entry {match['name']}(\n\t{declared}\n){match['directives']}{{"
    return code[: match.start()] + header + body


def _keep_entry(code: str, entry: str) -> str:
    """``code`` without its other entries, which a launcher chose not to launch."""
    kept, end, found = [], 0, False
    for match in _ENTRY.finditer(code):
        if match["name"] == entry:
            found = True
            continue
        kept.append(code[end : match.start()])
        end, depth = match.end(), 1
        while depth:
            brace = _BRACE.search(code, end)
            if brace is None:
                raise PTXError("the braces of the compiled code do not match.")
            depth += 1 if brace[0] == "{" else -1
            end = brace.end()
    if not found:
        raise PTXError(f"the launcher launches {entry}, which its code lacks.")
    return "".join((*kept, code[end:]))


def _names(text: str, launch: HostLaunch, kernel: str) -> tuple[str, ...]:
    """The names of the declared parameters, which are as large as their fields."""
    found = [_PARAMETER.fullmatch(part.strip()) for part in text.split(",")]
    declared = [match for match in found if match is not None]
    sizes = [int(p["count"] or 1) * int(p["bits"]) // 8 for p in declared]
    ends = [max(at + cell.size for at, cell in p.items()) for p in launch.parameters]
    if len(sizes) != len(ends) or any(
        not end <= size < end + 8 for size, end in zip(sizes, ends, strict=True)
    ):
        raise PTXError(
            f"kernel {kernel}: the entry takes {text.strip()}, and its launcher passes "
            f"parameters of {ends} bytes. Please report this, with the kernel."
        )
    return tuple(p["name"] for p in declared)


def _name(slot: Slot) -> str:
    return f"tta_{slot.kind.value}_{slot.index}"


class _Loads:
    """Replaces loads; the arguments they need become the new entry's parameters.

    Args:
        fields: of each old parameter, by offset.
    """

    def __init__(
        self, fields: Mapping[str, Mapping[int, Cell]], parameters: Parameters
    ) -> None:
        self._fields = fields
        self._parameters = parameters
        self._kernel = parameters.program.launch.name

    def replaced(self, match: re.Match[str]) -> str:
        """One load, which may have several destinations."""
        if match["name"] not in self._fields:
            return match[0]  # of the result of a function that the kernel calls
        size = int(re.sub(r"\D", "", match["type"])) // 8
        start = int(match["offset"] or 0)
        return "\n\t".join(
            (match["guard"] or "")
            + self._one(to.strip(), match, start + index * size, size)
            for index, to in enumerate(match["to"].strip("{}").split(","))
        )

    def _one(self, to: str, load: re.Match[str], offset: int, size: int) -> str:
        name, kind = load["name"], load["type"]
        field = self._fields[name].get(offset)
        if field is None or field.size != size:
            raise PTXError(
                f"kernel {self._kernel}: it reads {size} bytes at {name}+{offset}, and "
                f"the launcher writes {field.size if field else 'none'} there. Please "
                "report this."
            )
        value = field.value
        if isinstance(value, Address):
            return f"ld.param.u64 {to}, [{self._tensor(value)}];"
        if isinstance(value, Unknown):
            raise unsupported(
                self._kernel,
                f"its launcher passes it {show(value)}. TensorRT passes sums, products,"
                " quotients, max and min of extents: narrow the profile, or compute it "
                "inside the kernel.",
            )
        if value.is_Integer:
            bits = 8 * size
            number = int(value) % 2**bits
            if kind.startswith("s") and number >= 2 ** (bits - 1):
                number -= 2**bits
            return f"mov.b{max(bits, 16)} {to}, {number};"
        if size == 8:  # a destination may be wider than what is loaded
            kind = "s32"
        return f"ld.param.{kind} {to}, [{self._extra(value, name)}];"

    def _tensor(self, address: Address) -> str:
        """The parameter that holds an address."""
        slot, offset = address.object, address.offset
        if not isinstance(slot, Slot) or offset != 0:
            where = f" {offset} bytes into a tensor" if isinstance(slot, Slot) else ""
            raise unsupported(
                self._kernel,
                f"its launcher passes it an address{where} that is not a tensor's "
                "start. An engine passes tensors alone: offset them in the kernel.",
            )
        return self._take(slot)

    def _extra(self, expr: sympy.Basic, name: str) -> str:
        """The parameter that holds a number; a condition is 0 or 1."""
        parameters = self._parameters
        remedy = "pass the factors and multiply in the kernel"
        parameters.require_int32(name, expr, remedy)
        if expr not in parameters.extras:
            parameters.extras.append(expr)
        return self._take(Slot(Kind.EXTRA, parameters.extras.index(expr)))

    def _take(self, slot: Slot) -> str:
        if slot not in self._parameters.slots:
            self._parameters.slots.append(slot)
        return _name(slot)
