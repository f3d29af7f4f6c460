"""What TensorRT would launch is what the launch function launches, for every kernel."""

from __future__ import annotations

import inspect
import random
import re
import struct
from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from kernels import CASES, Case
from model_kernels import MODEL_CASES

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run import plugin_of
from torch_tensorrt.annotation._dry_run.builder import BuiltLaunch, build
from torch_tensorrt.annotation._plugin import Request, Tactic
from torch_tensorrt.annotation._record.program import CaughtLaunch, Constant
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Extents, Range, TensorInfo
from torch_tensorrt.annotation.backends import backend

ALL = [*CASES, *MODEL_CASES]
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")


def register(case: Case) -> None:
    trt_plugins.custom_op(
        f"abi::{case.name}", impl=case.plugin, supports_dynamic_shapes=True
    )


def built(
    case: Case, inputs: Sequence[TensorInfo], target: str = "sm_90"
) -> list[BuiltLaunch]:
    """Every tactic's launch, as the builder's calls on the plugin give it.

    Gaps in the numbering are tactics whose kernel duplicates another's.
    """
    register(case)
    request = Request.of(inputs, {}, Target(target))
    plugin = plugin_of(f"abi::{case.name}")
    tactics = plugin.kernels(request)
    assert [tactic.error for tactic in tactics] == [None] * len(tactics)
    launches = build(plugin, request)
    numbers = [launch.tactic for launch in launches]
    assert numbers == [tactic.number for tactic in tactics]
    assert set(numbers) <= set(range(1, case.count + 1))
    return launches


def concrete(case: Case, tactic: Tactic, extents: Extents) -> CaughtLaunch:
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
    language, spec = backend(case.kernel.backend), case.kernel
    overrides = dict(tactic.choice or spec.kernel_keywords(tactic.config)) or None
    with (
        mock.patch.object(torch.cuda, "current_stream"),
        language.intercept(launches.append, overrides),
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


def shapes(inputs: Sequence[TensorInfo], count: int) -> list[Extents]:
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


def parameter_types(code: str, entry: str) -> list[str]:
    header = re.search(rf"\.visible \.entry {entry}\((.*?)\)", code, re.DOTALL)
    assert header is not None
    return re.findall(r"\.param \.(\w+)", header[1])


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_entry_takes_inputs_then_extras_then_outputs(
    case: Case, is_dynamic: bool
) -> None:
    inputs = case.dynamic if is_dynamic else case.static
    for launch in built(case, inputs):
        extras = len(launch.at(shapes(inputs, 0)[0]).extras)
        assert parameter_types(launch.code, launch.entry) == (
            ["u64"] * len(inputs) + ["u32"] * extras + ["u64"] * case.outputs
        )


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_grid_and_extras_are_those_of_the_launch_function(
    case: Case, is_dynamic: bool
) -> None:
    inputs = case.dynamic if is_dynamic else case.static
    launches = built(case, inputs)
    points = shapes(inputs, 50)
    request = Request.of(inputs, {}, None)
    tactics = plugin_of(f"abi::{case.name}").programs(request)
    for launch in launches:
        tactic = tactics[launch.tactic - 1]
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
            found = launch.at(point)
            assert found.grid == (*one.grid, 1, 1)[:3]
            assert found.extras == tuple(values[name] for name in passed)
            constants = {n: v for n, v, is_constexpr in one.arguments if is_constexpr}
            assert constants.items() <= recorded.items()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_block_is_the_one_the_code_requires(case: Case) -> None:
    for launch in built(case, case.dynamic):
        required = re.search(r"\.reqntid (\d+)", launch.code)
        assert required is not None
        found = launch.at(shapes(case.dynamic, 0)[0])
        assert found.block == (int(required[1]), 1, 1)


@pytest.mark.parametrize("target", ARCHITECTURES)
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_tactic_compiles_for_every_architecture(case: Case, target: str) -> None:
    launches = built(case, case.dynamic, target)
    assert len({launch.entry for launch in launches}) == len(launches)
    for launch in launches:
        assert re.search(rf"^\.target {target}a?$", launch.code, re.MULTILINE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["add", "silu", "softmax"])
def test_one_registration_serves_each_floating_dtype(
    name: str, dtype: torch.dtype
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    inputs = [TensorInfo(tensor.shape, dtype) for tensor in case.dynamic]
    tokens = {torch.float32: "FP32", torch.float16: "FP16", torch.bfloat16: "BF16"}
    for launch in built(case, inputs):
        assert set(launch.dtypes) == {tokens[dtype]}
