"""What a dry run found: data, JSON, and a table."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_tensorrt.annotation._html import render
from torch_tensorrt.annotation._plot import draw
from torch_tensorrt.annotation._trace import ABSENT


@dataclass(frozen=True)
class ShapeReport:
    """One tactic's launch for one shape.

    Attributes:
        name: ``min``, ``opt`` or ``max`` of the profile; ``static`` without one.
        dims: extents of each input.
        grid: blocks along x, y and z.
        block: threads a block along x, y and z.
        extras: the 32-bit arguments between the inputs and the outputs.
        outputs: extents of each output.
        shared_memory: dynamic, in bytes a block.
        ok: whether the kernel was run, and did what it should; None if it was not run.
        failure: what it did wrong, or why it could not be run.
        max_error: of any output element, relative to it and to the output's root mean
            square together.
        time_us: median duration of a launch, in microseconds, with a cold L2 cache.
        spread_us: its interquartile range, in microseconds.
    """

    name: str
    dims: tuple[tuple[int, ...], ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    extras: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...] = ()
    shared_memory: int = 0
    ok: bool | None = None
    failure: str = ""
    max_error: float | None = None
    time_us: float | None = None
    spread_us: float | None = None


@dataclass(frozen=True)
class TacticReport:
    """What TensorRT would embed for one tactic.

    Attributes:
        tactic: its number, from 1; what TensorRT calls it.
        backend: ``"triton"``, ``"cutile"`` or ``"cutedsl"``.
        config: keywords of the launch function, and options of the compiler.
        dtypes: of the inputs, the weights and the outputs, as TensorRT names them.
        formats: as ``dtypes``, the tensor formats.
        facts: what the compiler was told of the arguments (``x%16``: divisible by 16).
        target: architecture of the code (``sm_90a`` where it needs the ``a`` features).
        entry: name of the kernel in the code.
        code: what TensorRT gets: PTX, or the bytes of a CUBIN.
        ptx_isa: the code's PTX version; empty for a CUBIN.
        retargeted: the version it was lowered from, where the compiler emitted a newer
            one than the driver takes.
        registers: a thread.
        shared_memory: dynamic and static, in bytes a block.
        spills: bytes spilled to local memory, loads and stores.
        shapes: its launch for each shape that was looked at.
        error: why it is left out; None where it is not.
    """

    tactic: int
    backend: str
    config: dict[str, Any]
    dtypes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    facts: str = ""
    target: str = ""
    entry: str = ""
    code: str | bytes = field(default="", repr=False)
    ptx_isa: str = ""
    retargeted: str = ""
    registers: int = 0
    shared_memory: int = 0
    spills: int = 0
    shapes: tuple[ShapeReport, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it would be offered to TensorRT, and if it was to be run, was right
        at every shape."""
        return self.is_offered and not any(s.failure for s in self.shapes)

    @property
    def is_offered(self) -> bool:
        """Whether TensorRT may pick it, as nothing is known to be wrong with it."""
        return self.error is None and all(s.ok is not False for s in self.shapes)

    @property
    def tensors(self) -> str:
        """Dtype and format of each tensor, for people; LINEAR goes without saying."""
        each = zip(self.dtypes, self.formats, strict=True)
        return " ".join(d if f == "LINEAR" else f"{d}:{f}" for d, f in each)


@dataclass(frozen=True)
class DryRunReport:
    """The tactics of one op for given inputs. Prints as a table.

    Attributes:
        op: ``"ns::name"``.
        target: what was compiled for.
        tactics: in order, those that were left out included.
        weights: names of the constants that end each ``dims``.
        copy_gbps: GB/s, read and written, of a copy on the GPU they were run on.
        gpu: its name; empty where they were not run.
    """

    op: str
    target: str
    tactics: list[TacticReport]
    weights: tuple[str, ...] = ()
    copy_gbps: float | None = None
    gpu: str = ""

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
        """The names of the shapes that tactics were looked at for."""
        offered = (t.shapes for t in self.tactics if t.error is None)
        return tuple(shape.name for shape in next(offered, ()))

    @property
    def best(self) -> TacticReport | None:
        """The fastest at opt, which TensorRT would pick; None if none was run."""
        timed = [
            (shape.time_us, tactic.tactic, tactic)
            for tactic in self.tactics
            for shape in tactic.shapes
            if shape.name in ("opt", "static") and tactic.is_offered and shape.time_us
        ]
        return min(timed)[2] if timed else None

    @classmethod
    def from_json(cls, text: str) -> DryRunReport:
        """Read back what :meth:`to_json` wrote, on this machine or another.

        Args:
            text: the JSON.
        """
        data = json.loads(text)
        tactics = list(map(_from_dict, data["tactics"]))
        weights = tuple(data["weights"])
        where = data.get("copy_gbps"), data.get("gpu", "")
        return cls(data["op"], data["target"], tactics, weights, *where)

    def to_json(self) -> str:
        """The report as JSON, under the names of its attributes."""
        data = {
            "op": self.op,
            "target": self.target,
            "ok": self.ok,
            "weights": self.weights,
            "copy_gbps": self.copy_gbps,
            "gpu": self.gpu,
            "tactics": [_as_dict(tactic) for tactic in self.tactics],
        }
        return json.dumps(data, indent=2, default=str)

    def to_html(self) -> str:
        """The report, with all code, as one HTML page."""
        return render(self)

    def plot(self, axes: Any = None) -> Any:
        """The times of every tactic and shape, against a copy of as many bytes.

        Args:
            axes: matplotlib's, to draw into; None makes a figure, which
                ``report.plot().figure.savefig("times.png")`` writes.

        Returns:
            The axes.

        Raises:
            DryRunError: nothing was run, or matplotlib is not installed.
        """
        return draw(self, axes)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=_WIDTH, color_system=None)
        console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __rich__(self) -> Any:
        """The table, for ``rich.print``."""
        from rich.table import Table

        was_run = any(s.ok is not None for t in self.tactics for s in t.shapes)
        table = Table(
            title=self.title,
            title_justify="left",
            caption="\n".join(self._failures() or ([] if was_run else [_NOT_RUN])),
            caption_justify="left",
        )
        for heading, justify in _COLUMNS if was_run else _COLUMNS[:-1]:
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for tactic in self.tactics:
            cells = _row(tactic)
            cells[0] += "\nbest" if tactic is self.best else ""
            table.add_row(*cells[: len(table.columns)], end_section=True)
        return table

    def _failures(self) -> list[str]:
        return [
            f"tactic {tactic.tactic}, {shape.name}: {shape.failure}"
            for tactic in self.tactics
            for shape in tactic.shapes
            if shape.failure
        ]


def _from_dict(data: dict[str, Any]) -> TacticReport:
    """The tactic whose attributes these are; JSON has lists for tuples."""
    fields = {k: v if k == "config" else _as_tuple(v) for k, v in data.items()}
    if isinstance(fields["code"], dict):
        fields["code"] = base64.b64decode(fields["code"]["base64"])
    fields.setdefault("formats", ("LINEAR",) * len(fields["dtypes"]))
    shapes = (ShapeReport(**dict(shape)) for shape in fields.pop("shapes"))
    return TacticReport(**fields, shapes=tuple(shapes))


def _as_tuple(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tuple(item) for key, item in value.items()}
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _as_dict(tactic: TacticReport) -> dict[str, Any]:
    """``asdict`` that leaves config values, which may be anything, as they are."""
    code: Any = tactic.code
    if isinstance(code, bytes):
        code = {"base64": base64.b64encode(code).decode()}
    shapes = [_shape_dict(shape) for shape in tactic.shapes]
    return {**vars(tactic), "code": code, "shapes": shapes}


def _shape_dict(shape: ShapeReport) -> dict[str, Any]:
    """JSON has no infinity."""
    is_infinite = shape.max_error is not None and not math.isfinite(shape.max_error)
    return {**vars(shape), "max_error": None if is_infinite else shape.max_error}


_WIDTH = 150
_NOT_RUN = "Compiled, not run: what the kernels compute is checked on a GPU."
_COLUMNS = (
    ("tactic", "right"),
    ("config", "left"),
    ("entry, facts told", "left"),
    ("code", "left"),
    ("regs", "right"),
    ("smem", "right"),
    ("spills", "right"),
    ("block", "right"),
    ("shape", "left"),
    ("grid", "right"),
    ("extras", "right"),
    ("time", "right"),
)


def _row(tactic: TacticReport) -> list[str]:
    config = ", ".join(f"{k}={v}" for k, v in tactic.config.items())
    head = [str(tactic.tactic), f"{tactic.backend}\n{config}"]
    if tactic.error is not None:
        return [*head, f"{tactic.facts} left out: {tactic.error}".lstrip()]
    return [
        *head,
        f"{tactic.entry}\n{tactic.facts}\n{tactic.tensors}",
        f"{tactic.target}\n{_isa(tactic)}",
        str(tactic.registers),
        str(tactic.shared_memory),
        str(tactic.spills),
        _times(tactic.shapes[0].block),
        "\n".join(
            f"{s.name} {', '.join(map(_extents, s.dims))}" for s in tactic.shapes
        ),
        "\n".join(_times(s.grid) for s in tactic.shapes),
        "\n".join(", ".join(map(str, s.extras)) for s in tactic.shapes),
        "\n".join(map(_outcome, tactic.shapes)),
    ]


def _outcome(shape: ShapeReport) -> str:
    if shape.ok is None:
        return "not run"
    half = (shape.spread_us or 0.0) / 2
    return f"{shape.time_us:.1f} ±{half:.1f} us" if shape.ok else "WRONG"


def _isa(tactic: TacticReport) -> str:
    if isinstance(tactic.code, bytes):
        return "CUBIN"
    lowered = f", from {tactic.retargeted}" if tactic.retargeted else ""
    return f"PTX {tactic.ptx_isa}{lowered}"


def _times(extents: Sequence[int]) -> str:
    """``(8, 4096)`` as ``8x4096``, without the ones that end it."""
    shown = list(extents)
    while len(shown) > 1 and shown[-1] == 1:
        shown.pop()
    return _extents(shown)


def _extents(extents: Sequence[int]) -> str:
    if tuple(extents) == ABSENT.shape:
        return "none"
    return "x".join(map(str, extents)) or "scalar"
