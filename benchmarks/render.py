# SPDX-License-Identifier: BSD-3-Clause

"""Render benchmarks/results/*.json into docsrc/performance.md, with a plot of each.

python benchmarks/render.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import build_costs
from common import FACTLESS, PROJECT, Contest

RESULTS = PROJECT / "benchmarks" / "results"
DOCUMENT = PROJECT / "docsrc" / "performance.md"
PLOTS = "performance"  # beside the document

TEMPLATE = PROJECT / "benchmarks" / "performance.md"
KERNELS = (
    "triton_facts",
    "cutile_facts",
    "cutile_hardware",
    "cutedsl",
    "side_by_side",
)


def over(peer: str) -> Callable[[Contest], float]:
    return lambda contest: contest.peers[peer] / contest.best


def rate(contest: Contest) -> float:
    return contest.rate(contest.best)


@dataclass(frozen=True)
class Goal:
    """What contests whose names start with ``prefix`` should reach."""

    benchmark: str
    prefix: str
    what: str
    least: float
    measure: Callable[[Contest], float]


GOALS = [
    Goal("triton_facts", "add", "x of Triton's JIT", 0.99, over("Triton's JIT")),
    Goal("triton_facts", "add", "x of without facts", 1.15, over(FACTLESS)),
    Goal("triton_facts", "RMSNorm", "x of Triton's JIT", 0.99, over("Triton's JIT")),
    Goal("triton_facts", "RMSNorm", "x of without facts", 1.15, over(FACTLESS)),
    Goal("cutile_facts", "rms_norm", "TB/s", 3.7, rate),
    Goal("cutile_facts", "matmul", "TFLOP/s", 380, rate),
]


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def contests(name: str) -> list[Contest]:
    return [Contest(**fields) for fields in load(name)["contests"]]


def render() -> str:
    """The document."""
    tables = {name: section(name) for name in KERNELS}
    tables |= {"goals": goals(), "build_costs": build_side()}
    tables |= {name: hardware(name, text) for name, text in HARDWARE.items()}
    text = TEMPLATE.read_text()
    for name, table in tables.items():
        text = text.replace(f"<!-- {name} -->\n", table)
    return text


def section(name: str) -> str:
    found = contests(name)
    peers = list(dict.fromkeys(peer for c in found for peer in c.peers))
    rows = [
        [c.name, f"{c.rate(c.best):.2f} {c.unit}", *(ratio(c, p) for p in peers)]
        for c in found
    ]
    skipped = {f"{p}: {why}" for c in found for p, why in c.not_run.items()}
    lines = [
        where(load(name)["environment"]),
        markdown(["kernel", "fastest tactic", *(f"x of {p}" for p in peers)], rows),
        *(f"Not run: {line}\n" for line in sorted(skipped)),
        f"![Each tactic, and its peers]({PLOTS}/{name}.svg)\n",
    ]
    return "\n".join(lines)


HARDWARE = {
    "hardware": """## Triton: what Hopper has

Matrix products and attention with shared memory over 48 KiB, clusters, scratch memory and tensor maps: [how they get them](hardware.md). *Its own launch* is Triton's, of the same kernel and config. Each launch is timed once a round, in turn with all others of its table. Of each kernel, the fastest config is shown. To reach: 0.98 of its own launch, and 0.95 of cuBLAS by one matrix product.
""",  # noqa: E501
    "hardware_cutedsl": """## CuTe DSL: what Hopper has

Matrix products and attention with [tensor maps](hardware.md#tensor-maps), timed as Triton's are. *Its own launch* is of CuTe DSL's own PTX, with its attributes and with maps that the CUDA driver makes. CUTLASS's kernels are its examples for Hopper.
""",  # noqa: E501
}  # a paragraph of Markdown is one line


def hardware(benchmark: str, introduction: str) -> str:
    """The section of benchmarks/hardware*.py; nothing before it has been run."""
    if not (RESULTS / f"{benchmark}.json").exists():
        return ""
    data, by_work = load(benchmark), dict[str, list[Contest]]()
    for contest in contests(benchmark):
        work, _, kernel = contest.name.rpartition(": ")
        by_work.setdefault(work, []).append(replace(contest, name=kernel))
    parts = [introduction, where(data["environment"])]
    for work, found in by_work.items():
        peers = list(dict.fromkeys(peer for c in found for peer in c.peers))
        headings = ["", "fastest config", "TFLOP/s", *(f"x of {p}" for p in peers)]
        headings += ["same bits", "registers", "shared memory, bytes"]
        rows = []
        for c in found:
            config = min(c.ours, key=lambda config: c.ours[config])
            same = {"work": work, "kernel": c.name, "config": config}
            (row,) = (r for r in data["kernels"] if same.items() <= r.items())
            rows.append(
                [
                    *(c.name, config, f"{rate(c):.0f}", *(ratio(c, p) for p in peers)),
                    "yes" if row["bit_equal"] else "**no**",
                    *(str(row["registers"]), str(row["shared_memory"])),
                ]
            )
        parts += [f"{work}:\n", markdown(headings, rows)]
    ran = data["dynamic"]
    equal = sum(shape["bit_equal"] for shape in ran)
    if ran:
        sizes = (shape["M, N, K"] for shape in ran if "M, N, K" in shape)
        shown = ", ".join(dict.fromkeys(" x ".join(map(str, each)) for each in sizes))
        parts.append(
            "With dynamic sizes, one binary of each kernel gave the bits of its own "
            f"launch at {equal} of {len(ran)} shapes{f' ({shown})' if shown else ''}.\n"
        )
    parts += [f"Failed: {what}: {why}\n" for what, why in data["failed"].items()]
    return "\n".join([*parts, ""])


def ratio(contest: Contest, peer: str) -> str:
    us = contest.peers.get(peer)
    return "" if us is None else f"{us / contest.best:.3f}"


def where(environment: dict[str, Any]) -> str:
    said = {k: v for k, v in environment.items() if k != "target"}
    compilers = said.pop("compiled with", {})
    machine = [said.pop(name) for name in ("gpu", "processor") if name in said]
    texts = [f"{name} {value}" for name, value in said.items()]
    texts += [f"compiled by {name} {value}" for name, value in compilers.items()]
    return f"{', '.join([*machine, *texts])}.\n"


def goals() -> str:
    rows = []
    for goal in GOALS:
        for contest in contests(goal.benchmark):
            if contest.name.startswith(goal.prefix):
                reached = goal.measure(contest)
                verdict = "met" if reached >= goal.least else "**short**"
                numbers = [f"{goal.least:g}", f"{reached:.3f}"]
                rows.append([contest.name, goal.what, *numbers, verdict])
    return markdown(["kernel", "", "to reach", "measured", ""], rows)


def build_side() -> str:
    data = load("build_costs")
    rows = []
    for name, measured in data["figures"].items():
        most, label = data["to_reach"].get(name), build_costs.LABELS[name]
        verdict = "" if most is None else "met" if measured <= most else "**short**"
        reach = "" if most is None else f"{most:g}"
        label = label.format(jobs=data["environment"]["jobs"]).strip()
        rows.append([label, reach, f"{measured:.2f}", verdict])
    table = markdown(["what", "at most", "measured", ""], rows)
    return f"{where(data['environment'])}\n{table}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    line = "|" + "|".join("---" if i == 0 else "--:" for i, _ in enumerate(headings))
    lines = [f"{line}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([f"| {' | '.join(headings)} |", *lines, ""])


def digest(name: str) -> str:
    """Of what a plot shows."""
    data = json.dumps(load(name)["contests"], sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()


def plot(name: str, path: Path) -> None:
    """Bars of each tactic and each peer, a panel for each contest."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name})
    from matplotlib import pyplot

    found = contests(name)
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    bars = max(len(c.ours) + len(c.peers) for c in found)
    size = (6 * columns, rows * (0.9 + 0.28 * bars))
    figure, grid = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    panels: Iterator[Any] = iter(grid.flat)
    for contest, axes in zip(found, panels, strict=False):
        times = {**contest.ours, **contest.peers}
        rates = [contest.rate(us) for us in times.values()]
        colors = ["#76b900"] * len(contest.ours) + ["#999999"] * len(contest.peers)
        axes.barh(list(times), rates, color=colors)
        axes.invert_yaxis()
        axes.set_title(contest.name, fontsize=10)
        axes.set_xlabel(contest.unit)
    for axes in panels:
        axes.set_axis_off()
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Description": digest(name)})
    pyplot.close(figure)


def main() -> None:
    DOCUMENT.parent.mkdir(exist_ok=True)
    for name in KERNELS:
        plot(name, DOCUMENT.parent / PLOTS / f"{name}.svg")
    DOCUMENT.write_text(render())
    print(DOCUMENT)


if __name__ == "__main__":
    main()
