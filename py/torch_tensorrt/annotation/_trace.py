"""Run a function on fake tensors, and keep the sizes it computes as expressions.

A dimension known at build time is a plain int there; a dynamic one is a symbol with the
profile's range. Where the function branches on a size that the range leaves open, the
other branch is tried as well, and the branch is refused unless it changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from torch_tensorrt.annotation._symbolic import Extent, Range, Ranges, symbol
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    DynamicControlFlowError,
    RecordError,
)


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor at build time: its extents and its dtype."""

    shape: tuple[Extent, ...]
    dtype: torch.dtype


class Substitutable(Protocol):
    """A result of tracing: compared by ``==``, rewritten by :meth:`xreplace`."""

    def xreplace(self, rule: Mapping[sympy.Basic, sympy.Basic]) -> Substitutable: ...


Result = TypeVar("Result", bound=Substitutable)


def ranges_of(tensors: Sequence[TensorInfo]) -> dict[sympy.Symbol, Range]:
    """The symbol of each dynamic dimension, with its range."""
    return {
        symbol(i, axis): extent
        for i, tensor in enumerate(tensors)
        for axis, extent in enumerate(tensor.shape)
        if isinstance(extent, Range)
    }


class Trace:
    """One run: the fake inputs, and a reading of the sizes computed from them.

    Attributes:
        inputs: contiguous fake CUDA tensors, one for each :class:`TensorInfo`.
    """

    def __init__(
        self, tensors: Sequence[TensorInfo], hints: Mapping[sympy.Symbol, int]
    ) -> None:
        self._env = ShapeEnv(specialize_zero_one=False, duck_shape=False)
        self._mode = FakeTensorMode(shape_env=self._env)
        self._canonical: dict[sympy.Symbol, sympy.Symbol] = {}
        ranges = ranges_of(tensors)
        sizes = {s: self._symint(s, ranges[s], hints[s]) for s in ranges}
        with self._mode:
            self.inputs = tuple(
                torch.empty(
                    [
                        sizes[symbol(i, axis)] if isinstance(extent, Range) else extent
                        for axis, extent in enumerate(tensor.shape)
                    ],
                    dtype=tensor.dtype,
                    device="cuda",
                )
                for i, tensor in enumerate(tensors)
            )

    def _symint(
        self, name: sympy.Symbol, extent: Range, hint: int
    ) -> int | torch.SymInt:
        source = ConstantSource(name.name)
        internal = self._env.create_symbol(
            hint,
            source=source,
            dynamic_dim=DimDynamic.DYNAMIC,
            do_not_specialize_zero_one=True,
        )
        self._env.constrain_symbol_range(internal, extent.min, extent.max)
        self._canonical[internal] = name
        return self._env.create_symintnode(internal, hint=hint, source=source)

    def run(self, function: Callable[[Trace], Result]) -> Result:
        """``function`` of this trace, with the fake mode on."""
        with self._mode:
            return function(self)

    def expr(self, size: int | torch.SymInt) -> sympy.Expr:
        """The expression of a size, over the symbols of ``_symbolic.symbol``."""
        if isinstance(size, torch.SymInt):
            return size.node.expr.xreplace(self._canonical)
        return sympy.Integer(size)

    def guards(self) -> Iterator[tuple[sympy.Basic, str]]:
        """The conditions this run took for true, each with where it was asked."""
        for guard in self._env.guards:
            yield guard.expr.xreplace(self._canonical), str(guard.sloc).strip("()")

    def pinned(self) -> dict[sympy.Basic, sympy.Basic]:
        """What the conditions of this run made of its symbols."""
        return {
            self._canonical[s]: value.xreplace(self._canonical)
            for s, value in self._env.replacements.items()
        }


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
    hints = {s: extent.opt for s, extent in ranges.items()}
    base = Trace(tensors, hints)
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
    for condition, where in base.guards():
        _require_harmless(condition, where, function, tensors, ranges, result, what)
    return result


def _require_harmless(
    condition: sympy.Basic,
    where: str,
    function: Callable[[Trace], Result],
    tensors: Sequence[TensorInfo],
    ranges: Ranges,
    result: Result,
    what: str,
) -> None:
    """Raise unless ``result`` also holds where ``condition`` is false."""
    refused = DynamicControlFlowError(
        f"{what} branches on `{condition}` at {where}, which the profile "
        f"({_describe(ranges)}) leaves open: one branch would be baked in. Narrow the "
        "profile, make the dimension static, or branch inside the kernel."
    )
    other = _falsify(condition, ranges)
    if other is None:
        raise refused
    run = Trace(tensors, other)
    try:
        alternative = run.run(function)
    except AnnotationError as error:
        raise refused from error
    except Exception as error:
        # Two extents that must agree are the op's own contract, which no profile can
        # state and every caller meets. Any other rejected shape is one that TensorRT
        # may pass.
        if isinstance(condition, sympy.Eq) and all(a.is_Symbol for a in condition.args):
            return
        raise refused from error
    pinned = run.pinned()
    if alternative.xreplace(pinned) != result.xreplace(pinned):
        raise refused


def _falsify(condition: sympy.Basic, ranges: Ranges) -> dict[sympy.Symbol, int] | None:
    """Extents within the profile for which ``condition`` is false, if any are found."""
    involved = sorted(condition.free_symbols, key=str)
    values = [_samples(ranges[s]) for s in involved]
    for choice in itertools.islice(itertools.product(*values), 20_000):
        extents = dict(zip(involved, choice, strict=True))
        rule = {s: sympy.Integer(v) for s, v in extents.items()}
        if condition.xreplace(rule) == sympy.false:
            return {s: extents.get(s, extent.opt) for s, extent in ranges.items()}
    return None


def _samples(extent: Range) -> list[int]:
    near = {extent.min, extent.opt, extent.max}
    near |= {value + step for value in near for step in (-1, 1)} | {1, 2, 3}
    if extent.max - extent.min < 64:
        near |= set(range(extent.min, extent.max + 1))
    return sorted(v for v in near if extent.min <= v <= extent.max)


def _describe(ranges: Ranges) -> str:
    return ", ".join(f"{r.min} <= {s} <= {r.max}" for s, r in ranges.items())


def as_tensors(value: Any, what: str) -> tuple[torch.Tensor, ...]:
    """What an op, or its fake kernel, returned, as a tuple of tensors."""
    tensors = tuple(value) if isinstance(value, tuple | list) else (value,)
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentError(
                f"{what} returned {type(tensor).__name__}; it must return one tensor, "
                "or a tuple of tensors."
            )
    return tensors
