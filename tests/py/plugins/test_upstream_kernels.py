# SPDX-License-Identifier: BSD-3-Clause

"""torch_tensorrt.kernels, unchanged, registers its ops through this custom_op."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorrt.plugin._lib import QDP_REGISTRY

from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._plugin import Request, registered
from torch_tensorrt.annotation._tensors import TensorInfo
from torch_tensorrt.dynamo.conversion import plugins
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

ttk = pytest.importorskip("torch_tensorrt.kernels", reason="new in Torch-TensorRT 2.13")
from torch_tensorrt.kernels import _derive, _register  # noqa: E402

PTX = b"""\
.version 8.0
.target sm_80
.address_size 64
.visible .entry my_relu() { ret; }
"""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NVRTC needs CUDA: what it would compile is given; all else is upstream's."""
    monkeypatch.setattr(_derive, "_compile_kernel", lambda spec: (PTX, None, None))
    known = len(_register._LIVE_LIBS)
    yield
    for library in _register._LIVE_LIBS[known:]:
        library._destroy()
    del _register._LIVE_LIBS[known:]


def relu_spec(*scalars: Any) -> Any:
    return ttk.KernelSpec(
        kernel_source="",
        kernel_name="my_relu",
        inputs=[ttk.InputDecl("x"), *scalars],
        outputs=[ttk.OutputDecl("y", shape=ttk.SameAs(0))],
        extras=[ttk.Numel("x")],
        geometry=ttk.Elementwise(block=(256,), layout="flat"),
    )


def test_it_uses_this_custom_op() -> None:
    assert _register.custom_op is plugins.custom_op


def test_a_declared_kernel_is_registered_and_can_be_built(compiled: None) -> None:
    ttk.cuda_kernel_op("up::relu", relu_spec(), eager_fn=torch.relu)
    assert "up::relu" in registered
    assert torch.ops.up.relu.default in DYNAMO_CONVERTERS
    plugin = QDP_REGISTRY["up::relu"]
    assert plugin.aot_impl_func is not None
    known: Any = SimpleNamespace(op="up::relu", attributes={})
    request = Request.of([TensorInfo((1000,), torch.float32)], {}, None)
    (launch,) = build(known, request)
    assert launch.code == PTX.decode()
    at = launch.at((1000,))
    assert at.grid == (4, 1, 1)
    assert at.extras == (1000,)


def test_a_kernel_with_a_scalar_falls_back_to_its_python_implementation(
    compiled: None,
) -> None:
    spec = relu_spec(ttk.ScalarInput("slope", float))
    ttk.cuda_kernel_op("up::leaky", spec, eager_fn=torch.nn.functional.leaky_relu)
    definition = QDP_REGISTRY["up::leaky"]
    assert list(definition.input_attrs) == ["slope"]
    assert torch.ops.up.leaky.default in DYNAMO_CONVERTERS
