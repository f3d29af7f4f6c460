"""Specs x configs x fact sets -> numbered tactics, and each one's kernel."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_tensorrt.annotation import _cubin, _dtypes
from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._checks import check_grid, check_outputs_written
from torch_tensorrt.annotation._compile import compile_all
from torch_tensorrt.annotation._configs import Config
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._job import Assembled, Job, Outcome, as_ours
from torch_tensorrt.annotation._kernel_spec import KernelSpec
from torch_tensorrt.annotation._launch import LaunchRecord
from torch_tensorrt.annotation._plugin_spec import CustomPluginSpec
from torch_tensorrt.annotation._ptxas import Resources
from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    RedundantTactic,
    UnsupportedKernelError,
)


@dataclass(frozen=True)
class Tactic:
    """One kernel to time; ``number`` is positive and the same in every process.

    Attributes:
        choice: the autotuner's config, where the spec has none of its own; None where
            it is not known whether there is an autotuner.
        fact_set: which facts the compiler is told.
    """

    number: int
    spec: KernelSpec
    config: Config
    choice: Config | None = None
    fact_set: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Config and choice, for people."""
        return {**dict(self.config), **dict(self.choice or ())}

    @property
    def description(self) -> str:
        """Backend, config and fact set, for people."""
        told = [self.fact_set] if self.fact_set else []
        return ", ".join([self.spec.backend, str(self.settings), *told])

    @property
    def overrides(self) -> dict[str, Any] | None:
        """Keywords of the kernel's launch."""
        if self.choice is not None:
            return dict(self.choice)
        return self.spec.kernel_keywords(self.config) or None


@dataclass(frozen=True)
class Kernel:
    """A tactic's kernel for given inputs, as TensorRT is to launch it.

    Attributes:
        entry: its unique name.
        code: PTX whose entry takes inputs, extras, outputs.
        resources: as the assembler reports them.
        digest: of the code, whatever the entry's name.
    """

    entry: str
    code: str | bytes
    record: LaunchRecord
    compiled: CompiledKernel
    resources: Resources
    digest: str


@dataclass(frozen=True)
class Request:
    """What TensorRT asks a kernel for: inputs, attribute values, and the GPU."""

    inputs: tuple[TensorInfo, ...]
    attributes: Mapping[str, Any]
    target: Target

    @property
    def key(self) -> str:
        return fingerprint(repr(self.inputs), dict(self.attributes), repr(self.target))


class Plugin:
    """A plugin spec bound to an op, and the kernels built for it so far.

    TensorRT asks for a kernel several times, and needs the same answer each time.

    Attributes:
        op: ``"ns::name"``.
        spec: what was registered.
        meta: from fake inputs, and attributes by keyword, to fake outputs.
        tensors: names of the op's tensor arguments.
        optional: of those, the ones that may be None.
        attributes: names and kinds of its others.
        defaults: values of those that have one.
        weights: constants that follow the tensors among the plugin's inputs; on the
            host, contiguous.
    """

    def __init__(
        self,
        op: str,
        spec: CustomPluginSpec,
        meta: Callable[..., Any],
        tensors: Sequence[str],
        attributes: Mapping[str, AttributeKind],
        optional: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.op = op
        self.spec = spec
        self.meta = meta
        self.tensors = tuple(tensors)
        self.attributes = dict(attributes)
        self.optional = frozenset(optional)
        self.defaults = dict(defaults or {})
        self.weights = {n: w.detach().cpu().contiguous() for n, w in spec.weights}
        self._lock = threading.RLock()
        self._built: dict[tuple[int, str], Kernel | AnnotationError] = {}
        self._tactics: dict[str, tuple[Tactic, ...]] = {}

    @property
    def weight_infos(self) -> tuple[TensorInfo, ...]:
        """What TensorRT says of the weights."""
        return tuple(TensorInfo(tuple(w.shape), w.dtype) for w in self.weights.values())

    def tactics(
        self, inputs: Sequence[TensorInfo], attributes: Mapping[str, Any]
    ) -> tuple[Tactic, ...]:
        """Every config and fact set of every kernel spec, numbered from 1.

        A spec without configs has those of the autotuned kernel that it launches.
        """
        key = fingerprint(repr(tuple(inputs)), dict(attributes))
        with self._lock:
            if key not in self._tactics:
                found = (
                    (spec, config, choice, fact_set)
                    for spec in self.spec.specs
                    for config in spec.configs
                    for choice in self._choices(spec, config, inputs, attributes)
                    for fact_set in spec.fact_sets
                )
                self._tactics[key] = tuple(
                    Tactic(number, *parts)
                    for number, parts in enumerate(found, start=1)
                )
            return self._tactics[key]

    def _choices(
        self,
        spec: KernelSpec,
        config: Config,
        inputs: Sequence[TensorInfo],
        attributes: Mapping[str, Any],
    ) -> Sequence[Config | None]:
        if config:
            return [None]
        try:
            recorded = self.record(Tactic(0, spec, config), inputs, attributes)
        except Exception:
            return [None]  # which it raises again as a tactic
        return recorded.choices or [None]

    def tactic(self, number: int, request: Request) -> Tactic:
        """The tactic of this number.

        Raises:
            UnsupportedKernelError: TensorRT asks for its default tactic, 0, which it
                does where autotune left nothing.
        """
        if number < 1:
            raise UnsupportedKernelError(
                f"{self.op}: no tactic can serve these inputs; the warnings before "
                f"this say why. tta.dry_run({self.op!r}, ...) tries them one by one."
            )
        return self.tactics(request.inputs, request.attributes)[number - 1]

    def kernel(self, tactic: Tactic, request: Request) -> Kernel:
        """The kernel of ``tactic``; built on first use.

        Raises:
            AnnotationError: it cannot be recorded, or compiled, or launched.
            RedundantTactic: another fact set gives the same kernel.
        """
        key = (tactic.number, request.key)
        with self._lock:
            if key not in self._built:
                self._prepare([tactic], request)
            found = self._built[key]
        if isinstance(found, AnnotationError):
            raise found
        return found

    def prepare(self, request: Request) -> None:
        """Build the kernels of all tactics: together, which is faster."""
        with self._lock:
            tactics = self.tactics(request.inputs, request.attributes)
            self._prepare(
                [t for t in tactics if (t.number, request.key) not in self._built],
                request,
            )

    def _prepare(self, tactics: Sequence[Tactic], request: Request) -> None:
        jobs = [_job(self, tactic, request) for tactic in tactics]
        outcomes = iter(compile_all([j for j in jobs if isinstance(j, Job)], self.op))
        for tactic, job in zip(tactics, jobs, strict=True):
            self._built[tactic.number, request.key] = (
                _build(self, tactic, request, job, next(outcomes))
                if isinstance(job, Job)
                else job
            )

    def record(
        self,
        tactic: Tactic,
        inputs: Sequence[TensorInfo],
        attributes: Mapping[str, Any],
    ) -> LaunchRecord:
        """The launch of ``tactic`` for ``inputs``."""
        keywords = {
            **dict(self.spec.attributes),
            **attributes,
            **tactic.spec.launch_keywords(tactic.config),
        }
        recorded = record(
            backend(tactic.spec.backend),
            tactic.spec.function,
            lambda *tensors: self.meta(*tensors, **attributes),
            inputs,
            Call(
                keywords,
                tactic.overrides,
                self.tensors if tactic.spec.returns_outputs else None,
                tactic.spec.input_formats,
                tactic.spec.output_formats,
                len(self.weights),
            ),
        )
        for output in recorded.outputs.tensors:
            _dtypes.from_torch(output.dtype)
        check_outputs_written(recorded)
        return recorded


def _job(plugin: Plugin, tactic: Tactic, request: Request) -> Job | AnnotationError:
    """What to compile for ``tactic``, or why nothing."""
    what = f"{plugin.op}, tactic {tactic.number}"
    try:
        recorded = plugin.record(tactic, request.inputs, request.attributes)
    except Exception as error:
        return as_ours(what, error)
    return Job(
        what,
        tactic.spec.backend,
        recorded,
        request.target,
        tactic.spec.options(tactic.config),
        plugin.spec.aligned,
        tactic.fact_set,
    )


def _build(
    plugin: Plugin, tactic: Tactic, request: Request, job: Job, built: Outcome
) -> Kernel | AnnotationError:
    """The kernel of a tactic, of what was compiled."""
    if not isinstance(built, Assembled):
        return built
    recorded = job.record
    try:
        check_grid(recorded, built.compiled.grid)
        _require_new(plugin, tactic, request, built.digest)
        entry = _entry_name(plugin, tactic, recorded, built.digest)
        if built.compiled.cubin:
            entry = _cubin.padded(entry)
        code = built.code(recorded, entry)
    except AnnotationError as error:
        return error
    compiled, resources = built.compiled, built.resources
    return Kernel(entry, code, recorded, compiled, resources, built.digest)


def _require_new(plugin: Plugin, tactic: Tactic, request: Request, digest: str) -> None:
    """Raise where an earlier fact set of the same config gave the same code."""
    for earlier in plugin.tactics(request.inputs, request.attributes):
        if earlier.number >= tactic.number:
            return
        if replace(earlier, number=tactic.number, fact_set=tactic.fact_set) != tactic:
            continue
        try:
            kernel = plugin.kernel(earlier, request)
        except AnnotationError:
            continue  # reported as that tactic's
        if kernel.digest == digest:
            raise RedundantTactic(
                f"tactic {tactic.number} has the code of tactic {earlier.number}."
            )


def _entry_name(
    plugin: Plugin, tactic: Tactic, recorded: LaunchRecord, code: str
) -> str:
    """Unique to op, tactic, dtypes and code: TensorRT confuses equal names."""
    dtypes = [t.dtype for t in recorded.inputs]
    dtypes += [t.dtype for t in recorded.outputs.tensors]
    digest = fingerprint(plugin.op, dtypes, code)
    op = re.sub(r"\W", "_", plugin.op)
    return f"{op}_t{tactic.number}_{digest[:12]}"
