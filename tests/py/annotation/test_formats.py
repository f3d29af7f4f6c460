# SPDX-License-Identifier: BSD-3-Clause

"""Packed tensor formats: how tensors lie in them, and kernels that are for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from warned import warned

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run import plugin_of
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import FORMATS, TensorInfo
from torch_tensorrt.annotation.errors import FormatError, SpecError

# (array extents, subscript), as the documentation of trt.TensorFormat has them.
DOCUMENTED: dict[str, Any] = {
    "LINEAR": lambda n, c, h, w: ((n, c, h, w), lambda n, c, h, w: (n, c, h, w)),
    **{
        f"CHW{k}": lambda n, c, h, w, k=k: (
            (n, -(-c // k), h, w, k),
            lambda n, c, h, w: (n, c // k, h, w, c % k),
        )
        for k in (2, 4, 32)
    },
    **{
        name: lambda n, c, h, w, k=k: (
            (n, h, w, -(-c // k) * k),
            lambda n, c, h, w: (n, h, w, c),
        )
        for name, k in (("HWC", 1), ("HWC8", 8), ("HWC16", 16))
    },
    "CDHW32": lambda n, c, d, h, w: (
        (n, -(-c // 32), d, h, w, 32),
        lambda n, c, d, h, w: (n, c // 32, d, h, w, c % 32),
    ),
    **{
        name: lambda n, c, d, h, w, k=k: (
            (n, d, h, w, -(-c // k) * k),
            lambda n, c, d, h, w: (n, d, h, w, c),
        )
        for name, k in (("DHWC", 1), ("DHWC8", 8))
    },
}
VOLUMES = {"CDHW32", "DHWC", "DHWC8"}


def shapes(name: str) -> Iterator[tuple[int, ...]]:
    for channels in (1, 3, 32, 35):
        yield (2, channels, 3, 4, 2) if name in VOLUMES else (2, channels, 3, 4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_tensor_lies_where_tensorrt_documents_it(name: str) -> None:
    for shape in shapes(name):
        extents, subscript = DOCUMENTED[name](*shape)
        assert FORMATS[name].buffer_shape(shape) == extents
        tensor = torch.arange(1, 1 + torch.Size(shape).numel()).view(shape)
        buffer = FORMATS[name].pack(tensor, torch.zeros(extents, dtype=torch.int64))
        for place in itertools.product(*map(range, shape)):
            assert buffer[subscript(*place)] == tensor[place]
        assert buffer.count_nonzero() == tensor.numel()
        assert torch.equal(FORMATS[name].unpack(buffer, shape), tensor)


def test_packing_leaves_the_padding_alone() -> None:
    buffer = torch.full((1, 1, 2, 2, 4), 7, dtype=torch.int8)
    FORMATS["CHW4"].pack(torch.zeros(1, 3, 2, 2, dtype=torch.int8), buffer)
    assert buffer[..., 3].eq(7).all() and buffer[..., :3].eq(0).all()


def test_the_table_names_members_of_tensorrts() -> None:
    import tensorrt as trt

    assert set(FORMATS) <= set(trt.TensorFormat.__members__)
    left_out = set(trt.TensorFormat.__members__) - set(FORMATS)
    assert left_out == {"DLA_LINEAR", "DLA_HWC4", "CHW16"}


@triton.jit
def double_kernel(x, out, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, 2 * tl.load(x + offsets, offsets < n), offsets < n)


def launch_double(x: Any, out: Any, BLOCK: int = 256) -> None:
    n = x.numel()
    double_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK)


@triton.jit
def channel_sum_kernel(x, out, channels, groups, spatial, BLOCK: tl.constexpr):
    """CHW32 to one row-major channel; the padding is masked if it is known."""
    batch = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    lane = tl.arange(0, 32)[None, :]
    total = tl.zeros((BLOCK, 32), tl.float32)
    for group in range(groups):
        address = ((batch * groups + group) * spatial + place) * 32 + lane
        mask = (place < spatial) & (group * 32 + lane < channels)
        total += tl.load(x + address, mask, 0.0).to(tl.float32)
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sums = tl.sum(total, 1).to(out.dtype.element_ty)
    tl.store(out + batch * spatial + places, sums, places < spatial)


def launch_channel_sum(x: Any, out: Any, BLOCK: int = 16) -> None:
    """Right for any number of channels: it asks for the tensor's own."""
    batch, groups, height, width, _ = x.shape
    grid = (triton.cdiv(height * width, BLOCK), batch)
    channels = x.logical_shape[1]
    channel_sum_kernel[grid](x, out, channels, groups, height * width, BLOCK=BLOCK)


def launch_padded_sum(x: Any, out: Any, BLOCK: int = 16) -> None:
    """Sums what is in the padding as well."""
    batch, groups, height, width, _ = x.shape
    grid = (triton.cdiv(height * width, BLOCK), batch)
    channel_sum_kernel[grid](x, out, groups * 32, groups, height * width, BLOCK=BLOCK)


def register(*kernels: Any, meta: Any = torch.empty_like) -> None:
    trt_plugins.custom_op(
        "formats::op",
        impl=tta.custom_plugin(list(kernels), meta_impl=lambda x: meta(x)),
        supports_dynamic_shapes=True,
    )


def both(name: str) -> Any:
    return tta.triton(launch_double, input_formats=name, output_formats=name)


def one_channel(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], 1, *x.shape[2:])


IMAGE = torch_tensorrt.Input(
    min_shape=(1, 3, 8, 8),
    opt_shape=(4, 40, 8, 8),
    max_shape=(8, 100, 16, 8),
    dtype=torch.float16,
)


def test_the_launch_function_sees_the_packed_extents() -> None:
    register(both("CHW32"), both("HWC8"), tta.triton(launch_double))
    report = tta.dry_run("formats::op", [IMAGE], "sm_90", execute=False)
    formats = [tactic.formats for tactic in report.tactics]
    assert formats == [("CHW32",) * 2, ("HWC8",) * 2, ("LINEAR",) * 2]
    for shape in zip(*(tactic.shapes for tactic in report.tactics), strict=True):
        n, c, h, w = shape[0].dims[0]
        chw32, hwc8, linear = (s.extras[0] for s in shape)
        assert chw32 == n * -(-c // 32) * 32 * h * w
        assert hwc8 == n * -(-c // 8) * 8 * h * w
        assert linear == n * c * h * w
        assert {s.outputs for s in shape} == {((n, c, h, w),)}
    assert report.tactics[0].tensors == "FP16:CHW32 FP16:CHW32"
    assert tta.DryRunReport.from_json(report.to_json()) == report


def test_the_padding_tells_the_compiler_more() -> None:
    register(both("CHW32"), tta.triton(launch_double))
    packed, linear = tta.dry_run("formats::op", [IMAGE], "sm_90", execute=False).tactics
    assert "n%16" in packed.facts and "n%16" not in linear.facts


def test_a_launch_function_can_ask_for_the_tensors_own_extents() -> None:
    kernel = tta.triton(launch_channel_sum, input_formats="CHW32")
    register(kernel, meta=one_channel)
    report = tta.dry_run("formats::op", [IMAGE], "sm_90", execute=False)
    extras = [shape.extras for shape in report.tactics[0].shapes]
    assert extras == [(3, 1, 64), (40, 2, 64), (100, 4, 128), (67, 3, 104)]


def test_a_format_that_the_dtype_cannot_have_leaves_its_tactic_out() -> None:
    register(both("CHW4"), both("CHW32"))
    report = tta.dry_run("formats::op", [IMAGE], "sm_90", execute=False)
    assert "CHW4 holds int8" in str(report.tactics[0].error)
    assert report.tactics[1].error is None
    with pytest.raises(FormatError, match=r"CHW4 holds int8, .* is torch\.float16"):
        tta.dry_run("formats::op", [IMAGE], "sm_90", execute=False, strict=True)


def test_too_few_dimensions_are_refused() -> None:
    register(both("CHW32"))
    with pytest.raises(FormatError, match=r"input 0: .* needs 3 dimensions or more"):
        tta.dry_run("formats::op", [torch.empty(8, 8)], "sm_90")


def test_a_combination_that_no_inputs_allow_is_refused() -> None:
    register(tta.triton(launch_double, input_formats="CHW2", output_formats="CHW4"))
    with pytest.raises(FormatError, match=r"output 0: .*CHW4 holds int8"):
        image = torch.empty(2, 3, 4, 4, dtype=torch.float16)
        tta.dry_run("formats::op", [image], "sm_90")


def test_a_wrong_number_of_formats_is_refused_at_registration() -> None:
    with pytest.raises(FormatError, match="names 2 formats, and there are 3 inputs"):
        trt_plugins.custom_op(
            "formats::three",
            impl=tta.custom_plugin(
                tta.triton(launch_double, input_formats=("CHW2", "CHW2")),
                meta_impl=lambda x, y, z: torch.empty_like(x),
            ),
        )
    with pytest.raises(FormatError, match="names 3 formats, and there are 1 inputs"):
        register(tta.triton(launch_double, input_formats=("CHW2",) * 3))


def test_one_op_can_have_formats_of_different_dtypes() -> None:
    register(both("CHW4"), both("HWC8"))
    image = torch.empty(2, 3, 4, 4)
    for dtype, expected in ((torch.int8, ["CHW4"]), (torch.bfloat16, ["HWC8"])):
        report = tta.dry_run("formats::op", [image.to(dtype)], "sm_90", execute=False)
        offered = [t.formats[0] for t in report.tactics if t.error is None]
        assert offered == expected


def test_weights_are_row_major_unless_they_are_named() -> None:
    def launch(x: Any, scale: Any, out: Any) -> None:
        launch_double(x, out)

    def weighted(formats: Any) -> Any:
        trt_plugins.custom_op(
            "formats::weighted",
            impl=tta.custom_plugin(
                tta.triton(launch, input_formats=formats, output_formats="CHW32"),
                meta_impl=lambda x: torch.empty_like(x),
                scale=torch.ones(40),
            ),
            replace=True,
        )
        image = torch.empty(4, 40, 8, 8)
        report = tta.dry_run("formats::weighted", [image], "sm_90", execute=False)
        return report.tactics[0].formats

    assert weighted("CHW32") == ("CHW32", "LINEAR", "CHW32")
    assert weighted(("CHW32", "LINEAR")) == ("CHW32", "LINEAR", "CHW32")
    with pytest.raises(FormatError, match=r"input 1: .* needs 3 dimensions"):
        weighted(("CHW32", "CHW32"))


@pytest.mark.parametrize("name", ["chw32", "DLA_HWC4", "NCHW"])
def test_an_unknown_format_is_refused_by_the_spec(name: str) -> None:
    with pytest.raises(SpecError, match=f"triton: no such format: '{name}'"):
        tta.triton(launch_double, input_formats=name)


def test_the_ops_own_body_takes_no_packed_tensors() -> None:
    with pytest.raises(SpecError, match="the op's own body takes row-major tensors"):
        tta.triton(input_formats="CHW32")
    spec = tta.custom_plugin(both("CHW32"), meta_impl=lambda x: torch.empty_like(x))
    with pytest.raises(SpecError, match=r"use_aot_if_available=False.*row-major"):
        trt_plugins.custom_op("formats::op", impl=spec, use_aot_if_available=False)


def test_autotune_offers_each_tactic_with_its_own_formats() -> None:
    register(both("CHW32"), tta.triton(launch_double, [{"BLOCK": 64}, {"BLOCK": 128}]))
    with warned("tactic 1 .* is left out"):
        launches = built(torch.bfloat16)
    assert [(t, f[0]) for t, f in launches] == [(2, "LINEAR"), (3, "LINEAR")]
    launches = built(torch.float16)
    assert [(t, f[0]) for t, f in launches] == [
        (1, "CHW32"),
        (2, "LINEAR"),
        (3, "LINEAR"),
    ]


def built(dtype: torch.dtype) -> list[tuple[int, tuple[str, ...]]]:
    inputs = [TensorInfo((2, 40, 4, 4), dtype)]
    launches = build(plugin_of("formats::op"), Request.of(inputs, {}, Target("sm_90")))
    return [(launch.tactic, launch.formats) for launch in launches]


on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


@on_a_gpu
@pytest.mark.parametrize("name", FORMATS)
def test_packed_tensors_are_packed_checked_and_unpacked(name: str) -> None:
    register(both(name))
    dtype = (FORMATS[name].dtypes or (torch.float16,))[0]
    for shape in shapes(name):
        report = tta.dry_run(
            "formats::op",
            [torch.empty(shape, dtype=dtype)],
            reference=lambda x: 2 * x,
            strict=True,
            execute=True,
        )
        assert report.ok and report.tactics[0].shapes[0].ok
        x = torch.ones(shape, dtype=dtype, device="cuda")
        assert torch.equal(torch.ops.formats.op(x), 2 * x)


@on_a_gpu
def test_a_kernel_that_counts_on_the_padding_is_caught() -> None:
    register(
        tta.triton(launch_channel_sum, input_formats="CHW32"),
        tta.triton(launch_padded_sum, input_formats="CHW32"),
        meta=one_channel,
    )
    report = tta.dry_run(
        "formats::op",
        [IMAGE],
        reference=lambda x: x.float().sum(1, keepdim=True).half(),
        execute=True,
    )
    right, wrong = report.tactics
    assert right.ok and not wrong.ok
    assert all("elements are wrong" in shape.failure for shape in wrong.shapes)


@triton.jit
def clearing_kernel(x, out, n, BLOCK: tl.constexpr):
    """Doubles, and clears the padding of its input of three channels."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + offsets, offsets < n)
    tl.store(out + offsets, 2 * value, offsets < n)
    tl.store(x + offsets, value * 0, (offsets < n) & (offsets % 32 >= 3))


def launch_clearing(x: Any, out: Any) -> None:
    clearing_kernel[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), BLOCK=256)


@on_a_gpu
def test_writing_an_inputs_padding_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its code shows that, so it is refused before; not all code does.
    monkeypatch.setattr(Plugin, "_objection", lambda *args: None)
    register(tta.triton(launch_clearing, input_formats="CHW32", output_formats="CHW32"))
    image = torch.empty(2, 3, 4, 4, dtype=torch.float16)
    report = tta.dry_run(
        "formats::op", [image], reference=lambda x: 2 * x, execute=True
    )
    assert "input 0: the kernel writes into it" in report.tactics[0].shapes[0].failure
