# SPDX-License-Identifier: BSD-3-Clause

"""Run Torch-TensorRT's own tests of plugins with the overlay and without, and compare.

    python tools/engineless/upstream.py CHECKOUT DIR [RELEASE ...]

`make test-upstream UPSTREAM=CHECKOUT` runs this. CHECKOUT has Torch-TensorRT's tests,
of a release or of main. They run on each RELEASE in DIR, as `matrix.py` installs them;
`here` is the Torch-TensorRT of this interpreter. Every test must end as it does without
the overlay: without a GPU and a builder many are skipped, so the counts are printed,
and a run in which no test passes is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TypeAlias

from install import PROJECT, RELEASES, pip
from matrix import site

TESTS = ("kernels", "dynamo/automatic_plugin")
DEFAULT = ("2.13", "2.14")
# What the tests import and this project does not; cuda-core lets those of kernels run.
NEEDED = ("parameterized==0.9.0", "expecttest==0.3.0", "cuda-core==1.2.2")

# By test: how it ended, and the type of the error. Subtests are further entries.
Outcomes: TypeAlias = dict[str, list[tuple[str, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("directory", type=Path)
    choices = (*RELEASES, "here")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help=str(DEFAULT))
    options = parser.parse_args()
    tests = options.checkout.resolve() / "tests" / "py"
    present = [name for name in TESTS if (tests / name).is_dir()]
    if not present:
        parser.error(f"{tests} has none of {', '.join(TESTS)}")
    if unknown := set(options.releases) - set(choices):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(choices)}")
    failures, lines = 0, []
    for release in options.releases or DEFAULT:
        packages = [needed(options.directory)]
        if release != "here":
            packages.insert(0, site(options.directory, release))
        both = [run(tests, present, packages, how) for how in ("without", "with")]
        without, with_overlay = both
        different = compare(without, with_overlay)
        failures += bool(different) or not counts(without)["passed"]
        lines += [f"{release}, without the overlay: {in_words(without)}"]
        lines += [f"{release}, with the overlay:    {in_words(with_overlay)}"]
        lines += [*different, f"{release}: {len(different)} tests end differently"]
    print("\n".join(lines))
    raise SystemExit(failures > 0)


def needed(directory: Path) -> Path:
    """A folder with what the tests import, installed once."""
    found = directory.resolve() / "upstream-tests"
    if not found.exists():
        pip(sys.executable, "install", "--no-deps", "--target", found, *NEEDED)
    return found


def run(tests: Path, present: list[str], packages: list[Path], how: str) -> Outcomes:
    """How each test ended with the overlay, or without."""
    overlay = [PROJECT / "overlay"] if how == "with" else []
    script, path = Path(__file__).with_name("outcomes.py"), [*packages, *overlay]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "outcomes"
        command = [sys.executable, script, file, how, "-q", "-p", "no:cacheprovider"]
        process = subprocess.run(
            # Upstream's own options start a worker on each core.
            [*command, "--continue-on-collection-errors", "-o", "addopts=", *present],
            cwd=tests,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, path)),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        imported, *lines = map(json.loads, file.read_text().splitlines())
    is_ours = Path(imported[0]).is_relative_to(PROJECT / "py")
    if is_ours != (how == "with"):
        raise SystemExit(f"{how} the overlay, plugins are of {imported[0]}")
    found: Outcomes = {}
    for name, outcome, error in lines:
        found.setdefault(name, []).append((outcome, error))
    if process.returncode not in (0, 1, 2, 5):  # what pytest ends with
        found["the process"] = [(f"ended with {process.returncode}", "")]
    return found


def compare(without: Outcomes, with_overlay: Outcomes) -> list[str]:
    """The tests that end differently, with both outcomes."""
    return [
        f"    {name}: {without.get(name)} without, {with_overlay.get(name)} with"
        for name in sorted({*without, *with_overlay})
        if without.get(name) != with_overlay.get(name)
    ]


def counts(found: Outcomes) -> Counter[str]:
    return Counter(ends[-1][0] for ends in found.values())


def in_words(found: Outcomes) -> str:
    each = ", ".join(f"{count} {end}" for end, count in sorted(counts(found).items()))
    return f"{len(found)} tests: {each}"


if __name__ == "__main__":
    main()
