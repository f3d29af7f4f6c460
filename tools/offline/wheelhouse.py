# SPDX-License-Identifier: BSD-3-Clause

"""Collect what a machine with a GPU, but no network, needs to run this project.

    python tools/offline/wheelhouse.py DIR [--python 3.12]

Run it where PyPI is reachable. DIR gets the wheels, about 50 MB. The other machine must
have the rest: a CUDA build of torch, triton, cuda-bindings, numpy, sympy, rich and
packaging; for the tests also pytest, pytest-xdist and hypothesis. See README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engineless"))
import install as engineless

_PLATFORM = "manylinux_2_28_x86_64"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default="3.12", help="the other machine's Python")
    options = parser.parse_args()
    # environment.py installs every wheel in the directory, so older ones must go.
    for wheel in options.directory.glob("*.whl"):
        wheel.unlink()
    for arguments in plan(options.directory, options.python):
        command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "-qq"]
        subprocess.run([*command, "--disable-pip-version-check"], check=True)
    size = sum(f.stat().st_size for f in options.directory.glob("*.whl"))
    print(f"{options.directory}: {size / 1e6:.0f} MB for Python {options.python}")


def plan(directory: Path, python: str) -> list[list[str]]:
    """The pip commands, without `pip`, that fill `directory`."""
    download = [
        "download",
        "--only-binary=:all:",
        f"--python-version={python}",
        f"--platform={_PLATFORM}",
        f"--dest={directory}",
        *engineless.PURE_PYTHON,
        *engineless.release_wheels(),
    ]
    # The sdist is pure Python, so the wheel that it makes here works there.
    build = [
        "wheel",
        "--no-build-isolation",
        f"--wheel-dir={directory}",
        engineless.release_sdist(),
    ]
    return [download, build]


if __name__ == "__main__":
    main()
