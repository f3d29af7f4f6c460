"""Run what a dry run found on the GPU at hand, as an engine would, and check it."""

from __future__ import annotations

import math
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
from torch_tensorrt.annotation._timing import copy_gbps, time_launch
from torch_tensorrt.annotation._trace import absent, as_tensors, or_none
from torch_tensorrt.annotation.errors import DryRunError

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
MakeInputs: TypeAlias = Callable[[Shapes], Sequence[torch.Tensor | None]]


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
    must be as they were. That memory is poisoned, too: a read past an input's end shows
    if it changes an output, and is not seen if it does not.

    Args:
        report: of :func:`dry_run`.
        reference: from the op's inputs, on the GPU, to the expected outputs; it gets
            None for an optional input that is not given.
        make_inputs: from the extents of each input to the tensors; None for normally
            distributed floats, and integers that may be indices.
        tolerance: the largest error allowed, relative to the element and to the root
            mean square of the output together; None for the dtype's.
        weights: the plugin's constants, by name.

    Returns:
        The report, with ``ok``, ``max_error`` and ``time_us`` of each shape, and what
        a copy on this GPU reaches. A shape that does not fit the GPU's memory is not
        run: its ``failure`` says so, and the report's ``ok`` is False.

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
    case = partial(
        _Case.of, reference=reference, make_inputs=make_inputs, weights=constants
    )
    tactics, kernels = list[TacticReport](), {}
    for tactic in report.tactics:
        try:
            if tactic.error is None:
                kernels[tactic.tactic] = _load(tactic)
            tactics.append(tactic)
        except DryRunError as error:
            tactics.append(replace(tactic, error=str(error)))
    with progress(f"running {report.op}", len(report.shapes) * len(kernels)) as step:
        for index, _ in enumerate(report.shapes):
            running = [t for t in tactics if t.error is None]
            found = _at_shape(index, running, kernels, case, tolerance, step)
            for position, tactic in enumerate(tactics):
                if tactic.error is None:
                    shapes = list(tactic.shapes)
                    shapes[index] = found.pop(0)
                    tactics[position] = replace(tactic, shapes=tuple(shapes))
    try:
        copied = copy_gbps()
    except torch.cuda.OutOfMemoryError:  # what was found is worth more
        copied = None
    gpu = torch.cuda.get_device_name()
    return replace(report, tactics=tactics, copy_gbps=copied, gpu=gpu)


def _at_shape(
    index: int,
    tactics: Sequence[TacticReport],
    kernels: Mapping[int, LoadedKernel],
    make_case: Callable[[TacticReport, ShapeReport], _Case],
    tolerance: float | None,
    step: Callable[[], None],
) -> list[ShapeReport]:
    """What each tactic does at one shape, as far as that fits the GPU."""
    found, case = list[ShapeReport](), None
    try:
        for tactic in tactics:
            shape = tactic.shapes[index]
            case = case or make_case(tactic, shape)
            kernel = kernels[tactic.tactic]
            found.append(_run(kernel, tactic, shape, case, tolerance))
            step()
    except torch.cuda.OutOfMemoryError:
        case = None  # what was found before stays: it may be wrong
    return found + [_too_large(t.shapes[index], t) for t in tactics[len(found) :]]


def _too_large(shape: ShapeReport, tactic: TacticReport) -> ShapeReport:
    torch.cuda.empty_cache()
    dtypes = [_dtypes.from_token(token).torch for token in tactic.dtypes]
    extents = zip((*shape.dims, *shape.outputs), dtypes, strict=True)
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in extents)
    free, total = torch.cuda.mem_get_info()
    return replace(
        shape,
        failure=f"not run: out of GPU memory. Inputs and outputs of {list(shape.dims)} "
        f"take {size / 1e9:.1f} GB, checking them several times as much; "
        f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free. Give the profile a "
        "smaller max for the dry run, or run nothing (execute=False)",
    )


@dataclass(frozen=True)
class _Case:
    """Inputs of one shape, in every format, and what the op makes of them."""

    originals: tuple[torch.Tensor, ...]
    expected: tuple[torch.Tensor, ...]
    _inputs: dict[tuple[str, ...], tuple[GuardedTensor, ...]]

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
            made = make_inputs(dims)
            tensors = tuple((absent() if t is None else t).cuda() for t in made)
        originals = (*tensors, *weights)
        given = [(tuple(t.shape), t.dtype) for t in originals]
        wanted = list(zip(shape.dims, dtypes, strict=False))
        if given != wanted:
            raise DryRunError(
                f"dry run at {shape.name}: the inputs and weights are {given}, and the "
                f"kernels were compiled for {wanted}. Let make_inputs make those."
            )
        expected = reference(*or_none(tensor.clone() for tensor in tensors))
        return cls(originals, as_tensors(expected, "the reference"), {})

    def inputs(self, formats: tuple[str, ...]) -> tuple[GuardedTensor, ...]:
        """The inputs as a kernel for these formats gets them."""
        formats = formats[: len(self.originals)]
        if formats not in self._inputs:
            tensors = map(GuardedTensor.copy_of, self.originals, formats)
            self._inputs[formats] = tuple(tensors)
        return self._inputs[formats]


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
    inputs = case.inputs(tactic.formats)
    layouts = list(zip(tactic.dtypes, tactic.formats, strict=True))[len(inputs) :]
    max_error, problems = 0.0, list[str]()
    for poison in POISONS:
        for tensor in inputs:
            tensor.surround(poison)
        outputs = [
            GuardedTensor(extents, _dtypes.from_token(token).torch, poison, format_)
            for extents, (token, format_) in zip(shape.outputs, layouts, strict=True)
        ]
        launch = _launcher(kernel, shape, inputs, outputs)
        launch()
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise DryRunError(
                f"tactic {tactic.tactic} at {shape.name} {list(shape.dims)} fails, and "
                f"the CUDA context with it: {str(error).splitlines()[0]}. Does it read "
                "or write out of bounds? compute-sanitizer says where."
            ) from error
        error_, found = _check(case, inputs, outputs, tolerance)
        max_error, problems = max(max_error, error_), problems or found
    time, spread = time_launch(launch)
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
    case: _Case,
    inputs: Sequence[GuardedTensor],
    outputs: Sequence[GuardedTensor],
    tolerance: float | None,
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
    for index, (tensor, before) in enumerate(zip(inputs, case.originals, strict=True)):
        if not tensor.holds(before):
            problems.append(f"input {index}: the kernel writes into it")
            tensor.write(before)
        if not tensor.is_intact:
            problems.append(f"input {index}: the kernel writes outside of it")
    return max_error, problems
