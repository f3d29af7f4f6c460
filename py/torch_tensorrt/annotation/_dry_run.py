"""Drive a registered plugin as TensorRT's builder would, and report what it embeds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torch_tensorrt.annotation import _ptx
from torch_tensorrt.annotation._builder import BuiltLaunch, build, corner
from torch_tensorrt.annotation._registry import registered
from torch_tensorrt.annotation._report import DryRunReport, ShapeReport, TacticReport
from torch_tensorrt.annotation._symbolic import Range
from torch_tensorrt.annotation._tactics import Kernel, Plugin, Request, Tactic
from torch_tensorrt.annotation._target import Target, compiling_for, current_target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    DryRunError,
    RedundantTactic,
    SpecError,
    TacticWarning,
)


def dry_run(
    op: str,
    inputs: Sequence[Any],
    target: Target | str | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> DryRunReport:
    """What TensorRT would embed for an op registered with ``custom_op(impl=...)``.

    The builder's calls are made on the real plugin object; no engine is built, and
    neither TensorRT's builder nor a GPU is needed.

    Args:
        op: ``"ns::name"``.
        inputs: the op's tensor inputs, in order: tensors (only shape and dtype count),
            or ``torch_tensorrt.Input`` with a static shape or a min/opt/max profile.
        target: a :class:`Target`, or text such as ``"sm_90"``; None for ``TTA_TARGET``
            or the current GPU.
        attributes: values of the op's other arguments, by name.
        strict: raise if any tactic would be left out.

    Raises:
        DryRunError: the op is not registered with kernels of its own.
        TargetError: there is nothing to compile for.
        AnnotationError: no tactic is left (with ``strict``: one is left out); the
            error is the first one's own.

    Example::

        print(tta.dry_run("my::silu", [torch.empty(8, 4096)], target="sm_90"))
    """
    plugin = _plugin(op)
    attributes = dict(attributes or {})
    if not isinstance(inputs, Sequence):
        raise SpecError(f"dry_run: inputs is {type(inputs).__name__}; pass a list.")
    infos = tuple(_info(value) for value in inputs)
    _check_arguments(plugin, infos, attributes)
    with compiling_for(target), warnings.catch_warnings():
        warnings.simplefilter("ignore", TacticWarning)  # the report says it
        request = Request(infos, attributes, current_target())
        kernels = _kernels(plugin, request)
        failures = [k for _, k in kernels if isinstance(k, AnnotationError)]
        if failures and (strict or len(failures) == len(kernels)):
            raise failures[0]
        launches = {launch.tactic: launch for launch in build(op, infos, attributes)}
    reports = [
        _failed(tactic, kernel)
        if isinstance(kernel, AnnotationError)
        else _report(tactic, launches[tactic.number], kernel, infos)
        for tactic, kernel in kernels
    ]
    return DryRunReport(op, request.target.arch, reports)


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


def _check_arguments(
    plugin: Plugin, inputs: Sequence[TensorInfo], attributes: Mapping[str, Any]
) -> None:
    if len(inputs) != len(plugin.tensors):
        raise SpecError(
            f"dry_run: {plugin.op} takes {len(plugin.tensors)} tensors, "
            f"{', '.join(plugin.tensors)}; got {len(inputs)}."
        )
    names = tuple(plugin.attributes)
    if set(attributes) != set(names):
        raise SpecError(
            f"dry_run: {plugin.op} takes {_names('attributes', names)}; got "
            f"{', '.join(attributes) or 'none'}. Pass attributes={{name: value}}."
        )
    for name, kind in plugin.attributes.items():
        if type(attributes[name]) is not kind:
            raise SpecError(
                f"dry_run: attribute {name}={attributes[name]!r} of {plugin.op} must "
                f"be of type {kind.__name__}."
            )


def _names(what: str, names: Sequence[str]) -> str:
    return f"the {what} {', '.join(names)}" if names else f"no {what}"


def _info(value: Any) -> TensorInfo:
    if isinstance(value, torch.Tensor):
        return TensorInfo(tuple(value.shape), value.dtype)
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is None or dtype is None or not hasattr(dtype, "to"):
        raise SpecError(
            f"dry_run: {value!r} is no input. Pass a tensor, or torch_tensorrt.Input."
        )
    if isinstance(shape, Mapping):
        profile = [shape[f"{which}_shape"] for which in ("min", "opt", "max")]
        extents = [
            low if low == high else Range(low, opt, high)
            for low, opt, high in zip(*profile, strict=True)
        ]
        shape = extents
    try:
        return TensorInfo(tuple(shape), dtype.to(torch.dtype))
    except TypeError as error:  # torch_tensorrt.Input without a dtype
        raise SpecError(
            f"dry_run: an input of dtype {dtype}. Name it: Input(..., dtype=...)."
        ) from error


def _kernels(
    plugin: Plugin, request: Request
) -> list[tuple[Tactic, Kernel | AnnotationError]]:
    """Each tactic's kernel, or why it has none."""
    found: list[tuple[Tactic, Kernel | AnnotationError]] = []
    for tactic in plugin.tactics(request.inputs, request.attributes):
        try:
            found.append((tactic, plugin.kernel(tactic, request)))
        except RedundantTactic:
            continue
        except AnnotationError as error:
            found.append((tactic, error))
    return found


def _failed(tactic: Tactic, error: AnnotationError) -> TacticReport:
    return TacticReport(
        tactic.number, tactic.spec.backend, tactic.settings, error=str(error)
    )


def _report(
    tactic: Tactic, launch: BuiltLaunch, kernel: Kernel, inputs: Sequence[TensorInfo]
) -> TacticReport:
    entry = _ptx.parse(launch.code)
    resources = kernel.resources
    is_dynamic = any(isinstance(e, Range) for t in inputs for e in t.shape)
    points = {
        name: corner(inputs, "opt" if name == "static" else name)
        for name in (("min", "opt", "max") if is_dynamic else ("static",))
    }
    return TacticReport(
        tactic=tactic.number,
        backend=tactic.spec.backend,
        config=tactic.settings,
        dtypes=launch.dtypes,
        facts=kernel.compiled.facts,
        target=entry.target,
        entry=launch.entry,
        code=launch.code,
        ptx_isa=entry.version,
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
            )
            for name, extents in points.items()
        ),
    )
