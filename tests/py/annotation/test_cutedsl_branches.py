# SPDX-License-Identifier: BSD-3-Clause

"""Host code that branches on sizes is worth what a machine computes, or is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import sympy

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass.cute as cute
from cutedsl_tools import compiled, recorded
from cutlass._mlir import ir
from kernels import info
from test_cutedsl_launch_abi import (
    Compilation,
    reads_of_arguments,
    reads_of_parameters,
)
from values import evaluate

from torch_tensorrt.annotation._sizes.facts import bounds
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends.cutedsl.arithmetic import Unknown
from torch_tensorrt.annotation.backends.cutedsl.choices import Choice
from torch_tensorrt.annotation.backends.cutedsl.host import Host, execute
from torch_tensorrt.annotation.errors import UnsupportedKernelError

N, M = symbol(0, 0), symbol(0, 1)
RANGES = {N: Range(1, 20, 40), M: Range(2, 3, 5)}

LAUNCHER = """
llvm.func @_cudaLaunchKernelEx(!llvm.ptr, !llvm.ptr, !llvm.ptr) -> i32
llvm.mlir.global external @kernels_k() : !llvm.ptr
llvm.func @launcher(%n: i32, %m: i32) {{
  %0 = llvm.mlir.constant(0 : i32) : i32
  %1 = llvm.mlir.constant(1 : i32) : i32
  %2 = llvm.mlir.constant(2 : i32) : i32
  %7 = llvm.mlir.constant(7 : i32) : i32
  %40 = llvm.mlir.constant(40 : i32) : i32
  %size = llvm.mlir.constant(256 : i64) : i64
  %config = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  %field = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  %array = llvm.alloca %size x i8 : (i64) -> !llvm.ptr
  llvm.store %field, %array : !llvm.ptr, !llvm.ptr
  %list = llvm.getelementptr %config[40] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.store %field, %list : !llvm.ptr, !llvm.ptr
  %count = llvm.getelementptr %config[48] : (!llvm.ptr) -> !llvm.ptr, i8
  llvm.store %0, %count : i32, !llvm.ptr
  {body}
^end(%result: i32):
  llvm.store %result, %field : i32, !llvm.ptr
  %global = llvm.mlir.addressof @kernels_k : !llvm.ptr
  %kernel = llvm.load %global : !llvm.ptr -> !llvm.ptr
  %status = llvm.call @_cudaLaunchKernelEx(%config, %kernel, %array)
    : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> i32
  llvm.return
}}
"""


def result(body: str, n: Any, m: Any, ranges: Any) -> Any:
    """What a launcher passes to its kernel."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(LAUNCHER.format(body=body))
        (launch,) = execute(Host("", module, "launcher", (n, m)), ranges, "launcher")
    value = launch.parameters[0][0].value
    if isinstance(value, Choice):
        return value.expression(partial(bounds, ranges=ranges)) or value
    return value


def compare(relation: str, left: str = "%n", right: str = "%7") -> str:
    return f"""
  %low = llvm.icmp "{relation}" {left}, {right} : i32
  llvm.cond_br %low, ^yes, ^no(%n : i32)
^yes:
  %double = llvm.mul %n, %2 : i32
  llvm.br ^end(%double : i32)
^no(%same : i32):
  %more = llvm.add %same, %m : i32
  llvm.br ^end(%more : i32)"""


LOOP = """
  %none = llvm.icmp "eq" %n, %1 : i32
  llvm.cond_br %none, ^first, ^head(%1, %0 : i32, i32)
^first:
  llvm.br ^out(%0 : i32)
^head(%power: i32, %log: i32):
  %less = llvm.icmp "ult" %power, %n : i32
  llvm.cond_br %less, ^again(%power, %log : i32, i32), ^after
^again(%p: i32, %l: i32):
  %next = llvm.mul %p, %2 : i32
  %one = llvm.add %l, %1 : i32
  llvm.br ^head(%next, %one : i32, i32)
^after:
  llvm.br ^out(%log : i32)
^out(%found: i32):
  %shifted = llvm.shl %1, %found : i32
  %above = llvm.sub %shifted, %n : i32
  %part = llvm.udiv %above, %n : i32
  %sum = llvm.add %part, %above : i32
  %few = llvm.icmp "ult" %found, %2 : i32
  %chosen = llvm.select %few, %found, %sum : i1, i32
  llvm.br ^end(%chosen : i32)"""


ZEROS = """
  %less = llvm.sub %n, %1 : i32
  %some = "llvm.intr.ctlz"(%n) <{is_zero_poison = true}> : (i32) -> i32
  %zeros = "llvm.intr.ctlz"(%less) <{is_zero_poison = false}> : (i32) -> i32
  %both = llvm.mul ZEROS, %m : i32
  %sum = llvm.add %both, %n : i32
  llvm.br ^end(%sum : i32)"""


# Both ways run ^head, whose values are equal, and mention the size.
COMMON = """
  %low = llvm.icmp "ult" %n, %7 : i32
  llvm.cond_br %low, ^yes, ^no
^yes:
  llvm.br ^head(%1 : i32)
^no:
  llvm.br ^head(%2 : i32)
^head(%first: i32):
  llvm.br ^loop(%first, %0 : i32, i32)
^loop(%step: i32, %sum: i32):
  %more = llvm.add %sum, %n : i32
  %next = llvm.add %step, %1 : i32
  %small = llvm.icmp "ult" %next, %m : i32
  llvm.cond_br %small, ^loop(%next, %more : i32, i32), ^end(%more : i32)"""


@pytest.mark.parametrize(
    "body",
    [
        *map(compare, ("ult", "ule", "ugt", "uge", "slt", "sge")),
        compare("slt", "%7", "%n"),
        *(compare(r, right=end) for r in ("eq", "ne") for end in ("%1", "%40")),
        LOOP,
        *(ZEROS.replace("ZEROS", zeros) for zeros in ("%some", "%zeros")),
    ],
)
def test_both_ways_of_a_branch_are_taken(body: str) -> None:
    value = result(body, N, M, RANGES)
    lower, upper = bounds(value, RANGES)
    for n in (*range(1, 10), 16, 17, 32, 33, 39, 40):
        for m in (2, 5):
            exact = result(body, sympy.Integer(n), sympy.Integer(m), {})
            assert evaluate(value, {N: n, M: m}) == exact
            assert lower <= exact <= upper


STORES = """
  %low = llvm.icmp "ult" %n, %7 : i32
  llvm.cond_br %low, ^yes, ^end(%n : i32)
^yes:
  llvm.store %n, %config : i32, !llvm.ptr
  llvm.br ^end(%n : i32)"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (compare("eq"), "d0_0 == 7"),  # three intervals
        (compare("ult", "%m", "%n"), "d0_1 < d0_0"),
        (STORES, "d0_0 < 7"),
    ],
    ids=["in the middle", "two sizes", "a way that stores"],
)
def test_a_branch_that_does_not_split_a_size_is_refused(body: str, reason: str) -> None:
    with pytest.raises(UnsupportedKernelError, match=f"branches on {reason}, which"):
        result(body, N, M, RANGES)


def test_leading_zeros_that_are_undefined_are_unknown() -> None:
    zeros = '"llvm.intr.ctlz"(%n) <{is_zero_poison = true}> : (i32) -> i32'
    body = f"%zeros = {zeros} llvm.br ^end(%zeros : i32)"
    assert isinstance(result(body, N, M, {**RANGES, N: Range(0, 1, 9)}), Unknown)
    assert isinstance(result(body, N - 2, M, RANGES), Unknown)


def test_a_value_that_both_ways_give_is_of_the_size_itself() -> None:
    value = result(COMMON, N, sympy.Integer(2), RANGES)
    for n in (1, 6, 7, 40):
        assert evaluate(value, {N: n}) == result(
            COMMON, sympy.Integer(n), sympy.Integer(2), {}
        )


def test_choices_by_two_sizes_are_unknown() -> None:
    body = (
        compare("ult").replace("^end(", "^second(")
        + """
^second(%first: i32):
  %small = llvm.icmp "ult" %m, %7 : i32
  llvm.cond_br %small, ^third(%1 : i32), ^third(%2 : i32)
^third(%other: i32):
  %both = llvm.add %first, %other : i32
  llvm.br ^end(%both : i32)"""
    )
    ranges = {N: RANGES[N], M: Range(2, 9, 9)}
    assert isinstance(result(body, N, M, ranges), Unknown)


@cute.kernel
def divide_kernel(x: cute.Tensor, out: cute.Tensor, divisor: cute.FastDivmodDivisorV2):
    thread, _, _ = cute.arch.thread_idx()
    quotient, rest = divmod(thread, divisor)
    out[rest] = x[quotient]


@cute.jit
def launch_divide(x: cute.Tensor, out: cute.Tensor):
    divisor = cute.fast_divmod_create_divisor_v2(cute.size(x))
    divide_kernel(x, out, divisor).launch(grid=(1, 1, 1), block=(128, 1, 1))


def test_a_fast_divisor_is_what_the_host_code_computes() -> None:
    inputs = (info(Range(1, 50, 300)),)
    kernel = compiled(launch_divide, *inputs)
    compilation = Compilation(recorded(launch_divide, *inputs))
    for n in (*range(1, 10), 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257, 300):
        native = compilation.native({N: n})
        extras = tuple(evaluate(extra, {N: n}) for extra in kernel.extras)
        passed = reads_of_arguments(kernel.code, compilation, extras)
        assert passed == reads_of_parameters(compilation, native)
