# SPDX-License-Identifier: BSD-3-Clause

"""The libraries: installed into a folder of their own, and what stands in for the rest.

Nothing that they depend on comes with them: they use the torch, Triton, cuTile and CuTe
DSL of this environment.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / ".compat" / "site"

# By the name that cases use. The cases name no version.
LIBRARIES = {
    "liger-kernel": "0.8.5",
    "fla-core": "0.6.0",
    "mamba-ssm": "2.3.2.post1",
    "torchao": "0.18.0",
    "flag_gems": "5.0.2",
    "conch-triton-kernels": "1.3",
    "tilegym": "1.5.1",
    "quack-kernels": "0.6.5",
    "flash-attn-4": "4.0.0b36",
}

# Small packages that the libraries use when their ops run.
USED = {
    "apache-tvm-ffi": "0.1.15.post2",
    "einops": "0.8.1",
    "SQLAlchemy": "2.0.48",
    "torch-c-dlpack-ext": "0.1.5",
}

# mamba-ssm has no wheel. These make its setup.py leave out the CUDA extension.
FROM_SOURCE = ("mamba-ssm",)
WITHOUT_CUDA = {"MAMBA_FORCE_BUILD": "TRUE", "MAMBA_SKIP_CUDA_BUILD": "TRUE"}

# Imported by the libraries, and not used by the ops that are tried.
STAND_INS = (
    "causal_conv1d",
    "causal_conv1d_cuda",
    "datasets",
    "huggingface_hub",
    "pandas",
    "selective_scan_cuda",
    "transformers",
)


def install(folder: Path = FOLDER) -> None:
    """Install the libraries, without their dependencies, unless they are there."""
    wanted = {**LIBRARIES, **USED}
    if installed(folder) == wanted:
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "-qq"]
    pip += ["--disable-pip-version-check", "--upgrade", f"--target={folder}"]
    subprocess.run(
        [
            *pip,
            "--only-binary=:all:",
            *(f"{n}=={v}" for n, v in wanted.items() if n not in FROM_SOURCE),
        ],
        check=True,
    )
    subprocess.run(
        [*pip, "--no-build-isolation", *(f"{n}=={wanted[n]}" for n in FROM_SOURCE)],
        env={**os.environ, **WITHOUT_CUDA},
        check=True,
    )
    if installed(folder) != wanted:
        raise SystemExit(f"{folder} holds {installed(folder)}, and not {wanted}")


def installed(folder: Path = FOLDER) -> dict[str, str]:
    """Versions of the libraries and of what they use, as far as they are there."""
    search = importlib.metadata.MetadataPathFinder.find_distributions
    found = {}
    for name in (*LIBRARIES, *USED):
        context = importlib.metadata.DistributionFinder.Context(
            name=name, path=[str(folder)]
        )
        for distribution in search(context):
            found[name] = distribution.version
    return found


def use(folder: Path = FOLDER) -> None:
    """Make the libraries importable in this process."""
    # Behind this environment's own packages, which must not change with the libraries.
    sys.path.append(str(folder))
    sys.meta_path.append(_StandIns())


class _Nothing(type):
    """The type of what a stand-in holds: a base class, whose instances are false."""

    def __getattr__(cls, name: str) -> Any:
        return _nothing(name)


class _StandIn(ModuleType):
    __path__: Sequence[str] = ()
    __version__ = "0"

    def __getattr__(self, name: str) -> Any:
        return _nothing(name)


def _nothing(name: str) -> _Nothing:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {"__bool__": lambda self: False})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds, after all others, what the libraries import and do not use."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
