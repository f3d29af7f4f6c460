# SPDX-License-Identifier: BSD-3-Clause

"""The hooks of Torch-TensorRT's ``.pre-commit-config.yaml``, in the versions it names.

``pre-commit`` itself gets hooks from GitHub. Here they come from PyPI, into an
environment of their own, so that an index of packages is enough.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import yaml
from files import PROJECT

# The package of each hook, its command with what the hook's definition adds, and which
# files it takes. Those that change files come first.
HOOKS = {
    "isort": ("isort", "isort", r"\.py$"),
    "black": ("black", "black --quiet", r"\.py$"),
    "clang-format": ("clang-format", "clang-format -i", r"\.(cpp|h|cu|cuh)$"),
    "trailing-whitespace": ("pre-commit-hooks", "trailing-whitespace-fixer", ""),
    "mixed-line-ending": ("pre-commit-hooks", "mixed-line-ending --fix=lf", ""),
    "check-added-large-files": (
        "pre-commit-hooks",
        "check-added-large-files --maxkb=1000",
        "",
    ),
    "ruff": ("ruff", "ruff check --force-exclude", r"\.py$"),
    "mypy": ("mypy", "mypy --ignore-missing-imports --scripts-are-modules", r"\.py$"),
    "typos": ("typos", "typos --force-exclude", ""),
    "validate-pyproject": (
        "validate-pyproject",
        "validate-pyproject",
        r"^pyproject\.toml$",
    ),
}

# What a revision that is no version was built from.
VERSIONS = {"typos-dict-v0.12.4": "1.29.5"}


def run(checkout: Path, files: Sequence[str]) -> bool:
    """Run the hooks on ``files`` of the checkout; whether all of them pass."""
    config = yaml.safe_load((checkout / ".pre-commit-config.yaml").read_text())
    hooks = {
        hook["id"]: (repository["rev"], hook)
        for repository in config["repos"]
        for hook in repository["hooks"]
        if hook["id"] in HOOKS
    }
    if missing := HOOKS.keys() - hooks:
        raise SystemExit(f".pre-commit-config.yaml has no hook {', '.join(missing)}.")
    environment = _environment({name: rev for name, (rev, _) in hooks.items()})
    passed = True
    for name, (_, command, pattern) in HOOKS.items():
        excluded = (config.get("exclude"), hooks[name][1].get("exclude"))
        no_files = "|".join(filter(None, excluded)) or "$."
        chosen = [
            path
            for path in files
            if re.search(pattern, path) and not re.search(no_files, path)
        ]
        program, *options = command.split()
        done = subprocess.run(
            [environment / "bin" / program, *options, *chosen],
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        passed &= done.returncode == 0
        verdict = "FAILED" if done.returncode else "passed"
        print(f"{name}: {verdict}, {len(chosen)} files")
        if done.returncode:
            print(done.stdout.rstrip())
    return passed


def _environment(revisions: dict[str, str]) -> Path:
    """A virtual environment with the hooks' packages, made once."""
    wanted = set()
    for name, revision in revisions.items():
        version = VERSIONS.get(revision, revision.removeprefix("v"))
        if re.fullmatch(r"[\d.]+", version) is None:
            raise SystemExit(
                f".pre-commit-config.yaml: {name} is at {revision}. Write into "
                "VERSIONS in tools/export/linters.py which version on PyPI that is."
            )
        wanted.add(f"{HOOKS[name][0]}=={version}")
    requirements = sorted(wanted)
    digest = hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:8]
    folder = PROJECT / "build" / f"linters-{digest}"
    if not (folder / "complete").exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *requirements], check=True)
        (folder / "complete").touch()
    return folder
