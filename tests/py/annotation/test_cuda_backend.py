# SPDX-License-Identifier: BSD-3-Clause

"""Kernels in CUDA C++ and PTX: recorded, compiled for every target, and cached."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_elsewhere import as_inputs
from cuda_kernels import CUDA_CASES, LARGE_TILES, SOURCE, cdiv, launch_gemm
from cuda_tools import needs_nvrtc
from kernels import Case, info

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._tensors import Range
from torch_tensorrt.annotation.errors import ArgumentError, UnsupportedKernelError

pytestmark = needs_nvrtc

N = Range(990, 1000, 1010)
NEWEST = "sm_90,cuda=13.4"  # a driver that takes all that NVRTC emits
VECTOR = (info(N, dtype=torch.float32),)


def tactics(
    spec: Any, inputs: Sequence[Any] = VECTOR, target: str = NEWEST
) -> list[Any]:
    """The tactics of an op with this spec, whose output is like its input."""
    plugin = tta.custom_plugin(spec, lambda x: torch.empty_like(x))
    trt_plugins.custom_op("cu::op", impl=plugin, supports_dynamic_shapes=True)
    report = tta.dry_run("cu::op", as_inputs(inputs), target=target, execute=False)
    tta.unregister("cu::op")
    return list(report.tactics)


ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(each, marks=[] if each == "sm_90" else pytest.mark.slow)
        for each in ARCHITECTURES
    ],
)
@pytest.mark.parametrize("case", CUDA_CASES, ids=lambda case: case.name)
def test_every_case_compiles(case: Case, architecture: str) -> None:
    trt_plugins.custom_op(
        f"cu::{case.name}", impl=case.plugin, supports_dynamic_shapes=True
    )
    inputs = as_inputs(case.dynamic)
    report = tta.dry_run(f"cu::{case.name}", inputs, target=architecture)
    assert [tactic.error for tactic in report.tactics] == [None] * case.count
    assert all(f".target {architecture}" in t.code for t in report.tactics)
    assert all(t.registers > 0 for t in report.tactics), "ptxas has assembled it"


def test_configs_become_macros_template_arguments_and_directives() -> None:
    kernel = tta.CUDAKernel(SOURCE, "shifted<{T}, {K}>")

    def launch(x, out, BLOCK=128, K=1):
        n = x.numel()
        kernel((cdiv(n, BLOCK),), BLOCK, (x, out, n, 0.5), T=x.dtype, K=K)

    configs = [{"K": 1}, {"K": 2}, {"K": 2, "BLOCK": 256, "maxnreg": 32}]
    first, second, third = tactics(tta.cuda(launch, [*configs, {"min_blocks": 4}]))[:3]
    assert first.code.split(first.entry)[1] != second.code.split(second.entry)[1]
    assert ".maxnreg 32" in third.code
    assert third.at((1000,)).block == (256, 1, 1)
    assert third.at((1000,)).grid == (4, 1, 1)
    assert third.at((1000,)).extras == (1000, 0x3F000000)


def test_ready_ptx_is_launched_as_it_is(tmp_path: Path) -> None:
    source = tta.CUDAKernel(SOURCE, "scaled")

    def launch(x, out):
        source((cdiv(x.numel(), 128),), (128,), (x, out, x.numel(), 3))

    (of_source,) = tactics(tta.cuda(launch))
    # In TensorRT's order, and with integers for floats.
    text = of_source.code.replace(of_source.entry, "scaled")
    text = text.replace(".param .u32 scaled_param_3", ".param .f32 scaled_param_3")
    path = tmp_path / "scaled.ptx"
    path.write_text(text)

    def launch_ptx(kernel, x, out):
        n = x.numel()
        kernel((cdiv(n, 64),), (64,), (x, n, 3.0, out))

    for given in (text, path, str(path)):
        (tactic,) = tactics(tta.ptx(given, "scaled", launch_ptx))
        assert tactic.error is None
        assert tactic.at((1000,)).grid == (16, 1, 1)
        assert tactic.at((1000,)).extras == (1000, 0x40400000)


def test_more_than_48_kib_of_dynamic_shared_memory_is_static() -> None:
    inputs = info(256, 64), info(256, 64)
    spec = tta.cuda(launch_gemm, configs=[LARGE_TILES])
    plugin = tta.custom_plugin(spec, lambda a, b: a.new_empty(a.shape[0], b.shape[0]))
    trt_plugins.custom_op("cu::op", impl=plugin)
    report = tta.dry_run("cu::op", as_inputs(inputs), target="sm_90,cuda=13.0")
    (tactic,) = report.tactics
    assert tactic.error is None
    assert tactic.shared_memory == 65536
    assert tactic.shapes[0].shared_memory == 0


def test_constants_beyond_32_bits_and_doubles_are_compiled_in() -> None:
    kernel = tta.CUDAKernel(
        """
        extern "C" __global__ void k(
            const float* x, float* out, size_t n, double by, const float* bias) {
          size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
          if (i < n && i < 1000) out[i] = x[i] * by + (bias ? bias[i] : 0.0f);
        }
        """,
        "k",
    )

    def launch(x, out):
        kernel((cdiv(x.numel(), 128),), (128,), (x, out, 2**40, 0.1, None))

    (tactic,) = tactics(tta.cuda(launch))
    assert tactic.at((1000,)).extras == ()
    assert f"{2**40};" in tactic.code
    assert "0d3FB999999999999A" in tactic.code


def test_a_changed_header_is_compiled_anew(tmp_path: Path, fresh_cache: Path) -> None:
    inner = tmp_path / "inner.cuh"
    (tmp_path / "outer.cuh").write_text('#include "inner.cuh"\n')
    source = tmp_path / "kernel.cu"
    source.write_text(f'#include "outer.cuh"\n{SOURCE.replace("* by", "* by + ADDED")}')
    kernel = tta.CUDAKernel(source, "scaled")

    def launch(x, out):
        kernel((cdiv(x.numel(), 128),), (128,), (x, out, x.numel(), 1.0))

    codes = []
    for added in ("1.0f", "2.0f", "1.0f"):
        inner.write_text(f"#define ADDED {added}\n")
        (tactic,) = tactics(tta.cuda(launch))
        codes.append(tactic.code.replace(tactic.entry, ""))
    assert codes[0] == codes[2] != codes[1]
    assert "0f40000000" in codes[1]
    assert len(list(fresh_cache.rglob("*.json*"))) == 2


def test_an_unsigned_number_keeps_its_bits() -> None:
    source = """extern "C" __global__ void sized(
        const float* x, float* out, unsigned p, unsigned long long q) {
        out[threadIdx.x] = x[threadIdx.x] + (q ^ p);
    }"""
    kernel = tta.CUDAKernel(source, "sized")

    def launch(x, out):
        kernel((1,), (x.numel(),), (x, out, 3_000_000_000, 2**63 + 5))

    (tactic,) = tactics(tta.cuda(launch), [info(64, dtype=torch.float32)])
    assert tactic.at((64,)).extras == (3_000_000_000 - 2**32,)
    assert str(5 - 2**63) in tactic.code


# --- Other libraries' kernels ---------------------------------------------------------


@functools.cache
def by_torch(name: str) -> Any:
    return torch.cuda._compile_kernel(SOURCE, name, nvcc_options=["--fmad=false"])


def test_torchs_kernels_may_be_cached_between_recordings() -> None:
    def launch(x, out):
        n = x.numel()
        kernel = by_torch("shifted<float, 4>")
        kernel.set_shared_memory_config(0)
        kernel((cdiv(n, 128), 1, 1), (128, 1, 1), [x, out, n, 0.5])

    declares_double = SOURCE.replace("unsigned long long n, float", "int n, double")

    def launch_double(x, out):
        n = x.numel()
        kernel = torch.cuda._compile_kernel(declares_double, "shifted<float, 4>")
        kernel((cdiv(n, 128), 1, 1), (128, 1, 1), [x, out, n, 0.5])

    (tactic,) = tactics(tta.cuda(launch_double))
    assert tactic.error is None
    assert tactic.at((1000,)).extras == (1000,)
    with pytest.raises(ArgumentError, match="torch passes it as int32, 4 bytes"):
        tactics(tta.cuda(launch))


def test_a_kernel_of_cuda_core_is_one_for_the_target() -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    import cuda_core_kernels as kernels

    def names() -> tuple[Any, ...]:
        found = ("Device", "LaunchConfig", "Program", "launch", "np", "ctypes")
        return tuple(getattr(kernels, name) for name in found)

    before = names()
    spec = tta.cuda(kernels.launch_cached, [{"K": 3}, {"K": 4}])
    found = tactics(spec, target="sm_100,cuda=13.4")
    assert [tactic.error for tactic in found] == [None, None]
    assert found[0].at((1000,)).extras == (1000, 0x3F000000)
    assert "sm_100" in found[0].code
    (tactic,) = tactics(tta.cuda(kernels.launch_plain))
    assert tactic.at((1000,)).grid == (16, 1, 1)
    assert names() == before
    assert kernels.compiled.cache_info().currsize == 0  # nothing made up is left
    with pytest.raises(UnsupportedKernelError, match="launched with is_cooperative"):
        tactics(tta.cuda(kernels.launch_cooperative))


def test_kernels_of_cupy_keep_their_source() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    import cupy_kernels as kernels

    for function in (kernels.launch_raw, kernels.launch_module):
        (tactic,) = tactics(tta.cuda(function))
        assert tactic.error is None
        assert tactic.at((1000,)).extras == (1000, 0x40400000)
        assert ".rn.ftz.f32" in tactic.code  # as CuPy compiles
    assert type(kernels.raw).__name__ == "RawKernel"
