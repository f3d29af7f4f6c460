"""Keep the kernel cache within a size: what was not used for longest goes first.

When an entry was used is its modification time, which readers set: whoever looks into
it sets its access time. An entry goes before its code, so a reader that finds the
entry, but not the code, looks whether the entry is still there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch_tensorrt.annotation.errors import SpecError

_VARIABLE = "TTA_CACHE_SIZE"
_DEFAULT = "2GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Another process may be about to name the code that it has just written, ...
_GRACE = 10.0
# ... or still write a file; unless it was killed.
_ABANDONED = 3600.0


@dataclass(frozen=True)
class _Entry:
    """One kernel on disk; times in seconds."""

    path: Path
    code: Path
    size: int
    used: float


def size_limit() -> int:
    """Bytes that the cache may take: ``TTA_CACHE_SIZE``."""
    return parse_size(os.environ.get(_VARIABLE) or _DEFAULT, _VARIABLE)


def parse_size(text: str, what: str) -> int:
    """``"500MB"`` in bytes. Raises :class:`SpecError` for what is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise SpecError(f"{what}={text!r}: no size. Write 500MB, or 2GB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def mark_used(path: Path) -> None:
    """Note that an entry is used now."""
    with contextlib.suppress(OSError):  # read-only: then nothing is evicted, either
        os.utime(path)


def last_used(path: Path) -> float:
    """When an entry was used; long ago where another process removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def size_of(folder: Path) -> int:
    """Bytes of all files in ``folder``."""
    return sum(stat.st_size for _, stat in _files(folder))


def evict(
    kernels: Path, code: Path, keep: int | None = None, unused_for: float | None = None
) -> None:
    """Remove the entries used least recently, and the code that none names.

    Args:
        kernels, code: the folders of the entries, and of the files they name.
        keep: bytes that may stay; None for all.
        unused_for: seconds after whose disuse an entry goes in any case.
    """
    now = time.time()
    entries = sorted(_entries(kernels, code), key=lambda entry: entry.used)
    users = Counter(entry.code for entry in entries)
    sizes = {path: stat.st_size for path, stat in _files(code)}
    total = sum(sizes.values()) + sum(entry.size for entry in entries)
    for entry in entries:
        is_old = unused_for is not None and entry.used < now - unused_for
        if not is_old and (keep is None or total <= keep):
            continue
        entry.path.unlink(missing_ok=True)
        users[entry.code] -= 1
        total -= entry.size + (0 if users[entry.code] else sizes.get(entry.code, 0))
    for folder in (kernels, code):
        for path, stat in _files(folder):
            is_code = path.suffix == ".ptx"
            is_needed = users[path] if is_code else path.suffix == ".json"
            age = now - stat.st_mtime
            if not is_needed and age > (_GRACE if is_code else _ABANDONED):
                path.unlink(missing_ok=True)


def _entries(kernels: Path, code: Path) -> Iterator[_Entry]:
    for path, stat in _files(kernels):
        if path.suffix == ".json":
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                named = code / f"{_code_of(path)}.ptx"
                yield _Entry(path, named, stat.st_size, stat.st_mtime)


def _code_of(path: Path) -> str:
    """The code that an entry names; nothing where it is damaged."""
    try:
        return str(json.loads(path.read_bytes())["body"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in ``folder``, and below, that are still there."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()
