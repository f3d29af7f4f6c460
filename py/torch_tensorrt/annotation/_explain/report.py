# SPDX-License-Identifier: BSD-3-Clause

"""What becomes of a model's custom ops: data, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SMALLER_BLOCKS = (
    "For smaller engines, pass min_block_size=1 (--min-block-size 1) here, and to "
    "torch_tensorrt.compile."
)


@dataclass(frozen=True)
class OpReport:
    """One custom op of a model.

    Attributes:
        op: ``"ns::name"``.
        calls: how often the model calls it.
        outcome: ``"plugin"``: it is registered, and becomes plugin layers;
            ``"adopted"``: ``tta.adopt`` has registered it; ``"possible"``: it would
            become plugin layers with ``registration``; ``"converter"``: Torch-TensorRT
            converts it already, without a plugin of this package; ``"pytorch"``: it
            stays in PyTorch.
        kernels: names of the kernels that one call launches. Each is a plugin layer.
        layers: plugin layers of all calls together.
        left: calls, or steps of calls, that stay in PyTorch.
        registration: the line of code that registers it; empty if it cannot be.
        reason: why calls stay in PyTorch, in a sentence; empty if none does.
        error: the same in full, with what to do about it.
        place: ``file:line`` of the op's body; empty if it has none in Python.
        used_at: ``file:line`` of the model's first call.
    """

    op: str
    calls: int
    outcome: str
    kernels: tuple[str, ...] = ()
    layers: int = 0
    left: int = 0
    registration: str = ""
    reason: str = ""
    error: str = field(default="", repr=False)
    place: str = ""
    used_at: str = ""

    @property
    def becomes(self) -> str:
        """What TensorRT makes of it, for people."""
        if self.outcome == "converter":
            return "TensorRT layers of another converter"
        if self.outcome == "pytorch" or not self.layers:
            return "stays in PyTorch"
        layers = _count(self.layers, "plugin layer")
        could = "could be " if self.outcome == "possible" else ""
        rest = f"; {self.left} in PyTorch" if self.left else ""
        kernels = f" ({', '.join(self.kernels)})" if self.kernels else ""
        return f"{could}{layers}{kernels}{rest}"


@dataclass(frozen=True)
class Split:
    """How Torch-TensorRT divides a lowered model between TensorRT and PyTorch.

    Attributes:
        operators: calls in the lowered graph.
        in_tensorrt: of those, the ones in an engine.
        engines: how many engines there are.
        in_pytorch: how often each operator is called that stays in PyTorch.
    """

    operators: int
    in_tensorrt: int
    engines: int
    in_pytorch: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        engines = _count(self.engines, "engine")
        return f"{self.in_tensorrt} of {self.operators} operators, in {engines}"


@dataclass(frozen=True, repr=False)
class ModelReport:
    """The custom ops of a model. Prints as a summary.

    Attributes:
        ops: in the order in which the model calls them.
        target: what kernels were compiled for; empty where there is no target, and
            they were only recorded.
        now: how the model is divided as things are; None in a report of
            ``tta.adopt``.
        then: how, once every op whose outcome is ``"possible"`` is registered; None
            where there is none.
    """

    ops: tuple[OpReport, ...]
    target: str = ""
    now: Split | None = None
    then: Split | None = None

    @property
    def ok(self) -> bool:
        """Whether every call of a custom op goes into an engine."""
        engines = ("plugin", "adopted", "converter")
        return all(op.outcome in engines and not op.left for op in self.ops)

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        if not self.ops:
            verdict = "the model has no custom ops."
        elif self.now is None:
            registered = self.having("adopted", "plugin")
            new = self.having("adopted")
            verdict = (
                f"{len(registered)} of {_count(len(self.ops), 'custom op')} "
                f"{_is_are(registered)} registered, {len(new)} of them now."
            )
        else:
            layers = [op for op in self.having("plugin", "converter") if op.layers]
            possible = self.having("possible")
            verb = "becomes" if len(self.ops) == 1 else "become"
            could = f"; {len(possible)} could" if possible else ""
            verdict = (
                f"{len(layers)} of {_count(len(self.ops), 'custom op')} {verb} plugin "
                f"layers{could}."
            )
        if self.now is not None:
            verdict += f" TensorRT gets {self.now}"
            if self.then is not None:
                verdict += f"; with the calls below, {self.then}"
            verdict += "."
        return verdict

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do next."""
        steps = []
        if possible := self.having("possible"):
            names = ", ".join(op.op for op in possible)
            steps.append(f"tta.adopt(model, inputs) registers {names} as above.")
        split = self.then or self.now
        is_told = any(SMALLER_BLOCKS in op.error for op in self.ops)
        can_be = bool(self.having("plugin", "possible"))
        if split and not split.engines and can_be and not is_told:
            steps.append(f"no engine is large enough. {SMALLER_BLOCKS}")
        if self.ops and not self.target:
            steps.append(
                "pass target='sm_90', or another, to compile the kernels as well: "
                "there is no GPU here to do so for."
            )
        has_layers = any(op.layers for op in self.having("plugin", "adopted"))
        if (has_layers or self.having("adopted")) and not possible:
            steps.append(
                "torch_tensorrt.compile(model, inputs=[...]) makes the plugin layers."
            )
        return tuple(steps)

    def __getitem__(self, op: str) -> OpReport:
        return {each.op: each for each in self.ops}[op]

    def to_json(self) -> str:
        """The report as JSON, under the names of its attributes."""
        return json.dumps({**asdict(self), "ok": self.ok}, indent=2)

    def show(self) -> None:
        """Print the report, in colour if standard output is a terminal."""
        from . import text

        text.show(self)

    def __str__(self) -> str:
        from . import text

        return text.as_text(self)

    __repr__ = __str__

    def __rich__(self) -> Any:
        """What ``rich.print`` prints."""
        from . import text

        return text.renderable(self)

    def outside(self) -> dict[str, int]:
        """The operators that stay in PyTorch in the end, custom ops left out."""
        split = self.then or self.now
        listed = {op.op.replace("::", ".") for op in self.ops}
        return {
            name: count
            for name, count in (split.in_pytorch if split else {}).items()
            if name.rpartition(".")[0] not in listed
        }

    def having(self, *outcomes: str) -> list[OpReport]:
        """The ops with one of these outcomes.

        Args:
            *outcomes: as ``"possible"``.
        """
        return [op for op in self.ops if op.outcome in outcomes]


def _count(number: int, what: str) -> str:
    """``1 engine``, ``2 engines``."""
    return f"{number} {what}{'s'[: number != 1]}"


def _is_are(which: Sequence[object]) -> str:
    return "is" if len(which) == 1 else "are"
