# SPDX-License-Identifier: BSD-3-Clause

"""Kernel languages: those of this package, and one from a distribution of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import backends
from torch_tensorrt.annotation.backends import Launch, Program
from torch_tensorrt.annotation.errors import ArgumentError, ToolchainError

PAGE = Path(__file__).resolve().parents[3] / "docsrc" / "backends.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.M)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The language of docsrc/backends.md, as pip would install it."""
    (module, *_) = (text for kind, text in BLOCKS if kind == "python")
    (entry_points,) = (text for kind, text in BLOCKS if kind == "toml")
    assert module.startswith("# toy_ptx.py\n")
    (tmp_path / "toy_ptx.py").write_text(module)
    info = tmp_path / "toy_ptx-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy-ptx\nVersion: 1.0\n"
    )
    name, _, value = entry_points.splitlines()[-1].partition(" = ")
    group = backends.GROUP
    assert f'"{group}"' in entry_points
    points = f"[{group}]\n{name} = {value.strip(chr(34))}\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    backends.backend.cache_clear()
    yield __import__("toy_ptx")
    sys.modules.pop("toy_ptx")
    backends.backend.cache_clear()


def kernel(toy: Any) -> Any:
    """The PTX kernel of the page."""
    text = next(text for kind, text in BLOCKS if 'PTXKernel(\n    "double"' in text)
    source = text[text.index("double = ") : text.index("def launch_double")]
    scope = {"toy_ptx": toy}
    exec(source, scope)
    return scope["double"]


def register(toy: Any, launch: Any) -> None:
    trt_plugins.custom_op(
        "test::toy",
        impl=tta.custom_plugin(
            toy.toy(launch), meta_impl=lambda x: torch.empty_like(x)
        ),
        supports_dynamic_shapes=True,
    )


def test_a_folder_is_a_language() -> None:
    folder = Path(str(backends.__file__)).parent
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(backends.names()) == folders


def test_a_folder_is_found_without_reading_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**selection: str) -> Any:
        raise AssertionError(f"distributions are searched for {selection}")

    backends.backend.cache_clear()
    monkeypatch.setattr(backends.metadata, "entry_points", refuse)
    assert backends.backend("triton")


def test_a_language_of_another_distribution_is_found(toy: Any) -> None:
    assert "toy_ptx" in backends.names()
    assert isinstance(backends.backend("toy_ptx"), toy.ToyBackend)


def test_its_kernels_are_recorded_compiled_and_bound(toy: Any) -> None:
    double = kernel(toy)

    def launch(x: Any, out: Any) -> None:
        n = x.numel()
        double.launch(((n + 255) // 256, 1, 1), (256, 1, 1), out, x, n)

    register(toy, launch)
    import torch_tensorrt

    profile = torch_tensorrt.Input(
        min_shape=(1, 77), opt_shape=(8, 77), max_shape=(64, 77), dtype=torch.float32
    )
    report = tta.dry_run("test::toy", [profile], "sm_90", execute=False)
    (tactic,) = report.tactics
    assert tactic.backend == "toy_ptx"
    assert [(s.grid, s.extras) for s in tactic.shapes] == [
        ((1, 1, 1), (77,)),
        ((3, 1, 1), (8 * 77,)),
        ((20, 1, 1), (64 * 77,)),
        ((13, 1, 1), (43 * 77,)),
    ]
    order = re.findall(r"\.param \.\w+ (\w+)", tactic.code)
    assert order[:3] == ["x_ptr", "n", "out_ptr"]


def test_its_refusals_name_the_kernel_and_the_argument(toy: Any) -> None:
    double = kernel(toy)

    def launch(x: Any, out: Any) -> None:
        double.launch((1, 1, 1), (256, 1, 1), out, x, 0.5)

    register(toy, launch)
    with pytest.raises(ArgumentError, match=r"kernel double, argument `argument 2`"):
        tta.dry_run("test::toy", [torch.empty(8)], "sm_90", execute=False)


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(ToolchainError, match="no such kernel language") as caught:
        backends.backend("fortran")
    assert all(name in str(caught.value) for name in backends.names())


def test_a_float_that_32_bits_cannot_hold_is_refused_by_name() -> None:
    program = Program((), (), (Launch(None, "k", None, (), ()),))
    parameters = backends.Parameters(program, aligned=True)
    with pytest.raises(ArgumentError, match=r"argument `eps`: 1e\+300 is too"):
        parameters.add_float("eps", 1e300)
    assert parameters.extras == []
