# SPDX-License-Identifier: BSD-3-Clause

"""Importing does nothing else, and a toolchain is imported on first use.

Which module may import which is a contract in pyproject.toml (``make imports``).
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import RunPython

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

ANNOTATION, PLUGINS = tta.__name__, trt_plugins.__name__
BACKENDS = Path(str(tta.__file__)).parent / "backends"
FILES = sorted(
    path
    for package in (tta, trt_plugins)
    for path in Path(str(package.__file__)).parent.rglob("*.py")
)
TOOLCHAINS = {"triton": "triton", "cutile": "cuda.tile", "cutedsl": "cutlass"}


def toolchains(path: Path) -> set[str]:
    """The languages whose toolchains a file imports, anywhere in its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {
        language
        for language, module in TOOLCHAINS.items()
        if any(f"{name}.".startswith(f"{module}.") for name in names)
    }


def language_of(path: Path) -> str:
    """The folder below ``backends`` that a file lies in, if it does."""
    if not path.is_relative_to(BACKENDS):
        return ""
    first, *rest = path.relative_to(BACKENDS).parts
    return first if rest else ""


def test_only_a_languages_own_folder_imports_its_toolchain() -> None:
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(language_of(path), set()).update(toolchains(path))
    own = {language: {language} for language in TOOLCHAINS}
    # NVRTC is a library of C, and the libraries that launch are replaced if imported.
    assert found == {"": set(), "cuda": set(), **own}


def test_the_spec_of_a_language_does_not_import_its_toolchain() -> None:
    """Naming a language imports its spec."""
    for language in TOOLCHAINS:
        assert toolchains(BACKENDS / language / "__init__.py") == set()


# --- What importing does --------------------------------------------------------------

# torch_tensorrt imports the plugins. An empty module in their place tells what
# torch_tensorrt itself does.
PROBE = f"""
    import json, os, sys, types, warnings

    stand_in = types.ModuleType({PLUGINS!r})
    stand_in.custom_op = stand_in.generate_plugin = None
    stand_in.generate_plugin_converter = None
    sys.modules[{PLUGINS!r}] = stand_in
    import torch_tensorrt
    import tensorrt.plugin
    from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY
    import builtins, torch

    def state():
        return {{
            "modules": sorted(sys.modules),
            "environment": dict(os.environ),
            "plugins": [*QDP_REGISTRY, *QDP_CREATORS],
            "ops": sorted(map(str, torch._C._jit_get_all_schemas())),
            "filters": list(map(str, warnings.filters)),
            "files": sorted(os.listdir()),
            "builtins": [repr(value) for value in vars(builtins).values()][:200],
            "meta path": list(map(str, sys.meta_path)),
        }}

    before = state()
    del sys.modules[{PLUGINS!r}]
    import {PLUGINS}
    import {ANNOTATION}
    imported = state()
    {PLUGINS}.custom_op, {ANNOTATION}.custom_plugin, {ANNOTATION}.unregister
    {ANNOTATION}.triton, {ANNOTATION}.cutile, {ANNOTATION}.cutedsl, {ANNOTATION}.cuda
    print(json.dumps([before, imported, state()]))
    """


@pytest.fixture(scope="module")
def states(
    run_python: RunPython, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """A process with torch_tensorrt before it imports our two packages, after it,
    and after it has named what a plugin is made with."""
    folder = tmp_path_factory.mktemp("import")
    done = run_python(PROBE, cwd=folder, env={"HOME": str(folder)})
    result: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_what_nobody_named_is_not_imported(states: list[dict[str, Any]]) -> None:
    """torch_tensorrt imports our packages, also for those who have no plugin."""
    before, imported, named = ({*state["modules"]} for state in states)
    added = {name for name in imported - before if name.startswith("torch_tensorrt.")}
    assert added == {ANNOTATION, f"{ANNOTATION}.errors"}
    assert {f"{ANNOTATION}._plugin", f"{PLUGINS}._custom_op"} <= named
    assert not any("_dry_run" in name or "_explain" in name for name in named)


def test_a_public_name_is_found() -> None:
    assert all(hasattr(tta, name) for name in tta.__all__)
    assert {*tta.__all__} <= {*dir(tta)}
    with pytest.raises(AttributeError, match="no attribute 'dryrun'"):
        assert tta.dryrun


def test_importing_loads_no_toolchain(states: list[dict[str, Any]]) -> None:
    before, _, after = states
    added = set(after["modules"]) - set(before["modules"])
    for language, module in TOOLCHAINS.items():
        assert not any(f"{name}.".startswith(f"{module}.") for name in added)
        assert f"{ANNOTATION}.backends.{language}.compiler" not in after["modules"]


WHAT = ("plugins", "ops", "environment", "filters", "files", "builtins", "meta path")


@pytest.mark.parametrize("what", WHAT)
def test_importing_changes_nothing(what: str, states: list[dict[str, Any]]) -> None:
    before, _, after = states
    assert after[what] == before[what]
