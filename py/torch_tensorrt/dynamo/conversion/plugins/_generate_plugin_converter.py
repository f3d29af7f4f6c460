# SPDX-License-Identifier: BSD-3-Clause

"""torch op -> the converter that puts its plugin into a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from torch.fx import Graph
from torch.fx.node import Node, Target

from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._plugin import Plugin
from torch_tensorrt.annotation._tensors import TAKEN_FOR_NONE, absent, stands_for_none
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConversionContext import ConversionContext
from torch_tensorrt.dynamo.conversion._ConverterRegistry import (
    DYNAMO_ATEN_CONVERTERS,
    ConverterPriority,
    dynamo_tensorrt_converter,
)
from torch_tensorrt.dynamo.conversion.converter_utils import get_trt_tensor

from . import _aliased_io, _qdp
from ._schema import OpSchema, split_name

Validator: TypeAlias = Callable[[Node, CompilationSettings], bool]


def generate_plugin_converter(
    plugin_id: str,
    capability_validator: Validator | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
    use_aot_if_available: bool = True,
) -> Callable[..., Any]:
    """Register the converter of an op whose plugin is registered.

    Args:
        plugin_id: ``"ns::name"`` of the op and of its plugin.
        capability_validator: whether a node can be converted; None converts all.
        priority: HIGH goes before converters that exist for the op.
        supports_dynamic_shapes: convert nodes with dynamic input shapes, too.
        requires_output_allocator: the plugin's output sizes depend on data.
        use_aot_if_available: embed the ahead-of-time kernel where the plugin has one.

    Returns:
        The converter.

    Raises:
        UnknownOpError: torch has no such op.
        PluginMissingError: TensorRT has no such plugin.
        UnavailableError: this TensorRT has no such plugins at all.
    """
    namespace, op_name = split_name(plugin_id)
    flags = supports_dynamic_shapes, requires_output_allocator, use_aot_if_available
    return _generate_plugin_converter(
        namespace, op_name, None, capability_validator, priority, *flags
    )


def _generate_plugin_converter(
    namespace: str,
    op_name: str,
    overload: str | None = None,
    capability_validator: Validator | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
    use_aot_if_available: bool = True,
    plugin: Plugin | None = None,
    aliased: Sequence[int] = (),
) -> Callable[..., Any]:
    """As :func:`generate_plugin_converter`. Torch-TensorRT's documentation calls it.

    Args:
        overload: of the op, where it is not the default one.
        plugin: whose weights, as they are when a node is converted, follow the op's
            tensors. It is prepared before TensorRT makes a plugin object.
        aliased: inputs that the plugin writes; it gets copies of them.
    """
    _qdp.require_available()
    import tensorrt.plugin as trtp

    plugin_id = f"{namespace}::{op_name}"
    schema = OpSchema.of(plugin_id, overload_name=overload or "default")
    if (definition := _qdp.plugin_def(plugin_id)) is None:
        raise errors.PluginMissingError(
            f"{plugin_id}: there is no TensorRT plugin of this name to convert to. "
            "Call generate_plugin first."
        )
    aot = use_aot_if_available and definition.aot_impl_func is not None

    def convert(
        ctx: ConversionContext, target: Target, args: Any, kwargs: Any, name: str
    ) -> Any:
        values, attributes = schema.bind(args, kwargs)
        given = dict(zip(schema.tensors, values, strict=True))
        if plugin is not None:
            plugin.prepare()
            given |= plugin.weights
        create = getattr(getattr(trtp.op, namespace), op_name)
        tensors = [
            get_trt_tensor(ctx, absent() if v is None else v, f"{name}_{argument}")
            for argument, v in given.items()
        ]
        for index in aliased:
            tensors[index] = _copied(ctx, tensors[index], name)
        encoded = {n: schema.attributes[n].encode(v) for n, v in attributes.items()}
        layer = ctx.net.add_plugin(create(*tensors, **encoded), aot=aot)
        if layer is None:
            raise errors.PluginMissingError(
                f"{schema.op}, node {name}: TensorRT did not add the plugin layer. Its "
                "own log says why."
            )
        layer.name = f"[{schema.overload}]-[{name}]"
        # What follows them is hidden: only the kernel needs it.
        outputs = tuple(layer.get_output(i) for i in range(schema.num_outputs))
        return outputs[0] if len(outputs) == 1 else outputs

    def require_operands(node: Node) -> None:
        for operand in node.all_input_nodes:
            require_distinct(known_tensor(operand))

    accepts = validator(plugin_id, require_operands, capability_validator, False)
    dynamo_tensorrt_converter(
        schema.overload,
        capability_validator=accepts,
        priority=priority,
        supports_dynamic_shapes=supports_dynamic_shapes,
        requires_output_allocator=requires_output_allocator,
    )(convert)
    return convert


def _copied(ctx: ConversionContext, tensor: Any, node: str) -> Any:
    """A copy for a plugin to write, so that the tensor stays as it is for others."""
    _aliased_io.allow(ctx)
    layer = ctx.net.add_identity(tensor)
    layer.name = f"[copy]-[{node}]"
    return layer.get_output(0)


def restoring(overload: Any) -> Callable[[], None]:
    """A step that removes converters made here; those of others stay."""
    earlier = tuple(DYNAMO_ATEN_CONVERTERS.get(overload, ()))

    def restore() -> None:
        left = [
            support
            for support in DYNAMO_ATEN_CONVERTERS.pop(overload, ())
            if support in earlier
            or support.converter_implementation.__module__ != __name__
        ]
        if left:
            DYNAMO_ATEN_CONVERTERS[overload] = left

    return restore


# --- Which nodes it converts ----------------------------------------------------------


def validator(
    op: str, require: Callable[[Node], None], also: Validator | None, strict: bool
) -> Validator:
    """A validator that accepts a node for which ``require`` raises no error of ours.

    Any other stays in PyTorch, and the log says why: once for each graph, because
    Torch-TensorRT asks several times.

    Args:
        also: what must hold as well.
        strict: raise, instead.
    """
    logged: WeakKeyDictionary[Graph, set[str]] = WeakKeyDictionary()

    def validate(node: Node, settings: CompilationSettings) -> bool:
        if also is not None and not also(node, settings):
            return False
        try:
            require(node)
        except errors.AnnotationError as error:
            if strict:
                raise
            known = logged.setdefault(node.graph, set())
            message = f"{op}, node {node.name}: stays in PyTorch: {error}"
            if message not in known:
                errors.warn(message)
            known.add(message)
            return False
        return True

    return validate


def known_tensor(node: Node) -> Any:
    """The tensor that the graph knows a node to be, or tensors, or None."""
    return node.meta.get("val", node.meta.get("tensor_meta"))


def require_distinct(known: Any) -> None:
    """Raise if a plugin would take the tensor for None."""
    if hasattr(known, "shape") and stands_for_none(len(known.shape), known.dtype):
        raise errors.RegistrationError(TAKEN_FOR_NONE)
