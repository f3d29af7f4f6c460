# SPDX-License-Identifier: BSD-3-Clause

"""Compiled kernels, in memory and on disk, for this machine and others.

An entry is one JSON file, written beside its place and renamed into it: an entry that
can be read is whole, whoever writes at the same time, and whenever a writer dies. It
carries a digest of itself, so that a damaged one is noticed and discarded. General
caches on PyPI keep pickles, which run whatever a file says.

A kernel runs with the rights of the process. So an entry counts only if this user wrote
it, or root, or whoever owns the directory, which the user has named: where a directory
is open to all, anyone could put kernels there, and seal them with a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, get_origin, get_type_hints

from .. import _settings, errors
from .._code.kernel import Kernel, Outcome
from .._sizes.expressions import EncodingError, decode, encode

_FOLDER = "v4"  # of entries in this format
# What this cache calls its files; it leaves all others alone.
_ENTRY = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}\.json")
_TEMPORARY = re.compile(_ENTRY.pattern + r"\.\w+")
_FILL = 0.9  # of the limit is left by an eviction, or each store would evict again
_ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more

# A kernel that is refused for one of these is refused whenever it is compiled the same
# way. Other failures may pass, with the machine's or the disk's.
_LASTING = (errors.ArgumentError, errors.UnsupportedKernelError)
_REFUSALS = {cls.__name__: cls for cls in _LASTING}
_EXPRESSIONS = ("grid", "extras")
_NUMBERS = ("block", "scratch", "aligned")
_TYPES = {
    name: get_origin(hint) or hint for name, hint in get_type_hints(Kernel).items()
}
_ROOT = 0  # its user id

Labels: TypeAlias = Mapping[str, str]


class DamagedError(ValueError):
    """An entry is not what was written."""


class ForeignError(Exception):
    """An entry belongs to somebody whom nobody named."""


@dataclass(frozen=True)
class Contents:
    """How much a cache holds: kernels, refusals of kernels, and bytes of both."""

    kernels: int
    refusals: int
    bytes: int


class KernelCache:
    """What was compiled, by the digest of everything that decides it.

    A problem with the directory is reported once, and the process goes on without it.

    Args:
        root: is made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._failures: dict[str, str] = {}
        self._memory: dict[str, Outcome] = {}

    @property
    def failure(self) -> str:
        """Why the directory cannot be read or written; empty where it can."""
        return next(iter(self._failures.values()), "")

    def load(self, key: str, compiler: str | None) -> Outcome | None:
        """What compiling a job of this key gave, here or elsewhere, or None.

        Args:
            compiler: its version; None if it is not installed, and any version serves.
        """
        if key not in self._memory and "read" not in self._failures:
            with self._or_without("read"):
                if found := self._find(key, compiler):
                    self._memory[key] = found
        return self._memory.get(key)

    def store(
        self, key: str, compiler: str | None, outcome: Outcome, labels: Labels
    ) -> None:
        """Keep what compiling a job of this key gave, if it would be the same again.

        Args:
            labels: what else an entry tells the people who look at it.
        """
        body = to_json(outcome)
        if compiler is None or body is None:
            return
        self._memory[key] = outcome
        if "written" in self._failures:
            return
        body |= {**labels, "key": key, "compiler": compiler}
        with self._or_without("written"):
            self._write(self._path(key, compiler), seal(body))

    def contents(self) -> Contents:
        """How much is there."""
        entries = []
        for path, _ in self._files(_ENTRY):
            with contextlib.suppress(FileNotFoundError):  # another process evicted it
                entries.append(path.read_bytes())
        refusals = sum(b'"refused": [' in entry for entry in entries)
        return Contents(len(entries) - refusals, refusals, sum(map(len, entries)))

    def keep_within(self, limit: int) -> None:
        """Remove what was used least recently if more than ``limit`` bytes are there.

        An entry was used at its modification time, which readers set.
        """
        entries = self._files(_ENTRY)
        total = sum(stat.st_size for _, stat in entries)
        with self._or_without("written"):
            for path, stat in entries if total > limit else ():
                if total <= _FILL * limit:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size
            for path, stat in self._files(_TEMPORARY):
                if time.time() - stat.st_mtime > _ABANDONED:  # its writer was killed
                    path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every entry; files that are not a cache's stay."""
        self._memory.clear()
        for path, _ in (*self._files(_ENTRY), *self._files(_TEMPORARY)):
            path.unlink(missing_ok=True)

    def _find(self, key: str, compiler: str | None) -> Outcome | None:
        if compiler is not None:
            paths = [self._path(key, compiler)]
        else:  # there is none here: any compiler's, the last used first
            paths = [path for path, _ in reversed(self._files(_ENTRY))]
        for path in (path for path in paths if path.name.startswith(key)):
            try:
                body = unseal(self._read(path))
                outcome = from_json(body)
                if path != self._path(str(body.get("key")), str(body.get("compiler"))):
                    raise DamagedError("it belongs to another kernel")
            except FileNotFoundError:
                pass
            except ForeignError as error:
                errors.warn(f"the kernel cache's {path} is not used: {error}")
            except DamagedError as error:
                errors.warn(
                    f"the kernel cache's {path} is damaged: {error}. It is discarded, "
                    "and the kernel compiled again."
                )
                with self._or_without("written"):
                    path.unlink(missing_ok=True)
            else:
                with contextlib.suppress(OSError):  # read-only: nothing is evicted
                    os.utime(path)
                return outcome
        return None

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            if owner not in (os.geteuid(), _ROOT, self.root.stat().st_uid):
                raise ForeignError(
                    f"it belongs to user {owner}, and the directory does not. "
                    f"{_settings.CACHE_DIR.name} names another directory."
                )
            return file.read()

    def _path(self, key: str, compiler: str) -> Path:
        return self.root / _FOLDER / f"{key}-{sha256(compiler.encode())[:16]}.json"

    def _files(self, name: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
        """The files with such a name, the least recently used first."""
        found = []
        for path in (self.root / _FOLDER).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                if name.fullmatch(path.name):
                    found.append((path, path.stat()))
        return sorted(found, key=lambda entry: entry[1].st_mtime)

    def _write(self, path: Path, content: bytes) -> None:
        # For the user alone, whatever the umask is.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp("", f"{path.name}.", path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _or_without(self, verb: str) -> Iterator[None]:
        """Where the directory cannot be used, warn, and let the process go on."""
        try:
            yield
        except OSError as error:
            self._failures[verb] = f"{self.root} cannot be {verb}: {error}"
            errors.warn(
                f"the kernel cache in {self._failures[verb]}. This process goes on "
                f"without it; {_settings.CACHE_DIR.name} names another directory."
            )


kernel_cache = cache(KernelCache)  # the one in a directory, for all of this process


# --- The text of an entry -------------------------------------------------------------


def seal(body: dict[str, Any]) -> bytes:
    """``body`` as the text of an entry."""
    return json.dumps({"digest": sha256(_canonical(body)), "body": body}).encode()


def unseal(text: bytes) -> dict[str, Any]:
    """The body of an entry.

    Raises:
        DamagedError: it is not what was sealed.
    """
    try:
        entry = json.loads(text)
        body: dict[str, Any] = entry["body"]
        is_whole = sha256(_canonical(body)) == entry["digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("it is incomplete") from error
    if not is_whole:
        raise DamagedError("it was changed")
    return body


def to_json(outcome: Outcome) -> dict[str, Any] | None:
    """``outcome`` as JSON; None for what may be different the next time.

    That is a compiler's failure, and a kernel with expressions that have no JSON form.
    """
    if isinstance(outcome, errors.AnnotationError):
        name = type(outcome).__name__
        return {"refused": [name, str(outcome)]} if name in _REFUSALS else None
    try:
        values = dict(vars(outcome))
        for name in _EXPRESSIONS:
            values[name] = [encode(expr) for expr in values[name]]
        body = {"kernel": values}
        is_same = from_json(json.loads(json.dumps(body))) == outcome
    except (EncodingError, TypeError):
        return None
    return body if is_same else None


def from_json(body: dict[str, Any]) -> Outcome:
    """The outcome that :func:`to_json` wrote.

    Raises:
        DamagedError: the body was not written by it.
    """
    try:
        if "refused" in body:
            name, message = body["refused"]
            return _REFUSALS[name](message)
        values = dict(body["kernel"])
        for name in _EXPRESSIONS:
            values[name] = tuple(map(decode, values[name]))
        for name in _NUMBERS:
            values[name] = tuple(map(operator.index, values[name]))
        values["names"] = tuple(map(str.__str__, values["names"]))
        kinds = {name: type(value) for name, value in values.items()}
        if kinds != _TYPES or not len(values["grid"]) == len(values["block"]) == 3:
            raise DamagedError("it does not have the fields of a kernel")
        return Kernel(**values)
    except (ValueError, LookupError, TypeError, RuntimeError, AttributeError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
