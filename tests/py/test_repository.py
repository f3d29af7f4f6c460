"""What tools/ and .pre-commit-config.yaml ask of commits and files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import commit_message

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
    if Path(sys.prefix) != PROJECT / ".venv":
        pytest.skip("the hooks are for .venv, and this is another environment")
    entries = re.findall("entry: (.*)", CONFIGURATION.read_text())
    assert len(entries) > 5
    for entry in entries:
        program, *arguments = entry.split()
        assert (PROJECT / program).is_file()
        assert all((PROJECT / a).is_file() for a in arguments if a.endswith(".py"))
