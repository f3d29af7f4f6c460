# SPDX-License-Identifier: BSD-3-Clause

"""The prologue that makes tensor maps, and the uses of maps that it takes over."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from torch_tensorrt.annotation._code.effects import effects
from torch_tensorrt.annotation._code.ptx import Kind, Slot, parse, reorder
from torch_tensorrt.annotation._code.ptxas import assemble, find_ptxas
from torch_tensorrt.annotation._code.tensor_maps import (
    MAP,
    SIZE,
    Built,
    TensorMap,
    build,
    parameters,
)
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

KERNEL = """
.version 8.3
.target sm_90a
.address_size 64

.extern .shared .align 16 .b8 memory[];
.visible .entry kernel(
\t.param .align 64 .b8 kernel_param_0[128],
\t.param .u32 kernel_param_1,
\t.param .align 64 .b8 kernel_param_2[128],
\t.param .u64 .ptr .global .align 1 kernel_param_3
)
.reqntid 128
{
\t.reg .pred \t%p<9>;
\t.reg .b32 \t%r<9>;
\t.reg .b64 \t%rd<9>;
\tmov.b32 \t%r1, kernel_param_0;  // kernel_param_0 is a map
\tcvt.u64.u32 \t%rd1, %r1;
\tcvta.param.u64 \t%rd2, %rd1;
\tmov.b64 \t%rd3, kernel_param_2;
\tcvta.param.u64 \t%rd4, %rd3;
\tld.param.b32 \t%r2, [kernel_param_1];
\tmov.b32 \t%r3, memory;
\tmov.b32 \t%r4, 0;
\tmov.u32 \t%r5, %tid.x;
\tsetp.eq.b32 \t%p1, %r5, 0;
\tadd.s32 \t%r6, %r3, 8192;
\t@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes \
[%r3], [%rd2, {%r4, %r2}], [%r6];
\t@%p1 cp.async.bulk.tensor.2d.global.shared::cta.bulk_group \
[%rd4, {%r4, %r2}], [%r3];
\tret;
}
"""
ROWS, COLUMNS = Slot(Kind.EXTRA, 0), Slot(Kind.EXTRA, 1)
FIELDS = TensorMap(
    extents=(COLUMNS, ROWS),
    strides=(COLUMNS,),
    box=(64, 64),
    item_size=2,
    element_type=6,
    swizzle=3,
)
SCRATCH = Slot(Kind.OUTPUT, 1, alignment=128)
SLOTS = [Slot(Kind.INPUT), ROWS, Slot(Kind.OUTPUT), Slot(Kind.UNUSED)]


def built(code: str = KERNEL, fields: TensorMap = FIELDS) -> Built:
    return build(code, SLOTS, {0: fields, 2: fields}, SCRATCH)


def launched(code: str = KERNEL, fields: TensorMap = FIELDS) -> str:
    """The kernel as TensorRT launches it: an input, two extras, two outputs."""
    result = built(code, fields)
    return reorder(result.code, result.slots, (1, 2, 2), "entry")


def fields_of(code: str, number: int) -> list[str]:
    """What the prologue sets in a map."""
    line = (
        rf"tensormap\.replace\.tile\.(\w+)\.\S+ \[%tta_shared\+{SIZE * number}\], (.*);"
    )
    return [" ".join(found) for found in re.findall(line, code)]


def test_maps_become_addresses_and_the_prologue_has_parameters_of_its_own() -> None:
    entry = parse(launched())
    assert [p.type for p in entry.parameters] == ["u64", "u32", "u32", "u64", "u64"]
    assert parse(built().code).parameters[3].name == "kernel_param_3"


def test_the_fields_of_a_map_are_set_from_arguments() -> None:
    expected = [
        *("global_address %tta_address0", "rank 1", "elemtype 6"),
        *("interleave_layout 0", "swizzle_mode 3", "fill_mode 0"),
        *("global_stride 0, %tta_stride", "global_dim 0, %tta_size"),
        *("global_dim 1, %tta_size", "element_stride 0, 1", "box_dim 0, 64"),
        *("element_stride 1, 1", "box_dim 1, 64"),
    ]
    code = launched()
    assert fields_of(code, 0) == expected
    assert fields_of(code, 1) == [s.replace("address0", "address1") for s in expected]
    assert code.count("mul.wide.u32 %tta_stride, %tta_size, 2;") == 2


def test_sizes_that_are_known_are_written_into_the_prologue() -> None:
    code = launched(fields=replace(FIELDS, extents=(512, 300), strides=(512,)))
    assert code.count("mov.b32 %tta_size, 512;") == 2
    assert code.count("mov.b32 %tta_size, 300;") == 2
    assert code.count("mov.b64 %tta_stride, 1024;") == 2


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_each_rank_is_possible(rank: int) -> None:
    extents, strides = (64, 32, 16, 8, 4)[:rank], (64, 2048, 4096, 8192)[: rank - 1]
    fields = replace(FIELDS, extents=extents, strides=strides, box=(8,) * rank)
    found = fields_of(launched(fields=fields), 0)
    assert f"rank {rank - 1}" in found
    assert sum(field.startswith("global_dim") for field in found) == rank
    assert sum(field.startswith("global_stride") for field in found) == rank - 1


@pytest.mark.parametrize(
    ("target", "version"), [("sm_90a", "8.3"), ("sm_100a", "8.6"), ("sm_120a", "8.7")]
)
def test_the_result_assembles(target: str, version: str) -> None:
    code = KERNEL.replace("sm_90a", target).replace(
        ".version 8.3", f".version {version}"
    )
    assembled = assemble(launched(code), find_ptxas().path, target)
    assert assembled.registers > 0


@pytest.mark.parametrize("target", ["sm_90", "sm_100"])
def test_it_takes_the_architecture_specific_target(target: str) -> None:
    code = launched(KERNEL.replace("8.3", "8.6").replace("sm_90a", target))
    with pytest.raises(PTXError, match=r"tensormap"):
        assemble(code, find_ptxas().path, target)


def test_effects_follow_the_maps_to_their_tensors() -> None:
    assert list(effects(launched()).values()) == ["loaded", "stored", "stored"]


def test_each_block_has_scratch_memory_for_its_maps() -> None:
    assert built().size == 2 * SIZE
    code = launched()
    assert "mad.wide.u32 %tta_scratch, %tta_block, 256, %tta_scratch;" in code
    assert "and.b64 %tta_scratch, %tta_scratch, -128;" in code


def test_a_map_is_released_acquired_and_fetched_in_this_order() -> None:
    order = [
        *("ld.shared", "st.global", "tensormap::generic.release"),
        *("fence.proxy.async", "tensormap::generic.acquire", "prefetch", "bar.sync 0"),
    ]
    _, _, after = launched().partition("$TTA_maps_set:")
    assert (at := [after.index(part) for part in order]) == sorted(at)


def test_an_address_inside_a_tensor_is_put_into_the_map() -> None:
    slots = [replace(SLOTS[0], offset=32), *SLOTS[1:]]
    result = build(KERNEL, slots, {0: FIELDS, 2: FIELDS}, SCRATCH)
    code = reorder(result.code, result.slots, (1, 2, 2), "entry")
    assert "add.s64 %tta_address0, %tta_address0, 32;" in code
    assert "add.s64 %tta_address1" not in code


def without(code: str, *lines: str) -> str:
    return "\n".join(
        line for line in code.splitlines() if not any(part in line for part in lines)
    )


def test_a_map_that_is_not_used_is_not_made() -> None:
    code = without(KERNEL, "kernel_param_2;", "%rd4")
    result = built(code)
    assert result.size == SIZE
    assert result.slots[2] == Slot(Kind.UNUSED)
    assert fields_of(result.code, 1) == []
    neither = built(without(code, "kernel_param_0;", "%rd1", "%rd2"))
    assert neither.size == 0
    assert "tta" not in neither.code


def test_a_map_that_is_copied_and_not_used_is_not_made() -> None:
    result = built(without(KERNEL, "%rd4"))
    assert result.size == SIZE
    assert result.slots[2] == Slot(Kind.UNUSED)
    assert "kernel_param_2;" not in result.code


def test_a_kernel_may_copy_a_map_to_change_it() -> None:
    copied = "\t@%p1 ld.param.v2.b64 \t{%rd5, %rd6}, [%rd3+16];\n\tret;"
    code = launched(KERNEL.replace("\tret;", copied))
    assert "@%p1 ld.global.v2.b64 \t{%rd5, %rd6}, [%tta_map1+16];" in code
    assert assemble(code, find_ptxas().path, "sm_90a").registers > 0


@pytest.mark.parametrize(
    "address", ["add.s64 %rd6, %rd5, 256;", "ld.global.b64 %rd6, [%rd5];"]
)
def test_the_address_of_a_map_that_a_kernel_changes_is_not_read_from_memory(
    address: str,
) -> None:
    changed = (
        f"ld.param.u64 %rd5, [kernel_param_3];\n{address}\ntensormap.replace.tile."
        "global_address.global.b1024.b64 [%rd5+128], %rd6;\n\tret;"
    )
    slots = [*SLOTS[:3], Slot(Kind.INPUT, 1)]
    code = KERNEL.replace("\tret;", changed)
    result = build(code, slots, {0: FIELDS, 2: FIELDS}, SCRATCH)
    code = reorder(result.code, result.slots, (2, 2, 2), "entry")
    if "add" in address:
        assert list(effects(code).values()) == ["loaded", "unknown", "stored", "stored"]
    else:
        with pytest.raises(UnsupportedKernelError, match="it reads from memory"):
            effects(code)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Read as data, through a copy that is set twice, by a guarded copy, in sums.
        (
            "ld.param.b32 \t%r2, [kernel_param_1]",
            "ld.param.b32 \t%r2, [kernel_param_0]",
        ),
        ("mov.b32 \t%r4, 0;", "mov.b32 \t%r1, 0;"),
        ("mov.b32 \t%r4, 0;", "@%p1 mov.b32 \t%r8, kernel_param_0;"),
        ("mov.b32 \t%r4, 0;", "add.s64 \t%rd5, %rd1, 64;"),
        ("mov.b32 \t%r4, 0;", "prefetch.param.tensormap [kernel_param_0];"),
        ("cvta.param.u64 \t%rd4, %rd3", "@%p1 cvta.param.u64 \t%rd4, %rd3"),
    ],
)
def test_other_uses_of_a_map_are_refused(old: str, new: str) -> None:
    assert old in KERNEL
    with pytest.raises(
        PTXError, match=r"uses the tensor map in parameter kernel_param_"
    ):
        built(KERNEL.replace(old, new))


@pytest.mark.parametrize(
    ("index", "code"),
    [(1, KERNEL), (9, KERNEL), (0, KERNEL.replace("param_0[128]", "param_0[64]"))],
)
def test_what_is_no_map_is_refused(index: int, code: str) -> None:
    with pytest.raises(PTXError, match=f"parameter {index} is not a map"):
        build(code, SLOTS, {index: FIELDS}, SCRATCH)


def test_maps_are_made_in_the_kernels_own_shared_memory() -> None:
    assert ".extern .shared .align 128 .b8 memory[];" in launched()
    larger = KERNEL.replace(".shared .align 16", ".shared .align 1024")
    assert ".extern .shared .align 1024 .b8 memory[];" in launched(larger)


def statically(size: int, inside: bool) -> str:
    """The kernel with a static array for its shared memory, in its entry or not."""
    dynamic = ".extern .shared .align 16 .b8 memory[];"
    static = f".shared .align 16 .b8 memory[{size}];"
    if not inside:
        return KERNEL.replace(dynamic, static)
    start = "\t.reg .pred \t%p<9>;\n"
    return KERNEL.replace(dynamic, "").replace(start, f"{start}\t{static}\n")


@pytest.mark.parametrize("inside", [False, True])
def test_static_shared_memory_is_as_good_if_it_is_large_enough(inside: bool) -> None:
    code = launched(statically(2 * SIZE, inside))
    declared = f".shared .align 128 .b8 memory[{2 * SIZE}];"
    assert code.index(declared) < code.index("mov.u32 %tta_shared, memory;")
    assert assemble(code, find_ptxas().path, "sm_90a").static_shared_memory == 2 * SIZE
    with pytest.raises(PTXError, match="has no shared memory of 256 bytes"):
        built(statically(2 * SIZE - 1, inside))


def test_a_map_that_its_driver_would_fill_is_one() -> None:
    hidden = KERNEL.replace(".param .align 64", ".hidden .param .align 64")
    assert built(hidden).code == built().code


@pytest.mark.parametrize("threads", ["32", "1, 32", "4, 4, 2"])
def test_one_warp_is_enough(threads: str) -> None:
    assert fields_of(launched(KERNEL.replace("128\n{", f"{threads}\n{{")), 0)


@pytest.mark.parametrize("directive", [".reqntid 31", ".reqntid 1, 16", ""])
def test_fewer_threads_than_a_warp_are_refused(directive: str) -> None:
    with pytest.raises(PTXError, match="a map takes a block of 32 threads"):
        built(KERNEL.replace(".reqntid 128", directive))


def test_a_driver_without_the_instruction_is_named() -> None:
    with pytest.raises(
        UnsupportedKernelError, match=r"need PTX ISA 8\.3; .* takes 8\.2"
    ):
        built(KERNEL.replace(".version 8.3", ".version 8.2"))


def test_the_parameters_of_an_entry_are_read_with_maps_among_them() -> None:
    assert parameters(KERNEL) == [
        (MAP, "kernel_param_0"),
        ("u32", "kernel_param_1"),
        (MAP, "kernel_param_2"),
        ("u64", "kernel_param_3"),
    ]


# --- What a map can hold --------------------------------------------------------------


def five(size: int) -> dict[str, Any]:
    extents = (16,) * size
    return {"extents": extents, "strides": extents[1:], "box": extents}


@pytest.mark.parametrize(
    ("fits", "does_not", "why"),
    [
        (five(5), five(6), "1 to 5 dimensions"),
        ({"box": (256, 256)}, {"box": (64, 257)}, "a box of 1 to 256 elements"),
        ({"box": (64, 1)}, {"box": (64, 0)}, "a box of 1 to 256 elements"),
        ({"box": (64, 64)}, {"box": (64,)}, "a box of 1 to 256 elements"),
        ({"box": (8, 8)}, {"box": (4, 8)}, "a multiple of 16 bytes in a row"),
        ({"box": (16, 8)}, {"box": (12, 8)}, "a multiple of 16 bytes in a row"),
        ({"extents": (1, 2**32 - 1)}, {"extents": (1, 2**32)}, "extents of 1 to"),
        ({"extents": (1, 1)}, {"extents": (0, 1)}, "extents of 1 to"),
        ({"strides": (8,)}, {"strides": (9,)}, "strides that 16 bytes divide"),
        ({"strides": (2**39 - 8,)}, {"strides": (2**39,)}, "strides that 16 bytes"),
        ({"strides": (8,)}, {"strides": (0,)}, "strides that 16 bytes divide"),
        ({"strides": (8,)}, {"strides": ()}, "a stride for each but the innermost"),
        ({"element_type": 12}, {"element_type": 13}, "a known element type"),
        ({"swizzle": 0}, {"swizzle": 4}, "a known element type, swizzle and fill"),
        ({"fill": 1}, {"fill": 2}, "a known element type, swizzle and fill"),
    ],
)
def test_a_map_that_cannot_exist_is_refused(
    fits: dict[str, Any], does_not: dict[str, Any], why: str
) -> None:
    assert replace(FIELDS, **fits)
    with pytest.raises(PTXError, match=why):
        replace(FIELDS, **does_not)
