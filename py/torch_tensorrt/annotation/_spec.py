"""What a user hands over for one kernel language: a launch function and its configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch_tensorrt.annotation._configs import (
    Config,
    Formats,
    as_configs,
    as_formats,
    is_configs,
)
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.errors import SpecError


class Fingerprinted:
    """Equal, and of equal hash in every process, where the fingerprints are."""

    def _identity(self) -> tuple[Any, ...]:
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of everything that decides what is compiled."""
        return fingerprint(type(self).__name__, *self._identity())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprinted):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return int(self.fingerprint[:15], 16)


@dataclass(frozen=True, eq=False)
class KernelSpec(Fingerprinted):
    """A launch function, and the configurations of it that are worth timing.

    Attributes:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it launches exactly one kernel. None: the op's own body.
        configs: each a tactic: sorted (name, value) pairs.
        input_formats, output_formats: names of TensorRT tensor formats, one for each
            tensor or one for all; None is LINEAR.
        fact_sets: which of what is known of the arguments the compiler is told; each
            is a tactic, where it changes the kernel.
        returns_outputs: ``launch_fn`` is an op's body: it takes the op's arguments by
            name, and allocates and returns its outputs. Config keys then override the
            keywords of its launch.
    """

    backend: ClassVar[str]
    package: ClassVar[str]  # of the toolchain: a kernel is an object of it
    call: ClassVar[str]  # how a kernel is launched, for messages
    option_names: ClassVar[frozenset[str]] = frozenset()

    launch_fn: Callable[..., Any] | None
    configs: tuple[Config, ...] = ((),)
    input_formats: Formats = None
    output_formats: Formats = None
    fact_sets: tuple[str, ...] = ("",)
    returns_outputs: bool = False

    def __post_init__(self) -> None:
        if self.launch_fn is not None:
            self._check_launch_fn(self.launch_fn)
        if not is_configs(self.configs):
            raise SpecError(
                f"{self.backend}: configs is {self.configs!r}; it must be a tuple, not "
                f"empty, of tuples of (name, value) pairs, as tta.{self.backend}() "
                "makes it."
            )
        seen: set[str] = set()
        for number, config in enumerate(self.configs):
            self._check_config(number, config)
            if (digest := fingerprint(config)) in seen:
                raise SpecError(
                    f"{self.backend}: configs[{number}] {dict(config)} is there twice."
                )
            seen.add(digest)
        for formats in (self.input_formats, self.output_formats):
            for name in formats or ():
                if name != "LINEAR":
                    raise SpecError(
                        f"{self.backend}: format {name!r} is not supported. "
                        "Only LINEAR is, which is also the default."
                    )

    @property
    def function(self) -> Callable[..., Any]:
        """The launch function, which registering has found if it was not given."""
        if self.launch_fn is None:
            raise SpecError(
                f"{self.backend}: no launch function. Only custom_op(op, impl=...) can "
                "do without, where the op's own body launches the kernel."
            )
        return self.launch_fn

    def launch_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the launch function takes."""
        if self.returns_outputs:
            return {}
        parameters = inspect.signature(self.function).parameters
        return {
            name: value
            for name, value in config
            if name in parameters or name not in self.option_names
        }

    def kernel_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that overrides keywords of the kernel's launch."""
        return dict(config) if self.returns_outputs else {}

    def options(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the compiler takes."""
        return {name: value for name, value in config if name in self.option_names}

    def _check_launch_fn(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SpecError(
                f"{self.backend}: the launch function is {function!r}, which cannot be "
                "called. Pass the Python function that launches the kernel."
            )
        is_kernel = getattr(function, "_decorator_kind", "") == "kernel"  # CuTe DSL's
        if is_kernel or f"{type(function).__module__}.".startswith(f"{self.package}."):
            python = getattr(function, "_pyfunc", function)
            name = getattr(python, "__name__", "kernel")
            raise SpecError(
                f"{self.backend}: {name} is a kernel. Pass the Python function that "
                f"launches it: def launch(x, out): {self.call.format(name)}."
            )
        try:
            inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"{self.backend}: the launch function is {function!r}, which has no "
                "signature. Pass the Python function that launches the kernel."
            ) from error

    def _check_config(self, number: int, config: Config) -> None:
        for name, value in config:
            if name in self.option_names and type(value) is not int:
                raise SpecError(
                    f"{self.backend}: configs[{number}] has {name}={value!r}; it must "
                    "be an int."
                )
        if self.launch_fn is None or self.returns_outputs:
            return  # the kernel's own parameters, known when it is launched
        parameters = inspect.signature(self.launch_fn).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        taken = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
        optional = [
            p.name
            for p in parameters
            if p.default is not p.empty or p.kind is p.KEYWORD_ONLY
        ]
        for name, _ in config:
            if name not in taken - {"stream"} and name not in self.option_names:
                valid = ", ".join([*optional, *sorted(self.option_names)])
                function = getattr(self.launch_fn, "__qualname__", self.launch_fn)
                raise SpecError(
                    f"{self.backend}: configs[{number}] names {name!r}, which neither "
                    f"{function} nor the compiler takes. Valid names: {valid}."
                )

    def _identity(self) -> tuple[Any, ...]:
        formats = (self.input_formats, self.output_formats)
        how = (self.fact_sets, self.returns_outputs)
        return self.launch_fn, self.configs, formats, how


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
        input_formats, output_formats: tensor formats; None is LINEAR (row-major).
        **keywords: config keys that hold in every config.

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
    launch function."""

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
    - ``"strides"``: constant strides alone.

    Sets that give the same code are one tactic.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it calls ``ct.launch`` exactly once, on the tensors it is given or views of
            them. None: the op is defined with ``torch.library.custom_op``, and its own
            body launches the kernel.
        configs: one dict for each kernel that TensorRT is to time, once for each fact
            set. ``num_ctas``, ``occupancy``, ``opt_level`` and ``num_worker_warps`` go
            to cuTile, other keys to ``launch_fn``. Left out: its defaults.
        input_formats, output_formats: tensor formats; None is LINEAR (row-major).
        fact_sets: those to try, and so how many variants there are at most.
        **keywords: config keys that hold in every config.

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
        input_formats: TensorRT tensor formats of the inputs; only LINEAR is supported.
        output_formats: as ``input_formats``.
        arch: variant of the architecture to compile for, as ``"sm_90a"``.
        **keywords: added to every config.

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
