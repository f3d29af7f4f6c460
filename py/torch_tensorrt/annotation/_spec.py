"""What a user hands over for one kernel language: a launch function and its configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_tensorrt.annotation._configs import (
    Config,
    as_configs,
    as_formats,
)
from torch_tensorrt.annotation._kernel_spec import KernelSpec
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.errors import SpecError


@dataclass(frozen=True, eq=False)
class TritonSpec(KernelSpec):
    """A Triton kernel. Config keys ``num_warps``, ``num_stages`` and ``maxnreg`` are
    Triton's own; every other key is a keyword of the launch function."""

    backend: ClassVar[str] = "triton"
    package: ClassVar[str] = "triton"
    call: ClassVar[str] = "{}[grid](x, out, ...)"
    option_names: ClassVar[frozenset[str]] = frozenset(
        {"num_warps", "num_stages", "maxnreg"}
    )


def triton(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    **keywords: Any,
) -> TritonSpec:
    """A kernel that ``launch_fn`` launches with Triton.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it launches exactly one ``@triton.jit`` kernel on the tensors it is given.
            None: the op is defined with ``torch.library.custom_op`` or ``triton_op``,
            and its own body launches the kernel.
        configs: one dict for each tactic that TensorRT is to time. ``num_warps``,
            ``num_stages`` and ``maxnreg`` go to Triton, other keys to ``launch_fn``
            (without one, they override keywords of the launch). None: the configs of
            ``@triton.autotune``, or one tactic with the defaults.
        input_formats, output_formats: names of ``trt.TensorFormat`` (``"CHW32"``), one
            for all tensors or one for each; None is LINEAR (row-major). A launch
            function gets a packed tensor as it lies in memory, ``[N][(C + 31) // 32]
            [H][W][32]`` of a CHW32 one, with its own extents as ``x.logical_shape``.
            What is in the padding is undefined.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is no dict, names something unknown, or is there twice.

    Example::

        tta.triton(launch, configs=[{"BLOCK": 256}, {"BLOCK": 1024, "num_warps": 8}])
    """
    return TritonSpec(
        launch_fn,
        as_configs(TritonSpec.backend, configs, keywords),
        as_formats(input_formats),
        as_formats(output_formats),
    )


@dataclass(frozen=True, eq=False)
class CuTileSpec(KernelSpec):
    """A cuTile kernel. Config keys ``num_ctas``, ``occupancy``, ``opt_level`` and
    ``num_worker_warps`` are those of ``ct.kernel``; every other key is a keyword of the
    launch function.

    Raises:
        SpecError: a field is wrong, as of any spec, or a fact set is unknown.
    """

    backend: ClassVar[str] = "cutile"
    package: ClassVar[str] = "cuda.tile"
    call: ClassVar[str] = "ct.launch(stream, grid, {}, (x, out, ...))"
    option_names: ClassVar[frozenset[str]] = frozenset(
        {"num_ctas", "occupancy", "opt_level", "num_worker_warps"}
    )
    known_fact_sets: ClassVar[tuple[str, ...]] = (
        "vector16",
        "async8",
        "strides",
        "tma",
    )

    fact_sets: tuple[str, ...] = known_fact_sets

    def __post_init__(self) -> None:
        super().__post_init__()
        known = set(self.fact_sets) <= set(self.known_fact_sets)
        distinct = len(set(self.fact_sets)) == len(self.fact_sets)
        if not (self.fact_sets and known and distinct):
            raise SpecError(
                f"cutile: fact_sets is {list(self.fact_sets)}; it must hold one or "
                f"more of {', '.join(self.known_fact_sets)}, each once."
            )


def cutile(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    fact_sets: Sequence[str] = CuTileSpec.known_fact_sets,
    **keywords: Any,
) -> CuTileSpec:
    """A kernel that ``launch_fn`` launches with cuTile.

    What the compiler is told of the arrays decides between code that differs by a
    factor of 20, and telling it more is not always better. So each config is tried with
    each of ``fact_sets``, all true for every shape of the profile:

    - ``"vector16"``: all that is known up to 16 bytes (constant extents and strides,
      divisibility, alignment), with TMA off, whose tensor maps PTX cannot pass;
    - ``"async8"``: the same up to 8 bytes, from which the compiler makes ``cp.async``;
    - ``"strides"``: constant strides alone;
    - ``"tma"``: as vector16, with TMA on, as a CUBIN; nothing unless such may go out,
      with ``Target(code="cubin")``.

    Sets that give the same code are one tactic.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it calls ``ct.launch`` exactly once, on the tensors it is given or views of
            them. None: the op is defined with ``torch.library.custom_op``, and its own
            body launches the kernel.
        configs: one dict for each kernel that TensorRT is to time, once for each fact
            set. ``num_ctas``, ``occupancy``, ``opt_level`` and ``num_worker_warps`` go
            to cuTile, other keys to ``launch_fn``. Left out: its defaults.
        input_formats, output_formats: tensor formats, as in :func:`triton`.
        fact_sets: those to try, and so how many variants there are at most.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is no dict, names something unknown, or is there twice; a
            fact set is not known.

    Example::

        def launch(x, out, TILE=1024):
            stream = torch.cuda.current_stream()
            n = x.numel()
            ct.launch(stream, (ct.cdiv(n, TILE),), kernel, (x.reshape(-1), out, TILE))

        tta.cutile(launch, configs=[{"TILE": 1024}, {"TILE": 4096, "occupancy": 2}])
    """
    if isinstance(fact_sets, str):
        fact_sets = (fact_sets,)
    return CuTileSpec(
        launch_fn,
        as_configs(CuTileSpec.backend, configs, keywords),
        as_formats(input_formats),
        as_formats(output_formats),
        tuple(fact_sets),
    )


@dataclass(frozen=True, eq=False)
class CuTeDSLSpec(KernelSpec):
    """A CuTe DSL kernel. Config keys are keywords of the launch function, or
    ``Constexpr`` parameters of a ``@cute.jit`` one.

    Attributes:
        arch: compile for this variant of the GPU, as in ``"sm_90a"``; None leaves out
            what the kernel does not need.
    """

    backend: ClassVar[str] = "cutedsl"
    package: ClassVar[str] = "cutlass"
    call: ClassVar[str] = "{}(x, out).launch(grid=..., block=...)"

    arch: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arch is not None:
            Target(self.arch)  # which says what is wrong with it

    def options(self, config: Config) -> dict[str, Any]:
        return {} if self.arch is None else {"arch": self.arch}

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self.arch)


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
        configs: one dict for each tactic that TensorRT is to time, of keywords for
            ``launch_fn``: the ``Constexpr`` parameters of a ``@cute.jit`` function.
        input_formats, output_formats: tensor formats, as in :func:`triton`.
        arch: variant of the architecture to compile for, as ``"sm_90a"``.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is no dict, names something unknown, or is there twice.

    Example::

        @cute.jit
        def launch(x: cute.Tensor, out: cute.Tensor, THREADS: cutlass.Constexpr = 256):
            blocks = cute.ceil_div(cute.size(x), THREADS)
            kernel(x, out).launch(grid=(blocks, 1, 1), block=(THREADS, 1, 1))

        tta.cutedsl(launch, configs=[{"THREADS": 128}, {"THREADS": 256}])
    """
    return CuTeDSLSpec(
        launch_fn,
        as_configs(CuTeDSLSpec.backend, configs, keywords),
        as_formats(input_formats),
        as_formats(output_formats),
        arch=arch,
    )
