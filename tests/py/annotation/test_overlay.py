# SPDX-License-Identifier: BSD-3-Clause

"""The overlay, installed for real: wheels, virtual environments, pip."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging_tools import PROJECT, UPSTREAM, Environment, build, run

import _torch_tensorrt_annotation as overlay

NAME = "torch-tensorrt-annotation"


def recorded_digests(site: Path) -> dict[str, str]:
    (record,) = site.glob("torch_tensorrt-*.dist-info/RECORD")
    rows = csv.reader(record.read_text().splitlines())
    return {path: digest for path, digest, _ in rows if digest}


def actual_digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def create(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    def create(name: str, hollow: bool = True) -> Environment:
        return Environment.create(tmp_path_factory.mktemp(name) / "venv", hollow=hollow)

    return create


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel")).wheel


@pytest.fixture(scope="module")
def installed(create: Callable[..., Environment], wheel: Path) -> Environment:
    environment = create("installed", hollow=False)
    environment.pip("install", "--no-deps", str(wheel))
    return environment


@pytest.fixture(scope="module")
def installed_report(installed: Environment) -> dict[str, Any]:
    return installed.report("--import")


@pytest.fixture(scope="module")
def uninstalled(create: Callable[..., Environment], wheel: Path) -> Environment:
    environment = create("uninstalled")
    environment.pip("install", "--no-deps", str(wheel))
    assert environment.report()["annotation"] is not None
    environment.pip("uninstall", "--yes", NAME)
    return environment


@pytest.fixture(scope="module")
def uninstalled_report(uninstalled: Environment) -> dict[str, Any]:
    return uninstalled.report()


@pytest.fixture(scope="module")
def editable(create: Callable[..., Environment]) -> Environment:
    environment = create("editable")
    install = ("install", "--no-deps", "--no-build-isolation", "--editable")
    # The build backend comes from the environment that runs the tests.
    path = os.pathsep.join(p for p in sys.path if p.endswith("-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python)]
    run([*pip, *install, str(PROJECT)], PYTHONPATH=path)
    return environment


def test_the_wheel_has_no_file_in_the_directory_of_torch_tensorrt(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert "torch_tensorrt" not in top


def test_the_wheel_has_every_library_file_of_the_repository(wheel: Path) -> None:
    prefix = "_torch_tensorrt_annotation_files/"
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    library = {
        str(path.relative_to(PROJECT / "py"))
        for path in (PROJECT / "py").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "torch_tensorrt/annotation/py.typed" in packed
    assert packed - {"README.txt"} == library


def test_a_wheel_install_imports_our_annotation_package(
    installed: Environment, installed_report: dict[str, Any]
) -> None:
    files = installed.site / "_torch_tensorrt_annotation_files" / "torch_tensorrt"
    assert installed_report["annotation"] == str(files / "annotation" / "__init__.py")


def test_a_wheel_install_puts_our_plugins_in_place_of_upstreams(
    installed: Environment, installed_report: dict[str, Any]
) -> None:
    files = installed.site / "_torch_tensorrt_annotation_files"
    plugins = Path(installed_report["dynamo.conversion.plugins"])
    assert plugins.is_relative_to(files)


def test_a_tested_version_gives_no_warning(installed_report: dict[str, Any]) -> None:
    assert installed_report["warnings"] == []


def test_a_wheel_install_changes_no_file_of_torch_tensorrt(
    create: Callable[..., Environment],
    installed: Environment,
    installed_report: dict[str, Any],
) -> None:
    recorded = recorded_digests(installed.site)
    # Those that the engineless environment removes are absent from the start.
    bare = create("bare", hollow=False).site
    present = [path for path in recorded if (bare / path).exists()]
    assert "torch_tensorrt/dynamo/conversion/plugins/_custom_op.py" in present
    changed = [
        path
        for path in present
        if actual_digest(installed.site / path) != recorded[path]
    ]
    assert changed == []


def test_uninstalling_removes_the_annotation_package(
    uninstalled_report: dict[str, Any],
) -> None:
    assert uninstalled_report["annotation"] is None


def test_uninstalling_brings_back_upstreams_plugins(
    uninstalled: Environment, uninstalled_report: dict[str, Any]
) -> None:
    upstream = uninstalled.site / "torch_tensorrt/dynamo/conversion/plugins"
    found = uninstalled_report["dynamo.conversion.plugins"]
    assert found == str(upstream / "__init__.py")


def test_uninstalling_leaves_nothing_behind(uninstalled: Environment) -> None:
    assert [path.name for path in uninstalled.site.glob("*annotation*")] == []
    assert not (uninstalled.site / "torch_tensorrt-stubs").exists()


def test_an_editable_install_finds_both_packages_in_the_repository(
    editable: Environment,
) -> None:
    library, report = PROJECT / "py" / "torch_tensorrt", editable.report()
    assert report["annotation"] == str(library / "annotation/__init__.py")
    plugins = library / "dynamo/conversion/plugins"
    assert report["dynamo.conversion.plugins"] == str(plugins / "__init__.py")


def test_an_editable_install_keeps_the_library_tree_off_the_path(
    editable: Environment,
) -> None:
    path = editable.execute("import sys; print(*sys.path, sep='\\n')").stdout
    assert str(PROJECT / "overlay") in path.splitlines()
    assert str(PROJECT / "py") not in path.splitlines()


def test_an_untested_version_gives_one_warning_that_says_what_was_tested(
    create: Callable[..., Environment], wheel: Path
) -> None:
    environment = create("untested")
    environment.pip("install", "--no-deps", str(wheel))
    (metadata,) = environment.site.glob("torch_tensorrt-*.dist-info/METADATA")
    version = distribution(UPSTREAM).version
    text = metadata.read_text()
    metadata.write_text(text.replace(f"Version: {version}\n", "Version: 2.15.0\n", 1))
    (warning,) = environment.report()["warnings"]
    assert "2.11 to 2.14" in warning
    assert "found 2.15.0" in warning
    assert "install a tested version" in warning


def test_starting_the_interpreter_imports_neither_torch_nor_typing(
    installed: Environment,
) -> None:
    code = "import sys; print(*sys.modules, sep='\\n')"
    modules = installed.execute(code).stdout.splitlines()
    assert "_torch_tensorrt_annotation" in modules
    assert not {"torch", "typing", "importlib.metadata"} & set(modules)


def test_the_interpreter_starts_silently_when_only_the_pth_file_is_left(
    create: Callable[..., Environment], installed: Environment
) -> None:
    environment = create("pth_only")
    shutil.copy(installed.site / "torch_tensorrt_annotation.pth", environment.site)
    assert environment.execute("pass").stderr == ""


def test_without_torch_tensorrt_the_import_error_is_the_ordinary_one(
    create: Callable[..., Environment], wheel: Path
) -> None:
    environment = create("alone")
    environment.pip("install", "--no-deps", str(wheel))
    shutil.rmtree(environment.site / "torch_tensorrt")
    code = """
try:
    import torch_tensorrt.annotation
except ModuleNotFoundError as error:
    print(error)
"""
    # The linked directories hold another torch-tensorrt, so they are left out.
    alone = run([str(environment.python), "-c", code])
    assert alone.stdout == "No module named 'torch_tensorrt'\n"


@pytest.mark.parametrize(
    "version", ["2.11.0", "2.13.0+cu130", "2.14.1", "2.14.0.dev20260401+cu130"]
)
def test_the_finder_accepts_every_version_from_the_oldest_to_the_newest_tested(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    finder = overlay.OverlayFinder(str(PROJECT / "py"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finder.find_spec("torch_tensorrt.annotation") is not None


@pytest.mark.parametrize("version", ["2.10.1", "2.15.0", "3.0.0", "1.4.0", "nightly"])
def test_the_finder_warns_once_for_a_version_outside_the_tested_ones(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    finder = overlay.OverlayFinder(str(PROJECT / "py"))
    with pytest.warns(UserWarning, match="2.11 to 2.14") as caught:
        for name in overlay.PACKAGES:
            assert finder.find_spec(name) is not None
    assert len(caught) == 1


@pytest.mark.parametrize(
    "name",
    [
        "torch_tensorrt",
        "torch_tensorrt.dynamo.conversion",
        "torch_tensorrt.annotation._spec",
        "torch_tensorrt.annotations",
        "annotation",
    ],
)
def test_the_finder_leaves_every_other_name_to_python(name: str) -> None:
    assert overlay.OverlayFinder(str(PROJECT / "py")).find_spec(name) is None


def test_registering_twice_adds_one_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    overlay.register()
    overlay.register()
    assert len(sys.meta_path) == 1
