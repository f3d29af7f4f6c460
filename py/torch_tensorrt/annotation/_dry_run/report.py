# SPDX-License-Identifier: BSD-3-Clause

"""What a dry run found: data, JSON, a table, and a web page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from .._hidden import WORD
from .._target import (
    SHARED_MEMORY,
    STATIC_DRIVER,
    newest_ptx_isa,
    oldest_driver,
    version_of,
)
from .._tensors import DType
from ..errors import DryRunError

Dims: TypeAlias = tuple[tuple[int, ...] | None, ...]  # None: an input that is not given

NOT_COMPARED = "values not compared"


@dataclass(frozen=True)
class ShapeReport:
    """One tactic's launch for one shape.

    Attributes:
        name: ``min``, ``opt`` or ``max`` of the profile, or ``ragged``; ``static``
            without a profile.
        dims: extents of each input; None for an optional one that is not given.
        grid: blocks along x, y and z.
        block: threads a block along x, y and z.
        extras: the 32-bit arguments between the inputs and the outputs.
        outputs: extents of each output.
        hidden: extents, in 32-bit words, of each buffer that the kernel gets as an
            output of the plugin and the op does not return.
        shared_memory: dynamic, in bytes a block.
        ok: whether the kernel did what it should; None if it was not run.
        failure: what it did wrong, or why it could not be run.
        skipped: why it was not interpreted, without a GPU.
        max_error: of any output element, relative to it and to the output's root mean
            square together.
        time_us: median duration of a launch, in microseconds, with a cold L2 cache.
        spread_us: its interquartile range, in microseconds.
    """

    name: str
    dims: Dims
    grid: tuple[int, ...]
    block: tuple[int, ...]
    extras: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...] = ()
    hidden: tuple[tuple[int, ...], ...] = ()
    shared_memory: int = 0
    ok: bool | None = None
    failure: str = ""
    skipped: str = ""
    max_error: float | None = None
    time_us: float | None = None
    spread_us: float | None = None


@dataclass(frozen=True)
class TacticReport:
    """What TensorRT would embed for one tactic.

    Attributes:
        tactic: its number, from 1; what TensorRT calls it.
        backend: the kernel's language.
        config: keywords of the launch function, and options of the compiler.
        dtypes: of the inputs, the weights and the outputs, as TensorRT names them.
        formats: as ``dtypes``, the tensor formats.
        aliased: inputs that the kernel writes; they are also its last outputs.
        facts: what the compiler knew of the arguments (``x%16``: divisible by 16).
        target: architecture of the code (``sm_90a`` where it needs the ``a`` features).
        entry: name of the kernel in the code.
        code: the PTX that TensorRT gets.
        ptx_isa: the code's PTX version.
        retargeted: the version it was lowered from, where the compiler emitted a newer
            one than the driver takes.
        registers: a thread.
        shared_memory: dynamic and static, in bytes a block.
        spills: bytes spilled to local memory, loads and stores.
        arguments: name of each of a shape's ``extras``, and type of a float:
            ``"n"``, ``"eps: f32"``; an expression where the kernel has no name for it.
        shapes: its launch for each shape.
        notes: what is odd about the code, and may be right.
        error: why it is left out; None for a tactic that TensorRT is offered.
    """

    tactic: int
    backend: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    aliased: tuple[int, ...] = ()
    facts: str = ""
    target: str = ""
    entry: str = ""
    code: str = field(default="", repr=False)
    ptx_isa: str = ""
    retargeted: str = ""
    registers: int = 0
    shared_memory: int = 0
    spills: int = 0
    arguments: tuple[str, ...] = ()
    shapes: tuple[ShapeReport, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    _launch: Callable[..., ShapeReport] | None = field(
        default=None, repr=False, compare=False
    )

    def at(self, *shapes: Sequence[int] | None) -> ShapeReport:
        """What TensorRT would launch for inputs of these extents.

        Args:
            shapes: the extents of each input, anywhere in the profile; None for one
                that is not given. Static ones at the end, as the weights, may be left
                out.

        Raises:
            SpecError: the profile does not have them.
            DryRunError: the tactic is left out, or was read from JSON.
        """
        if self._launch is None:
            why = self.error or "it was read from JSON. Ask for it where it was made."
            raise DryRunError(f"tactic {self.tactic} has no launches: {why}")
        return self._launch(*shapes)

    @property
    def ok(self) -> bool:
        """Whether TensorRT would be offered it, and it was right wherever it ran."""
        return self.is_offered and not any(s.failure for s in self.shapes)

    @property
    def is_offered(self) -> bool:
        """Whether TensorRT may pick it, as nothing is known to be wrong with it."""
        return self.error is None and all(s.ok is not False for s in self.shapes)

    @property
    def typical(self) -> ShapeReport | None:
        """At opt, or at the only shape."""
        named = (s for s in self.shapes if s.name in ("opt", "static"))
        return next(named, None)

    @property
    def torch_dtypes(self) -> list[torch.dtype]:
        """``dtypes`` as torch has them."""
        return [DType.of_token(token).torch for token in self.dtypes]

    @property
    def tensors(self) -> str:
        """Dtype and format of each tensor, for people; LINEAR is not shown."""
        each = zip(self.dtypes, self.formats, strict=True)
        names = [d if f == "LINEAR" else f"{d}:{f}" for d, f in each]
        if hidden := max((len(shape.hidden) for shape in self.shapes), default=0):
            names.append(f"+{hidden} hidden")
        return " ".join(names)


@dataclass(frozen=True, repr=False)
class DryRunReport:
    """The tactics of one op for given inputs. Prints as a summary.

    Attributes:
        op: ``"ns::name"``.
        target: what was compiled for.
        tactics: in order, those that were left out included.
        weights: names of the constants that end each ``dims``.
        attributes: values of the op's other arguments, by name.
        copy_gbps: GB/s, read and written, of a copy on the GPU they were run on.
        gpu: its name; empty where they were not run.
        against: what the outputs were compared with; empty where they were not.
        interpreted: whether kernels were interpreted on the CPU, and not run.
        inputs: names of the op's tensors, which begin each ``dims``.
        signature: of the op, as torch writes it.
        versions: of what compiled the kernels, by name.
        least_ptx_isa: which drivers that may run the engine know in any case.
        date: when they were compiled or run, in ISO 8601.
        verbose: whether it prints every launch, in a wide table.
    """

    op: str
    target: str
    tactics: tuple[TacticReport, ...]
    weights: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    copy_gbps: float | None = None
    gpu: str = ""
    against: str = ""
    interpreted: bool = False
    inputs: tuple[str, ...] = ()
    signature: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    least_ptx_isa: str = ""
    date: str = field(default="", compare=False)
    verbose: bool = field(default=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether every tactic is offered to TensorRT, and right where it was run."""
        return all(tactic.ok for tactic in self.tactics)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The names of the shapes that the report covers."""
        offered = (t.shapes for t in self.tactics if t.error is None)
        return tuple(shape.name for shape in next(offered, ()))

    @property
    def launches(self) -> tuple[DryRunReport, ...]:
        """The report of each launch, which is this one."""
        return (self,)

    @property
    def best(self) -> TacticReport | None:
        """The fastest at opt, which TensorRT would pick; None where nothing ran."""
        timed = {
            (tactic.typical.time_us, tactic.tactic): tactic
            for tactic in self.tactics
            if tactic.is_offered and tactic.typical and tactic.typical.time_us
        }
        return timed[min(timed)] if timed else None

    @property
    def was_run(self) -> bool:
        """Whether some kernel was run, or interpreted."""
        return any(s.ok is not None for t in self.tactics for s in t.shapes)

    @property
    def well(self) -> str:
        """What a tactic is that was run without a fault."""
        return "right" if self.against else "in bounds"

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        compiled = [t for t in self.tactics if t.error is None]
        known = (self.least_ptx_isa, *(t.ptx_isa for t in compiled))
        newest = max((version_of(isa) for isa in known if isa), default=None)
        if newest and any(t.shared_memory > SHARED_MEMORY for t in compiled):
            newest = max(newest, version_of(newest_ptx_isa(STATIC_DRIVER)))
        driver = f", drivers from {oldest_driver(newest)}" if newest else ""
        compiles = "compiles" if len(self.tactics) == 1 else "compile"
        verdict = f"{_share(len(compiled), self.tactics)} {compiles} for {self.target}"
        parts = [f"{verdict}{driver}", self._evidence(compiled)]
        if (best := self.best) and (at := best.typical):
            which = "" if len(self.tactics) == 1 else f" (tactic {best.tactic})"
            parts.append(f"fastest {at.time_us:.1f} us{which}")
            if ratio := share_of_copy(self, best, at):
                parts[-1] += f", {ratio:.2f} of a copy's speed"
        return "; ".join(parts) + "."

    def _evidence(self, compiled: Sequence[TacticReport]) -> str:
        """What was found by running the kernels."""
        if not self.was_run:
            return "not run, so what they compute was not checked"
        how = f"executed on {self.gpu}" if self.gpu else "executed"
        how = "interpreted on the CPU, not run on a GPU" if self.interpreted else how
        ran = [t for t in compiled if any(s.ok is not None for s in t.shapes)]
        right = sum(tactic.ok for tactic in ran)
        result = f"all {self.well}"
        if right < len(compiled):
            result = f"{_share(right, compiled)} {self.well}"
        if len(ran) < len(compiled):
            result += f", {len(compiled) - len(ran)} not run"
        not_run = dict.fromkeys(s.name for t in ran for s in t.shapes if s.ok is None)
        if not_run:
            result += f" (not run at {', '.join(not_run)})"
        if self.against:
            return f"{how}: {result}, against {self.against}"
        return f"{how}: {result}, {NOT_COMPARED}"

    @property
    def problems(self) -> tuple[str, ...]:
        """Why tactics are left out, and what is wrong with others, each once."""
        errors: dict[str, list[TacticReport]] = {}
        for tactic in self.tactics:
            if tactic.error is not None:
                errors.setdefault(tactic.error, []).append(tactic)
        left_out = (
            f"{_which(ts)} {'is' if len(ts) == 1 else 'are'} left out: {error}"
            for error, ts in errors.items()
        )
        failures = self._where(lambda shape: shape.failure)
        return (*left_out, *(f"{where}: {failure}" for where, failure in failures))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the code, and may be right; what was not interpreted."""
        odd: dict[str, list[TacticReport]] = {}
        for tactic in self.tactics:
            for note in tactic.notes:
                odd.setdefault(note, []).append(tactic)
        skipped = self._where(lambda shape: shape.skipped)
        return (
            *(f"{_which(tactics)}: {note}" for note, tactics in odd.items()),
            *(f"{where}, not interpreted: {why}" for where, why in skipped),
        )

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do next."""
        steps = []
        offered = any(tactic.is_offered for tactic in self.tactics)
        if not self.ok:
            others = "; TensorRT would be offered the others" if offered else ""
            steps.append(f"correct or remove what is wrong above{others}.")
        if self.ok and self.was_run and not self.against:
            steps.append(
                "compare values with a function of torch's: reference=..., or "
                "--reference MODULE:FUNCTION."
            )
        if not self.was_run or self.interpreted:
            steps.append(
                f"run this again on a machine with a GPU for {self.target}: each "
                "tactic is then run as in an engine, checked and timed."
            )
        elif self.ok:
            steps.append(
                "torch_tensorrt.compile(model, inputs=[...]) makes each call of the op "
                "a layer of the engine."
            )
        return tuple(steps)

    def _where(self, told: Callable[[ShapeReport], str]) -> list[tuple[str, str]]:
        """Where shapes have one text each: ``tactics 1 and 2 at min``, and the text."""
        found: dict[tuple[str, tuple[str, ...]], list[TacticReport]] = {}
        for tactic in self.tactics:
            shapes: dict[str, list[str]] = {}
            for shape in tactic.shapes:
                if text := told(shape):
                    shapes.setdefault(text, []).append(shape.name)
            for text, where in shapes.items():
                found.setdefault((text, tuple(where)), []).append(tactic)
        places: dict[str, list[str]] = {}
        for (text, names), tactics in found.items():
            place = f"{_which(tactics)} at {', '.join(names)}"
            places.setdefault(text, []).append(place)
        return [("; ".join(each), text) for text, each in places.items()]

    @classmethod
    def from_json(cls, text: str) -> DryRunReport:
        """Read back what :meth:`to_json` wrote, on this machine or another.

        Args:
            text: the JSON.
        """
        data = json.loads(text)
        if "steps" in data:
            from .program_report import ProgramReport

            return ProgramReport.from_json(text)
        del data["ok"]
        for tactic in data["tactics"]:
            tactic["shapes"] = [ShapeReport(**_frozen(s)) for s in tactic["shapes"]]
        data["tactics"] = [
            TacticReport(**_frozen(t) | {"config": t["config"]})
            for t in data["tactics"]
        ]
        return cls(**_frozen(data) | {"attributes": data["attributes"]})

    def to_json(self) -> str:
        """The report as JSON, under the names of its attributes."""

        def plain(value: Any) -> Any:
            if not isinstance(value, TacticReport | ShapeReport):
                return str(value)
            known = {k: v for k, v in vars(value).items() if k != "_launch"}
            # JSON has no infinity.
            return {k: None if v == math.inf else v for k, v in known.items()}

        known = {k: v for k, v in vars(self).items() if k != "verbose"}
        return json.dumps({**known, "ok": self.ok}, indent=2, default=plain)

    def to_html(self) -> str:
        """The report, with all code, as one HTML page that needs no other file."""
        from . import page

        return page.as_html(self)

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


def bytes_moved(tactic: TacticReport, shape: ShapeReport) -> int:
    """The bytes of all inputs and outputs at ``shape``, each counted once."""
    tensors = zip((*shape.dims, *shape.outputs), tactic.torch_dtypes, strict=True)
    return sum(math.prod(e) * dtype.itemsize for e, dtype in tensors if e is not None)


def bytes_held(tactic: TacticReport, shape: ShapeReport) -> int:
    """The bytes of all inputs and outputs at ``shape``, hidden ones among them."""
    hidden = sum(map(math.prod, shape.hidden)) * WORD.itemsize
    return bytes_moved(tactic, shape) + hidden


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def share_of_copy(
    report: DryRunReport, tactic: TacticReport, shape: ShapeReport
) -> float | None:
    """A kernel's speed in terms of a copy of as many bytes; None where unknown."""
    if not report.copy_gbps or not shape.time_us:
        return None
    return bytes_moved(tactic, shape) / report.copy_gbps / 1e3 / shape.time_us


def _share(count: int, tactics: Sequence[TacticReport]) -> str:
    """``3 of 4 tactics``."""
    return f"{count} of {len(tactics)} tactic{'s'[: len(tactics) != 1]}"


def _which(tactics: Sequence[TacticReport]) -> str:
    """``tactic 1``, or ``tactics 1, 2, 4``."""
    numbers = ", ".join(str(tactic.tactic) for tactic in tactics)
    return f"tactic{'s'[: len(tactics) != 1]} {numbers}"
