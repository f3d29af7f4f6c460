"""What a user hands over for one op: kernels, shapes, weights and attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from torch_tensorrt.annotation._kernel_spec import Fingerprinted, KernelSpec
from torch_tensorrt.annotation.errors import SpecError


@dataclass(frozen=True, eq=False)
class CustomPluginSpec(Fingerprinted):
    """Everything that makes a plugin, whatever op it is registered for.

    Attributes:
        specs: the kernels; the configs of all of them are the op's tactics.
        meta_impl: fake kernel of the op: fake inputs to fake outputs; None where the op
            exists in torch and has its own.
        attributes: (name, value) keywords of every launch function.
        weights: (name, tensor) constants, between the inputs and the outputs.
        aligned: promise that every tensor starts at a multiple of 16 bytes. TensorRT's
            own do; an engine input bound to a sliced view may not.

    Raises:
        SpecError: a field is of the wrong kind, or a name is there twice.
    """

    specs: tuple[KernelSpec, ...]
    meta_impl: Callable[..., Any] | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    weights: tuple[tuple[str, torch.Tensor], ...] = ()
    aligned: bool = True

    def __post_init__(self) -> None:
        if not self.specs or not all(isinstance(s, KernelSpec) for s in self.specs):
            raise SpecError(
                f"custom_plugin: {self.specs!r} is not a kernel spec, or a list of "
                "them. Make one with tta.triton(launch_fn)."
            )
        if self.meta_impl is not None and not callable(self.meta_impl):
            raise SpecError(
                f"custom_plugin: meta_impl is {self.meta_impl!r}; it must be a "
                "function from the op's inputs to its (empty) outputs."
            )
        configured = {n for s in self.specs for c in s.configs for n, _ in c}
        for name, _ in (*self.attributes, *self.weights):
            if name in configured:
                raise SpecError(
                    f"custom_plugin: {name!r} is both an attribute and a config key."
                )

    @cached_property
    def op_name(self) -> str:
        """A name for this plugin, the same in every process."""
        function = getattr(self.specs[0].launch_fn, "__name__", "plugin")
        return f"tta::{re.sub(r'[^0-9A-Za-z_]', '', function)}_{self.fingerprint[:16]}"

    def _identity(self) -> tuple[Any, ...]:
        kernels = tuple(spec.fingerprint for spec in self.specs)
        return kernels, self.meta_impl, self.attributes, self.weights, self.aligned


def custom_plugin(
    spec: KernelSpec | Sequence[KernelSpec],
    meta_impl: Callable[..., Any] | None = None,
    *,
    aligned: bool = True,
    **attributes: Any,
) -> CustomPluginSpec:
    """A plugin made of one kernel spec, or of several that compute the same.

    Args:
        spec: what :func:`triton`, :func:`cutile` or :func:`cutedsl` made, or a list of
            such; the configs of all of them are the op's tactics.
        meta_impl: from the op's inputs (fake tensors) to its outputs, as in
            ``lambda x: torch.empty_like(x)``. May be left out for an op that torch
            knows already.
        aligned: promise that every tensor starts at a multiple of 16 bytes, as
            TensorRT's own and torch's do. False gives up vector loads.
        **attributes: tensors are weights: constants of the engine, passed to every
            launch function between the inputs and the outputs, in this order; they must
            not change afterwards. All else is passed by name.

    Returns:
        The plugin, for ``custom_op(op, impl=...)``.

    Raises:
        SpecError: an argument is of the wrong kind.
    """
    specs = (spec,) if isinstance(spec, KernelSpec) else spec
    if not isinstance(specs, Sequence):
        specs = (specs,)
    weights = {n: v for n, v in attributes.items() if isinstance(v, torch.Tensor)}
    scalars = {n: v for n, v in attributes.items() if n not in weights}
    return CustomPluginSpec(
        tuple(specs),
        meta_impl,
        tuple(sorted(scalars.items())),
        tuple(weights.items()),
        aligned,
    )


def normalize_impl_to_spec(impl: Any) -> CustomPluginSpec:
    """The plugin spec of anything that ``custom_op(impl=...)`` accepts.

    Args:
        impl: a plugin spec (returned as it is), a kernel spec, or a list of them.

    Returns:
        The plugin spec.

    Raises:
        SpecError: it is none of these.
    """
    if isinstance(impl, CustomPluginSpec):
        return impl
    if isinstance(impl, KernelSpec | list | tuple):
        return custom_plugin(impl)
    raise SpecError(
        f"impl={impl!r} is not a plugin. Pass tta.triton(launch_fn), or "
        "tta.custom_plugin(...)."
    )
