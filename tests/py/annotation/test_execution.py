"""On a GPU: every tactic, launched as an engine would, gives the right values."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from kernels import Case
from test_launch_abi import ALL, register, shapes
from triton_references import REFERENCES, in_dtypes_of

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._builder import corner
from torch_tensorrt.annotation._compare import compare
from torch_tensorrt.annotation._execute import random_inputs
from torch_tensorrt.annotation._trace import TensorInfo, as_tensors
from torch_tensorrt.annotation.errors import DryRunError

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


def as_input(tensor: TensorInfo) -> torch_tensorrt.Input:
    corners = {
        f"{name}_shape": corner([tensor], name)[0] for name in ("min", "opt", "max")
    }
    return torch_tensorrt.Input(**corners, dtype=tensor.dtype)


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_tactic_gives_the_eager_result(case: Case, is_dynamic: bool) -> None:
    register(case)
    inputs = case.dynamic if is_dynamic else case.static
    report = tta.dry_run(
        f"abi::{case.name}",
        list(map(as_input, inputs)),
        reference=in_dtypes_of(case.meta, REFERENCES[case.name]),
        strict=True,
    )
    assert len(report.tactics) == case.count
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
        for found, expected in zip(
            as_tensors(op(*tensors), "op"), reference(*tensors), strict=True
        ):
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32], ids=str)
@pytest.mark.parametrize(
    ("bug", "found"),
    [
        ({"stride": 2}, "of 3000 elements are wrong, the first at [0, "),
        ({"past": 1000, "blocks": 4}, "output 0: the kernel writes outside of it"),
        ({"past": -5}, "5 of 3000 elements are wrong, the first at [2, 995]"),
        ({"blocks": -1}, "184 of 3000 elements are wrong, the first at [2, 816]"),
    ],
    ids=["wrong stride", "no mask", "not all written", "a block short"],
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
def in_place_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n) + 1
    tl.store(out_ptr + offsets, x, mask=offsets < n)
    tl.store(x_ptr + offsets, x, mask=offsets < n)


def test_a_kernel_that_writes_its_input_is_caught() -> None:
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
    inputs = list(map(as_input, case.dynamic))
    text = tta.dry_run("abi::add", inputs, "sm_80").to_json()
    report = tta.execute(tta.DryRunReport.from_json(text), lambda x, y: x + y)
    assert report.ok
    assert report.best is not None
