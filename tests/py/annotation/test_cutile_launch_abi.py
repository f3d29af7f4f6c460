"""What TensorRT would launch is what ``ct.launch`` would, for every cuTile kernel."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from kernels import Case
from test_launch_abi import (
    ARCHITECTURES,
    concrete,
    parameter_types,
    register,
    runtime_values,
    shapes,
)

from torch_tensorrt.annotation._builder import BuiltLaunch, build
from torch_tensorrt.annotation._expressions import Extents
from torch_tensorrt.annotation._launch import Constant, Launch, LaunchRecord
from torch_tensorrt.annotation._ptx import parse
from torch_tensorrt.annotation._registry import registered
from torch_tensorrt.annotation._tactics import Request, Tactic
from torch_tensorrt.annotation._target import Target, compiling_for
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    RedundantTactic,
    UnsupportedKernelError,
)

pytest.importorskip("cuda.tile")
from cutile_kernels import CUTILE_CASES

pytestmark = pytest.mark.filterwarnings(
    "ignore::torch_tensorrt.annotation.errors.TacticWarning"
)

# What may be refused, and why.
REFUSED = {("matmul", "sm_80")}
TOO_MUCH_SHARED = r"\d+ bytes of static shared memory; sm_80 has 49152 for a block"


class Built:
    """A case, compiled once: its launches as TensorRT gets them, and what they are."""

    def __init__(self, case: Case, arch: str, is_dynamic: bool) -> None:
        self.inputs = case.dynamic if is_dynamic else case.static
        register(case)
        plugin = registered[f"abi::{case.name}"].plugin
        assert plugin is not None
        self.tactics: dict[int, Tactic] = {}
        self.facts: dict[int, str] = {}
        self.refused: list[AnnotationError] = []
        with compiling_for(arch):
            self.launches: list[BuiltLaunch] = build(
                f"abi::{case.name}", self.inputs, {}
            )
            request = Request(self.inputs, {}, Target(arch))
            for tactic in plugin.tactics(self.inputs, {}):
                try:
                    kernel = plugin.kernel(tactic, request)
                    self.tactics[tactic.number] = tactic
                    self.facts[tactic.number] = kernel.compiled.facts
                except RedundantTactic:
                    pass
                except AnnotationError as error:
                    self.refused.append(error)
        first = {tactic.config: tactic for tactic in reversed(self.tactics.values())}
        self._record = cache(lambda c: plugin.record(first[c], self.inputs, {}))
        points = shapes(self.inputs, 25)
        self._concrete = cache(
            lambda config: [(p, concrete(case, first[config], p)) for p in points]
        )

    def record(self, number: int) -> LaunchRecord:
        """What was recorded for a tactic: fact sets share it."""
        found: LaunchRecord = self._record(self.tactics[number].config)
        return found

    def concrete(self, number: int) -> list[tuple[Extents, Launch]]:
        """What the launch function does with tensors of ordinary extents."""
        found: list[tuple[Extents, Launch]] = self._concrete(
            self.tactics[number].config
        )
        return found


@cache
def built(name: str, arch: str = "sm_90", is_dynamic: bool = True) -> Built:
    (case,) = (case for case in CUTILE_CASES if case.name == name)
    return Built(case, arch, is_dynamic)


each_case = pytest.mark.parametrize("case", CUTILE_CASES, ids=lambda case: case.name)
static_and_dynamic = pytest.mark.parametrize(
    "is_dynamic", [False, True], ids=["static", "dynamic"]
)


@static_and_dynamic
@each_case
def test_the_entry_takes_inputs_then_extras_then_outputs(
    case: Case, is_dynamic: bool
) -> None:
    found = built(case.name, is_dynamic=is_dynamic)
    assert found.launches
    assert found.refused == []
    for launch in found.launches:
        extras = launch.extras(shapes(found.inputs, 0)[0])
        assert parameter_types(launch.code, launch.entry) == (
            ["u64"] * len(found.inputs) + ["u32"] * len(extras) + ["u64"] * case.outputs
        )
        assert ".hidden" not in launch.code


@static_and_dynamic
@each_case
def test_grid_and_extras_are_those_of_the_launch_function(
    case: Case, is_dynamic: bool
) -> None:
    found = built(case.name, is_dynamic=is_dynamic)
    for launch in found.launches:
        constants = {
            argument.name: argument.value
            for argument in found.record(launch.tactic).arguments
            if isinstance(argument, Constant)
        }
        for point, one in found.concrete(launch.tactic):
            assert launch.grid(point) == (*one.grid, 1, 1)[:3]  # type: ignore[misc]
            assert launch.extras(point) == tuple(runtime_values(one).values())
            baked = {name: value for name, value, fixed in one.arguments if fixed}
            assert baked.items() <= constants.items()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@each_case
def test_every_tactic_compiles_for_every_architecture_or_says_why_not(
    case: Case, arch: str
) -> None:
    found = built(case.name, arch)
    assert len({launch.entry for launch in found.launches}) == len(found.launches)
    for launch in found.launches:
        entry = parse(launch.code)
        assert entry.target.rstrip("a") == arch
        assert launch.block(shapes(found.inputs, 0)[0]) == entry.block
        assert launch.shared_memory(shapes(found.inputs, 0)[0]) == 0
    assert [launch.tactic for launch in found.launches] == list(found.tactics)
    assert {t.config for t in found.tactics.values()} == set(case.kernel.configs)
    if (case.name, arch) not in REFUSED:
        assert found.refused == []
    for error in found.refused:
        assert isinstance(error, UnsupportedKernelError)
        assert re.search(TOO_MUCH_SHARED, str(error))


@static_and_dynamic
@each_case
def test_what_the_compiler_is_told_is_true_of_every_launch(
    case: Case, is_dynamic: bool
) -> None:
    """The text of the facts is checked against ordinary tensors."""
    found = built(case.name, is_dynamic=is_dynamic)
    for number, tactic in found.tactics.items():
        name, _, facts = found.facts[number].partition(": ")
        assert name == tactic.fact_set
        for _, one in found.concrete(number):
            for fact in facts.split():
                assert holds(fact, one), fact


def holds(fact: str, launch: Launch) -> bool:
    """Whether ``x.shape[1]=64``, ``x.strides[0]%8`` or ``x%16`` is true of a launch."""
    values: dict[str, Any] = runtime_values(launch)
    arrays = [n for n, v, _ in launch.arguments if isinstance(v, torch.Tensor)]
    name, operator, number = re.fullmatch(r"(.+)([=%])(\d+)", fact).groups()  # type: ignore[union-attr]
    if name in arrays:
        return operator == "%" and int(number) in (8, 16)
    if operator == "=":
        return bool(values[name] == int(number))
    return bool(values[name] % int(number) == 0)
