# SPDX-License-Identifier: BSD-3-Clause

"""What TensorRT cannot launch of CuTe DSL's launchers is refused, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass
import cutlass.cute as cute
from cutedsl_tools import (
    compiled,
    copy_kernel,
    launch_copy,
)  # fmt: skip
from cutlass.cute.runtime import from_dlpack
from kernels import info

from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    UnsupportedKernelError,
)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cluster": (1, 3, 3)}, "launched in clusters of 1x3x3 blocks; 8 are"),
        ({"cooperative": True}, "a cooperative launch"),
        ({"smem": 232449}, r"asks for 232449 bytes .*; sm_90 has 232448\."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_special_launch_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedKernelError, match=f"launch_copy.*{reason}"):
        compiled(launch_copy, info(64), **options)


def test_a_launch_that_may_begin_early_is_a_plain_one() -> None:
    early = compiled(launch_copy, info(64), use_pdl=True)
    assert replace(early, code="") == replace(compiled(launch_copy, info(64)), code="")


def test_the_shape_of_clusters_is_that_of_the_launch() -> None:
    for size in (2, 8):
        result = compiled(launch_copy, info(128 * size), cluster=(size, 1, 1))
        assert result.cluster == (size, 1, 1)
    assert compiled(launch_copy, info(256)).cluster == (1, 1, 1)


@pytest.mark.parametrize("extent", [128, 3 * 128, Range(1, 200, 500)])
def test_a_grid_that_is_not_a_multiple_of_the_cluster_is_refused(extent: Any) -> None:
    with pytest.raises(ArgumentError, match=r"grid's x, .* a multiple of 2 at every"):
        compiled(launch_copy, info(extent), cluster=(2, 1, 1))


def test_over_48_kib_of_shared_memory_take_a_driver_of_cuda_13() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"CUDA 13\.0 .* PTX ISA 8\.8"):
        target = Target("sm_90", ptx_isa="8.8")
        compiled(launch_copy, info(64), smem=49153, target=target)
    for size, isa in {49152: "8.8", 232448: "9.0"}.items():
        target = Target("sm_90", ptx_isa=isa)
        result = compiled(launch_copy, info(64), smem=size, target=target)
        assert result.shared_memory == size


def test_the_limit_of_shared_memory_can_be_raised() -> None:
    target = Target("sm_90", max_shared_memory=100_000)
    result = compiled(launch_copy, info(64), smem=50000, target=target)
    assert result.shared_memory == 50000


@cute.jit
def launch_two(x: cute.Tensor, out: cute.Tensor):
    copy_kernel(x, out, 1).launch(grid=(1, 1, 1), block=(128, 1, 1))
    copy_kernel(x, out, 2).launch(grid=(1, 1, 1), block=(128, 1, 1))


@cute.jit
def launch_none(x: cute.Tensor, out: cute.Tensor):
    pass


def test_a_launcher_of_several_kernels_or_none_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match="launches 2 kernels"):
        compiled(launch_two, info(64))
    with pytest.raises(UnsupportedKernelError, match="launches no kernel"):
        compiled(launch_none, info(64))


@cute.jit
def launch_either(x: cute.Tensor, out: cute.Tensor):
    n = cute.size(x)
    if n > 100:
        copy_kernel(x, out, n).launch(grid=(1, 1, 1), block=(128, 1, 1))
    else:
        copy_kernel(x, out, n).launch(grid=(1, 1, 1), block=(64, 1, 1))


def test_control_flow_on_a_dynamic_size_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"branches on d0_0 > 100"):
        compiled(launch_either, info(Range(1, 50, 200)))


def test_of_two_kernels_the_one_that_the_profile_decides_for_is_kept() -> None:
    for extents, width in {(1, 50, 100): 64, (101, 150, 200): 128}.items():
        result = compiled(launch_either, info(Range(*extents)))
        assert result.block == (width, 1, 1)
        assert result.code.count(".visible .entry") == 1
        assert f".reqntid {width}" in result.code
    assert compiled(launch_either, info(50)).block == (64, 1, 1)


@cute.jit
def launch_chosen_grid(x: cute.Tensor, out: cute.Tensor):
    n = cute.size(x)
    blocks = n
    if n > 100:
        blocks = n // 2
    copy_kernel(x, out, n).launch(grid=(blocks, 1, 1), block=(128, 1, 1))


def test_a_grid_that_follows_a_branch_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"grid is a choice by d0_0 > 100"):
        compiled(launch_chosen_grid, info(Range(1, 50, 200)))
    grid = compiled(launch_chosen_grid, info(Range(101, 150, 200))).grid
    assert [size.xreplace({symbol(0, 0): 151}) for size in grid] == [75, 1, 1]


@cute.jit
def launch_clamped_grid(x: cute.Tensor, out: cute.Tensor):
    n = cute.size(x)
    grid = (cutlass.max(n, 32), cutlass.min(n, 7), 1)
    copy_kernel(x, out, n).launch(grid=grid, block=(128, 1, 1))


def test_a_maximum_or_minimum_is_a_grid() -> None:
    grid = compiled(launch_clamped_grid, info(Range(1, 50, 200))).grid
    for extent, expected in {5: (32, 5, 1), 100: (100, 7, 1)}.items():
        rule = {symbol(0, 0): extent}
        assert tuple(int(size.subs(rule)) for size in grid) == expected


@cute.jit
def launch_sized_block(x: cute.Tensor, out: cute.Tensor):
    n = cute.size(x)
    copy_kernel(x, out, n).launch(grid=(1, 1, 1), block=(n, 1, 1))


@pytest.mark.filterwarnings("ignore:Dynamic variable in block size")
def test_a_block_that_follows_the_shape_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"block follows the shape \(d0_0"):
        compiled(launch_sized_block, info(Range(1, 50, 200)))
    with pytest.raises(UnsupportedKernelError, match="1024 at most"):
        compiled(launch_sized_block, info(1025))


@cute.jit
def launch_deep_block(x: cute.Tensor, out: cute.Tensor):
    copy_kernel(x, out, cute.size(x)).launch(grid=(1, 1, 1), block=(1, 1, 128))


def test_a_block_that_is_too_deep_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"1x1x128 = 128 .* 64 along z"):
        compiled(launch_deep_block, info(50))


@pytest.mark.parametrize("block", [(1024, 1, 1), (1, 1024, 1), (2, 2, 64)], ids=str)
def test_a_block_that_cute_dsl_compiles_wrongly_is_refused(
    block: tuple[int, int, int],
) -> None:
    @cute.jit
    def launch(x: cute.Tensor, out: cute.Tensor):
        copy_kernel(x, out, cute.size(x)).launch(grid=(1, 1, 1), block=block)

    with pytest.raises(UnsupportedKernelError, match="the most there can be"):
        compiled(launch, info(50))


def test_a_tensor_whose_offsets_pass_32_bits_is_refused() -> None:
    for extent in (Range(1, 2, 2**20), 2**20):
        with pytest.raises(ArgumentError, match="`x`: a tensor of up to 4294967296"):
            compiled(launch_copy, info(extent, 4096))


@cute.jit
def launch_wide_number(x: cute.Tensor, out: cute.Tensor):
    n = cute.size(x)
    copy_kernel(x, out, n * n * n).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_a_number_that_can_pass_32_bits_is_refused() -> None:
    with pytest.raises(
        UnsupportedKernelError, match=r"d0_0\*\*3, which reaches 8000000"
    ):
        compiled(launch_wide_number, info(Range(1, 50, 2000)))


@cute.jit
def launch_narrow_number(x: cute.Tensor, out: cute.Tensor, n: cutlass.Int8):
    copy_kernel(x, out, cutlass.Int32(n)).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_a_number_must_fit_the_type_that_the_launcher_declares() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_narrow_number(x, out, x.shape[0])

    assert compiled(launch, info(Range(1, 50, 127))).extras == (symbol(0, 0),)
    with pytest.raises(ArgumentError, match=r"`n`: d0_0 leaves the range of Int8"):
        compiled(launch, info(Range(1, 50, 128)))


@cute.kernel
def wide_kernel(x: cute.Tensor, out: cute.Tensor, n: cutlass.Int64):
    thread, _, _ = cute.arch.thread_idx()
    if thread < n:
        out[thread] = x[thread]


@cute.jit
def launch_very_wide_number(x: cute.Tensor, out: cute.Tensor):
    n = cutlass.Int64(cute.size(x))
    wide_kernel(x, out, n * n * n).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_a_number_of_64_bits_is_passed_in_32_if_it_fits() -> None:
    with pytest.raises(ArgumentError, match=r"d0_0\*d0_0\*d0_0 reaches 8000000000"):
        compiled(launch_very_wide_number, info(Range(1, 50, 2000)))
    result = compiled(launch_very_wide_number, info(Range(1, 50, 1000)))
    assert result.extras == (symbol(0, 0) ** 3,)
    assert "ld.param.s32 %rd" in result.code


@cute.jit
def launch_offset(x: cute.Tensor, out: cute.Tensor):
    shifted = cute.domain_offset((4,), x)
    copy_kernel(shifted, out, 1).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_an_address_within_a_tensor_is_refused() -> None:
    with pytest.raises(
        UnsupportedKernelError, match="an address 8 bytes into a tensor"
    ):
        compiled(launch_offset, info(64))


def test_the_memory_behind_a_handle_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        from_dlpack(x).__c_pointers__()

    with pytest.raises(ArgumentError, match=r"handle \(__c_pointers__\), to write"):
        compiled(launch, info(64))


@cute.jit
def launch_of_dynamic_extents(x: cute.Tensor, out: cute.Tensor):
    if cutlass.const_expr(isinstance(x.shape[0], int)):
        raise TypeError("a static extent")
    copy_kernel(x, out, x.shape[0]).launch(grid=(x.shape[0], 1, 1), block=(128, 1, 1))


def test_a_launcher_that_takes_no_static_extents_gets_dynamic_ones() -> None:
    result = compiled(launch_of_dynamic_extents, info(48))
    assert result.grid == (48, 1, 1) and result.extras == ()


@cute.jit
def launch_broken(x: cute.Tensor, out: cute.Tensor):
    copy_kernel(x, out).launch(grid=(1, 1, 1), block=(64, 1, 1))


def test_what_cute_dsl_refuses_is_named_without_colors() -> None:
    with pytest.raises(CompileError, match="launch_broken: CuTe DSL") as caught:
        compiled(launch_broken, info(64))
    assert "\x1b" not in str(caught.value)
