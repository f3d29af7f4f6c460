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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import sympy
from torch.utils._sympy.functions import FloorDiv

from ..._code import ptx
from ..._code.effects import places_of_maps
from ..._code.packed_maps import STRIDE_UNIT
from ..._code.tensor_maps import SIZE, Size, TensorMap, build
from ..._sizes.facts import bounds, is_condition
from ...errors import ArgumentError, PTXError, UnsupportedKernelError
from .. import Kind, Pointer, Slot, abi
from . import host, tensor_maps
from .arithmetic import Unknown, show
from .choices import Choice
from .tensor_maps import PackedMap
from .words import Word

_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z]+(?P<bits>\d+)[^,]*?\s+"
    r"(?P<name>[\w$]+)(?:\[(?P<count>\d+)\])?\s*(?:,|\Z)"
)
_LOAD = re.compile(
    r"(?P<guard>@!?%\w+\s+)?ld\.param(?:::entry)?(?:\.v[248])?"
    r"\.(?P<type>[a-z]+(?P<bits>\d+))\s+(?P<to>\{[^}]*\}|%\w+),\s*"
    r"\[(?P<name>[\w$]+)(?:\+(?P<offset>\d+))?\];"
)
# Of cudaLaunchAttributeID; the others say with 1 that a launch is special.
_CLUSTER, _DEPENDENT = 4, 6
_SPECIAL = {2: "cooperative"}
_MAP = "align 64 .b8"  # the type of a tensor map; others are aligned to less


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
        # A programmatic dependent launch allows the kernel to begin before the previous
        # one has ended. In an engine it does not, and what "griddepcontrol.wait" waits
        # for has happened (PTX ISA manual).
        elif words[0] != 0 and key != _DEPENDENT:
            kind = _SPECIAL.get(key, f"special ({key})")
            raise abi.unlaunchable(name, f"it is a {kind} launch")
    x, y, z = (binding.known(size, "the grid") for size in launch.grid)
    size = binding.constant(launch.shared_memory, "its dynamic shared memory")
    code = _keep_entry(code, launch.kernel)
    changes_maps = "tensormap.replace" in code
    code, maps = binding.rewrite(code, launch.parameters)
    if maps:
        scratch = Slot(Kind.SCRATCH, len(parameters.scratch))
        built = build(code, parameters.slots, maps, scratch)
        code, parameters.slots = built.code, list(built.slots)
        parameters.scratch.append(built.size)
        size = max(size, built.size)
    if changes_maps:
        parameters.slots = binding.aligned(code, parameters.slots)
    return abi.CompiledKernel(
        code=code,
        slots=tuple(parameters.slots),
        extras=tuple(parameters.extras),
        grid=(x, y, z),
        block=binding.block(launch.block),
        shared_memory=size,
        ptxas=ptxas,
        facts=" ".join(parameters.told),
        scratch=tuple(parameters.scratch),
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


def _is_map(parameter: re.Match[str]) -> bool:
    """Whether a parameter is a tensor map."""
    return parameter[0].startswith(f".param .{_MAP} ") and parameter["count"] == "128"


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
        if isinstance(value, Unknown | host.Address | Word | Choice) or (
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

    def rewrite(
        self, code: str, passed: Sequence[Mapping[int, host.Cell]]
    ) -> tuple[str, dict[int, TensorMap]]:
        """The code, whose entry takes TensorRT's arguments in place of ``passed``.

        Args:
            passed: the fields of each of the old entry's parameters.

        Returns:
            The code, and what is in each parameter that is still a tensor map.
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
        names = [parameter["name"] for parameter in declared]
        self._fields = dict(zip(names, passed, strict=True))
        body = _LOAD.sub(self._load, code[match.end() :])
        used = [p for p in declared if ptx.identifier(p["name"]).search(body)]
        if not all(map(_is_map, used)):
            raise self.unsupported(
                "it takes the address of a parameter, as it does of a tuple that it "
                "indexes at run time. TensorRT passes plain values only."
            )
        maps = [self._map(self._fields[p["name"]]) for p in used]
        slots, first = self._parameters.slots, len(self._parameters.slots)
        takes = [ptx.Parameter(ptx.TYPE[slot.kind], _name(slot)) for slot in slots]
        takes += [ptx.Parameter(_MAP, f"{p['name']}[{SIZE}]") for p in used]
        slots += [slot for slot, _ in maps]
        code = code[: match.start()] + ptx.header(match, match["name"], takes) + body
        return code, {first + index: fields for index, (_, fields) in enumerate(maps)}

    def aligned(self, code: str, slots: Sequence[Slot]) -> list[Slot]:
        """``slots``, where memory that the kernel changes maps in is aligned for them.

        TensorRT aligns buffers to less, so the entry rounds their addresses up.

        Raises:
            UnsupportedKernelError: it does so in other memory than buffers that the
                launch function allocates.
        """
        entry, changed = ptx.parse(code), set[Slot]()
        names = [parameter.name for parameter in entry.parameters]
        known = dict(zip(names, slots, strict=True))
        outputs = len(self._parameters.program.outputs)
        for name in places_of_maps(code):
            slot = known.get(name, Slot(Kind.UNUSED))
            is_hidden = slot.kind is Kind.OUTPUT and slot.index >= outputs
            if slot.kind is not Kind.SCRATCH and (not is_hidden or slot.offset % SIZE):
                raise self.unsupported(
                    "it changes tensor maps while it runs, and they are not at "
                    f"multiples of {SIZE} bytes in a buffer that the launch function "
                    "allocates, where alone an engine can align them. Allocate one "
                    "with torch.empty in the launch function, and pass it whole."
                )
            changed |= {slot.passed} if is_hidden else set()
        return [
            replace(slot, alignment=SIZE) if slot.passed in changed else slot
            for slot in slots
        ]

    def _map(self, passed: Mapping[int, host.Cell]) -> tuple[Slot, TensorMap]:
        """The tensor that a map is of, and what its fields are set to.

        Raises:
            UnsupportedKernelError: such a map is not possible at every shape.
        """
        try:
            packed = tensor_maps.read(passed, self._parameters.program.ranges)
        except host.HostCodeError as error:
            raise self.unsupported(f"{error}.") from error
        slot = self._start(packed.address)
        pointer = self._pointer(slot)
        if self._parameters.alignment_of(pointer) % STRIDE_UNIT:
            why = (
                f"it starts {pointer.offset} elements inside its tensor"
                if self._parameters.aligned
                else "the spec says aligned=False"
            )
            raise self._no_map(
                pointer,
                f"an address that {STRIDE_UNIT} bytes divide at every shape of the "
                f"profile, and {why}. Pass the tensor itself, without aligned=False.",
            )

        def size(expr: sympy.Expr) -> Size:
            if expr.is_Integer:
                return int(expr)
            return self._extra(expr, pointer.name)

        try:
            fields = TensorMap(
                extents=tuple(map(size, packed.extents)),
                strides=tuple(size(s) for s in self._strides(packed, pointer)),
                box=packed.box,
                item_size=packed.item_size,
                element_type=packed.element_type,
                swizzle=packed.swizzle,
            )
        except PTXError as error:
            raise self._no_map(pointer, f"other fields: {error}") from error
        return slot, fields

    def _strides(self, packed: PackedMap, pointer: Pointer) -> Iterator[sympy.Expr]:
        """The strides of a map in elements.

        The launcher divides the bytes by 16, and drops a remainder. So a stride is
        looked for among the tensor's own, which are not divided.
        """
        for axis, units in enumerate(packed.strides):
            own = [stride * pointer.dtype.itemsize for stride in pointer.strides]
            own = [bytes_ for bytes_ in own if FloorDiv(bytes_, STRIDE_UNIT) == units]
            if not own and not isinstance(units, FloorDiv):
                own = [units * STRIDE_UNIT]
            known = [self._parameters.facts(bytes_) for bytes_ in own]
            exact = [
                bytes_
                for bytes_, facts in zip(own, known, strict=True)
                if facts.divisor % STRIDE_UNIT == 0 and facts.lower > 0
            ]
            if not exact:
                found = own[0] if own else units * STRIDE_UNIT
                raise self._no_map(
                    pointer,
                    f"strides that are positive multiples of {STRIDE_UNIT} bytes at "
                    f"every shape of the profile, and that of dimension {axis + 1}, "
                    f"the innermost being 0, is {found} bytes. Pad the rows, make the "
                    "dimension static, or split it in two, the last static, and take a "
                    "view.",
                )
            yield sympy.expand(exact[0] / packed.item_size)

    def _no_map(self, pointer: Pointer, needs: str) -> ArgumentError:
        return self._parameters.refused(pointer.name, f"its tensor map needs {needs}")

    def _pointer(self, slot: Slot) -> Pointer:
        """The argument whose address a slot is."""
        pointers = (
            a
            for a in self._parameters.program.launch.arguments
            if isinstance(a, Pointer)
        )
        return next(p for p in pointers if self._parameters.address_of(p) == slot)

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
            return f"ld.param.u64 {to}, [{self._take(self._start(field.value))}];"
        value = self.known(field.value, "what its launcher passes it", in_launch=False)
        if value.is_Integer:
            number = int(value) % 2**bits
            if kind.startswith("s") and number >= 2 ** (bits - 1):
                number -= 2**bits
            return f"mov.b{max(bits, 16)} {to}, {number};"
        if bits == 64:  # a destination may be wider than what is loaded
            kind = "s32"
        return f"ld.param.{kind} {to}, [{self._take(self._extra(value, name))}];"

    def _start(self, address: host.Address) -> Slot:
        """The tensor that an address is the start of."""
        slot, offset = address.object, address.offset
        if not isinstance(slot, Slot) or offset != 0:
            where = f" {offset} bytes into a tensor" if isinstance(slot, Slot) else ""
            raise self.unsupported(
                f"its launcher passes it an address{where} that is not a tensor's "
                "start. An engine passes tensors alone: offset them in the kernel."
            )
        return slot

    def _extra(self, expr: sympy.Basic, name: str) -> Slot:
        """The argument that is a number; a condition is 0 or 1."""
        remedy = "pass the factors and multiply in the kernel"
        self._parameters.require_int32(name, expr, remedy)
        extras = self._parameters.extras
        if expr not in extras:
            extras.append(expr)
            self._parameters.names.append("")  # it may be in several fields
        return Slot(Kind.EXTRA, extras.index(expr))

    def _take(self, slot: Slot) -> str:
        if slot not in self._parameters.slots:
            self._parameters.slots.append(slot)
        return _name(slot)
