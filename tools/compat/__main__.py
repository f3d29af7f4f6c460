# SPDX-License-Identifier: BSD-3-Clause

"""``python tools/compat [--only TEXT] [--execute]``: what `make compat` runs.

On a machine with a GPU and no network, copy `.compat/` along with the repository and
run ``tools/offline/run.sh tools/compat --execute --only fla``, for the languages whose
compilers are there. Its results.json comes back with ``--take FILE``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

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
    parser.add_argument(
        "--take", type=Path, help="try nothing, take the rows of another machine's file"
    )
    parser.add_argument("--limit", type=float, default=120, help="seconds for an op")
    parser.add_argument("--jobs", type=int, default=1, help="ops to try at a time")
    parser.add_argument(
        "--stop-after", type=float, default=math.inf, help="seconds; no op starts later"
    )
    options = parser.parse_args()

    sys.path[0] = str(HERE.parent)  # the package is imported by its name
    os.environ["TTA_JOBS"] = "1"  # an op's own process compiles
    from compat import packages, render, run, verdict
    from compat.case import all_cases

    os.environ.setdefault("TTA_CACHE_DIR", str(packages.FOLDER.parent / "cache"))
    cases = list(all_cases())
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {c.id: results[c.id] for c in cases if c.id in results}
    if options.take is not None:
        taken = json.loads(options.take.read_text())
        found = ((case, taken[case.id]) for case in cases if case.id in taken)
    else:
        packages.install()
        wanted = options.only.split(",")
        chosen = [case for case in cases if any(text in case.id for text in wanted)]
        found = run.run_all(
            chosen, options.limit, options.execute, options.jobs, options.stop_after
        )
    for case, outcomes in found:
        if options.take is None and not options.execute:
            outcomes = verdict.with_executed(outcomes, results.get(case.id, {}))
        results[case.id] = outcomes
        for mode, outcome in outcomes.items():
            status, error = outcome["status"], outcome.get("error", "")
            print(f"{case.id} {mode}: {status} {error}"[:150], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(render.document(cases, results, run.MOST_CONFIGS))
    print(render.counts(cases, results))


if __name__ == "__main__":
    main()
