# SPDX-License-Identifier: BSD-3-Clause

"""cuTile's tensor maps: read from the host code in a CUBIN, and made in the entry."""

from __future__ import annotations

import copy
import math
import platform
import re
import struct
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from compiled_elsewhere import as_inputs
from kernels import info

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.effects import effects
from torch_tensorrt.annotation._code.lowering import sections
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range
from torch_tensorrt.annotation.errors import CompileError, UnsupportedKernelError

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402
from cutile_tools import compiled, matmul, recorded  # noqa: E402

from torch_tensorrt.annotation.backends.cutile import (  # noqa: E402
    FACT_SETS,
    host_maps,
    tileiras,
)
from torch_tensorrt.annotation.backends.cutile.host_maps import (  # noqa: E402
    hidden_maps,
)
from torch_tensorrt.annotation.backends.cutile.signature import Signature  # noqa: E402

on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the host code of CUBINs is for x86-64"
)
pytestmark = on_x86
UNITS = Range(1, 64, 514)  # of 8 elements, so rows are multiples of 16 bytes
TILES = (64, 128, 64)


def launch_product(a: Any, b: Any, c: Any) -> None:
    """``a @ b``, for ``a[M, k, 8]`` and ``b[k, 8, n, 8]``."""
    a, b, c = a.flatten(1), b.flatten(2).flatten(0, 1), c.flatten(1)
    kernels.launch_matmul(a, b, c, TILES)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[2], 8)


@cache
def signature() -> Signature:
    """Of the product at any M, n and k."""
    inputs = (info(Range(1, 1000, 4112), UNITS, 8), info(UNITS, 8, UNITS, 8))
    program = recorded(launch_product, *inputs, meta=product)
    return Signature(program, True, FACT_SETS["tma16"])


@cache
def cubin() -> bytes:
    launch = signature().program.launch
    target = Target("sm_90")
    return tileiras.compile_cubin(launch, {}, signature().constraints, target, True)


def read(image: bytes) -> list[host_maps.HiddenMap]:
    return hidden_maps(image, tileiras.embedded_ptx(image), signature())


def machine_code() -> bytes:
    return host_maps._machine_code(cubin())


def instead(code: bytes) -> bytes:
    """The CUBIN with a host function that starts with other code."""
    return cubin().replace(machine_code(), code + machine_code()[len(code) :])


def prefixed(code: bytes) -> bytes:
    """The CUBIN with a host function that executes ``code`` first.

    The function begins with a test that always jumps over the next 4 bytes.
    """
    start = machine_code()
    assert start[5:11] == b"\xb0\x01\x84\xc0\x75\x04", "mov 1, test, jump over 4 bytes"
    rest = code + b"\x90" * (4 - len(code)) + b"\xeb\x04"  # do nothing, jump over 4
    return cubin().replace(start, start[:5] + rest + start[11:])


def test_each_map_has_the_sizes_of_its_tensor() -> None:
    """Parameters: a pointer, two extents and two strides for each matrix."""
    a, b, c = read(cubin())
    slots = signature().slots
    assert [each.tensor for each in (a, b, c)] == [0, 5, 10]
    for each, box in ((a, (64, 64)), (b, (64, 64)), (c, (64, 64))):
        _, rows, columns, stride, _ = slots[each.tensor : each.tensor + 5]
        fields = each.fields
        assert (fields.extents, fields.strides) == ((columns, rows), (stride,))
        assert (fields.item_size, fields.element_type, fields.box) == (2, 6, box)
        assert (fields.swizzle, fields.fill) == (3, 0)


def test_the_entry_makes_the_maps_in_memory_of_the_launch() -> None:
    result = matmul(Range(1, 64, 4096), 512, 256, facts="tma16")
    (scratch,) = result.scratch
    assert scratch == 3 * 128
    assert "mov.b64 %tta_stride, 512;" in result.code  # of 256 elements
    assert ".hidden" not in result.code
    does = [what for what in effects(result.code).values() if what]
    assert does == ["loaded", "loaded", "stored", "stored"]  # the last is scratch


def test_rows_of_any_length_are_not_copied_with_tma() -> None:
    any_length = info(8, Range(1, 50, 200))
    result = compiled(kernels.launch_transpose, any_length, facts="tma16")
    assert result.scratch == ()


def test_a_driver_that_gives_too_little_shared_memory_is_named() -> None:
    """The kernel has 73 KiB; drivers before CUDA 13.0 may give 48."""
    impl = tta.custom_plugin(tta.cutile(launch_product, fact_sets="tma16"), product)
    trt_plugins.custom_op("tma::product", impl=impl, supports_dynamic_shapes=True)
    inputs = as_inputs((info(Range(1, 1000, 4112), UNITS, 8), info(UNITS, 8, UNITS, 8)))
    with pytest.raises(UnsupportedKernelError, match=r"a driver of CUDA 13\.0"):
        tta.dry_run("tma::product", inputs, "sm_90,ptx_isa=8.8")
    (tactic,) = tta.dry_run("tma::product", inputs, "sm_90,ptx_isa=9.0").tactics
    assert (tactic.target, tactic.error) == ("sm_90a", None)
    launch = tactic.at((1001, 65, 8), (65, 8, 127, 8))
    blocks = math.prod(launch.grid)
    assert launch.hidden == ((blocks * 3 * 128 // 4 + 32,),)


def test_a_kernel_without_such_copies_takes_no_scratch_memory() -> None:
    assert compiled(kernels.launch_relu, info(8, 32), facts="tma16").scratch == ()
    assert matmul(64, 512, 256, facts="tma16", target=Target("sm_80")).scratch == ()


def test_a_hint_makes_no_difference() -> None:
    """The L2 cache may fetch 128 bytes at once, or as many as it likes."""
    low = struct.pack("<I", 0x46312)
    assert machine_code().count(low) == 3
    other = machine_code().replace(low, struct.pack("<I", 0x06312))
    assert read(instead(other)) == read(cubin())


@pytest.mark.parametrize(
    ("low", "why"),
    [
        (0x46B12, r"launch with \[.*\] makes one of .*46b12 .* was expected"),
        (0x46313, r"makes one of .*46313 .*, where .*6312 .* was expected"),
        (0x46792, "elements of a type, 15, that is not known here"),
    ],
    ids=["an unknown bit", "another maker", "an unknown type"],
)
def test_a_map_of_a_kind_that_is_not_known_is_refused(low: int, why: str) -> None:
    code = machine_code().replace(b"\x12\x63\x04\x00", struct.pack("<I", low))
    with pytest.raises(
        UnsupportedKernelError, match=f"matmul_kernel: it takes tensor maps .*{why}"
    ):
        read(instead(code))


def test_a_size_that_is_no_parameter_is_refused() -> None:
    """The last index is 1 less than the extent; here it is 1 more."""
    decrement = b"\x48\xff\xc8"  # dec %rax
    assert decrement in machine_code()
    code = machine_code().replace(decrement, b"\x48\xff\xc0")
    with pytest.raises(UnsupportedKernelError, match="neither constant nor a param"):
        read(instead(code))


@pytest.mark.parametrize(("lower", "divisor"), [(0, 8), (1, 1)])
def test_a_size_that_a_map_cannot_have_is_refused(lower: int, divisor: int) -> None:
    """A stride that may be 0, as of an expanded tensor, or one of any length."""
    given, facts = copy.copy(signature()), signature().facts
    given.facts = lambda expr: replace(  # type: ignore[method-assign]
        facts(expr), lower=lower, divisor=divisor
    )
    code = tileiras.embedded_ptx(cubin())
    with pytest.raises(UnsupportedKernelError, match=r"known to be a multiple of \d"):
        hidden_maps(cubin(), code, given)


def test_a_map_of_something_else_than_a_tensor_is_refused() -> None:
    """The bits of an address that a map holds; here it loses the upper ones."""
    mask = bytes.fromhex("ffffffffffff1f00")
    assert mask in machine_code()
    code = machine_code().replace(mask, bytes.fromhex("ffff000000000000"))
    with pytest.raises(UnsupportedKernelError, match="else than a tensor from its"):
        read(instead(code))


def test_host_code_that_refers_to_other_code_is_not_called() -> None:
    host = sections(cubin())[b".nv.host"]
    relocations = sections(host)[b".rela.ltext"]  # spellchecker:disable-line
    image = cubin().replace(relocations, bytes(8) + relocations[8:])
    with pytest.raises(UnsupportedKernelError, match="refers to other code"):
        read(image)


def test_a_map_that_is_not_written_as_a_whole_is_refused() -> None:
    last_word = re.compile(rb"\x48\xc7[\x40-\x47]\x38....", re.DOTALL)  # of a box
    code = last_word.sub(b"\x0f\x1f\x84" + bytes(5), machine_code())  # do nothing
    assert code != machine_code()
    with pytest.raises(UnsupportedKernelError, match="does not write whole maps"):
        read(instead(code))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (b"\x0f\x0b", r"is not known .exit status -4"),  # an illegal instruction
        (b"\xeb\xfe", r"is not known .*timed out"),  # a jump to itself
    ],
    ids=["crash", "hang"],
)
def test_host_code_that_does_not_return_ends_a_process_of_its_own(
    code: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_maps, "_TIMEOUT", 1)
    with pytest.raises(CompileError, match=rf"{why}(.|\n)*Take the fact set 'vector"):
        read(instead(code))


def test_host_code_of_another_machine_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_maps.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(host_maps.subprocess, "run", pytest.fail)
    with pytest.raises(CompileError, match=r"another host .* is aarch64"):
        read(cubin())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (b"\xc3", "its launch makes none"),  # a return
        (b"\xfe\x01\xc3", "its launch makes none"),  # another address of the first
        (b"\xfe\x01", "writes something else than maps"),  # and then the maps
    ],
    ids=["nothing", "a parameter", "a parameter and maps"],
)
def test_host_code_that_makes_something_else_is_refused(code: bytes, why: str) -> None:
    image = instead(code) if code.endswith(b"\xc3") else prefixed(code)
    with pytest.raises(UnsupportedKernelError, match=why):
        read(image)


def test_a_cubin_without_host_code_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match="says nothing of them"):
        read(cubin().replace(b".nv.host", b".nv.xxxx"))
    with pytest.raises(UnsupportedKernelError, match="has 0 functions for them"):
        read(cubin().replace(b"ON_ARGUMENTS_CHANGE_0", b"ON_ARGUMENTS_CHANGE_X"))


def test_parameters_that_are_no_maps_are_refused() -> None:
    last = "matmul_kernel_param_17"
    code = tileiras.embedded_ptx(cubin()).replace(f"{last}[128]", f"{last}[64]")
    with pytest.raises(UnsupportedKernelError, match=r"parameters are u64, u32, .*64"):
        hidden_maps(cubin(), code, signature())
