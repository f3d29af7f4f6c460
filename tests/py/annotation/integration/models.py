# SPDX-License-Identifier: BSD-3-Clause

"""One table of models, each with ops of this project among layers of TensorRT's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from cutedsl_references import REFERENCES as CUTEDSL_REFERENCES
from cutile_references import CUTILE_REFERENCES, rms_norm
from kernels import BATCH, BLOCKS, CASES, Case, info, launch_rms_norm, launch_silu
from kernels import launch_scale as launch_triton_scale
from model_kernels import MODEL_CASES
from test_formats import launch_channel_sum, launch_double, one_channel
from triton_references import REFERENCES as TRITON_REFERENCES
from triton_references import in_dtypes_of
from up_to_the_builder import as_input

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._tensors import Range


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package it is in
        return False


HAS = {"triton": True, "cutile": has("cuda.tile"), "cutedsl": has("cutlass")}
if HAS["cutile"]:
    import cutile_kernels
if HAS["cutedsl"]:
    import cutedsl_kernels

half, bf16, f32 = torch.float16, torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Layer:
    """What is expected of a plugin layer: its op, and what the network gives it.

    In names of inputs ``{node}`` is its own node, ``{previous}`` the layer before it.
    """

    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model, its profile, and the same in plain PyTorch.

    Attributes:
        make: registers the ops, and makes the module.
        plain: from the module and its inputs to the outputs.
        references: the ops in PyTorch, for the dry run; attributes come by name.
    """

    name: str
    backends: tuple[str, ...]
    make: Callable[[], torch.nn.Module]
    inputs: tuple[torch_tensorrt.Input, ...]
    layers: tuple[Layer, ...]
    plain: Callable[..., Any]
    references: Mapping[str, Callable[..., Any]]


class Around(torch.nn.Module):
    """An op between two layers of TensorRT's own."""

    def __init__(self, op: Callable[..., Any]) -> None:
        super().__init__()
        self.op = op

    def around(self, first: torch.Tensor, *rest: torch.Tensor) -> Any:
        out = self.op(first * 0.5, *rest)
        return tuple(o + 1 for o in out) if isinstance(out, tuple) else out + 1


class AroundOne(Around):
    def forward(self, x: torch.Tensor) -> Any:
        return self.around(x)


class AroundTwo(Around):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.around(x, y)


class AroundThree(Around):
    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return self.around(x, y, z)


ARITIES = (AroundOne, AroundTwo, AroundThree)
NAMES = ("mul", "y", "z")  # of what reaches the op: the product, and inputs


def function(op: str) -> Callable[..., Any]:
    namespace, _, name = op.partition("::")
    return getattr(getattr(torch.ops, namespace), name)  # type: ignore[no-any-return]


def of_case(case: Case, plain: Callable[..., Any], dynamic: bool = True) -> Model:
    """A model of one of the tests' kernels."""
    op = f"model::{case.name}"
    inputs = case.dynamic if dynamic else case.static
    around = ARITIES[len(inputs) - 1]
    reference = in_dtypes_of(case.meta, plain)

    def make() -> torch.nn.Module:
        trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=dynamic)
        return around(function(op))

    return Model(
        f"{case.kernel.backend}-{case.name}" + ("" if dynamic else "-static"),
        (case.kernel.backend,),
        make,
        tuple(map(as_input, inputs)),
        (Layer(op, NAMES[: len(inputs)]),),
        lambda module, *tensors: around(reference)(*tensors),
        {op: reference},
    )


def scaled(language: str, spec: Any, plain: Callable[..., Any], name: str) -> Model:
    """An op with an attribute, called twice with two values."""
    op = f"model::{language}_scaled"

    def meta(x: torch.Tensor, factor: float) -> torch.Tensor:
        return torch.empty_like(x)

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scaled = function(op)
            return torch.relu(scaled(x, 0.25)) + scaled(x, factor=-2.0)  # type: ignore[no-any-return]

    def make() -> torch.nn.Module:
        impl = tta.custom_plugin(spec, meta_impl=meta)
        trt_plugins.custom_op(op, impl=impl, supports_dynamic_shapes=True)
        return Twice()

    return Model(
        f"{language}-{name}",
        (language,),
        make,
        (as_input(info(BATCH, 25, dtype=f32)),),
        tuple(Layer(op, ("x",), {"factor": value}) for value in (0.25, -2.0)),
        lambda module, x: torch.relu(plain(x, 0.25)) + plain(x, -2.0),
        {op: plain},
    )


def weighted(language: str, spec: Any) -> Model:
    """RMSNorm at the size of a language model, with its weight in the engine."""
    op, width = f"model::{language}_weighted", 4096
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(width, generator=generator).half()

    def make() -> torch.nn.Module:
        impl = tta.custom_plugin(
            spec, meta_impl=lambda x: torch.empty_like(x), weight=weight
        )
        trt_plugins.custom_op(op, impl=impl, supports_dynamic_shapes=True)
        return AroundOne(function(op))

    def plain(x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight.to(x.device)).to(x.dtype)

    return Model(
        f"{language}-weight",
        (language,),
        make,
        (as_input(info(BATCH, width)),),
        (Layer(op, ("mul", "{node}_weight")),),
        lambda module, x: AroundOne(plain)(x),
        {op: plain},
    )


def chain() -> Model:
    """An op of each language, with a matrix product before each."""
    specs = {
        "triton": tta.triton(launch_silu, BLOCKS),
        "cutile": tta.cutile(cutile_kernels.launch_relu),
        "cutedsl": tta.cutedsl(cutedsl_kernels.launch_silu, cutedsl_kernels.BLOCKS),
    }
    silu = torch.nn.functional.silu
    plain = {"triton": silu, "cutile": torch.relu, "cutedsl": silu}

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linears = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in specs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ops = [function(f"model::chain_{language}") for language in specs]
            return self.apply_all(x, ops)

        def apply_all(self, x: torch.Tensor, ops: Any) -> torch.Tensor:
            for linear, op in zip(self.linears, ops, strict=True):
                x = op(linear(x))
            return x

    def make() -> torch.nn.Module:
        for language, spec in specs.items():
            trt_plugins.custom_op(
                f"model::chain_{language}",
                impl=tta.custom_plugin(spec, meta_impl=lambda x: torch.empty_like(x)),
                supports_dynamic_shapes=True,
            )
        return Chain().half()

    return Model(
        "chain-of-three-languages",
        tuple(specs),
        make,
        (as_input(info(BATCH, 64)),),
        tuple(
            Layer(f"model::chain_{language}", (linear,))
            for language, linear in zip(
                specs, ("linear", "linear_1", "linear_2"), strict=True
            )
        ),
        lambda module, x: module.apply_all(x, plain.values()),
        {f"model::chain_{language}": plain[language] for language in specs},
    )


def parameters() -> Model:
    """A module's own parameter as an input of the op."""
    (case,) = (case for case in CASES if case.name == "rms_norm")
    op = "model::parameter"

    class Norm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(512))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(op)(x * 0.5, self.weight) + 1  # type: ignore[no-any-return]

    def make() -> torch.nn.Module:
        trt_plugins.custom_op(op, impl=case.plugin, supports_dynamic_shapes=True)
        return Norm().bfloat16()

    def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight).to(x.dtype)

    return Model(
        "triton-parameter",
        ("triton",),
        make,
        (as_input(case.dynamic[0]),),
        (Layer(op, ("mul", "{node}_weight")),),
        lambda module, x: plain(x * 0.5, module.weight) + 1,
        {op: plain},
    )


def packed() -> Model:
    """CHW32 from a convolution through two ops, of which one also takes row-major."""
    double, total = "model::packed_double", "model::packed_sum"
    chw32 = {"input_formats": "CHW32", "output_formats": "CHW32"}

    class Packed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 40, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = function(double)(self.convolution(x))
            return function(total)(x)  # type: ignore[no-any-return]

    def make() -> torch.nn.Module:
        kernels = [tta.triton(launch_double, **chw32), tta.triton(launch_double)]
        impl = tta.custom_plugin(kernels, meta_impl=lambda x: torch.empty_like(x))
        trt_plugins.custom_op(double, impl=impl, supports_dynamic_shapes=True)
        kernel = tta.triton(launch_channel_sum, input_formats="CHW32")
        impl = tta.custom_plugin(kernel, meta_impl=one_channel)
        trt_plugins.custom_op(total, impl=impl, supports_dynamic_shapes=True)
        return Packed().half()

    def sums(x: torch.Tensor) -> torch.Tensor:
        return x.float().sum(1, keepdim=True).to(x.dtype)

    return Model(
        "triton-chw32",
        ("triton",),
        make,
        (as_input(info(Range(1, 4, 8), 3, 16, 16)),),
        (Layer(double, ("convolution",)), Layer(total, ("{previous}:0",))),
        lambda module, x: sums(2 * module.convolution(x)),
        {double: lambda x: 2 * x, total: sums},
    )


def chosen(
    cases: list[Case], references: Mapping[str, Any], *names: str
) -> list[Model]:
    found = {case.name: case for case in cases}
    return [of_case(found[name], references[name]) for name in names]


def large(cases: list[Case], name: str, *inputs: Any) -> list[Case]:
    """The case at the sizes of a language model."""
    (case,) = (case for case in cases if case.name == name)
    return [replace(case, name=f"large_{name}", dynamic=inputs)]


def triton_models() -> list[Model]:
    cases, plain = [*CASES, *MODEL_CASES], TRITON_REFERENCES
    rows = info(BATCH, 4096, dtype=bf16)
    norm = large(CASES, "rms_norm", rows, info(4096, dtype=bf16))
    names = ("silu", "softmax", "add_ragged", "min_max", "swiglu", "geglu", "permute")
    (silu,) = (case for case in CASES if case.name == "silu")
    return [
        *chosen(cases, plain, *names, "add_rms_norm", "rotary", "swizzled_matmul"),
        of_case(norm[0], plain["rms_norm"]),
        of_case(silu, plain["silu"], dynamic=False),
        scaled(
            "triton",
            tta.triton(lambda x, out, factor: launch_triton_scale(x, out, factor)),
            lambda x, factor: -x * factor,
            "attribute",
        ),
        weighted("triton", tta.triton(launch_rms_norm, [{}, {"num_warps": 8}])),
        parameters(),
        packed(),
    ]


def cutile_models() -> list[Model]:
    kernels, plain = cutile_kernels, CUTILE_REFERENCES
    names = ("relu", "reglu", "rms_norm", "softmax", "min_max", "matmul_tails")
    (relu,) = (case for case in kernels.CUTILE_CASES if case.name == "relu")

    def launch(x: Any, out: Any, factor: float) -> None:
        kernels.launch_scale(x, out, factor)

    return [
        *chosen(kernels.CUTILE_CASES, plain, *names, "attention"),
        of_case(relu, plain["relu"], dynamic=False),
        scaled(
            "cutile", tta.cutile(launch), lambda x, factor: -x * factor, "attribute"
        ),
        weighted("cutile", tta.cutile(kernels.launch_rms_norm)),
    ]


def cutedsl_models() -> list[Model]:
    kernels, plain = cutedsl_kernels, CUTEDSL_REFERENCES
    names = ("silu", "hadamard", "add", "rms_norm", "softmax", "min_max")
    (silu,) = (c for c in kernels.CUTEDSL_CASES if c.name == "cute_silu")
    return [
        *chosen(kernels.CUTEDSL_CASES, plain, *(f"cute_{name}" for name in names)),
        of_case(silu, plain["cute_silu"], dynamic=False),
        scaled(
            "cutedsl",
            tta.cutedsl(kernels.launch_scalars),
            scalars_reference,
            "attribute",
        ),
        weighted("cutedsl", tta.cutedsl(kernels.launch_rms_norm, eps=1e-6)),
    ]


def scalars_reference(x: torch.Tensor, factor: float) -> torch.Tensor:
    rows, columns = x.shape
    is_even = x.numel() % 2 == 0
    return x * factor + float(rows > 20) + float(rows * columns * is_even)


MODELS = [
    *triton_models(),
    *(cutile_models() if HAS["cutile"] else []),
    *(cutedsl_models() if HAS["cutedsl"] else []),
    *([chain()] if all(HAS.values()) else []),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
