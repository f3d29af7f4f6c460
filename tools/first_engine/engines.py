# SPDX-License-Identifier: BSD-3-Clause

"""Steps that build models through Torch-TensorRT, the simplest first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from steps import (
    CAN_BUILD,
    PROJECT,
    STEPS,
    TESTS,
    Bench,
    NotBuilt,
    NotHere,
    Step,
    UpToTheBuilder,
    folder,
    step,
    tensors,
)

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

half = torch.float16


class Calls(torch.nn.Module):
    """A function of one or two tensors, as a model."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function


class One(Calls):
    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Two(Calls):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        return self.function(a, b)


def like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def register(name: str, spec: Any, meta: Any = like, **how: Any) -> Any:
    """The op ``first_engine::name``."""
    impl = tta.custom_plugin(spec, meta)
    how = {"supports_dynamic_shapes": True, "strict": True, **how}
    trt_plugins.custom_op(f"first_engine::{name}", impl=impl, **how)
    return getattr(torch.ops.first_engine, name)


def between(op: Any) -> One:
    """The op between layers of TensorRT's."""
    return One(lambda x: op(x * 0.5) + 1)


def silu_between(x: torch.Tensor, factor: float = 0.5) -> torch.Tensor:
    return torch.nn.functional.silu(x * factor) + 1


def with_silu(name: str, *configs: Any) -> One:
    """A model with the op ``first_engine::name``, the tests' SiLU in Triton."""
    from kernels import launch_silu

    return between(register(name, tta.triton(launch_silu, list(configs) or None)))


def rows(width: int = 512, dtype: torch.dtype = half) -> Any:
    shapes = {"min": (1, width), "opt": (64, width), "max": (512, width)}
    named = {f"{which}_shape": shape for which, shape in shapes.items()}
    return torch_tensorrt.Input(**named, dtype=dtype)


@step(
    "one static Triton kernel between two layers of TensorRT's",
    right="An engine with a Triton kernel computes what PyTorch computes.",
)
def silu(bench: Bench) -> None:
    bench.table("right", "triton-silu-static")


@step(
    "several configs as tactics",
    right="TensorRT times the tactics, and the engine is right.",
)
def tactics(bench: Bench) -> None:
    configs = [{"BLOCK": 128}, {"BLOCK": 256}, {"BLOCK": 1024, "num_warps": 8}]
    model = with_silu("tactics", *configs)
    engine = bench.compare("right", model, [rows()], silu_between)
    report = tta.dry_run("first_engine::tactics", [rows()], execute=False)
    if engine is not None:
        names = {tactic.tactic: tactic.entry.encode() for tactic in report.tactics}
        chosen = [number for number, name in names.items() if name in engine.blob]
        bench.note(f"entries of tactics {chosen} of {[*names]} are in the engine")


@step(
    "dynamic shapes, with arguments that follow them",
    right="Grid and arguments follow the shape all over the profile.",
)
def dynamic_shapes(bench: Bench) -> None:
    names = ("softmax", "add_ragged", "min_max", "permute")
    bench.table("right", *(f"triton-{name}" for name in names))


@step(
    "weights, attributes and parameters",
    right="Weights are constants of the network, and attributes are in the code.",
)
def weights_and_attributes(bench: Bench) -> None:
    bench.table("right", "triton-weight", "triton-parameter", "triton-attribute")


@step(
    "two layers of one op, with other code for each",
    shapes="Two layers of one op with other static shapes keep their own kernels.",
)
def two_layers_of_one_op(bench: Bench) -> None:
    from kernels import launch_silu

    op = register("twice", tta.triton(launch_silu))
    model = Two(lambda a, b: (op(a * 0.5) + 1, op(b * 2) + 1))
    inputs = [torch_tensorrt.Input(shape, dtype=half) for shape in ((7, 64), (33, 96))]

    def plain(a: torch.Tensor, b: torch.Tensor) -> Any:
        return silu_between(a), silu_between(b, 2)

    bench.compare("shapes", model, inputs, plain)


@step(
    "a buffer that the op does not return",
    right="A hidden output serves as memory of the kernel's own.",
)
def hidden_output(bench: Bench) -> None:
    from test_hidden_outputs import launch_norm, norm

    op = register("norm", tta.triton(launch_norm))
    width = rows(250, torch.float32)
    bench.compare("right", between(op), [width], lambda x: norm(x * 0.5) + 1)


MATMULS: dict[str, tuple[str, dict[str, Any]]] = {
    "static-shared-memory": (
        "a matrix product with more than 48 KiB of shared memory",
        {},
    ),
    "clusters": ("a matrix product with clusters of two blocks", {"num_ctas": 2}),
    "scratch": (
        "tensor maps that the kernel makes in scratch memory "
        "(tl.make_tensor_descriptor)",
        {"how": "device descriptors"},
    ),
    "tensor-maps": (
        "tensor maps that the entry makes in a hidden output (TensorDescriptor)",
        {"how": "host descriptors"},
    ),
}


def matmul(name: str, more: dict[str, Any], bench: Bench) -> None:
    """``a @ b.T`` as benchmarks/hardware.py has it, one config."""
    from hardware_kernels import launch_matmul

    config = {"BM": 128, "BN": 128, "num_stages": 3, "num_warps": 8, **more}
    spec = tta.triton(launch_matmul, [config])
    op = register(
        name.replace("-", "_"), spec, lambda a, b: a.new_empty(a.shape[0], b.shape[0])
    )
    model = Two(lambda a, b: op(a * 0.5, b).relu())
    inputs = [rows(256), torch_tensorrt.Input((384, 256), dtype=half)]

    def plain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return ((a * 0.5).float() @ b.float().t()).half().relu()

    with _for_a_new_driver():
        bench.compare("right", model, inputs, plain)


for _name, (_title, _more) in MATMULS.items():
    STEPS[_name] = Step(
        _name,
        _title,
        {"right": "Such a kernel runs in an engine."},
        partial(matmul, _name, _more),
        capability=9,
    )


@step(
    "a plugin whose number of outputs changes",
    again="An op is registered anew when a later model needs one more hidden output.",
    earlier="An engine that was built before still runs.",
)
def another_number_of_outputs(bench: Bench) -> None:
    from kernels import launch_silu
    from test_hidden_outputs import launch_norm, norm

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        (launch_silu if x.shape[1] < 100 else launch_norm)(x, out)

    op = register("changing", tta.triton(launch))
    narrow, wide = rows(64, torch.float32), rows(250, torch.float32)

    built = []

    def without() -> None:
        built.append(bench.engine(between(op), [narrow]))

    def with_one() -> None:
        engine = bench.engine(between(op), [wide])
        (x,) = tensors([wide], "ragged")
        bench.same("again", engine(x), norm(x * 0.5) + 1)

    bench.attempt("earlier", without)
    bench.attempt("again", with_one)
    for engine in built:
        (x,) = tensors([narrow], "ragged")
        bench.same("earlier", engine(x), silu_between(x))


def program(bench: Bench, ask: str, name: str) -> None:
    """A model of the tests' table of ops of several steps."""
    from programs import PROGRAMS

    (found,) = (model for model in PROGRAMS if model.name == name)
    found.register()
    for kind in ("static", "dynamic"):
        module = found.make()
        inputs = found.given(kind)

        def run(module: Any = module, inputs: Any = inputs) -> None:
            engine = bench.engine(module, inputs)
            for which in ("min", "opt", "max"):
                x = tensors(inputs, which)
                bench.same(ask, engine(*x), module(*x), found.tolerance or 2e-2)

        bench.attempt(ask, run)


@step(
    "an op that is taken apart into several plugins",
    right="Its launches are plugins of one engine, in order.",
    torchs="Torch operations between launches are TensorRT's.",
)
def several_steps(bench: Bench) -> None:
    program(bench, "right", "split_k")
    program(bench, "right", "two_pass_norm")
    program(bench, "torchs", "between")


@step(
    "an op that writes its inputs",
    right="The engine returns what the op wrote.",
    zeros="Zeros that a kernel adds to are zeros in each run.",
)
def in_place(bench: Bench) -> None:
    program(bench, "right", "rotary")
    program(bench, "right", "add_norm_view")
    program(bench, "zeros", "column_sums")


@step(
    "packed tensor formats",
    right="A kernel for CHW32 gets TensorRT's layout, and whatever its padding holds.",
)
def packed_formats(bench: Bench) -> None:
    bench.table("right", "triton-chw32")


def _for_a_new_driver() -> Any:
    """Without a GPU, kernels that need a driver of CUDA 13.0 are compiled for one."""
    from torch_tensorrt.annotation._target import compiling_for

    return compiling_for(None if CAN_BUILD else "sm_90,cuda=13.0")


@step(
    "the newest PTX that the driver takes",
    right="TensorRT takes the PTX ISA that Triton emits for this driver.",
)
def newest_ptx(bench: Bench) -> None:
    model = with_silu("newest")
    report = tta.dry_run("first_engine::newest", [rows()], execute=False)
    bench.note(f"PTX ISA {report.tactics[0].ptx_isa}, for {report.tactics[0].target}")
    bench.compare("right", model, [rows()], silu_between)


@step(
    "kernels compiled in several processes within a build",
    right="The process pool starts within the builder's calls, beside its threads.",
)
def parallel_compilation(bench: Bench) -> None:
    os.environ |= {"TTA_JOBS": "4", "TTA_CACHE_DIR": str(folder())}
    model = with_silu("parallel", *({"BLOCK": 64 << i} for i in range(6)))
    start = time.monotonic()
    bench.compare("right", model, [rows()], silu_between)
    bench.note(f"{time.monotonic() - start:.1f} s")


@step(
    "Torch-TensorRT's engine cache",
    found="The same model and kernels are found again.",
    changed="Another kernel under the same name is not.",
)
def engine_cache(bench: Bench) -> None:
    from kernels import launch_scale, launch_silu

    directory, x = folder(), torch.randn(16, 512, device="cuda" if CAN_BUILD else None)
    options = {
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        "immutable_weights": False,
        "engine_cache_dir": str(directory),
        "min_block_size": 1,
    }

    def compiled(launch: Any) -> Any:
        model = between(register("cached", tta.triton(launch), replace=True))
        inputs = [torch_tensorrt.Input((16, 512), dtype=torch.float32)]
        if not CAN_BUILD:
            bench.engine(model, inputs)
        torch._dynamo.reset()
        engine = torch_tensorrt.compile(
            model.eval().cuda(), ir="dynamo", inputs=inputs, **options
        )
        return engine, len([*directory.iterdir()])  # a folder for each engine

    def run() -> None:
        _, one = compiled(launch_silu)
        _, same = compiled(launch_silu)
        bench.answer("found", 0 < one == same, f"{one} engines, then {same}")
        other, two = compiled(launch_scale)
        bench.answer("changed", two > same, f"{two} engines")
        bench.same("changed", other(x), 1 - x * 0.5 * 0.3, 2e-2)

    bench.attempt("found", run)


@step(
    "a module that is saved and loaded",
    loaded="torch_tensorrt.load gives a module that computes the same.",
)
def saved_modules(bench: Bench) -> None:
    model, inputs = with_silu("saved"), [rows()]
    if not CAN_BUILD:
        bench.engine(model, inputs)
    path = str(folder() / "model.ep")
    compiled = torch_tensorrt.compile(
        model.eval().cuda(), ir="dynamo", inputs=inputs, min_block_size=1
    )
    (x,) = tensors(inputs, "ragged")
    expected = compiled(x)
    torch_tensorrt.save(compiled, path, arg_inputs=inputs)
    bench.same("loaded", torch_tensorrt.load(path).module()(x), expected)


@step(
    "two matrix products that share an input, each before a plugin",
    right="TensorRT does not hand over halves of a merged product as if they were "
    "contiguous.",
)
def merged_products(bench: Bench) -> None:
    from kernels import launch_silu

    op = register("after", tta.triton(launch_silu))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one = torch.nn.Linear(512, 512, bias=False)
            self.two = torch.nn.Linear(512, 512, bias=False)

        def forward(self, x: torch.Tensor) -> Any:
            return op(self.one(x)) + 1, op(self.two(x)) + 1

    model = Model().half()

    def plain(x: torch.Tensor) -> Any:
        f = torch.nn.functional.silu
        return f(model.one(x)) + 1, f(model.two(x)) + 1

    bench.compare("right", model, [rows()], plain)


@step(
    "an engine for other versions of TensorRT",
    right="version_compatible=True builds with plugins, and this version runs it.",
)
def version_compatible(bench: Bench) -> None:
    bench.table("right", "triton-softmax", version_compatible=True)


@step(
    "an engine in a CUDA graph",
    right="An engine with plugins is captured, and replays.",
)
def cuda_graph(bench: Bench) -> None:
    model = with_silu("graph")

    def run() -> None:
        engine = bench.engine(model, [rows()])
        (x,) = tensors([rows()], "opt")
        engine(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = engine.enqueue([x], engine.context, torch.cuda.current_stream())
        x.normal_()
        graph.replay()
        torch.cuda.synchronize()
        bench.same("right", y, silu_between(x), 2e-2)

    bench.attempt("right", run)


def _softmax(bench: Bench) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The file of an engine, an input, and its output."""
    from models import MODELS

    (model,) = (model for model in MODELS if model.name == "triton-softmax")
    module = model.make()
    engine = bench.engine(module, model.inputs)
    path = folder() / "softmax.engine"
    path.write_bytes(engine.blob)
    (x,) = tensors(model.inputs, "ragged")
    return path, x, model.plain(module, x)


@step(
    "an engine without this project, Triton and Torch-TensorRT",
    right="TensorRT alone runs the engine.",
)
def tensorrt_alone(bench: Bench) -> None:
    import numpy as np

    path, x, expected = _softmax(bench)
    given, got = path.with_name("x.npy"), path.with_name("out.npy")
    np.save(given, x.cpu().numpy())
    script = TESTS / "annotation/integration/run_engine.py"
    paths = [entry for entry in sys.path if entry.endswith("-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-S", script, path, given, got]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotBuilt(done.stdout + done.stderr)
    bench.same("right", torch.from_numpy(np.load(got)), expected.cpu(), 2e-2)


@step(
    "an engine in C++",
    right="examples/cpp runs the engine, with nvinfer and without Python.",
)
def cpp_runner(bench: Bench) -> None:
    import cpp_runner as runner
    import pytest

    try:
        program = runner.build(folder() / "cpp")
    except pytest.skip.Exception as lack:
        raise NotHere(str(lack)) from lack
    path, x, expected = _softmax(bench)
    if why := runner.mismatch():
        raise NotHere(why)
    given = path.with_name("x.bin")
    given.write_bytes(x.cpu().numpy().tobytes())
    shape = "x".join(map(str, x.shape))
    command = [program, path, f"x:{shape}", f"x={given}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotBuilt(done.stdout + done.stderr)
    total = float(done.stdout.partition("sum ")[2].split()[0])
    wanted = expected.double().sum().item()
    bench.answer("right", abs(total - wanted) < 1e-3 * abs(wanted), f"sum {total}")
    bench.note(done.stdout.strip())


@step(
    "the tests that build engines",
    pass_="Every model of the tests' table is right, loads, and runs.",
    seconds=3600,
)
def all_models(bench: Bench) -> None:
    tests = TESTS / "annotation/integration/test_engines.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    told = done.stdout.strip().splitlines()[-1:]
    if not CAN_BUILD:
        raise UpToTheBuilder(f"pytest: {' '.join(told)}")
    bench.answer("pass_", done.returncode == 0, " ".join(told))
