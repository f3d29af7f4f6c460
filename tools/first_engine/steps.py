# SPDX-License-Identifier: BSD-3-Clause

"""A step on the way to the first engine, and the bench that it works on.

A step asks one or several things of TensorRT that nobody has seen yet. With TensorRT's
builder and a GPU it builds an engine, runs it, and answers. Elsewhere it goes as far as
the builder: models are exported, lowered and partitioned, and each plugin's calls are
made on the real plugin object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import tensorrt as trt
import torch

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests" / "py"
# The kernels and models of the tests and benchmarks.
for folder in ("", "annotation", "annotation/integration", "plugins"):
    sys.path.append(str(TESTS / folder))
sys.path.append(str(PROJECT / "benchmarks"))

HAS_GPU = torch.cuda.is_available()
HAS_BUILDER = trt.get_builder_plugin_registry(trt.EngineCapability.STANDARD) is not None
CAN_BUILD = HAS_GPU and HAS_BUILDER
CAPABILITY = torch.cuda.get_device_capability() if HAS_GPU else (9, 0)


class UpToTheBuilder(Exception):
    """All that a machine without the builder, or without a GPU, can do was done."""


class NotHere(Exception):
    """This machine lacks what the step needs."""


class NotBuilt(Exception):
    """TensorRT did not build, load or run an engine; the text is its own."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        asks: what is to be found out, each under a name, as a sentence that may hold.
        capability: major compute capability that the GPU must have.
        seconds: after which it is stopped.
    """

    name: str
    title: str
    asks: Mapping[str, str]
    run: Callable[[Bench], None]
    capability: int = 0
    seconds: int = 300


STEPS: dict[str, Step] = {}  # the simplest first


def step(
    title: str, capability: int = 0, seconds: int = 300, **asks: str
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Make a step of a function; its name is the function's."""

    def added(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        name = run.__name__.replace("_", "-")
        STEPS[name] = Step(name, title, asks, run, capability, seconds)
        return run

    return added


@dataclass(frozen=True)
class Answer:
    """Whether what was asked holds, and what was seen."""

    holds: bool
    seen: str = ""


class Log(trt.ILogger):  # type: ignore[misc]
    """TensorRT's messages: printed, and errors kept."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        if severity <= trt.ILogger.WARNING:
            print(f"TensorRT, {severity.name}: {text}", flush=True)
        if severity <= trt.ILogger.ERROR:
            self.errors.append(text)


LOG = Log()


class Runs:
    """What runs on torch's tensors: an engine, or the rehearsal of one.

    Attributes:
        trt: makes execution contexts.
    """

    trt: Any

    @cached_property
    def context(self) -> Any:
        return self.trt.create_execution_context()

    def enqueue(
        self, tensors: Sequence[torch.Tensor], context: Any, stream: Any
    ) -> list[torch.Tensor]:
        """The outputs, which are ready when the stream is."""
        raise NotImplementedError

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        outputs = self.enqueue([t.contiguous() for t in tensors], self.context, stream)
        try:
            stream.synchronize()
        except RuntimeError as error:  # torch's, of the driver
            raise NotBuilt(f"a launch fails: {str(error).splitlines()[0]}") from error
        return outputs


class Engine(Runs):
    """An engine.

    Attributes:
        blob: as it is stored.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self._runtime = trt.Runtime(LOG)
        self.trt = self._runtime.deserialize_cuda_engine(blob)
        if self.trt is None:
            raise NotBuilt(f"the engine is not loaded: {'; '.join(LOG.errors)}")
        self._spare = torch.empty(64, device="cuda")  # an empty tensor has no address
        self._somewhere = self._spare.data_ptr()
        names = [self.trt.get_tensor_name(i) for i in range(self.trt.num_io_tensors)]
        modes = {name: self.trt.get_tensor_mode(name) for name in names}
        self.inputs = [n for n in names if modes[n] == trt.TensorIOMode.INPUT]
        self.outputs = [n for n in names if modes[n] == trt.TensorIOMode.OUTPUT]

    def enqueue(
        self, tensors: Sequence[torch.Tensor], context: Any, stream: Any
    ) -> list[torch.Tensor]:
        """The outputs, which are ready when the stream is."""
        from torch_tensorrt.annotation._tensors import DType

        for name, tensor in zip(self.inputs, tensors, strict=True):
            shape = tuple(tensor.shape)
            if -1 in self.trt.get_tensor_shape(name) and not context.set_input_shape(
                name, shape
            ):
                raise NotBuilt(f"{name} does not take {list(shape)}")
            context.set_tensor_address(name, tensor.data_ptr() or self._somewhere)
        outputs = []
        for name in self.outputs:
            dtype = DType.of_tensorrt(self.trt.get_tensor_dtype(name)).torch
            shape = tuple(context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=dtype, device="cuda"))
            address = outputs[-1].data_ptr() or self._somewhere
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(stream.cuda_stream):
            raise NotBuilt(f"the engine does not run: {'; '.join(LOG.errors)}")
        return outputs


@dataclass
class Bench:
    """What a step works on, and its answers so far."""

    step: Step
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)  # up to the builder

    def answer(self, ask: str, holds: bool, seen: object = "") -> None:
        """The first answer that is no counts; otherwise the last.

        What a rehearsal gives is not TensorRT's answer, and only a note.
        """
        assert ask in self.step.asks, ask
        if not CAN_BUILD:
            self.note(f"rehearsed: {ask}: {'yes' if holds else 'NO'} {seen}".strip())
            return
        if ask not in self.answers or self.answers[ask].holds:
            self.answers[ask] = Answer(bool(holds), str(seen))

    def attempt(self, ask: str, run: Callable[[], None]) -> None:
        """Answer no where TensorRT refuses; what comes after is tried in any case."""
        try:
            run()
        except NotBuilt as error:
            self.answer(ask, False, error)
        except UpToTheBuilder as end:
            self.reached.append(str(end))

    def note(self, text: object) -> None:
        self.notes.append(str(text))

    def engine(self, model: Any, inputs: Sequence[Any], **settings: Any) -> Engine:
        """The engine of a model, by way of Torch-TensorRT.

        Raises:
            NotBuilt: there is none.
        """
        import torch_tensorrt

        if not CAN_BUILD:
            self._up_to_the_builder(model, inputs)
        dynamo = torch_tensorrt.dynamo
        program = dynamo.trace(model.eval().cuda(), list(inputs))
        convert = dynamo.convert_exported_program_to_serialized_trt_engine
        try:
            blob = convert(program, inputs=list(inputs), min_block_size=1, **settings)
        except Exception as error:
            traceback.print_exc()
            raise NotBuilt(f"{type(error).__name__}: {error}") from error
        return Engine(blob)

    def _up_to_the_builder(self, model: Any, inputs: Sequence[Any]) -> None:
        """Raise when everything before the builder was right."""
        from up_to_the_builder import plugin_layers

        import torch_tensorrt.annotation as tta

        layers = plugin_layers(model, inputs)
        assert layers, "the model has no plugin layer"
        for layer in layers:
            tta.dry_run(
                layer.op,
                layer.profile,
                attributes=layer.attributes,
                execute=False,
                strict=True,
            )
        ops = ", ".join(dict.fromkeys(layer.op for layer in layers))
        count = f"{len(layers)} plugin layer{'s'[: len(layers) != 1]}"
        raise UpToTheBuilder(f"{count}: {ops}")

    def same(
        self, ask: str, found: Any, expected: Any, tolerance: float | None = None
    ) -> None:
        """Answer whether tensors agree, as a dry run compares them."""
        from torch_tensorrt.annotation._dry_run.memory import compare

        pairs = [
            ([value] if isinstance(value, torch.Tensor) else list(value))
            for value in (found, expected)
        ]
        for index, (ours, theirs) in enumerate(zip(*pairs, strict=True)):
            error, wrong = compare(ours, theirs.to(ours.device), tolerance)
            shape = "x".join(map(str, ours.shape))
            seen = wrong or f"largest error {error:.2g}"
            self.answer(ask, not wrong, f"output {index}, {shape}: {seen}")

    def compare(
        self,
        ask: str,
        model: Any,
        inputs: Sequence[Any],
        plain: Callable[..., Any],
        tolerance: float = 2e-2,
        **settings: Any,
    ) -> Engine | None:
        """Build a model, and compare it with plain PyTorch all over its profile."""
        built: list[Engine] = []

        def run() -> None:
            built.append(self.engine(model, inputs, **settings))
            for which in ("min", "opt", "max", "ragged"):
                x = tensors(inputs, which)
                self.same(ask, built[0](*x), plain(*x), tolerance)

        self.attempt(ask, run)
        return built[0] if built else None

    def table(self, ask: str, *names: str, **settings: Any) -> None:
        """The same with models of the tests' table."""
        from models import MODELS

        for model in (model for model in MODELS if model.name in names):
            module = model.make()
            plain = partial(model.plain, module)
            self.compare(ask, module, model.inputs, plain, **settings)


def tensors(inputs: Sequence[Any], which: str) -> list[torch.Tensor]:
    """Random inputs at a corner of the profile, or at odd extents within it."""
    made = []
    for given in inputs:
        shape = given.shape
        if isinstance(shape, dict) and which == "ragged":
            pairs = zip(shape["min_shape"], shape["max_shape"], strict=True)
            shape = [min(b, (a + (b - a) * 2 // 3) | 1) for a, b in pairs]
        elif isinstance(shape, dict):
            shape = shape[f"{which}_shape"]
        x = torch.randn(tuple(shape), device="cuda" if HAS_GPU else "cpu")
        made.append(x.to(given.dtype.to(torch.dtype)))
    return made


def folder() -> Path:
    """A new one, for what a step writes."""
    return Path(tempfile.mkdtemp(prefix="first-engine-"))


def carry_out(name: str, result: Path) -> None:
    """Run a step, and write what came of it as JSON: its process may end at any time.

    Every answer so far is in the file whenever that happens.
    """
    this = STEPS[name]
    bench = Bench(this)
    outcome, told = "done", ""

    def write() -> None:
        answers = {ask: vars(answer) for ask, answer in bench.answers.items()}
        found = {"outcome": outcome, "told": told, "answers": answers}
        result.write_text(json.dumps({**found, "notes": bench.notes}))

    keep = bench.answer

    def answer(*args: Any, **kwargs: Any) -> None:
        keep(*args, **kwargs)
        write()

    bench.answer = answer  # type: ignore[method-assign]
    outcome = "ended"
    write()
    try:
        if CAPABILITY[0] < this.capability:
            raise NotHere(f"it needs a GPU of compute capability {this.capability}.0")
        try:
            this.run(bench)
        except UpToTheBuilder as end:
            bench.reached.append(str(end))
        outcome = "done" if CAN_BUILD else "up to the builder"
        told = "; ".join(bench.reached)
    except NotHere as lack:
        outcome, told = "not here", str(lack)
    except Exception as error:
        traceback.print_exc()
        outcome, told = "failed", f"{type(error).__name__}: {error}"
    write()
