# SPDX-License-Identifier: BSD-3-Clause

"""Compiling a recorded launch with Triton: the facts it gets, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import add_kernel, info, launch_add, launch_matmul, launch_silu
from packaging.version import Version
from triton.backends.nvidia.compiler import CUDABackend

from torch_tensorrt.annotation._code.ptx import Kind, parse, reorder
from torch_tensorrt.annotation._code.ptxas import assemble, settle
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._sizes.expressions import on_ints
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.backends.abi import require_launchable
from torch_tensorrt.annotation.backends.triton import compiler
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    DTypeError,
    TargetError,
    UnsupportedKernelError,
)

SM_90 = Target("sm_90")


def compiled(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Callable[..., Any] = lambda x, *rest: torch.empty_like(x),
    target: Target = SM_90,
    aligned: bool = True,
    **options: Any,
) -> CompiledKernel:
    triton_backend = backend("triton")
    program = record(triton_backend, launch_fn, meta, inputs)
    result = triton_backend.compile(program, target, options, aligned)
    require_launchable(program, result, target)
    return result


def facts_of_add(extent: int | Range, **keywords: Any) -> str:
    inputs = info(extent, dtype=torch.float32)
    return compiled(launch_add, inputs, inputs, **keywords).facts


def test_pointers_and_a_divisible_size_are_facts() -> None:
    facts = facts_of_add(4096)
    assert facts == "x_ptr%16 y_ptr%16 n%16 out_ptr%16"


def test_a_size_that_is_not_always_divisible_is_not_a_fact() -> None:
    assert facts_of_add(Range(16, 32, 64)) == "x_ptr%16 y_ptr%16 out_ptr%16"
    assert facts_of_add(4095) == "x_ptr%16 y_ptr%16 out_ptr%16"


def test_a_dynamic_size_with_a_divisible_factor_is_a_fact() -> None:
    inputs = info(Range(1, 2, 3), 48)
    assert "n%16" in compiled(launch_add, inputs, inputs).facts


def test_the_integer_one_is_compiled_in_as_tritons_jit_does() -> None:
    result = compiled(launch_add, info(1), info(1))
    assert "n=1" in result.facts
    assert result.extras == ()


def test_without_the_alignment_promise_no_pointer_is_divisible() -> None:
    assert facts_of_add(4096, aligned=False) == "n%16"


def test_the_hints_make_the_loads_wide() -> None:
    inputs = info(4096, dtype=torch.float32)
    wide = compiled(launch_add, inputs, inputs).code
    narrow = compiled(launch_add, inputs, inputs, aligned=False).code
    assert "ld.global.v4" in wide
    assert "ld.global.v4" not in narrow


@triton.jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["x_ptr"])
def plain_kernel(x_ptr, n, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def test_a_parameter_is_not_specialized_where_the_kernel_says_so() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        plain_kernel[(1,)](x, x.numel(), out, BLOCK=64)

    assert compiled(launch_fn, info(64)).facts == "out_ptr%16"
    assert len(compiled(launch_fn, info(1)).extras) == 1


def test_options_of_the_config_override_those_of_the_launch() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, 5, out, BLOCK=512, num_warps=2)

    assert compiled(launch_fn, info(64), info(64)).block == (64, 1, 1)
    assert compiled(launch_fn, info(64), info(64), num_warps=8).block == (256, 1, 1)


def test_the_register_limit_reaches_the_code() -> None:
    result = compiled(launch_silu, info(64), maxnreg=32)
    assert ".maxnreg 32" in result.code


@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.7"),
    reason="this Triton does not ask its hook for a key, and so assembles",
)
def test_triton_assembles_nothing_and_its_cache_stays_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def noted(source: Any, **keywords: Any) -> Any:
        calls.append((source, keywords))
        return triton.compile(source, **keywords)

    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(compiler, "triton_compile", noted)
    with monkeypatch.context() as patch:
        patch.setattr(CUDABackend, "make_cubin", None)
        assert compiled(launch_silu, info(64)).code
    ((source, keywords),) = calls
    # The same, compiled by somebody else, is not what was left in Triton's cache.
    assert triton.compile(source, **keywords).asm["cubin"].startswith(b"\x7fELF")
    assert triton.knobs.runtime.add_stages_inspection_hook is None


def test_the_ptx_version_is_set_at_the_source() -> None:
    result = compiled(launch_silu, info(64), target=Target("sm_80", ptx_isa="8.2"))
    assert parse(result.code).version == "8.2"


def settled(result: CompiledKernel, arch: str) -> str:
    code, _ = settle(result.code, arch, result.ptxas)
    return parse(code).target


def test_a_plain_architecture_is_kept_where_the_kernel_holds_to_it() -> None:
    assert settled(compiled(launch_silu, info(64)), "sm_90") == "sm_90"


def test_the_architecture_specific_one_can_be_asked_for() -> None:
    result = compiled(launch_silu, info(64), target=Target("sm_90a"))
    assert settled(result, "sm_90a") == "sm_90a"


def test_the_architecture_specific_one_is_used_where_the_kernel_needs_it() -> None:
    def launch_fn(a: Any, b: Any, c: Any) -> None:
        launch_matmul(a, b, c, BM=128, BN=128, BK=64)

    result = compiled(launch_fn, info(512, 512), info(512, 512), num_stages=1)
    assert "wgmma" in result.code
    assert settled(result, "sm_90") == "sm_90a"


def test_a_target_that_triton_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(TargetError, match=r"sm_99 is not one .* sm_80, .* sm_90"):
        compiled(launch_silu, info(64), target=Target("sm_99"))


def test_a_kernel_that_triton_refuses_is_named_with_target_and_options() -> None:
    with pytest.raises(CompileError, match=r"silu_kernel: .* sm_90 with .*num_warps=3"):
        compiled(launch_silu, info(64), num_warps=3)


def test_a_dtype_that_tensorrt_lacks_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"torch\.float64 has no counterpart"):
        compiled(launch_silu, info(64, dtype=torch.float64))


@triton.jit
def descriptor_kernel(x_ptr, out_ptr, M, N, B: tl.constexpr):
    source = tl.make_tensor_descriptor(x_ptr, [M, N], [N, 1], [B, B])
    target = tl.make_tensor_descriptor(out_ptr, [M, N], [N, 1], [B, B])
    target.store([0, 0], source.load([0, 0]))


def launch_descriptors(x: Any, out: Any) -> None:
    triton.set_allocator(lambda size, alignment, stream: torch.empty(size))
    descriptor_kernel[(1,)](x, out, 64, 64, B=64)


def test_descriptors_that_a_kernel_makes_take_scratch_memory() -> None:
    result = compiled(launch_descriptors, info(64, 64))
    assert result.scratch == (2 * 128,)
    (index,) = (i for i, s in enumerate(result.slots) if s.kind is Kind.SCRATCH)
    names = [parameter.name for parameter in parse(result.code).parameters]
    assert f"[{names[index]}]" in result.code


def test_scratch_memory_of_a_larger_alignment_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "SCRATCH_ALIGNMENT", 64)
    with pytest.raises(UnsupportedKernelError, match=r"aligned to 128 .* is to 64"):
        compiled(launch_descriptors, info(64, 64))


def launch_clusters(x: Any, y: Any, out: Any, num_ctas: int = 2) -> None:
    grid = (triton.cdiv(x.numel(), 512), 3)
    add_kernel[grid](x, y, x.numel(), out, BLOCK=512, num_ctas=num_ctas)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_grid_has_a_cluster_of_blocks_for_each_program(size: int) -> None:
    inputs = info(Range(1, 5, 9), 500)
    result = compiled(partial(launch_clusters, num_ctas=size), inputs, inputs)
    assert result.cluster == parse(result.code).cluster == (size, 1, 1)
    assert [on_ints(n)({symbol(0, 0): 9}) for n in result.grid] == [9 * size, 3, 1]


def test_a_cluster_of_more_than_8_blocks_is_refused() -> None:
    with pytest.raises(
        UnsupportedKernelError,
        match="add_kernel: it is launched in clusters of 16x1x1 blocks; 8 are possible",
    ):
        compiled(partial(launch_clusters, num_ctas=16), info(64), info(64))


def test_a_cluster_is_refused_before_hopper() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"sm_89 does not have: Hopper"):
        compiled(launch_clusters, info(64), info(64), target=Target("sm_89"))


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("launch_cooperative_grid", "cooperative"),
        ("launch_pdl", "programmatic dependent"),
    ],
)
def test_a_cooperative_or_dependent_launch_is_refused(option: str, kind: str) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, 5, out, BLOCK=512, **{option: True})

    with pytest.raises(UnsupportedKernelError, match=f"it is a {kind} launch"):
        compiled(launch_fn, info(64), info(64))


def launch_large_matmul(a: Any, b: Any, c: Any) -> None:
    launch_matmul(a, b, c, BM=128, BN=128, BK=64)


def test_over_48_kib_of_shared_memory_take_a_driver_of_cuda_13() -> None:
    inputs = info(512, 512), info(512, 512)
    with pytest.raises(
        UnsupportedKernelError,
        match=r"131072 bytes .* CUDA 13\.0 or newer .* take PTX ISA 8\.8",
    ):
        target = Target("sm_90", ptx_isa="8.8")
        compiled(launch_large_matmul, *inputs, target=target, num_stages=4)
    target = Target("sm_90", ptx_isa="9.0")
    result = compiled(launch_large_matmul, *inputs, target=target, num_stages=4)
    assert result.shared_memory == 131072


def test_the_limit_of_shared_memory_can_be_raised() -> None:
    target = Target("sm_90", max_shared_memory=228 * 1024)
    inputs = info(512, 512)
    result = compiled(launch_large_matmul, inputs, inputs, target=target, num_stages=4)
    assert result.shared_memory > 49152


def test_a_runtime_size_that_can_pass_32_bits_is_refused() -> None:
    inputs = info(Range(1, 2, 2**20), 4096)
    with pytest.raises(ArgumentError, match=r"`n`: 4096\*d0_0 reaches 4294967296"):
        compiled(launch_add, inputs, inputs)


@triton.jit
def large_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def test_a_constant_that_passes_32_bits_is_compiled_in() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        large_kernel[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), BLOCK=64)

    result = compiled(launch_fn, info(2**20, 4096))
    assert result.extras == ()
    assert f"n={2**32}" in result.facts


@triton.jit
def wide_kernel(x_ptr, n: tl.int64, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def launch_wide(x: Any, out: Any) -> None:
    wide_kernel[(1,)](x, x.numel(), out, BLOCK=64)


@pytest.mark.parametrize("extent", [64, Range(1, 2, 64)], ids=str)
def test_a_64_bit_parameter_takes_a_size_of_32_bits(extent: int | Range) -> None:
    result = compiled(launch_wide, info(extent))
    assert len(result.extras) == 1
    assert [p.type for p in parse(result.code).parameters][:3] == ["u64"] * 3
    code = reorder(result.code, result.slots, (1, 1, 1), "k")
    assert [p.type for p in parse(code).parameters] == ["u64", "u32", "u64"]
    assemble(code, result.ptxas, "sm_90a")


@triton.jit
def scalars_kernel(x_ptr, factor, negate, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets) * factor
    tl.store(out_ptr + offsets, tl.where(negate, -x, x))


def launch_scalars(x: Any, out: Any) -> None:
    scalars_kernel[(1,)](x, 0.1, True, out, BLOCK=64)


def test_a_float_is_passed_as_the_bits_of_the_32_bit_value_the_jit_passes() -> None:
    factor, negate = compiled(launch_scalars, info(64)).extras
    assert int(factor) == 0x3DCCCCCD  # 0.1 in IEEE 754 binary32
    assert int(negate) == 1


def test_a_float_keeps_the_arithmetic_that_the_jit_compiles() -> None:
    """As a compile-time constant it would take the type of what it multiplies."""
    code = compiled(launch_scalars, info(64)).code
    assert "mul.f32" in code
    assert "mul.f16" not in code


def test_an_integer_given_to_a_float_parameter_is_a_float() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        annotated_kernel[(1,)](x, 3, out, BLOCK=64)

    (factor,) = compiled(launch_fn, info(64)).extras
    assert int(factor) == 0x40400000  # 3.0


@triton.jit
def annotated_kernel(x_ptr, factor: tl.float32, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets) * factor)


@triton.jit
def half_kernel(x_ptr, factor: tl.float16, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets) * factor)


def test_a_scalar_of_a_type_that_cannot_be_passed_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        half_kernel[(1,)](x, 0.5, out, BLOCK=64)

    with pytest.raises(ArgumentError, match="`factor`: declared as fp16, and given"):
        compiled(launch_fn, info(64))
