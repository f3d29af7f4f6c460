"""Compile what the cache does not hold, several kernels at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch_tensorrt.annotation import _settings
from torch_tensorrt.annotation._compile.cache import kernel_cache
from torch_tensorrt.annotation._compile.job import Job, Outcome, keys_of
from torch_tensorrt.annotation._compile.pool import (
    compile_in_workers,
    compiling,
    worker_count,
)
from torch_tensorrt.annotation.errors import as_ours


def compile_all(jobs: Sequence[Job], what: str) -> list[Outcome]:
    """The outcome of each job, from the cache where it is there.

    The others are compiled in parallel, in processes of their own. Jobs that would
    compile the same are compiled once.

    Args:
        what: is compiled, for the progress bar.
    """
    cache = kernel_cache(_settings.cache_folder())
    outcomes: dict[object, Outcome] = {}
    missing: dict[object, Job] = {}
    keys = keys_of(jobs)
    slots = [key or index for index, key in enumerate(keys)]
    for key, slot, job in zip(keys, slots, jobs, strict=True):
        found = cache.load(key, job.toolchain.compiler)
        if found is None:
            missing.setdefault(slot, job)
        else:
            outcomes[slot] = found
    places = list(missing)
    with progress(what, len(missing)) as advance:

        def done(index: int, outcome: Outcome) -> None:
            place = places[index]
            outcomes[place] = outcome
            key = place if isinstance(place, str) else None
            cache.store(key, missing[place], outcome)
            advance()

        try:
            limit = _settings.cache_size()
            _compile(list(missing.values()), done)
            if missing:
                cache.keep_within(limit)
        except Exception as error:  # no process to be had, or a malformed setting
            failure = as_ours(what, error)
            for place in missing:
                outcomes.setdefault(place, failure)
    return [outcomes[slot] for slot in slots]


def _compile(jobs: Sequence[Job], done: Callable[[int, Outcome], None]) -> None:
    if jobs and (count := worker_count()):
        compile_in_workers(jobs, count, done)
        return
    with compiling:
        for index, job in enumerate(jobs):
            done(index, job.run())


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of ``total`` steps.

    It shows a bar on standard error, if that is a terminal, and leaves nothing behind.
    """
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
