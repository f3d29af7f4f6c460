# SPDX-License-Identifier: BSD-3-Clause

"""Tensor maps that a kernel takes as parameters, made by its entry instead.

The tensor memory accelerator reads a tensor's address, extents and strides from a map
of 128 bytes. A kernel's own launch makes the maps on the host and passes them as
parameters of 128 bytes, which TensorRT has no place for. So the entry makes them: each
block writes its maps into scratch memory of its own before the kernel's code begins,
which then finds them there.

The prologue does it as the PTX ISA manual says ("tensormap.replace" and
"fence.proxy.tensormap"), so it does not depend on how a map is encoded: the first warp
zeroes 128 bytes of shared memory for each map and sets the fields there, copies them to
the block's scratch memory, releases and acquires them, and fetches them. The other
threads wait at a barrier. The shared memory is the kernel's own, which nothing has used
yet; a proxy fence orders these writes before those of the accelerator. It waits for all
that is under way, so it comes before the maps are fetched.

On an H200, copies by "tensormap.cp_fenceproxy", which are atomic, took longer, and so
did acquiring in all threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .._target import version_of
from ..errors import PTXError, UnsupportedKernelError
from . import ptx
from .ptx import Kind, Slot

SIZE = 128  # bytes of a map, and of its alignment
WARP = 32
FIRST_ISA = (8, 3)  # that has tensormap.replace, for sm_90a; for newer GPUs, their own

# What the fields of a map can hold ("Tensor Map Object Management" of the CUDA driver
# API, cuTensorMapEncodeTiled).
MOST_DIMENSIONS = 5
MOST_EXTENT = 2**32 - 1
LEAST_STRIDE = 16  # bytes, which also divide every stride
MOST_STRIDE = 2**40
MOST_BOX = 256  # elements along each dimension
LEAST_BOX = 16  # bytes, which also divide those of the innermost dimension
# The numbers of `.elemtype`, `.swizzle_mode` and `.fill_mode` that are understood.
_ELEMENT_TYPES = range(13)
_SWIZZLES = range(4)
_FILLS = range(2)

Size: TypeAlias = int | Slot  # known now, or an extra


@dataclass(frozen=True)
class TensorMap:
    """What the fields of a map are set to. Dimensions are innermost first.

    Attributes:
        extents: of the tensor, in elements.
        strides: in elements, of all dimensions but the innermost, whose stride is 1.
        box: elements that one instruction moves, along each dimension.
        item_size: bytes of an element.
        element_type, swizzle, fill: the numbers that ``tensormap.replace`` takes.
    """

    extents: tuple[Size, ...]
    strides: tuple[Size, ...]
    box: tuple[int, ...]
    item_size: int
    element_type: int
    swizzle: int
    fill: int = 0

    def __post_init__(self) -> None:
        rank = len(self.extents)
        bytes_inside = self.box[0] * self.item_size if self.box else 0
        rules = {
            f"1 to {MOST_DIMENSIONS} dimensions": 1 <= rank <= MOST_DIMENSIONS,
            "a stride for each but the innermost": len(self.strides) == rank - 1,
            f"a box of 1 to {MOST_BOX} elements along each": len(self.box) == rank
            and all(1 <= size <= MOST_BOX for size in self.box),
            f"a multiple of {LEAST_BOX} bytes in a row of the box": bytes_inside > 0
            and bytes_inside % LEAST_BOX == 0,
            f"extents of 1 to {MOST_EXTENT}": all(
                1 <= e <= MOST_EXTENT for e in self.extents if isinstance(e, int)
            ),
            f"strides that {LEAST_STRIDE} bytes divide, below {MOST_STRIDE} bytes": all(
                0 < s * self.item_size < MOST_STRIDE
                and s * self.item_size % LEAST_STRIDE == 0
                for s in self.strides
                if isinstance(s, int)
            ),
            "a known element type, swizzle and fill": self.element_type
            in _ELEMENT_TYPES
            and self.swizzle in _SWIZZLES
            and self.fill in _FILLS,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise PTXError(f"a tensor map needs {'; '.join(broken)}; got {self}.")


@dataclass(frozen=True)
class Built:
    """A kernel that makes its own maps.

    Attributes:
        code, slots: with a scalar in place of each map, and the prologue's parameters
            after all others.
        size: bytes that it needs of a block's scratch memory, and of shared memory.
    """

    code: str
    slots: tuple[Slot, ...]
    size: int


def parameters(code: str) -> list[tuple[str, str]]:
    """The type and name of each of an entry's parameters; a map's type is ``MAP``."""
    matches = map(_PARAMETER.search, _declared(code))
    return [(m["type"] + (m["size"] or ""), m["name"]) for m in matches if m]


def made(text: str) -> dict[str, list[str]]:
    """For each register that a prologue in ``text`` leaves a map in, what holds the
    address of its tensor."""
    return {
        f"{_PREFIX}map{number}": [f"{_PREFIX}address{number}"]
        for number in re.findall(rf"ld\.param\.u64 {_PREFIX}address(\d+),", text)
    }


def build(
    code: str, slots: Sequence[Slot], maps: Mapping[int, TensorMap], scratch: Slot
) -> Built:
    """``code`` with a prologue that makes the maps that its parameters would hold.

    A map that the kernel does not use is not made.

    Args:
        slots: for each parameter of the entry, what TensorRT passes; for a map, its
            tensor's address.
        maps: by the parameter's number.
        scratch: what passes the scratch memory, at a multiple of :data:`SIZE`.

    Raises:
        PTXError: the code takes or uses a map in a way that is not understood.
        UnsupportedKernelError: its PTX ISA cannot make maps.
    """
    match, declared, slots = ptx.find_entry(code), _declared(code), list(slots)
    end = ptx.closing_brace(code, match.end())
    before, after = code[: match.start()], code[end:]
    body, used = code[match.end() : end], list[tuple[str, TensorMap]]()
    for index, fields in maps.items():
        found = _MAP.fullmatch(declared[index]) if index < len(declared) else None
        if found is None:
            raise PTXError(f"entry {match['name']}: parameter {index} is not a map.")
        declared[index] = f".param .u64 {found['name']}"
        body, is_used = _using(body, found["name"], f"{_PREFIX}map{len(used)}")
        if is_used:
            used.append((found["name"], fields))
        else:
            slots[index] = Slot(Kind.UNUSED)
    if used:
        at, size = 0, SIZE * len(used)
        if outside := _in_shared(before, size):
            before, _, shared = outside
        elif inside := _in_shared(body, size):
            body, at, shared = inside
        else:
            raise PTXError(
                f"entry {match['name']}: it uses maps, and has no shared memory of "
                f"{size} bytes."
            )
        sizes = (s for _, m in used for s in (*m.extents, *m.strides))
        own = [*dict.fromkeys(s for s in sizes if isinstance(s, Slot)), scratch]
        names = {slot: f"{match['name']}_tta_{i}" for i, slot in enumerate(own)}
        for slot in own:
            declared.append(f".param .{ptx.TYPE.get(slot.kind, 'u64')} {names[slot]}")
        slots += own
        body = body[:at] + _prologue(used, names, scratch, shared) + body[at:]
    head = f".visible .entry {match['name']}(\n\t" + ",\n\t".join(declared)
    text = f"{before}{head}\n){match['directives']}{{{body}{after}"
    if used:
        _require(ptx.parse(text))
    return Built(text, tuple(slots), SIZE * len(used))


MAP = f"b8[{SIZE}]"
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.(?P<type>\w+)\b.*?(?P<name>[\w$]+)(?P<size>\[\d+\])?$"
)
_MAP = re.compile(
    r"(?:\.hidden\s+)?\.param\s+\.align\s+\d+\s+\.b8\s+(?P<name>[\w$]+)\[128\]"
)
_SHARED = re.compile(
    r"(?:\.extern\s+)?\.shared\s+\.align\s+(?P<alignment>\d+)\s+\.b8\s+"
    r"(?P<name>[\w$]+)\[(?P<size>\d*)\]\s*;"
)


def _declared(code: str) -> list[str]:
    parameters = ptx.find_entry(code)["parameters"].split(",")
    return [declaration.strip() for declaration in parameters if declaration.strip()]


def _in_shared(text: str, size: int) -> tuple[str, int, str] | None:
    """Shared memory of the kernel's own to make maps in.

    Returns:
        ``text``, with that memory aligned so that maps can be there; where its
        declaration ends; and its name. None if the text declares none of that size.
    """
    for declared in _SHARED.finditer(ptx.without_comments(text)):
        if not declared["size"] or int(declared["size"]) >= size:
            start, end = declared.span("alignment")
            alignment = str(max(SIZE, int(declared["alignment"])))
            at = declared.end() + len(alignment) - (end - start)
            return text[:start] + alignment + text[end:], at, declared["name"]
    return None


def _require(entry: ptx.Entry) -> None:
    """Raise unless the entry's prologue can be executed."""
    if entry.block is None or entry.block[0] * entry.block[1] * entry.block[2] < WARP:
        raise PTXError(
            f"entry {entry.name}: a map takes a block of {WARP} threads, and it has "
            f"{entry.block or 'any'}."
        )
    if version_of(entry.version) < FIRST_ISA:
        needed = ".".join(map(str, FIRST_ISA))
        raise UnsupportedKernelError(
            f"the kernel takes tensor maps, which need PTX ISA {needed}; the target's "
            f"driver takes {entry.version}. Name a newer one, or use pointers."
        )


_PREFIX = "%tta_"  # of registers of our own


# --- The kernel's own code ------------------------------------------------------------

_COPY = re.compile(
    r"(?P<op>mov\.[bu](?:32|64)|cvt\.u64\.u32|cvta\.param\.u64)\s+(?P<to>%[\w$]+)\s*,"
    r"\s*(?P<source>[%\w$]+)\s*;"
)
_GENERIC = "cvta.param.u64"
# What copies a map, to change the copy; a narrower load would look at its fields.
_READ = re.compile(
    r"ld\.param(?P<op>(?:\.v2)?\.[bu]64\s+(?:\{[^}]*\}|%[\w$]+)\s*,)"
    r"\s*\[(?P<source>[%\w$]+)(?P<offset>\+\d+)?\]\s*;"
)


def _using(body: str, name: str, register: str) -> tuple[str, bool]:
    """``body`` with a map's generic address in ``register``, and whether it uses it.

    Compilers take a parameter's address by ``mov``, widen it, and make it generic with
    ``cvta.param``. These copies are followed from the parameter's name on. What is
    generic is the map's new address. Kernels that change maps read theirs before that,
    to copy it. Nothing else may use the address, and what a copy sets may be set
    nowhere else.
    """
    plain = ptx.without_comments(body)
    pending, found, reads = [name], list[re.Match[str]](), list[re.Match[str]]()
    for source in pending:
        copies = [c for c in _COPY.finditer(plain) if c["source"] == source]
        here = [r for r in _READ.finditer(plain) if r["source"] == source]
        uses = len(_operand(source).findall(plain))
        is_guarded = any(_is_guarded(plain, copy) for copy in copies)
        if is_guarded or uses != len(copies) + len(here) + (source != name):
            raise PTXError(
                f"the kernel uses the tensor map in parameter {name} in another way "
                "than by its generic address, or to copy it."
            )
        found, reads = found + copies, reads + here
        pending += [copy["to"] for copy in copies if copy["op"] != _GENERIC]
    new = {
        copy: f"mov.b64 \t{copy['to']}, {register};" if copy["op"] == _GENERIC else ""
        for copy in found
    } | {
        read: f"ld.global{read['op']} [{register}{read['offset'] or ''}];"
        for read in reads
    }
    for use in sorted(new, key=lambda use: use.start(), reverse=True):
        body = body[: use.start()] + new[use] + body[use.end() :]
    return body, any(new.values())


def _operand(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w$%.]){re.escape(name)}(?![\w$])")


def _is_guarded(plain: str, copy: re.Match[str]) -> bool:
    """Whether a predicate decides whether it is executed."""
    before = re.split(r"[;{}:]", plain[: copy.start()])[-1]
    return "@" in before


# --- The prologue ---------------------------------------------------------------------


def _prologue(
    chosen: Sequence[tuple[str, TensorMap]],
    parameters: Mapping[Slot, str],
    scratch: Slot,
    shared: str,
) -> str:
    """Code that makes maps, and leaves the address of map ``i`` in ``%tta_map{i}``.

    What takes long is to wait for memory, so all maps are at offsets from one register,
    which lets the assembler read all words of all maps before it writes the first.

    Args:
        chosen: the parameter that holds the tensor's address, and its map.
        parameters: that hold extras and scratch memory.
        shared: the name of shared memory to make the maps in.
    """
    p, count = _PREFIX, len(chosen)
    lines = [
        f".reg .b32 {p}x, {p}y, {p}z, {p}block, {p}thread, {p}lane, {p}shared;",
        f".reg .b32 {p}size, {p}word<{count}>;",
        f".reg .b64 {p}scratch, {p}stride, {p}to;",
        f".reg .pred {p}others;",
        f".reg .b64 {p}address<{count}>, {p}map<{count}>;",
        # The number of the block in the grid, and of the thread in the block.
        *_linear(f"{p}block", "%ctaid", "%nctaid"),
        *_linear(f"{p}thread", "%tid", "%ntid"),
        f"ld.param.u64 {p}scratch, [{parameters[scratch]}];",
        f"mad.wide.u32 {p}scratch, {p}block, {SIZE * count}, {p}scratch;",
        f"mov.u32 {p}shared, {shared};",
    ]
    for i in range(count):
        lines.append(f"add.s64 {p}map{i}, {p}scratch, {SIZE * i};")
    lines += [
        f"setp.ge.u32 {p}others, {p}thread, {WARP};",
        f"@{p}others bra {_LABEL}_made;",
        f"shl.b32 {p}lane, {p}thread, 2;",
        f"add.u32 {p}lane, {p}lane, {p}shared;",
        *(f"st.shared.b32 [{p}lane+{SIZE * i}], 0;" for i in range(count)),
        "bar.warp.sync 0xffffffff;",
        f"setp.ne.u32 {p}others, {p}thread, 0;",
        f"@{p}others bra {_LABEL}_set;",
    ]
    for i, (address, fields) in enumerate(chosen):
        lines.append(f"ld.param.u64 {p}address{i}, [{address}];")
        lines += _fields(i, fields, parameters)
    lines += [
        f"{_LABEL}_set:",
        "bar.warp.sync 0xffffffff;",
        f"mad.wide.u32 {p}to, {p}thread, 4, {p}scratch;",
        *(f"ld.shared.b32 {p}word{i}, [{p}lane+{SIZE * i}];" for i in range(count)),
        *(f"st.global.b32 [{p}to+{SIZE * i}], {p}word{i};" for i in range(count)),
        "fence.proxy.tensormap::generic.release.gpu;",
        "bar.warp.sync 0xffffffff;",
        "fence.proxy.async.shared::cta;",
        *(
            f"fence.proxy.tensormap::generic.acquire.gpu [{p}map{i}], {SIZE};"
            for i in range(count)
        ),
        *(f"prefetch.tensormap [{p}map{i}];" for i in range(count)),
        f"{_LABEL}_made:",
        "bar.sync 0;",
    ]
    return "\n" + "".join(f"\t{line}\n" for line in lines)


_LABEL = "$TTA_maps"


def _linear(number: str, index: str, extent: str) -> list[str]:
    """Set ``number`` to the linear index in a grid, or a block."""
    x, y, z = (f"{_PREFIX}{axis}" for axis in "xyz")
    return [
        f"mov.u32 {z}, {index}.z;",
        f"mov.u32 {y}, {extent}.y;",
        f"mov.u32 {x}, {index}.y;",
        f"mad.lo.u32 {number}, {z}, {y}, {x};",
        f"mov.u32 {y}, {extent}.x;",
        f"mov.u32 {x}, {index}.x;",
        f"mad.lo.u32 {number}, {number}, {y}, {x};",
    ]


def _fields(
    number: int, fields: TensorMap, parameters: Mapping[Slot, str]
) -> Iterator[str]:
    """Set the fields of a map in shared memory, by its number.

    Those that are set to constants of few bits come together, for the assembler makes
    one write of them where they share a word.
    """
    at = f"{_PREFIX}shared+{SIZE * number}"
    address, size = f"{_PREFIX}address{number}", f"{_PREFIX}size"
    stride = f"{_PREFIX}stride"

    def put(field: str, value: object, bits: int = 32) -> str:
        name, _, ordinal = field.partition(" ")
        where = f"[{at}], {ordinal}, " if ordinal else f"[{at}], "
        operation = f"tensormap.replace.tile.{name}.shared::cta.b1024.b{bits}"
        return f"{operation} {where}{value};"

    yield put("global_address", address, 64)
    yield put("rank", len(fields.extents) - 1)
    yield put("elemtype", fields.element_type)
    yield put("interleave_layout", 0)
    yield put("swizzle_mode", fields.swizzle)
    yield put("fill_mode", fields.fill)
    for axis, elements in enumerate(fields.strides):
        if isinstance(elements, int):
            yield f"mov.b64 {stride}, {elements * fields.item_size};"
        else:
            yield _load(size, elements, parameters)
            yield f"mul.wide.u32 {stride}, {size}, {fields.item_size};"
        yield put(f"global_stride {axis}", stride, 64)
    for axis, extent in enumerate(fields.extents):
        yield _load(size, extent, parameters)
        yield put(f"global_dim {axis}", size)
    for axis, elements in enumerate(fields.box):
        yield put(f"element_stride {axis}", 1)
        yield put(f"box_dim {axis}", elements)


def _load(register: str, size: Size, parameters: Mapping[Slot, str]) -> str:
    if isinstance(size, int):
        return f"mov.b32 {register}, {size};"
    return f"ld.param.u32 {register}, [{parameters[size]}];"
