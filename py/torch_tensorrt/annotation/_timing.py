"""How long a launch takes on the GPU at hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

_FLUSHED = 256 << 20  # bytes written between timed launches: more than any L2 cache
_TIMED_MS = 50.0
_LAUNCHES = (10, 200)


def copy_gbps() -> float:
    """GB/s, read and written, of a copy between two buffers of the GPU."""
    source = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    microseconds, _ = time_launch(lambda: target.copy_(source))
    return 2 * _FLUSHED / microseconds / 1e3


def time_launch(launch: Callable[[], Any]) -> tuple[float, float]:
    """Median and interquartile range of a launch, in microseconds, with a cold L2."""
    flushed = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")

    def timed(count: int) -> list[float]:
        event = partial(torch.cuda.Event, enable_timing=True)
        events = [(event(), event()) for _ in range(count)]
        for start, end in events:
            flushed.zero_()
            start.record()
            launch()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    estimate = statistics.median(timed(3))
    least, most = _LAUNCHES
    times = timed(int(min(most, max(least, _TIMED_MS / max(estimate, 1e-3)))))
    low, middle, high = statistics.quantiles(times, n=4)
    return middle * 1e3, (high - low) * 1e3
