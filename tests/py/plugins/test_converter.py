# SPDX-License-Identifier: BSD-3-Clause

"""The converter: what it adds to a network for a node of an exported program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from kernels import BLOCKS, add_kernel, launch_add, launch_min_max, launch_silu
from network import convert, nodes, tensor, with_sequences

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation.errors import RegistrationError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import (
    DYNAMO_CONVERTERS,
    ConverterPriority,
)


def silu_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def register_silu(**options: Any) -> None:
    spec = tta.custom_plugin(tta.triton(launch_silu, BLOCKS), meta_impl=silu_meta)
    trt_plugins.custom_op("conv::silu", impl=spec, **options)


class Silu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.conv.silu(x) + 1


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    DYNAMO_CONVERTERS.set_compilation_settings(CompilationSettings())
    yield


def test_a_node_becomes_one_ahead_of_time_plugin_layer() -> None:
    register_silu()
    (node,) = nodes(Silu(), torch.randn(2, 3))
    layer, output = convert(node, tensor("x"))
    assert layer.aot
    assert type(layer.plugin).__name__ == "_TemplateAOTPlugin"
    assert [t.label for t in layer.inputs] == ["x"]
    assert output.label == f"{layer.name}:0"


def test_the_layers_name_says_which_node_it_came_from() -> None:
    register_silu()
    (node,) = nodes(Silu(), torch.randn(2, 3))
    layer, _ = convert(node, tensor("x"))
    assert layer.name == f"[{node.target}]-[{node.name}]"


def test_the_python_implementation_is_used_where_it_is_asked_for() -> None:
    register_silu(use_aot_if_available=False)
    (node,) = nodes(Silu(), torch.randn(2, 3))
    layer, _ = convert(node, tensor("x"))
    assert type(layer.plugin).__name__ == "_TemplateJITPlugin"


def test_a_node_of_dynamic_shape_is_converted_only_if_that_was_registered() -> None:
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    register_silu()
    (node,) = nodes(Silu(), torch.randn(4, 3), dynamic_shapes=dynamic)
    assert DYNAMO_CONVERTERS.get(node) is None
    register_silu(supports_dynamic_shapes=True, replace=True)
    (node,) = nodes(Silu(), torch.randn(4, 3), dynamic_shapes=dynamic)
    assert DYNAMO_CONVERTERS.get(node) is not None


def test_a_node_is_converted_only_if_the_validator_says_so() -> None:
    register_silu(capability_validator=lambda node, settings: False)
    (node,) = nodes(Silu(), torch.randn(2, 3))
    assert DYNAMO_CONVERTERS.get(node) is None


def test_several_outputs_come_as_a_tuple() -> None:
    def meta(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_min_max), meta_impl=meta)
    trt_plugins.custom_op("conv::min_max", impl=spec)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return torch.ops.conv.min_max(x)  # type: ignore[no-any-return]

    (node,) = nodes(Module(), torch.randn(2, 3))
    layer, outputs = convert(node, tensor("x"))
    assert [t.label for t in outputs] == [f"{layer.name}:0", f"{layer.name}:1"]


def launch_axpy(
    x: Any, y: Any, out: Any, alpha: float, k: int, flag: bool, mode: str
) -> None:
    launch_add(x, y, out, BLOCK=256 * k)


def register_axpy() -> None:
    def meta(
        x: torch.Tensor,
        alpha: float,
        y: torch.Tensor,
        k: int = 2,
        flag: bool = True,
        mode: str = "fast",
    ) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_axpy), meta_impl=meta)
    trt_plugins.custom_op("conv::axpy", impl=spec)


class Axpy(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.conv.axpy(x, 0.5, y=y, flag=False)  # type: ignore[no-any-return]


@with_sequences
def test_arguments_are_taken_by_position_keyword_and_default() -> None:
    register_axpy()
    (node,) = nodes(Axpy(), torch.randn(2, 3), torch.randn(2, 3))
    layer, _ = convert(node, tensor("x"), 0.5, y=tensor("y"), flag=False)
    assert [t.label for t in layer.inputs] == ["x", "y"]
    values = {
        name: value if isinstance(value, str) else value.tolist()
        for name, value in layer.plugin.attrs.items()
    }
    assert values == {"alpha": [0.5], "k": [2], "flag": [False], "mode": "fast"}


@with_sequences
def test_numpy_scalars_are_attributes_like_any_other() -> None:
    register_axpy()
    (node,) = nodes(Axpy(), torch.randn(2, 3), torch.randn(2, 3))
    layer, _ = convert(node, tensor("x"), np.float32(0.25), tensor("y"), np.int64(3))
    assert layer.plugin.attrs["alpha"].tolist() == [0.25]
    assert layer.plugin.attrs["k"].tolist() == [3]


@with_sequences
def test_a_missing_argument_is_named() -> None:
    register_axpy()
    (node,) = nodes(Axpy(), torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(RegistrationError, match=r"conv::axpy: called without y"):
        convert(node, tensor("x"), 0.5)


@with_sequences
def test_attributes_reach_the_launch_function() -> None:
    register_axpy()
    x = torch.empty(2048)
    grids = [
        tta.dry_run(
            "conv::axpy",
            [x, x],
            "sm_90",
            attributes={"alpha": 0.5, "k": k, "flag": True, "mode": "fast"},
        )
        .tactics[0]
        .shapes[0]
        .grid[0]
        for k in (1, 4)
    ]
    assert grids == [8, 2]


@torch.library.custom_op("conv::window", mutates_args=())
def window(
    x: torch.Tensor,
    sizes: Sequence[int],
    eps: float | None,
    mask: Sequence[bool],
) -> torch.Tensor:
    raise NotImplementedError


@window.register_fake
def _(x: torch.Tensor, sizes: Any, eps: Any, mask: Any) -> torch.Tensor:
    return x.new_empty(*sizes)


class Window(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return window(x, [2, 8], None, [False])  # type: ignore[no-any-return]


@with_sequences
def test_lists_and_optionals_reach_the_launch_function() -> None:
    seen: list[Any] = []

    def launch(x: Any, out: Any, sizes: Any, eps: Any, mask: Any) -> None:
        seen[:] = [sizes, eps, mask]
        launch_silu(out, out)

    trt_plugins.custom_op("conv::window", impl=tta.triton(launch))
    (node,) = nodes(Window(), torch.randn(4, 4))
    layer, _ = convert(node, tensor("x"), *node.args[1:])
    values = {name: value.tolist() for name, value in layer.plugin.attrs.items()}
    assert values == {"sizes": [1, 2, 8], "eps": [0.0], "mask": [1, 0]}
    attributes = {"sizes": [2, 8], "eps": None, "mask": [False]}
    x = torch.empty(4, 4)
    report = tta.dry_run(
        "conv::window", [x], "sm_90", attributes=attributes, execute=False
    )
    assert seen == [[2, 8], None, [False]]
    assert report.tactics[0].shapes[0].outputs == ((2, 8),)
    tta.dry_run(
        "conv::window",
        [x],
        "sm_90",
        attributes={**attributes, "eps": 0.5},
        execute=False,
    )
    assert seen[1] == 0.5


@with_sequences
def test_an_attribute_that_varies_at_run_time_is_refused() -> None:
    register_axpy()
    (node,) = nodes(Axpy(), torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(RegistrationError, match=r"`alpha`: .* must be a float"):
        convert(node, tensor("x"), tensor("alpha"), tensor("y"))


def test_a_high_priority_converter_goes_first() -> None:
    def launch(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, 5, out, BLOCK=16)

    library = torch.library.Library("conv", "FRAGMENT")
    library.define("known(Tensor x) -> Tensor")
    torch.library.register_fake("conv::known", torch.empty_like, lib=library)
    try:
        trt_plugins.custom_op(
            "conv::known",
            impl=tta.triton(launch_silu),
            priority=ConverterPriority.HIGH,
        )
        overload = torch.ops.conv.known.default
        assert len(DYNAMO_CONVERTERS.get_all_converters_with_target(overload)[0]) == 1
    finally:
        library._destroy()


def test_a_converter_without_a_plugin_is_refused() -> None:
    with pytest.raises(RegistrationError, match="no TensorRT plugin of this name"):
        trt_plugins.generate_plugin_converter("aten::relu")
