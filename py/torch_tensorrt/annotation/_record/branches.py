# SPDX-License-Identifier: BSD-3-Clause

"""Trace a function, and make sure that the result holds for the whole profile.

A trace answers a question such as ``n > 128`` for the one shape that it runs on, and
the profile may leave the answer open. Each such guard splits the profile in two, and
the result of the trace is only known for one half. So the function is run again on
extents from the other half, the guards of that run are followed in turn, and so on. The
invariant: every branch that some shape of the profile takes was run, and gave the same
result as the first run, or the function is refused. Two kinds of branches need no
agreement:

- torch asked again, in other words, something that earlier guards settle;
- the shapes on the other side are rejected by the op's own fake kernel, or two extents
  that the function insists on are unequal: no caller passes such shapes. These guards
  are the op's contract, which no profile can state.

Extents on the other side of a guard are found by trying those that the guards name and
their neighbours (:func:`_solutions`). Where none is found although some may exist, the
function is refused. Finally the function is run on plain ints, which no trace misreads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import sympy

from .._tensors import Range, Ranges, TensorInfo, ranges_of, symbol
from ..errors import (
    AnnotationError,
    DynamicControlFlowError,
    RecordError,
    UserCodeError,
)
from .program import Program
from .tracing import Guard, Trace

Traced: TypeAlias = Callable[[Trace], Program]
Inputs: TypeAlias = Sequence[TensorInfo | None]
_MOST_RUNS = 64
_MOST_CANDIDATES = 20_000
_MOST_SOLUTIONS = 16


class ShapesRejected(Exception):
    """The op's own fake kernel raised: the op has no such shapes."""


def trace(function: Traced, tensors: Inputs, what: str) -> Program:
    """``function`` run on fakes of ``tensors``, for every shape in the profile.

    Args:
        function: gets the :class:`Trace`; what it returns is compared between branches.
            It raises :class:`ShapesRejected` for shapes that no caller passes.
        what: how errors name the function.

    Raises:
        DynamicControlFlowError: it branches on a size the profile leaves open, and the
            other branch gives something else.
        RecordError: it raised.
    """
    base, result = _general_run(function, tensors, what)
    explorer = _Explorer(function, tensors, what, result, base.guards())
    explorer.explore()
    explorer.check_concrete()
    return result


def _general_run(function: Traced, tensors: Inputs, what: str) -> tuple[Trace, Program]:
    """A run that no coincidence of its sizes decided, if there is one.

    At opt, ``if n == 16`` may happen to hold, and n would be 16 in the result. Then
    sizes are tried for which it does not.
    """
    ranges = ranges_of(tensors)
    base = Trace(tensors, {s: extent.opt for s, extent in ranges.items()})
    result = _run(base, function, what)
    for guard in base.guards():
        if not isinstance(guard.condition, sympy.Eq) or guard.is_equality:
            continue
        for extents in _solutions(ranges, {}, [], guard):
            other = Trace(tensors, extents)
            try:
                general = other.run(function)
            except Exception:
                continue  # where shapes are rejected nothing is general
            if len(other.pinned()) < len(base.pinned()):
                base, result = other, general
    return base, result


def trace_somewhere(function: Traced, tensors: Inputs, what: str) -> Program:
    """``function`` run once, for what does not depend on sizes.

    Where it rejects the sizes that were tried, what it asked last is answered
    otherwise, a few times.

    Raises:
        RecordError: it raised.
    """
    ranges = ranges_of(tensors)
    extents = {s: extent.opt for s, extent in ranges.items()}
    for _ in range(_MOST_RUNS):
        run = Trace(tensors, extents)
        try:
            return run.run(function)
        except ShapesRejected:
            guards = run.guards()
            if not guards:
                break
            others = _solutions(ranges, {}, guards[:-1], guards[-1])
            extents = next(others, extents)
        except Exception:
            break
    return _run(Trace(tensors, extents), function, what)


def _run(run: Trace, function: Callable[[Trace], Program], what: str) -> Program:
    try:
        return run.run(function)
    except AnnotationError:
        raise
    except Exception as error:
        shapes = ", ".join(
            "None" if t is None else str(list(t.shape)) for t in run.inputs
        )
        cause: BaseException | None = error
        if isinstance(error, ShapesRejected):
            what, cause = str(error), error.__cause__
        raise UserCodeError(
            f"{what} raised {type(cause).__name__} on fake tensors of shape {shapes}: "
            f"{cause}"
        ) from error


class _Explorer:
    """Compares the result of the first run with that of every other branch.

    A shape that is rejected, and not by the op's contract, is one that TensorRT may
    pass.
    """

    def __init__(
        self,
        function: Traced,
        tensors: Inputs,
        what: str,
        result: Program,
        guards: list[Guard],
    ) -> None:
        self._function = function
        self._tensors = tensors
        self._what = what
        self._result = result
        self._guards = guards
        self._ranges = ranges_of(tensors)
        self._contract: list[Guard] = []
        self._tied: dict[sympy.Symbol, sympy.Symbol] = {}
        self._runs = 0

    def explore(self) -> None:
        for guard in self._guards:
            if guard.is_equality:
                self._branch([], guard)
        pending = [(self._guards, 0)]
        while pending:
            guards, start = pending.pop()
            for index in range(start, len(guards)):
                path, guard = guards[:index], guards[index]
                if guard in self._contract or self._is_impossible(path, guard):
                    continue
                other = self._branch(path, guard)
                if other is not None:
                    pending.append((other.guards(), index + 1))

    def check_concrete(self) -> None:
        """Run on plain ints, at two points: the result must be the same.

        What a function keeps between calls, or torch simplifies wrongly, shows here.
        """
        points: list[dict[sympy.Symbol, int]] = []
        for point in (lambda extent: extent.min, _beside_opt):
            extents = {
                s: point(self._ranges[self._tied.get(s, s)]) for s in self._ranges
            }
            if extents not in points:
                points.append(extents)
        for extents in points:
            if not all(guard.holds(extents) for guard in self._contract):
                continue
            static = [_at(i, t, extents) for i, t in enumerate(self._tensors)]
            rule = {s: sympy.Integer(value) for s, value in extents.items()}
            expected = self._result.xreplace(rule)
            found = _run(Trace(static, {}), self._function, self._what)
            if found != expected:
                where = extents or "the same shapes"
                raise RecordError(
                    f"{self._what} does something else for {where} than what was "
                    f"recorded: {found} instead of {expected}. It must depend on "
                    "nothing but its arguments."
                )

    def _branch(self, path: Sequence[Guard], guard: Guard) -> Trace | None:
        """Run where ``path`` holds and ``guard`` does not, and compare.

        None where there is nothing to compare: ``guard`` is in the op's contract.
        """
        found = False
        required = [*self._contract, *path]
        for extents in _solutions(self._ranges, self._tied, required, guard):
            found = True
            self._runs += 1
            if self._runs > _MOST_RUNS:
                break
            run = Trace(self._tensors, extents)
            try:
                other = run.run(self._function)
            except ShapesRejected:
                continue  # so may other shapes of this branch be: try some more
            except AnnotationError as error:
                raise self._refused(self._culprit(guard, extents)) from error
            except Exception as error:
                if guard.is_equality:
                    continue
                raise self._refused(self._culprit(guard, extents)) from error
            pinned = run.pinned()
            if other.xreplace(pinned) != self._result.xreplace(pinned):
                raise self._refused(self._culprit(guard, extents))
            return run
        if not found and guard.is_torchs:
            return None  # torch asked again, in other words, what is settled already
        if not found or self._runs > _MOST_RUNS:
            raise self._refused(guard)
        self._contract.append(guard)
        if guard.is_equality:
            self._tie(guard)
        return None

    def _tie(self, guard: Guard) -> None:
        first, second = (self._tied.get(s, s) for s in guard.condition.args)
        self._tied |= {s: first for s, root in self._tied.items() if root == second}
        self._tied |= {first: first, second: first}

    def _is_impossible(self, path: Sequence[Guard], guard: Guard) -> bool:
        """Whether no extents at all can satisfy ``path`` and break ``guard``."""
        conditions = [g.condition for g in path] + [sympy.Not(guard.condition)]
        tied = [condition.xreplace(self._tied) for condition in conditions]
        pinned = {
            side: other
            for equality in tied
            if isinstance(equality, sympy.Eq)
            for side, other in itertools.permutations(equality.args)
            if side.is_Symbol and other.is_Integer
        }
        return any(condition.xreplace(pinned) == sympy.false for condition in tied)

    def _culprit(self, guard: Guard, extents: Mapping[sympy.Symbol, int]) -> Guard:
        """The guard to blame: a line of the user's before one of torch's."""
        false = [g for g in (guard, *self._guards) if not g.holds(extents)]
        return min(false, key=lambda g: g.is_torchs)

    def _refused(self, guard: Guard) -> DynamicControlFlowError:
        profile = ", ".join(
            f"{r.min} <= {s} <= {r.max}"
            for s, r in self._ranges.items()
            if s in guard.condition.free_symbols
        )
        return DynamicControlFlowError(
            f"{self._what} (or the op's fake kernel) branches on `{guard.condition}` "
            f"at {guard.where}, which the profile ({profile}; d0_1 is dimension 1 of "
            "input 0) leaves open: one branch would be baked in. Narrow the profile, "
            "make the dimension static, or branch inside the kernel."
        )


def _at(
    index: int, tensor: TensorInfo | None, extents: Mapping[sympy.Symbol, int]
) -> TensorInfo | None:
    """``tensor``, input number ``index``, with its dynamic extents decided."""
    if tensor is None:
        return None
    shape = (extents.get(symbol(index, a), e) for a, e in enumerate(tensor.shape))
    return replace(tensor, shape=tuple(shape))


def _beside_opt(extent: Range) -> int:
    return (
        extent.opt + 1 if extent.opt < extent.max else max(extent.min, extent.opt - 1)
    )


def _solutions(
    ranges: Ranges,
    tied: Mapping[sympy.Symbol, sympy.Symbol],
    required: Sequence[Guard],
    guard: Guard,
) -> Iterator[dict[sympy.Symbol, int]]:
    """A few extents for which ``required`` holds and ``guard`` does not.

    The ends of the ranges come first, in every combination; then what conditions name.
    """
    conditions = [g.condition for g in (*required, guard)]
    asked = set().union(*(c.free_symbols for c in conditions))
    named = set().union(*(map(int, c.atoms(sympy.Integer)) for c in conditions))
    free = sorted({tied.get(s, s) for s in asked}, key=str)
    found: list[dict[sympy.Symbol, int]] = []
    for samples in (_ends, lambda extent: _samples(extent, named)):
        choices = itertools.product(*(samples(ranges[s]) for s in free))
        for choice in itertools.islice(choices, _MOST_CANDIDATES):
            chosen = dict(zip(free, choice, strict=True))
            extents = {s: chosen.get(tied.get(s, s), r.opt) for s, r in ranges.items()}
            if extents in found or guard.holds(extents):
                continue
            if all(g.holds(extents) for g in required):
                found.append(extents)
                yield extents
                if len(found) == _MOST_SOLUTIONS:
                    return
        if found:
            return


def _ends(extent: Range) -> list[int]:
    """The ends of a range, and one extent between."""
    ends = {extent.min, extent.opt, extent.max}
    ends |= {extent.min + 1} if len(ends) < 3 else set()
    return sorted(v for v in ends if v <= extent.max)


def _samples(extent: Range, named: set[int]) -> list[int]:
    """Extents worth trying: the ends, small ones, and what a condition names."""
    near = {extent.min, extent.opt, extent.max} | named
    near |= {value + step for value in near for step in (-1, 1)} | {1, 2, 3}
    if extent.max - extent.min < 64:
        near |= set(range(extent.min, extent.max + 1))
    return sorted(v for v in near if extent.min <= v <= extent.max)
