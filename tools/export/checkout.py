# SPDX-License-Identifier: BSD-3-Clause

"""A checkout of Torch-TensorRT: our files in it, in the working tree or as commits."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import amend
import pages
import parts
import tomllib
from files import EXAMPLES, LIBRARY, PROJECT, TESTS

SUITE = f"""\
    Suite(
        "annotation",
        tier="l2",
        lanes=("nightly",),
        cwd="{TESTS}",
        paths=(".",),
        setup=("cuda-core",),
        jobs="auto",
        variants=("standard",),
        platforms=("linux-x86_64",),
    ),
"""

MYPY = """\
[[tool.mypy.overrides]]
# These have the types of torch, which the hook's environment does not have.
module = ["torch_tensorrt.annotation.*", "torch_tensorrt.dynamo.conversion.plugins.*"]
disallow_subclassing_any = false
warn_return_any = false
warn_unused_ignores = false
"""

# What the tests import, beside what Torch-TensorRT's tests do.
TEST_REQUIREMENTS = ("hypothesis",)

# Extras of this project that are for working on it.
OWN_EXTRAS = {"dev", "docs"}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def require_replaced(folder: Path, content: Mapping[str, bytes]) -> None:
    """Raise if one of the two packages would lose a file."""
    names = git(folder, "ls-tree", "-r", "--name-only", "HEAD", *LIBRARY)
    if lost := sorted(set(names.splitlines()) - set(content)):
        raise amend.Unexpected(f"nothing here replaces {', '.join(lost)}")


def export(folder: Path, content: Mapping[str, bytes]) -> list[str]:
    """Write files and amend others; the paths of all of them."""
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    amendments = amendments_for(content)
    for path, change in amendments.items():
        text = (folder / path).read_text(encoding="utf-8")
        try:
            (folder / path).write_text(change(text), encoding="utf-8")
        except amend.Unexpected as error:
            raise amend.Unexpected(f"{path}: {error}.") from None
    return sorted({*content, *amendments})


def amendments_for(content: Mapping[str, bytes]) -> dict[str, amend.Amended]:
    """How the checkout's own files change when it has the files in ``content``."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    own = project["optional-dependencies"]
    extras = {name: values for name, values in own.items() if name not in OWN_EXTRAS}
    packages = sorted(
        str(Path(path).parent).removeprefix("py/").replace("/", ".")
        for path in content
        if path.startswith("py/") and path.endswith("/__init__.py")
    )
    found = {
        "setup.py": amend.setup(packages, project["dependencies"], extras),
        "pyproject.toml": amend.pyproject(TEST_REQUIREMENTS, MYPY),
        "tests/ci/suites.py": amend.suites("kernels", "annotation", SUITE),
    }
    if pages.API in content:
        titles = example_titles(content)
        rendered = "../../_rendered_examples/dynamo"
        entries = [f"Example: {t} <{rendered}/{name}>" for name, t in titles.items()]
        folder = Path(pages.FOLDER)
        found["docsrc/py_api/index.rst"] = amend.toctree("kernels", ["annotation"])
        found[f"{folder.parent}/index.rst"] = amend.toctree(
            "plugins", [f"{folder.name}/index", *entries]
        )
        found[f"{EXAMPLES}/README.rst"] = amend.ending_with(
            [f"* :ref:`{name}`: {title}" for name, title in titles.items()]
        )
    return found


def example_titles(content: Mapping[str, bytes]) -> dict[str, str]:
    """Name and title of each example in the gallery."""
    titles = {}
    for path, data in content.items():
        if path.startswith(f"{EXAMPLES}/") and not path.endswith("utils.py"):
            lines = data.decode().splitlines()
            underline = next(n for n, line in enumerate(lines) if line[:3] == "===")
            titles[Path(path).stem] = lines[underline - 1]
    return titles


def stack(folder: Path, content: Mapping[str, bytes]) -> None:
    """Commit ``content``, which lies in the checkout already, part by part."""
    text = {path: data.decode() for path, data in content.items()}
    numbers = parts.parts(text)
    start = git(folder, "rev-parse", "HEAD").strip()
    git(folder, "reset", "--hard")
    git(folder, "clean", "-d", "--force", "--", *content)
    for number, part in enumerate(parts.PARTS):
        here = {path: content[path] for path in content if numbers[path] <= number}
        names = parts.public_names(text[parts.PUBLIC], here.keys())
        here[parts.PUBLIC] = names.encode()
        git(folder, "checkout", start, "--", *amendments_for(here))
        git(folder, "add", *export(folder, here))
        git(folder, "commit", "--message", part.subject, "--message", part.body)
        print(git(folder, "log", "-1", "--format=%h %s").rstrip())
