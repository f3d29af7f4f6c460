# SPDX-License-Identifier: BSD-3-Clause

"""What becomes of an error that nobody expected."""

from __future__ import annotations

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


def test_each_warning_has_a_class_of_its_own() -> None:
    warnings = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Warning)
    }
    assert {cls.__name__ for cls in warnings} == {
        "FallbackWarning",
        "TacticWarning",
        "CacheWarning",
    }
    assert all(issubclass(cls, UserWarning) for cls in warnings)
