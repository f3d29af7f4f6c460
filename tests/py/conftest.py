# SPDX-License-Identifier: BSD-3-Clause

"""Fixtures for all tests.

Compiling kernels takes most of the time, so the tests of one run share a kernel cache,
which is empty when the run starts. A test about caching takes ``fresh_cache``.

``TTA_TEST_ARCHITECTURES=all`` (``make test-all``) compiles for every architecture,
tries five times as many random examples, runs tests that are marked ``slow``, and every
test of the files in ``SAMPLED``, of which other runs take a third. A machine with a GPU
runs all of them always, and with ``TTA_TEST_SAMPLED=no`` no file is sampled.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest
import torch

# What tests of several directories use: kernels, models, the recording network.
TESTS = Path(__file__).parent
FOLDERS = {str(path.parent) for path in TESTS.rglob("test_*.py")} - {str(TESTS)}
sys.path[:0] = sorted(FOLDERS)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Spare a worker's garbage collector the libraries' objects, half a million:
    # Torch-TensorRT collects after each model, and a recording looks for tables among
    # all objects. The tables that tests are about are of modules imported later.
    for library in ("torch_tensorrt", "triton", "cutlass.cute", "cuda.tile"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.freeze()

IS_THOROUGH = os.environ.get("TTA_TEST_ARCHITECTURES") == "all"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120") if IS_THOROUGH else ("sm_90",)

# The same examples in every run, however long one takes.
hypothesis.settings.register_profile(
    "tests",
    max_examples=250 if IS_THOROUGH else 50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


# Their tests compile many kernels, or take models through export and partitioning.
SAMPLED = {
    *("test_up_to_the_builder", "test_programs_in_models", "test_explain"),
    *("test_tensor_descriptors", "test_taken_apart_values", "test_dry_run_steps"),
    *("test_hardware", "test_triton_wrappers", "test_launch_abi", "test_features"),
    *("test_cutile_launch_abi", "test_cutedsl_launch_abi", "test_compiled_elsewhere"),
    *("test_cutile_tune", "test_cutile_tma", "test_cutedsl_compiled"),
    *("test_cutedsl_tensor_maps", "test_cutedsl_branches", "test_engine_cache"),
}


def pytest_configure(config: pytest.Config) -> None:
    slow = "slow: runs with TTA_TEST_ARCHITECTURES=all, and on a GPU"
    config.addinivalue_line("markers", slow)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    if IS_THOROUGH or torch.cuda.is_available():
        return
    is_sampled = os.environ.get("TTA_TEST_SAMPLED") != "no"
    skip = pytest.mark.skip(reason="it takes long: make test-all runs it")
    for index, item in enumerate(items):
        is_left_out = is_sampled and item.path.stem in SAMPLED and index % 3 > 0
        if is_left_out or item.get_closest_marker("slow") is not None:
            item.add_marker(skip)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """What to compile for, where a test holds for every architecture."""
    result: str = request.param
    return result


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One kernel cache for all workers of the run; kernels compile in the worker.

    A process for each of so many small kernels would take longer than compiling them.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTA_CACHE_DIR", str(folder / "kernel-cache"))
        # Triton's own names files of whichever checkout compiled a kernel first.
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton-cache"))
        patch.setenv("TTA_JOBS", "1")
        yield


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache of the test's own, empty at first."""
    folder = tmp_path / "fresh-cache"
    monkeypatch.setenv("TTA_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def unregister() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    plugins = sys.modules.get("torch_tensorrt.annotation._plugin")
    while plugins and plugins.registered:
        _, op = plugins.registered.popitem()
        op.undo()


class RunPython(Protocol):
    """See :func:`run_python`."""

    def __call__(
        self,
        program: str | Sequence[str | Path],
        *,
        env: Mapping[str, str] = ...,
        cwd: Path | None = ...,
        fails: bool = ...,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Runs Python in another process, and waits for it.

    Importing torch_tensorrt takes some five seconds, so checks share a process where
    they can.
    """
    return _run_python


def _run_python(
    program: str | Sequence[str | Path],
    *,
    env: Mapping[str, str] = {},
    cwd: Path | None = None,
    fails: bool = False,
) -> subprocess.CompletedProcess[str]:
    """The finished process, which must have succeeded unless ``fails``.

    Args:
        program: code, which may be indented, or the interpreter's arguments.
        env: variables to add to the environment.
    """
    is_code = isinstance(program, str)
    arguments = ["-c", textwrap.dedent(program)] if is_code else map(str, program)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        cwd=cwd,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done
