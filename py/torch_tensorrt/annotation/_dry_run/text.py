# SPDX-License-Identifier: BSD-3-Clause

"""A report on a terminal: a summary in 80 columns, or a table with every launch.

The summary of one plugin is a block: the verdict, a line for each tactic, what is wrong
and what is odd, and what to do next.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .report import DryRunReport, ShapeReport, TacticReport, share_of_copy

if TYPE_CHECKING:
    from rich.console import JustifyMethod

WIDTH = 80  # characters of a summary
_COLOURS = {
    **dict.fromkeys(("right", "in bounds"), "green"),
    "WRONG": "bold red",
    "left out": "yellow",
}


def as_text(report: DryRunReport) -> str:
    """What a report prints, without colour."""
    console = Console(file=io.StringIO(), width=width_of(report), color_system=None)
    console.print(renderable(report))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)


def show(report: DryRunReport) -> None:
    """Print a report to standard output, in colour if that is a terminal."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        print(report)
        return
    console.width = width_of(report)
    console.print(renderable(report))


def renderable(report: DryRunReport) -> RenderableType:
    """What rich prints of a report."""
    tables: list[RenderableType] = ["", tactics_table(report), ""]
    if report.verbose:
        tables = [launches_table(report)]
    return Group(headline(report), *tables, *remarks(report))


def width_of(report: DryRunReport) -> int:
    """How wide a report prints: its table, if it shows one, is as wide as it needs."""
    if not report.verbose:
        return WIDTH
    console = Console(file=io.StringIO(), width=_TABLE_WIDTH)
    unlimited = console.options.update(max_width=10 * _TABLE_WIDTH)
    return max(
        _TABLE_WIDTH, console.measure(launches_table(report), options=unlimited).maximum
    )


# --- The summary ----------------------------------------------------------------------


def headline(report: DryRunReport) -> Text:
    text = Text.assemble((report.op, "bold"), f": {report.verdict}")
    text.stylize("green" if report.ok else "red", len(report.op) + 2)
    return text


def remarks(report: DryRunReport) -> Iterable[RenderableType]:
    """What is wrong, what is odd, and what to do next."""
    for problem in report.problems:
        yield _hanging(problem, "red")
    for note in report.notes:
        yield _hanging(note, "")
    for step in report.next_steps:
        yield _hanging(f"Next: {step}", "bold")


def _hanging(text: str, style: str) -> RenderableType:
    """A paragraph whose first words, up to a colon, stand out."""
    head, colon, rest = text.partition(": ")
    return Text.assemble((head + colon.rstrip(), style), colon and " ", rest)


def tactics_table(report: DryRunReport) -> RenderableType:
    """One line a tactic."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    headings: list[tuple[str, JustifyMethod]] = [
        *(("tactic", "right"), ("config", "left"), ("registers", "right")),
        *(("shared", "right"), ("spills", "right"), (_result_heading(report), "right")),
    ]
    for heading, justify in headings if headings[-1][0] else headings[:-1]:
        overflow: Any = "fold" if heading == "config" else "ellipsis"
        table.add_column(heading, justify=justify, overflow=overflow)
    several = len({tactic.backend for tactic in report.tactics}) > 1
    for tactic in report.tactics:
        language = f"{tactic.backend}: " if several else ""
        config = f"{language}{config_of(tactic) or 'defaults'}"
        result = result_of(report, tactic)
        style = _COLOURS.get(result, "bold" if tactic is report.best else "")
        if tactic.error is None:
            shared = f"{tactic.shared_memory} B"
            cells = [str(tactic.registers), shared, f"{tactic.spills} B", result]
        else:
            cells = ["", "", "", "left out"]
        row = [str(tactic.tactic), config, *cells[: len(table.columns) - 2]]
        table.add_row(*map(Text, row), style=style)
    return Padding(table, (0, 0, 0, 2))


def _result_heading(report: DryRunReport) -> str:
    if report.copy_gbps or report.best:
        return "time, copy/time" if report.copy_gbps else "time"
    is_told = any(t.error or s.ok is not None for t in report.tactics for s in t.shapes)
    return "result" if is_told or any(t.error for t in report.tactics) else ""


def result_of(report: DryRunReport, tactic: TacticReport) -> str:
    """``4.0 us  0.97``; or whether the tactic is right."""
    if tactic.error is not None:
        return "left out"
    if any(shape.ok is False for shape in tactic.shapes):
        return "WRONG"
    if (shape := tactic.typical) is None or shape.time_us is None:
        return report.well if any(s.ok for s in tactic.shapes) else "not run"
    ratio = share_of_copy(report, tactic, shape)
    return f"{shape.time_us:.1f} us" + (f"  {ratio:.2f}" if ratio else "")


# --- The table of every launch --------------------------------------------------------

_TABLE_WIDTH = 150  # characters, or what the table's numbers need
_MOST_TEXT = 24  # characters of a config or of facts, before they go on below
_COLUMNS = (
    *("tactic", "config", "entry, facts", "code", "regs", "smem", "spills"),
    *("block", "shape", "grid", "extras", "result"),
)
_LEFT = ("config", "entry, facts", "code", "shape", "extras")  # others are numbers


def launches_table(report: DryRunReport) -> Table:
    table = Table()
    longest = max([_MOST_TEXT, *(len(tactic.entry) for tactic in report.tactics)])
    for heading in _COLUMNS if report.was_run else _COLUMNS[:-1]:
        justify: Any = "left" if heading in _LEFT else "right"
        # A shape's line that folded would shift those of the shapes below it.
        most = {"config": _MOST_TEXT, "entry, facts": longest}.get(heading)
        table.add_column(heading, justify=justify, overflow="fold", max_width=most)
    for tactic in report.tactics:
        cells = _row(report, tactic)
        cells[0] += "\nbest" if tactic is report.best else ""
        # A Text is shown as it is; rich would take "[x]" in a str for markup.
        table.add_row(*map(Text, cells[: len(table.columns)]), end_section=True)
    return table


def _row(report: DryRunReport, tactic: TacticReport) -> list[str]:
    """The cells of ``_COLUMNS``; the last ones have a line for each shape."""
    shapes = tactic.shapes
    head = [str(tactic.tactic), f"{tactic.backend}\n{config_of(tactic)}"]
    if tactic.error is not None:
        return [*head, "left out"]
    lowered = f", from {tactic.retargeted}" if tactic.retargeted else ""
    return [
        *head,
        f"{tactic.entry}\n{tactic.facts}\n{tactic.tensors}",
        f"{tactic.target}\nPTX {tactic.ptx_isa}{lowered}",
        str(tactic.registers),
        str(tactic.shared_memory),
        str(tactic.spills),
        blocks(shapes[0].block),
        "\n".join(f"{s.name} {', '.join(map(extents, s.dims))}" for s in shapes),
        "\n".join(blocks(s.grid) for s in shapes),
        "\n".join(", ".join(arguments(tactic, s)) for s in shapes),
        "\n".join(outcome(report, tactic, s) for s in shapes),
    ]


# --- What all forms of a report share -------------------------------------------------


def config_of(tactic: TacticReport) -> str:
    """``BLOCK=256, num_warps=8``."""
    return ", ".join(f"{name}={value}" for name, value in tactic.config.items())


def extents(shape: Sequence[int] | None) -> str:
    """``8x4096``."""
    return "none" if shape is None else "x".join(map(str, shape)) or "scalar"


def blocks(shape: Sequence[int]) -> str:
    """A grid or a block, without trailing ones."""
    return re.sub("(x1)+$", "", extents(shape))


def arguments(tactic: TacticReport, shape: ShapeReport) -> list[str]:
    """``n=65536`` and ``eps=1e-06``: the arguments between inputs and outputs."""
    found = []
    unnamed = tuple(f"extra {i}" for i in range(len(shape.extras)))
    named = tactic.arguments or unnamed
    for argument, value in zip(named, shape.extras, strict=True):
        name, _, kind = argument.partition(": ")
        found.append(f"{name}={_float(value) if kind == 'f32' else value}")
    return found


def _float(bits: int) -> float:
    """The float whose bits an integer has, in as few digits as a float of 32 bits."""
    (value,) = struct.unpack("<f", struct.pack("<i", bits))
    return float(f"{value:.7g}")


def outcome(report: DryRunReport, tactic: TacticReport, shape: ShapeReport) -> str:
    """``4.0 ±0.2 us, 0.97 of a copy``, or whether the kernel was right at a shape."""
    if shape.ok is None:
        return "not run"
    if not shape.ok:
        return "WRONG"
    if shape.time_us is None:
        return "interpreted"
    text = f"{shape.time_us:.1f} ±{(shape.spread_us or 0.0) / 2:.1f} us"
    ratio = share_of_copy(report, tactic, shape)
    return f"{text}, {ratio:.2f} of a copy" if ratio else text
