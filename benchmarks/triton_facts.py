# SPDX-License-Identifier: BSD-3-Clause

"""What the facts of a record are worth to Triton kernels, and what recording costs.

    python benchmarks/triton_facts.py [--json FILE]

With a GPU: each kernel as TensorRT would launch it (through the CUDA driver, from the
plugin's own code), beside Triton's own JIT on the same tensors, the same kernel
compiled without facts, torch, and a device copy of as many bytes. Times are medians of
``triton.testing.do_bench``; only ratios within one run mean anything.

Without: the time to record a launch alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import FACTLESS, Contest, cache_of_its_own, environment, finish, median_us
from kernels import CASES, launch_add, launch_rms_norm, launch_softmax
from model_kernels import MODEL_CASES
from torch.nn import functional

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.loaded import LoadedKernel
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._dry_run.report import TacticReport
from torch_tensorrt.annotation._plugin import Plugin, Request, registered
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation._tensors import Range, TensorInfo


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    launch: Callable[..., None]
    keywords: dict[str, Any]  # what is timed: the same for every contestant
    inputs: Callable[[], list[torch.Tensor]]
    torch: Callable[..., torch.Tensor]


def rows(count: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(count, columns, device="cuda").to(dtype)


CONTESTS = (
    [
        Case(
            f"add fp16, 64 Mi, BLOCK {block}",
            launch_add,
            {"BLOCK": block},
            lambda: [rows(16384, 4096, torch.float16) for _ in range(2)],
            lambda x, y: x + y,
        )
        for block in (1024, 4096)
    ]
    + [
        Case(
            f"RMSNorm bf16, 16384 x 4096, num_warps {num_warps}",
            launch_rms_norm,
            {"num_warps": num_warps},
            lambda: [
                rows(16384, 4096, torch.bfloat16),
                rows(1, 4096, torch.bfloat16).view(-1),
            ],
            lambda x, weight: functional.rms_norm(x, weight.shape, weight, 1e-6),
        )
        for num_warps in (2, 4, 8)
    ]
    + [
        Case(
            "softmax fp16, 8192 x 8192",
            launch_softmax,
            {},
            lambda: [rows(8192, 8192, torch.float16)],
            lambda x: torch.softmax(x, -1),
        ),
    ]
)


METAS: dict[int, Callable[..., torch.Tensor]] = {
    1: lambda x: torch.empty_like(x),
    2: lambda x, y: torch.empty_like(x),
}


@contextmanager
def without_facts() -> Iterator[None]:
    """Compile as a plain ahead-of-time compile does, which knows no facts."""
    from torch_tensorrt.annotation.backends.triton.signature import Signature

    original = Signature._tell
    Signature._tell = lambda *args: None  # type: ignore[method-assign]
    try:
        with cache_of_its_own():
            yield
    finally:
        Signature._tell = original  # type: ignore[method-assign]


def built(case: Case, tensors: list[torch.Tensor]) -> TacticReport:
    """The launch TensorRT would make; the first dimension is dynamic."""
    spec = tta.triton(case.launch, [case.keywords])
    impl = tta.custom_plugin(spec, meta_impl=METAS[len(tensors)])
    trt_plugins.custom_op("bench::op", impl=impl, supports_dynamic_shapes=True)
    rows = Range(1, tensors[0].shape[0], tensors[0].shape[0])
    inputs = [
        TensorInfo((rows, *t.shape[1:]) if t.dim() > 1 else tuple(t.shape), t.dtype)
        for t in tensors
    ]
    plugin = registered["bench::op"].plugin
    assert plugin is not None
    (launch,) = build(plugin, Request.of(inputs, {}, current_target()))
    tta.unregister("bench::op")
    return launch


def as_launched(
    launch: TacticReport, tensors: list[torch.Tensor], out: torch.Tensor
) -> Callable[[], None]:
    kernel = LoadedKernel(launch.code, launch.entry)
    shape = launch.at(*(tuple(tensor.shape) for tensor in tensors))
    inputs = [tensor.data_ptr() for tensor in tensors]
    return functools.partial(kernel.launch, shape, inputs, [out.data_ptr()])


def contest(case: Case) -> Contest:
    tensors = case.inputs()
    out, expected = torch.empty_like(tensors[0]), torch.empty_like(tensors[0])
    ours = as_launched(built(case, tensors), tensors, out)
    with without_facts():
        plain = as_launched(built(case, tensors), tensors, out)
    case.launch(*tensors, expected, **case.keywords)
    for launch in (ours, plain):
        out.fill_(float("nan"))
        launch()
        # Another layout adds up in another order: one unit in the last place.
        torch.testing.assert_close(out, expected, rtol=2**-7, atol=1e-4)
    moved = sum(t.numel() * t.element_size() for t in (*tensors, out))
    peers = {
        "Triton's JIT": median_us(lambda: case.launch(*tensors, out, **case.keywords)),
        FACTLESS: median_us(plain),
    }
    return Contest.of(
        case.name,
        (moved, "TB/s"),
        {"embedded": median_us(ours)},
        lambda: case.torch(*tensors),
        peers,
    )


def recording() -> dict[str, float]:
    """Median milliseconds to record each kernel of the tests, dynamic shapes."""
    result = {}
    for case in (*CASES, *MODEL_CASES):
        name = f"bench::{case.name}"
        trt_plugins.custom_op(name, impl=case.plugin, supports_dynamic_shapes=True)
        known = registered[name].plugin
        assert known is not None
        times = []
        for _ in range(15):
            plugin = Plugin(name, known.spec, known.meta, known.tensors, {})
            start = time.perf_counter()
            plugin.programs(Request.of(case.dynamic, {}, None))
            times.append(1e3 * (time.perf_counter() - start))
        result[case.name] = statistics.median(times)
        tta.unregister(name)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    times = recording()
    contests = [contest(c) for c in CONTESTS] if torch.cuda.is_available() else []
    finish(options.json, environment(), contests, recording_ms=times)
    print(
        f"recording a launch: median {statistics.median(times.values()):.1f} ms, "
        f"most {max(times.values()):.1f} ms ({max(times, key=times.get)})"
    )


if __name__ == "__main__":
    main()
