# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL's kernels in the cache."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cache_checks import assert_compiled_once

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

from cutedsl_kernels import CUTEDSL_CASES, launch_silu
from cutedsl_tools import ROWS, SM_90, launch_copy, recorded
from kernels import info

from torch_tensorrt.annotation._code.kernel import Kernel
from torch_tensorrt.annotation._compile.job import Job, compile_all, keys_of

pytestmark = pytest.mark.usefixtures("fresh_cache")


def job(launch_fn: Callable[..., Any] = launch_silu, **keywords: Any) -> Job:
    program = recorded(launch_fn, info(ROWS, 32), **keywords)
    return Job("test::op", "cutedsl", program, SM_90, {}, True)


def key(launch_fn: Callable[..., Any] = launch_silu, **keywords: Any) -> str:
    """Of a kernel that another process can tell from others."""
    (found,) = keys_of([job(launch_fn, **keywords)])
    assert found is not None
    return found


def test_a_kernel_is_compiled_once_and_then_comes_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_compiled_once(job, monkeypatch)


def test_compiling_does_not_change_the_key() -> None:
    before = key(launch_copy)
    compile_all([job(launch_copy)], "test")
    assert key(launch_copy) == before


def test_kernels_compiled_in_parallel_are_those_compiled_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [job(BLOCK=64), job(BLOCK=128), job(launch_copy)]
    monkeypatch.setenv("TTA_JOBS", "2")
    outcomes = compile_all(jobs, "test")
    for outcome, alone in zip(outcomes, [j.run() for j in jobs], strict=True):
        assert isinstance(outcome, Kernel)
        assert isinstance(alone, Kernel)
        assert outcome.digest == alone.digest


def test_what_decides_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {key(), key(BLOCK=64), key(launch_copy)}
    monkeypatch.setenv("CUTE_DSL_LINEINFO", "1")
    assert len({key()} | keys) == 4


def test_the_text_of_a_kernel_and_its_helpers_is_in_the_key(tmp_path: Path) -> None:
    text = """
        import cutlass
        import cutlass.cute as cute

        def helper(value):
            return value * {factor}

        @cute.kernel
        def kernel(x: cute.Tensor, out: cute.Tensor):
            thread, _, _ = cute.arch.thread_idx()
            out[thread] = helper(x[thread])

        @cute.jit
        def launch(x: cute.Tensor, out: cute.Tensor):
            kernel(x, out).launch(grid=(1, 1, 1), block=(32, 1, 1))
        """
    keys = []
    for number, factor in enumerate((2, 2, 3)):
        path = tmp_path / str(number) / "cute_kernels.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text).format(factor=factor))
        spec = importlib.util.spec_from_file_location("cute_kernels", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(key(module.launch))
    assert keys[0] == keys[1] != keys[2]


def all_keys() -> list[str | None]:
    """Of each launcher in the styles people write them; test_processes asks."""
    jobs = []
    for case in CUTEDSL_CASES:
        keywords = case.kernel.launch_keywords(case.kernel.configs[0])
        launch_fn = case.kernel.launch_fn
        program = recorded(launch_fn, *case.dynamic, meta=case.meta, **keywords)
        jobs.append(Job("test::op", "cutedsl", program, SM_90, {}, True))
    return keys_of(jobs)
