# SPDX-License-Identifier: BSD-3-Clause

"""The calls of the proposal to Torch-TensorRT, and the idioms in launch functions that
are in use, hold as they are: each is registered and dry-run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import triton
from kernels import silu_kernel

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

ct = pytest.importorskip("cuda.tile", reason="cuTile is not installed")
cute = pytest.importorskip("cutlass.cute", reason="CuTe DSL is not installed")

from cutedsl_kernels import launch_silu as launch_cute  # noqa: E402
from cutile_kernels import relu_kernel  # noqa: E402

X = torch.empty(8, 48, dtype=torch.float16)
META = {"meta_impl": lambda x: torch.empty_like(x)}


def by_numel(x: Any, out: Any, BLOCK: int = 256) -> None:
    n = x.numel()
    silu_kernel[(triton.cdiv(n, BLOCK),)](out, x, n, BLOCK=BLOCK)


def by_extents(x: Any, out: Any, BLOCK: int = 256) -> None:
    assert x.stride(0) == x.shape[1]
    n = x.shape[0] * x.stride(0)
    silu_kernel[(triton.cdiv(n, BLOCK),)](out, x, n, BLOCK=BLOCK)


def by_product(x: Any, out: Any, BLOCK: int = 256) -> None:
    flat = x.contiguous().reshape(-1)
    n = math.prod(x.shape)
    silu_kernel[(triton.cdiv(n, BLOCK),)](out.reshape(-1), flat, n, BLOCK=BLOCK)


def on_the_current_stream(x: Any, out: Any, TILE: int = 256) -> None:
    stream = torch.cuda.current_stream().cuda_stream
    flat = (out.reshape(-1), x.contiguous().reshape(-1), TILE)
    ct.launch(stream, (ct.cdiv(x.numel(), TILE), 1, 1), relu_kernel, flat)


def on_a_stream(x: Any, out: Any, stream: Any, TILE: int = 256) -> None:
    flat = (out.reshape(-1), x.contiguous().reshape(-1), TILE)
    ct.launch(stream, (ct.cdiv(x.numel(), TILE), 1, 1), relu_kernel, flat)


SPECS = {
    "triton": lambda: tta.triton(by_numel),
    "triton, configs": lambda: tta.triton(
        by_numel, configs=[{"BLOCK": 256}, {"BLOCK": 1024, "num_warps": 8}]
    ),
    "triton, formats": lambda: tta.triton(
        by_numel, configs=None, input_formats=None, output_formats=None
    ),
    "triton, a keyword": lambda: tta.triton(by_numel, BLOCK=512),
    "triton, extents and strides": lambda: tta.triton(by_extents),
    "triton, contiguous and product": lambda: tta.triton(by_product),
    "cutile, the current stream": lambda: tta.cutile(
        on_the_current_stream, configs=[{"TILE": 128}, {"TILE": 256}]
    ),
    "cutile, a stream": lambda: tta.cutile(on_a_stream),
    "cutedsl": lambda: tta.cutedsl(launch_cute, configs=[{"BLOCK": 128}]),
    "cutedsl, arch": lambda: tta.cutedsl(launch_cute, arch="sm_90a"),
}


@pytest.mark.parametrize("make", SPECS.values(), ids=SPECS)
def test_a_spec_is_an_op(make: Any) -> None:
    spec = make()
    trt_plugins.custom_op(
        "proposed::op",
        impl=tta.custom_plugin(spec, **META),
        supports_dynamic_shapes=True,
    )
    report = tta.dry_run("proposed::op", [X], "sm_90", execute=False, strict=True)
    assert {tactic.backend for tactic in report.tactics} == {spec.backend}
    # cuTile tries each config with several sets of facts; some give the same kernel.
    given, served = (
        {frozenset((n, v) for n, v in config if n != "facts") for config in configs}
        for configs in (spec.configs, (t.config.items() for t in report.tactics))
    )
    assert given == served


def test_specs_have_their_classes() -> None:
    plugin = tta.custom_plugin(
        [SPECS[name]() for name in ("triton", "cutile, a stream", "cutedsl")], **META
    )
    classes = [tta.TritonSpec, tta.CuTileSpec, tta.CuTeDSLSpec]
    assert [type(spec) for spec in plugin.specs] == classes
    assert isinstance(plugin, tta.CustomPluginSpec)
    assert tta.normalize_impl_to_spec(plugin) is plugin
    assert tta.normalize_impl_to_spec(plugin.specs[0]).specs == plugin.specs[:1]


def test_a_plugin_is_registered_under_its_own_name() -> None:
    plugin = tta.custom_plugin(tta.triton(by_numel), **META)
    trt_plugins.custom_op(plugin.op_name, impl=plugin, supports_dynamic_shapes=True)
    assert tta.dry_run(plugin.op_name, [X], "sm_90", execute=False).ok


def test_tensors_among_the_keywords_are_weights_and_the_others_attributes() -> None:
    def launch(x: Any, W: Any, out: Any, SCALE: float, BLOCK: int = 256) -> None:
        assert SCALE == 2.0 and W.shape == (48,)
        by_numel(x, out, BLOCK)

    plugin = tta.custom_plugin(
        tta.triton(launch, configs=[{"BLOCK": 256}]),
        meta_impl=lambda x: torch.empty_like(x),
        W=torch.ones(48),
        SCALE=2.0,
    )
    trt_plugins.custom_op("proposed::op", impl=plugin, supports_dynamic_shapes=True)
    report = tta.dry_run("proposed::op", [X], "sm_90", execute=False)
    assert report.weights == ("W",) and report.ok
