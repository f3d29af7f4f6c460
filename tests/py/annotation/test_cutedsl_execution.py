# SPDX-License-Identifier: BSD-3-Clause

"""On a GPU: kernels of CuTe DSL, launched as an engine would, and run eagerly."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

from compiled_elsewhere import as_inputs
from cutedsl_kernels import CUTEDSL_CASES
from cutedsl_references import REFERENCES
from kernels import Case

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins


@pytest.mark.parametrize("case", CUTEDSL_CASES, ids=lambda case: case.name)
def test_every_tactic_gives_the_reference(case: Case) -> None:
    op = f"cute::{case.name}"
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


@pytest.mark.parametrize("case", CUTEDSL_CASES, ids=lambda case: case.name)
def test_the_op_runs_eagerly_through_the_same_launcher(case: Case) -> None:
    op = f"cute::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    tensors = [
        torch.randn(info.at("opt"), device="cuda").to(info.dtype)
        for info in case.dynamic
    ]
    outputs = getattr(torch.ops.cute, case.name)(*tensors)
    expected = REFERENCES[case.name](*tensors)
    torch.testing.assert_close(outputs, expected, rtol=2e-2, atol=2e-2)
