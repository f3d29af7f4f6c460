# SPDX-License-Identifier: BSD-3-Clause

"""Fuzzing: record random launch functions, and run them on plain ints at many shapes.

    python tools/fuzz.py --functions 200 --shapes 100
    make fuzz FUZZ="--seed 7"

A function computes a grid and a few arguments from the extents of two inputs, with the
operators, branches, loops, tables, slices and round trips through floats that launch
functions use; it passes views, and buffers of its own. It is recorded once, with a real
Triton kernel, and then called at many shapes with real tensors and a kernel that only
keeps what it is given. Grid, arguments, constants and options must be the same, where
pointers point to, and what the function allocates. One function in ``--compiled`` is
compiled as well, and ``tactic.at`` of its dry run must say the same.

One in ``--bodies`` is the body of an op of several steps instead (fuzz_bodies.py), and
its launches and torch operations must compute the same values.

A function that is refused counts as right where what one trace recorded, explored and
replayed nowhere, holds at every shape tried, thousands of them: then the refusal was
needless. Functions that differ are printed with their shape, and the exit status is 1.
The same seed gives the same functions.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import gc
import itertools
import logging
import multiprocessing
import os
import random
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import fuzz_bodies
import sympy
import torch
import triton
import triton.language as tl

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._record import branches
from torch_tensorrt.annotation._record.program import Constant, Output, Program, Scalar
from torch_tensorrt.annotation._record.replay import numbers_in, points_of
from torch_tensorrt.annotation._sizes.to_tensorrt import compiled
from torch_tensorrt.annotation._tensors import Range, TensorInfo, ranges_of, symbol
from torch_tensorrt.annotation.errors import AnnotationError

# The extents of x and of y. The shapes of all but the last profile are all replayed.
PROFILES = (
    ((Range(1, 4, 8), Range(1, 5, 6)), (Range(1, 2, 3),)),
    ((Range(1, 60, 100), 64), (64,)),
    ((Range(1, 6, 10), Range(2, 7, 13)), (32,)),
    ((Range(0, 8, 20), 128), (Range(1, 5, 7),)),
    ((Range(2, 1024, 65536), Range(1, 512, 8192)), (Range(1, 512, 8192),)),
)
SECONDS = 20  # for one function; a longer one counts as refused
NAMES = ("p", "q", "r")  # the kernel's integer arguments

HELPERS = """
def ceil_div(a, b):
    return (a + b - 1) // b

def rounded(a, b=16):
    return ceil_div(a, b) * b

def clamped(a, low, high):
    return min(max(a, low), high)

def looked_up(table, key, default):
    try:
        return table[key]
    except (KeyError, TypeError):
        return default
"""


class Mode(enum.IntEnum):
    """What people tell kernels with a constant."""

    SUM = 1
    LAST = 2


@triton.jit
def kernel(x, y, z, out, p, q, r, C: tl.constexpr, MODE: tl.constexpr):
    i = tl.program_id(0)
    value = tl.load(z + i)
    if MODE == 1:
        value += tl.load(x + p * q + r) + tl.load(y + C)
    tl.store(out + i, value)


class Writer:
    """Writes the source of one launch function."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names = ["n", "m", "k"]

    def one_of(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def constant(self) -> str:
        return str(self.chance.choice([1, 2, 3, 4, 7, 8, 16, 32, 33, 64, 100, 128]))

    def size(self) -> str:
        return self.one_of(
            *(self.names * 8),
            *("x.shape[0]", "x.numel()", "x.stride(0)", "len(y)", "x.size(1)"),
            *("x.view(-1).shape[0]", "x[:, :1].numel()", "x.t().shape[0]"),
            *("torch.cat([x, x]).shape[0]", "x.unsqueeze(0).shape[1]", "y[1:].numel()"),
        )

    def expression(self, depth: int = 0) -> str:
        if depth > 2 or self.chance.random() < 0.25:
            return self.constant() if self.chance.random() < 0.25 else self.size()
        a, b, c = (
            self.expression(depth + 1),
            self.expression(depth + 1),
            self.constant(),
        )
        usual = [
            *(f"({a} + {b})", f"({a} - {b})", f"{a} * {c}", f"({a} * {b})"),
            *(f"({a} // {c})", f"({a} % {c})", f"-(-{a} // {c})", f"({a} >> 1)"),
            *(f"min({a}, {b})", f"max({a}, {b})", f"abs({a} - {b})", f"({a} << 2)"),
            *(f"triton.cdiv({a}, {c})", f"ceil_div({a}, {c})", f"rounded({a})"),
            *(f"clamped({a}, 1, {c})", f"math.ceil({a} / {c})", f"sum(({a}, {b}, 1))"),
            *(f"divmod({a}, {c})[1]", f"({a} // -{c})", f"({a} % -{c})"),
            *(f"-(({a} // 2) // -{c})", f"max({a}, 1) // {c}", f"({a} & 15)"),
        ]
        rare = [
            *(f"({a} if {self.condition()} else {b})", f"int({a})", f"int({a} / {c})"),
            *(f"math.floor({a} / {c})", f"int({a} // {c})", f"({a} // max({b}, 1))"),
            *(f"[1, 2, 4, 8][{a} % 4]", f"{{1: 2, 16: 3}}.get({a}, {b})", f"({a} | 1)"),
            *(
                f"looked_up({{8: 1, 64: 2}}, {a}, {b})",
                f"({a} ^ {c})",
                f"round({a} / 2)",
            ),
            *(
                f"{{'5': 1, '64': 2}}.get(str({a}), {b})",
                f"isinstance({a}, int) * {b}",
                "(x + x).shape[0]",
            ),
            *("x.squeeze().dim()", f"triton.next_power_of_2({a})", f"len(range({a}))"),
            f"torch.empty({a}, device=x.device).numel()",
            *(f"({a} if n == m else {b})", f"int(math.sqrt({self.size()}))", f"(~{a})"),
        ]
        return self.one_of(*usual) if self.chance.random() < 0.9 else self.one_of(*rare)

    def condition(self) -> str:
        a, b = self.one_of(*self.names), self.one_of(self.constant(), *self.names)
        chosen = f"{a} {self.one_of('<', '<=', '>', '>=', '==', '!=')} {b}"
        more = f"{chosen} and {self.one_of(*self.names)} > {self.constant()}"
        zero = f"{a} % {self.constant()} == 0"
        return self.one_of(chosen, chosen, zero, f"not {chosen}", more)

    def statement(self, number: int) -> list[str]:
        name = f"v{number}"
        lines = [f"{name} = {self.expression()}"]
        kind = self.chance.random()
        if kind < 0.1:
            lines += [f"if {self.condition()}:", f"    {name} = {self.expression()}"]
        elif kind < 0.15:  # the branches are the same
            lines += [f"if {self.condition()}:", f"    {name} = {name} + 0"]
        elif kind < 0.25:
            lines += [f"for _ in range({self.chance.randint(1, 3)}):"]
            lines += [f"    {name} = {name} // 2 + {self.constant()}"]
        elif kind < 0.27:
            lines += [f"while {name} > 4096:", f"    {name} = {name} // 2"]
        elif kind < 0.29:
            lines += [f"assert {self.one_of('n == m', 'm == k', 'n > 0', 'n < 99999')}"]
        self.names.append(name)
        return lines

    def number(self) -> str:
        """An argument that is an integer, or a condition."""
        is_condition = self.chance.random() < 0.03
        return self.condition() if is_condition else self.expression()

    def view(self) -> str:
        """A tensor that starts somewhere in an input."""
        a = self.expression(2)
        usual = [
            *(
                "x[1:]",
                "x[:, 1:]",
                "x[-1]",
                "x.t()[1:]",
                "x[n // 2 :]",
                "x[0, m - 1 :]",
            ),
            *("y[1:]", "y[k // 2 :]", "y[-1:]", "x.chunk(2)[-1]", "x.chunk(2, 1)[-1]"),
            *("x[1:][1:]", "x.narrow(0, n // 2, 1)", "x.unsqueeze(0)[0, -1:]"),
        ]
        rare = [
            *(
                f"x.view(-1)[{a} :]",
                f"x.view(-1)[-{a} :]",
                f"y[{a} :]",
                f"x[{a} // 8 :]",
            ),
            *(f"x.narrow(0, {a} % n, 1)", f"x.view(-1)[{a} :: 2]", f"x[{a} % n]"),
            *(f"x.select(1, {a} % m)", "x.unfold(1, 2, 1)[:, 1:]", "x.split(4)[-1]"),
            *("x.as_strided((n,), (m,), 1)", "x.view(torch.int16)[:, 3:]", "x[[0]]"),
            *("x.reshape(m, n)[1:]", "x.expand(2, n, m)[1, 1:]", "x[1 - n :]"),
        ]
        return self.one_of(*usual) if self.chance.random() < 0.7 else self.one_of(*rare)

    def buffer(self) -> str:
        """A tensor of the function's own."""
        a = self.expression(1)
        return self.one_of(
            *(f"torch.empty(max(1, {a}), device=x.device)", "torch.empty_like(x)"),
            *(f"x.new_empty(n, max({a}, 2))", "torch.empty(m, n, device=x.device).t()"),
            *(
                "x.new_empty(n + 1, m)[1:]",
                "torch.empty((n, 4), device=x.device)[:, 2:]",
            ),
            *(
                f"y.new_empty(abs({a}) + 3)[k % 3 :]",
                "x.new_empty(m, dtype=torch.int8)",
            ),
        )

    def tensor(self, usual: str) -> str:
        """An argument that is a tensor."""
        kind = self.chance.random()
        if kind < 0.8:
            return usual
        return self.view() if kind < 0.93 else self.buffer()

    def constants(self) -> list[str]:
        """What is compiled into the kernel."""
        mode = self.one_of("Mode.SUM", "Mode(2)")
        if self.chance.random() < 0.03:
            mode = f"Mode.SUM if {self.condition()} else Mode.LAST"
        elif self.chance.random() < 0.03:
            mode = f"Mode(1 + {self.expression(2)} % 2)"
        size = self.expression(1) if self.chance.random() < 0.1 else self.constant()
        given = [f"C={self.one_of(size, size, 'len(x.shape)')}", f"MODE={mode}"]
        if self.chance.random() < 0.1:
            warps = f"8 if {self.condition()} else 4"
            given.append(f"num_warps={self.one_of('2', '8', warps)}")
        return given

    def function(self) -> str:
        body = ["n, m = x.shape", "k = y.shape[0]"]
        for number in range(self.chance.randint(1, 4)):
            body += self.statement(number)
        grid = f"(max(1, {self.expression()}), {self.constant()})"
        given = [f"{name}={self.number()}" for name in NAMES]
        tensors = [self.tensor("x"), self.tensor("y"), self.tensor("x"), "out"]
        given = [*tensors, *given, *self.constants()]
        body.append(f"kernel[{grid}]({', '.join(given)})")
        return "def launch(x, y, out):\n" + "".join(f"    {line}\n" for line in body)


class Kept:
    """A kernel that keeps the grid and the arguments of its launch."""

    def of(self, function: Callable[..., Any], shape: Shape) -> tuple[Any, Any]:
        """What ``function`` launches it with at ``shape``."""
        x, y = (torch.empty(extents, device="meta") for extents in shape)
        self._tensors = [x, y, torch.empty_like(x)]
        function(*self._tensors)
        return self._grid, self._arguments

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(x: Any, y: Any, z: Any, out: Any, **arguments: int) -> None:
            self._grid = tuple(map(int, (*grid, 1, 1)[:3]))
            pointers = {"x": x, "y": y, "z": z, "out": out}
            self._arguments = {
                **{name: self._place(tensor) for name, tensor in pointers.items()},
                **{name: int(value) for name, value in arguments.items()},
            }

        return launch

    def _place(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        """The number of the tensor's memory, its bytes, and where in it it starts."""
        memory = [t.untyped_storage()._cdata for t in self._tensors]
        storage, offset = tensor.untyped_storage(), tensor.storage_offset()
        if storage._cdata not in memory:
            memory.append(storage._cdata)
            self._tensors.append(tensor)  # or another may get its identity
        place = memory.index(storage._cdata)
        return place, storage.nbytes(), offset * tensor.element_size()


def defined(source: str, kernel: Any) -> Callable[..., Any]:
    import math

    namespace: dict[str, Any] = {
        **{"kernel": kernel, "triton": triton, "math": math, "torch": torch},
        "Mode": Mode,
    }
    exec(compile(HELPERS + source, "<fuzz>", "exec"), namespace)
    launch: Callable[..., Any] = namespace["launch"]
    return launch


Shape = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Case:
    """A launch function, and the inputs it is recorded for."""

    source: str
    infos: tuple[TensorInfo, ...]

    @classmethod
    def of(cls, chance: random.Random) -> Case:
        infos = [TensorInfo(s, torch.float32) for s in chance.choice(PROFILES)]
        return cls(Writer(chance).function(), tuple(infos))

    @property
    def spec(self) -> Any:
        launch = defined(self.source, kernel)
        meta = lambda x, y: torch.empty_like(x)  # noqa: E731
        return tta.custom_plugin(tta.triton(launch), meta_impl=meta)

    def recorded(self) -> Program | AnnotationError:
        """The program that this package makes of the function, or why it refuses it."""
        meta = lambda x, y: torch.empty_like(x)  # noqa: E731
        plugin = Plugin("fuzz::launch", self.spec, meta, ("x", "y"), {})
        (tactic,) = plugin.programs(Request.of(self.infos, {}, None))
        if tactic.error is not None:
            return tactic.error
        assert tactic.program is not None
        return tactic.program

    def shapes(self, chance: random.Random, count: int) -> list[Shape]:
        """Corners of the profile, and random shapes."""
        extents = [e for info in self.infos for e in info.shape]
        spans = [e if isinstance(e, Range) else Range(e, e, e) for e in extents]
        corners = itertools.product(*({s.min, s.opt, s.max} for s in spans))
        flat = [*corners] + [
            tuple(
                chance.choice([chance.randint(s.min, s.max), min(s.max, s.min + 8)])
                for s in spans
            )
            for _ in range(count)
        ]
        return [(point[:2], point[2:]) for point in flat]

    def dense(self) -> list[Shape]:
        """Thousands of shapes, with all numbers that the function names."""
        ranges = ranges_of(self.infos)
        numbers = numbers_in(defined(self.source, kernel))
        points, _ = points_of(ranges, {}, numbers, 4000)
        return [
            tuple(
                tuple(sizes.get(symbol(i, a), e) for a, e in enumerate(info.shape))
                for i, info in enumerate(self.infos)
            )
            for sizes in (dict(zip(ranges, point, strict=True)) for point in points)
        ]

    def raises(self, shapes: Sequence[Shape]) -> bool:
        """Whether the function does not take one of these shapes."""
        kept = Kept()
        function = defined(self.source, kept)
        for shape in shapes:
            try:
                kept.of(function, shape)
            except Exception:
                return True
        return False

    def difference(
        self, launch: Any, shapes: Sequence[Shape], shapes_raise: bool = False
    ) -> str | None:
        """Where what was recorded differs from what the function does.

        Args:
            launch: from a shape to grid, and arguments by name.
            shapes_raise: the function need not take all shapes.
        """
        kept = Kept()
        function = defined(self.source, kept)
        for shape in shapes:
            try:
                expected = kept.of(function, shape)
            except Exception as error:
                if is_contract(self.source, shape) or shapes_raise:
                    continue
                return f"at {shape} the function raises {error!r}"
            try:
                found = launch(shape)
            except ZeroDivisionError:
                return f"at {shape} a division by zero is recorded"
            if found != expected:
                return (
                    f"at {shape}, grid and arguments are recorded as\n  {found}\n"
                    f"and are\n  {expected}"
                )
        return None


def is_contract(source: str, shape: Shape) -> bool:
    """Whether the function says that it does not take this shape."""
    (n, m), (k,) = shape
    return ("assert n == m" in source and n != m) or (
        "assert m == k" in source and m != k
    )


def values(program: Program, case: Case) -> Callable[[Shape], tuple[Any, Any]]:
    """The grid and the arguments that TensorRT would compute."""
    launch, ranges = program.launch, ranges_of(case.infos)
    assert launch.grid is not None
    scalars = {a.name: a.expr for a in launch.arguments if isinstance(a, Scalar)}
    fixed = {a.name: a.value for a in launch.arguments if isinstance(a, Constant)}
    fixed = {n: int(v) for n, v in {**fixed, **dict(launch.options)}.items()}
    pointers = launch.pointers
    inputs = [
        Output(extents_of(i, info), info.dtype) for i, info in enumerate(case.infos)
    ]
    buffers = [*inputs, *program.outputs, *program.hidden]
    hidden = dict.fromkeys(p.tensor for p in pointers if p.tensor > len(inputs))
    places = [*range(len(inputs) + 1), *hidden]  # as they are first met
    sizes = [
        size
        for pointer in pointers
        for buffer in [buffers[pointer.tensor]]
        for size in (
            sympy.prod(buffer.shape) * buffer.dtype.itemsize,
            pointer.offset * pointer.dtype.itemsize,
        )
    ]
    at = compiled([*launch.grid, *scalars.values(), *sizes], list(ranges), ranges)
    dynamic = [
        isinstance(extent, Range) for info in case.infos for extent in info.shape
    ]

    def evaluated(shape: Shape) -> tuple[Any, Any]:
        flat = itertools.chain(*shape)
        found = at(
            [extent for extent, moves in zip(flat, dynamic, strict=True) if moves]
        )
        grid, rest = tuple(found[:3]), iter(found[3:])
        arguments = fixed | {name: next(rest) for name in scalars}
        for pointer in pointers:
            place = places.index(pointer.tensor)
            arguments[pointer.name] = place, next(rest), next(rest)
        return grid, arguments

    return evaluated


def extents_of(index: int, info: TensorInfo) -> tuple[sympy.Expr, ...]:
    """Of an input, as expressions."""
    return tuple(
        symbol(index, axis) if isinstance(extent, Range) else sympy.Integer(extent)
        for axis, extent in enumerate(info.shape)
    )


@contextlib.contextmanager
def proposals() -> Iterator[list[Program]]:
    """What traces recorded, before it is explored and replayed."""
    made: list[Program] = []
    run = branches._general_run

    def general_run(*args: Any) -> Any:
        base, result = run(*args)
        made.append(result)
        return base, result

    with mock.patch.object(branches, "_general_run", general_run):
        yield made


def outcome(
    seed: int, number: int, count: int, every: int, bodies: int
) -> tuple[str, str]:
    """What became of a function, in a word; and where it differs, or its source."""
    chance = random.Random(f"{seed}, {number}")
    if bodies and number % bodies == 0:
        word, text = fuzz_bodies.outcome(chance, count // 4)
        return word, f"body {number} of seed {seed}:\n{text}"
    case = Case.of(chance)
    shapes = case.shapes(chance, count)
    with proposals() as proposed:
        program = case.recorded()
    title = f"function {number} of seed {seed}:\n{case.source}\n{case.infos}\n"
    if isinstance(program, AnnotationError):
        if "does something else on plain ints" in str(program):
            return "refused, shown wrong by a replay", title
        if not proposed:
            # Nobody knows whether some expressions would have been right.
            if case.raises(case.dense()):
                return "refused, raises", title
            return "refused needlessly", f"{title}{program}"
        if not proposed[-1].is_plugin:
            return f"refused, {type(program).__name__}", title
        proposal = values(proposed[-1], case)
        if case.difference(proposal, [*shapes, *case.dense()]):
            return f"refused, {type(program).__name__}", title
        return "refused needlessly", f"{title}{program}"
    if not program.is_plugin:  # a view such as x[[0]] is a copy that torch makes
        return "of several steps, not compared", title
    if found := case.difference(values(program, case), shapes):
        return "wrong", title + found
    if number % every == 0:
        found = compiled_difference(case, program, shapes[:20])
        return ("wrong", title + found) if found else ("right, compiled", title)
    return "right", title


def compiled_difference(
    case: Case, program: Program, shapes: Sequence[Shape]
) -> str | None:
    """Where ``tactic.at`` of a dry run differs from what the function launches."""
    op = f"fuzz::function{os.getpid()}"
    trt_plugins.custom_op(op, impl=case.spec, supports_dynamic_shapes=True)
    try:
        (tactic,) = tta.dry_run(op, case.infos, target="sm_90", execute=False).tactics
    except AnnotationError:
        return None  # 32 bits, say, are not enough
    finally:
        tta.unregister(op)

    recorded = values(program, case)

    def at(shape: Shape) -> tuple[Any, Any]:
        _, arguments = recorded(shape)
        launched = tactic.at(*shape)
        passed = dict(zip(tactic.arguments, launched.extras, strict=True))
        for pointer in program.launch.pointers:
            offset = passed.pop(f"{pointer.name}.storage_offset()", None)
            if offset is not None:
                *memory, _ = arguments[pointer.name]
                arguments[pointer.name] = *memory, offset * pointer.dtype.itemsize
        return tuple(launched.grid), arguments | passed

    return case.difference(at, shapes)


class TooSlow(BaseException):
    """A function takes minutes, in sympy mostly."""


def run(job: tuple[int, int, int, int, int]) -> tuple[str, str]:
    warnings.simplefilter("ignore")
    logging.disable()

    def give_up(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        return outcome(*job)
    except TooSlow:
        return "refused needlessly", f"function {job[1]} takes more than {SECONDS} s"
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--functions", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--shapes", type=int, default=60, help="beside the corners")
    parser.add_argument("--compiled", type=int, default=500, metavar="ONE_IN")
    parser.add_argument("--bodies", type=int, default=5, metavar="ONE_IN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--show", help="print the functions with this outcome")
    options = parser.parse_args()
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        # Forked processes cannot use a GPU, and torch has asked for it already.
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        os.execve(sys.executable, [sys.executable, *sys.argv], hidden)
    numbers = range(options.first, options.first + options.functions)
    how = options.shapes, options.compiled, options.bodies
    jobs = [(options.seed, number, *how) for number in numbers]
    outcomes: Counter[str] = Counter()
    # A seventh of the time goes into looking for garbage, else.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for word, text in pool.imap_unordered(run, jobs, chunksize=20):
            outcomes[word] += 1
            if word in ("wrong", options.show):
                print(f"--- {word}: {text}\n", flush=True)
    for word, count in outcomes.most_common():
        print(f"{count:6} {word}")
    right = outcomes["right"] + outcomes["right, compiled"]
    needless = outcomes["refused needlessly"]
    share = needless / max(1, right + needless)
    print(f"seed {options.seed}: of right functions, {share:.1%} were refused")
    return 0 if right + outcomes["body right"] and not outcomes["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
