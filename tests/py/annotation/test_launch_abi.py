# SPDX-License-Identifier: BSD-3-Clause

"""What TensorRT would launch is what the launch function launches, for every kernel."""

from __future__ import annotations

import inspect
import random
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from kernels import CASES, Case
from model_kernels import MODEL_CASES

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.ptx import parse
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._dry_run.report import Dims, TacticReport
from torch_tensorrt.annotation._plugin import Plugin, Request, Tactic, registered
from torch_tensorrt.annotation._record.program import CaughtLaunch, Constant
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import DType, Range, TensorInfo
from torch_tensorrt.annotation.backends import backend

ALL = [*CASES, *MODEL_CASES]

each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
static_and_dynamic = pytest.mark.parametrize(
    "is_dynamic", [False, True], ids=["static", "dynamic"]
)


def inputs_of(case: Case, is_dynamic: bool) -> tuple[TensorInfo, ...]:
    return case.dynamic if is_dynamic else case.static


@cache
def plugin_of(name: str) -> Plugin:
    """The plugin of a case, which several tests ask for its kernels."""
    (case,) = (case for case in ALL if case.name == name)
    tensors = [f"input_{index}" for index in range(len(case.dynamic))]
    return Plugin(f"abi::{name}", case.plugin, case.meta, tensors, {})


def kernels(
    case: Case, inputs: Sequence[TensorInfo], target: str = "sm_90"
) -> list[Any]:
    """Every tactic's kernel; none is left out."""
    request = Request.of(inputs, {}, Target(target))
    tactics = plugin_of(case.name).kernels(request)
    assert [tactic.error for tactic in tactics] == [None] * case.count
    return [tactic.kernel for tactic in tactics]


def built(
    case: Case, inputs: Sequence[TensorInfo]
) -> list[tuple[Tactic, TacticReport]]:
    """Every tactic, and its launch as the builder's calls on the plugin give it."""
    op = f"abi::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    plugin = registered[op].plugin
    assert plugin is not None
    request = Request.of(inputs, {}, Target("sm_90"))
    launches = build(plugin, request)
    assert [launch.tactic for launch in launches] == list(range(1, case.count + 1))
    return list(zip(plugin.kernels(request), launches, strict=True))


def concrete(case: Case, tactic: Tactic, extents: Dims) -> CaughtLaunch:
    """What the launch function does with tensors of these extents: ordinary ints."""
    inputs = [
        torch.empty(shape, dtype=tensor.dtype, device="meta")
        for shape, tensor in zip(extents, case.dynamic, strict=True)
    ]
    outputs = case.meta(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    keywords = case.kernel.launch_keywords(tactic.config)
    if "stream" in inspect.signature(case.kernel.launch_fn).parameters:
        keywords["stream"] = 0
    launches: list[CaughtLaunch] = []
    language = backend(case.kernel.backend)
    choice = None if tactic.choice is None else dict(tactic.choice)
    with (
        mock.patch.object(torch.cuda, "current_stream"),
        language.intercept(launches.append, choice),
    ):
        case.kernel.launch_fn(*inputs, *outputs, **keywords)
    return launches[0]


def runtime_values(launch: CaughtLaunch) -> dict[str, int]:
    """The scalars the launch passes, in order: floats as the integers of their bits.

    With layouts, an array passes its extents and strides.
    """
    values: dict[str, int] = {}
    for name, value, is_constexpr in launch.arguments:
        if isinstance(value, torch.Tensor) and launch.passes_layouts:
            for what, sizes in (("shape", value.shape), ("strides", value.stride())):
                values |= {f"{name}.{what}[{i}]": n for i, n in enumerate(sizes)}
        elif isinstance(value, float) and not is_constexpr:
            values[name] = struct.unpack("<i", struct.pack("<f", value))[0]
        elif isinstance(value, int) and not is_constexpr:
            values[name] = int(value)
    return values


def shapes(inputs: Sequence[TensorInfo], count: int) -> list[Dims]:
    """The profile's corners, and random extents between; equal ranges go together."""
    generator = random.Random(0)
    points = []
    for index in range(count + 2):
        chosen: dict[Range, int] = {}
        for extent in {e for t in inputs for e in t.shape if isinstance(e, Range)}:
            corner = {0: extent.min, 1: extent.max}
            chosen[extent] = corner.get(
                index, generator.randint(extent.min, extent.max)
            )
        points.append(
            tuple(
                tuple(chosen[e] if isinstance(e, Range) else e for e in t.shape)
                for t in inputs
            )
        )
    return points


@static_and_dynamic
@each_case
def test_the_entry_takes_inputs_then_extras_then_outputs(
    case: Case, is_dynamic: bool
) -> None:
    inputs = inputs_of(case, is_dynamic)
    for kernel in kernels(case, inputs):
        entry = parse(kernel.code)
        assert entry.name == kernel.entry
        assert [parameter.type for parameter in entry.parameters] == (
            ["u64"] * len(inputs)
            + ["u32"] * len(kernel.extras)
            + ["u64"] * case.outputs
        )


@static_and_dynamic
@each_case
def test_grid_and_extras_are_those_of_the_launch_function(
    case: Case, is_dynamic: bool
) -> None:
    inputs = inputs_of(case, is_dynamic)
    points = shapes(inputs, 50)
    for tactic, launch in built(case, inputs):
        expected = [concrete(case, tactic, point) for point in points]
        assert tactic.program is not None
        recorded = {
            a.name: a.value
            for a in tactic.program.launch.arguments
            if isinstance(a, Constant)
        }
        ints = [runtime_values(one) for one in expected]
        # Triton's JIT compiles in the integer 1; so does this, where it is always 1.
        bools = {n for n, v, _ in expected[0].arguments if isinstance(v, bool)}
        passed = [
            name
            for name in ints[0]
            if name in bools or {one[name] for one in ints} != {1}
        ]
        for point, one, values in zip(points, expected, ints, strict=True):
            found = launch.at(*point)
            assert one.grid is not None
            assert found.grid == (*one.grid, 1, 1)[:3]
            assert found.extras == tuple(values[name] for name in passed)
            constants = {n: v for n, v, is_constexpr in one.arguments if is_constexpr}
            assert constants.items() <= recorded.items()


@each_case
def test_the_block_is_the_one_the_code_requires(case: Case) -> None:
    for kernel in kernels(case, case.dynamic):
        assert kernel.block == parse(kernel.code).block


@each_case
def test_every_tactic_compiles(case: Case, architecture: str) -> None:
    found = kernels(case, case.dynamic, architecture)
    assert len({kernel.entry for kernel in found}) == len(found)
    for kernel in found:
        assert parse(kernel.code).target.rstrip("a") == architecture


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["add", "silu", "softmax"])
def test_one_registration_serves_each_floating_dtype(
    name: str, dtype: torch.dtype
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    inputs = [TensorInfo(tensor.shape, dtype) for tensor in case.dynamic]
    for _, launch in built(case, inputs):
        assert set(launch.dtypes) == {DType.of(dtype).token}
