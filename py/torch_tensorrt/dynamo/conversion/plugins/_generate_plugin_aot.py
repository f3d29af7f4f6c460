# SPDX-License-Identifier: BSD-3-Clause

"""Tactics -> TensorRT's autotune function and ahead-of-time implementation."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch_tensorrt.annotation import _tensors, errors
from torch_tensorrt.annotation._hidden import in_words
from torch_tensorrt.annotation._plugin import HiddenOutputs, Plugin, Request, Tactic
from torch_tensorrt.annotation._sizes.expressions import on_ints
from torch_tensorrt.annotation._sizes.to_tensorrt import to_tensorrt
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._tensors import DType, TensorInfo

from . import _callbacks
from ._generate_plugin import shape_symbols
from ._schema import OpSchema


def register_aot(schema: OpSchema, plugin: Plugin, hidden: HiddenOutputs) -> None:
    """Register the autotune function and ahead-of-time implementation of a plugin.

    Args:
        hidden: outputs of the plugin that follow those of the op.
    """
    autotune = functools.partial(_combinations, plugin, hidden)
    aot_impl = functools.partial(_launch, plugin, hidden)
    _callbacks.register(schema, aot_impl, autotune, hidden.count)


def _launch(
    plugin: Plugin,
    hidden: HiddenOutputs,
    descs: Any,
    attributes: Any,
    outputs: Any,
    tactic: int,
) -> Any:
    import tensorrt.plugin as trtp

    op, found = plugin.op, plugin.tactic(tactic, _request(descs, attributes))
    if obstacle := _obstacle(found, hidden, descs, outputs):
        raise errors.UnsupportedKernelError(f"{op}, tactic {tactic}: {obstacle}")
    places, program = hidden.places(found), found.program
    assert found.kernel is not None and program is not None and places is not None
    kernel = found.kernel.placed(places, hidden.count, len(program.aliased))
    formats = tuple(desc.format.name for desc in (*descs, *outputs))
    if formats != (wanted := _formats(found, hidden)):
        raise errors.UnsupportedKernelError(
            f"{op}, tactic {tactic}: TensorRT asks for the formats {formats}, and "
            f"the kernel is for {wanted}."
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


_LATE = (
    "its kernel needs a buffer that the op does not return, and did not need it at the "
    "inputs that the plugin was made for. Compile the model once more in this process."
)


def _obstacle(
    tactic: Tactic, hidden: HiddenOutputs, descs: Sequence[Any], outputs: Sequence[Any]
) -> str:
    """Why a plugin object cannot launch a tactic; empty where it can.

    TensorRT's own sizes of the hidden outputs are compared with what the launch needs,
    in case it knows other extents now than when it asked for the outputs.
    """
    if (places := hidden.places(tactic)) is None:
        return _LATE
    assert tactic.program is not None, "it was compiled"
    given = outputs[len(outputs) - hidden.count :]
    for corner in ("min", "opt", "max") if places else ():
        extents = _tensors.by_symbol(_extents(desc.shape, corner) for desc in descs)
        for index, place in places.items():
            shape = in_words(tactic.buffers[index])
            needed = math.prod(on_ints(extent)(extents) for extent in shape)
            if needed > math.prod(_extents(given[place].shape, corner)):
                return (
                    f"its kernel needs a buffer of {needed} words at the profile's "
                    f"{corner}, and TensorRT allocates less. Make the dimensions "
                    "static."
                )
    return ""


def _extents(shape: Any, corner: str) -> list[int]:
    return list(map(int, getattr(shape, corner) if shape.is_dynamic else shape))


def _formats(tactic: Tactic, hidden: HiddenOutputs) -> tuple[str, ...]:
    """Of all tensors of the plugin; hidden outputs are row-major."""
    assert tactic.program is not None, "it was compiled"
    return (*tactic.program.formats, *["LINEAR"] * hidden.count)


def _combinations(
    plugin: Plugin,
    hidden: HiddenOutputs,
    descs: Any,
    attributes: Mapping[str, Any],
    outputs: Any,
) -> list[Any]:
    """The network's own dtypes, with every tactic that has a kernel for them.

    Each tactic goes with the formats it was registered for.
    """
    import tensorrt.plugin as trtp

    numbers: dict[tuple[str, ...], list[int]] = {}
    for tactic in plugin.kernels(_request(descs, attributes)):
        why = tactic.error or _obstacle(tactic, hidden, descs, outputs)
        if not why:
            numbers.setdefault(_formats(tactic, hidden), []).append(tactic.number)
        else:
            text = f"tactic {tactic.number} ({tactic.description}) is left out"
            errors.warn(f"{plugin.op}: {text}: {why}")
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
