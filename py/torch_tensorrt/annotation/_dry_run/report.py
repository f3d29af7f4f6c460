# SPDX-License-Identifier: BSD-3-Clause

"""What a dry run found: data, JSON, a table, and a web page."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from .._hidden import WORD
from .._tensors import DType
from ..errors import DryRunError

Dims: TypeAlias = tuple[tuple[int, ...] | None, ...]  # None: an input that is not given


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
        shapes: its launch for each shape.
        notes: what is odd about the code, and may be right.
        error: why it is left out; None for a tactic that TensorRT is offered.
    """

    tactic: int
    backend: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    facts: str = ""
    target: str = ""
    entry: str = ""
    code: str = field(default="", repr=False)
    ptx_isa: str = ""
    retargeted: str = ""
    registers: int = 0
    shared_memory: int = 0
    spills: int = 0
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


@dataclass(frozen=True)
class DryRunReport:
    """The tactics of one op for given inputs. Prints as a table.

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

    @property
    def title(self) -> str:
        """The op, what it was compiled for, and where it was run."""
        return f"{self.op} for {self.target}" + (f", on {self.gpu}" if self.gpu else "")

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
    def best(self) -> TacticReport | None:
        """The fastest at opt, which TensorRT would pick; None where nothing ran."""
        timed = {
            (shape.time_us, tactic.tactic): tactic
            for tactic in self.tactics
            for shape in tactic.shapes
            if shape.name in ("opt", "static") and tactic.is_offered and shape.time_us
        }
        return timed[min(timed)] if timed else None

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        if not self._was_run:
            return "Compiled, not run: what the kernels compute is checked on a GPU."
        right = sum(t.ok and any(s.ok for s in t.shapes) for t in self.tactics)
        verdict = f"{right} of {len(self.tactics)} tactics are right at every shape"
        if self.interpreted:
            verdict = f"Interpreted on the CPU, not run on a GPU: {verdict} interpreted"
            verdict += "" if self.against else ", as far as memory accesses show"
        verdict += f", against {self.against}." if self.against else "."
        pick = f" TensorRT would pick tactic {self.best.tactic}." if self.best else ""
        return verdict + pick

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each tactic that is left out, and each shape that failed."""
        found = []
        for tactic in self.tactics:
            if tactic.error is not None:
                found.append(f"tactic {tactic.tactic} is left out: {tactic.error}")
            for shape in tactic.shapes:
                if shape.failure:
                    where = f"tactic {tactic.tactic}, {shape.name}"
                    found.append(f"{where}: {shape.failure}")
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the code, and may be right; what was not interpreted."""
        odd = (f"tactic {t.tactic}: {note}" for t in self.tactics for note in t.notes)
        reasons: dict[str, set[int]] = {}
        skipped = ((t, s) for t in self.tactics for s in t.shapes if s.skipped)
        for tactic, shape in skipped:
            reasons.setdefault(shape.skipped, set()).add(tactic.tactic)
        each = ((", ".join(map(str, which)), why) for why, which in reasons.items())
        not_run = (f"tactic {n}, not interpreted at every shape: {w}" for n, w in each)
        return (*odd, *not_run)

    @property
    def _was_run(self) -> bool:
        return any(s.ok is not None for t in self.tactics for s in t.shapes)

    @classmethod
    def from_json(cls, text: str) -> DryRunReport:
        """Read back what :meth:`to_json` wrote, on this machine or another.

        Args:
            text: the JSON.
        """
        data = json.loads(text)
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

        return json.dumps({**vars(self), "ok": self.ok}, indent=2, default=plain)

    def to_html(self) -> str:
        """The report, with all code, as one HTML page that needs no other file."""
        from rich.text import Text

        codes = (
            Text(f"\ntactic {tactic.tactic}: {tactic.entry}\n\n{tactic.code}")
            for tactic in self.tactics
            if tactic.code
        )
        return str(_printed(self, *codes).export_html())

    def __str__(self) -> str:
        lines = _printed(self).export_text().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def __rich__(self) -> Any:
        """Title, table and verdict, for ``rich.print``."""
        from rich.console import Group
        from rich.text import Text

        end = "\n".join((self.verdict, *self.problems, *self.notes))
        return Group(Text(self.title), self._table(), Text(end))

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table()
        longest = max([_MOST_TEXT, *(len(tactic.entry) for tactic in self.tactics)])
        for heading in _COLUMNS if self._was_run else _COLUMNS[:-1]:
            justify: Any = "left" if heading in _TEXT else "right"
            # A shape's line that folded would shift those of the shapes below it.
            most = {"config": _MOST_TEXT, "entry, facts": longest}.get(heading)
            table.add_column(heading, justify=justify, overflow="fold", max_width=most)
        for tactic in self.tactics:
            cells = _row(tactic, self.copy_gbps)
            cells[0] += "\nbest" if tactic is self.best else ""
            # A Text is shown as it is; rich would take "[x]" in a str for markup.
            table.add_row(*map(Text, cells[: len(table.columns)]), end_section=True)
        return table


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


# --- For people -----------------------------------------------------------------------

_WIDTH = 150  # characters, or what the table's numbers need
_MOST_TEXT = 24  # characters of a config or of facts, before they go on below
_COLUMNS = (
    *("tactic", "config", "entry, facts", "code", "regs", "smem", "spills"),
    *("block", "shape", "grid", "extras", "result"),
)
_TEXT = ("config", "entry, facts", "code", "shape")  # all others are numbers


def _printed(report: DryRunReport, *codes: Any) -> Any:
    """A console that has printed a report, to export it as text or HTML."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=_WIDTH)
    unlimited = console.options.update(max_width=10 * _WIDTH)
    table = console.measure(report._table(), options=unlimited)
    console.width = max(_WIDTH, table.maximum)
    console.print(report, *codes)
    return console


def _row(tactic: TacticReport, copy_gbps: float | None) -> list[str]:
    """The cells of ``_COLUMNS``; the last ones have a line for each shape."""
    shapes = tactic.shapes
    config = ", ".join(f"{name}={value}" for name, value in tactic.config.items())
    head = [str(tactic.tactic), f"{tactic.backend}\n{config}"]
    if tactic.error is not None:
        return [*head, "left out"]
    lowered = f", from {tactic.retargeted}" if tactic.retargeted else ""
    return [
        *head,
        f"{tactic.entry}\n{tactic.facts}\n{tactic.tensors}",
        f"{tactic.target}\nPTX {tactic.ptx_isa}{lowered}",
        str(tactic.registers),
        str(tactic.shared_memory),
        str(tactic.spills),
        _blocks(shapes[0].block),
        "\n".join(f"{s.name} {', '.join(map(_extents, s.dims))}" for s in shapes),
        "\n".join(_blocks(s.grid) for s in shapes),
        "\n".join(", ".join(map(str, s.extras)) for s in shapes),
        "\n".join(_outcome(tactic, s, copy_gbps) for s in shapes),
    ]


def _extents(extents: Sequence[int] | None) -> str:
    """``8x4096``."""
    return "none" if extents is None else "x".join(map(str, extents)) or "scalar"


def _blocks(extents: Sequence[int]) -> str:
    """A grid or a block, without trailing ones."""
    return re.sub("(x1)+$", "", _extents(extents))


def _outcome(tactic: TacticReport, shape: ShapeReport, copy_gbps: float | None) -> str:
    """``4.0 ±0.2 us, 1.3x``: also as a multiple of a copy's time."""
    if shape.ok is None:
        return "not run"
    if not shape.ok:
        return "WRONG"
    if (time := shape.time_us) is None:
        return "interpreted"
    text = f"{time:.1f} ±{(shape.spread_us or 0.0) / 2:.1f} us"
    copied = bytes_moved(tactic, shape) / copy_gbps / 1e3 if copy_gbps else 0.0
    return f"{text}, {time / copied:.1f}x" if copied else text
