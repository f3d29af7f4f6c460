# SPDX-License-Identifier: BSD-3-Clause

"""Engines, built for real: for machines with TensorRT's builder and a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cpp_runner
import numpy as np
import pytest
import tensorrt as trt
import torch
from conftest import RunPython
from models import MODELS, Model, each_model

import torch_tensorrt
from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

HAS_BUILDER = trt.get_builder_plugin_registry(trt.EngineCapability.STANDARD) is not None
pytestmark = [
    pytest.mark.skipif(not HAS_BUILDER, reason="TensorRT's builder is not here"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    # Torch-TensorRT's and torch's, about their own code.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RUN_ENGINE = Path(__file__).parent / "run_engine.py"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def made(model: Model) -> torch.nn.Module:
    return model.make().cuda().eval()


def compiled(model: Model, module: torch.nn.Module) -> Any:
    return torch_tensorrt.compile(
        module, ir="dynamo", inputs=list(model.inputs), min_block_size=1
    )


def engine_of(module: Any) -> TorchTensorRTModule:
    """The one engine, which is all there is."""
    engines = [m for m in module.modules() if isinstance(m, TorchTensorRTModule)]
    assert len(engines) == 1
    ran = [n.target for n in module.graph.nodes if n.op == "call_function"]
    assert not [target for target in ran if hasattr(target, "_schema")]
    return engines[0]


def tensors(model: Model, which: str) -> list[torch.Tensor]:
    """Random inputs at a corner of the profile, or at odd extents within it."""
    generator = torch.Generator("cuda").manual_seed(0)
    made = []
    for given in model.inputs:
        shape = given.shape
        if isinstance(shape, dict) and which == "ragged":
            pairs = zip(shape["min_shape"], shape["max_shape"], strict=True)
            shape = [min(b, (a + (b - a) * 2 // 3) | 1) for a, b in pairs]
        elif isinstance(shape, dict):
            shape = shape[which]
        x = torch.randn(tuple(shape), generator=generator, device="cuda")
        made.append(x.to(given.dtype.to(torch.dtype)))
    return made


def assert_same(actual: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        actual, expected = [actual], [expected]
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        tolerance = TOLERANCE[theirs.dtype]
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@each_model
def test_the_engine_gives_what_pytorch_gives(model: Model) -> None:
    module = made(model)
    with torch.inference_mode():
        engine = compiled(model, module)
        for which in ("min_shape", "opt_shape", "max_shape", "ragged"):
            x = tensors(model, which)
            assert_same(engine(*x), model.plain(module, *x))


@each_model
def test_each_call_is_a_plugin_layer_of_the_one_engine(model: Model) -> None:
    engine = engine_of(compiled(model, made(model)))
    layers = engine.get_layer_info()
    for op in {layer.op for layer in model.layers}:
        calls = sum(layer.op == op for layer in model.layers)
        assert layers.count(f"[{op.replace('::', '.')}.default]-[") >= calls


@pytest.fixture(params=["triton-silu-static", "triton-softmax", "triton-min_max"])
def model(request: pytest.FixtureRequest) -> Model:
    (found,) = (model for model in MODELS if model.name == request.param)
    return found


@pytest.mark.parametrize("load", [torch_tensorrt.load, torch.export.load])
def test_a_saved_module_gives_the_same_when_loaded(
    load: Any, model: Model, tmp_path: Path
) -> None:
    module = made(model)
    x = tensors(model, "opt_shape")
    path = str(tmp_path / "model.ep")
    with torch.no_grad():  # torch.export saves no tensors of inference mode
        engine = compiled(model, module)
        expected = engine(*x)
        torch_tensorrt.save(engine, path, arg_inputs=list(model.inputs))
        assert_same(load(path).module()(*x), expected)


@pytest.fixture
def softmax() -> Model:
    (found,) = (model for model in MODELS if model.name == "triton-softmax")
    return found


@pytest.fixture
def engine_file(softmax: Model, tmp_path: Path) -> Path:
    module = made(softmax)
    program = torch_tensorrt.dynamo.trace(module, list(softmax.inputs))
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    path = tmp_path / "softmax.engine"
    path.write_bytes(convert(program, inputs=list(softmax.inputs)))
    return path


def test_an_engine_runs_without_this_project_and_triton(
    softmax: Model, engine_file: Path, tmp_path: Path, run_python: RunPython
) -> None:
    (x,) = tensors(softmax, "ragged")
    given, got = tmp_path / "x.npy", tmp_path / "out.npy"
    np.save(given, x.cpu().numpy())
    paths = [path for path in sys.path if path.endswith("-packages")]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    run_python(["-S", RUN_ENGINE, engine_file, given, got], env=environment)
    assert_same(torch.from_numpy(np.load(got)), softmax.plain(None, x).cpu())


def test_an_engine_runs_in_cpp(
    softmax: Model, engine_file: Path, tmp_path: Path
) -> None:
    if why := cpp_runner.mismatch():
        pytest.skip(why)
    program = cpp_runner.build(tmp_path / "cpp")
    (x,) = tensors(softmax, "ragged")
    given = tmp_path / "x.bin"
    given.write_bytes(x.cpu().numpy().tobytes())
    shape = "x".join(map(str, x.shape))
    command = [program, engine_file, f"x:{shape}", f"x={given}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    total = float(done.stdout.partition("sum ")[2].split()[0])
    assert total == pytest.approx(softmax.plain(None, x).double().sum().item(), 1e-3)
