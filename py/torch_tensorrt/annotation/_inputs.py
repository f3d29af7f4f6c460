"""What a dry run is given: inputs and attributes, and the shapes to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from torch_tensorrt.annotation._builder import corner
from torch_tensorrt.annotation._execute import MakeInputs, random_inputs
from torch_tensorrt.annotation._expressions import Extents
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._tactics import Plugin, Request
from torch_tensorrt.annotation._trace import ABSENT, TAKEN_FOR_NONE, TensorInfo
from torch_tensorrt.annotation.errors import (
    SpecError,
    UserCodeError,
)


def on_gpu(inputs: Sequence[Any]) -> MakeInputs | None:
    """The tensors of a dry run that are on the GPU, among random ones."""
    if not any(isinstance(t, torch.Tensor) and t.is_cuda for t in inputs):
        return None
    dtypes = [info_of(value).dtype for value in inputs]

    def make(dims: Extents) -> Sequence[torch.Tensor]:
        return [
            given if isinstance(given, torch.Tensor) and given.is_cuda else random
            for given, random in zip(inputs, random_inputs(dims, dtypes), strict=True)
        ]

    return make


def shapes_to_look_at(
    plugin: Plugin, request: Request, with_ragged: bool
) -> dict[str, Extents]:
    """The shapes to look at, by name; ``ragged`` is one that divides by nothing."""
    inputs = request.inputs
    if not any(isinstance(extent, Range) for t in inputs for extent in t.shape):
        return {"static": corner(inputs, "opt")}
    points = {which: corner(inputs, which) for which in ("min", "opt", "max")}
    if with_ragged:
        ragged = _ragged(inputs)
        static = [
            TensorInfo(extents, t.dtype)
            for extents, t in zip(ragged, inputs, strict=True)
        ]
        meta = partial(plugin.meta, **request.attributes)
        try:
            infer_outputs(meta, static, plugin.op)
        except UserCodeError:
            return points  # the op has no such shape
        points["ragged"] = ragged
    return points


def _ragged(inputs: Sequence[TensorInfo]) -> Extents:
    """Odd extents two thirds up each range; equal ranges stay equal."""
    return tuple(
        tuple(
            min(e.max, (e.min + (e.max - e.min) * 2 // 3) | 1)
            if isinstance(e, Range)
            else e
            for e in tensor.shape
        )
        for tensor in inputs
    )


def check_arguments(
    plugin: Plugin, inputs: Sequence[TensorInfo], attributes: Mapping[str, Any]
) -> None:
    """Raise :class:`SpecError` unless the plugin takes these."""
    for name, info in zip(plugin.tensors, inputs, strict=False):
        if info.is_absent and name not in plugin.optional:
            raise SpecError(f"dry_run: {plugin.op}, input `{name}`: it cannot be None.")
    if len(inputs) != len(plugin.tensors):
        raise SpecError(
            f"dry_run: {plugin.op} takes {len(plugin.tensors)} tensors, "
            f"{', '.join(plugin.tensors)}; got {len(inputs)}."
        )
    names = tuple(plugin.attributes)
    if set(attributes) != set(names):
        raise SpecError(
            f"dry_run: {plugin.op} takes {_names('attributes', names)}; got "
            f"{', '.join(attributes) or 'none'}. Pass attributes={{name: value}}."
        )
    for name, kind in plugin.attributes.items():
        if not kind.holds(attributes[name]):
            raise SpecError(
                f"dry_run: attribute {name}={attributes[name]!r} of {plugin.op} must "
                f"be of type {kind}."
            )


def _names(what: str, names: Sequence[str]) -> str:
    return f"the {what} {', '.join(names)}" if names else f"no {what}"


def info_of(value: Any) -> TensorInfo:
    """Shape and dtype of a tensor, or of a ``torch_tensorrt.Input``; or of None."""
    if value is None:
        return ABSENT
    if isinstance(value, torch.Tensor):
        return _given(TensorInfo(tuple(value.shape), value.dtype))
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is None or dtype is None or not hasattr(dtype, "to"):
        raise SpecError(
            f"dry_run: {value!r} is no input. Pass a tensor, or torch_tensorrt.Input."
        )
    if isinstance(shape, Mapping):
        profile = [shape[f"{which}_shape"] for which in ("min", "opt", "max")]
        extents = [
            low if low == high else Range(low, opt, high)
            for low, opt, high in zip(*profile, strict=True)
        ]
        shape = extents
    try:
        return _given(TensorInfo(tuple(shape), dtype.to(torch.dtype)))
    except TypeError as error:  # torch_tensorrt.Input without a dtype
        raise SpecError(
            f"dry_run: an input of dtype {dtype}. Name it: Input(..., dtype=...)."
        ) from error


def _given(info: TensorInfo) -> TensorInfo:
    if info.is_absent:
        raise SpecError(f"dry_run: {TAKEN_FOR_NONE}")
    return info
