"""A dry run's report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1b1f24; }
h1 { font-size: 1.3rem; }
table { border-collapse: collapse; }
th, td { border: 1px solid #d0d7de; padding: .3rem .6rem; text-align: left;
         vertical-align: top; }
th { background: #f6f8fa; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.best { background: #dafbe1; }
tr.failed, li.failed { background: #ffebe9; }
pre { max-height: 30rem; overflow: auto; background: #f6f8fa; padding: 1rem; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; }
  th, pre { background: #161b22; } th, td { border-color: #30363d; }
  tr.best { background: #12351f; } tr.failed, li.failed { background: #451a1a; }
}
"""
_HEADINGS = (
    *("tactic", "backend and config", "facts told", "dtypes", "code", "registers"),
    *("shared memory", "spills", "shape", "grid", "block", "extras", "max error"),
    *("time", "spread"),
)


def render(report: Any) -> str:
    """The page for a ``DryRunReport``: a table, what went wrong, and the code."""
    title = escape(report.title)
    headings = "".join(f"<th>{escape(heading)}</th>" for heading in _HEADINGS)
    rows = "\n".join(row for tactic in report.tactics for row in _rows(report, tactic))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{_summary(report)}</p>
<table>
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{_failures(report)}
<h2>Code</h2>
{"".join(map(_code, report.tactics))}
</body>
</html>
"""


def _summary(report: Any) -> str:
    if not any(shape.ok is not None for t in report.tactics for shape in t.shapes):
        verdict = "Compiled, not run."
    elif report.ok:
        verdict = "Every tactic was run, and is right."
    elif any(shape.ok is False for t in report.tactics for shape in t.shapes):
        verdict = "Not every tactic is right."
    else:
        verdict = "Not every tactic was run at every shape."
    if report.best is not None:
        verdict += f" TensorRT would pick tactic {report.best.tactic}."
    return escape(verdict)


def _rows(report: Any, tactic: Any) -> Iterable[str]:
    """A row for each shape; the tactic's own cells span them."""
    kind = "best" if tactic is report.best else "" if tactic.ok else "failed"
    config = ", ".join(f"{name}={value}" for name, value in tactic.config.items())
    head = [str(tactic.tactic), f"{tactic.backend} {config}"]
    if tactic.error is not None:
        rest = (
            f'<td colspan="{len(_HEADINGS) - 2}">left out: {escape(tactic.error)}</td>'
        )
        yield f'<tr class="{kind}">{"".join(map(_cell, head))}{rest}</tr>'
        return
    form = f"PTX {tactic.ptx_isa}" if tactic.ptx_isa else "CUBIN"
    code = f"{tactic.entry} {tactic.target} {form}"
    head += [tactic.facts, tactic.tensors, code]
    numbers = [tactic.registers, tactic.shared_memory, tactic.spills]
    span = len(tactic.shapes)
    cells = [_cell(text, span) for text in head]
    cells += [_cell(str(number), span, "number") for number in numbers]
    for shape in tactic.shapes:
        yield f'<tr class="{kind}">{"".join(cells)}{_shape(shape)}</tr>'
        cells = []


def _shape(shape: Any) -> str:
    dims = ", ".join(_times(extents) for extents in shape.dims)
    texts = [f"{shape.name} {dims}", _times(shape.grid), _times(shape.block)]
    texts.append(", ".join(map(str, shape.extras)))
    if shape.ok is None:
        outcome = ["", "not run", ""]
    else:
        error = "" if shape.max_error is None else f"{shape.max_error:.2g}"
        time = f"{shape.time_us:.1f} us" if shape.ok else "WRONG"
        outcome = [error, time, f"{shape.spread_us or 0:.1f} us"]
    return "".join(map(_cell, texts)) + "".join(_cell(o, 1, "number") for o in outcome)


def _cell(text: str, span: int = 1, kind: str = "") -> str:
    attributes = f' rowspan="{span}"' if span > 1 else ""
    attributes += f' class="{kind}"' if kind else ""
    return f"<td{attributes}>{escape(text)}</td>"


def _failures(report: Any) -> str:
    items = "".join(
        f'<li class="failed">tactic {tactic.tactic}, {escape(shape.name)}: '
        f"{escape(shape.failure)}</li>"
        for tactic in report.tactics
        for shape in tactic.shapes
        if shape.failure
    )
    return f"<h2>What is wrong</h2>\n<ul>{items}</ul>" if items else ""


def _code(tactic: Any) -> str:
    if not tactic.code:
        return ""
    name = escape(f"tactic {tactic.tactic}: {tactic.entry}")
    text = tactic.code if isinstance(tactic.code, str) else "(not text)"
    body = f"<pre>{escape(text)}</pre>"
    return f"<details><summary>{name}</summary>{body}</details>\n"


def _times(extents: Iterable[int]) -> str:
    return "x".join(map(str, extents)) or "scalar"
