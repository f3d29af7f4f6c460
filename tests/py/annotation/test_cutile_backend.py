# SPDX-License-Identifier: BSD-3-Clause

"""cuTile's toolchain, its kernels as plugins, and in the cache."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from cache_checks import assert_compiled_once
from kernels import info, launch_add

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.kernel import Kernel
from torch_tensorrt.annotation._compile.cache import kernel_cache
from torch_tensorrt.annotation._compile.job import Job, compile_all, keys_of
from torch_tensorrt.annotation._fingerprint import lasting_fingerprint
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.backends.cutile import FACT_SETS
from torch_tensorrt.annotation.errors import ArgumentError, SpecError, ToolchainError

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402
from cutile_tools import (  # noqa: E402
    DYNAMIC,
    SM_90,
    annotated_kernel,
    compiled,
    one,
    recorded,
    two,
)

from torch_tensorrt.annotation.backends.cutile import tileiras  # noqa: E402

_compile = tileiras._compile  # cuTile's own


def test_the_compiler_is_found_without_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert Path(tileiras.tool("ptxas")).is_file()


def test_a_missing_compiler_is_named_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find() -> Any:
        raise FileNotFoundError("no tileiras")

    monkeypatch.setattr(_compile, "_find_compiler_bin", find)
    with pytest.raises(ToolchainError, match=r"tileiras.*annotation\[cutile\]"):
        compiled(kernels.launch_relu, info(8, 30))


def test_a_missing_assembler_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        _compile,
        "_find_compiler_bin",
        lambda: SimpleNamespace(path=str(tmp_path / "tileiras")),
    )
    with pytest.raises(ToolchainError, match="no ptxas here"):
        tileiras.tool("ptxas")


def test_a_missing_package_is_named_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = "torch_tensorrt.annotation.backends.cutile"
    monkeypatch.delitem(sys.modules, f"{package}.compiler", raising=False)
    monkeypatch.setitem(sys.modules, f"{package}.launch", None)
    backend.cache_clear()
    with pytest.raises(ToolchainError, match=r"pip install '.*annotation\[cutile\]'"):
        backend("cutile")


def test_several_backends_are_tactics_of_one_op() -> None:
    def tile_add(x: Any, y: Any, out: Any) -> None:
        flat = [t.view(-1) for t in (x, y, out)]
        ct.launch(0, (ct.cdiv(x.numel(), 256),), add_kernel, (*flat, 256))

    trt_plugins.custom_op(
        "cutile::both",
        impl=tta.custom_plugin([tta.triton(launch_add), tta.cutile(tile_add)], two),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::both", [torch.empty(8, 512)] * 2, target="sm_90")
    assert report.ok
    assert [(t.tactic, t.backend) for t in report.tactics][:2] == [
        (1, "triton"),
        (2, "cutile"),
    ]
    assert {t.facts.partition(":")[0] for t in report.tactics[1:]} <= set(FACT_SETS)


@ct.kernel
def add_kernel(x, y, out, TILE: ct.Constant[int]):
    block = ct.bid(0)
    total = ct.load(x, index=(block,), shape=(TILE,))
    total = total + ct.load(y, index=(block,), shape=(TILE,))
    ct.store(out, index=(block,), tile=total)


def test_sets_that_give_the_same_code_are_one_tactic() -> None:
    """Rows of 30: nothing more than 4 bytes divides, for either set."""
    trt_plugins.custom_op(
        "cutile::relu",
        impl=tta.custom_plugin(tta.cutile(kernels.launch_relu), one),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::relu", [torch.empty(3, 7)], target="sm_90")
    codes = [re.sub(r"cutile__relu_t\w+", "", t.code) for t in report.tactics]
    assert 1 <= len(codes) < len(FACT_SETS)
    assert len(set(codes)) == len(codes)


def test_the_fact_sets_of_a_spec_limit_its_variants() -> None:
    trt_plugins.custom_op(
        "cutile::limited",
        impl=tta.custom_plugin(
            tta.cutile(kernels.launch_relu, fact_sets=["strides"]), one
        ),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("cutile::limited", [torch.empty(64, 64)], target="sm_90")
    assert [t.facts.partition(":")[0] for t in report.tactics] == ["strides"]


def test_a_config_may_name_its_fact_set() -> None:
    spec = tta.cutile(kernels.launch_relu, [{}, {"facts": "strides", "TILE": 64}])
    assert [dict(config) for config in spec.configs] == [
        *({"facts": name} for name in FACT_SETS),
        {"facts": "strides", "TILE": 64},
    ]
    with pytest.raises(SpecError, match=r"configs\[1\] has facts='tma'; .* vector16, "):
        tta.cutile(kernels.launch_relu, [{}, {"facts": "tma"}])


def test_errors_number_the_configs_as_the_user_does() -> None:
    with pytest.raises(SpecError, match=r"configs\[1\] names 'SIZE'"):
        tta.cutile(kernels.launch_relu, [{}, {"SIZE": 64}])


def test_the_fact_set_reaches_the_compiler_alone() -> None:
    def launch_fn(x: Any, out: Any, facts: int = 3, TILE: int = 64) -> None: ...

    spec = tta.cutile(launch_fn, TILE=128, occupancy=2, fact_sets="async8")
    (config,) = spec.configs
    assert spec.launch_keywords(config) == {"TILE": 128}
    assert spec.compiler_options(config) == {"facts": "async8", "occupancy": 2}
    body = replace(spec, launch_fn=launch_fn, returns_outputs=True)
    assert body.kernel_keywords(config) == {"TILE": 128}


def test_a_retargeted_kernel_is_marked_in_the_report() -> None:
    trt_plugins.custom_op(
        "cutile::older",
        impl=tta.custom_plugin(tta.cutile(kernels.launch_relu), one),
        supports_dynamic_shapes=True,
    )
    target = Target("sm_90", ptx_isa="9.0")
    report = tta.dry_run("cutile::older", [torch.empty(64, 64)], target=target)
    assert {(t.ptx_isa, t.retargeted) for t in report.tactics} == {("9.0", "9.4")}
    assert "from 9.4" in str(replace(report, verbose=True))


@pytest.fixture
def clamp_op() -> Any:
    with torch.library._scoped_library("cutile_body", "FRAGMENT"):

        @torch.library.custom_op("cutile_body::relu", mutates_args=())
        def relu(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            kernels.launch_relu(x, out)
            return out

        relu.register_fake(lambda x: torch.empty_like(x))
        yield "cutile_body::relu"


@pytest.mark.parametrize("configs", [None, [{"TILE": 256}, {"occupancy": 2}]], ids=str)
def test_an_ops_own_body_is_the_launch_function(clamp_op: str, configs: Any) -> None:
    trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=configs))
    report = tta.dry_run(clamp_op, [torch.empty(64, 64)], target="sm_90")
    assert report.ok
    found = {
        tuple(name for name in t.config if name != "facts") for t in report.tactics
    }
    assert found == {tuple(config) for config in configs or [{}]}


def test_a_config_cannot_change_what_a_body_computed_its_grid_with(
    clamp_op: str,
) -> None:
    with pytest.raises(ArgumentError, match=r"the config sets TILE=64, and the op's"):
        trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=[{"TILE": 64}]))


def test_a_config_of_a_body_names_what_the_kernel_or_cutile_takes(
    clamp_op: str,
) -> None:
    with pytest.raises(ArgumentError, match=r"sets 'SIZE', which .*: num_ctas, occup"):
        trt_plugins.custom_op(clamp_op, impl=tta.cutile(configs=[{"SIZE": 64}]))


def test_kernels_of_equal_source_and_options_have_equal_fingerprints() -> None:
    def digest(kernel: Any) -> str:
        found = lasting_fingerprint(kernel)
        assert found.obstacle == ""
        return found.digest

    relu = kernels.relu_kernel
    assert digest(relu) == digest(relu.replace_hints())
    assert digest(relu) != digest(relu.replace_hints(occupancy=2))
    assert digest(relu) != digest(kernels.reglu_kernel)
    by_target = relu.replace_hints(occupancy=ct.ByTarget(sm_90=2))
    assert digest(relu) != digest(by_target)


def test_there_are_no_facts_about_a_scalar_nan() -> None:
    """A float goes as its bits, whatever they are."""

    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), annotated_kernel, (x, out, math.inf, 1, False))

    result = compiled(launch_fn, info(64))
    assert int(result.extras[4]) == 0x7F800000


def test_modules_may_be_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """``sys.modules`` may hold anything."""

    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("a lazy module was made to load")

    monkeypatch.setitem(sys.modules, "tta_lazy", Lazy("tta_lazy"))
    monkeypatch.setitem(sys.modules, "tta_object", object())
    assert recorded(kernels.launch_relu, info(8, 30)).launch.name == "relu_kernel"


def job(launch_fn: Callable[..., Any] = kernels.launch_reglu, **options: Any) -> Job:
    program = recorded(launch_fn, *[info(DYNAMIC, 512)] * 2)
    options = {"facts": "vector16", **options}
    return Job("test::op", "cutile", program, SM_90, options, aligned=True)


def key(job: Job) -> str | None:
    (found,) = keys_of([job])
    return found


@pytest.mark.usefixtures("fresh_cache")
def test_a_kernel_is_compiled_once_and_then_comes_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert_compiled_once(job, monkeypatch)


@pytest.mark.usefixtures("fresh_cache")
def test_a_cached_kernel_serves_where_cutiles_compiler_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cold,) = compile_all([job()], "test")
    kernel_cache.cache_clear()

    def missing() -> Any:
        raise FileNotFoundError("tileiras")

    monkeypatch.setattr(_compile, "_find_compiler_bin", missing)
    (warm, other) = compile_all([job(), job(occupancy=2)], "test")
    assert isinstance(cold, Kernel)
    assert isinstance(warm, Kernel)
    assert warm.digest == cold.digest
    assert isinstance(other, ToolchainError)


def test_what_decides_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    original = key(job())
    assert original is not None
    assert original == key(job())
    others = {
        key(job(occupancy=2)),
        key(job(facts="strides")),
        key(replace(job(), aligned=False)),
        key(job(lambda x, y, out: kernels.launch_reglu(x, y, out, None, TILE=256))),
    }
    assert len(others - {original, None}) == 4
    monkeypatch.setenv("CUDA_TILE_TESTING_DISABLE_DIV", "1")
    assert key(job()) not in (None, original)


def test_the_text_of_a_kernel_and_its_helpers_is_in_the_key(tmp_path: Path) -> None:
    text = """
        import cuda.tile as ct

        def helper(tile):
            return tile * {factor}

        @ct.kernel
        def kernel(x, y, out, TILE: ct.Constant[int]):
            tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
            ct.store(out, index=(ct.bid(0),), tile=helper(tile))

        def launch(x, y, out, stream):
            flat = [tensor.reshape(-1) for tensor in (x, y, out)]
            grid = (ct.cdiv(x.numel(), 256),)
            ct.launch(stream, grid, kernel, (*flat, 256))
        """
    keys = []
    for number, factor in enumerate((2, 2, 3)):
        path = tmp_path / str(number) / "tile_kernels.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(text).format(factor=factor))
        spec = importlib.util.spec_from_file_location("tile_kernels", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(key(job(module.launch)))
    assert keys[0] == keys[1] != keys[2]
    assert None not in keys
