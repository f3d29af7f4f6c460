"""Make the calls on a registered plugin that TensorRT's builder makes.

The plugin object is the real one, from TensorRT's registry; ``_expressions`` stands in
for what native code would pass to it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._expressions import (
    Extents,
    dimensions,
    expression_builder,
)
from torch_tensorrt.annotation._symbolic import Extent, Range
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.errors import DryRunError

_lock = threading.RLock()  # TensorRT keeps the expression builder in a global
_DEFAULT_TACTIC = 0  # TensorRT's own, where a plugin offers none


@dataclass(frozen=True)
class BuiltLaunch:
    """What TensorRT would embed for one tactic, and launch for a given shape.

    Attributes:
        dtypes, formats: of inputs and outputs, as TensorRT calls them.
    """

    tactic: int
    dtypes: tuple[str, ...]
    formats: tuple[str, ...]
    entry: str
    code: str | bytes
    _outputs: tuple[tuple[Any, ...], ...]
    _grid: tuple[Any, ...]
    _block: tuple[Any, ...]
    _shared_memory: Any
    _extras: tuple[Any, ...]

    def grid(self, extents: Extents) -> tuple[int, ...]:
        """Blocks along x, y, z for these input extents."""
        return tuple(expr.value(extents) for expr in self._grid)

    def block(self, extents: Extents) -> tuple[int, ...]:
        """Threads along x, y, z."""
        return tuple(expr.value(extents) for expr in self._block)

    def shared_memory(self, extents: Extents) -> int:
        """Dynamic shared memory, in bytes."""
        value: int = self._shared_memory.value(extents)
        return value

    def outputs(self, extents: Extents) -> Extents:
        """The extents of each output."""
        return tuple(tuple(e.value(extents) for e in shape) for shape in self._outputs)

    def extras(self, extents: Extents) -> tuple[int, ...]:
        """The 32-bit arguments between the inputs and the outputs."""
        return tuple(expr.value(extents) for expr in self._extras)


def build(
    op: str, inputs: Sequence[TensorInfo], attributes: Mapping[str, Any]
) -> list[BuiltLaunch]:
    """Every launch that the plugin offers for these inputs, tactics in order.

    Args:
        attributes: text, or arrays, as :class:`AttributeKind` encodes them.

    Raises:
        DryRunError: the plugin is not registered, or TensorRT's rules are broken.
    """
    with _lock:
        return _build(op, inputs, attributes)


def _build(
    op: str, inputs: Sequence[TensorInfo], attributes: Mapping[str, Any]
) -> list[BuiltLaunch]:
    plugin = _create(op, attributes)
    num_outputs = plugin.get_num_outputs()
    types = [_dtypes.to_tensorrt(tensor.dtype) for tensor in inputs]
    output_types = plugin.get_output_data_types(types, [len(t.shape) for t in inputs])
    dims = [dimensions(i, tensor.shape) for i, tensor in enumerate(inputs)]
    plugin.get_output_shapes(dims, [], expression_builder())
    in_out = [
        _tensor_desc(t.shape, type_) for t, type_ in zip(inputs, types, strict=True)
    ]
    for desc, type_ in zip(plugin.output_descs, output_types, strict=True):
        in_out.append(_tensor_desc(_extents(desc, inputs), type_))
    if any(plugin.get_aliased_input(i) != -1 for i in range(num_outputs)):
        raise DryRunError(f"{op}: in-place outputs cannot be dry-run.")
    launches = [
        launch
        for combination in _combinations(op, plugin, in_out, len(inputs))
        for launch in _launches(plugin, combination, dims, in_out, len(inputs))
    ]
    return sorted(launches, key=lambda launch: launch.tactic)


def _create(op: str, attributes: Mapping[str, Any]) -> Any:
    import tensorrt as trt

    namespace, _, name = op.partition("::")
    creator = trt.get_plugin_registry().get_creator(name, "1", namespace)
    if creator is None:
        raise DryRunError(
            f"{op}: TensorRT has no such plugin. Register it first: "
            f"custom_op({op!r}, impl=...)."
        )
    kinds = {
        "float64": trt.PluginFieldType.FLOAT64,
        "int64": trt.PluginFieldType.INT64,
        "bool": trt.PluginFieldType.INT8,
    }
    fields = [
        trt.PluginField(key, value.encode(), trt.PluginFieldType.CHAR)
        if isinstance(value, str)
        else trt.PluginField(key, value, kinds[value.dtype.name])
        for key, value in attributes.items()
    ]
    return creator.create_plugin(
        name,
        namespace,
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )


def _combinations(
    op: str, plugin: Any, in_out: list[Any], num_inputs: int
) -> list[list[Any]]:
    """Type and format combinations; the builder asks twice, once for their number."""
    answers = [
        [
            (desc.type, desc.format)
            for desc in plugin.get_supported_format_combinations(in_out, num_inputs)
        ]
        for _ in range(2)
    ]
    if answers[0] != answers[1]:
        raise DryRunError(f"{op}: autotune answers differently when asked again.")
    size = len(in_out)
    return [answers[0][i : i + size] for i in range(0, len(answers[0]), size)]


def _launches(
    plugin: Any,
    combination: Sequence[Any],
    dims: list[list[Any]],
    in_out: list[Any],
    num_inputs: int,
) -> list[BuiltLaunch]:
    for desc, (type_, format_) in zip(in_out, combination, strict=True):
        desc.desc.type, desc.desc.format = type_, format_
    plugin.configure_plugin(in_out[:num_inputs], in_out[num_inputs:])
    launches = []
    for tactic in sorted(plugin.get_valid_tactics()) or [_DEFAULT_TACTIC]:
        plugin.set_tactic(tactic)
        entry, code, params, extras = _ask_launch(plugin, dims, in_out, num_inputs)
        launches.append(
            BuiltLaunch(
                tactic=tactic,
                dtypes=tuple(_dtypes.from_tensorrt(t).token for t, _ in combination),
                formats=tuple(format_.name for _, format_ in combination),
                entry=entry,
                code=code,
                _outputs=tuple(
                    tuple(expr._expr for expr in desc.shape_expr)
                    for desc in plugin.output_descs
                ),
                _grid=tuple(
                    e._expr for e in (params.grid_x, params.grid_y, params.grid_z)
                ),
                _block=tuple(
                    e._expr for e in (params.block_x, params.block_y, params.block_z)
                ),
                _shared_memory=params.shared_mem._expr,
                _extras=tuple(e._expr for e in extras),
            )
        )
    return launches


def _ask_launch(
    plugin: Any, dims: list[list[Any]], in_out: list[Any], num_inputs: int
) -> tuple[str, str | bytes, Any, Any]:
    """``get_launch_params``, keeping what the AOT implementation returned to it.

    TensorRT's own holders of expressions cannot be read back.
    """
    returned: list[tuple[str, str, Any, Any]] = []
    original = plugin.aot_impl_function

    def remember(*args: Any) -> Any:
        returned.append(original(*args))
        return returned[-1]

    plugin.aot_impl_function = remember
    try:
        plugin.get_launch_params(
            dims, in_out, num_inputs, _Holder(), _Setter(), expression_builder()
        )
    finally:
        plugin.aot_impl_function = original
    entry, code = plugin.get_kernel(
        [d.desc for d in in_out[:num_inputs]], [d.desc for d in in_out[num_inputs:]]
    )
    text = code if code.startswith(b"\x7fELF") else code.decode()
    return entry, text, returned[0][2], returned[0][3]


class _Holder:
    """Takes the launch parameters, as a native struct does."""


class _Setter(dict[int, Any]):
    """Takes the extra arguments, as a native list does."""

    nbSymExprs = 0


def _extents(desc: Any, inputs: Sequence[TensorInfo]) -> tuple[Extent, ...]:
    """An output's extents, from its expressions at the profile's min, opt and max."""
    points = [corner(inputs, which) for which in ("min", "opt", "max")]
    return tuple(
        expr.constant_value()
        if expr.is_constant
        else Range(*sorted(expr._expr.value(point) for point in points))
        for expr in desc.shape_expr
    )


def corner(inputs: Sequence[TensorInfo], which: str) -> Extents:
    """The inputs' extents at the profile's ``min``, ``opt`` or ``max``."""
    return tuple(
        tuple(getattr(e, which) if isinstance(e, Range) else e for e in tensor.shape)
        for tensor in inputs
    )


def _tensor_desc(shape: Sequence[Extent], type_: Any) -> Any:
    import tensorrt as trt

    info = [TensorInfo(tuple(shape), _dtypes.from_tensorrt(type_).torch)]
    desc = trt.DynamicPluginTensorDesc()
    desc.desc.type = type_
    desc.desc.format = trt.TensorFormat.LINEAR
    desc.desc.dims = tuple(-1 if isinstance(e, Range) else e for e in shape)
    desc.min, desc.opt, desc.max = (
        corner(info, which)[0] for which in ("min", "opt", "max")
    )
    return desc
