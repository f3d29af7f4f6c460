"""Specs x configs -> numbered tactics, and each tactic's kernel for given inputs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_tensorrt.annotation import _dtypes, _ptx
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._launch import LaunchRecord
from torch_tensorrt.annotation._plugin_spec import CustomPluginSpec
from torch_tensorrt.annotation._ptx import Kind
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._spec import Config, KernelSpec
from torch_tensorrt.annotation._symbolic import bounds
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._trace import TensorInfo
from torch_tensorrt.annotation.backends import CompiledKernel, backend
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    CompileError,
    UnsupportedKernelError,
)

_GRID_LIMITS = (2**31 - 1, 65535, 65535)  # "Technical Specifications", CUDA C++ guide


@dataclass(frozen=True)
class Tactic:
    """One (spec, config); ``number`` is positive and the same in every process."""

    number: int
    spec: KernelSpec
    config: Config


@dataclass(frozen=True)
class Kernel:
    """A tactic's kernel for given inputs, as TensorRT is to launch it.

    Attributes:
        entry: its unique name.
        code: PTX whose entry takes inputs, extras, outputs.
        resources: as the assembler reports them.
    """

    entry: str
    code: str
    record: LaunchRecord
    compiled: CompiledKernel
    resources: _ptx.Resources


@dataclass(frozen=True)
class Plugin:
    """A plugin spec bound to an op: its name, and its fake kernel.

    Attributes:
        meta: from fake inputs, and attributes by keyword, to fake outputs.
        tensors, attributes: names of the op's tensor arguments, and of the others.
    """

    op: str
    spec: CustomPluginSpec
    meta: Callable[..., Any]
    tensors: tuple[str, ...]
    attributes: tuple[str, ...]

    @property
    def tactics(self) -> tuple[Tactic, ...]:
        """Every config of every spec, numbered from 1."""
        pairs = [(spec, config) for spec in self.spec.specs for config in spec.configs]
        return tuple(Tactic(n, *pair) for n, pair in enumerate(pairs, start=1))

    def tactic(self, number: int) -> Tactic:
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
        return self.tactics[number - 1]


def record_tactic(
    plugin: Plugin,
    tactic: Tactic,
    inputs: Sequence[TensorInfo],
    attributes: Mapping[str, Any],
) -> LaunchRecord:
    """The launch of ``tactic`` for ``inputs``, checked against CUDA's limits."""
    keywords = {
        **dict(plugin.spec.attributes),
        **attributes,
        **tactic.spec.launch_keywords(tactic.config),
    }
    recorded = record(
        backend(tactic.spec.backend),
        tactic.spec.launch_fn,
        lambda *tensors: plugin.meta(*tensors, **attributes),
        inputs,
        keywords,
    )
    for output in recorded.outputs.tensors:
        _dtypes.from_torch(output.dtype)
    _check_outputs_written(recorded)
    _check_grid(recorded)
    return recorded


class KernelStore:
    """Kernels built so far, and the errors of those that cannot be.

    TensorRT asks for a tactic several times and needs the same answer each time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._built: dict[str, Kernel | AnnotationError] = {}

    def get(
        self,
        plugin: Plugin,
        tactic: Tactic,
        inputs: Sequence[TensorInfo],
        attributes: Mapping[str, Any],
        target: Target,
    ) -> Kernel:
        """The kernel of ``tactic`` for ``inputs``; built on first use.

        Raises:
            AnnotationError: it cannot be recorded, or compiled, or launched.
        """
        key = fingerprint(
            plugin.op,
            plugin.spec.fingerprint,
            tactic.number,
            repr(tuple(inputs)),
            dict(attributes),
            repr(target),
        )
        with self._lock:
            if key not in self._built:
                try:
                    built: Kernel | AnnotationError = _build(
                        plugin, tactic, inputs, attributes, target
                    )
                except AnnotationError as error:
                    built = error
                except Exception as error:
                    # TensorRT must not see it: it ends the process for one in autotune.
                    built = CompileError(
                        f"{plugin.op}, tactic {tactic.number}: unexpected "
                        f"{type(error).__name__}: {error}. Please report this."
                    )
                    built.__cause__ = error
                self._built[key] = built
        found = self._built[key]
        if isinstance(found, AnnotationError):
            raise found
        return found


kernels = KernelStore()


def _build(
    plugin: Plugin,
    tactic: Tactic,
    inputs: Sequence[TensorInfo],
    attributes: Mapping[str, Any],
    target: Target,
) -> Kernel:
    recorded = record_tactic(plugin, tactic, inputs, attributes)
    compiled = backend(tactic.spec.backend).compile(
        recorded, target, tactic.spec.options(tactic.config), plugin.spec.aligned
    )
    entry = _entry_name(plugin, tactic, recorded, compiled)
    code = _ptx.reorder(
        compiled.code,
        compiled.slots,
        {
            Kind.INPUT: len(inputs),
            Kind.EXTRA: len(compiled.extras),
            Kind.OUTPUT: len(recorded.outputs.tensors),
        },
        entry,
    )
    code, resources = _ptx.settle(code, target.arch, compiled.ptxas)
    return Kernel(entry, code, recorded, compiled, resources)


def _entry_name(
    plugin: Plugin, tactic: Tactic, recorded: LaunchRecord, compiled: CompiledKernel
) -> str:
    """Unique to op, tactic, dtypes and code: TensorRT confuses equal names."""
    dtypes = [t.dtype for t in recorded.inputs]
    dtypes += [t.dtype for t in recorded.outputs.tensors]
    digest = fingerprint(dtypes, _ptx.without_debug_info(compiled.code))
    op = re.sub(r"\W", "_", plugin.op)
    return f"{op}_t{tactic.number}_{digest[:12]}"


def _check_outputs_written(recorded: LaunchRecord) -> None:
    """Every output must reach the kernel: nothing else in an engine fills it."""
    passed = {getattr(argument, "tensor", None) for argument in recorded.arguments}
    first = len(recorded.inputs)
    for index in range(len(recorded.outputs.tensors)):
        if first + index not in passed:
            raise ArgumentError(
                f"kernel {recorded.name}: output {index} of the meta function is not "
                "an argument of the launch, so nothing would write it. Let the meta "
                "function return what the launch function takes after the inputs."
            )


def _check_grid(recorded: LaunchRecord) -> None:
    for axis, size, limit in zip("xyz", recorded.grid, _GRID_LIMITS, strict=True):
        lower, upper = bounds(size, recorded.ranges)
        if lower < 1 or upper > limit:
            raise ArgumentError(
                f"kernel {recorded.name}: the grid's {axis}, {size}, runs from {lower} "
                f"to {upper} within the profile; CUDA launches 1 to {limit} blocks "
                "there. Narrow the profile, or change the grid."
            )
