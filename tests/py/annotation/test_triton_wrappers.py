# SPDX-License-Identifier: BSD-3-Clause

"""What people put around a Triton kernel: caches of what it compiled, autotuners."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import triton
import triton.language as tl
from kernels import add_kernel, info
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import KernelInterface
from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.jit import JITFunction

from torch_tensorrt.annotation._record import Call, record, tables
from torch_tensorrt.annotation._record.program import Constant, Launch, Program, Scalar
from torch_tensorrt.annotation._record.recording import Purpose
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    DynamicControlFlowError,
    LaunchCountError,
    RecordError,
    UnsupportedKernelError,
)

X = info(Range(1, 8, 64_000), 48)
STATIC = info(64, 48)
PURPOSE = Purpose(Target("sm_90"))
N = Scalar("n", 48 * symbol(0, 0))


def program(launch_fn: Callable[..., Any], *inputs: TensorInfo, **call: Any) -> Program:
    def meta(x: Any, y: Any) -> Any:
        return torch.empty_like(x)

    how = Call(**{"purpose": PURPOSE, **call})
    return record(backend("triton"), launch_fn, meta, inputs or (X, X), how)


def recorded(launch_fn: Callable[..., Any], *inputs: TensorInfo, **call: Any) -> Launch:
    return program(launch_fn, *inputs, **call).launch


def launch(kernel: Any, x: Any, y: Any, out: Any, **options: Any) -> Any:
    n = x.numel()

    def grid(meta: Any) -> tuple[int]:
        return (triton.cdiv(n, meta["BLOCK"]),)

    return kernel[grid](x, y, n, out, **options)


# --- What a launch returns ------------------------------------------------------------


@triton.jit
def tiled_copy(x, BLOCK: tl.constexpr, out, n, MASKED: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (at < n) if MASKED else None
    tl.store(out + at, tl.load(x + at, mask), mask)


def told(ask: Callable[[Any], Any], **call: Any) -> Any:
    """What a function learns from the kernel that its launch returned."""
    answers = []

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        compiled = launch(add_kernel, x, y, out, BLOCK=256, num_warps=8)
        answers.append(ask(compiled))

    recorded(launch_fn, **call)
    assert len(set(answers)) == 1
    return answers[0]


def test_a_launch_returns_what_is_known_before_compiling() -> None:
    assert told(lambda k: k.name) == "add_kernel"
    assert told(lambda k: k.metadata.name) == "add_kernel"
    assert told(lambda k: k.metadata.num_warps) == 8
    assert told(lambda k: k.num_warps) == 8
    assert told(lambda k: (k.metadata.num_stages, k.metadata.num_ctas)) == (3, 1)
    assert told(lambda k: k.metadata.warp_size) == 32
    assert told(lambda k: k.metadata.target.arch) == 90
    assert told(lambda k: k._init_handles()) is None


def test_options_of_the_config_go_before_those_of_the_launch() -> None:
    purpose = Purpose(options={"num_warps": 2})
    assert told(lambda k: k.metadata.num_warps, purpose=purpose) == 2


@pytest.mark.parametrize(
    "name", ["n_regs", "n_spills", "n_max_threads", "asm", "hash", "shared"]
)
def test_what_takes_a_compiler_is_refused_by_name(name: str) -> None:
    why = rf"`{name}` .* test_triton_wrappers.py:.*num_stages, num_warps, target"
    why = why.replace(" test", ".*test")
    with pytest.raises(UnsupportedKernelError, match=why):
        told(lambda k: getattr(k, name))
    with pytest.raises(UnsupportedKernelError, match=why):
        told(lambda k: getattr(k.metadata, name, None) or 1)


def test_warming_up_is_no_launch() -> None:
    def only_warm(x: Any, y: Any, out: Any) -> None:
        kernel = add_kernel.warmup(x, y, x.numel(), out, BLOCK=256, grid=(1,))
        kernel._init_handles()

    with pytest.raises(LaunchCountError, match="launched no kernel"):
        recorded(only_warm)


def test_what_was_warmed_up_can_be_launched() -> None:
    def warmed(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        kernel = add_kernel.warmup(
            torch.float16, y, n, out, BLOCK=256, num_warps=8, grid=(1,)
        )
        kernel._init_handles()
        blocks = triton.cdiv(n, 32 * kernel.metadata.num_warps)
        kernel[(blocks, 1, 1)](x, y, n, out, 256)

    result = recorded(warmed)
    assert (result.kernel, result.arguments[2]) == (add_kernel, N)
    assert dict(result.options) == {"num_warps": 8}


def test_the_low_level_launch_is_a_launch() -> None:
    def low(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        kernel = add_kernel.warmup(x, y, n, out, BLOCK=256, grid=(1,))
        kernel.run(n, 1, 1, 0, None, None, None, None, None, x, y, n, out, 256)

    assert recorded(low).arguments[2] == N


def test_what_was_compiled_has_its_constants() -> None:
    def left_out(x: Any, y: Any, out: Any) -> None:
        kernel = add_kernel.warmup(x, y, 5, out, BLOCK=256, grid=(1,))
        kernel[(1, 1, 1)](x, y, 5, out)

    def another(x: Any, y: Any, out: Any) -> None:
        kernel = add_kernel.warmup(x, y, 5, out, BLOCK=256, grid=(1,))
        kernel[(1, 1, 1)](x, y, 5, out, 512)

    assert recorded(left_out).arguments[4].value == 256  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match=r"with BLOCK=512\. It was .* with 256"):
        recorded(another)


def test_constants_between_other_arguments_can_be_left_out() -> None:
    def left_out(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        kernel = tiled_copy.warmup(x, 256, out, n, True, grid=(1,))
        kernel[(triton.cdiv(n, 256), 1, 1)](x, out, n)

    x, block, out, n, masked = recorded(left_out).arguments
    assert (block, masked) == (Constant("BLOCK", 256), Constant("MASKED", True))
    assert (x.name, out.name, n) == ("x", "out", N)


def test_a_constant_left_out_does_not_hide_that_a_config_replaces_it() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        kernel = add_kernel.warmup(x, y, n, out, BLOCK=256, grid=(1,))
        kernel[(triton.cdiv(n, 256), 1, 1)](x, y, n, out)

    with pytest.raises(ArgumentError, match="the config sets BLOCK, and the grid"):
        recorded(launch_fn, overrides={"BLOCK": 512})


def test_a_constant_that_follows_a_size_is_not_left_out() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        block = triton.next_power_of_2(x.shape[0])
        kernel = add_kernel.warmup(x, y, 5, out, BLOCK=block, grid=(1,))
        kernel[(1, 1, 1)](x, y, 5, out)

    with pytest.raises(ArgumentError, match="launched without BLOCK"):
        recorded(launch_fn)


def test_what_was_compiled_takes_all_other_arguments() -> None:
    def left_out(x: Any, y: Any, out: Any) -> None:
        kernel = add_kernel.warmup(x, y, 5, out, BLOCK=256, grid=(1,))
        kernel[(1, 1, 1)](x, y, 5)

    with pytest.raises(ArgumentError, match=r"with 3 arguments\. It takes 5, .*BL"):
        recorded(left_out)


def test_a_partial_of_a_launch_is_one() -> None:
    def partial(x: Any, y: Any, out: Any) -> None:
        run = functools.partial(add_kernel[(1,)], x, y, BLOCK=256)
        run(x.numel(), out)

    assert recorded(partial).arguments[2] == N


class Pointer:
    """What Triton takes for a tensor: a typed pointer."""

    def __init__(self, base: Any, dtype: Any = None) -> None:
        self.base = base
        self.dtype = dtype or base.dtype

    def data_ptr(self) -> Any:
        return self.base.data_ptr()


def test_an_object_that_triton_takes_for_a_tensor_is_its_tensor() -> None:
    def wrapped(x: Any, y: Any, out: Any) -> None:
        as_bf16 = Pointer(y, torch.bfloat16)
        add_kernel[(1,)](Pointer(x), as_bf16, 5, Pointer(out), BLOCK=256)

    def reinterpreted(x: Any, y: Any, out: Any) -> None:
        as_bf16 = triton.reinterpret(y, tl.bfloat16)
        add_kernel[(1,)](x, as_bf16, 5, out, BLOCK=256)

    def plain(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y.view(torch.bfloat16), 5, out, BLOCK=256)

    expected = recorded(plain).arguments
    assert recorded(wrapped).arguments == expected
    assert recorded(reinterpreted).arguments == expected


def test_an_object_with_another_address_is_refused() -> None:
    class Elsewhere(Pointer):
        def data_ptr(self) -> Any:
            return 4096

    with pytest.raises(ArgumentError, match=r"Elsewhere .* is neither an input"):
        recorded(lambda x, y, out: add_kernel[(1,)](Elsewhere(x), y, 5, out, BLOCK=16))


# --- Caches ---------------------------------------------------------------------------


class Entry(KernelInterface[Any]):
    """A wrapper that launches a compiled kernel past Triton's binding of arguments."""

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self.compiled: dict[Any, Any] = {}
        self.jit = fn
        while not isinstance(self.jit, JITFunction):
            self.jit = self.jit.fn

    def key(self, arguments: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(
            (a.dtype, a.data_ptr() % 16 == 0)
            if hasattr(a, "data_ptr")
            else (type(a), a)
            for a in arguments.values()
        )

    def run(self, *args: Any, **keywords: Any) -> Any:
        grid = keywords["grid"]
        named = dict(zip(self.jit.arg_names, args, strict=False))
        named |= {k: v for k, v in keywords.items() if k in self.jit.arg_names}
        key = self.key(named)
        if key not in self.compiled:
            kernel = self.fn.run(*args, **keywords)
            constants: dict[str, Any] = {}
            fn = self.fn
            while not isinstance(fn, JITFunction):
                if isinstance(fn, Autotuner):
                    constants |= fn.best_config.kwargs
                else:
                    for name, function in fn.values.items():
                        constants[name] = function({**named, **constants})
                fn = fn.fn
            self.compiled[key] = kernel, constants
            return kernel
        kernel, constants = self.compiled[key]
        meta = {**named, **constants}
        if callable(grid):
            grid = grid(meta)
        kernel[(*grid, 1, 1)[:3]](*(meta[name] for name in self.jit.arg_names))
        return kernel


def tuned(cls: type = Autotuner) -> Any:
    configs = [
        triton.Config({"BLOCK": 128}, num_warps=2),
        triton.Config({"BLOCK": 512}, num_warps=8),
    ]
    return cls(add_kernel, add_kernel.arg_names, configs, ["n"], None, None)


def by_size() -> Any:
    values = {
        "BLOCK": lambda args: 64,
        "num_warps": lambda args: args["BLOCK"] // 32,
    }
    return Heuristics(add_kernel, add_kernel.arg_names, values)


def test_heuristics_choose_options_too() -> None:
    compiled = []

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        compiled.append(launch(by_size(), x, y, out).metadata.num_warps)

    assert recorded(launch_fn).options == (("num_warps", 2),)
    assert set(compiled) == {2}


@pytest.mark.parametrize(("is_inside", "block"), [(True, 64), (False, 256)])
def test_a_heuristic_sees_the_config_of_an_autotuner_outside_of_it(
    is_inside: bool, block: int
) -> None:
    names, configs = add_kernel.arg_names, [triton.Config({}, num_warps=2)]
    values = {"BLOCK": lambda args: 64 if "num_warps" in args else 256}

    def tuner(kernel: Any) -> Any:
        return Autotuner(kernel, names, configs, ["n"], None, None)

    if is_inside:
        kernel = tuner(Heuristics(add_kernel, names, values))
    else:
        kernel = Heuristics(tuner(add_kernel), names, values)
    found = recorded(lambda x, y, out: launch(kernel, x, y, out))
    assert found.arguments[4].value == block  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param((X, X), id="dynamic", marks=pytest.mark.slow),
        pytest.param((STATIC, STATIC), id="static"),
    ],
)
@pytest.mark.parametrize(
    ("make", "keywords", "block"),
    [
        (lambda: add_kernel, {"BLOCK": 256}, 256),
        (tuned, {}, 128),
        (by_size, {}, 64),
    ],
    ids=["kernel", "autotuned", "heuristics"],
)
def test_a_cache_of_compiled_kernels_is_looked_through(
    inputs: tuple[TensorInfo, ...],
    make: Callable[[], Any],
    keywords: dict[str, Any],
    block: int,
) -> None:
    entry = Entry(make())

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(entry, x, y, out, **keywords)

    for _ in range(2):
        result = recorded(launch_fn, *inputs)
        assert result.kernel is add_kernel
        assert result.arguments[4].value == block  # type: ignore[union-attr]
        assert (result.arguments[2] == N) == (inputs[0] is X)
        assert result.grid is not None
        assert entry.compiled == {}


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param((X, X), id="dynamic", marks=pytest.mark.slow),
        pytest.param((STATIC, STATIC), id="static"),
    ],
)
def test_each_choice_of_an_autotuner_in_a_cache_is_recorded(
    inputs: tuple[TensorInfo, ...],
) -> None:
    entry = Entry(tuned())

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(entry, x, y, out)

    choices = program(launch_fn, *inputs).launch.choices
    assert len(choices) == 2
    for choice in choices:
        result = recorded(launch_fn, *inputs, overrides=dict(choice))
        assert result.arguments[4].value == dict(choice)["BLOCK"]  # type: ignore
        assert dict(result.options)["num_warps"] == dict(choice)["num_warps"]


def test_a_second_launch_within_one_run_is_seen() -> None:
    entry = Entry(add_kernel)

    def twice(x: Any, y: Any, out: Any) -> None:
        launch(entry, x, y, out, BLOCK=256)
        launch(entry, x, y, out, BLOCK=256)

    assert [step.name for step in program(twice).steps] == 2 * ["add_kernel"]


@pytest.fixture(scope="module")
def compiled() -> Iterator[Any]:
    """A kernel as Triton compiles it, with a GPU or without."""
    types = {"x_ptr": "*fp16", "y_ptr": "*fp16", "n": "i32", "out_ptr": "*fp16"}
    source = ASTSource(add_kernel, {**types, "BLOCK": "constexpr"}, {(4,): 256})
    options = {"num_warps": 8, "enable_fp_fusion": True}
    yield triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def test_what_triton_compiled_before_is_launched_by_its_function(compiled: Any) -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        compiled[(triton.cdiv(n, 256), 1, 1)](x, y, n, out, 256)

    with mock.patch.object(tables, "_tables", wraps=tables._tables) as looked_up:
        result = recorded(launch_fn)
    asked = [call.args[0] for call in looked_up.call_args_list]
    assert sum(value is compiled for values in asked for value in values) == 1
    assert (result.kernel, result.arguments[2]) == (add_kernel, N)
    fused = {"enable_fp_fusion": True}  # some releases do so by default
    assert {**fused, **dict(result.options)} == {"num_warps": 8, **fused}

    def low(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        compiled._init_handles()
        compiled.run(n, 1, 1, 0, 0, 0, 0, 0, 0, x, y, n, out, 256)

    assert recorded(low).arguments[2] == N


@pytest.mark.parametrize(
    "inputs", [(X, X), (STATIC, STATIC)], ids=["dynamic", "static"]
)
def test_a_table_that_launches_filled_before_is_as_it_was_at_first(
    compiled: Any, inputs: tuple[TensorInfo, ...]
) -> None:
    entry = Entry(tuned())
    pointer = torch.float16, True
    key = pointer, pointer, (int, 64 * 48), pointer
    before = {key: (compiled, {"BLOCK": 256})}
    entry.compiled |= before

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(entry, x, y, out)

    blocks = [dict(c)["BLOCK"] for c in program(launch_fn, *inputs).launch.choices]
    assert blocks == [128, 512]
    assert entry.compiled == before


@triton.jit
def other_kernel(x_ptr, y_ptr, n, out_ptr, BLOCK: tl.constexpr):
    pass


def test_a_table_that_was_filled_on_purpose_is_looked_through(compiled: Any) -> None:
    table = {torch.float16: compiled}

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = x.numel()
        table[x.dtype][(triton.cdiv(n, 256), 1, 1)](x, y, n, out, 256)

    assert recorded(launch_fn).kernel is add_kernel
    assert table == {torch.float16: compiled}

    def either(x: Any, y: Any, out: Any) -> None:
        kernel = table.get(x.dtype, other_kernel)
        kernel[(triton.cdiv(x.numel(), 256), 1, 1)](x, y, x.numel(), out, 256)

    with pytest.raises(UnsupportedKernelError, match=r"add_kernel: .* the first time"):
        recorded(either)
    assert table == {torch.float16: compiled}


# --- Autotuners of one's own ----------------------------------------------------------


class Tuner(Autotuner):
    """Times configs in a way of its own."""

    def run(self, *args: Any, **keywords: Any) -> Any:
        raise AssertionError("there is no GPU to time on")


def test_the_configs_of_an_autotuner_of_ones_own_are_choices() -> None:
    kernel = tuned(Tuner)

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        launch(kernel, x, y, out)

    choices = [dict(choice)["BLOCK"] for choice in program(launch_fn).launch.choices]
    assert choices == [128, 512]


def test_the_kernel_under_its_decorators_can_be_launched() -> None:
    kernel = tuned(Tuner)
    result = recorded(lambda x, y, out: launch(kernel.fn, x, y, out, BLOCK=64))
    assert result.arguments[4].value == 64  # type: ignore[union-attr]


# --- Sizes as keys --------------------------------------------------------------------


def test_a_cache_by_size_keeps_the_size() -> None:
    @functools.lru_cache(1000)
    def rows(n: Any, dtype: torch.dtype) -> Any:
        return n * 2

    seen: set[Any] = set()

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        seen.add((x.shape[0], ("a", x.shape[0])))
        add_kernel[(1,)](x, y, rows(x.shape[0], x.dtype), out, BLOCK=256)

    assert recorded(launch_fn).arguments[2] == Scalar("n", 2 * symbol(0, 0))


def test_an_ordered_cache_by_address_and_size_keeps_both() -> None:
    cache: OrderedDict[Any, Any] = OrderedDict()

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        key = x.data_ptr(), tuple(x.shape)
        if key not in cache:
            cache[key] = 2
            if len(cache) > 4:
                cache.popitem(last=False)
        add_kernel[(1,)](x, y, x.shape[0] * cache[key], out, BLOCK=256)

    for inputs in ((STATIC, STATIC), (X, X)):
        n = recorded(launch_fn, *inputs).arguments[2]
    assert n == Scalar("n", 2 * symbol(0, 0))


def test_a_cache_by_condition_keeps_it_for_later_runs() -> None:
    cache: dict[Any, Any] = {}

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        key = x.dtype, x.shape[0] <= 4
        if key not in cache:
            cache[key] = 2
        add_kernel[(1,)](x, y, x.shape[0] * cache[key], out, BLOCK=256)

    for inputs in ((X, X), (STATIC, STATIC), (X, X)):
        n = recorded(launch_fn, *inputs).arguments[2]
    assert n == Scalar("n", 2 * symbol(0, 0))


def test_a_table_by_condition_chooses() -> None:
    table: dict[Any, int] = {(True,): 5, (False,): 6}
    same: dict[Any, int] = {(True,): 5, (False,): 5}

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        n = table[(x.shape[0] % 2 == 0,)]
        add_kernel[(1,)](x, y, n, out, BLOCK=256)

    with pytest.raises(DynamicControlFlowError, match=r"d0_0 % 2"):
        recorded(launch_fn)
    table = same
    assert recorded(launch_fn).arguments[2] == Scalar("n", 5)


def test_a_table_by_size_chooses() -> None:
    table = {8: 128, 9: 256}

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, table.get(x.shape[0], 512), out, BLOCK=256)

    with pytest.raises((DynamicControlFlowError, RecordError)):
        recorded(launch_fn)


def test_a_table_of_few_rows_is_explored() -> None:
    table = {0: 5, 1: 5}

    def launch_fn(x: Any, y: Any, out: Any) -> None:
        add_kernel[(1,)](x, y, table[x.shape[0] // 40_000], out, BLOCK=256)

    assert recorded(launch_fn).arguments[2] == Scalar("n", 5)
