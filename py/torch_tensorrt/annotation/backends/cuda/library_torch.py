# SPDX-License-Identifier: BSD-3-Clause

"""``torch.cuda._compile_kernel``, while a function is recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.cuda._utils as torch_utils

from ..._record.recording import refuse
from ...errors import ArgumentError
from .kernel import Code
from .launch import is_catching
from .library import Kernel, Swap, attribute, forget, refuse_compiled


class _TorchKernel(Kernel):
    """What ``torch.cuda._compile_kernel`` returns."""

    library = "torch"

    def __call__(
        self,
        grid: Any = (1, 1, 1),
        block: Any = (1, 1, 1),
        args: Sequence[Any] | None = None,
        shared_mem: Any = 0,
        stream: Any = None,
    ) -> None:
        if not self._launch(grid, block, args, shared_mem):
            self._original(grid, block, args, shared_mem, stream)

    def set_shared_memory_config(self, shared_mem_bytes: int) -> None:
        """An engine gets as much as a launch asks for."""
        if not is_catching():
            self._original.set_shared_memory_config(shared_mem_bytes)


def swaps() -> Iterator[Swap]:
    """What is replaced of torch."""
    kernels = torch_utils._CudaKernel
    forget(kernels)
    for name in ("_compile_kernel", "compile_kernel"):
        if (original := getattr(torch.cuda, name, None)) is not None:
            yield attribute(torch.cuda, name, _compiling(original))
    call = kernels.__call__

    def again(kernel: Any, *args: Any, **keywords: Any) -> Any:
        if is_catching():
            refuse_compiled("of torch.cuda._compile_kernel", "torch")
        return call(kernel, *args, **keywords)

    yield attribute(kernels, "__call__", again)


def _compiling(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def compile_kernel(*args: Any, **keywords: Any) -> Any:
        if not is_catching():
            return original(*args, **keywords)
        bound = signature.bind(*args, **keywords)
        bound.apply_defaults()
        given = dict(bound.arguments)
        text, name = given.pop("kernel_source"), given.pop("kernel_name")
        options = [*(given.pop("nvcc_options") or ()), *_flags()]
        if (architecture := given.pop("compute_capability")) is not None:
            options.append(f"-arch=sm_{architecture}")
        code = Code.of(text, name, options, given.pop("cuda_include_dirs") or ())
        if others := [key for key, value in given.items() if value]:
            why = f"compiled with {', '.join(others)}, which is not known here"
            refuse(ArgumentError(f"kernel {name}: {why}. Put it into the source."))
        return _TorchKernel(code, lambda: original(*args, **keywords))

    return compile_kernel


def _flags() -> list[str]:
    """What torch adds to the options that a kernel is given."""
    names = ("_get_gpu_rtc_compatible_flags", "_get_nvrtc_compatible_flags")
    functions = (getattr(torch_utils, name, None) for name in names)
    return list(next(known for known in functions if known)())
