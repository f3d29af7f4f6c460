# SPDX-License-Identifier: BSD-3-Clause

"""TensorRT's network cannot exist without its builder: a stand-in that keeps what it
is asked to add, and the dispatch of nodes to converters as Torch-TensorRT does it."""

from __future__ import annotations

from typing import Any

import pytest
import tensorrt as trt
import torch

from torch_tensorrt.dynamo.conversion._ConversionContext import ConversionContext
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion.plugins import _qdp

with_sequences = pytest.mark.skipif(
    not _qdp.passes_sequences(),
    reason="this TensorRT garbles attributes of several elements",
)


class FakeTensor(trt.ITensor):  # type: ignore[misc]
    """An ``ITensor`` without a network: made with ``__new__`` alone."""

    label: str


def tensor(label: str) -> Any:
    made = FakeTensor.__new__(FakeTensor)
    made.label = label
    return made


class RecordedLayer:
    def __init__(self, inputs: list[Any], plugin: Any, aot: bool) -> None:
        self.inputs, self.plugin, self.aot = inputs, plugin, aot
        self.name = ""

    def get_output(self, index: int) -> Any:
        return tensor(f"{self.name}:{index}")


class RecordedConstant:
    def __init__(self, shape: Any, weights: Any) -> None:
        self.shape, self.weights = tuple(shape), weights
        self.name = ""

    def get_output(self, index: int) -> Any:
        return tensor(self.name)


class RecordingNetwork:
    """Creates each plugin as ``INetworkDefinition.add_plugin`` does, and keeps it."""

    def __init__(self) -> None:
        self.layers: list[RecordedLayer] = []
        self.constants: list[RecordedConstant] = []
        self.copies: list[RecordedLayer] = []

    def add_constant(self, shape: Any, weights: Any) -> RecordedConstant:
        self.constants.append(RecordedConstant(shape, weights))
        return self.constants[-1]

    def add_identity(self, tensor: Any) -> RecordedLayer:
        self.copies.append(RecordedLayer([tensor], None, False))
        return self.copies[-1]

    def add_plugin(self, create: Any, aot: bool) -> RecordedLayer:
        kind = trt.QuickPluginCreationRequest
        inputs, _, plugin = create(kind.STRICT_AOT if aot else kind.STRICT_JIT)
        self.layers.append(RecordedLayer(inputs, plugin, aot))
        return self.layers[-1]


def nodes(module: torch.nn.Module, *args: Any, **export: Any) -> list[Any]:
    """The calls of this test's ops, in namespace ``conv``, in the exported module."""
    program = torch.export.export(module, args, **export)
    return [n for n in program.graph.nodes if "conv." in str(n.target)]


def convert(node: Any, *args: Any, **kwargs: Any) -> tuple[RecordedLayer, Any]:
    """Dispatch ``node`` as Torch-TensorRT does, and convert it."""
    network = RecordingNetwork()
    result = convert_into(network, node, *args, **kwargs)
    (layer,) = network.layers
    return layer, result


def convert_into(
    network: RecordingNetwork, node: Any, *args: Any, **kwargs: Any
) -> Any:
    converter, _, _ = DYNAMO_CONVERTERS[node]
    context = ConversionContext(network)
    return converter(context, node.target, args, kwargs, node.name)
