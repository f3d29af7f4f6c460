# SPDX-License-Identifier: BSD-3-Clause

"""What tools/ and .pre-commit-config.yaml ask of commits and files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import commit_message
import spdx

PROJECT = Path(__file__).resolve().parents[2]
CONFIGURATION = PROJECT / ".pre-commit-config.yaml"


@pytest.mark.parametrize(
    "message",
    [
        "x" * 72,
        "fix: one thing\n\nWhy it was needed.\n",
        "\n# a comment of git's template\nfix: one thing\n# another\n",
        f"fixup! {'x' * 72}",
        f'Revert "{"x" * 72}"\n\nThis reverts a commit.',
    ],
)
def test_a_message_with_a_short_subject_passes(message: str) -> None:
    assert commit_message.fault(message) is None


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("x" * 73, "has 73 characters"),
        ("fix: one thing\nWhy it was needed.", "an empty line"),
    ],
)
def test_another_message_is_refused(message: str, fault: str) -> None:
    assert fault in str(commit_message.fault(message))


def test_every_hook_runs_a_tool_of_the_environment() -> None:
    if not CONFIGURATION.exists() or Path(sys.prefix) != PROJECT / ".venv":
        pytest.skip("the hooks run tools of .venv, and the tests run elsewhere")
    entries = re.findall("entry: (.*)", CONFIGURATION.read_text())
    assert len(entries) > 5
    for entry in entries:
        program, *arguments = entry.split()
        assert (PROJECT / program).is_file()
        assert all((PROJECT / a).is_file() for a in arguments if a.endswith(".py"))


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("x = 1\n", ".py", f"# {spdx.LINE}\n\nx = 1\n"),
        ("#!/bin/sh\nls\n", ".sh", f"#!/bin/sh\n# {spdx.LINE}\n\nls\n"),
        ("#!/bin/sh", ".sh", f"#!/bin/sh\n# {spdx.LINE}\n"),
        ("\nint x;\n", ".c", f"// {spdx.LINE}\n\nint x;\n"),
        ("", ".py", f"# {spdx.LINE}\n"),
    ],
)
def test_the_license_line_is_added_once(text: str, suffix: str, expected: str) -> None:
    assert not spdx.has_line(text, suffix)
    assert spdx.with_line(text, suffix) == expected
    assert spdx.has_line(expected, suffix)


def test_a_license_line_further_down_does_not_count() -> None:
    assert not spdx.has_line(f"import os\n# {spdx.LINE}\n", ".py")


def test_every_source_file_has_the_license_line() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("git lists the files, and this is not a checkout")
    missing = [str(p.relative_to(PROJECT)) for p in spdx.without_line(PROJECT)]
    assert missing == [], "run tools/spdx.py, which adds the line"
