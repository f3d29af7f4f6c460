# SPDX-License-Identifier: BSD-3-Clause

"""All that Torch-TensorRT does with a model before TensorRT's builder, for real.

Export, lowering, partitioning and dispatch are its own, and the converter is this
project's. Only the network that the plugin layers are added to is a recording one.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from network import RecordingNetwork, convert_into, tensor

import torch_tensorrt
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema
from torch_tensorrt.dynamo.conversion.plugins._validators import _info

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@dataclass(frozen=True)
class PluginLayer:
    """A layer as the network got it, and the call in the graph that it came from."""

    op: str
    inputs: tuple[str, ...]
    plugin: Any
    aot: bool
    name: str
    tensors: tuple[TensorInfo, ...]
    attributes: Mapping[str, Any]

    @property
    def profile(self) -> list[torch_tensorrt.Input]:
        """The layer's inputs, as a dry run takes them."""
        return [as_input(tensor) for tensor in self.tensors]


def as_input(info: TensorInfo) -> torch_tensorrt.Input:
    """Dynamic extents of one range are one dimension, in all inputs."""
    if not any(isinstance(extent, Range) for extent in info.shape):
        return torch_tensorrt.Input(tuple(info.shape), dtype=info.dtype)
    corners = {
        f"{name}_shape": tuple(
            getattr(e, name) if isinstance(e, Range) else e for e in info.shape
        )
        for name in ("min", "opt", "max")
    }
    names = {
        axis: f"from_{extent.min}_to_{extent.max}"
        for axis, extent in enumerate(info.shape)
        if isinstance(extent, Range)
    }
    return torch_tensorrt.Input(**corners, dtype=info.dtype, shared_dims=names)


def plugin_layers(
    model: torch.nn.Module, inputs: Sequence[torch_tensorrt.Input]
) -> list[PluginLayer]:
    """The plugin layers of ``model``, which must become one engine, whole."""
    return layers_of(partitioned(model, inputs))


def layers_of(parts: torch.fx.GraphModule) -> list[PluginLayer]:
    """The plugin layers of the one engine in ``parts``."""
    ran = {n.target for n in parts.graph.nodes if n.op.startswith("call")}
    assert ran - {operator.getitem} == {"_run_on_acc_0"}, parts.graph
    engine = parts._run_on_acc_0
    recorder = Recorder(engine)
    names = [node.name for node in engine.graph.nodes if node.op == "placeholder"]
    recorder.run(*(tensor(name) for name in names))
    return recorder.layers


def partitioned(
    model: torch.nn.Module, inputs: Sequence[torch_tensorrt.Input]
) -> torch.fx.GraphModule:
    """What ``torch_tensorrt.compile`` would build engines of, and leave to PyTorch."""
    model = model.to(DEVICE).eval()
    with warnings.catch_warnings():
        # torch's, about code of its own and of Torch-TensorRT's.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        program = torch_tensorrt.dynamo.trace(model, list(inputs), device=DEVICE)
        return partition(program, inputs)


def partition(
    program: torch.export.ExportedProgram, inputs: Sequence[torch_tensorrt.Input]
) -> torch.fx.GraphModule:
    """The same, of an exported program."""
    return torch_tensorrt.dynamo.compile(
        program,
        list(inputs),
        min_block_size=1,
        dryrun=True,  # everything except conversion
        offload_module_to_cpu=not HAS_GPU,  # otherwise it asks for the GPU's memory
    )


class Recorder(torch.fx.Interpreter):
    """Walks an engine's graph as Torch-TensorRT's interpreter does.

    Calls of registered ops are converted. Of others it is only kept which they are.
    """

    def __init__(self, graph_module: torch.fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.network = RecordingNetwork()
        self.layers: list[PluginLayer] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        self.node = n
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is operator.getitem:
            return args[0][args[1]]
        schema = getattr(target, "_schema", None)
        if schema is None or schema.name not in registered:
            return tensor(self.node.name)
        result = convert_into(self.network, self.node, *args, **kwargs)
        layer = self.network.layers[-1]
        op = OpSchema.of(schema.name)
        values, attributes = op.bind(self.node.args, self.node.kwargs)
        self.layers.append(
            PluginLayer(
                op=schema.name,
                inputs=tuple(t.label for t in layer.inputs),
                plugin=layer.plugin,
                aot=layer.aot,
                name=layer.name,
                tensors=tuple(_info(op, value) for value in values),
                attributes=attributes,
            )
        )
        return result
