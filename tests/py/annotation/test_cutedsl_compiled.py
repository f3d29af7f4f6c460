# SPDX-License-Identifier: BSD-3-Clause

"""Launchers that a library compiles once and calls later, as CuTe DSL binds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import pytest
import torch

pytest.importorskip("cutlass", reason="CuTe DSL is not installed")

import cutlass
import cutlass.cute as cute
from cuda.bindings.driver import CUstream
from cutedsl_kernels import flattened, thread_index
from cutedsl_tools import ROWS, compiled, launch_copy, recorded
from cutlass import Constexpr, Float32, Int32
from cutlass.cute.runtime import (
    from_dlpack,
    make_fake_stream,
    make_fake_tensor,
    make_ptr,
    nullptr,
)
from cutlass.cute.testing import autotune_jit
from kernels import info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._record.program import Constant, Pointer, Program
from torch_tensorrt.annotation._tensors import symbol
from torch_tensorrt.annotation.backends import Kind, Slot
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    RecordError,
    UnsupportedKernelError,
    UserCodeError,
)
from torch_tensorrt.dynamo.conversion import plugins as trt_plugins

TVM_FFI = {"options": "--enable-tvm-ffi"}
X = info(ROWS, 8)


def placeholder(
    columns: Any = 8, dtype: Any = cutlass.Float16, rows: Any = None
) -> cute.Tensor:
    rows = cute.sym_int() if rows is None else rows
    return make_fake_tensor(dtype, (rows, columns), stride=(columns, 1))


def environment_stream() -> Any:
    return make_fake_stream(use_tvm_ffi_env_stream=True)


@cute.kernel
def residual_kernel(x, bias, residual, out):  # type: ignore[no-untyped-def]
    i = thread_index()
    if i < cute.size(x):
        value = x[i]
        if cutlass.const_expr(bias is not None):
            value += bias[i]
        if cutlass.const_expr(residual is not None):
            value -= residual[i]
        out[i] = value


@cute.jit
def launch_residual(
    x: cute.Tensor,
    bias: cute.Tensor | None,
    residual: cute.Tensor | None,
    out: cute.Tensor,
    stream: CUstream,
):
    if cutlass.const_expr(bias is not None):
        bias = flattened(bias)
    if cutlass.const_expr(residual is not None):
        residual = flattened(residual)
    residual_kernel(flattened(x), bias, residual, flattened(out)).launch(
        grid=(cute.ceil_div(cute.size(x), 128), 1, 1), block=(128, 1, 1), stream=stream
    )


@cute.jit
def launch_out_second(
    x: cute.Tensor,
    out: cute.Tensor,
    bias: cute.Tensor | None,
    residual: cute.Tensor | None,
    stream: CUstream,
):
    launch_residual(x, bias, residual, out, stream)


@cute.jit
def launch_stream_second(
    x: cute.Tensor,
    stream: CUstream,
    bias: cute.Tensor | None,
    residual: cute.Tensor | None,
    out: cute.Tensor,
):
    launch_residual(x, bias, residual, out, stream)


def bound(program: Program) -> dict[str, int]:
    """The tensor that each argument is bound to."""
    arguments = program.launch.arguments
    return {a.name: a.tensor for a in arguments if isinstance(a, Pointer)}


@pytest.mark.parametrize(
    ("launcher", "order"),
    [
        (launch_residual, ("x", "bias", "residual", "out")),
        (launch_out_second, ("x", "out", "bias", "residual")),
        (launch_stream_second, ("x", "bias", "residual", "out")),
    ],
)
@pytest.mark.parametrize("given", ["bias", "residual"])
def test_none_keeps_its_place_and_a_stream_of_the_environment_has_none(
    launcher: Any, order: tuple[str, ...], given: str
) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        tensors = {"x": x, given: y, "out": out}
        fakes: Any = {n: placeholder() if n in tensors else None for n in order}
        fakes["stream"] = environment_stream()
        call = cute.compile(launcher, **fakes, **TVM_FFI)
        call(*(tensors.get(name) for name in order))

    assert bound(recorded(launch_fn, X, X)) == {"x": 0, given: 1, "out": 2}
    slots = compiled(launch_fn, X, X).slots
    pointers = {slot for slot in slots if slot.kind is not Kind.EXTRA}
    assert pointers == {Slot(Kind.INPUT, 0), Slot(Kind.INPUT, 1), Slot(Kind.OUTPUT, 0)}


def test_without_tvm_ffi_a_stream_is_passed() -> None:
    def calling(*rest: Any) -> Callable[..., None]:
        def launch_fn(x: Any, y: Any, out: Any) -> None:
            fakes = placeholder(), None, placeholder(), placeholder()
            call = cute.compile(launch_residual, *fakes, environment_stream())
            call(x, None, y, out, *rest)

        return launch_fn

    assert bound(recorded(calling(CUstream(0)), X, X))["residual"] == 1
    with pytest.raises(ArgumentError, match="missing a required argument: 'stream'"):
        recorded(calling(), X, X)


def test_a_tensor_does_not_pass_for_a_stream() -> None:
    @cute.jit
    def undeclared(x: cute.Tensor, out: cute.Tensor, stream):
        pass

    def declared_fn(x: Any, y: Any, out: Any) -> None:
        launch_residual(x, None, None, out, y)

    def undeclared_fn(x: Any, y: Any, out: Any) -> None:
        fakes = placeholder(), placeholder(), make_fake_stream()
        cute.compile(undeclared, *fakes)(x, out, y)

    with pytest.raises(ArgumentError, match=r"`stream`: it is declared as a stream"):
        recorded(declared_fn, X, X)
    with pytest.raises(UserCodeError, match=r"`stream`: .* for a stream, and called"):
        recorded(undeclared_fn, X, X)


def calling(
    compiled_for: Callable[..., tuple[Any, ...]], called_with: Callable[..., Any]
) -> Callable[..., None]:
    """A launch function that compiles ``launch_residual`` for something else."""

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        call = cute.compile(
            launch_residual, *compiled_for(), environment_stream(), **TVM_FFI
        )
        call(*called_with(x, y, out))

    return launch_fn


@pytest.mark.parametrize(
    ("compiled_for", "called_with", "why"),
    [
        (
            lambda: (placeholder(), None, placeholder(), placeholder()),
            lambda x, y, out: (x, y, None, out),
            r"`bias`: it is compiled for None, and called with a tensor of torch",
        ),
        (
            lambda: (placeholder(), placeholder(), None, placeholder()),
            lambda x, y, out: (x, None, None, out),
            r"`bias`: it is compiled for a tensor of Float16, and called with None",
        ),
        (
            lambda: (placeholder(), None, placeholder(dtype=Int32), placeholder()),
            lambda x, y, out: (x, None, y, out),
            r"`residual`: .* for a tensor of Int32, and called with a tensor of torch",
        ),
        (
            lambda: (placeholder(16), None, placeholder(), placeholder()),
            lambda x, y, out: (x, None, y, out),
            r"`x`: extent 1 is compiled for 16, and is 8",
        ),
        (
            lambda: (placeholder(), None, placeholder(), placeholder()),
            lambda x, y, out: (x.view(-1), None, y, out),
            r"`x`: it is compiled for 2 dimensions, and has 1",
        ),
        (
            lambda: (placeholder(cute.sym_int(divisibility=3)), None, None, None),
            lambda x, y, out: (x, None, None, None),
            r"`x`: extent 1 is compiled for multiples of 3, and is 8",
        ),
    ],
)
def test_a_call_of_another_form_than_compiled_for_is_refused(
    compiled_for: Any, called_with: Any, why: str
) -> None:
    with pytest.raises(UserCodeError, match=why):
        recorded(calling(compiled_for, called_with), X, X)


def test_a_placeholder_that_occurs_twice_is_one_extent() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        rows = cute.sym_int()
        fakes = [placeholder(rows=rows) for _ in range(3)]
        call = cute.compile(
            launch_residual, fakes[0], None, *fakes[1:], environment_stream(), **TVM_FFI
        )
        call(x, None, y, out)

    assert recorded(launch_fn, X, X)
    with pytest.raises(
        UserCodeError, match=r"ValueError .* extent 0 is 5, its .* is 4"
    ):
        recorded(launch_fn, info(4, 8), info(5, 8))


def test_a_constexpr_parameter_is_not_part_of_a_later_call() -> None:
    @cute.jit
    def launcher(x: cute.Tensor, MODE: Constexpr, out: cute.Tensor):
        pass

    def calling(*rest: Any, **keywords: Any) -> Callable[..., None]:
        def launch_fn(x: Any, out: Any) -> None:
            call = cute.compile(launcher, placeholder(), 3, placeholder())
            call(x, *rest, out, **keywords)

        return launch_fn

    (mode,) = (
        argument
        for argument in recorded(calling(), X).launch.arguments
        if isinstance(argument, Constant)
    )
    assert (mode.name, mode.value) == ("MODE", 3)
    for wrong in (calling(4), calling(MODE=4)):
        with pytest.raises(ArgumentError, match=r"launcher .*argument"):
            recorded(wrong, X)


def test_what_a_library_keeps_is_called_with_other_tensors() -> None:
    @lru_cache
    def compile_for(dtype: Any) -> Any:
        fakes = [placeholder(dtype=dtype) for _ in range(3)]
        stream = environment_stream()
        return cute.compile(
            launch_residual, fakes[0], None, *fakes[1:], stream, **TVM_FFI
        )

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        compile_for(cutlass.Float16)(x, None, y, out)

    for columns in (8, 8):
        program = recorded(launch_fn, info(ROWS, columns), info(ROWS, columns))
        assert bound(program) == {"x": 0, "residual": 1, "out": 2}
    with pytest.raises(UserCodeError, match="extent 1 is compiled for 8, and is 16"):
        recorded(launch_fn, info(ROWS, 16), info(ROWS, 16))
    assert compile_for.cache_info().currsize == 1


def test_a_launcher_that_a_library_keeps_in_a_file_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        cute.runtime.load_module("kept.o", enable_tvm_ffi=True)["launcher"](x, out)

    with pytest.raises(UnsupportedKernelError, match=r"before.* empty its cache"):
        recorded(launch_fn, X)


def test_a_tensor_that_no_parameter_takes_is_refused() -> None:
    @cute.jit
    def launcher(x: cute.Tensor, out: cute.Tensor, **more: Any):
        pass

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launcher(x, out, residual=y)

    with pytest.raises(ArgumentError, match=r"passed 3 tensors, .* take 2 \(x, out\)"):
        recorded(launch_fn, X, X)


def test_a_view_has_a_dtype_that_tensorrt_lacks() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        fakes = [placeholder(dtype=cutlass.Float8E5M2), None, None, placeholder()]
        call = cute.compile(launch_residual, *fakes, environment_stream(), **TVM_FFI)
        call(x.view(torch.float8_e5m2), None, None, out)

    (x, *_) = recorded(
        launch_fn,
        info(ROWS, 8, dtype=torch.uint8),
        meta=lambda x: torch.empty_like(x, dtype=torch.float16),
    ).launch.arguments
    assert isinstance(x, Pointer)
    assert (x.tensor, x.dtype) == (0, torch.float8_e5m2)


def test_a_mark_of_divisibility_is_a_fact_that_the_profile_proves() -> None:
    def marking(divisor: int, *shape: int) -> Callable[..., None]:
        def launch_fn(x: Any, out: Any) -> None:
            marked = from_dlpack(x.view(shape) if shape else x)
            marked = marked.mark_compact_shape_dynamic(mode=0, divisibility=divisor)
            launch_copy(marked, from_dlpack(out.view(shape) if shape else out))

        return launch_fn

    assert "x.shape[0]%8" in compiled(marking(8, -1), X).facts
    with pytest.raises(RecordError, match=r"\(d0_0 % 8\) == 0.* leaves open"):
        recorded(marking(8), X)
    with pytest.raises(UserCodeError, match="extent 0 is 8, and is marked as a mult"):
        recorded(marking(3), info(8, 8))


@cute.kernel
def pointer_kernel(out: cute.Pointer, x: cute.Pointer, n: Int32):
    i = thread_index()
    if i < n:
        whole = cute.make_layout(n)
        cute.make_tensor(out, whole)[i] = cute.make_tensor(x, whole)[i]


@cute.jit
def launch_pointers(x: cute.Pointer, out: cute.Pointer, n: Int32):
    pointer_kernel(out, x, n).launch(
        grid=(cute.ceil_div(n, 128), 1, 1), block=(128, 1, 1)
    )


def test_the_pointer_of_a_tensor_is_its_address() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        pointers = [from_dlpack(tensor).iterator for tensor in (x, out)]
        nulls = [nullptr(cutlass.Float16, cute.AddressSpace.gmem)] * 2
        cute.compile(launch_pointers, *nulls, 1)(*pointers, x.numel())

    assert bound(recorded(launch_fn, X)) == {"x": 0, "out": 1}
    result = compiled(launch_fn, X)
    assert set(result.slots) == {
        Slot(Kind.INPUT, 0),
        Slot(Kind.OUTPUT, 0),
        Slot(Kind.EXTRA, 0),
    }


def test_make_ptr_of_a_tensors_address_is_its_pointer() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        gmem = cute.AddressSpace.gmem
        pointers = [
            make_ptr(cutlass.Int16, tensor.data_ptr(), gmem, assumed_align=16)
            for tensor in (x, out)
        ]
        launch_pointers(*pointers, x.numel())

    program = recorded(launch_fn, X)
    assert bound(program) == {"x": 0, "out": 1}
    (_, template), *_ = program.launch.kernel.parameters
    assert template.kind is cutlass.Int16
    assert "ld.global" in compiled(launch_fn, X).code


def test_an_address_that_is_no_tensors_is_refused() -> None:
    def null_fn(x: Any, out: Any) -> None:
        null = nullptr(cutlass.Float16, cute.AddressSpace.gmem)
        launch_pointers(null, from_dlpack(out).iterator, 8)

    def offset_fn(x: Any, out: Any) -> None:
        launch_pointers(from_dlpack(x).iterator + 8, from_dlpack(out).iterator, 8)

    with pytest.raises(ArgumentError, match=r"`x`: an address, which an engine does"):
        recorded(null_fn, X)
    with pytest.raises(ArgumentError, match=r"computes with a tensor's address"):
        recorded(offset_fn, X)


# --- A library's own launchers, which are objects -------------------------------------


class Scale:
    """One launcher for each width, kept in its class; each writes to itself."""

    kept: ClassVar[dict[int, Any]] = {}
    calls = 0

    def __init__(self, width: int) -> None:
        self.width = width

    @cute.jit
    def __call__(self, x: cute.Tensor, out: cute.Tensor, stream: CUstream):
        self.width = self.width * 2
        scale_kernel(flattened(x), flattened(out), Float32(1.0)).launch(
            grid=(x.shape[0], 1, 1), block=(self.width, 1, 1), stream=stream
        )

    @classmethod
    def launch(cls, x: Any, out: Any) -> None:
        cls.calls += 1
        if x.shape[1] not in cls.kept:
            fakes = [placeholder(x.shape[1]) for _ in range(2)]
            launcher = cls(x.shape[1])
            cls.kept[x.shape[1]] = cute.compile(
                launcher, *fakes, environment_stream(), **TVM_FFI
            )
        cls.kept[x.shape[1]](x, out)


def test_a_launcher_that_writes_to_itself_is_compiled_as_it_was_recorded() -> None:
    for columns in (8, 32, 8):
        results = [compiled(Scale.launch, info(ROWS, columns)) for _ in range(2)]
        assert [result.block for result in results] == [(2 * columns, 1, 1)] * 2


def test_a_launcher_that_its_function_writes_to_is_refused() -> None:
    launcher = Scale(8)

    def launch_fn(x: Any, out: Any) -> None:
        launcher.width = x.shape[0]
        launcher(from_dlpack(x), from_dlpack(out), CUstream(0))

    with pytest.raises(RecordError, match=r"has \('self', 'constant', 'Fixed'"):
        recorded(launch_fn, X)


# --- NamedTuples and dataclasses ------------------------------------------------------


class Tensors(NamedTuple):
    out: cute.Tensor
    x: cute.Tensor
    scale: Float32 = Float32(2.0)


@dataclass(frozen=True)
class Params:
    scale: Float32
    tensors: Tensors
    rows: Int32
    is_doubled: Constexpr[bool] = False


@cute.kernel
def scale_kernel(x, out, scale: Float32):  # type: ignore[no-untyped-def]
    i = thread_index()
    if i < cute.size(x):
        out[i] = (x[i] * scale).to(out.element_type)


@cute.jit
def launch_scale(params: Params, stream: CUstream):
    x, out = flattened(params.tensors.x), flattened(params.tensors.out)
    scale = params.scale * params.tensors.scale
    if cutlass.const_expr(params.is_doubled):
        scale = scale * 2
    scale_kernel(x, out, scale).launch(
        grid=(params.rows, 1, 1), block=(8, 1, 1), stream=stream
    )


def scaled(x: Any, out: Any, is_doubled: bool | None = False) -> Params:
    return Params(0.5, Tensors(out, x, 3.0), x.shape[0], is_doubled)  # type: ignore


@pytest.mark.parametrize("is_doubled", [False, True])
def test_a_dataclass_and_a_named_tuple_are_arguments(is_doubled: bool) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        launch_scale(scaled(from_dlpack(x), from_dlpack(out), is_doubled), CUstream(0))

    program = recorded(launch_fn, X)
    assert bound(program) == {"params.tensors.x": 0, "params.tensors.out": 1}
    result = compiled(launch_fn, X)
    factor = {False: 0x3FC00000, True: 0x40400000}[is_doubled]  # 1.5 and 3.0
    assert f", {factor};" in result.code
    assert result.grid == (symbol(0, 0), 1, 1)


def test_a_dataclass_is_compiled_for_and_called_with() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        tensors = Tensors(placeholder(), placeholder(), Float32(3.0))  # type: ignore
        fake = Params(Float32(0.5), tensors, Int32(1), True)
        call = cute.compile(launch_scale, fake, environment_stream(), **TVM_FFI)
        call(scaled(x, out, is_doubled=is_doubled))

    for given in (True, None):  # a constant need not be passed again
        is_doubled = given
        program = recorded(launch_fn, X)
        assert bound(program) == {"params.tensors.x": 0, "params.tensors.out": 1}
        assert Constant("params.is_doubled", True) in program.launch.arguments
    is_doubled = False
    with pytest.raises(UserCodeError, match="`params`: it is compiled for"):
        recorded(launch_fn, X)


# --- Experimental launchers, and autotuned ones ---------------------------------------


@cute.experimental.kernel
def experimental_kernel(x: cute.Tensor, out: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    out[block, thread] = x[block, thread]


@cute.experimental.jit
def launch_experimental(x: cute.Tensor, out: cute.Tensor):
    experimental_kernel(x, out).launch(grid=(x.shape[0], 1, 1), block=(8, 1, 1))


def test_an_experimental_launcher_compiles_in_its_own_language() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        cute.experimental.compile(launch_experimental, x, out)(x, out)

    for function in (launch_experimental, launch_fn):
        result = compiled(function, X)
        assert (result.grid, result.block) == ((symbol(0, 0), 1, 1), (8, 1, 1))


@autotune_jit(params_dict={"BLOCK": [64, 128], "STEP": [1, 2]}, update_on_change=["x"])
@cute.jit
def launch_tuned(
    x: cute.Tensor, out: cute.Tensor, BLOCK: Constexpr = 32, STEP: Constexpr = 3
):
    scale_kernel(flattened(x), flattened(out), Float32(1.0)).launch(
        grid=(cute.ceil_div(cute.size(x), BLOCK), 1, STEP), block=(BLOCK, 1, 1)
    )


def test_the_choices_of_autotune_jit_are_tactics() -> None:
    def through_torch(x: Any, out: Any) -> None:
        launch_tuned(from_dlpack(x), from_dlpack(out))

    for name, launch_fn in {"direct": launch_tuned, "torch": through_torch}.items():
        impl = tta.custom_plugin(
            tta.cutedsl(launch_fn), meta_impl=lambda x: torch.empty_like(x)
        )
        trt_plugins.custom_op(f"cute::tuned_{name}", impl=impl)
        report = tta.dry_run(
            f"cute::tuned_{name}", [torch.empty(8, 64)], target="sm_90", execute=False
        )
        assert report.ok
        assert [(t.config, t.shapes[0].grid[2]) for t in report.tactics] == [
            ({"BLOCK": block, "STEP": step}, step)
            for block in (64, 128)
            for step in (1, 2)
        ]


def test_recording_an_autotuned_launcher_leaves_its_table_as_it_was() -> None:
    function = launch_tuned.__wrapped__
    tables = function._best_kernel, function._best_config
    recorded(launch_tuned, X)
    assert (function._best_kernel, function._best_config) == tables == ({}, {})
    assert type(function._best_kernel) is dict
