# SPDX-License-Identifier: BSD-3-Clause

"""Ops of several steps, and ops that write their inputs, in graphs and networks."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tensorrt as trt
import torch
import triton
import triton.language as tl
from torch import Tensor
from up_to_the_builder import Recorder, partitioned
from warned import warned

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._code.loaded import driver
from torch_tensorrt.annotation._plugin import Request, registered, unregister
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    LaunchError,
    UnsupportedKernelError,
)
from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter
from torch_tensorrt.dynamo.conversion.plugins import _aliased_io, _launch, _program
from torch_tensorrt.dynamo.lowering.passes import constant_folding

half, f32 = torch.float16, torch.float32
Input = torch_tensorrt.Input
STATIC = Input((64, 4096), dtype=half)
DYNAMIC = Input(
    min_shape=(2, 1024), opt_shape=(64, 4096), max_shape=(256, 8192), dtype=half
)


@triton.jit
def partial_sum_kernel(x, parts, n, BLOCK: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    columns = part * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, other=0.0).to(tl.float32)
    tl.store(parts + row * tl.num_programs(1) + part, tl.sum(value))


@triton.jit
def divide_kernel(x, total, y, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    by = tl.load(total + row)
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * n + columns, columns < n, other=0.0)
        tl.store(y + row * n + columns, (value / by).to(tl.float16), columns < n)


@triton.jit
def scale_rows_kernel(x, by, n, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + columns, columns < n, other=0.0)
    tl.store(x + row * n + columns, value * tl.load(by + row), columns < n)


@triton.jit
def count_kernel(x, counts, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(counts + tl.load(x + at, at < n, other=0), 1, at < n)


def normalize(x: Tensor) -> Tensor:
    m, n = x.shape
    parts = torch.empty(m, triton.cdiv(n, 128), dtype=f32, device=x.device)
    partial_sum_kernel[m, triton.cdiv(n, 128)](x, parts, n, BLOCK=128)
    y = torch.empty_like(x)
    divide_kernel[(m,)](x, parts.sum(1), y, n, BLOCK=256)
    return y.to(f32)


def scale_rows_(x: Tensor, by: Tensor) -> None:
    scale_rows_kernel[(x.shape[0],)](x, by, x.shape[1], BLOCK=8192)


def count(x: Tensor) -> Tensor:
    counts = torch.zeros(256, dtype=torch.int32, device=x.device)
    n = x.numel()
    count_kernel[(triton.cdiv(n, 1024),)](x, counts, n, BLOCK=1024)
    return counts


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_90")


Define = Callable[..., str]


@pytest.fixture
def op() -> Iterator[Define]:
    """Defines an op of namespace ``apart`` with a body, and registers it."""
    names: list[str] = []

    def define(
        body: Callable[..., Any],
        fake: Callable[..., Any],
        writes: tuple[str, ...] = (),
        configs: Any = None,
        **options: Any,
    ) -> str:
        name = f"apart::{body.__name__.rstrip('_')}"
        made = torch.library.custom_op(name, body, mutates_args=writes)
        made.register_fake(fake)
        options = {"supports_dynamic_shapes": True, **options}
        trt_plugins.custom_op(name, impl=tta.triton(configs=configs), **options)
        names.append(name)
        return name

    yield define
    for name in names:
        if name in registered:
            unregister(name)
        torch._library.custom_ops.OPDEFS[name]._lib._destroy()


def defined(op: Define, **options: Any) -> str:
    return op(normalize, lambda x: torch.empty_like(x, dtype=f32), **options)


class Around(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Any:
        return self._function(x)


class AroundTwo(Around):
    def forward(self, x: Tensor, by: Tensor) -> Any:
        return self._function(x, by)


def engine(function: Callable[..., Any], *inputs: Any) -> torch.fx.GraphModule:
    """The graph of the one engine that a model becomes."""
    kind = Around if len(inputs) == 1 else AroundTwo
    parts = partitioned(kind(function), inputs)
    assert {n.target for n in parts.graph.nodes if n.op == "call_module"} == {
        "_run_on_acc_0"
    }
    return parts._run_on_acc_0  # type: ignore[return-value]


def calls(graph_module: torch.fx.GraphModule) -> list[str]:
    called = (n.target for n in graph_module.graph.nodes if n.op == "call_function")
    return [
        str(target).removesuffix(".default")
        for target in called
        if target is not operator.getitem
    ]


def network_of(graph_module: torch.fx.GraphModule) -> Recorder:
    recorder = Recorder(graph_module)
    names = [n.name for n in graph_module.graph.nodes if n.op == "placeholder"]
    from network import tensor

    recorder.run(*map(tensor, names))
    return recorder


@pytest.mark.parametrize("given", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_each_launch_is_a_plugin_and_torch_keeps_its_operations(
    op: Define, given: Any
) -> None:
    defined(op)
    found = engine(lambda x: torch.ops.apart.normalize(x.relu()).relu(), given)
    assert calls(found) == [
        "aten.relu",
        "apart.normalize_step0",
        "aten.sum.dim_IntList",
        "apart.normalize_step1",
        "aten._to_copy",
        "aten.relu",
    ]
    recorder = network_of(found)
    assert [layer.op for layer in recorder.layers] == [
        "apart::normalize_step0",
        "apart::normalize_step1",
    ]
    assert recorder.layers[1].inputs == ("relu", "sum_1")
    assert recorder.network.copies == []  # nothing is written in place


def test_each_launch_has_the_configs_as_tactics(op: Define) -> None:
    defined(op, configs=[{"num_warps": warps} for warps in (2, 4, 8)])
    recorder = network_of(engine(lambda x: torch.ops.apart.normalize(x) + 1, STATIC))
    for layer in recorder.layers:
        report = tta.dry_run(layer.op, layer.profile, execute=False)
        assert [t.tactic for t in report.tactics if not t.error] == [1, 2, 3]
        assert [dict(t.config)["num_warps"] for t in report.tactics] == [2, 4, 8]


@triton.jit
def blocks_kernel(x, y, m, n, BLOCK: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [m, n], [n, 1], [BLOCK, BLOCK])
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    value = source.load([row, column])
    rows, columns = row + tl.arange(0, BLOCK), column + tl.arange(0, BLOCK)
    mask = (rows[:, None] < m) & (columns < n)
    tl.store(y + rows[:, None] * n + columns, value, mask)


def test_a_launch_of_several_has_scratch_memory_of_its_own(op: Define) -> None:
    def copied(x: Tensor) -> Tensor:
        m, n = x.shape
        parts = torch.empty(m, triton.cdiv(n, 128), dtype=f32, device=x.device)
        partial_sum_kernel[m, triton.cdiv(n, 128)](x, parts, n, BLOCK=128)
        y = torch.empty_like(x)
        blocks_kernel[triton.cdiv(m, 64), triton.cdiv(n, 64)](x, y, m, n, BLOCK=64)
        return y + parts.sum(1, keepdim=True)

    op(copied, lambda x: torch.empty_like(x, dtype=f32))
    layers = network_of(engine(lambda x: torch.ops.apart.copied(x), DYNAMIC)).layers
    hidden = {}
    for layer in layers:
        (tactic,) = tta.dry_run(layer.op, layer.profile, execute=False).tactics
        hidden[layer.op] = [shape.hidden for shape in tactic.shapes[:3]]
    blocks = (1 * 16, 1 * 64, 4 * 128)
    assert hidden == {
        "apart::copied_step0": [()] * 3,
        "apart::copied_step1": [((32 * count + 32,),) for count in blocks],
    }


def test_an_op_of_one_launch_is_left_as_it_is(op: Define) -> None:
    def double(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        divide_kernel[(x.shape[0],)](x, x, y, x.shape[1], BLOCK=256)
        return y

    op(double, torch.empty_like)
    found = engine(lambda x: torch.ops.apart.double(x).relu(), STATIC)
    assert calls(found) == ["apart.double", "aten.relu"]


def test_an_op_that_writes_an_input_gets_a_copy_to_write(op: Define) -> None:
    op(scale_rows_, lambda x, by: None, writes=("x",))

    def model(x: Tensor, by: Tensor) -> Tensor:
        y = x.relu()
        torch.ops.apart.scale_rows(y, by)
        return y * 2

    rows = Input((64,), dtype=half)
    recorder = network_of(engine(model, STATIC, rows))
    (layer,) = recorder.layers
    (copy,) = recorder.network.copies
    assert layer.op == "apart::scale_rows_step0"
    assert [t.label for t in copy.inputs] == ["relu"]
    assert layer.inputs == ("relu", "by", f"{copy.name}:0")
    assert [layer.plugin.get_num_outputs()] == [1]


def test_a_view_that_an_op_writes_is_put_back_into_its_tensor(op: Define) -> None:
    op(scale_rows_, lambda x, by: None, writes=("x",))

    def model(x: Tensor, by: Tensor) -> Tensor:
        y = x.relu()
        torch.ops.apart.scale_rows(y[:32], by[:32])
        return y * 2

    found = engine(model, STATIC, Input((64,), dtype=half))
    assert any("scatter" in call for call in calls(found))
    (multiplied,) = (
        n for n in found.graph.nodes if n.target is torch.ops.aten.mul.Tensor
    )
    assert multiplied.args[0].name != "relu"


def test_a_kernel_that_adds_to_zeros_gets_them_aliased(op: Define) -> None:
    op(count, lambda x: torch.empty(256, dtype=torch.int32, device=x.device))
    given = Input((8192,), dtype=torch.int32)
    recorder = network_of(engine(lambda x: torch.ops.apart.count(x.relu()) * 2, given))
    (layer,) = recorder.layers
    assert len(recorder.network.copies) == 1
    assert len(layer.tensors) == 2
    assert layer.tensors[1].shape == (256,)


def test_the_plugin_of_what_is_written_says_so_to_tensorrt(op: Define) -> None:
    op(count, lambda x: torch.empty(256, dtype=torch.int32, device=x.device))
    given = Input((8192,), dtype=torch.int32)
    recorder = network_of(engine(lambda x: torch.ops.apart.count(x.relu()) * 2, given))
    (layer,) = recorder.layers
    plugin = layer.plugin
    int32 = trt.DataType.INT32
    assert plugin.get_num_outputs() == 1
    assert plugin.get_output_data_types([int32, int32], [1, 1]) == [int32]
    assert plugin.get_aliased_input(0) == 1


@pytest.mark.parametrize("writes", [True, False])
def test_the_preview_feature_is_on_only_where_something_is_written(
    monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    on: list[Any] = []
    config = SimpleNamespace(set_preview_feature=lambda *how: on.append(how))
    monkeypatch.setattr(
        TRTInterpreter, "_populate_trt_builder_config", lambda self: config
    )
    _aliased_io.install()
    context = SimpleNamespace()
    if writes:
        _aliased_io.allow(context)  # type: ignore[arg-type]
    interpreter = SimpleNamespace(ctx=context)
    assert TRTInterpreter._populate_trt_builder_config(interpreter) is config
    feature = trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03
    assert on == ([(feature, True)] if writes else [])


# --- What cannot be taken apart -------------------------------------------------------


def unlaunchable(x: Tensor) -> Tensor:
    y, z = torch.empty_like(x), torch.empty_like(x)
    divide_kernel[(x.shape[0],)](x, x, y, x.shape[1], BLOCK=256)
    divide_kernel[(x.shape[0],)](y, x, z, x.shape[1], BLOCK=255)  # no power of two
    return z


def test_an_op_with_a_launch_that_no_tactic_serves_stays_in_pytorch(op: Define) -> None:
    op(unlaunchable, torch.empty_like)
    with warned(
        r"apart::unlaunchable, node .* stays in PyTorch: .*launch 1, of kernel"
    ) as messages:
        parts = partitioned(Around(lambda x: torch.ops.apart.unlaunchable(x)), [STATIC])
    assert sum("launch 1, of kernel" in message for message in messages) == 1
    assert "apart.unlaunchable" in str(parts.graph) or any(
        "apart.unlaunchable" in str(part.graph) for part in parts.children()
    )


def test_strictly_it_is_an_error(op: Define) -> None:
    op(unlaunchable, torch.empty_like, strict=True)
    with pytest.raises(Exception, match="launch 1, of kernel divide_kernel") as raised:
        partitioned(Around(lambda x: torch.ops.apart.unlaunchable(x)), [STATIC])
    causes = [raised.value, raised.value.__cause__]
    assert any(isinstance(cause, AnnotationError) for cause in causes)


def test_the_op_as_a_whole_says_that_it_is_several_steps(op: Define) -> None:
    plugin = registered[defined(op)].plugin
    assert plugin is not None
    request = Request.of([TensorInfo((64, 4096), half)], {}, Target("sm_90"))
    with pytest.raises(UnsupportedKernelError, match="several steps, partial_sum_kern"):
        plugin.tactic(1, request)


# --- Left in PyTorch ------------------------------------------------------------------


class OfConstants(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 1024, dtype=half))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.apart.normalize(self.weight + 1).relu() + x


def test_a_call_on_constants_alone_is_computed_by_the_ops_own_code(op: Define) -> None:
    made = torch._library.custom_ops.OPDEFS[defined(op)]
    made.register_kernel("cpu")(lambda x: x.to(f32) / x.to(f32).sum(1, keepdim=True))
    parts = partitioned(OfConstants(), [Input((4, 1024), dtype=f32)])
    (constant,) = parts._run_on_acc_0.parameters()
    torch.testing.assert_close(constant.cpu(), torch.full((4, 1024), 1 / 1024))
    assert calls(parts._run_on_acc_0) == ["aten.add.Tensor"]


def test_a_call_on_constants_that_is_not_folded_is_taken_apart(
    op: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = torch._library.custom_ops.OPDEFS[defined(op)]
    made.register_kernel("cpu")(lambda x: torch.empty_like(x, dtype=f32))
    kind = constant_folding._TorchTensorRTConstantFolder
    monkeypatch.setattr(kind, "is_impure", lambda folder, node: True)
    parts = partitioned(OfConstants(), [Input((4, 1024), dtype=f32)])
    assert "apart.normalize_step0" in calls(parts._run_on_acc_0)


def in_two_ways(x: Tensor) -> Tensor:
    y, z = torch.empty_like(x), torch.empty_like(x)
    divide_kernel[(x.shape[0],)](x, x, y, x.shape[1], BLOCK=256)
    if x.shape[0] == 1:
        return y.relu()
    divide_kernel[(x.shape[0],)](y, x, z, x.shape[1], BLOCK=256)
    return z


def test_a_launch_for_other_sizes_than_it_was_taken_apart_for_is_refused(
    op: Define,
) -> None:
    op(in_two_ways, torch.empty_like)
    engine(lambda x: torch.ops.apart.in_two_ways(x), Input((2, 64), dtype=half))
    x, y = (torch.empty(1, 64, dtype=half, device="meta") for _ in range(2))
    with pytest.raises(
        UnsupportedKernelError, match=r"step1: .* for inputs of \[\[1, 64"
    ):
        torch.ops.apart.in_two_ways_step1(x, between1=y)


@pytest.mark.parametrize(
    ("tensor", "is_held"),
    [
        (torch.empty(2, 1024, dtype=half), True),
        (torch.empty(256, 8192, dtype=half), True),
        (torch.empty(257, 1024, dtype=half), False),
        (torch.empty(2, 1023, dtype=half), False),
        (torch.empty(2, 1024), False),
        (torch.empty(1, 2, 1024, dtype=half), False),
        (None, False),
    ],
)
def test_a_kernel_is_for_the_shapes_of_its_profile(
    tensor: Tensor | None, is_held: bool
) -> None:
    info = TensorInfo((Range(2, 64, 256), Range(1024, 4096, 8192)), half)
    assert _launch.holds(Request.of([info], {}, None), [tensor]) is is_held


@pytest.mark.parametrize("count", [1, 2])
def test_a_launch_in_pytorch_has_the_kernel_of_the_graph_that_holds_it(
    op: Define, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    asked: list[Request] = []

    def launch(plugin: Any, request: Request, tensors: list[Tensor]) -> list[Tensor]:
        asked.append(request)
        return tensors * count

    monkeypatch.setattr(_launch, "launch", launch)
    steps = registered[defined(op)].steps
    assert isinstance(steps, _program.StepOps)
    engine(lambda x: torch.ops.apart.normalize(x) + 1, DYNAMIC)
    (structure,) = steps.plugin.structures.values()
    first, name = structure.steps[0], "apart::normalize_step0"
    for rows in (64, 300):  # within the graph's profile, and beyond
        x = torch.empty(rows, 2048, dtype=half)
        made = steps._run_launch(name, first, x)
        assert made is x if count == 1 else len(made) == count
    within, beyond = (request.inputs[0] for request in asked)
    assert within == TensorInfo((Range(2, 64, 256), Range(1024, 4096, 8192)), half)
    assert beyond == TensorInfo((300, 2048), half)


def test_without_the_drivers_bindings_a_launch_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(LaunchError, match="pip install cuda-bindings"):
        driver()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_launch_runs_in_pytorch_on_copies_of_what_it_writes(op: Define) -> None:
    op(scale_rows_, lambda x, by: None, writes=("x",))

    def model(x: Tensor, by: Tensor) -> Tensor:
        y = x.relu()
        torch.ops.apart.scale_rows(y, by)
        return y

    engine(model, STATIC, Input((64,), dtype=half))
    x = torch.randn(64, 4096, device="cuda", dtype=half)
    by = torch.randn(64, device="cuda", dtype=half)
    before = x.clone()
    found = torch.ops.apart.scale_rows_step0(x, by, between0=x)
    assert torch.equal(x, before)
    torch.testing.assert_close(found, x * by[:, None])
    # Of another shape than the graph's: transposed, and at an odd address.
    memory = torch.randn(1281, device="cuda", dtype=half)
    for x in (memory[:1280].view(40, 32).T, memory[1:].view(32, 40)):
        found = torch.ops.apart.scale_rows_step0(x, by[:32], between0=x)
        torch.testing.assert_close(found, x * by[:32, None])


# --- Registered, and forgotten --------------------------------------------------------


def traces(prefix: str) -> list[str]:
    from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY

    known = [*QDP_REGISTRY, *QDP_CREATORS, *registered]
    return [name for name in known if name.startswith(prefix)]


def test_with_an_op_its_launches_are_forgotten(op: Define) -> None:
    name = defined(op)
    engine(lambda x: torch.ops.apart.normalize(x) + 1, STATIC)
    assert traces(f"{name}_step0")
    unregister(name)
    assert traces(name) == []
    assert not hasattr(torch.ops.apart, "normalize_step0")


@pytest.mark.parametrize("fails", ["define_op", "register"])
def test_a_launch_whose_registration_fails_leaves_nothing(
    op: Define, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    name = defined(op)
    steps = registered[name].steps

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if fails == "define_op":
        monkeypatch.setattr(_program._torch_op, "define_op", fail)
    else:
        monkeypatch.setattr(steps, "_register", fail)
    with pytest.raises(KeyboardInterrupt):
        partitioned(Around(lambda x: torch.ops.apart.normalize(x)), [STATIC])
    assert [t for t in traces(name) if t != name] == []
    assert not hasattr(torch.ops.apart, "normalize_step0")


def test_the_same_op_at_two_places_shares_the_plugins_of_its_launches(
    op: Define,
) -> None:
    defined(op)

    def model(x: Tensor) -> Tensor:
        first: Tensor = torch.ops.apart.normalize(x).half()
        return torch.ops.apart.normalize(first[:32])  # type: ignore[no-any-return]

    found = calls(engine(model, STATIC))
    assert found.count("apart.normalize_step0") == 2
    assert found.count("apart.normalize_step1") == 2


def sums(x: Tensor, out: Tensor, BLOCK: int = 128) -> None:
    m, n = x.shape
    if BLOCK == 512 and m == 77:
        raise ValueError("not for 77 rows")
    parts = torch.empty(m, triton.cdiv(n, BLOCK), dtype=f32, device=x.device)
    partial_sum_kernel[m, triton.cdiv(n, BLOCK)](x, parts, n, BLOCK=BLOCK)
    divide_kernel[(m,)](x, parts.sum(1), out, n, BLOCK=256)


def test_the_tensors_between_launches_are_those_of_a_config_that_serves() -> None:
    spec = tta.triton(sums, configs=[{"BLOCK": 512}, {"BLOCK": 128}])
    meta = {"meta_impl": lambda x: torch.empty_like(x)}
    impl = tta.custom_plugin(spec, **meta)
    trt_plugins.custom_op(
        "apart::sums", impl=impl, supports_dynamic_shapes=True, strict=True
    )
    layer, _ = network_of(engine(lambda x: torch.ops.apart.sums(x) + 1, DYNAMIC)).layers
    given = [TensorInfo((64, 4096), half)]
    outputs = infer_outputs(registered[layer.op].plugin.meta, given, "it")  # type: ignore
    assert [output.shape for output in outputs] == [(64, 4096 // 128)]
