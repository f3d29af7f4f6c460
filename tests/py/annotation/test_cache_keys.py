"""The kernel cache: what it takes for the same kernel, and what it does not keep."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_tools import (
    compile_one,
    files,
    job,
    module,
    no_compiler,
)  # fmt: skip
from kernels import BLOCKS, launch_add, launch_matmul
from test_encoding import EXPRESSIONS

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _job
from torch_tensorrt.annotation._cache import KernelCache
from torch_tensorrt.annotation._compile.job import compile_all
from torch_tensorrt.annotation._encoding import encode
from torch_tensorrt.annotation._fingerprint import stable_fingerprint
from torch_tensorrt.annotation._job import Job
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation.backends import triton as triton_backend


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
        from test_cache_keys import encoded, job
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


def test_a_kernel_compiled_alone_has_a_time_limit(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_COMPILE_TIMEOUT", "0.5")
    with monkeypatch.context() as patch:
        patch.setattr(triton_backend, "triton_compile", lambda *a, **k: time.sleep(60))
        (outcome,) = compile_all([job()], "test")
    assert "test::op, tactic 1: not compiled within 0.5 seconds" in str(outcome)
    assert files(cache_folder) == []


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
