# SPDX-License-Identifier: BSD-3-Clause

"""Run the launches of a report on the CPU, where a language has an interpreter.

After a run on a GPU only accesses are checked, which an interpreter sees and a GPU does
not.

A kernel runs twice, on the same inputs. Outputs, and the memory around all tensors,
hold one poison in the first run and another in the second. An element that differs was
never written, or depends on memory outside of the inputs. Writes outside
of the outputs are found as on a GPU. An interpreter may also report any access outside
of the tensors. Each run has a process of its own, so a crash ends that process alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from .._compile.pool import Job, run_in_workers, worker_count
from .._record import describe
from .._record.program import Program
from .._sizes.expressions import on_ints
from .._tensors import by_symbol
from ..backends import OutOfBoundsError, backend
from ..errors import AnnotationError, DryRunError
from .case import Case, MakeInputs
from .memory import POISONS, GuardedTensor, located
from .report import Dims, DryRunReport, ShapeReport, TacticReport, bytes_held

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT")
INTERPRETED = POISONS[1:]  # a large number and its negative, for maxima and minima
# Of one report, which should not take much longer for it. A program takes about a
# millisecond. The seconds are CPU time, so that a busy machine checks as much.
MOST_PROGRAMS, MOST_SECONDS = 1000, 4.0
_MOST_WAIT = 60.0  # seconds, for a process that waits instead
_MOST_BYTES = 64 << 20  # of one shape's tensors
# Until there are too many programs; a user's own shapes come after the first three.
_ORDER = {"static": 0, "ragged": 1, "min": 2, "opt": 4, "max": 5}


def interpret(
    report: DryRunReport,
    programs: Mapping[int, Program],
    aligned: bool,
    reference: Callable[..., Any] | None,
    make_inputs: MakeInputs | None,
    tolerance: float | None,
    weights: Mapping[str, torch.Tensor],
    only_accesses: bool = False,
) -> DryRunReport:
    """Interpret the tactics of a report at as many of its shapes as take no long time.

    Args:
        programs: what the tactics launch, by number.
        aligned: whether all tensors are.
        reference, make_inputs, tolerance: those of :func:`execute`, on the CPU. Without
            a reference, only accesses of memory are checked.
        only_accesses: of these, only whether they are within a tensor.

    Returns:
        The report, with ``ok`` and ``max_error`` of each shape that was interpreted,
        and with ``skipped`` of the others.
    """
    tactics = {tactic.tactic: tactic for tactic in report.tactics}
    found = {number: list(tactic.shapes) for number, tactic in tactics.items()}
    asked = [
        (shape, number, index)
        for number, tactic in tactics.items()
        for index, shape in enumerate(tactic.shapes)
        if backend(tactic.backend).interpreter is not None
    ]
    expected = reference and partial(reference, **report.attributes)
    cases: dict[str, Case] = {}
    jobs: dict[tuple[int, int], Job] = {}
    left, seconds = limits()
    budget = Budget(seconds)
    for shape, number, index in sorted(asked, key=lambda a: order(a[0].name)):
        tactic, runs = tactics[number], len(INTERPRETED) * math.prod(shape.grid)
        try:
            if runs > left or bytes_held(tactic, shape) > _MOST_BYTES:
                raise TimeoutError("it would take long")
            if shape.name not in cases:
                how = list(weights.values()), make_inputs, expected, "cpu"
                with torch.random.fork_rng(devices=()):
                    cases[shape.name] = Case(tactic, shape, *how)
        except DryRunError:
            raise
        except Exception as error:  # of the reference, which may need a GPU
            found[number][index] = _skipped(shape, error)
            continue
        left -= runs
        run = programs[number], aligned, cases[shape.name], tactic, shape
        job = partial(_run, *run, tolerance, budget, only_accesses)
        jobs[number, index] = f"tactic {number}", job

    def done(job: int, outcome: Any) -> None:
        number, index = list(jobs)[job]
        shape = found[number][index]
        if failure := crash_of(outcome):
            outcome = replace(shape, ok=False, failure=failure)
        elif isinstance(outcome, AnnotationError):
            outcome = _skipped(shape, outcome)
        found[number][index] = outcome

    if jobs:
        run_in_workers(list(jobs.values()), worker_count() or 1, done)
    ran = (replace(t, shapes=tuple(found[t.tactic])) for t in report.tactics)
    against = f"the reference {describe(reference)}" if reference else ""
    return replace(report, tactics=tuple(ran), interpreted=True, against=against)


def with_accesses(ran: DryRunReport, interpreted: DryRunReport) -> DryRunReport:
    """The report of a GPU, with what an interpreter found wrong where that did not."""
    tactics = []
    for tactic, other in zip(ran.tactics, interpreted.tactics, strict=True):
        shapes = (
            replace(shape, ok=False, failure=found.failure)
            if shape.ok and found.ok is False
            else shape
            for shape, found in zip(tactic.shapes, other.shapes, strict=True)
        )
        tactics.append(replace(tactic, shapes=tuple(shapes)))
    return replace(ran, tactics=tuple(tactics))


_patience: ContextVar[float | None] = ContextVar("_patience", default=None)


@contextlib.contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Meanwhile each report may be interpreted for so many seconds of CPU time."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def limits() -> tuple[int, float]:
    """How many programs of one report to interpret, and for how many seconds."""
    if (seconds := _patience.get()) is None:
        return MOST_PROGRAMS, MOST_SECONDS
    return int(MOST_PROGRAMS * seconds), seconds


def order(name: str) -> int:
    """When a shape is interpreted."""
    return _ORDER.get(name, 3)


def crash_of(outcome: Any) -> str:
    """How a worker died that ran a kernel; empty where it did not."""
    if not isinstance(outcome, AnnotationError):
        return ""
    if not any(crash in str(outcome) for crash in _CRASHES):
        return ""
    return f"it accesses memory far outside of its tensors: {outcome}"


class Budget:
    """CPU time that the workers of one report share.

    Args:
        seconds: of all of them together. Those at work at the same time do not know
            what the others use, so it may be somewhat more.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = multiprocessing.get_context("fork").Value("d", 0.0)

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """In a worker: the time is limited, and a wild access ends the process.

        Raises:
            TimeoutError: the time is over, whatever the block made of that: an
                interpreter that catches every exception goes on with what it has.
        """
        torch.set_num_threads(1)  # other threads are not there after a fork
        # A handler that returns would come back to the wild access, without end.
        faulthandler.disable()
        for fault in (signal.SIGSEGV, signal.SIGBUS):
            signal.signal(fault, signal.SIG_DFL)
        is_over = False

        def give_up(*_: Any) -> None:
            nonlocal is_over
            is_over = True
            raise TimeoutError("it takes too long")

        for alarm in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(alarm, give_up)
        start = time.process_time()
        left = self._seconds - self._spent.value
        if left <= 0:
            raise TimeoutError("it would take long")
        try:
            signal.setitimer(signal.ITIMER_PROF, left)
            signal.setitimer(signal.ITIMER_REAL, max(left, _MOST_WAIT))
            yield
        finally:
            for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
            with self._spent.get_lock():
                self._spent.value += time.process_time() - start
            if is_over:
                raise TimeoutError("it takes too long")


def cause_of(error: BaseException) -> BaseException:
    """The first in a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _skipped(shape: ShapeReport, error: BaseException) -> ShapeReport:
    cause = cause_of(error)
    if isinstance(cause, OutOfBoundsError):
        return replace(shape, ok=False, failure=str(cause))
    return replace(shape, skipped=reason(error))


def reason(error: BaseException) -> str:
    """Why something was not interpreted."""
    error = cause_of(error)
    what = "" if isinstance(error, TimeoutError) else f"{type(error).__name__}: "
    return f"{what}{error}"


def _run(
    program: Program,
    aligned: bool,
    case: Case,
    tactic: TacticReport,
    shape: ShapeReport,
    tolerance: float | None,
    budget: Budget,
    only_accesses: bool,
) -> ShapeReport:
    """What the kernel does at one shape; in a worker."""
    hidden = hidden_buffers(program, shape.dims)
    interpreter = backend(tactic.backend).interpreter
    assert interpreter is not None, "else nothing is interpreted"
    found, problems = [], list[str]()
    try:
        with budget.limited():
            for poison in INTERPRETED[: 1 if only_accesses else None]:
                inputs, outputs, own = case.tensors(tactic, shape, hidden, poison)
                each = (*inputs, *outputs[: len(program.outputs)], *own)
                buffers = [tensor.buffer for tensor in each]
                interpreter(program, shape.grid, shape.extras, buffers, aligned)
                if only_accesses:
                    return replace(shape, ok=True)
                max_error, wrong = case.check(inputs, outputs, own, tolerance)
                problems = problems or wrong
                found.append(outputs)
        for index, pair in enumerate(zip(*found, strict=True)):
            if difference := _difference(*pair):
                problems.insert(0, f"output {index}: {difference}")
    except Exception as error:  # an interpreter may raise anything
        return _skipped(shape, error)
    shape = replace(shape, ok=not problems, failure="; ".join(problems))
    return replace(shape, max_error=max_error)


def hidden_buffers(program: Program, dims: Dims) -> list[tuple[list[int], torch.dtype]]:
    """The launch function's own, as small as they are: an engine's may be larger."""
    extents = by_symbol(dims)
    return [([on_ints(e)(extents) for e in b.shape], b.dtype) for b in program.hidden]


def _difference(first: GuardedTensor, second: GuardedTensor) -> str:
    """How the outputs of the two runs differ."""
    one, other = (t.tensor.unsqueeze(-1).view(torch.uint8) for t in (first, second))
    unwritten = (one == INTERPRETED[0]).all(-1) & (other == INTERPRETED[1]).all(-1)
    if unwritten.any():
        return (
            f"{located(unwritten, 'are never written')}. Launch as many programs as "
            "the output needs, or correct its shape (meta_impl)"
        )
    return located((one != other).any(-1), "depend on memory outside of the inputs")
