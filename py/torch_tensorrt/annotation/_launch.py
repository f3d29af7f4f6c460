"""A kernel launch: as a toolchain saw it, and as it was understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import sympy
import torch

from torch_tensorrt.annotation._configs import Config
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._trace import TensorInfo, ranges_of


@dataclass(frozen=True)
class Launch:
    """A launch as a toolchain saw it, before anything is read into its arguments.

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
    choices: tuple[Config, ...] = ()
    passes_layouts: bool = False


@dataclass(frozen=True)
class Pointer:
    """The address of one of the plugin's tensors: inputs are counted first.

    Attributes:
        shape, strides: of the view that was passed, in elements; empty where the
            kernel gets nothing but the address.
    """

    name: str
    tensor: int
    dtype: torch.dtype
    shape: tuple[sympy.Expr, ...] = ()
    strides: tuple[sympy.Expr, ...] = ()

    def xreplace(self, rule: Rule) -> Pointer:
        shape, strides = _replaced(self.shape, rule), _replaced(self.strides, rule)
        return replace(self, shape=shape, strides=strides)


@dataclass(frozen=True)
class Scalar:
    """An integer, or a condition, computed from the extents."""

    name: str
    expr: sympy.Basic

    def xreplace(self, rule: Rule) -> Scalar | Constant:
        return scalar(self.name, self.expr.xreplace(rule))


@dataclass(frozen=True)
class Constant:
    """A value that is compiled into the kernel; ``1``, ``1.0`` and ``True`` differ."""

    name: str
    value: Any
    type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", type(self.value).__name__)

    def xreplace(self, rule: Rule) -> Constant:
        del rule
        return self


def scalar(name: str, expr: sympy.Basic) -> Scalar | Constant:
    """A scalar; a condition that is decided is a constant."""
    if expr in (sympy.true, sympy.false):
        return Constant(name, expr == sympy.true)
    return Scalar(name, expr)


Argument: TypeAlias = Pointer | Scalar | Constant
Grid: TypeAlias = tuple[sympy.Expr, sympy.Expr, sympy.Expr]
Rule: TypeAlias = Mapping[sympy.Basic, sympy.Basic]


@dataclass(frozen=True)
class Output:
    """The shape, as expressions of the inputs' extents, and dtype of one output."""

    shape: tuple[sympy.Expr, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Outputs:
    """What a fake kernel returns for given inputs."""

    tensors: tuple[Output, ...]

    def xreplace(self, rule: Rule) -> Outputs:
        return Outputs(
            tuple(Output(_replaced(t.shape, rule), t.dtype) for t in self.tensors)
        )


@dataclass(frozen=True)
class LaunchRecord:
    """One launch, every argument in one role, for every shape in the profile.

    Attributes:
        kernel: the toolchain's kernel object.
        grid: blocks along x, y and z; None where only the compiled kernel says it.
        arguments: in the kernel's own parameter order.
        options: compiler options given at the launch.
        choices: what its autotuner would choose from; the first was taken.
        inputs: the plugin's inputs.
        outputs: the plugin's outputs.
        formats: TensorRT's names of their formats, inputs first.
    """

    kernel: Any
    name: str
    grid: Grid | None
    arguments: tuple[Argument, ...]
    options: tuple[tuple[str, Any], ...]
    choices: tuple[Config, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: Outputs
    formats: tuple[str, ...]

    @cached_property
    def ranges(self) -> dict[sympy.Symbol, Range]:
        """The range of each dynamic extent."""
        return ranges_of(self.inputs)

    def xreplace(self, rule: Rule) -> LaunchRecord:
        return replace(
            self,
            grid=None if self.grid is None else _replaced(self.grid, rule),
            arguments=tuple(argument.xreplace(rule) for argument in self.arguments),
            outputs=self.outputs.xreplace(rule),
        )


def _replaced(exprs: tuple[sympy.Expr, ...], rule: Rule) -> Any:
    return tuple(expr.xreplace(rule) for expr in exprs)
