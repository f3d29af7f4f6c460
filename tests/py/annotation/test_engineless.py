# SPDX-License-Identifier: BSD-3-Clause

"""The engineless environment: real packages, no TensorRT builder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import RunPython

PROJECT = Path(__file__).resolve().parents[3]
SITE = Path(sysconfig.get_path("purelib"))

# TensorRT's own package of that name belongs to a distribution; the stand-in to none.
here_only = pytest.mark.skipif(
    not (SITE / "tensorrt_libs").is_dir()
    or "tensorrt_libs" in importlib.metadata.packages_distributions(),
    reason="this environment has TensorRT's own libraries",
)


@pytest.fixture(scope="module")
def install() -> ModuleType:
    path = PROJECT / "tools/engineless/install.py"
    spec = importlib.util.spec_from_file_location("engineless_install", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory as `pip install --target` leaves it, with what `--site` touches."""
    lean = SITE / "tensorrt_lean_libs"
    (tmp_path / lean.name).symlink_to(lean, target_is_directory=True)
    runtime = tmp_path / "torch_tensorrt" / "lib" / "libtorchtrt.so"
    runtime.parent.mkdir(parents=True)
    runtime.touch()
    return tmp_path


# A user's script: tensorrt comes before torch, and all the rest after both.
SCRIPT = """
import json
import tensorrt as trt, torch

found = {
    "version": trt.__version__,
    "device": [torch.cuda.is_available(), torch.cuda.device_count()],
    "builder registry": trt.get_builder_plugin_registry(trt.EngineCapability.STANDARD),
    "registry": type(trt.get_plugin_registry()).__name__,
}
try:
    trt.Builder(trt.Logger(trt.Logger.ERROR))
except TypeError as error:
    found["builder"] = str(error)
import torch_tensorrt
found["quick plugins"] = torch_tensorrt.ENABLED_FEATURES.qdp_plugin
import torch_tensorrt.annotation as tta
found["annotation"] = tta.__file__
print(json.dumps(found))

import warnings
from torch_tensorrt.annotation import errors
warnings.warn("not this one")
errors.warn("my::op: left out")
"""


@pytest.fixture(scope="module")
def script(
    run_python: RunPython, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], str]:
    """What the script found, and what it wrote on standard error."""
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT)
    done = run_python([path], cwd=path.parent)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_plain_script_imports_the_annotation_package(
    script: tuple[dict[str, Any], str],
) -> None:
    library = PROJECT / "py/torch_tensorrt/annotation"
    assert script[0]["annotation"] == str(library / "__init__.py")


def test_a_warning_is_seen_where_nothing_was_set_up(
    script: tuple[dict[str, Any], str],
) -> None:
    """Torch-TensorRT hands Python's warnings to a logger that has no handler."""
    assert script[1].endswith("my::op: left out\n")
    assert "not this one" not in script[1]


@here_only
def test_quick_plugins_are_available(script: tuple[dict[str, Any], str]) -> None:
    assert script[0]["quick plugins"] is True


@here_only
def test_tensorrt_imports_before_torch(script: tuple[dict[str, Any], str]) -> None:
    assert script[0]["version"] == "11.0.0.114"


@here_only
def test_torch_says_truthfully_whether_there_is_a_device(
    script: tuple[dict[str, Any], str], run_python: RunPython
) -> None:
    question = "import torch; c = torch.cuda; print(c.is_available(), c.device_count())"
    plain = run_python(question).stdout.split()
    assert plain == list(map(str, script[0]["device"]))


@here_only
def test_the_plugin_registry_is_real_and_the_builder_has_none(
    script: tuple[dict[str, Any], str],
) -> None:
    assert script[0]["registry"] == "IPluginRegistry"
    assert script[0]["builder registry"] is None


@here_only
def test_asking_for_a_builder_raises_and_says_why(
    script: tuple[dict[str, Any], str],
) -> None:
    found, errors = script
    assert "builder" in found
    assert "engineless environment: there is no TensorRT builder here" in errors


@here_only
def test_the_installer_finds_no_builder_here(install: ModuleType) -> None:
    """What it asks a process of its own, asked here: importing takes seconds."""
    with pytest.raises(SystemExit) as caught:
        exec(install.HAS_BUILDER, {})
    assert caught.value.code is True


@here_only
def test_any_directory_with_the_packages_can_be_completed(
    install: ModuleType, site: Path, run_python: RunPython
) -> None:
    install.complete_site(site)
    # A process of its own: these names are loaded here from another directory.
    code = f"""
import ctypes
def names(library, *functions):
    loaded = ctypes.CDLL({str(site / "tensorrt_libs")!r} + "/" + library)
    return [hasattr(loaded, name) for name in functions]
print(all(
    names("libnvinfer.so.11", "createInferBuilder_INTERNAL",
          "getBuilderPluginRegistry", "createInferRuntime_INTERNAL",
          "createInferRefitter_INTERNAL", "getPluginRegistry")
    + names("libnvinfer_plugin.so.11", "initLibNvInferPlugins")
    + names("libnvonnxparser.so.11", "createNvOnnxParser_INTERNAL",
            "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion")))
"""
    assert run_python(code, cwd=site).stdout == "True\n"


@here_only
def test_completing_removes_the_runtime_that_needs_cuda(
    install: ModuleType, site: Path
) -> None:
    install.complete_site(site)
    assert list((site / "torch_tensorrt/lib").iterdir()) == []


@here_only
def test_completing_twice_is_the_same_as_once(install: ModuleType, site: Path) -> None:
    install.complete_site(site)
    install.complete_site(site)
    libraries = {path.name for path in (site / "tensorrt_libs").iterdir()}
    assert libraries == {"__init__.py", *(f"{name}.so.11" for name in install.STUBS)}


@pytest.mark.parametrize(
    ("registry", "expected"), [("object()", True), ("None", False)]
)
def test_the_installer_knows_a_builder_by_its_plugin_registry(
    registry: str,
    expected: bool,
    install: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "torch_tensorrt.py").touch()
    (tmp_path / "tensorrt.py").write_text(
        "class EngineCapability:\n"
        "    STANDARD = 0\n"
        "def get_builder_plugin_registry(capability):\n"
        f"    return {registry}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert install.has_builder(sys.executable) is expected


def test_a_missing_lean_runtime_is_named(install: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="tensorrt-lean-cu13-libs==11"):
        install.complete_site(tmp_path)
    assert list(tmp_path.iterdir()) == []
