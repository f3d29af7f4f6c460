# SPDX-License-Identifier: BSD-3-Clause

"""Triton: what a user hands over. The rest of the folder imports Triton itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._specs import KernelSpec
from ...errors import SpecError, raised_here

# What decides a kernel's code beside its text; of the kernel and of its decorators.
_SETTINGS = (
    "configs",
    "values",
    "do_not_specialize",
    "do_not_specialize_on_alignment",
    "noinline",
)


@dataclass(frozen=True, eq=False)
class TritonSpec(KernelSpec):
    """A Triton kernel. Config keys ``num_warps``, ``num_stages``, ``num_ctas`` and
    ``maxnreg`` are Triton's own; every other key is a keyword of the launch function.
    """

    backend: ClassVar[str] = "triton"
    packages: ClassVar[tuple[str, ...]] = ("triton",)
    call: ClassVar[str] = "{}[grid](x, out, ...)"
    options: ClassVar[Mapping[str, type]] = {
        "num_warps": int,
        "num_stages": int,
        "num_ctas": int,
        "maxnreg": int,
    }

    @staticmethod
    def object_parts(value: Any) -> tuple[Any, ...] | None:
        """A kernel, or what wraps one, is its function and its settings.

        Triton compiles the text at decoration, whatever the file says now.
        """
        inner = getattr(value, "fn", None)
        if not callable(inner):
            return None
        settings = [getattr(value, name, None) for name in _SETTINGS]
        return inner, settings, getattr(value, "src", None)


@raised_here
def triton(
    launch_fn: Callable[..., Any] | None = None,
    configs: Sequence[Any] | None = None,
    input_formats: Any = None,
    output_formats: Any = None,
    **keywords: Any,
) -> TritonSpec:
    """A kernel that ``launch_fn`` launches with Triton.

    Args:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it launches one ``@triton.jit`` kernel or more on the tensors it is given.
            None: the op is defined with ``torch.library.custom_op`` or ``triton_op``,
            and its own body launches the kernel.
        configs: one dict, or ``triton.Config``, for each tactic that TensorRT times.
            ``num_warps``, ``num_stages``, ``num_ctas`` and ``maxnreg`` go to Triton,
            other keys to ``launch_fn`` (without one, they override keywords of the
            launch). Equal configs are one. None: the configs of ``@triton.autotune``,
            or one tactic with the defaults.
        input_formats, output_formats: names of ``trt.TensorFormat`` (``"CHW32"``), one
            for all tensors or one for each; None is LINEAR (row-major). A launch
            function gets a packed tensor as it lies in memory, ``[N][(C + 31) // 32]
            [H][W][32]`` for CHW32, with its own extents as ``x.logical_shape``. The
            contents of the padding are undefined.
        **keywords: config keys that hold in every config.

    Returns:
        The spec, for ``custom_op(op, impl=...)`` or :func:`custom_plugin`.

    Raises:
        SpecError: a config is not a dict, names something unknown, or has a hook.

    Example::

        tta.triton(launch, configs=[{"BLOCK": 256}, {"BLOCK": 1024, "num_warps": 8}])
    """
    if isinstance(configs, list | tuple):
        configs = [_as_dict(number, config) for number, config in enumerate(configs)]
    return TritonSpec.of(launch_fn, configs, input_formats, output_formats, keywords)


def _as_dict(number: int, config: Any) -> Any:
    """A ``triton.Config`` as a dict; anything else as it is.

    Such an object exists only where Triton was imported, which this does not.
    """
    if not TritonSpec.is_kernel(config) or not hasattr(config, "all_kwargs"):
        return config
    if config.pre_hook is not None:
        raise SpecError(
            f"triton: configs[{number}] has a pre_hook, which an engine does not run. "
            "Remove the hook, or do its work in the kernel."
        )
    return without_defaults(config.all_kwargs())


def without_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``triton.Config`` says; a cluster of one block is not a cluster."""
    return {k: v for k, v in values.items() if (k, v) != ("num_ctas", 1)}
