"""Collect what a machine with a GPU, but no network, needs to run this project.

    python tools/offline/wheelhouse.py DIR [--python 3.12]

Run it where PyPI is reachable. DIR gets the wheels, about 50 MB. What is not in them
must be on the other machine: a CUDA build of torch, triton, cuda-bindings, sympy, rich
and packaging; for the tests pytest, pytest-xdist and hypothesis. See README.md.
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
    names = [n for n in engineless.WITHOUT_DEPENDENCIES if not n.startswith("triton")]
    pip(
        "download",
        "--only-binary=:all:",
        f"--python-version={options.python}",
        f"--platform={_PLATFORM}",
        f"--dest={options.directory}",
        "dllist",
        *names,
    )
    # An sdist, of pure Python: the wheel that it makes here serves there.
    pip(
        "wheel",
        "--no-build-isolation",
        f"--wheel-dir={options.directory}",
        engineless.TENSORRT_PACKAGE,
    )
    size = sum(f.stat().st_size for f in options.directory.glob("*.whl"))
    print(f"{options.directory}: {size / 1e6:.0f} MB for Python {options.python}")


def pip(command: str, *arguments: str) -> None:
    python = [sys.executable, "-m", "pip", command, "--no-deps", "-qq"]
    subprocess.run([*python, "--disable-pip-version-check", *arguments], check=True)


if __name__ == "__main__":
    main()
