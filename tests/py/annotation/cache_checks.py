# SPDX-License-Identifier: BSD-3-Clause

"""What every backend's kernels must do in the cache."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from torch_tensorrt.annotation._code.kernel import Kernel
from torch_tensorrt.annotation._compile.cache import kernel_cache
from torch_tensorrt.annotation._compile.job import Job, compile_all
from torch_tensorrt.annotation.backends import backend


def assert_compiled_once(
    job: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time it comes from the disk, without a compiler or a process."""
    (cold,) = compile_all([job()], "test")
    kernel_cache.cache_clear()

    def refuse(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("it is compiled again")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(type(backend(job().backend)), "compile", refuse)
    (warm,) = compile_all([job()], "test")
    assert isinstance(cold, Kernel)
    assert warm == cold
