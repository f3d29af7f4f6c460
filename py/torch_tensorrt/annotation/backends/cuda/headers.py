# SPDX-License-Identifier: BSD-3-Clause

"""The headers that a source includes: a changed one makes other code.

NVRTC does not say which files it read. So every ``#include`` that could be meant is
followed, whatever the preprocessor would make of the conditions around it. The headers
of the CUDA toolkit are not among the folders: their version stands for them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from ...errors import ArgumentError

Headers: TypeAlias = tuple[tuple[str, str], ...]  # (name as included, digest)

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b(?:_next)?[ \t]*([^\n]*)", re.MULTILINE)
_NAMED = re.compile(r'<([^>]+)>|"([^"]+)"')


def included(text: str, folders: Sequence[str]) -> Headers:
    """Every header below ``folders`` that ``text`` may include, and what they include.

    Raises:
        ArgumentError: a directive does not name its header.
    """
    found: dict[Path, tuple[str, str]] = {}
    waiting: list[tuple[str, list[Path]]] = [(name, []) for name in _includes(text)]
    while waiting:
        name, beside = waiting.pop()
        for folder in (*beside, *map(Path, folders)):
            path = Path(os.path.normpath(folder / name))
            if path in found:
                break
            if path.is_file():
                status = path.stat()
                digest, names = _read(path, status.st_mtime_ns, status.st_size)
                found[path] = name, digest
                waiting += [(inner, [path.parent]) for inner in names]
                break
    return tuple(sorted(set(found.values())))


@lru_cache(4096)
def _read(path: Path, modified: int, size: int) -> tuple[str, tuple[str, ...]]:
    """The digest of a file, and the names that it includes."""
    content = path.read_bytes()
    names = _includes(content.decode(errors="replace"), str(path))
    return hashlib.sha256(content).hexdigest(), names


@lru_cache(256)
def _includes(text: str, where: str = "the source") -> tuple[str, ...]:
    names = []
    for directive in _INCLUDE.findall(_COMMENT.sub(" ", text)):
        if (named := _NAMED.match(directive)) is None:
            raise ArgumentError(
                f"{where}: `#include {directive.strip()}` does not name its header, so "
                "a change of the header could not be noticed. Write the name: "
                '#include "name.cuh".'
            )
        names.append(named[1] or named[2])
    return tuple(names)
