# SPDX-License-Identifier: BSD-3-Clause

"""What a launch function does: a program of launches, with sizes as expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import sympy
import torch

from .._sizes.canonical import canonical
from .._tensors import Range, Ranges, TensorInfo, ranges_of

Keywords: TypeAlias = tuple[tuple[str, Any], ...]  # sorted (name, value) pairs
Rule: TypeAlias = Mapping[sympy.Basic, sympy.Basic]
Grid: TypeAlias = tuple[sympy.Expr, sympy.Expr, sympy.Expr]


@dataclass(frozen=True)
class CaughtLaunch:
    """A launch as a toolchain saw it, while the function is still running.

    It is not a :class:`Launch` yet: an op's body hands its outputs over when it
    returns, so until then nobody knows which tensor of the plugin an argument is.

    Attributes:
        arguments: (parameter name, value, is a compile-time constant) in the kernel's
            order.
        options: compiler options given at the launch.
        choices: what its autotuner would choose from; the first was taken.
        grid: None where only the compiled kernel says it.
        passes_layouts: tensors reach the kernel with their extents and strides.
    """

    kernel: Any
    name: str
    grid: Sequence[Any] | None
    arguments: tuple[tuple[str, Any, bool], ...]
    options: Mapping[str, Any]
    choices: tuple[Keywords, ...] = ()
    passes_layouts: bool = False


@dataclass(frozen=True)
class Pointer:
    """An address in one of the program's tensors.

    Attributes:
        tensor: its number; inputs come first, then outputs, then hidden buffers.
        shape, strides: of the view that was passed, in elements; empty where the
            kernel gets nothing but the address.
        offset: of the view's start in the tensor, in elements of ``dtype``.
    """

    name: str
    tensor: int
    dtype: torch.dtype
    shape: tuple[sympy.Expr, ...] = ()
    strides: tuple[sympy.Expr, ...] = ()
    offset: sympy.Expr = sympy.S.Zero


@dataclass(frozen=True)
class Scalar:
    """An integer, or a condition, computed from the extents."""

    name: str
    expr: sympy.Basic


@dataclass(frozen=True)
class Constant:
    """A value that is compiled into the kernel; ``1``, ``1.0`` and ``True`` differ."""

    name: str
    value: Any
    type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", type(self.value).__name__)


def scalar(name: str, expr: sympy.Basic) -> Scalar | Constant:
    """A scalar; a condition that is decided is a constant."""
    if expr in (sympy.true, sympy.false):
        return Constant(name, expr == sympy.true)
    return Scalar(name, expr)


Argument: TypeAlias = Pointer | Scalar | Constant


@dataclass(frozen=True)
class Launch:
    """One kernel launch, every argument in one role, for every shape in the profile.

    Attributes:
        kernel: the toolchain's kernel object.
        grid: blocks along x, y and z; None where only the compiled kernel says it.
        arguments: in the kernel's own parameter order.
        options: compiler options given at the launch.
    """

    kernel: Any
    name: str
    grid: Grid | None
    arguments: tuple[Argument, ...]
    options: Keywords


@dataclass(frozen=True)
class Output:
    """The shape, as expressions of the inputs' extents, and dtype of a new buffer."""

    shape: tuple[sympy.Expr, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Program:
    """What a function does with its inputs, for every shape in the profile.

    Attributes:
        inputs: the plugin's inputs, weights last; None for one that is not given.
        outputs: the plugin's outputs.
        hidden: buffers that the function allocates for its kernel, and does not return.
        steps: its launches, in order. A fake kernel has none, a launch function one.
        formats: TensorRT's names of the tensors' formats, inputs first.
        choices: what the launch's autotuner would choose from; the first was taken.
    """

    inputs: tuple[TensorInfo | None, ...]
    outputs: tuple[Output, ...]
    steps: tuple[Launch, ...] = ()
    formats: tuple[str, ...] = ()
    choices: tuple[Keywords, ...] = field(default=(), compare=False)
    hidden: tuple[Output, ...] = ()

    @property
    def launch(self) -> Launch:
        """The only step of a launch function's program."""
        (launch,) = self.steps
        return launch

    @cached_property
    def ranges(self) -> dict[sympy.Symbol, Range]:
        """The range of each dynamic extent."""
        return ranges_of(self.inputs)

    def xreplace(self, rule: Rule) -> Program:
        """The program with extents replaced."""
        replaced: Program = _mapped(self, lambda expr: expr.xreplace(rule))
        return replaced


def are_equal(first: Any, second: Any, ranges: Ranges) -> bool:
    """Whether two programs, or outputs, are one, however they write expressions."""
    if first == second:
        return True
    one, other = (
        _mapped(each, lambda expr: canonical(expr, ranges)) for each in (first, second)
    )
    return bool(one == other)


def _mapped(value: Any, function: Callable[[sympy.Basic], Any]) -> Any:
    if isinstance(value, Scalar):
        return scalar(value.name, function(value.expr))
    if isinstance(value, sympy.Basic):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_mapped(item, function) for item in value)
    if not isinstance(value, Program | Output | Launch | Pointer):
        return value
    names = [field.name for field in fields(value)]
    return replace(value, **{n: _mapped(getattr(value, n), function) for n in names})
