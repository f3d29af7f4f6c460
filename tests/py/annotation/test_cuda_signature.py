# SPDX-License-Identifier: BSD-3-Clause

"""What is read of a CUDA kernel's name, options, headers and PTX."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from torch_tensorrt.annotation.backends.cuda.entry import (
    baked,
    double,
    integer,
    only_entry,
    with_directives,
)
from torch_tensorrt.annotation.backends.cuda.headers import included
from torch_tensorrt.annotation.backends.cuda.kernel import Code
from torch_tensorrt.annotation.backends.cuda.scalars import (
    Sized,
    host_type,
    stand_ins,
)
from torch_tensorrt.annotation.backends.cuda.signature import parameter_types
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

PROBE = "_Z13tta_signatureIPFv{}EE"


@pytest.mark.parametrize(
    ("mangled", "types"),
    [
        (PROBE.format("PKfPffdxihbs"), "float* float* float double long long int "
         "unsigned char bool short"),
        (PROBE.format("PK6__halfS2_PS0_j"), "__half* __half* __half* unsigned int"),
        (PROBE.format("PKfS1_S0_"), "float* float* float"),
        (PROBE.format("PVKiPvPPf13__nv_bfloat16"), "int* void* float** __nv_bfloat16"),
        (PROBE.format("v"), ""),
        ("_Z3addPKfS0_Pfm", "float* float* float* unsigned long"),
        ("_Z3addPKfPS_Pfm", "float* float* float* unsigned long"),
        ("_Z3addPKfN2ns1TE", None),
        ("_Z3addIfEvPKT_", None),
        ("_Z9", None),
        ("add", None),
    ],
)  # fmt: skip
def test_types_are_read_from_mangled_names(mangled: str, types: str | None) -> None:
    count = {None: 3, "": 0}.get(types) if not types else None
    if count is None:
        assert types is not None
        found = parameter_types(mangled, 9), parameter_types(mangled, 3)
        found += (parameter_types(mangled, 4),)
        known = [each for each in found if None not in each]
        assert [" ".join(map(str, each)) for each in known] == [types]
    else:
        assert parameter_types(mangled, count) == (None,) * count


def test_options_with_a_meaning_of_their_own_are_read() -> None:
    options = [
        "-std=c++17",
        "-I",
        "here",
        "-Ithere",
        "--include-path=else",
        "-D",
        "A=1",
    ]
    options += [
        "-arch",
        "compute_90a",
        "-maxrregcount=32",
        "--maxrregcount=64",
        "--pch",
        "-rdc=false",
    ]
    code = Code.of("", "ns::f<int, a::b<2>>", options, ["first"])
    assert code.options == ("-std=c++17", "-DA=1")
    assert code.folders == ("first", "here", "there", "else")
    assert (code.architecture, code.maxnreg, code.base) == ("sm_90a", 64, "f")


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (True, ("", "int32", "bool", "bool")),
        (3, ("", "int32", "int64", "int64")),
        (0.5, ("", "float64", "float64", "float64")),
        (np.int16(3), ("", None, "int16", "int16")),
        (np.float32(3), ("", None, "float32", "float32")),
        (ctypes.c_uint64(3), ("", None, "uint64", "uint64")),
        ("text", (None, None, None, None)),
    ],
    ids=repr,
)
def test_each_library_passes_numbers_as_it_does(
    value: object, types: tuple[str | None, ...]
) -> None:
    libraries = "", "torch", "CuPy", "cuda.core"
    assert tuple(host_type(value, library) for library in libraries) == types


def test_what_stands_for_numpys_types_does_what_they_do() -> None:
    known = dict(stand_ins())
    int32, numpy = known[np.int32], known[np]
    assert int32(5) == np.int32(5) and type(int32(5)) is np.int32
    assert int32() == 0
    assert isinstance(np.int32(5), int32) and not isinstance(np.int64(5), int32)
    assert int32 == np.int32 and int32 != np.float32
    assert numpy.int32 is int32
    assert numpy.typecodes is np.typecodes
    assert Sized(3, "float32").as_float() == 3.0


def test_parameters_have_the_names_of_the_source() -> None:
    source = "template <class T> __global__ void f(const T* x, T (&y)[2], int n) {"
    code = Code.of(source, "f<float>")
    assert code.parameters(2) == ("0", "1")
    source = "__global__ void f(const float* __restrict__ x, float* out,\n int n)\n{"
    assert Code.of(source, "f").parameters(3) == ("x", "out", "n")


def test_every_header_that_could_be_meant_counts(tmp_path: Path) -> None:
    for name, text in {
        "a.cuh": '#if 0\n#  include <b.cuh>\n#endif\n// #include "c.cuh"',
        "b.cuh": '#include "deep/d.cuh"',
        "c.cuh": "",
        "deep/d.cuh": '#include "e.cuh"\n#include "missing.cuh"',
        "deep/e.cuh": '#include "../a.cuh"',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = included('#include "a.cuh"\n', [str(tmp_path)])
    assert [name for name, _ in found] == ["a.cuh", "b.cuh", "deep/d.cuh", "e.cuh"]
    (tmp_path / "deep/e.cuh").write_text("// changed")
    changed = included('#include "a.cuh"\n', [str(tmp_path)])
    assert [one == other for one, other in zip(found, changed, strict=True)] == [
        *(True, True, True, False)
    ]


MODULE = """
.version 8.0
.target sm_80
.address_size 64
.global .align 4 .u32 unused;
.const .align 4 .b8 table[4] = {1, 2, 3, 4};
.visible .entry other(.param .u64 other_p) { ld.param.u64 %rd1, [other_p]; { ret; } }
.weak .entry mine(
    .param .u64 p, .param .f64 by, .param .u64 n
)
.maxntid 128, 1, 1
{
    ld.param.u64 %rd1, [p];
    @%p1 ld.param.f64 %fd1, [by];
    ld.param.u64 %rd2, [n];
    ld.const.u32 %r1, [table];
    ret;
}
"""


def test_one_entry_is_left_of_a_module() -> None:
    text = only_entry(MODULE, "mine", "k")
    assert "other" not in text
    assert "unused" not in text
    assert ".visible .entry mine(" in text
    assert "table[4] = {1, 2, 3, 4};" in text
    with pytest.raises(PTXError, match="no entry k; there is: other, mine"):
        only_entry(MODULE, "k", "k")


def test_constants_are_written_in_place_of_loads() -> None:
    text = only_entry(MODULE, "mine", "k")
    text = baked(text, {"by": double(-0.5), "n": integer(2**64 - 1)}, "k")
    assert "@%p1 mov.f64 %fd1, 0dBFE0000000000000;" in text
    assert "mov.b64 %rd2, -1;" in text
    taken = text.replace("ld.param.u64 %rd1, [p]", "mov.b64 %rd1, p")
    with pytest.raises(UnsupportedKernelError, match="is not read as one value"):
        baked(taken, {"p": integer(0)}, "k")


def test_the_assembler_gets_what_the_user_asks_for() -> None:
    text = with_directives(only_entry(MODULE, "mine", "k"), (64, 2, 1), 40, 3)
    directives = text[text.index(")") : text.index("{", text.index(".visible"))]
    assert directives.split("\n")[1:-1] == [
        *(".maxntid 128, 1, 1", ".maxnreg 40", ".minnctapersm 3")
    ]
    bare = only_entry(MODULE.replace(".maxntid 128, 1, 1\n", ""), "mine", "k")
    assert ".maxntid 64, 2, 1\n.minnctapersm 3\n" in with_directives(
        bare, (64, 2, 1), 0, 3
    )
