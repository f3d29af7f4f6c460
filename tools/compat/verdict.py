# SPDX-License-Identifier: BSD-3-Clause

"""What became of an op, and what a refusal is owed to."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
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
        error: the first sentence of why it, or one of its tactics, is not in.
        kind: the class of the error.
        place: the first file and line of a user's, or a library's, that it names.
        where: the last frame of the traceback, for a failure.
        tactics, compiled: how many there are, and how many of them compile.
        executed: how many ran, and were right at every shape.
        undetermined: the most elements at a shape that the library's own launch leaves
            to chance. They are not compared.
    """

    status: str
    error: str = ""
    kind: str = ""
    place: str = ""
    where: str = ""
    tactics: int = 0
    compiled: int = 0
    executed: int = 0
    undetermined: int = 0

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
            return cls("refused", first_sentence(text), kind, place_in(text))
        frames = traceback.format_exception(error)
        where = first_sentence(frames[-2])
        return cls("failed", first_sentence(text), kind, where=where)

    @classmethod
    def of_report(cls, report: Any, undetermined: int = 0) -> Outcome:
        tactics = [t for launch in report.launches for t in launch.tactics]
        compiled = [t for t in tactics if not t.error]
        ran = [t for t in compiled if any(s.ok is not None for s in t.shapes)]
        right = [t for t in ran if all(s.ok for s in t.shapes)]
        numbers: dict[str, Any] = {
            "tactics": len(tactics),
            "compiled": len(compiled),
            "executed": len(right),
            "undetermined": undetermined,
        }
        runs = getattr(report, "runs", ())  # of all steps, in an op of several
        wrong = [r.failure for r in runs if r.failure]
        wrong = wrong or [s.failure for t in ran for s in t.shapes if not s.ok]
        if wrong:
            return cls("failed", first_sentence(wrong[0]), **numbers)
        for error in (t.error for t in tactics if t.error):
            return cls("in", first_sentence(error), place=place_in(error), **numbers)
        return cls("in", **numbers)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


def with_executed(
    outcomes: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What a run without a GPU found, with what the last run on one had executed.

    It is kept as long as the op has as many tactics, and as many of them compile.
    """
    kept = {}
    for mode, outcome in outcomes.items():
        last, numbers = before.get(mode, {}), ("status", "tactics", "compiled")
        same = all(outcome.get(name) == last.get(name) for name in numbers)
        ran = {n: last[n] for n in ("executed", "undetermined") if same and n in last}
        kept[mode] = {**outcome, **ran}
    return kept


# What a refusal is owed to. The launcher launches other code for other sizes of the
# profile, or needs what only a run of the engine knows, or what TensorRT cannot launch,
# or packs addresses itself, where an engine runs nothing (these are TensorRT's, and the
# design names them); or asks for more than the GPU has; or the library refuses; or this
# project could take it, and does not yet.
SIZES, VALUES, LAUNCH, ADDRESS, HARDWARE, LIBRARY, YET = KINDS = (
    "sizes",
    "values",
    "launch",
    "address",
    "hardware",
    "library",
    "not yet",
)


@dataclass(frozen=True)
class Cause:
    """One cause of refusals.

    Attributes:
        kind: one of ``KINDS``.
        what: the launcher does.
        pattern: found in the error.
    """

    kind: str
    what: str
    pattern: str


# The first that matches is the cause.
CAUSES = (
    Cause(
        HARDWARE,
        "asks for more shared memory than the GPU has",
        r"bytes of shared memory for a block",
    ),
    Cause(
        LAUNCH,
        "passes a float at run time, or launches cooperatively or dependently",
        r"run-time float|cooperative|programmatic|float, which",
    ),
    Cause(
        SIZES,
        "makes a dynamic size a compile-time constant",
        r"compile-time constant that follows",
    ),
    Cause(SIZES, "branches on a dynamic size", r"branches on"),
    Cause(
        VALUES,
        "reads a tensor's values, or measures times, before it launches",
        r"values of a tensor|Torch not compiled with CUDA",  # to measure them
    ),
    Cause(
        ADDRESS,
        "packs a tensor's address into memory by itself",
        r"a tensor's address|__c_pointers__",
    ),
    Cause(
        LIBRARY, "has no kernel for this GPU", r"needs triton|Only SM|not supported on"
    ),
    Cause(LIBRARY, "is for an older Triton", r"Block pointers have been"),
    Cause(LIBRARY, "has a config that its own kernel refuses", r"static_assert"),
    Cause(YET, "something else", r""),
)


def cause_of(outcome: Mapping[str, Any]) -> Cause:
    """Why an op was refused, from what ``results.json`` has of it."""
    text = outcome.get("error", "")
    return next(cause for cause in CAUSES if re.search(cause.pattern, text))


def place_in(text: str) -> str:
    """The first file and line that an error names, without this machine's folders."""
    found = re.search(r"(?:[^\s(]*/)?[\w.-]+\.py:\d+", text)
    return re.sub(r".*/(?:site|site-packages|compat)/", "", found[0]) if found else ""


def first_sentence(text: str) -> str:
    """On one line, without the op's name and where files lie on this machine."""
    text = re.sub(r"^compat::\w+(, |: )?", "", " ".join(text.split()))
    text = re.sub(r"launch function [\w.]+<locals>\.\S+ \(\S+\)", "the launcher", text)
    text = re.sub(
        r"(?<![\w./-])[\w./-]*?/(site|site-packages|compat|python3\.\d+)/", "", text
    )
    text = re.split(r"(?<=[^.]\.) (?=[A-Z`])", text, maxsplit=1)[0]
    # A compiler quotes the kernel first, and says what is wrong with it in the end.
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-145:]}"
