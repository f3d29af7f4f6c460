"""Trace a function, and make sure that what it gave holds for the whole profile.

Where the function branches on a size that the profile leaves open, the other branch is
run as well, and so on from there. A branch is refused unless it changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import sympy

from torch_tensorrt.annotation._symbolic import Range, symbol
from torch_tensorrt.annotation._trace import Guard, TensorInfo, Trace, ranges_of
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    DynamicControlFlowError,
    RecordError,
)

_MOST_RUNS = 32
_MOST_CANDIDATES = 20_000


class Substitutable(Protocol):
    """A result of tracing: compared by ``==``, rewritten by :meth:`xreplace`."""

    def xreplace(self, rule: Mapping[sympy.Basic, sympy.Basic]) -> Substitutable: ...


Result = TypeVar("Result", bound=Substitutable)


def trace(
    function: Callable[[Trace], Result], tensors: Sequence[TensorInfo], what: str
) -> Result:
    """``function`` run on fakes of ``tensors``, for every shape in the profile.

    Args:
        function: gets the :class:`Trace`; what it returns is compared between branches.
        what: how errors name the function.

    Raises:
        DynamicControlFlowError: it branches on a size the profile leaves open, and the
            other branch gives something else.
        RecordError: it raised.
    """
    ranges = ranges_of(tensors)
    base = Trace(tensors, {s: extent.opt for s, extent in ranges.items()})
    try:
        result = base.run(function)
    except AnnotationError:
        raise
    except Exception as error:
        shapes = ", ".join(str(list(t.shape)) for t in base.inputs)
        raise RecordError(
            f"{what} raised {type(error).__name__} on fake tensors of shape {shapes}: "
            f"{error}"
        ) from error
    explorer = _Explorer(function, tensors, what, result, base.guards())
    explorer.explore()
    explorer.check_concrete()
    return result


class _Explorer(Generic[Result]):
    """Compares the result of the first run with that of every other branch."""

    def __init__(
        self,
        function: Callable[[Trace], Result],
        tensors: Sequence[TensorInfo],
        what: str,
        result: Result,
        guards: list[Guard],
    ) -> None:
        self._function = function
        self._tensors = tensors
        self._what = what
        self._result = result
        self._guards = guards
        self._ranges = ranges_of(tensors)
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
                if self._is_impossible(path, guard):
                    continue
                other = self._branch(path, guard)
                if other is not None:
                    pending.append((other.guards(), index + 1))

    def check_concrete(self) -> None:
        """Run on ordinary ints, at two points: the result must say the same.

        What a function keeps between calls, or torch simplifies wrongly, shows here.
        """
        for point in (lambda extent: extent.min, _beside_opt):
            extents = {
                s: point(self._ranges[self._tied.get(s, s)]) for s in self._ranges
            }
            static = [_at(i, t, extents) for i, t in enumerate(self._tensors)]
            rule = {s: sympy.Integer(value) for s, value in extents.items()}
            expected = self._result.xreplace(rule)
            found = Trace(static, {}).run(self._function)
            if found != expected:
                where = extents or "the same shapes"
                raise RecordError(
                    f"{self._what} does something else for {where} than what was "
                    f"recorded: {found} instead of {expected}. It must depend on "
                    "nothing but its arguments."
                )

    def _branch(self, path: Sequence[Guard], guard: Guard) -> Trace | None:
        """Run where ``path`` holds and ``guard`` does not, and compare.

        None where two extents turned out to be tied: the function rejects shapes in
        which they differ.
        """
        extents = self._solve(path, guard)
        self._runs += 1
        if extents is None or self._runs > _MOST_RUNS:
            raise self._refused(guard)
        run = Trace(self._tensors, extents)
        try:
            other = run.run(self._function)
        except AnnotationError as error:
            raise self._refused(self._culprit(guard, extents)) from error
        except Exception as error:
            # Two extents that must agree are the op's own contract, which no profile
            # can state and every caller meets. Any other shape that is rejected is
            # one that TensorRT may pass.
            if guard.is_equality:
                self._tie(guard)
                return None
            raise self._refused(self._culprit(guard, extents)) from error
        pinned = run.pinned()
        if other.xreplace(pinned) != self._result.xreplace(pinned):
            raise self._refused(self._culprit(guard, extents))
        return run

    def _solve(
        self, path: Sequence[Guard], guard: Guard
    ) -> dict[sympy.Symbol, int] | None:
        """Extents where ``path`` holds and ``guard`` does not, if any are found."""
        asked = {s for g in (*path, guard) for s in g.condition.free_symbols}
        free = sorted({self._tied.get(s, s) for s in asked}, key=str)
        samples = [_samples(self._ranges[s]) for s in free]
        for choice in itertools.islice(itertools.product(*samples), _MOST_CANDIDATES):
            chosen = dict(zip(free, choice, strict=True))
            extents = {
                s: chosen.get(self._tied.get(s, s), extent.opt)
                for s, extent in self._ranges.items()
            }
            if not guard.holds(extents) and all(g.holds(extents) for g in path):
                return extents
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
        """What to blame: a line of the user's before one of torch's."""
        false = [g for g in (guard, *self._guards) if not g.holds(extents)]
        return min(false, key=lambda g: g.is_torchs)

    def _refused(self, guard: Guard) -> DynamicControlFlowError:
        profile = ", ".join(
            f"{r.min} <= {s} <= {r.max}" for s, r in self._ranges.items()
        )
        return DynamicControlFlowError(
            f"{self._what} branches on `{guard.condition}` at {guard.where}, which the "
            f"profile ({profile}) leaves open: one branch would be baked in. Narrow "
            "the profile, make the dimension static, or branch inside the kernel."
        )


def _at(
    index: int, tensor: TensorInfo, extents: Mapping[sympy.Symbol, int]
) -> TensorInfo:
    """``tensor``, input number ``index``, with its dynamic extents decided."""
    shape = (extents.get(symbol(index, a), e) for a, e in enumerate(tensor.shape))
    return TensorInfo(tuple(shape), tensor.dtype)


def _beside_opt(extent: Range) -> int:
    return (
        extent.opt + 1 if extent.opt < extent.max else max(extent.min, extent.opt - 1)
    )


def _samples(extent: Range) -> list[int]:
    near = {extent.min, extent.opt, extent.max}
    near |= {value + step for value in near for step in (-1, 1)} | {1, 2, 3}
    if extent.max - extent.min < 64:
        near |= set(range(extent.min, extent.max + 1))
    return sorted(v for v in near if extent.min <= v <= extent.max)
