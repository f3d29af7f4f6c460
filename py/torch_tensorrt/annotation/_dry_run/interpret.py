# SPDX-License-Identifier: BSD-3-Clause

"""Run the launches of a report on the CPU, where a language has an interpreter.

A kernel runs twice, on the same inputs. Outputs, and the memory around all tensors,
hold one poison in the first run and another in the second. An element that differs was
never written, or depends on memory outside of the inputs. What the kernel writes where
it should not is found as on a GPU. Each run is in a process of its own, so an access
far outside of all tensors ends that process alone.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from .._compile.pool import Job, run_in_workers, worker_count
from .._record import describe
from .._record.program import Program
from ..backends import Backend, backend
from ..errors import AnnotationError, DryRunError
from .case import Case, MakeInputs
from .memory import POISONS, GuardedTensor
from .report import DryRunReport, ShapeReport, TacticReport, bytes_moved

_POISONS = POISONS[1:]  # a large number and its negative, for maxima and minima
# Of one report, which should not take much longer for it. A program takes about a
# millisecond.
_MOST_PROGRAMS, _MOST_SECONDS, _LEAST_SECONDS = 1000, 2.0, 0.01
_MOST_BYTES = 64 << 20  # of one shape's tensors
_ORDER = ("static", "min", "ragged", "opt", "max")  # until there are too many programs


def interpret(
    report: DryRunReport,
    programs: Mapping[int, Program],
    aligned: bool,
    reference: Callable[..., Any] | None,
    make_inputs: MakeInputs | None,
    tolerance: float | None,
    weights: Sequence[torch.Tensor],
) -> DryRunReport:
    """Interpret the tactics of a report at as many of its shapes as take no long time.

    Args:
        programs: what the tactics launch, by number.
        aligned: whether all tensors are.
        reference, make_inputs, tolerance: as of :func:`execute`, on the CPU; without a
            reference only accesses of memory are checked.

    Returns:
        The report, with ``ok`` and ``max_error`` of each shape that was interpreted,
        and with ``skipped`` of the others.
    """
    tactics = {tactic.tactic: tactic for tactic in report.tactics}
    found = {number: list(tactic.shapes) for number, tactic in tactics.items()}
    asked = [
        (shape, number, index)
        for number, tactic in tactics.items()
        if type(backend(tactic.backend)).interpret is not Backend.interpret
        for index, shape in enumerate(tactic.shapes)
    ]
    expected = reference and partial(reference, **report.attributes)
    cases: dict[str, Case] = {}
    jobs: dict[tuple[int, int], Job] = {}
    left, deadline = _MOST_PROGRAMS, time.monotonic() + _MOST_SECONDS
    for shape, number, index in sorted(asked, key=lambda a: _ORDER.index(a[0].name)):
        tactic, runs = tactics[number], len(_POISONS) * math.prod(shape.grid)
        try:
            if multiprocessing.current_process().daemon:
                raise OverflowError("a daemonic process starts no others")
            if runs > left or bytes_moved(tactic, shape) > _MOST_BYTES:
                raise OverflowError("it would take long")
            if shape.name not in cases:
                how = weights, make_inputs, expected, "cpu"
                with torch.random.fork_rng(devices=()):
                    cases[shape.name] = Case(tactic, shape, *how)
        except DryRunError:
            raise
        except Exception as error:  # of the reference, which may need a GPU
            found[number][index] = _skipped(shape, error)
            continue
        left -= runs
        run = programs[number], aligned, cases[shape.name], tactic, shape
        job = partial(_run, *run, tolerance, deadline)
        jobs[number, index] = f"tactic {number}", job

    def done(job: int, outcome: Any) -> None:
        number, index = list(jobs)[job]
        if isinstance(outcome, AnnotationError):
            failure = f"it accesses memory far outside of its tensors ({outcome})"
            outcome = replace(found[number][index], ok=False, failure=failure)
        found[number][index] = outcome

    if jobs:
        run_in_workers(list(jobs.values()), worker_count() or 1, done)
    ran = (replace(t, shapes=tuple(found[t.tactic])) for t in report.tactics)
    against = f"the reference {describe(reference)}" if reference else ""
    return replace(report, tactics=tuple(ran), interpreted=True, against=against)


def _skipped(shape: ShapeReport, error: BaseException) -> ShapeReport:
    while error.__cause__ is not None:
        error = error.__cause__
    what = "" if isinstance(error, OverflowError) else f"{type(error).__name__}: "
    return replace(shape, skipped=f"{what}{error}")


def _run(
    program: Program,
    aligned: bool,
    case: Case,
    tactic: TacticReport,
    shape: ShapeReport,
    tolerance: float | None,
    deadline: float,
) -> ShapeReport:
    """What the kernel does at one shape; in a worker."""
    torch.set_num_threads(1)  # other threads are not there after a fork
    signal.signal(signal.SIGALRM, _too_long)
    found, max_error, problems = [], 0.0, list[str]()
    try:
        left = deadline - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(left, _LEAST_SECONDS))
        for poison in _POISONS:
            inputs, outputs = case.tensors(tactic, shape, poison)
            buffers = [tensor.buffer for tensor in (*inputs, *outputs)]
            launch = program, shape.grid, shape.extras, buffers, aligned
            backend(tactic.backend).interpret(*launch)
            largest, problems = case.check(inputs, outputs, tolerance)
            max_error = max(max_error, largest)
            found.append(outputs)
    except Exception as error:  # an interpreter may raise anything
        return _skipped(shape, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for index, pair in enumerate(zip(*found, strict=True)):
        if difference := _difference(*pair):
            problems.insert(0, f"output {index}: {difference}")
    shape = replace(shape, ok=not problems, failure="; ".join(problems))
    return replace(shape, max_error=max_error if case.is_compared else None)


def _too_long(*_: Any) -> None:
    raise OverflowError("it takes too long")


def _difference(first: GuardedTensor, second: GuardedTensor) -> str:
    """How the outputs of the two runs differ."""
    bits = [t.tensor.contiguous().view(-1).view(torch.uint8) for t in (first, second)]
    size = first.tensor.dtype.itemsize
    rows = [b.view(-1, size) for b in bits]
    differs = (rows[0] != rows[1]).any(1)
    unwritten = (rows[0] == _POISONS[0]).all(1) & (rows[1] == _POISONS[1]).all(1)
    for which, what in (
        (unwritten, "are never written"),
        (differs & ~unwritten, "depend on memory outside of the inputs"),
    ):
        if count := int(which.sum()):
            where = torch.unravel_index(which.int().argmax(), first.tensor.shape)
            first_at = [int(i) for i in where]
            return f"{count} of {len(which)} elements {what}, the first at {first_at}"
    return ""
