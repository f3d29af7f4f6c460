"""CuTe DSL kernels: launchers caught at their call, compiled for any GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any

import sympy
import torch
from cuda.bindings.driver import CUstream
from cutlass.cute.runtime import from_dlpack

from torch_tensorrt.annotation._launch import Launch, LaunchRecord
from torch_tensorrt.annotation._ptxas import find_ptxas, ptxas_versions
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import CompiledKernel, Toolchain
from torch_tensorrt.annotation.backends._cutedsl_arguments import ALIGNMENT
from torch_tensorrt.annotation.backends._cutedsl_compile import compile_launcher
from torch_tensorrt.annotation.backends._cutedsl_entry import (
    keep_entry,
    require_no_tensor_maps,
    rewrite,
)
from torch_tensorrt.annotation.backends._cutedsl_host import execute
from torch_tensorrt.annotation.backends._cutedsl_intercept import intercepting
from torch_tensorrt.annotation.backends._cutedsl_launch import is_launcher
from torch_tensorrt.annotation.backends._cutedsl_memory import (
    Address,
    HostLaunch,
    Value,
)
from torch_tensorrt.annotation.backends._cutedsl_values import (
    Comparison,
    Unknown,
    show,
)
from torch_tensorrt.annotation.errors import UnsupportedKernelError

_SETTINGS = "CUTE_DSL_"  # how its environment variables begin
_compiling = threading.RLock()  # CuTe DSL's compiler is not thread-safe
_CLUSTER, _COOPERATIVE, _DEPENDENT = 4, 2, 6  # cudaLaunchAttributeID
_MOST_THREADS = 1024  # "Technical Specifications", CUDA C++ programming guide
# Found in 4.8.1: in a block of 1024, i = block_idx * block_dim + thread_idx was taken
# for less than any extent, so that i % rows and i // rows became i and 0.
_MOST_ALONG = (1024, 1024, 64)


class CuTeDSLBackend:
    """Records calls of ``@cute.jit`` launchers; compiles with ``cute.compile``."""

    def toolchain(self) -> Toolchain:
        """CuTe DSL's version and settings, and the assemblers to choose from."""
        settings = sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith(_SETTINGS)
        )
        version = metadata.version("nvidia-cutlass-dsl")
        versions = (("nvidia-cutlass-dsl", version), *settings)
        return Toolchain(versions, compiler=ptxas_versions())

    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[None]:
        """Report the launches of this thread; other threads launch as ever."""
        return intercepting(on_launch, overrides or {})

    def run(
        self,
        launch_fn: Callable[..., Any],
        tensors: Sequence[torch.Tensor | None],
        keywords: Mapping[str, Any],
    ) -> None:
        """Call a launch function on a GPU, with the op's inputs and outputs.

        A launcher gets CuTe tensors of static layout, as it does for static shapes in
        an engine.
        """
        if not is_launcher(launch_fn):
            launch_fn(*tensors, **keywords)
            return
        if "stream" in keywords:
            keywords = {**keywords, "stream": CUstream(keywords["stream"])}
        launch_fn(*map(_cute_tensor, tensors), **keywords)

    def compile(
        self,
        record: LaunchRecord,
        target: Target,
        options: Mapping[str, Any],
        aligned: bool,
        fact_set: str = "",
    ) -> CompiledKernel:
        del fact_set  # there is one: all that is proved
        ptxas = find_ptxas()
        with _compiling:
            compiled = compile_launcher(record, target, ptxas, options, aligned)
            require_no_tensor_maps(compiled.code, record.name)
            launches = execute(
                compiled.module,
                compiled.function,
                compiled.arguments,
                record.ranges,
                record.name,
            )
        launch = _only(launches, record.name)
        _require_plain(launch, record.name)
        rewritten = rewrite(
            keep_entry(compiled.code, launch.kernel),
            launch.parameters,
            compiled.tensors,
            record.ranges,
            record.name,
        )
        x, y, z = (_known(size, "the grid", record.name) for size in launch.grid)
        return CompiledKernel(
            code=rewritten.code,
            slots=rewritten.slots,
            extras=rewritten.extras,
            grid=(x, y, z),
            block=_block(launch, record.name),
            shared_memory=_shared_memory(launch, record.name, target),
            ptxas=ptxas.path,
            facts=compiled.facts,
        )


def _cute_tensor(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    is_aligned = tensor.data_ptr() % ALIGNMENT == 0
    return from_dlpack(tensor, ALIGNMENT if is_aligned else None)


def _only(launches: Sequence[HostLaunch], name: str) -> HostLaunch:
    if len(launches) == 1:
        return launches[0]
    if not launches:
        raise UnsupportedKernelError(
            f"launcher {name}: it launches nothing for the shapes of this profile. "
            "CuTe DSL's launchers do so where a kernel asks for more shared memory "
            "than the GPU has."
        )
    raise UnsupportedKernelError(
        f"launcher {name}: it launches {len(launches)} kernels. A plugin is one "
        "launch: register an op for each kernel, or fuse them."
    )


def _require_plain(launch: HostLaunch, name: str) -> None:
    """Raise for whatever TensorRT's launch (grid, block, shared memory) leaves out."""
    for key, words in launch.attributes.items():
        first = words[0]
        if key == _CLUSTER:
            if any(word != 1 for word in words):
                raise UnsupportedKernelError(
                    f"kernel {name}: it is launched in clusters, which TensorRT does "
                    "not do. Launch it without, or with a cluster of (1, 1, 1)."
                )
        elif first != 0:
            what = {_COOPERATIVE: "cooperative", _DEPENDENT: "programmatic dependent"}
            raise UnsupportedKernelError(
                f"kernel {name}: it is a {what.get(key, f'special ({key})')} launch, "
                "which TensorRT does not do. Launch it without."
            )


def _known(value: Value, what: str, name: str) -> sympy.Expr:
    if isinstance(value, Unknown | Comparison | Address):
        shown = "an address" if isinstance(value, Address) else show(value)
        raise UnsupportedKernelError(
            f"kernel {name}: {what} is {shown}. TensorRT computes sums, products, "
            "quotients, max and min of extents; launch with those."
        )
    return value


def _constant(value: Value, what: str, name: str) -> int:
    known = _known(value, what, name)
    if not known.is_Integer:
        raise UnsupportedKernelError(
            f"kernel {name}: {what} follows the shape ({known}). It is compiled in: "
            "launch with a constant, or make the dimension static."
        )
    return int(known)


def _block(launch: HostLaunch, name: str) -> tuple[int, int, int]:
    x, y, z = (_constant(size, "the block", name) for size in launch.block)
    if x * y * z > _MOST_THREADS:
        raise UnsupportedKernelError(
            f"kernel {name}: blocks of {x}x{y}x{z} threads; CUDA launches "
            f"{_MOST_THREADS} at most."
        )
    for axis, size, most in zip("xyz", (x, y, z), _MOST_ALONG, strict=True):
        if size == most:
            raise UnsupportedKernelError(
                f"kernel {name}: its blocks have {size} threads along {axis}, the most "
                "there can be. CuTe DSL takes block_dim() for less than that, and "
                f"compiles what is computed from it wrongly: launch {size // 2}."
            )
    return x, y, z


def _shared_memory(launch: HostLaunch, name: str, target: Target) -> int:
    size = _constant(launch.shared_memory, "its dynamic shared memory", name)
    if size > target.max_shared_memory:
        raise UnsupportedKernelError(
            f"kernel {name}: it asks for {size} bytes of dynamic shared memory; the "
            f"limit is {target.max_shared_memory}. Take smaller tiles or fewer stages, "
            "or raise Target.max_shared_memory."
        )
    return size
