"""What a build costs before TensorRT times anything: recording, compiling, the cache.

Each figure is of processes of their own, with caches of their own::

    python benchmarks/build_costs.py --json benchmarks/results/build_costs.json
    taskset -c 0,1 python benchmarks/build_costs.py --jobs 2   # two cores of many
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

REPEATS = 3
COLD, WARM = 24, 100  # tactics

# What to reach, from "Speed" of the project's design; None where nothing is said.
TARGETS = {
    "import_ms": 50,
    "record_ms": 15,
    "bind_ms": 2,
    "parallel_over_serial": 0.6,
    "warm_tactic_ms": 20,
    "warm_total_s": 2,
}
LABELS = {
    "import_ms": "import torch_tensorrt.annotation, over torch_tensorrt, ms",
    "record_ms": "record one launch, ms",
    "bind_ms": "bind one tactic: expressions to TensorRT, ms",
    "serial_s": f"{COLD} tactics cold, one process, s",
    "parallel_s": f"{COLD} tactics cold, {{jobs}} processes, s",
    "parallel_over_serial": "  the one over the other",
    "warm_tactic_ms": "one tactic from the disk cache, recording included, ms",
    "warm_total_s": f"dry run of {WARM} tactics, all cached, s",
}


def plugin(tactics: int) -> tuple[str, list[Any]]:
    """Register a matrix product of so many tactics; its name and inputs."""
    import torch
    import triton
    import triton.language as tl

    import torch_tensorrt.annotation as tta
    import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

    @triton.jit
    def matmul_kernel(
        a_ptr, b_ptr, c_ptr, M, N, K,
        BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    ):  # fmt: skip
        rows = tl.program_id(0) * BM + tl.arange(0, BM)
        columns = tl.program_id(1) * BN + tl.arange(0, BN)
        accumulator = tl.zeros((BM, BN), tl.float32)
        for start in range(0, K, BK):
            inner = start + tl.arange(0, BK)
            a_mask = (rows[:, None] < M) & (inner[None, :] < K)
            a = tl.load(a_ptr + rows[:, None] * K + inner[None, :], a_mask, 0.0)
            b_mask = (inner[:, None] < K) & (columns[None, :] < N)
            b = tl.load(b_ptr + inner[:, None] * N + columns[None, :], b_mask, 0.0)
            accumulator = tl.dot(a, b, accumulator)
        c = accumulator.to(c_ptr.dtype.element_ty)
        c_mask = (rows[:, None] < M) & (columns[None, :] < N)
        tl.store(c_ptr + rows[:, None] * N + columns[None, :], c, c_mask)

    def launch(a, b, out, BM=32, BN=32, BK=16):
        (m, k), n = a.shape, b.shape[1]
        grid = (triton.cdiv(m, BM), triton.cdiv(n, BN))
        matmul_kernel[grid](a, b, out, m, n, k, BM=BM, BN=BN, BK=BK)

    configs = [
        {"BM": m, "BN": n, "BK": 16, "num_warps": warps, "num_stages": stages}
        for stages in (1, 2, 3, 4)
        for warps in (1, 2, 4)
        for m in (16, 32, 64)
        for n in (16, 32, 64)
    ]
    trt_plugins.custom_op(
        "bench::matmul",
        impl=tta.custom_plugin(
            tta.triton(launch, configs[:tactics]),
            meta_impl=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
        ),
    )
    x = torch.empty(512, 512, dtype=torch.float16)
    return "bench::matmul", [x, x]


def dry_run(tactics: int) -> dict[str, Any]:
    """Seconds of a dry run, and how many kernels it compiled in this process."""
    import torch_tensorrt.annotation as tta
    from torch_tensorrt.annotation._workers import compile_in_workers

    op, inputs = plugin(tactics)
    calls = []
    sys.setprofile(
        lambda frame, event, _: (
            calls.append(1)
            if event == "call" and frame.f_code is compile_in_workers.__code__
            else None
        )
    ) if False else None
    started = time.perf_counter()
    report = tta.dry_run(op, inputs, "sm_90", execute=False)
    seconds = time.perf_counter() - started
    assert len(report.tactics) == tactics and report.ok, str(report)
    return {"seconds": seconds}
