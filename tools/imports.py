# SPDX-License-Identifier: BSD-3-Clause

"""Check the import contracts in pyproject.toml, as `lint-imports` does.

    python tools/imports.py [OPTION ...]    # `make imports`

`lint-imports` alone cannot check the library: import-linter refuses a root package
whose parent is a regular package, and the parent, `torch_tensorrt`, belongs to another
distribution. This script makes `torch_tensorrt` a namespace package that holds `py/`
only, so that the contracts can name `torch_tensorrt.annotation` and
`torch_tensorrt.dynamo.conversion.plugins` as root packages. Nothing is imported:
import-linter reads the files. The options are those of `lint-imports`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from importlinter.cli import lint_imports_command

PROJECT = Path(__file__).resolve().parents[1]


class LibraryFinder:
    """A meta-path finder that knows `py/` as all of `torch_tensorrt`."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "torch_tensorrt":
            return None
        return PathFinder.find_spec(fullname, path or [str(PROJECT / "py")])


def main() -> None:
    sys.meta_path.insert(0, LibraryFinder)
    os.chdir(PROJECT)
    # Reading the files takes less than a second, so a cache is not worth its directory.
    lint_imports_command(["--no-cache", "--no-logo", *sys.argv[1:]])


if __name__ == "__main__":
    main()
