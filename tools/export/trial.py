# SPDX-License-Identifier: BSD-3-Clause

"""Run the tests of every commit of a stack, each on the tree of that commit alone.

    python tools/export/trial.py CHECKOUT DIR [NUMBER ...]

`make test-stack UPSTREAM=CHECKOUT` runs this after `make export-stack`. A commit passes
if its tests in tests/py/annotation pass, and Torch-TensorRT's own tests of kernels and
plugins end as they do before the stack. NUMBER selects commits, 1 for the first. DIR
gets the output of each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from checkout import git
from files import PROJECT, TESTS
from parts import PARTS

# Last: a package there is named as one of TensorRT's libraries.
sys.path.append(str(PROJECT / "tools" / "engineless"))
import upstream

# What Torch-TensorRT's build writes into its package.
VERSION = ("__version__ = '2.14.0.dev0'", "__cuda_version__ = '13.0'")
VERSION += ("__tensorrt_version__ = '11.1'", "__tensorrt_rtx_version__ = '1.6'")

# This goes before the module that lays this project's files over torch_tensorrt, which
# every interpreter imports as it starts, and is gone afterwards.
NO_OVERLAY = """
import sys

def register() -> None:
    sys.modules.pop(__name__, None)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="with the stack at its HEAD")
    parser.add_argument("directory", type=Path)
    every = range(1, len(PARTS) + 1)
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER")
    options = parser.parse_args()
    commits = git(options.checkout, "log", "--format=%h %s", f"-{len(PARTS) + 1}")
    base, *stack = reversed(commits.splitlines())
    if [line.partition(" ")[2] for line in stack] != [part.subject for part in PARTS]:
        parser.error(f"{options.checkout} ends with no stack: make export-stack first")
    if unknown := set(options.numbers) - set(every):
        parser.error(f"{unknown}: the commits are 1 to {len(PARTS)}")
    options.directory.mkdir(parents=True, exist_ok=True)
    needed = upstream.needed(options.directory)
    with tree(options.checkout, base.split()[0]) as folder:
        before = upstreams(folder, needed)
    print(f"before, {base}: {upstream.in_words(before)}", flush=True)
    failures = 0
    for number in options.numbers or every:
        commit, _, subject = stack[number - 1].partition(" ")
        with tree(options.checkout, commit) as folder:
            passed, summary = ours(folder, options.directory / f"{number}.txt")
            after = upstreams(folder, needed)
        different = upstream.compare(before, after)
        failures += not passed or bool(different)
        print(f"{number}, {subject}: {summary}")
        print(f"    Torch-TensorRT's own: {upstream.in_words(after)}")
        print(*different, f"    {len(different)} end differently", sep="\n", flush=True)
    raise SystemExit(failures > 0)


@contextmanager
def tree(checkout: Path, commit: str) -> Iterator[Path]:
    """The files of a commit that tests use, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        folder = Path(name)
        paths = ("py", "tests", "examples", "pyproject.toml")
        archive = ["git", "archive", commit, *paths]
        with subprocess.Popen(archive, cwd=checkout, stdout=subprocess.PIPE) as made:
            subprocess.run(["tar", "-x"], cwd=folder, stdin=made.stdout, check=True)
        version = folder / "py/torch_tensorrt/_version.py"
        version.write_text("\n".join(VERSION) + "\n")
        (folder / "py/_torch_tensorrt_annotation.py").write_text(NO_OVERLAY)
        yield folder


def upstreams(folder: Path, needed: Path) -> upstream.Outcomes:
    """How Torch-TensorRT's own tests end."""
    tests, present = folder / "tests" / "py", list(upstream.TESTS)
    return upstream.run(tests, present, [folder / "py", needed], "without")


def ours(folder: Path, output: Path) -> tuple[bool, str]:
    """Whether the tests in ``TESTS`` pass, and how many; their output is kept."""
    options: Sequence[str] = ("-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", *options],
        cwd=folder / TESTS,
        env={**os.environ, "PYTHONPATH": str(folder / "py")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output.write_text(done.stdout)
    lines = done.stdout.splitlines()
    summaries = [line for line in lines if " passed" in line or " failed" in line]
    return done.returncode == 0, (summaries or ["no test ran"])[-1].strip("= ")


if __name__ == "__main__":
    main()
