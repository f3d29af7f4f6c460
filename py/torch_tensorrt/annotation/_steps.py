# SPDX-License-Identifier: BSD-3-Clause

"""A program of several steps: which tensors each of its launches takes and makes.

Each launch becomes a plugin of its own. It is given the op's own tensors, in whose
extents all sizes are expressed; then those of the program's other tensors that it
reads; then the weights. A tensor that already holds something when the launch writes it
is *aliased*: the plugin is given it, and returns it, and both are one buffer.

What a launch writes is known once it is compiled. Until then, it is taken to write
everything that is not the op's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from ._code.effects import STORED, UNKNOWN
from ._code.kernel import Kernel
from ._record.operations import called
from ._record.program import (
    Launch,
    Operation,
    Output,
    Pointer,
    Program,
    View,
    are_equal,
)
from ._sizes.expressions import on_ints
from ._sizes.facts import bounds
from ._tensors import Extent, Range, Ranges, TensorInfo, by_symbol

# From a launch, and the tensors between launches that it reads, to what it returns.
RunLaunch: TypeAlias = Callable[["Step", dict[int, torch.Tensor]], Any]
PREVIEW = (
    "Writing in place is a preview feature of TensorRT's (ALIASED_PLUGIN_IO_10_03), "
    "and no engine with it has been built here."
)


@dataclass(frozen=True)
class Step:
    """One launch of a program as a plugin. Tensors are numbers of the program's.

    Attributes:
        index: of the launch among the program's.
        name: of its kernel.
        reads: what it is given beside the op's tensors.
        outputs: what it makes for later steps, or for the op to return.
        hidden: what it makes for itself.
        aliased: of ``reads``, those that it writes, which it returns after the outputs.
        tensors: how many of the program's inputs are the op's, and no weights.
        config: the place, among the spec's, of the one that the tensors are made by.
    """

    index: int
    name: str
    reads: tuple[int, ...]
    outputs: tuple[int, ...]
    hidden: tuple[int, ...]
    aliased: tuple[int, ...]
    tensors: int
    config: int

    @cached_property
    def without_aliases(self) -> Step:
        """What decides the code."""
        return replace(self, aliased=())

    @property
    def returned(self) -> tuple[int, ...]:
        """What its plugin returns."""
        return self.outputs + self.aliased

    def part(self, program: Program) -> Program:
        """The program of the plugin."""
        tensors = self.tensors
        inputs, weights = program.inputs[:tensors], program.inputs[tensors:]
        given = (*inputs, *(_info(program, number) for number in self.reads), *weights)
        order = (*range(tensors), *self.reads, *range(tensors, len(program.inputs)))
        order = (*order, *self.outputs, *self.hidden)
        # The last counts: a written input is read as it is now, not as it was given.
        numbers = {number: place for place, number in enumerate(order)}
        launch = program.launches[self.index]
        arguments = tuple(
            replace(a, tensor=numbers[a.tensor]) if isinstance(a, Pointer) else a
            for a in launch.arguments
        )
        outputs = _buffers(program, self.outputs)
        return Program(
            inputs=given,
            outputs=outputs,
            steps=(replace(launch, arguments=arguments),),
            formats=("LINEAR",) * (len(given) + len(self.returned)),
            hidden=_buffers(program, self.hidden),
            aliased=tuple(numbers[number] for number in self.aliased),
        )

    def stored(self, kernel: Kernel) -> set[int]:
        """The tensors that a kernel of :meth:`part`, without its aliases, may write."""
        places = {"output": self.outputs, "hidden": self.hidden}
        found = set()
        for tensor, effect in kernel.effects.items():
            kind, place = tensor.split()[0], int(tensor.split()[1])
            if STORED in effect or effect == UNKNOWN:
                if kind in places:
                    found.add(places[kind][place])
                elif kind == "input" and self.tensors <= place < (
                    self.tensors + len(self.reads)
                ):
                    found.add(self.reads[place - self.tensors])
        return found


@dataclass(frozen=True)
class Structure:
    """How an op is taken apart.

    Attributes:
        program: of the first config.
        steps: its launches.
        numbers: the tactics whose programs have the same steps.
    """

    program: Program
    steps: tuple[Step, ...]
    numbers: frozenset[int]

    def outputs(self, step: Step) -> tuple[Output, ...]:
        """What a launch makes."""
        return _buffers(self.program, step.outputs)


def layout(
    program: Program,
    tensors: int,
    stored: Mapping[int, Set[int]] | None,
    config: int = 0,
) -> tuple[Step, ...]:
    """The launches of a program as plugins.

    Args:
        stored: by launch, the tensors that it writes; None: it is not known yet.
        config: the place, among the spec's, of the one that the program is of.
    """
    first, writable = len(program.inputs), set(program.writable)
    uses = list(map(_uses, program.steps))
    returned = {*(view.tensor for view in program.returned), *writable}
    written: set[int] = set()  # what holds something that a step made
    steps: list[Step] = []
    for place, step in enumerate(program.steps):
        if isinstance(step, Operation):
            written |= {*step.results, *(view.tensor for view in step.written)}
            continue
        own = dict.fromkeys(uses[place])
        stores = {n for n in own if n >= first or n in writable}
        if stored is not None:
            stores &= stored[len(steps)]
        reads = [n for n in own if n in written or (n < first and n in stores)]
        fresh = [n for n in own if n >= first and n not in written]
        later = returned.union(*uses[place + 1 :])
        outputs = [n for n in fresh if n in later and n in stores]
        steps.append(
            Step(
                index=len(steps),
                name=step.name,
                reads=tuple(reads),
                outputs=tuple(outputs),
                hidden=tuple(n for n in fresh if n not in outputs),
                aliased=tuple(n for n in reads if n in stores),
                tensors=tensors,
                config=config,
            )
        )
        written |= stores
    return tuple(steps)


def _uses(step: Launch | Operation) -> tuple[int, ...]:
    if isinstance(step, Operation):
        return tuple(view.tensor for view in step.views)
    return tuple(pointer.tensor for pointer in step.pointers)


def have_same_steps(first: Program, other: Program) -> bool:
    """Whether launches of one program can take the place of the other's.

    They may differ in what the kernels compute, but not in the tensors between them.
    """
    return are_equal(_between(first), _between(other), first.ranges)


def _between(program: Program) -> Program:
    """The program without what belongs to its launches alone."""
    steps = tuple(
        Launch(None, "", None, _pointers(s), ()) if isinstance(s, Launch) else s
        for s in program.steps
    )
    return replace(program, steps=steps)


def _pointers(launch: Launch) -> tuple[Pointer, ...]:
    """Which tensors it takes, whatever parts of them, and in whatever order."""
    numbers = sorted({*_uses(launch)})
    return tuple(Pointer("", number, torch.int8) for number in numbers)


def _buffers(program: Program, numbers: tuple[int, ...]) -> tuple[Output, ...]:
    return tuple(program.hidden[n - len(program.inputs)] for n in numbers)


def _info(program: Program, number: int) -> TensorInfo | None:
    """What TensorRT will know of a tensor of the program."""
    if number < len(program.inputs):
        return program.inputs[number]
    (buffer,) = _buffers(program, (number,))
    extents = (_extent(size, program.ranges) for size in buffer.shape)
    return TensorInfo(tuple(extents), buffer.dtype)


def _extent(size: sympy.Expr, ranges: Ranges) -> Extent:
    if size.is_Integer:
        return int(size)
    low, high = bounds(size, ranges)
    opt = int(on_ints(size)({symbol: extent.opt for symbol, extent in ranges.items()}))
    return low if low == high else Range(max(low, 0), min(max(opt, low), high), high)


# --- The op in terms of its steps -----------------------------------------------------


def run(
    structure: Structure, values: Sequence[Any], launch: RunLaunch
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """What an op returns, and the new values of the inputs that it writes.

    It runs on fake tensors while torch traces it, with the writes of torch's operations
    functionalized, and on real ones. Of ``values``, none is written.

    Args:
        values: the op's tensors, or None.
        launch: returns new tensors, in the order of :attr:`Step.returned`.
    """
    program, size = structure.program, sizes_of(values)
    # As they are in an engine, and as they were recorded.
    values = [None if value is None else value.contiguous() for value in values]
    held: dict[int, Any] = dict(enumerate(values))
    steps, device = iter(structure.steps), device_of(values)

    def tensor(view: View) -> torch.Tensor:
        value = held[view.tensor]
        for op, arguments in view.path:
            value = called(op, arguments, size, tensor, device, value)
        return value  # type: ignore[no-any-return]

    for number in _empty_buffers(structure):
        (buffer,) = _buffers(program, (number,))
        shape = [size(extent) for extent in buffer.shape]
        held[number] = torch.empty(shape, dtype=buffer.dtype, device=device)
    for each in program.steps:
        if isinstance(each, Operation):
            for view in each.written:
                if view.tensor < len(values):  # the caller's own
                    held[view.tensor] = held[view.tensor].clone()
            made = called(each.op, each.arguments, size, tensor, device)
            made = made if isinstance(made, tuple | list) else [made]
            results = zip(each.results, each.orders, made, strict=bool(each.results))
            for number, order, value in results:
                held[number] = value if order is None else value.permute(order)
        else:
            step = next(steps)
            if not step.returned:  # nothing needs what it does
                continue
            made = launch(step, {number: held[number] for number in step.reads})
            made = made if isinstance(made, tuple | list) else [made]
            held |= dict(zip(step.returned, made, strict=True))
    written = tuple(held[number] for number in program.writable)
    return tuple(map(tensor, program.returned)), written


def sizes_of(values: Sequence[Any]) -> Callable[[Any], Any]:
    """The value of an expression, in the extents of the op's tensors."""
    extents = by_symbol(None if value is None else value.shape for value in values)

    def size(expr: Any) -> Any:
        if expr.is_Integer:
            return int(expr)
        return sympy_interp(PythonReferenceAnalysis, extents, expr)

    return size


def device_of(values: Sequence[Any]) -> torch.device:
    """Where an op's tensors are."""
    given = (value for value in values if isinstance(value, torch.Tensor))
    return next(given).device


def _empty_buffers(structure: Structure) -> list[int]:
    """Tensors that a step takes, or the op returns, and nothing has made by then."""
    program, launches = structure.program, iter(structure.steps)
    made, found = set(range(len(program.inputs))), dict[int, None]()

    def take(numbers: Iterable[int]) -> None:
        found.update((n, None) for n in numbers if n not in made)

    for step in program.steps:
        if isinstance(step, Operation):
            take(view.tensor for view in step.views)
            made |= {*step.results}
        else:
            made |= {*next(launches).returned}
    take(view.tensor for view in program.returned)
    return list(found)
