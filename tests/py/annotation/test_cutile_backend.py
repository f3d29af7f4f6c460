"""Recording and compiling a cuTile launch: what is told, and what is refused."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any

import pytest
import torch
from kernels import info, launch_add

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._cache import kernel_cache
from torch_tensorrt.annotation._compile import compile_all
from torch_tensorrt.annotation._cubin import sections
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._job import Assembled, Job
from torch_tensorrt.annotation._launch import Constant, LaunchRecord, Pointer, Scalar
from torch_tensorrt.annotation._ptx import Kind, parse
from torch_tensorrt.annotation._ptxas import assemble, settle, to_cubin
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._symbolic import Range, symbol
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    DTypeError,
    LaunchCountError,
    PTXError,
    TargetError,
    ToolchainError,
    UnsupportedKernelError,
)

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402

from torch_tensorrt.annotation.backends import (  # noqa: E402
    _cutile_ptx,
    _cutile_toolchain,
)
from torch_tensorrt.annotation.backends._cutile_signature import (  # noqa: E402
    FACT_SETS,
)

SM_90 = Target("sm_90")
DYNAMIC = Range(1, 8, 64)
# What ct.launch itself raises: without a driver; for arguments that do not fit.
NO_LAUNCH = (OSError, TypeError)

IN_PTX = [name for name in FACT_SETS if name != "tma"]


def like(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def recorded(
    launch_fn: Callable[..., Any], *inputs: TensorInfo, meta: Any = like
) -> LaunchRecord:
    return record(backend("cutile"), launch_fn, meta, inputs)


def compiled(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Any = like,
    target: Target = SM_90,
    aligned: bool = True,
    fact_set: str = "vector16",
    **options: Any,
) -> CompiledKernel:
    launch = recorded(launch_fn, *inputs, meta=meta)
    return backend("cutile").compile(launch, target, options, aligned, fact_set)


def one(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def two(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def matmul_meta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def matmul(M: int | Range, N: int, K: int, **keywords: Any) -> CompiledKernel:
    inputs = (info(M, K), info(K, N))
    return compiled(kernels.launch_matmul, *inputs, meta=matmul_meta, **keywords)


# --- What is recorded -----------------------------------------------------------------


def test_arrays_are_recorded_with_the_layout_of_the_view_that_was_passed() -> None:
    launch = recorded(kernels.launch_relu, info(DYNAMIC, 30))
    d = symbol(0, 0)
    assert launch.arguments == (
        Pointer("out", 1, torch.float16, (30 * d,), (1,)),
        Pointer("x", 0, torch.float16, (30 * d,), (1,)),
        Constant("TILE", 256),
    )


def test_scalars_are_expressions_and_constants() -> None:
    launch = recorded(kernels.launch_scale, info(DYNAMIC, 30, dtype=torch.float32))
    arguments = {a.name: a for a in launch.arguments}
    assert arguments["alpha"] == Constant("alpha", 0.3)
    assert arguments["negate"] == Constant("negate", True)
    assert arguments["n"] == Scalar("n", 30 * symbol(0, 0))


def test_the_items_of_a_tuple_are_arguments_of_their_own() -> None:
    def meta(a: Any, b: Any) -> Any:
        return a.new_empty(a.shape[0], b.shape[1])

    launch = recorded(kernels.launch_matmul, info(8, 32), info(32, 64), meta=meta)
    named = {a.name: a for a in launch.arguments}
    assert [named[f"tiles[{i}]"] for i in range(3)] == [
        Constant("tiles[0]", 64),
        Constant("tiles[1]", 64),
        Constant("tiles[2]", 32),
    ]


def test_launches_of_other_threads_are_made() -> None:
    """The real launch fails on an argument of the wrong kind: it was called."""
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            ct.launch(0, (1,), kernels.relu_kernel, (1,))
        except BaseException as error:
            failures.append(error)

    def launch_fn(x: Any, out: Any) -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        kernels.launch_relu(x, out)

    assert recorded(launch_fn, info(8, 30)).name == "relu_kernel"
    assert failures
    assert all(isinstance(error, NO_LAUNCH) for error in failures)


def test_the_launch_is_itself_again_after_recording() -> None:
    before = ct.launch, kernels.ct_launch
    recorded(kernels.launch_relu, info(8, 30))
    with pytest.raises(LaunchCountError):
        recorded(lambda x, out: None, info(8, 30))
    assert (ct.launch, kernels.ct_launch) == before


def test_who_imports_the_launch_while_it_is_replaced_launches_later() -> None:
    kept: list[Any] = []

    def launch_fn(x: Any, out: Any) -> None:
        from cuda.tile import launch

        kept.append(launch)
        kernels.launch_relu(x, out)

    recorded(launch_fn, info(8, 30))
    with pytest.raises(NO_LAUNCH):
        kept[-1](0, (1,), kernels.relu_kernel, (1,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, out: (out, x), r"relu_kernel: it takes a tuple of 3 .* with 2"),
        (lambda x, out: [out, x, 64], r"relu_kernel: it takes a tuple of 3"),
        (lambda x, out: (out, x, x.numel()), "`TILE`: a compile-time constant that"),
        (lambda x, out: (out, x[1:], 64), r"`x`: a view that starts 30 elements into"),
        (lambda x, out: (out, x + 1, 64), "`x`: a tensor .* neither an input"),
    ],
)
def test_arguments_that_an_engine_cannot_pass_are_refused(
    arguments: Callable[..., Any], message: str
) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, arguments(x, out))

    with pytest.raises(ArgumentError, match=message):
        recorded(launch_fn, info(DYNAMIC, 30))


def test_a_grid_that_is_no_tuple_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, 4, kernels.relu_kernel, (out, x, 64))

    with pytest.raises(ArgumentError, match=r"the grid is 4; write it as a tuple"):
        recorded(launch_fn, info(8))


def test_a_dependent_launch_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(
            0,
            (1,),
            kernels.relu_kernel,
            (out, x, 64),
            programmatic_dependent_launch=True,
        )

    with pytest.raises(UnsupportedKernelError, match="programmatic dependent launch"):
        recorded(launch_fn, info(8))


def test_a_function_that_is_no_kernel_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.launch_relu, (out, x, 64))

    with pytest.raises(ArgumentError, match=r"not a kernel\. Decorate it: @ct.kernel"):
        recorded(launch_fn, info(8))


@ct.kernel
def copy_kernel(x, out, what):
    ct.store(out, index=(0,), tile=ct.load(x, index=(0,), shape=(8,)))


@pytest.mark.parametrize("value", [None, "text"], ids=str)
def test_a_value_that_cutile_does_not_take_is_refused(value: Any) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), copy_kernel, (x, out, value))

    with pytest.raises(ArgumentError, match=r"copy_kernel, argument `what`: cuTile"):
        compiled(launch_fn, info(8))


# --- What is told ---------------------------------------------------------------------


def facts_of_reglu(extent: int | Range, columns: int, **keywords: Any) -> set[str]:
    inputs = info(extent, columns)
    facts = compiled(kernels.launch_reglu, inputs, inputs, **keywords).facts
    return {fact for fact in facts.split() if fact.startswith("gate")}


def test_each_fact_set_of_the_spec_is_one_that_the_backend_has() -> None:
    assert set(FACT_SETS) == set(tta.CuTileSpec.known_fact_sets)


def test_vector16_tells_what_holds_up_to_16_bytes() -> None:
    assert facts_of_reglu(DYNAMIC, 24) == {
        "gate%16",
        "gate.shape[0]%8",
        "gate.strides[0]=1",
    }
    assert facts_of_reglu(DYNAMIC, 6) == {
        "gate%16",
        "gate.shape[0]%2",
        "gate.strides[0]=1",
    }


def test_async8_tells_what_holds_up_to_8_bytes() -> None:
    assert facts_of_reglu(DYNAMIC, 24, fact_set="async8") == {
        "gate%8",
        "gate.shape[0]%4",
        "gate.strides[0]=1",
    }


def test_strides_tells_constant_strides_alone() -> None:
    assert facts_of_reglu(64, 64, fact_set="strides") == {"gate.strides[0]=1"}


def test_what_is_constant_is_told_and_nothing_that_is_not() -> None:
    assert facts_of_reglu(4, 8) == {"gate%16", "gate.shape[0]=32", "gate.strides[0]=1"}
    assert facts_of_reglu(DYNAMIC, 7) == {"gate%16", "gate.strides[0]=1"}


def test_without_the_alignment_promise_no_address_is_told() -> None:
    assert facts_of_reglu(4, 8, aligned=False) == {
        "gate.shape[0]=32",
        "gate.strides[0]=1",
    }


def test_the_row_stride_of_a_dynamic_row_is_not_told() -> None:
    inputs = info(DYNAMIC, Range(1, 48, 333), dtype=torch.float32)
    facts = compiled(
        kernels.launch_transpose,
        inputs,
        meta=lambda x: x.new_empty(x.shape[1], x.shape[0]),
    ).facts
    assert facts == "vector16: x%16 x.strides[1]=1 out%16 out.strides[1]=1"


def constraints(launch: LaunchRecord, fact_set: str = "vector16") -> tuple[Any, ...]:
    from torch_tensorrt.annotation.backends._cutile_signature import Signature

    return Signature.of(launch, True, FACT_SETS[fact_set]).parameters


def test_inputs_may_be_one_tensor_and_outputs_may_not() -> None:
    launch = recorded(kernels.launch_reglu, info(DYNAMIC, 8), info(DYNAMIC, 8))
    gate, up, out, _ = constraints(launch)
    assert gate.alias_groups == up.alias_groups == ("inputs",)
    assert out.alias_groups == ()


def test_an_array_that_is_passed_twice_may_be_itself() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        flat = x.reshape(-1)
        ct.launch(0, (1,), kernels.reglu_kernel, (flat, out.view(-1), out.view(-1), 64))

    x, up, out, _ = constraints(recorded(launch_fn, info(DYNAMIC, 8)))
    assert x.alias_groups == ()
    assert up.alias_groups == out.alias_groups == ("tensor1",)


def test_only_an_expanded_view_may_overlap_itself() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        rows = x.expand(out.shape)
        ct.launch(0, (1, 1), kernels.transpose_kernel, (rows, out.t(), 8, 8))

    launch = recorded(
        launch_fn, info(8), meta=lambda x: x.new_empty(x.shape[0], x.shape[0])
    )
    expanded, transposed, *_ = constraints(launch)
    assert expanded.may_alias_internally
    assert expanded.stride_constant == (0, 1)
    assert not transposed.may_alias_internally


@pytest.mark.parametrize("case", kernels.CUTILE_CASES, ids=lambda case: case.name)
def test_no_view_of_the_kernels_overlaps_itself(case: Any) -> None:
    keywords = case.kernel.launch_keywords(case.kernel.configs[0])

    def launch_fn(*tensors: Any, stream: Any = None) -> None:
        extra = {"stream": 0} if case.name == "reglu" else {}
        case.kernel.launch_fn(*tensors, **keywords, **extra)

    launch = recorded(launch_fn, *case.dynamic, meta=case.meta)
    arrays = [c for c in constraints(launch) if hasattr(c, "ndim")]
    assert arrays
    assert not any(array.may_alias_internally for array in arrays)


@ct.kernel
def annotated_kernel(
    x: ct.IndexedWithInt64, out: Any, alpha: float, n: ct.ScalarInt64, negate: bool
):
    tile = ct.load(x, index=(ct.bid(0),), shape=(64,)) * alpha + n
    tile = ct.where(negate, -tile, tile)
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(tile, out.dtype))


def launch_annotated(x: Any, out: Any) -> None:
    ct.launch(0, (1,), annotated_kernel, (x, out, 0.1, x.numel(), True))


def test_scalars_have_the_types_that_the_launch_gives_them() -> None:
    x, _, alpha, n, negate = constraints(recorded(launch_annotated, info(DYNAMIC)))
    assert x.index_dtype == ct.int64
    assert (alpha.dtype, n.dtype, negate.dtype) == (ct.float32, ct.int64, ct.bool_)


def test_scalars_go_as_32_bits() -> None:
    result = compiled(launch_annotated, info(DYNAMIC))
    _, _, _, _, alpha, n, negate = result.extras
    assert int(alpha) == 0x3DCCCCCD  # 0.1 in IEEE 754 binary32
    assert n == symbol(0, 0)
    assert int(negate) == 1
    assert_passes_tensorrts_arguments(result, inputs=1)


def test_an_extent_that_passes_32_bits_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, (out.view(-1), x.view(-1), 64))

    with pytest.raises(ArgumentError, match=r"`out`: shape\[0\], 4096\*d0_0, runs"):
        compiled(launch_fn, info(Range(1, 2, 2**20), 4096))


def test_a_scalar_that_passes_32_bits_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), copy_kernel, (x, out, x.shape[0] * 2**20))

    with pytest.raises(ArgumentError, match=r"`what`: 1048576\*d0_0 reaches 4294967"):
        compiled(launch_fn, info(Range(1, 2, 4096)))


@ct.kernel
def nested_kernel(inputs, out, tiles: tuple[ct.Constant[int], ...], scales):
    total = ct.zeros((tiles[0],), dtype=ct.float32)
    for index in ct.static_iter(range(2)):
        tile = ct.load(inputs[index], index=(ct.bid(0),), shape=(tiles[0],))
        total = total + ct.astype(tile, ct.float32) * scales[index]
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(total, out.dtype))


def test_tuples_of_arrays_and_scalars_are_passed_item_by_item() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        scales = (0.5, 2.0)
        ct.launch(0, (1,), nested_kernel, ((x, y), out, (64,), scales))

    launch = recorded(launch_fn, info(64), info(DYNAMIC))
    assert [a.name for a in launch.arguments] == [
        *("inputs[0]", "inputs[1]", "out", "tiles[0]", "scales[0]", "scales[1]")
    ]
    result = compiled(launch_fn, info(64), info(DYNAMIC))
    assert result.extras[:2] == (64, 1)
    assert result.extras[2] == symbol(1, 0)
    assert_passes_tensorrts_arguments(result, inputs=2)


@ct.kernel
def static_kernel(
    x: Annotated[ct.Array, ct.ArrayAnnotation(static_shape_dims=(-1,))], out: Any
) -> None:
    tile = ct.load(x, index=(ct.bid(0), 0), shape=(1, x.shape[1]))
    ct.store(out, index=(ct.bid(0), 0), tile=tile)


def launch_static(x: Any, out: Any) -> None:
    ct.launch(0, (x.shape[0],), static_kernel, (x, out))


@pytest.mark.parametrize("fact_set", IN_PTX)
def test_an_extent_that_the_kernel_declares_static_is_always_told(
    fact_set: str,
) -> None:
    facts = compiled(launch_static, info(DYNAMIC, 64), fact_set=fact_set).facts
    assert "x.shape[1]=64" in facts.split()


def test_an_extent_that_the_kernel_declares_static_must_be() -> None:
    with pytest.raises(ArgumentError, match=r"`x`: shape\[1\] is declared static, and"):
        compiled(launch_static, info(4, DYNAMIC))


# --- What comes out -------------------------------------------------------------------


def assert_passes_tensorrts_arguments(result: CompiledKernel, inputs: int) -> None:
    from torch_tensorrt.annotation._ptx import reorder

    counts = {Kind.INPUT: inputs, Kind.EXTRA: len(result.extras), Kind.OUTPUT: 1}
    code = reorder(result.code, result.slots, counts, "k")
    types = [parameter.type for parameter in parse(code).parameters]
    assert types == ["u64"] * inputs + ["u32"] * len(result.extras) + ["u64"]
    settle(code, "sm_90", result.ptxas)


def test_eight_byte_facts_make_async_copies_and_none_without_them() -> None:
    """The figures of matmul depend on it: 386 TFLOP/s on an H200, or 25."""
    codes = {
        fact_set: matmul(4096, 4096, 4096, fact_set=fact_set).code
        for fact_set in IN_PTX
    }
    copies = {name: len(re.findall("cp.async.c[ag]", c)) for name, c in codes.items()}
    assert copies["async8"] > 16
    assert copies["strides"] == copies["vector16"] == 0
    assert "wgmma.mma_async" in codes["async8"]


def test_sixteen_byte_facts_make_wide_loads_without_tma() -> None:
    inputs = (info(16384, 4096), info(4096))
    code = compiled(kernels.launch_rms_norm, *inputs).code
    assert re.search(r"ld\.global\S*\.v4\.b32", code)
    assert "cp.async.bulk" not in code
    plain = compiled(kernels.launch_rms_norm, *inputs, fact_set="strides").code
    assert not re.search(r"ld\.global\S*\.v\d", plain)


def test_the_hint_against_tma_is_gone_after_the_compilation() -> None:
    from cuda.tile._ir2bytecode import BytecodeContext

    before = BytecodeContext.load_store_hints
    matmul(64, 64, 64)
    with pytest.raises(CompileError):
        compiled(kernels.launch_relu, info(8, 30, dtype=torch.int8), opt_level=9)
    assert BytecodeContext.load_store_hints is before


def test_the_block_is_the_one_the_code_requires() -> None:
    result = matmul(64, 64, 64)
    assert f".reqntid {result.block[0]}" in result.code
    assert result.shared_memory == 0


def test_options_of_the_config_override_those_of_the_kernel() -> None:
    inputs = info(DYNAMIC, 64, dtype=torch.float32)
    assert ".maxnreg 256" in compiled(kernels.launch_scale, inputs).code
    assert ".maxnreg 128" in compiled(kernels.launch_scale, inputs, occupancy=4).code
    wide = compiled(kernels.launch_scale, inputs, num_worker_warps=8)
    assert wide.block == (256, 1, 1)


@pytest.mark.parametrize("options", [{"occupancy": 99}, {"opt_level": 7}], ids=str)
def test_options_that_cutile_does_not_take_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(CompileError, match=r"relu_kernel: cuTile does not take"):
        compiled(kernels.launch_relu, info(8, 30), **options)


def test_a_cluster_is_refused_whoever_asks_for_it() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"clusters \(num_ctas=2\)"):
        compiled(kernels.launch_relu, info(8, 30), num_ctas=2)
    clustered = kernels.relu_kernel.replace_hints(
        num_ctas=ct.ByTarget(sm_100=4, default=1)
    )

    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), clustered, (out.view(-1), x.view(-1), 64))

    compiled(launch_fn, info(8, 30))
    with pytest.raises(UnsupportedKernelError, match=r"clusters \(num_ctas=4\)"):
        compiled(launch_fn, info(8, 30), target=Target("sm_100"))


def test_a_kernel_that_cutile_refuses_is_named_with_target_and_options() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, (out.view(-1), x.view(-1), 100))

    with pytest.raises(CompileError, match=r"relu_kernel: .* sm_90 with .*opt_level=3"):
        compiled(launch_fn, info(8, 30))


def test_a_dtype_that_tensorrt_lacks_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"torch\.float64 has no counterpart"):
        compiled(kernels.launch_relu, info(8, 30, dtype=torch.float64))


@pytest.mark.parametrize("arch", ["sm_75", "sm_99", "sm_80a", "sm_90f"])
def test_a_target_that_cutile_does_not_know_is_refused_with_those_it_knows(
    arch: str,
) -> None:
    with pytest.raises(TargetError, match=rf"{arch} is not one .* sm_80, .* sm_90"):
        compiled(kernels.launch_relu, info(8, 30), target=Target(arch))


def test_static_shared_memory_over_the_targets_limit_is_refused() -> None:
    result = matmul(512, 512, 512, target=Target("sm_80"))
    with pytest.raises(
        UnsupportedKernelError,
        match=r"\d+ bytes of static shared memory; sm_80 has 49152 for a block",
    ):
        settle(result.code, "sm_80", result.ptxas)
    settle(matmul(512, 512, 512).code, "sm_90", result.ptxas)


# --- PTX that is right ----------------------------------------------------------------


def tma_cubin() -> bytes:
    """A kernel with tensor maps, as no fact set of this backend makes it."""
    from cuda.tile import compilation

    array = compilation.ArrayConstraint(
        ct.float16,
        2,
        index_dtype=ct.int32,
        stride_lower_bound_incl=0,
        alias_groups=(),
        may_alias_internally=False,
        stride_constant=(64, 1),
        shape_constant=(64, 64),
        base_addr_divisible_by=16,
    )
    tiles = compilation.TupleConstraint([64, 64, 64])
    return _cutile_toolchain.compile_cubin(
        kernels.matmul_kernel, "matmul", [array, array, array, tiles], "sm_90", True
    )


def test_a_kernel_with_hidden_parameters_never_goes_out_as_ptx(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cubin = tma_cubin()
    assert "cp.async.bulk.tensor" in _cutile_ptx.embedded_ptx(cubin)
    module = sys.modules["torch_tensorrt.annotation.backends.cutile"]
    monkeypatch.setattr(module, "compile_cubin", lambda *args: cubin)
    with pytest.raises(UnsupportedKernelError, match=r"hidden parameters \(tensor map"):
        matmul(64, 64, 64)


def test_clusters_in_the_code_are_refused() -> None:
    code = ".entry k()\n.reqnctapercluster 2\n{ret;}"
    with pytest.raises(UnsupportedKernelError, match="launches clusters"):
        _cutile_ptx.require_self_contained(code, "k")


def test_the_ptx_is_all_of_the_code_and_nothing_else() -> None:
    code = matmul(64, 64, 64).code
    assert code.startswith(".version ")
    assert code.endswith("}\n")
    assert "\0" not in code
    assert "tensor_view" not in code  # the TileIR that follows it
    assemble(code, matmul(64, 64, 64).ptxas, "sm_90a")


@pytest.mark.parametrize("cubin", [b"", b"\x7fELF\x01\x01" + bytes(64), b".version 9"])
def test_what_is_no_cubin_is_refused(cubin: bytes) -> None:
    with pytest.raises(PTXError, match="did not write a CUBIN"):
        _cutile_ptx.embedded_ptx(cubin)


def test_a_cubin_without_ptx_is_refused() -> None:
    cubin = tma_cubin().replace(b".nv_debug_ptx_txt", b".nv_debug_xxx_txt")
    with pytest.raises(PTXError, match="holds no PTX"):
        _cutile_ptx.embedded_ptx(cubin)


def machine_code(text: str, ptxas: str) -> bytes:
    image = to_cubin(text, ptxas, parse(text).target)
    (code,) = (s for s in sections(image) if s.name.startswith(b".text."))
    return code.content


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_a_plain_kernel_has_the_machine_code_of_the_kernel_of_tiles(arch: str) -> None:
    """``ct.launch`` launches the marked one with blocks of a single thread."""
    launch = recorded(kernels.launch_batch_matmul, info(4, 64, 64), info(4, 64, 64))
    cubin = _cutile_toolchain.compile_cubin(
        launch.kernel.kernel, "k", constraints(launch, "async8"), arch, True
    )
    marked = _cutile_ptx.embedded_ptx(cubin)
    plain = _cutile_ptx.as_plain_kernel(marked)
    changed = set(marked.splitlines()) ^ set(plain.splitlines())
    assert {line.split()[0] for line in changed} == {".language"}
    ptxas = _cutile_toolchain.ptxas()
    assert machine_code(plain, ptxas) == machine_code(marked, ptxas) != b""


def test_the_toolchains_isa_is_kept_where_none_is_named() -> None:
    result = matmul(64, 64, 64)
    assert result.retargeted == ""
    assert parse(result.code).version == "9.4"


def test_an_older_isa_is_set_where_the_code_stays_the_same_and_is_reported() -> None:
    ours = matmul(64, 64, 64)
    older = matmul(64, 64, 64, target=Target("sm_90", ptx_isa="9.0"))
    assert parse(older.code).version == "9.0"
    assert older.retargeted == parse(ours.code).version
    changed = set(ours.code.splitlines()) ^ set(older.code.splitlines())
    assert changed == {".version 9.4", ".version 9.0"}
    assert machine_code(ours.code, ours.ptxas) == machine_code(older.code, ours.ptxas)


def test_an_older_isa_that_gives_other_code_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = iter([{b".text.kernel": b"1"}, {b".text.kernel": b"2"}])
    monkeypatch.setattr(_cutile_ptx, "_machine_code", lambda cubin: next(codes))
    with pytest.raises(UnsupportedKernelError, match="it gives other machine code"):
        matmul(64, 64, 64, target=Target("sm_90", ptx_isa="9.0"))


def test_a_newer_isa_than_the_toolchains_changes_nothing() -> None:
    result = matmul(64, 64, 64, target=Target("sm_90", ptx_isa="9.9"))
    assert result.retargeted == ""


def test_an_isa_that_lacks_the_instructions_is_refused_with_the_versions() -> None:
    with pytest.raises(
        UnsupportedKernelError,
        match=r"emits PTX 9\.\d for sm_100a, and the driver takes 8\.0(.|\n)*Update",
    ):
        matmul(64, 64, 64, target=Target("sm_100", ptx_isa="8.0"))


# --- The toolchain --------------------------------------------------------------------


def test_the_compiler_is_found_without_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert Path(_cutile_toolchain.ptxas()).is_file()


def test_a_missing_compiler_is_named_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find() -> Any:
        raise FileNotFoundError("no tileiras")

    monkeypatch.setattr(_cutile_toolchain, "_find_compiler_bin", find)
    with pytest.raises(ToolchainError, match=r"tileiras.*annotation\[cutile\]"):
        compiled(kernels.launch_relu, info(8, 30))


def test_a_missing_assembler_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        _cutile_toolchain,
        "_find_compiler_bin",
        lambda: SimpleNamespace(path=str(tmp_path / "tileiras")),
    )
    with pytest.raises(ToolchainError, match="no ptxas beside the compiler"):
        _cutile_toolchain.ptxas()


def test_a_missing_package_is_named_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "torch_tensorrt.annotation.backends.cutile"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(
        sys.modules, "torch_tensorrt.annotation.backends._cutile_launch", None
    )
    with pytest.raises(ToolchainError, match=r"pip install '.*annotation\[cutile\]'"):
        backend("cutile")


# --- As plugins -----------------------------------------------------------------------


def test_several_backends_are_tactics_of_one_op() -> None:
    def tile_add(x: Any, y: Any, out: Any) -> None:
        flat = [t.view(-1) for t in (x, y, out)]
        ct.launch(0, (ct.cdiv(x.numel(), 256),), add_kernel, (*flat, 256))

    trt_plugins.custom_op(
        "cutile::both",
        impl=tta.custom_plugin([tta.triton(launch_add), tta.cutile(tile_add)], two),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::both", [torch.empty(8, 512)] * 2, target="sm_90")
    assert report.ok
    assert [(t.tactic, t.backend) for t in report.tactics][:2] == [
        (1, "triton"),
        (2, "cutile"),
    ]
    assert {t.facts.partition(":")[0] for t in report.tactics[1:]} <= set(FACT_SETS)


@ct.kernel
def add_kernel(x, y, out, TILE: ct.Constant[int]):
    block = ct.bid(0)
    total = ct.load(x, index=(block,), shape=(TILE,))
    total = total + ct.load(y, index=(block,), shape=(TILE,))
    ct.store(out, index=(block,), tile=total)


def test_sets_that_give_the_same_code_are_one_tactic() -> None:
    """Rows of 30: nothing more than 4 bytes divides, for either set."""
    trt_plugins.custom_op(
        "cutile::relu",
        impl=tta.custom_plugin(tta.cutile(kernels.launch_relu), one),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::relu", [torch.empty(3, 7)], target="sm_90")
    codes = [re.sub(r"cutile__relu_t\w+", "", t.code) for t in report.tactics]
    assert 1 <= len(codes) < len(FACT_SETS)
    assert len(set(codes)) == len(codes)


def test_the_fact_sets_of_a_spec_limit_its_variants() -> None:
    trt_plugins.custom_op(
        "cutile::limited",
        impl=tta.custom_plugin(
            tta.cutile(kernels.launch_relu, fact_sets=["strides"]), one
        ),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::limited", [torch.empty(64, 64)], target="sm_90")
    assert [t.facts.partition(":")[0] for t in report.tactics] == ["strides"]


def test_a_retargeted_kernel_is_marked_in_the_report() -> None:
    trt_plugins.custom_op(
        "cutile::older",
        impl=tta.custom_plugin(tta.cutile(kernels.launch_relu), one),
        supports_dynamic_shapes=True,
    )
    target = Target("sm_90", ptx_isa="9.0")
    report = tta.dry_run("cutile::older", [torch.empty(64, 64)], target=target)
    assert {(t.ptx_isa, t.retargeted) for t in report.tactics} == {("9.0", "9.4")}
    assert "from 9.4" in str(report)


@pytest.fixture
def clamp_op() -> Any:
    with torch.library._scoped_library("cutile_body", "FRAGMENT"):

        @torch.library.custom_op("cutile_body::relu", mutates_args=())
        def relu(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            kernels.launch_relu(x, out)
            return out

        relu.register_fake(lambda x: torch.empty_like(x))
        yield "cutile_body::relu"


@pytest.mark.parametrize("configs", [None, [{"TILE": 256}, {"occupancy": 2}]], ids=str)
def test_an_ops_own_body_is_the_launch_function(clamp_op: str, configs: Any) -> None:
    trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=configs))
    report = tta.dry_run(clamp_op, [torch.empty(64, 64)], target="sm_90")
    assert report.ok
    assert {tuple(t.config) for t in report.tactics} == {
        tuple(c) for c in configs or [{}]
    }


def test_a_config_cannot_change_what_a_body_computed_its_grid_with(
    clamp_op: str,
) -> None:
    with pytest.raises(ArgumentError, match=r"the config sets TILE=64, and the op's"):
        trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=[{"TILE": 64}]))


def test_a_config_of_a_body_names_what_the_kernel_or_cutile_takes(
    clamp_op: str,
) -> None:
    with pytest.raises(ArgumentError, match=r"sets 'SIZE', which .*: num_ctas, num_"):
        trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=[{"SIZE": 64}]))


def test_kernels_of_equal_source_and_options_have_equal_fingerprints() -> None:
    def digest(kernel: Any) -> str:
        return fingerprint(kernel)

    relu = kernels.relu_kernel
    assert digest(relu) == digest(relu.replace_hints())
    assert digest(relu) != digest(relu.replace_hints(occupancy=2))
    assert digest(relu) != digest(kernels.reglu_kernel)
    assert "@" not in digest(relu)


def test_the_compiler_is_told_no_facts_of_a_scalar_nan() -> None:
    """A float goes as its bits, whatever they are."""

    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), annotated_kernel, (x, out, math.inf, 1, False))

    result = compiled(launch_fn, info(64))
    assert int(result.extras[4]) == 0x7F800000


def test_modules_made_by_hand_are_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sys.modules`` may hold anything."""

    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("a lazy module was made to load")

    monkeypatch.setitem(sys.modules, "tta_lazy", Lazy("tta_lazy"))
    monkeypatch.setitem(sys.modules, "tta_object", object())
    assert recorded(kernels.launch_relu, info(8, 30)).name == "relu_kernel"


# --- The cache ------------------------------------------------------------------------


def job(launch_fn: Callable[..., Any] = kernels.launch_reglu, **options: Any) -> Job:
    launch = recorded(launch_fn, *[info(DYNAMIC, 512)] * 2)
    return Job("test::op", "cutile", launch, SM_90, options, True, "vector16")


def test_a_kernel_is_compiled_once_and_then_comes_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cold,) = compile_all([job()], "test")
    kernel_cache.cache_clear()

    def refuse(*args: Any, **keywords: Any) -> Any:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    (warm,) = compile_all([job()], "test")
    assert isinstance(cold, Assembled)
    assert isinstance(warm, Assembled)
    assert (warm.digest, warm.resources) == (cold.digest, cold.resources)
    assert warm.code(job().record, "name") == cold.code(job().record, "name")


def test_a_cached_kernel_serves_where_cutiles_compiler_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cold,) = compile_all([job()], "test")
    kernel_cache.cache_clear()

    def missing() -> Any:
        raise FileNotFoundError("tileiras")

    monkeypatch.setattr(_cutile_toolchain, "_find_compiler_bin", missing)
    (warm, other) = compile_all([job(), job(occupancy=2)], "test")
    assert isinstance(cold, Assembled)
    assert isinstance(warm, Assembled)
    assert warm.digest == cold.digest
    assert isinstance(other, ToolchainError)


def test_what_decides_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    original = job().key
    assert original is not None
    assert original == job().key
    others = {
        job(occupancy=2).key,
        replace(job(), fact_set="strides").key,
        replace(job(), aligned=False).key,
        job(lambda x, y, out: kernels.launch_reglu(x, y, out, None, TILE=256)).key,
    }
    assert len(others - {original, None}) == 4
    monkeypatch.setenv("CUDA_TILE_TESTING_DISABLE_DIV", "1")
    assert job().key not in (None, original)


def test_the_text_of_a_kernel_and_its_helpers_is_in_the_key(tmp_path: Path) -> None:
    text = """
        import cuda.tile as ct

        def helper(tile):
            return tile * {factor}

        @ct.kernel
        def kernel(x, y, out, TILE: ct.Constant[int]):
            tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
            ct.store(out, index=(ct.bid(0),), tile=helper(tile))

        def launch(x, y, out, stream):
            flat = [tensor.reshape(-1) for tensor in (x, y, out)]
            grid = (ct.cdiv(x.numel(), 256),)
            ct.launch(stream, grid, kernel, (*flat, 256))
        """
    keys = []
    for number, factor in enumerate((2, 2, 3)):
        path = tmp_path / str(number) / "tile_kernels.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text).format(factor=factor))
        spec = importlib.util.spec_from_file_location("tile_kernels", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(job(module.launch).key)
    assert keys[0] == keys[1] != keys[2]
    assert None not in keys
