"""Run a function on fake tensors, and keep the sizes it computes as expressions.

A dimension known at build time is a plain int there; a dynamic one is a symbol with the
profile's range, which decides what the function asks of it as far as it can.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import FrameSummary
from typing import Any, TypeVar

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    free_unbacked_symbols,
)

from torch_tensorrt.annotation._environment import tracing
from torch_tensorrt.annotation._symbolic import Extent, Range, symbol
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DataDependentError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor at build time: its extents and its dtype."""

    shape: tuple[Extent, ...]
    dtype: torch.dtype

    @property
    def is_absent(self) -> bool:
        """Whether it stands for None."""
        return is_absent(len(self.shape), self.dtype)


# A plugin has a fixed number of inputs: what TensorRT is given in place of None is a
# constant that nothing reads, of a kind that no op is ever called with.
ABSENT = TensorInfo((1,) * 8, torch.bool)
TAKEN_FOR_NONE = (
    f"a bool tensor of {len(ABSENT.shape)} dimensions, which stands for None in a "
    "plugin. Reshape it."
)


def is_absent(rank: int, dtype: torch.dtype) -> bool:
    """Whether a tensor, of which TensorRT may not say the extents, stands for None."""
    return (rank, dtype) == (len(ABSENT.shape), ABSENT.dtype)


def absent() -> torch.Tensor:
    """What a plugin is given in place of None."""
    return torch.zeros([1] * len(ABSENT.shape), dtype=ABSENT.dtype)


def or_none(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor | None]:
    """The plugin's inputs as the op's: None for what stands for it."""
    return [None if is_absent(t.dim(), t.dtype) else t for t in tensors]


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that the profile left open, and that one run took for true.

    Attributes:
        where: ``file:line in function`` that asked.
        is_torchs: torch asked of itself, in what a user's line called.
    """

    condition: sympy.Basic
    where: str
    is_torchs: bool

    @property
    def is_equality(self) -> bool:
        """Whether it says that two extents agree."""
        return isinstance(self.condition, sympy.Eq) and all(
            side.is_Symbol for side in self.condition.args
        )

    def holds(self, extents: Mapping[sympy.Symbol, int]) -> bool:
        """Whether it is true of these extents."""
        rule = {s: sympy.Integer(v) for s, v in extents.items()}
        try:
            return bool(self.condition.xreplace(rule) == sympy.true)
        except ZeroDivisionError:
            return False


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
        inputs: contiguous fake CUDA tensors, one for each :class:`TensorInfo`; None
            for one that stands for it.
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
            self.inputs: tuple[torch.Tensor | None, ...] = tuple(
                None
                if tensor.is_absent
                else torch.empty(
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
            # torch takes sizes for positive, and simplifies max(n, 1) to n.
            positive=True if extent.min > 0 else None,
        )
        self._env.constrain_symbol_range(internal, extent.min, extent.max)
        self._canonical[internal] = name
        return self._env.create_symintnode(internal, hint=hint, source=source)

    def run(self, function: Callable[[Trace], T]) -> T:
        """``function`` of this trace, with the fake mode on."""
        with tracing(), self._mode:
            return function(self)

    def expr(self, size: int | torch.SymInt | torch.SymBool) -> Any:
        """The expression of a size, over the symbols of ``_symbolic.symbol``.

        Raises:
            DataDependentError: it is none of the inputs' extents alone.
        """
        if isinstance(size, torch.SymInt | torch.SymBool):
            if free_unbacked_symbols(size):
                raise DataDependentError(
                    "a size or an argument follows from the values of a tensor. An "
                    "engine knows extents alone before the kernel runs: allocate the "
                    "largest size, and let the kernel write how much of it counts."
                )
            return size.node.expr.xreplace(self._canonical)
        return sympy.Integer(operator.index(size))

    def guards(self) -> list[Guard]:
        """The conditions this run took for true, in the order it asked."""
        return [
            Guard(
                guard.expr.xreplace(self._canonical),
                _where(guard.sloc.framework_loc),
                _is_torchs(guard.sloc.framework_loc),
            )
            for guard in self._env.guards
        ]

    def pinned(self) -> dict[sympy.Basic, sympy.Basic]:
        """What the conditions of this run made of its symbols."""
        return {
            self._canonical[s]: value.xreplace(self._canonical)
            for s, value in self._env.replacements.items()
        }


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


def _where(frame: FrameSummary | str | None) -> str:
    if isinstance(frame, FrameSummary):
        return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return str(frame)


def _is_torchs(frame: FrameSummary | str | None) -> bool:
    if not isinstance(frame, FrameSummary):
        return True
    return Path(frame.filename).is_relative_to(torch.__path__[0])
