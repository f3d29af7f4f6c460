# SPDX-License-Identifier: BSD-3-Clause

"""``testing.check`` passes ops that are right, and finds each planted bug."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation.errors import CheckError, SpecError

HAS_GPU = torch.cuda.is_available()
TARGETS = (None,) if HAS_GPU else ("sm_90",)
half, f32 = torch.float16, torch.float32


def rows(dtype: torch.dtype = half) -> torch_tensorrt.Input:
    shapes = {"min_shape": (2, 60), "opt_shape": (4, 60), "max_shape": (8, 60)}
    return torch_tensorrt.Input(**shapes, dtype=dtype)


@pytest.fixture(autouse=True)
def _interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are interpreted, in processes."""
    monkeypatch.setenv("TTA_JOBS", "2")


@triton.jit
def double_kernel(
    x_ptr, out_ptr, n, end, MASKED: tl.constexpr, NARROW: tl.constexpr, TO: tl.constexpr
):
    offsets = tl.program_id(0) * 256 + tl.arange(0, 256)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    if NARROW:
        x = x.to(tl.float16)
    y = (x * 2).to(out_ptr.dtype.element_ty)
    if TO == "input":
        tl.store(x_ptr + offsets, y, mask=offsets < n)
    if TO != "nothing":
        tl.store(out_ptr + offsets, y, mask=offsets < end if MASKED else None)


def double(x: Tensor, out: Tensor, **how: Any) -> None:
    n = x.numel()
    end = how.get("end", lambda n: n)(n)
    flags = [how.get("masked", True), how.get("narrow", False), how.get("to", "out")]
    double_kernel[(triton.cdiv(n, 256),)](x, out, n, end, *flags)


def like(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def doubled(x: Tensor) -> Tensor:
    return x * 2


def register(meta: Callable[..., Any] = like, **how: Any) -> None:
    def launch(x: Tensor, out: Tensor) -> None:
        double(x, out, **how)

    impl = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op(
        "check::op", impl=impl, supports_dynamic_shapes=True, replace=True
    )


def check(
    *inputs: Any, reference: Any = doubled, op: str = "check::op", **how: Any
) -> tta.testing.CheckReport:
    given = list(inputs) or [rows()]
    return tta.testing.check(op, given, reference, targets=TARGETS, **how)


ALL = ("schema", "fake kernel", "export", "recording", "code", "values")


def test_a_right_op_passes_every_check_in_every_dtype_and_shape() -> None:
    register()
    report = check(dtypes=[half, f32], shapes=[[(3, 60)], [(7, 60)]])
    assert report.checked == ALL
    assert not report.failures and not report.not_checked
    assert str(report) == f"check::op passes {', '.join(ALL)}."
    for of_dtype, name in zip(report.reports, ("FP16", "FP32"), strict=True):
        (tactic,) = of_dtype.tactics
        assert tactic.dtypes == (name, name)
        ran = {shape.name: shape.ok for shape in tactic.shapes}
        assert ran == dict.fromkeys(
            ("min", "opt", "max", "ragged", "3x60", "7x60"), True
        )


@triton.jit
def add_kernel(x_ptr, y_ptr, n):
    offsets = tl.arange(0, 256)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    y = tl.load(y_ptr + offsets, mask=offsets < n)
    tl.store(x_ptr + offsets, x + y, mask=offsets < n)


def test_a_right_op_that_writes_an_input_passes() -> None:
    @torch.library.custom_op("check::add_", mutates_args=("x",))
    def add_(x: Tensor, y: Tensor) -> None:
        add_kernel[(1,)](x, y, x.numel())

    add_.register_fake(lambda x, y: None)
    trt_plugins.custom_op("check::add_", impl=tta.triton())

    def reference(x: Tensor, y: Tensor) -> None:
        x.add_(y)

    x = torch.randn(5, 7)
    report = check(x, x, reference=reference, op="check::add_")
    assert report.checked == ALL
    assert isinstance(report.reports[0], tta.ProgramReport)


def test_a_fake_kernel_that_takes_cuda_tensors_alone_is_right() -> None:
    def meta(x: Tensor) -> Tensor:
        assert x.is_cuda
        return torch.empty_like(x)

    register(meta)
    report = check(STATIC)
    assert {"fake kernel", "code", "values"} <= {*report.checked}
    assert HAS_GPU or "does not take tensors of the CPU" in report.not_checked[0]


def test_a_reference_that_raises_fails() -> None:
    register()
    with pytest.raises(CheckError, match="raises KeyError: 'scale'"):
        check(torch.randn(2, 60), reference=lambda x: x * {}["scale"])


def test_a_write_that_the_schema_leaves_out_is_found() -> None:
    @torch.library.custom_op("check::undeclared", mutates_args=())
    def undeclared(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        double(x, out, to="input")
        return out

    undeclared.register_fake(torch.empty_like)
    trt_plugins.custom_op("check::undeclared", impl=tta.triton())
    with pytest.raises(CheckError, match="stores to input `x`"):
        check(torch.randn(5, 7), op="check::undeclared")


STATIC = torch.randn(2, 60, dtype=half)

# The op, the call, and what the error says.
BUGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a fake kernel with a wrong shape": (
        {"meta": lambda x: x.new_empty(x.shape[0], x.shape[1] + 4)},
        {"x": STATIC},
        "fake kernel, x: float16 2x60\n  at static 2x60: output 0: the fake kernel "
        "gives float16 2x64, the reference float16 2x60.\n  Correct the fake kernel",
    ),
    "a fake kernel with a wrong dtype": (
        {"meta": lambda x: torch.empty_like(x, dtype=f32)},
        {"x": STATIC},
        "the fake kernel gives float32 2x60, the reference float16 2x60.",
    ),
    "a fake kernel that is wrong for odd sizes": (
        {"meta": lambda x: x.new_empty(x.shape[0] // 2 * 2, x.shape[1])},
        {},
        "the fake kernel gives float16 6x60, the reference float16 7x60.",
    ),
    "a schema with too few outputs": (
        {},
        {"x": STATIC, "reference": lambda x: (x * 2, x)},
        "schema, x: float16 2x60\n  the op has 1 outputs, the reference 2.",
    ),
    "a kernel that writes its input": (
        {"to": "input"},
        {"x": STATIC},
        "stores to input `x`",
    ),
    "a kernel that writes nothing": (
        {"to": "nothing"},
        {"x": STATIC},
        "never stores to output 0",
    ),
    "a missing mask": (
        {"masked": False},
        {"x": STATIC},
        "values, x: float16 2x60\n  tactic 1 at static 2x60: "
        + ("output 0: " if torch.cuda.is_available() else "")
        + "the kernel writes "
        + ("outside of it" if torch.cuda.is_available() else "past the end of the"),
    ),
    "elements that are not written": (
        {"end": lambda n: n - 30},
        {"x": STATIC},
        "30 of 120 elements are wrong, the first at [1, 30]",
    ),
    "wrong for a ragged size": (
        {"end": lambda n: n // 120 * 120},
        {},
        "tactic 1 at ragged 7x60: output 0: 60 of 420 elements are wrong",
    ),
    "wrong for a ragged size of a static op": (
        {"end": lambda n: n // 8 * 8},
        {"x": STATIC, "shapes": [[(3, 7)]]},
        "values, x: float16 3x7\n  tactic 1 at static 3x7",
    ),
    "wrong for one dtype": (
        {"narrow": True},
        {"x": STATIC, "dtypes": [half, f32]},
        "values, x: float32 2x60\n  tactic 1 at static 2x60",
    ),
    "a launch that a size decides in a hidden way": (
        {"end": lambda n: n if isinstance(n, int) else n - 1},
        {},
        "recording, x: float16 2..8x60",
    ),
}


@pytest.mark.parametrize(("op", "call", "message"), BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_found_and_told_once(
    op: dict[str, Any], call: dict[str, Any], message: str
) -> None:
    register(**op)
    inputs = [call["x"]] if "x" in call else []
    with pytest.raises(CheckError) as error:
        check(*inputs, **{k: v for k, v in call.items() if k != "x"})
    text = re.sub(r"; sm_\d+\w*", "", str(error.value))
    # A GPU does not tell what is wrong from what is not written.
    text = text.replace("are never written", "are wrong")
    assert message in text
    assert len({failure.check for failure in error.value.report.failures}) == 1, text


def test_what_is_not_checked_is_said_with_what_to_do() -> None:
    register()
    report = check(STATIC, reference=None, execute=False)
    assert "values" not in report.checked
    told = "\n".join(report.not_checked)
    assert "tactic 1 at static 2x60: execute=False runs nothing" in told
    assert "give more with shapes=[...], or a profile: torch_tensorrt.Input(" in told
    assert "there is no reference= to compare with" in told


def test_a_call_that_is_wrong_is_no_failure_of_the_op() -> None:
    register()
    with pytest.raises(SpecError, match="takes 1 tensors, x; got 2"):
        check(STATIC, STATIC)
    with pytest.raises(SpecError, match="takes 1 tensors, x; shapes="):
        check(shapes=[[(3, 60), (3, 60)]])
    with pytest.raises(SpecError, match="the profile does not hold"):
        check(shapes=[[(9, 60)]], reference=None)
    with pytest.raises(SpecError, match="replaces the dtype of floating-point inputs"):
        check(torch.ones(2, 60, dtype=torch.int32), dtypes=[half])
