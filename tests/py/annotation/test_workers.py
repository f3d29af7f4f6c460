# SPDX-License-Identifier: BSD-3-Clause

"""Jobs in processes of their own: what comes back, whatever becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_tensorrt.annotation._compile.pool import run_all, worker_count
from torch_tensorrt.annotation.errors import CompileError, SpecError, UserCodeError


class Job:
    """Stands for a compilation; what it runs is a closure that nothing can pickle."""

    def __init__(self, what: str, run: Callable[[], Any]) -> None:
        self.what = what
        self.run = run


def compiled(jobs: list[Any], count: int = 2) -> list[Any]:
    outcomes: dict[int, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTA_JOBS", str(count))
        run_all([(job.what, job.run) for job in jobs], outcomes.__setitem__)
    return [outcomes[index] for index in range(len(jobs))]


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # of others, pytest tells


def test_every_job_has_its_own_outcome_and_few_processes_do_them() -> None:
    jobs = [Job("j", lambda n=n: (n, os.getpid())) for n in range(20)]
    outcomes = compiled(jobs)
    assert [n for n, _ in outcomes] == list(range(20))
    processes = {process for _, process in outcomes}
    assert len(processes) <= 2
    assert os.getpid() not in processes


def test_jobs_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for a file that the other one writes."""

    def meet(mine: str, others: str) -> str:
        (tmp_path / mine).touch()
        while not (tmp_path / others).exists():
            time.sleep(0.01)
        return mine

    jobs = [Job("a", lambda: meet("a", "b")), Job("b", lambda: meet("b", "a"))]
    assert compiled(jobs) == ["a", "b"]


def test_a_crash_is_the_error_of_its_job_alone() -> None:
    jobs = [Job(f"my::op, tactic {n}", lambda n=n: n) for n in range(6)]
    jobs[1].run = jobs[4].run = crash
    outcomes = compiled(jobs)
    assert [outcomes[n] for n in (0, 2, 3, 5)] == [0, 2, 3, 5]
    for n in (1, 4):
        assert isinstance(outcomes[n], CompileError)
        assert f"my::op, tactic {n}: the compiler's process died (SIGKILL)" in str(
            outcomes[n]
        )


def test_an_exit_is_reported_with_its_status() -> None:
    (outcome, _) = compiled([Job("j", lambda: os._exit(3)), Job("k", int)])
    assert "died (exit status 3)" in str(outcome)


def test_what_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_COMPILE_TIMEOUT", "0.5")
    started = time.monotonic()
    jobs = [Job("slow", lambda: time.sleep(60)), Job("fast", lambda: "done")]
    slow, fast = compiled(jobs)
    assert time.monotonic() - started < 10
    assert fast == "done"
    assert "slow: not done within 0.5 seconds" in str(slow)
    assert multiprocessing.active_children() == []


def test_an_error_comes_back_with_the_traceback_of_its_cause() -> None:
    def fail() -> CompileError:
        error = CompileError("not compiled")
        try:
            raise UserCodeError("the reason")
        except UserCodeError as cause:
            error.__cause__ = cause
        return error

    outcome, _ = compiled([Job("j", fail), Job("k", int)])
    assert type(outcome) is CompileError
    assert str(outcome) == "not compiled"
    assert "UserCodeError: the reason" in str(outcome.__cause__)


def test_no_process_is_left_when_the_parent_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_JOBS", "2")

    def fail(index: int, outcome: Any) -> None:
        raise KeyboardInterrupt

    jobs: list[Any] = [("j", int), ("k", lambda: time.sleep(60))]
    with pytest.raises(KeyboardInterrupt):
        run_all(jobs, fail)
    assert multiprocessing.active_children() == []


def test_workers_are_killed_with_their_parent(tmp_path: Path) -> None:
    """Also one that replaces a worker that died, whatever thread starts it."""

    def say() -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    jobs: list[Any] = [Job("j", crash), Job("k", say), Job("l", say), Job("m", say)]
    context = multiprocessing.get_context("fork")
    parent = context.Process(target=compiled, args=(jobs, 3))
    parent.start()
    wait_for(lambda: len(list(tmp_path.iterdir())) == 3)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert all(map(is_running, workers))
    parent.kill()
    parent.join()
    wait_for(lambda: not any(map(is_running, workers)))


def is_running(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_of_a_pool_compiles_by_itself() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(worker_count) == 0


def test_one_worker_means_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_JOBS", "1")
    assert worker_count() == 0
    monkeypatch.setenv("TTA_JOBS", "2")
    assert worker_count() == 2


def test_a_single_processor_has_a_worker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nothing would end what takes too long."""
    monkeypatch.delenv("TTA_JOBS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert worker_count() == 1


def test_a_malformed_number_of_workers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_JOBS", "many")
    with pytest.raises(SpecError, match="TTA_JOBS='many'"):
        worker_count()
