# SPDX-License-Identifier: BSD-3-Clause

"""A report as a web page that needs no other file."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from .report import DryRunReport
from .text import width_of


def as_html(report: DryRunReport) -> str:
    """Every launch, and all code."""
    report = replace(report, verbose=True)
    console = Console(record=True, file=io.StringIO(), width=width_of(report))
    codes = (
        Text(f"\ntactic {tactic.tactic}: {tactic.entry}\n\n{tactic.code}")
        for tactic in report.tactics
        if tactic.code
    )
    console.print(report, *codes)
    return console.export_html()
