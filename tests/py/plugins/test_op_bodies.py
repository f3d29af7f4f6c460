# SPDX-License-Identifier: BSD-3-Clause

"""Ops whose own body launches the kernel, and kernels with decorators of Triton's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import add_kernel, silu_kernel
from torch.library import custom_op, register_fake, triton_op, wrap_triton

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    RecordError,
    SpecError,
    UnsupportedKernelError,
)

Tensor = torch.Tensor


@pytest.fixture
def op() -> Iterator[Callable[..., str]]:
    """Defines ``body::op`` with a body, and an ``empty_like`` fake kernel."""
    made: list[Any] = []

    def define(
        body: Callable[..., Any],
        define: Callable[..., Any] = custom_op,
        fake: Callable[..., Any] = lambda x, *rest, **others: torch.empty_like(x),
    ) -> str:
        made.append(define("body::op", mutates_args=())(body))
        register_fake("body::op", fake)
        return "body::op"

    yield define
    while registered:
        registered.popitem()[1].undo()
    for definition in made:
        definition._lib._destroy()


def silu_body(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    silu_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](out, x, n, BLOCK=256)
    return out


def tactics(name: str, *shapes: tuple[int, ...], **keywords: Any) -> list[Any]:
    inputs = [torch.empty(shape, dtype=torch.float16) for shape in shapes]
    report = tta.dry_run(name, inputs, "sm_90", strict=True, execute=False, **keywords)
    return report.tactics


def test_the_body_of_an_op_is_its_launch_function(op: Callable[..., str]) -> None:
    name = op(silu_body)
    trt_plugins.custom_op(name, impl=tta.triton())
    (tactic,) = tactics(name, (8, 512))
    assert tactic.shapes[0].grid == (16, 1, 1)
    assert tactic.shapes[0].extras == (4096,)


def test_the_body_of_a_triton_op_is_its_launch_function(
    op: Callable[..., str],
) -> None:
    def body(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        n = x.numel()
        wrap_triton(silu_kernel)[(triton.cdiv(n, 512),)](out, x, n, BLOCK=512)
        return out

    name = op(body, triton_op)
    trt_plugins.custom_op(name, impl=tta.triton())
    (tactic,) = tactics(name, (8, 512))
    assert tactic.shapes[0].grid == (8, 1, 1)


def test_configs_override_the_keywords_of_the_bodys_launch(
    op: Callable[..., str],
) -> None:
    name = op(silu_body)
    configs = [{"BLOCK": 128}, {"BLOCK": 1024, "num_warps": 8}]
    trt_plugins.custom_op(name, impl=tta.triton(configs=configs))
    found = tactics(name, (8, 512))
    assert [t.config for t in found] == configs
    assert [t.shapes[0].grid[0] for t in found] == [32, 4]
    assert [t.shapes[0].block[0] for t in found] == [128, 256]


def test_a_grid_that_does_not_follow_the_config_is_refused(
    op: Callable[..., str],
) -> None:
    def body(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        silu_kernel[(triton.cdiv(x.numel(), 256),)](out, x, x.numel(), BLOCK=256)
        return out

    spec = tta.triton(configs=[{"BLOCK": 128}])
    with pytest.raises(ArgumentError, match="the config sets BLOCK, and the grid"):
        trt_plugins.custom_op(op(body), impl=spec)


def test_a_config_key_that_the_kernel_does_not_take_is_refused(
    op: Callable[..., str],
) -> None:
    spec = tta.triton(configs=[{"BLOC": 128}])
    with pytest.raises(ArgumentError, match=r"launched with BLOC=.* out_ptr, x_ptr, n"):
        trt_plugins.custom_op(op(silu_body), impl=spec)


def test_arguments_of_the_op_reach_its_body_by_name(op: Callable[..., str]) -> None:
    def body(x: Tensor, scale: float, y: Tensor, blocks: int = 2) -> Tensor:
        out = torch.empty_like(y)
        add_kernel[(blocks,)](y, x, 5, out, BLOCK=256)
        return out

    name = op(body)
    trt_plugins.custom_op(name, impl=tta.triton())
    values = {"scale": 0.5, "blocks": 7}
    (tactic,) = tactics(name, (8,), (8,), attributes=values)
    assert tactic.shapes[0].grid == (7, 1, 1)


def test_an_op_whose_body_cannot_be_reached_asks_for_a_launch_function() -> None:
    library = torch.library.Library("body", "FRAGMENT")
    library.define("hidden(Tensor x) -> Tensor")
    library.impl("hidden", silu_body, "CUDA")
    register_fake("body::hidden", torch.empty_like, lib=library)
    try:
        with pytest.raises(SpecError, match=r"body::hidden: its Python body cannot .*"):
            trt_plugins.custom_op("body::hidden", impl=tta.triton())
    finally:
        library._destroy()


def test_a_refusal_at_registration_has_the_line_of_the_body(
    op: Callable[..., str],
) -> None:
    def body(x: Tensor) -> Tensor:
        x.add_(1)
        return silu_body(x)

    with pytest.raises(
        RecordError, match=r"aten\.add_.* at .*test_op_bodies\.py:\d+ in"
    ):
        trt_plugins.custom_op(op(body), impl=tta.triton())


def test_a_body_that_contradicts_its_fake_kernel_is_refused(
    op: Callable[..., str],
) -> None:
    name = op(silu_body, fake=lambda x: x.new_empty(3))
    with pytest.raises(ArgumentError, match="and the op's fake kernel"):
        trt_plugins.custom_op(name, impl=tta.triton())


@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def even_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if EVEN:
        tl.store(out_ptr + offsets, tl.load(x_ptr + offsets))
    else:
        mask = offsets < n
        tl.store(out_ptr + offsets, tl.load(x_ptr + offsets, mask=mask), mask=mask)


TUNED = [
    triton.Config({"BLOCK": 128}, num_warps=2),
    triton.Config({"BLOCK": 512}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK": 1024}, num_warps=8),
]
tuned_kernel = triton.autotune(TUNED, key=["n"])(even_kernel)


def launch_tuned(x: Any, out: Any) -> None:
    n = x.numel()
    tuned_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n)


def register_tuned(**keywords: Any) -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_tuned, **keywords), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("body::tuned", impl=spec, supports_dynamic_shapes=True)


def test_the_configs_of_an_autotuned_kernel_are_tactics() -> None:
    register_tuned()
    found = tactics("body::tuned", (8, 512))
    assert [t.tactic for t in found] == [1, 2, 3]
    assert [t.config["BLOCK"] for t in found] == [128, 512, 1024]
    assert [t.shapes[0].grid[0] for t in found] == [32, 8, 4]
    assert [t.shapes[0].block[0] for t in found] == [64, 128, 256]
    assert found[1].config["num_stages"] == 2


def test_heuristics_are_evaluated_with_what_is_known() -> None:
    register_tuned()
    even, *_ = tactics("body::tuned", (8, 512))
    odd, *_ = tactics("body::tuned", (1000,))
    assert "setp" not in even.code
    assert "setp" in odd.code


def test_a_heuristic_that_follows_a_dynamic_size_is_refused() -> None:
    register_tuned()
    profile = {"min_shape": (1,), "opt_shape": (64,), "max_shape": (4096,)}
    dynamic = torch_tensorrt.Input(**profile, dtype=torch.float16)
    with pytest.raises(ArgumentError, match="`EVEN`: a compile-time constant that"):
        tta.dry_run("body::tuned", [dynamic], "sm_90")


def test_an_autotuned_body_has_the_autotuners_tactics(op: Callable[..., str]) -> None:
    def body(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        launch_tuned(x, out)
        return out

    name = op(body)
    trt_plugins.custom_op(name, impl=tta.triton())
    assert [t.config["BLOCK"] for t in tactics(name, (8, 512))] == [128, 512, 1024]


def test_configs_of_the_spec_take_the_place_of_the_autotuners(
    op: Callable[..., str],
) -> None:
    def body(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        launch_tuned(x, out)
        return out

    name = op(body)
    trt_plugins.custom_op(name, impl=tta.triton(configs=[{"BLOCK": 2048}]))
    assert [t.config for t in tactics(name, (8, 512))] == [{"BLOCK": 2048}]


HOOKS: dict[str, tuple[dict[str, Any], list[triton.Config]]] = {
    "prune_configs_by": ({"prune_configs_by": {"early_config_prune": list}}, TUNED),
    "reset_to_zero": ({"reset_to_zero": ["out_ptr"]}, TUNED),
    "restore_value": ({"restore_value": ["out_ptr"]}, TUNED),
    "pre_hook": ({"pre_hook": lambda *args, **kwargs: None}, TUNED),
    "post_hook": ({"post_hook": lambda *args, **kwargs: None}, TUNED),
}


@pytest.mark.parametrize(("options", "configs"), HOOKS.values(), ids=HOOKS)
def test_what_tensorrts_autotuner_does_not_do_is_refused_by_name(
    options: dict[str, Any], configs: list[triton.Config], request: Any
) -> None:
    kernel = triton.autotune(configs, key=["n"], **options)(even_kernel)

    def launch(x: Any, out: Any) -> None:
        kernel[lambda meta: (1,)](x, out, x.numel())

    name = request.node.callspec.id.partition(" ")[0]
    spec = tta.custom_plugin(tta.triton(launch), lambda x: torch.empty_like(x))
    with pytest.raises(UnsupportedKernelError, match=f"even_kernel: .* with {name}"):
        trt_plugins.custom_op("body::hooked", impl=spec)


def test_a_kernel_launched_without_an_argument_names_it() -> None:
    def launch(x: Any, out: Any) -> None:
        add_kernel[(1,)](x, x, 5, out)

    spec = tta.custom_plugin(tta.triton(launch), lambda x: torch.empty_like(x))
    with pytest.raises(ArgumentError, match="add_kernel: launched without BLOCK"):
        trt_plugins.custom_op("body::incomplete", impl=spec)
