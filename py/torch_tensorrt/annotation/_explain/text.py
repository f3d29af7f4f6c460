# SPDX-License-Identifier: BSD-3-Clause

"""A model's report on a terminal: the verdict, a table of its ops, and what to do."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .._dry_run.text import WIDTH
from .report import ModelReport


def as_text(report: ModelReport) -> str:
    """What a report prints, without colour."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(renderable(report))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)


def show(report: ModelReport) -> None:
    """Print a report to standard output, in colour if that is a terminal."""
    console = Console(width=WIDTH)
    if console.is_terminal:
        console.print(renderable(report))
    else:
        print(report)


def renderable(report: ModelReport) -> RenderableType:
    """What rich prints of a report."""
    verdict = Text(report.verdict[:1].upper() + report.verdict[1:])
    verdict.stylize("green" if report.ok else "yellow")
    return Group(verdict, *_details(report))


def _details(report: ModelReport) -> Iterable[RenderableType]:
    if report.ops:
        yield from ("", _table(report), "")
    for op in report.having("possible"):
        yield Text(op.registration)
    for op in report.ops:
        if op.reason:
            where = [op.place, op.used_at and f"called at {op.used_at}"]
            first, *more = op.error.splitlines()
            told = f"{first} ..." if more else first
            head = f"{op.op} ({', '.join(filter(None, where))}):"
            yield Text.assemble((head, "yellow"), " ", told)
    if outside := report.outside():
        each = (f"{op} ({n} times)" if n > 1 else op for op, n in outside.items())
        yield Text.assemble(("Also in PyTorch:", "yellow"), f" {', '.join(each)}")
    for step in report.next_steps:
        yield Text.assemble(("Next:", "bold"), f" {step}")


def _table(report: ModelReport) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("op", overflow="fold")
    table.add_column("calls", justify="right")
    table.add_column("becomes", overflow="fold")
    for op in report.ops:
        table.add_row(*map(Text, (op.op, str(op.calls), op.becomes)))
    return Padding(table, (0, 0, 0, 2))
