# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL: what a user hands over. The rest of the folder imports CuTe DSL itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._specs import Config, KernelSpec
from ..._target import Target
from ...errors import raised_here

# What CuTe DSL makes of a launcher, or a class derived from it.
_COMPILED = {"JitCompiledFunction", "JitExecutor"}


@dataclass(frozen=True, eq=False)
class CuTeDSLSpec(KernelSpec):
    """A CuTe DSL kernel. Config keys are keywords of the launch function, or
    ``Constexpr`` parameters of a ``@cute.jit`` one.

    Attributes:
        arch: compile for this variant of the GPU, as in ``"sm_90a"``; None leaves out
            what the kernel does not need.

    Raises:
        SpecError: a field is wrong, as in any spec.
        TargetError: ``arch`` is not an architecture.
    """

    backend: ClassVar[str] = "cutedsl"
    packages: ClassVar[tuple[str, ...]] = ("cutlass",)
    call: ClassVar[str] = "{}(x, out).launch(grid=..., block=...)"

    arch: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arch is not None:
            Target(self.arch)  # which says what is wrong with it

    @staticmethod
    def object_parts(value: Any) -> tuple[Any, ...] | None:
        """Nothing for a launcher that CuTe DSL compiled: its source stands for it."""
        is_compiled = any(cls.__name__ in _COMPILED for cls in type(value).__mro__)
        return () if is_compiled else None

    @classmethod
    def is_kernel(cls, function: Callable[..., Any]) -> bool:
        """Whether ``@cute.kernel`` decorates it; what it makes is a plain function."""
        is_decorated = getattr(function, "_decorator_kind", None) == "kernel"
        return is_decorated or super().is_kernel(function)

    def compiler_options(self, config: Config) -> dict[str, Any]:
        """``arch``, for every config."""
        return {} if self.arch is None else {"arch": self.arch}


@raised_here
def cutedsl(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    arch: str | None = None,
    **keywords: Any,
) -> CuTeDSLSpec:
    """A kernel that ``launch_fn`` launches with CuTe DSL.

    Args:
        launch_fn: a ``@cute.jit`` function of ``cute.Tensor`` inputs, weights and
            outputs, or an object with such a ``__call__``; or a Python function of
            torch tensors that calls one, or what ``cute.compile`` makes of it, on what
            ``from_dlpack`` makes of them. None: the op's own body does.
        configs: one dict for each tactic that TensorRT times, of keywords for
            ``launch_fn``: the ``Constexpr`` parameters of a ``@cute.jit`` function.
        input_formats, output_formats: tensor formats, as in :func:`triton`.
        arch: variant of the architecture to compile for, as ``"sm_90a"``.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is not a dict, or names something unknown.

    Example::

        @cute.jit
        def launch(x: cute.Tensor, out: cute.Tensor, THREADS: cutlass.Constexpr = 256):
            blocks = cute.ceil_div(cute.size(x), THREADS)
            kernel(x, out).launch(grid=(blocks, 1, 1), block=(THREADS, 1, 1))

        tta.cutedsl(launch, configs=[{"THREADS": 128}, {"THREADS": 256}])
    """
    formats = input_formats, output_formats
    return CuTeDSLSpec.of(launch_fn, configs, *formats, keywords, arch=arch)
