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

# Imports both packages and prints what came of it as the last line.
REPORT = """
import importlib, json, warnings

found = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch_tensorrt
    for name in ("annotation", "dynamo.conversion.plugins"):
        try:
            module = importlib.import_module("torch_tensorrt." + name)
        except ModuleNotFoundError as error:
            found[name] = str(error)
        else:
            found[name] = module.__file__
from torch_tensorrt.dynamo.conversion.plugins import custom_op
found["custom_op"] = custom_op.__code__.co_filename
found["warnings"] = [str(w.message) for w in caught if "annotation" in str(w.message)]
print(json.dumps(found))
"""

# A line of a `.pth` file. Only `Environment.execute` sets the variable, not pip.
LINK = "import os, sys; sys.path.extend(os.environ.get('LINKED', '').split(':'))\n"


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own copy of torch-tensorrt.

    Everything else comes from the environment that runs the tests, whose own
    overlay stays out: its directories are appended to `sys.path`, which does not
    run the `.pth` files in them.
    """

    python: Path
    site: Path

    @classmethod
    def create(cls, directory: Path) -> Environment:
        venv.create(directory, symlinks=True)
        site = next(directory.glob("lib/python3.*/site-packages"))
        copy_distribution(UPSTREAM, site)
        (site / "linked.pth").write_text(LINK)
        return cls(directory / "bin" / "python", site)

    def pip(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        run([*pip, *arguments, "--quiet"])

    def execute(self, code: str) -> subprocess.CompletedProcess[str]:
        linked = [path for path in sys.path if path.endswith("-packages")]
        return run([str(self.python), "-c", code], LINKED=":".join(linked))

    def report(self) -> dict[str, Any]:
        report = json.loads(self.execute(REPORT).stdout.splitlines()[-1])
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
