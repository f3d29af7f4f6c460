# SPDX-License-Identifier: BSD-3-Clause

"""cuTile: what a user hands over. The rest of the folder imports cuTile itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..._specs import Config, KernelSpec
from ...errors import SpecError, raised_here


@dataclass(frozen=True)
class FactSet:
    """Which of the proved facts the compiler gets.

    Attributes:
        granule: bytes, up to which it gets divisibility and alignment.
        constant_extents: whether it gets constant extents.
        tma: whether it may copy with TMA, where the GPU has it. Without TMA, it makes
            no ``cp.async`` either.
    """

    granule: int
    constant_extents: bool
    tma: bool


FACT_SETS = {
    "vector16": FactSet(granule=16, constant_extents=True, tma=False),
    # TMA needs addresses that are multiples of 16 bytes. Here the compiler knows of 8
    # only, so it makes no TMA load, and may still make `cp.async`.
    "async8": FactSet(granule=8, constant_extents=True, tma=True),
    "strides": FactSet(granule=1, constant_extents=False, tma=True),
    "tma16": FactSet(granule=16, constant_extents=True, tma=True),
}
DEFAULT_FACTS = "strides"  # of a config that names none


@dataclass(frozen=True, eq=False)
class CuTileSpec(KernelSpec):
    """A cuTile kernel. Config keys ``num_ctas``, ``occupancy``, ``opt_level`` and
    ``num_worker_warps`` go to ``ct.kernel``; ``facts`` names a fact set of
    :func:`cutile`; every other key is a keyword of the launch function.

    Raises:
        SpecError: a field is wrong, as in any spec, or a fact set is unknown.
    """

    backend: ClassVar[str] = "cutile"
    packages: ClassVar[tuple[str, ...]] = ("cuda",)
    call: ClassVar[str] = "ct.launch(stream, grid, {}, (x, out, ...))"
    options: ClassVar[Mapping[str, type]] = {
        **dict.fromkeys(
            ("num_ctas", "occupancy", "opt_level", "num_worker_warps"), int
        ),
        "facts": str,
    }

    @staticmethod
    def object_parts(value: Any) -> tuple[Any, ...] | None:
        """A ``ct.kernel`` is its function and its compiler options."""
        function = getattr(value, "_pyfunc", None)
        return (function, value._compiler_options) if callable(function) else None

    def __post_init__(self) -> None:
        super().__post_init__()
        for number, config in enumerate(self.configs):
            facts = dict(config).get("facts", DEFAULT_FACTS)
            if facts not in FACT_SETS:
                raise SpecError(
                    f"cutile: configs[{number}] has facts={facts!r}; it must be one of "
                    f"{', '.join(FACT_SETS)}."
                )

    def chooses(self, config: Config) -> bool:
        """Whether it says more than ``facts``, which every config does."""
        return any(name != "facts" for name, _ in config)

    def launch_keywords(self, config: Config) -> dict[str, Any]:
        """Without ``facts``, which only the compiler takes."""
        return super().launch_keywords(tuple(p for p in config if p[0] != "facts"))

    def kernel_keywords(self, config: Config) -> dict[str, Any]:
        """Without options: ``ct.launch`` takes none, they belong to the kernel."""
        keywords = super().kernel_keywords(config)
        return {n: value for n, value in keywords.items() if n not in self.options}


@raised_here
def cutile(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Mapping[str, Any]] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    fact_sets: str | Sequence[str] = tuple(FACT_SETS),
    **keywords: Any,
) -> CuTileSpec:
    """A kernel that ``launch_fn`` launches with cuTile.

    What the compiler knows about the arrays decides between code that differs by a
    factor of 20, and more knowledge does not always help. So each config is tried with
    each of ``fact_sets``. Every fact holds for every shape of the profile:

    - ``"vector16"``: everything that is known, up to 16 bytes (constant extents and
      strides, divisibility, alignment). TMA is off.
    - ``"async8"``: the same up to 8 bytes, from which the compiler makes ``cp.async``.
    - ``"strides"``: constant strides alone.
    - ``"tma16"``: as ``"vector16"``, with TMA on GPUs that have it.

    Sets that give the same code are one tactic.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it calls ``ct.launch`` once or more, on the tensors it is given or views of
            them. None: the op is defined with ``torch.library.custom_op``, and its own
            body launches the kernel.
        configs: one dict for each kernel that TensorRT times, once for each fact
            set. ``num_ctas``, ``occupancy``, ``opt_level`` and ``num_worker_warps`` go
            to cuTile, other keys to ``launch_fn``. A config that names its fact set,
            as ``facts``, is timed with that one alone. None: one config, the defaults.
        input_formats, output_formats: tensor formats, as in :func:`triton`.
        fact_sets: the ones to try, one name or several.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is not a dict, or names something unknown; a fact set is
            unknown, or is there twice.

    Example::

        def launch(x, out, TILE=1024):
            stream = torch.cuda.current_stream()
            n = x.numel()
            ct.launch(stream, (ct.cdiv(n, TILE),), kernel, (x.reshape(-1), out, TILE))

        tta.cutile(launch, configs=[{"TILE": 1024}, {"TILE": 4096, "occupancy": 2}])
    """
    names = (fact_sets,) if isinstance(fact_sets, str) else tuple(fact_sets)
    distinct = set(names)
    if not names or len(distinct) < len(names) or not distinct <= set(FACT_SETS):
        raise SpecError(
            f"cutile: fact_sets is {list(names)}; it must hold one or more of "
            f"{', '.join(FACT_SETS)}, each once."
        )
    # Checked before they are multiplied, so that errors number them as the user does.
    spec = CuTileSpec.of(launch_fn, configs, input_formats, output_formats, keywords)
    multiplied = (
        tuple(sorted({"facts": name, **config}.items()))
        for config in map(dict, spec.configs)
        for name in (names[:1] if "facts" in config else names)
    )
    return replace(spec, configs=tuple(multiplied))
