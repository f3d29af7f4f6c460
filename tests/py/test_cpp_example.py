# SPDX-License-Identifier: BSD-3-Clause

"""The C++ example, as far as it goes without an engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cpp_runner
import pytest
import tensorrt as trt


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp_runner.build(tmp_path_factory.mktemp("cpp"))


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_it_needs_neither_python_nor_torch(program: Path) -> None:
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    libraries = {line.split()[0] for line in done.stdout.splitlines()}
    assert any(name.startswith("libnvinfer") for name in libraries)
    assert not any("python" in name or "torch" in name for name in libraries)


def test_without_arguments_it_says_how_it_is_used(program: Path) -> None:
    done = run(program)
    assert done.returncode == 1
    assert done.stderr == "usage: run_engine ENGINE [NAME:SHAPE] [NAME=FILE] ...\n"


def test_an_engine_that_cannot_be_read_is_named(program: Path) -> None:
    done = run(program, "no/such.engine")
    assert done.returncode == 1
    assert done.stderr == "no/such.engine: cannot be read\n"


def test_an_argument_of_neither_form_is_named(program: Path) -> None:
    done = run(program, "no/such.engine", "x")
    assert done.stderr == "x: neither NAME:SHAPE nor NAME=FILE\n"


def test_a_library_of_another_major_version_is_named(program: Path) -> None:
    headers, library = cpp_runner.headers_version()[0], trt.__version__.split(".")[0]
    if headers == int(library):
        pytest.skip("the headers are of this major version")
    done = run(program, __file__)
    assert done.returncode == 1
    expected = f"compiled for TensorRT {headers}, and the library is of {library}\n"
    assert done.stderr == expected
