"""What is installed here, and what works with it."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch

from torch_tensorrt.annotation._cache import cache_folder
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._workers import worker_count
from torch_tensorrt.annotation.backends import NAMES, backend
from torch_tensorrt.annotation.errors import TargetError

_DISTRIBUTIONS = (
    *("torch", "torch-tensorrt", "torch-tensorrt-annotation", "tensorrt"),
    *("triton", "cuda-tile", "nvidia-cutlass-dsl", "cuda-bindings", "sympy"),
)
_BUILDER = "tensorrt_libs"


def describe() -> Iterator[tuple[str, str]]:
    """What there is to say: (name, value) pairs."""
    yield "python", platform.python_version()
    for name in _DISTRIBUTIONS:
        yield name, _version(name)
    yield "GPU", _gpu()
    yield "target", _target()
    yield "kernel cache", str(cache_folder())
    yield "compiling processes", str(worker_count() or "none but this one")
    for name in NAMES:
        yield f"compiles {name}", _works(partial(_compiler, name))
    yield "runs kernels", _works(_driver)
    yield "builds engines", _works(_builder)


def _version(name: str) -> str:
    for candidate in (name, f"{name}-cu13", f"{name}-cu12"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    module = sys.modules.get(name.replace("-", "_"))
    return getattr(module, "__version__", "not installed")


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that torch sees"
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, sm_{major}{minor}"


def _target() -> str:
    try:
        target = current_target()
    except TargetError as error:
        return str(error)
    return f"{target.arch}, PTX ISA {target.ptx_isa or 'of the toolchain'}"


def _works(try_: Callable[[], str]) -> str:
    try:
        return f"yes{try_()}"
    except Exception as error:  # whatever is missing, that it is missing is the answer
        return f"no: {' '.join(str(error).split())}"


def _compiler(name: str) -> str:
    toolchain = backend(name).toolchain()
    if toolchain.compiler is None:
        raise RuntimeError("its compiler is not installed; the cache serves")
    return f", {' '.join(toolchain.versions[0])} {toolchain.compiler}".rstrip()


def _driver() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("there is no GPU")
    importlib.import_module("cuda.bindings.driver")
    return ""


def _builder() -> str:
    if _BUILDER not in importlib.metadata.packages_distributions():
        raise RuntimeError("TensorRT's builder is not installed")
    return ""
