"""What TensorRT would launch is what CuTe DSL's host code launches."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import pytest
import sympy

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

from cutedsl_kernels import CUTEDSL_CASES
from host_oracle import HostOracle, NativeLaunch, field
from kernels import Case

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._builder import BuiltLaunch, build
from torch_tensorrt.annotation._expressions import Extents
from torch_tensorrt.annotation._launch import LaunchRecord
from torch_tensorrt.annotation._ptx import Kind, Slot, parse
from torch_tensorrt.annotation._ptxas import assemble, find_ptxas
from torch_tensorrt.annotation._registry import registered
from torch_tensorrt.annotation._symbolic import Range, evaluate, symbol
from torch_tensorrt.annotation._tactics import Plugin, Request, Tactic
from torch_tensorrt.annotation._target import Target, compiling_for
from torch_tensorrt.annotation.backends._cutedsl_compile import (
    Compiled,
    compile_launcher,
)
from torch_tensorrt.annotation.backends._cutedsl_host import execute
from torch_tensorrt.annotation.backends._cutedsl_memory import Address, HostLaunch
from torch_tensorrt.annotation.backends._cutedsl_values import Comparison

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_90a", "sm_100a", "sm_120a")
SHAPES = 100
Reads: TypeAlias = dict[str, tuple[int, int]]

every_case = pytest.mark.parametrize("case", CUTEDSL_CASES, ids=lambda case: case.name)
every_kind = pytest.mark.parametrize(
    "is_dynamic", [False, True], ids=["static", "dynamic"]
)


def registered_plugin(case: Case) -> Plugin:
    op = f"cute::{case.name}"
    trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
    plugin = registered[op].plugin
    assert plugin is not None
    return plugin


def request(case: Case, is_dynamic: bool, target: str = "sm_90") -> Request:
    return Request(case.dynamic if is_dynamic else case.static, {}, Target(target))


def built(case: Case, asked: Request) -> list[BuiltLaunch]:
    with compiling_for(asked.target):
        return build(f"cute::{case.name}", asked.inputs, {})


def points(record: LaunchRecord) -> list[dict[sympy.Symbol, int]]:
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
            for extent in sorted(set(record.ranges.values()), key=repr)
        }
        found.append({s: chosen[extent] for s, extent in record.ranges.items()})
    return found


class Compilation:
    """A tactic compiled once more: the host code, and what was foretold of it."""

    def __init__(self, plugin: Plugin, tactic: Tactic, asked: Request) -> None:
        self.record = plugin.record(tactic, asked.inputs, {})
        self.compiled: Compiled = compile_launcher(
            self.record, asked.target, find_ptxas(), {}, aligned=True
        )
        (self.foretold,) = execute(
            self.compiled.module,
            self.compiled.function,
            self.compiled.arguments,
            self.record.ranges,
            self.record.name,
        )
        sizes = [max(f.offset + f.size for f in p) for p in self.foretold.parameters]
        self._oracle = HostOracle(self.compiled.module, self.compiled.function, sizes)
        objects = sorted({*self.compiled.tensors, "stream"})
        self._addresses = {name: 4096 * (i + 1) for i, name in enumerate(objects)}

    def native(self, extents: Mapping[sympy.Symbol, int]) -> NativeLaunch:
        """What the host code launches for tensors of these extents."""
        values = [self.value(value, extents) for value in self.compiled.arguments]
        (launch,) = self._oracle(values)
        return launch

    def value(self, value: Any, extents: Mapping[sympy.Symbol, int]) -> int:
        """What a value is for concrete extents."""
        if isinstance(value, Address):
            return self._addresses[value.object] + value.offset
        if isinstance(value, Comparison):
            value = value.condition
        return evaluate(value, extents)

    def address(self, slot: Slot) -> int:
        """Of a tensor, as the host code is given it; any, if it is given several."""
        names = [n for n, s in self.compiled.tensors.items() if s == slot]
        return self._addresses[names[0]]


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
        for one in fields:
            expected = field(data, one.offset, one.size)
            assert compilation.value(one.value, extents) == expected


@every_kind
@every_case
def test_the_host_code_launches_what_was_foretold(case: Case, is_dynamic: bool) -> None:
    plugin, asked = registered_plugin(case), request(case, is_dynamic)
    for tactic in plugin.tactics(asked.inputs, {}):
        compilation = Compilation(plugin, tactic, asked)
        for extents in points(compilation.record):
            native = compilation.native(extents)
            check_launch(compilation.foretold, native, compilation, extents)


def shapes_at(asked: Request, extents: Mapping[sympy.Symbol, int]) -> Extents:
    return tuple(
        tuple(
            extents[symbol(index, axis)] if isinstance(extent, Range) else extent
            for axis, extent in enumerate(tensor.shape)
        )
        for index, tensor in enumerate(asked.inputs)
    )


@every_case
def test_tensorrt_launches_what_the_host_code_launches(case: Case) -> None:
    plugin, asked = registered_plugin(case), request(case, is_dynamic=True)
    launches = built(case, asked)
    for tactic, launch in zip(plugin.tactics(asked.inputs, {}), launches, strict=True):
        compilation = Compilation(plugin, tactic, asked)
        for extents in points(compilation.record):
            native, shapes = compilation.native(extents), shapes_at(asked, extents)
            assert launch.grid(shapes) == native.grid
            assert launch.block(shapes) == native.block
            assert launch.shared_memory(shapes) == native.shared_memory
            passed = reads_of_arguments(launch, compilation, launch.extras(shapes))
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
        load, compilation.compiled.code
    ):
        size, data = int(bits) // 8, native.parameters[int(parameter)]
        for index, register in enumerate((several or one).split(",")):
            start = int(offset or 0) + index * size
            found[register.strip()] = (size, field(data, start, size))
    return found


def reads_of_arguments(
    launch: BuiltLaunch, compilation: Compilation, extras: tuple[int, ...]
) -> Reads:
    """What each register gets from TensorRT's arguments instead, or as a constant."""
    original = reads_sizes(compilation.compiled.code)
    found = {}
    for register, size in original.items():
        escaped = re.escape(register)
        (load,) = re.findall(
            rf"(?:ld\.param\.\w+|mov\.b\d+)\s+{escaped}, (\S+);", launch.code
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
    registered_plugin(case)
    asked = request(case, is_dynamic)
    launches = built(case, asked)
    assert len(launches) == case.count
    for launch in launches:
        extras = len(launch._extras)
        assert [p.type for p in parse(launch.code).parameters] == (
            ["u64"] * len(asked.inputs) + ["u32"] * extras + ["u64"] * case.outputs
        )
        assert is_dynamic or extras == 0


@pytest.mark.parametrize("target", ARCHITECTURES)
@every_case
def test_every_kernel_compiles_for_every_architecture(case: Case, target: str) -> None:
    plugin = registered_plugin(case)
    for is_dynamic in (False, True):
        asked = request(case, is_dynamic, target)
        kernel = plugin.kernel(plugin.tactics(asked.inputs, {})[0], asked)
        assert parse(kernel.code).target == target


@every_kind
@every_case
def test_the_rewritten_entry_costs_nothing(case: Case, is_dynamic: bool) -> None:
    plugin, asked = registered_plugin(case), request(case, is_dynamic, "sm_90a")
    ptxas = find_ptxas().path
    tactic = plugin.tactics(asked.inputs, {})[0]
    resources = plugin.kernel(tactic, asked).resources
    original = Compilation(plugin, tactic, asked).compiled.code
    assert resources.spills == 0
    assert resources.registers <= assemble(original, ptxas, "sm_90a").registers
