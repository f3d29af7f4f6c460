# SPDX-License-Identifier: BSD-3-Clause

"""A report's forms: a table, a web page and JSON, which say the same."""

from __future__ import annotations

import contextlib
import html
import os
import pty
import struct
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

import torch_tensorrt.annotation._dry_run.execute as execution
from torch_tensorrt.annotation import DryRunReport
from torch_tensorrt.annotation._dry_run.report import (
    ShapeReport,
    TacticReport,
    bytes_moved,
)


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
        max_error=None if ok is None else 0.25,
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
        code="" if error else "// code & <more>",
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
    tactics = (tactic(1, *good), tactic(2, *bad), tactic(3, error="no <kernel>"))
    return DryRunReport("my::op", "sm_90", tactics, copy_gbps=3000.0)


@pytest.fixture
def compiled() -> DryRunReport:
    """Of one tactic that was not run."""
    return DryRunReport("my::op", "sm_90", (tactic(1, shape("opt", 64, None, None)),))


class Page(HTMLParser):
    """What a browser would show: tags that match, text, and nothing to fetch."""

    def __init__(self, report: DryRunReport) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(report.to_html())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_is_whole_and_needs_no_other_file(report: DryRunReport) -> None:
    page = Page(report)
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.seen}
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.seen)
    assert "url(" not in report.to_html()


def test_what_a_report_holds_is_escaped(report: DryRunReport) -> None:
    text = replace(report, op="my::<op>").to_html()
    assert "<b>" not in text and "<op>" not in text
    assert "no &lt;kernel&gt;" in text
    assert "// code &amp; &lt;more&gt;" in text
    assert "output 0: <b>1 of 4</b>" in Page(report).text


def test_the_page_shows_each_launch_with_named_arguments(report: DryRunReport) -> None:
    tactics = tuple(replace(t, arguments=("n",)) for t in report.tactics)
    report = replace(report, tactics=tactics, inputs=("x",), date="2026-11-26")
    report = replace(report, signature="my::op(Tensor x)", versions={"triton": "3.9"})
    text = Page(report).text
    for shown in (
        *("my::op(Tensor x)", "2026-11-26", "triton 3.9"),
        *("x 64x512", "n=32768", "4.0 ±0.2 us", "2.5e-01", "PTX 8.5", "left out"),
    ):
        assert shown in text, shown


def test_a_bar_for_each_tactic_that_was_timed(
    report: DryRunReport, compiled: DryRunReport
) -> None:
    bars = [attributes for tag, attributes in Page(report).seen if tag == "rect"]
    widths = [float(bar["width"] or 0) for bar in bars]
    assert widths == [pytest.approx(520 * 4 / 5), pytest.approx(520)]
    text = Page(report).text
    assert "4.0 us, best" in text and "5.0 us, wrong" in text and "a copy: 0.0" in text
    assert not any(tag == "svg" for tag, _ in Page(compiled).seen)


def test_code_has_colour(report: DryRunReport) -> None:
    assert '<span class="c">// code &amp; &lt;more&gt;</span>' in report.to_html()


@pytest.mark.parametrize("dims", [None, (), (4, 8)], ids=["none", "scalar", "4x8"])
def test_extents_read_the_same_on_the_screen_and_on_the_page(
    request: pytest.FixtureRequest, dims: tuple[int, ...] | None
) -> None:
    """An optional tensor that is not given is "none"."""
    expected = request.node.callspec.id
    one = replace(shape("opt", 64, 4.0, True), dims=((64, 512), dims))
    whole = replace(tactic(1, one), dtypes=("FP16", "BOOL", "FP16"))
    whole = replace(whole, formats=("LINEAR",) * 3)
    report = DryRunReport("my::op", "sm_90", (whole,), verbose=True)
    assert f"opt 64x512, {expected} " in str(report)
    assert f"64x512, {expected}" in Page(report).text
    assert DryRunReport.from_json(report.to_json()) == report


def test_what_looks_like_markup_is_shown(report: DryRunReport) -> None:
    message = "pip install 'torch-tensorrt-annotation[triton]'"
    odd = replace(tactic(1, error=message), config={"MODE": "[bold]"})
    report = replace(report, tactics=(odd,))
    assert message in str(report) and "MODE=[bold]" in str(report)
    assert html.escape(message) in report.to_html()


def test_everything_that_is_wrong_is_listed_in_both_forms(report: DryRunReport) -> None:
    assert report.problems == (
        "tactic 3 is left out: no <kernel>",
        "tactic 2 at min: output 0: <b>1 of 4</b>",
    )
    page = Page(report)
    for problem in report.problems:
        assert problem in str(report) and problem[1:] in page.text


def test_what_several_tactics_have_in_common_is_listed_once() -> None:
    small, large = shape("min", 1, 3.0, False), shape("opt", 64, 5.0, False)
    tactics = tactic(1, small, large), tactic(2, small, large), tactic(3, large)
    left_out = tactic(4, error="no kernel"), tactic(5, error="no kernel")
    report = DryRunReport("my::op", "sm_90", (*tactics, *left_out))
    assert report.problems == (
        "tactics 4, 5 are left out: no kernel",
        "tactics 1, 2 at min, opt; tactic 3 at opt: output 0: <b>1 of 4</b>",
    )


def test_the_verdict_counts_the_tactics_that_are_right(
    report: DryRunReport, compiled: DryRunReport
) -> None:
    report = replace(report, gpu="NVIDIA X")
    assert report.verdict == (
        "2 of 3 tactics compile for sm_90, drivers from CUDA 12.5; executed on NVIDIA "
        "X: 1 of 2 tactics in bounds, values not compared; fastest 4.0 us (tactic 1), "
        "0.01 of a copy's speed."
    )
    assert compiled.verdict == (
        "1 of 1 tactic compiles for sm_90, drivers from CUDA 12.5; not run, so what "
        "they compute was not checked."
    )
    right = replace(report, tactics=report.tactics[:1], against="the reference silu")
    assert "<span>torch_tensorrt.compile(" in right.to_html()  # code, in lower case
    newer = replace(compiled, least_ptx_isa="9.0")  # than Triton's code for sm_80
    assert "drivers from CUDA 13.0; not run" in newer.verdict
    against = replace(report, against="the reference silu")
    assert "1 of 2 tactics right, against the reference silu; f" in against.verdict
    for one in (report, compiled, against):
        assert one.verdict in str(one).replace("\n", " ")
        assert one.verdict in " ".join(Page(one).text.split())


def test_a_summary_has_a_line_for_each_tactic_in_80_columns(
    report: DryRunReport,
) -> None:
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    table = lines.index(next(line for line in lines if "registers" in line))
    assert [" ".join(line.split()) for line in lines[table : table + 4]] == [
        "tactic config registers shared spills time, copy/time",
        "1 BLOCK=256 32 0 B 0 B 4.0 us 0.01",
        "2 BLOCK=512 32 0 B 0 B WRONG",
        "3 BLOCK=768 left out",
    ]


def test_what_to_do_next_follows_from_what_was_found(
    report: DryRunReport, compiled: DryRunReport
) -> None:
    right = DryRunReport("my::op", "sm_90", report.tactics[:1], against="silu")
    (step,) = right.next_steps
    assert "torch_tensorrt.compile" in step
    (step,) = compiled.next_steps
    assert "on a machine with a GPU for sm_90" in step
    (wrong,) = report.next_steps
    assert wrong.startswith("correct or remove what is wrong above; TensorRT would")
    (compare, _) = replace(right, against="").next_steps
    assert "reference=" in compare
    for one in (report, compiled, right):
        for step in one.next_steps:
            assert f"Next: {step}" in str(one).replace("\n", " ")


def test_only_a_terminal_gets_colour(
    report: DryRunReport, capsys: pytest.CaptureFixture[str]
) -> None:
    report.show()
    assert capsys.readouterr().out == f"{report}\n"
    master, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", stream)
        report.show()
    with contextlib.suppress(OSError):  # Linux's end of a terminal
        assert b"\x1b[" in os.read(master, 1 << 16)
    os.close(master)


def test_extra_arguments_have_the_kernels_names_and_floats_are_floats() -> None:
    bits = int.from_bytes(struct.pack("<f", 1e-6), "little", signed=True)
    one = replace(shape("opt", 64, 4.0, True), extras=(512, bits))
    whole = replace(tactic(1, one), arguments=("n", "eps: f32"))
    report = DryRunReport("my::op", "sm_90", (whole,), verbose=True)
    assert "n=512, eps=1e-06" in str(report)
    assert DryRunReport.from_json(report.to_json()).tactics[0].shapes[0].extras == (
        512,
        bits,
    )


def test_each_kernel_has_its_code_on_the_page(report: DryRunReport) -> None:
    page = Page(report)
    assert page.text.count("// code & <more>") == 2  # the third tactic has none
    assert "PTX of entry_2" in page.text


def test_a_time_is_compared_with_that_of_a_copy(report: DryRunReport) -> None:
    moved = 2 * 64 * 512 * 2
    ratio = 4.0 / (moved / 3000e9 * 1e6)
    report = replace(report, verbose=True)
    assert f"4.0 ±0.2 us, {1 / ratio:.2f} of a copy" in str(report)
    assert "4.0 ±0.2 us " in str(replace(report, copy_gbps=None))
    assert str(report).count("WRONG") == 1


def test_a_shapes_numbers_are_on_one_line_however_long(report: DryRunReport) -> None:
    wide = replace(shape("opt", 64, 4.0, True), extras=(123456789,) * 12)
    long = replace(tactic(1, wide, wide), entry="entry_" * 12, facts="x%16 " * 40)
    report = replace(report, verbose=True, tactics=(long,))
    line = [x for x in str(report).splitlines() if "opt" in x]
    assert len(line) == 2
    assert all(x.count("123456789") == 12 and "4.0 ±0.2 us" in x for x in line)
    assert long.entry in str(report)


def test_without_times_there_is_no_column_for_them(compiled: DryRunReport) -> None:
    assert not {"time", "result"} & {*str(compiled).split()}
    assert "result" not in str(replace(compiled, verbose=True))


def test_the_bytes_are_those_of_inputs_and_outputs() -> None:
    mixed = replace(tactic(1), dtypes=("FP32", "INT8"))
    assert bytes_moved(mixed, shape("opt", 8, 1.0, True)) == 8 * 512 * 5


def test_a_tensor_that_is_not_given_has_no_bytes() -> None:
    mixed = replace(tactic(1), dtypes=("FP32", "BOOL", "FP32"))
    one = replace(shape("opt", 8, 1.0, True), dims=((8, 512), None))
    assert bytes_moved(mixed, one) == 8 * 512 * 8


def test_a_shape_that_could_not_be_run_is_not_a_success() -> None:
    large = replace(shape("max", 99, None, None), failure="not run: out of GPU memory")
    one = tactic(1, shape("opt", 64, 4.0, True), large)
    report = DryRunReport("my::op", "sm_90", (one,))
    assert not report.ok
    assert report.best is one


def test_the_gpu_is_named(report: DryRunReport) -> None:
    report = replace(report, gpu="NVIDIA X")
    assert "executed on NVIDIA X" in report.verdict
    assert DryRunReport.from_json(report.to_json()).gpu == "NVIDIA X"


def test_packed_tensors_are_named_with_their_format() -> None:
    packed = replace(tactic(1), formats=("CHW32", "LINEAR"))
    assert packed.tensors == "FP16:CHW32 FP16"


def test_a_report_is_read_back_from_json_as_it_was(report: DryRunReport) -> None:
    assert DryRunReport.from_json(report.to_json()) == report


def test_an_infinite_error_is_null_in_json(report: DryRunReport) -> None:
    bad = replace(shape("opt", 64, 5.0, False), max_error=float("inf"))
    report = replace(report, tactics=(tactic(1, bad),))
    assert "Infinity" not in report.to_json()
    (found,) = DryRunReport.from_json(report.to_json()).tactics[0].shapes
    assert found == replace(bad, max_error=None)


def test_a_wrong_tactic_stays_wrong_where_the_next_does_not_fit_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = shape("static", 64, 1.0, False)

    def run(kernel: Any, case: Any, tactic: TacticReport, *_: Any) -> ShapeReport:
        if tactic.tactic == 1:
            return wrong
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(execution, "Case", lambda *_: "of one shape")
    monkeypatch.setattr(execution, "_run", run)
    monkeypatch.setattr(execution, "load", lambda tactic: None)
    monkeypatch.setattr(execution, "copy_gbps", lambda: 3000.0)
    for name, value in {
        "is_available": True,
        "empty_cache": None,
        "mem_get_info": (1e9, 2e9),
        "get_device_name": "NVIDIA X",
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    # As if it had been run before: what is stale does not count.
    before = replace(shape("static", 64, 1.0, True), skipped="it would take long")
    tactics = tuple(tactic(n, before) for n in (1, 2))
    tactics = (*tactics, tactic(3, error="no kernel"))
    known = DryRunReport("my::op", "sm_90", tactics, interpreted=True)
    report = execution.execute(known, abs)
    assert not report.interpreted and not report.notes
    assert report.tactics[0].shapes == (wrong,)
    (stale,) = report.tactics[1].shapes
    assert stale.failure.startswith("not run: out of GPU memory")
    assert (stale.ok, stale.time_us) == (None, None)
    assert report.tactics[2] == tactics[2]
    assert (report.gpu, report.copy_gbps, report.ok) == ("NVIDIA X", 3000.0, False)


def test_what_was_interpreted_is_not_said_to_have_run() -> None:
    right = replace(shape("min", 1, None, True), max_error=None)
    large = replace(shape("max", 9, None, None), skipped="it would take long")
    alone = tactic(2, replace(large, name="min"), large)
    report = DryRunReport(
        "my::op", "sm_90", (tactic(1, right, large), alone), interpreted=True
    )
    assert report.verdict == (
        "2 of 2 tactics compile for sm_90, drivers from CUDA 12.5; interpreted on the "
        "CPU, not run on a GPU: 1 of 2 tactics in bounds, 1 not run (not run at max), "
        "values not compared."
    )
    assert report.notes == (
        "tactic 1 at max; tactic 2 at min, max, not interpreted: it would take long",
    )
    assert report.ok and report.best is None
    verbose = str(replace(report, verbose=True))
    assert "interpreted" in verbose and "±" not in verbose
    compared = replace(report, against="the reference silu")
    assert compared.verdict.endswith(
        "1 of 2 tactics right, 1 not run (not run at max), against the reference silu."
    )
    assert DryRunReport.from_json(report.to_json()) == report
