# SPDX-License-Identifier: BSD-3-Clause

"""What became of an op, and what a refusal is owed to."""

from __future__ import annotations

import re
import traceback
from dataclasses import asdict, dataclass
from typing import Any

from torch_tensorrt.annotation.errors import AnnotationError


@dataclass(frozen=True)
class Outcome:
    """Of one op, static or dynamic.

    Attributes:
        status: ``in``, if some tactic compiles (and every one that compiles is right,
            where they ran); ``refused``; ``failed``, where something broke; ``none``
            for an op without a dynamic size.
        error: the first sentence of why.
        kind: the class of the error.
        where: the last lines of the traceback, for a failure.
        tactics, compiled: how many there are, and how many of them compile.
        executed: how many ran, and were right at every shape.
    """

    status: str
    error: str = ""
    kind: str = ""
    where: str = ""
    tactics: int = 0
    compiled: int = 0
    executed: int = 0

    @classmethod
    def none(cls) -> Outcome:
        return cls("none")

    @classmethod
    def failed(cls, error: str, where: str = "") -> Outcome:
        return cls("failed", error, where=where)

    @classmethod
    def of(cls, error: Exception) -> Outcome:
        text, kind = str(error), type(error).__name__
        unexpected = "Please report this" in text
        if isinstance(error, AnnotationError) and not unexpected:
            return cls("refused", first_sentence(text), kind)
        frames = traceback.format_exception(error)
        return cls("failed", first_sentence(text), kind, "".join(frames)[-1500:])

    @classmethod
    def of_report(cls, report: Any) -> Outcome:
        compiled = [t for t in report.tactics if not t.error]
        ran = [t for t in compiled if any(s.ok is not None for s in t.shapes)]
        right = [t for t in ran if all(s.ok for s in t.shapes)]
        numbers = len(report.tactics), len(compiled), len(right)
        if wrong := [s.failure for t in ran for s in t.shapes if not s.ok]:
            return cls("failed", first_sentence(wrong[0]), "", "", *numbers)
        return cls("in", "", "", "", *numbers)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


def first_sentence(text: str) -> str:
    """Without the op's name, and on one line."""
    text = re.sub(r"^compat::\w+(, |: )?", "", " ".join(text.split()))
    return re.split(r"(?<=[^.\d]\.) (?=[A-Z`])", text, maxsplit=1)[0][:400]
