"""Run what a dry run found on the GPU at hand, as an engine would, and check it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._compare import compare
from torch_tensorrt.annotation._driver import LoadedKernel
from torch_tensorrt.annotation._guarded import POISONS, GuardedTensor
from torch_tensorrt.annotation._progress import progress
from torch_tensorrt.annotation._report import DryRunReport, ShapeReport, TacticReport
from torch_tensorrt.annotation._trace import as_tensors
from torch_tensorrt.annotation.errors import DryRunError

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
MakeInputs: TypeAlias = Callable[[Shapes], Sequence[torch.Tensor]]

_FLUSHED = 256 << 20  # bytes written between timed launches: more than any L2 cache
_TIMED_MS = 50.0
_LAUNCHES = (10, 200)


def execute(
    report: DryRunReport,
    reference: Callable[..., Any],
    make_inputs: MakeInputs | None = None,
    tolerance: float | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> DryRunReport:
    """Launch every tactic of a report at each of its shapes; check, and time it.

    The code and the launch are the report's: it may come from another machine
    (:meth:`DryRunReport.from_json`), and the kernel's toolchain is not needed. Outputs
    are poisoned before, and compared whole; inputs, and the memory around all tensors,
    must be as they were.

    Args:
        report: of :func:`dry_run`.
        reference: from the op's inputs, on the GPU, to the expected outputs.
        make_inputs: from the extents of each input to the tensors; None for normally
            distributed floats, and integers that may be indices.
        tolerance: the largest error allowed, relative to the element and to the root
            mean square of the output together; None for the dtype's.
        weights: the plugin's constants, by name.

    Returns:
        The report, with ``ok``, ``max_error`` and ``time_us`` of each shape, and what
        a copy on this GPU reaches.

    Raises:
        DryRunError: there is no GPU here, the driver lacks its Python bindings, or a
            kernel fails in a way that no other can be run after.
    """
    if not torch.cuda.is_available():
        raise DryRunError(f"{report.op}: there is no GPU here to run kernels on.")
    weights = weights or {}
    if set(weights) != set(report.weights):
        raise DryRunError(
            f"{report.op}: its weights are {', '.join(report.weights) or 'none'}; got "
            f"{', '.join(weights) or 'none'}. Pass weights={{name: tensor}}."
        )
    constants = [weights[name].cuda() for name in report.weights]
    tactics, kernels = [], {}
    for tactic in report.tactics:
        try:
            if tactic.error is None:
                kernels[tactic.tactic] = _load(tactic)
            tactics.append(tactic)
        except DryRunError as error:
            tactics.append(replace(tactic, error=str(error)))
    with progress(f"running {report.op}", len(report.shapes) * len(kernels)) as step:
        for index, _ in enumerate(report.shapes):
            case = None
            for position, tactic in enumerate(tactics):
                if tactic.error is None:
                    shapes = list(tactic.shapes)
                    shape = shapes[index]
                    case = case or _Case.of(
                        tactic, shape, reference, make_inputs, constants
                    )
                    kernel = kernels[tactic.tactic]
                    shapes[index] = _run(kernel, tactic, shape, case, tolerance)
                    tactics[position] = replace(tactic, shapes=tuple(shapes))
                    step()
    return replace(report, tactics=tactics, copy_gbps=_copy_gbps())


def _copy_gbps() -> float:
    """GB/s, read and written, of a copy between two buffers of the GPU."""
    source = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    microseconds, _ = _time(lambda: target.copy_(source))
    return 2 * _FLUSHED / microseconds / 1e3


@dataclass(frozen=True)
class _Case:
    """Inputs of one shape, and what the op makes of them."""

    inputs: tuple[GuardedTensor, ...]
    originals: tuple[torch.Tensor, ...]
    expected: tuple[torch.Tensor, ...]

    @classmethod
    def of(
        cls,
        tactic: TacticReport,
        shape: ShapeReport,
        reference: Callable[..., Any],
        make_inputs: MakeInputs | None,
        weights: Sequence[torch.Tensor],
    ) -> _Case:
        dims = shape.dims[: len(shape.dims) - len(weights)]
        dtypes = [_dtypes.from_token(token).torch for token in tactic.dtypes]
        if make_inputs is None:
            tensors = random_inputs(dims, dtypes[: len(dims)])
        else:
            tensors = tuple(t.cuda() for t in make_inputs(dims))
        originals = (*tensors, *weights)
        given = [(tuple(t.shape), t.dtype) for t in originals]
        wanted = list(zip(shape.dims, dtypes, strict=False))
        if given != wanted:
            raise DryRunError(
                f"dry run at {shape.name}: the inputs and weights are {given}, and the "
                f"kernels were compiled for {wanted}. Let make_inputs make those."
            )
        inputs = tuple(map(GuardedTensor.copy_of, originals))
        expected = reference(*[tensor.clone() for tensor in tensors])
        return cls(inputs, originals, as_tensors(expected, "the reference"))


def random_inputs(
    shapes: Shapes, dtypes: Sequence[torch.dtype]
) -> tuple[torch.Tensor, ...]:
    """Normally distributed floats; bytes and bools of any value; other integers, which
    may be indices, from 0 to less than every extent."""
    smallest = min([extent for shape in shapes for extent in shape], default=1)
    ends = {torch.bool: 2, torch.uint8: 256, torch.int8: 128}

    def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, device="cuda").to(dtype)
        start = -128 if dtype == torch.int8 else 0
        end = ends.get(dtype, max(1, smallest))
        return torch.randint(start, end, shape, device="cuda").to(dtype)

    return tuple(map(random, shapes, dtypes))


def _load(tactic: TacticReport) -> LoadedKernel:
    kernel = LoadedKernel(tactic.code, tactic.entry)
    shape = tactic.shapes[0]
    inputs, outputs = [8] * len(shape.dims), [8] * len(shape.outputs)
    passed = [*inputs, *[4] * len(shape.extras), *outputs]
    if (sizes := kernel.parameter_sizes()) != passed:
        raise DryRunError(
            f"{tactic.entry}: its parameters are of {sizes} bytes; TensorRT would pass "
            f"{passed}."
        )
    return kernel


def _run(
    kernel: LoadedKernel,
    tactic: TacticReport,
    shape: ShapeReport,
    case: _Case,
    tolerance: float | None,
) -> ShapeReport:
    dtypes = tactic.dtypes[len(case.inputs) :]
    max_error, problems = 0.0, list[str]()
    for poison in POISONS:
        outputs = [
            GuardedTensor(extents, _dtypes.from_token(token).torch, poison)
            for extents, token in zip(shape.outputs, dtypes, strict=True)
        ]
        launch = _launcher(kernel, shape, case.inputs, outputs)
        launch()
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise DryRunError(
                f"tactic {tactic.tactic} at {shape.name} {list(shape.dims)} fails, and "
                f"the CUDA context with it: {str(error).splitlines()[0]}. Does it read "
                "or write out of bounds? compute-sanitizer says where."
            ) from error
        error_, found = _check(case, outputs, tolerance)
        max_error, problems = max(max_error, error_), problems or found
    time, spread = _time(launch)
    return replace(
        shape,
        ok=not problems,
        max_error=max_error,
        failure="; ".join(problems),
        time_us=time,
        spread_us=spread,
    )


def _launcher(
    kernel: LoadedKernel,
    shape: ShapeReport,
    inputs: Sequence[GuardedTensor],
    outputs: Sequence[GuardedTensor],
) -> Callable[[], None]:
    pointers = [t.address for t in inputs], [t.address for t in outputs]

    def launch() -> None:
        kernel.launch(
            shape.grid, shape.block, shape.shared_memory, pointers, shape.extras
        )

    return launch


def _check(
    case: _Case, outputs: Sequence[GuardedTensor], tolerance: float | None
) -> tuple[float, list[str]]:
    """The largest error of any element, and everything that is wrong."""
    problems = []
    if len(outputs) != len(case.expected):
        raise DryRunError(
            f"the reference gives {len(case.expected)} tensors; the kernel has "
            f"{len(outputs)} outputs. Return one tensor for each."
        )
    max_error = 0.0
    for index, (output, value) in enumerate(zip(outputs, case.expected, strict=True)):
        result = compare(output.tensor, value, tolerance)
        max_error = max(max_error, result.max_error)
        if result.message:
            problems.append(f"output {index}: {result.message}")
        if not output.is_intact:
            problems.append(f"output {index}: the kernel writes outside of it")
    for index, (tensor, before) in enumerate(
        zip(case.inputs, case.originals, strict=True)
    ):
        if not tensor.holds(before):
            problems.append(f"input {index}: the kernel writes into it")
            tensor.tensor.copy_(before)
        if not tensor.is_intact:
            problems.append(f"input {index}: the kernel writes outside of it")
    return max_error, problems


def _time(launch: Callable[[], Any]) -> tuple[float, float]:
    """Median and interquartile range of a launch, in microseconds, with a cold L2."""
    flushed = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")

    def timed(count: int) -> list[float]:
        event = partial(torch.cuda.Event, enable_timing=True)
        events = [(event(), event()) for _ in range(count)]
        for start, end in events:
            flushed.zero_()
            start.record()
            launch()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    estimate = statistics.median(timed(3))
    least, most = _LAUNCHES
    times = timed(int(min(most, max(least, _TIMED_MS / max(estimate, 1e-3)))))
    low, middle, high = statistics.quantiles(times, n=4)
    return middle * 1e3, (high - low) * 1e3
