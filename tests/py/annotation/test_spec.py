# SPDX-License-Identifier: BSD-3-Clause

"""What ``tta.triton`` and its like take, and what they say of what they do not."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import tensorrt as trt
import torch
from kernels import launch_silu, silu_kernel
from triton import Config

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import TritonSpec, custom_plugin, cutile, triton
from torch_tensorrt.annotation.errors import AnnotationError, SpecError


def launch(x: Any, out: Any, BLOCK: int = 256, *, alpha: float = 1.0) -> None:
    """Never called: a spec only looks at its signature."""


def launch_on_stream(x: Any, out: Any, stream: int) -> None: ...


def launch_with_anything(x: Any, out: Any, **keywords: Any) -> None: ...


class Launcher:
    def launch(self, x: Any, out: Any, BLOCK: int = 256) -> None: ...

    def __call__(self, x: Any, out: Any, BLOCK: int = 256) -> None: ...


# --- Configs --------------------------------------------------------------------------


def test_without_configs_there_is_one_with_nothing_in_it() -> None:
    assert triton(launch).configs == ((),)


def test_every_config_is_kept_in_order_with_its_names_sorted() -> None:
    spec = triton(launch, [{"num_warps": 8, "BLOCK": 512}, {"BLOCK": 64}])
    assert spec.configs == ((("BLOCK", 512), ("num_warps", 8)), (("BLOCK", 64),))


def test_configs_may_be_any_sequence_of_mappings() -> None:
    assert triton(launch, ({"BLOCK": 64},)) == triton(launch, [{"BLOCK": 64}])


def test_keywords_hold_in_every_config() -> None:
    spec = triton(launch, [{"BLOCK": 64}, {"BLOCK": 128}], num_warps=8)
    assert [dict(config)["num_warps"] for config in spec.configs] == [8, 8]


def test_keywords_alone_make_one_config() -> None:
    assert triton(launch, BLOCK=64).configs == ((("BLOCK", 64),),)


def test_a_config_goes_before_the_keywords() -> None:
    spec = triton(launch, [{"BLOCK": 64}, {}], BLOCK=128)
    assert spec.configs == ((("BLOCK", 64),), (("BLOCK", 128),))


def test_the_callers_dicts_are_not_kept() -> None:
    config = {"BLOCK": 64}
    spec = triton(launch, [config])
    config["BLOCK"] = 0
    assert spec.configs == ((("BLOCK", 64),),)


def test_one_and_one_point_zero_and_true_are_three_configs() -> None:
    spec = triton(launch, [{"alpha": 1}, {"alpha": 1.0}, {"alpha": True}])
    assert len(spec.configs) == 3


@pytest.mark.parametrize(
    "configs", [{"BLOCK": 64}, "BLOCK", 3, {64}, iter([{"BLOCK": 64}])]
)
def test_configs_that_are_not_a_list_are_refused(configs: Any) -> None:
    with pytest.raises(SpecError, match=r"configs is .*must be a list of dicts"):
        triton(launch, configs)


@pytest.mark.parametrize("config", [None, 64, "BLOCK", [("BLOCK", 64)], {1: 2}])
def test_a_config_that_is_not_a_dict_of_names_is_refused(config: Any) -> None:
    with pytest.raises(SpecError, match=r"configs\[1\] is .*must be a dict from names"):
        triton(launch, [{"BLOCK": 64}, config])


def test_an_empty_list_of_configs_is_refused() -> None:
    with pytest.raises(SpecError, match=r"configs is empty\. Leave it out"):
        triton(launch, [])


def test_equal_configs_are_one() -> None:
    configs = [{"BLOCK": 64, "num_warps": 4}, {"num_warps": 4, "BLOCK": 64}]
    assert triton(launch, configs) == triton(launch, configs[:1])
    assert triton(launch, [{}, {}]).configs == ((),)
    assert triton(launch, [{}, {"BLOCK": 64}], BLOCK=64).configs == ((("BLOCK", 64),),)
    mixed = [{"BLOCK": 64}, {"BLOCK": 128}, {"BLOCK": 64}]
    assert triton(launch, mixed) == triton(launch, mixed[:2])


def test_values_of_other_types_make_other_configs() -> None:
    def flagged(x: Any, out: Any, flag: Any = 1) -> None: ...

    values: list[Any] = [1, True, 1.0]
    assert len(triton(flagged, [{"flag": value} for value in values]).configs) == 3


def test_a_config_of_tritons_is_a_config() -> None:
    config = Config({"BLOCK": 64}, num_warps=8, num_stages=2)
    alone = triton(launch, [{"BLOCK": 64, "num_warps": 8, "num_stages": 2}])
    assert triton(launch, [config]) == alone
    assert triton(launch, (config, {"BLOCK": 32}), BLOCK=16).configs == (
        *alone.configs,
        (("BLOCK", 32),),
    )


def test_a_config_of_tritons_with_a_hook_is_refused() -> None:
    config = Config({"BLOCK": 64}, pre_hook=lambda args: None)
    with pytest.raises(SpecError, match=r"configs\[1\] has a pre_hook"):
        triton(launch, [{}, config])


def test_a_config_of_tritons_may_ask_for_clusters() -> None:
    spec = triton(launch, [Config({"BLOCK": 64}, num_ctas=2)])
    assert dict(spec.configs[0])["num_ctas"] == 2
    assert spec.compiler_options(spec.configs[0])["num_ctas"] == 2
    assert "num_ctas" not in dict(triton(launch, [Config({})]).configs[0])


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(SpecError, match=r"configs\[1\] names 'BLOCL'") as caught:
        triton(launch, [{}, {"BLOCL": 64}])
    assert "neither launch nor the compiler takes" in str(caught.value)
    assert str(caught.value).endswith(
        "Valid names: BLOCK, alpha, maxnreg, num_ctas, num_stages, num_warps."
    )


def test_an_unknown_keyword_is_refused_too() -> None:
    with pytest.raises(SpecError, match="names 'num_warp'"):
        triton(launch, num_warp=8)


def test_the_stream_is_not_for_a_config_to_choose() -> None:
    with pytest.raises(SpecError, match="names 'stream'"):
        triton(launch_on_stream, [{"stream": 0}])


def test_a_launch_function_that_takes_any_keyword_gets_any() -> None:
    spec = triton(launch_with_anything, [{"anything": 1}])
    assert spec.launch_keywords(spec.configs[0]) == {"anything": 1}


# --- What goes where ------------------------------------------------------------------


def test_tritons_options_go_to_triton_and_the_rest_to_the_launch_function() -> None:
    spec = triton(launch, num_warps=8, num_stages=2, maxnreg=64, BLOCK=64, alpha=0.5)
    (config,) = spec.configs
    assert spec.compiler_options(config) == {
        "num_warps": 8,
        "num_stages": 2,
        "maxnreg": 64,
    }
    assert spec.launch_keywords(config) == {"BLOCK": 64, "alpha": 0.5}


def test_an_option_that_the_launch_function_declares_goes_to_both() -> None:
    def launch(x: Any, out: Any, num_warps: int = 4) -> None: ...

    spec = triton(launch, num_warps=8)
    (config,) = spec.configs
    assert (
        spec.compiler_options(config)
        == spec.launch_keywords(config)
        == {"num_warps": 8}
    )


# --- The launch function --------------------------------------------------------------


@pytest.mark.parametrize("launch_fn", ["launch", 3], ids=repr)
def test_a_launch_function_that_cannot_be_called_is_refused(launch_fn: Any) -> None:
    with pytest.raises(SpecError, match="which cannot be called"):
        triton(launch_fn)


@pytest.mark.parametrize(
    "launch_fn",
    [
        pytest.param(Launcher().launch, id="method"),
        pytest.param(Launcher(), id="object"),
        pytest.param(functools.partial(launch, alpha=2.0), id="partial"),
        pytest.param(
            functools.wraps(launch)(lambda *args, **keywords: None), id="wrapped"
        ),
        pytest.param(lambda x, out, BLOCK: None, id="lambda"),
    ],
)
def test_any_callable_with_a_signature_is_a_launch_function(launch_fn: Any) -> None:
    assert triton(launch_fn, BLOCK=64).configs == ((("BLOCK", 64),),)


@pytest.mark.parametrize("launch_fn", [max, int], ids=repr)
def test_a_callable_without_a_signature_is_refused(launch_fn: Any) -> None:
    with pytest.raises(SpecError, match="Pass the Python function that launches"):
        triton(launch_fn)


# --- Formats --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("LINEAR", ("LINEAR",)),
        (trt.TensorFormat.LINEAR, ("LINEAR",)),
        (["LINEAR", trt.TensorFormat.HWC8], ("LINEAR", "HWC8")),
    ],
    ids=str,
)
def test_formats_are_kept_by_name(given: Any, kept: Any) -> None:
    spec = triton(launch, input_formats=given, output_formats=given)
    assert (spec.input_formats, spec.output_formats) == (kept, kept)


# --- TritonSpec -----------------------------------------------------------------------


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        triton(launch).configs = ()  # type: ignore[misc]


def test_a_spec_made_directly_equals_what_triton_makes() -> None:
    direct = TritonSpec(launch, ((("BLOCK", 64),),))
    assert direct == triton(launch, [{"BLOCK": 64}])
    assert hash(direct) == hash(triton(launch, [{"BLOCK": 64}]))


def test_specs_of_other_configs_differ() -> None:
    assert triton(launch, BLOCK=64) != triton(launch, BLOCK=128)


def test_a_spec_is_equal_to_nothing_of_another_kind() -> None:
    assert triton(launch) != tta.custom_plugin(triton(launch))
    assert triton(launch) != "triton"


def test_a_spec_made_directly_is_checked_alike() -> None:
    with pytest.raises(SpecError, match="names 'BLOCL'"):
        TritonSpec(launch, ((("BLOCL", 64),),))


@pytest.mark.parametrize("configs", [(), ({"BLOCK": 64},), [{"BLOCK": 64}], None])
def test_a_spec_made_directly_of_malformed_configs_is_refused(configs: Any) -> None:
    with pytest.raises(SpecError, match="configs"):
        TritonSpec(launch, configs)


def test_the_error_is_both_a_value_error_and_one_of_ours() -> None:
    with pytest.raises(AnnotationError) as caught:
        triton(launch, [])
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [True, None, 4.0, "4"])
def test_an_option_that_is_not_an_int_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"num_warps=.*must be of type int"):
        tta.triton(launch_silu, configs=[{"num_warps": value}])


def test_a_kernel_with_its_grid_is_no_launch_function() -> None:
    message = r"kernel with its grid, without arguments.*def launch\(x, out\): kernel\["
    with pytest.raises(SpecError, match=message):
        tta.triton(silu_kernel[(1,)])


def test_a_kernel_in_place_of_its_launch_function_is_refused() -> None:
    with pytest.raises(SpecError, match=r"silu_kernel is a kernel\. Pass the Py"):
        tta.triton(silu_kernel)


# --- cuTile ---------------------------------------------------------------------------


def test_a_cutile_config_may_set_what_the_kernel_decorator_takes() -> None:
    spec = cutile(launch, [{"BLOCK": 64, "occupancy": 2}], fact_sets="async8")
    (config,) = spec.configs
    assert spec.compiler_options(config) == {"occupancy": 2, "facts": "async8"}
    assert spec.launch_keywords(config) == {"BLOCK": 64}


def test_a_cutile_config_with_an_option_of_tritons_is_refused() -> None:
    message = r"cutile: configs\[0\] names 'num_warps'.*BLOCK, alpha, facts, num_ctas"
    with pytest.raises(SpecError, match=message):
        cutile(launch, [{"num_warps": 4}])


def test_a_cutile_kernel_is_tried_with_every_fact_set_unless_some_are_named() -> None:
    def facts(**how: Any) -> list[str]:
        return [dict(config)["facts"] for config in cutile(launch, **how).configs]

    assert facts() == ["vector16", "async8", "strides", "tma16"]
    assert facts(fact_sets=["async8"]) == ["async8"]
    assert facts(configs=[{}, {"BLOCK": 64, "facts": "strides"}]) == [
        *("vector16", "async8", "strides", "tma16"),
        "strides",
    ]
    assert cutile(launch, fact_sets="async8") == cutile(launch, fact_sets=("async8",))


@pytest.mark.parametrize("names", [[], ["strides", "strides"], ["all"]], ids=str)
def test_fact_sets_that_are_not_known_are_refused(names: list[str]) -> None:
    with pytest.raises(SpecError, match=r"one or more of vector16, .*, tma16"):
        cutile(launch, fact_sets=names)


def test_a_cutile_kernel_in_place_of_its_launch_function_is_refused() -> None:
    ct = pytest.importorskip("cuda.tile")

    @ct.kernel
    def relu(x: Any, out: Any) -> None: ...

    with pytest.raises(
        SpecError, match=r"relu is a kernel.*ct.launch\(stream, grid, r"
    ):
        cutile(relu)


def test_a_cutile_spec_is_not_a_triton_spec() -> None:
    assert cutile(launch) != triton(launch)


@pytest.mark.parametrize("aligned", ["no", None, 0, 1])
def test_a_promise_that_is_no_bool_is_refused(aligned: Any) -> None:
    with pytest.raises(SpecError, match=r"aligned is .*True or False"):
        custom_plugin(triton(launch), aligned=aligned)


def test_a_numpy_array_is_a_weight() -> None:
    values = np.arange(4, dtype=np.float16)
    plugin = custom_plugin(triton(launch), table=values, scale=np.float32(2))
    ((name, weight),) = plugin.weights
    assert (name, weight.dtype, weight.tolist()) == (
        "table",
        torch.float16,
        [0, 1, 2, 3],
    )
    assert [name for name, _ in plugin.attributes] == ["scale"]
    values[0] = 5
    assert weight[0] == 0
    assert plugin == custom_plugin(
        triton(launch), table=torch.arange(4).half(), scale=np.float32(2)
    )


def test_an_array_without_a_tensor_is_refused() -> None:
    with pytest.raises(SpecError, match=r"weight 'table': torch has no tensor .* <U1"):
        custom_plugin(triton(launch), table=np.array(["a"]))
