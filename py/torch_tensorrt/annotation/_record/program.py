# SPDX-License-Identifier: BSD-3-Clause

"""What a launch function does: a program of launches, with sizes as expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import sympy
import torch
from torch._ops import OpOverload as _OpOverload

from .._sizes.canonical import canonical
from .._tensors import Range, Ranges, TensorInfo, ranges_of

Keywords: TypeAlias = tuple[tuple[str, Any], ...]  # sorted (name, value) pairs
OpOverload: TypeAlias = _OpOverload[..., Any]
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

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among its arguments, in order."""
        values = (value for _, value, _ in self.arguments)
        found = (v.tensor if isinstance(v, CaughtDescriptor) else v for v in values)
        return [value for value in found if isinstance(value, torch.Tensor)]


@dataclass(frozen=True)
class CaughtDescriptor:
    """A tensor descriptor as a launch gets it.

    Attributes:
        tensor: what it describes; its first element is at the descriptor's address.
        shape, strides: in elements.
        block: elements along each dimension that the kernel moves at once.
        options: of the toolchain's own.
        made_at: ``file:line in function``, for messages.
    """

    tensor: torch.Tensor
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    block: tuple[int, ...]
    options: Keywords = ()
    made_at: str = ""


@dataclass(frozen=True)
class View:
    """A tensor as torch's code has it: a part of one of the program's tensors.

    Attributes:
        tensor: its number, as in :class:`Pointer`.
        path: the view operations that lead to it from the whole tensor, each with its
            other arguments by name.
    """

    tensor: int
    path: tuple[tuple[OpOverload, Keywords], ...] = ()


@dataclass(frozen=True)
class Operation:
    """A torch operation beside the launches, which stays one in the network.

    Attributes:
        op: as torch dispatched it; no view operation, and no allocation.
        arguments: by name. Tensors are :class:`View`, integers are expressions, lists
            are tuples, and anything else is a :class:`Constant`.
        results: the tensors that it makes; empty where it writes one of its arguments.
        orders: for each result, its axes as they lie in memory and in the program; None
            where they lie in order.
    """

    op: OpOverload
    arguments: Keywords
    results: tuple[int, ...] = ()
    orders: tuple[tuple[int, ...] | None, ...] = ()

    @property
    def name(self) -> str:
        """torch's: ``"aten.sum.dim_IntList"``."""
        return str(self.op)

    @property
    def views(self) -> tuple[View, ...]:
        """Its tensors."""
        return tuple(_views_in(self.arguments))

    @property
    def written(self) -> tuple[View, ...]:
        """The tensors that it writes."""
        given = dict(self.arguments)
        infos = ((a.name, a.alias_info) for a in self.op._schema.arguments)
        names = [name for name, info in infos if info is not None and info.is_write]
        return tuple(_views_in(tuple(given[name] for name in names)))


def _views_in(value: Any) -> Iterator[View]:
    if isinstance(value, View):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _views_in(item)


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
class Descriptor(Pointer):
    """A tensor descriptor: an address with all that a tensor map is made of.

    Attributes:
        block: elements along each dimension that the kernel moves at once.
        options: of the toolchain's own.
    """

    block: tuple[int, ...] = ()
    options: Keywords = ()


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
        choices: what its autotuner would choose from; the first was taken.
    """

    kernel: Any
    name: str
    grid: Grid | None
    arguments: tuple[Argument, ...]
    options: Keywords
    choices: tuple[Keywords, ...] = field(default=(), compare=False)

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        """Its arguments that are tensors."""
        return tuple(a for a in self.arguments if isinstance(a, Pointer))


@dataclass(frozen=True)
class Output:
    """The shape, as expressions of the inputs' extents, and dtype of a new buffer."""

    shape: tuple[sympy.Expr, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Program:
    """What a function does with its inputs, for every shape in the profile.

    A program of one launch, whose outputs are new buffers, becomes one plugin. Any
    other is several steps, each launch a plugin of its own (see :meth:`is_plugin`).

    Attributes:
        inputs: the plugin's inputs, weights last; None for one that is not given.
        outputs: what the function returns.
        hidden: buffers that it allocates, or torch makes, and does not return as such.
        steps: launches and torch operations, in order. A fake kernel has none.
        formats: TensorRT's names of the tensors' formats, inputs first.
        returned: for each output, the view that it is; empty where outputs are buffers
            of their own, whose numbers follow those of the inputs.
        writable: the inputs that the op says it writes.
        aliased: inputs that the launch writes, and that its plugin therefore returns
            after its outputs.
    """

    inputs: tuple[TensorInfo | None, ...]
    outputs: tuple[Output, ...]
    steps: tuple[Launch | Operation, ...] = ()
    formats: tuple[str, ...] = ()
    hidden: tuple[Output, ...] = ()
    returned: tuple[View, ...] = ()
    writable: tuple[int, ...] = ()
    aliased: tuple[int, ...] = ()

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The steps that are launches."""
        return tuple(step for step in self.steps if isinstance(step, Launch))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The steps that are torch operations."""
        return tuple(step for step in self.steps if isinstance(step, Operation))

    @property
    def launch(self) -> Launch:
        """The only step of a plugin's program."""
        (launch,) = self.launches
        return launch

    @property
    def is_plugin(self) -> bool:
        """Whether it is one launch, which writes new outputs."""
        return len(self.steps) == 1 and not self.returned and not self.writable

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
    if not isinstance(value, Program | Output | Launch | Operation | View | Pointer):
        return value
    names = [field.name for field in fields(value)]
    return replace(value, **{n: _mapped(getattr(value, n), function) for n in names})
