# SPDX-License-Identifier: BSD-3-Clause

"""What comes out of cuTile's compiler, and that it means the same alone."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernels import info

from torch_tensorrt.annotation._code import lowering
from torch_tensorrt.annotation._code.lowering import sections
from torch_tensorrt.annotation._code.ptx import parse
from torch_tensorrt.annotation._code.ptxas import assemble, settle
from torch_tensorrt.annotation._record.program import Launch
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends.cutile import FACT_SETS
from torch_tensorrt.annotation.errors import (
    CompileError,
    PTXError,
    TargetError,
    UnsupportedKernelError,
)

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402
from cutile_tools import (  # noqa: E402
    DYNAMIC,
    compiled,
    constraints,
    matmul,
    recorded,
)

from torch_tensorrt.annotation.backends.cutile import tileiras  # noqa: E402


def test_eight_byte_facts_make_async_copies_and_none_without_them() -> None:
    """The figures of matmul depend on it: 386 TFLOP/s on an H200, or 25."""
    codes = {f: matmul(4096, 4096, 4096, facts=f).code for f in FACT_SETS}
    copies = {name: len(re.findall("cp.async.c[ag]", c)) for name, c in codes.items()}
    assert copies["async8"] > 16
    assert copies["strides"] == copies["vector16"] == copies["tma16"] == 0
    assert "wgmma.mma_async" in codes["async8"]
    assert {n for n, c in codes.items() if "cp.async.bulk.tensor" in c} == {"tma16"}


def test_sixteen_byte_facts_make_wide_loads_without_tma() -> None:
    inputs = (info(16384, 4096), info(4096))
    code = compiled(kernels.launch_rms_norm, *inputs).code
    assert re.search(r"ld\.global\S*\.v4\.b32", code)
    assert "cp.async.bulk" not in code
    plain = compiled(kernels.launch_rms_norm, *inputs, facts="strides").code
    assert not re.search(r"ld\.global\S*\.v\d", plain)


def row_sums(padding: Any) -> Any:
    @ct.kernel
    def row_sum_kernel(x, out):
        tile = ct.load(x, index=(ct.bid(0), 0), shape=(1, 64), padding_mode=padding)
        sums = ct.sum(ct.astype(tile, ct.float32), axis=1, keepdims=True)
        ct.store(out, index=(ct.bid(0), 0), tile=ct.astype(sums, out.dtype))

    return lambda x, out: ct.launch(
        torch.cuda.current_stream(), (x.shape[0],), row_sum_kernel, (x, out)
    )


def test_padding_that_a_kernel_leaves_undetermined_is_zero() -> None:
    """As TMA's is. Else it is what a register held, and 0 times a NaN is no 0."""
    modes = ct.PaddingMode.UNDETERMINED, ct.PaddingMode.ZERO, ct.PaddingMode.NEG_INF
    undetermined, zero, other = (
        compiled(row_sums(mode), info(8, 40), meta=lambda x: x[:, :1]).code
        for mode in modes
    )
    assert undetermined == zero != other


def test_how_loads_are_encoded_is_as_before_after_a_compilation() -> None:
    from cuda.tile._ir2bytecode import BytecodeContext, padding_mode_to_bytecode

    before = BytecodeContext.load_store_hints, dict(padding_mode_to_bytecode)
    matmul(64, 64, 64)
    with pytest.raises(CompileError):
        compiled(kernels.launch_relu, info(8, 30, dtype=torch.int8), opt_level=9)
    assert (BytecodeContext.load_store_hints, padding_mode_to_bytecode) == before


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
    with pytest.raises(
        CompileError, match=r"relu_kernel: .*should be \[\d, \d+\], got"
    ):
        compiled(kernels.launch_relu, info(8, 30), **options)


def test_a_tile_is_the_work_of_a_cluster_whoever_asks_for_it() -> None:
    """``ct.launch`` counts clusters; a launch without its mark counts blocks."""
    config = compiled(kernels.launch_relu, info(8, 32), num_ctas=2)
    assert (config.cluster, config.grid) == ((2, 1, 1), (2, 1, 1))
    assert ".blocksareclusters" not in config.code
    clustered = kernels.relu_kernel.replace_hints(
        num_ctas=ct.ByTarget(sm_100=4, default=1)
    )

    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (3,), clustered, (out.view(-1), x.view(-1), 64))

    assert compiled(launch_fn, info(8, 24)).cluster == (1, 1, 1)
    kernel = compiled(launch_fn, info(8, 24), target=Target("sm_100"))
    assert (kernel.cluster, kernel.grid) == ((4, 1, 1), (12, 1, 1))


def test_clusters_of_more_than_8_blocks_are_refused() -> None:
    compiled(kernels.launch_relu, info(8, 32), num_ctas=8)
    with pytest.raises(UnsupportedKernelError, match=r"clusters of 16x1x1.*8 are pos"):
        compiled(kernels.launch_relu, info(8, 32), num_ctas=16)


def test_a_target_without_clusters_ignores_num_ctas() -> None:
    target = Target("sm_80")
    inputs = info(8, 30)
    assert (
        compiled(kernels.launch_relu, inputs, target=target, num_ctas=2).code
        == compiled(kernels.launch_relu, inputs, target=target).code
    )


def test_a_kernel_that_cutile_refuses_is_named_with_target_and_options() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, (out.view(-1), x.view(-1), 100))

    with pytest.raises(CompileError, match=r"relu_kernel: .* sm_90 with .*opt_level=3"):
        compiled(launch_fn, info(8, 30))


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


def tma_cubin() -> bytes:
    """A kernel with tensor maps."""
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
    return compile_cubin(kernels.matmul_kernel, [array, array, array, tiles])


def compile_cubin(kernel: Any, constraints: list[Any], arch: str = "sm_90") -> bytes:
    launch = Launch(SimpleNamespace(kernel=kernel), "kernel", None, (), ())
    return tileiras.compile_cubin(launch, {}, constraints, Target(arch), tma=True)


def test_the_ptx_is_all_of_the_code_and_nothing_else() -> None:
    code = matmul(64, 64, 64).code
    assert code.startswith(".version ")
    assert code.endswith("}\n")
    assert "\0" not in code
    assert "tensor_view" not in code  # the TileIR that follows it
    assemble(code, matmul(64, 64, 64).ptxas, "sm_90a")


@pytest.mark.parametrize("cubin", [b"", b"\x7fELF\x01\x01" + bytes(64), b".version 9"])
def test_something_that_is_not_a_cubin_is_refused(cubin: bytes) -> None:
    with pytest.raises(PTXError, match="did not write a CUBIN"):
        tileiras.embedded_ptx(cubin)


def test_a_cubin_without_ptx_is_refused() -> None:
    cubin = tma_cubin().replace(b".nv_debug_ptx_txt", b".nv_debug_xxx_txt")
    with pytest.raises(PTXError, match="holds no PTX"):
        tileiras.embedded_ptx(cubin)


def machine_code(text: str, ptxas: str) -> bytes:
    image = sections(assemble(text, ptxas, parse(text).target).cubin)
    (name,) = (name for name in image if name.startswith(b".text."))
    return image[name]


def test_a_plain_kernel_has_the_machine_code_of_the_kernel_of_tiles(
    architecture: str,
) -> None:
    """``ct.launch`` launches the marked one with blocks of a single thread."""
    program = recorded(kernels.launch_batch_matmul, info(4, 64, 64), info(4, 64, 64))
    facts = constraints(program, "async8")
    cubin = compile_cubin(kernels.batch_matmul_kernel, facts, architecture)
    marked = tileiras.embedded_ptx(cubin)
    plain = tileiras.as_plain_kernel(marked)
    changed = set(marked.splitlines()) ^ set(plain.splitlines())
    assert {line.split()[0] for line in changed} == {".language"}
    ptxas = tileiras.tool("ptxas")
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
    monkeypatch.setattr(lowering, "_machine_code", lambda text, ptxas: next(codes))
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
