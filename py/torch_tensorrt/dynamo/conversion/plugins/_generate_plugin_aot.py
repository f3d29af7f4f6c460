# SPDX-License-Identifier: BSD-3-Clause

"""Tactics -> TensorRT's autotune function and ahead-of-time implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._sizes.to_tensorrt import to_tensorrt
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._tensors import DType, Range, TensorInfo, from_plugin
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin import shape_symbols
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema


def register_aot(schema: OpSchema, plugin: Plugin) -> None:
    """Register the autotune function and ahead-of-time implementation of a plugin."""
    import tensorrt.plugin as trtp

    op, desc = schema.op, trtp.TensorDesc
    trailing = {"outputs": schema.outputs(desc)}

    def autotune(*args: Any) -> list[Any]:
        """TensorRT calls this twice, and ends the process if it raises."""
        try:
            return _combinations(plugin, *schema.split(args, {}))
        except Exception as error:  # there is no target, or something unexpected
            ours = errors.as_ours("autotune", error)
            errors.warn(f"{op}: {ours}", errors.TacticWarning)
            return []

    def aot_impl(*args: Any) -> tuple[str, str | bytes, Any, Any]:
        descs, attributes, (outputs, number) = schema.split(args, {})
        tactic = plugin.tactic(number, _request(descs, attributes))
        kernel, program = tactic.kernel, tactic.program
        assert kernel is not None and program is not None
        formats = tuple(desc.format.name for desc in (*descs, *outputs))
        if formats != program.formats:
            raise errors.UnsupportedKernelError(
                f"{op}, tactic {number}: TensorRT asks for the formats {formats}, and "
                f"the kernel is for {program.formats}."
            )
        symbols, params = shape_symbols(descs), trtp.KernelLaunchParams()
        params.grid_x, params.grid_y, params.grid_z = (
            to_tensorrt(size, symbols, program.ranges) for size in kernel.grid
        )
        params.block_x, params.block_y, params.block_z = kernel.block
        params.shared_mem = kernel.shared_memory
        extras = trtp.SymIntExprs(len(kernel.extras))
        for index, expr in enumerate(kernel.extras):
            extras[index] = trtp.SymInt32(to_tensorrt(expr, symbols, program.ranges))
        return kernel.entry, kernel.code, params, extras

    combinations = list[trtp.AutoTuneCombination]
    trtp.autotune(op)(schema.adapter(autotune, desc, trailing, combinations))
    launch = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    trailing = {**trailing, "tactic": int}
    trtp.aot_impl(op)(schema.adapter(aot_impl, desc, trailing, launch))


def _combinations(
    plugin: Plugin, descs: Any, attributes: Mapping[str, Any], rest: Any
) -> list[Any]:
    """The network's own dtypes, with every tactic that has a kernel for them.

    Each tactic goes with the formats it was registered for.
    """
    import tensorrt.plugin as trtp

    numbers: dict[tuple[str, ...], list[int]] = {}
    for tactic in plugin.kernels(_request(descs, attributes)):
        if tactic.program is not None and tactic.kernel is not None:
            numbers.setdefault(tactic.program.formats, []).append(tactic.number)
            continue
        text = f"tactic {tactic.number} ({tactic.description}) is left out"
        errors.warn(f"{plugin.op}: {text}: {tactic.error}", errors.TacticWarning)
    (outputs,) = rest
    tokens = [DType.of_tensorrt(d.dtype).token for d in (*descs, *outputs)]
    return [
        trtp.AutoTuneCombination(", ".join(tokens), ", ".join(formats), tactics)
        for formats, tactics in numbers.items()
    ]


def _request(descs: Sequence[Any], attributes: Mapping[str, Any]) -> Request:
    """What TensorRT knows of its inputs: dtypes, extents, and ranges of the dynamic."""
    inputs = (
        TensorInfo(_extents(desc.shape), DType.of_tensorrt(desc.dtype).torch)
        for desc in descs
    )
    return Request.of(tuple(map(from_plugin, inputs)), attributes, current_target())


def _extents(shape: Any) -> tuple[int | Range, ...]:
    if not shape.is_dynamic:
        return tuple(int(extent) for extent in shape)
    extents = zip(shape, shape.min, shape.opt, shape.max, strict=True)
    return tuple(
        Range(int(low), int(opt), int(high)) if extent == -1 else int(extent)
        for extent, low, opt, high in extents
    )
