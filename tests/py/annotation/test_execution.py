# SPDX-License-Identifier: BSD-3-Clause

"""On a GPU: every tactic, launched as an engine would, gives the right values."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from compiled_elsewhere import as_inputs
from kernels import Case
from test_launch_abi import ALL, shapes
from triton_references import REFERENCES, in_dtypes_of

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run.case import random_inputs
from torch_tensorrt.annotation._dry_run.memory import compare
from torch_tensorrt.annotation._plugin import Plugin
from torch_tensorrt.annotation._record import as_tensors
from torch_tensorrt.annotation.errors import DryRunError

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


def register(case: Case) -> None:
    trt_plugins.custom_op(
        f"abi::{case.name}", impl=case.plugin, supports_dynamic_shapes=True
    )


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_tactic_gives_the_eager_result(case: Case, is_dynamic: bool) -> None:
    register(case)
    inputs = case.dynamic if is_dynamic else case.static
    report = tta.dry_run(
        f"abi::{case.name}",
        as_inputs(inputs),
        reference=in_dtypes_of(case.meta, REFERENCES[case.name]),
        strict=True,
    )
    assert 1 <= len(report.tactics) <= case.count  # without duplicates
    ran = {"min", "opt", "max", "ragged"} if is_dynamic else {"static"}
    for tactic in report.tactics:
        assert {shape.name for shape in tactic.shapes if shape.ok} == ran
    assert report.best in report.tactics


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_op_runs_eagerly_with_its_first_config(case: Case) -> None:
    register(case)
    op = getattr(torch.ops.abi, case.name)
    reference = in_dtypes_of(case.meta, REFERENCES[case.name])
    for extents in shapes(case.dynamic, 2):
        tensors = random_inputs(extents, [t.dtype for t in case.dynamic])
        pairs = (as_tensors(op(*tensors), "op"), as_tensors(reference(*tensors), "it"))
        for found, expected in zip(*pairs, strict=True):
            assert compare(found, expected).message == ""


@triton.jit
def planted_kernel(x_ptr, out_ptr, n, stride, limit, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets * stride, mask=offsets < n)
    tl.store(out_ptr + offsets, x + 1, mask=offsets < limit)


def planted(
    x: torch.Tensor,
    out: torch.Tensor,
    stride: int = 1,
    past: int = 0,
    blocks: int = 0,
) -> None:
    n = x.numel()
    grid = (triton.cdiv(n, 256) + blocks,)
    planted_kernel[grid](x, out, n, stride, n + past, BLOCK=256)


@triton.jit
def unmasked_kernel(x_ptr, index_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(index_ptr + offsets, mask=offsets < n, other=0)
    x = tl.load(x_ptr + offsets) + tl.load(x_ptr + index)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


@pytest.mark.parametrize("size", [3000, 3072])
def test_a_load_past_the_end_is_found_though_no_output_depends_on_it(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the interpreter, on the CPU and with the inputs that were given."""

    def unmasked(x: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
        grid = (triton.cdiv(size, 256),)
        unmasked_kernel[grid](x, index, out, x.numel(), BLOCK=256)

    monkeypatch.setenv("TTA_JOBS", "2")  # with 1, nothing is interpreted
    impl = tta.custom_plugin(tta.triton(unmasked), lambda x, i: torch.empty_like(x))
    trt_plugins.custom_op("abi::unmasked", impl=impl, replace=True)
    index = torch.arange(size, dtype=torch.int32, device="cuda")
    report = tta.dry_run(
        "abi::unmasked",
        [torch.randn(size, device="cuda"), index],
        reference=lambda x, index: x + x[index],
    )
    (shape,) = report.tactics[0].shapes
    assert shape.max_error == 0.0 and shape.time_us
    assert report.ok is (size == 3072)
    if not report.ok:
        assert "reads past the end of the tensor `x_ptr`, at " in shape.failure


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32], ids=str)
@pytest.mark.parametrize(
    ("bug", "found"),
    [
        ({"stride": 2}, "of 3000 elements are wrong, the first at [0, "),
        ({"past": 1000, "blocks": 4}, "output 0: the kernel writes outside of it"),
        ({"past": -5}, "5 of 3000 elements are wrong, the first at [2, 995]"),
        ({"blocks": -1}, "184 of 3000 elements are wrong, the first at [2, 816]"),
    ],
    ids=["wrong stride", "past the end", "not all written", "a block short"],
)
def test_a_planted_bug_is_caught(
    bug: dict[str, int], found: str, dtype: torch.dtype
) -> None:
    impl = tta.custom_plugin(
        tta.triton(planted, [bug]), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("abi::planted", impl=impl, replace=True)
    report = tta.dry_run(
        "abi::planted",
        [torch.empty(3, 1000, dtype=dtype)],
        reference=lambda x: x + 1,
    )
    (shape,) = report.tactics[0].shapes
    assert shape.ok is False
    assert found in shape.failure
    assert not report.ok
    assert report.best is None
    assert found in str(report).replace("\n", " ")
    with pytest.raises(DryRunError, match="a tactic is wrong"):
        tta.dry_run(
            "abi::planted",
            [torch.empty(3, 1000, dtype=dtype)],
            reference=lambda x: x + 1,
            strict=True,
        )


@triton.jit
def unmasked_reduction_kernel(x_ptr, out_ptr, N, LARGEST: tl.constexpr):
    """The last row's block ends past the input."""
    row = tl.program_id(0)
    x = tl.load(x_ptr + row * N + tl.arange(0, 1024))
    if LARGEST:
        tl.store(out_ptr + row, tl.max(x, axis=0))
    else:
        tl.store(out_ptr + row, tl.sum(x, axis=0))


@pytest.mark.parametrize("largest", [False, True], ids=["sum", "maximum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
def test_a_load_without_its_mask_is_caught(dtype: torch.dtype, largest: bool) -> None:
    """One row, so only poison follows it. Were what is read there not used (a store
    with its mask after a load without), the values would be right, and nothing seen.
    """

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        unmasked_reduction_kernel[(x.shape[0],)](x, out, x.shape[1], largest)

    def reduced(x: torch.Tensor) -> torch.Tensor:
        return x.amax(1) if largest else x.sum(1, dtype=x.dtype)

    impl = tta.custom_plugin(
        tta.triton(launch), meta_impl=lambda x: x.new_empty(x.shape[0])
    )
    trt_plugins.custom_op("abi::unmasked", impl=impl, replace=True)
    x = torch.empty(1, 1000, dtype=dtype)
    report = tta.dry_run("abi::unmasked", [x], reference=reduced)
    failure = report.tactics[0].shapes[0].failure
    assert "1 of 1 elements are wrong, the first at [0]" in failure


@triton.jit
def unmasked_store_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0)
    tl.store(out_ptr + offsets, x + 1)


def test_a_store_without_its_mask_is_caught() -> None:
    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        n = x.numel()
        unmasked_store_kernel[(triton.cdiv(n, 256),)](x, out, n, BLOCK=256)

    impl = tta.custom_plugin(
        tta.triton(launch), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("abi::unmasked", impl=impl, replace=True)
    report = tta.dry_run(
        "abi::unmasked", [torch.empty(1000)], reference=lambda x: x + 1
    )
    (shape,) = report.tactics[0].shapes
    assert shape.failure.startswith("output 0: the kernel writes outside of it.")


@triton.jit
def in_place_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n) + 1
    tl.store(out_ptr + offsets, x, mask=offsets < n)
    tl.store(x_ptr + offsets, x, mask=offsets < n)


def test_a_kernel_that_writes_its_input_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its code shows that, so it is refused before; not all code does.
    monkeypatch.setattr(Plugin, "_objection", lambda *args: None)

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        in_place_kernel[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), BLOCK=256)

    impl = tta.custom_plugin(
        tta.triton(launch), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("abi::in_place", impl=impl, replace=True)
    report = tta.dry_run(
        "abi::in_place", [torch.empty(1000)], reference=lambda x: x + 1
    )
    assert "input 0: the kernel writes into it" in report.tactics[0].shapes[0].failure


def test_an_input_that_one_tactic_writes_is_whole_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Plugin, "_objection", lambda *args: None)

    def launch(x: torch.Tensor, out: torch.Tensor, in_place: bool) -> None:
        grid = (triton.cdiv(x.numel(), 256),)
        if in_place:
            in_place_kernel[grid](x, out, x.numel(), BLOCK=256)
        else:
            planted_kernel[grid](x, out, x.numel(), 1, x.numel(), BLOCK=256)

    impl = tta.custom_plugin(
        tta.triton(launch, [{"in_place": True}, {"in_place": False}]),
        meta_impl=lambda x: torch.empty_like(x),
    )
    trt_plugins.custom_op("abi::in_place", impl=impl, replace=True)
    report = tta.dry_run(
        "abi::in_place", [torch.empty(1000)], reference=lambda x: x + 1
    )
    assert [tactic.ok for tactic in report.tactics] == [False, True]


def test_a_shape_that_does_not_fit_the_gpu_is_not_run_and_the_others_are() -> None:
    (case,) = (case for case in ALL if case.name == "row_sum")
    register(case)
    x = torch_tensorrt.Input(
        min_shape=(1, 256),
        opt_shape=(8, 256),
        max_shape=(1 << 30, 256),  # 512 GiB
        dtype=torch.float16,
    )
    report = tta.dry_run("abi::row_sum", [x], reference=lambda x: x.float().sum(-1))
    for tactic in report.tactics:
        small, opt, large, _ = tactic.shapes
        assert (small.ok, opt.ok, large.ok) == (True, True, None)
        assert "of [(1073741824, 256)] take 554.1 GB" in large.failure
    assert report.best is not None
    assert not report.ok


def test_a_tensor_on_the_gpu_is_run_on_as_it_is() -> None:
    seen = []

    def reference(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x + 1

    impl = tta.custom_plugin(
        tta.triton(planted), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("abi::planted", impl=impl, replace=True)
    x = torch.arange(1000.0, device="cuda")
    assert tta.dry_run("abi::planted", [x], reference=reference, strict=True).ok
    torch.testing.assert_close(seen[0], x, rtol=0, atol=0)


def test_a_report_from_elsewhere_can_be_run() -> None:
    (case,) = (case for case in ALL if case.name == "add")
    register(case)
    inputs = as_inputs(case.dynamic)
    text = tta.dry_run("abi::add", inputs, "sm_80").to_json()
    report = tta.execute(tta.DryRunReport.from_json(text), lambda x, y: x + y)
    assert report.ok
    assert report.best is not None


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_a_reference_is_called_as_the_op_is(factor: float) -> None:
    def launch(x: torch.Tensor, out: torch.Tensor, factor: float) -> None:
        scaled_kernel[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), factor, 256)

    def meta(x: torch.Tensor, factor: float) -> torch.Tensor:
        return torch.empty_like(x)

    def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
        return x * factor

    impl = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("abi::scaled", impl=impl, replace=True)
    how = {"attributes": {"factor": factor}, "strict": True}
    x = torch.empty(1000)
    report = tta.dry_run("abi::scaled", [x], reference=scaled, **how)
    assert "against the reference " in report.verdict and "scaled" in report.against
    report = tta.dry_run("abi::scaled", [x], **how)
    assert "against the op's own eager run" in report.verdict
    again = tta.DryRunReport.from_json(report.to_json())
    assert tta.execute(again, scaled).ok
    assert not tta.execute(again, lambda x, factor: x).ok


@triton.jit
def scaled_kernel(x_ptr, out_ptr, n, factor, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, x * factor, mask=offsets < n)
