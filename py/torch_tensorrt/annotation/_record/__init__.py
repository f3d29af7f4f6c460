"""Run a launch function on fake tensors and keep the one kernel launch it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from torch_tensorrt.annotation._arguments import read_arguments, read_grid
from torch_tensorrt.annotation._configs import Formats
from torch_tensorrt.annotation._environment import Operators
from torch_tensorrt.annotation._explore import ShapesRejected, trace, trace_somewhere
from torch_tensorrt.annotation._formats import empty_buffers, formats_of
from torch_tensorrt.annotation._launch import (
    Launch,
    LaunchRecord,
    Output,
    Outputs,
)
from torch_tensorrt.annotation._trace import TensorInfo, Trace, as_tensors
from torch_tensorrt.annotation.errors import ArgumentError, LaunchCountError

MAX_RANK = 8  # nvinfer1::Dims::MAX_DIMS


class Interceptor(Protocol):
    """The part of a backend that catches launches while a function is recorded."""

    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[None]: ...


def infer_outputs(
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo],
    what: str,
    sizes_matter: bool = True,
) -> Outputs:
    """Shapes and dtypes of what the fake kernel ``meta`` returns for ``inputs``.

    Args:
        what: how errors name it.
        sizes_matter: False where only ranks and dtypes are wanted.

    Raises:
        RecordError: see its subclasses.
    """

    def run(run: Trace) -> Outputs:
        return _read_outputs(run, _fake_outputs(run, meta, what))

    return (trace if sizes_matter else trace_somewhere)(run, inputs, what)


@dataclass(frozen=True)
class Call:
    """How a launch function is called.

    Attributes:
        keywords: config and attributes; a ``stream`` is added where it is declared.
        overrides: keywords of the kernel's launch, in place of what it says; None lets
            an autotuner take its first choice.
        names: of the inputs, for an op's body, which is called by name and returns its
            outputs; None for a function that is handed its outputs.
        input_formats, output_formats: of the tensors, as a spec names them.
        weights: how many of the inputs are constants.
    """

    keywords: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None
    input_formats: Formats = None
    output_formats: Formats = None
    weights: int = 0


def record(
    interceptor: Interceptor,
    launch_fn: Callable[..., Any],
    meta: Callable[..., Any],
    inputs: Sequence[TensorInfo],
    call: Call = Call(),
) -> LaunchRecord:
    """The one launch that ``launch_fn`` makes.

    Args:
        interceptor: catches the launch.
        meta: gives the outputs for the inputs.

    Raises:
        RecordError: see its subclasses.
    """
    what = f"launch function {describe(launch_fn)}"
    for index, tensor in enumerate(inputs):
        if len(tensor.shape) > MAX_RANK:
            raise ArgumentError(
                f"input {index} has {len(tensor.shape)} dimensions; TensorRT's tensors "
                f"have {MAX_RANK} at most. Merge some before the op."
            )
    launches: list[Launch] = []

    def run(run: Trace) -> LaunchRecord:
        # An engine's outputs are contiguous and their own, whatever the fake kernel's.
        outputs = tuple(
            torch.empty(o.shape, dtype=o.dtype, device="cuda")
            for o in _fake_outputs(run, meta, "the fake kernel")
        )
        launches.clear()
        formats = (
            *formats_of(call.input_formats, run.inputs, call.weights, "input"),
            *formats_of(call.output_formats, outputs, 0, "output"),
        )
        tensors = empty_buffers(formats, (*run.inputs, *outputs))
        operators = Operators((t for t in tensors if t is not None), what)
        with operators:
            if call.names is None:
                _call_with_outputs(launch_fn, what, tensors, len(outputs), call)
            else:
                named = dict(zip(call.names, run.inputs, strict=True))
                result = launch_fn(**named, **call.keywords)
                outputs = _own_outputs(run, result, outputs, operators, what)
                tensors = (*run.inputs, *outputs)
        launch = _only(launches, what)
        return LaunchRecord(
            kernel=launch.kernel,
            name=launch.name,
            grid=read_grid(run, launch),
            arguments=tuple(read_arguments(run, launch, tensors)),
            options=tuple(sorted(launch.options.items())),
            choices=launch.choices,
            inputs=(),
            outputs=_read_outputs(run, outputs),
            formats=tuple(fmt.name for fmt in formats),
        )

    with interceptor.intercept(launches.append, call.overrides):
        return replace(trace(run, inputs, what), inputs=tuple(inputs))


def _call_with_outputs(
    launch_fn: Callable[..., Any],
    what: str,
    tensors: Sequence[torch.Tensor | None],
    num_outputs: int,
    call: Call,
) -> None:
    signature, keywords = inspect.signature(launch_fn), call.keywords
    if "stream" in signature.parameters:
        keywords = {"stream": 0, **keywords}
    given = (
        f"{what} takes {signature}, and would be called with "
        f"{len(tensors) - num_outputs} inputs, {num_outputs} outputs of the meta "
        f"function, and keywords {', '.join(keywords) or 'none'}"
    )
    try:
        bound = signature.bind(*tensors, **keywords)
    except TypeError as error:
        raise ArgumentError(
            f"{given}: {error}.{_instead(signature, tensors, num_outputs, keywords)}"
        ) from error
    for name, value in bound.arguments.items():
        default = signature.parameters[name].default
        if isinstance(value, torch.Tensor) and isinstance(default, int | float | str):
            raise ArgumentError(
                f"{given}: `{name}={default!r}` would get a tensor. Take one parameter "
                "for each input, weight and output before it."
            )
    launch_fn(*tensors, **keywords)


def _instead(
    signature: inspect.Signature,
    tensors: Sequence[torch.Tensor | None],
    num_outputs: int,
    keywords: Mapping[str, Any],
) -> str:
    """What to do where a function takes the inputs alone."""
    try:
        signature.bind(*tensors[: len(tensors) - num_outputs], **keywords)
    except TypeError:
        return ""
    return (
        " If it allocates and returns its outputs, let it take them as parameters "
        "after the inputs; or make it the body of a torch.library.custom_op, and pass "
        "impl=tta.triton() without a function."
    )


def _own_outputs(
    run: Trace,
    result: Any,
    expected: Sequence[torch.Tensor],
    operators: Operators,
    what: str,
) -> tuple[torch.Tensor, ...]:
    """What an op's body returned, if an engine can stand in for its allocations."""
    outputs = as_tensors(result, what)
    if _read_outputs(run, outputs) != _read_outputs(run, expected):
        raise ArgumentError(
            f"{what} returns {_read_outputs(run, outputs).tensors}, and the op's fake "
            f"kernel {_read_outputs(run, expected).tensors}. One of them is wrong."
        )
    for index, output in enumerate(outputs):
        if not output.is_contiguous() or output.storage_offset() != 0:
            raise ArgumentError(
                f"{what}: output {index} has strides {list(output.stride())}. An "
                "engine's outputs are contiguous: return the tensor as allocated."
            )
    operators.require_only_allocated(outputs)
    return outputs


def _fake_outputs(
    run: Trace, meta: Callable[..., Any], what: str
) -> tuple[torch.Tensor, ...]:
    try:
        outputs = meta(*run.inputs)
    except Exception as error:
        raise ShapesRejected(what) from error
    return as_tensors(outputs, what)


def describe(function: Callable[..., Any]) -> str:
    """``name (file:line)`` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def _only(launches: list[Launch], what: str) -> Launch:
    if len(launches) == 1:
        return launches[0]
    if not launches:
        raise LaunchCountError(
            f"{what} launched no kernel. It must launch exactly one, "
            "whatever the sizes are, in the language of its spec."
        )
    seen = ", ".join(launch.name for launch in launches)
    raise LaunchCountError(
        f"{what} launched {len(launches)} kernels: {seen}. A plugin is one launch: "
        "register an op for each kernel, or fuse them."
    )


def _read_outputs(run: Trace, tensors: Iterable[torch.Tensor]) -> Outputs:
    outputs = []
    for index, tensor in enumerate(tensors):
        if tensor.dim() > MAX_RANK:
            raise ArgumentError(
                f"output {index} has {tensor.dim()} dimensions; TensorRT's tensors "
                f"have {MAX_RANK} at most."
            )
        outputs.append(Output(tuple(map(run.expr, tensor.shape)), tensor.dtype))
    return Outputs(tuple(outputs))
