# SPDX-License-Identifier: BSD-3-Clause

"""Torch-TensorRT's engine cache never serves an engine with another plugin in it.

Compiled for real, up to the moment the cache is asked.
"""

from __future__ import annotations

import copy
import gc
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import launch_silu, silu_kernel
from network import convert, tensor

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _fingerprint
from torch_tensorrt.dynamo import compile as dynamo_compile
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion.plugins import _validators
from torch_tensorrt.dynamo.conversion.plugins._validators import lasting_fingerprint
from torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass import (
    ATEN_POST_LOWERING_PASSES,
)

# torch's own modules, and torch_tensorrt.dynamo of torch as it was.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
]


class Asked(Exception):
    """The cache was asked for this hash."""


class AskedCache(BaseEngineCache):
    def __init__(self) -> None:
        pass

    def load(self, hash: str, *args: Any, **kwargs: Any) -> bytes | None:  # noqa: A002
        raise Asked(hash)

    def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:  # noqa: A002
        raise AssertionError("nothing can be built here")


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_90")


class Module(torch.nn.Module):
    """Calls ``ec::op``; a call without attributes by default."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.attributes = attributes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.ops.ec.op(x * 2, **self.attributes)) + 1


def engine_hash(module: torch.nn.Module | None = None, **options: Any) -> str:
    """What Torch-TensorRT looks up when it compiles ``module``."""
    x = torch.randn(4, 8)
    program = torch.export.export(module or Module(), (x,))
    options = {
        "min_block_size": 1,
        "immutable_weights": False,
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        "offload_module_to_cpu": True,
        **options,
    }
    with pytest.raises(Asked) as asked:
        dynamo_compile(program, [x], custom_engine_cache=AskedCache(), **options)
    return str(asked.value)


def silu_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def register(
    kernel: Any = silu_kernel,
    block: int = 64,
    weight: torch.Tensor | None = None,
    **more: Any,
) -> None:
    """``ec::op``: one that differs from another in nothing but what is given."""

    def launch(
        x: Any, *weights_and_out: Any, BLOCK: int = 64, SCALE: float = 1.0
    ) -> Any:
        blocks = triton.cdiv(x.numel(), BLOCK)
        kernel[(blocks,)](
            x_ptr=x, out_ptr=weights_and_out[-1], n=x.numel(), BLOCK=BLOCK
        )

    if weight is not None:
        more["W"] = weight
    spec = tta.custom_plugin(
        tta.triton(launch, [{"BLOCK": block}]), meta_impl=silu_meta, **more
    )
    trt_plugins.custom_op("ec::op", impl=spec, replace=True)


@triton.jit
def other_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets), mask=offsets < n)


def test_the_same_plugin_has_the_same_engine() -> None:
    register(weight=torch.ones(8))
    first = engine_hash()
    register(weight=torch.ones(8))
    assert engine_hash() == first


CHANGES: dict[str, dict[str, Any]] = {
    "the kernel": {"kernel": other_kernel},
    "a config": {"block": 128},
    "a weight": {"weight": torch.zeros(8)},
    "an attribute": {"SCALE": 2.0},
    "a promise": {"aligned": False},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_plugin_has_another_engine(change: dict[str, Any]) -> None:
    register(**{"weight": torch.ones(8), "SCALE": 1.0})
    first = engine_hash()
    register(**{"weight": torch.ones(8), "SCALE": 1.0, **change})
    assert engine_hash() != first


def test_a_weight_that_was_changed_in_place_is_another() -> None:
    weight = torch.ones(8)
    register(weight=weight)
    first = engine_hash()
    weight.data[3] = 2
    assert engine_hash() != first


def test_another_target_has_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    first = engine_hash()
    monkeypatch.setenv("TTA_TARGET", "sm_80")
    assert engine_hash() != first


def scaled_meta(x: torch.Tensor, scale: float, steps: int = 1) -> torch.Tensor:
    return torch.empty_like(x)


def launch_scaled(x: Any, out: Any, scale: float, steps: int) -> None:
    launch_silu(x, out, BLOCK=64)


def test_a_call_with_another_argument_has_another_engine() -> None:
    spec = tta.custom_plugin(tta.triton(launch_scaled), meta_impl=scaled_meta)
    trt_plugins.custom_op("ec::op", impl=spec)
    hashes = [
        engine_hash(Module(**attributes))
        for attributes in ({"scale": 1.0}, {"scale": 2.0}, {"scale": 1.0, "steps": 2})
    ]
    assert len(set(hashes)) == 3


@torch.library.custom_op("ec::eager", mutates_args=())
def eager(x: torch.Tensor, scale: float) -> torch.Tensor:
    return x * scale


@eager.register_fake
def _(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.empty_like(x)


def test_a_call_of_a_python_plugin_with_another_argument_has_another_engine() -> None:
    trt_plugins.custom_op("ec::eager")

    class Calls(Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.ec.eager(x * 2, **self.attributes)  # type: ignore[no-any-return]

    one, two = (engine_hash(Calls(scale=scale)) for scale in (1.0, 2.0))
    assert one != two


def test_a_call_that_a_later_lowering_pass_inserts_counts_too() -> None:
    register()

    def use_op(gm: torch.fx.GraphModule, settings: Any) -> torch.fx.GraphModule:
        for node in gm.graph.find_nodes(
            op="call_function", target=torch.ops.aten.sigmoid.default
        ):
            node.target = torch.ops.ec.op.default
        gm.recompile()
        return gm

    class Sigmoid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x * 2) + 1

    passes = ATEN_POST_LOWERING_PASSES.passes
    passes.append(use_op)
    try:
        first = engine_hash(Sigmoid())
        register(block=128)
        assert engine_hash(Sigmoid()) != first
    finally:
        passes.remove(use_op)


class Calls(torch.nn.Module):
    """What ``use`` makes of two tensors."""

    def __init__(self, use: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.use = use

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(torch.relu(x), torch.sigmoid(x))


@triton.jit
def split_kernel(x, y, plus, minus, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b = tl.load(x + i, mask=i < n), tl.load(y + i, mask=i < n)
    tl.store(plus + i, a + b, mask=i < n)
    tl.store(minus + i, a - b, mask=i < n)


def launch_split(x: Any, y: Any, plus: Any, minus: Any) -> None:
    split_kernel[(triton.cdiv(x.numel(), 64),)](x, y, plus, minus, x.numel(), BLOCK=64)


def test_other_operands_or_outputs_of_a_call_have_another_engine() -> None:
    trt_plugins.custom_op(
        "ec::split",
        impl=tta.custom_plugin(
            tta.triton(launch_split),
            meta_impl=lambda x, y: (torch.empty_like(x), torch.empty_like(x)),
        ),
    )
    op = torch.ops.ec.split
    calls: list[Callable[[Any, Any], Any]] = [
        lambda a, b: op(a, b)[0],
        lambda a, b: op(a, b)[1],
        lambda a, b: op(b, a)[0],
        lambda a, b: op(a, b)[0] + a,
        lambda a, b: op(a, a)[0] + b,
    ]
    found = [engine_hash(Calls(use)) for use in calls]
    assert len(set(found)) == len(calls)
    assert engine_hash(Calls(lambda a, b: op(a, b)[0])) == found[0]


def test_another_fake_kernel_has_another_engine() -> None:
    def hash_with(fake: Callable[[torch.Tensor], torch.Tensor]) -> str:
        gc.collect()  # or torch finalizes the last library later, and its op's heir too
        with torch.library._scoped_library("ecf", "FRAGMENT") as library:
            library.define("op(Tensor x) -> Tensor")
            library.impl("op", fake, "CUDA")
            torch.library.register_fake("ecf::op", fake, lib=library)
            trt_plugins.custom_op("ecf::op")
            try:
                return engine_hash(Calls(lambda a, b: torch.ops.ecf.op(a + b)))
            finally:
                tta.unregister("ecf::op")

    rows = hash_with(lambda x: x.new_empty(x.shape[0]))
    assert hash_with(lambda x: x.new_empty(x.shape[0])) == rows
    assert hash_with(lambda x: x.new_empty(x.shape[1])) != rows


def test_the_python_code_in_place_of_the_kernel_has_another_engine() -> None:
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=silu_meta)
    hashes = []
    for aot in (True, False):
        trt_plugins.custom_op(
            "ec::op", impl=spec, use_aot_if_available=aot, replace=True
        )
        hashes.append(engine_hash())
    assert hashes[0] != hashes[1]


def lowered(
    called: torch.nn.Module | None = None, **options: Any
) -> torch.fx.GraphModule:
    """The graph after Torch-TensorRT asked what it supports of it."""
    settings = CompilationSettings(**options)
    DYNAMO_CONVERTERS.set_compilation_settings(settings)
    module = torch.export.export(called or Module(), (torch.randn(4, 8),)).module()
    for node in module.graph.nodes:
        if node.op == "call_function":
            DYNAMO_CONVERTERS.get(node)
    return module


def test_a_weight_is_read_once_for_all_nodes_of_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Thrice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.ops.ec.op(x), torch.ops.ec.op(x * 2), torch.ops.ec.op(x * 3)

    def atom(value: Any) -> str | None:
        read.append(value is weight)
        return original(value)

    read: list[bool] = []
    original, weight = _fingerprint._atom, torch.ones(8)
    register(weight=weight)
    monkeypatch.setattr(_fingerprint, "_atom", atom)
    graph = lowered(Thrice(), cache_built_engines=True).graph
    assert sum("ec.op.default[" in str(node.target) for node in graph.nodes) == 3
    assert sum(read) == 1


def call(module: torch.fx.GraphModule) -> torch.fx.Node:
    (node,) = (n for n in module.graph.nodes if n.target == torch.ops.ec.op.default)
    return node


def target_of_a_call() -> str:
    """The op of a node as the cache sees it; test_processes asks in two processes."""
    register(weight=torch.ones(8))
    return str(call(lowered(cache_built_engines=True)).target)


def test_without_a_cache_a_node_keeps_its_target() -> None:
    register()
    assert call(lowered()).target is torch.ops.ec.op.default


def test_the_op_of_a_node_is_what_it_was_but_for_its_text() -> None:
    register()
    module = lowered(cache_built_engines=True)
    target, plain = call(module).target, torch.ops.ec.op.default
    assert str(target).startswith("ec.op.default[") and str(target) != str(plain)
    assert (target, hash(target), target.name()) == (plain, hash(plain), plain.name())
    assert target in {plain} and plain in {target}
    assert copy.deepcopy(target) is target
    module.recompile()
    assert "torch.ops.ec.op.default(" in module.code
    x = torch.empty(4, 8, device="meta")
    assert target(x).shape == (4, 8)


def test_a_node_that_stays_in_pytorch_can_be_saved(
    program: torch.export.ExportedProgram,
) -> None:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert call(loaded.graph_module).target is torch.ops.ec.op.default


@pytest.fixture
def program() -> torch.export.ExportedProgram:
    register()
    module = lowered(reuse_cached_engines=True)
    exported = torch.export.export(Module(), (torch.randn(4, 8),))
    call(exported.graph_module).target = call(module).target
    return exported


@pytest.mark.parametrize("how", [lambda op: op, lambda op: f"torch.ops.{op}"])
def test_an_op_that_was_to_run_in_pytorch_does(how: Callable[[Any], Any]) -> None:
    register()
    module = lowered(cache_built_engines=True)
    DYNAMO_CONVERTERS.set_compilation_settings(
        CompilationSettings(torch_executed_ops={how(torch.ops.ec.op.default)})
    )
    assert DYNAMO_CONVERTERS.get(call(module)) is None


def test_the_layers_name_is_free_of_it() -> None:
    register()
    node = call(lowered(cache_built_engines=True))
    layer, _ = convert(node, tensor("x"))
    assert layer.name == f"[ec.op.default]-[{node.name}]"


def test_what_another_process_cannot_tell_apart_it_does_not_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slotted:
        __slots__ = ()

    value = Slotted()
    first = lasting_fingerprint(value)
    assert lasting_fingerprint(value) == first
    monkeypatch.setattr(_validators, "_PROCESS", "another")
    assert lasting_fingerprint(value) != first
