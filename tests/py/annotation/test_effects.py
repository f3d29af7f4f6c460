# SPDX-License-Identifier: BSD-3-Clause

"""What a kernel does behind its pointers, and the kernels that are refused for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import launch_add

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.effects import UNKNOWN, effects, places_of_maps
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

ENTRY = """
.version 8.0
.target sm_90
.address_size 64

.global .align 8 .b8 table[64];
{before}
.visible .entry kernel(
\t.param .u64 .ptr .global .align 16 x,
\t.param .u64 y,
\t.param .u32 n,
\t.param .u64 out
)
.reqntid 128
{{
\t.local .align 16 .b8 \t__local_depot0[16];
\t.reg .b64 \t%SP, %SPL;
\t.reg .pred \t%p<9>;
\t.reg .b32 \t%r<99>;
\t.reg .b64 \t%rd<99>;
\t.loc\t1 12 0, function_name $L__info_string0, inlined_at 1 15 4

\tld.param.b64 \t%rd1, [x];
\tld.param.b64 \t%rd2, [y];
\tld.param.b64 \t%rd3, [out];  // ld.global.b32 %r1, [%rd3];
\tld.param.b32 \t%r1, [n];
\tmul.wide.u32 \t%rd4, %r1, 4;
{body}
\tret;
}}
{after}
"""


def text_of(*lines: str, before: str = "", after: str = "") -> str:
    return ENTRY.format(body="\n".join(lines), before=before, after=after)


def of(*lines: str, before: str = "", after: str = "") -> tuple[str, ...]:
    """The effects behind x, y and out; x and y are loaded, where no line says more."""
    found = effects(text_of(*lines, before=before, after=after))
    assert list(found) == ["x", "y", "out"]
    return tuple(found.values())


# --- Accesses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ld.global.b32 %r2, [%rd1];", ("loaded", "", "")),
        ("ld.global.nc.L1::no_allocate.v4.b32 {%r2, %r3, %r4, %r5}, [%rd1+16];",
         ("loaded", "", "")),
        ("ld.b32 %r2, [%rd1];", ("loaded", "", "")),
        ("ldu.global.b32 %r2, [%rd2];", ("", "loaded", "")),
        ("st.global.b32 [%rd3], %r1;", ("", "", "stored")),
        ("st.b32 [%rd3+-4], %r1;", ("", "", "stored")),
        ("st.global.v2.b32 [ %rd3 + 8 ], { %r1, %r2 };", ("", "", "stored")),
        ("@%p1 st.global.b32 [%rd1], %r1;", ("stored", "", "")),
        ("@!%p1 ld.global.b32 %r2, [%rd1];", ("loaded", "", "")),
        ("atom.global.gpu.acq_rel.add.u32 %r2, [%rd3], %r1;",
         ("", "", "loaded, stored")),
        ("atom.global.cas.b32 %r2, [%rd3], %r1, %r4;", ("", "", "loaded, stored")),
        ("red.global.add.f32 [%rd3], %r1;", ("", "", "loaded, stored")),
        ("cp.async.cg.shared.global [%r9], [%rd1], 16, %r1;", ("loaded", "", "")),
        ("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
         " [%r9], [%rd1], %r1, [%r8];", ("loaded", "", "")),
        ("cp.async.bulk.global.shared::cta.bulk_group [%rd3], [%r9], 64;",
         ("", "", "stored")),
        ("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32"
         " [%rd3], [%r9], 64;", ("", "", "loaded, stored")),
        ("cp.async.bulk.prefetch.L2.global [%rd1], 64;", ("loaded", "", "")),
        ("prefetch.global.L2 [%rd1];", ("", "", "")),
        ("setp.eq.s64 %p1, %rd1, %rd3;", ("compared", "", "compared")),
        ("mov.b32 %r2, %tid.x;", ("", "", "")),
    ],
)  # fmt: skip
def test_an_access_is_seen(line: str, expected: tuple[str, ...]) -> None:
    assert of(line) == expected


def test_effects_are_in_the_order_of_the_first_of_each() -> None:
    load, store = "ld.global.b32 %r2, [%rd3];", "st.global.b32 [%rd3], %r2;"
    assert of(store, load)[2] == "stored, loaded"
    assert of(load, store)[2] == "loaded, stored"
    assert of(load, store, load)[2] == "loaded, stored"


# --- Where an address comes from ------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["mov.b64 %rd5, %rd3;"],
        ["cvta.to.global.u64 %rd5, %rd3;"],
        ["add.s64 %rd5, %rd4, %rd3;"],
        ["add.s64 %rd5, %rd3, 16;"],
        ["sub.s64 %rd5, %rd3, %rd4;"],
        ["mad.wide.u32 %rd5, %r1, 4, %rd3;"],
        ["mad.lo.s64 %rd5, %rd4, 8, %rd3;"],
        ["or.b64 %rd5, %rd3, 8;"],
        ["and.b64 %rd5, %rd3, -16;"],
        ["selp.b64 %rd5, %rd3, %rd6, %p1;", "add.s64 %rd6, %rd3, 4;"],
        ["mov.b64 {%r5, %r6}, %rd3;", "add.cc.u32 %r7, %r5, %r1;",
         "addc.u32 %r8, %r6, 0;", "mov.b64 %rd5, {%r7, %r8};"],
        # One pointer by another and the difference of the two.
        ["sub.s64 %rd6, %rd3, %rd1;", "add.s64 %rd7, %rd1, %rd4;",
         "add.s64 %rd5, %rd7, %rd6;"],
        # Twice a pointer, and back: at once, and one at a time.
        ["add.s64 %rd6, %rd1, %rd1;", "add.s64 %rd7, %rd3, %rd6;",
         "sub.s64 %rd5, %rd7, %rd6;"],
        ["add.s64 %rd6, %rd1, %rd1;", "add.s64 %rd7, %rd3, %rd6;",
         "sub.s64 %rd8, %rd7, %rd1;", "sub.s64 %rd5, %rd8, %rd1;"],
        # Twice round a loop, with the increment before its use and after it.
        ["mov.b64 %rd5, %rd3;", "$L__BB0_1:", "add.s64 %rd5, %rd5, %rd4;",
         "@%p1 bra $L__BB0_1;"],
        ["waitLoop: add.s64 %rd5, %rd6, 4;", "mov.b64 %rd6, %rd3;",
         "@%p1 bra waitLoop;"],
        ["ld.param.v2.b64 {%rd5, %rd6}, [out];"],
    ],
    ids=lambda lines: lines[0].partition(" ")[0],
)  # fmt: skip
def test_an_address_is_followed(lines: list[str]) -> None:
    assert of(*lines, "st.global.b32 [%rd5], %r1;") == ("", "", "stored")


def test_the_only_pointer_of_an_entry_is_followed() -> None:
    text = ENTRY.format(body="st.global.b32 [%rd3], %r1;", before="", after="")
    for name, type_ in (("x", ".u64 .ptr .global .align 16"), ("y", ".u64")):
        text = text.replace(f"\t.param {type_} {name},\n", "")
        text = re.sub(rf".*\[{name}\];\n", "", text)
    assert effects(text) == {"out": "stored"}


def test_inline_assembly_has_registers_without_a_percent_sign() -> None:
    lines = (
        "{",
        ".reg .b64 where;",
        "cvta.to.global.u64 where, %rd3;",
        "@p st.global.b32 [where], %r1;",
        "}",
    )
    assert of(*lines) == ("", "", "stored")


def test_a_function_beside_the_entry_has_registers_of_its_own() -> None:
    function = """
.func helper(.param .b64 where)
{
\tld.param.b64 %rd1, [where];
\tst.global.b32 [%rd1], 1;
\tst.global.b32 [%rd2], 1;
\tret;
}
"""
    assert of(before=function) == ("", "", "")
    assert of(after=function) == ("", "", "")


# --- Tensors behind maps --------------------------------------------------------------

LOAD = (
    "cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes"
    " [%r9], [{}, {{%r1, %r2}}], [%r8];"
)
STORE = (
    "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [{}, {{%r1, %r2}}], [%r9];"
)
ADD = (
    "cp.reduce.async.bulk.tensor.1d.global.shared::cta.add.bulk_group"
    " [{}, {{%r1}}], [%r9];"
)


def map_of(tensor: str, shared: str, place: str) -> list[str]:
    """Make a tensor's map."""
    at = f"[ {shared} + 0 ]"
    return [
        f"tensormap.replace.tile.global_address.shared::cta.b1024.b64 {at}, {tensor};",
        f"tensormap.replace.tile.global_dim.shared::cta.b1024.b32 {at}, 0x0, %r1;",
        "@%p2 tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu"
        f".sync.aligned [ {place} + 0 ], {at}, 0x80;",
        f"@%p2 fence.proxy.tensormap::generic.acquire.gpu [ {place} + 0 ], 0x80;",
    ]


# A map for x, and one for out behind it, in the scratch memory y.
MAPS = [
    "cvt.u64.u32 %rd20, %r20;",
    "cvt.u64.u32 %rd21, %r20;",
    "add.s64 %rd10, %rd2, %rd4;",
    *map_of("%rd1", "%rd20", "%rd10"),
    "add.s64 %rd11, %rd10, 128;",
    *map_of("%rd3", "%rd21", "%rd11"),
    "cvta.global.u64 %rd12, %rd10;",
    "cvta.global.u64 %rd13, %rd11;",
]
IN_SCRATCH = "stored, loaded"


@pytest.mark.parametrize(
    ("lines", "x", "out"),
    [
        ([], "", ""),
        ([LOAD.format("%rd12")], "loaded", ""),
        ([LOAD.format("%rd12"), STORE.format("%rd13")], "loaded", "stored"),
        ([STORE.format("%rd10")], "stored", ""),
        ([ADD.format("%rd13")], "", "loaded, stored"),
        (["cp.async.bulk.prefetch.tensor.2d.L2.global [%rd12, {%r1, %r2}];"], "", ""),
        (["prefetch.tensormap [%rd12];"], "", ""),
        ([STORE.format("%rd13"), "ld.global.b32 %r7, [%rd3];"], "", "stored, loaded"),
    ],
)
def test_a_bulk_copy_moves_the_tensor_behind_its_map(
    lines: list[str], x: str, out: str
) -> None:
    assert of(*MAPS, *lines) == (x, IN_SCRATCH, out)


@pytest.mark.parametrize(
    "lines",
    [
        # Either map.
        [*MAPS, "selp.b64 %rd14, %rd12, %rd13, %p1;", STORE.format("%rd14")],
        [*MAPS, "add.s64 %rd14, %rd12, %rd4;", STORE.format("%rd14")],
        [*MAPS, "add.s64 %rd14, %rd2, 128;", STORE.format("%rd14")],
        # A register that is set again, and a map that is made again.
        [*MAPS, "add.s64 %rd11, %rd10, 0;", STORE.format("%rd13")],
        [*MAPS, *map_of("%rd1", "%rd22", "%rd11"), STORE.format("%rd13")],
        # Nobody saw what is in the shared memory, or it is copied somewhere else.
        [MAPS[0], *map_of("%rd1", "%rd20", "%rd10")[:1],
         *map_of("%rd3", "%rd22", "%rd10")[2:], STORE.format("%rd10")],
        [line.replace("[ %rd11 + 0 ]", "[ %rd11 + 128 ]") for line in MAPS]
        + [STORE.format("%rd13")],
    ],
)  # fmt: skip
def test_a_copy_by_an_unknown_map_may_store_anywhere(lines: list[str]) -> None:
    x, _, out = of(*lines)
    assert UNKNOWN in (x, out)
    assert out == UNKNOWN or "stored" not in out


def test_a_map_that_nobody_made_may_be_any_tensors() -> None:
    assert of(STORE.format("%rd1")) == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert of(LOAD.format("%rd1")) == ("loaded", "", "")


@pytest.mark.parametrize(
    ("lines", "places"),
    [
        ([*MAPS, STORE.format("%rd13")], set()),
        ([STORE.format("%rd2")], {"y"}),
        (["add.s64 %rd5, %rd2, %rd4;", ADD.format("%rd5")], {"y"}),
        (["selp.b64 %rd5, %rd1, %rd2, %p1;", STORE.format("%rd5")], {"x", "y"}),
        ([*MAPS, "selp.b64 %rd5, %rd12, %rd3, %p1;", LOAD.format("%rd5")],
         {"y", "out"}),
        (["ld.global.b64 %rd5, [%rd1];", LOAD.format("%rd5")], {""}),
    ],
)  # fmt: skip
def test_memory_that_holds_maps_is_found(lines: list[str], places: set[str]) -> None:
    assert places_of_maps(text_of(*lines)) == places


def test_a_map_at_an_address_from_memory_may_be_any_tensors() -> None:
    lines = ("ld.global.b64 %rd5, [%rd1];", STORE.format("%rd5"))
    assert of(*lines) == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_a_map_in_global_memory_is_not_followed() -> None:
    line = "tensormap.replace.tile.global_address.global.b1024.b64 [%rd2], %rd3;"
    assert of(line) == ("", UNKNOWN, UNKNOWN)


# --- What is not known ----------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        # Spilled, and read back.
        ["mov.b64 %SPL, __local_depot0;", "st.local.b64 [%SPL], %rd3;",
         "ld.local.b64 %rd5, [%SPL];", "st.global.b32 [%rd5], %r1;"],
        ["st.shared.v2.b64 [%r9], {%rd4, %rd3};"],
        ["st.global.b64 [table], %rd3;"],
        ["atom.global.exch.b64 %rd5, [table], %rd3;"],
        # Passed to a function.
        ["{ .param .b64 param0;", "st.param.b64 [param0], %rd3;",
         "call.uni helper, (param0);", "}"],
        ["call.uni (%r5), helper, (%rd3), prototype_0;"],
        # The address of the parameter itself.
        ["mov.b64 %rd5, out;", "ld.param.b64 %rd6, [%rd5];",
         "st.global.b32 [%rd6], %r1;"],
        ["mov.b64 %rd5, out;", "cvta.param.u64 %rd6, %rd5;",
         "ld.b64 %rd7, [%rd6];", "st.global.b32 [%rd7], %r1;"],
        # Instructions that are not known.
        ["tensormap.replace.tile.global_address.global.b1024.b64 [%rd9], %rd3;"],
        ["multimem.red.global.add.u32 [%rd3], %r1;"],
        ["discard.global.L2 [%rd3], 128;"],
        ["cp.async.bulk.tensor.2d.global.shared::cta.bulk_group"
         " [%rd3, {%r1, %r2}], [%r9];"],
        # Arithmetic that is not followed.
        ["shr.u64 %rd5, %rd3, 4;", "shl.b64 %rd6, %rd5, 4;",
         "st.global.b32 [%rd6], %r1;"],
        ["xor.b64 %rd5, %rd3, 16;", "st.global.b32 [%rd5], %r1;"],
    ],
    ids=lambda lines: lines[-1].partition(" ")[0],
)  # fmt: skip
def test_what_cannot_be_followed_is_unknown(lines: list[str]) -> None:
    assert of(*lines)[2] == UNKNOWN


@pytest.mark.parametrize(
    "lines",
    [
        ["selp.b64 %rd5, %rd1, %rd3, %p1;"],
        ["mov.b64 %rd5, %rd1;", "@%p1 mov.b64 %rd5, %rd3;"],
        ["max.u64 %rd5, %rd1, %rd3;"],
        ["add.s64 %rd5, %rd1, %rd3;"],
    ],
    ids=lambda lines: lines[0].partition(" ")[0],
)
def test_a_store_to_one_of_two_is_known_of_neither(lines: list[str]) -> None:
    assert of(*lines, "st.global.b32 [%rd5], %r1;") == (UNKNOWN, "", UNKNOWN)


def test_a_store_to_an_address_without_a_pointer_may_be_to_any() -> None:
    lines = ("sub.s64 %rd5, %rd1, %rd1;", "st.global.b32 [%rd5], %r1;")
    assert of("st.global.b32 [%rd2], %r1;", *lines) == (UNKNOWN, "stored", UNKNOWN)


def test_an_endless_sum_of_pointers_is_given_up() -> None:
    lines = ["add.s64 %rd1, %rd1, %rd3;", "add.s64 %rd3, %rd3, %rd1;"]
    assert of(*lines, "st.global.b32 [%rd3], %r1;") == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_braces_that_do_not_match_are_an_error() -> None:
    text = ENTRY.format(body="{", before="", after="")
    with pytest.raises(PTXError, match="braces"):
        effects(text)


# --- Kernels that are refused ---------------------------------------------------------


def in_triton() -> Any:
    return tta.triton, launch_add


def in_cutile() -> Any:
    pytest.importorskip("cuda.tile", reason="cuTile is not installed")
    import cutile_kernels as kernels

    return tta.cutile, lambda x, y, out: kernels.launch_reglu(x, y, out, stream=0)


def in_cutedsl() -> Any:
    pytest.importorskip("cutlass", reason="CuTe DSL is not installed")
    import cutedsl_kernels as kernels

    return tta.cutedsl, kernels.launch_hadamard


LANGUAGES = {"triton": in_triton, "cutile": in_cutile, "cutedsl": in_cutedsl}


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Any:
    """What makes a spec in a language; and what launches a kernel of x, y and out."""
    return LANGUAGES[request.param]()


def one(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def two(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def of_two(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture
def checked() -> Iterator[Callable[..., tta.DryRunReport]]:
    """A dry run of an op that is given by what it launches, and its meta function."""
    op = "test::effects"

    def check(kernel: Any, meta: Any = one, **weights: Any) -> tta.DryRunReport:
        trt_plugins.custom_op(op, impl=tta.custom_plugin(kernel, meta, **weights))
        inputs = [torch.empty(8, 64)] * len(inspect.signature(meta).parameters)
        return tta.dry_run(op, inputs, "sm_90", execute=False)

    yield check
    tta.unregister(op)


def test_a_launch_function_that_takes_its_output_first_is_refused(
    language: Any, checked: Any
) -> None:
    made, add = language

    def launch(out: Any, x: Any, y: Any) -> None:
        add(x, y, out)

    with pytest.raises(UnsupportedKernelError, match=r"kernel .* stores to input `x`"):
        checked(made(launch), of_two)


def test_an_input_that_is_stored_to_is_refused(language: Any, checked: Any) -> None:
    made, add = language

    def launch(x: Any, y: Any, out: Any) -> None:
        add(x, out, y)

    with pytest.raises(UnsupportedKernelError, match="stores to input `y`"):
        checked(made(launch), of_two)


def test_an_output_that_is_never_stored_to_is_refused(
    language: Any, checked: Any
) -> None:
    made, add = language

    def launch(x: Any, out: Any, forgotten: Any) -> None:
        add(x, forgotten, out)

    with pytest.raises(UnsupportedKernelError, match="never stores to output 1"):
        checked(made(launch), two)


def test_a_weight_that_is_stored_to_is_refused_by_name(checked: Any) -> None:
    def launch(x: Any, scale: Any, out: Any) -> None:
        launch_add(x, out, scale)

    with pytest.raises(UnsupportedKernelError, match="stores to input `scale`"):
        checked(tta.triton(launch), one, scale=torch.ones(8, 64))


@triton.jit
def placeholder_kernel(x_ptr, out_ptr, placeholder_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets))


def test_an_output_without_elements_need_not_be_stored_to(checked: Any) -> None:
    def launch(x: Any, out: Any, placeholder: Any) -> None:
        placeholder_kernel[(1,)](x, out, placeholder, BLOCK=512)

    def meta(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(x), x.new_empty(0)

    assert checked(tta.triton(launch), meta).ok


def test_one_tensor_may_be_passed_twice(checked: Any) -> None:
    def launch(x: Any, out: Any) -> None:
        both_kernel[(1,)](x, x, out, out, BLOCK=512)

    assert checked(tta.triton(launch)).ok


@triton.jit
def both_kernel(x_ptr, y_ptr, out_ptr, end_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets) + tl.load(y_ptr + offsets)
    tl.store(tl.where(offsets < 256, out_ptr, end_ptr) + offsets, x)


# --- Kernels that are noted -----------------------------------------------------------


def test_a_right_kernel_has_no_notes(language: Any, checked: Any) -> None:
    made, launch = language
    assert {tactic.notes for tactic in checked(made(launch), of_two).tactics} == {()}


@triton.jit
def accumulate_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr + offsets, tl.load(x_ptr + offsets))


def test_an_output_that_is_accumulated_into_is_noted(checked: Any) -> None:
    def launch(x: Any, out: Any) -> None:
        accumulate_kernel[(1,)](x, out, BLOCK=512)

    report = checked(tta.triton(launch))
    (note,) = report.tactics[0].notes
    assert note == "output 0 is loaded before it is stored to, and starts uninitialized"
    assert report.notes[0] == f"tactic 1: {note}"
    assert report.ok and not report.problems


@triton.jit
def choice_kernel(x_ptr, out_ptr, other_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets)
    tl.store(tl.where(x > 0, out_ptr, other_ptr) + offsets, x)


def test_what_a_kernel_chooses_at_run_time_is_noted(checked: Any) -> None:
    def launch(x: Any, out: Any, other: Any) -> None:
        choice_kernel[(1,)](x, out, other, BLOCK=512)

    (tactic,) = checked(tta.triton(launch), two).tactics
    assert tactic.notes == tuple(
        f"output {i} is used in a way that cannot be read from the code" for i in (0, 1)
    )
