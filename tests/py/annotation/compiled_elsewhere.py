# SPDX-License-Identifier: BSD-3-Clause

"""Kernels compiled on one machine, and run on the GPU of another without a compiler."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._record import as_tensors
from torch_tensorrt.annotation._tensors import DType, TensorInfo
from torch_tensorrt.annotation.errors import AnnotationError

PROJECT = Path(__file__).resolve().parents[3]
SUFFIX = ".json.gz"


@dataclass(frozen=True)
class Group:
    """A list of cases, and where it is; a module is imported when it is needed.

    Attributes:
        name: the folder of its reports.
        target: what it is compiled for.
        cases: ``module:LIST``, or a function that makes it, which needs the kernels'
            language.
        references: ``module:DICT``, from a case's name to torch; needs torch alone.
        weights: the same, to the plugin's weights by name.
    """

    name: str
    target: str
    cases: str
    references: str
    weights: str = "feature_references:WEIGHTS"

    def load(self, what: str) -> Any:
        """``cases``, ``references`` or ``weights``."""
        module, _, name = getattr(self, what).partition(":")
        found = getattr(import_module(module), name)
        return found() if callable(found) else found


_CUTILE = _CUTEDSL = "sm_90,ptx_isa=9.0"
GROUPS = [
    Group(
        "cutile",
        _CUTILE,
        "cutile_kernels:CUTILE_CASES",
        "cutile_references:CUTILE_REFERENCES",
    ),
    Group(
        "cutedsl",
        _CUTEDSL,
        "cutedsl_kernels:CUTEDSL_CASES",
        "cutedsl_references:REFERENCES",
    ),
    Group(
        "cutedsl_hardware",
        _CUTEDSL,
        "cutedsl_kernels:HARDWARE_CASES",
        "cutedsl_references:HARDWARE_REFERENCES",
    ),
    Group(
        "cutile_features",
        _CUTILE,
        "features:cutile",
        "feature_references:CUTILE_REFERENCES",
    ),
    Group(
        "cutedsl_features",
        _CUTEDSL,
        "features:cutedsl",
        "feature_references:CUTEDSL_REFERENCES",
    ),
]


def compile_group(folder: Path, group: Group) -> Iterator[tuple[Path, Any]]:
    """Write the report of each case, for static and for dynamic shapes."""
    for case in group.load("cases"):
        for kind, tensors in (("static", case.static), ("dynamic", case.dynamic)):
            path = folder / group.name / f"{case.name}.{kind}{SUFFIX}"
            inputs = as_inputs(tensors)
            arguments = (case.plugin, inputs, group.target, case.arguments)
            yield path, compile_op(path, *arguments)


def compile_op(
    path: Path,
    plugin: Any,
    inputs: Sequence[Any],
    target: str,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Write the dry run of a plugin; the report."""
    trt_plugins.custom_op(
        "elsewhere::op", impl=plugin, supports_dynamic_shapes=True, replace=True
    )
    how: dict[str, Any] = {"execute": False, "attributes": attributes}
    report = tta.dry_run("elsewhere::op", inputs, target, **how)
    tta.unregister("elsewhere::op")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "sources": sources(),
        "compilers": _compilers(),
        "report": report.to_json(),
    }
    path.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
    return report


def as_inputs(
    tensors: Sequence[TensorInfo | None],
) -> list[torch_tensorrt.Input | None]:
    """The profiles of a case, as a user writes them."""
    return [
        None
        if t is None
        else torch_tensorrt.Input(
            **{f"{which}_shape": t.at(which) for which in ("min", "opt", "max")},
            dtype=t.dtype,
        )
        for t in tensors
    ]


def sources() -> str:
    """A digest of the library, and of the modules with the kernels."""
    library = (PROJECT / "py").rglob("*.py")
    kernels = (p for p in Path(__file__).parent.glob("*.py") if "test_" not in p.name)
    digest = hashlib.sha256()
    for path in sorted([*library, *kernels]):
        digest.update(str(path.relative_to(PROJECT)).encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compilers() -> dict[str, str]:
    return {
        distribution.name: distribution.version
        for distribution in metadata.distributions()
        if distribution.name in ("triton", "cuda-tile", "nvidia-cutlass-dsl")
    }


def compilers(path: Path) -> dict[str, str]:
    """The versions of the compilers that were there when a report was made."""
    versions: dict[str, str] = json.loads(gzip.decompress(path.read_bytes()))[
        "compilers"
    ]
    return versions


def read(path: Path) -> tta.DryRunReport:
    """The report in ``path``.

    Raises:
        AnnotationError: it was compiled from other sources than those here.
    """
    data = json.loads(gzip.decompress(path.read_bytes()))
    if data["sources"] != sources():
        raise AnnotationError(
            f"{path.name} was compiled from other sources than are here. Compile it "
            "again: make kernels."
        )
    return tta.DryRunReport.from_json(data["report"])


def run_report(
    path: Path,
    reference: Callable[..., Any],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> tta.DryRunReport:
    """Check and time a report, against ``reference`` rounded to the outputs' dtypes.

    Raises:
        AnnotationError: it is stale, or a tactic is wrong.
    """
    report = read(path)
    tactic = next(t for t in report.tactics if t.error is None)
    tokens = tactic.dtypes[len(tactic.shapes[0].dims) :]

    def rounded(*tensors: torch.Tensor, **_: Any) -> tuple[torch.Tensor, ...]:
        values = as_tensors(reference(*tensors), "the reference")
        dtypes = (DType.of_token(token).torch for token in tokens)
        return tuple(v.to(d) for v, d in zip(values, dtypes, strict=True))

    report = tta.execute(report, rounded, weights=weights)
    if not all(tactic.ok for tactic in report.tactics if tactic.shapes):
        raise AnnotationError(f"{path.name}: a tactic is wrong.\n{report}")
    return report
