"""Compile kernels in processes forked from this one.

A kernel may be a function in a notebook, or close over values that nothing can pickle;
a forked process has it already, and the compiler with it. So nothing but the number of
a job goes to a worker, and nothing but what it compiled comes back. A worker runs
compilers only: it touches neither the GPU nor TensorRT.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from torch_tensorrt.annotation._job import Job, Outcome
from torch_tensorrt.annotation.errors import AnnotationError, CompileError, SpecError

_WORKERS, _TIMEOUT = "TTA_JOBS", "TTA_COMPILE_TIMEOUT"
_SECONDS = 600.0

# Held by whoever compiles in this process, and by whoever forks: a fork would copy the
# locks that a compiler holds in another thread, and never see them released.
compiling = threading.RLock()
_ours: set[Connection] = set()  # this process's ends of all pipes to workers


def worker_count() -> int:
    """``TTA_JOBS``, or how many processors this process may use; 0: compile in it.

    That is so with ``TTA_JOBS=1``, for debuggers, and in a daemonic process, as of
    ``multiprocessing.Pool``, which may start no others.
    """
    count = math.ceil(_positive(_WORKERS, len(os.sched_getaffinity(0))))
    is_asked_for = count == 1 and os.environ.get(_WORKERS)
    return 0 if is_asked_for or multiprocessing.current_process().daemon else count


def compile_in_workers(
    jobs: Sequence[Job], count: int, done: Callable[[int, Outcome], None]
) -> None:
    """Compile ``jobs`` in ``count`` processes.

    A job whose process dies, or takes longer than ``TTA_COMPILE_TIMEOUT`` seconds, has
    an error that says so; another process goes on with the rest.

    Args:
        done: is called with the index and the outcome of each job, as they come.
    """
    timeout = _positive(_TIMEOUT, _SECONDS)
    pending = list(reversed(range(len(jobs))))
    with _team(jobs) as hire:
        busy = [hire(pending.pop()) for _ in range(min(count, len(jobs)))]
        while busy:
            first = min(worker.started for worker in busy) + timeout
            wait([w.connection for w in busy], max(0.0, first - time.monotonic()))
            still_busy = []
            for worker in busy:
                outcome = worker.outcome(jobs[worker.index].what, timeout)
                if outcome is None:
                    still_busy.append(worker)
                    continue
                done(worker.index, outcome)
                if pending:
                    index = pending.pop()
                    is_fit = worker.process.is_alive() and worker.give(index)
                    still_busy.append(worker if is_fit else hire(index))
            busy = still_busy


@dataclass
class _Worker:
    """A process, the job it is at, and since when."""

    process: BaseProcess
    connection: Connection
    index: int = -1
    started: float = 0.0

    def give(self, index: int) -> bool:
        """Start a job; whether the process takes it."""
        self.index, self.started = index, time.monotonic()
        try:
            self.connection.send(index)
        except OSError:
            return False
        return True

    def outcome(self, what: str, timeout: float) -> Outcome | None:
        """What became of the job; None as long as it runs."""
        if self.connection.poll():
            try:
                result: Outcome
                result, trace = self.connection.recv()
            except (EOFError, OSError):
                return CompileError(
                    f"{what}: the compiler's process died ({self._end()}). The others "
                    f"are not concerned. {_WORKERS}=1 compiles in this process."
                )
            if trace and isinstance(result, AnnotationError):
                result.__cause__ = _WorkerTraceback(trace)
            return result
        if time.monotonic() - self.started < timeout:
            return None
        self.stop()
        return CompileError(
            f"{what}: not compiled within {timeout:g} seconds. {_TIMEOUT} sets another "
            "limit."
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def _end(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


class _WorkerTraceback(Exception):
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"in the compiler's process:\n{self.args[0]}"


@contextmanager
def _team(jobs: Sequence[Job]) -> Iterator[Callable[[int], _Worker]]:
    """Gives a function that starts a worker on a job; ends all workers afterwards."""
    workers: list[_Worker] = []

    def hire(index: int) -> _Worker:
        worker = _start(jobs)
        workers.append(worker)
        worker.give(index)
        return worker

    try:
        yield hire
    finally:
        for worker in workers:
            worker.stop()
            _ours.discard(worker.connection)
            worker.connection.close()


def _start(jobs: Sequence[Job]) -> _Worker:
    context = multiprocessing.get_context("fork")
    with compiling, warnings.catch_warnings():
        # Python warns of other threads' locks: compilers' are free, see `compiling`.
        warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
        ours, theirs = context.Pipe()
        _ours.add(ours)
        process = context.Process(target=_work, args=(theirs, jobs), daemon=True)
        process.start()
        theirs.close()
    return _Worker(process, ours)


def _work(connection: Connection, jobs: Sequence[Job]) -> None:
    """What a worker does, until its parent closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    gc.freeze()  # or a collection would write to, and so copy, every page
    for end in _ours:  # or this worker would keep the others from seeing the end
        end.close()
    while True:
        try:
            index = connection.recv()
        except EOFError:
            return
        outcome = jobs[index].run()
        cause = getattr(outcome, "__cause__", None)
        trace = "".join(traceback.format_exception(cause)) if cause else ""
        connection.send((outcome, trace))


def _positive(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise SpecError(f"{variable}={text!r} in the environment: not a number over 0.")
    return value
