# SPDX-License-Identifier: BSD-3-Clause

"""What TensorRT would launch is what ``ct.launch`` would, for every cuTile kernel."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from kernels import Case
from test_launch_abi import concrete, runtime_values, shapes, static_and_dynamic

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.ptx import parse
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._dry_run.report import Dims, TacticReport
from torch_tensorrt.annotation._plugin import Request, Tactic, registered
from torch_tensorrt.annotation._record.program import CaughtLaunch, Constant
from torch_tensorrt.annotation._specs import Config
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.errors import UnsupportedKernelError

pytest.importorskip("cuda.tile")
from cutile_kernels import CUTILE_CASES

# What may be refused, and why.
REFUSED = {("matmul", "sm_80")}
TOO_MUCH_SHARED = r"\d+ bytes of static shared memory; sm_80 has 49152 for a block"


class Built:
    """A case, compiled once: its launches as TensorRT gets them, and what they are."""

    def __init__(self, case: Case, arch: str, is_dynamic: bool) -> None:
        self.inputs = case.dynamic if is_dynamic else case.static
        op = f"abi::{case.name}"
        trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
        plugin = registered[op].plugin
        assert plugin is not None
        request = Request.of(self.inputs, {}, Target(arch))
        tactics = plugin.kernels(request)
        plugin.prepare()
        self.hidden = plugin.hidden.count
        self.launches: list[TacticReport] = build(plugin, request, self.hidden)
        self.tactics = {tactic.number: tactic for tactic in tactics if tactic.kernel}
        self.refused = [tactic.error for tactic in tactics if tactic.error]
        first = {without_facts(tactic): tactic for tactic in reversed(tactics)}
        points = shapes(self.inputs, 25)
        self._concrete = cache(
            lambda config: [(p, concrete(case, first[config], p)) for p in points]
        )

    def concrete(self, number: int) -> list[tuple[Dims, CaughtLaunch]]:
        """What the launch function does with tensors of ordinary extents."""
        found: list[tuple[Dims, CaughtLaunch]] = self._concrete(
            without_facts(self.tactics[number])
        )
        return found


def without_facts(tactic: Tactic) -> Config:
    """What the launch function depends on."""
    return tuple(pair for pair in tactic.config if pair[0] != "facts")


@cache
def built(name: str, arch: str = "sm_90", is_dynamic: bool = True) -> Built:
    (case,) = (case for case in CUTILE_CASES if case.name == name)
    return Built(case, arch, is_dynamic)


each_case = pytest.mark.parametrize("case", CUTILE_CASES, ids=lambda case: case.name)


@static_and_dynamic
@each_case
def test_the_entry_takes_inputs_then_extras_then_outputs(
    case: Case, is_dynamic: bool
) -> None:
    found = built(case.name, is_dynamic=is_dynamic)
    assert found.launches
    assert found.refused == []
    for launch in found.launches:
        extras = launch.at(*shapes(found.inputs, 0)[0]).extras
        entry = parse(launch.code)
        assert entry.name == launch.entry
        assert [parameter.type for parameter in entry.parameters] == (
            ["u64"] * len(found.inputs)
            + ["u32"] * len(extras)
            + ["u64"] * (case.outputs + found.hidden)
        )
        assert ".hidden" not in launch.code


@static_and_dynamic
@each_case
def test_grid_and_extras_are_those_of_the_launch_function(
    case: Case, is_dynamic: bool
) -> None:
    found = built(case.name, is_dynamic=is_dynamic)
    for launch in found.launches:
        program = found.tactics[launch.tactic].program
        assert program is not None
        constants = {
            argument.name: argument.value
            for argument in program.launch.arguments
            if isinstance(argument, Constant)
        }
        for point, one in found.concrete(launch.tactic):
            launched = launch.at(*point)
            assert launched.grid == (*one.grid, 1, 1)[:3]  # type: ignore[misc]
            assert launched.extras == tuple(runtime_values(one).values())
            baked = {name: value for name, value, fixed in one.arguments if fixed}
            assert baked.items() <= constants.items()


@each_case
def test_every_tactic_compiles_or_says_why_not(case: Case, architecture: str) -> None:
    found = built(case.name, architecture)
    assert len({launch.entry for launch in found.launches}) == len(found.launches)
    for launch in found.launches:
        entry = parse(launch.code)
        assert entry.target.rstrip("a") == architecture
        launched = launch.at(*shapes(found.inputs, 0)[0])
        assert (launched.block, launched.shared_memory) == (entry.block, 0)
    assert [launch.tactic for launch in found.launches] == list(found.tactics)
    configs = {tuple(p for p in c if p[0] != "facts") for c in case.kernel.configs}
    # Fewer where the code of two configs is the same.
    assert set(map(without_facts, found.tactics.values())) <= configs
    assert found.tactics or found.refused
    if (case.name, architecture) not in REFUSED:
        assert found.refused == []
    for error in found.refused:
        assert isinstance(error, UnsupportedKernelError)
        assert re.search(TOO_MUCH_SHARED, str(error))


@static_and_dynamic
@each_case
def test_the_facts_hold_for_every_launch(case: Case, is_dynamic: bool) -> None:
    """The text of the facts is checked against ordinary tensors."""
    found = built(case.name, is_dynamic=is_dynamic)
    for number, tactic in found.tactics.items():
        assert tactic.kernel is not None
        name, _, facts = tactic.kernel.facts.partition(": ")
        assert name == tactic.settings["facts"]
        for _, one in found.concrete(number):
            for fact in facts.split():
                assert holds(fact, one), fact


def holds(fact: str, launch: CaughtLaunch) -> bool:
    """Whether ``x.shape[1]=64``, ``x.strides[0]%8`` or ``x%16`` is true of a launch."""
    values: dict[str, Any] = runtime_values(launch)
    arrays = [n for n, v, _ in launch.arguments if isinstance(v, torch.Tensor)]
    name, operator, number = re.fullmatch(r"(.+)([=%])(\d+)", fact).groups()  # type: ignore[union-attr]
    if name in arrays:
        return operator == "%" and int(number) in (8, 16)
    if operator == "=":
        return bool(values[name] == int(number))
    return bool(values[name] % int(number) == 0)
