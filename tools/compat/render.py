# SPDX-License-Identifier: BSD-3-Clause

"""results.json as a page of the documentation, and as a few lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from . import packages
from .case import Case
from .verdict import CAUSES, Cause, cause_of

Results: TypeAlias = Mapping[str, Mapping[str, Any]]

LANGUAGES = {"triton": "Triton", "cutile": "cuTile", "cutedsl": "CuTe DSL"}
MODES = ("static", "dynamic")

HEAD = """# Ops of public libraries

Rendered by `make compat` from `tools/compat/results.json`. It installs the libraries, registers each op with the library's own launcher, and compiles it for sm_90, once with static and once with dynamic shapes. No line of a library is changed: a wrapper names the tensors, and `tools/compat/cases` holds all of them. The list was made from the libraries' public forward functions before any was tried, and what is refused stays on it.

In every op the same sizes are dynamic: batches, rows (the tokens of a batch), and the lengths of sequences. Sequences start at 64 tokens, for they are prompts; decoding a token is an op of rows or of a batch. What a model has once and for all is static: hidden sizes, heads, vocabularies, weights, and tables such as those of rotary embeddings.

*yes* means that a tactic compiles, and its replays and effects agree with the launcher; *3 of 4* says that other tactics of the op do not compile. Where the op ran on a GPU, *executed* says how many tactics gave what the library's own launch gives, at every shape that ran. That launch runs twice, on memory that holds other bytes; what differs then is what the library leaves to chance, and is not compared. *1 open* says that this is one element; more than an eighth of an output is a failure. At most {configs} configs of an autotuner are tried, and one fact set of cuTile.

Without a GPU, torch, Triton and CuTe DSL answer a library's questions about the device as on an H100. Triton is 3.6, which CUDA builds of torch 2.11 bring: flag_gems uses block pointers, which newer ones do not have.

A partial run (`--only`) updates its own ops, so rows may come from different commits. A run without a GPU keeps what the last one with a GPU executed, as long as the op has as many tactics that compile. CuTe DSL was not on the GPU's machine: there, its kernels ran beside the objects that the libraries' own `cute.compile` had made, host code included.
"""  # noqa: E501

WHY = """## Why ops are refused

Each op counts once, for the first reason that is found. An engine runs compiled kernels for all sizes of its profile, and nothing on the host. So TensorRT has no place for a launcher that depends on more: *sizes*, it launches other code for other sizes of the profile; *values*, it reads a tensor, or measures times, before it launches; *launch*, TensorRT has no such launch; *address*, it packs a tensor's address into memory by itself. *hardware*: it asks for more than the GPU has. *library*: it has no kernel for this GPU or this Triton, or refuses a config itself. *not yet*: this project could take it, and does not.
"""  # noqa: E501


def document(cases: Sequence[Case], results: Results, configs: int) -> str:
    parts = [HEAD.format(configs=configs), _summary(cases, results)]
    parts += [WHY, _causes(cases, results)]
    for library, version in packages.LIBRARIES.items():
        if own := [case for case in cases if case.library == library]:
            parts += [f"## {library} {version}\n", _library(own, results)]
    return "\n".join(parts)


def counts(cases: Sequence[Case], results: Results) -> str:
    """What `make compat` prints."""
    lines = [f"{'':32}{'ops':>5}{'static':>8}{'dynamic':>9}{'executed':>10}"]
    lines += [
        f"{n[0] + ', ' + n[1]:32}{_numbers(c, results, 5, 8, 9, 10)}"
        for n, c in _by_library(cases).items()
    ]
    lines.append(f"{'all':32}{_numbers(cases, results, 5, 8, 9, 10)}")
    return "\n".join(lines)


def _summary(cases: Sequence[Case], results: Results) -> str:
    rows = [
        [library, language, *_tally(own, results)]
        for (library, language), own in _by_library(cases).items()
    ]
    rows.append(["all", "", *_tally(cases, results)])
    return _table(["library", "language", "ops", *MODES, "executed"], rows)


def _causes(cases: Sequence[Case], results: Results) -> str:
    found: Counter[tuple[Cause, str]] = Counter()
    for case in cases:
        for mode in MODES:
            outcome = results.get(case.id, {}).get(mode, {})
            if outcome.get("status") in ("refused", "failed"):
                found[cause_of(outcome), mode] += 1
    rows = [
        [cause.kind, cause.what, *(str(found[cause, mode]) for mode in MODES)]
        for cause in CAUSES
        if any(found[cause, mode] for mode in MODES)
    ]
    return _table(["", "what the launcher does", *MODES], rows)


def _library(cases: Iterable[Case], results: Results) -> str:
    rows = []
    for case in sorted(cases, key=lambda case: (case.language, case.kind, case.name)):
        result = results.get(case.id, {})
        static, dynamic = (result.get(mode, {}) for mode in MODES)
        errors = [r for r in (static, dynamic) if r.get("error")]
        errors.sort(key=lambda r: r["status"] == "in")  # a refusal first
        rows.append(
            [
                f"`{case.name}`",
                LANGUAGES[case.language],
                case.kind,
                _cell(static),
                _cell(dynamic),
                _executed(result),
                _reason(errors[0]) if errors else "",
            ]
        )
    return _table(["op", "language", "kind", *MODES, "executed", "why not"], rows)


def _cell(outcome: Mapping[str, Any]) -> str:
    compiled, tactics = outcome.get("compiled", 0), outcome.get("tactics", 0)
    if outcome.get("status") == "in":
        return "yes" if compiled == tactics else f"{compiled} of {tactics}"
    return {"refused": "no", "failed": "failed"}.get(outcome.get("status", ""), "")


def _executed(result: Mapping[str, Any]) -> str:
    outcomes = [result.get(mode, {}) for mode in MODES]
    count = sum(outcome.get("executed", 0) for outcome in outcomes)
    left_open = max(outcome.get("undetermined", 0) for outcome in outcomes)
    return (f"{count}, {left_open} open" if left_open else str(count)) if count else ""


def _reason(outcome: Mapping[str, Any]) -> str:
    text = outcome["error"].replace("|", "\\|").replace("`", "")
    return f"{cause_of(outcome).kind}: `{text}`"


def _by_library(cases: Iterable[Case]) -> dict[tuple[str, str], list[Case]]:
    grouped: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        key = case.library, LANGUAGES[case.language]
        grouped.setdefault(key, []).append(case)
    return grouped


def _tally(cases: Sequence[Case], results: Results) -> list[str]:
    def share(is_so: Callable[[Mapping[str, Any]], Any], mode: str) -> str:
        outcomes = [results.get(case.id, {}).get(mode, {}) for case in cases]
        tried = [o for o in outcomes if o.get("status") != "none"]
        number = sum(bool(is_so(outcome)) for outcome in tried)
        return f"{number} ({number / max(len(tried), 1):.0%})"

    compiled = [share(lambda o: o.get("status") == "in", mode) for mode in MODES]
    return [str(len(cases)), *compiled, share(lambda o: o.get("executed"), "static")]


def _numbers(cases: Sequence[Case], results: Results, *widths: int) -> str:
    tally = _tally(cases, results)
    return "".join(f"{t:>{w + 4}}" for t, w in zip(tally, widths, strict=True))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
