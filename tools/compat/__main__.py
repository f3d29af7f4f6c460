# SPDX-License-Identifier: BSD-3-Clause

"""``python tools/compat [--only TEXT] [--execute]``: what `make compat` runs.

On a machine with a GPU and no network, copy `.compat/` along with the repository and
run ``tools/offline/run.sh tools/compat --execute --only fla``, for the languages whose
compilers are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DOCUMENT = HERE.parents[1] / "docsrc" / "compatibility.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools/compat", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", default="", help="ops whose library/name holds this")
    parser.add_argument("--execute", action="store_true", help="run on the GPU here")
    parser.add_argument("--limit", type=float, default=120, help="seconds for an op")
    parser.add_argument("--jobs", type=int, default=1, help="ops to try at a time")
    options = parser.parse_args()

    sys.path[0] = str(HERE.parent)  # the package is imported by its name
    os.environ["TTA_JOBS"] = "1"  # an op's own process compiles
    from compat import packages, render, run
    from compat.case import all_cases

    packages.install()
    os.environ.setdefault("TTA_CACHE_DIR", str(packages.FOLDER.parent / "cache"))
    cases = list(all_cases())
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {c.id: results[c.id] for c in cases if c.id in results}
    started = time.monotonic()
    tried = [case for case in cases if options.only in case.id]
    how = {"limit_s": options.limit, "executes": options.execute}
    with ThreadPoolExecutor(options.jobs) as pool:  # each op has a process of its own
        found = pool.map(partial(run.run, **how), tried)
        for case, outcomes in zip(tried, found, strict=True):
            results[case.id] = outcomes
            for mode, outcome in outcomes.items():
                status, error = outcome["status"], outcome.get("error", "")
                print(f"{case.id} {mode}: {status} {error}"[:150], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(render.document(cases, results, run.MOST_CONFIGS))
    print(render.counts(cases, results))
    print(f"{len(tried)} ops in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
