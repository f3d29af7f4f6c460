# SPDX-License-Identifier: BSD-3-Clause

"""A report as a web page that needs no other file.

The page says what the summary on a terminal says; then, for each tactic, its launch for
every shape and its code. Of an op of several steps, it does so for each launch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from .program_report import ProgramReport
from .program_text import microseconds, result_of_run
from .report import DryRunReport, ShapeReport, TacticReport, share_of_copy
from .text import (
    arguments,
    blocks,
    config_of,
    extents,
    outcome,
    result_of,
)

_STYLE = """
:root { --line: #d8dee4; --soft: #59636e; --good: #1a7f37; --bad: #c62828;
  --left-out: #9a6700; --bar: #4c8c2b; --card: #f6f8fa; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: white;
  max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
code, pre, .mono { font-family: ui-monospace, monospace; font-size: .87em; }
.verdict { border-left: .35rem solid var(--good); background: var(--card);
  padding: .6rem 1rem; margin: 1rem 0; }
.verdict.bad { border-color: var(--bad); }
.right, .ok { color: var(--good); }
.wrong { color: var(--bad); font-weight: 600; }
.left { color: var(--left-out); }
ul { padding-left: 1.2rem; margin: .4rem 0; }
li pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; white-space: nowrap;
  border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.number { text-align: right; }
.number + :not(.number) { padding-left: .8rem; }
.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .6rem 0;
  padding: 0 1rem; }
details[open] { padding-bottom: 1rem; }
summary { cursor: pointer; padding: .6rem 0; font-weight: 600; }
details details { padding: 0 .8rem; }
details table { font-size: .87em; }
.code { max-height: 32rem; overflow: auto; background: var(--card); padding: .6rem; }
.code pre { margin: 0; }
svg text { font: 13px system-ui, sans-serif; fill: #1f2328; }
"""


def as_html(report: DryRunReport) -> str:
    """Summary, chart, and for each tactic every launch and all code."""
    # Pygments says "color: x" for each class of tokens, below `.code`.
    formatter = HtmlFormatter(style="default")
    if isinstance(report, ProgramReport):
        found = _steps(report, formatter)
    else:
        found = _plugin(report, formatter)
    body = "\n".join((*_head(report), *_op(report), *found))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(report.op)} for {escape(report.target)}</title>\n"
        f"<style>{_STYLE}{formatter.get_style_defs('.code')}</style>\n"
        f"</head><body>\n{body}\n</body></html>\n"
    )


def _head(report: DryRunReport) -> Iterator[str]:
    yield f"<h1>{escape(report.op)}</h1>"
    verdict = "verdict" if report.ok else "verdict bad"
    yield f'<div class="{verdict}">{escape(report.verdict)}</div>'
    for heading, lines in (
        ("Problems", report.problems),
        ("Notes", report.notes),
        ("Next", report.next_steps),
    ):
        if lines:
            tag = "pre" if any("\n" in line for line in lines) else "span"
            each = (escape(_sentence(line)) for line in lines)
            items = "".join(f"<li><{tag}>{line}</{tag}></li>" for line in each)
            yield f"<h2>{heading}</h2>\n<ul>{items}</ul>"


def _sentence(line: str) -> str:
    """With a capital letter, unless it begins with code."""
    is_word = line.partition(" ")[0].isalpha()
    return line[:1].upper() + line[1:] if is_word else line


def _plugin(
    report: DryRunReport, formatter: HtmlFormatter[str], level: int = 2
) -> Iterator[str]:
    """The tactics of one plugin."""
    yield f"<h{level}>Tactics</h{level}>"
    yield from _tactics(report)
    yield f"<h{level}>Launches and code</h{level}>"
    yield from _details(report, formatter)


def _steps(report: ProgramReport, formatter: HtmlFormatter[str]) -> Iterator[str]:
    """All steps together; then each, and the tactics of its plugin."""
    is_timed = any(run.eager_us for run in report.runs)
    yield "<h2>All steps, one after the other</h2>"
    yield _table(
        ("shape", "inputs", "result", *(["the op's own run"] if is_timed else [])),
        (
            (
                run.name,
                ", ".join(map(extents, run.dims)),
                result_of_run(run),
                *([microseconds(run.eager_us)] if is_timed else []),
            )
            for run in report.runs
        ),
        numbers=(2, 3),
    )
    for number, step in enumerate(report.steps, start=1):
        how = "by torch" if step.launch is None else f"plugin {step.launch.op}"
        yield f"<h2>Step {number}: {escape(step.name)}, {escape(how)}</h2>"
        if step.launch is not None:
            yield from _plugin(step.launch, formatter, level=3)


def _op(report: DryRunReport) -> Iterator[str]:
    yield "<h2>Op</h2>"
    facts = {
        "signature": report.signature,
        "attributes": ", ".join(f"{n}={v!r}" for n, v in report.attributes.items()),
        "weights": ", ".join(report.weights),
        "target": report.target,
        "GPU": report.gpu,
        "speed of a copy": f"{report.copy_gbps:.0f} GB/s" if report.copy_gbps else "",
        "versions": ", ".join(f"{n} {v}" for n, v in report.versions.items()),
        "date": report.date.replace("T", " ").replace("+00:00", " UTC"),
    }
    known = ((name, value) for name, value in facts.items() if value)
    yield f"<dl>{''.join(f'<dt>{n}</dt><dd>{escape(v)}</dd>' for n, v in known)}</dl>"


def _tactics(report: DryRunReport) -> Iterator[str]:
    yield from _chart(report)
    headings = ["tactic", "config", "registers", "shared", "spills", "result"]
    headings += ["of a copy"] if report.copy_gbps else []
    rows = (
        (
            str(tactic.tactic),
            f"{tactic.backend}: {config_of(tactic) or 'defaults'}",
            *((str(tactic.registers), f"{tactic.shared_memory} B") if made else "  "),
            f"{tactic.spills} B" if made else "",
            *_time(result_of(report, tactic)),
        )
        for tactic in report.tactics
        for made in (tactic.error is None,)
    )
    cells = (row[: len(headings)] for row in rows)
    yield _table(headings, cells, numbers=(0, 2, 3, 4, 5, 6))


def _time(result: str) -> tuple[str, str]:
    """A time, and the part of a copy's speed; or a result alone."""
    time, _, ratio = result.partition("  ")
    return time, ratio


def _chart(report: DryRunReport) -> Iterator[str]:
    """A bar for each tactic that was timed, and the time of a copy."""
    timed = [
        (tactic, shape)
        for tactic in report.tactics
        if (shape := tactic.typical) is not None and shape.time_us
    ]
    if not timed:
        return
    copies = [
        shape.time_us * (share_of_copy(report, tactic, shape) or 0.0)
        for tactic, shape in timed
        if shape.time_us
    ]
    longest = max([*copies, *(shape.time_us or 0.0 for _, shape in timed)])
    height, start, width = 26, 90, 520
    bars = []
    for row, (tactic, shape) in enumerate(timed):
        time, y = shape.time_us or 0.0, row * height
        length = max(1.0, width * time / longest)
        colour = "var(--bar)" if tactic.is_offered else "var(--bad)"
        told = ", best" if tactic is report.best else ""
        told = told if tactic.is_offered else ", wrong"
        label = f"{time:.1f} us{told}"
        bars.append(
            f'<text x="0" y="{y + 17}">tactic {tactic.tactic}</text>'
            f'<rect x="{start}" y="{y + 4}" width="{length:.1f}" height="18" '
            f'fill="{colour}" rx="2"/>'
            f'<text x="{start + length + 8:.1f}" y="{y + 17}">{label}</text>'
        )
    bottom = height * len(timed)
    if copied := max(copies, default=0.0):
        x = start + width * copied / longest
        bars.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}" stroke="#1f2328" '
            f'stroke-dasharray="4 3"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"a copy: {copied:.1f} us</text>"
        )
    yield (
        f'<svg role="img" aria-label="time of each tactic" viewBox="0 0 740 '
        f'{bottom + 24}" width="100%" style="max-width: 740px">{"".join(bars)}</svg>'
    )


def _details(report: DryRunReport, formatter: HtmlFormatter[str]) -> Iterator[str]:
    for tactic in report.tactics:
        if tactic.error is not None:
            continue
        title = f"tactic {tactic.tactic}: {config_of(tactic) or 'defaults'}"
        lowered = f", lowered from {tactic.retargeted}" if tactic.retargeted else ""
        facts = {
            "entry": tactic.entry,
            "facts": tactic.facts,
            "tensors": tactic.tensors,
            "code": f"{tactic.target}, PTX {tactic.ptx_isa}{lowered}",
        }
        listed = "".join(f"<dt>{n}</dt><dd>{escape(v)}</dd>" for n, v in facts.items())
        opened = " open" if tactic is (report.best or report.tactics[0]) else ""
        code = highlight(tactic.code, get_lexer_by_name("ptx"), formatter)
        yield (
            f"<details{opened}><summary>{escape(title)}</summary>\n"
            f'<dl class="mono">{listed}</dl>\n{_launches(report, tactic)}\n'
            f"<details><summary>PTX of {escape(tactic.entry)}</summary>\n"
            f'<div class="code">{code}</div></details>\n</details>'
        )


def _launches(report: DryRunReport, tactic: TacticReport) -> str:
    """A row for each shape, with named tensors and arguments."""
    headings = ["shape", "inputs", "outputs", "grid", "block", "arguments"]
    headings += ["result"] if report.was_run else []
    headings += ["of a copy"] if report.copy_gbps else []
    headings += ["error"] if report.was_run else []

    def row(shape: ShapeReport) -> Iterator[str]:
        names = (*report.inputs, *report.weights)
        tensors = map(extents, shape.dims)
        yield shape.name
        if len(names) == len(shape.dims):
            yield ", ".join(f"{n} {e}" for n, e in zip(names, tensors, strict=True))
        else:
            yield ", ".join(tensors)
        yield ", ".join(map(extents, shape.outputs))
        yield blocks(shape.grid)
        yield blocks(shape.block)
        yield ", ".join(arguments(tactic, shape))
        if report.was_run:
            time, _, ratio = outcome(report, tactic, shape).partition(", ")
            yield time
            if report.copy_gbps:
                yield ratio.removesuffix(" of a copy")
            error = shape.max_error
            yield "" if error is None else f"{error:.1e}" if error else "0"

    rows = (tuple(row(shape)) for shape in tactic.shapes)
    return _table(headings, rows, numbers=(3, 4, 6, 7, 8))


_CLASSES = {
    "right": "right",
    "in bounds": "right",
    "interpreted": "right",
    "WRONG": "wrong",
    "left out": "left",
}


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]
) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        made = []
        for column, text in enumerate(texts):
            kinds = ["number"] if column in numbers else []
            kinds += [_CLASSES[text]] if text in _CLASSES else []
            kinds += ["wrap"] if len(text) > 40 else []
            attribute = f' class="{" ".join(kinds)}"' if kinds else ""
            made.append(f"<{tag}{attribute}>{escape(text)}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return (
        f'<div class="wide"><table>\n<thead>{cells("th", headings)}</thead>\n'
        f"<tbody>{body}</tbody>\n</table></div>"
    )
