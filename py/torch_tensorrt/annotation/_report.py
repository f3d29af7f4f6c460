"""What a dry run found: data, JSON, and a table."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ShapeReport:
    """One tactic's launch for one shape.

    Attributes:
        name: ``min``, ``opt`` or ``max`` of the profile; ``static`` without one.
        dims: extents of each input.
        grid, block: blocks, and threads a block, along x, y, z.
        extras: the 32-bit arguments between the inputs and the outputs.
    """

    name: str
    dims: tuple[tuple[int, ...], ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    extras: tuple[int, ...]


@dataclass(frozen=True)
class TacticReport:
    """What TensorRT would embed for one tactic; ``error`` says why nothing.

    Attributes:
        facts: what the compiler was told of the arguments (``x%16``: divisible by 16).
        target: architecture of the code (``sm_90a`` where it needs the ``a`` features).
        code: the text that TensorRT gets.
        ptx_isa: the code's PTX version.
        registers: a thread.
        shared_memory: dynamic and static, in bytes a block.
        spills: bytes spilled to local memory, loads and stores.
    """

    tactic: int
    backend: str
    config: dict[str, Any]
    dtypes: tuple[str, ...] = ()
    facts: str = ""
    target: str = ""
    entry: str = ""
    code: str = field(default="", repr=False)
    ptx_isa: str = ""
    registers: int = 0
    shared_memory: int = 0
    spills: int = 0
    shapes: tuple[ShapeReport, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class DryRunReport:
    """The tactics of one op for given inputs. Prints as a table.

    Attributes:
        op: ``"ns::name"``.
        target: what was compiled for.
        tactics: in order, those that were left out included.
    """

    op: str
    target: str
    tactics: list[TacticReport]

    @property
    def ok(self) -> bool:
        """Whether every tactic would be offered to TensorRT."""
        return all(tactic.error is None for tactic in self.tactics)

    def to_json(self) -> str:
        """The report as JSON, under the names of its attributes."""
        data = {
            "op": self.op,
            "target": self.target,
            "ok": self.ok,
            "tactics": [_as_dict(tactic) for tactic in self.tactics],
        }
        return json.dumps(data, indent=2, default=str)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=_WIDTH, color_system=None)
        console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __rich__(self) -> Any:
        """The table, for ``rich.print``."""
        from rich.table import Table

        table = Table(title=f"{self.op} for {self.target}", title_justify="left")
        for heading, justify in _COLUMNS:
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for tactic in self.tactics:
            table.add_row(*_row(tactic), end_section=True)
        return table


def _as_dict(tactic: TacticReport) -> dict[str, Any]:
    """``asdict`` that leaves config values, which may be anything, as they are."""
    return {**vars(tactic), "shapes": [vars(shape) for shape in tactic.shapes]}


_WIDTH = 150
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
)


def _row(tactic: TacticReport) -> list[str]:
    config = ", ".join(f"{k}={v}" for k, v in tactic.config.items())
    head = [str(tactic.tactic), f"{tactic.backend}\n{config}"]
    if tactic.error is not None:
        return [*head, f"left out: {tactic.error}"]
    return [
        *head,
        f"{tactic.entry}\n{tactic.facts}\n{' '.join(tactic.dtypes)}",
        f"{tactic.target}\nPTX {tactic.ptx_isa}",
        str(tactic.registers),
        str(tactic.shared_memory),
        str(tactic.spills),
        _times(tactic.shapes[0].block),
        "\n".join(f"{s.name} {', '.join(map(_times, s.dims))}" for s in tactic.shapes),
        "\n".join(_times(s.grid) for s in tactic.shapes),
        "\n".join(", ".join(map(str, s.extras)) for s in tactic.shapes),
    ]


def _times(extents: Sequence[int]) -> str:
    """``(8, 4096)`` as ``8x4096``, without the ones that end it."""
    shown = list(extents)
    while len(shown) > 1 and shown[-1] == 1:
        shown.pop()
    return "x".join(map(str, shown)) or "scalar"
