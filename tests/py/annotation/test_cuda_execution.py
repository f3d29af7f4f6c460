# SPDX-License-Identifier: BSD-3-Clause

"""On a GPU: kernels in CUDA C++, launched as an engine would, and by their users."""

from __future__ import annotations

from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

from compiled_elsewhere import as_inputs
from cuda_kernels import CUDA_CASES
from cuda_references import REFERENCES
from kernels import Case

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

by_name = pytest.mark.parametrize("case", CUDA_CASES, ids=lambda case: case.name)


@by_name
def test_every_tactic_gives_the_reference(case: Case) -> None:
    op = f"cu::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    report = tta.dry_run(
        op,
        as_inputs(case.dynamic),
        reference=REFERENCES[case.name],
        strict=True,
        execute=True,
    )
    for tactic in report.tactics:
        assert {s.name for s in tactic.shapes if s.ok} >= {"min", "opt", "max"}


@by_name
def test_every_tactic_gives_the_bits_of_its_own_launch(case: Case) -> None:
    op = f"cu::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)

    def own(*inputs: torch.Tensor) -> Any:
        out = case.meta(*inputs)
        case.kernel.launch_fn(*inputs, out)
        return out

    inputs = as_inputs(case.dynamic)
    tta.dry_run(op, inputs, reference=own, strict=True, execute=True, tolerance=0.0)


def test_a_kernel_of_cuda_core_gives_the_bits_of_its_own_launch() -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    import cuda_core_kernels as kernels

    def meta(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    def own(x: torch.Tensor) -> torch.Tensor:
        out = meta(x)
        kernels.launch_cached(x, out)
        return out

    x = torch.randn(3001, device="cuda")
    torch.testing.assert_close(own(x), x * 0.5 + 3)  # it is cached from now on
    impl = tta.custom_plugin(tta.cuda(kernels.launch_cached), meta_impl=meta)
    trt_plugins.custom_op("cu::core", impl=impl, supports_dynamic_shapes=True)
    tta.dry_run(
        "cu::core", [x], reference=own, strict=True, execute=True, tolerance=0.0
    )
    torch.testing.assert_close(own(x), x * 0.5 + 3)


def test_kernels_of_cupy_give_the_bits_of_their_own_launches() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    import cupy_kernels as kernels

    for function in (kernels.launch_raw, kernels.launch_module):

        def own(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            function(x, out)  # noqa: B023  it is called in this iteration
            return out

        x = torch.randn(3001, device="cuda")
        torch.testing.assert_close(own(x), x * 3 + kernels.ADDED[function])
        impl = tta.custom_plugin(tta.cuda(function), lambda x: torch.empty_like(x))
        trt_plugins.custom_op("cu::cupy", impl=impl, supports_dynamic_shapes=True)
        how = {"strict": True, "execute": True, "tolerance": 0.0}
        tta.dry_run("cu::cupy", [x], reference=own, **how)
        tta.unregister("cu::cupy")


@by_name
def test_the_op_runs_eagerly_through_the_same_launcher(case: Case) -> None:
    op = f"cu::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    tensors = [
        torch.randn(info.at("opt"), device="cuda").to(info.dtype)
        for info in case.dynamic
    ]
    outputs = getattr(torch.ops.cu, case.name)(*tensors)
    expected = REFERENCES[case.name](*tensors)
    torch.testing.assert_close(outputs, expected, rtol=2e-2, atol=2e-2)
