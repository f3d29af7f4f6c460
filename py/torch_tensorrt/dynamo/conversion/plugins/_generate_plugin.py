# SPDX-License-Identifier: BSD-3-Clause

"""torch op -> QDP descriptor and Python implementation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import sympy
import torch
from torch._guards import Source
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from torch_tensorrt.annotation import _attributes, _tensors
from torch_tensorrt.annotation._hidden import WORD, any_extents
from torch_tensorrt.annotation._plugin import HiddenOutputs, Request
from torch_tensorrt.annotation._record import as_tensors, infer_outputs
from torch_tensorrt.annotation._record.program import Output
from torch_tensorrt.annotation._sizes.to_tensorrt import to_tensorrt
from torch_tensorrt.annotation._tensors import UNKNOWN, DType, TensorInfo
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    FormatError,
    RecordError,
    in_names,
)

from . import _callbacks, _qdp
from ._schema import OpSchema

# Names that this module has in Torch-TensorRT; also mksym, and _generate_plugin, below.
np_scalar_attr_annotation = _attributes.np_scalar_attr_annotation
_TORCH_SCHEMA_TYPE_TO_PLUGIN_ATTR_TYPE = {
    kind.__name__: _attributes.AttributeKind(kind).annotation
    for kind in (float, int, bool)
}


def mksym(
    shape_env: ShapeEnv, value: int, source: Source, dynamic_dim: DimDynamic
) -> torch.SymInt | int:
    """A new size of ``shape_env``, which has ``value`` as its hint."""
    symbol = shape_env.create_symbol(value, source=source, dynamic_dim=dynamic_dim)
    return shape_env.create_symintnode(symbol, hint=value, source=source)


def generate_plugin(
    plugin_name: str,
    *,
    aot_impl: Callable[..., Any] | None = None,
    autotune: Callable[..., Any] | None = None,
) -> None:
    """Register a QDP plugin for a torch op: its descriptor and Python implementation.

    Args:
        plugin_name: ``"ns::name"`` of an op that torch knows, with a fake kernel.
        aot_impl, autotune: as in :func:`custom_op`.

    Raises:
        UnknownOpError: torch has no such op.
        SpecError: a callback takes something that is not an argument of the op.
        RegistrationError: there is such a plugin already, or there can be none.
    """
    schema = OpSchema.of(plugin_name)
    with _qdp.registering(plugin_name):
        register_plugin(schema, aot_impl, autotune, aot_impl is not None)


_generate_plugin = generate_plugin


def register_plugin(
    schema: OpSchema,
    aot_impl: Callable[..., Any] | None,
    autotune: Callable[..., Any] | None,
    is_compiled: bool,
) -> None:
    """Register the plugin of an op that has its Python code, and a user's callbacks.

    Args:
        is_compiled: whether engines embed a kernel, and no Python code.
    """
    schema.require_functional()
    schema.require_free_names()
    offer = autotune and _callbacks.autotune_of(schema, autotune, is_compiled)
    launch = aot_impl and _callbacks.aot_impl_of(schema, aot_impl, offer)
    register_descriptor(schema)
    _callbacks.register(schema, launch, offer)


def register_descriptor(schema: OpSchema, hidden: HiddenOutputs | None = None) -> None:
    """Register shapes and dtypes (from the fake kernel) and the implementation.

    Args:
        hidden: outputs that follow those of the op.
    """
    import tensorrt.plugin as trtp

    _qdp.require_attributes(schema.op, schema.attributes)

    def outputs(
        inputs: Sequence[TensorInfo | None], are_known: bool, meta: Callable[..., Any]
    ) -> tuple[Output, ...]:
        recorded = None
        if schema.outputs_of is not None:
            recorded = schema.outputs_of(inputs, are_known)
        if recorded is None:
            try:
                made = infer_outputs(meta, inputs, what, are_known)
                return made[: len(made) - len(schema.aliased)]
            except RecordError:  # it takes only sizes that the profile has
                if hidden is not None:
                    recorded = hidden.plugin.recorded_outputs(inputs, are_known)
                if recorded is None:
                    raise
        if are_known:
            return recorded
        return tuple(replace(o, shape=(sympy.S.One,) * len(o.shape)) for o in recorded)

    def describe(descs: Any, attributes: dict[str, Any]) -> tuple[Any, ...]:
        inputs = tuple(_tensors.from_plugin(_tensor_info(desc)) for desc in descs)
        # TensorRT asks for the dtypes first, with sizes it does not know yet.
        are_known = not any(expr.is_fake for d in descs for expr in d.shape_expr)
        meta = functools.partial(schema.meta, **attributes)
        symbols, ranges = shape_symbols(descs), _tensors.ranges_of(inputs)
        result = []
        for output in outputs(inputs, are_known, meta):
            shape = tuple(to_tensorrt(size, symbols, ranges) for size in output.shape)
            dtype = DType.of(output.dtype).to_tensorrt()
            result.append(trtp.from_shape_expr(shape, dtype))
        result += [descs[index].aliased() for index in schema.aliased]
        shapes: Any = [(1,)] * count
        if hidden is not None and count and are_known:
            shapes = hidden.shapes(Request.of(inputs, attributes, None))
        for extents in shapes:
            how = symbols, any_extents(ranges), True
            exprs = (to_tensorrt(sympy.sympify(extent), *how) for extent in extents)
            word = DType.of(WORD).to_tensorrt()
            result.append(trtp.from_shape_expr(tuple(exprs), word))
        return tuple(result)

    def named_describe(descs: Any, attributes: dict[str, Any]) -> tuple[Any, ...]:
        try:
            return describe(descs, attributes)
        except AnnotationError as error:
            raise in_names(error, schema.inputs) from error.__cause__

    def run(tensors: Any, attributes: Any, outputs: Any, stream: int) -> None:
        external = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(external):
            given = (
                None if _tensors.stands_for_none(t.dim(), t.dtype) else t
                for t in map(_as_torch, tensors)
            )
            named = dict(zip(schema.tensors, given, strict=False))
            results = as_tensors(schema.overload(**named, **attributes), schema.op)
            returned = outputs[: schema.num_outputs]
            for output, result in zip(returned, results, strict=True):
                _as_torch(output).copy_(result)

    what, count = f"{schema.op}: the fake kernel", hidden.count if hidden else 0
    tensors, descs = (schema.outputs(t, count) for t in (trtp.Tensor, trtp.TensorDesc))
    trtp.register(schema.op)(
        schema.adapter("describe", named_describe, trtp.TensorDesc, descs)
    )
    adapted = schema.adapter("run", run, trtp.Tensor, None, outputs=tensors, stream=int)
    trtp.impl(schema.op)(adapted)


def shape_symbols(descs: Sequence[Any]) -> dict[sympy.Symbol, Any]:
    """The symbol of each input extent -> TensorRT's expression of it."""
    return _tensors.by_symbol(desc.shape_expr for desc in descs)


def _tensor_info(desc: Any) -> TensorInfo:
    shape = (
        UNKNOWN if expr.is_fake or not expr.is_constant else expr.constant_value()
        for expr in desc.shape_expr
    )
    return TensorInfo(tuple(shape), DType.of_tensorrt(desc.dtype).torch)


def _as_torch(tensor: Any) -> torch.Tensor:
    """A torch view of the memory of a ``trtp.Tensor``.

    It takes the memory as plain integers, because TensorRT's own CUDA array interface
    refuses the dtypes that NumPy lacks (bfloat16, float8).

    Raises:
        FormatError: the tensor is not row-major, which an ``autotune`` asked for.
    """
    if tensor.format.name != "LINEAR":
        raise FormatError(
            f"a tensor has the format {tensor.format.name}, and an op's Python code "
            "takes row-major ones. Offer LINEAR alone in autotune=."
        )
    dtype = DType.of_tensorrt(tensor.dtype).torch
    interface = {
        "shape": tuple(tensor.shape),
        "strides": tuple(stride * dtype.itemsize for stride in tensor.strides),
        "typestr": f"<i{dtype.itemsize}" if dtype.itemsize > 1 else "|i1",
        "data": (tensor.data_ptr, False),
        "version": 3,
    }
    memory = SimpleNamespace(__cuda_array_interface__=interface)
    return torch.as_tensor(memory, device="cuda").view(dtype)
