"""Compiled kernels, in memory and on disk, for this machine and others.

An entry is a JSON file that names a file of code by the digest of its content. The code
is written first and each file is renamed into place, so an entry that can be read is
whole, whoever writes at the same time, and whenever a writer dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch_tensorrt.annotation._entry import (
    DamagedError,
    from_json,
    seal,
    sha256,
    to_json,
    unseal,
)
from torch_tensorrt.annotation._eviction import evict, last_used, mark_used, size_of
from torch_tensorrt.annotation._job import Job, Outcome
from torch_tensorrt.annotation.errors import CacheWarning

_LOGGER = logging.getLogger(__name__)
_VARIABLE = "TTA_CACHE_DIR"
_FORMAT = "v1"
_FILL = 0.9  # of the limit, after an eviction: or there would be one at each store


def cache_folder() -> Path:
    """``TTA_CACHE_DIR``, or this package's in the user's cache directory."""
    if chosen := os.environ.get(_VARIABLE):
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home, "torch_tensorrt", "annotation").expanduser()


@cache
def kernel_cache(root: Path) -> KernelCache:
    """The one cache in ``root`` of this process."""
    return KernelCache(root)


@dataclass(frozen=True)
class Contents:
    """How much a cache holds: kernels, refusals of kernels, and bytes of both."""

    kernels: int
    refusals: int
    bytes: int


class KernelCache:
    """What was compiled, by the digest of everything that decides it.

    What is wrong with the directory is said once, and then done without.

    Args:
        root: is made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._memory: dict[str, Outcome] = {}
        self._can = {"read": True, "write": True}

    def load(self, job: Job) -> Outcome | None:
        """What compiling ``job`` gave, here or elsewhere; None if it never was.

        A damaged entry is discarded, with a warning.
        """
        if job.key is None:
            return None
        if job.key not in self._memory and self._can["read"]:
            found = None
            try:
                found = self._find(job)
            except OSError as error:
                self._do_without("read", error)
            if found is not None:
                self._memory[job.key] = found
        return self._memory.get(job.key)

    def store(self, job: Job, outcome: Outcome) -> None:
        """Keep the outcome of ``job``, if it would be the same again."""
        compiler = job.toolchain.compiler
        parts = to_json(outcome)
        if job.key is None or compiler is None or parts is None:
            return
        self._memory[job.key] = outcome
        if not self._can["write"]:
            return
        body, code = parts
        body |= {"name": job.record.name, "target": job.target.arch}
        body |= {"compiler": compiler, "code": sha256(code)}
        try:
            self._write(self._code(body), code)
            self._write(self._entry(job.key, compiler), seal(body))
        except OSError as error:
            self._do_without("written", error)

    def contents(self) -> Contents:
        """How much is there."""
        entries = []
        for path in self._entries("*"):
            with contextlib.suppress(FileNotFoundError):  # evicted by another process
                entries.append(path.read_bytes())
        refusals = sum(b'"refused"' in entry for entry in entries)
        return Contents(len(entries) - refusals, refusals, size_of(self.root))

    def keep_within(self, limit: int) -> None:
        """Evict what was used least recently if more than ``limit`` bytes are there."""
        try:
            if self._can["write"] and size_of(self.root / _FORMAT) > limit:
                self.evict(int(_FILL * limit))
        except OSError as error:
            self._do_without("written", error)

    def evict(self, keep: int | None = None, unused_for: float | None = None) -> None:
        """Remove the entries used least recently.

        Args:
            keep: bytes that may stay; None for all.
            unused_for: seconds after whose disuse an entry goes in any case.
        """
        folder = self.root / _FORMAT
        evict(folder / "kernels", folder / "code", keep, unused_for)

    def clear(self) -> None:
        """Remove everything, of every version of this package."""
        self._memory.clear()
        for version in self.root.glob("v[0-9]*"):
            shutil.rmtree(version)

    def _find(self, job: Job) -> Outcome | None:
        assert job.key is not None
        if (compiler := job.toolchain.compiler) is not None:
            paths = [self._entry(job.key, compiler)]
        else:  # there is none here: any compiler's, the last used first
            paths = self._entries(f"{job.key}-*")
            paths.sort(key=last_used, reverse=True)
        for path in paths:
            try:
                return self._read(path)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                self._discard(path, error)
        return None

    def _read(self, path: Path) -> Outcome:
        body = unseal(path.read_bytes())
        try:
            code = self._code(body).read_bytes()
        except FileNotFoundError as error:
            if not path.exists():  # both were evicted by another process just now
                raise
            raise DamagedError("its code is missing") from error
        if sha256(code) != body["code"]:
            raise DamagedError("its code was changed")
        mark_used(path)
        return from_json(body, code)

    def _entry(self, key: str, compiler: str) -> Path:
        name = f"{key}-{sha256(compiler.encode())[:16]}.json"
        return self.root / _FORMAT / "kernels" / name

    def _entries(self, pattern: str) -> list[Path]:
        return list((self.root / _FORMAT / "kernels").glob(f"{pattern}.json"))

    def _code(self, body: dict[str, Any]) -> Path:
        return self.root / _FORMAT / "code" / f"{body['code']}.ptx"

    def _write(self, path: Path, content: bytes) -> None:
        _make_private(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # for the user alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _discard(self, path: Path, error: DamagedError) -> None:
        _warn(
            f"the kernel cache's {path} is damaged: {error}. It is discarded, and the "
            "kernel compiled again."
        )
        try:
            path.unlink(missing_ok=True)
        except OSError as failure:
            self._do_without("written", failure)

    def _do_without(self, verb: str, error: OSError) -> None:
        self._can["read" if verb == "read" else "write"] = False
        _warn(
            f"the kernel cache in {self.root} cannot be {verb}: {error}. This process "
            f"goes on without; {_VARIABLE} names another directory."
        )


def _warn(message: str) -> None:
    try:
        warnings.warn(message, CacheWarning, stacklevel=2)
    except CacheWarning:  # warnings are errors, but a cache is no reason to fail
        _LOGGER.warning(message)


def _make_private(folder: Path) -> None:
    if not folder.is_dir():
        _make_private(folder.parent)
        with contextlib.suppress(FileExistsError):  # another process did
            folder.mkdir(mode=0o700)
