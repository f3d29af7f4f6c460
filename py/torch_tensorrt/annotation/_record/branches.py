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
- the shapes on the other side are rejected by the op's own fake kernel, or do not
  satisfy an equation between extents that the function insists on: no caller passes
  such shapes. These guards are the op's contract, which no profile can state. What a
  rejected run asked is answered otherwise, too: it may have exceptions.

Extents on the other side of a guard are found by trying those that the guards name and
their neighbours (:func:`_solutions`). Where none is found although some may exist, the
function is refused. Finally the function is replayed on plain ints (``replay``), which
no trace misreads. A function that exploration refuses is accepted all the same where
the replay covers every shape of the profile.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from .._sizes.canonical import canonical
from .._sizes.expressions import on_ints, shown
from .._sizes.facts import bounds
from .._tensors import Range, Ranges, TensorInfo, ranges_of
from ..errors import (
    AnnotationError,
    DataDependentError,
    DynamicControlFlowError,
    RecordError,
    UserCodeError,
)
from .program import Program, are_equal
from .recording import raised_at
from .replay import (
    PlainInputs,
    Point,
    Recorded,
    points_near,
    points_of,
    solved,
    solving_points,
    unequal_points,
)
from .tracing import Guard, Trace, tracing

Traced: TypeAlias = Callable[[Trace], Program]
Inputs: TypeAlias = Sequence[TensorInfo | None]
_MOST_RUNS = 64
_MOST_CANDIDATES = 20_000
_MOST_SOLUTIONS = 16
_MOST_EXCEPTIONS = 2  # looked for with each answer of a rejected run


@dataclass(frozen=True)
class Subject:
    """What is recorded, for errors.

    Attributes:
        name: as ``launch function launch (kernels.py:3)``.
        call: a sentence on how it is called, for when it raises.
    """

    name: str
    call: str = ""


class ShapesRejected(Exception):
    """The op's own fake kernel raised: the op has no such shapes."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.name)
        self.subject = subject


def trace(
    function: Traced,
    tensors: Inputs,
    subject: Subject,
    plain: PlainInputs,
    named: Set[int] = frozenset(),
) -> Program:
    """``function`` run on fakes of ``tensors``, for every shape in the profile.

    Args:
        function: gets the :class:`Trace`; what it returns is compared between branches.
            It raises :class:`ShapesRejected` for shapes that no caller passes.
        subject: how errors name the function.
        plain: what it is replayed on.
        named: extents that it may ask for.

    Raises:
        DynamicControlFlowError: it branches on a size the profile leaves open, and the
            other branch gives something else.
        RecordError: it raised, or does something else on plain ints.
    """
    with tracing():
        base, result = _general_run(function, tensors, subject)
        explorer = _Explorer(function, tensors, subject, result, base.guards())
        refusal = None
        try:
            explorer.explore()
        except DynamicControlFlowError as error:
            refusal = error
        explorer.replay(plain, named, refusal)
    return result


def _general_run(
    function: Traced, tensors: Inputs, subject: Subject
) -> tuple[Trace, Program]:
    """A run that no coincidence of its sizes decided, if there is one.

    At opt, ``if n == 16`` may happen to hold, and n would be 16 in the result. Then
    sizes are tried for which it does not.
    """
    ranges = ranges_of(tensors)
    base = Trace(tensors, {s: extent.opt for s, extent in ranges.items()})
    result = _run(base, function, subject)
    for guard in base.guards():
        if not base.pinned():
            break
        if not isinstance(guard.condition, sympy.Eq):
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


def trace_somewhere(function: Traced, tensors: Inputs, subject: Subject) -> Program:
    """``function`` run once, for what does not depend on sizes.

    Where it rejects the sizes that were tried, what it asked last is answered
    otherwise, a few times.

    Raises:
        RecordError: it raised.
    """
    ranges = ranges_of(tensors)
    extents = {s: extent.opt for s, extent in ranges.items()}
    with tracing():
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
        return _run(Trace(tensors, extents), function, subject)


def _run(run: Trace, function: Callable[[Trace], Program], subject: Subject) -> Program:
    try:
        return run.run(function)
    except AnnotationError:
        raise
    except GuardOnDataDependentSymNode as error:
        raise DataDependentError(
            f"{subject.name} asks for the values of a tensor, at {raised_at(error)}, "
            "which an engine does not know before it runs. Ask inside the kernel."
        ) from error
    except Exception as error:
        shapes = ", ".join(
            "None"
            if t is None
            else f"[{', '.join(shown(run.expr(n)) for n in t.shape)}]"
            for t in run.inputs
        )
        cause: BaseException | None = error
        if isinstance(error, ShapesRejected):
            subject, cause = error.subject, error.__cause__
        raised = (
            f"{subject.name} raised {type(cause).__name__} on fake tensors of shape "
            f"{shapes}, at {raised_at(cause or error)}: {cause}"
        )
        raise UserCodeError(f"{raised}\n{subject.call}".rstrip()) from error


class _Explorer:
    """Compares the result of the first run with that of every other branch.

    A shape that is rejected, and not by the op's contract, is one that TensorRT may
    pass.
    """

    def __init__(
        self,
        function: Traced,
        tensors: Inputs,
        subject: Subject,
        result: Program,
        guards: list[Guard],
    ) -> None:
        self._function = function
        self._tensors = tensors
        self._subject = subject
        self._result = result
        self._guards = guards
        self._ranges = ranges_of(tensors)
        self._contract: list[Guard] = []
        self._tied: dict[sympy.Symbol, sympy.Symbol] = {}
        self._runs = 0

    def explore(self) -> None:
        """Run every branch, and compare.

        Raises:
            DynamicControlFlowError: a branch gives something else, or cannot be found.
        """
        for guard in self._guards:
            if guard.is_equality:
                self._branch([], guard)
        # What was decided on the way to a run, and the run's guards from there on.
        pending: list[tuple[list[Guard], int, list[Guard]]] = [([], 0, self._guards)]
        while pending:
            decided, start, guards = pending.pop()
            for index in range(start, len(guards)):
                path, guard = [*decided, *guards[start:index]], guards[index]
                if guard in self._contract or self._is_impossible(path, guard):
                    continue
                other = self._branch(path, guard)
                if other is None:
                    continue
                followed, opposite = other.guards(), guard.negated()
                # `int(n // k)` is a question with many answers: after one of them comes
                # the next, until all were seen.
                is_answered = (
                    index < len(followed)
                    and followed[index].condition == opposite.condition
                )
                start_there = index + 1 if is_answered else index
                pending.append(([*path, opposite], start_there, followed))

    def replay(
        self,
        plain: PlainInputs,
        named: Set[int],
        refusal: DynamicControlFlowError | None,
    ) -> None:
        """Run on plain ints at many shapes of the profile: the result must be the same.

        Args:
            refusal: what exploration found; it stands unless all shapes are replayed.

        Raises:
            RecordError: the function does something else, or raises.
        """
        recorded = Recorded(self._result, self._ranges)
        named = recorded.constants.union(named, *(g.constants for g in self._guards))
        for tensor in self._tensors:
            if tensor is not None:
                named |= {extent for extent in tensor.shape if isinstance(extent, int)}
        points, are_all = points_of(self._ranges, self._tied, named, plain.most)
        if refusal is not None and not are_all:
            raise refusal
        # Two extents must agree only if the function fails where they do not, and so
        # must the sides of an equation.
        breaking = unequal_points(self._ranges, self._tied, named)
        if equations := [
            guard
            for guard in self._contract
            if isinstance(guard.condition, sympy.Eq) and not guard.is_equality
        ]:
            conditions = [guard.condition for guard in equations]
            solving = solving_points(points, self._ranges, self._tied, conditions)
            moved = list(itertools.islice(dict.fromkeys(solving), plain.most))
            near = points_near(moved, self._ranges, self._tied, conditions, named)
            sides: dict[bool, list[Point]] = {True: [], False: []}
            for point in dict.fromkeys((*points, *moved, *near)):
                extents = dict(zip(self._ranges, point, strict=True))
                sides[all(e.holds(extents) for e in equations)].append(point)
            points, breaking = sides[True], [*breaking, *sides[False]]
        is_fast = True
        for point in points:
            if self._agrees_fast(plain, recorded, point) or plain.cannot_exist(point):
                continue
            is_fast = False
            try:
                found = _run(plain.at(point, False), self._function, self._subject)
            except UserCodeError as error:
                if isinstance(error.__cause__, ShapesRejected):
                    continue  # the op has no such shape
                raise refusal or self._differs(point, str(error)) from error
            if difference := recorded.difference(found, point):
                raise refusal or self._differs(point, difference)
        for point in breaking:
            try:
                found = plain.at(point, is_fast).run(self._function)
            except Exception:
                continue  # it fails there, as a function with a contract does
            if difference := recorded.difference(found, point):
                raise self._differs(point, difference)

    def _agrees_fast(
        self, plain: PlainInputs, recorded: Recorded, point: Point
    ) -> bool:
        """Whether tensors that pass for CUDA tensors are enough to see agreement."""
        try:
            found = plain.at(point, True).run(self._function)
        except Exception:
            return False  # what it is, torch's fake tensors decide
        return not recorded.difference(found, point)

    def _differs(self, point: Point, difference: str) -> RecordError:
        order = list(self._ranges)
        shape = ", ".join(f"{s}={v}" for s, v in zip(order, point, strict=True))
        return RecordError(
            f"{self._subject.name} does something else on plain ints than what was "
            f"recorded, at {shape or 'the same shapes'}: {difference}. It must depend "
            "on nothing but its arguments, and do the same with sizes that are symbols."
        )

    def _branch(self, path: Sequence[Guard], guard: Guard) -> Trace | None:
        """Run where ``path`` holds and ``guard`` does not, and compare.

        None where there is nothing to compare: ``guard`` is in the op's contract.
        """
        required = [*self._contract, *path]
        rejected: list[Trace] = []
        for extents in _solutions(self._ranges, self._tied, required, guard):
            self._runs += 1
            if self._runs > _MOST_RUNS:
                raise self._refused(guard)
            run, is_whole = self._other(guard, extents)
            if is_whole:
                return run
            rejected.append(run)  # so may other shapes of this branch be: try some more
        if not rejected and guard.is_torchs:
            return None  # torch asked again, in other words, what is settled already
        if not rejected:
            raise self._refused(guard)
        exception = self._exception([*required, guard.negated()], guard, rejected)
        if exception is not None:
            return exception
        open_path = [] if _is_equation(guard) else set(path) - set(self._contract)
        if open_path:
            conditions = [sympy.Not(g.condition) for g in open_path]
            condition = sympy.Or(guard.condition, *conditions)
            self._contract.append(replace(guard, condition=condition))
            return None
        self._contract.append(guard)
        if guard.is_equality:
            self._tie(guard)
        return None

    def _other(
        self, guard: Guard, extents: Mapping[sympy.Symbol, int]
    ) -> tuple[Trace, bool]:
        """A run where ``guard`` does not hold, and whether it came to its end.

        Raises:
            DynamicControlFlowError: it gives something else, or fails for other reasons
                than that the op has no such shape.
        """
        run = Trace(self._tensors, extents)
        try:
            other = run.run(self._function)
        except ShapesRejected:
            return run, False
        except AnnotationError as error:
            raise self._refused(self._culprit(guard, extents)) from error
        except Exception as error:
            if _is_equation(guard):
                return run, False
            raise self._refused(self._culprit(guard, extents)) from error
        pinned = run.pinned()
        pair = other.xreplace(pinned), self._result.xreplace(pinned)
        if not are_equal(*pair, self._ranges):
            raise self._refused(self._culprit(guard, extents))
        return run, True

    def _exception(
        self, required: Sequence[Guard], guard: Guard, rejected: Sequence[Trace]
    ) -> Trace | None:
        """A run that is not rejected though ``guard`` does not hold, if there is one.

        The first few shapes need not show it, as in ``assert m in (n, 64)``. So each
        question that a rejected run asked is answered otherwise, too.
        """
        settled = {g.condition for g in required}
        questions: deque[list[Guard]] = deque()
        seen: set[frozenset[sympy.Basic]] = set()

        def ask(run: Trace) -> None:
            asked = [g for g in run.guards() if g.condition not in settled]
            paths = [asked[: index + 1] for index in range(len(asked))]
            seen.update(frozenset(g.condition for g in path) for path in paths)
            for path in paths:
                if _is_number(path[-1]):  # a message with a size asks, too: last
                    questions.append(path)
                else:
                    questions.appendleft(path)

        for run in rejected:
            ask(run)
        runs = 0
        while questions:
            *path, last = questions.popleft()
            opposite = frozenset(g.condition for g in (*path, last.negated()))
            where = [*required, *path]
            if opposite in seen or self._is_impossible(where, last):
                continue
            seen.add(opposite)
            found = False
            others = _solutions(self._ranges, self._tied, where, last)
            for extents in itertools.islice(others, _MOST_EXCEPTIONS):
                found = True
                runs += 1
                if runs > _MOST_RUNS and (_is_number(last) or last.is_torchs):
                    return None
                if runs > _MOST_RUNS:
                    raise self._refused(last)
                run, is_whole = self._other(guard, extents)
                if is_whole:
                    return run
                ask(run)
            if not found and not last.is_torchs:
                raise self._refused(last)
        return None

    def _tie(self, guard: Guard) -> None:
        first, second = (self._tied.get(s, s) for s in guard.condition.args)
        self._tied |= {s: first for s, root in self._tied.items() if root == second}
        self._tied |= {first: first, second: first}

    def _is_impossible(self, path: Sequence[Guard], guard: Guard) -> bool:
        """Whether no extents at all can satisfy ``path`` and break ``guard``."""
        if canonical(guard.condition.xreplace(self._tied), self._ranges) == sympy.true:
            return True
        conditions = (g.condition for g in (*path, guard.negated()))
        return _exhausted([c.xreplace(self._tied) for c in conditions], self._ranges)

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
        is_number = _is_number(guard)
        number = " If it is int() of a size, leave int() out." if is_number else ""
        return DynamicControlFlowError(
            f"{self._subject.name} (or the op's fake kernel) branches on "
            f"`{shown(guard.condition)}` at {guard.where}, which the profile "
            f"({profile}) leaves open: one branch would be baked in. Narrow the "
            "profile, make the dimension static, or branch inside the kernel."
            f"{number}"
        )


def _is_number(guard: Guard) -> bool:
    """Whether it says that a size is a number, as a message with that size asks."""
    condition = guard.condition
    return isinstance(condition, sympy.Eq) and any(s.is_Integer for s in condition.args)


def _is_equation(guard: Guard) -> bool:
    """Whether it says that an extent follows from others."""
    return _is_solved(guard.condition)


def _is_solved(condition: sympy.Basic) -> bool:
    is_one = isinstance(condition, sympy.Eq) and len(condition.free_symbols) > 1
    return is_one and any(solved(condition))


def _exhausted(conditions: Sequence[sympy.Basic], ranges: Ranges) -> bool:
    """Whether they leave an expression no value, or no extents of not too many."""
    excluded: dict[sympy.Basic, set[int]] = defaultdict(set)
    for condition in conditions:
        if isinstance(condition, sympy.Ne) and condition.rhs.is_Integer:
            excluded[condition.lhs].add(int(condition.rhs))
    for expr, values in excluded.items():
        lower, upper = bounds(expr, ranges)
        if all(value in values for value in range(lower, upper + 1)):
            return True
    symbols = set().union(*(c.free_symbols for c in conditions))
    spans = {s: range(ranges[s].min, ranges[s].max + 1) for s in symbols}
    for c in conditions:
        if isinstance(c, sympy.Eq) and c.lhs in spans and c.rhs.is_Integer:
            spans[c.lhs] = range(c.rhs, c.rhs + 1)
    if math.prod(map(len, spans.values())) > _MOST_CANDIDATES:
        return False
    hold = [on_ints(condition) for condition in conditions]
    choices = itertools.product(*spans.values())
    extents = (dict(zip(spans, choice, strict=True)) for choice in choices)
    return not any(all(h(chosen) for h in hold) for chosen in extents)


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

    def every(samples: Callable[[Range], list[int]]) -> Iterator[dict[Any, int]]:
        choices = itertools.product(*(samples(ranges[s]) for s in free))
        for choice in itertools.islice(choices, _MOST_CANDIDATES):
            chosen = dict(zip(free, choice, strict=True))
            yield {s: chosen.get(tied.get(s, s), r.opt) for s, r in ranges.items()}

    wanted = (*(g.condition for g in required), guard.negated().condition)
    equations = [c for c in wanted if _is_solved(c)]
    ends = (tuple(extents.values()) for extents in every(_ends))
    moved = solving_points(ends, ranges, tied, equations) if equations else ()
    for candidates in (
        every(_ends),
        every(lambda extent: _samples(extent, named)),
        (dict(zip(ranges, point, strict=True)) for point in moved),
    ):
        for extents in candidates:
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
    known = {extent.min, extent.opt, extent.max, 2} | named
    near = {near for value in known for near in range(value - 1, value + 2)}
    if extent.max - extent.min < 64:
        near |= set(range(extent.min, extent.max))
    return sorted(v for v in near if extent.min <= v <= extent.max)
