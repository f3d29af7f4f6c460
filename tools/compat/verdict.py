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
    """

    status: str
    error: str = ""
    kind: str = ""
    place: str = ""
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
            return cls("refused", first_sentence(text), kind, place_in(text))
        frames = traceback.format_exception(error)
        where = first_sentence(frames[-2])
        return cls("failed", first_sentence(text), kind, where=where)

    @classmethod
    def of_report(cls, report: Any) -> Outcome:
        tactics = [t for launch in report.launches for t in launch.tactics]
        compiled = [t for t in tactics if not t.error]
        ran = [t for t in compiled if any(s.ok is not None for s in t.shapes)]
        right = [t for t in ran if all(s.ok for s in t.shapes)]
        numbers: dict[str, Any] = {
            "tactics": len(tactics),
            "compiled": len(compiled),
            "executed": len(right),
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
        executed = {"executed": last["executed"]} if same and "executed" in last else {}
        kept[mode] = {**outcome, **executed}
    return kept


# What a refusal is owed to: the launcher does more than one launch of a kernel, or asks
# the hardware for more than a plain launch has, or for what TensorRT cannot launch (the
# design says which), or launches other code for other sizes of the profile, or this
# library could take it and does not yet.
SEVERAL, HARDWARE, NEVER, SIZES, YET, OTHER = KINDS = (
    "steps",
    "hardware",
    "never",
    "sizes",
    "not yet",
    "library",
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
        SEVERAL,
        "launches several kernels",
        r"launched \d+ kernels|it is several steps",
    ),
    Cause(
        SEVERAL,
        "writes its inputs",
        r"writes it in place|returns nothing|stores? to (an |its )?input",
    ),
    Cause(
        SEVERAL,
        "copies a tensor first",  # without CUDA, torch does not copy a fake one
        r"not linked with support for cuda",
    ),
    Cause(
        SEVERAL,
        "computes with torch around its launch, or zeroes its outputs",
        r"comes from (aten|prims|torchao|ao)\.|outside its kernel",
    ),
    Cause(
        HARDWARE,
        "asks for more than 48 KiB of shared memory",
        r"dynamic shared memory; the limit|bytes of shared memory for a block",
    ),
    Cause(
        HARDWARE,
        "uses clusters or tensor maps (TMA)",
        r"cluster|tensor map|TMA|descriptor",
    ),
    Cause(
        NEVER,
        "passes a float at run time, or launches cooperatively or dependently",
        r"run-time float|cooperative|dependent launch|programmatic|float, which",
    ),
    Cause(
        YET, "allocates a buffer that it does not return", r"neither an input nor an"
    ),
    Cause(YET, "passes a view that starts inside a tensor", r"a view that starts"),
    Cause(YET, "returns a transposed tensor", r"output \d+ has strides"),
    Cause(YET, "returns a part of what it allocates", r"a part of a larger tensor"),
    Cause(
        YET, "launches what an earlier launch returned", r"an earlier launch returned"
    ),
    Cause(YET, "asks for the GPU", r"of the GPU at"),
    Cause(YET, "asks for a tensor's address", r"a tensor's address"),
    Cause(
        SIZES,
        "makes a dynamic size a compile-time constant",
        r"compile-time constant that follows",
    ),
    Cause(YET, "takes two sizes to be equal", r"and the op's fake kernel"),
    Cause(SIZES, "branches on a dynamic size", r"branches on"),
    Cause(
        YET,
        "calls what CuTe DSL compiled, in CuTe DSL's own convention",
        r"cute\.compile made|missing a required argument|Expected IntTuple"
        r"|it is compiled for",
    ),
    Cause(YET, "launches nothing on fake tensors", r"launched no kernel"),
    Cause(YET, "tunes cuTile's kernel when it is called", r"No valid config found"),
    Cause(YET, "measures times when it is called", r"Torch not compiled with CUDA"),
    Cause(
        OTHER, "has no kernel for this GPU", r"needs triton|Only SM|not supported on"
    ),
    Cause(OTHER, "is for an older Triton", r"Block pointers have been"),
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
        r"(?<![\w/])/[\w./-]*?/(site|site-packages|compat|python3\.\d+)/", "", text
    )
    text = re.split(r"(?<=[^.]\.) (?=[A-Z`])", text, maxsplit=1)[0]
    # A compiler quotes the kernel first, and says what is wrong with it in the end.
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-145:]}"
