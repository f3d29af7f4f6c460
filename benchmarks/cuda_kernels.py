# SPDX-License-Identifier: BSD-3-Clause

"""Kernels in CUDA C++, as an engine launches them and as their users do.

    python benchmarks/cuda_kernels.py [--json FILE] [--only WORD]

With a GPU: kernels of the tests at full size, launched as TensorRT would, beside the
launch functions themselves, in which torch, ``cuda.core`` or CuPy compiles and launches
the kernel, or CUDAKernel where that library is not installed. Results are compared bit
by bit. What fails is printed and noted, the rest goes on, and the exit
status is 1.

Without: the same kernels are compiled.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import OWN, PROJECT, Contest, Figures, step_by_step
from hardware import as_launched, interleaved, largest_error, result

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation.backends.cuda.nvrtc import toolkit_headers

try:
    import cuda.core as core
except ImportError:
    core = None
try:
    import cupy
except ImportError:
    cupy = None

TARGET = "sm_90,cuda=13.0"  # without a GPU

Config = Mapping[str, Any]


def of_tests() -> Any:
    """The tests' module of kernels, which has the name of this one."""
    path = PROJECT / "tests" / "py" / "annotation" / "cuda_kernels.py"
    spec = importlib.util.spec_from_file_location("kernels_in_cuda", path)
    assert spec is not None and spec.loader is not None, "the file is there"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


kernels = of_tests()


# --- The same source, compiled and launched by a library, as its users do it ----------


@functools.cache
def compiled_by_core(kernel: tta.CUDAKernel, arch: str, **keywords: Any) -> Any:
    code = kernel.code(keywords)
    folders = [*code.folders, *(str(folder) for folder, _ in toolkit_headers())]
    options = core.ProgramOptions(arch=f"sm_{arch}", std="c++17", include_path=folders)
    program = core.Program(code.text, "c++", options)
    compiled = program.compile("cubin", name_expressions=(code.name,))
    return compiled.get_kernel(code.name)


@functools.cache
def compiled_by_cupy(kernel: tta.CUDAKernel, **keywords: Any) -> Any:
    code = kernel.code(keywords)
    folders = [*code.folders, *(str(folder) for folder, _ in toolkit_headers())]
    options = ("-std=c++17", *(f"-I{folder}" for folder in folders))
    module = cupy.RawModule(
        code=code.text, options=options, name_expressions=(code.name,)
    )
    return module.get_function(code.name)


def sized(value: Any) -> Any:
    """An argument as these libraries take it: an address, and numbers of 32 bits."""
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    return np.float32(value) if isinstance(value, float) else np.int32(value)


def by_core(launch: Callable[..., None], name: str) -> Callable[..., None]:
    """A launch function whose kernel ``cuda.core`` compiles and launches."""
    kernel = launch.__globals__[name]

    def call(grid: Any, block: Any, args: Any, shared_mem: Any = 0, **how: Any) -> None:
        device = core.Device()
        device.set_current()
        compiled = compiled_by_core(kernel, device.arch, **how)
        config = core.LaunchConfig(grid=grid, block=block, shmem_size=shared_mem)
        core.launch(device.default_stream, config, compiled, *map(sized, args))

    return with_kernel(launch, name, call) if core else launch


def by_cupy(launch: Callable[..., None], name: str) -> Callable[..., None]:
    """A launch function whose kernel CuPy compiles and launches."""
    kernel = launch.__globals__[name]

    def call(grid: Any, block: Any, args: Any, shared_mem: Any = 0, **how: Any) -> None:
        compiled = compiled_by_cupy(kernel, **how)
        if shared_mem > 48 * 1024:
            compiled.max_dynamic_shared_size_bytes = shared_mem
        compiled(grid, block, tuple(map(sized, args)), shared_mem=shared_mem)

    return with_kernel(launch, name, call) if cupy else launch


def with_kernel(
    launch: Callable[..., None], name: str, kernel: Any
) -> Callable[..., None]:
    """A function with another kernel under this name."""
    names = {**launch.__globals__, name: kernel}
    return types.FunctionType(
        launch.__code__, names, launch.__name__, launch.__defaults__
    )


# --- Works ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a kernel computes.

    Attributes:
        library: that compiles and launches it.
        amount: bytes moved, or operations, and the unit of the rate.
        inputs: extents and dtype of each.
        tolerance: of an error, relative to the element and the root mean square.
    """

    name: str
    library: str
    amount: tuple[int, str]
    inputs: Sequence[tuple[tuple[int, ...], torch.dtype]]
    meta: Callable[..., torch.Tensor]
    launch: Callable[..., None]
    configs: Sequence[Config]
    reference: Callable[..., torch.Tensor]
    tolerance: float

    def tensors(self, device: str) -> list[torch.Tensor]:
        """Random inputs; integers over all of their range."""
        return [
            torch.randn(shape, device=device).to(dtype)
            if dtype.is_floating_point
            else torch.randint(-128, 128, shape, dtype=dtype, device=device)
            for shape, dtype in self.inputs
        ]


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, 1e-6)


def dequantized(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (values.float() * scales[:, None] + 0.5).half()


FULL = (8192, 8192)
COUNT = FULL[0] * FULL[1]
BLOCKS: list[Config] = [{"BLOCK": 256}, {"BLOCK": 512}]

WORKS = [
    Work(
        "add fp32",
        "torch",
        (12 * COUNT, "TB/s"),
        [(FULL, torch.float32)] * 2,
        lambda x, y: torch.empty_like(x),
        kernels.launch_add,
        BLOCKS,
        torch.add,
        1e-6,
    ),
    Work(
        "RMS norm fp16",
        "cuda.core",
        (4 * COUNT, "TB/s"),
        [(FULL, torch.float16), (FULL[1:], torch.float16)],
        lambda x, weight: torch.empty_like(x),
        by_core(kernels.launch_rms_norm, "rms_norm"),
        BLOCKS,
        rms_norm,
        0.01,
    ),
    Work(
        "matmul fp16, 4096^3",
        "CuPy",
        (2 * 4096**3, "TFLOP/s"),
        [((4096, 4096), torch.float16)] * 2,
        lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        by_cupy(kernels.launch_gemm, "gemm"),
        [kernels.SMALL_TILES, kernels.LARGE_TILES],
        lambda a, b: a @ b.t(),
        0.02,
    ),
    Work(
        "dequantize int8",
        "CuPy",
        (3 * COUNT, "TB/s"),
        [(FULL, torch.int8), (FULL[:1], torch.float32)],
        lambda values, scales: torch.empty_like(values, dtype=torch.float16),
        by_cupy(kernels.launch_dequantize, "dequantize"),
        BLOCKS,
        dequantized,
        0.01,
    ),
    Work(
        "silu fp32, with headers",
        "cuda.core",
        (8 * COUNT, "TB/s"),
        [(FULL, torch.float32)],
        lambda x: torch.empty_like(x),
        by_core(kernels.launch_silu, "silu"),
        BLOCKS,
        torch.nn.functional.silu,
        1e-5,
    ),
]


def built(work: Work, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """What TensorRT would get of each config, in order.

    Raises:
        RuntimeError: two configs give the same code, so only one is kept.
    """
    spec = tta.cuda(work.launch, configs=list(work.configs))
    impl = tta.custom_plugin(spec, meta_impl=work.meta)
    trt_plugins.custom_op("bench::op", impl=impl, supports_dynamic_shapes=True)
    target = None if torch.cuda.is_available() else TARGET
    try:
        report = tta.dry_run("bench::op", inputs, target, execute=False)
    finally:
        tta.unregister("bench::op")
    if (found := [t.config for t in report.tactics]) != list(map(dict, work.configs)):
        raise RuntimeError(f"of the configs {work.configs}, these are tactics: {found}")
    return list(report.tactics)


def label(config: Config) -> str:
    return ", ".join(f"{name}={value}" for name, value in config.items())


def compare(work: Work, figures: Figures) -> None:
    """All configs of a work, in one run."""
    inputs = work.tensors("cuda")
    out, expected = work.meta(*inputs), work.reference(*inputs)
    is_installed = {"torch": torch, "cuda.core": core, "CuPy": cupy}[work.library]
    launches: dict[str, Callable[[], object]] = {
        "torch": functools.partial(work.reference, *inputs)
    }
    rows = []
    for config, tactic in zip(work.configs, built(work, inputs), strict=True):
        what = f"{work.name}, {label(config)}"
        try:
            if tactic.error is not None:
                raise RuntimeError(tactic.error)
            ours = as_launched(tactic, inputs, out)
            own = functools.partial(work.launch, *inputs, out, **config)
            found, owns = result(ours, out), result(own, out)
            error = largest_error(found, expected)
            if error > work.tolerance:
                raise RuntimeError(f"{error} from the reference")
            is_equal = torch.equal(found.view(torch.uint8), owns.view(torch.uint8))
            if not is_equal:  # which is no reason not to time it
                figures.failed[what] = f"not the bits of {OWN}"
            rows.append(
                {
                    "work": work.name,
                    "kernel": tactic.entry,
                    "config": label(config),
                    "own_launch": work.library if is_installed else "CUDAKernel",
                    "bit_equal": is_equal,
                    "max_error": error,
                    "registers": tactic.registers,
                    "shared_memory": tactic.shared_memory,
                    "spills": tactic.spills,
                }
            )
            launches |= {what: ours, f"{what}, {OWN}": own}
        except Exception as error:  # the others are worth having
            figures.note(what, error)
    times = interleaved(launches)
    for row in rows:
        what = f"{row['work']}, {row['config']}"
        row["us"], row["own_us"] = times[what], times[f"{what}, {OWN}"]
    figures.kernels += rows
    if rows:
        best = min(rows, key=lambda row: row["us"])
        contest = Contest(
            work.name,
            work.amount[1],
            work.amount[0],
            {row["config"]: row["us"] for row in rows},
            {OWN: best["own_us"], "torch": times["torch"]},
        )
        figures.contests.append(contest)


def compile_all(only: str) -> int:
    """Print what would be run; how many kernels are left out."""
    left_out = 0
    for work in WORKS:
        if only in work.name:
            for tactic in built(work, work.tensors("meta")):
                said = tactic.error or f"{tactic.registers} registers"
                print(work.name, dict(tactic.config), said, flush=True)
                left_out += tactic.error is not None
    return left_out


def steps(figures: Figures) -> Iterator[tuple[str, Callable[[], None]]]:
    for work in WORKS:
        yield work.name, functools.partial(compare, work, figures)


if __name__ == "__main__":
    step_by_step(__doc__, compile_all, steps)
