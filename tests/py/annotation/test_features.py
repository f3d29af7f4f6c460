# SPDX-License-Identifier: BSD-3-Clause

"""Every feature with every kernel language: it works, or is refused by name."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from compiled_elsewhere import as_inputs
from cuda_tools import needs_nvrtc
from feature_references import BACKENDS, FEATURES, Feature
from features import case

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._record import as_tensors
from torch_tensorrt.annotation._tensors import DType, to_plugin

LANGUAGES = {"triton": "triton", "cutile": "cuda.tile", "cutedsl": "cutlass"}
OP = "features::op"


def marks_of(backend: str) -> list[pytest.MarkDecorator]:
    """When the cells of a column run; NVRTC takes longest for its headers."""
    if backend == "cuda":
        return [needs_nvrtc, pytest.mark.slow]
    is_missing = not is_installed(LANGUAGES[backend])
    reason = f"{BACKENDS[backend]} is not installed"
    return [pytest.mark.skipif(is_missing, reason=reason)]


def is_installed(module: str) -> bool:
    package = module.partition(".")[0]
    return find_spec(package) is not None and find_spec(module) is not None


def cells(refused: bool) -> list[Any]:
    return [
        pytest.param(
            backend,
            name,
            marks=marks_of(backend),
            id=f"{backend}-{name}",
        )
        for backend in BACKENDS
        for name, feature in FEATURES.items()
        if (backend in feature.refused) is refused
    ]


def dry_run(backend: str, name: str, **options: Any) -> tta.DryRunReport:
    """Compile a cell for sm_90; on a GPU compile it for that, execute and check it."""
    cell = case(backend, name)
    trt_plugins.custom_op(OP, impl=cell.plugin, supports_dynamic_shapes=True)
    target = None if torch.cuda.is_available() else "sm_90"
    inputs = as_inputs(cell.dynamic)
    return tta.dry_run(OP, inputs, target, attributes=cell.arguments, **options)


def outputs(
    feature: Feature, *tensors: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """What the reference gives, in the dtypes of the op's."""
    given = as_tensors(feature.reference(*tensors), "the reference")
    metas = as_tensors(feature.meta(*tensors, **feature.arguments), "meta")
    return tuple(g.to(m.dtype) for g, m in zip(given, metas, strict=True))


@pytest.mark.parametrize(("backend", "name"), cells(refused=False))
def test_a_feature_works(backend: str, name: str) -> None:
    feature = FEATURES[name]
    report = dry_run(
        backend,
        name,
        strict=True,
        reference=lambda *tensors, **_: outputs(feature, *tensors),
    )
    weights = {n: v for n, v in feature.keywords.items() if torch.is_tensor(v)}
    assert report.weights == tuple(weights)
    given = [t.dtype for t in (*map(to_plugin, feature.inputs), *weights.values())]
    empty = [t and torch.empty(2, dtype=t.dtype, device="meta") for t in feature.inputs]
    made = as_tensors(feature.meta(*empty, **feature.arguments), "meta")
    dtypes = [DType.of(d).token for d in (*given, *(m.dtype for m in made))]
    for tactic in report.tactics:
        assert tactic.dtypes == tuple(dtypes)
        extras, hidden = tactic.shapes[0].extras, tactic.shapes[0].hidden
        outputs_taken = len(made) + len(hidden)
        assert parameters(tactic) == (
            ["u64"] * len(given) + ["u32"] * len(extras) + ["u64"] * outputs_taken
        )
        assert len(hidden) == (feature.launch == "hidden")
        # Without a GPU, what can be is interpreted.
        right = {True} if torch.cuda.is_available() else {True, None}
        assert {shape.ok for shape in tactic.shapes} <= right


def parameters(tactic: Any) -> list[str]:
    header = re.search(rf"\.entry {tactic.entry}\((.*?)\)", tactic.code, re.DOTALL)
    assert header is not None
    return re.findall(r"\.param \.(\w+)", header[1])


@pytest.mark.parametrize(("backend", "name"), cells(refused=True))
def test_what_does_not_work_is_refused_by_name(backend: str, name: str) -> None:
    refused = FEATURES[name].refused[backend]
    with pytest.raises(refused.error, match=refused.match):
        dry_run(backend, name, strict=True)
