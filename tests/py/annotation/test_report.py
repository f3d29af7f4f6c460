"""A report's other forms: a web page and a plot."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_tensorrt.annotation import DryRunReport, _execute
from torch_tensorrt.annotation._plot import bytes_moved
from torch_tensorrt.annotation._report import ShapeReport, TacticReport
from torch_tensorrt.annotation.errors import DryRunError


def shape(name: str, rows: int, time: float | None, ok: bool | None) -> ShapeReport:
    dims = ((rows, 512),)
    return ShapeReport(
        name=name,
        dims=dims,
        grid=(rows, 1, 1),
        block=(128, 1, 1),
        extras=(rows * 512,),
        outputs=dims,
        ok=ok,
        failure="output 0: <b>1 of 4</b>" if ok is False else "",
        max_error=0.25,
        time_us=time,
        spread_us=0.5,
    )


def tactic(number: int, *shapes: ShapeReport, error: str | None = None) -> TacticReport:
    return TacticReport(
        tactic=number,
        backend="triton",
        config={"BLOCK": 256 * number},
        dtypes=("FP16", "FP16"),
        formats=("LINEAR", "LINEAR"),
        facts="x%16",
        target="sm_90",
        entry=f"entry_{number}",
        code="// code & <more>",
        ptx_isa="8.5",
        registers=32,
        shapes=shapes,
        error=error,
    )


@pytest.fixture
def report() -> DryRunReport:
    """Of a tactic that is best, one that is wrong, and one that is left out."""
    good = [shape("min", 1, 2.0, True), shape("opt", 64, 4.0, True)]
    bad = [shape("min", 1, 3.0, False), shape("opt", 64, 5.0, True)]
    tactics = [tactic(1, *good), tactic(2, *bad), tactic(3, error="no <kernel>")]
    return DryRunReport("my::op", "sm_90", tactics, copy_gbps=3000.0)


class Page(HTMLParser):
    """What a browser would see: tags that match, text, and nothing to fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_is_whole_and_needs_nothing_else(report: DryRunReport) -> None:
    page = Page(report.to_html())
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.seen}
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.seen)
    assert "url(" not in report.to_html()


def test_what_a_report_holds_is_escaped(report: DryRunReport) -> None:
    html = report.to_html()
    assert "<b>" not in html
    assert "no &lt;kernel&gt;" in html
    assert "// code &amp; &lt;more&gt;" in html
    assert "output 0: <b>1 of 4</b>" in Page(html).text


def test_rows_are_as_wide_as_the_table(report: DryRunReport) -> None:
    html = report.to_html()
    headings = html.count("<th>")
    rows = re.findall(r"<tr class.*?</tr>", html)
    assert len(rows) == 5
    first = len(re.findall("<td", rows[0]))
    assert first == headings
    spanned = len(re.findall('rowspan="2"', rows[0]))
    assert len(re.findall("<td", rows[1])) == headings - spanned


def test_a_shape_that_could_not_be_run_is_no_success() -> None:
    large = replace(shape("max", 99, None, None), failure="not run: out of GPU memory")
    one = tactic(1, shape("opt", 64, 4.0, True), large)
    report = DryRunReport("my::op", "sm_90", [one])
    assert not report.ok
    assert report.best is one
    assert "tactic 1, max: not run: out of GPU memory" in str(report)
    assert "Not every tactic was run at every shape." in report.to_html()


def test_the_best_and_the_wrong_are_marked(report: DryRunReport) -> None:
    html = report.to_html()
    kinds = re.findall(r'<tr class="(\w*)">', html)
    assert kinds == ["best", "best", "failed", "failed", "failed"]
    assert "TensorRT would pick tactic 1." in html
    assert "Not every tactic is right." in html


def test_a_report_that_was_not_run_says_so(report: DryRunReport) -> None:
    compiled = [shape("static", 8, None, None)]
    page = replace(report, tactics=[tactic(1, *compiled)]).to_html()
    assert "Compiled, not run." in page
    assert '<td class="number">not run</td>' in page


def test_the_table_says_where_it_was_run_and_how_far_times_spread(
    report: DryRunReport,
) -> None:
    assert str(report).startswith("my::op for sm_90\n")
    report = replace(report, gpu="NVIDIA X")
    assert str(report).startswith("my::op for sm_90, on NVIDIA X\n")
    assert "4.0 ±0.2 us" in str(report)
    assert DryRunReport.from_json(report.to_json()).gpu == "NVIDIA X"


def test_packed_tensors_are_named_with_their_format() -> None:
    packed = replace(tactic(1), formats=("CHW32", "LINEAR"))
    assert packed.tensors == "FP16:CHW32 FP16"


def test_a_copys_speed_is_in_the_json(report: DryRunReport) -> None:
    assert DryRunReport.from_json(report.to_json()) == report


def test_a_plot_shows_what_was_right_and_a_copy(
    report: DryRunReport, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    axes = report.plot()
    heights = sorted(bar.get_height() for bar in axes.patches)
    assert heights == [2.0, 4.0, 5.0]  # of the wrong one nothing
    lines = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    moved = 2 * 64 * 512 * 2
    assert lines[1] == pytest.approx(moved / 3000e9 * 1e6)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "1: triton BLOCK=256, best" in texts
    assert "a copy of as many bytes, at 3.00 TB/s" in texts
    axes.figure.savefig(tmp_path / "times.png")
    assert (tmp_path / "times.png").stat().st_size > 1000


def test_the_bytes_are_those_of_inputs_and_outputs() -> None:
    mixed = replace(tactic(1), dtypes=("FP32", "INT8"))
    assert bytes_moved(mixed, shape("opt", 8, 1.0, True)) == 8 * 512 * 5


def test_without_times_there_is_nothing_to_plot(report: DryRunReport) -> None:
    with pytest.raises(DryRunError, match="no tactic has a time"):
        replace(report, tactics=[tactic(1, error="no")]).plot()


def test_plotting_says_what_it_needs(
    report: DryRunReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DryRunError, match=r"plot\(\) needs matplotlib"):
        report.plot()


def test_a_wrong_tactic_stays_wrong_where_the_next_does_not_fit_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = shape("static", 64, 1.0, False)
    found = iter([wrong])

    def run(*_: Any) -> ShapeReport:
        for known in found:
            return known
        raise torch.cuda.OutOfMemoryError

    def too_large(report: ShapeReport, *_: Any) -> ShapeReport:
        return replace(report, failure="not run")

    monkeypatch.setattr(_execute, "_run", run)
    monkeypatch.setattr(_execute, "_too_large", too_large)
    tactics = [tactic(n, shape("static", 64, None, None)) for n in (1, 2)]
    kernels: Any = dict.fromkeys((1, 2))
    case: Any = lambda *_: "a case"  # noqa: E731
    first, second = _execute._at_shape(0, tactics, kernels, case, None, lambda: None)
    assert first is wrong
    assert (second.ok, second.failure) == (None, "not run")
