# SPDX-License-Identifier: BSD-3-Clause

"""An op of a public library, and the tensors to try it on.

A module of ``cases`` lists a library's ops. Each is a function that imports the
library's own launcher and returns the op's body, which names tensors and constants
only::

    op = Library("liger-kernel", "triton")

    @op("norm", x="rows 4096 bf16", w="4096 bf16", out="x", rows=(1, 64, 512))
    def rms_norm():
        from liger_kernel.ops.rms_norm import rms_norm_forward

        return lambda x, w: rms_norm_forward(x, w, 1e-6, 0.0, "llama", False)[0]

A tensor is its extents and its dtype. An extent is an int, or the name of a size, maybe
with operations from left to right: ``rows//32``, ``rows+31//32``. A size is a range
``(min, opt, max)``, or an int. The dtype says which values a tensor has on a GPU:
``f32+`` are positive, ``f32-`` are negative, ``i64<100`` are indices. An output is
described like an input, or has the dtype of an input, or is like one altogether:
``out=("rows k x", "x")``.

Of each op the same sizes are dynamic, whether a library likes that or not: batches,
rows (the tokens of a batch), and the lengths of sequences, which start at 64, for they
are prompts. What a model has once and for all is static: hidden sizes, heads, the
vocabulary, weights, and tables such as those of rotary embeddings.
"""

from __future__ import annotations

import importlib
import inspect
import operator
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Range: TypeAlias = tuple[int, int, int]  # min, opt, max

KINDS = (
    "activation",
    "attention",
    "convolution",
    "cross-entropy",
    "elementwise",
    "GEMM",
    "indexing",
    "loss",
    "MoE",
    "norm",
    "quantisation",
    "reduction",
    "rotary",
    "state-space",
)

DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8": torch.float8_e4m3fn,
    "i64": torch.int64,
    "i32": torch.int32,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
}

_EXTENT = re.compile(r"(\d+|[a-z_]+)((?:(?:\*|\+|//)\d+)*)")
_STEP = re.compile(r"(\*|\+|//)(\d+)")
_OPERATORS = {"*": operator.mul, "+": operator.add, "//": operator.floordiv}
_DTYPE = re.compile(r"(\w+)(\+|-|<\d+)?")


@dataclass(frozen=True)
class Extent:
    """A number, or a size by its name, and what is done to it, from left to right."""

    base: str | int
    steps: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, text: str) -> Extent:
        if (match := _EXTENT.fullmatch(text)) is None:
            raise ValueError(
                f"{text!r} is not an extent, such as 64, rows, rows+31//32"
            )
        base = int(match[1]) if match[1].isdigit() else match[1]
        return cls(base, tuple((o, int(n)) for o, n in _STEP.findall(match[2])))

    def __str__(self) -> str:
        return f"{self.base}{''.join(f'{o}{n}' for o, n in self.steps)}"

    def at(self, sizes: Mapping[str, Any]) -> Any:
        value = sizes[self.base] if isinstance(self.base, str) else self.base
        for operation, number in self.steps:
            value = _OPERATORS[operation](value, number)
        return value


@dataclass(frozen=True)
class Tensor:
    """Its extents and dtype. The dtype of an output may be that of an input."""

    extents: tuple[Extent, ...]
    dtype: torch.dtype
    values: str = ""
    dtype_of: str = ""

    @classmethod
    def of(cls, text: str, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        *described, dtype = text.split()
        extents = tuple(map(Extent.of, described))
        if inputs and dtype in inputs:
            return cls(extents, inputs[dtype].dtype, dtype_of=dtype)
        if (match := _DTYPE.fullmatch(dtype)) is None or match[1] not in DTYPES:
            raise ValueError(f"{text!r}: {dtype!r} is not one of {', '.join(DTYPES)}")
        return cls(extents, DTYPES[match[1]], match[2] or "")

    @property
    def sizes(self) -> set[str]:
        return {e.base for e in self.extents if isinstance(e.base, str)}

    def shape(self, sizes: Mapping[str, Any]) -> tuple[Any, ...]:
        """The extents for some sizes, which may be ints or torch's symbols."""
        return tuple(extent.at(sizes) for extent in self.extents)

    def bind(self, shape: Sequence[Any]) -> dict[str, Any]:
        """The sizes that are extents of a tensor of this shape."""
        return {
            extent.base: given
            for extent, given in zip(self.extents, shape, strict=True)
            if isinstance(extent.base, str) and not extent.steps
        }

    def random(self, shape: Sequence[int]) -> torch.Tensor:
        """A tensor of this kind, on the GPU."""
        if self.values.startswith("<"):
            most = int(self.values[1:])
            return torch.randint(most, shape, dtype=self.dtype, device="cuda")
        if self.dtype.is_floating_point:
            made = torch.randn(shape, device="cuda")
            if self.values:
                made = (made.abs() + 0.1) * (1 if self.values == "+" else -1)
            return made.to(self.dtype)
        if self.dtype == torch.bool:
            return torch.rand(shape, device="cuda") < 0.5
        bounds = torch.iinfo(self.dtype)
        low, high = max(bounds.min, -128), min(bounds.max, 127)
        return torch.randint(low, high + 1, shape, dtype=self.dtype, device="cuda")


@dataclass(frozen=True)
class Case:
    """One op.

    Attributes:
        library: its distribution on PyPI.
        language: of its kernels, as ``torch_tensorrt.annotation`` names it.
        name: of the op, as the library calls it.
        kind: one of ``KINDS``.
        load: imports the library and returns the op's body, or the library's torch op.
        inputs: by the names of the body's parameters.
        outputs: what the body returns, or the name of an input that it is like; empty
            for an op that only writes its inputs.
        sizes: ranges of the named extents.
        mutates: names of inputs that the library's launcher writes.
        tolerance: of ``dry_run``, where an output needs one of its own.
        limit_s: the seconds that a mode may take, where it takes more than others.
    """

    library: str
    language: str
    name: str
    kind: str
    load: Callable[[], Callable[..., Any]]
    inputs: Mapping[str, Tensor]
    outputs: tuple[str | Tensor, ...]
    sizes: Mapping[str, Range]
    mutates: tuple[str, ...] = ()
    tolerance: float | None = None
    limit_s: float = 0

    @property
    def id(self) -> str:
        return f"{self.library}/{self.language}/{self.name}"

    @property
    def op(self) -> str:
        """What torch calls it, unless the library has made it a torch op itself."""
        return "compat::" + re.sub(r"\W", "_", self.id)

    @property
    def schema(self) -> str:
        """Of the torch op, without its name."""
        written = "abcdefghij"
        arguments = (
            f"Tensor({written[self.mutates.index(name)]}!) {name}"
            if name in self.mutates
            else f"Tensor {name}"
            for name in self.inputs
        )
        returned = ", ".join("Tensor" for _ in self.outputs)
        one = len(self.outputs) == 1
        return f"({', '.join(arguments)}) -> {returned if one else f'({returned})'}"

    @property
    def is_dynamic(self) -> bool:
        return any(low != high for low, _, high in self.sizes.values())

    def fake(self, *inputs: torch.Tensor) -> Any:
        """The op's fake kernel. As any, it takes shapes other than those listed, and
        says which extents are equal.
        """
        given = dict(zip(self.inputs, inputs, strict=True))
        sizes: dict[str, Any] = {}
        for name, tensor in given.items():
            for size, extent in self.inputs[name].bind(tensor.shape).items():
                first = sizes.setdefault(size, extent)
                if first != extent:
                    raise ValueError(f"{self.id}: {size} is {first} and {extent}")
        for name, tensor in given.items():
            for wanted, extent in zip(
                self.inputs[name].extents, tensor.shape, strict=True
            ):
                if wanted.steps and wanted.at(sizes) != extent:
                    raise ValueError(f"{self.id}: {name} has {extent}, not {wanted}")
        made = tuple(
            torch.empty_like(given[output])
            if isinstance(output, str)
            else inputs[0].new_empty(
                output.shape(sizes),
                dtype=given[output.dtype_of].dtype if output.dtype_of else output.dtype,
            )
            for output in self.outputs
        )
        if not made:
            return None
        return made if len(made) > 1 else made[0]


class Library:
    """Collects the ops of a library: a decorator, see the module's docstring."""

    def __init__(self, name: str, language: str) -> None:
        self.name, self.language = name, language
        self.cases: list[Case] = []

    def __call__(
        self,
        kind: str,
        *,
        out: str | tuple[str, ...] = (),
        mutates: str = "",
        tolerance: float | None = None,
        limit_s: float = 0,
        **described: str | int | Range,
    ) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        inputs = {n: Tensor.of(d) for n, d in described.items() if isinstance(d, str)}
        sizes = {
            n: (d, d, d) if isinstance(d, int) else d
            for n, d in described.items()
            if not isinstance(d, str)
        }
        outputs = tuple(
            text if text in inputs else Tensor.of(text, inputs)
            for text in ((out,) if isinstance(out, str) else out)
        )

        def add(load: Callable[[], Any]) -> Callable[[], Any]:
            name = load.__name__.rstrip("_")
            case = Case(
                self.name,
                self.language,
                name,
                kind,
                load,
                inputs,
                outputs,
                sizes,
                tuple(mutates.split()),
                tolerance,
                limit_s,
            )
            _check(case)
            self.cases.append(case)
            return load

        return add


def _check(case: Case) -> None:
    """A slip in the list is an error when it is read, not a verdict on the op."""
    if case.kind not in KINDS:
        raise ValueError(f"{case.id}: {case.kind!r} is not one of {', '.join(KINDS)}")
    bound: set[str] = set()
    for tensor in case.inputs.values():
        bound |= tensor.bind(tensor.extents).keys()
    described = [t for t in case.outputs if isinstance(t, Tensor)]
    used = {s for t in (*case.inputs.values(), *described) for s in t.sizes}
    if used != set(case.sizes) or used != bound:
        raise ValueError(
            f"{case.id}: sizes {sorted(used)} are used, {sorted(bound)} are extents of "
            f"an input, and {sorted(case.sizes)} have a range"
        )
    if unknown := {*case.mutates} - {*case.inputs}:
        raise ValueError(f"{case.id}: mutates {sorted(unknown)}, which are not inputs")


def all_cases() -> Iterator[Case]:
    """Every op, library by library. The libraries are not imported."""
    from . import cases

    for module in sorted(pkgutil.iter_modules(cases.__path__), key=lambda m: m.name):
        loaded = importlib.import_module(f"{cases.__name__}.{module.name}")
        for _, library in inspect.getmembers(loaded, lambda v: isinstance(v, Library)):
            yield from library.cases
