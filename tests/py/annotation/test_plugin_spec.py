# SPDX-License-Identifier: BSD-3-Clause

"""Kernels, fake kernel, attributes and weights, put together."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import pytest
import torch

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import CustomPluginSpec, custom_plugin
from torch_tensorrt.annotation.errors import SpecError


def launch(x: Any, out: Any, BLOCK: int = 256, alpha: float = 1.0) -> None: ...


def meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


KERNEL = tta.triton(launch)
OTHER = tta.triton(launch, BLOCK=64)


# --- custom_plugin --------------------------------------------------------------------


def test_one_kernel_and_a_list_of_it_are_the_same() -> None:
    assert custom_plugin(KERNEL, meta) == custom_plugin([KERNEL], meta)


def test_kernels_stay_in_order() -> None:
    assert custom_plugin([OTHER, KERNEL], meta).specs == (OTHER, KERNEL)


def test_kernels_in_another_order_are_another_plugin() -> None:
    assert custom_plugin([OTHER, KERNEL]) != custom_plugin([KERNEL, OTHER])


def test_the_meta_function_may_be_left_out() -> None:
    assert custom_plugin(KERNEL).meta_impl is None


def test_keywords_become_attributes_sorted_by_name() -> None:
    plugin = custom_plugin(KERNEL, meta, beta=2, alpha=1.0)
    assert plugin.attributes == (("alpha", 1.0), ("beta", 2))


def test_tensors_become_weights_in_the_order_given() -> None:
    first, second = torch.ones(2), torch.zeros(3)
    plugin = custom_plugin(KERNEL, meta, scale=first, alpha=1.0, bias=second)
    assert [(n, t is w) for (n, t), w in zip(plugin.weights, (first, second))] == [  # noqa: B905
        ("scale", True),
        ("bias", True),
    ]
    assert plugin.attributes == (("alpha", 1.0),)


def test_tensors_are_promised_to_be_aligned_unless_that_is_given_up() -> None:
    assert custom_plugin(KERNEL).aligned
    assert not custom_plugin(KERNEL, aligned=False).aligned


@pytest.mark.parametrize("spec", [None, 3, [], (), [KERNEL, None]])
def test_something_that_is_not_a_kernel_spec_is_refused(spec: Any) -> None:
    with pytest.raises(SpecError, match=r"Make one with tta\.triton\(launch_fn\)"):
        custom_plugin(spec, meta)


def test_a_meta_function_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(SpecError, match="meta_impl is 3; it must be a function"):
        custom_plugin(KERNEL, 3)  # type: ignore[arg-type]


def test_an_attribute_that_a_config_sets_too_is_refused() -> None:
    with pytest.raises(SpecError, match="'BLOCK' is both an attribute and a config"):
        custom_plugin([KERNEL, OTHER], meta, BLOCK=128)


def test_a_weight_that_a_config_sets_too_is_refused() -> None:
    with pytest.raises(SpecError, match="'BLOCK' is both"):
        custom_plugin(OTHER, meta, BLOCK=torch.ones(1))


def test_a_plugin_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        custom_plugin(KERNEL).aligned = False  # type: ignore[misc]


# --- Equality -------------------------------------------------------------------------


def test_equal_plugins_have_equal_hashes() -> None:
    one, other = (custom_plugin(KERNEL, meta, w=torch.ones(3)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(custom_plugin(OTHER, meta, alpha=1, w=torch.ones(2)), id="kernel"),
        pytest.param(custom_plugin(KERNEL, alpha=1, w=torch.ones(2)), id="meta"),
        pytest.param(
            custom_plugin(KERNEL, meta, alpha=1.0, w=torch.ones(2)), id="type"
        ),
        pytest.param(custom_plugin(KERNEL, meta, beta=1, w=torch.ones(2)), id="name"),
        pytest.param(
            custom_plugin(KERNEL, meta, alpha=1, w=torch.zeros(2)), id="weight"
        ),
        pytest.param(
            custom_plugin(KERNEL, meta, alpha=1, w=torch.ones(2, dtype=torch.half)),
            id="dtype",
        ),
        pytest.param(
            custom_plugin(KERNEL, meta, alpha=1, w=torch.ones(2, 1)), id="shape"
        ),
        pytest.param(
            custom_plugin(KERNEL, meta, aligned=False, alpha=1, w=torch.ones(2)),
            id="alignment",
        ),
    ],
)
def test_a_plugin_differs_in_any_part(other: CustomPluginSpec) -> None:
    assert custom_plugin(KERNEL, meta, alpha=1, w=torch.ones(2)) != other


# --- op_name --------------------------------------------------------------------------


def named(launch_fn: Any) -> str:
    return custom_plugin(tta.triton(launch_fn), meta).op_name


def test_the_op_name_holds_the_launch_functions_name() -> None:
    assert re.fullmatch(r"tta::launch_[0-9a-f]{16}", named(launch))


@pytest.mark.parametrize(
    "launch_fn",
    [lambda x, out: None, functools.partial(launch, BLOCK=64)],
    ids=["lambda", "partial"],
)
def test_the_op_name_is_made_of_identifiers(launch_fn: Any) -> None:
    namespace, name = named(launch_fn).split("::")
    assert namespace.isidentifier()
    assert name.isidentifier()


def test_torch_takes_the_op_name_of_a_function_with_a_non_ascii_name() -> None:
    def größe(x: Any, out: Any) -> None: ...

    namespace, name = named(größe).split("::")
    library = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define(name + "(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    library._destroy()  # type: ignore[no-untyped-call]


def test_equal_plugins_have_one_op_name() -> None:
    assert custom_plugin(KERNEL, meta).op_name == custom_plugin([KERNEL], meta).op_name


def test_other_plugins_have_another_op_name() -> None:
    assert custom_plugin(KERNEL, meta).op_name != custom_plugin(OTHER, meta).op_name


# --- normalize_impl_to_spec -----------------------------------------------------------


def test_a_plugin_spec_is_returned_as_it_is() -> None:
    plugin = custom_plugin(KERNEL, meta, alpha=1.0)
    assert tta.normalize_impl_to_spec(plugin) is plugin


@pytest.mark.parametrize("impl", [KERNEL, [KERNEL], (KERNEL,)], ids=["one", "[]", "()"])
def test_a_kernel_or_a_list_of_kernels_becomes_a_plugin(impl: Any) -> None:
    assert tta.normalize_impl_to_spec(impl) == custom_plugin(KERNEL)


@pytest.mark.parametrize("impl", ["my::op", 3, {"kernel": KERNEL}, object()])
def test_anything_else_is_refused(impl: Any) -> None:
    with pytest.raises(SpecError, match=r"is not a plugin\. Pass tta\.triton"):
        tta.normalize_impl_to_spec(impl)


@pytest.mark.parametrize("impl", [launch, [launch]], ids=["one", "[]"])
def test_a_function_without_its_language_is_refused(impl: Any) -> None:
    message = r"custom_plugin: launch is a function.* Pass tta\.triton\(launch\)"
    for refused in (tta.normalize_impl_to_spec, custom_plugin):
        with pytest.raises(SpecError, match=message):
            refused(impl)


@pytest.mark.parametrize("impl", [[], [3], [custom_plugin(KERNEL)]])
def test_a_list_of_anything_else_is_refused(impl: Any) -> None:
    with pytest.raises(SpecError, match="is not a kernel spec, or a list of them"):
        tta.normalize_impl_to_spec(impl)
