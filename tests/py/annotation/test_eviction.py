# SPDX-License-Identifier: BSD-3-Clause

"""The kernel cache stays within a size: what was not used for longest goes first."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from cache_tools import (
    compile_one,
    entries,
    files,
    forget,
    job,
    key,
    load,
    no_compiler,
    size_of,
    started,
    store,
)

from torch_tensorrt.annotation._code.kernel import Kernel
from torch_tensorrt.annotation._compile.cache import KernelCache
from torch_tensorrt.annotation._compile.job import compile_all
from torch_tensorrt.annotation.errors import UnsupportedKernelError

DAY = 86400.0
BLOCKS = (128, 256, 512)


@cache
def compiled(block: int) -> Kernel:
    return compile_one(job(BLOCK=block))


@pytest.fixture
def kernels(fresh_cache: Path) -> dict[int, Kernel]:
    """Three kernels in the cache, used 3, 2 and 1 days ago."""
    found = {block: compiled(block) for block in BLOCKS}
    for block, kernel in found.items():
        store(KernelCache(fresh_cache), job(BLOCK=block), kernel)
    for age, block in zip((3, 2, 1), BLOCKS, strict=True):
        used = time.time() - age * DAY
        os.utime(entry_of(block, fresh_cache), (used, used))
    forget()
    return found


def entry_of(block: int, folder: Path) -> Path:
    name = str(key(job(BLOCK=block)))
    (path,) = (path for path in entries(folder) if path.name.startswith(name))
    return path


def held(folder: Path) -> set[int]:
    kept = KernelCache(folder)
    return {block for block in BLOCKS if load(kept, job(BLOCK=block)) is not None}


def size_of_blocks(blocks: Sequence[int], folder: Path) -> int:
    return sum(entry_of(block, folder).stat().st_size for block in blocks)


def test_what_was_used_least_recently_goes_first(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    KernelCache(fresh_cache).keep_within(size_of(fresh_cache) - 1)
    assert held(fresh_cache) == {256, 512}
    assert len(files(fresh_cache)) == 2


def test_within_the_limit_nothing_goes(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    KernelCache(fresh_cache).keep_within(size_of(fresh_cache))
    assert held(fresh_cache) == set(BLOCKS)


def test_an_eviction_makes_room_for_some_more(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    """Or the next kernel would cause another one."""
    limit = size_of_blocks((256, 512), fresh_cache) + 1
    KernelCache(fresh_cache).keep_within(limit)
    assert held(fresh_cache) == {512}


def test_a_load_counts_as_a_use(kernels: dict[int, Kernel], fresh_cache: Path) -> None:
    assert load(KernelCache(fresh_cache), job(BLOCK=128)) is not None
    KernelCache(fresh_cache).keep_within(size_of(fresh_cache) - 1)
    assert held(fresh_cache) == {128, 512}


def test_counting_does_not_count_as_a_use(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    assert KernelCache(fresh_cache).contents().kernels == 3
    KernelCache(fresh_cache).keep_within(size_of(fresh_cache) - 1)
    assert held(fresh_cache) == {256, 512}


def test_compiling_keeps_it_within_the_limit(
    kernels: dict[int, Kernel], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = size_of(fresh_cache)
    monkeypatch.setenv("TTA_CACHE_SIZE", str(limit))
    compile_one(job(BLOCK=1024))
    assert size_of(fresh_cache) <= limit
    assert 128 not in held(fresh_cache)
    with no_compiler(monkeypatch):
        compile_one(job(BLOCK=1024))


def test_what_killed_writers_left_goes(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    entry = entry_of(128, fresh_cache)
    left = entry.with_name(f"{entry.name}.abc_1234")
    left.write_text("half")
    kept = KernelCache(fresh_cache)
    kept.keep_within(10**9)
    assert left.exists()  # somebody may be writing it
    os.utime(left, (0, 0))
    kept.keep_within(10**9)
    assert not left.exists()
    assert held(fresh_cache) == set(BLOCKS)


def test_processes_evict_store_and_load_at_once(
    kernels: dict[int, Kernel], fresh_cache: Path
) -> None:
    """None takes an entry for damaged that another one evicts."""
    jobs = {block: job(BLOCK=block) for block in BLOCKS}
    for one in jobs.values():
        assert key(one) is not None
    end = time.monotonic() + 1

    def evict() -> None:
        while time.monotonic() < end:
            KernelCache(fresh_cache).keep_within(0)
            time.sleep(0.001)

    def use() -> None:
        hits = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # A busy machine may start this process when the others have ended.
            while time.monotonic() < (end if hits else end + 30):
                for block, one in jobs.items():
                    store(KernelCache(fresh_cache), one, kernels[block])
                    hits += load(KernelCache(fresh_cache), one) is not None
                    KernelCache(fresh_cache).contents()
        os._exit(len(caught) if hits else 99)

    processes = [started(work) for work in (evict, evict, use, use)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_a_refusal_is_evicted_like_a_kernel(fresh_cache: Path) -> None:
    kept = KernelCache(fresh_cache)
    store(kept, job(), UnsupportedKernelError("no"))
    assert kept.contents().refusals == 1
    kept.keep_within(0)
    assert kept.contents().refusals == 0


def test_a_malformed_limit_is_refused_before_anything_compiles(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_CACHE_SIZE", "much")
    with no_compiler(monkeypatch):
        (outcome,) = compile_all([job()], "test")
    assert "TTA_CACHE_SIZE='much'" in str(outcome)
