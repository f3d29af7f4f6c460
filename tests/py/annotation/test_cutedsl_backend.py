# SPDX-License-Identifier: BSD-3-Clause

"""Recording and compiling launchers of CuTe DSL, and what the compiler knows."""

from __future__ import annotations

import functools
import re
import threading
from typing import Any

import pytest
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass
import cutlass.cute as cute
from cuda.bindings.driver import CUstream
from cutedsl_kernels import (
    CUTEDSL_CASES,
    Gemm,
    hadamard_jit,
    launch_hadamard,
    launch_silu,
    launch_wide_add,
    silu_kernel,
)
from cutedsl_tools import ROWS, compiled, launch_copy, recorded
from cutlass.cute.runtime import from_dlpack
from kernels import info

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.ptx import Kind, Slot, parse
from torch_tensorrt.annotation._record.program import Constant, Pointer
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import DTYPES, symbol
from torch_tensorrt.annotation.backends import CaughtLaunch, backend
from torch_tensorrt.annotation.backends.cutedsl.launch import element_type
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    SpecError,
    TargetError,
    UnsupportedKernelError,
)

# --- What a launch function may do ----------------------------------------------------


def test_a_launcher_is_recorded_with_the_layout_of_each_tensor() -> None:
    launch = recorded(launch_silu, info(ROWS, 30), BLOCK=64).launch
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

    x, out = recorded(launch, info(ROWS, 30)).launch.arguments[:2]
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


def test_a_recording_goes_on_after_one_inside_it() -> None:
    caught: list[CaughtLaunch] = []
    intercept = backend("cutedsl").intercept
    x = torch.empty(64)
    with intercept(caught.append):
        with intercept(lambda launch: None):
            pass
        cute.compile(launch_silu, x, x, 64)(x, x)
    assert [launch.name for launch in caught] == ["launch_silu"]


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

    assert recorded(launch, info(64)).launch.options == (("OptLevel", 1),)
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
    inputs = info(64), info(64)
    program = recorded(launch_hadamard, *inputs, overrides={"BLOCK": 32})
    assert Constant("BLOCK", 32) in program.launch.arguments
    with pytest.raises(ArgumentError, match=r"sets 'TILE', .* parameters: BLOCK"):
        recorded(launch_hadamard, *inputs, overrides={"TILE": 32})


def test_two_launchers_in_one_function_are_two_steps() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(x, out)
        launch_copy(x, out)

    assert len(recorded(launch, info(64)).launches) == 2


def test_an_address_is_refused_as_an_argument() -> None:
    def launch(x: Any, out: Any) -> None:
        launch_copy(from_dlpack(x).data_ptr, out)

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
        recording.wait()
        x = from_dlpack(torch.empty(64))
        made.append(type(cute.compile(launch_silu, x, x, 32)).__name__)

    def launch(x: Any, out: Any) -> None:
        recording.set()
        thread.join()
        launch_silu(x, out)

    recording, thread = threading.Event(), threading.Thread(target=compile_for_real)
    thread.start()
    recorded(launch, info(64))
    assert set(made) == {"CudaDialectJitCompiledFunction"}


def test_nothing_of_cute_dsl_stays_replaced() -> None:
    before = cute.runtime._Tensor, cutlass.Int32.__init__, cute.compile.__call__
    recorded(launch_silu, info(64))
    after = cute.runtime._Tensor, cutlass.Int32.__init__, cute.compile.__call__
    assert after == before


@pytest.mark.parametrize("dtype", [row.torch for row in DTYPES], ids=str)
def test_a_tensor_of_each_dtype_is_of_cute_dsls_own_type(dtype: torch.dtype) -> None:
    own = from_dlpack(torch.empty(4, dtype=dtype)).element_type
    assert element_type(dtype) is own
    kernel = compiled(launch_copy, info(64, dtype=dtype))
    assert len(kernel.slots) == 2


# --- What the compiler knows ----------------------------------------------------------


def test_static_shapes_leave_addresses_alone() -> None:
    result = compiled(launch_silu, info(8, 30))
    assert result.slots == (Slot(Kind.INPUT, 0), Slot(Kind.OUTPUT, 0))
    assert result.extras == ()


def test_equal_values_are_passed_once() -> None:
    result = compiled(launch_copy, info(ROWS, 30))
    assert result.extras == (30 * symbol(0, 0),)


def test_only_a_divisible_extent_is_a_fact() -> None:
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
    options = tta.cutedsl(launch_silu, arch="sm_100f").compiler_options(())
    result = compiled(launch_silu, info(64), target=Target("sm_100"), options=options)
    assert parse(result.code).target == "sm_100f"
    with pytest.raises(TargetError, match="arch='sm_100f', another GPU's"):
        compiled(launch_silu, info(64), options=options)


def test_the_options_of_a_launcher_without_a_gpu_are_cute_dsls() -> None:
    with pytest.raises(CompileError, match=r"launch_copy: CuTe DSL .* sm_90: .*driver"):
        compiled(launch_copy, info(64), min_blocks_per_mp=2)


# --- Specs ----------------------------------------------------------------------------


def test_a_kernel_in_place_of_its_launch_function_is_refused() -> None:
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
