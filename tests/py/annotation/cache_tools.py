# SPDX-License-Identifier: BSD-3-Clause

"""Kernels to cache, and what the tests of the cache do with them."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from kernels import BATCH, launch_silu

from torch_tensorrt.annotation._code.kernel import Kernel, Outcome
from torch_tensorrt.annotation._compile import job as job_module
from torch_tensorrt.annotation._compile.cache import KernelCache, kernel_cache
from torch_tensorrt.annotation._compile.job import Job, compile_all, keys_of
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.backends.triton.compiler import TritonBackend

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
            if K is None:
                x = -x
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
    program = record(
        backend("triton"),
        lambda x, out: launch(x, out, **config),
        torch.empty_like,
        [TensorInfo((batch, 512), dtype)],
    )
    what = "test::op, tactic 1"
    return Job(what, "triton", program, Target.parse(target), options or {}, aligned)


def key(job: Job) -> str | None:
    (found,) = keys_of([job])
    return found


def load(cache: KernelCache, job: Job) -> Outcome | None:
    return cache.load(key(job), job.toolchain.compiler)


def store(cache: KernelCache, job: Job, outcome: Outcome) -> None:
    cache.store(key(job), job.toolchain.compiler, outcome, {})


@contextmanager
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, whatever compiles or starts a process fails the test."""

    def refuse(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("a compiler was started")

    with monkeypatch.context() as patch:
        patch.setattr(TritonBackend, "compile", refuse)
        patch.setattr(job_module, "settle", refuse)
        patch.setattr(subprocess, "Popen", refuse)
        patch.setattr(os, "fork", refuse)
        forget()
        yield


def forget() -> None:
    """What this process remembers is forgotten; what is on disk stays."""
    kernel_cache.cache_clear()


def compile_one(job: Job) -> Kernel:
    (outcome,) = compile_all([job], "test")
    assert isinstance(outcome, Kernel), outcome
    return outcome


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("v*/*.json"))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def started(function: Callable[[], Any]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process
