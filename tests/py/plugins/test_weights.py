# SPDX-License-Identifier: BSD-3-Clause

"""Weights: constants of the engine, between the inputs and the outputs of a launch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tensorrt as trt
import torch
import triton
import triton.language as tl
from kernels import launch_silu
from network import RecordingNetwork, convert_into, nodes, tensor

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DryRunError,
    DTypeError,
    SpecError,
)
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConversionContext import ConversionContext
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

ROWS = torch_tensorrt.Input(
    min_shape=(1, 96), opt_shape=(8, 96), max_shape=(64, 96), dtype=torch.float32
)
DTYPES = {
    torch.float32: trt.DataType.FLOAT,
    torch.float16: trt.DataType.HALF,
    torch.bfloat16: trt.DataType.BF16,
    torch.float8_e4m3fn: trt.DataType.FP8,
    torch.int8: trt.DataType.INT8,
    torch.int32: trt.DataType.INT32,
    torch.int64: trt.DataType.INT64,
    torch.bool: trt.DataType.BOOL,
}


@triton.jit
def scale_shift_kernel(
    x_ptr, scale_ptr, out_ptr, columns, shift_ptr, stride, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < columns
    x = tl.load(x_ptr + row * stride + offsets, mask=mask)
    scale = tl.load(scale_ptr + offsets, mask=mask).to(tl.float32)
    shift = tl.load(shift_ptr + offsets, mask=mask).to(tl.float32)
    tl.store(out_ptr + row * stride + offsets, x * scale + shift, mask=mask)


def launch_scale_shift(
    x: Any, scale: Any, shift: Any, out: Any, num_warps: int = 4
) -> None:
    rows, columns = x.shape
    scale_shift_kernel[(rows,)](
        x,
        scale,
        out,
        columns,
        shift,
        x.stride(0),
        BLOCK=triton.next_power_of_2(columns),
        num_warps=num_warps,
    )


def weight(dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (96,), generator=generator).to(dtype)


def register(scale: torch.Tensor, shift: torch.Tensor, **options: Any) -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_scale_shift, [{"num_warps": 1}, {"num_warps": 4}]),
        meta_impl=lambda x: torch.empty_like(x),
        scale=scale,
        shift=shift,
    )
    trt_plugins.custom_op(
        "conv::affine", impl=spec, supports_dynamic_shapes=True, **options
    )


class Affine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.conv.affine(torch.ops.conv.affine(x))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    DYNAMO_CONVERTERS.set_compilation_settings(CompilationSettings())
    yield


def test_the_op_takes_its_inputs_alone() -> None:
    register(weight(torch.float32), weight(torch.float16, 1))
    assert str(torch.ops.conv.affine.default._schema) == (
        "conv::affine(Tensor x) -> Tensor"
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_node_gets_its_weights_as_constants(dtype: torch.dtype) -> None:
    scale, shift = weight(dtype), weight(torch.float32, 1)
    register(scale, shift, replace=True)
    first, second = nodes(Affine(), torch.randn(2, 96))
    network = RecordingNetwork()
    convert_into(network, second, convert_into(network, first, tensor("x")))
    assert [c.name for c in network.constants] == [
        f"{node.name}_{name}" for node in (first, second) for name in ("scale", "shift")
    ]
    for constant, value in zip(network.constants, (scale, shift) * 2, strict=True):
        assert constant.shape == (96,)
        assert constant.weights.dtype == DTYPES[value.dtype]
        assert constant.weights.size == 96
    labels = [[t.label for t in layer.inputs] for layer in network.layers]
    assert labels[0] == ["x", f"{first.name}_scale", f"{first.name}_shift"]


def test_a_weight_is_not_copied() -> None:
    scale = weight(torch.float32)
    register(scale, weight(torch.float32, 1), replace=True)
    plugin = registered["conv::affine"].plugin
    assert plugin is not None
    assert plugin.weights["scale"].data_ptr() == scale.data_ptr()


def test_a_weight_that_is_not_contiguous_is_made_so() -> None:
    scale = torch.arange(192.0)[::2]
    register(scale, weight(torch.float32, 1), replace=True)
    plugin = registered["conv::affine"].plugin
    assert plugin is not None
    assert plugin.weights["scale"].is_contiguous()
    torch.testing.assert_close(plugin.weights["scale"], scale)


def test_an_engine_has_a_weight_as_it_is_when_it_is_built() -> None:
    scale = torch.zeros(192)[::2]  # whose contiguous copy does not follow it
    register(scale, weight(torch.float32, 1), replace=True)
    scale.fill_(3)
    node, _ = nodes(Affine(), torch.randn(2, 96))
    context = ConversionContext(RecordingNetwork())  # which keeps constants alive
    DYNAMO_CONVERTERS[node][0](context, node.target, (tensor("x"),), {}, node.name)
    assert set(context.net.constants[0].weights.numpy()) == {3}


def test_a_parameter_of_a_module_is_a_weight() -> None:
    parameter = torch.nn.Parameter(torch.ones(96))
    register(parameter, weight(torch.float32, 1), replace=True)
    plugin = registered["conv::affine"].plugin
    assert plugin is not None
    assert not plugin.weights["scale"].requires_grad


def test_the_kernel_takes_weights_after_the_inputs() -> None:
    register(weight(torch.float16), weight(torch.int8, 1), replace=True)
    report = tta.dry_run("conv::affine", [ROWS], "sm_90", strict=True)
    assert report.weights == ("scale", "shift")
    for tactic in report.tactics:
        assert tactic.dtypes == ("FP32", "FP16", "INT8", "FP32")
        assert [s.dims for s in tactic.shapes][:3] == [
            ((rows, 96), (96,), (96,)) for rows in (1, 8, 64)
        ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_weight_may_have_any_dtype_of_tensorrts(dtype: torch.dtype) -> None:
    register(weight(dtype), weight(torch.float32, 1), replace=True)
    assert tta.dry_run("conv::affine", [ROWS], "sm_90", strict=True).ok


def test_another_weight_is_another_plugin() -> None:
    register(weight(torch.float32), weight(torch.float32, 1), replace=True)
    before = registered["conv::affine"].identity
    register(weight(torch.float32), weight(torch.float32, 2), replace=True)
    assert registered["conv::affine"].identity != before


def test_a_dtype_that_tensorrt_has_no_constants_of_is_refused() -> None:
    with pytest.raises(SpecError, match="'scale': TensorRT has no constants of dtype"):
        register(weight(torch.uint8), weight(torch.float32), replace=True)
    with pytest.raises(DTypeError, match=r"torch\.float64"):
        register(weight(torch.float64), weight(torch.float32), replace=True)


def test_a_weight_with_the_name_of_an_input_is_refused() -> None:
    spec = tta.custom_plugin(
        tta.triton(lambda x, w, out: launch_silu(x, out)),
        meta_impl=lambda x: torch.empty_like(x),
        x=torch.ones(3),
    )
    with pytest.raises(SpecError, match="'x' is an argument of the op, and a"):
        trt_plugins.custom_op("conv::twice", impl=spec)


def test_an_ops_own_body_has_no_place_for_weights() -> None:
    spec = tta.custom_plugin(tta.triton(), W=torch.ones(3))
    with pytest.raises(SpecError, match="weight 'W': the op's own body takes"):
        trt_plugins.custom_op("conv::body", impl=spec)


def test_a_launch_function_without_place_for_a_weight_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_silu(x, out)

    meta = lambda x: torch.empty_like(x)  # noqa: E731
    spec = tta.custom_plugin(tta.triton(launch), meta, W=torch.ones(3))
    with pytest.raises(
        ArgumentError,
        match="called with 2 inputs, 1 ",
    ):
        trt_plugins.custom_op("conv::silu_w", impl=spec)


def test_a_report_that_needs_weights_says_so() -> None:
    register(weight(torch.float32), weight(torch.float32, 1), replace=True)
    report = tta.dry_run("conv::affine", [ROWS], "sm_90", execute=False)
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    with pytest.raises(DryRunError, match="its weights are scale, shift; got none"):
        tta.execute(report, lambda x: x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_tactic_reads_the_weights(dtype: torch.dtype) -> None:
    scale, shift = weight(dtype), weight(torch.float32, 1)
    register(scale, shift, replace=True)
    report = tta.dry_run(
        "conv::affine",
        [ROWS],
        reference=lambda x: x * scale.cuda().float() + shift.cuda(),
        strict=True,
    )
    assert report.best is not None
    x = torch.randn(7, 96, device="cuda")
    torch.testing.assert_close(
        torch.ops.conv.affine(x), x * scale.cuda().float() + shift.cuda()
    )
