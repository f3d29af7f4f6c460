# SPDX-License-Identifier: BSD-3-Clause

"""Tactics -> TensorRT's autotune function and ahead-of-time implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_tensorrt.annotation import _tensors, errors
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._sizes.to_tensorrt import to_tensorrt
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._tensors import DType, TensorInfo

from ._generate_plugin import shape_symbols
from ._schema import OpSchema


def register_aot(schema: OpSchema, plugin: Plugin) -> None:
    """Register the autotune function and ahead-of-time implementation of a plugin."""
    import tensorrt.plugin as trtp

    op, desc = schema.op, trtp.TensorDesc

    def autotune(descs: Any, attributes: Any, outputs: Any) -> list[Any]:
        """TensorRT calls this twice, and ends the process if it raises."""
        try:
            return _combinations(plugin, descs, attributes, outputs)
        except Exception as error:  # there is no target, or something unexpected
            errors.warn(f"{op}: {errors.as_ours('autotune', error)}")
            return []

    def aot_impl(descs: Any, attributes: Any, outputs: Any, tactic: int) -> Any:
        found = plugin.tactic(tactic, _request(descs, attributes))
        kernel, program = found.kernel, found.program
        assert kernel is not None and program is not None
        formats = tuple(desc.format.name for desc in (*descs, *outputs))
        if formats != program.formats:
            raise errors.UnsupportedKernelError(
                f"{op}, tactic {tactic}: TensorRT asks for the formats {formats}, and "
                f"the kernel is for {program.formats}."
            )
        symbols, params = shape_symbols(descs), trtp.KernelLaunchParams()
        grid, extras = (
            [to_tensorrt(expr, symbols, program.ranges) for expr in exprs]
            for exprs in (kernel.grid, kernel.extras)
        )
        params.grid_x, params.grid_y, params.grid_z = grid
        params.block_x, params.block_y, params.block_z = kernel.block
        params.shared_mem = kernel.shared_memory
        extras = trtp.SymIntExprs.from_tuple(map(trtp.SymInt32, extras))
        return kernel.entry, kernel.code, params, extras

    outputs, combinations = schema.outputs(desc), list[trtp.AutoTuneCombination]
    trtp.autotune(op)(schema.adapter(autotune, desc, combinations, outputs=outputs))
    launch = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    adapted = schema.adapter(aot_impl, desc, launch, outputs=outputs, tactic=int)
    trtp.aot_impl(op)(adapted)


def _combinations(
    plugin: Plugin, descs: Any, attributes: Mapping[str, Any], outputs: Any
) -> list[Any]:
    """The network's own dtypes, with every tactic that has a kernel for them.

    Each tactic goes with the formats it was registered for.
    """
    import tensorrt.plugin as trtp

    numbers: dict[tuple[str, ...], list[int]] = {}
    for tactic in plugin.kernels(_request(descs, attributes)):
        if tactic.kernel is not None and tactic.program is not None:
            numbers.setdefault(tactic.program.formats, []).append(tactic.number)
        else:
            text = f"tactic {tactic.number} ({tactic.description}) is left out"
            errors.warn(f"{plugin.op}: {text}: {tactic.error}")
    tokens = [DType.of_tensorrt(d.dtype).token for d in (*descs, *outputs)]
    return [
        trtp.AutoTuneCombination(", ".join(tokens), ", ".join(formats), tactics)
        for formats, tactics in numbers.items()
    ]


def _request(descs: Sequence[Any], attributes: Mapping[str, Any]) -> Request:
    """What TensorRT knows of its inputs: dtypes, extents, and ranges of the dynamic."""
    return Request.of([_info(desc) for desc in descs], attributes, current_target())


def _info(desc: Any) -> TensorInfo | None:
    shape = desc.shape
    extents: list[_tensors.Extent] = [int(extent) for extent in shape]
    if shape.is_dynamic:
        for axis, ends in enumerate(zip(shape.min, shape.opt, shape.max, strict=True)):
            if extents[axis] == -1:
                extents[axis] = _tensors.Range(*map(int, ends))
    info = TensorInfo(tuple(extents), DType.of_tensorrt(desc.dtype).torch)
    return _tensors.from_plugin(info)
