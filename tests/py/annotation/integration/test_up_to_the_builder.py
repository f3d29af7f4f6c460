# SPDX-License-Identifier: BSD-3-Clause

"""Each model as far as it goes without TensorRT's builder."""

from __future__ import annotations

from typing import Any

import pytest
from models import Layer, Model, each_model
from up_to_the_builder import HAS_GPU, PluginLayer, plugin_layers

import torch_tensorrt.annotation as tta


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_GPU:
        monkeypatch.setenv("TTA_TARGET", "sm_90")


@each_model
def test_a_model_becomes_one_engine_with_its_ops_as_plugin_layers(model: Model) -> None:
    layers = plugin_layers(model.make(), model.inputs)
    assert [layer.op for layer in layers] == [layer.op for layer in model.layers]
    previous = ""
    for layer, expected in zip(layers, model.layers, strict=True):
        assert_is(layer, expected, previous)
        assert_passes_the_dry_run(layer, model.references[layer.op])
        previous = layer.name


def assert_is(layer: PluginLayer, expected: Layer, previous: str) -> None:
    namespace, _, name = expected.op.partition("::")
    plugin = layer.plugin
    assert layer.aot
    assert type(plugin).__name__ == "_TemplateAOTPlugin"
    assert (plugin.plugin_namespace, plugin.plugin_name) == (namespace, name)
    assert layer.name.startswith(f"[{namespace}.{name}.default]-[")
    node = layer.name.rpartition("[")[2].rstrip("]")
    names = [name.format(node=node, previous=previous) for name in expected.inputs]
    assert list(layer.inputs) == names
    assert layer.attributes == expected.attributes
    given = {name: value.tolist() for name, value in plugin.attrs.items()}
    assert given == {name: [value] for name, value in expected.attributes.items()}


def assert_passes_the_dry_run(layer: PluginLayer, reference: Any) -> None:
    report = tta.dry_run(
        layer.op,
        layer.profile,
        attributes=layer.attributes,
        reference=reference,
        strict=True,
    )
    assert report.ok
    assert report.tactics
    ran = {shape.ok for tactic in report.tactics for shape in tactic.shapes}
    assert ran <= ({True} if HAS_GPU else {True, None})  # interpreted, where it can be
