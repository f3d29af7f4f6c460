# SPDX-License-Identifier: BSD-3-Clause

"""Check a commit message: a subject of at most 72 characters, then an empty line.

    python tools/commit_message.py .git/COMMIT_EDITMSG    # a commit-msg hook

The rule lets `git log --oneline` fit a terminal. Subjects that git writes itself, for
`git rebase --autosquash` or a revert, pass: they carry another commit's subject.
"""

from __future__ import annotations

import argparse
from pathlib import Path

LONGEST = 72
WRITTEN_BY_GIT = ("fixup! ", "squash! ", "amend! ", 'Revert "')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="holds the message")
    options = parser.parse_args()
    if error := fault(options.file.read_text(encoding="utf-8")):
        raise SystemExit(f"commit message: {error}")


def fault(message: str) -> str | None:
    """What is wrong with ``message``."""
    # As git reads it: without comments, and from the first line that is not empty.
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject, *rest = "\n".join(lines).strip().splitlines() or [""]
    if subject.startswith(WRITTEN_BY_GIT):
        return None
    if len(subject) > LONGEST:
        return f"the subject has {len(subject)} characters; at most {LONGEST} fit."
    if rest and rest[0].strip():
        return "an empty line must follow the subject."
    return None


if __name__ == "__main__":
    main()
