"""Compile what the cache does not hold, several kernels at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch_tensorrt.annotation._cache import cache_folder, kernel_cache
from torch_tensorrt.annotation._eviction import size_limit
from torch_tensorrt.annotation._job import Job, Outcome, as_ours
from torch_tensorrt.annotation._progress import progress
from torch_tensorrt.annotation._workers import (
    compile_in_workers,
    compiling,
    worker_count,
)

_LOGGER = logging.getLogger(__name__)


def compile_all(jobs: Sequence[Job], what: str) -> list[Outcome]:
    """The outcome of each job, from the cache where it is there.

    Those that are not are compiled in processes of their own, in parallel.

    Args:
        what: is done, for the progress bar.
    """
    cache = kernel_cache(cache_folder())
    outcomes = [cache.load(job) for job in jobs]
    missing = _distinct([j for j, o in zip(jobs, outcomes, strict=True) if o is None])
    compiled: dict[int, Outcome] = {}
    with progress(what, len(missing)) as advance:

        def done(index: int, outcome: Outcome) -> None:
            compiled[id(missing[index])] = outcome
            cache.store(missing[index], outcome)
            advance()

        try:
            limit = size_limit()
            _compile(missing, done)
            if missing:
                cache.keep_within(limit)
        except Exception as error:  # no process to be had, or an environment variable
            failure = as_ours(what, error)
            for job in missing:
                compiled.setdefault(id(job), failure)
    by_key = {job.key: compiled[id(job)] for job in missing}
    return [
        outcome or compiled.get(id(job)) or by_key[job.key]
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]


def _distinct(jobs: Sequence[Job]) -> list[Job]:
    """``jobs`` without those that would compile the same."""
    by_key: dict[object, Job] = {}
    for job in jobs:
        if job.key is None:
            _LOGGER.info("%s: its source cannot be hashed; it is not cached", job.what)
        by_key.setdefault(job.key or id(job), job)
    return list(by_key.values())


def _compile(jobs: Sequence[Job], done: Callable[[int, Outcome], None]) -> None:
    if jobs and (count := worker_count()):
        compile_in_workers(jobs, count, done)
        return
    with compiling:
        for index, job in enumerate(jobs):
            done(index, job.run())
