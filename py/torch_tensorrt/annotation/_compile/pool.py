# SPDX-License-Identifier: BSD-3-Clause

"""Run compilers in processes forked from this one.

A kernel may be a function in a notebook, or close over values that nothing can pickle;
a forked process has it already, and the compiler with it. So only the number of a job
goes to a worker, and only what it compiled comes back. A worker runs compilers and
nothing else: it touches neither the GPU nor TensorRT.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any, TypeAlias

from pebble import ProcessExpired, ProcessPool

from .. import _settings
from ..errors import AnnotationError, CompileError

_PR_SET_PDEATHSIG = 1  # prctl(2)
Job: TypeAlias = tuple[str, Callable[[], Any]]  # its name, and what runs it

# Held by whoever compiles: compilers are not all thread-safe, and a fork would copy the
# locks that one holds in another thread, and never see them released.
compiling = threading.RLock()
_jobs: Sequence[Job] = ()  # of this worker


def worker_count() -> int:
    """``TTA_JOBS``, or how many processors this process may use; 0: compile in it.

    It is 0 with ``TTA_JOBS=1``, for debuggers, and in a daemonic process, such as one
    of ``multiprocessing.Pool``, which may start no others.
    """
    count = math.ceil(_settings.JOBS.positive()) if _settings.JOBS.text() else 0
    if count == 1 or multiprocessing.current_process().daemon:
        return 0
    return count or len(os.sched_getaffinity(0))


def run_all(jobs: Sequence[Job], done: Callable[[int, Any], None]) -> None:
    """Run ``jobs`` in :func:`worker_count` processes, or in this one.

    Args:
        jobs: names for errors, and what to run.
        done: is called with the index and the outcome of each job, as they come.
    """
    if count := worker_count():
        run_in_workers(jobs, count, done)
        return
    with compiling:
        for index, (_, job) in enumerate(jobs):
            done(index, job())


def run_in_workers(
    jobs: Sequence[Job], count: int, done: Callable[[int, Any], None]
) -> None:
    """As :func:`run_all`, in ``count`` processes.

    A job whose process dies, or takes longer than ``TTA_COMPILE_TIMEOUT`` seconds, gets
    an error that says so; another process goes on with the rest.
    """
    timeout, indices = _settings.COMPILE_TIMEOUT.positive(), range(len(jobs))
    with compiling, warnings.catch_warnings():
        # Python warns of other threads' locks: compilers' are free, see `compiling`.
        warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
        pool = ProcessPool(
            max_workers=min(count, len(jobs)),
            context=multiprocessing.get_context("fork"),
            initializer=_start,
            initargs=(jobs, os.getpid()),
        )
        with pool:
            runs = [pool.schedule(_run, args=[i], timeout=timeout) for i in indices]
            try:
                for run in futures.as_completed(runs):
                    index = runs.index(run)  # type: ignore[arg-type]
                    if error := run.exception():
                        why = f"{jobs[index][0]}: {_reason(error, timeout)}"
                        done(index, CompileError(why))
                        continue
                    outcome, trace = run.result()
                    if isinstance(outcome, AnnotationError) and trace:
                        outcome.__cause__ = _WorkerTraceback(trace)
                    done(index, outcome)
            except BaseException:  # interrupted: nobody waits for the rest
                pool.stop()  # type: ignore[no-untyped-call]
                raise


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"in the compiler's process:\n{self.args[0]}"


def _reason(error: BaseException, timeout: float) -> str:
    if isinstance(error, futures.TimeoutError | TimeoutError):
        return (
            f"not done within {timeout:g} seconds. "
            f"{_settings.COMPILE_TIMEOUT.name} sets another limit."
        )
    if isinstance(error, ProcessExpired):
        code = error.exitcode or 0
        end = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return (
            f"the compiler's process died ({end}). Other kernels are not affected. "
            f"{_settings.JOBS.name}=1 compiles in this process."
        )
    return f"{type(error).__name__}: {error}"


def _start(jobs: Sequence[Job], parent: int) -> None:
    """What a worker does first."""
    global _jobs
    # Killed together with its parent, however that dies.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    gc.freeze()  # or a collection would write to, and so copy, every page
    _jobs = jobs


def _run(index: int) -> tuple[Any, str]:
    outcome = _jobs[index][1]()
    cause = getattr(outcome, "__cause__", None)
    return outcome, "".join(traceback.format_exception(cause)) if cause else ""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of ``total`` steps.

    It shows a bar on standard error, if that is a terminal, and leaves nothing behind.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = total < 2 or not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
