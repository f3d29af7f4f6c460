# SPDX-License-Identifier: BSD-3-Clause

"""Wheels, sdists, and virtual environments to install them in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
UPSTREAM = "torch-tensorrt"
# Not of the project, or of the machine alone.
LEAVE_OUT = ("__pycache__", "*.egg-info", ".*", "build", "dist", "wheelhouse")

# Says where both packages come from. Real ones are imported, of hollow ones the spec is
# enough: finding it imports the packages around it, which are empty there.
REPORT = """
import importlib, importlib.util, json, sys, warnings

found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in ("annotation", "dynamo.conversion.plugins"):
        full = "torch_tensorrt." + name
        spec = importlib.util.find_spec(full)
        found[name] = spec and spec.origin
        if spec and "--import" in sys.argv:
            found[name] = importlib.import_module(full).__file__
found["warnings"] = [str(w.message) for w in caught if "annotation" in str(w.message)]
print(json.dumps(found))
"""
AROUND = ("torch_tensorrt", "torch_tensorrt/dynamo", "torch_tensorrt/dynamo/conversion")

# A line of a `.pth` file. Only `Environment.execute` sets the variable, not pip.
LINK = "import os, sys; sys.path.extend(os.environ.get('LINKED', '').split(':'))\n"


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own copy of torch-tensorrt.

    A hollow copy has empty packages around those of this project: importing the real
    torch_tensorrt takes seconds, and what the overlay does depends on names, files and
    the version alone.

    Everything else comes from the environment that runs the tests, whose own
    overlay stays out: its directories are appended to `sys.path`, which does not
    run the `.pth` files in them.
    """

    python: Path
    site: Path

    @classmethod
    def create(cls, directory: Path, *, hollow: bool) -> Environment:
        venv.create(directory, symlinks=True)
        site = next(directory.glob("lib/python3.*/site-packages"))
        copy_distribution(UPSTREAM, site)
        for package in AROUND if hollow else ():
            (site / package / "__init__.py").write_text("")
        (site / "linked.pth").write_text(LINK)
        return cls(directory / "bin" / "python", site)

    def pip(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        run([*pip, *arguments, "--quiet"])

    def execute(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        linked = [path for path in sys.path if path.endswith("-packages")]
        command = [str(self.python), "-c", code, *arguments]
        return run(command, LINKED=":".join(linked))

    def report(self, *arguments: str) -> dict[str, Any]:
        report = json.loads(self.execute(REPORT, *arguments).stdout.splitlines()[-1])
        assert isinstance(report, dict)
        return report


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it outside the repository, whose directories must not help."""
    inherited = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=Path(command[0]).parent,
        env=inherited | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def copy_distribution(name: str, site: Path) -> None:
    """Copy what pip installed, its RECORD included."""
    for file in distribution(name).files or ():
        source, target = Path(file.locate()), site / file
        if ".." not in file.parts and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


@dataclass(frozen=True)
class Built:
    """An sdist, and the wheel made of it."""

    source: Path
    sdist: Path
    wheel: Path


def build(directory: Path) -> Built:
    """Build from a copy, in ``directory``: the repository stays clean."""
    source, dist = directory / "source", directory / "dist"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(*LEAVE_OUT))
    run_build(source, dist)
    ((sdist,), (wheel,)) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return Built(source, sdist, wheel)


def run_build(source: Path, dist: Path, *options: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist)]
    run([*command, *options, str(source)])
