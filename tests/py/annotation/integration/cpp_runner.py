# SPDX-License-Identifier: BSD-3-Clause

"""Builds ``examples/cpp`` with what is found here of CUDA and TensorRT."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[4] / "examples/cpp"
MULTIARCH = "x86_64-linux-gnu"


def build(directory: Path) -> Path:
    """The program, compiled without a warning; skips where something is missing."""
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("there is no cmake, or no g++")
    toolkit, runtime = cuda()
    options = {
        "CUDAToolkit_ROOT": toolkit,
        "CUDA_CUDART": runtime,
        "TENSORRT_INCLUDE_DIR": found(headers(), "TensorRT's headers").parent,
        "TENSORRT_LIBRARY": found(libraries(), "TensorRT's library"),
        "CMAKE_CXX_FLAGS": "-Wpedantic -Werror",
    }
    defined = [f"-D{name}={value}" for name, value in options.items()]
    run(["cmake", "-S", str(SOURCE), "-B", str(directory), *defined])
    run(["cmake", "--build", str(directory)])
    return directory / "run_engine"


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def found(candidates: Iterator[Path], what: str) -> Path:
    for path in candidates:
        if path.exists():
            return path
    pytest.skip(f"{what} are not here; TENSORRT_ROOT says where they are")


def roots() -> list[Path]:
    named = os.environ.get("TENSORRT_ROOT")
    return [Path(named)] if named else [Path("/usr/local/tensorrt"), Path("/usr")]


def mismatch() -> str:
    """How the headers differ from the TensorRT that builds engines; empty if not.

    An engine runs only in the version that built it.
    """
    import tensorrt

    here = tensorrt.__version__.rsplit(".", 2)[0]
    of = "{}.{}".format(*headers_version())
    if of == here:
        return ""
    return (
        f"the headers are TensorRT {of}'s, and engines are built by {here}; "
        "TENSORRT_ROOT says where its own headers are"
    )


def headers_version() -> tuple[int, int]:
    """Major and minor version of TensorRT that the headers are of."""
    path = found(headers(), "TensorRT's headers").with_name("NvInferVersion.h")
    text = path.read_text()
    # From 10.13 on, TRT_MAJOR_ENTERPRISE has what NV_TENSORRT_MAJOR stands for.
    numbers = dict(re.findall(r"#define (?:NV_TENSORRT|TRT)_(\w+) (\d+)", text))
    major, minor = (
        int(numbers.get(f"{name}_ENTERPRISE") or numbers[name])
        for name in ("MAJOR", "MINOR")
    )
    return major, minor


def packaged(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    yield from map(Path, spec.submodule_search_locations or () if spec else ())


def headers() -> Iterator[Path]:
    for root in roots():
        yield root / "include/NvInferRuntime.h"
        yield root / "include" / MULTIARCH / "NvInferRuntime.h"
    for package in packaged("kernel_lens"):
        yield package / "include/tensorrt/NvInferRuntime.h"


def libraries() -> Iterator[Path]:
    for root in roots():
        yield root / "lib/libnvinfer.so"
        yield root / "lib" / MULTIARCH / "libnvinfer.so"
    # Has the runtime, which is what the program needs of the library.
    for package in packaged("tensorrt_lean_libs"):
        yield from sorted(package.glob("libnvinfer_lean.so.*"))
    for package in packaged("tensorrt_libs"):  # pip's
        yield from sorted(package.glob("libnvinfer.so.*"))


def cuda() -> tuple[Path, Path]:
    """A CUDA toolkit, and its runtime library, which pip's has by its version only."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    candidates = [Path(home) for home in homes if home]
    candidates += [package / "cu13" for package in packaged("nvidia")]
    candidates += [Path(nvcc).resolve().parents[1]] if nvcc else []
    for home in candidates:
        for runtime in sorted(home.glob("lib*/libcudart.so*")):
            static = runtime.parent / "libcudart_static.a"
            if static.exists() and (home / "bin/nvcc").exists():
                return home, runtime
    pytest.skip("there is no CUDA toolkit; CUDA_HOME says where it is")
