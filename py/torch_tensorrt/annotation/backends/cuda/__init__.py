# SPDX-License-Identifier: BSD-3-Clause

"""CUDA C++, and PTX: what a user hands over. NVRTC is loaded when it compiles."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..._specs import KernelSpec
from ...errors import SpecError, raised_here
from .kernel import CUDAKernel as CUDAKernel


@dataclass(frozen=True, eq=False)
class CUDASpec(KernelSpec):
    """A kernel in CUDA C++ or PTX. Config keys ``maxnreg`` and ``min_blocks`` go to the
    assembler; every other key is a keyword of the launch function.
    """

    backend: ClassVar[str] = "cuda"
    packages: ClassVar[tuple[str, ...]] = ("cupy",)
    call: ClassVar[str] = "{}((blocks,), (threads,), (x, out, ...))"
    options: ClassVar[Mapping[str, type]] = {"maxnreg": int, "min_blocks": int}

    @staticmethod
    def object_parts(value: Any) -> tuple[Any, ...] | None:
        """A kernel, or a module, of CuPy's is its source and its options."""
        names = ("code", "file_path", "name", "name_expressions", "options", "backend")
        parts = tuple(getattr(value, name, None) for name in names)
        return parts if parts[0] or parts[1] else None

    @classmethod
    def is_kernel(cls, function: Callable[..., Any]) -> bool:
        """Whether ``function`` is a kernel, and not what launches one."""
        is_torchs = type(function).__name__ == "_CudaKernel"
        return (
            isinstance(function, CUDAKernel) or is_torchs or super().is_kernel(function)
        )


@raised_here
def cuda(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    **keywords: Any,
) -> CUDASpec:
    """A kernel in CUDA C++ that ``launch_fn`` launches.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it launches one kernel or more on the tensors it is given: a
            :class:`CUDAKernel`; what ``torch.cuda._compile_kernel`` returns; a
            ``RawKernel``, or a function of a ``RawModule``, of CuPy's; or a kernel of
            ``cuda.core`` with its ``launch``. None: the op is defined with
            ``torch.library.custom_op``, and its own body launches the kernel.
        configs: one dict for each tactic that TensorRT times. ``maxnreg`` (registers a
            thread at most) and ``min_blocks`` (blocks that a multiprocessor is to hold,
            as the second number of ``__launch_bounds__``) go to the assembler, other
            keys to ``launch_fn``, which makes them template arguments or macros. None:
            one config, the defaults.
        input_formats, output_formats: tensor formats, as in :func:`triton`.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is not a dict, or names something unknown.

    Example::

        scale = tta.CUDAKernel(source, "scale<{T}, {BLOCK}>")

        def launch(x, out, BLOCK=256):
            blocks = (x.numel() + BLOCK - 1) // BLOCK
            scale((blocks,), (BLOCK,), (x, out, x.numel()), T=x.dtype, BLOCK=BLOCK)

        tta.cuda(launch, configs=[{"BLOCK": 128}, {"BLOCK": 256, "maxnreg": 64}])
    """
    return CUDASpec.of(launch_fn, configs, input_formats, output_formats, keywords)


@raised_here
def ptx(
    text_or_path: str | Path,
    entry: str,
    launch: Callable[..., Any],
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    **keywords: Any,
) -> CUDASpec:
    """A kernel that is ready PTX, as ``nvcc -ptx`` and other compilers write it.

    Args:
        text_or_path: the PTX, or the path of a file with it.
        entry: the name of the kernel in it, as PTX has it.
        launch: ``launch(kernel, *tensors, **config_and_attributes)``, with inputs,
            weights and outputs as tensors; it calls ``kernel(grid, block, args,
            shared_mem=0)`` exactly once.
        configs, input_formats, output_formats: as in :func:`cuda`.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: as in :func:`cuda`; or there is no such file.

    Example::

        def launch(kernel, x, out):
            n = x.numel()
            kernel(((n + 255) // 256,), (256,), (x, out, n))

        tta.ptx("double.ptx", "double_kernel", launch)
    """
    if not callable(launch):
        raise SpecError(
            f"ptx: the launch function is {launch!r}, which cannot be called. Pass the "
            "Python function that launches the kernel: def launch(kernel, x, out)."
        )
    kernel = CUDAKernel(text_or_path, entry, is_ptx=True)
    function = _Launching(kernel, launch)
    return CUDASpec.of(function, configs, input_formats, output_formats, keywords)


class _Launching:
    """A launch function that is given its kernel first."""

    def __init__(self, kernel: CUDAKernel, function: Callable[..., Any]) -> None:
        self._kernel, self.__wrapped__ = kernel, function
        self.__name__ = getattr(function, "__name__", "launch")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        _, *others = inspect.signature(function).parameters.values() or (None,)
        self.__signature__ = inspect.Signature(others)

    def __call__(self, *tensors: Any, **keywords: Any) -> Any:
        return self.__wrapped__(self._kernel, *tensors, **keywords)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What decides what it does."""
        return self._kernel, self.__wrapped__
