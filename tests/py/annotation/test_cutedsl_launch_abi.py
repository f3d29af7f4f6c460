# SPDX-License-Identifier: BSD-3-Clause

"""What TensorRT would launch is what CuTe DSL's host code launches."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import sympy

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

from cutedsl_kernels import CUTEDSL_CASES
from host_oracle import HostOracle, NativeLaunch, field
from kernels import Case
from values import evaluate

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.kernel import Kernel
from torch_tensorrt.annotation._code.ptx import Kind, Slot, parse
from torch_tensorrt.annotation._code.ptxas import assemble, find_ptxas
from torch_tensorrt.annotation._dry_run import plugin_of
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._dry_run.report import Dims
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._record.program import Program
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import Parameters
from torch_tensorrt.annotation.backends.cutedsl.compiler import compile_launcher
from torch_tensorrt.annotation.backends.cutedsl.host import (
    Address,
    HostLaunch,
    execute,
)

SHAPES = 100
Reads: TypeAlias = dict[str, tuple[int, int]]

every_case = pytest.mark.parametrize("case", CUTEDSL_CASES, ids=lambda case: case.name)
every_kind = pytest.mark.parametrize(
    "is_dynamic", [False, True], ids=["static", "dynamic"]
)


def request(case: Case, is_dynamic: bool, target: str = "sm_90") -> Request:
    return Request.of(case.dynamic if is_dynamic else case.static, {}, Target(target))


def registered_plugin(case: Case) -> Plugin:
    op = f"cute::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    return plugin_of(op)


def tactics(plugin: Plugin, asked: Request) -> list[tuple[Program, Kernel]]:
    """For every tactic, what it does and what TensorRT gets for it."""
    found = []
    for tactic in plugin.kernels(asked):
        assert tactic.program is not None and tactic.kernel is not None, tactic.error
        found.append((tactic.program, tactic.kernel))
    return found


def first(case: Case) -> Case:
    """The case with one config alone."""
    return replace(case, kernel=replace(case.kernel, configs=case.kernel.configs[:1]))


def points(program: Program) -> list[dict[sympy.Symbol, int]]:
    """Extents of the profile: its corners, and random ones between.

    Inputs that are added have the same extents, so equal ranges go together.
    """
    generator = random.Random(0)
    found = []
    for index in range(SHAPES + 2):
        chosen = {
            extent: {0: extent.min, 1: extent.max}.get(
                index, generator.randint(extent.min, extent.max)
            )
            for extent in sorted(set(program.ranges.values()), key=repr)
        }
        found.append({s: chosen[extent] for s, extent in program.ranges.items()})
    return found


class Compilation:
    """A program compiled once more: the host code, and what was foretold of it."""

    def __init__(self, program: Program, target: str = "sm_90") -> None:
        self.program = program
        parameters = Parameters(program, aligned=True)
        self.host = compile_launcher(parameters, Target(target), find_ptxas(), None)
        host = self.host
        (self.foretold,) = execute(host, program.ranges, "launcher")
        sizes = [
            max(offset + cell.size for offset, cell in fields.items())
            for fields in self.foretold.parameters
        ]
        self._oracle = HostOracle(host.module, host.function, sizes)
        given = [value for value in host.arguments if isinstance(value, Address)]
        objects = dict.fromkeys(address.object for address in given)
        self._addresses = {name: 4096 * (i + 1) for i, name in enumerate(objects)}

    def native(self, extents: Mapping[sympy.Symbol, int]) -> NativeLaunch:
        """What the host code launches for tensors of these extents."""
        values = [self.value(value, extents) for value in self.host.arguments]
        (launch,) = self._oracle(values)
        return launch

    def value(self, value: Any, extents: Mapping[sympy.Symbol, int]) -> int:
        """What a value is for concrete extents."""
        if isinstance(value, Address):
            return self._addresses[value.object] + value.offset
        return evaluate(value, extents)

    def address(self, slot: Slot) -> int:
        """Of a tensor, as the host code is given it."""
        return self._addresses[slot]


def check_launch(
    foretold: HostLaunch,
    native: NativeLaunch,
    compilation: Compilation,
    extents: Mapping[sympy.Symbol, int],
) -> None:
    def values(expressions: Any) -> tuple[int, ...]:
        return tuple(compilation.value(e, extents) for e in expressions)

    assert values(foretold.grid) == native.grid
    assert values(foretold.block) == native.block
    assert values([foretold.shared_memory]) == (native.shared_memory,)
    for fields, data in zip(foretold.parameters, native.parameters, strict=True):
        for offset, cell in fields.items():
            expected = field(data, offset, cell.size)
            assert compilation.value(cell.value, extents) == expected


@every_kind
@every_case
def test_the_host_code_launches_what_was_foretold(case: Case, is_dynamic: bool) -> None:
    asked = request(case, is_dynamic)
    for program, _ in tactics(registered_plugin(case), asked):
        compilation = Compilation(program)
        for extents in points(program):
            native = compilation.native(extents)
            check_launch(compilation.foretold, native, compilation, extents)


def shapes_at(asked: Request, extents: Mapping[sympy.Symbol, int]) -> Dims:
    return tuple(
        tuple(
            extents[symbol(index, axis)] if isinstance(extent, Range) else extent
            for axis, extent in enumerate(info.shape)
        )
        for index, info in enumerate(asked.inputs)
        if info is not None
    )


@every_case
def test_tensorrt_launches_what_the_host_code_launches(case: Case) -> None:
    plugin, asked = registered_plugin(case), request(case, is_dynamic=True)
    launches = build(plugin, asked)
    for (program, _), launch in zip(tactics(plugin, asked), launches, strict=True):
        compilation = Compilation(program)
        for extents in points(program):
            native = compilation.native(extents)
            report = launch.at(*shapes_at(asked, extents))
            assert report.grid == native.grid
            assert report.block == native.block
            assert report.shared_memory == native.shared_memory
            passed = reads_of_arguments(launch.code, compilation, report.extras)
            assert passed == reads_of_parameters(compilation, native)


_REGISTERS = r"(?:\{([^}]*)\}|(%\w+))"


def reads_of_parameters(compilation: Compilation, native: NativeLaunch) -> Reads:
    """What each register gets from CuTe DSL's own parameters: (bits, value)."""
    load = (
        rf"ld\.param(?:\.v\d)?\.[a-z]+(\d+)\s+{_REGISTERS},\s*"
        r"\[\w+_param_(\d+)(?:\+(\d+))?\]"
    )
    found = {}
    for bits, several, one, parameter, offset in re.findall(
        load, compilation.host.code
    ):
        size, data = int(bits) // 8, native.parameters[int(parameter)]
        for index, register in enumerate((several or one).split(",")):
            start = int(offset or 0) + index * size
            found[register.strip()] = (size, field(data, start, size))
    return found


def reads_of_arguments(
    code: str, compilation: Compilation, extras: tuple[int, ...]
) -> Reads:
    """What each register gets from TensorRT's arguments instead, or as a constant."""
    original = reads_sizes(compilation.host.code)
    found = {}
    for register, size in original.items():
        escaped = re.escape(register)
        (load,) = re.findall(
            rf"(?:ld\.param\.\w+|mov\.b\d+)\s+{escaped}, (\S+);", code
        )[:1]
        argument = re.fullmatch(r"\[tta_(\w+)_(\d+)\]", load)
        if argument is None:
            value = int(load)
        elif argument[1] == "extra":
            value = extras[int(argument[2])]
        else:
            value = compilation.address(Slot(Kind(argument[1]), int(argument[2])))
        data = (value % 2 ** (8 * size)).to_bytes(size, "little")
        found[register] = (size, int.from_bytes(data, "little", signed=True))
    return found


def reads_sizes(code: str) -> dict[str, int]:
    loads = re.findall(rf"ld\.param(?:\.v\d)?\.[a-z]+(\d+)\s+{_REGISTERS},", code)
    return {
        register.strip(): int(bits) // 8
        for bits, several, one in loads
        for register in (several or one).split(",")
    }


# --- Headers, architectures, resources ------------------------------------------------


@every_kind
@every_case
def test_the_entry_takes_inputs_then_extras_then_outputs(
    case: Case, is_dynamic: bool
) -> None:
    found = tactics(registered_plugin(case), request(case, is_dynamic))
    assert len(found) == case.count
    for program, kernel in found:
        extras = len(kernel.extras)
        assert [p.type for p in parse(kernel.code).parameters] == (
            ["u64"] * len(program.inputs) + ["u32"] * extras + ["u64"] * case.outputs
        )
        assert is_dynamic or extras == 0


@every_case
def test_every_kernel_compiles(case: Case, architecture: str) -> None:
    plugin = registered_plugin(first(case))
    for is_dynamic in (False, True):
        asked = request(case, is_dynamic, architecture)
        ((_, kernel),) = tactics(plugin, asked)
        assert parse(kernel.code).target == architecture


@pytest.mark.parametrize("target", ["sm_89", "sm_90a", "sm_100a", "sm_120a"])
def test_the_code_is_for_the_architecture_that_was_asked_for(target: str) -> None:
    (case,) = (case for case in CUTEDSL_CASES if case.name == "cute_silu")
    plugin = registered_plugin(first(case))
    ((_, kernel),) = tactics(plugin, request(case, True, target))
    assert parse(kernel.code).target == target


@every_kind
@every_case
def test_the_rewritten_entry_costs_nothing(case: Case, is_dynamic: bool) -> None:
    plugin, asked = registered_plugin(first(case)), request(case, is_dynamic, "sm_90a")
    ((program, kernel),) = tactics(plugin, asked)
    original = Compilation(program, "sm_90a").host.code
    assert kernel.spills == 0
    resources = assemble(original, find_ptxas().path, "sm_90a")
    assert kernel.registers <= resources.registers
