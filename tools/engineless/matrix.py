# SPDX-License-Identifier: BSD-3-Clause

"""Run the tests that meet Torch-TensorRT and TensorRT, on every release supported.

    python tools/engineless/matrix.py DIR [RELEASE ...]    # `make test-matrix`

Each release lies in a directory of its own under DIR, which goes before this
interpreter's packages; torch and the kernel languages are this interpreter's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from install import PROJECT, RELEASES

TESTS = (
    "tests/py/plugins",
    "tests/py/annotation/test_dry_run.py",
    "tests/py/annotation/test_dtypes.py",
    "tests/py/annotation/test_launch_abi.py",
    "tests/py/annotation/test_overlay.py",
    "tests/py/annotation/test_symbolic.py",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help="all by default")
    options = parser.parse_args()
    if unknown := set(options.releases) - set(RELEASES):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(RELEASES)}")
    results = {
        release: run_tests(site(options.directory, release))
        for release in options.releases or RELEASES
    }
    for release, (_, summary) in results.items():
        print(release, "with TensorRT", RELEASES[release][1], summary)
    raise SystemExit(not all(passed for passed, _ in results.values()))


def site(directory: Path, release: str) -> Path:
    """The packages of ``release``, installed once."""
    site = directory.resolve() / "-".join(RELEASES[release]) / "site-packages"
    complete = site.with_name("complete")
    if not complete.exists():
        install = Path(__file__).with_name("install.py")
        command = [sys.executable, install, "--site", site, "--release", release]
        subprocess.run(command, check=True)
        complete.touch()
    return site


def run_tests(site: Path) -> tuple[bool, str]:
    """Whether they pass, and how many."""
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    workers = ("-n", "2", "--dist", "loadfile")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *workers, *TESTS],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    summary = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if " passed" in line or " failed" in line:  # libraries print more at the end
            summary = line.strip()
    return process.wait() == 0, summary


if __name__ == "__main__":
    main()
