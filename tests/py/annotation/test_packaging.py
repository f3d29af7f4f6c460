# SPDX-License-Identifier: BSD-3-Clause

"""The sdist and the wheel: what is in them, and what they say of themselves."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging_tools import PROJECT, UPSTREAM, Built, Environment, build, run_build

import torch_tensorrt.annotation as tta

STUBS = "torch_tensorrt-stubs"
EXTRAS = {"triton", "cutile", "cutedsl", "cuda", "docs", "dev"}

# What a user's type checker says of it, by line.
USER = """\
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

report = tta.dry_run("my::silu", [], target="sm_90")
reveal_type(report)
trt_plugins.custom_op("my::silu", impl=tta.triton(), replace=True)
tta.dry_run(3, [])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


def contents(wheel: Path) -> dict[str, bytes]:
    archive = zipfile.ZipFile(wheel)
    return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> bytes:
    (name,) = (n for n in contents(wheel) if n.endswith(".dist-info/METADATA"))
    return contents(wheel)[name]


def test_the_sdist_builds_the_wheel_that_the_repository_builds(
    built: Built, tmp_path: Path
) -> None:
    run_build(built.source, tmp_path, "--wheel")
    (direct,) = tmp_path.glob("*.whl")
    assert direct.name == built.wheel.name
    assert contents(direct) == contents(built.wheel)


def test_the_sdist_has_every_file_of_the_repository(built: Built) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("this is no checkout")
    tracked = {
        name
        for name in listed.stdout.splitlines()
        if not any(part.startswith(".") for part in Path(name).parts)
        and (PROJECT / name).exists()
    }
    with tarfile.open(built.sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - packed == set()


def test_the_metadata_is_valid(built: Built) -> None:
    parsed = Metadata.from_email(metadata(built.wheel), validate=True)
    assert parsed.name == "torch-tensorrt-annotation"
    assert parsed.license_expression == "BSD-3-Clause"
    assert parsed.description_content_type == "text/markdown"
    assert parsed.description.startswith("# torch_tensorrt.annotation")
    assert set(parsed.provides_extra or ()) == EXTRAS
    assert str(parsed.version) == tta.__version__  # which is there in-tree, too


def test_the_wheel_asks_for_neither_torch_nor_torch_tensorrt(built: Built) -> None:
    parsed = Metadata.from_email(metadata(built.wheel), validate=True)
    needed = {r.name for r in parsed.requires_dist or () if r.marker is None}
    assert not needed & {"torch", UPSTREAM, "tensorrt", "triton"}


def test_the_wheel_is_pure_python(built: Built) -> None:
    (name,) = (n for n in contents(built.wheel) if n.endswith(".dist-info/WHEEL"))
    wheel = message_from_bytes(contents(built.wheel)[name])
    assert wheel["Root-Is-Purelib"] == "true"
    assert wheel.get_all("Tag") == ["py3-none-any"]


def test_each_module_has_a_stub_for_type_checkers(built: Built) -> None:
    files = contents(built.wheel)
    library = PROJECT / "py/torch_tensorrt"
    for source in library.rglob("*.py"):
        stub = f"{STUBS}/{source.relative_to(library).with_suffix('.pyi')}"
        assert files[stub] == source.read_bytes()
    assert files[f"{STUBS}/py.typed"] == b"partial\n"
    assert f"{STUBS}/__init__.pyi" not in files


def test_a_type_checker_sees_the_installed_library(
    built: Built, tmp_path: Path
) -> None:
    pytest.importorskip("mypy")
    environment = Environment.create(tmp_path / "venv", hollow=True)
    environment.pip("install", "--no-deps", str(built.wheel))
    user = tmp_path / "user.py"
    user.write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    mypy += ["--python-executable", str(environment.python), str(user)]
    done = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path)
    said = [line.partition("user.py:")[2] for line in done.stdout.splitlines()]
    assert said[0].endswith('"torch_tensorrt.annotation._dry_run.report.DryRunReport"')
    assert said[1].startswith('7: error: Argument 1 to "dry_run"')
    assert done.stdout.splitlines()[2].startswith("Found 1 error in 1 file")
