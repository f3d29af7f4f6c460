# SPDX-License-Identifier: BSD-3-Clause

"""What no tactic can serve stays in PyTorch, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from kernels import BLOCKS, launch_add, launch_silu
from network import nodes
from warned import warned

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation.errors import UnsupportedKernelError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.partitioning import fast_partition


class Silu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.ops.conv.served(x) * 2)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    DYNAMO_CONVERTERS.set_compilation_settings(CompilationSettings())
    yield


def register(launch: Any = launch_silu, **options: Any) -> None:
    spec = tta.custom_plugin(
        tta.triton(launch, BLOCKS), meta_impl=lambda x: torch.empty_like(x)
    )
    options = {"supports_dynamic_shapes": True, "replace": True, **options}
    trt_plugins.custom_op("conv::served", impl=spec, **options)


@pytest.fixture(params=["sm_90", None], ids=["compiled", "recorded"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setenv("TTA_TARGET", request.param)
    elif torch.cuda.is_available():
        pytest.skip("there is a GPU to compile for")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("target")
def test_a_node_that_a_tactic_serves_is_converted(dtype: torch.dtype) -> None:
    register()
    (node,) = nodes(Silu(), torch.randn(4, 8).to(dtype))
    assert DYNAMO_CONVERTERS.get(node) is not None


def test_a_dtype_that_tensorrt_lacks_stays_in_pytorch() -> None:
    register()
    (node,) = nodes(Silu(), torch.randn(4, 8, dtype=torch.float64))
    with warned(r"conv::served, node served.*float64"):
        assert DYNAMO_CONVERTERS.get(node) is None


def test_the_log_says_why_once_for_each_graph() -> None:
    register()
    for _ in range(2):
        (node,) = nodes(Silu(), torch.randn(4, 8, dtype=torch.float64))
        with errors.collecting() as messages:
            for _ in range(2):
                assert DYNAMO_CONVERTERS.get(node) is None
        assert len(messages) == 1


def rank_two_alone(x: Any, out: Any, BLOCK: int = 256) -> None:
    _rows, _columns = x.shape
    launch_silu(x, out, BLOCK=BLOCK)


def test_a_rank_that_the_launch_function_lacks_stays_in_pytorch() -> None:
    register(rank_two_alone)
    (node,) = nodes(Silu(), torch.randn(2, 3, 4))
    with warned("too many values to unpack"):
        assert DYNAMO_CONVERTERS.get(node) is None


def test_in_strict_mode_it_raises() -> None:
    register(rank_two_alone, strict=True)
    (node,) = nodes(Silu(), torch.randn(2, 3, 4))
    with pytest.raises(UnsupportedKernelError, match="no tactic can serve it"):
        DYNAMO_CONVERTERS.get(node)


def test_one_tactic_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(x: Any, out: Any, BLOCK: int = 256) -> None:
        assert x.dim() == 2 or BLOCK == 1024
        launch_silu(x, out, BLOCK=BLOCK)

    monkeypatch.setenv("TTA_TARGET", "sm_90")
    register(launch)
    (node,) = nodes(Silu(), torch.randn(2, 3, 4))
    assert DYNAMO_CONVERTERS.get(node) is not None


def by_size(x: Any, out: Any, BLOCK: int = 256) -> None:
    launch_silu(x, out, BLOCK=256 if x.shape[0] < 32 else 1024)


@pytest.mark.parametrize(("most", "is_served"), [(16, True), (64, False)])
def test_the_range_of_a_dimension_decides(most: int, is_served: bool) -> None:
    register(by_size)
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=most)}}
    (node,) = nodes(Silu(), torch.randn(4, 3), dynamic_shapes=dynamic)
    with errors.collecting() as messages:
        assert (DYNAMO_CONVERTERS.get(node) is not None) is is_served
    assert any("branches on" in message for message in messages) is not is_served


def test_the_users_own_validator_is_asked_as_well() -> None:
    register(capability_validator=lambda node, settings: False)
    (node,) = nodes(Silu(), torch.randn(4, 8))
    assert DYNAMO_CONVERTERS.get(node) is None


@pytest.mark.parametrize(
    ("dtype", "is_served"), [(torch.float16, True), (torch.float64, False)]
)
def test_the_partitioner_leaves_out_what_is_not_served(
    dtype: torch.dtype, is_served: bool
) -> None:
    register()
    program = torch.export.export(Silu(), (torch.randn(4, 8).to(dtype),))
    parts, _ = fast_partition(program.module(), min_block_size=1)
    inside = [
        str(node.target)
        for name, part in parts.named_children()
        if "acc" in name
        for node in part.graph.nodes
    ]
    assert ("conv.served.default" in inside) is is_served


@torch.library.custom_op("conv::sized", mutates_args=())
def sized(x: torch.Tensor, k: int) -> torch.Tensor:
    raise NotImplementedError


@sized.register_fake
def _(x: torch.Tensor, k: int) -> torch.Tensor:
    return torch.empty_like(x)


def test_a_call_whose_constant_follows_a_size_stays_in_pytorch() -> None:
    def launch(x: Any, out: Any, k: int) -> None:
        launch_silu(x, out)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sized(x, x.shape[0])  # type: ignore[no-any-return]

    trt_plugins.custom_op(
        "conv::sized", impl=tta.triton(launch), supports_dynamic_shapes=True
    )
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=16)}}
    (node,) = nodes(Module(), torch.randn(4, 3), dynamic_shapes=dynamic)
    with warned("`k`: .* known when the engine is built"):
        assert DYNAMO_CONVERTERS.get(node) is None


def test_operands_of_one_symbol_have_one_range() -> None:
    def meta(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x + y)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.conv.pair(x, x * 2)  # type: ignore[no-any-return]

    impl = tta.custom_plugin(tta.triton(launch_add), meta_impl=meta)
    trt_plugins.custom_op("conv::pair", impl=impl, supports_dynamic_shapes=True)
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=16)}}
    (node,) = nodes(Module(), torch.randn(4, 3), dynamic_shapes=dynamic)
    assert DYNAMO_CONVERTERS.get(node) is not None
