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
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from functools import cached_property, partial
from types import (
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, TypeAlias

import numpy as np
import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from .._fingerprint import content_of, is_versioned
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
_MOST_PAIRED = 10
_MOST_SOLVED = 4
_MOST_VALUES = 2_000  # looked at for numbers that a function names
_MOST_MEMBERS = 200  # of each table
_MOST_NUMBERS = 300
_MOST_TEXT = 500
_LARGEST_EXTENT, _MOST_DIGITS = 2**31 - 1, 10

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
    likely, swept = (
        [{*_edges(span), *(v for v in values if v in span)} for span in spans]
        for values in (named, near)
    )
    bases = (list(opts), [span[0] for span in spans], [span[-1] for span in spans])
    for lines, others in itertools.product((likely, swept), bases):
        for axis, values in enumerate(lines):
            for value in sorted(values):
                yield (*others[:axis], value, *others[axis + 1 :])
    # A table may have pairs of sizes as keys. Powers of two, which any code has, last.
    keys = sorted(named & set().union(*swept), key=lambda n: (n & (n - 1) == 0, n))
    axes = list(itertools.combinations(range(len(spans)), 2))
    pairs = itertools.product(keys[:_MOST_PAIRED], keys[:_MOST_PAIRED], axes)
    for one, other, (first, second) in pairs:
        if one in spans[first] and other in spans[second]:
            made = list(opts)
            made[first], made[second] = one, other
            yield tuple(made)
    for first, second in itertools.permutations(range(len(spans)), 2):
        for value in sorted(swept[first]):
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
    can. Where one of them is 1, broadcasting shows; where it is an extent that is
    named, what a function takes in its stead, as in ``assert m in (n, 64)``.
    """
    found: dict[Point, None] = {}
    steps = [1, 2, *sorted(named - {0, 1, 2}, key=abs)[:_MOST_STEPS]]
    for other, root in tied.items():
        extent, span = ranges[other], range(ranges[other].min, ranges[other].max + 1)
        for value in (ranges[root].opt, ranges[root].min, ranges[root].max):
            opt = ranges[root].opt
            near = [extent.min, extent.max, 1, opt]
            near += _some(named, span) if value == opt else []
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
    named: Set[int] = frozenset(),
) -> Iterator[Point]:
    """Shapes that miss an equation, by a little or by as much as they can.

    Where an extent is 1, broadcasting shows. One that is named may be an exception.
    """
    asked = set().union(*(e.xreplace(tied).free_symbols for e in equations))
    for index, point in enumerate(itertools.islice(points, _MOST_CORNERS)):
        extents = dict(zip(ranges, point, strict=True))
        for s in sorted(asked, key=str):
            value, extent = extents[s], ranges[s]
            near = {value + step for step in (-2, -1, 1, 2)} | {2 * value, value // 2}
            if index < _MOST_SOLVED:
                near.update(_some(named, range(extent.min, extent.max + 1)))
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


def _some(named: Set[int], span: range) -> list[int]:
    """Those in a range; of many, the smallest and the largest."""
    within = sorted(value for value in named if value in span)
    return within[:_MOST_CORNERS] + within[_MOST_CORNERS:][-_MOST_CORNERS:]


def _edges(span: range) -> set[int]:
    """Ends, neighbours, powers of two, and small extents of a range."""
    powers = {2**k for k in range(31)}
    wanted = {span[0], span[0] + 1, span[-1] - 1, span[-1], 0, 1, 2, 3, *powers}
    return {value for value in wanted if value in span}


def numbers_in(*functions: Callable[..., Any]) -> set[int]:
    """The integers that functions name, and those that they call: in their code, their
    global variables, tables, objects and modules, as an int or within a text.

    The nearest come first, and there is a limit: a function may refer to anything.
    """
    found: set[int] = set()
    seen: dict[int, Any] = {}  # keeps what it holds alive: ids stay unique
    pending: deque[Any] = deque(functions)
    while pending and len(seen) < _MOST_VALUES and len(found) < _MOST_NUMBERS:
        value = pending.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        found.update(n for n in _numbers_at(value) if abs(n) <= _LARGEST_EXTENT)
        pending.extend(_parts_of(value))
    return found


def _numbers_at(value: Any) -> Iterable[int]:
    kind = type(value)  # a recorded address says that its class is int
    if issubclass(kind, int | np.integer):
        return (int(value),)
    if issubclass(kind, float) and value.is_integer():
        return (int(value),)
    if issubclass(kind, str):
        digits = re.findall("[0-9]+", value[:_MOST_TEXT])
        return (int(run) for run in digits if len(run) <= _MOST_DIGITS)
    if issubclass(kind, np.ndarray) and value.dtype.kind in "iu":
        return map(int, value.flat[:_MOST_MEMBERS])
    return (value.start, value.stop, value.step) if kind is range else ()


def _parts_of(value: Any) -> Iterator[Any]:
    """What a value holds, as far as a function of the user's may read it."""
    kind = type(value)
    if issubclass(kind, CodeType):
        yield from value.co_consts
    elif issubclass(kind, FunctionType):
        yield from map(content_of, value.__closure__ or ())
        yield from (value.__defaults__, value.__kwdefaults__, _attributes(value))
        if _is_users(value.__globals__.get("__name__"), value.__code__.co_filename):
            yield from (value.__code__, *_named_by(value))
    elif issubclass(kind, dict | MappingProxyType):
        yield from itertools.islice(value, _MOST_MEMBERS)
        yield from itertools.islice(value.values(), _MOST_MEMBERS)
    elif issubclass(kind, tuple | list | set | frozenset):
        yield from itertools.islice(value, _MOST_MEMBERS)
    elif issubclass(kind, partial):
        yield from (value.func, value.args, value.keywords)
    elif issubclass(kind, MethodType):
        yield from (value.__func__, value.__self__, _attributes(value.__self__))
    elif kind in (staticmethod, classmethod):
        yield value.__func__
    elif kind is property:
        yield value.fget
    elif kind is cached_property:
        yield value.func
    elif issubclass(kind, type) and _is_users(value.__module__):
        yield from (*vars(value).values(), *value.__bases__)
    elif _is_users(kind.__module__) or kind is SimpleNamespace:
        yield from (_attributes(value), kind)
    else:
        yield _attributes(value).get("__wrapped__")


def _named_by(function: FunctionType) -> Iterator[Any]:
    """The global variables that a function names, and members of the user's modules."""
    names, of_module = _names(function.__code__), function.__globals__
    parents = str(of_module.get("__package__") or "").split(".")
    values = [of_module[name] for name in names if name in of_module]
    for name, depth in itertools.product(names, range(len(parents) + 1)):
        values.append(sys.modules.get(".".join((*parents[:depth], name))))
    entered = set[str]()
    for value in values:  # which grows
        if not isinstance(value, ModuleType):
            yield value
        elif value.__name__ not in entered and _is_users(
            value.__name__, getattr(value, "__file__", None)
        ):
            entered.add(value.__name__)
            values += [vars(value)[name] for name in names if name in vars(value)]


def _names(code: CodeType) -> list[str]:
    """What code names, and the functions in it."""
    inner = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return list(dict.fromkeys((*code.co_names, *itertools.chain(*inner))))


def _attributes(value: Any) -> dict[str, Any]:
    """Those that it keeps itself: no code of its class runs."""
    try:
        return dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return {}


def _is_users(module: Any, file: str | None = None) -> bool:
    return not is_versioned(module if isinstance(module, str) else None, file)


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
