# SPDX-License-Identifier: BSD-3-Clause

"""Compile the tests' kernels for a GPU on a machine that lacks their languages.

    python tools/offline/kernels.py DIR

Run it where cuTile and CuTe DSL are, after `make setup`; no GPU is needed. DIR gets a
report of each kernel (see tests/py/annotation/compiled_elsewhere.py).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "py" / "annotation"))

from compiled_elsewhere import GROUPS, compile_group  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    folder = parser.parse_args().directory
    shutil.rmtree(folder, ignore_errors=True)
    size = tactics = 0
    for group in GROUPS:
        for path, report in compile_group(folder, group):
            if not report.ok:
                raise SystemExit(f"{path.name}: a tactic is left out.\n{report}")
            size, tactics = size + path.stat().st_size, tactics + len(report.tactics)
        print(f"{group.name}: {tactics} tactics so far", flush=True)
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
