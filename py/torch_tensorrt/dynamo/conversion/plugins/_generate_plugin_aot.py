"""Tactics -> TensorRT's autotune function and ahead-of-time implementation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._job import as_ours
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._tactics import Kernel, Plugin, Request
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation._translate import to_tensorrt
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    RedundantTactic,
    TacticWarning,
    UnsupportedKernelError,
)
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin import (
    named,
    shape_symbols,
)
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema

_LOGGER = logging.getLogger(__name__)


def register_aot(schema: OpSchema, plugin: Plugin) -> None:
    """Register autotune and ahead-of-time implementation of ``plugin``."""
    import tensorrt.plugin as trtp

    trtp.autotune(schema.op)(_autotune(schema, plugin))
    trtp.aot_impl(schema.op)(_aot_impl(schema, plugin))


def _autotune(schema: OpSchema, plugin: Plugin) -> Callable[..., Any]:
    import tensorrt.plugin as trtp

    def autotune(*args: Any) -> list[Any]:
        """TensorRT calls this twice, and ends the process if it raises."""
        try:
            return offered(*args)
        except Exception as error:  # no target: no tactic; and whatever else
            _warn(f"{schema.op}: {as_ours('autotune', error)}")
            return []

    def offered(*args: Any) -> list[Any]:
        """The network's own dtypes, with every tactic that has a kernel for them.

        Each tactic goes with the formats it was registered for.
        """
        descs, attributes, (outputs,) = schema.split(args, {})
        numbers: dict[tuple[str, ...], list[int]] = {}
        request = _request(descs, attributes)
        plugin.prepare(request)
        for tactic in plugin.tactics(request.inputs, attributes):
            try:
                kernel = plugin.kernel(tactic, request)
            except RedundantTactic:
                continue
            except AnnotationError as error:
                _warn(
                    f"{schema.op}: tactic {tactic.number} ({tactic.description}) is "
                    f"left out: {error}"
                )
            else:
                numbers.setdefault(kernel.record.formats, []).append(tactic.number)
        tokens = [_dtypes.from_tensorrt(d.dtype).token for d in (*descs, *outputs)]
        return [
            trtp.AutoTuneCombination(", ".join(tokens), ", ".join(formats), tactics)
            for formats, tactics in numbers.items()
        ]

    signature = schema.signature(
        trtp.TensorDesc,
        {"outputs": schema.outputs(trtp.TensorDesc)},
        list[trtp.AutoTuneCombination],
    )
    return named(autotune, schema.op, signature)


def _warn(message: str) -> None:
    try:
        warnings.warn(message, TacticWarning, stacklevel=3)
    except TacticWarning:  # warnings are errors, but autotune must not raise
        _LOGGER.warning(message)


def _aot_impl(schema: OpSchema, plugin: Plugin) -> Callable[..., Any]:
    import tensorrt.plugin as trtp

    def aot_impl(*args: Any) -> tuple[str, str | bytes, Any, Any]:
        descs, attributes, (outputs, number) = schema.split(args, {})
        request = _request(descs, attributes)
        kernel = plugin.kernel(plugin.tactic(number, request), request)
        formats = tuple(desc.format.name for desc in (*descs, *outputs))
        if formats != kernel.record.formats:
            raise UnsupportedKernelError(
                f"{schema.op}, tactic {number}: TensorRT asks for the formats "
                f"{formats}, and the kernel is for {kernel.record.formats}."
            )
        params, extras = _launch(kernel, shape_symbols(descs))
        return kernel.entry, kernel.code, params, extras

    returns = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    signature = schema.signature(
        trtp.TensorDesc,
        {"outputs": schema.outputs(trtp.TensorDesc), "tactic": int},
        returns,
    )
    return named(aot_impl, schema.op, signature)


def _request(descs: Sequence[Any], attributes: Mapping[str, Any]) -> Request:
    """What TensorRT says of its inputs: dtypes, extents, and ranges of the dynamic."""
    inputs = tuple(
        TensorInfo(_extents(desc.shape), _dtypes.from_tensorrt(desc.dtype).torch)
        for desc in descs
    )
    return Request(inputs, attributes, current_target())


def _extents(shape: Any) -> tuple[int | Range, ...]:
    if not shape.is_dynamic:
        return tuple(int(extent) for extent in shape)
    extents = zip(shape, shape.min, shape.opt, shape.max, strict=True)
    return tuple(
        Range(int(low), int(opt), int(high)) if extent == -1 else int(extent)
        for extent, low, opt, high in extents
    )


def _launch(kernel: Kernel, symbols: Mapping[sympy.Symbol, Any]) -> tuple[Any, Any]:
    import tensorrt.plugin as trtp

    ranges = kernel.record.ranges
    params = trtp.KernelLaunchParams()
    params.grid_x, params.grid_y, params.grid_z = (
        to_tensorrt(size, symbols, ranges) for size in kernel.compiled.grid
    )
    params.block_x, params.block_y, params.block_z = kernel.compiled.block
    params.shared_mem = kernel.compiled.shared_memory
    extras = trtp.SymIntExprs(len(kernel.compiled.extras))
    for index, expr in enumerate(kernel.compiled.extras):
        extras[index] = trtp.SymInt32(to_tensorrt(expr, symbols, ranges))
    return params, extras
