# SPDX-License-Identifier: BSD-3-Clause

"""PTX entries: read, given TensorRT's parameters, assembled.

``golden/entry_header.ptx`` is an entry header as it is emitted. To write it anew::

    TTA_REFRESH_GOLDEN=1 python -m pytest tests/py/annotation/test_ptx.py -k golden
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from torch_tensorrt.annotation._code import ptx, ptxas
from torch_tensorrt.annotation._code.ptx import Kind, Parameter, Slot
from torch_tensorrt.annotation.errors import PTXError

GOLDEN = Path(__file__).parent / "golden"
PTXAS = get_ptxas(90).path

IN0, IN1 = Slot(Kind.INPUT, 0), Slot(Kind.INPUT, 1)
N0, N1 = Slot(Kind.EXTRA, 0), Slot(Kind.EXTRA, 1)
OUT0, OUT1 = Slot(Kind.OUTPUT, 0), Slot(Kind.OUTPUT, 1)
UNUSED = Slot(Kind.UNUSED)

HEADER = """.version 8.0
.target sm_90
.address_size 64
"""
POINTER = ".param .u64 .ptr .global .align 1 "


def module(
    *parameters: str,
    reads: Sequence[str] | None = None,
    directives: str = "",
    body: str | None = None,
) -> str:
    """A module whose entry ``kernel`` reads the named parameters (None: all)."""
    names = {p.split()[-1]: p.split()[1][-2:] for p in parameters}
    loads = "\n".join(
        f"\tld.param.b{names[name]} \t%{'rd' if names[name] == '64' else 'r'}0, "
        f"[{name}];"
        for name in (names if reads is None else reads)
    )
    loads = loads if body is None else body
    listed = ",\n\t".join(parameters)
    return (
        f"{HEADER}\n.visible .entry kernel(\n\t{listed}\n)\n{directives}{{\n"
        f"\t.reg .b32 \t%r<1>;\n\t.reg .b64 \t%rd<1>;\n{loads}\n\tret;\n}}\n"
    )


def reorder(text: str, slots: Sequence[Slot], counts: tuple[int, int, int]) -> str:
    """``ptx.reorder`` for (inputs, extras, outputs), with a name of its own."""
    return ptx.reorder(text, slots, counts, "op_t1")


def names(text: str) -> list[str]:
    return [parameter.name for parameter in ptx.parse(text).parameters]


def types(text: str) -> list[str]:
    return [parameter.type for parameter in ptx.parse(text).parameters]


# --- parse ----------------------------------------------------------------------------


def test_the_name_version_and_target_are_read() -> None:
    entry = ptx.parse(module(".param .u32 n"))
    assert (entry.name, entry.version, entry.target) == ("kernel", "8.0", "sm_90")


def test_an_architecture_specific_target_is_read() -> None:
    text = module(".param .u32 n").replace("sm_90", "sm_100a")
    assert ptx.parse(text).target == "sm_100a"


def test_parameters_are_read_with_type_attributes_and_name() -> None:
    entry = ptx.parse(module(POINTER + "x", ".param .u32 $n"))
    assert entry.parameters == (
        Parameter("u64", "x", " .ptr .global .align 1"),
        Parameter("u32", "$n"),
    )


def test_a_parameter_prints_as_it_was_declared() -> None:
    parameter = ptx.parse(module(POINTER + "x")).parameters[0]
    assert str(parameter) == POINTER + "x"


def test_an_entry_may_have_no_parameters() -> None:
    assert ptx.parse(module()).parameters == ()


@pytest.mark.parametrize(
    ("directives", "block"),
    [
        ("", None),
        (".minnctapersm 2\n", None),
        (".reqntid 128\n", (128, 1, 1)),
        (".maxntid 64, 2\n", (64, 2, 1)),
        (".maxnreg 32\n.reqntid 8,4 , 2\n", (8, 4, 2)),
    ],
)
def test_the_block_is_read_from_the_directives(
    directives: str, block: tuple[int, int, int] | None
) -> None:
    text = module(".param .u32 n", directives=directives)
    assert ptx.parse(text).block == block


def test_no_entry_is_an_error() -> None:
    with pytest.raises(PTXError, match="it has: none"):
        ptx.parse(HEADER + ".visible .func f() { ret; }\n")


def test_two_entries_are_an_error_that_names_both() -> None:
    text = module(".param .u32 n")
    second = text.removeprefix(HEADER).replace("kernel", "other")
    with pytest.raises(PTXError, match="it has: kernel, other"):
        ptx.parse(text + second)


@pytest.mark.parametrize("directive", [".version 8.0\n", ".target sm_90\n"])
def test_a_module_without_version_or_target_is_an_error(directive: str) -> None:
    with pytest.raises(PTXError, match=r"without \.version or \.target"):
        ptx.parse(module(".param .u32 n").replace(directive, ""))


def test_an_array_parameter_is_an_error_that_names_it() -> None:
    text = module(".param .u32 n").replace(
        ".param .u32 n", ".param .align 64 .b8 descriptor[128]"
    )
    with pytest.raises(PTXError, match=r"descriptor\[128\]` is not a scalar"):
        ptx.parse(text)


@pytest.mark.parametrize("comment", ["// .reqntid 64\n", "/* .reqntid 64 */\n"])
def test_a_directive_in_a_comment_does_not_count(comment: str) -> None:
    text = module(".param .u32 n", directives=f"{comment}.reqntid 128\n")
    assert ptx.parse(text).block == (128, 1, 1)


def test_an_entry_in_a_comment_does_not_count() -> None:
    text = "// .visible .entry other(.param .u32 n) {\n" + module(".param .u32 n")
    assert ptx.parse(text).name == "kernel"


def test_a_comment_among_the_parameters_does_not_count() -> None:
    text = module(POINTER + "x", ".param .u32 n").replace(
        "x,\n", "x, // the input (x, as given)\n"
    )
    assert names(text) == ["x", "n"]


# --- reorder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", list(itertools.permutations((IN0, IN1, N0, OUT0))), ids=lambda _: ""
)
def test_any_order_becomes_inputs_extras_outputs(order: Sequence[Slot]) -> None:
    name = {IN0: "x", IN1: "y", N0: "n", OUT0: "out"}
    declared = [
        (".param .u32 " if slot.kind is Kind.EXTRA else POINTER) + name[slot]
        for slot in order
    ]
    result = reorder(module(*declared), order, (2, 1, 1))
    assert names(result) == ["x", "y", "n", "out"]


def test_the_types_are_those_of_what_tensorrt_passes() -> None:
    text = module(".param .b64 out", ".param .s32 n", ".param .u64 x")
    result = reorder(text, [OUT0, N0, IN0], (1, 1, 1))
    assert types(result) == ["u64", "u32", "u64"]


def test_several_of_a_kind_go_by_index() -> None:
    text = module(*(f".param .u32 n{i}" for i in (1, 0)), POINTER + "b", POINTER + "a")
    result = reorder(text, [N1, N0, OUT1, OUT0], (0, 2, 2))
    assert names(result) == ["n0", "n1", "a", "b"]


def test_a_parameter_keeps_its_attributes() -> None:
    result = reorder(module(".param .u32 n", POINTER + "x"), [N0, IN0], (1, 1, 0))
    assert ptx.parse(result).parameters[0].attributes == " .ptr .global .align 1"


def test_the_entry_gets_the_name_it_is_given() -> None:
    result = reorder(module(".param .u32 n"), [N0], (0, 1, 0))
    assert ptx.parse(result).name == "op_t1"


def test_the_directives_stay() -> None:
    text = module(".param .u32 n", directives=".reqntid 128\n.minnctapersm 2\n")
    result = reorder(text, [N0], (0, 1, 0))
    assert ")\n.reqntid 128\n.minnctapersm 2\n{" in result


def test_the_body_and_the_module_header_stay_as_they_were() -> None:
    text = module(".param .u32 n", POINTER + "x")
    result = reorder(text, [N0, IN0], (1, 1, 0))
    assert result.startswith(HEADER)
    assert result[result.index("{") :] == text[text.index("{") :]


def test_the_same_pointer_twice_is_read_from_one_parameter() -> None:
    text = module(POINTER + "a", POINTER + "b", POINTER + "out")
    result = reorder(text, [IN0, IN0, OUT0], (1, 0, 1))
    assert names(result) == ["a", "out"]
    assert result.count("[a]") == 2
    assert "[b]" not in result


def test_a_name_that_contains_another_is_not_renamed_with_it() -> None:
    text = module(POINTER + "a", POINTER + "b", POINTER + "b_1", POINTER + "$b")
    result = reorder(text, [IN0, IN0, OUT0, OUT1], (1, 0, 2))
    assert re.findall(r"\[(.*?)\]", result) == ["a", "a", "b_1", "$b"]


def test_an_input_that_no_parameter_takes_is_declared_and_ignored() -> None:
    text = module(POINTER + "x", POINTER + "out")
    result = reorder(text, [IN1, OUT0], (2, 0, 1))
    assert types(result) == ["u64", "u64", "u64"]
    assert names(result)[1:] == ["x", "out"]


def test_an_extra_that_no_parameter_takes_has_32_bits() -> None:
    result = reorder(module(POINTER + "x"), [IN0], (1, 2, 0))
    assert types(result) == ["u64", "u32", "u32"]


def test_a_declared_parameter_never_takes_the_name_of_another() -> None:
    text = module(POINTER + "op_t1_input_0", POINTER + "out")
    result = reorder(text, [IN1, OUT0], (2, 0, 1))
    assert len(set(names(result))) == 3


def test_trailing_parameters_that_are_unused_go() -> None:
    text = module(POINTER + "x", POINTER + "s0", POINTER + "s1", reads=["x"])
    assert names(reorder(text, [IN0, UNUSED, UNUSED], (1, 0, 0))) == ["x"]


def test_an_unused_parameter_goes_wherever_it_stands() -> None:
    text = module(POINTER + "s0", POINTER + "x", reads=["x"])
    assert names(reorder(text, [UNUSED, IN0], (1, 0, 0))) == ["x"]


def test_an_unused_parameter_that_is_read_is_an_error() -> None:
    text = module(POINTER + "x", POINTER + "scratch")
    with pytest.raises(PTXError, match=r"reads parameter .* scratch, which should"):
        reorder(text, [IN0, UNUSED], (1, 0, 0))


@pytest.mark.parametrize("comment", ["// scratch", "/* [scratch]\n scratch */"])
def test_a_parameter_that_only_a_comment_names_is_unused(comment: str) -> None:
    text = module(POINTER + "x", POINTER + "scratch", reads=["x"])
    text = text.replace("\tret;", f"\t{comment}\n\tret;")
    assert names(reorder(text, [IN0, UNUSED], (1, 0, 0))) == ["x"]


def test_a_read_between_two_comments_is_still_a_read() -> None:
    text = module(POINTER + "x", POINTER + "scratch")
    text = text.replace("\tld.", "\t/* a */ld.").replace("];", "];/* b */")
    with pytest.raises(PTXError, match="reads parameter"):
        reorder(text, [IN0, UNUSED], (1, 0, 0))


@pytest.mark.parametrize(
    ("declared", "slot"),
    [
        (".param .u32 p", IN0),
        (".param .u32 p", OUT0),
        (".param .f64 p", N0),
        (".param .b128 p", N0),
        (".param .f64 p", IN0),
    ],
)
def test_a_parameter_of_a_type_that_is_not_passed_is_an_error(
    declared: str, slot: Slot
) -> None:
    with pytest.raises(PTXError, match=rf"{declared} cannot take {slot.kind.value} 0"):
        reorder(module(declared), [slot], (1, 1, 1))


@pytest.mark.parametrize("type_", ["f32", "u16", "b8"])
def test_a_value_of_32_bits_takes_the_place_of_a_narrower_one(type_: str) -> None:
    text = module(f".param .{type_} p", body=f"ld.param.{type_} %v, [p];")
    result = reorder(text, [N0], (0, 1, 0))
    assert types(result) == ["u32"]
    assert f"ld.param.{type_} %v, [p];" in result


def test_a_64_bit_integer_is_loaded_from_32_bits_with_its_sign() -> None:
    text = module(".param .u64 p", body="ld.param.b64 %rd1, [p];")
    result = reorder(text, [N0], (0, 1, 0))
    assert types(result) == ["u32"]
    assert "ld.param.s32 %rd1, [p];" in result


@pytest.mark.parametrize(
    "body",
    ["ld.param.v2.b64 {%a, %b}, [p];", "ld.param.f64 %fd1, [p];", "mov.u64 %r, p;"],
)
def test_64_bits_that_are_not_loaded_as_one_integer_are_refused(body: str) -> None:
    with pytest.raises(PTXError, match="not read as one integer"):
        reorder(module(".param .u64 p", body=body), [N0], (0, 1, 0))


VIEW, STEPS = Slot(Kind.INPUT, 0, 50), Slot(Kind.INPUT, 0, 2, 1)


def test_a_constant_offset_is_added_where_the_pointer_is_loaded() -> None:
    text = module(POINTER + "x", body="\tld.param.b64 \t%rd0, [x];")
    result = reorder(text, [VIEW], (1, 0, 0))
    assert "\tld.param.b64 \t%rd0, [x];\n\tadd.s64 %rd0, %rd0, 50;\n\tret;" in result
    ptxas.assemble(result, PTXAS, "sm_90")


def test_an_offset_that_follows_the_shape_is_a_product_with_an_extra() -> None:
    text = module(POINTER + "x", ".param .u32 n")
    result = reorder(text, [STEPS, N0], (1, 2, 0))
    assert names(result) == ["x", "n", "op_t1_extra_2"]
    assert (
        "[x];\n\tld.param.s32 %tta_factor, [op_t1_extra_2];\n"
        "\tmad.wide.s32 %rd0, %tta_factor, 2, %rd0;\n"
    ) in result
    ptxas.assemble(result, PTXAS, "sm_90")


def test_the_extra_of_an_offset_may_be_one_that_the_kernel_takes() -> None:
    text = module(".param .u32 m", ".param .u32 n", POINTER + "x")
    result = reorder(text, [N1, N0, STEPS], (1, 2, 0))
    assert names(result) == ["x", "n", "m"]
    assert "ld.param.s32 %tta_factor, [m];" in result


@pytest.mark.parametrize("order", list(itertools.permutations((IN0, VIEW, STEPS))))
def test_each_view_of_a_tensor_has_an_offset_of_its_own(order: Sequence[Slot]) -> None:
    text = module(POINTER + "a", POINTER + "b", POINTER + "c", POINTER + "out")
    text = text.replace("%rd<1>", "%rd<9>").replace("%rd0, [b]", "%rd1, [b]")
    text = text.replace("%rd0, [c]", "%rd2, [c]").replace("%rd0, [out]", "%rd3, [out]")
    result = reorder(text, [*order, OUT0], (1, 2, 1))
    assert names(result) == ["a", "op_t1_extra_1", "op_t1_extra_2", "out"]
    assert result.count("[a]") == 3
    where = dict(zip(order, ("%rd0", "%rd1", "%rd2"), strict=True))
    assert re.findall(r"add\.s64 (%\w+), \1, 50;", result) == [where[VIEW]]
    mad = r"mad\.wide\.s32 (%\w+), %tta_factor, 2, \1;"
    assert re.findall(mad, result) == [where[STEPS]]
    ptxas.assemble(result, PTXAS, "sm_90")


def test_a_load_under_a_condition_adds_under_it_and_each_load_adds() -> None:
    load = "ld.param.u64 %rd0, [x];"
    body = f"\t.reg .pred %p<1>;\n\t@!%p0 {load}\n\t{load}"
    result = reorder(module(POINTER + "x", body=body), [STEPS], (1, 2, 0))
    added = re.findall(r"(.*)(?:ld\.param\.s32|mad\.wide\.s32) ", result)
    assert added == ["\t@!%p0 ", "\t@!%p0 ", "\t", "\t"]
    ptxas.assemble(result, PTXAS, "sm_90")


@pytest.mark.parametrize(
    "body",
    [
        "ld.param.v2.b32 {%r0, %r1}, [x];",
        "ld.param.b32 %r0, [x+4];",
        "mov.u64 %rd0, x;",
        "ld.param.b64 %rd0, [x]; mov.u64 %rd0, x;",
    ],
)
def test_a_view_that_is_not_loaded_as_one_address_is_refused(body: str) -> None:
    text = module(POINTER + "x", body=body)
    assert names(reorder(text, [IN0], (1, 0, 0))) == ["x"]
    with pytest.raises(PTXError, match="not read as one address"):
        reorder(text, [VIEW], (1, 0, 0))


SCRATCH = Slot(Kind.OUTPUT, 0, alignment=128)


def test_the_address_of_scratch_memory_is_rounded_up_where_it_is_loaded() -> None:
    """And nothing tells the assembler that it is a multiple already."""
    aligned = ".param .u64 .ptr .global .align 128 scratch"
    result = reorder(module(aligned, reads=["scratch"]), [SCRATCH], (0, 0, 1))
    assert (
        "\tld.param.b64 \t%rd0, [scratch];\n\tadd.s64 %rd0, %rd0, 127;\n"
        "\tand.b64 %rd0, %rd0, -128;\n"
    ) in result
    assert "(\n\t.param .u64 scratch\n)" in result
    ptxas.assemble(result, PTXAS, "sm_90")


def test_scratch_memory_that_is_not_loaded_as_one_address_is_refused() -> None:
    text = module(POINTER + "scratch", body="mov.u64 %rd0, scratch;")
    with pytest.raises(PTXError, match="or scratch memory, and is not read as one"):
        reorder(text, [SCRATCH], (0, 0, 1))


def test_an_offset_by_an_extra_that_tensorrt_does_not_pass_is_an_error() -> None:
    with pytest.raises(PTXError, match="no such arguments"):
        reorder(module(POINTER + "x"), [STEPS], (1, 1, 0))


@pytest.mark.parametrize("slots", [[], [N0], [N0, N1, IN0]], ids=len)
def test_too_few_or_too_many_slots_are_an_error(slots: Sequence[Slot]) -> None:
    text = module(".param .u32 a", ".param .u32 b")
    with pytest.raises(PTXError, match=rf"has 2 parameters, {len(slots)} were"):
        reorder(text, slots, (1, 2, 0))


def test_a_slot_that_tensorrt_does_not_pass_is_an_error() -> None:
    with pytest.raises(PTXError, match="no such arguments"):
        reorder(module(POINTER + "x"), [IN1], (1, 0, 0))


def test_an_array_parameter_is_not_reordered() -> None:
    text = module(".param .u32 n").replace("n\n)", "n[2]\n)")
    with pytest.raises(PTXError, match="is not a scalar"):
        reorder(text, [N0], (0, 1, 0))


def test_the_emitted_entry_header_is_the_golden_one() -> None:
    text = module(
        POINTER + "kernel_param_0",
        ".param .s32 kernel_param_1",
        POINTER + "kernel_param_2",
        POINTER + "kernel_param_3",
        ".param .u64 kernel_param_4",
        reads=["kernel_param_0", "kernel_param_1", "kernel_param_2"],
        directives=".reqntid 128\n.maxnreg 64\n",
    )
    result = reorder(text, [OUT0, N0, IN0, IN0, UNUSED], (2, 1, 1))
    header = result[result.index(".visible") : result.index("{") + 1] + "\n"
    golden = GOLDEN / "entry_header.ptx"
    if os.environ.get("TTA_REFRESH_GOLDEN"):
        golden.write_text(header)
    assert header == golden.read_text()


# --- braces ---------------------------------------------------------------------------


def test_braces_that_do_not_match_are_an_error() -> None:
    text = "f { a { b } c } { d }"
    assert ptx.closing_brace(text, text.index("a")) == text.index("} {")
    with pytest.raises(PTXError, match="braces of the compiled code do not match"):
        ptx.closing_brace("f { a { b }", 4)


# --- rename, and what debuggers read --------------------------------------------------


def test_a_renamed_entry_takes_its_added_parameters_along() -> None:
    text = module(POINTER + "x", POINTER + "out")
    result = ptx.rename(reorder(text, [IN1, OUT0], (2, 0, 1)), "op_t1", "other")
    assert ptx.parse(result).name == "other"
    assert names(result) == ["other_input_0", "x", "out"]
    assert "op_t1" not in result


def test_only_names_that_begin_with_the_entrys_are_renamed() -> None:
    kept = "$kernel %kernel my_kernel kernels"
    text = module(POINTER + "x", body=f"// {kept} kernel kernel_local")
    assert f"// {kept} op op_local" in ptx.rename(text, "kernel", "op")


def test_code_is_the_same_whatever_debuggers_read_of_it() -> None:
    """Paths of the machine that compiled it, and lines of the user's file."""
    text = module(POINTER + "x", body="\tmov.b32 %r0, 1;")
    debugged = text.replace(
        "\tmov.b32 %r0, 1;",
        '\t.file 1 "/home/me/kernels.py"\n\t.loc 1 42 7\n\tmov.b32 %r0, 1; // 42:7',
    )
    debugged += "\t.section .debug_str {\n\t.b8 47\n}\n\t.section .debug_loc { }\n"
    plain, stripped = map(ptx.without_debug_info, (text, debugged))
    assert plain.split() == stripped.split() == text.split()


# --- retarget -------------------------------------------------------------------------


def test_only_the_target_changes() -> None:
    text = module(".param .u32 n").replace("sm_90", "sm_90a")
    assert ptxas.retarget(text, "sm_90") == text.replace("sm_90a", "sm_90")


def test_the_options_of_the_target_stay() -> None:
    text = module(".param .u32 n").replace("sm_90", "sm_90a, debug")
    assert ".target sm_100, debug\n" in ptxas.retarget(text, "sm_100")


# --- assemble, with the assembler that Triton brings ----------------------------------


def test_what_is_emitted_assembles() -> None:
    text = module(POINTER + "b", ".param .u32 n", POINTER + "a", POINTER + "scratch")
    text = text.replace("\tld.param.b64 \t%rd0, [scratch];\n", "")
    result = reorder(text, [OUT0, N0, IN0, UNUSED], (2, 1, 1))
    assert ptxas.assemble(result, PTXAS, "sm_90").registers > 0


def test_static_shared_memory_is_counted() -> None:
    text = module(POINTER + "out").replace(
        "\tret;",
        "\t.shared .align 4 .b8 buffer[512];\n\t.reg .b32 \t%t;\n"
        "\tmov.u32 \t%t, buffer;\n\tst.global.b32 \t[%rd0], %t;\n\tret;",
    )
    assert ptxas.assemble(text, PTXAS, "sm_90").static_shared_memory == 512


def sums(values: int) -> str:
    """A module that keeps many values alive, in 24 registers."""
    loads = "".join(
        f"\tld.volatile.global.b32 \t%v{i}, [%rd0+{4 * i}];\n" for i in range(values)
    )
    stores = "".join(
        f"\tst.volatile.global.b32 \t[%rd0+{4 * i}], %v{values - 1 - i};\n"
        for i in range(values)
    )
    text = module(POINTER + "x", directives=".maxnreg 24\n")
    return text.replace("\tret;", f"\t.reg .b32 \t%v<{values}>;\n{loads}{stores}\tret;")


def test_spilled_bytes_are_counted() -> None:
    resources = ptxas.assemble(sums(100), PTXAS, "sm_90")
    assert resources.spills > 0


def test_a_kernel_that_fits_its_registers_spills_nothing() -> None:
    resources = ptxas.assemble(sums(4), PTXAS, "sm_90")
    assert (resources.spills, resources.static_shared_memory) == (0, 0)
    assert 0 < resources.registers <= 24


def test_the_assemblers_refusal_is_an_error_in_its_own_words() -> None:
    text = module(".param .u32 n").replace("\tret;", "\tno.such.instruction;")
    with pytest.raises(PTXError, match=r"for sm_90:\n.*line 12; error"):
        ptxas.assemble(text, PTXAS, "sm_90")


def test_code_of_a_newer_architecture_is_refused_for_an_older_one() -> None:
    with pytest.raises(PTXError, match="ptxas refuses the kernel for sm_80"):
        ptxas.assemble(module(".param .u32 n"), PTXAS, "sm_80")


# --- A kernel as Triton compiles it ---------------------------------------------------


@triton.jit
def scaled_copy_kernel(out_ptr, n, x_ptr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, x + x, mask=offsets < n)


@pytest.fixture(scope="module")
def compiled() -> str:
    """``scaled_copy_kernel``, whose parameters are out, n, x and Triton's scratch."""
    source = ASTSource(
        scaled_copy_kernel,
        {"out_ptr": "*fp32", "n": "i32", "x_ptr": "*fp32", "BLOCK": "constexpr"},
        {(3,): 256},
    )
    options = {"num_warps": 8, "enable_fp_fusion": True}
    result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    text: str = result.asm["ptx"]
    return text


def test_tritons_entry_is_read(compiled: str) -> None:
    entry = ptx.parse(compiled)
    assert entry.name == "scaled_copy_kernel"
    assert entry.block == (256, 1, 1)
    assert [p.type for p in entry.parameters[:3]] == ["u64", "u32", "u64"]


def test_tritons_entry_takes_tensorrts_arguments(compiled: str) -> None:
    scratch = [UNUSED] * (len(ptx.parse(compiled).parameters) - 3)
    result = reorder(compiled, [OUT0, N0, IN0, *scratch], (1, 1, 1))
    assert types(result) == ["u64", "u32", "u64"]
    assert names(result) == [f"scaled_copy_kernel_param_{i}" for i in (2, 1, 0)]


def test_tritons_reordered_entry_takes_what_the_original_did(compiled: str) -> None:
    scratch = [UNUSED] * (len(ptx.parse(compiled).parameters) - 3)
    result = reorder(compiled, [OUT0, N0, IN0, *scratch], (1, 1, 1))
    arch = ptx.parse(compiled).target
    before = ptxas.assemble(compiled, PTXAS, arch)
    assert ptxas.assemble(result, PTXAS, arch) == before


# --- Shared memory and clusters -------------------------------------------------------

ARRAY = ".extern .shared .align 16 .b8 memory[];"


def with_arrays(*arrays: str, uses: Sequence[str] = ("memory",)) -> str:
    body = "\n".join(f"\tmov.b32 \t%r0, {name};" for name in uses)
    text = module(POINTER + "x", body=body)
    return text.replace("\n.visible", "\n".join(["", *arrays, ".visible"]))


def test_dynamic_shared_memory_becomes_a_static_array_at_a_multiple_of_1024() -> None:
    result = ptx.static_shared(with_arrays(ARRAY), 5000)
    assert ".shared .align 1024 .b8 memory[5000];" in result
    assert ".extern" not in result
    assert ptxas.assemble(result, PTXAS, "sm_90").static_shared_memory == 5000


def test_a_larger_alignment_is_kept() -> None:
    text = with_arrays(ARRAY.replace("16", "2048"))
    assert ".shared .align 2048 .b8 memory[64];" in ptx.static_shared(text, 64)


def test_several_dynamic_arrays_are_one_as_they_are_the_same_memory() -> None:
    other = ".extern .shared .align 4 .f32 other [ ] ;"
    text = with_arrays(ARRAY, other, uses=["memory", "other", "other_one"])
    text = text.replace(".visible", ".shared .b8 other_one[8];\n.visible", 1)
    result = ptx.static_shared(text, 4096)
    assert result.count("%r0, memory;") == 2
    assert "%r0, other_one;" in result
    assert ptxas.assemble(result, PTXAS, "sm_90").static_shared_memory >= 4104


def test_an_array_in_a_comment_is_none() -> None:
    with pytest.raises(PTXError, match=r"5000 bytes .* and declares none"):
        ptx.static_shared(with_arrays(f"// {ARRAY}"), 5000)


@pytest.mark.parametrize(
    "array",
    [".extern .shared .b8 memory[64];", ".extern .shared .b32 memory;"],
)
def test_dynamic_memory_that_is_not_such_an_array_is_refused(array: str) -> None:
    with pytest.raises(PTXError, match="not an array of the module"):
        ptx.static_shared(with_arrays(array), 5000)


def test_dynamic_memory_of_a_function_is_refused() -> None:
    text = module(POINTER + "x", body=ARRAY)
    with pytest.raises(PTXError, match="not an array of the module"):
        ptx.static_shared(text, 5000)


def test_a_kernel_that_asks_for_the_size_of_its_memory_is_refused() -> None:
    text = with_arrays(ARRAY).replace("ret;", "mov.u32 %r0, %dynamic_smem_size;\nret;")
    with pytest.raises(PTXError, match="reads %dynamic_smem_size"):
        ptx.static_shared(text, 5000)


@pytest.mark.parametrize(
    "directives",
    ["", ".explicitcluster\n", ".reqnctapercluster 2\n", ".reqntid 128\n"],
)
def test_the_shape_of_clusters_is_declared_in_the_entry(directives: str) -> None:
    text = module(POINTER + "x", directives=directives)
    result = ptx.in_clusters(text, (2, 1, 1))
    assert ptx.parse(result).cluster == (2, 1, 1)
    assert result.count(".explicitcluster") == result.count(".reqnctapercluster") == 1
    assert ptx.parse(result).block == ptx.parse(text).block
    ptxas.assemble(result, PTXAS, "sm_90")
    assert ptx.in_clusters(result, (2, 1, 1)) == result


@pytest.mark.parametrize(
    "directives", [".reqnctapercluster 4\n", ".maxclusterrank 2\n"]
)
def test_an_entry_with_other_clusters_is_refused(directives: str) -> None:
    text = module(POINTER + "x", directives=directives)
    with pytest.raises(PTXError, match=rf"\(2, 1, 1\) blocks, .*{directives.strip()}"):
        ptx.in_clusters(text, (2, 1, 1))


def test_a_cluster_has_up_to_three_sizes() -> None:
    text = module(POINTER + "x", directives=".reqnctapercluster 2, 3\n")
    assert ptx.parse(text).cluster == (2, 3, 1)
    assert ptx.parse(module(POINTER + "x")).cluster is None
