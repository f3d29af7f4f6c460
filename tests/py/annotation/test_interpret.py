# SPDX-License-Identifier: BSD-3-Clause

"""Without a GPU, a dry run interprets Triton kernels, and finds planted bugs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpretation
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._compile.pool import run_in_workers
from torch_tensorrt.annotation._record import describe
from torch_tensorrt.annotation.errors import CompileError, DryRunError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")

ROWS = torch_tensorrt.Input(
    min_shape=(1, 250), opt_shape=(8, 250), max_shape=(16, 250), dtype=torch.float32
)


@triton.jit
def double(x):
    return x * 2


@triton.jit
def planted_kernel(
    x_ptr,
    out_ptr,
    n,
    limit,
    BLOCK: tl.constexpr,
    WRITES_INPUT: tl.constexpr,
    MASKED: tl.constexpr,
):
    """What is stored to is chosen by a condition, which the PTX does not tell."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = double(tl.load(x_ptr + offsets, mask=offsets < n))
    inputs, outputs = x_ptr + offsets, out_ptr + offsets
    if WRITES_INPUT:
        tl.store(tl.where(offsets < n, inputs, outputs), x, mask=offsets < n)
    if MASKED:
        where = tl.where(offsets < limit, outputs, inputs)
        tl.store(where, x, mask=offsets < limit)
    else:
        tl.store(out_ptr + offsets, x)


def planted(
    x: torch.Tensor,
    out: torch.Tensor,
    part: int = 1,
    write_input: bool = False,
    masked: bool = True,
) -> None:
    n = x.numel()
    planted_kernel[(triton.cdiv(n, 256),)](
        x, out, n, n // part, 256, write_input, masked
    )


@triton.jit
def loads_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr, UNWRITTEN: tl.constexpr):
    """It loads past the end of x, which no output shows; or what nothing wrote."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if UNWRITTEN:
        x = 2 * tl.load(out_ptr + offsets, mask=offsets < n)
    else:
        x = tl.load(x_ptr + offsets)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def loads(x: torch.Tensor, out: torch.Tensor, unwritten: bool = False) -> None:
    n = x.numel()
    loads_kernel[(triton.cdiv(n, 256),)](x, out, n, 256, unwritten)


def output_first(out: torch.Tensor, x: torch.Tensor) -> None:
    planted(x, out)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes, and however busy the machine is."""
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 60.0)


def like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def interpreted(
    launch: Callable[..., None],
    config: dict[str, Any] | None = None,
    meta: Callable[..., Any] = like,
    inputs: Any = (ROWS,),
    **how: Any,
) -> tta.DryRunReport:
    impl = tta.custom_plugin(tta.triton(launch, config and [config]), meta_impl=meta)
    trt_plugins.custom_op(
        "lint::op", impl=impl, supports_dynamic_shapes=True, replace=True
    )
    return tta.dry_run("lint::op", list(inputs), "sm_90", **how)


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@pytest.mark.parametrize("reference", [None, doubled], ids=["alone", "reference"])
def test_the_right_kernel_passes_at_every_shape(reference: Any) -> None:
    report = interpreted(planted, reference=reference)
    (tactic,) = report.tactics
    assert {s.name for s in tactic.shapes if s.ok} == {"min", "opt", "max", "ragged"}
    assert report.ok and report.interpreted and not report.problems
    assert report.best is None and tactic.shapes[0].time_us is None
    assert [s.max_error for s in tactic.shapes] == [reference and 0.0] * 4
    assert "interpreted on the CPU" in str(report).replace("\n", " ")
    assert "executed" not in str(report)
    assert tta.DryRunReport.from_json(report.to_json()) == report


BUGS: dict[str, tuple[Any, Any, Any, str]] = {
    "an unmasked store": (
        *(planted, {"masked": False}, like),
        "in planted_kernel. Mask the store: tl.store(..., mask=offsets < n). Or "
        "correct the output's shape",
    ),
    "an unmasked load that no output shows": (
        *(loads, None, like),
        "in loads_kernel. Mask the load: tl.load(..., mask=offsets < n)",
    ),
    "an output that is read before it is written": (
        *(loads, {"unwritten": True}, like),
        "250 of 250 elements depend on memory outside of the inputs",
    ),
    "an output that is too large": (
        *(planted, None, lambda x: x.new_empty(x.shape[0] + 1, x.shape[1])),
        "250 of 500 elements are never written, the first at [1, 0]",
    ),
    "an output that is too small": (
        *(planted, None, lambda x: x.new_empty(x.shape[0], x.shape[1] - 1)),
        "the kernel writes past the end of the tensor `out_ptr`, at ",
    ),
    "half of the output": (
        *(planted, {"part": 2}, like),
        "125 of 250 elements are never written, the first at [0, 125]",
    ),
    "an input that is written": (
        *(planted, {"write_input": True}, like),
        "input 0: the kernel writes into it",
    ),
    "the output first": (
        *(output_first, None, like),
        "input 0: the kernel writes into it",
    ),
}


@pytest.mark.parametrize(
    ("launch", "config", "meta", "found"), BUGS.values(), ids=BUGS.keys()
)
def test_a_planted_bug_is_found_without_a_reference(
    launch: Any, config: Any, meta: Any, found: str
) -> None:
    report = interpreted(launch, config, meta)
    failures = [shape.failure for shape in report.tactics[0].shapes]
    assert found in failures[0]
    assert not report.ok
    assert "WRONG" in str(report)
    with pytest.raises(DryRunError, match="a tactic is wrong"):
        tta.dry_run("lint::op", [ROWS], "sm_90", strict=True)


def test_what_a_gpu_found_right_has_the_accesses_that_only_an_interpreter_sees() -> (
    None
):
    found = interpreted(loads)
    (tactic,) = found.tactics
    right = [replace(s, ok=True, failure="", time_us=1.0) for s in tactic.shapes]
    ran = replace(
        found, tactics=(replace(tactic, shapes=tuple(right)),), gpu="NVIDIA X"
    )
    merged = interpretation.with_accesses(ran, found)
    wrong = [shape.failure for shape in tactic.shapes]
    assert [shape.failure for shape in merged.tactics[0].shapes] == wrong
    assert any(wrong) and not merged.ok and merged.gpu == "NVIDIA X"
    assert all(shape.time_us == 1.0 for shape in merged.tactics[0].shapes)


def test_a_wrong_value_is_found_with_a_reference() -> None:
    report = interpreted(planted, reference=lambda x: x * 3)
    assert " of 250 elements are wrong" in report.tactics[0].shapes[0].failure
    assert "against the reference" in report.verdict
    assert describe(torch.nn.functional.silu) == "torch.nn.functional.silu"


@triton.jit
def far_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK).to(tl.int64)
    x = tl.load(x_ptr + offsets * 1000000000000, mask=offsets < n)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def far(x: torch.Tensor, out: torch.Tensor) -> None:
    far_kernel[(1,)](x, out, x.numel(), 256)


def test_an_access_far_outside_of_all_tensors_is_not_made() -> None:
    report = interpreted(far)
    failure = report.tactics[0].shapes[0].failure
    assert "the kernel reads past the end of the tensor `x_ptr`, at " in failure


def test_an_access_that_ends_a_process_is_a_failure() -> None:
    died = CompileError("tactic 1: the compiler's process died (SIGSEGV).")
    assert interpretation.crash_of(died).startswith("it accesses memory far outside")


@triton.jit
def assembly_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    y = tl.inline_asm_elementwise(
        "add.f32 $0, $1, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(out_ptr + offsets, y, mask=offsets < n)


def assembly(x: torch.Tensor, out: torch.Tensor) -> None:
    assembly_kernel[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), 256)


def test_what_the_interpreter_cannot_run_is_said_with_the_cause() -> None:
    report = interpreted(assembly)
    assert report.ok  # it compiles, and nothing is known to be wrong
    assert "; not run, so what they compute" in report.verdict
    note = report.notes[-1]
    assert "inline_asm not supported in interpreter mode" in note
    assert note in str(report).replace("\n", " ")


@triton.jit
def narrow_kernel(x_ptr, out_ptr, n, HOW: tl.constexpr):
    offsets = tl.program_id(0) * 256 + tl.arange(0, 256)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if HOW == "mul":
        x = x * 2
    elif HOW == "sum":
        x += tl.sum(x, axis=0)
    elif HOW == "scan":
        x = tl.cumsum(x, axis=0)
    elif HOW == "convert":
        x = offsets.to(x.dtype)
    elif HOW == "dot":
        square = tl.reshape(x, (16, 16))
        x = tl.reshape(tl.dot(square, square), (256,)).to(x.dtype)
    else:
        x = tl.where(x.to(tl.float32) > 0, x, tl.abs(x))
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def narrow(x: torch.Tensor, out: torch.Tensor, how: str) -> None:
    narrow_kernel[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), how)


NARROW = {
    "mul": lambda x: x * 2,
    "sum": lambda x: x + x.float().sum(),
    "scan": lambda x: x.float().cumsum(0),
    "convert": lambda x: torch.arange(256),
    "dot": lambda x: x.view(16, 16).float() @ x.view(16, 16).float(),
    "abs": torch.abs,
}


@pytest.mark.parametrize("how", NARROW)
def test_bfloat16_is_interpreted_only_as_far_as_that_is_right(how: str) -> None:
    """Triton's interpreter would compute on the integers of its bits."""
    report = interpreted(
        *(narrow, {"how": how}, like, [torch.empty(256, dtype=torch.bfloat16)]),
        reference=lambda x: NARROW[how](x).reshape(256).bfloat16(),
    )
    (shape,) = report.tactics[0].shapes
    assert shape.ok is True or (shape.ok is None and "bf16" in shape.skipped), report
    assert shape.ok or how != "abs"


@triton.jit
def endless_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    while n > 0:
        tl.store(out_ptr + offsets, tl.load(x_ptr + offsets))


def endless(x: torch.Tensor, out: torch.Tensor) -> None:
    endless_kernel[(1,)](x, out, x.numel(), 256)


def test_a_kernel_that_takes_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 0.5)
    report = interpreted(endless, inputs=[torch.empty(256)])
    note = report.notes[-1]
    assert "it takes too long" in note


def test_a_result_after_the_time_is_over_does_not_count() -> None:
    def job() -> str:
        try:
            # Triton's interpreter has such clauses.
            with interpretation.Budget(0.02).limited(), contextlib.suppress(Exception):
                while True:
                    pass
        except TimeoutError as error:
            return str(error)
        return "a result"

    found = []
    run_in_workers([("job", job)], 1, lambda _, outcome: found.append(outcome))
    assert found == ["it takes too long"]


def test_only_so_many_programs_are_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpretation, "MOST_PROGRAMS", 17)
    report = interpreted(planted)
    shapes = report.tactics[0].shapes
    assert [s.name for s in shapes if s.ok] == ["min", "ragged"]
    note = report.notes[-1]
    assert note == "tactic 1 at opt, max, not interpreted: it would take long"


@triton.jit
def scaled_kernel(x_ptr, out_ptr, n, factor, bias, FLIP: tl.constexpr):
    offsets = tl.program_id(0) * 256 + tl.arange(0, 256)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    y = x * factor
    if bias:
        y += 1
    tl.store(out_ptr + offsets, -y if FLIP else y, mask=offsets < n)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_arguments_are_those_that_tensorrt_passes(dtype: torch.dtype) -> None:
    def launch(x: Any, out: Any, factor: float, bias: bool, flip: bool) -> None:
        n = x.numel()
        grid = (triton.cdiv(n, 256),)
        scaled_kernel[grid](x, out, n, factor, bias, FLIP=flip)

    def meta(x: torch.Tensor, factor: float, bias: bool, flip: bool) -> torch.Tensor:
        return torch.empty_like(x)

    def plain(x: torch.Tensor, factor: float, bias: bool, flip: bool) -> torch.Tensor:
        y = x.float() * factor + bias
        return (-y if flip else y).to(x.dtype)

    for flip in (False, True):
        for factor, bias in ((0.5, True), (3.0, False)):
            attributes = {"factor": factor, "bias": bias, "flip": flip}
            report = interpreted(
                *(launch, None, meta, [torch.empty(1000, dtype=dtype)]),
                attributes=attributes,
                reference=plain,
            )
            assert report.tactics[0].shapes[0].ok, report


def test_a_reference_that_needs_a_gpu_is_no_error() -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        return x.cuda() * 2

    report = interpreted(planted, reference=reference)
    assert report.ok
    assert ", not interpreted: " in report.notes[-1]


def test_nothing_of_this_process_changes() -> None:
    before = set(globals()), dict(vars(tl)), torch.random.get_rng_state()
    interpreted(planted)
    assert set(globals()) == before[0]
    assert dict(vars(tl)) == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_without_processes_nothing_is_interpreted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_JOBS", "1")
    report = interpreted(planted, {"part": 2})
    assert not report.interpreted
    assert "; not run, so what they compute" in report.verdict


def test_what_is_only_compiled_is_not_interpreted() -> None:
    report = interpreted(planted, {"part": 2}, execute=False)
    assert not report.interpreted
    assert "; not run, so what they compute" in report.verdict
