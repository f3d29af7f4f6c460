"""Whether a node can become a plugin layer: tried on what the graph knows of it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import Node

from torch_tensorrt.annotation._symbolic import INT32_MAX, Extent, Range
from torch_tensorrt.annotation._tactics import Plugin, Request
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._trace import TAKEN_FOR_NONE, TensorInfo, is_absent
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    FallbackWarning,
    RegistrationError,
    TargetError,
    UnsupportedKernelError,
)
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema

Validator = Callable[[Node, CompilationSettings], bool]
_LOGGER = logging.getLogger(__name__)


def capability_of(plugin: Plugin, also: Validator | None, strict: bool) -> Validator:
    """A validator that takes the nodes which some tactic serves.

    Any other stays in PyTorch, with a :class:`FallbackWarning` that says why.

    Args:
        also: what must hold as well.
        strict: raise, instead.
    """
    schema = OpSchema.of(plugin.op)

    def validate(node: Node, settings: CompilationSettings) -> bool:
        if also is not None and not also(node, settings):
            return False
        try:
            _require_served(plugin, schema, node)
        except AnnotationError as error:
            if strict:
                raise
            _warn(f"{schema.op}, node {node.name}: stays in PyTorch: {error}")
            return False
        return True

    return validate


def distinct_from_none(op: str, also: Validator | None) -> Validator:
    """A validator that takes the nodes of which no operand may be taken for None.

    Args:
        also: what must hold as well.
    """

    def validate(node: Node, settings: CompilationSettings) -> bool:
        if also is not None and not also(node, settings):
            return False
        for operand in node.all_input_nodes:
            known: Any = operand.meta.get("val", operand.meta.get("tensor_meta"))
            if hasattr(known, "shape") and is_absent(len(known.shape), known.dtype):
                _warn(f"{op}, node {node.name}: stays in PyTorch: {TAKEN_FOR_NONE}")
                return False
        return True

    return validate


def _warn(message: str) -> None:
    try:
        warnings.warn(message, FallbackWarning, stacklevel=3)
    except FallbackWarning:  # warnings are errors; the graph is to be partitioned
        _LOGGER.warning(message)


def _require_served(plugin: Plugin, schema: OpSchema, node: Node) -> None:
    """Raise unless some tactic's kernel can be made, or at least be recorded."""
    values, attributes = schema.bind(node.args, node.kwargs)
    inputs = tuple(_info(schema, value) for value in values)
    inputs = (*inputs, *plugin.weight_infos)
    request = None
    with contextlib.suppress(TargetError):  # said when an engine is built for one
        request = Request(inputs, attributes, current_target())
    reasons = []
    for tactic in plugin.tactics(inputs, attributes):
        try:
            if request is None:
                plugin.record(tactic, inputs, attributes)
            else:
                plugin.kernel(tactic, request)
            return
        except AnnotationError as error:
            reasons.append(f"tactic {tactic.number}: {error}")
    raise UnsupportedKernelError("no tactic can serve it. " + " ".join(reasons))


def _info(schema: OpSchema, value: Any) -> TensorInfo:
    """What the graph knows of a tensor argument."""
    is_none = not isinstance(value, Node)
    if isinstance(value, Node):
        value = value.meta.get("val", value.meta.get("tensor_meta"))
    if not hasattr(value, "shape") or not isinstance(value.dtype, torch.dtype):
        raise RegistrationError(
            f"{schema.op}: an argument is {value!r}, of which the graph does not say "
            "what tensor it is."
        )
    info = TensorInfo(tuple(map(extent, value.shape)), value.dtype)
    if info.is_absent and not is_none:
        raise RegistrationError(f"{schema.op}: {TAKEN_FOR_NONE}")
    return info


def extent(size: int | torch.SymInt) -> Extent:
    """A size, or the range that the graph knows of it."""
    if isinstance(size, int):
        return size
    node = size.node
    known = node.shape_env.bound_sympy(node.expr)
    low = max(0, int(known.lower))
    high = int(min(known.upper, INT32_MAX))
    hint = node.hint if node.has_hint() else low
    return low if low == high else Range(low, min(max(hint, low), high), high)
