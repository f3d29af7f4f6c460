"""Recording and compiling launchers of CuTe DSL: what is told, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import re
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_checks import assert_compiled_once

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass
import cutlass.cute as cute
from cuda.bindings.driver import CUstream
from cutedsl_kernels import (
    CUTEDSL_CASES,
    Gemm,
    flattened,
    hadamard_jit,
    launch_hadamard,
    launch_silu,
    launch_wide_add,
    silu_kernel,
)
from cutlass import Constexpr, Float32, Int32
from cutlass.cute.nvgpu import cpasync
from cutlass.cute.runtime import from_dlpack
from cutlass.memory import SmemAllocator
from kernels import info

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._compile import compile_all
from torch_tensorrt.annotation._job import Assembled, Job
from torch_tensorrt.annotation._launch import Constant, LaunchRecord, Pointer
from torch_tensorrt.annotation._ptx import Kind, Slot, parse
from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._symbolic import Range, symbol
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    LaunchCountError,
    SpecError,
    TargetError,
    UnsupportedKernelError,
)

SM_90 = Target("sm_90")
ROWS = Range(1, 8, 64)


def recorded(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Callable[..., Any] = lambda x, *rest: torch.empty_like(x),
    overrides: dict[str, Any] | None = None,
    **keywords: Any,
) -> LaunchRecord:
    call = Call(keywords, overrides)
    return record(backend("cutedsl"), launch_fn, meta, inputs, call)


def compiled(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    target: Target = SM_90,
    aligned: bool = True,
    options: dict[str, Any] | None = None,
    **how: Any,
) -> CompiledKernel:
    launch = recorded(launch_fn, *inputs, **how)
    return backend("cutedsl").compile(launch, target, options or {}, aligned)


@cute.kernel
def copy_kernel(x: cute.Tensor, out: cute.Tensor, n: Int32):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    i = block * 128 + thread
    if i < n:
        out[i] = x[i]


@cute.jit
def launch_copy(x: cute.Tensor, out: cute.Tensor, **options: Constexpr):
    blocks = cute.ceil_div(cute.size(x), 128)
    copy_kernel(flattened(x), flattened(out), cute.size(x)).launch(
        grid=(blocks, 1, 1), block=(128, 1, 1), **options
    )


# --- What a launch function may do ----------------------------------------------------


def test_a_launcher_is_recorded_with_the_layout_of_each_tensor() -> None:
    launch = recorded(launch_silu, info(ROWS, 30), BLOCK=64)
    x, out, block = launch.arguments
    rows = symbol(0, 0)
    assert isinstance(x, Pointer) and isinstance(out, Pointer)
    assert (x.shape, x.strides) == ((rows, 30), (30, 1))
    assert (out.tensor, out.shape) == (1, (rows, 30))
    assert block == Constant("BLOCK", 64)
    assert launch.grid is None


def test_a_launcher_called_on_torch_tensors_is_caught() -> None:
    def launch(x: Any, y: Any, out: Any) -> None:
        hadamard_jit(x, y, out.view(-1), 32)

    result = compiled(launch, info(ROWS, 30), info(ROWS, 30))
    assert result.block == (32, 1, 1)


def test_a_view_is_passed_with_its_own_layout() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(from_dlpack(x.permute(1, 0)), from_dlpack(out.view(-1)))

    x, out = recorded(launch, info(ROWS, 30)).arguments[:2]
    assert isinstance(x, Pointer) and isinstance(out, Pointer)
    assert (x.shape, x.strides) == ((30, symbol(0, 0)), (1, 30))
    assert out.strides == (1,)


def test_what_was_compiled_during_a_recording_serves_the_next_one() -> None:
    cache: dict[int, Any] = {}

    def launch(x: Any, out: Any) -> None:
        tensors = from_dlpack(x), from_dlpack(out)
        if 0 not in cache:
            cache[0] = cute.compile(launch_silu, *tensors, 64)
        cache[0](*tensors)

    for extent in (ROWS, 8):
        assert compiled(launch, info(extent, 30)).block == (64, 1, 1)


def test_what_was_compiled_before_is_refused() -> None:
    x = from_dlpack(torch.empty(64))
    early = cute.compile(launch_silu, x, x, 64)

    def launch(x: Any, out: Any) -> None:
        early(from_dlpack(x), from_dlpack(out))

    with pytest.raises(UnsupportedKernelError, match="compiled before"):
        recorded(launch, info(64))


def test_options_of_the_compilation_are_kept() -> None:
    def launch(x: Any, out: Any) -> None:
        tensors = from_dlpack(x), from_dlpack(out)
        cute.compile(launch_silu, *tensors, 64, options="--opt-level 1")(*tensors)

    assert recorded(launch, info(64)).options == (("OptLevel", 1),)
    compiled(launch, info(64))


def test_an_object_is_a_launcher_whose_content_counts() -> None:
    def launch(a: Any, b: Any, c: Any) -> None:
        stream = CUstream(torch.cuda.current_stream().cuda_stream)
        tensors = from_dlpack(a), from_dlpack(b), from_dlpack(c)
        cute.compile(Gemm(stages=2), *tensors, stream)(*tensors, stream)

    inputs = info(64, 64), info(64, 64)
    result = compiled(launch, *inputs)
    assert result.shared_memory == compiled(Gemm(stages=2), *inputs).shared_memory
    assert result.shared_memory < compiled(Gemm(), *inputs).shared_memory


def test_a_partial_of_a_launcher_is_a_launch_function() -> None:
    launch = functools.partial(launch_silu, BLOCK=64)
    assert compiled(launch, info(64)).block == (64, 1, 1)


def test_config_keys_override_the_constants_of_an_ops_own_launch() -> None:
    launch = recorded(launch_hadamard, info(64), info(64), overrides={"BLOCK": 32})
    assert Constant("BLOCK", 32) in launch.arguments
    with pytest.raises(ArgumentError, match=r"sets 'TILE', .* parameters: BLOCK"):
        recorded(launch_hadamard, info(64), info(64), overrides={"TILE": 32})


def test_two_launchers_in_one_function_are_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(x, out)
        launch_copy(x, out)

    with pytest.raises(LaunchCountError, match="launched 2 kernels"):
        recorded(launch, info(64))


def test_an_address_is_refused_as_an_argument() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(from_dlpack(x).iterator, out)

    with pytest.raises(ArgumentError, match="asks for a tensor's address"):
        recorded(launch, info(64))


def test_elements_are_not_read_outside_a_kernel() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(from_dlpack(x)[0], out)

    with pytest.raises(ArgumentError, match="outside its kernel"):
        recorded(launch, info(64))


def test_arguments_that_do_not_fit_are_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        hadamard_jit(x, out)

    with pytest.raises(ArgumentError, match=r"hadamard_jit.*: missing a required"):
        recorded(launch, info(64))


def test_other_threads_compile_as_ever_while_a_launch_is_recorded() -> None:
    made: list[str] = []

    def compile_for_real() -> None:
        x = from_dlpack(torch.empty(64))
        made.append(type(cute.compile(launch_silu, x, x, 32)).__name__)

    def launch(x: Any, out: Any) -> None:
        thread = threading.Thread(target=compile_for_real)
        thread.start()
        thread.join()
        launch_silu(x, out)

    recorded(launch, info(64))
    assert set(made) == {"CudaDialectJitCompiledFunction"}


def test_nothing_of_cute_dsl_stays_replaced() -> None:
    before = cute.runtime._Tensor, cutlass.Int32.__init__, cute.compile.__call__
    recorded(launch_silu, info(64))
    after = cute.runtime._Tensor, cutlass.Int32.__init__, cute.compile.__call__
    assert after == before


@pytest.mark.parametrize("dtype", [row.torch for row in _dtypes._TABLE], ids=str)
def test_a_tensor_of_each_dtype_is_of_the_type_of_the_table(dtype: torch.dtype) -> None:
    named = getattr(cutlass, _dtypes.from_torch(dtype).cutedsl)
    assert from_dlpack(torch.empty(4, dtype=dtype)).element_type is named
    kernel = compiled(launch_copy, info(64, dtype=dtype))
    assert len(kernel.slots) == 2


# --- What the compiler is told --------------------------------------------------------


def test_static_shapes_leave_addresses_alone() -> None:
    result = compiled(launch_silu, info(8, 30))
    assert result.slots == (Slot(Kind.INPUT, 0), Slot(Kind.OUTPUT, 0))
    assert result.extras == ()


def test_equal_values_are_passed_once() -> None:
    result = compiled(launch_copy, info(ROWS, 30))
    assert result.extras == (30 * symbol(0, 0),)


def test_a_divisible_extent_is_told_and_no_other() -> None:
    assert "x.shape[0]" not in compiled(launch_copy, info(ROWS, 48)).facts

    def launch(x: Any, out: Any) -> None:
        launch_copy(x.view(-1), out.view(-1))

    assert "x.shape[0]%16" in compiled(launch, info(ROWS, 48)).facts


def test_the_alignment_promise_makes_the_loads_wide() -> None:
    inputs = info(ROWS, 4096), info(ROWS, 4096)
    wide = compiled(launch_wide_add, *inputs)
    narrow = compiled(launch_wide_add, *inputs, aligned=False)
    assert "x%16" in wide.facts and narrow.facts == ""
    assert re.search(r"ld\.global\.(v4\.b32|v2\.b64|b128)", wide.code)
    assert not re.search(r"ld\.global\.(v|b128)", narrow.code)


def test_the_ptx_version_is_set_at_the_source() -> None:
    result = compiled(launch_silu, info(64), target=Target("sm_80", ptx_isa="8.7"))
    assert parse(result.code).version == "8.7"


@pytest.mark.parametrize(
    "target", [Target("sm_80", ptx_isa="8.0"), Target("sm_120", ptx_isa="8.6")], ids=str
)
def test_a_ptx_version_that_is_too_old_is_refused(target: Target) -> None:
    with pytest.raises(TargetError, match="cannot emit PTX ISA"):
        compiled(launch_silu, info(64), target=target)


def test_an_unknown_target_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(TargetError, match=r"sm_99 is not one .* sm_80, .* sm_90"):
        compiled(launch_silu, info(64), target=Target("sm_99"))


def test_the_variant_that_a_spec_names_is_compiled_for() -> None:
    options = tta.cutedsl(launch_silu, arch="sm_100f").options(())
    result = compiled(launch_silu, info(64), target=Target("sm_100"), options=options)
    assert parse(result.code).target == "sm_100f"
    with pytest.raises(TargetError, match="arch='sm_100f', another GPU's"):
        compiled(launch_silu, info(64), options=options)


def test_the_options_of_a_launcher_without_a_gpu_are_cute_dsls() -> None:
    with pytest.raises(CompileError, match=r"launch_copy: CuTe DSL .* sm_90: .*driver"):
        compiled(launch_copy, info(64), min_blocks_per_mp=2)


# --- What TensorRT cannot launch ------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cluster": (2, 1, 1)}, "launched in clusters"),
        ({"cooperative": True}, "a cooperative launch"),
        ({"use_pdl": True}, "a programmatic dependent launch"),
        ({"smem": 50000}, r"asks for 50000 bytes .* limit is 49152"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_special_launch_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedKernelError, match=f"launch_copy.*{reason}"):
        compiled(launch_copy, info(64), **options)


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
    with pytest.raises(ArgumentError, match=r"d0_0\*\*3 reaches 8000000000"):
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


@cute.kernel
def divide_kernel(x: cute.Tensor, out: cute.Tensor, divisor: cute.FastDivmodDivisorV2):
    thread, _, _ = cute.arch.thread_idx()
    quotient, rest = divmod(thread, divisor)
    out[rest] = x[quotient]


@cute.jit
def launch_divide(x: cute.Tensor, out: cute.Tensor):
    divisor = cute.fast_divmod_create_divisor_v2(cute.size(x))
    divide_kernel(x, out, divisor).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_a_fast_divisor_needs_a_static_size() -> None:
    with pytest.raises(UnsupportedKernelError, match="branches on d0_0 == 1"):
        compiled(launch_divide, info(ROWS))
    assert compiled(launch_divide, info(10)).extras == ()


@cute.kernel
def tma_kernel(atom: cute.CopyAtom, x: cute.Tensor, out: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    allocator = SmemAllocator()
    buffer = allocator.allocate_tensor(Float32, cute.make_layout((64,)), 128)
    barrier = allocator.allocate_array(cutlass.Int64, 1)
    tile = cute.local_tile(x, (64,), (0,))
    shared, source = cpasync.tma_partition(
        atom,
        0,
        cute.make_layout(1),
        cute.group_modes(buffer, 0, 1),
        cute.group_modes(tile, 0, 1),
    )
    if thread == 0:
        cute.arch.mbarrier_init(barrier, 1)
    cute.arch.mbarrier_init_fence()
    cute.arch.sync_threads()
    if thread == 0:
        cute.arch.mbarrier_arrive_and_expect_tx(barrier, 256)
    cute.copy(atom, source, shared, tma_bar_ptr=barrier)
    cute.arch.mbarrier_wait(barrier, 0)
    out[thread] = buffer[thread]


@cute.jit
def launch_tma(x: cute.Tensor, out: cute.Tensor):
    atom, tensor = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileG2SOp(), x, cute.make_layout((64,)), (64,)
    )
    tma_kernel(atom, tensor, out).launch(grid=(1, 1, 1), block=(64, 1, 1))


def test_a_tensor_map_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"takes a tensor map \(TMA\)"):
        compiled(launch_tma, info(64, dtype=torch.float32))


@cute.jit
def launch_broken(x: cute.Tensor, out: cute.Tensor):
    copy_kernel(x, out).launch(grid=(1, 1, 1), block=(64, 1, 1))


def test_what_cute_dsl_refuses_is_named_without_colors() -> None:
    with pytest.raises(CompileError, match="launch_broken: CuTe DSL") as caught:
        compiled(launch_broken, info(64))
    assert "\x1b" not in str(caught.value)


# --- Specs ----------------------------------------------------------------------------


def test_a_kernel_is_no_launch_function() -> None:
    with pytest.raises(SpecError, match="silu_kernel is a kernel"):
        tta.cutedsl(silu_kernel)


def test_a_config_key_must_be_a_parameter_of_the_launcher() -> None:
    with pytest.raises(SpecError, match=r"names 'TILE', .* Valid names: BLOCK"):
        tta.cutedsl(launch_silu, [{"TILE": 3}])


def test_the_variant_is_part_of_a_specs_identity() -> None:
    specs = [tta.cutedsl(launch_silu, arch=arch) for arch in (None, "sm_90a")]
    assert specs[0] != specs[1]
    assert specs[0] == tta.cutedsl(launch_silu)
    with pytest.raises(TargetError, match="not an architecture"):
        tta.cutedsl(launch_silu, arch="hopper")


def test_a_spec_stays_the_same_when_its_launcher_is_compiled() -> None:
    for case in CUTEDSL_CASES:
        before = tta.cutedsl(case.kernel.launch_fn).fingerprint
        compiled(
            case.kernel.launch_fn,
            *case.static,
            meta=case.meta,
            **case.kernel.launch_keywords(case.kernel.configs[0]),
        )
        assert tta.cutedsl(case.kernel.launch_fn).fingerprint == before


def test_an_ops_own_body_is_the_launch_function() -> None:
    @torch.library.custom_op("cute::body", mutates_args=())
    def body(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        launch_hadamard(x, y, out)
        return out

    body.register_fake(lambda x, y: torch.empty_like(x))
    impl = tta.cutedsl(configs=[{"BLOCK": 32}, {"BLOCK": 64}])
    trt_plugins.custom_op("cute::body", impl=impl)
    inputs = [torch.empty(8, 30), torch.empty(8, 30)]
    report = tta.dry_run("cute::body", inputs, target="sm_90", strict=True)
    assert [t.shapes[0].block for t in report.tactics] == [(32, 1, 1), (64, 1, 1)]


def test_one_op_has_tactics_of_triton_and_of_cute_dsl() -> None:
    from kernels import launch_silu as launch_silu_with_triton

    spec = tta.custom_plugin(
        [tta.triton(launch_silu_with_triton), tta.cutedsl(launch_silu)],
        meta_impl=lambda x: torch.empty_like(x),
    )
    trt_plugins.custom_op("cute::both", impl=spec)
    report = tta.dry_run("cute::both", [torch.empty(8, 30)], target="sm_90")
    assert [t.backend for t in report.tactics] == ["triton", "cutedsl"]
    assert report.ok


# --- The cache ------------------------------------------------------------------------


def job(launch_fn: Callable[..., Any] = launch_silu, **keywords: Any) -> Job:
    launch = recorded(launch_fn, info(ROWS, 32), **keywords)
    return Job("test::op", "cutedsl", launch, SM_90, {}, True, "")


def test_a_kernel_is_compiled_once_and_then_comes_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_compiled_once(job, monkeypatch)


def test_compiling_does_not_change_the_key() -> None:
    before = job(launch_copy).key
    compile_all([job(launch_copy)], "test")
    assert job(launch_copy).key == before is not None


def test_kernels_compiled_in_parallel_are_those_compiled_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [job(BLOCK=64), job(BLOCK=128), job(launch_copy)]
    monkeypatch.setenv("TTA_JOBS", "2")
    outcomes = compile_all(jobs, "test")
    for outcome, alone in zip(outcomes, [j.run() for j in jobs], strict=True):
        assert isinstance(outcome, Assembled)
        assert isinstance(alone, Assembled)
        assert outcome.digest == alone.digest


def test_what_decides_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {job().key, job(BLOCK=64).key, job(launch_copy).key}
    monkeypatch.setenv("CUTE_DSL_LINEINFO", "1")
    assert len({job().key, None} | keys) == 5


def test_the_text_of_a_kernel_and_its_helpers_is_in_the_key(tmp_path: Path) -> None:
    text = """
        import cutlass
        import cutlass.cute as cute

        def helper(value):
            return value * {factor}

        @cute.kernel
        def kernel(x: cute.Tensor, out: cute.Tensor):
            thread, _, _ = cute.arch.thread_idx()
            out[thread] = helper(x[thread])

        @cute.jit
        def launch(x: cute.Tensor, out: cute.Tensor):
            kernel(x, out).launch(grid=(1, 1, 1), block=(32, 1, 1))
        """
    keys = []
    for number, factor in enumerate((2, 2, 3)):
        path = tmp_path / str(number) / "cute_kernels.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text).format(factor=factor))
        spec = importlib.util.spec_from_file_location("cute_kernels", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(job(module.launch).key)
    assert keys[0] == keys[1] != keys[2]
    assert None not in keys
