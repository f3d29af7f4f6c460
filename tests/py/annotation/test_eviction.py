"""The kernel cache stays within a size: what was not used for longest goes first."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import pytest
from cache_tools import (
    compile_one,
    entries,
    files,
    forget,
    job,
    no_compiler,
    started,
)

from torch_tensorrt.annotation import _eviction
from torch_tensorrt.annotation._cache import KernelCache, kernel_cache
from torch_tensorrt.annotation._compile.job import compile_all
from torch_tensorrt.annotation._eviction import parse_size, size_limit, size_of
from torch_tensorrt.annotation._job import Assembled
from torch_tensorrt.annotation.errors import SpecError, UnsupportedKernelError

DAY = 86400.0
BLOCKS = (128, 256, 512)


@pytest.fixture
def assembled(monkeypatch: pytest.MonkeyPatch) -> dict[int, Assembled]:
    """Three kernels in the cache, used 3, 2 and 1 days ago."""
    monkeypatch.setattr(_eviction, "_GRACE", 0.0)
    found = {block: compile_one(job(BLOCK=block)) for block in BLOCKS}
    for age, block in zip((3, 2, 1), BLOCKS, strict=True):
        used = time.time() - age * DAY
        os.utime(entry_of(block), (used, used))
    forget()
    return found


def entry_of(block: int) -> Path:
    key = job(BLOCK=block).key
    folder = Path(os.environ["TTA_CACHE_DIR"])
    (path,) = (path for path in entries(folder) if path.name.startswith(str(key)))
    return path


def held(folder: Path) -> set[int]:
    cache = KernelCache(folder)
    return {block for block in BLOCKS if cache.load(job(BLOCK=block)) is not None}


def test_what_was_used_least_recently_goes_first(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    total = size_of(cache_folder)
    KernelCache(cache_folder).evict(keep=total - 1)
    assert held(cache_folder) == {256, 512}
    assert len(files(cache_folder)) == 4  # the code went, too


def test_a_load_counts_as_a_use(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    assert KernelCache(cache_folder).load(job(BLOCK=128)) is not None
    KernelCache(cache_folder).evict(keep=size_of(cache_folder) - 1)
    assert held(cache_folder) == {128, 512}


def test_looking_into_the_cache_is_no_use(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    assert KernelCache(cache_folder).contents().kernels == 3
    KernelCache(cache_folder).evict(unused_for=2.5 * DAY)
    assert held(cache_folder) == {256, 512}


def test_what_was_not_used_for_long_goes(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    KernelCache(cache_folder).evict(unused_for=1.5 * DAY)
    assert held(cache_folder) == {512}


def test_code_that_another_entry_names_stays(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    cache = KernelCache(cache_folder)
    cache.store(job(BLOCK=128, aligned=False), assembled[128])
    cache.evict(unused_for=2.5 * DAY)
    assert held(cache_folder) == {256, 512}
    assert KernelCache(cache_folder).load(job(BLOCK=128, aligned=False)) is not None


def test_compiling_keeps_it_within_the_limit(
    assembled: dict[int, Assembled],
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = size_of(cache_folder)
    monkeypatch.setenv("TTA_CACHE_SIZE", str(limit))
    compile_one(job(BLOCK=1024))
    assert size_of(cache_folder) <= limit
    assert 128 not in held(cache_folder)
    with no_compiler(monkeypatch):
        compile_one(job(BLOCK=1024))


def test_what_killed_writers_left_goes(
    assembled: dict[int, Assembled], cache_folder: Path
) -> None:
    left = cache_folder / "v1" / "code" / "tmpabc"
    left.write_text("half")
    cache = KernelCache(cache_folder)
    cache.evict()
    assert left.exists()  # somebody may be writing it
    os.utime(left, (0, 0))
    cache.evict()
    assert not left.exists()
    assert held(cache_folder) == set(BLOCKS)


def test_code_that_was_just_written_stays_until_its_entry_is(
    assembled: dict[int, Assembled],
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_eviction, "_GRACE", 10.0)
    entry_of(512).unlink()
    KernelCache(cache_folder).evict()
    assert len(files(cache_folder)) == 5


def test_processes_evict_store_and_load_at_once(
    assembled: dict[int, Assembled],
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody takes for damaged what another process evicts."""
    monkeypatch.setattr(_eviction, "_GRACE", 10.0)
    jobs = {block: job(BLOCK=block) for block in BLOCKS}
    end = time.monotonic() + 3

    def evict() -> None:
        while time.monotonic() < end:
            KernelCache(cache_folder).evict(keep=0)

    def use() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            while time.monotonic() < end:
                for block, one in jobs.items():
                    cache = KernelCache(cache_folder)
                    if cache.load(one) is None:
                        cache.store(one, assembled[block])
                    cache.contents()
        os._exit(len(caught))

    processes = [started(work) for work in (evict, evict, use, use)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_a_refusal_is_evicted_like_a_kernel(cache_folder: Path) -> None:
    cache = kernel_cache(cache_folder)
    cache.store(job(), UnsupportedKernelError("no"))
    cache.evict(keep=0)
    assert cache.contents().refusals == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 5 * 10**8), ("2GB", 2 * 10**9), ("1.5 k", 1500), ("12", 12)],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text, "--keep") == size


@pytest.mark.parametrize("text", ["much", "-1", "1PB", "nan"])
def test_what_is_no_size_is_refused_before_anything_compiles(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_CACHE_SIZE", text)
    with pytest.raises(SpecError, match="TTA_CACHE_SIZE="):
        size_limit()
    (outcome,) = compile_all([job()], "test")
    assert "TTA_CACHE_SIZE=" in str(outcome)
