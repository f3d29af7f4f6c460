# SPDX-License-Identifier: BSD-3-Clause

"""The documentation and the library are written in plain English."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import prose

# Sentences that each pattern must find, in the order of the table.
EXAMPLES = (
    "A number that is no tactic.",
    "An early return for small ones is none.",
    "A kernel of which nothing is known.",
    "Nothing is said about it.",
    "The compiler is told a fact.",
    "It keeps that which was compiled.",
    "It takes the one of the plugin.",
    "The dtype is that of the input.",
    "A missing number is a tactic whose code is another's.",
    "It is left out without a word.",
    "It is nothing to worry about.",
    "A language as of today.",
    "An `nn.Parameter` will do.",
    "A list does as well.",
    "How it is to be compiled.",
    "What TensorRT is to pass.",
    "The spec is of another language.",
    "Nor is it documented.",
    "Not so is the second one.",
    "All words but for the last.",
    "It fails for want of memory.",
    "A machine to be had.",
    "The GPU at hand.",
    "It goes without saying.",
    "They launch as ever.",
    "Mend the config.",
    "Thus it is right.",
)


@pytest.mark.parametrize("path", prose.files(prose.DOCUMENTS), ids=lambda p: p.name)
def test_a_document_has_no_sentence_to_rewrite(path: Path) -> None:
    assert not [str(finding) for finding in prose.findings(path)]


def test_the_library_has_no_sentence_to_rewrite() -> None:
    paths = prose.files(prose.LIBRARY)
    assert not [str(found) for path in paths for found in prose.findings(path)]


@pytest.mark.parametrize(
    ("pattern", "sentence"), [*zip(prose.PATTERNS, EXAMPLES, strict=True)]
)
def test_each_pattern_finds_its_example(
    pattern: prose.Pattern, sentence: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Fine.\n\n| cell | {sentence} |\n")
    assert (3, pattern.remedy) in [(f.line, f.remedy) for f in prose.findings(page)]


def test_plain_sentences_are_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "There is no GPU here, and there is nothing to run. It is no longer used.\n"
        "None is None. Write `is no` in code.\n\n```text\nof which\n```\n"
    )
    assert not list(prose.findings(page))


def test_strings_comments_and_docstrings_of_python_are_read(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""A module.\n\nIt is no package.\n"""\n\n'
        "# A comment, of\n# which this is the second line.\n"
        'error = f"{module} is no " "module."\n'
    )
    found = {(f.line, f.words) for f in prose.findings(module)}
    assert found == {(3, "is no"), (6, "of which"), (8, "is no")}


def test_the_texts_of_a_notebook_are_read(tmp_path: Path) -> None:
    cells = [
        {"cell_type": kind, "source": ["Fine.\n", "It is no text.\n"]}
        for kind in ("code", "markdown")
    ]
    notebook = tmp_path / "notebook.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    assert [(f.line, f.words) for f in prose.findings(notebook)] == [(2, "is no")]


def test_an_allowed_sentence_is_still_in_the_project() -> None:
    """A row that nothing uses any more is removed."""
    texts = [
        sentence
        for path in prose.files((*prose.DOCUMENTS, *prose.LIBRARY))
        for _, sentence in prose.all_sentences(path)
    ]
    assert set(texts) >= prose.ALLOWED
