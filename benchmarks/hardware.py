# SPDX-License-Identifier: BSD-3-Clause

"""Triton kernels with shared memory over 48 KiB, clusters, scratch memory and TMA.

    python benchmarks/hardware.py [--json FILE] [--only WORD]

With a Hopper GPU: matrix products and attention (hardware_kernels.py), launched as
TensorRT would, beside Triton's own launch of the same kernel and config, and cuBLAS or
torch's attention. Results are compared bit by bit with Triton's own launch. Then each
way to read matrices runs at many M, N and K from one binary. What fails is printed and
noted, the rest goes on, and the exit status is 1.

Without: the same kernels are compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
from common import OWN, Contest, Figures, step_by_step
from hardware_kernels import DEVICE, HOST, POINTERS, launch_attention, launch_matmul
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._dry_run.execute import load
from torch_tensorrt.annotation._dry_run.report import TacticReport

TARGET = "sm_90,cuda=13.0,sm_count=132"  # without a GPU: an H200, as it was measured
ROUNDS = 30
FLUSHED = 256 << 20  # bytes written before each launch: more than any L2 cache

Config = Mapping[str, Any]
Launch = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Work:
    """What several kernels compute.

    Attributes:
        operations: floating-point operations.
        inputs: extents and dtype of each.
        meta: makes the output.
        launch: the launch function, which takes a config.
        kernels: configs, by what a table calls them together.
        reference: the same by torch.
        peers: the same by others, which are timed.
        tolerance: of an error, relative to the element and the root mean square.
    """

    name: str
    operations: int
    inputs: Sequence[tuple[tuple[int, ...], torch.dtype]]
    meta: Callable[..., torch.Tensor]
    launch: Callable[..., None]
    kernels: Mapping[str, Sequence[Config]]
    reference: Callable[..., torch.Tensor]
    peers: Mapping[str, Callable[..., torch.Tensor]]
    tolerance: float

    @property
    def configs(self) -> list[Config]:
        return [config for each in self.kernels.values() for config in each]


# --- What is computed -----------------------------------------------------------------

TILES: list[Config] = [
    {"BM": 128, "BN": 256, "BK": 64, "num_warps": 8, "num_stages": 3},
    {"BM": 128, "BN": 128, "BK": 64, "num_warps": 4, "num_stages": 4},
]
CLUSTERS: list[Config] = [{**tile, "num_stages": 3, "num_ctas": 2} for tile in TILES]
FP8_TILES: list[Config] = [{**tile, "BK": 128} for tile in TILES]
BLOCKS: list[Config] = [
    {"BM": 128, "BN": 128, "num_warps": 8, "num_stages": 2},
    {"BM": 128, "BN": 64, "num_warps": 4, "num_stages": 3},
]


def with_each(configs: Sequence[Config], **keywords: Any) -> list[Config]:
    return [{**keywords, **config} for config in configs]


WAYS: dict[str, list[Config]] = {
    f"{how}{', persistent' * persistent}": with_each(
        TILES, how=how, persistent=persistent
    )
    for persistent in (False, True)
    for how in (POINTERS, DEVICE, HOST)
} | {f"{POINTERS}, clusters of 2": with_each(CLUSTERS, how=POINTERS)}
FP8_WAYS = {
    name: with_each(FP8_TILES, how=how, persistent=persistent)
    for name, how, persistent in (
        (POINTERS, POINTERS, False),
        (f"{DEVICE}, persistent", DEVICE, True),
        (f"{HOST}, persistent", HOST, True),
    )
}


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.mm(a, b.t())


@functools.cache
def one() -> torch.Tensor:
    """The scale of fp8 tensors, made before anything is timed."""
    return torch.ones((), device="cuda")


def fp8_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """cuBLAS's, which adds up as Triton does on Hopper: with fewer bits than fp32."""
    how: dict[str, Any] = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
    return torch._scaled_mm(a, b.t(), scale_a=one(), scale_b=one(), **how)


def matmul(n: int) -> Work:
    return Work(
        f"matmul fp16, {n}^3",
        2 * n**3,
        [((n, n), torch.float16)] * 2,
        lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        launch_matmul,
        WAYS,
        product,
        {"cuBLAS": product},
        0.02,
    )


def fp8_matmul(n: int) -> Work:
    return Work(
        f"matmul fp8, {n}^3",
        2 * n**3,
        [((n, n), torch.float8_e4m3fn)] * 2,
        lambda a, b: a.new_empty(a.shape[0], b.shape[0], dtype=torch.bfloat16),
        launch_matmul,
        FP8_WAYS,
        lambda a, b: product(a.float(), b.float()),
        {"cuBLAS": fp8_product},
        0.15,
    )


def attention(
    causal: bool, heads: int = 16, rows: int = 8192, width: int = 128
) -> Work:
    def torchs(*tensors: torch.Tensor) -> torch.Tensor:
        batches = (tensor[None] for tensor in tensors)
        return scaled_dot_product_attention(*batches, is_causal=causal)[0]

    def cudnn(*tensors: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return torchs(*tensors)

    operations = 4 * heads * rows**2 * width
    return Work(
        f"attention fp16, {heads} heads, {rows} x {width}{', causal' * causal}",
        operations // 2 if causal else operations,
        [((heads, rows, width), torch.float16)] * 3,
        lambda q, k, v: torch.empty_like(q),
        launch_attention,
        {
            how: with_each(BLOCKS, how=how, causal=causal)
            for how in (POINTERS, DEVICE, HOST)
        },
        torchs,
        {"torch's attention": torchs, "cuDNN's attention": cudnn},
        0.02,
    )


WORKS = [
    *(matmul(4096), matmul(8192), attention(False), attention(True)),
    *(fp8_matmul(4096), fp8_matmul(8192)),
]


def label(config: Config) -> str:
    """What tells a config from the others of its row."""
    tile = "x".join(str(config[n]) for n in ("BM", "BN", "BK") if n in config)
    return f"{tile}, {config['num_warps']} warps, {config['num_stages']} stages"


# --- Launched -------------------------------------------------------------------------


def built(
    launch: Callable[..., None],
    configs: Sequence[Config],
    meta: Callable[..., torch.Tensor],
    inputs: Sequence[Any],
) -> list[TacticReport]:
    """What TensorRT would get of each config, in order.

    Raises:
        RuntimeError: two configs give the same code, so only one is kept.
    """
    configs = [dict(config) for config in configs]
    impl = tta.custom_plugin(tta.triton(launch, configs), meta_impl=meta)
    trt_plugins.custom_op("bench::op", impl=impl, supports_dynamic_shapes=True)
    target = None if torch.cuda.is_available() else TARGET
    try:
        report = tta.dry_run("bench::op", inputs, target, execute=False)
    finally:
        tta.unregister("bench::op")
    if (found := [tactic.config for tactic in report.tactics]) != configs:
        raise RuntimeError(f"of the configs {configs}, these are tactics: {found}")
    return list(report.tactics)


def as_launched(
    tactic: TacticReport, inputs: Sequence[torch.Tensor], out: torch.Tensor
) -> Launch:
    """A plain launch with TensorRT's arguments; hidden outputs hold NaNs at first."""
    shape = tactic.at(*(tuple(tensor.shape) for tensor in inputs))
    hidden = [
        torch.full(extents, -1, dtype=torch.int32, device="cuda")
        for extents in shape.hidden
    ]
    kernel = load(tactic)

    def launch() -> None:
        outputs = [tensor.data_ptr() for tensor in (out, *hidden)]
        kernel.launch(shape, [tensor.data_ptr() for tensor in inputs], outputs)

    return launch


def result(launch: Launch, out: torch.Tensor) -> torch.Tensor:
    out.fill_(float("nan"))
    launch()
    torch.cuda.synchronize()
    return out.clone()


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


def largest_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative to the element and to the root mean square together; NaN counts."""
    found, expected = found.float(), expected.float()
    scale = expected.abs() + expected.square().mean().sqrt()
    return float(((found - expected).abs() / scale).nan_to_num(torch.inf).max())


def interleaved(launches: Mapping[str, Launch]) -> dict[str, float]:
    """Median microseconds of each, with a cold L2 cache, in rounds of one launch each.

    Nothing waits for the GPU in between, so the time to launch is not measured: a
    launch is enqueued while the GPU writes, or runs what came before.
    """
    flushed = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    event = functools.partial(torch.cuda.Event, enable_timing=True)
    names, events = list(launches), {name: list[Any]() for name in launches}
    for launch in launches.values():
        launch()
    torch.cuda.synchronize()
    torch.cuda._sleep(20_000_000)  # about 10 ms, for the queue to fill
    order = random.Random(0)  # a launch is faster after one that takes less power
    for _ in range(ROUNDS):
        order.shuffle(names)
        for name in names:
            start, end = event(), event()
            flushed.zero_()
            start.record()
            launches[name]()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {
        name: 1e3 * statistics.median(start.elapsed_time(end) for start, end in pairs)
        for name, pairs in events.items()
    }


# --- Compared -------------------------------------------------------------------------


def compare(work: Work, figures: Figures) -> None:
    """All kernels of a work, in one run."""
    inputs = [torch.randn(s, device="cuda").to(dtype) for s, dtype in work.inputs]
    out = work.meta(*inputs)
    launches: dict[str, Launch] = {}
    expected = work.reference(*inputs)
    for name, peer in work.peers.items():
        try:
            peer(*inputs)
            launches[name] = functools.partial(peer, *inputs)
        except Exception as error:  # a peer that this torch does not have
            figures.note(f"{work.name}, {name}", error)
    tactics = iter(built(work.launch, work.configs, work.meta, inputs))
    rows = []
    for kind, configs in work.kernels.items():
        for config, tactic in zip(configs, tactics, strict=False):
            what = f"{work.name}, {kind}, {label(config)}"
            try:
                if tactic.error is not None:
                    raise RuntimeError(tactic.error)
                ours = as_launched(tactic, inputs, out)
                own = functools.partial(work.launch, *inputs, out, **config)
                found, owns = result(ours, out), result(own, out)
                error = largest_error(found, expected)
                row = {
                    "work": work.name,
                    "kernel": kind,
                    "config": label(config),
                    "bit_equal": same_bits(found, owns),
                    "max_error": error,
                    "own_max_error": largest_error(owns, expected),
                    "registers": tactic.registers,
                    "shared_memory": tactic.shared_memory,
                    "spills": tactic.spills,
                }
                rows.append(row)
                if error > work.tolerance:
                    raise RuntimeError(f"{error} from the reference")
                if not row["bit_equal"]:  # which is no reason not to time it
                    figures.failed[what] = f"not the bits of {OWN}"
                launches |= {what: ours, f"{what}, {OWN}": own}
            except Exception as error:  # the others are worth having
                figures.note(what, error)
    times = interleaved(launches)
    for row in rows:
        what = f"{row['work']}, {row['kernel']}, {row['config']}"
        row["us"], row["own_us"] = times.get(what), times.get(f"{what}, {OWN}")
    figures.kernels += rows
    peers = {name: times[name] for name in work.peers if name in times}
    for kind in work.kernels:
        timed = [row for row in rows if row["kernel"] == kind and row["us"]]
        if timed:
            best = min(timed, key=lambda row: row["us"])
            contest = Contest(
                f"{work.name}: {kind}",
                "TFLOP/s",
                work.operations,
                {row["config"]: row["us"] for row in timed},
                {OWN: best["own_us"], **peers},
            )
            figures.contests.append(contest)


# --- At many shapes -------------------------------------------------------------------

# M, N and K, the last two in units: eight elements where there are descriptors, whose
# rows must be multiples of 16 bytes; one where there are none.
SHAPES = [(1, 1, 1), (7, 3, 5), (129, 33, 9), (1001, 127, 65), (4111, 513, 513)]
MOST_ROWS, MOST_UNITS = 4112, 514


def dynamic_inputs(unit: int) -> list[torch_tensorrt.Input]:
    def profile(*axes: tuple[int, int, int]) -> torch_tensorrt.Input:
        names = ("min_shape", "opt_shape", "max_shape")
        shapes = dict(zip(names, zip(*axes, strict=True), strict=True))
        return torch_tensorrt.Input(**shapes, dtype=torch.float16)

    units, inside = (1, 64, MOST_UNITS), (unit,) * 3
    rows = (1, 1000, MOST_ROWS)
    return [profile(rows, units, inside), profile(units, inside, units, inside)]


def dynamic_meta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[0], b.shape[1])


def dynamic_tactic(kind: str) -> tuple[Config, int, TacticReport]:
    """One binary for all M, N and K; its config, and the unit of N and K."""
    config = WAYS[kind][0]
    unit = 1 if config["how"] == POINTERS else 8
    (tactic,) = built(launch_matmul, [config], dynamic_meta, dynamic_inputs(unit))
    return config, unit, tactic


def run_dynamic(kind: str, figures: Figures) -> None:
    config, unit, tactic = dynamic_tactic(kind)
    if tactic.error is not None:
        raise RuntimeError(tactic.error)
    for rows, columns, depth in SHAPES:
        a = torch.randn(rows, depth, unit, device="cuda").half()
        b = torch.randn(columns, unit, depth, unit, device="cuda").half()
        out = dynamic_meta(a, b)
        expected = a.flatten(1).float() @ b.flatten(2).flatten(0, 1).float().t()
        found = result(as_launched(tactic, [a, b], out), out)
        own = functools.partial(launch_matmul, a, b, out, **config)
        error = largest_error(found.flatten(1), expected)
        ran = {
            "kernel": kind,
            "config": label(config),
            "M, N, K": [rows, columns * unit, depth * unit],
            "bit_equal": same_bits(found, result(own, out)),
            "max_error": error,
        }
        figures.dynamic.append(ran)
        if not ran["bit_equal"] or error > 0.02:
            where = f"dynamic matmul, {kind}, {ran['M, N, K']}"
            figures.failed[where] = f"error {error}, same bits: {ran['bit_equal']}"


# --- The command ----------------------------------------------------------------------


def steps(figures: Figures) -> Iterator[tuple[str, Launch]]:
    for work in WORKS:
        yield work.name, functools.partial(compare, work, figures)
    for kind in WAYS:
        run = functools.partial(run_dynamic, kind, figures)
        yield f"dynamic matmul, {kind}", run


def compile_all(only: str) -> int:
    """Print what would be run; how many kernels are left out."""
    left_out = 0
    for work in WORKS:
        if only in work.name:
            inputs = [torch.empty(s, dtype=dtype) for s, dtype in work.inputs]
            for tactic in built(work.launch, work.configs, work.meta, inputs):
                said = tactic.error or f"{tactic.registers} registers"
                print(work.name, dict(tactic.config), said, flush=True)
                left_out += tactic.error is not None
    for kind in WAYS:
        if only in f"dynamic matmul, {kind}":
            _, _, tactic = dynamic_tactic(kind)
            print(f"dynamic matmul, {kind}", tactic.error or "compiled", flush=True)
            left_out += tactic.error is not None
    return left_out


def allocate(size: int, alignment: int, stream: Any) -> torch.Tensor:
    """Scratch memory, for Triton's own launches."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def main() -> None:
    if torch.cuda.is_available():
        triton.set_allocator(allocate)
    step_by_step(__doc__, compile_all, steps)


if __name__ == "__main__":
    main()
