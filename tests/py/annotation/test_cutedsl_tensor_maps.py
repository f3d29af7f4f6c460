# SPDX-License-Identifier: BSD-3-Clause

"""Tensor maps that CuTe DSL's host code packs become the entry's, or are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import sympy
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

from compiled_elsewhere import as_inputs
from cutedsl_kernels import (
    launch_tma_copy,
    launch_tma_gemm,
    launch_tma_groups,
    tma_groups_jit,
)
from cutedsl_tools import compiled, recorded
from cutlass.cute.runtime import from_dlpack
from kernels import info
from test_cutedsl_launch_abi import Compilation
from values import evaluate

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.effects import effects
from torch_tensorrt.annotation._code.ptx import Kind, Slot, parse
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends.cutedsl.arithmetic import Unknown
from torch_tensorrt.annotation.backends.cutedsl.host import (
    Address,
    Cell,
    HostCodeError,
)
from torch_tensorrt.annotation.backends.cutedsl.tensor_maps import PackedMap, read
from torch_tensorrt.annotation.backends.cutedsl.words import Part, Word, combined
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    CompileError,
    TargetError,
    UnsupportedKernelError,
)

ROWS, GROUPS = symbol(0, 0), symbol(0, 1)
BOX = (8, 2, 8)
X = Slot(Kind.INPUT, 0)


def at(packed: PackedMap, extents: Mapping[sympy.Symbol, int]) -> tuple[Any, ...]:
    def values(expressions: Any) -> list[int]:
        return [evaluate(e, extents) for e in expressions]

    strides = [16 * units for units in values(packed.strides)]
    return (values(packed.extents), strides, packed.box, packed.element_type)


def test_a_map_has_the_fields_that_the_host_code_packs() -> None:
    inputs = (info(Range(4, 8, 9), Range(1, 4, 9), 24),)
    program = recorded(launch_tma_copy, *inputs, overrides={"TILE": BOX})
    compilation = Compilation(program)
    maps = [
        (index, read(cells, program.ranges))
        for index, cells in enumerate(compilation.foretold.parameters)
        if len(cells) == 16
    ]
    assert [packed.address.object for _, packed in maps] == [
        X,
        Slot(Kind.OUTPUT, 0),
    ]
    for rows, groups in ((4, 1), (5, 3), (9, 9)):
        extents = {ROWS: rows, GROUPS: groups}
        native = compilation.native(extents)
        for index, packed in maps:
            data = native.parameters[index]
            address = compilation.address(packed.address.object)
            words = [data[at : at + 8] for at in range(0, 64, 8)]
            numbers = [int.from_bytes(word, "little") for word in words]
            assert numbers[0] == address
            cells = packed_cells(numbers)
            assert at(read(cells, {}), {}) == at(packed, extents)
        expected = ([24, groups, rows], [48, 48 * groups], tuple(reversed(BOX)), 6)
        assert at(maps[0][1], extents) == expected


# --- Fields ---------------------------------------------------------------------------

# A map of a matrix of 1000 columns and 2000 rows of float16, in boxes of 64 and 32.
WORDS = (0, 0x7D_0024_6312, 0, 0, 0x7CF_0000_03E7, 0, 0x3F << 56, 0x1F)


def packed_cells(words: Any) -> dict[int, Cell]:
    values: list[Any] = [sympy.Integer(word) for word in words]
    values[0] = Address(X)
    return {8 * index: Cell(value, 8) for index, value in enumerate(values)}


def test_the_fields_of_a_map_are_where_they_are() -> None:
    assert read(packed_cells(WORDS), {}) == PackedMap(
        address=Address(X),
        extents=(1000, 2000),
        strides=(125,),
        box=(64, 32),
        item_size=2,
        element_type=6,
        swizzle=3,
    )


@pytest.mark.parametrize(
    ("word", "bits", "item_size", "element_type"),
    [
        *[
            (1, kind << 7, size, kind)
            for kind, size in ((0, 1), (1, 2), (2, 4), (4, 8))
        ],
        *[(1, kind << 7, size, kind) for kind, size in ((7, 4), (9, 8), (10, 2))],
        (1, 7 << 7 | 1 << 16, 4, 11),
    ],
)
def test_a_type_is_the_number_that_ptx_has_for_it(
    word: int, bits: int, item_size: int, element_type: int
) -> None:
    words = list(WORDS)
    words[word] = words[word] & ~(15 << 7) | bits
    packed = read(packed_cells(words), {})
    assert (packed.item_size, packed.element_type) == (item_size, element_type)


@pytest.mark.parametrize(
    ("word", "flipped", "reason"),
    [
        (1, 1, "a version that is not known"),
        (1, 1 << 3, "a version that is not known"),
        (1, 1 << 15, "a kind that is not known here .bit 15 of word 1"),
        (1, 1 << 11, "bit 11 of word 1"),
        (1, 1 << 16, "rounds other than float32"),
        (1, 1 << 19, "swizzles units of more than 16 bytes"),
        (1, 6 << 7 ^ 11 << 7, "elements of kind 11 in 2 dimensions"),
        (1, 4 << 4, "of kind 6 in 6 dimensions"),
        (3, 1 << 32, "bit 32 of word 3"),
        (5, 7, "more than 2 dimensions"),
        (6, 1 << 32, "bit 32 of word 6"),
        (7, 1 << 32, "bit 32 of word 7"),
    ],
)
def test_what_is_not_known_of_a_map_is_refused(
    word: int, flipped: int, reason: str
) -> None:
    words = list(WORDS)
    words[word] ^= flipped
    with pytest.raises(HostCodeError, match=reason):
        read(packed_cells(words), {})


def test_a_map_of_no_tensor_or_of_unknown_sizes_is_refused() -> None:
    cells = packed_cells(WORDS)
    with pytest.raises(HostCodeError, match="something else than a tensor"):
        read(cells | {0: Cell(sympy.Integer(4096), 8)}, {})
    with pytest.raises(HostCodeError, match="word 4 is of d0_0 - 1, which may be neg"):
        read(cells | {32: Cell(ROWS - 1, 8)}, {ROWS: Range(0, 1, 2)})
    with pytest.raises(HostCodeError, match="word 5 is a reason"):
        read(cells | {40: Cell(Unknown("a reason"), 8)}, {})
    with pytest.raises(HostCodeError, match="whose kind follows the shape"):
        read(cells | {8: Cell(ROWS, 8)}, {ROWS: Range(0, 1, 7)})
    with pytest.raises(HostCodeError, match="of the upper bits of d0_0"):
        read(cells | {32: Cell(Word((Part(ROWS, 3, -1),)), 8)}, {})
    shifted = Word((Part(Address(X), 48, 4),))
    with pytest.raises(HostCodeError, match="of something else than a tensor"):
        read(cells | {0: Cell(shifted, 8)}, {})
    with pytest.raises(HostCodeError, match="more than 64 bytes"):
        read(cells | {64: Cell(sympy.S.One, 8)}, {})
    unwritten = {64: Cell(Unknown("memory that is not written"), 8)}
    assert read(cells | unwritten, {}) == read(cells, {})


def test_parts_of_a_word_do_not_overlap() -> None:
    high, low = Word((Part(ROWS, 8, 32),)), Word.constant(0xFF)
    both = combined("or", high, low)
    assert both is not None
    assert both.parts == (Part(sympy.Integer(0xFF), 8), Part(ROWS, 8, 32))
    assert combined("or", both, Word((Part(GROUPS, 2, 39),))) is None
    assert combined("or", both, Word.constant(1 << 32)) is None
    assert combined("and", both, Word.constant(0xF)) == Word.constant(0xF)
    assert combined("and", both, Word.constant(0xF << 34)) is None
    assert combined("shl", both, Word.constant(24)) is not None
    assert combined("shl", both, Word.constant(25)) is None
    assert combined("lshr", high, Word.constant(32)) == Word((Part(ROWS, 8),))
    assert combined("udiv", high, Word.constant(3)) is None
    assert combined("and", both, high) is None
    assert combined("mul", both, low) is None


# --- Limits ---------------------------------------------------------------------------


def launch_shifted(x: Any, out: Any, by: int) -> None:
    launch_tma_copy(from_dlpack(x[:, by:]), from_dlpack(out), (16, 16))


def shifted_meta(by: int) -> Any:
    return lambda x: x.new_empty(x.shape[0], x.shape[1] - by)


def test_the_address_of_a_map_is_a_multiple_of_16_bytes() -> None:
    x = info(64, 1000)
    code = compiled(launch_shifted, x, by=8, meta=shifted_meta(8))
    assert Slot(Kind.INPUT, 0, offset=16) in code.slots
    with pytest.raises(ArgumentError, match=r"`x`.* it starts 4 elements inside"):
        compiled(launch_shifted, x, by=4, meta=shifted_meta(4))
    with pytest.raises(ArgumentError, match=r"`x`: its tensor map .* aligned=False"):
        compiled(launch_tma_copy, x, aligned=False)


@pytest.mark.parametrize(
    ("columns", "bytes_"), [(1004, "2008"), (Range(8, 9, 10), r"2\*d0_1")], ids=str
)
def test_the_strides_of_a_map_are_multiples_of_16_bytes(
    columns: Any, bytes_: str
) -> None:
    with pytest.raises(ArgumentError, match=f"of dimension 1, .* is {bytes_} bytes"):
        compiled(launch_tma_copy, info(64, columns))


def test_the_extents_of_a_map_are_at_least_1() -> None:
    with pytest.raises(UnsupportedKernelError, match="d0_0 - 1, which may be negative"):
        compiled(launch_tma_copy, info(Range(0, 1, 2), 64))


@pytest.mark.parametrize("columns", [4, 12])
def test_a_row_of_the_box_is_a_multiple_of_16_bytes(columns: int) -> None:
    with pytest.raises(ArgumentError, match=r"`x`: .* a multiple of 16 bytes in a row"):
        compiled(launch_tma_copy, info(64, 1000), overrides={"TILE": (16, columns)})


@pytest.mark.parametrize(
    ("rows", "boxes", "copies"), [(256, ["16", "256"], 2), (272, ["16", "136"], 4)]
)
def test_cute_dsl_copies_a_tile_that_is_larger_than_a_box_in_parts(
    rows: int, boxes: list[str], copies: int
) -> None:
    x, tile = info(1024, 1024), {"TILE": (rows, 16)}
    code = compiled(launch_tma_copy, x, overrides=tile).code
    assert re.findall(r"box_dim\S+ \S+ \d, (\d+);", code) == 2 * boxes
    assert code.count("cp.async.bulk.tensor") == copies


def test_a_driver_that_is_too_old_is_named() -> None:
    x = info(64, 1000)
    for isa, is_new in (("8.6", True), ("8.5", False)):
        target = Target("sm_90", ptx_isa=isa)
        if is_new:
            assert (
                parse(compiled(launch_tma_copy, x, target=target).code).version == isa
            )
        else:
            with pytest.raises(TargetError, match=r"PTX ISA 8\.5 .* a newer driver"):
                compiled(launch_tma_copy, x, target=target)


def test_maps_are_for_hopper_and_newer() -> None:
    x = info(64, 1000)
    for arch in ("sm_90", "sm_100", "sm_120"):
        code = compiled(launch_tma_copy, x, target=Target(arch, ptx_isa="9.0")).code
        assert parse(code).target == f"{arch}a" and "tensormap.replace" in code
    with pytest.raises(CompileError, match="at least sm_90"):
        compiled(launch_tma_copy, x, target=Target("sm_89"))


def test_a_matrix_product_of_any_size_is_one_kernel() -> None:
    k = Range(2, 3, 4)
    result = compiled(
        launch_tma_gemm,
        *(info(Range(63, 64, 65), k, 8), info(136, k, 8)),
        meta=lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        CLUSTER=2,
        BLOCKS=6,
    )
    assert result.cluster == (2, 1, 1) and result.scratch == (3 * 128,)
    shape = {ROWS: 65, GROUPS: 3, symbol(1, 1): 3}
    assert [evaluate(size, shape) for size in result.grid] == [6, 1, 1]


# --- Kernels that change their maps ---------------------------------------------------


def test_a_kernel_changes_copies_of_its_maps() -> None:
    """On an H200 one stopped at an address that 128 bytes did not divide."""
    result = compiled(launch_tma_groups, info(Range(1, 100, 300), 136))
    assert len(re.findall(r"ld\.global\.v2\.b64 .*%tta_map\d", result.code)) == 2 * 4
    assert set(effects(result.code).values()) == {"unknown", "stored, loaded"}
    assert result.scratch == (2 * 128,)
    (buffer,) = (slot for slot in result.slots if slot.alignment > 1)
    assert buffer == Slot(Kind.OUTPUT, 1, alignment=128)  # after the op's only output


def test_a_buffer_of_maps_has_the_room_to_align_it() -> None:
    op, inputs = "my::tma_groups", (info(Range(1, 64, 300), 136),)
    spec = tta.custom_plugin(
        tta.cutedsl(launch_tma_groups), lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op(op, impl=spec, supports_dynamic_shapes=True)
    report = tta.dry_run(op, as_inputs(inputs), "sm_90,ptx_isa=9.0", execute=False)
    words = 24 * 2 * 128 // 4 + 128 // 4
    assert report.tactics[0].at((64, 136)).hidden == ((words,), (words,))


BLOCKS = 3 * 2 * 4  # of the launch at 64 rows


def launch_with_maps(x: Any, maps: Any, out: Any) -> None:
    tma_groups_jit(*map(from_dlpack, (x, out, maps)), (16, 64), 20)


def launch_inside(x: Any, out: Any, start: int = 2) -> None:
    """The maps begin ``start`` words of 64 bits inside their buffer."""
    words = x.new_empty(start + BLOCKS * 2 * 16, dtype=torch.int64)[start:]
    launch_with_maps(x, words.unflatten(0, (BLOCKS, 2, 16)), out)


def test_maps_that_an_engine_cannot_align_are_refused() -> None:
    where = "at multiples of 128 bytes in a buffer that the launch function allocates"
    x, maps = info(64, 136), info(BLOCKS, 2, 16, dtype=torch.int64)
    with pytest.raises(UnsupportedKernelError, match=where):
        compiled(launch_with_maps, x, maps)
    with pytest.raises(UnsupportedKernelError, match=where):
        compiled(launch_inside, x)
    result = compiled(launch_inside, x, start=16)
    assert Slot(Kind.OUTPUT, 1, offset=128, alignment=128) in result.slots


def launch_by_address(x: Any, out: Any) -> None:
    """As CUTLASS's grouped product does, which finds its matrices in a table."""
    table = torch.tensor([x.data_ptr(), out.data_ptr()], dtype=torch.int64)
    launch_tma_copy(from_dlpack(x), from_dlpack(table), (16, 16))


def test_a_table_of_addresses_is_refused() -> None:
    with pytest.raises(ArgumentError, match="takes a tensor's address for a number"):
        recorded(launch_by_address, info(64, 64))
