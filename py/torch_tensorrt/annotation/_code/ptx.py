# SPDX-License-Identifier: BSD-3-Clause

"""Read a PTX entry, and give it the parameters that TensorRT passes.

TensorRT passes an ahead-of-time plugin its input pointers, then 32-bit extras, then its
output pointers. PTX refers to parameters by name, so a different order is a different
header: the body stays as its compiler wrote it. Only the loads of some parameters
change: one that takes a view adds the view's offset to the tensor's address, and one
that takes scratch memory rounds the address up.

TensorRT's launch has no attributes. What a kernel needs beyond it is declared in the
code instead: shared memory over 48 KiB as a static array, and the shape of clusters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from ..errors import PTXError

ENTRY = re.compile(
    r"\.visible\s+\.entry\s+(?P<name>[\w$]+)\s*\((?P<parameters>[^)]*)\)"
    r"(?P<directives>[^{]*)\{"
)
_PARAMETER = re.compile(
    r"\.param\s+\.(?P<type>\w+)(?P<attributes>.*?)\s+(?P<name>[\w$]+)"
)
_VERSION = re.compile(r"^\s*\.version\s+(\d+\.\d+)", re.MULTILINE)
TARGET = re.compile(r"^(\s*\.target\s+)(sm_\w+)", re.MULTILINE)
_CLUSTER = re.compile(r"\.reqnctapercluster\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?")
_SHARED_SIZE = re.compile(r"%(?:dynamic|total|aggr)_smem_size\b")
_OTHER_CLUSTERS = re.compile(r"\.(?:maxclusterrank\s+\d+|blocksareclusters)")
_EXTERN_SHARED = re.compile(r"\.extern\s+\.shared\b")
_DYNAMIC = re.compile(
    r"\.extern\s+\.shared\s+(?:\.align\s+(?P<align>\d+)\s+)?\.\w+\s+"
    r"(?P<name>[\w$]+)\s*\[\s*\]\s*;"
)
_BLOCK = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?")
_BRACE = re.compile(r"[{}]")
_DEBUG = (".loc", ".file")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

# Bytes that divide the address of scratch memory, whatever TensorRT aligns outputs to.
SCRATCH_ALIGNMENT = 128  # as tensor maps need it


class Kind(Enum):
    """What TensorRT passes for a parameter."""

    INPUT = "input"
    EXTRA = "extra"
    OUTPUT = "output"
    UNUSED = "unused"
    SCRATCH = "scratch"  # an output that is hidden, once there is a plugin


@dataclass(frozen=True)
class Slot:
    """Where TensorRT's argument list holds a value: ``index`` among its kind.

    Attributes:
        offset: bytes that the entry adds to a pointer.
        factor: the index of the extra that ``offset`` is multiplied by, if any.
        alignment: the entry rounds a pointer up to a multiple of it, a power of two.
    """

    kind: Kind
    index: int = 0
    offset: int = 0
    factor: int | None = None
    alignment: int = 1

    @property
    def passed(self) -> Slot:
        """What TensorRT passes, which the entry may add an offset to."""
        return Slot(self.kind, self.index)


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: ``.param .{type}{attributes} {name}``."""

    type: str
    name: str
    attributes: str = ""

    def __str__(self) -> str:
        return f".param .{self.type}{self.attributes} {self.name}"


@dataclass(frozen=True)
class Entry:
    """The one entry of a PTX module.

    Attributes:
        block: threads along x, y and z that it requires, if it says.
        cluster: blocks along x, y and z of the clusters that it requires, if it says.
        dynamic: where the module declares dynamic shared memory; all such arrays are
            the same memory.
        version, target: of the module.
        match: where the text declares it, as :func:`find_entry` says.
    """

    name: str
    parameters: tuple[Parameter, ...]
    block: tuple[int, int, int] | None
    cluster: tuple[int, int, int] | None
    dynamic: tuple[re.Match[str], ...]
    version: str
    target: str
    match: re.Match[str]


def parse(text: str) -> Entry:
    """The entry of ``text``.

    Raises:
        PTXError: there is not exactly one, or its header is not understood.
    """
    match, code = find_entry(text), without_comments(text)
    version, target = _VERSION.search(code), TARGET.search(code)
    if version is None or target is None:
        raise PTXError("a PTX module without .version or .target.")
    parameters = []
    for declaration in filter(None, map(str.strip, match["parameters"].split(","))):
        if (parameter := _PARAMETER.fullmatch(declaration)) is None:
            raise PTXError(
                f"entry {match['name']}: parameter `{declaration}` is not a scalar."
            )
        parameters.append(Parameter(**parameter.groupdict()))
    dynamic = tuple(_DYNAMIC.finditer(code))
    of_module = (
        code.count("{", 0, d.start()) == code.count("}", 0, d.start()) for d in dynamic
    )
    if len(dynamic) != len(_EXTERN_SHARED.findall(code)) or not all(of_module):
        raise PTXError(
            f"entry {match['name']}: its dynamic shared memory is not an array of the "
            "module."
        )
    return Entry(
        match["name"],
        tuple(parameters),
        _sizes(_BLOCK, match["directives"]),
        _sizes(_CLUSTER, match["directives"]),
        dynamic,
        version[1],
        target[2],
        match,
    )


def _sizes(directive: re.Pattern[str], text: str) -> tuple[int, int, int] | None:
    """Along x, y and z, as a directive says it; None without one."""
    if (found := directive.search(text)) is None:
        return None
    return int(found[1]), int(found[2] or 1), int(found[3] or 1)


def reorder(
    text: str, slots: Sequence[Slot], counts: tuple[int, int, int], name: str
) -> str:
    """``text`` with its entry named ``name``, taking TensorRT's arguments.

    Args:
        slots: for each parameter of the entry, in its order, what TensorRT passes.
        counts: how many inputs, extras and outputs TensorRT passes; those that no
            parameter takes are declared and ignored.

    Raises:
        PTXError: the slots do not fit the entry.
    """
    entry = parse(text)
    if len(slots) != len(entry.parameters):
        raise PTXError(
            f"entry {entry.name} has {len(entry.parameters)} parameters, "
            f"{len(slots)} were expected: {', '.join(map(str, entry.parameters))}."
        )
    declared = _declared(slots, entry)
    kinds = zip(TYPE, counts, strict=True)
    order = [Slot(kind, index) for kind, count in kinds for index in range(count)]
    factors = {Slot(Kind.EXTRA, s.factor) for s in slots if s.factor is not None}
    if unknown := {*declared, *factors} - set(order):
        raise PTXError(f"entry {entry.name}: no such arguments: {unknown}.")
    parameters = _declare(order, declared, name)
    names = {slot: p.name for slot, p in zip(order, parameters, strict=True)}
    body = text[entry.match.end() :]
    for slot, parameter in zip(slots, entry.parameters, strict=True):
        body = _reading(body, slot, parameter, names)
    if factors:
        body = f"\n\t.reg .b32 {_FACTOR};" + body
    start = header(entry.match, name, parameters)
    return text[: entry.match.start()] + start + body


def in_clusters(text: str, cluster: tuple[int, int, int]) -> str:
    """``text`` with an entry that any launch starts in clusters of this shape.

    Raises:
        PTXError: the entry says something else of its clusters.
    """
    entry, directives = parse(text), parse(text).match["directives"]
    if entry.cluster == cluster and ".explicitcluster" in directives:
        return text
    if (entry.cluster or cluster) != cluster or _OTHER_CLUSTERS.search(directives):
        raise PTXError(
            f"entry {entry.name}: it is launched in clusters of {cluster} blocks, and "
            f"declares {' '.join(directives.split())}."
        )
    kept = _CLUSTER.sub("", directives).replace(".explicitcluster", "").rstrip()
    shape = ", ".join(map(str, cluster))
    kept += f"\n.explicitcluster\n.reqnctapercluster {shape}\n"
    start, end = entry.match.span("directives")
    return text[:start] + kept + text[end:]


# What dynamic shared memory is aligned to; swizzled layouts rely on it, whatever the
# compiler declares.
SHARED_ALIGNMENT = 1024


def static_shared(text: str, size: int) -> str:
    """``text`` with its dynamic shared memory as a static array of ``size`` bytes.

    Raises:
        PTXError: it declares none, or asks how large it is.
    """
    entry = parse(text)
    launched = f"entry {entry.name}: it is launched with {size} bytes of dynamic shared"
    if not entry.dynamic:
        raise PTXError(f"{launched} memory, and declares none. Launch it without.")
    if asks := _SHARED_SIZE.search(without_comments(text)):
        raise PTXError(f"{launched} memory, and reads {asks[0]}. Pass it the size.")
    name = entry.dynamic[0]["name"]
    alignments = (int(array["align"] or 1) for array in entry.dynamic)
    align = max(SHARED_ALIGNMENT, *alignments)
    for array in reversed(entry.dynamic):
        is_first = array is entry.dynamic[0]
        static = f".shared .align {align} .b8 {name}[{size}];" if is_first else ""
        text = text[: array.start()] + static + text[array.end() :]
    for array in entry.dynamic[1:]:
        text = identifier(array["name"]).sub(name, text)
    return text


def header(match: re.Match[str], name: str, parameters: Iterable[Parameter]) -> str:
    """What declares the entry at ``match`` with another name and other parameters."""
    declared = ",\n\t".join(map(str, parameters))
    return f".visible .entry {name}(\n\t{declared}\n){match['directives']}{{"


def _declared(slots: Sequence[Slot], entry: Entry) -> dict[Slot, Parameter]:
    """The parameter that holds each of TensorRT's arguments; the first of several."""
    declared: dict[Slot, Parameter] = {}
    for slot, parameter in zip(slots, entry.parameters, strict=True):
        if slot.kind is Kind.UNUSED:
            continue
        takes = _64_BITS | _VALUES if slot.kind is Kind.EXTRA else _64_BITS
        if parameter.type not in takes:
            raise PTXError(
                f"entry {entry.name}: parameter {parameter} cannot take "
                f"{slot.kind.value} {slot.index}; it takes one of "
                f"{', '.join(sorted(takes))}."
            )
        # One that is rounded up has no alignment yet, whatever it is declared with.
        attributes = "" if slot.alignment > 1 else parameter.attributes
        taken = Parameter(TYPE[slot.kind], parameter.name, attributes)
        declared.setdefault(slot.passed, taken)
    return declared


def _reading(
    body: str, slot: Slot, parameter: Parameter, names: Mapping[Slot, str]
) -> str:
    """``body`` with the value of ``slot`` in place of an old ``parameter``.

    Args:
        names: of the parameters that hold TensorRT's arguments.
    """
    if slot.kind is Kind.UNUSED:
        if identifier(parameter.name).search(without_comments(body)):
            raise PTXError(
                f"the kernel reads parameter {parameter}, which should be unused."
            )
        return body
    if slot.kind is Kind.EXTRA and parameter.type in _64_BITS:
        body = _widen(body, parameter)
    if slot.offset or slot.alignment > 1:
        body = _shift(body, slot, parameter, names)
    if (name := names[slot.passed]) != parameter.name:
        body = identifier(parameter.name).sub(name, body)
    return body


def _declare(
    order: Sequence[Slot], declared: Mapping[Slot, Parameter], name: str
) -> list[Parameter]:
    """The parameters in TensorRT's order; those that nothing reads get new names."""
    prefix = name
    while any(p.name.startswith(f"{prefix}_") for p in declared.values()):
        prefix += "_"
    unread = [
        Parameter(TYPE[slot.kind], f"{prefix}_{slot.kind.value}_{i}")
        for i, slot in enumerate(order)
    ]
    return [declared.get(slot, new) for slot, new in zip(order, unread, strict=True)]


def rename(text: str, entry: str, name: str) -> str:
    """``text`` with its entry called ``name``.

    Args:
        entry: its present name. Identifiers that begin with it, as the parameters that
            :func:`reorder` adds do, are renamed too.
    """
    return re.sub(rf"(?<![\w$%]){re.escape(entry)}(?=\b|_)", name, text)


def without_debug_info(text: str) -> str:
    """``text`` less comments, line numbers and debug sections, which name files."""
    code = _COMMENT.sub("", text).partition(".section")[0]
    return "\n".join(
        line for line in code.splitlines() if not line.lstrip().startswith(_DEBUG)
    )


# What TensorRT passes, in its order, and the types of parameters that can take it: a
# pointer has 64 bits, an extra 32. A narrower one reads the low bytes of an extra.
TYPE = {Kind.INPUT: "u64", Kind.EXTRA: "u32", Kind.OUTPUT: "u64"}
_64_BITS = frozenset({"u64", "s64", "b64"})
_VALUES = frozenset({"u32", "s32", "b32", "f32", "u16", "b16", "u8", "s8", "b8"})


@lru_cache(maxsize=8)  # each stage of a compilation asks of the text that it is at
def without_comments(text: str) -> str:
    """``text`` with its comments blanked out: everything else stays where it is."""

    def blank(match: re.Match[str]) -> str:
        return "\n".join(" " * len(line) for line in match[0].split("\n"))

    return _COMMENT.sub(blank, text)


def find_entry(text: str) -> re.Match[str]:
    """Where ``text`` declares its one entry: name, parameters and directives.

    Raises:
        PTXError: there is not exactly one.
    """
    matches = list(ENTRY.finditer(without_comments(text)))
    if len(matches) != 1:
        names = ", ".join(m["name"] for m in matches) or "none"
        raise PTXError(f"a module with one entry was expected; it has: {names}.")
    return matches[0]


def _widen(body: str, parameter: Parameter) -> str:
    """Loads of a 64-bit integer as sign-extending loads of 32 bits.

    A destination may be wider than what is loaded (PTX ISA, "Operand Size Exceeding
    Instruction-Type Size").
    """
    load = re.compile(
        rf"(ld\.param)\.[usb]64(\s+%\w+,\s*\[{re.escape(parameter.name)}\];)"
    )
    result, loads = load.subn(r"\1.s32\2", body)
    if loads != len(identifier(parameter.name).findall(without_comments(body))):
        raise PTXError(
            f"parameter {parameter} is 64 bits wide and not read as one integer, so "
            "TensorRT's 32 bits cannot take its place."
        )
    return result


_FACTOR = "%tta_factor"  # a register of our own


def _shift(
    body: str, slot: Slot, parameter: Parameter, names: Mapping[Slot, str]
) -> str:
    """Loads of a pointer, each followed by what makes it the address of ``slot``."""
    load = re.compile(
        r"(?P<guard>@\s*!?\s*%\w+\s+)?ld\.param(?:::entry)?\.[bus]64\s+(?P<to>%\w+)\s*,"
        rf"\s*\[{re.escape(parameter.name)}\];"
    )

    def shifted(match: re.Match[str]) -> str:
        to, added = match["to"], []
        if slot.offset and slot.factor is None:
            added = [f"add.s64 {to}, {to}, {slot.offset};"]
        elif slot.factor is not None:
            factor = names[Slot(Kind.EXTRA, slot.factor)]
            added = [
                f"ld.param.s32 {_FACTOR}, [{factor}];",
                f"mad.wide.s32 {to}, {_FACTOR}, {slot.offset}, {to};",
            ]
        if slot.alignment > 1:
            added += [
                f"add.s64 {to}, {to}, {slot.alignment - 1};",
                f"and.b64 {to}, {to}, -{slot.alignment};",
            ]
        return "\n\t".join([match[0], *((match["guard"] or "") + a for a in added)])

    result, loads = load.subn(shifted, body)
    if loads != len(identifier(parameter.name).findall(without_comments(body))):
        raise PTXError(
            f"parameter {parameter} takes a view that starts inside its tensor, or "
            "scratch memory, and is not read as one address."
        )
    return result


def closing_brace(text: str, start: int) -> int:
    """Where the block ends whose opening brace is right before ``start``.

    Raises:
        PTXError: nowhere.
    """
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    raise PTXError("the braces of the compiled code do not match.")


def identifier(name: str) -> re.Pattern[str]:
    """Matches ``name`` where it is not a part of a longer name."""
    return re.compile(rf"(?<![\w$%]){re.escape(name)}(?![\w$])")
