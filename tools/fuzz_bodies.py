# SPDX-License-Identifier: BSD-3-Clause

"""Random bodies of ops: several launches, views, buffers and torch's operations.

A body is written while it runs at a few shapes, so that it is one that runs. It is
recorded for a profile that holds them, and taken apart into its launches. At other
shapes of the profile, the steps must compute what the body computes, and write the
inputs that it writes.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "py" / "plugins"))

import bodies

from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.program import Program
from torch_tensorrt.annotation._steps import Step, Structure, layout, run
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import AnnotationError

# The extents of x and of y.
PROFILES = (
    ((Range(2, 4, 8), Range(3, 8, 13)), (Range(2, 5, 9),)),
    ((Range(2, 4, 9), 8), (8,)),
    ((4, Range(4, 8, 12)), (Range(4, 6, 40),)),
)
SHAPES = ("n, m", "m", "k", "n * m", "n + 1, m", "max(n, k)", "k // 2 + 1, m", "2, k")
VIEWS = (
    *("{}[0]", "{}[1:]", "{}[1::2]", "{}.view(-1)", "{}.t()", "{}.unsqueeze(0)"),
    *("{}.narrow(1, 1, 2)", "{}.chunk(2)[1]", "{}.view(torch.int32)", "{}[-1]"),
    *("{}.view(torch.float32)", "{}.expand(2, -1)", "{}.diagonal()", "{}[:, 1:]"),
    *("{}.as_strided((2, 2), (2, 1))", "{}.as_strided((m,), (1,), 1)", "{}[n // 2 :]"),
    *("{}.view(n, m)", "{}.view(m, n)", "{}.reshape(-1, m)", "{}[: k // 2]"),
    *("{}[0, 1:]", "{}.select(1, m - 2)", "{}.unfold(0, 2, 1)", "{}.flatten()"),
)
WRITES = (
    *("{}.add_(1)", "{}.mul_(2)", "{}.zero_()", "{}.fill_(5)", "{}[0] = 3"),
    *("{}[1:] *= 2", "{}.copy_(x.view(-1)[0])", "{}.add_({}.numel())"),
)
MAKERS = (
    *("{}.sum(0)", "{} + 1", "{}.clone()", "{}.contiguous()", "torch.cat([{}, {}])"),
    *("torch.empty_like({})", "{} * {}.shape[0]", "{}.t() + 1", "torch.zeros_like({})"),
    *("{}.sum(-1, keepdim=True)", "torch.stack([{}, {}])[1]", "{}.flip(0)"),
)
# What is returned, and what its fake kernel says of it.
RETURNED = (
    *(("out", "x.new_empty(n, m)"), ("out.t()", "x.new_empty(m, n)")),
    *(("out[0]", "x.new_empty(m)"), ("out[:, 1:]", "x.new_empty(n, m - 1)")),
    *(("out.view(-1)", "x.new_empty(n * m)"), ("out + 0", "x.new_empty(n, m)")),
)


def numbers(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) % 97 + 1


def is_spread(tensor: Tensor) -> bool:
    """Whether there is memory behind it for as many elements as it has."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    span = 1 + sum((extent - 1) * stride for extent, stride in strides)
    return 0 not in tensor.stride() and tensor.numel() <= span


def defined(source: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"torch": torch, **vars(bodies)}
    exec(compile(source, "<fuzz>", "exec"), namespace)
    function: Callable[..., Any] = namespace["body"]
    return function


@dataclass
class Writer:
    """Writes a body, which runs at ``shapes``.

    Attributes:
        writable: the inputs that it may write.
    """

    chance: random.Random
    shapes: Sequence[tuple[tuple[int, ...], ...]]
    writable: Sequence[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = ["x", "y"]
        self._runs: list[dict[str, Any]] = []
        for shape in self.shapes:
            x, y = (numbers(*extents) for extents in shape)
            names = {"x": x, "y": y, "torch": torch, **vars(bodies)}
            self._runs.append(names)
        self._write("n, m = x.shape")
        self._write("k = y.shape[0]")

    def body(self) -> tuple[str, str]:
        """The source, and what its fake kernel returns."""
        kinds = (self._allocate, self._view, self._change, self._make)
        for _ in range(self.chance.randint(3, 12)):
            self.chance.choice((*kinds, self._launch, self._launch))()
        self._write(f"out = {self.chance.choice(('x.new_empty', 'x.new_zeros'))}(n, m)")
        self._names.append("out")
        self._launch("out")
        for _ in range(self.chance.randint(0, 3)):
            self.chance.choice((self._change, self._launch))()
        returned, fake = self.chance.choice(RETURNED)
        head = "def body(x: Tensor, y: Tensor) -> Tensor:"
        made = "\n    ".join([head, *self.lines, f"return {returned}"])
        return made, "\n    ".join([head, *self.lines[:2], f"return {fake}"])

    def _write(self, line: str) -> bool:
        """Add a line, if it runs everywhere."""
        with bodies.eagerly():
            for names in self._runs:
                try:
                    exec(line, names)
                except Exception:
                    return False
        self.lines.append(line)
        return True

    def _make_new(self, expression: str) -> None:
        name = f"t{len(self.lines)}"
        if self._write(f"{name} = {expression}") and self._all(
            name, lambda t: 1 <= t.numel() < 4096
        ):
            self._names.append(name)

    def _all(self, name: str, holds: Callable[[Tensor], bool]) -> bool:
        return all(holds(names[name]) for names in self._runs)

    def _may_write(self, name: str) -> bool:
        kept = [n for n in ("x", "y") if n not in self.writable]

        def holds(names: dict[str, Any]) -> bool:
            tensor = names[name]
            others = (names[n].untyped_storage()._cdata for n in kept)
            return tensor.untyped_storage()._cdata not in others and is_spread(tensor)

        return all(map(holds, self._runs))

    def _one(self, accepts: Callable[[str], bool] = lambda name: True) -> str | None:
        able = list(filter(accepts, self._names))
        return self.chance.choice(able) if able else None

    def _allocate(self) -> None:
        shape = self.chance.choice(SHAPES)
        how = self.chance.choice(("x.new_empty({})", "x.new_zeros({})"))
        turned = ", " in shape and self.chance.random() < 0.3
        self._make_new(how.format(shape) + ".t()" * turned)

    def _view(self) -> None:
        self._make_new(self.chance.choice(VIEWS).format(self._one()))

    def _make(self) -> None:
        name = self._one()
        self._make_new(self.chance.choice(MAKERS).format(name, name))

    def _change(self) -> None:
        if name := self._one(self._may_write):
            self._write(self.chance.choice(WRITES).format(name, name))

    def _launch(self, out: str | None = None) -> None:
        out = out or self._one(self._may_write)
        if out is None:
            return
        kernel = self.chance.choice(list(bodies.REFERENCES))
        runs = self._runs

        def can_read(name: str) -> bool:
            """From other memory of the same dtype, as many elements as there are."""
            return all(
                names[name].dtype == names[out].dtype
                and is_spread(names[name])
                and names[name].untyped_storage()._cdata
                != names[out].untyped_storage()._cdata
                for names in runs
            )

        read = [self._one(can_read) for _ in kernel.arg_names[:-3]]
        if None in read:
            return
        halved = " // 2" * (kernel is bodies.every_other_kernel)
        counts = [f"{out}.numel(){halved}"]
        counts += [f"{name}.numel()" for name in read]
        if self.chance.random() < 0.3:
            counts[0] = f"max({counts[0]} // 2, 1)"
        count = f"min({', '.join(counts)})"
        with bodies.eagerly():
            if min(eval(count, names) for names in runs) < 1:
                return
        arguments = ", ".join(map(str, (*read, out)))
        self._write(f"launch({kernel.__name__}, {arguments}, {count})")


@dataclass(frozen=True)
class Body:
    """An op's body, and the inputs it is recorded for."""

    source: str
    fake: str
    infos: tuple[TensorInfo, ...]
    writable: tuple[str, ...]

    @classmethod
    def of(cls, chance: random.Random) -> Body:
        profile = chance.choice(PROFILES)
        infos = tuple(TensorInfo(shape, torch.float32) for shape in profile)
        writable = chance.choice(((), ("y",), ("x", "y")))
        shapes = [
            tuple(info.at(name) for info in infos) for name in ("min", "opt", "max")
        ]
        source, fake = Writer(chance, shapes, writable).body()
        return cls(source, fake, infos, writable)

    def recorded(self) -> Program:
        names = ("x", "y")
        writable = frozenset(names.index(name) for name in self.writable)
        call = Call(names=names, writable=writable)
        body, fake = defined(self.source), defined(self.fake)
        return record(backend("triton"), body, fake, self.infos, call)

    def shapes(self, chance: random.Random, count: int) -> Iterator[Any]:
        for _ in range(count):
            yield tuple(
                tuple(
                    chance.randint(e.min, e.max) if isinstance(e, Range) else e
                    for e in info.shape
                )
                for info in self.infos
            )

    def difference(self, program: Program, shape: Any) -> str | None:
        """Where the steps compute something else than the body at a shape."""
        values = [numbers(*extents) for extents in shape]
        theirs = [value.clone() for value in values]
        try:
            with bodies.eagerly():
                expected = [defined(self.source)(*theirs), *theirs]
        except Exception:  # it does not take this shape: as_strided past the end, say
            return None
        returned, written = computed(program, values)
        found = [*returned, *(written.get(i, v) for i, v in enumerate(values))]
        for what, one, other in zip(("out", "x", "y"), found, expected, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                return f"at {shape}, {what} is {one.shape}, and not {other.shape}"
            one, other = (t.contiguous().view(torch.float32) for t in (one, other))
            is_defined = ~other.isnan()
            if not torch.allclose(one[is_defined], other[is_defined]):
                return f"at {shape}, {what} is\n{one}\nand not\n{other}"
        return None


def computed(
    program: Program, values: Sequence[Tensor]
) -> tuple[Sequence[Tensor], dict[int, Tensor]]:
    """What a program returns, and the new values of the inputs that it writes."""
    if program.is_plugin:
        return bodies.launched(program, values), {}
    stored = {
        index: {pointer.tensor for pointer in launch.pointers if pointer.name == "out"}
        for index, launch in enumerate(program.launches)
    }
    steps = layout(program, len(values), stored)

    def launched(step: Step, between: dict[int, Tensor]) -> list[Tensor]:
        return bodies.launched(step.part(program), [*values, *between.values()])

    returned, written = run(Structure(program, steps, frozenset()), values, launched)
    return returned, dict(zip(program.writable, written, strict=True))


def outcome(chance: random.Random, count: int) -> tuple[str, str]:
    """What became of a body, in a word; and where it differs, or its source."""
    body = Body.of(chance)
    title = f"{body.source}\n{body.infos}, writes {body.writable}\n"
    try:
        program = body.recorded()
    except AnnotationError as error:
        return f"body refused, {type(error).__name__}", f"{title}{error}"
    for shape in body.shapes(chance, count):
        try:
            found = body.difference(program, shape)
        except Exception as error:
            return "wrong", f"{title}at {shape}: {error!r}"
        if found:
            return "wrong", title + found
    return "body right" if len(program.steps) > 1 else "body right, one launch", title
