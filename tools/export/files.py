# SPDX-License-Identifier: BSD-3-Clause

"""Which files go into a checkout of Torch-TensorRT, where to, and what changes in them.

Files are found by where they lie. What is added to the library, its tests, examples and
pages later goes along; a test that is about this repository must be named in
``LEFT_OUT``.
"""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pages

PROJECT = Path(__file__).resolve().parents[2]

TESTS = "tests/py/annotation"
LIBRARY = (
    "py/torch_tensorrt/annotation",
    "py/torch_tensorrt/dynamo/conversion/plugins",
)
EXAMPLES = "examples/dynamo"

# What begins with the first text, lies below the second in the checkout.
PLACES = (
    *((f"{package}/", f"{package}/") for package in LIBRARY),
    ("tests/py/conftest.py", f"{TESTS}/conftest.py"),
    ("tests/py/plugins/", f"{TESTS}/plugins/"),
    ("tools/fuzz_bodies.py", f"{TESTS}/plugins/fuzz_bodies.py"),  # a test takes it
    # A package named kernels, upstream's, goes before a module of that name.
    ("tests/py/annotation/kernels.py", f"{TESTS}/sample_kernels.py"),
    ("tests/py/annotation/", f"{TESTS}/"),
    # The documentation leaves out examples that are named so.
    (f"{EXAMPLES}/engine_or_dry_run.py", f"{EXAMPLES}/custom_plugin_utils.py"),
    (f"{EXAMPLES}/", f"{EXAMPLES}/"),
    ("examples/cpp/", "examples/cpp/"),
)

LEFT_OUT = (
    "*/py.typed",  # Torch-TensorRT does not say that it has types
    f"{EXAMPLES}/README.rst",
    f"{EXAMPLES}/*.ipynb",
    "examples/cpp/README.md",
    # About the overlay, the environment and the tools of this repository.
    *(f"{TESTS}/*{name}*.py" for name in ("packaging", "overlay", "engineless")),
    *(f"{TESTS}/test_{name}.py" for name in ("console_script", "compat")),
    f"{TESTS}/test_compiled_elsewhere.py",
    f"{TESTS}/test_backends.py",  # runs the code on a page
)

RENAMED = (
    # isort moves this comment to the first line, after which black joins both.
    (f"{TESTS}/*", r"(?m)^(from \w+ import \([^)]*\))  # fmt: skip", r"\1"),
    (f"{TESTS}/*", r"\b(from|import) kernels\b", r"\1 sample_kernels"),
    (f"{EXAMPLES}/*", r"\bengine_or_dry_run\b", "custom_plugin_utils"),
)

# Upstream's tests run where TensorRT has no such plugins, too: on TensorRT-RTX.
WHERE_PLUGINS_ARE = """
# TensorRT-RTX has no Quick Deployable Plugins.
collect_ignore_glob = [] if torch_tensorrt.ENABLED_FEATURES.qdp_plugin else ["*"]
"""


def files() -> dict[str, bytes]:
    """Path in the checkout -> content, of all files that are exported."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    found = {place(path): path for path in listed if (PROJECT / path).is_file()}
    made = {there: content(path, there) for there, path in found.items() if there}
    made |= pages.pages(PROJECT / "docsrc")
    return dict(sorted(made.items()))


def place(path: str) -> str | None:
    """Where a file of this repository lies in the checkout, if it goes there."""
    if any(fnmatch(path, pattern) for pattern in LEFT_OUT):
        return None
    for begin, become in PLACES:
        if path.startswith(begin):
            return become + path.removeprefix(begin)
    return None


def content(path: str, place: str) -> bytes:
    source = PROJECT / path
    if source.suffix != ".py":
        return source.read_bytes()
    text = source.read_text(encoding="utf-8")
    for pattern, name, become in RENAMED:
        if fnmatch(place, pattern):
            text = re.sub(name, become, text)
    if place == f"{TESTS}/conftest.py":
        text = text.replace(
            "import torch\n", "import torch\nimport torch_tensorrt\n", 1
        )
        text += WHERE_PLUGINS_ARE
    return text.encode()
