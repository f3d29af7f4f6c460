"""The kernel cache: what can go wrong with it, and other processes and machines."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
)  # fmt: skip

from torch_tensorrt.annotation import _cache
from torch_tensorrt.annotation._cache import KernelCache, kernel_cache
from torch_tensorrt.annotation._entry import seal, unseal
from torch_tensorrt.annotation.backends import Toolchain, backend
from torch_tensorrt.annotation.backends.triton import TritonBackend
from torch_tensorrt.annotation.errors import CacheWarning, UnsupportedKernelError

# --- What can go wrong ----------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def change(path: Path) -> None:
    text = path.read_text()
    is_entry = path.suffix == ".json"
    old, new = ('"registers": ', '"registers": 1') if is_entry else ("add", "sub")
    assert old in text
    path.write_text(text.replace(old, new))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_json_of_another_kind(path: Path) -> None:
    path.write_text(json.dumps([1, 2]))


@pytest.mark.parametrize("kind", ["kernels", "code"])
@pytest.mark.parametrize("damage", [cut, change, empty, put_json_of_another_kind])
def test_a_damaged_entry_is_discarded_with_one_warning(
    damage: Callable[[Path], None], kind: str, cache_folder: Path
) -> None:
    cold = compile_one(job())
    (path,) = cache_folder.glob(f"v*/{kind}/*")
    damage(path)
    forget()
    with pytest.warns(CacheWarning, match="is damaged") as caught:
        again = compile_one(job())
    assert len(caught) == 1
    assert again == cold
    forget()
    compile_one(job())  # and without a warning


def test_an_entry_without_its_code_is_discarded(cache_folder: Path) -> None:
    compile_one(job())
    (path,) = cache_folder.glob("v*/code/*")
    path.unlink()
    forget()
    with pytest.warns(CacheWarning, match="its code is missing"):
        compile_one(job())


def test_a_forged_expression_is_not_evaluated(cache_folder: Path) -> None:
    """Whoever can write the directory can seal an entry; its content is still data."""
    compile_one(job())
    (path,) = entries(cache_folder)
    body = unseal(path.read_bytes())
    body["kernel"]["grid"][0] = "__import__('os').abort()"
    path.write_bytes(seal(body))
    forget()
    with pytest.warns(CacheWarning, match="is not the symbol of an extent"):
        compile_one(job())


@contextmanager
def somebody_else() -> Iterator[None]:
    """Permissions do not bind root, so not as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(cache_folder: Path) -> Iterator[Path]:
    """A cache of two kernels that everybody may read, and nobody may write."""
    compile_one(job())
    compile_one(job(BLOCK=512))
    with tempfile.TemporaryDirectory() as temporary:  # pytest's own are private
        Path(temporary).chmod(0o755)
        folder = Path(shutil.copytree(cache_folder, Path(temporary, "cache")))
        paths = (folder, *folder.rglob("*"))
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield folder
        for path in paths:
            path.chmod(0o755)


def test_a_directory_that_is_read_only_is_read(shared: Path) -> None:
    new = replace(job(), aligned=False)
    cache = KernelCache(shared)
    with somebody_else():
        found = cache.load(job())
        assert found is not None
        with pytest.warns(CacheWarning, match="cannot be written") as caught:
            cache.store(new, found)
            cache.store(replace(new, options={"num_warps": 2}), found)
        assert len(caught) == 1
        assert cache.load(job(BLOCK=512)) is not None
        assert cache.load(new) == found  # from memory


def test_a_directory_that_may_not_be_read_is_done_without(shared: Path) -> None:
    (shared / "v1" / "kernels").chmod(0)
    cache = KernelCache(shared)
    with (
        somebody_else(),
        pytest.warns(CacheWarning, match="cannot be read") as caught,
    ):
        assert cache.load(job()) is None
        assert cache.load(job(BLOCK=512)) is None
    assert len(caught) == 1


def test_a_full_disk_costs_the_cache_and_nothing_else(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses to write more than 100 bytes to a file."""
    cold = compile_one(job())
    cache = KernelCache(cache_folder.with_name("full"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.warns(CacheWarning, match="cannot be written") as caught:
            cache.store(job(), cold)
            cache.store(job(BLOCK=512), cold)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caught) == 1
    assert files(cache.root) == []
    assert cache.load(job()) == cold


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("TTA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(CacheWarning) as caught:
        compile_one(job())
        compile_one(job(BLOCK=512))
    assert {str(w.message).partition(":")[0] for w in caught} == {
        f"the kernel cache in {tmp_path}/file/cache cannot be {verb}"
        for verb in ("read", "written")
    }


def test_no_warning_is_an_error_that_stops_compiling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorRT ends the process for an error in autotune."""
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("TTA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_one(job())
    assert "cannot be written" in caplog.text


# --- Other processes, other machines --------------------------------------------------


def test_two_processes_fill_it_at_once(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = (128, 256, 512)
    together = multiprocessing.get_context("fork").Barrier(2)

    def fill() -> None:
        for block in blocks:
            assembled = replace(job(BLOCK=block)).run()
            together.wait()
            kernel_cache(cache_folder).store(job(BLOCK=block), assembled)

    processes = [started(fill) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(files(cache_folder)) == 6
    with no_compiler(monkeypatch):
        for block in blocks:
            compile_one(job(BLOCK=block))


@pytest.mark.parametrize("renamed", [0, 1], ids=["the code", "the entry"])
def test_a_process_killed_while_it_writes_leaves_nothing_wrong(
    renamed: int, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, done = Path.replace, []

    def die(path: Path, target: Path) -> Path:
        if len(done) == renamed:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        process = started(lambda: compile_one(job()))
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert files(cache_folder) != []
    assert entries(cache_folder) == []
    compile_one(job())  # without a warning
    assert len(entries(cache_folder)) == 1


def test_a_cache_of_another_machine_serves(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = compile_one(job())
    copied = shutil.move(cache_folder, tmp_path / "elsewhere")
    monkeypatch.setenv("TTA_CACHE_DIR", str(copied))
    with no_compiler(monkeypatch):
        assert compile_one(job()).compiled.code == cold.compiled.code


def with_compiler(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = backend("triton").toolchain().versions
    toolchain = Toolchain(versions, version)
    monkeypatch.setattr(TritonBackend, "toolchain", lambda self: toolchain)


def test_without_a_compiler_what_any_compiled_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_compiler("13.1", monkeypatch)
    cold = compile_one(job())
    forget()
    with_compiler(None, monkeypatch)
    with no_compiler(monkeypatch):
        assert compile_one(job()).digest == cold.digest


def test_another_version_of_the_compiler_compiles_again(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("13.1", "13.2"):
        with_compiler(version, monkeypatch)
        forget()
        compile_one(job())
    assert len(entries(cache_folder)) == 2


def test_only_the_user_may_read_it(cache_folder: Path) -> None:
    compile_one(job())
    for path in (cache_folder, *cache_folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_it_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_CACHE_DIR", "~/here")
    assert _cache.cache_folder() == Path.home() / "here"
    monkeypatch.delenv("TTA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert _cache.cache_folder() == Path("/xdg/torch_tensorrt/annotation")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _cache.cache_folder() == Path.home() / ".cache/torch_tensorrt/annotation"


def test_it_can_be_counted_and_cleared(cache_folder: Path) -> None:
    cache = kernel_cache(cache_folder)
    assert (cache.contents().kernels, cache.contents().bytes) == (0, 0)
    assembled = compile_one(job())
    cache.store(job(BLOCK=512), UnsupportedKernelError("no"))
    contents = cache.contents()
    assert (contents.kernels, contents.refusals) == (1, 1)
    assert contents.bytes > len(assembled.compiled.code)
    cache.clear()
    assert files(cache_folder) == []
    assert cache.load(job()) is None
