# SPDX-License-Identifier: BSD-3-Clause

"""Tensor arguments that may be None: a kernel for each way an op is called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from network import convert, nodes, tensor

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._tensors import ABSENT
from torch_tensorrt.annotation.errors import RegistrationError, SpecError
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS


@triton.jit
def biased_kernel(x, bias, out, n, columns, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + offsets, offsets < n)
    if bias is not None:
        value += tl.load(bias + offsets % columns, offsets < n)
    tl.store(out + offsets, 2 * value, offsets < n)


def launch_biased(x: Any, bias: Any, out: Any, BLOCK: int = 256) -> None:
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    biased_kernel[grid](x, bias, out, n, x.shape[-1], BLOCK=BLOCK)


def meta(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.empty_like(x)


def reference(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return 2 * (x if bias is None else x + bias)


def register(**options: Any) -> None:
    impl = tta.custom_plugin(tta.triton(launch_biased, **options), meta_impl=meta)
    trt_plugins.custom_op("conv::biased", impl=impl, supports_dynamic_shapes=True)


X = torch_tensorrt.Input(
    min_shape=(1, 96), opt_shape=(8, 96), max_shape=(64, 96), dtype=torch.float16
)
BIAS = torch.empty(96, dtype=torch.float16)


def test_the_schema_says_what_may_be_none() -> None:
    register()
    schema = torch.ops.conv.biased.default._schema
    assert str(schema) == "conv::biased(Tensor x, Tensor? bias=None) -> Tensor"


def test_each_way_of_calling_has_a_kernel_of_its_own() -> None:
    register()
    run = {"target": "sm_90", "execute": False}
    given = tta.dry_run("conv::biased", [X, BIAS], **run)
    none = tta.dry_run("conv::biased", [X, None], **run)
    omitted = tta.dry_run("conv::biased", [X], **run)
    assert none == omitted
    codes = [report.tactics[0].code for report in (given, none)]
    loads = [str(code).count("ld.global") for code in codes]
    assert loads[1] * 2 == loads[0]
    for report in (given, none):
        (tactic,) = report.tactics
        assert tactic.code.count(".param .u64") == 3  # type: ignore[arg-type]
        assert len(tactic.shapes[0].dims) == 2
    texts = [str(replace(report, verbose=True)) for report in (given, none)]
    assert ["none" in text for text in texts] == [False, True]


def test_a_tensor_that_is_not_optional_cannot_be_none() -> None:
    register()
    with pytest.raises(SpecError, match="input `x`: it cannot be None"):
        tta.dry_run("conv::biased", [None, BIAS], "sm_90")


class Biased(torch.nn.Module):
    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> Any:
        biased = torch.ops.conv.biased
        return biased(x, bias), biased(x), biased(x, bias=None)


def test_a_node_without_it_gets_a_constant_in_its_place() -> None:
    register()
    found = nodes(Biased(), torch.randn(4, 96), torch.randn(96))
    names = []
    for node in found:
        arguments = [tensor("x")] + [tensor("bias")] * (len(node.args) - 1)
        if node.args[1:] == (None,):
            arguments[1] = None
        layer, _ = convert(node, *arguments)
        assert layer.aot
        names.append([t.label for t in layer.inputs])
    assert names[0] == ["x", "bias"]
    for node, (first, second) in zip(found[1:], names[1:], strict=True):
        assert first == "x" and node.name in second


def test_an_existing_op_may_have_optional_tensors() -> None:
    with torch.library._scoped_library("conv", "FRAGMENT") as library:
        library.define("masked(Tensor x, Tensor? bias=None) -> Tensor")
        torch.library.register_fake("conv::masked", meta, lib=library)
        trt_plugins.custom_op("conv::masked", impl=tta.triton(launch_biased))
        report = tta.dry_run("conv::masked", [BIAS], "sm_90", execute=False)
        assert report.ok
        tta.unregister("conv::masked")


def test_an_op_needs_one_tensor_that_is_there() -> None:
    with torch.library._scoped_library("conv", "FRAGMENT") as library:
        library.define("nothing(Tensor? x) -> Tensor")
        with pytest.raises(RegistrationError, match="that is not optional"):
            trt_plugins.custom_op("conv::nothing", impl=tta.triton(launch_biased))


def test_a_packed_format_is_for_the_tensors_that_are_there() -> None:
    register(input_formats="CHW32", output_formats="CHW32")
    image = torch.empty(2, 3, 4, 4, dtype=torch.float16)
    report = tta.dry_run("conv::biased", [image], "sm_90", execute=False)
    assert report.tactics[0].formats == ("CHW32", "LINEAR", "CHW32")


def test_a_graph_may_not_hold_the_tensor_that_stands_for_none() -> None:
    register()
    odd = torch.zeros(ABSENT.shape, dtype=ABSENT.dtype)  # type: ignore[arg-type]

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor) -> Any:
            return torch.ops.conv.biased(x, bias)

    (node,) = nodes(Odd(), torch.randn(4, 96), odd)
    with errors.collecting() as said:
        assert DYNAMO_CONVERTERS.get(node) is None
    assert "stands for None in a plugin. Reshape it" in said[0]


def test_weights_and_dry_run_inputs_may_not_be_what_stands_for_none() -> None:
    odd = torch.zeros(2, 1, 1, 1, 1, 1, 1, 1, dtype=torch.bool)
    with pytest.raises(SpecError, match=r"weight 'bias': .*stands for None"):
        trt_plugins.custom_op(
            "conv::odd",
            impl=tta.custom_plugin(
                tta.triton(launch_biased), meta_impl=torch.empty_like, bias=odd
            ),
        )
    register()
    with pytest.raises(SpecError, match="stands for None"):
        tta.dry_run("conv::biased", [X, odd], "sm_90", execute=False)


def test_a_python_plugin_may_not_get_the_tensor_that_stands_for_none() -> None:
    with torch.library._scoped_library("conv", "FRAGMENT") as library:
        library.define("python(Tensor x, Tensor? bias=None) -> Tensor")
        library.impl("python", reference, "CUDA")
        torch.library.register_fake("conv::python", meta, lib=library)
        trt_plugins.custom_op("conv::python")

        class Odd(torch.nn.Module):
            def forward(self, x: torch.Tensor, bias: torch.Tensor) -> Any:
                return torch.ops.conv.python(x, bias)

        odd = torch.zeros([2] * 8, dtype=torch.bool)
        (node,) = nodes(Odd(), torch.randn(4, 96), odd)
        with errors.collecting() as said:
            assert DYNAMO_CONVERTERS.get(node) is None
        assert "stands for None in a plugin. Reshape it" in said[0]
        (node,) = nodes(Odd(), torch.randn(4, 96), torch.randn(96))
        assert DYNAMO_CONVERTERS.get(node) is not None
        tta.unregister("conv::python")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("inputs", [[X, BIAS], [X, None]], ids=["given", "none"])
def test_both_compute_what_the_op_does(inputs: list[Any]) -> None:
    register()
    report = tta.dry_run(
        "conv::biased", inputs, reference=reference, strict=True, execute=True
    )
    assert report.ok
    assert tta.dry_run("conv::biased", inputs, strict=True, execute=True).ok
