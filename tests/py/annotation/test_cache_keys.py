# SPDX-License-Identifier: BSD-3-Clause

"""The kernel cache: what it takes for the same kernel, and what it does not keep."""

from __future__ import annotations

import errno
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_tools import compile_one, files, job, key, module, no_compiler
from kernels import BLOCKS, launch_add, launch_matmul

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._compile import job as job_module
from torch_tensorrt.annotation._compile.cache import KernelCache
from torch_tensorrt.annotation._compile.job import Job, compile_all, keys_of
from torch_tensorrt.annotation._tensors import Range
from torch_tensorrt.annotation.backends.triton import compiler as triton_compiler

pytestmark = pytest.mark.usefixtures("fresh_cache")


def test_a_warm_hit_starts_no_process_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cold = compile_one(job())
    with no_compiler(monkeypatch):
        warm = compile_one(job())
    assert warm == cold
    assert warm.named("my_name").code == cold.named("my_name").code


def test_a_dry_run_from_the_cache_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run() -> tta.DryRunReport:
        spec = tta.custom_plugin(
            tta.triton(launch_add, BLOCKS), meta_impl=lambda x, y: torch.empty_like(x)
        )
        trt_plugins.custom_op(
            "cached::add", impl=spec, replace=True, supports_dynamic_shapes=True
        )
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
    assert key(job(here.launch)) == key(job(there.launch)) is not None


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
    before = key(job(module(tmp_path / "before").launch))
    after = key(job(module(tmp_path / "after", **change).launch))
    assert None not in (before, after)
    assert before != after


def test_what_the_kernel_does_not_use_may_change(tmp_path: Path) -> None:
    before, after = (module(tmp_path / str(n), plain=n) for n in (1, 2))
    assert key(job(before.launch)) == key(job(after.launch))


def test_the_text_that_was_imported_counts_and_not_the_file(tmp_path: Path) -> None:
    imported = module(tmp_path / "source")
    before = key(job(imported.launch))
    path = tmp_path / "source" / "cached_kernels.py"
    path.write_text(path.read_text().replace("x * 2", "x * 4"))
    edited = key(job(imported.launch))
    assert edited is not None
    assert edited != key(job(module(tmp_path / "source", factor=4).launch))
    assert before == key(job(module(tmp_path / "source").launch))


def test_constants_of_equal_value_and_other_type_differ(tmp_path: Path) -> None:
    launch = module(tmp_path / "source").launch
    keys = {key(job(launch, K=value)) for value in (1, 1.0, True)}
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
    assert None not in (key(job()), key(job(**other)))
    assert key(job(**other)) != key(job())


def test_the_optimum_of_a_profile_decides_no_code() -> None:
    """The job does not have it, so neither a backend nor its key can depend on it."""
    other = job(batch=Range(1, 16, 64))
    assert other == job() and key(other) == key(job())


def test_what_errors_call_a_job_is_not_in_the_key() -> None:
    assert key(replace(job(), what="other::op, tactic 7")) == key(job()) is not None


def test_a_toolchain_that_does_not_start_fails_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It raises whatever its program raises; compiling then says what is wrong."""

    def broken(self: Any) -> Any:
        raise subprocess.CalledProcessError(1, ["tileiras", "--version"])

    monkeypatch.setattr(triton_compiler.TritonBackend, "toolchain", broken)
    toolchain = job().toolchain
    assert toolchain.compiler is None and "tileiras" in str(toolchain.versions)


def test_another_toolchain_compiles_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(job())
    monkeypatch.setattr(triton_compiler, "triton_version", "99.0")
    assert key(job()) not in (None, before)
    before = key(job())
    monkeypatch.setenv("DISABLE_PTXAS_OPT", "1")
    assert key(job()) not in (None, before)


def test_another_code_generation_compiles_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = key(job())
    monkeypatch.setattr(job_module, "CODE_GENERATION", 0)
    assert key(job()) not in (None, before)


def test_the_keys_of_several_jobs_are_those_of_each() -> None:
    jobs = [job(), job(BLOCK=512), job(), job(launch_add_to_itself)]
    keys = keys_of(jobs)
    assert keys == [key(one) for one in jobs]
    assert len(set(keys)) == 3


def launch_add_to_itself(x: Any, out: Any) -> None:
    launch_add(x, x, out)


def test_a_kernel_that_another_process_cannot_tell_is_compiled_and_not_kept(
    fresh_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A log message names what is in the way."""
    launch = module(tmp_path / "source").launch
    unknown = job(launch, K=object())
    assert key(unknown) is None
    caplog.clear()
    compile_one(unknown)
    assert caplog.messages == [
        "test::op, tactic 1 is not cached: it refers to a builtins.object, which "
        "another process cannot tell from others."
    ]
    assert files(fresh_cache) == []


def test_a_compilers_failure_is_not_kept(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **keywords: Any) -> Any:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(triton_compiler, "triton_compile", fail)
        (outcome,) = compile_all([job()], "test")
    assert "no memory" in str(outcome)
    assert files(fresh_cache) == []
    compile_one(job())


def test_a_kernel_compiled_alone_has_a_time_limit(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setenv("TTA_COMPILE_TIMEOUT", "0.5")
    with monkeypatch.context() as patch:
        patch.setattr(triton_compiler, "triton_compile", lambda *a, **k: time.sleep(60))
        (outcome,) = compile_all([job()], "test")
    assert "test::op, tactic 1: not done within 0.5 seconds" in str(outcome)
    assert files(fresh_cache) == []


def test_a_refusal_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def dry_run() -> list[str | None]:
        configs = [{"BM": 128, "BN": 128, "BK": 64, "num_stages": n} for n in (1, 9)]
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
    assert "bytes of shared memory" in str(cold[1])
    with no_compiler(monkeypatch):
        assert dry_run() == cold


def test_jobs_that_are_the_same_are_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(Job, "run", lambda job: calls.append(job) or None)
    monkeypatch.setattr(KernelCache, "store", lambda *args: None)
    compile_all([job(), job(), job(BLOCK=512)], "test")
    assert len(calls) == 2


def test_kernels_compiled_in_parallel_are_those_compiled_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [job(), job(BLOCK=512), job(batch=8)]
    monkeypatch.setenv("TTA_JOBS", "2")
    assert compile_all(jobs, "test") == [one.run() for one in jobs]
