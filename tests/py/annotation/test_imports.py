"""Imports go one way along the pipeline, and importing does nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ANNOTATION = "torch_tensorrt.annotation"
PLUGINS = "torch_tensorrt.dynamo.conversion.plugins"
FOLDERS = {
    package: Path(str(importlib.import_module(package).__file__)).parent
    for package in (ANNOTATION, PLUGINS)
}

# The pipeline: a module imports from those above it alone.
ORDER = [
    # what everything may use
    f"{ANNOTATION}.errors",
    f"{ANNOTATION}._dtypes",
    f"{ANNOTATION}._target",
    f"{ANNOTATION}._symbolic",
    f"{ANNOTATION}._translate",
    f"{ANNOTATION}._attributes",
    f"{ANNOTATION}._source",
    f"{ANNOTATION}._values",
    f"{ANNOTATION}._fingerprint",
    # what a user hands over
    f"{ANNOTATION}._configs",
    f"{ANNOTATION}._formats",
    f"{ANNOTATION}._kernel_spec",
    f"{ANNOTATION}._spec",
    f"{ANNOTATION}._plugin_spec",
    # a launch, recorded
    f"{ANNOTATION}._environment",
    f"{ANNOTATION}._trace",
    f"{ANNOTATION}._samples",
    f"{ANNOTATION}._explore",
    f"{ANNOTATION}._launch",
    f"{ANNOTATION}._arguments",
    f"{ANNOTATION}._record",
    f"{ANNOTATION}._checks",
    # a kernel, compiled
    f"{ANNOTATION}._ptx",
    f"{ANNOTATION}._cubin",
    f"{ANNOTATION}._ptxas",
    f"{ANNOTATION}.backends",
    f"{ANNOTATION}.backends._cutile_launch",
    f"{ANNOTATION}.backends._cutile_signature",
    f"{ANNOTATION}.backends._cutile_ptx",
    f"{ANNOTATION}.backends._cutile_toolchain",
    f"{ANNOTATION}.backends.cutile",
    f"{ANNOTATION}.backends._cutedsl_types",
    f"{ANNOTATION}.backends._cutedsl_values",
    f"{ANNOTATION}.backends._cutedsl_arithmetic",
    f"{ANNOTATION}.backends._cutedsl_memory",
    f"{ANNOTATION}.backends._cutedsl_mlir",
    f"{ANNOTATION}.backends._cutedsl_host",
    f"{ANNOTATION}.backends._cutedsl_entry",
    f"{ANNOTATION}.backends._cutedsl_launch",
    f"{ANNOTATION}.backends._cutedsl_intercept",
    f"{ANNOTATION}.backends._cutedsl_arguments",
    f"{ANNOTATION}.backends._cutedsl_compile",
    f"{ANNOTATION}.backends.cutedsl",
    f"{ANNOTATION}.backends._triton_launch",
    f"{ANNOTATION}.backends._triton_signature",
    f"{ANNOTATION}.backends.triton",
    f"{ANNOTATION}._encoding",
    f"{ANNOTATION}._job",
    f"{ANNOTATION}._entry",
    f"{ANNOTATION}._eviction",
    f"{ANNOTATION}._cache",
    f"{ANNOTATION}._progress",
    f"{ANNOTATION}._workers",
    f"{ANNOTATION}._compile",
    # tactics, and what is registered
    f"{ANNOTATION}._tactics",
    f"{ANNOTATION}._registry",
    # the dry run
    f"{ANNOTATION}._expressions",
    f"{ANNOTATION}._builder",
    f"{ANNOTATION}._html",
    f"{ANNOTATION}._plot",
    f"{ANNOTATION}._report",
    f"{ANNOTATION}._driver",
    f"{ANNOTATION}._guarded",
    f"{ANNOTATION}._timing",
    f"{ANNOTATION}._compare",
    f"{ANNOTATION}._execute",
    f"{ANNOTATION}._inputs",
    f"{ANNOTATION}._dry_run",
    ANNOTATION,
    f"{ANNOTATION}._cli_inputs",
    f"{ANNOTATION}._cli_env",
    f"{ANNOTATION}._cli",
    f"{ANNOTATION}.__main__",
    # TensorRT's registries
    f"{PLUGINS}._schema",
    f"{PLUGINS}._guesses",
    f"{PLUGINS}._try_out",
    f"{PLUGINS}._qdp",
    f"{PLUGINS}._torch_op",
    f"{PLUGINS}._generate_plugin",
    f"{PLUGINS}._generate_plugin_aot",
    f"{PLUGINS}._capability",
    f"{PLUGINS}._generate_plugin_converter",
    f"{PLUGINS}._engine_cache",
    f"{PLUGINS}._custom_op",
    PLUGINS,
]
LEAVES = ORDER[: ORDER.index(f"{ANNOTATION}._configs")]
TOOLCHAINS = {"triton", "cutlass", "cuda.tile"}
PACKAGE_OF = {
    "cutedsl": "cutlass",
    "cutile": "cuda.tile",
    "triton": "triton",
}  # of a backend


def modules() -> dict[str, Path]:
    """Every module of the two packages, with its file."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


MODULES = modules()


def imported(module: str, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The full names of the modules that ``module`` imports at ``nodes``."""
    is_package = MODULES[module].name == "__init__.py"
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in MODULES else origin


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def ours(module: str) -> set[str]:
    """Modules of the two packages that ``module`` imports, anywhere in its text."""
    names = imported(module, ast.walk(tree(module)))
    return {name for name in names if name.startswith((ANNOTATION, PLUGINS))}


def test_every_module_has_its_place_in_the_pipeline() -> None:
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_earlier_ones(module: str) -> None:
    earlier = ORDER[: ORDER.index(module)] if module in ORDER else []
    assert ours(module) <= set(earlier)


@pytest.mark.parametrize("module", LEAVES)
def test_a_leaf_imports_only_leaves(module: str) -> None:
    assert ours(module) <= set(LEAVES)


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if m.startswith(ANNOTATION))
)
def test_nothing_in_annotation_imports_the_plugins(module: str) -> None:
    assert not any(name.startswith(PLUGINS) for name in ours(module))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_a_backend_imports_its_toolchain(module: str) -> None:
    names = set(imported(module, ast.walk(tree(module))))
    found = {t for t in TOOLCHAINS for n in names if f"{n}.".startswith(f"{t}.")}
    own = module.rpartition(".")[2].lstrip("_").partition("_")[0]
    is_backend = module.startswith(f"{ANNOTATION}.backends.")
    assert found <= ({PACKAGE_OF[own]} if is_backend else set())


def test_the_reading_of_imports_sees_what_is_there() -> None:
    """The tests above hold nothing if nothing is found."""
    assert f"{ANNOTATION}._symbolic" in ours(f"{ANNOTATION}._trace")
    assert f"{ANNOTATION}._dtypes" in ours(f"{ANNOTATION}._tactics")
    assert f"{PLUGINS}._schema" in ours(f"{PLUGINS}._qdp")


# --- What importing does --------------------------------------------------------------

PROBE = """
import json, os, sys, warnings
import torch_tensorrt
from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY
import torch

def state():
    return {
        "modules": sorted(sys.modules),
        "environment": dict(os.environ),
        "plugins": [*QDP_REGISTRY, *QDP_CREATORS],
        "ops": sorted(str(s) for s in torch._C._jit_get_all_schemas()),
        "filters": [str(f) for f in warnings.filters],
        "files": sorted(os.listdir()),
    }

before = state()
import torch_tensorrt.annotation
print(json.dumps([before, state()]))
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A process before and after it imports the package, torch_tensorrt being there."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        cwd=tmp_path_factory.mktemp("import"),
    )
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_package_was_imported_by_the_process(states: list[dict[str, Any]]) -> None:
    assert f"{ANNOTATION}._dry_run" in states[1]["modules"]


def test_importing_loads_no_toolchain(states: list[dict[str, Any]]) -> None:
    before, after = states
    added = set(after["modules"]) - set(before["modules"])
    assert {name.partition(".")[0] for name in added} & TOOLCHAINS == set()
    for backend in PACKAGE_OF:
        assert f"{ANNOTATION}.backends.{backend}" not in after["modules"]


@pytest.mark.parametrize("what", ["plugins", "ops", "environment", "filters", "files"])
def test_importing_changes_nothing(what: str, states: list[dict[str, Any]]) -> None:
    before, after = states
    assert after[what] == before[what]
