# SPDX-License-Identifier: BSD-3-Clause

"""``python tools/compat [--only TEXT] [--execute]``: what `make compat` runs.

On a machine with a GPU and no network, copy `.compat/` along with the repository and
run ``tools/offline/run.sh tools/compat --execute --only fla``, for the languages whose
compilers are there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DOCUMENT = HERE.parents[1] / "docsrc" / "compatibility.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools/compat", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only", default="", help="ops whose library/name holds one of these: a,b"
    )
    parser.add_argument("--execute", action="store_true", help="run on the GPU here")
    parser.add_argument("--limit", type=float, default=120, help="seconds for an op")
    parser.add_argument("--jobs", type=int, default=1, help="ops to try at a time")
    parser.add_argument(
        "--stop-after", type=float, default=math.inf, help="seconds; no op starts later"
    )
    options = parser.parse_args()

    sys.path[0] = str(HERE.parent)  # the package is imported by its name
    os.environ["TTA_JOBS"] = "1"  # an op's own process compiles
    from compat import packages, render, run
    from compat.case import Case, all_cases

    packages.install()
    os.environ.setdefault("TTA_CACHE_DIR", str(packages.FOLDER.parent / "cache"))
    cases = list(all_cases())
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {c.id: results[c.id] for c in cases if c.id in results}
    started = time.monotonic()
    wanted = options.only.split(",")
    tried = 0

    def try_in_time(case: Case) -> dict[str, dict[str, Any]] | None:
        if time.monotonic() - started > options.stop_after:
            return None
        return run.run(case, options.limit, options.execute)

    with ThreadPoolExecutor(options.jobs) as pool:  # each op has a process of its own
        running = {
            pool.submit(try_in_time, case): case
            for case in cases
            if any(text in case.id for text in wanted)
        }
        for done in as_completed(running):
            case, outcomes = running[done], done.result()
            if outcomes is None:
                print(f"{case.id}: not tried, for want of time", flush=True)
                continue
            tried += 1
            results[case.id] = outcomes
            for mode, outcome in outcomes.items():
                status, error = outcome["status"], outcome.get("error", "")
                print(f"{case.id} {mode}: {status} {error}"[:150], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(render.document(cases, results, run.MOST_CONFIGS))
    print(render.counts(cases, results))
    print(f"{tried} ops in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
