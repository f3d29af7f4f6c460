# SPDX-License-Identifier: BSD-3-Clause

"""Drive a registered plugin as TensorRT's builder would, and report what it embeds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from itertools import zip_longest
from typing import Any

import torch

from .. import _target, _tensors, errors
from .._code.ptx import parse
from .._compile.job import toolchain_of
from .._compile.pool import worker_count
from .._plugin import Plugin, Request, Tactic, lock, registered
from .._record import infer_outputs
from .._record.program import Launch
from .._record.replay import MOST_SHAPES
from .._sizes.expressions import shown
from .._steps import PREVIEW
from .._target import Target
from .._tensors import INT32_MAX, Range, TensorInfo
from ..errors import DryRunError, SpecError
from . import steps
from .builder import build
from .case import MakeInputs, random_inputs
from .execute import execute as run_tactics
from .interpret import interpret as interpret_tactics
from .interpret import with_accesses
from .program_report import ProgramReport, RunReport, StepReport
from .report import Dims, DryRunReport, TacticReport


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Meanwhile no op is registered, replaced or forgotten, and no other is dry-run.

    TensorRT keeps the builder of a build's expressions in a global.
    """
    with lock:
        yield


@errors.raised_here
@_alone()
def dry_run(
    op: str,
    inputs: Sequence[Any],
    target: Target | str | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    make_inputs: MakeInputs | None = None,
    tolerance: float | None = None,
    strict: bool = False,
    execute: bool | None = None,
    shapes: Sequence[Sequence[Sequence[int] | None]] = (),
    replay: int = MOST_SHAPES,
    verbose: bool = False,
) -> DryRunReport:
    """What TensorRT would embed for an op registered with ``custom_op(impl=...)``.

    The builder's calls are made on the real plugin object; no engine is built, and
    TensorRT's builder is not needed. On a GPU that the code is for, every tactic is
    also run as an engine would, checked and timed. Elsewhere it is interpreted, if its
    language has an interpreter and the launch is small.

    Args:
        op: ``"ns::name"``.
        inputs: the op's tensor inputs, in order: tensors, or ``torch_tensorrt.Input``
            with a static shape or a min/opt/max profile; None for an optional one that
            is not given. Tensors on the GPU are run on as they are; of all others only
            shape and dtype count.
        target: a :class:`Target`, or text such as ``"sm_90"``; None for ``TTA_TARGET``
            or the current GPU.
        attributes: values of the op's other arguments, by name; the op's defaults
            stand for those left out.
        reference: called as the op is, and returns the expected outputs. Without one, a
            tactic is compared with the op's own eager run on a GPU, and with nothing
            elsewhere; the report says which.
        make_inputs: takes the extents of each input and returns the tensors. Without
            it, inputs that are not on the GPU are random.
        tolerance: the largest error allowed in floats, see :func:`execute`; None for
            that of the dtype.
        strict: raise if any tactic would be left out, or is wrong.
        execute: whether to run the tactics. None runs them where they can be, and
            interprets them elsewhere; False only compiles.
        shapes: more shapes of the profile to try: for each, the extents of every
            input, None for one that is not given. A report names them by the extents.
        replay: at how many shapes of the profile, if it has as many, the launch
            function is run again and compared with what was recorded.
        verbose: whether the report prints every launch, in a wide table.

    Returns:
        Every tactic with its kernel and its launch for each shape, or why it is left
        out. Where the tactics ran, also whether each is right, and its time in
        microseconds. Of an op of several steps, a :class:`ProgramReport`: its steps,
        each launch with tactics of its own, and all steps run in order.

    Raises:
        SpecError: the inputs or attributes are not those of the op.
        DryRunError: the op is not registered with kernels of its own; there is no GPU
            to run them on, with ``execute``; a tactic is wrong, with ``strict``.
        TargetError: there is nothing to compile for.
        AnnotationError: no tactic is left (with ``strict``: one is left out); the
            error is the first one's own.

    Example::

        print(tta.dry_run("my::silu", [torch.empty(8, 4096)], target="sm_90"))
    """
    plugin, is_dynamic = plugin_of(op), registered[op].dynamic
    attributes = _converted(plugin, {**plugin.defaults, **(attributes or {})})
    if not isinstance(inputs, Sequence):
        raise SpecError(f"dry_run: inputs is {type(inputs).__name__}; pass a list.")
    omitted = (n for n in plugin.tensors[len(inputs) :] if n in plugin.optional)
    inputs = [*inputs, *(None for _ in omitted)]
    infos = tuple(map(info_of, inputs))
    _check(plugin, infos, attributes)
    if not is_dynamic and any(i and i.is_dynamic for i in infos):
        raise DryRunError(
            f"{op}: registered without supports_dynamic_shapes=True, so a node of "
            "dynamic shape stays in PyTorch. Pass it to custom_op, or dry-run static "
            "inputs."
        )
    with _target.compiling_for(target):
        target = _target.current_target()
    request = Request.of((*infos, *plugin.weight_infos), attributes, target, replay)
    executes = execute or (execute is None and _target.runs_here(target))
    interprets = execute is None and not executes and worker_count() > 0
    tried = shapes_of(plugin, request, interprets) | named_shapes(plugin, shapes)
    on_gpu = make_inputs or partial(_on_gpu, inputs, infos)
    if (program := _program(plugin, request, tried, strict, executes)) is not None:
        whole_report, whole = program
        if executes:
            run_by = reference or partial(_eager, plugin), partial(_eager, plugin)
            whole_report = steps.execute(
                whole_report, whole, *run_by, on_gpu, tolerance, bool(reference)
            )
        elif interprets:
            whole_report = steps.interpret(
                whole_report, whole, reference, make_inputs, tolerance
            )
        return _strictly(replace(whole_report, verbose=verbose), strict)
    recorded = plugin.kernels(request)
    tactics = _compile(plugin, request, recorded, strict, tried)
    compiled = report = _described(plugin, request, tactics, verbose)
    programs = {t.number: t.program for t in recorded if t.program is not None}
    interpreting = partial(interpret_tactics, compiled, programs, plugin.spec.aligned)
    if executes:
        report = run_tactics(
            report,
            reference or partial(_eager, plugin),
            on_gpu,
            tolerance,
            plugin.weights,
        )
        if reference is None:
            report = replace(report, against="the op's own eager run")
        if worker_count() > 0:
            how = None, on_gpu, tolerance, plugin.weights
            report = with_accesses(report, interpreting(*how, only_accesses=True))
    elif interprets:
        report = interpreting(reference, make_inputs, tolerance, plugin.weights)
    return _strictly(report, strict)


def _strictly(report: DryRunReport, strict: bool) -> DryRunReport:
    if strict and not report.ok:
        raise DryRunError(f"{report.op}: a tactic is wrong.\n{report}")
    return report


def _described(
    plugin: Plugin, request: Request, tactics: tuple[TacticReport, ...], verbose: bool
) -> DryRunReport:
    """The report of a plugin that was compiled."""
    assert request.target is not None, "that is what it was compiled for"
    return DryRunReport(
        plugin.op,
        request.target.arch,
        tactics,
        tuple(plugin.weights),
        request.attributes,
        inputs=tuple(plugin.tensors),
        signature=str(torch_op(plugin).default._schema),
        versions=_versions(tactics),
        least_ptx_isa=request.target.least_ptx_isa,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        verbose=verbose,
    )


def _versions(tactics: Sequence[TacticReport]) -> dict[str, str]:
    """Of what made the code of these tactics, by name."""
    import tensorrt

    import torch_tensorrt

    found = {
        "torch": torch.__version__,
        "torch_tensorrt": torch_tensorrt.__version__,
        "tensorrt": tensorrt.__version__,
    }
    for language in sorted({tactic.backend for tactic in tactics}):
        toolchain = toolchain_of(language)
        found |= dict(toolchain.versions[:1])
        found |= {f"{language}'s compiler": toolchain.compiler or ""}
    return {name: value for name, value in found.items() if value}


def plugin_of(op: str) -> Plugin:
    """The plugin of a registered op.

    Raises:
        DryRunError: the op is not registered with kernels of its own.
    """
    if (known := registered.get(op)) is None or known.plugin is None:
        others = ", ".join(name for name, other in registered.items() if other.plugin)
        name, *names = (each.rpartition("::")[2] for each in (op, *registered))
        near = errors.did_you_mean(name, names)
        raise DryRunError(
            f"{op}: not registered with kernels of its own. Call custom_op({op!r}, "
            f"impl=tta.triton(...)) first. Registered: {others or 'none'}."
            f"{near}"
        )
    return known.plugin


# --- What TensorRT would embed --------------------------------------------------------


def _compile(
    plugin: Plugin,
    request: Request,
    tactics: Sequence[Tactic],
    strict: bool,
    shapes: Mapping[str, Dims],
) -> tuple[TacticReport, ...]:
    failures = [tactic.error for tactic in tactics if tactic.error is not None]
    if failures and (strict or len(failures) == len(tactics)):
        raise errors.to_raise(failures[0])
    plugin.prepare()
    with errors.collecting() as said:  # the report has them
        built = build(plugin, request, plugin.hidden.count)
    offered = {tactic.tactic: tactic for tactic in built}
    if unseen := {t.number for t in tactics if t.kernel} - {*offered}:
        raise DryRunError(
            f"{plugin.op}: autotune leaves out tactics {sorted(unseen)}, which have "
            f"kernels: {'; '.join(said) or 'without a warning'}. Please report this."
        )
    return tuple(_report(plugin, tactic, offered, shapes) for tactic in tactics)


def _report(
    plugin: Plugin,
    tactic: Tactic,
    offered: Mapping[int, TacticReport],
    shapes: Mapping[str, Dims],
) -> TacticReport:
    known: dict[str, Any] = {"backend": tactic.spec.backend, "config": tactic.settings}
    if (kernel := tactic.kernel) is None:
        return TacticReport(tactic.number, **known, error=str(tactic.error))
    report = offered[tactic.number]
    assert tactic.program is not None, "it was compiled"
    if report.aliased != tactic.program.aliased:
        raise DryRunError(
            f"{plugin.op}: TensorRT's plugin writes the inputs {report.aliased}, and "
            f"tactic {tactic.number} {tactic.program.aliased}. Please report this."
        )
    entry, notes = parse(report.code), kernel.notes
    if report.aliased:
        written = ", ".join(f"`{plugin.tensors[index]}`" for index in report.aliased)
        notes += (f"writes {written} in place. {PREVIEW}",)
    return replace(
        report,
        **known,
        target=entry.target,
        ptx_isa=entry.version,
        facts=kernel.facts,
        retargeted=kernel.retargeted,
        registers=kernel.registers,
        shared_memory=kernel.shared_memory + kernel.static_shared_memory,
        spills=kernel.spills,
        arguments=tuple(
            errors.sizes_in_names(name or shown(expr), plugin.tensors)
            for name, expr in zip_longest(kernel.names, kernel.extras, fillvalue="")
        ),
        notes=notes,
        shapes=tuple(replace(report.at(*d), name=name) for name, d in shapes.items()),
    )


_SMALL = 6  # extents above min that a shape to be interpreted is
_TRIED = 8  # points between min and max, for a shape that the op has


def shapes_of(plugin: Plugin, request: Request, small: bool) -> dict[str, Dims]:
    """The shapes of the report, by name.

    The ragged one is the first between min and max that the op's fake kernel takes: an
    odd extent for each range, or else a point on the line from min to max, where what
    holds between extents at both ends (``m == 2 * n``) holds too.

    Args:
        small: it is near min, where an interpreter is done soon.
    """
    inputs, corners = request.inputs, ("min", "opt", "max")
    shapes = {c: tuple(None if i is None else i.at(c) for i in inputs) for c in corners}
    extents = (extent for info in inputs if info for extent in info.shape)
    ranges: set[Any] = {extent for extent in extents if isinstance(extent, Range)}
    if not ranges:
        return {"static": shapes["opt"]}
    most = _SMALL if small else INT32_MAX
    spans = {r: r.max - r.min for r in ranges}
    odd = {r: min(r.max, r.min + min(most, n * 2 // 3) | 1) for r, n in spans.items()}
    steps = math.gcd(*spans.values())
    line = range(min(most, steps * 2 // 3), 0, -1)[:_TRIED]
    points = ({r: r.min + s // steps * n for r, s in spans.items()} for n in line)
    for point in (odd, *points):
        infos = [
            i and replace(i, shape=tuple(point.get(e, e) for e in i.shape))
            for i in inputs
        ]
        meta = partial(plugin.meta, **request.attributes)
        try:
            with _target.compiling_for(request.target):
                infer_outputs(meta, infos, plugin.op)
        except errors.UserCodeError:
            continue  # the op has no such shape
        shapes["ragged"] = tuple(None if i is None else i.at("opt") for i in infos)
        break
    return shapes


def named_shapes(
    plugin: Plugin, shapes: Sequence[Sequence[Sequence[int] | None]]
) -> dict[str, Dims]:
    """A user's shapes, by name; the plugin's weights follow the inputs."""
    from .text import extents

    weights = tuple(info.at("opt") for info in plugin.weight_infos)
    named: dict[str, Dims] = {}
    for given in shapes:
        if len(given) != len(plugin.tensors):
            raise SpecError(
                f"dry_run: {plugin.op} takes {len(plugin.tensors)} tensors, "
                f"{', '.join(plugin.tensors)}; shapes={shapes!r} has one of "
                f"{len(given)}. For each shape, give the extents of every tensor."
            )
        dims = tuple(None if d is None else tuple(map(int, d)) for d in given)
        named[", ".join(map(extents, dims))] = (*dims, *weights)
    return named


def _program(
    plugin: Plugin,
    request: Request,
    shapes: Mapping[str, Dims],
    strict: bool,
    on_gpu: bool,
) -> tuple[ProgramReport, steps.Whole] | None:
    """What TensorRT would embed for an op of several steps; None for any other."""
    first = next((t.program for t in plugin.programs(request) if t.program), None)
    if first is None or first.is_plugin:
        return None
    structure, ops = plugin.structure(request), registered[plugin.op].steps
    assert structure is not None and ops is not None, "it has several"
    assert request.target is not None, "it was compiled"
    launches, programs = list[DryRunReport](), []
    for step in structure.steps:
        part = plugin_of(ops.name(step))
        inputs = step.part(structure.program).inputs
        of_step = replace(request, inputs=inputs)
        recorded = part.kernels(of_step)
        named = {n: steps.dims_of(structure, step, d) for n, d in shapes.items()}
        tactics = _compile(part, of_step, recorded, strict, named)
        launches.append(_described(part, request, tactics, verbose=False))
        programs.append({t.number: t.program for t in recorded if t.program})
    each = iter(launches)
    reports = (
        StepReport(s.name, next(each) if isinstance(s, Launch) else None)
        for s in structure.program.steps
    )
    tactics = tuple(t for launch in launches for t in launch.tactics)
    described = vars(_described(plugin, request, tactics, verbose=False))
    report = ProgramReport(
        **described | {"tactics": ()},
        steps=tuple(reports),
        runs=tuple(RunReport(name, dims) for name, dims in shapes.items()),
    )
    device = "cuda" if on_gpu else "cpu"
    constants = tuple(weight.to(device) for weight in plugin.weights.values())
    made = structure, tuple(launches), tuple(programs), constants
    return report, steps.Whole(*made, plugin.spec.aligned)


# --- The arguments of a dry run -------------------------------------------------------


def info_of(value: Any) -> TensorInfo | None:
    """Shape and dtype of a tensor or ``torch_tensorrt.Input``; None for None."""
    if value is None:
        return None
    shape: Any = getattr(value, "shape", None)
    dtype: Any = getattr(value, "dtype", None)
    if isinstance(shape, Mapping):
        profile = [shape[f"{which}_shape"] for which in ("min", "opt", "max")]
        shape = [
            low if low == high else Range(low, opt, high)
            for low, opt, high in zip(*profile, strict=True)
        ]
    if shape is None or not (isinstance(dtype, torch.dtype) or hasattr(dtype, "to")):
        raise SpecError(
            f"dry_run: input {value!r}: pass a tensor, or torch_tensorrt.Input."
        )
    if not isinstance(dtype, torch.dtype):
        try:
            dtype = dtype.to(torch.dtype)
        except TypeError as error:  # torch_tensorrt.Input without a dtype
            raise SpecError(
                f"dry_run: an input of dtype {dtype}. Name it: Input(..., dtype=...)."
            ) from error
    if _tensors.stands_for_none(len(shape), dtype):
        raise SpecError(f"dry_run: {_tensors.TAKEN_FOR_NONE}")
    return TensorInfo(tuple(shape), dtype)


def _converted(plugin: Plugin, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes in the types that the op has, as torch converts 1 to 1.0."""
    converted = dict(attributes)
    for name in {*attributes} & {*plugin.attributes}:
        kind, value = plugin.attributes[name], attributes[name]
        try:
            converted[name] = kind.convert(value)
        except (TypeError, ValueError) as error:
            what = f"dry_run: attribute {name}={value!r} of {plugin.op}"
            raise SpecError(f"{what} must be of type {kind}.") from error
    return converted


def _check(
    plugin: Plugin, infos: Sequence[TensorInfo | None], attributes: Mapping[str, Any]
) -> None:
    for name, info in zip(plugin.tensors, infos, strict=False):
        if info is None and name not in plugin.optional:
            raise SpecError(f"dry_run: {plugin.op}, input `{name}`: it cannot be None.")
    if len(infos) != len(plugin.tensors):
        remedy = ""
        if name := next((n for n in plugin.tensors if n in attributes), ""):
            remedy = (
                f" Without an annotation in the function that describes the outputs "
                f"(meta_impl), {name} is a tensor: write def meta(x, {name}: float) "
                "there, or int, bool or str."
            )
        raise SpecError(
            f"dry_run: {plugin.op} takes {len(plugin.tensors)} tensors, "
            f"{', '.join(plugin.tensors)}; got {len(infos)}.{remedy}"
        )
    if set(attributes) != set(plugin.attributes):
        names = ", ".join(plugin.attributes)
        takes = f"the attributes {names}" if names else "no attributes"
        raise SpecError(
            f"dry_run: {plugin.op} takes {takes}; got "
            f"{', '.join(attributes) or 'none'}. Pass attributes={{name: value}}."
        )


# --- What a dry run runs --------------------------------------------------------------


def _eager(plugin: Plugin, *tensors: torch.Tensor | None, **attributes: Any) -> Any:
    """What the op itself returns."""
    named = dict(zip(plugin.tensors, tensors, strict=True))
    return torch_op(plugin)(**named, **attributes)


def torch_op(plugin: Plugin) -> Any:
    """The op, as ``torch.ops`` has it."""
    namespace, _, name = plugin.op.partition("::")
    return getattr(getattr(torch.ops, namespace), name)


def _on_gpu(
    inputs: Sequence[Any], infos: Sequence[TensorInfo | None], dims: Dims
) -> list[torch.Tensor | None]:
    """The inputs that are tensors on the GPU, and random ones for the others."""
    dtypes = [torch.bool if info is None else info.dtype for info in infos]
    return [
        given if isinstance(given, torch.Tensor) and given.is_cuda else made
        for given, made in zip(inputs, random_inputs(dims, dtypes), strict=True)
    ]
