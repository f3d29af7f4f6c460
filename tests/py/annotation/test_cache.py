"""The kernel cache: what it takes for the same, and what can go wrong with it."""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from kernels import BATCH, BLOCKS, launch_add, launch_matmul, launch_silu
from test_encoding import EXPRESSIONS

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _cache, _job
from torch_tensorrt.annotation._cache import KernelCache, kernel_cache
from torch_tensorrt.annotation._compile import compile_all
from torch_tensorrt.annotation._encoding import encode
from torch_tensorrt.annotation._entry import seal, unseal
from torch_tensorrt.annotation._fingerprint import stable_fingerprint
from torch_tensorrt.annotation._job import Assembled, Job
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import Toolchain, backend
from torch_tensorrt.annotation.backends import triton as triton_backend
from torch_tensorrt.annotation.backends.triton import TritonBackend
from torch_tensorrt.annotation.errors import CacheWarning, UnsupportedKernelError

KERNEL = """
    import triton
    import triton.language as tl

    GLOBAL = tl.constexpr({constant})

    def value():
        return {plain}

    @triton.jit
    def helper(x):
        return x * {factor}

    def make(closed):
        @triton.jit
        def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr, K: tl.constexpr):
            offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            x = tl.load(x_ptr + offsets, mask=offsets < n)
            x = helper(x) + GLOBAL + closed
            tl.store(out_ptr + offsets, x, mask=offsets < n)
        return kernel

    kernel = make(tl.constexpr({closed}))

    def launch(x, out, BLOCK=256, K=1):
        n = x.numel()
        kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK, K=K)
    """


def module(folder: Path, text: str = KERNEL, **values: Any) -> Any:
    """A module of the same name each time, wherever it lies and whatever it says."""
    folder.mkdir(exist_ok=True)
    path = folder / "cached_kernels.py"
    values = {"constant": 1, "plain": 1, "factor": 2, "closed": 3, **values}
    path.write_text(textwrap.dedent(text).format(**values))
    spec = importlib.util.spec_from_file_location("cached_kernels", path)
    assert spec is not None and spec.loader is not None
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


def job(
    launch: Callable[..., Any] = launch_silu,
    *,
    batch: int | Range = BATCH,
    dtype: torch.dtype = torch.float16,
    target: str = "sm_90",
    aligned: bool = True,
    options: dict[str, int] | None = None,
    **config: Any,
) -> Job:
    recorded = record(
        TritonBackend(),
        lambda x, out: launch(x, out, **config),
        torch.empty_like,
        [TensorInfo((batch, 512), dtype)],
    )
    return Job(
        "test::op, tactic 1",
        "triton",
        recorded,
        Target.parse(target),
        options or {},
        aligned,
        "",
    )


@contextmanager
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, whatever compiles or starts a process fails the test."""

    def refuse(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("a compiler was started")

    with monkeypatch.context() as patch:
        patch.setattr(TritonBackend, "compile", refuse)
        patch.setattr(_job, "settle", refuse)
        patch.setattr(subprocess, "Popen", refuse)
        patch.setattr(os, "fork", refuse)
        forget()
        yield


def forget() -> None:
    """What this process remembers is forgotten; what is on disk stays."""
    kernel_cache.cache_clear()


def compile_one(job: Job) -> Assembled:
    (outcome,) = compile_all([job], "test")
    assert isinstance(outcome, Assembled), outcome
    return outcome


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("v*/kernels/*.json"))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- What is the same -----------------------------------------------------------------


def test_a_warm_hit_starts_no_process_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cold = compile_one(job())
    with no_compiler(monkeypatch):
        warm = compile_one(job())
    assert replace(cold, compiled=replace(cold.compiled, ptxas="")) == warm
    recorded = job().record
    assert warm.code(recorded, "my_name") == cold.code(recorded, "my_name")


def test_a_dry_run_from_the_cache_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run() -> tta.DryRunReport:
        spec = tta.custom_plugin(
            tta.triton(launch_add, BLOCKS), meta_impl=lambda x, y: torch.empty_like(x)
        )
        trt_plugins.custom_op("cached::add", impl=spec, replace=True)
        x = torch_tensorrt.Input(
            min_shape=(1, 64), opt_shape=(16, 64), max_shape=(64, 64),
            dtype=torch.float16,
        )  # fmt: skip
        return tta.dry_run("cached::add", [x, x], "sm_90", execute=False)

    cold = dry_run()
    with no_compiler(monkeypatch):
        assert dry_run() == cold


def test_a_kernel_in_another_directory_is_the_same(tmp_path: Path) -> None:
    here, there = (module(tmp_path / name) for name in ("here", "there"))
    assert job(here.launch).key == job(there.launch).key is not None


CHANGES: dict[str, dict[str, Any]] = {
    "a helper's text": {"factor": 4},
    "a global": {"constant": 5},
    "a global's type": {"constant": 1.0},
    "a closure's value": {"closed": 4},
    "a closure's type": {"closed": 3.0},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_source_is_another_kernel(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before = job(module(tmp_path / "before").launch)
    after = job(module(tmp_path / "after", **change).launch)
    assert None not in (before.key, after.key)
    assert before.key != after.key


def test_what_the_kernel_does_not_use_may_change(tmp_path: Path) -> None:
    before, after = (module(tmp_path / str(n), plain=n) for n in (1, 2))
    assert job(before.launch).key == job(after.launch).key


def test_the_text_that_was_imported_counts_and_not_the_file(tmp_path: Path) -> None:
    imported = module(tmp_path / "source")
    key = job(imported.launch).key
    path = tmp_path / "source" / "cached_kernels.py"
    path.write_text(path.read_text().replace("x * 2", "x * 4"))
    edited = job(imported.launch).key
    assert edited not in (None, job(module(tmp_path / "source", factor=4).launch).key)
    assert key == job(module(tmp_path / "source").launch).key


def test_constants_of_equal_value_and_other_type_differ(tmp_path: Path) -> None:
    launch = module(tmp_path / "source").launch
    keys = {job(launch, K=value).key for value in (1, 1.0, True)}
    assert len(keys) == 3
    assert None not in keys


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 8},
        {"batch": Range(1, 8, 65)},
        {"dtype": torch.bfloat16},
        {"target": "sm_80"},
        {"target": "sm_90,ptx_isa=8.5"},
        {"aligned": False},
        {"options": {"num_warps": 8}},
        {"BLOCK": 512},
    ],
    ids=str,
)
def test_whatever_decides_the_code_is_in_the_key(other: dict[str, Any]) -> None:
    assert None not in (job().key, job(**other).key)
    assert job(**other).key != job().key


def test_another_toolchain_compiles_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = job().key
    monkeypatch.setattr(triton_backend, "triton_version", "99.0")
    assert job().key not in (None, before)
    before = job().key
    monkeypatch.setenv("DISABLE_PTXAS_OPT", "1")
    assert job().key not in (None, before)


def test_another_version_of_this_package_compiles_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = job().key
    monkeypatch.setattr(_job, "own_source", lambda: "other")
    assert job().key not in (None, before)


def test_a_key_holds_in_every_process() -> None:
    program = """
        import json, sys
        sys.path[:0] = [sys.argv[1]]
        from test_cache import encoded, job
        print(json.dumps([job().key, encoded()]))
        """
    command = [sys.executable, "-c", textwrap.dedent(program), str(HERE)]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    output = subprocess.run(command, env=environment, capture_output=True, check=True)
    key, expressions = json.loads(output.stdout.splitlines()[-1])
    assert key == job().key
    assert expressions == encoded()


def encoded() -> list[Any]:
    return [encode(expr) for expr in EXPRESSIONS]


HERE = Path(__file__).parent


# --- What is not kept -----------------------------------------------------------------


def test_a_kernel_that_cannot_be_told_from_others_is_not_kept(
    cache_folder: Path,
) -> None:
    unstable = replace(job(), record=replace(job().record, options=(("x", object()),)))
    assert unstable.key is None
    assert stable_fingerprint(object()) is None
    unhashed = replace(job(), options={"num_warps": 4})
    unhashed.__dict__["key"] = None
    compile_one(unhashed)
    assert files(cache_folder) == []


def test_a_compilers_failure_is_not_kept(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **keywords: Any) -> Any:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(triton_backend, "triton_compile", fail)
        (outcome,) = compile_all([job()], "test")
    assert "no memory" in str(outcome)
    assert files(cache_folder) == []
    compile_one(job())


def test_a_refusal_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run() -> list[str | None]:
        configs = [{"BM": 128, "BN": 128, "BK": 64, "num_stages": n} for n in (1, 4)]
        spec = tta.custom_plugin(
            tta.triton(launch_matmul, configs),
            meta_impl=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        )
        trt_plugins.custom_op("cached::matmul", impl=spec, replace=True)
        x = torch.empty(512, 512, dtype=torch.float16)
        report = tta.dry_run("cached::matmul", [x, x], "sm_90", execute=False)
        return [tactic.error for tactic in report.tactics]

    cold = dry_run()
    assert cold[0] is None
    assert "bytes of dynamic shared memory" in str(cold[1])
    with no_compiler(monkeypatch):
        assert dry_run() == cold


def test_jobs_that_are_the_same_are_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setenv("TTA_JOBS", "1")
    monkeypatch.setattr(Job, "run", lambda job: calls.append(job) or None)
    monkeypatch.setattr(KernelCache, "store", lambda *args: None)
    compile_all([job(), job(), job(BLOCK=512)], "test")
    assert len(calls) == 2


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


def started(function: Callable[[], Any]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


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
