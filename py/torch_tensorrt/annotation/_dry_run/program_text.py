# SPDX-License-Identifier: BSD-3-Clause

"""A report of several steps on a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .program_report import ProgramReport, RunReport
from .text import (
    WIDTH,
    extents,
    headline,
    launches_table,
    remarks,
    tactics_table,
    width_of,
)


def as_text(report: ProgramReport) -> str:
    """What a report prints, without colour."""
    console = Console(file=io.StringIO(), width=_width(report), color_system=None)
    console.print(renderable(report))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines)


def show(report: ProgramReport) -> None:
    """Print a report to standard output, in colour if that is a terminal."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        print(report)
        return
    console.width = _width(report)
    console.print(renderable(report))


def renderable(report: ProgramReport) -> RenderableType:
    """What rich prints of a report."""
    steps, runs = _steps(report), Padding(_runs(report), (0, 0, 0, 2))
    return Group(headline(report), "", *steps, runs, "", *remarks(report))


def _width(report: ProgramReport) -> int:
    if not report.verbose:
        return WIDTH
    return max(width_of(replace(launch, verbose=True)) for launch in report.launches)


def _steps(report: ProgramReport) -> Iterator[RenderableType]:
    """A line for each step, and a table for each launch."""
    for number, step in enumerate(report.steps, start=1):
        how = "by torch" if step.launch is None else f"plugin {step.launch.op}"
        yield Text.assemble(f"step {number}: ", (step.name, "bold"), f", {how}")
        if step.launch is not None:
            show_all = launches_table if report.verbose else tactics_table
            yield show_all(step.launch)
    yield ""


def _runs(report: ProgramReport) -> Table:
    """A line for each shape."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    is_timed = any(run.eager_us for run in report.runs)
    headings = "shape", "inputs", "all steps", "eager"
    for heading in headings if is_timed else headings[:-1]:
        table.add_column(heading, overflow="fold")
    for run in report.runs:
        cells = run.name, ", ".join(map(extents, run.dims)), result_of_run(run)
        table.add_row(
            *map(Text, cells), *([microseconds(run.eager_us)] if is_timed else [])
        )
    return table


def result_of_run(run: RunReport) -> str:
    """A time, or what else is known."""
    if run.ok is None:
        return "not run"
    if not run.ok:
        return "WRONG"
    return microseconds(run.time_us) or "interpreted"


def microseconds(time: float | None) -> str:
    """A time; empty where there is none."""
    return "" if time is None else f"{time:.1f} us"
