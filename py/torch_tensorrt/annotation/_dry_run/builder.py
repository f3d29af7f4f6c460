# SPDX-License-Identifier: BSD-3-Clause

"""Make the calls on a registered plugin that TensorRT's builder makes.

The plugin object is the real one, from TensorRT's registry. One thing is not real: the
expressions, which TensorRT's native code makes and no Python can get. ``_StandIn``, at
the end of this file, takes their place.
"""

from __future__ import annotations

import operator
from collections import UserDict
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .._target import compiling_for
from .._tensors import DType, Range, TensorInfo, to_plugin
from ..errors import DryRunError, SpecError
from .report import Dims, ShapeReport, TacticReport

if TYPE_CHECKING:
    from .._plugin import Plugin, Request


def build(plugin: Plugin, request: Request, hidden: int = 0) -> list[TacticReport]:
    """What TensorRT gets of each tactic that a plugin offers for a request, in order.

    Args:
        hidden: how many outputs the plugin has and the op does not return.

    Raises:
        DryRunError: TensorRT does not have the plugin, or one of its rules is broken.
    """
    with compiling_for(request.target):
        return sorted(
            _Build(plugin, request, hidden).launches(), key=lambda t: t.tactic
        )


class _Build:
    """One build's calls, in the order in which TensorRT makes them."""

    def __init__(self, plugin: Plugin, request: Request, hidden: int) -> None:
        self._op, self._request = plugin.op, request
        inputs = list(map(to_plugin, request.inputs))
        self._plugin = _create(plugin, request)
        launch = self._plugin.aot_impl_function

        def noted(*args: Any) -> Any:
            """TensorRT's own holders of expressions cannot be read back."""
            self._returned = launch(*args)
            return self._returned

        self._plugin.aot_impl_function = noted
        num_outputs = self._plugin.get_num_outputs()
        self._num_returned = num_outputs - hidden
        types = [DType.of(info.dtype).to_tensorrt() for info in inputs]
        ranks = [len(info.shape) for info in inputs]
        output_types = self._plugin.get_output_data_types(types, ranks)
        self._dims = [dimensions(i, info.shape) for i, info in enumerate(inputs)]
        self._plugin.get_output_shapes(self._dims, [], expression_builder())
        outputs = [
            TensorInfo(_extents(desc, inputs), DType.of_tensorrt(type_).torch)
            for desc, type_ in zip(self._plugin.output_descs, output_types, strict=True)
        ]
        self._inputs = list(map(_tensor_desc, inputs))
        self._outputs = list(map(_tensor_desc, outputs))
        self._in_out = [*self._inputs, *self._outputs]
        self._aliased = self._inputs_written(inputs, outputs)

    def _inputs_written(
        self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> tuple[int, ...]:
        """The inputs that are the last of the outputs that the op returns."""
        found = [self._plugin.get_aliased_input(i) for i in range(len(outputs))]
        aliased = [index for index in found if index != -1]
        start = self._num_returned - len(aliased)
        expected = [-1] * start + aliased
        expected += [-1] * (len(outputs) - len(expected))
        written = [self._corners(inputs[index]) for index in aliased]
        returned = [self._corners(o) for o in outputs[start : self._num_returned]]
        if found != expected or len({*aliased}) < len(aliased) or written != returned:
            raise DryRunError(
                f"{self._op}: its outputs share memory with the inputs {found}; "
                "TensorRT shares an input with one output of the same extents. Please "
                "report this."
            )
        return tuple(aliased)

    @staticmethod
    def _corners(info: TensorInfo) -> tuple[Any, ...]:
        return info.dtype, *(info.at(which) for which in ("min", "opt", "max"))

    def launches(self) -> list[TacticReport]:
        """Each tactic that the plugin offers."""
        found = []
        for combination in self._combinations():
            for desc, (type_, format_) in zip(self._in_out, combination, strict=True):
                desc.desc.type, desc.desc.format = type_, format_
            self._plugin.configure_plugin(self._inputs, self._outputs)
            # Where a plugin offers no tactic, TensorRT asks for its default one, 0.
            for tactic in self._plugin.get_valid_tactics() or [0]:
                self._plugin.set_tactic(tactic)
                found.append(self._launch(tactic, combination))
        return found

    def _combinations(self) -> list[list[Any]]:
        """Type and format combinations; the builder asks twice."""
        ask = self._plugin.get_supported_format_combinations
        first, second = (
            [(desc.type, desc.format) for desc in ask(self._in_out, len(self._inputs))]
            for _ in range(2)
        )
        if first != second:
            raise DryRunError(f"{self._op}: autotune answers one question in two ways.")
        size = len(self._in_out)
        return [first[i : i + size] for i in range(0, len(first), size)]

    def _launch(self, tactic: int, combination: Sequence[Any]) -> TacticReport:
        """``get_launch_params``, then ``get_kernel``."""
        holders = SimpleNamespace(), UserDict[int, Any]()
        asked = self._dims, self._in_out, len(self._inputs)
        self._plugin.get_launch_params(*asked, *holders, expression_builder())
        descs = ([desc.desc for desc in ds] for ds in (self._inputs, self._outputs))
        entry, code = self._plugin.get_kernel(*descs)
        _, _, params, extras = self._returned
        outputs, returned = self._plugin.output_descs, self._num_returned
        visible = combination[: len(self._inputs) + returned]

        def at(*shapes: Any) -> ShapeReport:
            dims = _in_profile(self._op, self._request.inputs, shapes)

            def values(*expressions: Any) -> tuple[int, ...]:
                return tuple(e._expr.value(dims) for e in expressions)

            return ShapeReport(
                name="",
                dims=dims,
                grid=values(params.grid_x, params.grid_y, params.grid_z),
                block=values(params.block_x, params.block_y, params.block_z),
                extras=values(*extras),
                outputs=tuple(values(*desc.shape_expr) for desc in outputs[:returned]),
                hidden=tuple(values(*desc.shape_expr) for desc in outputs[returned:]),
                shared_memory=params.shared_mem._expr.value(dims),
            )

        return TacticReport(
            tactic,
            dtypes=tuple(DType.of_tensorrt(type_).token for type_, _ in visible),
            formats=tuple(format_.name for _, format_ in visible),
            aliased=self._aliased,
            entry=entry,
            code=code.decode(),
            _launch=at,
        )


def _in_profile(
    op: str, inputs: Sequence[TensorInfo | None], shapes: Sequence[Any]
) -> Dims:
    """``shapes``, completed by static inputs; an error outside of the profile."""
    rest = [i for i in inputs[len(shapes) :] if i is None or not i.is_dynamic]
    given = (*shapes, *(info and info.shape for info in rest))
    dims = tuple(None if extents is None else tuple(extents) for extents in given)

    def holds(info: TensorInfo | None, extents: Any) -> bool:
        if info is None or extents is None:
            return info is extents
        return info.holds(extents)

    if len(dims) != len(inputs) or not all(map(holds, inputs, dims)):
        profile = [info and (info.at("min"), info.at("max")) for info in inputs]
        raise SpecError(
            f"{op}: the profile does not hold inputs of {list(dims)}. Its inputs, from "
            f"min to max: {profile}."
        )
    return dims


def _create(plugin: Plugin, request: Request) -> Any:
    """The plugin object; its attributes are in the schema's order."""
    import tensorrt as trt

    namespace, _, name = plugin.op.partition("::")
    creator = trt.get_plugin_registry().get_creator(name, "1", namespace)
    if creator is None:
        raise DryRunError(
            f"{plugin.op}: TensorRT has no such plugin. Register it first: "
            f"custom_op({plugin.op!r}, impl=...)."
        )
    fields = []
    for key, kind in plugin.attributes.items():
        value = kind.encode(request.attributes[key])
        if isinstance(value, str):
            type_, value = trt.PluginFieldType.CHAR, value.encode()
        else:
            dtype = value.dtype.name.upper().replace("BOOL", "INT8")
            type_ = getattr(trt.PluginFieldType, dtype)
        fields.append(trt.PluginField(key, value, type_))
    collection = trt.PluginFieldCollection(fields)
    when = trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.STRICT_AOT
    return creator.create_plugin(name, namespace, collection, *when)


def _extents(desc: Any, inputs: Sequence[TensorInfo]) -> tuple[int | Range, ...]:
    """An output's extents, from its expressions at the profile's min, opt and max."""
    corners = [tuple(i.at(which) for i in inputs) for which in ("min", "opt", "max")]
    return tuple(
        expr.constant_value()
        if expr.is_constant
        else Range(*sorted(expr._expr.value(corner) for corner in corners))
        for expr in desc.shape_expr
    )


def _tensor_desc(info: TensorInfo) -> Any:
    import tensorrt as trt

    desc = trt.DynamicPluginTensorDesc()
    desc.desc.type = DType.of(info.dtype).to_tensorrt()
    desc.desc.format = trt.TensorFormat.LINEAR
    desc.desc.dims = tuple(-1 if isinstance(e, Range) else e for e in info.shape)
    desc.min, desc.opt, desc.max = info.at("min"), info.at("opt"), info.at("max")
    return desc


# --- The stand-in for native expressions ----------------------------------------------


def dimensions(tensor: int, shape: Sequence[int | Range]) -> list[Any]:
    """The extents of input ``tensor`` as expressions; a known one is a constant."""
    stand_in = expression_builder()

    def dimension(axis: int) -> Any:
        if isinstance(extent := shape[axis], int):
            return stand_in.constant(extent)
        return stand_in.of(lambda dims: dims[tensor][axis])

    return list(map(dimension, range(len(shape))))


@cache
def expression_builder() -> Any:
    """What TensorRT passes to a plugin to make expressions with.

    It is the class ``_StandIn``, which needs TensorRT's bindings to be defined.
    """
    import tensorrt as trt

    kind = trt.DimensionOperation
    operations: dict[Any, Callable[[int, int], int]] = {
        **{kind.SUM: operator.add, kind.SUB: operator.sub, kind.PROD: operator.mul},
        **{kind.MAX: max, kind.MIN: min, kind.FLOOR_DIV: operator.floordiv},
        kind.CEIL_DIV: lambda a, b: -(-a // b),
        kind.EQUAL: lambda a, b: int(a == b),
        kind.LESS: lambda a, b: int(a < b),
    }

    class _StandIn(trt.IDimensionExpr):  # type: ignore[misc]
        """An expression that remembers how it was made; the class makes them.

        So one pass of the builder's calls gives the launch for every shape. Instances
        are made with ``__new__`` alone, since the native part is an abstract interface.
        """

        value: Callable[[Dims], int]
        known: int | None

        @classmethod
        def of(cls, value: Callable[[Dims], int], known: int | None = None) -> Any:
            expression = cls.__new__(cls)
            expression.value, expression.known = value, known
            return expression

        @classmethod
        def constant(cls, value: int) -> Any:
            return cls.of(lambda _: value, value)

        @classmethod
        def operation(cls, operation: Any, first: Any, second: Any) -> Any:
            function = operations[operation]
            if first.known is not None and second.known is not None:
                return cls.constant(function(first.known, second.known))
            return cls.of(lambda dims: function(first.value(dims), second.value(dims)))

        def is_constant(self) -> bool:
            return self.known is not None

        def get_constant_value(self) -> int | None:
            return self.known

        def is_size_tensor(self) -> bool:
            return False

    return _StandIn
