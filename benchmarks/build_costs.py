# SPDX-License-Identifier: BSD-3-Clause

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
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

REPEATS = 2
COLD, WARM = 48, 100  # tactics
TESTS = Path(__file__).resolve().parents[1] / "tests" / "py" / "annotation"

# What to reach, from "Speed" of the project's design; None where nothing is said.
TARGETS = {
    "import_ms": 50,
    "register_ms": 25,
    "record_ms": 15,
    "replay_ms": 150,
    "bind_ms": 2,
    "parallel_over_serial": 0.6,
    "warm_tactic_ms": 20,
    "warm_total_s": 2,
}
LABELS = {
    "import_ms": "import torch_tensorrt.annotation, over torch_tensorrt, ms",
    "first_use_ms": "  what the first op of a process imports besides, ms",
    "register_ms": "register a SiLU of two tactics, the first op of a process, ms",
    "record_ms": "record one launch, replayed at its optimum alone, ms",
    "replay_ms": "replay one at 500 shapes of two dynamic dimensions, ms",
    "replay_more_ms": "  each further config of the launch function, ms",
    "bind_ms": "bind one tactic: expressions to TensorRT, ms",
    "serial_s": f"{COLD} tactics cold, one process, s",
    "parallel_s": f"{COLD} tactics cold, {{jobs}} processes, s",
    "parallel_over_serial": "  the one over the other",
    "warm_tactic_ms": "one tactic from the disk cache, recording included, ms",
    "warm_total_s": f"dry run of {WARM} tactics of three languages, all cached, s",
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


def three_languages(tactics: int) -> tuple[str, list[Any]]:
    """Register an RMSNorm of a hundred tactics: Triton's, cuTile's and CuTe DSL's."""
    import torch

    sys.path.insert(0, str(TESTS))
    import cutedsl_kernels
    import cutile_kernels
    import kernels

    import torch_tensorrt.annotation as tta
    import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

    assert tactics == 40 + 4 * 9 + 24, "each config of cuTile is tried with four sets"

    def configs(name: str, values: tuple[int, ...], count: int) -> list[dict[str, Any]]:
        return [
            {name: value, "eps": 1e-6 * 2**i} for value in values for i in range(count)
        ]

    specs = [
        tta.triton(kernels.launch_rms_norm, configs("num_warps", (1, 2, 4, 8), 10)),
        tta.cutile(
            cutile_kernels.launch_rms_norm, configs("TILE", (1024, 2048, 4096), 3)
        ),
        tta.cutedsl(
            cutedsl_kernels.launch_rms_norm, configs("THREADS", (64, 128, 256, 512), 6)
        ),
    ]
    trt_plugins.custom_op(
        "bench::rms_norm",
        impl=tta.custom_plugin(specs, meta_impl=lambda x, weight: torch.empty_like(x)),
    )
    shapes = ((512, 4096), (4096,))
    return "bench::rms_norm", [torch.empty(s, dtype=torch.float16) for s in shapes]


def dry_run(
    tactics: int, register: Callable[[int], tuple[str, list[Any]]] = plugin
) -> dict[str, float]:
    """Seconds of a dry run."""
    import torch_tensorrt.annotation as tta

    op, inputs = register(tactics)
    started = time.perf_counter()
    report = tta.dry_run(op, inputs, "sm_90", execute=False)
    seconds = time.perf_counter() - started
    # Tactics whose code duplicates another's are compiled, and dropped.
    assert report.tactics[-1].tactic <= tactics and report.ok, str(report)
    return {"seconds": seconds}


def three_dry_run(tactics: int) -> dict[str, float]:
    """The same, of three languages."""
    return dry_run(tactics, three_languages)


def warm_dry_run(tactics: int) -> dict[str, float]:
    """The same, where compiling is an error."""
    from torch_tensorrt.annotation._compile.job import Job

    def refuse(job: Job) -> Any:
        raise AssertionError(f"{job.what} is compiled")

    Job.run = refuse  # type: ignore[method-assign, assignment]
    return three_dry_run(tactics)


def stages(tactics: int) -> dict[str, float]:
    """Recording, replaying and binding, in seconds: medians of a tactic's mean."""
    from torch_tensorrt.annotation._dry_run.builder import build
    from torch_tensorrt.annotation._plugin import Request, registered
    from torch_tensorrt.annotation._target import Target
    from torch_tensorrt.annotation._tensors import Range, TensorInfo

    op, (x, _) = plugin(tactics)
    known = registered[op].plugin
    assert known is not None
    columns = TensorInfo((512, 512), x.dtype)
    recordings = []
    for repeat in range(4):  # each a request that was not made before
        rows = TensorInfo((Range(1, 64, 509 + repeat), 512), x.dtype)
        request = Request.of((rows, columns), {}, Target("sm_90"), 1)
        started = time.perf_counter()
        known.programs(request)
        recordings.append((time.perf_counter() - started) / tactics)
    first, further = replays(known)
    bindings = []
    build(known, request)
    for _ in range(5):
        started = time.perf_counter()
        build(known, request)
        bindings.append((time.perf_counter() - started) / len(known.kernels(request)))
    return {
        "record": statistics.median(recordings),
        "replay": first,
        "replay_more": further,
        "bind": statistics.median(bindings),
    }


def replays(known: Any) -> tuple[float, float]:
    """Seconds of 500 replays of one config, and of each further one.

    The difference between recording with them and with one; inputs are shared.
    """
    import torch

    from torch_tensorrt.annotation._plugin import Request
    from torch_tensorrt.annotation._tensors import Range, TensorInfo

    (kernel,) = known.spec.specs

    def seconds(configs: int, replay: int, repeat: int) -> float:
        spec = replace(kernel, configs=kernel.configs[:configs])
        plugin = replace(known, spec=replace(known.spec, specs=(spec,)))
        rows = TensorInfo((Range(1, 64, 4096 + repeat), 512), torch.float16)
        columns = TensorInfo((512, Range(1, 64, 8192)), torch.float16)
        started = time.perf_counter()
        (*_, last) = plugin.programs(Request.of((rows, columns), {}, None, replay))
        assert last.error is None, last.error
        return time.perf_counter() - started

    def median(configs: int) -> float:
        found = [seconds(configs, 500, i) - seconds(configs, 1, i) for i in range(5)]
        return statistics.median(found)

    first, all_four = median(1), median(4)
    return first, (all_four - first) / 3


def register(tactics: int) -> dict[str, float]:
    """Seconds of registering the first op of a process; modules are imported before."""
    import torch

    sys.path.insert(0, str(TESTS))
    import kernels

    from torch_tensorrt.annotation import custom_plugin, triton
    from torch_tensorrt.dynamo.conversion.plugins import custom_op

    configs = [{"BLOCK": 256 << i, "num_warps": 4} for i in range(tactics)]
    started = time.perf_counter()
    custom_op(
        "bench::silu",
        impl=custom_plugin(
            triton(kernels.launch_silu, configs),
            meta_impl=lambda x: torch.empty_like(x),
        ),
        supports_dynamic_shapes=True,
    )
    return {"seconds": time.perf_counter() - started}


CHILDREN: dict[str, Callable[[int], dict[str, float]]] = {
    "dry_run": dry_run,
    "three_dry_run": three_dry_run,
    "warm_dry_run": warm_dry_run,
    "stages": stages,
    "register": register,
}


def child(
    name: str, tactics: int, folder: Path, jobs: int, triton_cache: str = "triton"
) -> dict[str, float]:
    """What one of the functions above gives in a new process."""
    environment = {
        **with_bytecode(folder),
        "TTA_CACHE_DIR": str(folder / "kernels"),
        "TRITON_CACHE_DIR": str(folder / triton_cache),
        "TTA_JOBS": str(jobs),
    }
    command = [sys.executable, __file__, "--child", name, str(tactics)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def with_bytecode(folder: Path) -> dict[str, str]:
    """An environment where modules are compiled to bytecode once, into ``folder``."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


USE = """
from torch_tensorrt.annotation import custom_plugin, triton
from torch_tensorrt.dynamo.conversion.plugins import custom_op
"""


def importing(folder: Path, use: str = "") -> float:
    """Seconds that the package takes of ``import torch_tensorrt``, and of ``use``."""
    command = [sys.executable, "-X", "importtime", "-c"]
    done = subprocess.run(
        [*command, f"import torch_tensorrt, torch_tensorrt.annotation\n{use}"],
        env=with_bytecode(folder),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    lines = re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr)
    ours = [int(us) for us, name in lines if name.startswith(PACKAGES)]
    assert ours, "the package was not imported"
    return sum(ours) / 1e6


PACKAGES = ("torch_tensorrt.annotation", "torch_tensorrt.dynamo.conversion.plugins")


def measure(jobs: int) -> dict[str, float]:
    """The best of a few processes, which other load disturbs least.

    For registration it is the median.
    """
    serial, parallel, warm = [], [], []
    stage_times, imports, uses = [], [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as temporary:
            one, many = Path(temporary, "one"), Path(temporary, "many")
            serial.append(child("dry_run", COLD, one, 1)["seconds"])
            parallel.append(child("dry_run", COLD, many, jobs)["seconds"])
    with tempfile.TemporaryDirectory() as temporary:
        child("three_dry_run", WARM, Path(temporary), jobs)
        for _ in range(REPEATS):
            done = child("warm_dry_run", WARM, Path(temporary), jobs, "no-triton")
            warm.append(done["seconds"])
            stage_times.append(child("stages", WARM, Path(temporary), jobs))
            imports.append(importing(Path(temporary)))
            uses.append(importing(Path(temporary), USE))
        firsts = [child("register", 2, Path(temporary), jobs) for _ in range(7)]
    return {
        "import_ms": min(imports) * 1e3,
        "first_use_ms": (min(uses) - min(imports)) * 1e3,
        "register_ms": statistics.median(first["seconds"] for first in firsts) * 1e3,
        **{
            f"{name}_ms": min(times[name] for times in stage_times) * 1e3
            for name in ("record", "replay", "replay_more", "bind")
        },
        "serial_s": min(serial),
        "parallel_s": min(parallel),
        "parallel_over_serial": min(parallel) / min(serial),
        "warm_tactic_ms": min(warm) / WARM * 1e3,
        "warm_total_s": min(warm),
    }


def environment(jobs: int) -> dict[str, Any]:
    import tensorrt
    import torch
    import triton

    import torch_tensorrt

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": model[1] if model else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "jobs": jobs,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_tensorrt": torch_tensorrt.__version__,
        "tensorrt": tensorrt.__version__,
        "triton": triton.__version__,
    }


def table(figures: dict[str, float], jobs: int) -> Any:
    from rich.table import Table

    made = Table("what", title="What a build costs before TensorRT times anything")
    for heading in ("measured", "to reach"):
        made.add_column(heading, justify="right")
    for name, label in LABELS.items():
        target = TARGETS.get(name)
        reach = "" if target is None else f"{target:g}"
        made.add_row(label.format(jobs=jobs), f"{figures[name]:.2f}", reach)
    return made


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, tactics = options.child
        print(json.dumps(CHILDREN[name](int(tactics))))
        return
    from rich.console import Console

    load = environment(options.jobs)
    figures = measure(options.jobs)
    console = Console(width=100)
    console.print(table(figures, options.jobs))
    console.print(load)
    if options.json:
        result = {"environment": load, "figures": figures, "to_reach": TARGETS}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
