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

from torch_tensorrt.annotation import _job
from torch_tensorrt.annotation._cache import kernel_cache
from torch_tensorrt.annotation._compile.job import compile_all
from torch_tensorrt.annotation._job import Assembled, Job
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends.triton import TritonBackend

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


def started(function: Callable[[], Any]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process
