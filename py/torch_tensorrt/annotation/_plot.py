"""A dry run's times as a plot, against a copy of as many bytes."""

from __future__ import annotations

import math
from typing import Any

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation.errors import DryRunError


def draw(report: Any, axes: Any = None) -> Any:
    """Draw a ``DryRunReport`` that has times; gives matplotlib's ``Axes``.

    Raises:
        DryRunError: it has no times, or matplotlib is not installed.
    """
    timed = [t for t in report.tactics if any(s.time_us and s.ok for s in t.shapes)]
    if not timed:
        raise DryRunError(
            f"{report.op}: no tactic has a time. Run the dry run on a GPU, or "
            "tta.execute(report, ...) there, and plot what that returns."
        )
    if axes is None:
        axes = _new_axes(len(timed) * len(report.shapes))
    width = 0.8 / len(timed)
    for position, tactic in enumerate(timed):
        places, times, spreads = [], [], []
        for index, shape in enumerate(tactic.shapes):
            if shape.ok and shape.time_us:
                places.append(index - 0.4 + (position + 0.5) * width)
                times.append(shape.time_us)
                spreads.append((shape.spread_us or 0.0) / 2)
        axes.bar(places, times, width, yerr=spreads, label=_label(report, tactic))
    if report.copy_gbps:
        _draw_copy(report, timed[0], axes)
    axes.set_yscale("log")
    axes.set_ylabel("microseconds")
    names = [f"{s.name}\n{_times(s.dims)}" for s in timed[0].shapes]
    axes.set_xticks(range(len(names)), names)
    axes.set_title(report.title)
    axes.legend(fontsize="small")
    return axes


def bytes_moved(tactic: Any, shape: Any) -> int:
    """Of all inputs and outputs, each once."""
    extents = (*shape.dims, *shape.outputs)
    sizes = [_dtypes.from_token(token).torch.itemsize for token in tactic.dtypes]
    return sum(math.prod(e) * size for e, size in zip(extents, sizes, strict=True))


def _draw_copy(report: Any, tactic: Any, axes: Any) -> None:
    """A line over each shape: what a copy of as many bytes would take."""
    label = f"a copy of as many bytes, at {report.copy_gbps / 1e3:.2f} TB/s"
    for index, shape in enumerate(tactic.shapes):
        microseconds = bytes_moved(tactic, shape) / report.copy_gbps / 1e3
        line = [microseconds, microseconds]
        axes.plot([index - 0.45, index + 0.45], line, "k--", label=label)
        label = "_nolegend_"


def _new_axes(bars: int) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DryRunError(
            "plot() needs matplotlib: pip install 'torch-tensorrt-annotation[plot]'."
        ) from error
    figure = Figure(figsize=(max(6.0, 0.5 * bars), 4.5), layout="constrained")
    return figure.add_subplot()


def _label(report: Any, tactic: Any) -> str:
    config = ", ".join(f"{name}={value}" for name, value in tactic.config.items())
    best = ", best" if tactic is report.best else ""
    return f"{tactic.tactic}: {tactic.backend} {config}{best}"


def _times(dims: Any) -> str:
    return ", ".join("x".join(map(str, extents)) or "scalar" for extents in dims)
