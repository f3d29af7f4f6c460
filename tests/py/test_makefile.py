# SPDX-License-Identifier: BSD-3-Clause

"""Every target of the Makefile is listed, and what it runs is there and starts.

Nothing here runs a target. `make -n` prints what it would run, and each script in that
output answers `--help`, or imports, in a process that is forked from this one: torch is
imported already.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text().replace("\\\n", " ")
TARGETS = re.findall(r"^\.PHONY:(.*)", MAKEFILE, re.MULTILINE)[0].split()

SCRIPT = re.compile(r"\b(?:benchmarks|examples|tools)/[\w/]+\.(?:py|sh)\b")

# What tools/offline/README.md asks of a machine with a GPU and no network.
ON_THE_OFFLINE_MACHINE = {"numpy", "packaging", "pygments", "rich", "sympy"}

# Scripts that need more than the tests themselves.
NEEDED = {"tools/imports.py": "importlinter"}


def make(*arguments: str) -> str:
    # A `make test` around this run must not pass its options on.
    variables = {n: v for n, v in os.environ.items() if not n.startswith("MAKE")}
    variables.pop("MFLAGS", None)
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=PROJECT,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scripts(commands: str) -> set[str]:
    """The project's scripts in ``commands``, and those that shell scripts run."""
    found = set(SCRIPT.findall(commands))
    for names in re.findall(r"for name in ([^;]+);", commands):
        if "benchmarks/$name.py" in commands:
            found |= {f"benchmarks/{name}.py" for name in names.split()}
    for shell in [name for name in found if name.endswith(".sh")]:
        text = re.sub("^#.*", "", (PROJECT / shell).read_text(), flags=re.MULTILINE)
        found |= set(SCRIPT.findall(text))
    return found


SCRIPTS = sorted(set().union(*(scripts(make("-n", "-B", t)) for t in TARGETS)))


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, PROJECT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_help_has_one_line_for_each_target() -> None:
    lines = make("help").splitlines()
    assert [line.split()[0] for line in lines] == TARGETS
    assert all(len(line.split(maxsplit=1)[1]) > 5 for line in lines)


def test_every_target_of_the_makefile_is_phony() -> None:
    documented = re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE)
    assert sorted(documented) == sorted(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_can_be_planned(target: str) -> None:
    make("-n", target, "UPSTREAM=checkout", "RESULTS=results", "RELEASES=2.13")


def test_scripts_are_found_in_what_make_prints() -> None:
    assert {"tools/mutants.py", "tools/offline/run.sh"} < set(SCRIPTS)
    assert "tools/offline/environment.py" in SCRIPTS  # which run.sh runs
    assert {"benchmarks/triton_facts.py", "benchmarks/cutedsl.py"} < set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_a_target_runs_starts(script: str) -> None:
    path = PROJECT / script
    if script in NEEDED:
        pytest.importorskip(NEEDED[script])
    if path.suffix == ".sh":
        subprocess.run(["bash", "-n", path], check=True)
        assert os.access(path, os.X_OK)
        return
    if torch.cuda.is_initialized():
        pytest.skip("an earlier test of this process uses CUDA, which survives no fork")
    process = multiprocessing.get_context("fork").Process(target=start, args=(path,))
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child here does not need them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    process.join()
    assert process.exitcode == 0


def start(path: Path) -> None:
    """Run ``path --help``; only import it where it takes no arguments."""
    text = path.read_text()
    takes_arguments = any(name in text for name in ("argparse", "two_steps", "click"))
    sys.argv = [str(path), "--help"]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__" if takes_arguments else "imported")


@pytest.fixture(scope="module")
def wheelhouse() -> ModuleType:
    return load("tools/offline/wheelhouse.py")


def test_the_wheelhouse_holds_what_the_installer_names(wheelhouse: ModuleType) -> None:
    install = wheelhouse.engineless
    download, build = wheelhouse.plan(Path("wheels"), "3.12")
    assert set(install.PURE_PYTHON) | set(install.release_wheels()) < set(download)
    assert build[-1] == install.release_sdist()
    assert "--python-version=3.12" in download


def test_the_wheelhouse_holds_what_the_offline_machine_lacks(
    wheelhouse: ModuleType,
) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = {Requirement(d).name.lower() for d in project["dependencies"]}
    download, _ = wheelhouse.plan(Path("wheels"), "3.12")
    assert needed - ON_THE_OFFLINE_MACHINE <= set(download)
