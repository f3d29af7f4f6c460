# SPDX-License-Identifier: BSD-3-Clause

"""``python tools/compat [--only TEXT] [--execute]``: what `make compat` runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/compat", description=__doc__)
    parser.add_argument("--only", default="", help="ops whose library/name holds this")
    parser.add_argument("--execute", action="store_true", help="run on the GPU here")
    parser.add_argument("--limit", type=float, default=120, help="seconds for an op")
    options = parser.parse_args()

    sys.path[0] = str(HERE.parent)  # the package is imported by its name
    os.environ["TTA_JOBS"] = "1"  # an op's own process compiles
    from compat import packages, run
    from compat.case import all_cases

    packages.install()
    os.environ.setdefault("TTA_CACHE_DIR", str(packages.FOLDER.parent / "cache"))
    cases = [case for case in all_cases() if options.only in case.id]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    started = time.monotonic()
    results |= run.run(cases, options.limit, options.execute, print)
    known = {case.id for case in all_cases()}
    run.write({k: v for k, v in results.items() if k in known}, RESULTS)
    print(f"{len(cases)} ops in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
