# SPDX-License-Identifier: BSD-3-Clause

"""This package's own environment variables. The table is the whole list."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from .errors import SpecError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Setting:
    """One environment variable. An empty value counts as unset."""

    name: str
    default: str
    what: str

    def text(self) -> str:
        """What the environment says, or the default."""
        return os.environ.get(self.name) or self.default

    def positive(self) -> float:
        """The value as a number above 0.

        Raises:
            SpecError: it is not a number, or not above 0.
        """
        try:
            value = float(self.text())
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise SpecError(
                f"{self.name}={self.text()!r} in the environment: write a number "
                "above 0."
            )
        return value


TARGET = Setting("TTA_TARGET", "", "what to compile for, as sm_90; unset: this GPU")
CACHE_DIR = Setting("TTA_CACHE_DIR", "", "directory of the kernel cache")
CACHE_SIZE = Setting("TTA_CACHE_SIZE", "2GB", "most that the kernel cache may take")
JOBS = Setting("TTA_JOBS", "", "processes that compile; 1: compile in this process")
COMPILE_TIMEOUT = Setting("TTA_COMPILE_TIMEOUT", "600", "seconds a kernel may take")

SETTINGS = (TARGET, CACHE_DIR, CACHE_SIZE, JOBS, COMPILE_TIMEOUT)


def cache_folder() -> Path:
    """``TTA_CACHE_DIR``, or this package's folder in the user's cache directory."""
    if chosen := CACHE_DIR.text():
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("torch_tensorrt") / "annotation"


def cache_size() -> int:
    """``TTA_CACHE_SIZE`` in bytes.

    Raises:
        SpecError: it is not a size.
    """
    text = CACHE_SIZE.text().strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise SpecError(f"{CACHE_SIZE.name}={text!r}: not a size. Write 500MB, or 2GB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])
