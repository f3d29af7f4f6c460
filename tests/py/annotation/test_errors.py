# SPDX-License-Identifier: BSD-3-Clause

"""What becomes of an error that nobody expected, and of a warning."""

from __future__ import annotations

import threading
import warnings

import pytest

from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation.errors import CompileError, RecordError, as_ours


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = RecordError("why")
    assert as_ours("my::op", error) is error


def test_any_other_is_the_cause_of_one_that_asks_for_a_report() -> None:
    error = KeyError("x")
    ours = as_ours("my::op, tactic 1", error)
    assert type(ours) is CompileError
    assert ours.__cause__ is error
    assert str(ours) == (
        "my::op, tactic 1: unexpected KeyError: 'x'. Please report this."
    )


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("SpecError", ValueError), ("FormatError", ValueError), ("DTypeError", TypeError)],
)
def test_an_error_of_a_wrong_value_is_also_pythons(
    name: str, builtin: type[Exception]
) -> None:
    assert issubclass(getattr(errors, name), (errors.AnnotationError, builtin))
    assert issubclass(getattr(errors, name), builtin)


def test_an_unexpected_error_becomes_the_kind_that_its_stage_has() -> None:
    assert type(as_ours("my::op", KeyError("x"), RecordError)) is RecordError


def test_a_warning_is_no_exception_where_warnings_are_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors.warn("my::op: left out")
    assert caplog.messages == ["my::op: left out"]


def test_warnings_are_collected_in_their_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with errors.collecting() as messages:
        other = threading.Thread(target=errors.warn, args=("of another thread",))
        other.start()
        other.join()
        errors.warn("of this one")
    assert messages == ["of this one"]
    assert caplog.messages == ["of another thread"]
