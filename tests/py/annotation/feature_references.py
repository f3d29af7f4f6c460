# SPDX-License-Identifier: BSD-3-Clause

"""The rows of the table of features, in PyTorch; needs no kernel language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_tensorrt.annotation._tensors import FORMATS, Format, Range, TensorInfo
from torch_tensorrt.annotation.errors import AnnotationError, DTypeError

BACKENDS = {
    "triton": "Triton",
    "cutile": "cuTile",
    "cutedsl": "CuTe DSL",
    "cuda": "CUDA C++",
}
ROWS = Range(1, 8, 64)
COLUMNS = Range(1, 40, 300)
WEIGHT = torch.linspace(-2, 2, 48, dtype=torch.float16)


@dataclass(frozen=True)
class Refused:
    """A cell that does not work: the error that says so."""

    error: type[AnnotationError]
    match: str


@dataclass(frozen=True)
class Feature:
    """One row: what it needs of a backend, and what comes out.

    Attributes:
        title: its name in the documentation.
        launch: which launch function of each backend's it takes.
        inputs: of the op; None for one that is not given.
        reference: from the inputs to the outputs.
        meta: the op's fake kernel.
        keywords: what ``custom_plugin`` gets: weights and attributes.
        arguments: values of the op's own arguments that are not tensors.
        format: of all tensors.
        refused: the backends that refuse it.
    """

    title: str
    launch: str
    inputs: tuple[TensorInfo | None, ...]
    reference: Callable[..., Any]
    meta: Callable[..., Any] = lambda x: torch.empty_like(x)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    format: str = "LINEAR"
    refused: Mapping[str, Refused] = field(default_factory=dict)


def info(*shape: int | Range, dtype: torch.dtype = torch.float16) -> TensorInfo:
    return TensorInfo(shape, dtype)


def double(x: torch.Tensor) -> torch.Tensor:
    """The sum of ``x`` with itself; of a bool, whether it is false."""
    if x.dtype == torch.bool:
        return ~x
    if x.dtype == torch.float8_e4m3fn:
        return (x.float() * 2).to(x.dtype)
    return x + x


def two_meta(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)


def argument_meta(x: torch.Tensor, scale: float, shift: int = 0) -> torch.Tensor:
    return torch.empty_like(x)


DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8 (e4m3)": torch.float8_e4m3fn,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
SHAPE = (ROWS, 3, 2, 5, 4)
CHANNELS = Range(3, 40, 70)  # not multiples of what formats pad them to
BIASED = info(ROWS, 48), info(48)


def biased_meta(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.empty_like(x)


def packed(fmt: Format, dtype: torch.dtype) -> Feature:
    image = (Range(1, 2, 5), CHANNELS, *((3, 4, 2) if fmt.channel == -4 else (6, 5)))
    title = f"{fmt.name}, {str(dtype).removeprefix('torch.')}"
    inputs = (info(*image, dtype=dtype),)
    return Feature(title, "double", inputs, double, format=fmt.name)


FEATURES = {
    "weights": Feature(
        "weights",
        "weighted",
        (info(ROWS, 48),),
        lambda x: x * WEIGHT.to(x.device),
        keywords={"weight": WEIGHT},
    ),
    "attributes": Feature(
        "attributes of the plugin",
        "affine",
        (info(ROWS, 48),),
        lambda x: x * 0.5 + 3,
        keywords={"scale": 0.5, "shift": 3},
    ),
    "arguments": Feature(
        "attributes of a call",
        "affine",
        (info(ROWS, 48),),
        lambda x: x * 0.25 + 7,
        meta=argument_meta,
        arguments={"scale": 0.25, "shift": 7},
    ),
    "two_outputs": Feature(
        "two outputs, of two dtypes",
        "two",
        (info(ROWS, 48),),
        lambda x: (x + x, -x.float()),
        meta=two_meta,
    ),
    "hidden_output": Feature(
        "a buffer that the op does not return",
        "hidden",
        (info(ROWS, 48),),
        double,
    ),
    "bias": Feature(
        "a tensor that may be None, given",
        "biased",
        BIASED,
        lambda x, bias: x + bias,
        meta=biased_meta,
    ),
    "no_bias": Feature(
        "a tensor that may be None, and is",
        "biased",
        (BIASED[0], None),
        lambda x, bias: x + x,
        meta=biased_meta,
    ),
    "halves": Feature(
        "views that start inside a tensor",
        "halves",
        (info(ROWS, 50),),
        lambda x: x[:, :25] - x[:, 25:],
        meta=lambda x: x.new_empty(x.shape[0], 25),
    ),
    "packed": Feature(
        "views whose offset follows the shape",
        "packed",
        (info(2, ROWS, COLUMNS),),
        lambda x: x[0] - x[1],
        meta=lambda x: x.new_empty(x.shape[1:]),
    ),
    "stacked": Feature(
        "views of an output",
        "stacked",
        (info(ROWS, COLUMNS),),
        lambda x: torch.stack([x + x, -x]),
        meta=lambda x: x.new_empty(2, *x.shape),
    ),
    "dynamic": Feature(
        "several dynamic sizes", "double", (info(ROWS, 3, COLUMNS),), double
    ),
    **{
        f"rank_{rank}": Feature(
            f"rank {rank}", "double", (info(*SHAPE[:rank]),), double
        )
        for rank in range(6)
    },
    **{
        name.partition(" ")[0]: Feature(
            name, "double", (info(ROWS, 48, dtype=dtype),), double
        )
        for name, dtype in DTYPES.items()
    },
    **{
        f"{fmt.name}_{str(dtype).removeprefix('torch.')}": packed(fmt, dtype)
        for fmt in FORMATS.values()
        for dtype in fmt.dtypes
    },
    "fp64": Feature(
        "fp64",
        "double",
        (info(ROWS, 48, dtype=torch.float64),),
        double,
        refused=dict.fromkeys(
            BACKENDS, Refused(DTypeError, r"torch\.float64 has no counterpart")
        ),
    ),
}


def references(backend: str) -> dict[str, Callable[..., Any]]:
    """What is to be executed of a column, and what it gives."""
    return {
        name: feature.reference
        for name, feature in FEATURES.items()
        if backend not in feature.refused
    }


CUTILE_REFERENCES, CUTEDSL_REFERENCES = references("cutile"), references("cutedsl")
WEIGHTS = {
    name: weights
    for name, feature in FEATURES.items()
    if (weights := {n: v for n, v in feature.keywords.items() if torch.is_tensor(v)})
}
