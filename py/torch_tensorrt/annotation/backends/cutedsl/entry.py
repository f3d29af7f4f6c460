# SPDX-License-Identifier: BSD-3-Clause

"""A launch of CuTe DSL's as TensorRT can make it: its sizes, and its kernel's entry.

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
from collections.abc import Mapping, Sequence

import sympy

from ..._code import ptx
from ..._sizes.facts import bounds, is_condition
from ...errors import PTXError, UnsupportedKernelError
from .. import Kind, Slot, abi
from . import host
from .arithmetic import Unknown, show
from .choices import Choice

_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z]+(?P<bits>\d+)[^,]*?\s+"
    r"(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?\s*(?:,|\Z)"
)
_LOAD = re.compile(
    r"(?P<guard>@!?%\w+\s+)?ld\.param(?:::entry)?(?:\.v[248])?"
    r"\.(?P<type>[a-z]+(?P<bits>\d+))\s+(?P<to>\{[^}]*\}|%\w+),\s*"
    r"\[(?P<name>[\w$]+)(?:\+(?P<offset>\d+))?\];"
)
_ALIGNED = re.compile(r"\.param\s+\.align\s+(\d+)")
# Of cudaLaunchAttributeID; the others say with 1 that a launch is special.
_CLUSTER = 4
_SPECIAL = {2: "cooperative", 6: "programmatic dependent"}
_TENSOR_MAP = 64  # the alignment of one: a parameter's is 16 bytes at most otherwise


def require_no_tensor_maps(code: str, kernel: str) -> None:
    """Raise for parameters that only a CUDA driver can fill.

    Raises:
        UnsupportedKernelError: there is one.
    """
    alignments = map(int, _ALIGNED.findall(code))
    if max(alignments, default=0) >= _TENSOR_MAP or "cp.async.bulk.tensor" in code:
        raise abi.unsupported(
            kernel,
            "it takes a tensor map (TMA), which TensorRT does not make. Load with "
            "cp.async or plain loads.",
        )


def bind(
    code: str,
    launches: Sequence[host.HostLaunch],
    parameters: abi.Parameters,
    ptxas: str,
) -> abi.CompiledKernel:
    """The launched kernel, with an entry that takes inputs, extras and outputs.

    Args:
        launches: those of the launcher; there must be one.
        parameters: those of the new entry are added to it.

    Raises:
        UnsupportedKernelError: TensorRT cannot make the launch, or the kernel reads a
            field that nothing can fill.
        ArgumentError: a field can pass 32 bits.
        PTXError: the code is not what is expected.
    """
    binding, name = _Binding(parameters), parameters.program.launch.name
    if not launches:
        raise binding.unsupported(
            "its launcher launches nothing for this profile. CuTe DSL's launchers do "
            "so where a kernel asks for more shared memory than the GPU has."
        )
    if len(launches) > 1:
        raise binding.unsupported(
            f"its launcher launches {len(launches)} kernels. A plugin is one launch: "
            "register an op for each kernel, or fuse them."
        )
    (launch,) = launches
    cluster = (1, 1, 1)
    for key, words in launch.attributes.items():
        if key == _CLUSTER:
            x, y, z = (binding.constant(word, "its cluster") for word in words)
            cluster = x, y, z
        elif words[0] != 0:
            kind = _SPECIAL.get(key, f"special ({key})")
            raise abi.unlaunchable(name, f"it is a {kind} launch")
    x, y, z = (binding.known(size, "the grid") for size in launch.grid)
    size = binding.constant(launch.shared_memory, "its dynamic shared memory")
    code = binding.rewrite(_keep_entry(code, launch.kernel), launch.parameters)
    return abi.CompiledKernel(
        code=code,
        slots=tuple(parameters.slots),
        extras=tuple(parameters.extras),
        grid=(x, y, z),
        block=binding.block(launch.block),
        shared_memory=size,
        ptxas=ptxas,
        facts=" ".join(parameters.told),
        cluster=cluster,
        names=tuple(parameters.names),
    )


def _keep_entry(code: str, entry: str) -> str:
    """``code`` without its other entries, which a launcher chose not to launch."""
    entries = {match["name"]: match for match in ptx.ENTRY.finditer(code)}
    if entries.pop(entry, None) is None:
        raise PTXError(f"the launcher launches {entry}, which its code lacks.")
    kept, end = "", 0
    for other in entries.values():
        kept += code[end : other.start()]
        end = ptx.closing_brace(code, other.end()) + 1
    return kept + code[end:]


def _name(slot: Slot) -> str:
    name = f"tta_{slot.kind.value}_{slot.index}"
    factor = "" if slot.factor is None else f"x{slot.factor}"
    return f"{name}_at_{slot.offset}{factor}" if slot.offset else name


class _Binding:
    """Gives a kernel what TensorRT passes, or says why it cannot.

    Args:
        parameters: what the new entry takes is added to it.
    """

    def __init__(self, parameters: abi.Parameters) -> None:
        self._parameters = parameters
        self._kernel = parameters.program.launch.name
        self._fields: dict[str, Mapping[int, host.Cell]] = {}  # by old parameter

    def unsupported(self, why: str) -> UnsupportedKernelError:
        return abi.unsupported(self._kernel, why)

    def known(self, value: host.Value, what: str, in_launch: bool = True) -> sympy.Expr:
        """A value that an expression stands for; no condition, ``in_launch``."""
        if isinstance(value, Choice):
            ranges = self._parameters.program.ranges
            value = value.expression(lambda each: bounds(each, ranges)) or value
        if isinstance(value, Unknown | host.Address | Choice) or (
            in_launch and is_condition(value)
        ):
            raise self.unsupported(
                f"{what} is {show(value)}. TensorRT computes sums, products, quotients,"
                " max and min of extents: narrow the profile, or use those alone."
            )
        return value

    def constant(self, value: host.Value, what: str) -> int:
        """A value that is one integer."""
        if not (known := self.known(value, what)).is_Integer:
            raise self.unsupported(
                f"{what} follows the shape ({known}). It is compiled in: launch with a "
                "constant, or make the dimension static."
            )
        return int(known)

    def block(self, sizes: Sequence[host.Value]) -> tuple[int, int, int]:
        """Threads along each axis.

        Found in 4.8.1: in a block of 1024, i = block_idx * block_dim + thread_idx was
        taken for less than any extent, so that i % rows and i // rows became i and 0.
        """
        x, y, z = (self.constant(size, "the block") for size in sizes)
        for axis, size, most in zip("xyz", (x, y, z), abi.MOST_THREADS, strict=True):
            if size == most:
                raise self.unsupported(
                    f"its blocks have {size} threads along {axis}, the most there can "
                    "be. CuTe DSL takes block_dim() for less than that, and compiles "
                    f"what is computed from it wrongly: launch {size // 2}."
                )
        return x, y, z

    def rewrite(self, code: str, passed: Sequence[Mapping[int, host.Cell]]) -> str:
        """The code, whose entry takes TensorRT's arguments in place of ``passed``.

        Args:
            passed: the fields of each of the old entry's parameters.
        """
        match = ptx.find_entry(code)
        declared = list(_PARAMETER.finditer(match["parameters"]))
        sizes = [int(p["count"] or 1) * int(p["bits"]) // 8 for p in declared]
        ends = [max(at + cell.size for at, cell in one.items()) for one in passed]
        if len(sizes) != len(ends) or any(
            not end <= size < end + 8 for size, end in zip(sizes, ends, strict=True)
        ):
            raise PTXError(
                f"kernel {self._kernel}: the entry takes {match['parameters'].strip()},"
                f" and its launcher passes parameters of {ends} bytes. Please report "
                "this, with the kernel."
            )
        names = (parameter["name"] for parameter in declared)
        self._fields = dict(zip(names, passed, strict=True))
        body = _LOAD.sub(self._load, code[match.end() :])
        if any(ptx.identifier(name).search(body) for name in self._fields):
            raise self.unsupported(
                "it takes the address of a parameter, as it does of a tensor map, or "
                "of a tuple that it indexes at run time. TensorRT passes plain values "
                "only."
            )
        slots = self._parameters.slots
        takes = [ptx.Parameter(ptx.TYPE[slot.kind], _name(slot)) for slot in slots]
        return code[: match.start()] + ptx.header(match, match["name"], takes) + body

    def _load(self, match: re.Match[str]) -> str:
        """In place of one load, which may have several destinations."""
        if match["name"] not in self._fields:
            return match[0]  # of the result of a function that the kernel calls
        size, start = int(match["bits"]) // 8, int(match["offset"] or 0)
        return "\n\t".join(
            (match["guard"] or "") + self._one(to.strip(), match, start + index * size)
            for index, to in enumerate(match["to"].strip("{}").split(","))
        )

    def _one(self, to: str, load: re.Match[str], offset: int) -> str:
        """What puts the field at ``offset`` into register ``to``."""
        name, kind, bits = load["name"], load["type"], int(load["bits"])
        field = self._fields[name].get(offset)
        if field is None or 8 * field.size != bits:
            raise PTXError(
                f"kernel {self._kernel}: it reads {bits // 8} bytes at {name}+{offset},"
                f" and the launcher writes {field.size if field else 'none'} there. "
                "Please report this."
            )
        if isinstance(field.value, host.Address):
            return f"ld.param.u64 {to}, [{self._tensor(field.value)}];"
        value = self.known(field.value, "what its launcher passes it", in_launch=False)
        if value.is_Integer:
            number = int(value) % 2**bits
            if kind.startswith("s") and number >= 2 ** (bits - 1):
                number -= 2**bits
            return f"mov.b{max(bits, 16)} {to}, {number};"
        if bits == 64:  # a destination may be wider than what is loaded
            kind = "s32"
        return f"ld.param.{kind} {to}, [{self._extra(value, name)}];"

    def _tensor(self, address: host.Address) -> str:
        """The parameter that holds an address."""
        slot, offset = address.object, address.offset
        if not isinstance(slot, Slot) or offset != 0:
            where = f" {offset} bytes into a tensor" if isinstance(slot, Slot) else ""
            raise self.unsupported(
                f"its launcher passes it an address{where} that is not a tensor's "
                "start. An engine passes tensors alone: offset them in the kernel."
            )
        return self._take(slot)

    def _extra(self, expr: sympy.Basic, name: str) -> str:
        """The parameter that holds a number; a condition is 0 or 1."""
        remedy = "pass the factors and multiply in the kernel"
        self._parameters.require_int32(name, expr, remedy)
        extras = self._parameters.extras
        if expr not in extras:
            extras.append(expr)
            self._parameters.names.append("")  # it may be in several fields
        return self._take(Slot(Kind.EXTRA, extras.index(expr)))

    def _take(self, slot: Slot) -> str:
        if slot not in self._parameters.slots:
            self._parameters.slots.append(slot)
        return _name(slot)
