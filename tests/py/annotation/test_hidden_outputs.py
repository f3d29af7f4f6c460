# SPDX-License-Identifier: BSD-3-Clause

"""Buffers that a function allocates for its kernel and does not return.

The table of features has them in every language.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import triton
import triton.language as tl
from kernels import info
from network import convert, nodes, tensor
from up_to_the_builder import plugin_layers

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpretation
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._compile.job import Job, keys_of
from torch_tensorrt.annotation._hidden import in_words, shortage, widest
from torch_tensorrt.annotation._plugin import HiddenOutputs, Plugin, registered
from torch_tensorrt.annotation._record import record
from torch_tensorrt.annotation._record.program import Output, Pointer, Program
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DryRunError,
    DynamicControlFlowError,
    RecordError,
    UnsupportedKernelError,
)
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

HAS_GPU = torch.cuda.is_available()
on_a_gpu = pytest.mark.skipif(not HAS_GPU, reason="there is no GPU here")
without_a_gpu = pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
ROWS = Range(1, 8, 16)
X = torch_tensorrt.Input(
    min_shape=(1, 250), opt_shape=(8, 250), max_shape=(16, 250), dtype=torch.float32
)
MIDDLE = torch_tensorrt.Input(
    min_shape=(30, 250), opt_shape=(40, 250), max_shape=(50, 250), dtype=torch.float32
)
Launch = Callable[..., None]


@triton.jit
def norm_kernel(x_ptr, out_ptr, rstd_ptr, bias_ptr, width, HAS_BIAS: tl.constexpr):
    """RMS norm, which keeps the reciprocal of each row's root mean square."""
    row, columns = tl.program_id(0), tl.arange(0, 256)
    mask = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=mask, other=0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + 1e-6)
    tl.store(rstd_ptr + row, rstd.to(rstd_ptr.dtype.element_ty))
    if HAS_BIAS:
        x += tl.load(bias_ptr + columns, mask=mask)
    tl.store(out_ptr + row * width + columns, x * rstd, mask=mask)


def normalize(x: Any, out: Any, rstd: Any, bias: Any, has_bias: bool = False) -> None:
    norm_kernel[(x.shape[0],)](x, out, rstd, bias, x.shape[1], has_bias)


def launch_norm(x: Any, out: Any) -> None:
    normalize(x, out, x.new_empty(x.shape[0]), torch.empty([0], device=x.device))


def norm(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def recorded(launch: Launch, rows: Any = ROWS) -> Program:
    return record(backend("triton"), launch, like, [info(rows, 250)])


def register(launch: Launch, configs: Any = None) -> None:
    impl = tta.custom_plugin(tta.triton(launch, configs), meta_impl=like)
    trt_plugins.custom_op(
        "hid::op", impl=impl, supports_dynamic_shapes=True, replace=True
    )


def dry_run(launch: Launch, configs: Any = None, **how: Any) -> tta.DryRunReport:
    register(launch, configs)
    return tta.dry_run("hid::op", [X], "sm_90", **{"execute": False, **how})


def sizes(report: tta.DryRunReport) -> dict[str, Any]:
    (found,) = {tuple((s.name, s.hidden) for s in t.shapes) for t in report.tactics}
    return dict(found)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are interpreted, in processes, and however busy the machine is."""
    monkeypatch.setenv("TTA_JOBS", "2")
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 60.0)
    DYNAMO_CONVERTERS.set_compilation_settings(CompilationSettings())


# --- Sizes ----------------------------------------------------------------------------

N = symbol(0, 0)


def test_the_target_decides_the_size_of_a_buffer() -> None:
    def launch(x: Any, out: Any) -> None:
        sms = torch.cuda.get_device_properties(0).multi_processor_count
        normalize(x, out, x.new_empty(sms, x.shape[0]), None)

    register(launch)
    for sm_count in (114, 132):
        target = Target("sm_90", sm_count=sm_count)
        report = tta.dry_run("hid::op", [X], target, execute=False)
        assert sizes(report)["max"] == ((sm_count, 16),)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((), torch.int8, (1,)),
        ((), torch.int64, (2,)),
        ((7, 0), torch.int64, (2,)),
        ((3, 5), torch.int8, (3, 2)),
        ((3, 8), torch.int8, (3, 2)),
        ((3, 5), torch.float16, (3, 3)),
        ((3, 5), torch.float32, (3, 5)),
        ((3, 5), torch.int64, (3, 10)),
    ],
)
def test_a_shape_in_words_has_room_for_every_row(
    shape: tuple[int, ...], dtype: torch.dtype, words: tuple[int, ...]
) -> None:
    buffer = Output(tuple(map(sympy.Integer, shape)), dtype)
    assert in_words(buffer) == words


def test_the_widest_shape_has_room_for_all() -> None:
    two, three, four = map(sympy.Integer, (2, 3, 4))
    assert widest([]) == (1,)
    assert widest([(N,), (N,)]) == (N,)
    assert widest([(four,), (two, three)]) == (2, 4)
    assert str(widest([(N, two), (three,)])) == "(Max(1, d0_0), 3)"


def test_a_shortage_is_found_where_it_begins_and_nowhere_else() -> None:
    ranges = {N: Range(3, 8, 20)}
    buffer = Output((N, sympy.Integer(6)), torch.float16)
    assert shortage(buffer, (N, sympy.Integer(3)), ranges) == ""
    assert shortage(buffer, (3 * N,), ranges) == ""
    assert shortage(buffer, (2 * N + 3,), ranges).startswith("at d0_0=4")
    assert shortage(buffer, (2 * N + 20,), ranges) == ""


# --- What is recorded -----------------------------------------------------------------


def test_a_buffer_from_torch_empty_is_hidden_with_its_extents_as_expressions() -> None:
    program, rows = recorded(launch_norm), symbol(0, 0)
    assert program.outputs == (Output((rows, 250), torch.float16),)
    assert program.hidden == (
        Output((rows,), torch.float16),
        Output((0,), torch.float32),
    )
    pointers = [a for a in program.launch.arguments if isinstance(a, Pointer)]
    assert [p.tensor for p in pointers] == [0, 1, 2, 3]


MAKERS: dict[str, Callable[[Any], Any]] = {
    "empty": lambda x: torch.empty(x.shape[0], 3, device=x.device),
    "empty_like": lambda x: torch.empty_like(x[:, :3], dtype=torch.float32),
    "new_empty": lambda x: x.new_empty((x.shape[0], 3), dtype=torch.float32),
    "empty_strided": lambda x: torch.empty_strided(
        (x.shape[0], 3), (3, 1), device=x.device
    ),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_way_to_allocate_is_known(make: Callable[[Any], Any]) -> None:
    program = recorded(lambda x, out: normalize(x, out, make(x), x))
    assert program.hidden == (Output((symbol(0, 0), 3), torch.float32),)


def test_views_of_one_buffer_are_one_buffer_of_the_allocated_size() -> None:
    def launch(x: Any, out: Any) -> None:
        buffer = x.new_empty(x.shape[0], 4)
        normalize(x, out, buffer.view(-1)[:5], buffer.t())

    assert recorded(launch).hidden == (Output((symbol(0, 0), 4), torch.float16),)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "on the host": (lambda x: torch.empty(9), ArgumentError, "on cpu"),
    "gaps": (
        lambda x: torch.empty_strided((9,), (2,), device=x.device),
        *(ArgumentError, r"`rstd_ptr`: a buffer with strides \[2\]"),
    ),
}


@pytest.mark.parametrize(("make", "error", "why"), REFUSED.values(), ids=REFUSED)
def test_what_an_engine_does_not_have_is_refused(
    make: Callable[[Any], Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        recorded(lambda x, out: normalize(x, out, make(x), x))


def test_a_size_that_is_another_on_plain_ints_is_found_by_the_replay() -> None:
    def launch(x: Any, out: Any) -> None:
        rows = x.shape[0]
        normalize(x, out, x.new_empty(rows + int(isinstance(rows, int))), x)

    with pytest.raises(RecordError, match=r"hidden buffer 0, extent 0 is 2, .* as 1"):
        recorded(launch)


def test_a_dtype_that_is_another_on_plain_ints_is_found_by_the_replay() -> None:
    def launch(x: Any, out: Any) -> None:
        kinds = (torch.float16, torch.float32)
        dtype = kinds[isinstance(x.shape[0], int)]
        normalize(x, out, x.new_empty(x.shape[0], dtype=dtype), x)

    with pytest.raises(RecordError, match=r"torch\.float16.* was recorded"):
        recorded(launch)


def test_a_size_that_a_branch_decides_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        room = 64 if x.shape[0] > 100 else 32
        normalize(x, out, x.new_empty(room), x)

    with pytest.raises(DynamicControlFlowError, match="branches on"):
        recorded(launch, Range(1, 80, 5000))


def test_the_size_of_a_buffer_is_part_of_the_key_of_the_kernel_cache() -> None:
    def job(room: int) -> Job:
        program = recorded(lambda x, out: normalize(x, out, x.new_empty(room), x))
        return Job("a job", "triton", program, Target("sm_90"), {}, True)

    first, second = keys_of([job(16), job(32)])
    assert first is not None and second is not None and first != second


# --- What the plugin has --------------------------------------------------------------


def test_the_plugin_has_an_output_that_the_op_does_not_return() -> None:
    report = dry_run(launch_norm)
    assert report.ok
    assert sizes(report) == {
        **{"min": ((1,),), "opt": ((8,),), "max": ((16,),), "ragged": ((11,),)}
    }
    (tactic,) = report.tactics
    assert tactic.shapes[0].outputs == ((1, 250),)
    assert tactic.dtypes == ("FP32", "FP32") and "+1 hidden" in tactic.tensors
    assert tactic.at((5, 250)).hidden == ((5,),)
    assert tta.DryRunReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        *[(torch.float16, 8), (torch.int8, 4), (torch.float32, 15), (torch.int64, 30)],
        *[(torch.float64, 30), (torch.int16, 8), (torch.uint16, 8)],
        (torch.float8_e5m2, 4),
    ],
)
def test_a_buffer_is_in_words_of_32_bits(dtype: torch.dtype, words: int) -> None:
    def launch(x: Any, out: Any) -> None:
        normalize(x, out, x.new_empty((x.shape[0], 15), dtype=dtype), x)

    assert sizes(dry_run(launch))["opt"] == ((8, words),)


def test_a_hidden_output_is_row_major_where_the_others_are_packed() -> None:
    def launch(x: Any, out: Any) -> None:
        blocks = triton.cdiv(x.numel(), 256)
        kept = torch.empty(blocks, dtype=torch.float32, device=x.device)
        partial_kernel[(blocks,)](x, out, kept, None, x.numel(), 256)

    formats = {"input_formats": "CHW32", "output_formats": "CHW32"}
    impl = tta.custom_plugin(tta.triton(launch, **formats), meta_impl=like)
    trt_plugins.custom_op("hid::packed", impl=impl)
    x = torch.empty(2, 40, 3, 3, dtype=torch.float16)
    report = tta.dry_run("hid::packed", [x], "sm_90", execute=False)
    (tactic,) = report.tactics
    assert tactic.formats == ("CHW32", "CHW32")
    assert sizes(report)["static"] == ((triton.cdiv(2 * 64 * 3 * 3, 256),),)


DUMMIES: dict[str, Callable[[Any], Any]] = {
    "without elements": lambda x: torch.empty([0], device=x.device),
    "with elements": torch.empty_like,
}


@pytest.mark.parametrize("dummy", DUMMIES.values(), ids=DUMMIES)
def test_a_buffer_that_the_code_does_not_touch_is_no_output(
    dummy: Callable[[Any], Any],
) -> None:
    @triton.jit
    def kernel(x_ptr, out_ptr, bias_ptr, width, HAS_BIAS: tl.constexpr):
        columns = tl.program_id(0) * width + tl.arange(0, 256)
        x = tl.load(x_ptr + columns, mask=columns < width)
        if HAS_BIAS:
            x += tl.load(bias_ptr + columns)
        tl.store(out_ptr + columns, x, mask=columns < width)

    def launch(x: Any, out: Any) -> None:
        kernel[(x.shape[0],)](x, out, dummy(x), x.shape[1], False)

    report = dry_run(launch)
    (tactic,) = report.tactics
    assert set(sizes(report).values()) == {()}
    header = tactic.code[tactic.code.index(".entry") :].partition(")")[0]
    assert header.count(".param .u64") == 2
    layer = registered["hid::op"].plugin
    assert layer is not None and layer.hidden.count == 0


def test_a_buffer_that_is_loaded_from_and_never_stored_to_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        normalize(x, out, x.new_empty(x.shape[0]), x.new_empty(x.shape[1]), True)

    with pytest.raises(UnsupportedKernelError, match="loads from argument `bias_ptr`"):
        dry_run(launch)


def test_a_buffer_that_is_loaded_from_first_is_noted() -> None:
    @triton.jit
    def kernel(x_ptr, out_ptr, sum_ptr):
        before = tl.load(sum_ptr)
        tl.store(sum_ptr, before + tl.load(x_ptr))
        tl.store(out_ptr, before)

    (tactic,) = dry_run(lambda x, out: kernel[(1,)](x, out, x.new_empty(1))).tactics
    assert any("hidden 0 is loaded before it is stored to" in n for n in tactic.notes)


def test_a_kernel_that_looks_at_the_address_of_an_empty_buffer_is_refused() -> None:
    @triton.jit
    def kernel(x_ptr, out_ptr, bias_ptr):
        if bias_ptr.to(tl.int64) == 0:
            tl.store(out_ptr, tl.load(x_ptr))

    with pytest.raises(UnsupportedKernelError, match="address of argument `bias_ptr`"):
        dry_run(lambda x, out: kernel[(1,)](x, out, x.new_empty(0)))


# --- Several tactics have the same outputs --------------------------------------------


@triton.jit
def partial_kernel(x_ptr, out_ptr, first_ptr, second_ptr, n, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0.0)
    tl.store(first_ptr + block, tl.sum(x, axis=0))
    if second_ptr is not None:
        tl.store(second_ptr + block, tl.max(x, axis=0).to(tl.float16))
    tl.store(out_ptr + offsets, x, mask=offsets < n)


def launch_partial(x: Any, out: Any, BLOCK: int, both: bool = False) -> None:
    blocks = triton.cdiv(x.numel(), BLOCK)
    first = torch.empty(blocks, dtype=torch.float32, device=x.device)
    second = torch.empty((2, blocks), dtype=torch.float16, device=x.device)
    partial_kernel[(blocks,)](x, out, first, second if both else None, x.numel(), BLOCK)


def test_each_hidden_output_is_as_large_as_any_tactic_needs() -> None:
    configs = [{"BLOCK": 512}, {"BLOCK": 128}, {"BLOCK": 256, "both": True}]
    report = dry_run(launch_partial, configs)
    assert report.ok and len(report.tactics) == 3
    # Blocks of 128 for the first; two rows of float16 in words for the second.
    assert sizes(report)["opt"] == ((16,), (2, 4))
    entries = {tactic.entry for tactic in report.tactics}
    assert len(entries) == 3
    for tactic in report.tactics:
        header = tactic.code[tactic.code.index(".entry") :].partition(")")[0]
        assert header.count(".param .u64") == 4


def test_buffers_of_different_ranks_share_an_output() -> None:
    def launch(x: Any, out: Any, flat: bool) -> None:
        shape = (x.shape[0] * 3,) if flat else (x.shape[0], 2)
        buffer = torch.empty(shape, device=x.device)
        norm_kernel[(x.shape[0],)](x, out, buffer, x, 250 + flat, False)

    report = dry_run(launch, [{"flat": True}, {"flat": False}])
    assert sizes(report)["opt"] == ((8, 24),)


def test_a_plugin_object_keeps_the_outputs_that_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_TARGET", "sm_90")

    def meta(x: torch.Tensor, keep: bool) -> torch.Tensor:
        return torch.empty_like(x)

    def launch(x: Any, out: Any, keep: bool) -> None:
        rstd = x.new_empty(x.shape[0])
        norm_kernel[(x.shape[0],)](x, out, rstd if keep else out, x, 250, False)

    impl = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("conv::kept", impl=impl)

    class Module(torch.nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.keep = keep

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.conv.kept(x, self.keep) + 1

    objects = []
    for keep in (False, True, False):
        (node,) = nodes(Module(keep), torch.randn(8, 250))
        layer, output = convert(node, tensor("x"), keep)
        assert output.label == f"{layer.name}:0"
        objects.append(layer.plugin)
    assert [plugin.get_num_outputs() for plugin in objects] == [1, 2, 2]
    clones = [plugin.clone() for plugin in objects]
    assert [plugin.get_num_outputs() for plugin in clones] == [1, 2, 2]


# --- TensorRT asks for sizes before it has a profile ----------------------------------


def sized(room: Callable[[Any], Any]) -> Launch:
    def launch(x: Any, out: Any) -> None:
        normalize(x, out, x.new_empty(room(x.shape[0])), x)

    return launch


def test_a_branch_that_the_profile_decides_is_no_obstacle_if_there_is_room() -> None:
    launch = sized(lambda rows: 8 if rows > 100 else 32)
    assert sizes(dry_run(launch))["opt"] == ((32,),)


def test_a_product_of_sizes_need_not_fit_64_bits_without_a_profile() -> None:
    def launch(x: Any, out: Any) -> None:
        rows, columns = x.shape[0] * x.shape[1], x.shape[2]
        buffer = x.new_empty(x.numel(), dtype=torch.int64)
        norm_kernel[(rows,)](x, out, buffer, x, columns, False)

    low, high = (1, 1, 250), (16, 16, 250)
    batch = torch_tensorrt.Input(
        min_shape=low, opt_shape=low, max_shape=high, dtype=torch.float32
    )
    register(launch)
    report = tta.dry_run("hid::op", [batch], "sm_90", execute=False)
    assert sizes(report)["max"] == ((16 * 16 * 250 * 2,),)


def test_a_product_of_sizes_must_fit_64_bits_in_the_profile() -> None:
    buffer = Output((4 * N * symbol(0, 1),), torch.int64)
    large = {N: Range(1, 1, 2**31 - 1), symbol(0, 1): Range(1, 1, 2**31 - 1)}
    with pytest.raises(ArgumentError, match="may pass the 64 bits"):
        shortage(buffer, in_words(buffer), large)


def test_a_branch_for_large_sizes_is_no_obstacle_either() -> None:
    register(sized(lambda rows: 32 if rows > 10_000 else 8))
    shapes = {"min_shape": (20_000, 250), "max_shape": (30_000, 250)}
    large = torch_tensorrt.Input(**shapes, opt_shape=(20_000, 250), dtype=torch.float32)
    report = tta.dry_run("hid::op", [large], "sm_90", execute=False)
    assert sizes(report)["opt"] == ((32,),)


def test_a_branch_that_would_leave_too_little_room_is_refused() -> None:
    register(sized(lambda rows: 32 if 20 < rows < 100 else 8))
    with pytest.raises(
        UnsupportedKernelError,
        match=r"\[8\] words .* too few at x.shape\[0\]=30",
    ):
        tta.dry_run("hid::op", [MIDDLE], "sm_90")


def test_a_size_that_tensorrt_cannot_compute_is_refused() -> None:
    launch = sized(lambda rows: rows | 64)
    with pytest.raises(UnsupportedKernelError, match="cannot compute the expression"):
        dry_run(launch)


def test_a_function_that_wants_other_sizes_than_the_first_tried_is_asked_again() -> (
    None
):
    def launch(x: Any, out: Any) -> None:
        if x.shape[0] > 100:
            raise ValueError("too many rows")
        launch_norm(x, out)

    assert sizes(dry_run(launch))["opt"] == ((8,),)


def sized_or_none(room: Callable[[Any], Any]) -> Launch:
    """With ``keep``, it has a buffer; otherwise, the output stands for it."""

    def launch(x: Any, out: Any, keep: bool) -> None:
        kept = sized(room)
        kept(x, out) if keep else normalize(x, out, out, x)

    return launch


def test_a_kernel_that_needs_more_than_its_plugin_object_has_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(sized_or_none(lambda rows: rows), [{"keep": False}, {"keep": True}])
    plugin = registered["hid::op"].plugin
    assert plugin is not None
    monkeypatch.setattr(plugin, "prepare", lambda: None)
    monkeypatch.setattr(HiddenOutputs, "count", 0)
    why = r"leaves out tactics \[2\], .* did not need it at the inputs"
    with pytest.raises(DryRunError, match=why):
        tta.dry_run("hid::op", [X], "sm_90")


def test_a_kernel_for_which_tensorrt_allocates_too_little_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Plugin, "_without_room", lambda *_: None)
    launch = sized_or_none(lambda rows: 32 if 20 < rows < 100 else 8)
    register(launch, [{"keep": False}, {"keep": True}])
    why = r"leaves out tactics \[2\], .* a buffer of 32 words at the profile's min"
    with pytest.raises(DryRunError, match=why):
        tta.dry_run("hid::op", [MIDDLE], "sm_90")


# --- On the CPU, by Triton's interpreter ----------------------------------------------


@without_a_gpu
def test_a_kernel_with_a_hidden_output_passes_the_interpreter() -> None:
    report = dry_run(launch_norm, execute=None, reference=norm)
    assert report.ok and {s.ok for s in report.tactics[0].shapes} == {True}


def launch_parts(x: Any, out: Any, room: int = 0) -> None:
    """Two results in one buffer, the second where the first ends."""
    blocks = x.shape[0] * 2
    first, second = torch.empty(2 * blocks - room, device=x.device).split(
        [blocks, blocks - room]
    )
    partial_kernel[(blocks,)](x, out, first, second, x.numel(), 128)


@without_a_gpu
def test_a_part_of_a_hidden_buffer_may_be_passed() -> None:
    report = dry_run(launch_parts, execute=None, reference=torch.clone)
    assert report.ok and {s.ok for s in report.tactics[0].shapes} == {True}
    assert sizes(report)["opt"] == ((32,),)
    assert report.tactics[0].at((8, 250)).extras == (16, 2000)
    report = dry_run(launch_parts, [{"room": 1}], execute=None)
    assert "writes past the end of the tensor `second_ptr`, at" in report.problems[0]


@without_a_gpu
@pytest.mark.parametrize(
    "room",
    [lambda rows: max(rows - 1, 1), lambda rows: (rows + 1) // 2],
    ids=["by one", "half"],
)
def test_a_hidden_buffer_that_is_too_small_is_found(room: Callable[[Any], Any]) -> None:
    report = dry_run(sized(room), execute=None)
    assert not report.ok
    found = {s.name: s.failure for s in report.tactics[0].shapes}
    assert not found.pop("min") and found.keys() == {"opt", "max", "ragged"}
    why = "the kernel writes past the end of the tensor `rstd_ptr`, at "
    remedy = "or a buffer's where the launch function allocates it"
    assert all(f.startswith(why) and remedy in f for f in found.values())


@without_a_gpu
def test_an_output_that_depends_on_what_was_in_a_hidden_buffer_is_found() -> None:
    @triton.jit
    def kernel(x_ptr, out_ptr, sum_ptr, n):
        offsets = tl.program_id(0) * 256 + tl.arange(0, 256)
        mask = offsets < n
        before = tl.load(sum_ptr + offsets, mask=mask)
        tl.store(sum_ptr + offsets, before, mask=mask)
        x = tl.load(x_ptr + offsets, mask=mask)
        tl.store(out_ptr + offsets, before * 0.5 + x, mask=mask)

    def launch(x: Any, out: Any) -> None:
        n = x.numel()
        kernel[(triton.cdiv(n, 256),)](x, out, torch.empty_like(x), n)

    report = dry_run(launch, execute=None)
    assert "depend on memory outside of the inputs" in report.problems[0]


# --- The body of an op, in a model ----------------------------------------------------


def test_the_body_of_an_op_may_keep_a_buffer_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not HAS_GPU:
        monkeypatch.setenv("TTA_TARGET", "sm_90")

    @torch.library.custom_op("hid::body", mutates_args=())
    def body(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        launch_norm(x, out)
        return out

    body.register_fake(lambda x: torch.empty_like(x))
    try:
        trt_plugins.custom_op(
            "hid::body", impl=tta.triton(), supports_dynamic_shapes=True
        )

        class Model(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.relu(torch.ops.hid.body(x * 2))

        (layer,) = plugin_layers(Model(), [X])
        assert layer.plugin.get_num_outputs() == 2
        report = tta.dry_run("hid::body", layer.profile, reference=norm, strict=True)
        assert report.ok
        assert all(len(shape.hidden) == 1 for shape in report.tactics[0].shapes)
    finally:
        tta.unregister("hid::body")
        body._lib._destroy()


# --- On a GPU -------------------------------------------------------------------------


@on_a_gpu
def test_a_kernel_with_a_hidden_output_is_right_on_the_gpu() -> None:
    register(launch_norm)
    report = tta.dry_run("hid::op", [X], reference=norm, strict=True)
    assert report.ok and all(s.ok for s in report.tactics[0].shapes)
    x = torch.randn(8, 250, device="cuda")
    torch.testing.assert_close(torch.ops.hid.op(x), norm(x))


@on_a_gpu
def test_a_hidden_output_that_is_too_small_is_found_on_the_gpu() -> None:
    register(sized(lambda rows: rows - rows // 2))
    report = tta.dry_run("hid::op", [X])
    assert not report.ok
    assert "hidden buffer 0: the kernel writes outside of it" in report.problems[0]


@on_a_gpu
def test_tactics_that_share_hidden_outputs_are_right_on_the_gpu() -> None:
    configs = [{"BLOCK": 512}, {"BLOCK": 128}, {"BLOCK": 256, "both": True}]
    register(launch_partial, configs)
    assert tta.dry_run("hid::op", [X], reference=torch.clone, strict=True).ok
