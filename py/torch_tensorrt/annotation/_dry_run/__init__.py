"""Drive a registered plugin as TensorRT's builder would, and report what it embeds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from torch_tensorrt.annotation import _ptx
from torch_tensorrt.annotation._builder import BuiltLaunch, build
from torch_tensorrt.annotation._execute import MakeInputs
from torch_tensorrt.annotation._execute import execute as run_tactics
from torch_tensorrt.annotation._expressions import Extents
from torch_tensorrt.annotation._inputs import (
    check_arguments,
    info_of,
    on_gpu,
    shapes_to_look_at,
)
from torch_tensorrt.annotation._registry import registered
from torch_tensorrt.annotation._report import DryRunReport, ShapeReport, TacticReport
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._tactics import Kernel, Plugin, Request, Tactic
from torch_tensorrt.annotation._target import (
    Target,
    compiling_for,
    current_target,
    runs_here,
)
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    DryRunError,
    RedundantTactic,
    SpecError,
    TacticWarning,
    UnsupportedKernelError,
)


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
    ragged: bool | None = None,
) -> DryRunReport:
    """What TensorRT would embed for an op registered with ``custom_op(impl=...)``.

    The builder's calls are made on the real plugin object; no engine is built, and
    TensorRT's builder is not needed. On a GPU that the code is for, every tactic is
    also run as an engine would, checked and timed; elsewhere it is only compiled.

    Args:
        op: ``"ns::name"``.
        inputs: the op's tensor inputs, in order: tensors, or ``torch_tensorrt.Input``
            with a static shape or a min/opt/max profile; None for an optional one that
            is not given. Tensors on the GPU are run on as they are; of all else only
            shape and dtype count.
        target: a :class:`Target`, or text such as ``"sm_90"``; None for ``TTA_TARGET``
            or the current GPU.
        attributes: values of the op's other arguments, by name; of those left out,
            the op's defaults.
        reference, make_inputs, tolerance: how tactics are checked, see
            :func:`execute`; without a reference it is the op itself, run eagerly.
        strict: raise if any tactic would be left out, or is wrong.
        execute: whether to run the tactics; None runs them where they can be.
        ragged: whether to look at one shape that divides by nothing, beside those of
            the profile; None where they are run.

    Returns:
        Every tactic with its kernel and its launch for each shape, or why it is left
        out; where they were run also whether each is right, and its time.

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
    plugin = _plugin(op)
    attributes = {**plugin.defaults, **(attributes or {})}
    if not isinstance(inputs, Sequence):
        raise SpecError(f"dry_run: inputs is {type(inputs).__name__}; pass a list.")
    omitted = (n for n in plugin.tensors[len(inputs) :] if n in plugin.optional)
    inputs = [*inputs, *(None for _ in omitted)]
    infos = tuple(info_of(value) for value in inputs)
    check_arguments(plugin, infos, attributes)
    is_dynamic = any(isinstance(e, Range) for info in infos for e in info.shape)
    if is_dynamic and not registered[op].dynamic:
        raise DryRunError(
            f"{op}: registered without supports_dynamic_shapes=True, so a node of "
            "dynamic shape stays in PyTorch. Pass it to custom_op, or dry-run static "
            "inputs."
        )
    with compiling_for(target):
        everything = (*infos, *plugin.weight_infos)
        request = Request(everything, attributes, current_target())
    if execute is None:
        execute = runs_here(request.target)
    with_ragged = execute if ragged is None else ragged
    report = _compile(plugin, request, strict, with_ragged)
    if not execute:
        return report
    report = run_tactics(
        report,
        reference or _eager(plugin, attributes),
        make_inputs or on_gpu(inputs),
        tolerance,
        plugin.weights,
    )
    if strict and not report.ok:
        raise DryRunError(f"{op}: a tactic is wrong.\n{report}")
    return report


def _compile(
    plugin: Plugin, request: Request, strict: bool, with_ragged: bool
) -> DryRunReport:
    with compiling_for(request.target), warnings.catch_warnings():
        warnings.simplefilter("ignore", TacticWarning)  # the report says it
        kernels = _kernels(plugin, request)
        failures = [k for _, k in kernels if isinstance(k, AnnotationError)]
        if failures and (strict or len(failures) == len(kernels)):
            raise failures[0]
        encoded = {  # in the schema's order, in which TensorRT hands them on
            name: kind.encode(request.attributes[name])
            for name, kind in plugin.attributes.items()
        }
        built = build(plugin.op, request.inputs, encoded)
    launches = {launch.tactic: launch for launch in built}
    points = shapes_to_look_at(plugin, request, with_ragged)
    reports = [
        _failed(tactic, kernel)
        if isinstance(kernel, AnnotationError)
        else _report(tactic, launches[tactic.number], kernel, points)
        for tactic, kernel in kernels
    ]
    return DryRunReport(plugin.op, request.target.arch, reports, tuple(plugin.weights))


def _eager(plugin: Plugin, attributes: Mapping[str, Any]) -> Callable[..., Any]:
    namespace, _, name = plugin.op.partition("::")
    function = getattr(getattr(torch.ops, namespace), name)

    def eager(*tensors: torch.Tensor | None) -> Any:
        named = dict(zip(plugin.tensors, tensors, strict=True))
        return function(**named, **attributes)

    return eager


def _plugin(op: str) -> Plugin:
    known = registered.get(op)
    if known is None or known.plugin is None:
        with_kernels = [name for name, other in registered.items() if other.plugin]
        raise DryRunError(
            f"{op}: not registered with kernels of its own. Call "
            f"custom_op({op!r}, impl=tta.triton(...)) first. Registered: "
            f"{', '.join(with_kernels) or 'none'}."
        )
    return known.plugin


def _kernels(
    plugin: Plugin, request: Request
) -> list[tuple[Tactic, Kernel | AnnotationError]]:
    """Each tactic's kernel, or why it has none; not those that are another's."""
    found: list[tuple[Tactic, Kernel | AnnotationError]] = []
    redundant: RedundantTactic | None = None
    plugin.prepare(request)
    for tactic in plugin.tactics(request.inputs, request.attributes):
        try:
            found.append((tactic, plugin.kernel(tactic, request)))
        except RedundantTactic as error:
            redundant = error
        except AnnotationError as error:
            found.append((tactic, error))
    if redundant is not None and not found:
        raise UnsupportedKernelError(f"{plugin.op}: {redundant}") from redundant
    return found


def _failed(tactic: Tactic, error: AnnotationError) -> TacticReport:
    return TacticReport(
        tactic.number,
        tactic.spec.backend,
        tactic.settings,
        facts=tactic.fact_set,
        error=str(error),
    )


def _report(
    tactic: Tactic,
    launch: BuiltLaunch,
    kernel: Kernel,
    points: Mapping[str, Extents],
) -> TacticReport:
    ptx = launch.code if isinstance(launch.code, str) else ""
    resources = kernel.resources
    return TacticReport(
        tactic=tactic.number,
        backend=tactic.spec.backend,
        config=tactic.settings,
        dtypes=launch.dtypes,
        formats=launch.formats,
        facts=kernel.compiled.facts,
        target=_ptx.target_of(ptx or kernel.compiled.code),
        entry=launch.entry,
        code=launch.code,
        ptx_isa=_ptx.parse(ptx).version if ptx else "",
        retargeted=kernel.compiled.retargeted,
        registers=resources.registers,
        shared_memory=kernel.compiled.shared_memory + resources.static_shared_memory,
        spills=resources.spills,
        shapes=tuple(
            ShapeReport(
                name=name,
                dims=extents,
                grid=launch.grid(extents),
                block=launch.block(extents),
                extras=launch.extras(extents),
                outputs=launch.outputs(extents),
                shared_memory=launch.shared_memory(extents),
            )
            for name, extents in points.items()
        ),
    )
