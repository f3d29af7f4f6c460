# SPDX-License-Identifier: BSD-3-Clause

"""What becomes of a model's custom ops: explained, and registered in one call."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import silu_kernel
from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY
from torch import Tensor
from up_to_the_builder import partitioned

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import backends, errors
from torch_tensorrt.annotation._explain import custom_ops
from torch_tensorrt.annotation._explain.report import SMALLER_BLOCKS, Split
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.errors import SpecError
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_ATEN_CONVERTERS
from torch_tensorrt.dynamo.conversion.plugins import _torch_op

half, f32 = torch.float16, torch.float32
SIZES = {"min": 2, "opt": 64, "max": 256}
STATIC = torch.empty(64, 1024, dtype=half)
DYNAMIC = torch_tensorrt.Input(
    min_shape=(2, 1024), opt_shape=(64, 1024), max_shape=(256, 1024), dtype=half
)


@triton.jit
def partial_sum_kernel(x, parts, n, BLOCK: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    columns = part * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, other=0.0).to(tl.float32)
    tl.store(parts + row * tl.num_programs(1) + part, tl.sum(value))


@triton.jit
def divide_kernel(x, total, y, n, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, other=0.0)
    result = (value / tl.load(total + row)).to(tl.float16)
    tl.store(y + row * n + columns, result, columns < n)


@triton.jit
def scale_rows_kernel(x, by, n, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, other=0.0)
    tl.store(x + row * n + columns, value * tl.load(by + row), columns < n)


def silu(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    silu_kernel[(triton.cdiv(x.numel(), 256),)](out, x, x.numel(), BLOCK=256)
    return out


def normalize(x: Tensor) -> Tensor:
    m, n = x.shape
    parts = torch.empty(m, triton.cdiv(n, 128), dtype=f32, device=x.device)
    partial_sum_kernel[m, triton.cdiv(n, 128)](x, parts, n, BLOCK=128)
    y = torch.empty_like(x)
    divide_kernel[(m,)](x, parts.sum(1), y, n, BLOCK=1024)
    return y


def scale_rows_(x: Tensor, by: Tensor) -> None:
    scale_rows_kernel[(x.shape[0],)](x, by, x.shape[1], BLOCK=1024)


def no_kernel(x: Tensor) -> Tensor:
    return x * 2


def refused(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    divide_kernel[(x.shape[0],)](x, x, y, x.shape[1], BLOCK=1000)  # no power of two
    return y


Define = Callable[..., str]


@pytest.fixture
def op() -> Iterator[Define]:
    """Defines an op of namespace ``exp`` with a body."""
    names: list[str] = []

    def define(
        body: Callable[..., Any],
        fake: Callable[..., Any] = torch.empty_like,
        writes: tuple[str, ...] = (),
    ) -> str:
        names.append(f"exp::{body.__name__}")
        made = torch.library.custom_op(names[-1], body, mutates_args=writes)
        made.register_fake(fake)
        return names[-1]

    yield define
    while registered:
        registered.popitem()[1].undo()
    for name in names:
        _torch_op._destroy(torch._library.custom_ops.OPDEFS[name]._lib)


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_90")


class Model(torch.nn.Module):
    """A function of one input, or of two."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function


class One(Model):
    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Two(Model):
    def forward(self, x: Tensor, by: Tensor) -> Any:
        return self.function(x, by)


def explained(function: Any, *inputs: Any, **settings: Any) -> tta.ModelReport:
    kind, inputs = (One if len(inputs) < 2 else Two), inputs or (STATIC,)
    return tta.explain(kind(function), inputs, **{"min_block_size": 1, **settings})


# --- explain --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(STATIC, id="static"),
        pytest.param(DYNAMIC, id="dynamic", marks=pytest.mark.slow),
    ],
)
def test_an_op_that_could_be_plugin_layers_says_with_which_call(
    op: Define, given: Any
) -> None:
    name = op(silu)
    report = explained(lambda x: torch.ops.exp.silu(torch.ops.exp.silu(x) + 1), given)
    (found,) = report.ops
    assert (found.op, found.calls, found.outcome) == (name, 2, "possible")
    assert (found.kernels, found.layers, found.left) == (("silu_kernel",), 2, 0)
    options = ", supports_dynamic_shapes=True" if given is DYNAMIC else ""
    call = f'trt_plugins.custom_op("{name}", impl=tta.triton(){options})'
    assert found.registration == call
    assert report.now == Split(3, 1, 1, {"exp.silu.default": 2})
    assert report.then == Split(3, 3, 1)
    assert list(registered) == []
    exec(found.registration, {"trt_plugins": trt_plugins, "tta": tta})
    again = explained(lambda x: torch.ops.exp.silu(torch.ops.exp.silu(x) + 1), given)
    assert (again[name].outcome, again[name].layers) == ("plugin", 2)
    assert (again.now, again.then, again.ok) == (report.then, None, True)


def test_an_op_of_two_launches_becomes_two_plugin_layers(op: Define) -> None:
    op(normalize)
    report = explained(lambda x: torch.ops.exp.normalize(x.relu()).relu())
    (found,) = report.ops
    assert found.kernels == ("partial_sum_kernel", "divide_kernel")
    assert (found.outcome, found.layers) == ("possible", 2)
    assert report.now == Split(3, 2, 2, {"exp.normalize.default": 1})
    assert report.then == Split(5, 5, 1)
    assert not hasattr(torch.ops.exp, "normalize_step0")
    left = [
        *QDP_REGISTRY,
        *QDP_CREATORS,
        *registered,
        *map(str, DYNAMO_ATEN_CONVERTERS),
    ]
    assert [name for name in left if name.startswith(("exp::", "exp."))] == []


def scaled(x: Tensor, by: Tensor) -> Tensor:
    y = x.relu()
    torch.ops.exp.scale_rows_(y[:32], by[:32])
    return y * 2


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of its own code
@pytest.mark.parametrize("functionalized", [False, True])
def test_an_op_that_writes_its_input_is_found_functionalized_or_not(
    op: Define, functionalized: bool
) -> None:
    op(scale_rows_, lambda x, by: None, ("x",))
    inputs = STATIC, torch.empty(64, dtype=half)
    program = torch.export.export(Two(scaled), inputs)
    if functionalized:
        program = program.run_decompositions()
        assert "auto_functionalized" in str(program.graph)
    before = str(program.graph)
    report = tta.explain(program, inputs, min_block_size=1)
    (found,) = report.ops
    assert (found.op, found.calls, found.layers) == ("exp::scale_rows_", 1, 1)
    assert found.outcome == "possible"
    assert str(program.graph) == before


def divided(x: Tensor, by: Tensor) -> Tensor:
    y = torch.empty(by.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
    divide_kernel[(by.shape[0],)](x, by, y, x.shape[1], BLOCK=1024)
    return y


def of_equal_rows(x: Tensor, by: Tensor) -> Tensor:
    torch._check(x.shape[0] == by.shape[0])
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("fake", "outcome"),
    [(of_equal_rows, "possible"), (lambda x, by: torch.empty_like(x), "pytorch")],
    ids=["checked", "unchecked"],
)
def test_what_a_model_ties_with_shared_dims_an_op_checks(
    op: Define, fake: Any, outcome: str
) -> None:
    """torch.export makes one symbol of both; TensorRT tells a plugin two ranges."""
    op(divided, fake)
    rows = [
        torch_tensorrt.Input(
            **{f"{n}_shape": (size, *rest) for n, size in SIZES.items()},
            dtype=dtype,
            name=name,
            shared_dims={0: "rows"},
        )
        for name, rest, dtype in (("x", (1024,), half), ("by", (), f32))
    ]
    model = Two(lambda x, by: torch.ops.exp.divided(x.relu(), by))
    program = torch_tensorrt.dynamo.trace(model, rows, device="cpu")
    x, by = (n.meta["val"] for n in program.graph.nodes if n.op == "placeholder")
    assert x.shape[0].node.expr == by.shape[0].node.expr
    (found,) = tta.explain(model, rows, min_block_size=1).ops
    assert found.outcome == outcome, found.error
    if outcome == "pytorch":
        assert "torch._check(" in found.error


def test_an_op_without_a_kernel_says_so_and_where_it_is(op: Define) -> None:
    op(no_kernel)
    report = explained(lambda x: torch.ops.exp.no_kernel(x).relu())
    (found,) = report.ops
    assert (found.outcome, found.layers, found.left) == ("pytorch", 0, 1)
    assert re.match(r"its body launches no kernel in .*triton.*\.", found.reason)
    line = no_kernel.__code__.co_firstlineno
    assert found.place.endswith(f"test_explain.py:{line}")
    assert re.search(r"test_explain\.py:\d+$", found.used_at)
    assert f"called at {found.used_at}" in " ".join(str(report).split())
    assert (report.ok, report.then) == (False, None)


def test_a_language_that_is_not_installed_is_named(
    op: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    op(no_kernel)
    name = "torch_tensorrt.annotation.backends.cutile.compiler"
    monkeypatch.setitem(sys.modules, name, None)  # as if its import failed
    backends.backend.cache_clear()
    (found,) = explained(lambda x: torch.ops.exp.no_kernel(x).relu()).ops
    assert "Not installed:" in found.error and "cutile" in found.error
    assert "cutile" not in found.reason


def test_a_refused_op_has_the_first_sentence_of_the_error(op: Define) -> None:
    op(refused)
    (found,) = explained(lambda x: torch.ops.exp.refused(x) + 1).ops
    assert found.outcome == "pytorch"
    assert "power of 2" in found.error
    assert found.error.startswith(found.reason[:20])
    assert len(found.reason.splitlines()) == 1
    assert list(registered) == []


def test_an_op_whose_body_cannot_be_reached_says_what_to_do() -> None:
    library = torch.library.Library("exp", "FRAGMENT")
    try:
        library.define("from_cpp(Tensor x) -> Tensor")
        library.impl("from_cpp", silu, "CUDA")
        torch.library.register_fake("exp::from_cpp", torch.empty_like, lib=library)
        (found,) = explained(lambda x: torch.ops.exp.from_cpp(x) + 1).ops
        assert (found.outcome, found.place) == ("pytorch", "")
        assert found.reason == "its Python body cannot be reached."
        assert "pass the function that launches the kernel" in found.error
    finally:
        _torch_op._destroy(library)


def test_the_language_is_that_of_the_kernels_a_body_launches(op: Define) -> None:
    pytest.importorskip("cuda.tile")
    from cutile_kernels import launch_relu

    def tiled(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        launch_relu(x, out)
        return out

    op(tiled)
    (found,) = explained(lambda x: torch.ops.exp.tiled(x) + 1).ops
    assert found.registration.endswith('custom_op("exp::tiled", impl=tta.cutile())')
    assert found.kernels == ("relu_kernel",)


def test_kernels_of_two_languages_in_one_body_are_no_plugin(op: Define) -> None:
    pytest.importorskip("cuda.tile")
    from cutile_kernels import launch_relu

    def mixed(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        launch_relu(silu(x), out)
        return out

    op(mixed)
    (found,) = explained(lambda x: torch.ops.exp.mixed(x) + 1).ops
    assert found.reason.startswith("its body launches kernels in triton and cutile")


# As libraries write it: for any rank, with an autotuner, and a gradient.


@triton.autotune([triton.Config({}, num_warps=w) for w in (4, 8)], key=["n"])
@triton.jit
def rms_norm_kernel(x, weight, out, n, eps, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    mask = columns < n
    value = tl.load(x + row * n + columns, mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / n + eps)
    result = value * scale * tl.load(weight + columns, mask, other=0.0)
    tl.store(out + row * n + columns, result.to(out.dtype.element_ty), mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    rows = x.contiguous().view(-1, x.shape[-1])
    out = torch.empty_like(rows)
    block = triton.next_power_of_2(rows.shape[1])
    grid = (rows.shape[0],)
    rms_norm_kernel[grid](rows, weight, out, rows.shape[1], eps, BLOCK=block)
    return out.view(x.shape)


class Norm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1024, dtype=half))
        self.linear = torch.nn.Linear(1024, 1024, dtype=half)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.ops.exp.rms_norm(x, self.weight, 1e-5)
        return self.linear(y)  # type: ignore[no-any-return]


def test_a_layer_of_a_library_is_adopted_with_its_autotuner(op: Define) -> None:
    name = op(rms_norm, lambda x, weight, eps=1e-6: torch.empty_like(x))
    torch.library.register_autograd(name, lambda ctx, grad: (grad, None, None))
    shapes = {"min": (1, 2, 1024), "opt": (2, 2, 1024), "max": (4, 8, 1024)}
    named = {f"{corner}_shape": shape for corner, shape in shapes.items()}
    given = torch_tensorrt.Input(**named, dtype=half)
    model = Norm()
    assert tta.adopt(model, [given]).ok
    report = tta.explain(model, [given], min_block_size=1)
    assert report[name].kernels == ("rms_norm_kernel",)
    assert report.now == Split(2, 2, 1)
    assert model.training
    dry = tta.dry_run(name, [given, model.weight], attributes={"eps": 1e-5})
    assert [dict(tactic.config)["num_warps"] for tactic in dry.tactics] == [4, 8]


def silu_into(x: Tensor, out: Tensor) -> None:
    silu_kernel[(triton.cdiv(x.numel(), 256),)](out, x, x.numel(), BLOCK=256)


def test_a_buffer_that_the_model_allocates_needs_no_gpu(op: Define) -> None:
    op(silu_into, lambda x, out: None, ("out",))

    def allocating(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        torch.ops.exp.silu_into(x, out)
        return out + 1

    report = explained(allocating, DYNAMIC)
    assert (report.ops[0].outcome, report.ops[0].layers) == ("possible", 1)


def test_warnings_of_something_else_are_logged(
    op: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    op(silu)
    original = custom_ops._spec_of

    def warning(*args: Any) -> Any:
        errors.warn("the kernel cache is full")
        return original(*args)

    monkeypatch.setattr(custom_ops, "_spec_of", warning)
    with errors.collecting() as said:
        explained(lambda x: torch.ops.exp.silu(x) + 1)
    assert said == ["the kernel cache is full"]


def test_blocks_that_are_too_small_stay_in_pytorch(op: Define) -> None:
    op(silu)
    report = explained(lambda x: torch.ops.exp.silu(x) + 1, min_block_size=3)
    (found,) = report.ops
    assert (found.layers, found.left) == (0, 1)
    assert "at least min_block_size=3 operators" in found.reason
    assert found.error.endswith(SMALLER_BLOCKS)
    assert not any("large enough" in step for step in report.next_steps)  # once
    assert report.then == Split(2, 0, 0, {"exp.silu.default": 1, "aten.add.Tensor": 1})


def test_an_op_registered_for_static_shapes_says_so_of_dynamic_ones(op: Define) -> None:
    trt_plugins.custom_op(op(silu), impl=tta.triton())
    (found,) = explained(lambda x: torch.ops.exp.silu(x) + 1, DYNAMIC).ops
    assert (found.outcome, found.layers, found.left) == ("plugin", 0, 1)
    assert "without supports_dynamic_shapes=True" in found.reason


def test_an_op_in_a_branch_of_the_graph_says_so(op: Define) -> None:
    op(silu)

    def branching(x: Tensor) -> Any:
        chosen = torch.cond(
            x.sum() > 0, lambda x: torch.ops.exp.silu(x), lambda x: x + 1, (x,)
        )
        return chosen * 2

    report = explained(branching)
    (found,) = report.ops
    assert (found.layers, found.left, report.ok) == (0, 1, False)
    assert "in a branch or a loop of the graph" in found.reason


def test_calls_that_no_tactic_serves_are_counted(op: Define) -> None:
    op(silu)

    def mixed(x: Tensor) -> Any:
        return torch.ops.exp.silu(x) + torch.ops.exp.silu(x.double()).half()

    (found,) = explained(mixed).ops
    assert (found.outcome, found.calls) == ("possible", 2)
    assert (found.layers, found.left) == (1, 1)
    assert "float64" in found.reason
    (found,) = tta.adopt(One(mixed), [STATIC]).ops
    assert (found.outcome, found.layers, found.left) == ("adopted", 1, 1)
    assert found.becomes == "1 plugin layer (silu_kernel); 1 in PyTorch"


def test_a_strict_op_raises_as_it_does_in_a_build(op: Define) -> None:
    trt_plugins.custom_op(op(refused), impl=tta.triton(), strict=True)
    with pytest.raises(Exception, match="power of 2"):
        explained(lambda x: torch.ops.exp.refused(x) + 1)


def test_an_op_that_has_a_converter_is_left_alone(op: Define) -> None:
    name = op(silu)
    trt_plugins.custom_op(name, impl=tta.triton())
    known = registered.pop(name)  # so that the converter is somebody's
    try:
        (found,) = explained(lambda x: torch.ops.exp.silu(x) + 1).ops
        assert (found.outcome, found.left) == ("converter", 0)
        assert found.becomes == "TensorRT layers of another converter"
    finally:
        known.undo()


def test_the_division_is_that_of_torch_tensorrts_own_dry_run(
    op: Define, capfd: pytest.CaptureFixture[str]
) -> None:
    op(silu)
    op(normalize)

    def model(x: Tensor) -> Any:
        return torch.ops.exp.normalize(torch.ops.exp.silu(x.relu()) + 1).relu()

    assert tta.adopt(One(model), [STATIC]).ok
    now = explained(model).now
    partitioned(One(model), [torch_tensorrt.Input(STATIC.shape, dtype=half)])
    printed = capfd.readouterr().out
    assert now is not None
    assert f"Number of Operators in Engine: {now.operators}" in printed
    assert now == Split(7, 7, 1)


def test_an_op_that_torch_is_told_to_execute_says_so(op: Define) -> None:
    trt_plugins.custom_op(op(silu), impl=tta.triton())
    excluded = {"torch.ops.exp.silu.default"}
    (found,) = explained(
        lambda x: torch.ops.exp.silu(x) + 1, torch_executed_ops=excluded
    ).ops
    assert (found.layers, found.reason) == (0, "torch_executed_ops names it.")


def test_without_a_target_kernels_are_recorded_and_the_report_says_so(
    op: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPU is the target")
    monkeypatch.delenv("TTA_TARGET")
    op(silu)
    report = explained(lambda x: torch.ops.exp.silu(x) + 1)
    assert (report.target, report.ops[0].outcome) == ("", "possible")
    assert "pass target='sm_90'" in str(report)
    assert explained(lambda x: torch.ops.exp.silu(x) + 1, target="sm_80").target == (
        "sm_80"
    )


def test_a_model_without_custom_ops_is_explained_too() -> None:
    report = explained(lambda x: x.relu() + 1)
    assert str(report) == (
        "The model has no custom ops. TensorRT gets 2 of 2 operators, in 1 engine."
    )


def test_nothing_else_is_printed_or_logged(
    op: Define, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    trt_plugins.custom_op(op(refused), impl=tta.triton())
    report = explained(lambda x: torch.ops.exp.refused(x).relu() + 1)
    assert report["exp::refused"].left == 1
    ours = [r for r in caplog.records if "annotation" in r.name]
    assert (capfd.readouterr().out, ours) == ("", [])


def three(x: Tensor) -> Tensor:
    y = torch.ops.exp.normalize(torch.ops.exp.silu(x))
    return torch.ops.exp.no_kernel(y)  # type: ignore[no-any-return]


def test_the_summary_fits_80_columns_and_json_has_everything(op: Define) -> None:
    op(silu)
    op(normalize)
    op(no_kernel)
    report = explained(three)
    lines = str(report).splitlines()
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80
    assert text.startswith("0 of 3 custom ops become plugin layers; 2 could.")
    assert "2 plugin layers (partial_sum_kernel, divide_kernel)" in text
    assert "tta.adopt(model, inputs) registers exp::silu, exp::normalize" in text
    data = json.loads(report.to_json())
    assert [each["outcome"] for each in data["ops"]] == ["possible"] * 2 + ["pytorch"]
    assert (data["target"], data["ok"]) == ("sm_90", False)
    assert data["now"]["in_pytorch"]["exp.no_kernel.default"] == 1


@pytest.mark.parametrize("function", [tta.explain, tta.adopt])
def test_inputs_must_be_a_list(function: Any) -> None:
    with pytest.raises(SpecError, match="inputs is Tensor; pass a list"):
        function(One(torch.relu), STATIC)


def test_a_model_must_be_a_module_or_a_program() -> None:
    with pytest.raises(SpecError, match=r"the model is function; pass a torch\.nn\.M"):
        tta.explain(silu, [STATIC])


def test_a_model_that_cannot_be_exported_is_refused_with_its_line() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    line = Branches.forward.__code__.co_firstlineno + 1
    with pytest.raises(SpecError, match=rf"test_explain\.py:{line} in forward: Could"):
        tta.explain(Branches(), [torch.randn(4)])


def test_settings_must_be_those_of_torch_tensorrt() -> None:
    with pytest.raises(SpecError, match=r"not one of Torch-TensorRT's: .*min_blok"):
        explained(torch.relu, min_blok=1)


# --- adopt ----------------------------------------------------------------------------


def several(x: Tensor) -> Tensor:
    y = torch.ops.exp.normalize(torch.ops.exp.silu(x))
    return torch.ops.exp.refused(torch.ops.exp.no_kernel(y)).relu()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(STATIC, id="static"),
        pytest.param(DYNAMIC, id="dynamic", marks=pytest.mark.slow),
    ],
)
def test_every_op_that_can_be_is_registered_and_the_others_say_why(
    op: Define, given: Any
) -> None:
    for body in (silu, normalize, no_kernel, refused):
        op(body)
    report = tta.adopt(One(several), [given])
    outcomes = {each.op: each.outcome for each in report.ops}
    assert outcomes == {
        **{"exp::silu": "adopted", "exp::normalize": "adopted"},
        **{"exp::no_kernel": "pytorch", "exp::refused": "pytorch"},
    }
    assert list(registered) == ["exp::silu", "exp::normalize"]
    assert {each.dynamic for each in registered.values()} == {given is DYNAMIC}
    assert str(report).startswith("2 of 4 custom ops are registered, 2 of them now.")
    assert report["exp::normalize"].layers == 2
    after = explained(several, given)
    layers = {each.op: each.layers for each in after.ops if each.layers}
    assert layers == {"exp::silu": 1, "exp::normalize": 2}


def test_what_was_registered_before_stays_as_it_is(op: Define) -> None:
    trt_plugins.custom_op(op(silu), impl=tta.triton(configs=[{"num_warps": 8}]))
    before = registered["exp::silu"]
    (found,) = tta.adopt(One(lambda x: torch.ops.exp.silu(x)), [STATIC]).ops
    assert found.outcome == "plugin"
    assert registered["exp::silu"] is before


def test_unregister_undoes_it_and_options_reach_custom_op(op: Define) -> None:
    op(silu)
    model = One(lambda x: torch.ops.exp.silu(x))
    (found,) = tta.adopt(model, [STATIC], supports_dynamic_shapes=True).ops
    assert found.registration.endswith("supports_dynamic_shapes=True)")
    assert registered["exp::silu"].dynamic
    assert "test_explain.py" in registered["exp::silu"].location
    tta.unregister("exp::silu")
    assert list(registered) == []


@pytest.mark.parametrize("function", [tta.explain, tta.adopt])
@pytest.mark.parametrize("step", ["_failure", "custom_op"])
def test_an_interruption_leaves_no_op_half_registered(
    op: Define, monkeypatch: pytest.MonkeyPatch, step: str, function: Any
) -> None:
    op(silu)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(custom_ops, step, fail)
    with pytest.raises(KeyboardInterrupt):
        function(One(lambda x: torch.ops.exp.silu(x)), [STATIC])
    assert list(registered) == []


def test_explain_forgets_what_it_tried_when_it_is_interrupted(
    op: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    op(silu)
    original, calls = custom_ops._partition, [0]

    def partition(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            assert list(registered) == ["exp::silu"]
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(custom_ops, "_partition", partition)
    with pytest.raises(KeyboardInterrupt):
        explained(lambda x: torch.ops.exp.silu(x))
    assert list(registered) == []
