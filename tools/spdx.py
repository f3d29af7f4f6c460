# SPDX-License-Identifier: BSD-3-Clause

"""Give every source file the line that names its license.

    python tools/spdx.py            # adds the missing lines; part of `make format`
    python tools/spdx.py --check    # lists the files without one; part of `make check`

The line comes first, or second where a file starts with a shebang. Files are those that
git tracks. Running the script again changes nothing.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LINE = "SPDX-License-Identifier: BSD-3-Clause"
COMMENTS = {".py": "# ", ".sh": "# ", ".c": "// ", ".cpp": "// "}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    missing = without_line(PROJECT)
    for path in missing:
        print(path.relative_to(PROJECT))
        if not options.check:
            text = path.read_text(encoding="utf-8")
            path.write_text(with_line(text, path.suffix), encoding="utf-8")
    if missing:
        what = "without" if options.check else "now with"
        print(f"{len(missing)} files {what} the line {LINE}")
    raise SystemExit(options.check and bool(missing))


def without_line(project: Path) -> list[Path]:
    """The source files that git tracks in ``project`` and that lack the line."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=project, capture_output=True, check=True
    )
    paths = [project / name for name in listed.stdout.decode().split("\0")]
    # A file that was deleted is tracked until the next commit.
    sources = [p for p in sorted(paths) if p.suffix in COMMENTS and p.is_file()]
    return [p for p in sources if not has_line(p.read_text(encoding="utf-8"), p.suffix)]


def has_line(text: str, suffix: str) -> bool:
    _, rest = split_shebang(text)
    return rest.partition("\n")[0] == COMMENTS[suffix] + LINE


def with_line(text: str, suffix: str) -> str:
    """``text`` with the line, and an empty one after it."""
    shebang, rest = split_shebang(text)
    separator = "\n" if rest and not rest.startswith("\n") else ""
    return f"{shebang}{COMMENTS[suffix]}{LINE}\n{separator}{rest}"


def split_shebang(text: str) -> tuple[str, str]:
    if not text.startswith("#!"):
        return "", text
    shebang, newline, rest = text.partition("\n")
    return shebang + (newline or "\n"), rest


if __name__ == "__main__":
    main()
