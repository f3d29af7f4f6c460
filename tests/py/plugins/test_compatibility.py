# SPDX-License-Identifier: BSD-3-Clause

"""What code for Torch-TensorRT's own plugin functions relies on beside their calls."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import tensorrt.plugin as trtp
import torch
from tensorrt.plugin._lib import QDP_REGISTRY
from torch._dynamo.source import LocalSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch_ops import torch_op
from typing_extensions import TypeAliasType

import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import errors
from torch_tensorrt.dynamo.conversion._ConverterRegistry import (
    DYNAMO_ATEN_CONVERTERS,
    DYNAMO_CONVERTERS,
)
from torch_tensorrt.dynamo.conversion.plugins import (
    _generate_plugin,
    _generate_plugin_converter,
)

SPELLINGS = {
    "as in the 2.14 wheel": np.ndarray[Any, np.dtype[np.float64]],
    "as on main": npt.NDArray[np.float64],
    "this library's": _generate_plugin.np_scalar_attr_annotation(np.float64),
}


def scale(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.empty_like(x)


def require_taken(annotation: Any) -> None:
    """TensorRT takes it for an attribute that the plugin was registered with."""

    def aot(x: Any, alpha: Any, outputs: Any, tactic: Any) -> Any:
        raise AssertionError("nobody asks for a kernel")

    aot.__annotations__ = {
        "alpha": annotation,
        "return": tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs],
    }
    with torch_op("scale(Tensor x, float alpha) -> Tensor", scale) as op:
        trt_plugins.generate_plugin(op)
        trtp.aot_impl(op)(aot)
        assert QDP_REGISTRY[op].aot_impl_func is aot


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_attribute_is_annotated_in_any_spelling_of_its_array(spelling: str) -> None:
    require_taken(SPELLINGS[spelling])


def test_an_attribute_is_annotated_with_the_alias_of_numpy_2_5(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    T = TypeVar("T")
    array = np.ndarray[Any, np.dtype[T]]  # type: ignore[type-var]
    alias = TypeAliasType("NDArray", array, type_params=(T,))
    monkeypatch.setattr(npt, "NDArray", alias)
    require_taken(alias[np.float64])


@pytest.mark.parametrize(
    "other", [npt.NDArray[np.float32], npt.NDArray[np.int64], np.ndarray, float, Any]
)
def test_an_annotation_of_something_else_differs(other: Any) -> None:
    known = SPELLINGS["this library's"]
    assert known != other
    assert other != known


def test_annotations_of_the_same_dtype_have_the_same_hash() -> None:
    known = _generate_plugin._TORCH_SCHEMA_TYPE_TO_PLUGIN_ATTR_TYPE
    assert set(known) == {"float", "int", "bool"}
    assert hash(known["float"]) == hash(SPELLINGS["this library's"])


def test_functions_that_torch_tensorrts_module_has_are_there_under_their_names() -> (
    None
):
    sizes = ShapeEnv()
    made = _generate_plugin.mksym(sizes, 7, LocalSource("n"), DimDynamic.DYNAMIC)
    assert isinstance(made, torch.SymInt) and made.node.hint == 7
    with torch_op("scale(Tensor x, float alpha) -> Tensor", scale) as op:
        _generate_plugin._generate_plugin(op)
        assert op in QDP_REGISTRY


def test_errors_are_also_what_torch_tensorrt_raises_in_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AttributeError, match="no such op") as unknown:
        trt_plugins.generate_plugin("gen::unknown")
    with torch_op("scale(Tensor x, float alpha) -> Tensor", scale) as op:
        with pytest.raises(AssertionError, match="no TensorRT plugin") as missing:
            trt_plugins.generate_plugin_converter(op)
        trt_plugins.generate_plugin(op)
        with pytest.raises(ValueError, match="of this name already") as known:
            trt_plugins.generate_plugin(op)
        monkeypatch.setattr("tensorrt.__version__", "10.14.1.48")
        with pytest.raises(NotImplementedError, match="no usable") as unavailable:
            trt_plugins.generate_plugin_converter(op)
    kinds = (unknown.type, missing.type, known.type, unavailable.type)
    assert kinds == (
        errors.UnknownOpError,
        errors.PluginMissingError,
        errors.RegistrationError,
        errors.UnavailableError,
    )


def test_a_converter_is_made_for_an_overload_by_its_parts() -> None:
    def describe(x: Any, alpha: Any) -> Any:
        return x.like()

    describe.__annotations__ = {
        "x": trtp.TensorDesc,
        "alpha": SPELLINGS["this library's"],
        "return": trtp.TensorDesc,
    }

    with torch_op("scale.both(Tensor x, float alpha) -> Tensor", scale) as op:
        trtp.register(op)(describe)
        make = _generate_plugin_converter._generate_plugin_converter
        make("gen", "scale", "both", supports_dynamic_shapes=True)
        overload = torch.ops.gen.scale.both
        try:
            assert overload in DYNAMO_CONVERTERS
        finally:
            DYNAMO_ATEN_CONVERTERS.pop(overload)
