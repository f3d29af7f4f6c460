# SPDX-License-Identifier: BSD-3-Clause

"""The kernel cache: what can go wrong with it, and other processes and machines."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cache_tools import (
    compile_one,
    entries,
    files,
    forget,
    job,
    load,
    no_compiler,
    started,
    store,
)
from warned import not_warned, warned

from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._compile.cache import (
    KernelCache,
    kernel_cache,
    seal,
    unseal,
)
from torch_tensorrt.annotation.backends import Toolchain, backend
from torch_tensorrt.annotation.backends.triton.compiler import TritonBackend
from torch_tensorrt.annotation.errors import CompileError, UnsupportedKernelError

pytestmark = pytest.mark.usefixtures("fresh_cache")

# --- What can go wrong ----------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def change(path: Path) -> None:
    text = path.read_text()
    assert text.count('"registers": ') == 1
    path.write_text(text.replace('"registers": ', '"registers": 1'))


def change_the_code(path: Path) -> None:
    text = path.read_text()
    assert "add" in text
    path.write_text(text.replace("add", "sub"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_json_of_another_kind(path: Path) -> None:
    path.write_text(json.dumps([1, 2]))


def put_something_that_is_not_text(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def seal_something_else(path: Path) -> None:
    path.write_bytes(seal({"kernel": {"entry": "x"}}))


def seal_an_unknown_refusal(path: Path) -> None:
    path.write_bytes(seal({"refused": ["SystemExit", "1"]}))


def seal_what_is_nested_too_deep(path: Path) -> None:
    body = unseal(path.read_bytes())
    for _ in range(3000):
        body["kernel"]["grid"][0] = ["Add", body["kernel"]["grid"][0]]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        path.write_bytes(seal(body))
    finally:
        sys.setrecursionlimit(limit)


def put_another_kernels_entry(path: Path) -> None:
    other = compile_one(job(BLOCK=512))
    (source,) = set(entries(path.parents[1])) - {path}
    assert other.digest in source.read_text()
    source.rename(path)


DAMAGES = [
    cut,
    change,
    change_the_code,
    empty,
    put_json_of_another_kind,
    put_something_that_is_not_text,
    seal_something_else,
    seal_an_unknown_refusal,
    seal_what_is_nested_too_deep,
    put_another_kernels_entry,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_discarded_with_one_warning(
    damage: Callable[[Path], None], fresh_cache: Path
) -> None:
    cold = compile_one(job())
    (path,) = entries(fresh_cache)
    damage(path)
    forget()
    with warned("is damaged") as caught:
        again = compile_one(job())
    assert len(caught) == 1
    assert again == cold
    forget()
    with not_warned():
        compile_one(job())


def test_a_forged_expression_is_not_evaluated(fresh_cache: Path) -> None:
    """Whoever can write the directory can seal an entry; its content is still data."""
    compile_one(job())
    (path,) = entries(fresh_cache)
    body = unseal(path.read_bytes())
    body["kernel"]["grid"][0] = "__import__('os').abort()"
    path.write_bytes(seal(body))
    forget()
    with warned("is not the symbol of an extent"):
        compile_one(job())


def other_fields(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Bodies that anyone who can write the directory can seal."""
    kernel = body["kernel"]
    for name in kernel:
        others = {n: kernel[n] for n in {*kernel} - {name}}
        yield f"no {name}", {**body, "kernel": others}
        for value in (None, 3.5, True, [None]):
            yield f"{name}={value}", {**body, "kernel": kernel | {name: value}}
    for name in ("key", "compiler", "kernel"):
        yield f"no {name}", {n: body[n] for n in {*body} - {name}}
    yield "another field", {**body, "kernel": kernel | {"more": 1}}
    yield "two threads", {**body, "kernel": kernel | {"block": [32, 1]}}
    yield "threads in text", {**body, "kernel": kernel | {"block": ["1", "1", "1"]}}
    yield "a refusal without a reason", {**body, "refused": ["PTXError"]}


def test_a_sealed_entry_with_other_fields_is_a_miss(fresh_cache: Path) -> None:
    cold = compile_one(job())
    (path,) = entries(fresh_cache)
    whole = path.read_bytes()
    for what, body in other_fields(unseal(whole)):
        path.write_bytes(seal(body))
        with errors.collecting() as messages:
            found = load(KernelCache(fresh_cache), job())
        assert found is None and "is damaged" in messages[0], what
    path.write_bytes(whole)
    assert load(KernelCache(fresh_cache), job()) == cold


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("folder", "entry", "is_used"),
    [
        (1000, 0, True),  # root's
        (1001, 1000, True),  # this user's
        (1001, 1001, True),  # of the directory's owner, whom the user named
        (1000, 1001, False),
        (1001, 1002, False),
        (0, 1002, False),
    ],
)
def test_an_entry_of_another_user_is_used_in_a_directory_of_theirs_alone(
    folder: int,
    entry: int,
    is_used: bool,
    fresh_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_one(job())
    (path,) = entries(fresh_cache)
    os.chown(fresh_cache, folder, folder)
    os.chown(path, entry, entry)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with errors.collecting() as messages:
        found = load(KernelCache(fresh_cache), job())
    assert (found is not None) is is_used
    text = f"{path} is not used: it belongs to user {entry}, and the directory does not"
    assert [text in message for message in messages] == [True] * (not is_used)
    assert path.exists()


@contextmanager
def refused(*calls: tuple[Any, str], folder: Path) -> Iterator[None]:
    """Inside, the system refuses these calls below ``folder``, root's included.

    Permissions do not bind root, and another user may not reach ``folder`` at all.
    """

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            places = [str(p) for p in (*args, *keywords.values())]
            if any(place.startswith(str(folder)) for place in places):
                raise PermissionError(13, "Permission denied", str(folder))
            return original(*args, **keywords)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in calls:
            patch.setattr(owner, name, refuse(getattr(owner, name)))
        yield


READS = ((Path, "open"),)
WRITES = (
    *((Path, name) for name in ("write_bytes", "mkdir", "replace", "unlink")),
    *((os, name) for name in ("open", "utime")),
)


@pytest.fixture
def shared(fresh_cache: Path, tmp_path: Path) -> Path:
    """A cache of two kernels, made by somebody else."""
    compile_one(job())
    compile_one(job(BLOCK=512))
    forget()
    return Path(shutil.copytree(fresh_cache, tmp_path / "shared"))


def test_a_directory_that_is_read_only_is_read(shared: Path) -> None:
    new = replace(job(), aligned=False)
    cache = KernelCache(shared)
    with refused(*WRITES, folder=shared):
        found = load(cache, job())
        assert found is not None
        with warned("cannot be written") as caught:
            store(cache, new, found)
            store(cache, replace(new, options={"num_warps": 2}), found)
        assert len(caught) == 1
        assert load(cache, job(BLOCK=512)) is not None
        assert load(cache, new) == found  # from memory
    assert "cannot be written" in cache.failure


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_permissions_make_a_directory_read_only(shared: Path) -> None:
    (shared / "v3").chmod(0o500)
    cache = KernelCache(shared)
    try:
        found = load(cache, job())
        assert found is not None
        with warned("cannot be written"):
            store(cache, replace(job(), aligned=False), found)
    finally:
        (shared / "v3").chmod(0o700)


def test_a_directory_that_may_not_be_read_is_done_without(shared: Path) -> None:
    cache = KernelCache(shared)
    with (
        refused(*READS, folder=shared),
        warned("cannot be read") as caught,
    ):
        assert load(cache, job()) is None
        assert load(cache, job(BLOCK=512)) is None
    assert len(caught) == 1


def test_a_directory_below_a_private_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As home directories are."""
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    monkeypatch.setenv("TTA_CACHE_DIR", str(private / "a" / "cache"))
    cold = compile_one(job())
    with no_compiler(monkeypatch):
        assert compile_one(job()) == cold


def test_a_full_disk_costs_the_cache_and_nothing_else(fresh_cache: Path) -> None:
    """The system refuses to write more than 100 bytes to a file."""
    cold = compile_one(job())
    cache = KernelCache(fresh_cache.with_name("full"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with warned("cannot be written") as caught:
            store(cache, job(), cold)
            store(cache, job(BLOCK=512), cold)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caught) == 1
    assert files(cache.root) == []
    assert load(cache, job()) == cold


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("TTA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with warned("cannot be") as caught:
        compile_one(job())
        compile_one(job(BLOCK=512))
    assert {message.partition(":")[0] for message in caught} == {
        f"the kernel cache in {tmp_path}/file/cache cannot be {verb}"
        for verb in ("read", "written")
    }


@pytest.mark.parametrize(
    ("compiler", "outcome"),
    [
        pytest.param(None, UnsupportedKernelError("no"), id="no compiler"),
        pytest.param("13.1", CompileError("no"), id="it may pass"),
    ],
)
def test_what_may_be_different_the_next_time_is_not_kept(
    compiler: str | None, outcome: Any, fresh_cache: Path
) -> None:
    key, cache = "a" * 64, KernelCache(fresh_cache)
    cache.store(key, compiler, outcome, {})
    assert files(fresh_cache) == []
    assert cache.load(key, compiler) is None


def test_a_refusal_comes_back_as_it_was(fresh_cache: Path) -> None:
    store(KernelCache(fresh_cache), job(), UnsupportedKernelError("no"))
    found = load(KernelCache(fresh_cache), job())
    assert (type(found), str(found)) == (UnsupportedKernelError, "no")


def test_what_another_process_removes_first_is_no_failure(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        original(path, missing_ok=True)
        original(path, missing_ok=missing_ok)

    def fail(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "unlink", unlink)
    cache = KernelCache(fresh_cache)
    for remove in (lambda: cache.keep_within(0), cache.clear):
        store(cache, job(), UnsupportedKernelError("no"))
        (path,) = entries(fresh_cache)
        left = path.with_name(f"{path.name}.abc_1234")
        left.touch()
        os.utime(left, (0, 0))
        remove()
        assert files(fresh_cache) == []
    store(KernelCache(fresh_cache), job(), UnsupportedKernelError("no"))
    cut(path)
    assert load(cache, job()) is None
    assert cache.failure == ""
    monkeypatch.setattr(Path, "replace", fail)
    store(cache, job(), UnsupportedKernelError("no"))
    assert "no space" in cache.failure


# --- Other processes, other machines --------------------------------------------------


def test_two_processes_fill_it_at_once(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = (128, 256, 512)
    together = multiprocessing.get_context("fork").Barrier(2)

    def fill() -> None:
        for block in blocks:
            kernel = job(BLOCK=block).run()
            together.wait()
            store(kernel_cache(fresh_cache), job(BLOCK=block), kernel)

    processes = [started(fill) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(files(fresh_cache)) == entries(fresh_cache)
    assert len(entries(fresh_cache)) == 3
    with no_compiler(monkeypatch):
        for block in blocks:
            compile_one(job(BLOCK=block))


def test_a_process_killed_while_it_writes_leaves_nothing_wrong(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        process = started(lambda: compile_one(job()))
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert files(fresh_cache) != []
    assert entries(fresh_cache) == []
    with not_warned():
        compile_one(job())
    assert len(entries(fresh_cache)) == 1


def test_a_cache_of_another_machine_serves(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = compile_one(job())
    copied = shutil.move(fresh_cache, tmp_path / "elsewhere")
    monkeypatch.setenv("TTA_CACHE_DIR", str(copied))
    with no_compiler(monkeypatch):
        assert compile_one(job()) == cold


def with_compiler(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = backend("triton").toolchain().versions
    toolchain = Toolchain(versions, version)
    monkeypatch.setattr(TritonBackend, "toolchain", lambda self: toolchain)


def test_without_a_compiler_the_kernel_of_any_compiler_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_compiler("13.1", monkeypatch)
    cold = compile_one(job())
    forget()
    with_compiler(None, monkeypatch)
    with no_compiler(monkeypatch):
        assert compile_one(job()) == cold


def test_another_version_of_the_compiler_compiles_again(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("13.1", "13.2"):
        with_compiler(version, monkeypatch)
        forget()
        compile_one(job())
    assert len(entries(fresh_cache)) == 2


def test_only_the_user_may_read_it(fresh_cache: Path) -> None:
    before = os.umask(0)
    try:
        compile_one(job())
    finally:
        os.umask(before)
    for path in (fresh_cache, *fresh_cache.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_it_can_be_counted_and_cleared(fresh_cache: Path) -> None:
    cache = kernel_cache(fresh_cache)
    assert (cache.contents().kernels, cache.contents().bytes) == (0, 0)
    kernel = compile_one(job())
    store(cache, job(BLOCK=512), UnsupportedKernelError("no"))
    contents = cache.contents()
    assert (contents.kernels, contents.refusals) == (1, 1)
    assert contents.bytes > len(kernel.code)
    cache.clear()
    assert files(fresh_cache) == []
    assert load(cache, job()) is None


def test_clearing_deletes_nothing_that_is_not_the_caches(fresh_cache: Path) -> None:
    """A directory may be named that holds something already."""
    theirs = [
        fresh_cache / name
        for name in (
            *("notes.txt", "data.json", "v1/kernels/model.json", "v3/kernel.json"),
            *("v3/README", "v3/notes.json", "v3/notes.json.new", "v3/sub/x.json"),
        )
    ]
    compile_one(job())
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    cache = kernel_cache(fresh_cache)
    assert cache.contents().kernels == 1
    cache.clear()
    cache.keep_within(0)
    assert sorted(files(fresh_cache)) == sorted(theirs)
