# SPDX-License-Identifier: BSD-3-Clause

"""Find sentences that do not read like plain English.

    python tools/prose.py [FILE ...]    # the documentation and the library by default

CONTRIBUTING.md describes the style. This script looks for the constructions that break
it most often. Each row of PATTERNS is one of them, with what to write instead. Code
blocks and text in backticks are ignored. A sentence that is right as it stands goes
into ALLOWED, word for word.

Vale would read such rules as well, but its package on PyPI downloads the program from
GitHub when it first runs, and these checks must run where only PyPI is reached.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    *("*.md", "docsrc/*.md", "examples/**/*.md", "tools/**/*.md"),
    *("examples/**/*.rst", "examples/**/*.ipynb", "examples/**/*.py"),
)
LIBRARY = ("benchmarks/*.md", "py/**/*.py")
# What is in these comes from the library, the benchmarks and the tests.
GENERATED = {PROJECT / "docsrc" / name for name in ("features.md", "performance.md")}


@dataclass(frozen=True)
class Pattern:
    """A construction to avoid; ``regex`` ignores case."""

    regex: str
    remedy: str


PATTERNS = (
    Pattern(
        r"(?<!\bthere )\b(?:is|are|was|were) no\b(?! longer)",
        "write 'is not a ...', 'has no ...' or 'there is no ...'",
    ),
    Pattern(r"(?<!\bthere )\b(?:is|are) (?-i:none)\b", "write 'is not a ...'"),
    Pattern(r"\bof (?:which|whom|whose)\b", "start a new sentence"),
    Pattern(r"\b(?:is|are) said\b", "say who says it, or 'the message'"),
    Pattern(
        r"\b(?:is|are|was|were|be|been) told\b(?! (?:across|apart))",
        "write 'gets' or 'knows'",
    ),
    Pattern(r"\bth(?:at|ose) which\b", "name the thing"),
    Pattern(r"\bthe ones? of\b", "name the thing"),
    Pattern(r"\b(?:is|are) th(?:at|ose) of\b", "name the thing, or use a verb"),
    Pattern(r"\b(?:is|are) another's\b", "write 'the same as', or use a verb"),
    Pattern(r"\bwithout a word\b", "say what is logged or raised"),
    Pattern(r"(?<!\bthere )\b(?:is|are) nothing to\b", "say what to do"),
    Pattern(r"\bas of\b", "write 'like', 'since' or 'in'"),
    Pattern(
        r"\b(?:will|would) do\b(?! (?:it|nothing|so|that|the|this))",
        "write 'works' or 'is enough'",
    ),
    Pattern(r"\bdoes? as well\b", "write 'works too'"),
    Pattern(r"\b(?:is|are) to (?:be|have)\b", "write 'must be', or use the present"),
    Pattern(r"\bTensorRT is to\b", "use the present"),
    Pattern(r"\b(?:is|are) of another\b", "write 'has another', or use a verb"),
    Pattern(r"(?:^|[;,] )nor (?:is|are|does|do)\b", "write 'also does not'"),
    Pattern(r"\bnot so (?:is|are|does|do)\b", "turn the clause around"),
    Pattern(r"\bbut for\b", "write 'except'"),
    Pattern(r"\bfor want of\b", "write 'without'"),
    Pattern(r"\bto be had\b", "write 'available'"),
    Pattern(r"\bat hand\b", "write 'present', or name the machine"),
    Pattern(r"\bgo(?:es)? without saying\b", "leave it out"),
    Pattern(r"\bas ever\b", "write 'as usual'"),
    Pattern(r"\bmend(?:ed|s)?\b", "write 'fix' or 'correct'"),
    Pattern(
        r"\b(?:albeit|amongst|ere|hence|hereby|heretofore|hitherto|lest|shall|thereby|"
        r"therein|thereof|thus|upon|whereby|wherein|whereof|whilst)\b",
        "use a common word",
    ),
)

# Sentences that a pattern matches, but that are right.
ALLOWED: frozenset[str] = frozenset()

_COMPILED = [(re.compile(p.regex, re.IGNORECASE), p.remedy) for p in PATTERNS]


@dataclass(frozen=True)
class Finding:
    """A sentence to rewrite."""

    path: Path
    line: int
    sentence: str
    words: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}"
        return f"{place}: '{self.words}': {self.remedy}\n    {self.sentence}"


def findings(path: Path) -> Iterator[Finding]:
    """What to rewrite in a file."""
    shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    for line, sentence in all_sentences(path):
        if sentence in ALLOWED:
            continue
        prose = re.sub(r"``[^`]+``|`[^`]+`", "`code`", sentence)
        for regex, remedy in _COMPILED:
            if match := regex.search(prose):
                yield Finding(shown, line, sentence, match[0].strip(" ,;"), remedy)


def all_sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Each sentence of a Python file, a notebook or a text, with its line."""
    readers = {".py": in_python, ".ipynb": in_notebook}
    passages = readers.get(path.suffix, in_markdown)(path.read_text())
    for line, passage in passages:
        yield from sentences(line, passage)


def in_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Each paragraph, list item and table cell outside of code, with its line."""
    text = re.sub(
        r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M
    )
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.strip("| ").split(" | ") if line.startswith("|") else [line]
        yield from ((number, cell) for cell in cells)


def in_notebook(text: str) -> Iterator[tuple[int, str]]:
    """Each cell that is text, with its number."""
    for number, cell in enumerate(json.loads(text)["cells"], start=1):
        if cell["cell_type"] == "markdown":
            for _, passage in in_markdown("".join(cell["source"])):
                yield number, passage


def in_python(text: str) -> Iterator[tuple[int, str]]:
    """Each string and each comment, with its line; what is formatted in is ``…``."""
    yield from _strings(ast.parse(text))
    yield from _comments(text)


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
        yield node.lineno, "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments; those on consecutive lines, in the same column, are one."""
    start, column, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, at = token.start
        if (row, at) != (start + len(lines), column):
            yield start, "\n".join(lines)
            start, column, lines = row, at, []
        lines.append(token.string.lstrip("# "))
    yield start, "\n".join(lines)


def sentences(start: int, text: str) -> Iterator[tuple[int, str]]:
    """The sentences of a passage, each on one line, with the line it starts in."""
    for match in re.finditer(
        r"\S.*?(?:[.!?](?=\s|$)|\n\s*\n|$(?!\n))", text, re.DOTALL
    ):
        line = start + text.count("\n", 0, match.start())
        yield line, " ".join(match[0].split())


def files(patterns: Iterable[str]) -> list[Path]:
    """The files of the project that match, without those that are generated."""
    found = {path for pattern in patterns for path in PROJECT.glob(pattern)}
    return sorted(found - GENERATED)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="default: all prose")
    options = parser.parse_args()
    chosen = [p.resolve() for p in options.files] or files((*DOCUMENTS, *LIBRARY))
    found = [finding for path in chosen for finding in findings(path)]
    for finding in found:
        print(finding)
    print(f"{len(found)} sentences to rewrite in {len(chosen)} files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
