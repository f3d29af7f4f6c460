# SPDX-License-Identifier: BSD-3-Clause

"""The descriptor: the shapes and dtypes of a plugin's outputs, for TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from tensorrt.plugin._lib import QDP_REGISTRY
from torch_ops import torch_op
from values import info

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run.builder import dimensions, expression_builder
from torch_tensorrt.annotation._tensors import DType, Extent, Range, TensorInfo
from torch_tensorrt.annotation.errors import ArgumentError, RegistrationError
from torch_tensorrt.dynamo.conversion.plugins import _qdp

B = Range(1, 8, 64)


def create(op: str, **attributes: Any) -> Any:
    """The plugin's Python implementation, as TensorRT's registry creates it."""
    namespace, name = op.split("::")
    creator = trt.get_plugin_registry().get_creator(name, "1", namespace)
    kinds = {
        float: trt.PluginFieldType.FLOAT64,
        int: trt.PluginFieldType.INT64,
        bool: trt.PluginFieldType.INT8,
    }
    fields = [
        trt.PluginField(n, np.array([v]), kinds[type(v)]) for n, v in attributes.items()
    ]
    return creator.create_plugin(
        name,
        namespace,
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_JIT,
    )


def output_dtypes(plugin: Any, inputs: Sequence[TensorInfo]) -> list[Any]:
    types = [DType.of(tensor.dtype).to_tensorrt() for tensor in inputs]
    result = plugin.get_output_data_types(types, [len(t.shape) for t in inputs])
    return list(result)


def output_shapes(
    plugin: Any, inputs: Sequence[TensorInfo], extents: tuple[tuple[int, ...], ...]
) -> list[tuple[int, ...]]:
    """The shapes TensorRT computes from the plugin's expressions for ``extents``."""
    output_dtypes(plugin, inputs)
    dims = [dimensions(i, tensor.shape) for i, tensor in enumerate(inputs)]
    plugin.get_output_shapes(dims, [], expression_builder())
    return [
        tuple(expr._expr.value(extents) for expr in desc.shape_expr)
        for desc in plugin.output_descs
    ]


def described(
    schema: str,
    fake: Callable[..., Any],
    inputs: Sequence[TensorInfo],
    extents: tuple[tuple[int, ...], ...],
    **attributes: Any,
) -> tuple[list[Any], list[tuple[int, ...]]]:
    with torch_op(schema, fake) as op:
        trt_plugins.generate_plugin(op)
        plugin = create(op, **attributes)
        return output_dtypes(plugin, inputs), output_shapes(plugin, inputs, extents)


def test_output_dtypes_come_from_the_fake_kernel_and_not_from_input_0() -> None:
    dtypes, _ = described(
        "a(Tensor x, Tensor y) -> (Tensor, Tensor, Tensor)",
        lambda x, y: (x.new_empty(3), y.new_empty(3), x.to(torch.int64)),
        [info(4), info(4, dtype=torch.bfloat16)],
        ((4,), (4,)),
    )
    assert dtypes == [trt.float16, trt.bfloat16, trt.int64]


SHAPES: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda x: torch.empty_like(x), (6, 10)),
    (lambda x: x.new_empty(x.shape[1], x.shape[0]), (10, 6)),
    (lambda x: x.new_empty(2 * x.shape[0], 7 + x.shape[1]), (12, 17)),
    (lambda x: x.new_empty(x.shape[0] * x.shape[1]), (60,)),
    (lambda x: x.new_empty((x.shape[0] + 3) // 4), (2,)),
    (lambda x: x.new_empty(x.shape[0] % 4, 5), (2, 5)),
    (lambda x: x.new_empty(torch.sym_max(x.shape[0], x.shape[1])), (10,)),
    (lambda x: x.sum(0), (10,)),
    (lambda x: x.sum(), ()),
    (lambda x: x.unsqueeze(0).expand(3, -1, -1), (3, 6, 10)),
]


@pytest.mark.parametrize("shape", [(B, Range(1, 9, 99)), (6, 10), (B, 10)], ids=str)
@pytest.mark.parametrize(("fake", "expected"), SHAPES, ids=range(len(SHAPES)))
def test_output_shapes_follow_the_fake_kernel(
    fake: Callable[[Any], Any], expected: tuple[int, ...], shape: tuple[Extent, ...]
) -> None:
    _, (found,) = described(
        "b(Tensor x) -> Tensor", fake, [TensorInfo(shape, torch.float32)], ((6, 10),)
    )
    assert found == expected


def test_two_inputs_of_unknown_extents_may_be_added() -> None:
    _, (found,) = described(
        "c(Tensor x, Tensor y) -> Tensor",
        lambda x, y: x + y,
        [info(B, 4), info(B, 4)],
        ((6, 4), (6, 4)),
    )
    assert found == (6, 4)


def test_what_the_fake_kernel_insists_on_is_the_ops_contract() -> None:
    def fake(x: Any) -> Any:
        assert x.shape[1] == 4096
        return x.view(-1, 2, 4096).sum(1)

    dtypes, (found,) = described(
        "n(Tensor x) -> Tensor", fake, [info(B, 4096)], ((6, 4096),)
    )
    assert dtypes == [trt.float16]
    assert found == (3, 4096)


def test_attributes_reach_the_fake_kernel_as_python_scalars() -> None:
    seen: list[tuple[Any, ...]] = []

    def fake(x: Any, k: Any, y: Any, scale: Any, flag: Any) -> Any:
        seen.append((k, scale, flag))
        return x.new_empty(x.shape[0], k)

    _, (found,) = described(
        "d(Tensor x, int k, Tensor y, float scale=1.5, bool flag=True) -> Tensor",
        fake,
        [info(B, 4), info(B, 4)],
        ((6, 4), (6, 4)),
        k=3,
        scale=2.5,
        flag=False,
    )
    assert found == (6, 3)
    assert {(*one, *map(type, one)) for one in seen} == {
        (3, 2.5, False, int, float, bool)
    }


def test_a_fake_kernel_is_never_run_on_another_ops_behalf() -> None:
    with (
        torch_op("e(Tensor x) -> Tensor", lambda x: x.new_empty(3)) as first,
        torch_op("f(Tensor x) -> Tensor", lambda x: x.new_empty(5)) as second,
    ):
        trt_plugins.generate_plugin(first)
        trt_plugins.generate_plugin(second)
        shapes = [
            output_shapes(create(op), [info(4)], ((4,),)) for op in (first, second)
        ]
    assert shapes == [[(3,)], [(5,)]]


@pytest.mark.parametrize("type_", ["str[]", "Tensor?[]", "str?", "Tensor[]", "Layout"])
def test_a_type_without_counterpart_is_refused_by_name(type_: str) -> None:
    with (
        torch_op(f"g(Tensor x, {type_} other) -> Tensor", lambda x, other: x) as op,
        pytest.raises(RegistrationError, match=r"gen::g, argument `other`: "),
    ):
        trt_plugins.generate_plugin(op)


@pytest.mark.parametrize("returned", ["Tensor[]", "int", "(Tensor, int)", "()"])
def test_an_op_that_does_not_return_tensors_is_refused(returned: str) -> None:
    with (
        torch_op(f"g(Tensor x) -> {returned}", lambda x: x) as op,
        pytest.raises(RegistrationError, match=r"gen::g: the op returns .*number of"),
    ):
        trt_plugins.generate_plugin(op)


def test_an_op_without_tensors_is_refused() -> None:
    with (
        torch_op("h(int k) -> Tensor", lambda k: torch.empty(k)) as op,
        pytest.raises(RegistrationError, match="needs at least one tensor input"),
    ):
        trt_plugins.generate_plugin(op)


def test_a_second_plugin_of_the_same_name_is_refused() -> None:
    with torch_op("i(Tensor x) -> Tensor", torch.clone) as op:
        trt_plugins.generate_plugin(op)
        with pytest.raises(
            RegistrationError, match="has a plugin of this name already"
        ):
            trt_plugins.generate_plugin(op)


def test_the_adapters_have_signatures_and_no_generated_source() -> None:
    with torch_op("j(Tensor x, float scale) -> Tensor", lambda x, scale: x) as op:
        trt_plugins.generate_plugin(op)
        definition = QDP_REGISTRY[op]
        for function in (definition.register_func, definition.impl_func):
            assert function.__code__.co_filename.endswith("_schema.py")
        assert definition.input_tensor_names == ["x"]
        assert definition.impl_attr_names == ["scale"]


def device_tensor(tensor: torch.Tensor) -> Any:
    """A ``trtp.Tensor`` of this memory, as TensorRT hands one to an implementation."""
    result = trtp.Tensor()
    result.dtype = DType.of(tensor.dtype).to_tensorrt()
    result.shape = trtp.Shape(tuple(tensor.shape))
    result.format = trt.TensorFormat.LINEAR
    result.strides = tensor.stride()
    result.data_ptr = tensor.data_ptr()
    return result


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_python_implementation_runs_the_op_on_the_plugins_memory(
    dtype: torch.dtype,
) -> None:
    library = torch.library.Library("gen", "FRAGMENT")
    library.define("k(Tensor x, float scale) -> Tensor")
    library.impl("k", lambda x, scale: x * scale, "CUDA")
    torch.library.register_fake("gen::k", lambda x, scale: x * scale, lib=library)
    try:
        trt_plugins.generate_plugin("gen::k")
        x = torch.randn(5, 7, device="cuda").to(dtype)
        out = torch.full_like(x, float("nan"))
        stream = torch.cuda.current_stream().cuda_stream
        QDP_REGISTRY["gen::k"].impl_func(
            device_tensor(x), np.array([2.0]), [device_tensor(out)], stream=stream
        )
        torch.cuda.synchronize()
        torch.testing.assert_close(out, x * 2)
    finally:
        _qdp.forget("gen::k")
        library._destroy()


@pytest.mark.parametrize("version", ["10.8.0.43", "10.14.1.48"])
def test_a_tensorrt_without_usable_plugins_is_refused(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorrt.__version__", version)
    with pytest.raises(RegistrationError, match=f"TensorRT {version} has no usable"):
        _qdp.require_available()


@pytest.mark.parametrize("version", ["10.9.0.34", "10.15.1.29", "11.0.0.114"])
def test_every_other_tensorrt_is_taken(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorrt.__version__", version)
    _qdp.require_available()


@pytest.mark.parametrize(
    "argument", ['str mode="fast"', "int[] mode", "float? mode=None"]
)
def test_an_attribute_is_refused_where_tensorrt_would_garble_it(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FieldOf1015(trt.PluginField):  # type: ignore[misc]
        """Reads back as TensorRT 10.15's does: the first element, repeated."""

        @property
        def data(self) -> Any:
            data = super().data
            return np.full_like(data, data[0])

    monkeypatch.setattr("tensorrt.PluginField", FieldOf1015)
    expected = r"gen::mode, argument `mode`: TensorRT .* repeats the first element"
    schema = f"mode(Tensor x, {argument}) -> Tensor"
    with torch_op(schema, lambda x, mode: torch.empty_like(x)) as op:
        with pytest.raises(RegistrationError, match=expected):
            trt_plugins.generate_plugin(op)
        assert op not in QDP_REGISTRY


def test_an_error_about_a_size_names_the_tensor() -> None:
    def fake(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(x.shape[0] ** 9)

    with torch_op("power(Tensor x) -> Tensor", fake) as op:
        trt_plugins.generate_plugin(op)
        with pytest.raises(ArgumentError, match=r"x\.shape\[0\]"):
            output_shapes(create(op), [info(B)], ((1,),))
