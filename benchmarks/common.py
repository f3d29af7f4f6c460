# SPDX-License-Identifier: BSD-3-Clause

"""What the benchmarks of kernels share: timing, peers, tables, two-step scripts."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))

from torch_tensorrt.annotation._target import current_target  # noqa: E402

FACTLESS = "without facts"
OWN = "its own launch"


@dataclasses.dataclass(frozen=True)
class Contest:
    """The same work, by kernels as an engine launches them, and by others.

    Attributes:
        unit: ``TB/s`` or ``TFLOP/s``.
        amount: bytes or operations.
        ours: microseconds of each tactic.
        peers: microseconds of each peer.
        not_run: why a peer was not.
    """

    name: str
    unit: str
    amount: int
    ours: dict[str, float]
    peers: dict[str, float]
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        amount: tuple[int, str],
        ours: Mapping[str, float],
        torchs: Callable[[], object],
        others: Mapping[str, float],
        eager: str = "torch eager",
    ) -> Contest:
        """Times torch, eager and compiled, beside what was timed already.

        Args:
            amount: how much, and the unit.
            torchs: the same work by torch.
            eager: the name of torch's eager kernel.
        """
        peers, not_run = {**others, eager: median_us(torchs)}, {}
        torch.compiler.reset()
        try:
            peers["torch.compile"] = median_us(torch.compile(torchs, dynamic=False))
        except Exception as error:  # its compiler is not this project's to repair
            not_run["torch.compile"] = f"{type(error).__name__}: {error}"
        if amount[1] == "TB/s":
            peers["device copy"] = copy_us(amount[0])
        return cls(name, amount[1], amount[0], dict(ours), peers, not_run)

    def rate(self, us: float) -> float:
        return self.amount / us / 1e6

    @property
    def best(self) -> float:
        """Microseconds of the fastest tactic, which TensorRT would pick."""
        return min(self.ours.values())


@dataclasses.dataclass
class Figures:
    """What was measured.

    Attributes:
        kernels: each kernel and config, with the time of both launches.
        dynamic: each way to read matrices, and the shapes that its binary was run at.
        failed: what went wrong, by what it was.
    """

    contests: list[Contest] = dataclasses.field(default_factory=list)
    kernels: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dynamic: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def note(self, what: str, error: Exception) -> None:
        traceback.print_exception(error)
        self.failed[what] = f"{type(error).__name__}: {error}"

    def write(self, path: Path, versions: Mapping[str, Any]) -> None:
        data = {"environment": dict(versions), **dataclasses.asdict(self)}
        path.write_text(json.dumps(data, indent=2) + "\n")

    def show(self) -> None:
        """A line for each kernel and config."""
        for row in self.kernels:
            us, own = row["us"], row["own_us"]
            timed = f"{us:.1f} us, {own / us:.3f} x of {OWN}" if us else "not timed"
            print(f"{row['work']}, {row['kernel']}, {row['config']}: {timed}")
        right = sum(ran["bit_equal"] for ran in self.dynamic)
        print(f"dynamic: the bits of {OWN} at {right} of {len(self.dynamic)} shapes")
        for what, why in self.failed.items():
            print(f"failed: {what}: {why}")

    def end(self, versions: Mapping[str, Any]) -> NoReturn:
        """Print all of it, and end the script; its status tells what failed."""
        finish(None, dict(versions), self.contests)
        self.show()
        sys.exit(bool(self.failed))


def median_us(function: Callable[[], object]) -> float:
    """Median microseconds of ``triton.testing.do_bench``."""
    from triton.testing import do_bench

    return 1e3 * float(do_bench(function, rep=200, return_mode="median"))


def copy_us(moved: int) -> float:
    """Microseconds of a device copy that reads and writes as many bytes."""
    source = torch.empty(moved // 2, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return median_us(lambda: target.copy_(source))


@contextmanager
def cache_of_its_own() -> Iterator[None]:
    """For code that the kernel cache cannot tell from what it holds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TTA_CACHE_DIR=folder),
    ):
        yield


def like_first(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def compile_here(
    path: Path, spec: Any, shapes: Any, target: str, meta: Any = like_first
) -> None:
    """Write the report of a plugin with fp16 inputs."""
    from compiled_elsewhere import compile_op

    import torch_tensorrt.annotation as tta

    tensors = [torch.empty(shape, dtype=torch.float16) for shape in shapes]
    plugin = tta.custom_plugin(spec, meta_impl=meta)
    report = compile_op(path, plugin, tensors, target)
    left_out = [f"tactic {t.tactic}: {t.error}" for t in report.tactics if t.error]
    print(path.name, f"{len(report.tactics)} tactics", *left_out, flush=True)


def tactic_times(report: Any) -> dict[str, float]:
    """Microseconds of each tactic of a static report, by its config."""
    times = {}
    for tactic in report.tactics:
        if tactic.error is None:
            config = ", ".join(f"{k}={v}" for k, v in tactic.config.items())
            label = f"{tactic.backend} {config or f'tactic {tactic.tactic}'}"
            assert label not in times, f"two tactics are {label}"
            times[label] = tactic.shapes[0].time_us
    return times


def two_steps(
    doc: str,
    target: str,
    compile_all: Callable[[Path, str], None],
    run_all: Callable[[Path], Iterable[Contest]],
) -> None:
    """The command line of a script that compiles here and runs there.

    Args:
        doc: the script's docstring.
        target: what it compiles for, unless told otherwise.
        compile_all: writes reports to a folder, for a target.
        run_all: runs them.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("step", choices=["compile", "run"])
    parser.add_argument("folder", type=Path, help="where the reports are")
    parser.add_argument("--target", default=target)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    if options.step == "compile":
        compile_all(options.folder, options.target)
        return
    from compiled_elsewhere import SUFFIX, compilers

    reports = sorted(options.folder.glob(f"*{SUFFIX}"))
    if not reports:
        raise SystemExit(f"{options.folder} holds no report: make kernels, elsewhere.")
    versions = environment() | {"compiled with": compilers(reports[0])}
    finish(options.json, versions, list(run_all(options.folder)))


def step_by_step(
    doc: str,
    compile_all: Callable[[str], int],
    steps: Callable[[Figures], Iterable[tuple[str, Callable[[], object]]]],
) -> None:
    """The command line of a script that measures here; without a GPU, it compiles.

    What fails is printed and noted, and the rest goes on. The exit status tells.

    Args:
        doc: the script's docstring.
        compile_all: compiles the works whose names hold a word; how many kernels are
            left out.
        steps: names, and what to do, which adds to the figures.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--only", default="", help="steps whose names hold this")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(compile_all(options.only))
    figures, versions = Figures(), environment()
    for name, step in steps(figures):
        if options.only in name:
            began = time.monotonic()
            try:
                step()
            except Exception as error:  # what was measured is worth more
                figures.note(name, error)
            torch.cuda.empty_cache()
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            if options.json is not None:  # a later step may end the process
                figures.write(options.json, versions)
    figures.end(versions)


def environment() -> dict[str, Any]:
    """Date, versions, GPU and driver."""
    import triton

    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    if torch.cuda.is_available():
        query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
        command = ["nvidia-smi", *query]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        name, driver = run.stdout.splitlines()[0].split(", ")
        found |= {"gpu": name, "driver": driver, "target": str(current_target())}
    return found


def finish(
    path: Path | None,
    versions: dict[str, Any],
    contests: list[Contest],
    **others: Any,
) -> None:
    """Print the contests, and write them to ``path`` with where they were run."""
    console = Console(width=110)
    for contest in contests:
        console.print(table(contest, versions))
    if path is not None:
        listed = [dataclasses.asdict(contest) for contest in contests]
        figures = {"environment": versions, "contests": listed, **others}
        path.write_text(json.dumps(figures, indent=2) + "\n")


def table(contest: Contest, versions: Mapping[str, Any]) -> Table:
    made = Table(
        title=contest.name,
        caption=", ".join(f"{k} {v}" for k, v in versions.items()),
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("kernel", "us", contest.unit, "best tactic over it"):
        made.add_column(heading, justify="left" if heading == "kernel" else "right")
    for times in (contest.ours, contest.peers):
        for label, us in times.items():
            rate, ratio = f"{contest.rate(us):.2f}", f"{us / contest.best:.3f} x"
            made.add_row(label, f"{us:.1f}", rate, ratio)
        made.add_section()
    for label, reason in contest.not_run.items():
        made.add_row(label, "", "", f"not run: {reason}")
    return made
