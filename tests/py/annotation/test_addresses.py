# SPDX-License-Identifier: BSD-3-Clause

"""``data_ptr()`` while a function is recorded: what is known of an address."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernels import add_kernel, info

from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.program import Launch, Scalar
from torch_tensorrt.annotation._record.recording import Purpose
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import ArgumentError, DynamicControlFlowError

ROWS = Range(1, 8, 4000)
X = info(ROWS, 48)


def recorded(
    number: Callable[..., Any], *inputs: TensorInfo, aligned: bool = True
) -> Launch:
    """The launch of a function that passes ``number(x, y, out)``."""

    def launch(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, number(x, y, out), out, BLOCK=256)

    def meta(x: Any, y: Any) -> Any:
        return torch.empty_like(x)

    call = Call(purpose=Purpose(aligned=aligned))
    return record(backend("triton"), launch, meta, inputs or (X, X), call).launch


def passed(number: Callable[..., Any], *inputs: TensorInfo, **how: Any) -> Any:
    return recorded(number, *inputs, **how).arguments[2].expr  # type: ignore


def view(x: Any) -> Any:
    return x[:, 16:]


KNOWN: dict[str, tuple[Callable[..., Any], int]] = {
    "itself": (lambda x, y, out: x.data_ptr() == x.data_ptr(), 1),
    "a reshaped view": (lambda x, y, out: x.data_ptr() == x.view(-1).data_ptr(), 1),
    "a view inside": (lambda x, y, out: x.data_ptr() == view(x).data_ptr(), 0),
    "views inside": (lambda x, y, out: view(x).data_ptr() == view(x).data_ptr(), 1),
    "another input": (lambda x, y, out: x.data_ptr() == y.data_ptr(), 0),
    "unequal": (lambda x, y, out: x.data_ptr() != out.data_ptr(), 1),
    "in a tuple": (lambda x, y, out: x.data_ptr() in ("", None) or 3, 3),
    "zero": (lambda x, y, out: x.data_ptr() == 0, 0),
    "zero, reflected": (lambda x, y, out: 0 == x.data_ptr(), 0),  # noqa: SIM300
    "None": (lambda x, y, out: x.data_ptr() == None, 0),  # noqa: E711
    "truth": (lambda x, y, out: bool(x.data_ptr()), 1),
    "an int": (lambda x, y, out: isinstance(x.data_ptr(), int), 1),
    "no tensor": (lambda x, y, out: hasattr(x.data_ptr(), "data_ptr"), 0),
    "a set": (lambda x, y, out: len({t.data_ptr() for t in (x, x, y, out)}), 3),
    "a table": (lambda x, y, out: {x.data_ptr(): 5}.get(x.data_ptr(), 7), 5),
    "% 16": (lambda x, y, out: x.data_ptr() % 16, 0),
    "% 8": (lambda x, y, out: out.data_ptr() % 8, 0),
    "% 16 inside": (lambda x, y, out: x[:, 3:].data_ptr() % 16, 6),
    "a storage": (
        lambda x, y, out: (
            x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
        ),
        0,
    ),
    "a storage's own": (
        lambda x, y, out: x.untyped_storage().data_ptr() == x.data_ptr(),
        1,
    ),
}


@pytest.mark.parametrize("what", KNOWN)
def test_what_is_known_of_an_address(what: str) -> None:
    number, expected = KNOWN[what]
    assert passed(lambda *tensors: int(number(*tensors))) == expected


def test_an_offset_that_follows_a_size_is_followed() -> None:
    """``x[n // 2:]`` starts at a multiple of 16 bytes for some n only."""

    def row(x: Any, y: Any, out: Any) -> Any:
        return x.view(-1)[x.shape[0] * 24 :].data_ptr() % 16

    def odd(x: Any, y: Any, out: Any) -> Any:
        return x.view(-1)[x.shape[0] :].data_ptr() % 16

    assert passed(row) == 0
    assert "Mod" in str(passed(odd))


def test_a_branch_on_an_offset_is_explored() -> None:
    def branch(x: Any, y: Any, out: Any) -> int:
        return 3 if x[x.shape[0] // 100 :].data_ptr() == x.data_ptr() else 4

    with pytest.raises(DynamicControlFlowError, match="branches on"):
        passed(branch)


def test_an_empty_tensor_has_the_address_0() -> None:
    empty = info(Range(0, 8, 64), 48)
    with pytest.raises(DynamicControlFlowError, match="branches on"):
        passed(lambda x, y, out: 3 if x.data_ptr() == 0 else 4, empty, empty)


EMPTY: dict[str, tuple[Callable[..., Any], int]] = {
    "two empty ones": (lambda x, y, out: x.data_ptr() == y.data_ptr(), 1),
    "an empty one and another": (lambda x, y, out: x.data_ptr() == out.data_ptr(), 0),
    "another and an empty one": (lambda x, y, out: out.data_ptr() == x.data_ptr(), 0),
    "an empty view": (lambda x, y, out: out[:0].data_ptr() == out.data_ptr(), 0),
    "of an empty view": (lambda x, y, out: out.data_ptr() == out[:0].data_ptr(), 0),
    "two empty views": (
        lambda x, y, out: out[:0].data_ptr() == out[1:1].data_ptr(),
        1,
    ),
    "a set": (lambda x, y, out: len({x.data_ptr(), y.data_ptr(), 0}), 1),
    "truth": (lambda x, y, out: bool(x.data_ptr()), 0),
    "% 16 inside": (lambda x, y, out: out.view(-1)[3:3].data_ptr() % 16, 0),
}


@pytest.mark.parametrize("what", EMPTY)
def test_every_empty_tensor_is_at_0(what: str) -> None:
    number, expected = EMPTY[what]

    def launch(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, int(number(x, y, out)), out, BLOCK=256)

    def meta(x: Any, y: Any) -> Any:
        return x.new_empty(4, 8)

    empty = info(0, 48)
    result = record(backend("triton"), launch, meta, (empty, empty)).launch
    assert result.arguments[2] == Scalar("n", expected)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "int": (int, "for a number"),
    "index": (lambda p: [1, 2][p], "for a number"),
    "float": (float, "for a number"),
    "struct": (lambda p: struct.pack("Q", p), "for a number"),
    "hex": (hex, "for a number"),
    "plus": (lambda p: p + 4, "computes with"),
    "plus, reflected": (lambda p: 4 + p, "computes with"),
    "minus": (lambda p: p - p, "computes with"),
    "and": (lambda p: p & 15, "computes with"),
    "shift": (lambda p: p >> 4, "computes with"),
    "divmod": (lambda p: divmod(p, 16), "computes with"),
    "floor": (math.floor, "computes with"),
    "less": (lambda p: p < 5, "orders"),
    "maximum": (lambda p: sorted([p, p]), "orders"),
    "text": (str, "makes text"),
    "format": (lambda p: f"{p}", "makes text"),
    "format, hex": (lambda p: f"{p:x}", "makes text"),
    "tuple's text": (lambda p: str((p, 1)), "makes text"),
    "percent": (lambda p: "%d" % p, "for a number"),  # noqa: UP031
    "% 32": (lambda p: p % 32, "modulo 32"),
    "% 0": (lambda p: p % 0, "modulo 0"),
    "% 3": (lambda p: p % 3, "modulo 3"),
    "a number": (lambda p: p == 4096, "compares"),
    "bit_length": (lambda p: p.bit_length(), "`bit_length`"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_with_the_users_line(what: str) -> None:
    use, why = REFUSED[what]
    with pytest.raises(ArgumentError, match=f"{why}.* at .*test_addresses.py:"):
        passed(lambda x, y, out: use(x.data_ptr()) and 3)


def test_a_refusal_that_the_function_swallows_stands() -> None:
    def swallowing(x: Any, y: Any, out: Any) -> int:
        try:
            return int(x.data_ptr())
        except Exception:
            return 3

    with pytest.raises(ArgumentError, match="for a number"):
        passed(swallowing)


def test_without_the_promise_of_alignment_no_remainder_is_known() -> None:
    def remainder(x: Any, y: Any, out: Any) -> Any:
        return x.data_ptr() % 16

    with pytest.raises(ArgumentError, match=r"modulo 16 .*aligned=False"):
        passed(remainder, aligned=False)
    assert passed(lambda x, y, out: x.data_ptr() % 1, aligned=False) == 0


def test_an_address_is_not_an_argument_of_a_kernel() -> None:
    with pytest.raises(ArgumentError, match=r"`n`: the launch function asks"):
        recorded(lambda x, y, out: x.data_ptr())
