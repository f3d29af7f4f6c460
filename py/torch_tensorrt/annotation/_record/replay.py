# SPDX-License-Identifier: BSD-3-Clause

"""Run a recorded function again on plain ints: tracing proposes, this decides.

A symbolic size is not an int, and a function can notice: ``isinstance(n, int)``, a
table indexed by a size, ``str(n)`` as a key, torch's own simplifications. No list of
such cases is complete. So the function runs again at shapes of the profile on fake
tensors whose sizes are plain ints, and everything it does is compared with what was
recorded: grid, arguments, constants, options, buffers, choices, outputs.

Where the profile has at most ``MOST_SHAPES`` shapes, all of them are replayed, which is
a proof. Otherwise the sample takes what functions branch on: the corners and the
optimum, the ends of each dimension, powers of two, the constants in the recorded
expressions and their neighbours, equal dimensions and those that differ by one, 0 and
1, and random shapes for the rest, the same in every process.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from .._fingerprint import content_of
from .._sizes.expressions import on_ints
from .._sizes.facts import is_condition
from .._sizes.to_tensorrt import compiled
from .._tensors import Ranges, TensorInfo, ranges_of, symbol
from .program import (
    Constant,
    Descriptor,
    Keywords,
    Operation,
    OpOverload,
    Pointer,
    Program,
    Scalar,
    View,
)
from .tracing import FakeTensors, Modes, Trace

MOST_SHAPES = 500
_SEED = 20_261_124
_MOST_CORNERS = 64
_MOST_STEPS = 16
_MOST_VALUES = 2_000  # looked at for numbers that a function names

Point: TypeAlias = tuple[int, ...]  # an extent for each symbol of the profile, in order


def points_of(
    ranges: Ranges,
    tied: Mapping[sympy.Symbol, sympy.Symbol],
    named: Iterable[int],
    most: int = MOST_SHAPES,
) -> tuple[list[Point], bool]:
    """The shapes to replay, and whether they are all that the profile has.

    Args:
        tied: for a dimension that always equals another one, that one.
        named: constants that the recorded expressions hold.
    """
    order = list(ranges)
    free = [s for s in order if tied.get(s, s) == s]
    spans = [range(ranges[s].min, ranges[s].max + 1) for s in free]

    def whole(choice: Sequence[int]) -> Point:
        chosen = dict(zip(free, choice, strict=True))
        return tuple(chosen[tied.get(s, s)] for s in order)

    if math.prod(map(len, spans)) <= most:
        return [whole(choice) for choice in itertools.product(*spans)], True
    opts = [ranges[s].opt for s in free]
    chosen = dict.fromkeys(itertools.islice(_sample(spans, opts, set(named)), most))
    generator = random.Random(_SEED)
    for _ in range(4 * most):
        if len(chosen) >= most:
            break
        chosen[tuple(generator.choice(span) for span in spans)] = None
    return [whole(choice) for choice in chosen], False


def _sample(
    spans: Sequence[range], opts: Sequence[int], named: set[int]
) -> Iterator[tuple[int, ...]]:
    """Shapes that are worth a look, the likeliest first; some come twice."""
    yield tuple(opts)
    ends = itertools.product(*({span[0], span[-1]} for span in spans))
    yield from itertools.islice(ends, _MOST_CORNERS)
    near = {c + step for c in named | {2 * c for c in named} for step in (-1, 0, 1)}
    swept = [sorted({*_edges(span), *(v for v in near if v in span)}) for span in spans]
    for others in (list(opts), [span[0] for span in spans], [s[-1] for s in spans]):
        for axis, values in enumerate(swept):
            for value in values:
                yield (*others[:axis], value, *others[axis + 1 :])
    for first, second in itertools.permutations(range(len(spans)), 2):
        for value in swept[first]:
            for partner in (value, value + 1):
                if partner in spans[second]:
                    made = list(opts)
                    made[first], made[second] = value, partner
                    yield tuple(made)


def unequal_points(
    ranges: Ranges, tied: Mapping[sympy.Symbol, sympy.Symbol], named: Set[int]
) -> list[Point]:
    """Shapes at which dimensions that a function ties together differ.

    They differ by a little, by a constant or a factor that is named, or as much as they
    can. Where one of them is 1, broadcasting shows.
    """
    found: dict[Point, None] = {}
    steps = [1, 2, *sorted(named - {0, 1, 2}, key=abs)[:_MOST_STEPS]]
    for other, root in tied.items():
        extent, span = ranges[other], range(ranges[other].min, ranges[other].max + 1)
        for value in (ranges[root].opt, ranges[root].min, ranges[root].max):
            near = [extent.min, extent.max, 1]
            for step in steps:
                near += [value + step, value - step, value * step, value // step]
            equal = {
                s: value if tied.get(s) == root else r.opt for s, r in ranges.items()
            }
            for extent_there in near:
                if extent_there in span and extent_there != value:
                    found[tuple({**equal, other: extent_there}.values())] = None
    return list(found)


def solving_points(
    points: Iterable[Point],
    ranges: Ranges,
    tied: Mapping[sympy.Symbol, sympy.Symbol],
    equations: Sequence[sympy.Eq],
) -> Iterator[Point]:
    """The points moved to shapes at which equations hold, as ``d0_1 == 2 * d1_0``.

    Hardly any of a sample do so by themselves. Each equation gives each of its extents
    in turn, as far as the equation is linear in it.
    """
    ways, settled = [], set[sympy.Basic]()
    for equation in equations:
        equation = equation.xreplace(tied)
        ways.append([s for s in solved(equation) if s[0] not in settled])
        settled |= equation.free_symbols  # later equations leave these alone
    if not all(ways):
        return
    for point, turn in itertools.product(points, range(max(map(len, ways)))):
        extents = dict(zip(ranges, point, strict=True))
        for choices in ways:
            extent, dividend, divisor = choices[turn % len(choices)]
            a, b = (on_ints(part)(extents) for part in (dividend, divisor))
            if b == 0 or a % b:
                break
            equal = (s for s in ranges if tied.get(s, s) == extent)
            extents |= dict.fromkeys(equal, a // b)
        else:
            if all(ranges[s].min <= v <= ranges[s].max for s, v in extents.items()):
                yield tuple(extents.values())


def points_near(
    points: Iterable[Point],
    ranges: Ranges,
    tied: Mapping[sympy.Symbol, sympy.Symbol],
    equations: Sequence[sympy.Eq],
) -> Iterator[Point]:
    """Shapes that miss an equation, by a little or by as much as they can.

    Where an extent is 1, broadcasting shows.
    """
    asked = set().union(*(e.xreplace(tied).free_symbols for e in equations))
    for point in itertools.islice(points, _MOST_CORNERS):
        extents = dict(zip(ranges, point, strict=True))
        for s in sorted(asked, key=str):
            value, extent = extents[s], ranges[s]
            near = {value + step for step in (-2, -1, 1, 2)} | {2 * value, value // 2}
            for other in sorted(near | {1, extent.min, extent.max}):
                if extent.min <= other <= extent.max:
                    equal = (e for e in ranges if tied.get(e, e) == s)
                    yield tuple({**extents, **dict.fromkeys(equal, other)}.values())


def solved(equation: sympy.Eq) -> Iterator[tuple[sympy.Symbol, Any, Any]]:
    """Each extent that is a quotient of the others: the extent, dividend, divisor."""
    difference = sympy.expand(equation.lhs - equation.rhs)
    for extent in sorted(difference.free_symbols, key=str):
        divisor = difference.coeff(extent, 1)
        rest = sympy.expand(difference - divisor * extent)
        if divisor != 0 and extent not in rest.free_symbols | divisor.free_symbols:
            yield extent, -rest, divisor


def _edges(span: range) -> set[int]:
    """Ends, neighbours, powers of two, and small extents of a range."""
    powers = {2**k for k in range(31)}
    wanted = {span[0], span[0] + 1, span[-1] - 1, span[-1], 0, 1, 2, 3, *powers}
    return {value for value in wanted if value in span}


def numbers_in(*functions: Callable[..., Any]) -> set[int]:
    """The integers that functions name, and those that they call: in their code, their
    global variables and tables, as an int or as its text.
    """
    found: set[int] = set()
    seen: set[int] = set()
    pending: list[Any] = list(functions)
    while pending and len(seen) < _MOST_VALUES:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if issubclass(type(value), int) or (  # a recorded address says it is one, too
            isinstance(value, str) and value.isdecimal()
        ):
            found.add(int(value))
        elif isinstance(value, CodeType):
            pending += value.co_consts
        elif isinstance(value, FunctionType):
            names, of_module = value.__code__.co_names, value.__globals__
            pending += [value.__code__, *(of_module.get(name) for name in names)]
            pending += [value.__defaults__, value.__kwdefaults__]
            pending += map(content_of, value.__closure__ or ())
        elif isinstance(value, partial):
            pending += [value.func, value.args, *value.keywords.values()]
        elif isinstance(value, MethodType):
            attributes = getattr(value.__self__, "__dict__", {})
            pending += [value.__func__, *attributes.values()]
        elif isinstance(value, dict | tuple | list | set | frozenset):
            pending += value
    return found


class Recorded:
    """A program, to be evaluated at many shapes.

    Args:
        program: recorded with symbolic sizes.
        ranges: of the symbols that a :data:`Point` gives extents for.
    """

    def __init__(self, program: Program, ranges: Ranges) -> None:
        self._structure, exprs = _taken_apart(program)
        self._values = compiled(exprs, list(ranges), ranges)
        self.constants = {int(n) for e in exprs for n in e.atoms(sympy.Integer)}

    def difference(self, found: Program, point: Point) -> str:
        """How ``found``, a replay at ``point``, differs; empty where it does not."""
        structure, exprs = _taken_apart(found)
        if structure != self._structure:
            pairs = itertools.zip_longest(structure, self._structure)
            one, other = next(pair for pair in pairs if pair[0] != pair[1])
            return f"it has {one}, and {other} was recorded"
        try:
            recorded = self._values(point)
        except ZeroDivisionError:
            return "it was recorded with a division by zero"
        values = zip(recorded, map(_as_int, exprs), strict=True)
        for index, (expected, given) in enumerate(values):
            if expected != given:
                name, _ = list(_expressions(found))[index]
                return f"{name} is {given}, and was recorded as {expected}"
        return ""


def _taken_apart(program: Program) -> tuple[tuple[Any, ...], list[sympy.Basic]]:
    """What must be the same at every shape, and what follows the shape."""
    structure: list[Any] = [program.formats, program.writable]
    structure += [("returned", v.tensor, *map(_op, v.path)) for v in program.returned]
    for what, buffers in (("output", program.outputs), ("hidden", program.hidden)):
        structure += [(what, len(b.shape), b.dtype) for b in buffers]
    for step in program.steps:
        if isinstance(step, Operation):
            structure += [step.name, step.results, step.orders]
            structure.append(_shape_of(step.arguments))
        else:
            structure += [step.kernel, step.options, step.choices, step.grid is None]
            structure += map(_role, step.arguments)
    return tuple(structure), [expr for _, expr in _expressions(program)]


def _op(step: tuple[OpOverload, Keywords]) -> tuple[Any, ...]:
    return str(step[0]), _shape_of(step[1])


def _shape_of(value: Any) -> Any:
    """What an operation is given, without its numbers."""
    if isinstance(value, tuple):
        return tuple(map(_shape_of, value))
    if isinstance(value, View):
        return value.tensor, *map(_op, value.path)
    return "a number" if isinstance(value, sympy.Basic) else value


def _numbers_of(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers_of(item)
    elif isinstance(value, View):
        yield from _numbers_of(value.path)
    elif isinstance(value, sympy.Basic):
        yield value


def _role(argument: Pointer | Scalar | Constant) -> tuple[Any, ...]:
    if isinstance(argument, Pointer):
        ranks = (len(argument.shape), len(argument.strides))
        known = argument.name, "tensor", argument.tensor, argument.dtype, ranks
        if isinstance(argument, Descriptor):
            return *known, "descriptor", argument.block, argument.options
        return known
    if isinstance(argument, Scalar):
        kind = "bool" if is_condition(argument.expr) else "int"
        return argument.name, kind
    if isinstance(argument.value, bool):
        return argument.name, "bool"
    return argument.name, "constant", argument.type, argument.value


def _expressions(program: Program) -> Iterator[tuple[str, Any]]:
    """Every size of a program, with a name for messages, in a fixed order."""
    for index, output in enumerate(program.outputs):
        yield from _numbered(f"output {index}, extent", output.shape)
    for index, buffer in enumerate(program.hidden):
        yield from _numbered(f"hidden buffer {index}, extent", buffer.shape)
    for index, view in enumerate(program.returned):
        yield from _numbered(f"output {index}, number", list(_numbers_of(view)))
    for step in program.steps:
        if isinstance(step, Operation):
            numbers = list(_numbers_of(step.arguments))
            yield from _numbered(f"{step.name}, number", numbers)
            continue
        yield from _numbered("the grid's axis", step.grid or ())
        for argument in step.arguments:
            what = f"argument `{argument.name}`"
            if isinstance(argument, Pointer):
                yield from _numbered(f"{what}, extent", argument.shape)
                yield from _numbered(f"{what}, stride", argument.strides)
                yield f"{what}, offset in its tensor,", argument.offset
            elif isinstance(argument, Scalar):
                yield what, argument.expr
            elif isinstance(argument.value, bool):
                yield what, sympy.Integer(argument.value)


def _numbered(what: str, sizes: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{what} {axis}", size) for axis, size in enumerate(sizes))


def _as_int(expr: Any) -> int:
    return int(expr == sympy.true) if is_condition(expr) else int(expr)


# --- Inputs of plain sizes -----------------------------------------------------------


class PlainInputs:
    """Fake inputs whose sizes are plain ints, for each shape that is asked for.

    They are made once for all the functions that run on them, and come in two kinds:
    torch's fake CUDA tensors; and, ten times faster, tensors without memory that pass
    for CUDA tensors. What these cannot do, or do differently, the others decide.
    """

    def __init__(
        self, tensors: Sequence[TensorInfo | None], most: int = MOST_SHAPES
    ) -> None:
        """
        Args:
            most: shapes to replay, unless the profile has fewer.
        """
        self.most = most
        self._tensors = tensors
        self._order = list(ranges_of(tensors))
        self._modes: dict[bool, Modes] = {
            False: (FakeTensorMode(), FakeTensors()),
            True: (nullcontext(), _StandIns()),
        }
        self._made: dict[tuple[Point, bool], Trace] = {}

    def cannot_exist(self, point: Point) -> bool:
        """Whether a tensor of this shape is larger than any memory."""
        sizes = dict(zip(self._order, point, strict=True))
        return any(
            math.prod(sizes.get(symbol(i, a), e) for a, e in enumerate(tensor.shape))
            * tensor.dtype.itemsize
            >= 2**63
            for i, tensor in enumerate(self._tensors)
            if tensor is not None
        )

    def at(self, point: Point, fast: bool) -> Trace:
        """A run at one shape, which can exist."""
        if (point, fast) not in self._made:
            sizes = dict(zip(self._order, point, strict=True))
            self._made[point, fast] = Trace(self._tensors, sizes, self._modes[fast])
        return self._made[point, fast]


_CUDA = torch.device("cuda", 0)


class _StandIn(torch.Tensor):
    """A tensor without memory that says it is on a GPU."""

    device: Any = property(lambda self: _CUDA)
    is_cuda: Any = True
    is_meta: Any = False
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore


class _StandIns(FakeTensors):
    """Tensors that are made on a GPU, or of stand-ins, are stand-ins."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _READERS:
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        is_ours = device is not None and torch.device(device).type == "cuda"
        if is_ours:
            kwargs["device"] = "meta"
        given, args = args, _each(_without_disguise, args)
        is_ours |= any(map(operator.is_not, given, args))
        result = super().__torch_function__(func, types, args, kwargs)
        return _each(_stand_in, result) if is_ours else result


# What reads a tensor, is called often, and makes no other.
_READERS = {
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
    torch.Tensor.dim,
    torch.Tensor.stride,
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.is_contiguous,
    torch.Tensor.storage_offset,
    torch.Tensor.untyped_storage,
}


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with its tensors, also those in tuples and lists, replaced."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)(_each(function, item) for item in value)
    return value


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(_StandIn)


def _without_disguise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(torch.Tensor) if type(tensor) is _StandIn else tensor
