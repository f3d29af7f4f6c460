# SPDX-License-Identifier: BSD-3-Clause

"""What a dry run found of an op of several steps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from .report import NOT_COMPARED, Dims, DryRunReport


@dataclass(frozen=True)
class StepReport:
    """One step of an op.

    Attributes:
        name: of the kernel that it launches, or torch's of an operation.
        launch: what a dry run finds of the launch's plugin; None for an operation of
            torch's. Its tactics were run within the op, and their times are of the
            launch alone.
    """

    name: str
    launch: DryRunReport | None = None


@dataclass(frozen=True)
class RunReport:
    """All steps of an op, one after the other, at one shape.

    Attributes:
        name: of the shape, as in a report of one plugin.
        dims: extents of each input; None for an optional one that is not given.
        ok: whether the outputs, and the inputs that the op writes, are right; None if
            it was not run.
        failure: what is wrong, or why it could not be run.
        skipped: why it was not interpreted, without a GPU.
        max_error: of any element, relative to it and to the tensor's root mean square
            together.
        time_us: median duration of all steps with the fastest tactics, in microseconds,
            with a cold L2 cache. Operations are run by torch, without TensorRT's
            fusions.
        spread_us: its interquartile range, in microseconds.
        eager_us: median duration of the op's own eager run.
    """

    name: str
    dims: Dims
    ok: bool | None = None
    failure: str = ""
    skipped: str = ""
    max_error: float | None = None
    time_us: float | None = None
    spread_us: float | None = None
    eager_us: float | None = None


@dataclass(frozen=True)
class ProgramReport(DryRunReport):
    """The steps of one op for given inputs. Prints as text, with a table a launch.

    It has no tactics of its own: each launch has.

    Attributes:
        steps: launches and torch operations, in order.
        runs: all steps together, at each shape.
    """

    steps: tuple[StepReport, ...] = ()
    runs: tuple[RunReport, ...] = ()

    @property
    def launches(self) -> tuple[DryRunReport, ...]:
        """The reports of the steps that are launches."""
        return tuple(step.launch for step in self.steps if step.launch is not None)

    @property
    def ok(self) -> bool:
        """Whether all tactics of all launches are offered, and right where they ran."""
        return all(launch.ok for launch in self.launches) and not any(
            run.ok is False or run.failure for run in self.runs
        )

    @property
    def shapes(self) -> tuple[str, ...]:
        """The names of the shapes that the report covers."""
        return tuple(run.name for run in self.runs)

    @property
    def was_run(self) -> bool:
        """Whether the steps were run, or interpreted, at some shape."""
        return any(run.ok is not None for run in self.runs)

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        launches, operations = len(self.launches), len(self.steps) - len(self.launches)
        of_torch = f" and {_count(operations, 'operation')} of torch's"
        what = _count(launches, "launch", "es") + (of_torch if operations else "")
        parts = [f"{what} for {self.target}"]
        if not self.was_run:
            return f"{parts[0]}; not run, so what they compute was not checked."
        how = f"executed on {self.gpu}" if self.gpu else "executed"
        how = "interpreted on the CPU, not run on a GPU" if self.interpreted else how
        ran = [run for run in self.runs if run.ok is not None]
        right = sum(run.ok is True for run in ran)
        not_run = ", ".join(run.name for run in self.runs if run.ok is None)
        not_run = f" (not run at {not_run})" if not_run else ""
        tactics = [tactic for launch in self.launches for tactic in launch.tactics]
        well = sum(t.ok and any(s.ok for s in t.shapes) for t in tactics)
        against = f"against {self.against}" if self.against else NOT_COMPARED
        parts.append(
            f"{how}: {self.well} at {right} of {_count(len(ran), 'shape')}{not_run}, "
            f"with {well} of {_count(len(tactics), 'tactic')}, {against}"
        )
        typical = [run for run in self.runs if run.name in ("opt", "static")]
        parts += [
            f"all steps {run.time_us:.1f} us, the op's own eager run {run.eager_us:.1f}"
            for run in typical
            if run.time_us and run.eager_us
        ]
        return "; ".join(parts) + "."

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each tactic that is left out or wrong, and each failed run."""
        launches = (
            f"{launch.op}, {problem}"
            for launch in self.launches
            for problem in launch.problems
        )
        runs = (f"all steps at {r.name}: {r.failure}" for r in self.runs if r.failure)
        return (*launches, *runs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the code, and may be right; what was not interpreted."""
        odd = (
            f"{launch.op}: {note}"
            for launch in self.launches
            for tactic in launch.tactics
            for note in tactic.notes
        )
        skipped = (
            f"all steps at {run.name}, not interpreted: {run.skipped}"
            for run in self.runs
            if run.skipped
        )
        return (*dict.fromkeys(odd), *skipped)

    @classmethod
    def from_json(cls, text: str) -> ProgramReport:
        """Read back what :meth:`to_json` wrote, on this machine or another.

        Args:
            text: the JSON.
        """
        data = json.loads(text)
        steps = tuple(
            StepReport(name, DryRunReport.from_json(json.dumps(launch)))
            if (launch := step["launch"])
            else StepReport(name)
            for step in data.pop("steps")
            for name in [step["name"]]
        )
        runs = (RunReport(**run | {"dims": _dims(run)}) for run in data.pop("runs"))
        whole = DryRunReport.from_json(json.dumps(data))
        known = {field.name: getattr(whole, field.name) for field in fields(whole)}
        return cls(**known, steps=steps, runs=tuple(runs))

    def to_json(self) -> str:
        """The report as JSON, under the names of its attributes."""

        def plain(run: RunReport) -> dict[str, Any]:
            # JSON has no infinity.
            return {k: None if v == math.inf else v for k, v in vars(run).items()}

        steps = [
            {"name": s.name, "launch": s.launch and json.loads(s.launch.to_json())}
            for s in self.steps
        ]
        more = {"steps": steps, "runs": list(map(plain, self.runs))}
        return json.dumps({**json.loads(super().to_json()), **more}, indent=2)

    def show(self) -> None:
        """Print the report, in colour if standard output is a terminal."""
        from . import program_text

        program_text.show(self)

    def __str__(self) -> str:
        from . import program_text

        return program_text.as_text(self)

    __repr__ = __str__

    def __rich__(self) -> Any:
        """What ``rich.print`` prints."""
        from . import program_text

        return program_text.renderable(self)


def _count(number: int, what: str, plural: str = "s") -> str:
    """``2 launches``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}{plural}"


def _dims(run: dict[str, Any]) -> Dims:
    return tuple(None if d is None else tuple(d) for d in run["dims"])
