# SPDX-License-Identifier: BSD-3-Clause

"""Fuzzing: record random launch functions, and run them on plain ints at many shapes.

    python tools/fuzz.py --functions 200 --shapes 100
    make fuzz FUZZ="--seed 7"

A function computes a grid and a few arguments from two dynamic sizes, with the
operators, branches, loops and helpers that launch functions use. It is recorded once,
with a real Triton kernel, and then called at many shapes with real tensors and a
kernel that only keeps what it is given. Grid and arguments must be the same.

A function that is refused is counted, and says nothing more, unless the same function
is wrong. The first that differs is printed with its shape, and the exit status is 1.
The same seed gives the same functions.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._record.program import Constant, Launch, Scalar
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.errors import AnnotationError

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))
from values import evaluate  # noqa: E402

SIZES = (Range(1, 16, 70), Range(2, 24, 150))
NAMES = ("p", "q", "r")  # the kernel's integer arguments

HELPERS = """
def ceil_div(a, b):
    return (a + b - 1) // b

def rounded(a, b=16):
    return ceil_div(a, b) * b

def clamped(a, low, high):
    return min(max(a, low), high)
"""


@triton.jit
def kernel(x, out, p, q, r):
    tl.store(out + tl.program_id(0), tl.load(x + p * q + r))


class Writer:
    """Writes the source of one launch function."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.names = ["n", "m"]

    def constant(self) -> str:
        return str(self.random.choice([1, 2, 3, 4, 7, 8, 16, 32, 33, 64, 100, 128]))

    def expression(self, depth: int = 0) -> str:
        if depth > 2 or self.random.random() < 0.25:
            known = [*self.names, "x.shape[0]", "x.numel()", "x.stride(0)"]
            return self.random.choice([*known, self.constant()])
        a, b = self.expression(depth + 1), self.expression(depth + 1)
        c = self.constant()
        return self.random.choice(
            [
                *(f"({a} + {b})", f"({a} - {b})", f"{a} * {c}", f"({a} * {b})"),
                *(f"({a} // {c})", f"({a} % {c})", f"-(-{a} // {c})"),
                *(f"min({a}, {b})", f"max({a}, {b})", f"abs({a} - {b})"),
                *(f"triton.cdiv({a}, {c})", f"ceil_div({a}, {c})", f"rounded({a})"),
                *(f"clamped({a}, 1, {c})", f"math.ceil({a} / {c})", f"int({a})"),
                *(f"({a} if {self.condition()} else {b})", f"({a} << 2)"),
                *(f"({a} >> 1)", f"sum(({a}, {b}, {c}))", f"divmod({a}, {c})[1]"),
            ]
        )

    def condition(self) -> str:
        a = self.random.choice(self.names)
        b = self.random.choice([self.constant(), *self.names])
        operator = self.random.choice(["<", "<=", ">", ">=", "==", "!="])
        chosen = f"{a} {operator} {b}"
        return self.random.choice(
            [chosen, chosen, f"{a} % {self.constant()} == 0", f"not {chosen}"]
        )

    def statement(self, number: int) -> list[str]:
        name = f"v{number}"
        lines = [f"{name} = {self.expression()}"]
        kind = self.random.random()
        if kind < 0.2:
            lines += [f"if {self.condition()}:", f"    {name} = {self.expression()}"]
        elif kind < 0.3:
            lines += [f"for _ in range({self.random.randint(1, 3)}):"]
            lines += [f"    {name} = {name} // 2 + {self.constant()}"]
        elif kind < 0.35:
            lines += [f"while {name} > 4096:", f"    {name} = {name} // 2"]
        self.names.append(name)
        return lines

    def function(self) -> str:
        body = ["n, m = x.shape"]
        for number in range(self.random.randint(1, 4)):
            body += self.statement(number)
        grid = f"(max(1, {self.expression()}), {self.constant()})"
        arguments = ", ".join(f"{name}={self.expression()}" for name in NAMES)
        body.append(f"kernel[{grid}](x, out, {arguments})")
        return "def launch(x, out):\n" + "".join(f"    {line}\n" for line in body)


class Kept:
    """A kernel that keeps the grid and the arguments of its launch."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(x: Any, out: Any, **arguments: int) -> None:
            self.grid = tuple(map(int, (*grid, 1, 1)[:3]))
            self.arguments = {name: int(value) for name, value in arguments.items()}

        return launch


def defined(source: str, kernel: Any) -> Callable[..., Any]:
    import math

    namespace: dict[str, Any] = {"kernel": kernel, "triton": triton, "math": math}
    exec(compile(HELPERS + source, "<fuzz>", "exec"), namespace)
    launch: Callable[..., Any] = namespace["launch"]
    return launch


def recorded(source: str) -> Launch | AnnotationError:
    """The launch that this package makes of the function, or why it refuses it."""
    plugin = Plugin(
        "fuzz::launch",
        tta.custom_plugin(tta.triton(defined(source, kernel)), meta_impl=lambda x: x),
        torch.empty_like,
        ("x",),
        {},
    )
    info = TensorInfo(SIZES, torch.float32)
    (tactic,) = plugin.programs(Request.of([info], {}, None))
    if tactic.error is not None:
        return tactic.error
    assert tactic.program is not None
    return tactic.program.launch


def values(launch: Launch, extents: Mapping[Any, int]) -> tuple[Any, Any]:
    """The grid and the arguments that TensorRT would compute."""
    assert launch.grid is not None
    grid = tuple(evaluate(size, extents) for size in launch.grid)
    arguments: dict[str, int] = {}
    for argument in launch.arguments:
        if isinstance(argument, Scalar):
            arguments[argument.name] = evaluate(argument.expr, extents)
        elif isinstance(argument, Constant):
            arguments[argument.name] = argument.value
    return grid, arguments


def shapes(random: random.Random, count: int) -> list[tuple[int, int]]:
    corners = itertools.product(*((size.min, size.opt, size.max) for size in SIZES))
    return list(corners) + [
        (random.randint(a.min, a.max), random.randint(b.min, b.max))
        for a, b in [SIZES] * count
    ]


def difference(source: str, launch: Launch, shape: tuple[int, int]) -> str | None:
    kept = Kept()
    x = torch.empty(shape)
    defined(source, kept)(x, x)
    extents = {symbol(0, axis): extent for axis, extent in enumerate(shape)}
    grid, arguments = values(launch, extents)
    if (grid, arguments) == (kept.grid, kept.arguments):
        return None
    return (
        f"at {shape}, grid and arguments are recorded as\n  {grid} {arguments}\n"
        f"and are\n  {kept.grid} {kept.arguments}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--functions", type=int, default=300)
    parser.add_argument("--shapes", type=int, default=100, help="beside the corners")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    for number in range(options.functions):
        chance = random.Random(f"{options.seed}, {number}")
        source = Writer(chance).function()
        launch = recorded(source)
        if isinstance(launch, AnnotationError):
            outcomes[f"refused, {type(launch).__name__}"] += 1
            continue
        outcomes["recorded"] += 1
        for shape in shapes(chance, options.shapes):
            found = difference(source, launch, shape)
            if found is not None:
                print(f"function {number} of seed {options.seed}:\n{source}\n{found}")
                return 1
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    return 0 if outcomes["recorded"] else 1


if __name__ == "__main__":
    sys.exit(main())
