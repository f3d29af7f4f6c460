# SPDX-License-Identifier: BSD-3-Clause

"""Recording a launch function: what becomes of its arguments, and what is refused."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sympy
import torch
import triton
from kernels import add_kernel, info, launch_add, scale_kernel
from values import evaluate

from torch_tensorrt.annotation._record import Call, infer_outputs, record
from torch_tensorrt.annotation._record.program import (
    Constant,
    Launch,
    Pointer,
    Program,
    Scalar,
)
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DataDependentError,
    DynamicControlFlowError,
    LaunchCountError,
    RecordError,
    UnsupportedKernelError,
    UserCodeError,
)

ROWS = Range(1, 8, 64)
X = info(ROWS, 4096)


def program(
    launch_fn: Callable[..., Any],
    *inputs: TensorInfo,
    meta: Callable[..., Any] = lambda x, *rest: torch.empty_like(x),
    **keywords: Any,
) -> Program:
    return record(backend("triton"), launch_fn, meta, inputs or (X, X), Call(keywords))


def recorded(launch_fn: Callable[..., Any], *inputs: TensorInfo, **how: Any) -> Launch:
    return program(launch_fn, *inputs, **how).launch


def launch(x: Any, y: Any, out: Any, n: Any, grid: Any = (1,), **options: Any) -> None:
    add_kernel[grid](x, y, n, out, BLOCK=256, **options)


def test_a_dynamic_size_becomes_an_expression_of_the_extents() -> None:
    result = recorded(launch_add)
    assert result.grid == (4 * symbol(0, 0), 1, 1)
    assert result.arguments[2] == Scalar("n", 4096 * symbol(0, 0))


def test_a_static_size_is_a_constant_expression() -> None:
    result = recorded(launch_add, info(8, 4096), info(8, 4096))
    assert result.grid == (32, 1, 1)
    assert result.arguments[2] == Scalar("n", sympy.Integer(32768))


def test_each_argument_has_its_role() -> None:
    result = recorded(launch_add, BLOCK=512)
    assert result.arguments == (
        Pointer("x_ptr", 0, torch.float16),
        Pointer("y_ptr", 1, torch.float16),
        Scalar("n", 4096 * symbol(0, 0)),
        Pointer("out_ptr", 2, torch.float16),
        Constant("BLOCK", 512),
    )


def test_constants_of_equal_value_and_other_type_differ() -> None:
    assert len({Constant("a", 1), Constant("a", 1.0), Constant("a", True)}) == 3


def test_compiler_options_of_the_launch_are_kept() -> None:
    result = recorded(lambda x, y, out: launch(x, y, out, 5, num_warps=2))
    assert dict(result.options) == {"num_warps": 2}


def test_a_reshaped_contiguous_view_is_its_tensor() -> None:
    result = recorded(lambda x, y, out: launch(x.contiguous().reshape(-1), y, out, 5))
    assert result.arguments[0] == Pointer("x_ptr", 0, torch.float16)


def test_a_view_of_another_dtype_is_a_pointer_of_that_dtype() -> None:
    result = recorded(lambda x, y, out: launch(x.view(torch.int16), y, out, 5))
    assert result.arguments[0] == Pointer("x_ptr", 0, torch.int16)


def test_an_output_that_the_fake_kernel_returns_as_an_alias_is_its_own_tensor() -> None:
    result = recorded(launch_add, meta=lambda x, y: x)
    assert [a.tensor for a in result.arguments if isinstance(a, Pointer)] == [0, 1, 2]


def test_outputs_are_contiguous_whatever_the_fake_kernel_says() -> None:
    strides = []

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        strides.append(out.stride())
        launch(x, y, out, 5)

    recorded(launch_fn, info(4, 6), info(4, 6), meta=lambda x, y: x.t())
    assert set(strides) == {(4, 1)}


def test_a_launch_function_that_launches_nothing_is_refused() -> None:
    with pytest.raises(LaunchCountError, match=r"<lambda> .* launched no kernel"):
        recorded(lambda x, y, out: None)


def test_a_slice_that_starts_at_the_base_is_its_tensors_pointer() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x[:, :7], y, out, x[:, :7].stride(0))

    result = recorded(launch_fn)
    assert result.arguments[0] == Pointer("x_ptr", 0, torch.float16)
    assert result.arguments[2] == Scalar("n", sympy.Integer(4096))


def test_an_argument_that_tensorrt_cannot_pass_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"argument `n`: object .* is neither an in"
    ):
        recorded(lambda x, y, out: launch(x, y, out, object()))


def test_a_float_that_follows_a_dynamic_size_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        scale_kernel[(1,)](1.0 / x.shape[0], 5, out, False, x, None, 16)

    with pytest.raises(ArgumentError, match="`alpha`: a float that is not constant"):
        recorded(launch_fn, X)


def test_a_float_computed_from_static_sizes_is_a_constant() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        scale_kernel[(1,)](x.shape[1] ** -0.5, 5, out, False, x, None, 16)

    assert recorded(launch_fn, X).arguments[0] == Constant("alpha", 1 / 64)


def test_a_compile_time_constant_that_follows_a_dynamic_size_is_refused() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, 5, out, BLOCK=x.shape[0])

    with pytest.raises(ArgumentError, match="`BLOCK`: a compile-time constant that"):
        recorded(launch_fn)


def test_a_grid_that_is_not_a_tuple_of_ints_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"the grid holds 2\.5"):
        recorded(lambda x, y, out: launch(x, y, out, 5, grid=(2.5,)))
    with pytest.raises(ArgumentError, match="the grid is 7; write it as a tuple"):
        recorded(lambda x, y, out: launch(x, y, out, 5, grid=7))
    with pytest.raises(ArgumentError, match="the grid has 4 dimensions"):
        recorded(lambda x, y, out: launch(x, y, out, 5, grid=(1, 1, 1, 1)))


def test_an_unknown_keyword_of_the_launch_is_refused() -> None:
    with pytest.raises(ArgumentError, match="launched with num_wraps="):
        recorded(lambda x, y, out: launch(x, y, out, 5, num_wraps=2))


def test_a_branch_that_the_profile_decides_is_taken() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 3 if x.shape[0] <= 64 else 4)

    assert recorded(launch_fn).arguments[2] == Scalar("n", sympy.Integer(3))


def test_a_branch_that_the_profile_leaves_open_is_refused_with_line_and_condition() -> (
    None
):
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 3 if x.shape[0] <= 32 else 4)

    line = launch_fn.__code__.co_firstlineno + 1
    with pytest.raises(
        DynamicControlFlowError, match=rf"`d0_0 <= 32` at .*test_record\.py:{line}"
    ):
        recorded(launch_fn)


def test_a_branch_that_changes_nothing_is_accepted() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = x.numel() if x.shape[0] <= 32 else x.shape[0] * 4096
        launch(x, y, out, n)

    assert recorded(launch_fn).arguments[2] == Scalar("n", 4096 * symbol(0, 0))


def test_a_size_turned_into_an_int_is_refused() -> None:
    with pytest.raises(DynamicControlFlowError, match="`d0_0 == 8` at "):
        recorded(lambda x, y, out: launch(x, y, out, int(x.shape[0])))


def test_two_inputs_may_be_required_to_have_the_same_shape() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        assert x.shape == y.shape
        launch(x, y, out, y.numel())

    assert recorded(launch_fn).grid == (1, 1, 1)


def test_a_shape_that_the_profile_allows_may_not_be_rejected() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        assert x.shape[0] % 8 == 0
        launch(x, y, out, 5)

    with pytest.raises(DynamicControlFlowError, match=r"`\(d0_0 % 8\) == 0` at "):
        recorded(launch_fn)


def test_an_error_of_the_launch_function_names_it_and_the_shapes() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        _, _, _ = x.shape

    with pytest.raises(RecordError, match=r"launch_fn .* raised ValueError .*4096"):
        recorded(launch_fn, X)


def test_launches_of_other_threads_are_left_alone() -> None:
    """They reach Triton, which here fails for want of a GPU."""
    failures: list[BaseException] = []
    recording = threading.Event()

    def elsewhere() -> None:
        recording.wait()
        try:
            add_kernel[(1,)](1, 2, 3, 4, BLOCK=16)
        except RuntimeError as error:
            failures.append(error)

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        recording.set()
        thread.join()
        launch(x, y, out, 5)

    if torch.cuda.is_available():
        pytest.skip("with a GPU the other thread's launch would run on bad pointers")
    thread = threading.Thread(target=elsewhere)
    thread.start()
    recorded(launch_fn)
    assert "driver" in str(failures[0])


def test_after_recording_triton_launches_as_before() -> None:
    before = triton.JITFunction.run
    recorded(launch_add)
    with pytest.raises(LaunchCountError):
        recorded(lambda x, y, out: None)
    assert triton.JITFunction.run is before


def test_a_kernel_with_a_hook_is_refused() -> None:
    hooked = triton.jit(add_kernel.fn)
    hooked.add_pre_run_hook(lambda *args, **kwargs: None)
    with pytest.raises(UnsupportedKernelError, match="it has a pre-run hook"):
        recorded(lambda x, y, out: hooked[(1,)](x, y, 5, out, BLOCK=16))


def test_outputs_follow_the_fake_kernel_in_number_shape_and_dtype() -> None:
    outputs = infer_outputs(
        lambda x: (
            x.new_empty(x.shape[1], x.shape[0] // 2),
            x.sum(-1, dtype=torch.int64),
        ),
        (X,),
        "the meta function",
    )
    rows = symbol(0, 0)
    assert [str(o.shape) for o in outputs] == [f"(4096, ({rows}//2))", f"({rows},)"]
    assert [o.dtype for o in outputs] == [torch.float16, torch.int64]


def test_a_fake_kernel_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(ArgumentError, match="the meta function returned int"):
        infer_outputs(lambda x: 5, (X,), "the meta function")


def test_a_branch_behind_a_branch_that_changes_nothing_is_found() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = 1 if x.shape[0] <= 32 else 1 if x.shape[0] <= 48 else 2
        launch(x, y, out, n)

    with pytest.raises(DynamicControlFlowError, match=r"d0_0 <= (32|48)"):
        recorded(launch_fn)


def test_a_launch_function_that_remembers_is_refused() -> None:
    calls: list[int] = []

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        calls.append(len(calls))
        launch(x, y, out, len(calls))

    with pytest.raises(RecordError, match="must depend on nothing but its arguments"):
        recorded(launch_fn, info(8), info(8))


def test_operators_may_write_tensors_that_the_launch_function_made() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        torch.empty_like(x).zero_()
        launch(x, y, out, 5)

    assert recorded(launch_fn).name == "add_kernel"


@pytest.mark.parametrize("inputs", [(X, X), (info(8), info(8))], ids=["dynamic", "st"])
def test_an_address_is_no_argument(inputs: tuple[TensorInfo, ...]) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, x.data_ptr())

    with pytest.raises(ArgumentError, match="asks for a tensor's address"):
        recorded(launch_fn, *inputs)


def test_extents_that_differ_in_one_corner_only_are_not_taken_for_equal() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        stride = y.stride(0)
        if y.shape[0] != x.shape[0]:
            assert y.shape[0] == 1  # one row for all
            stride = 0
        launch(x, y, out, stride)

    with pytest.raises(DynamicControlFlowError, match="`d1_0 == d0_0` at "):
        recorded(launch_fn)


@pytest.mark.parametrize("opt", [1, 16, 64])
def test_opt_is_like_any_other_shape(opt: int) -> None:
    """Also where the code compares with it, or where it is 1."""

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        if x.shape[0] == 16:
            pass
        launch(x, y, out, x.numel())

    inputs = info(Range(1, opt, 64), 4096)
    result = recorded(launch_fn, inputs, inputs)
    assert result.arguments[2] == Scalar("n", 4096 * symbol(0, 0))


def test_a_branch_at_opt_is_refused() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, 1 if x.shape[0] == 16 else 2)

    inputs = info(Range(1, 16, 64), 4096)
    with pytest.raises(DynamicControlFlowError, match="`d0_0 != 16` at "):
        recorded(launch_fn, inputs, inputs)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.reshape(-1, 64),
        lambda x: x.contiguous().view(-1, x.shape[-1]),
        lambda x: x.flatten(0, -2),
    ],
    ids=["reshape", "view", "flatten"],
)
def test_leading_dimensions_may_be_flattened(flatten: Any) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        rows, _ = flatten(x).shape
        launch(flatten(x), y, out, rows, grid=(rows,))

    inputs = info(Range(1, 4, 8), Range(1, 16, 128), 64)
    assert recorded(launch_fn, inputs, inputs).grid[0] == symbol(0, 0) * symbol(0, 1)


SIZES: dict[str, tuple[Any, Any]] = {
    "min": (lambda m, n: min(m, 7), lambda m, n: min(m, 7)),
    "max of a list": (lambda m, n: max([m // 8, n, 1]), lambda m, n: max(m // 8, n, 1)),
    "modulo": (lambda m, n: (m + n) % 5, lambda m, n: (m + n) % 5),
    "math.prod": (lambda m, n: math.prod((m, n, 3)), lambda m, n: m * n * 3),
    "ceil of a quotient": (
        lambda m, n: math.ceil(m * n / 7),
        lambda m, n: -(-m * n // 7),
    ),
    "cdiv": (lambda m, n: triton.cdiv(m, 7), lambda m, n: -(-m // 7)),
    "shift": (lambda m, n: m << 3, lambda m, n: m << 3),
}


@pytest.mark.parametrize(("written", "meant"), SIZES.values(), ids=SIZES)
def test_sizes_may_be_written_as_python_has_them(written: Any, meant: Any) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, written(*x.shape))

    inputs = info(Range(1, 9, 64), Range(1, 30, 99))
    scalar = recorded(launch_fn, inputs, inputs).arguments[2]
    assert isinstance(scalar, Scalar)
    for m, n in [(1, 1), (64, 99), (7, 14), (8, 15), (33, 2)]:
        assert evaluate(scalar.expr, {symbol(0, 0): m, symbol(0, 1): n}) == meant(m, n)


def test_builtins_are_pythons_own_again_after_a_record() -> None:
    before = (min, max, torch.cuda.device, torch.cuda.current_stream)
    recorded(launch_add)
    assert (min, max, torch.cuda.device, torch.cuda.current_stream) == before


def test_other_threads_have_pythons_own_builtins_while_one_records() -> None:
    """Here ``min`` of a size makes an expression; elsewhere it compares, as ever."""
    found: list[Any] = []
    sizes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def elsewhere() -> None:
        size = sizes.get()
        found.append((min(size, 100) is size, max((1, size)) is size))
        found.append((min([], default=5), max("a", "bc", key=len), divmod(-7, 2)))
        for wrong in (lambda: min(), lambda: max(1), lambda: divmod(1, "a")):
            with pytest.raises(TypeError):
                wrong()
        found.append("raised")

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        size = x.shape[0]
        assert isinstance(size, int) or min(size, 100) is not size
        sizes.put(size)
        thread.join()
        launch(x, y, out, 5)

    inputs = info(Range(2, 8, 64), 4096)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    recorded(launch_fn, inputs, inputs)
    assert found[:3] == [(True, True), (5, "bc", (-4, 1)), "raised"]


def test_threads_record_one_after_the_other() -> None:
    def size(extent: int) -> Any:
        inputs = info(Range(1, extent, 64), extent)
        return recorded(launch_add, inputs, inputs).arguments[2]

    extents = [3, 5, 7, 9]
    with ThreadPoolExecutor(len(extents)) as threads:
        found = list(threads.map(size, extents))
    assert found == [Scalar("n", extent * symbol(0, 0)) for extent in extents]


def test_the_usual_device_and_stream_calls_work_without_a_gpu() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        with torch.cuda.device(x.device):
            assert isinstance(torch.cuda.current_stream().cuda_stream, int)
            launch(x, y, out, 5)

    assert recorded(launch_fn).name == "add_kernel"


def test_a_record_inside_a_record_is_refused() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        recorded(launch_add)

    with pytest.raises(RecordError, match="records another while it is recorded"):
        recorded(launch_fn)


def unique_count(x: torch.Tensor) -> torch.Tensor:
    """Fake kernel of an op whose output is as long as ``x`` has unlike values."""
    return x.new_empty(torch.unique(x).shape[0])


def test_an_output_sized_from_values_is_refused_by_name() -> None:
    with pytest.raises(DataDependentError, match="depends on the values of a tensor"):
        infer_outputs(unique_count, [info(4, 4)], "the fake kernel")


def test_an_argument_that_follows_from_values_is_refused_by_name() -> None:
    def count(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, torch.unique(x).shape[0])

    with pytest.raises(DataDependentError, match="depends on the values of a tensor"):
        recorded(count)


def test_more_dimensions_than_tensorrt_has_are_refused() -> None:
    nine = info(*(1,) * 9)
    with pytest.raises(ArgumentError, match=r"input 0 has 9 dimensions; .* 8 at"):
        recorded(launch_add, nine, nine)
    with pytest.raises(ArgumentError, match="output 0 has 9 dimensions"):
        infer_outputs(lambda x: x.view((1,) * 9), [info(1)], "the fake kernel")


def test_tensors_without_dimensions_are_recorded() -> None:
    result = program(launch_add, info(), info())
    assert result.launch.grid == (1, 1, 1)
    assert result.outputs[0].shape == ()


def test_an_argument_read_from_a_tensor_is_refused_by_name() -> None:
    def first(x: Any, y: Any, out: Any) -> None:
        launch(x, y, out, x[0, 0].item())

    with pytest.raises(DataDependentError, match="`n`: it depends on the values"):
        recorded(first, info(4, 4), info(4, 4))


def test_the_error_for_a_function_that_returns_its_outputs_says_what_to_do() -> None:
    def add(x: Any, y: Any) -> Any:
        out = torch.empty_like(x)
        launch(x, y, out, x.numel())
        return out

    with pytest.raises(ArgumentError, match="let it take them as parameters after"):
        recorded(add)


def test_a_tensor_in_a_configs_place_is_refused() -> None:
    def one_input(x: Any, out: Any, BLOCK: int = 256) -> None:
        raise AssertionError("it must not be called")

    with pytest.raises(ArgumentError, match="`BLOCK=256` would get a tensor"):
        recorded(one_input)


def test_the_function_that_raised_is_named() -> None:
    def meta(x: Any, y: Any) -> Any:
        raise RuntimeError("no such shape")

    with pytest.raises(UserCodeError, match=r"^the fake kernel raised RuntimeError"):
        recorded(launch_add, meta=meta)


def test_every_output_must_reach_the_kernel() -> None:
    def launch_fn(x: Any, out: Any, forgotten: Any) -> None:
        launch(x, x, out, 5)

    def turned(x: Any, forgotten: Any, out: Any) -> None:
        launch(x, x, out, 5)

    def meta(x: Any) -> Any:
        return torch.empty_like(x), torch.empty_like(x)

    for function, index in ((launch_fn, 1), (turned, 0)):
        with pytest.raises(ArgumentError, match=f"output {index} of the meta function"):
            recorded(function, X, meta=meta)


def test_a_stream_is_passed_where_it_is_declared() -> None:
    streams: list[Any] = []

    def launch_fn(x: Any, y: Any, out: Any, stream: Any, BLOCK: int) -> None:
        streams.append(stream)
        add_kernel[(1,)](x, y, 5, out, BLOCK=BLOCK)

    assert recorded(launch_fn, BLOCK=64).arguments[-1] == Constant("BLOCK", 64)
    assert recorded(launch_fn, BLOCK=64, stream=7).name == "add_kernel"
    assert set(streams) == {0, 7}


def test_a_function_that_takes_something_else_is_refused_with_what_it_would_get() -> (
    None
):
    def launch_fn(x: Any, out: Any) -> None:
        raise AssertionError("it must not be called")

    with pytest.raises(ArgumentError, match=r"2 inputs, 1 outputs .* none: too many p"):
        recorded(launch_fn)
    with pytest.raises(ArgumentError, match="keywords BLOCK: got an unexpected") as it:
        recorded(launch_fn, X, BLOCK=3)
    assert "after the inputs; or make it the body" not in str(it.value)


def test_an_input_that_is_not_given_is_none() -> None:
    def launch_fn(x: Any, bias: Any, out: Any) -> None:
        assert bias is None
        scale_kernel[(1,)](1.0, 5, out, False, x, bias, 16)

    result = record(
        backend("triton"), launch_fn, lambda x, bias: torch.empty_like(x), (X, None)
    )
    assert result.inputs == (X, None)
    assert result.launch.arguments[5] == Constant("bias_ptr", None)
    assert result.launch.arguments[2] == Pointer("out_ptr", 2, torch.float16)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Call(input_formats=("HWC8",)), ("HWC8", "HWC8", "LINEAR")),
        (Call(input_formats=("HWC8",), weights=1), ("HWC8", "LINEAR", "LINEAR")),
        (Call(output_formats=("HWC8",)), ("LINEAR", "LINEAR", "HWC8")),
    ],
)
def test_one_format_is_that_of_every_tensor_but_weights(
    call: Call, expected: tuple[str, ...]
) -> None:
    inputs = info(8, 4, 4), info(8, 4, 4)
    meta = lambda x, y: torch.empty_like(x)  # noqa: E731
    found = record(backend("triton"), launch_add, meta, inputs, call)
    assert found.formats == expected


@pytest.mark.parametrize(
    ("grid", "expected"),
    [((3,), (3, 1, 1)), ((3, 4), (3, 4, 1)), ((3, 4, 5), (3, 4, 5))],
)
def test_a_grid_has_three_axes(grid: tuple[int, ...], expected: tuple[int]) -> None:
    assert recorded(lambda x, y, out: launch(x, y, out, 5, grid=grid)).grid == expected


def test_a_condition_is_a_scalar_and_a_decided_one_a_constant() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        rows = x.shape[0]
        scale_kernel[(1,)](rows > 9, rows < rows, out, rows == rows, x, None, 16)

    alpha, n, _, negate, *_ = recorded(launch_fn, X).arguments
    assert alpha == Scalar("alpha", symbol(0, 0) > 9)
    assert n == Constant("n", False)
    assert negate == Constant("negate", True)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (lambda rows: rows * 2 // rows * 8, 16),
        (lambda rows: rows == rows, True),
        (lambda rows: rows < rows, False),
    ],
)
def test_a_compile_time_constant_may_be_computed_from_sizes_that_cancel(
    written: Any, value: Any
) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        scale_kernel[(1,)](1.0, 5, out, False, x, None, written(x.shape[0]))

    assert recorded(launch_fn, X).arguments[-1] == Constant("BLOCK", value)


def test_a_compile_time_condition_that_follows_a_dynamic_size_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        scale_kernel[(1,)](1.0, 5, out, False, x, None, x.shape[0] > 9)

    with pytest.raises(ArgumentError, match=r"follows a dynamic size \(d0_0 > 9\)"):
        recorded(launch_fn, X)


def test_a_long_expression_is_not_in_the_message() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        size = sum((x.shape[0] + i) // (i + 2) for i in range(40))
        add_kernel[(1,)](x, y, 5, out, BLOCK=size)

    with pytest.raises(ArgumentError, match=r"\(a long expression of d0_0\), and"):
        recorded(launch_fn)


# --- Bodies of ops, which allocate their outputs --------------------------------------


def of_body(function: Callable[..., Any], **keywords: Any) -> Program:
    meta = lambda x: torch.empty_like(x)  # noqa: E731
    call = Call(keywords, names=("x",))
    return record(backend("triton"), function, meta, (info(ROWS, 8),), call)


def copied(x: Any, out: Any) -> Any:
    launch(x, x, out, 5)
    return out


def test_what_a_body_allocates_and_returns_is_the_output() -> None:
    def body(x: Any, *, factor: int) -> Any:
        torch.empty_like(x)
        out = torch.empty_like(x)
        add_kernel[(1,)](x, x, 5, out, BLOCK=factor)
        return out

    result = of_body(body, factor=64)
    assert result.outputs[0].shape == (symbol(0, 0), 8)
    assert result.launch.arguments[0] == Pointer("x_ptr", 0, torch.float16)
    assert result.launch.arguments[3] == Pointer("out_ptr", 1, torch.float16)
    assert result.launch.arguments[4] == Constant("BLOCK", 64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.new_empty(x.shape[0], 9), "fake kernel .*One of them is wrong"),
        (lambda x: torch.empty_like(x, dtype=torch.int8), "One of them is wrong"),
        (lambda x: x, "output 0 comes from an input"),
    ],
)
def test_a_body_that_returns_something_else_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        of_body(lambda x: copied(x, make(x)))


def test_a_body_that_returns_no_tensor_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"returns \(\), and the op's fake"):
        of_body(lambda x: None)


# --- Indexing, which torch without CUDA refuses of a fake CUDA tensor -----------------

KEYS: list[Any] = [
    0,
    -1,
    slice(1, 3),
    slice(None, None, 2),
    slice(1, None, 2),
    None,
    Ellipsis,
    (0, 1),
    (0, slice(2, 4)),
    (slice(0, 1), 2),
    (None, 1),
    (1, None),
    (None, slice(1, 2), None, 3),
    (..., 2),
    (..., 2, slice(1, 3)),
    (1, ...),
    (1, ..., 2),
    (0, ..., None),
    (None, ..., 1, None),
    (slice(None), ..., slice(1, 2)),
    (1, 2, ..., 3),
]


def test_an_index_gives_the_view_that_torch_has() -> None:

    def layouts(tensor: torch.Tensor) -> list[Any]:
        views = [tensor[key] for key in KEYS]
        return [(tuple(v.shape), v.stride(), v.storage_offset()) for v in views]

    expected = layouts(torch.empty(4, 5, 6))

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        assert layouts(x) == expected
        launch(x, y, out, 5)

    inputs = info(4, 5, 6)
    assert recorded(launch_fn, inputs, inputs).name == "add_kernel"


# --- Builtins, of sizes and of anything else ------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (lambda x: max(x.shape[0], 1), lambda n: max(n, 1)),
        (lambda x: divmod(x.shape[0], 7)[0], lambda n: n // 7),
        (lambda x: divmod(x.shape[0], 7)[1], lambda n: n % 7),
        (lambda x: divmod(99, x.shape[0] + 2)[0], lambda n: 99 // (n + 2)),
        (lambda x: len(x) * 3, lambda n: 3 * n),
        (lambda x: len(x[:, 0]) * 3, lambda n: 3 * n),
        (lambda x: len(x.shape) + len(x[:1].t()), lambda n: 10),
        (lambda x: ~x.shape[0], lambda n: -n - 1),
        (lambda x: x.shape[0] // -7, lambda n: n // -7),
        (lambda x: (x.shape[0] - 20) // -7, lambda n: (n - 20) // -7),
        (
            lambda x: (x.shape[0] // 3) // -(x.shape[0] + 2),
            lambda n: n // 3 // -(n + 2),
        ),
        (lambda x: x.shape[0] % -7, lambda n: n % -7),
        (lambda x: (20 - x.shape[0]) % -7, lambda n: (20 - n) % -7),
        (lambda x: 100 // (x.shape[0] + 1), lambda n: 100 // (n + 1)),
        (lambda x: 100 % (x.shape[0] + 1), lambda n: 100 % (n + 1)),
        (lambda x: min([5], default=x.shape[0]), lambda n: 5),
        (lambda x: max(4, 5, key=lambda k: -k), lambda n: 4),
        (lambda x: min({3, 4}), lambda n: 3),
    ],
)
def test_builtins_are_right_for_every_size(written: Any, meant: Any) -> None:
    """From zero on, which torch takes for impossible."""

    def launch_fn(x: Any, out: Any) -> None:
        launch(x, x, out, written(x))

    (_, _, scalar, *_) = recorded(launch_fn, info(Range(0, 8, 40), 8)).arguments
    assert isinstance(scalar, Scalar)
    for n in range(41):
        assert evaluate(scalar.expr, {symbol(0, 0): n}) == meant(n)


def test_a_tensor_without_dimensions_has_no_length() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        with pytest.raises(TypeError, match="len"):
            len(x)
        launch(x, y, out, 5)

    assert recorded(launch_fn, info(), info()).name == "add_kernel"


@pytest.mark.parametrize(
    "expand",
    [
        lambda x, b: b.broadcast_to(x.shape),
        lambda x, b: b.unsqueeze(0).expand(*x.shape[:2], -1),
        lambda x, b: torch.broadcast_to(b[None, None], x.shape),
    ],
)
def test_the_strides_of_an_expanded_tensor_are_right_where_an_axis_is_one(
    expand: Callable[[Any, Any], Any],
) -> None:
    def launch_fn(x: Any, b: Any, out: Any) -> None:
        expanded = expand(x, b)
        first, second, last = expanded.stride()
        assert (expanded.stride(0), expanded.stride(-1)) == (first, last)
        add_kernel[(1 + first, 1 + second)](x, b, last, out, BLOCK=64)

    inputs = [info(Range(1, 2, 9), Range(1, 3, 9), 48), info(48)]
    program = record(backend("triton"), launch_fn, lambda x, b: x.new_empty(9), inputs)
    assert program.launch.grid is not None
    assert symbol(0, 0) in program.launch.grid[0].free_symbols
