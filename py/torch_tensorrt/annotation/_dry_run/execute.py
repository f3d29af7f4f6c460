# SPDX-License-Identifier: BSD-3-Clause

"""Run the kernels of a report on this machine's GPU, as an engine would; check them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from .._code.loaded import LoadedKernel, driver
from .._compile.pool import progress
from .._hidden import WORD
from .._record import describe
from ..errors import DryRunError, LaunchError
from .case import Case, MakeInputs
from .memory import POISONS
from .program_report import ProgramReport
from .report import DryRunReport, ShapeReport, TacticReport, bytes_held


def execute(
    report: DryRunReport,
    reference: Callable[..., Any],
    make_inputs: MakeInputs | None = None,
    tolerance: float | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> DryRunReport:
    """Launch every tactic of a report at each of its shapes; check and time it.

    Code and launches come from the report, which may be from another machine
    (:meth:`DryRunReport.from_json`). The kernel's toolchain is not needed. Outputs are
    poisoned first, and every element is compared. Inputs, and the memory around all
    tensors, must stay as they were. That memory is poisoned too, so a read past an
    input's end is found if it changes an output.

    Args:
        report: what :func:`dry_run` returned.
        reference: called as the op is, and returns the expected outputs: with the
            inputs, on the GPU, and with the attributes as keywords. An optional input
            that is not given is None.
        make_inputs: takes the extents of each input and returns the tensors; both are
            None for an optional input that is not given. By default floats are
            normally distributed, and integers may be indices.
        tolerance: the largest error allowed in floats, relative to the element and to
            the root mean square of the output together; None for the dtype's.
            Integers and bools are compared exactly.
        weights: the plugin's constants, by name.

    Returns:
        The report, with ``ok``, ``max_error`` and ``time_us`` (in microseconds) of each
        shape, and the GB/s that a copy on this GPU reaches. A shape that does not fit
        the GPU's memory is not run: its ``failure`` gives the sizes, and the report's
        ``ok`` is False.

    Raises:
        DryRunError: the op has several steps, there is no GPU here, the driver lacks
            its Python bindings, or a kernel fails in a way that no other can be run
            after.
    """
    if isinstance(report, ProgramReport):
        raise DryRunError(
            f"{report.op}: a report of several steps has no torch operations to run. "
            "Call dry_run on the machine with the GPU."
        )
    if not torch.cuda.is_available():
        raise DryRunError(f"{report.op}: there is no GPU here to run kernels on.")
    weights = weights or {}
    if set(weights) != set(report.weights):
        raise DryRunError(
            f"{report.op}: its weights are {', '.join(report.weights) or 'none'}; got "
            f"{', '.join(weights) or 'none'}. Pass weights={{name: tensor}}."
        )
    driver()
    expected = partial(reference, **report.attributes)
    constants = [weights[name].cuda() for name in report.weights]
    tactics = {tactic.tactic: tactic for tactic in report.tactics}
    kernels: dict[int, LoadedKernel] = {}
    for number, tactic in tactics.items():
        try:
            if tactic.error is None:
                kernels[number] = load(tactic)
        except LaunchError as error:
            tactics[number] = replace(tactic, error=str(error))
    found = {number: list[ShapeReport]() for number in kernels}
    with progress(f"running {report.op}", len(report.shapes) * len(kernels)) as advance:
        for index, _ in enumerate(report.shapes):
            case = None  # one shape's tensors at a time
            for number, kernel in kernels.items():
                tactic, ran = tactics[number], None
                asked = tactic, replace(tactic.shapes[index], skipped="")
                try:
                    case = case or Case(*asked, constants, make_inputs, expected)
                    ran = _run(kernel, case, *asked, tolerance)
                except torch.cuda.OutOfMemoryError:
                    case = None
                # Out here, nothing holds the tensors of a case that is too large.
                found[number].append(ran or _too_large(*asked))
                advance()
    for number, shapes in found.items():
        tactics[number] = replace(tactics[number], shapes=tuple(shapes))
    return replace(
        report,
        tactics=tuple(tactics.values()),
        copy_gbps=copy_gbps(),
        gpu=torch.cuda.get_device_name(),
        against=f"the reference {describe(reference)}",
        interpreted=False,
    )


def _too_large(tactic: TacticReport, shape: ShapeReport) -> ShapeReport:
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    failure = (
        f"not run: out of GPU memory. Inputs and outputs of {list(shape.dims)} take "
        f"{bytes_held(tactic, shape) / 1e9:.1f} GB, checking them several times as "
        f"much; {free / 1e9:.1f} of {total / 1e9:.1f} GB are free. Give the profile a "
        "smaller max for the dry run, or run nothing (execute=False)"
    )
    shape = replace(shape, ok=None, max_error=None, time_us=None, spread_us=None)
    return replace(shape, failure=failure)


def _run(
    kernel: LoadedKernel,
    case: Case,
    tactic: TacticReport,
    shape: ShapeReport,
    tolerance: float | None,
) -> ShapeReport:
    """Launch a kernel with each poison around its tensors; check and time it."""
    errors, problems = list[float](), list[str]()
    for poison in POISONS:
        tensors: tuple[Any, ...] = ()  # free the ones before: both may not fit
        hidden = [(extents, WORD) for extents in shape.hidden]
        tensors = case.tensors(tactic, shape, hidden, poison)
        inputs, outputs, buffers = (
            [tensor.buffer.data_ptr() for tensor in each] for each in tensors
        )
        launch = partial(kernel.launch, shape, inputs, [*outputs, *buffers])
        try:
            launch()
        except LaunchError as error:  # a block needs too many registers
            return replace(shape, ok=False, failure=str(error))
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise DryRunError(
                f"tactic {tactic.tactic} at {shape.name} {list(shape.dims)} fails, "
                f"and the CUDA context with it: {str(error).splitlines()[0]}. Does "
                "it read or write out of bounds? compute-sanitizer finds where."
            ) from error
        max_error, found = case.check(*tensors, tolerance)
        errors, problems = [*errors, max_error or 0.0], problems or found
    time, spread = time_launch(launch)
    shape = replace(shape, ok=not problems, failure="; ".join(problems))
    return replace(shape, max_error=max(errors), time_us=time, spread_us=spread)


def load(tactic: TacticReport) -> LoadedKernel:
    """A tactic's kernel.

    Raises:
        LaunchError: it cannot be loaded, or takes other arguments than TensorRT's.
    """
    kernel, shape = LoadedKernel(tactic.code, tactic.entry), tactic.shapes[0]
    passed = [8] * len(shape.dims) + [4] * len(shape.extras)
    kernel.require_parameters(passed + [8] * (len(shape.outputs) + len(shape.hidden)))
    return kernel


# --- Time -----------------------------------------------------------------------------

_FLUSHED = 256 << 20  # bytes written between timed launches: more than any L2 cache
_TIMED_MS = 50.0


def copy_gbps() -> float | None:
    """GB/s, read and written, of a copy on the GPU; None where its memory is full."""
    try:
        source = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        microseconds, _ = time_launch(lambda: target.copy_(source))
    except torch.cuda.OutOfMemoryError:
        return None
    return 2 * _FLUSHED / microseconds / 1e3


def time_launch(launch: Callable[[], Any]) -> tuple[float, float]:
    """Median and interquartile range of a launch, in microseconds, with a cold L2."""
    flushed = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")

    def timed(count: int) -> list[float]:
        event = partial(torch.cuda.Event, enable_timing=True)
        events = [(event(), event()) for _ in range(count)]
        for start, end in events:
            flushed.zero_()
            start.record()
            launch()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    estimate = max(statistics.median(timed(3)), 1e-3)
    times = timed(int(min(200, max(10, _TIMED_MS / estimate))))
    low, middle, high = statistics.quantiles(times, n=4)
    return middle * 1e3, (high - low) * 1e3
