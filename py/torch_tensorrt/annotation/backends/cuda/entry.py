# SPDX-License-Identifier: BSD-3-Clause

"""The PTX of one kernel, out of what a compiler made of a whole source."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from ..._code.effects import STORED, UNKNOWN, effects
from ..._code.ptx import closing_brace, identifier, without_comments
from ...errors import PTXError
from ..abi import unsupported

_ENTRY = re.compile(
    r"(?P<linkage>(?:\.visible|\.weak)\s+)?\.entry\s+(?P<name>[\w$]+)\s*"
    r"\((?P<parameters>[^)]*)\)[^{;]*(?P<end>[{;])"
)
_STRUCT = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.b8\s+([\w$]+)\s*\[\s*(\d+)\s*\]"
)
_VARIABLE = re.compile(
    r"^[ \t]*(?P<linkage>\.\w+\s+)?\.(?P<space>global|const)\s+[^;={(]*?"
    r"(?P<name>[\w$]+)\s*(?:\[\s*\d*\s*\])*\s*(?P<value>=[^;]*)?;",
    re.MULTILINE,
)
_PROBE = "tta_signature"


def only_entry(text: str, name: str, kernel: str) -> str:
    """``text`` with the entry ``name`` alone, visible.

    Args:
        kernel: the user's name of it, for messages.

    Raises:
        PTXError: there is no such entry.
        UnsupportedKernelError: an engine cannot launch it.
    """
    code, found, others = without_comments(text), None, []
    for match in _ENTRY.finditer(code):
        if match["name"] == name:
            found = match
        elif match["end"] == "{":
            end = closing_brace(code, match.end()) + 1
            others.append((match.start(), end, ""))
        else:
            others.append((*match.span(), ""))
    if found is None or found["end"] != "{":
        names = ", ".join(m["name"] for m in _ENTRY.finditer(code)) or "none"
        raise PTXError(f"kernel {kernel}: there is no entry {name}; there is: {names}.")
    if struct_ := _STRUCT.search(found["parameters"]):
        raise unsupported(
            kernel,
            f"parameter {struct_[1]} is an object of {struct_[2]} bytes, passed by "
            "value. TensorRT passes pointers and 32-bit numbers: let the kernel take "
            "those, and make the object in it.",
        )
    start = found.start("linkage") if found["linkage"] else found.start()
    declared = found.end("linkage") if found["linkage"] else found.start()
    edits = [*others, (start, declared, ".visible ")]
    for first, last, new in sorted(edits, reverse=True):
        text = text[:first] + new + text[last:]
    return _with_sound_variables(text, kernel)


def _only(text: str) -> re.Match[str]:
    """The entry of what :func:`only_entry` returned."""
    found = _ENTRY.search(without_comments(text))
    assert found is not None, "only_entry found it"
    return found


def _with_sound_variables(text: str, kernel: str) -> str:
    """``text`` without the variables that nothing in it names.

    Raises:
        UnsupportedKernelError: one gets its value from somewhere else.
    """
    code = without_comments(text)
    for match in reversed(list(_VARIABLE.finditer(code))):
        name = match["name"]
        is_used = len(identifier(name).findall(code)) > 1
        what = f"{name}, a variable of the module (__{_SPACES[match['space']]}__)"
        if is_used and match["value"] is None:
            raise unsupported(
                kernel,
                f"it uses {what} that the code gives no value. In an engine nobody "
                "else sets it, and launches would share it. Pass a tensor, or give it "
                "its value.",
            )
        if is_used and match["space"] == "global" and _may_be_written(text, name):
            raise unsupported(
                kernel,
                f"it changes {what}, or may: a launch would depend on those before it. "
                "Pass a tensor, or declare the variable const.",
            )
        if not is_used or _PROBE in name:
            text = text[: match.start()] + text[match.end() :]
    return text


def _may_be_written(text: str, name: str) -> bool:
    """Whether the entry may store to a variable.

    The variable's address is read as one more pointer that the entry takes.
    """
    start, state = _only(text), "tta_state"
    place = rf"(?<![\w$]){re.escape(name)}(?:\s*\+\s*\d+)?"
    body = without_comments(text)[start.end() :]
    if re.search(rf"(?<![\w.])(?:st|atom|red)\b[^;]*\[\s*{place}\s*\]", body):
        return True
    body = re.sub(rf"(?<![\w.])(ld\b[^;]*)\[\s*{place}\s*\]", r"\1[0]", body)
    taken = rf"(?:mov|cvta)(?:\.to)?(?:\.global)?\.[bu]64\s+(%\w+)\s*,\s*{place};"
    body = re.sub(taken, rf"ld.param.u64 \1, [{state}];", body)
    if identifier(name).search(body):
        return True
    end = start.end("parameters")
    separator = ", " if start["parameters"].strip() else ""
    parameters = f"{text[:end]}{separator}.param .u64 {state}"
    does = effects(parameters + text[end : start.end()] + body)[state]
    return STORED in does or does == UNKNOWN


_SPACES = {"global": "device", "const": "constant"}


def baked(text: str, values: Mapping[str, tuple[str, str]], kernel: str) -> str:
    """``text`` with constants in place of the loads of parameters.

    Args:
        values: for each parameter the type of a ``mov`` and its operand.

    Raises:
        UnsupportedKernelError: a parameter is not read as one value.
    """
    for name, (kind, operand) in values.items():
        load = re.compile(
            r"ld\.param(?:::entry)?\.[bsuf](?:64|32)(\s+%\w+\s*,)"
            rf"\s*\[{re.escape(name)}\];"
        )
        start = _only(text)
        head, body = text[: start.end()], text[start.end() :]
        body = load.sub(rf"mov.{kind}\1 {operand};", body)
        if identifier(name).search(without_comments(body)):
            raise unsupported(
                kernel,
                f"parameter {name}, whose value is compiled in, is not read as one "
                "value. Write the value into the kernel.",
            )
        text = head + body
    return text


def double(value: float) -> tuple[str, str]:
    """A double as :func:`baked` takes it."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return "f64", f"0d{bits:016X}"


def integer(value: int) -> tuple[str, str]:
    """64 bits as :func:`baked` takes them."""
    return "b64", str(value if value < 2**63 else value - 2**64)


def with_directives(
    text: str, block: tuple[int, int, int], maxnreg: int, min_blocks: int
) -> str:
    """``text`` with what the user asks the assembler for.

    Args:
        block: threads along x, y and z of every launch.
        maxnreg: registers a thread at most; 0 for any number.
        min_blocks: blocks that a multiprocessor is to hold; 0 where it is not said.
    """
    start = _only(text)
    open_brace = start.end() - 1
    parameters_end = text.rindex(")", 0, open_brace)
    directives = text[parameters_end + 1 : open_brace]
    if maxnreg:
        directives = re.sub(r"\.maxnreg\s+\d+", "", directives).rstrip()
        directives += f"\n.maxnreg {maxnreg}\n"
    if min_blocks:
        directives = re.sub(r"\.minnctapersm\s+\d+", "", directives).rstrip()
        if ".maxntid" not in directives and ".reqntid" not in directives:
            directives += f"\n.maxntid {', '.join(map(str, block))}"
        directives += f"\n.minnctapersm {min_blocks}\n"
    return text[: parameters_end + 1] + directives + text[open_brace:]
