# SPDX-License-Identifier: BSD-3-Clause

"""Launch functions that pass Triton's ``TensorDescriptor`` to their kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from kernels import info
from triton.tools.tensor_descriptor import TensorDescriptor

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.annotation._dry_run.interpret as interpretation
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._compile.job import Job, keys_of
from torch_tensorrt.annotation._record import Call, record
from torch_tensorrt.annotation._record.program import Descriptor, Program
from torch_tensorrt.annotation._record.recording import Purpose
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, TensorInfo, symbol
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    DynamicControlFlowError,
    RecordError,
    UnsupportedKernelError,
    place,
)

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


@triton.jit
def copy_kernel(source, target, BM: tl.constexpr, BN: tl.constexpr):
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    target.store(at, source.load(at))


@triton.jit
def half_kernel(source, target, BM: tl.constexpr, BN: tl.constexpr):
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    x = source.load(at)
    tl.store(target + tl.arange(0, 1), tl.sum(tl.sum(x, 1), 0))


def copy(source: Any, target: Any, block: tuple[int, int] = (16, 64)) -> None:
    described = [TensorDescriptor.from_tensor(t, list(block)) for t in (source, target)]
    grid = [triton.cdiv(n, b) for n, b in zip(source.shape, block, strict=True)]
    copy_kernel[tuple(grid)](*described, *block)


def recorded(
    launch_fn: Callable[..., Any], *inputs: TensorInfo, aligned: bool = True
) -> Program:
    call = Call(purpose=Purpose(aligned=aligned))
    meta = lambda *tensors: torch.empty_like(tensors[0])  # noqa: E731
    return record(backend("triton"), launch_fn, meta, inputs, call)


def refusal(
    launch_fn: Callable[..., Any], *inputs: TensorInfo, aligned: bool = True
) -> str:
    with pytest.raises(ArgumentError) as caught:
        recorded(launch_fn, *inputs, aligned=aligned)
    return str(caught.value)


ROWS, WORDS = Range(1, 100, 4112), Range(1, 8, 64)


# --- What is recorded -----------------------------------------------------------------


def test_a_descriptor_is_recorded_like_a_tensor_with_its_sizes_and_block() -> None:
    source, target, *_ = recorded(copy, info(ROWS, 512)).launch.arguments
    assert isinstance(source, Descriptor)
    assert isinstance(target, Descriptor)
    assert (source.name, source.tensor, target.tensor) == ("source", 0, 1)
    assert (source.shape, source.strides) == ((symbol(0, 0), 512), (512, 1))
    assert (source.block, source.offset) == ((16, 64), 0)
    assert source.options == ()


def test_a_view_is_described_where_it_starts() -> None:
    def launch(x: Any, out: Any) -> None:
        copy(x[:, 64:], out[:, 64:])

    source = recorded(launch, info(ROWS, 512)).launch.arguments[0]
    assert isinstance(source, Descriptor)
    assert (source.offset, source.shape[1], source.strides[0]) == (64, 448, 512)


def test_strides_may_follow_the_shape_if_16_bytes_always_divide_them() -> None:
    def launch(x: Any, out: Any) -> None:
        copy(x.view(x.shape[0], -1), out.view(x.shape[0], -1))

    source = recorded(launch, info(ROWS, WORDS, 8)).launch.arguments[0]
    assert isinstance(source, Descriptor)
    assert source.strides == (8 * symbol(0, 1), 1)


def test_a_buffer_that_only_descriptors_reach_lies_between_two_launches() -> None:
    def launch(x: Any, out: Any) -> None:
        between = torch.empty_like(x)
        copy(x, between)
        copy(between, out)

    program = recorded(launch, info(ROWS, 512))
    first, second = program.launches
    assert [p.tensor for p in first.pointers] == [0, 1]
    assert [p.tensor for p in second.pointers] == [1, 2]
    assert [buffer.shape for buffer in program.hidden] == [(symbol(0, 0), 512)] * 2


def test_a_descriptor_that_differs_on_plain_ints_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        copy(x, out, (16 if isinstance(x.shape[0], int) else 32, 64))

    def other_padding(x: Any, out: Any) -> None:
        padding = "nan" if isinstance(x.shape[0], int) else "zero"
        described = [
            TensorDescriptor(t, t.shape, t.stride(), [16, 64], padding)
            for t in (x, out)
        ]
        copy_kernel[triton.cdiv(x.shape[0], 16), 8](*described, 16, 64)

    def other_extent(x: Any, out: Any) -> None:
        rows = x.shape[0] if isinstance(x.shape[0], int) else x.shape[0] + 1
        described = [
            TensorDescriptor(t, [rows, 512], [512, 1], [16, 64]) for t in (x, out)
        ]
        copy_kernel[triton.cdiv(x.shape[0], 16), 8](*described, 16, 64)

    for function, what in (
        (launch, r"'descriptor', \(16, 64\)"),
        (other_padding, "'nan'"),
        (other_extent, "argument `source`, extent 0 is 100, and was recorded as 101"),
    ):
        with pytest.raises(RecordError, match=what):
            recorded(function, info(ROWS, 512))


def test_two_blocks_on_two_sides_of_a_size_are_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        copy(x, out, (16 if x.shape[0] < 64 else 32, 64))

    with pytest.raises(DynamicControlFlowError):
        recorded(launch, info(ROWS, 512))


# --- What a tensor map cannot hold ----------------------------------------------------


def described(
    shape: Callable[[Any], Any] = lambda x: x.shape,
    strides: Callable[[Any], Any] = lambda x: x.stride(),
    block: tuple[int, ...] = (16, 64),
    start: int = 0,
) -> Callable[..., None]:
    """A launch function with such a descriptor of its input."""

    def launch(x: Any, out: Any) -> None:
        base = x.flatten()[start:]
        source = TensorDescriptor(base, shape(x), strides(x), list(block))  # here
        copy_kernel[1, 1](source, TensorDescriptor.from_tensor(out, [16, 64]), 16, 64)

    return launch


@pytest.mark.parametrize(
    ("fits", "does_not", "shape", "why"),
    [
        ({"strides": lambda x: (x.shape[0] * 8, 1)},
         {"strides": lambda x: (x.shape[0] * 4, 1)}, (ROWS, 64),
         "stride 0 is 4*d0_0 elements, 8*d0_0 bytes; a tensor map needs a multiple of "
         "16 bytes at every shape of the profile, and only one of 8 is proved"),
        ({"shape": lambda x: (x.shape[0], 64)},
         {"shape": lambda x: (x.shape[0] - 1, 64)}, (ROWS, 64),
         "extent 0, d0_0 - 1, runs from 0 to 4111 within the profile"),
        ({"strides": lambda x: (64, 1)}, {"strides": lambda x: (64, x.shape[0])},
         (ROWS, 64), "the last stride is d0_0; a tensor map needs 1. Transpose"),
        ({"start": 8}, {"start": 4}, (ROWS, 64), "the tensor starts 8 bytes inside"),
        ({"block": (16, 8)}, {"block": (16, 4)}, (ROWS, 64),
         "a row of its block is 4 elements, 8 bytes; a tensor map needs a multiple"),
        ({"strides": lambda x: (x.shape[0] * 2**20, 1)},
         {"strides": lambda x: (x.shape[0] * 2**30, 1)}, (ROWS, 64),
         "stride 0 runs from 2147483648 to"),
        ({"shape": lambda x: (x.shape[0] * 2**18, 64)},
         {"shape": lambda x: (x.shape[0] * 2**20, 64)}, (ROWS, 64),
         "a tensor map takes 1 to 2147483647 here. Narrow the profile"),
        ({"shape": lambda x: (x.shape[0], 64)}, {"shape": lambda x: (x.shape[0],)},
         (ROWS, 64), "it has 1 extents, 2 strides and a block of 2 dimensions"),
        ({"shape": lambda x: (x.shape[0],) * 5, "strides": lambda x: (64,) * 4 + (1,),
          "block": (1,) * 4 + (8,)},
         {"shape": lambda x: (x.shape[0],) * 6, "strides": lambda x: (64,) * 5 + (1,),
          "block": (1,) * 5 + (8,)}, (ROWS, 64),
         "it has 6 dimensions; a tensor map has 1 to 5"),
    ],
)  # fmt: skip
def test_what_does_not_hold_over_the_profile_is_refused(
    fits: dict[str, Any], does_not: dict[str, Any], shape: Any, why: str
) -> None:
    recorded(described(**fits), info(*shape))
    message = refusal(described(**does_not), info(*shape))
    assert why in message
    assert message.startswith("kernel copy_kernel, argument `source`, a tensor desc")
    assert f"made at {place(__file__, LINE)} in launch: " in message


# Where `described` makes the descriptor.
SOURCE = Path(__file__).read_text().splitlines()
LINE = next(n for n, line in enumerate(SOURCE, start=1) if line.endswith("  # here"))


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (described(strides=lambda x: (60, 1)), "strides must be 16-byte aligned"),
        (described(block=(16, 48)), "must be a power of 2"),
    ],
)
def test_what_triton_asserts_of_static_sizes_is_an_error_of_the_function(
    function: Callable[..., None], what: str
) -> None:
    with pytest.raises(AnnotationError, match=what):
        recorded(function, info(100, 64))


def test_tensors_that_may_be_unaligned_have_no_descriptors() -> None:
    recorded(copy, info(ROWS, 512))
    assert "the spec says aligned=False" in refusal(
        copy, info(ROWS, 512), aligned=False
    )


# --- What is compiled -----------------------------------------------------------------


def plugin(
    launch_fn: Callable[..., Any], configs: Any = None, **keywords: Any
) -> tta.CustomPluginSpec:
    return tta.custom_plugin(
        tta.triton(launch_fn, configs), lambda x: torch.empty_like(x), **keywords
    )


def rows(low: int, opt: int, high: int, *others: int) -> torch_tensorrt.Input:
    shapes = {
        f"{name}_shape": (size, *others)
        for name, size in (("min", low), ("opt", opt), ("max", high))
    }
    return torch_tensorrt.Input(**shapes, dtype=torch.float16)


def tactics(
    launch_fn: Callable[..., Any], *inputs: Any, target: str = "sm_90", **keywords: Any
) -> Any:
    impl = plugin(launch_fn, **keywords)
    trt_plugins.custom_op(
        "tma::op", impl=impl, supports_dynamic_shapes=True, replace=True
    )
    inputs = inputs or (rows(1, 100, 4112, 512),)
    return tta.dry_run("tma::op", list(inputs), target, execute=False).tactics


@pytest.mark.parametrize("target", ["sm_90", "sm_100", "sm_120"])
def test_the_entry_makes_the_maps(target: str) -> None:
    (tactic,) = tactics(copy, target=target)
    assert tactic.error is None
    assert tactic.target == f"{target}a"
    assert ".b8 copy_kernel_param" not in tactic.code
    assert tactic.code.count("fence.proxy.tensormap::generic.acquire.gpu") == 2
    assert (
        "tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [%tta_shared+0], 1, 16;"
        in (tactic.code)
    )
    opt = next(shape for shape in tactic.shapes if shape.name == "opt")
    blocks = 7 * 8
    assert opt.extras == (100,)
    assert opt.hidden == ((blocks * 2 * 128 // 4 + 128 // 4,),)


def test_gpus_without_tensor_maps_get_pointers() -> None:
    (tactic,) = tactics(copy, target="sm_80")
    assert tactic.error is None
    assert tactic.target == "sm_80"
    assert "tensormap" not in tactic.code
    assert "ld.global" in tactic.code


def test_a_driver_that_is_too_old_is_named() -> None:
    (tactic,) = tactics(copy, target="sm_90,ptx_isa=8.6")
    assert tactic.error is None
    (before,) = tactics(copy, target="sm_80,ptx_isa=8.5")  # gets pointers
    assert before.error is None
    too_old = r"need PTX ISA 8\.6; the target's driver takes 8\.5\. Name a newer"
    with pytest.raises(UnsupportedKernelError, match=too_old):
        tactics(copy, target="sm_90,ptx_isa=8.5")


@pytest.mark.parametrize("block", [(256, 16), (512, 16)])
def test_triton_copies_a_block_that_is_larger_than_a_box_in_parts(
    block: tuple[int, int],
) -> None:
    def launch(x: Any, out: Any) -> None:
        copy(x, out, block)

    (tactic,) = tactics(launch, torch.empty(1024, 64, dtype=torch.float16))
    assert re.findall(r"box_dim\S+ \S+ 1, (\d+);", tactic.code) == ["256", "256"]


def test_fills_and_element_types_are_those_of_the_descriptor() -> None:
    def launch(x: Any, out: Any) -> None:
        source = TensorDescriptor.from_tensor(x, [16, 64], padding="nan")
        copy_kernel[1, 1](source, TensorDescriptor.from_tensor(out, [16, 64]), 16, 64)

    (tactic,) = tactics(launch, torch.empty(100, 64, dtype=torch.bfloat16))
    replace = "tensormap.replace.tile.{}.shared::cta.b1024.b32 [%tta_shared+{}], {};"
    for field, number, value in (
        *(("fill_mode", 0, 1), ("fill_mode", 1, 0), ("elemtype", 0, 10)),
        *(("swizzle_mode", 0, 3), ("rank", 0, 1)),
    ):
        assert replace.format(field, 128 * number, value) in tactic.code


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        *((torch.float32, 7), (torch.bfloat16, 10), (torch.int32, 3)),
        *((torch.int8, 0), (torch.float8_e4m3fn, 0)),
    ],
)
def test_each_dtype_has_the_number_of_its_elements(
    dtype: torch.dtype, number: int
) -> None:
    (tactic,) = tactics(copy, torch.empty(64, 128).to(dtype))
    elements = f"elemtype.shared::cta.b1024.b32 [%tta_shared+0], {number};"
    assert f"tensormap.replace.tile.{elements}" in tactic.code


@triton.jit
def adding_kernel(source, target, B: tl.constexpr):
    n = source.shape[0] + source.strides[0]
    i = tl.program_id(0)
    target.atomic_add([i, 0, 0], source.load([i, 0, 0]) + n.to(tl.float16))


def test_kernels_read_the_sizes_of_descriptors_of_any_rank() -> None:
    def launch(x: Any, out: Any) -> None:
        made = [TensorDescriptor.from_tensor(t, [1, 16, 64]) for t in (x, out)]
        adding_kernel[(x.shape[0],)](*made, 64)

    (tactic,) = tactics(launch, rows(1, 5, 9, 16, 64))
    opt = next(shape for shape in tactic.shapes if shape.name == "opt")
    assert opt.extras == (5, 1024)
    assert "tensormap.replace.tile.rank.shared::cta.b1024.b32 [%tta_shared+0], 2;" in (
        tactic.code
    )
    assert "output 0 is loaded before it is stored to" in " ".join(tactic.notes)


def test_an_offset_that_follows_the_shape_is_added_to_a_maps_address() -> None:
    def launch(x: Any, out: Any) -> None:
        second = x.view(-1)[x.shape[0] * 8 :]
        source = TensorDescriptor(second, [x.shape[0], 64], [512, 1], [16, 64])
        copy_kernel[1, 1](source, TensorDescriptor.from_tensor(out, [16, 64]), 16, 64)

    (tactic,) = tactics(launch)
    assert "mad.wide.s32 %tta_address0, %tta_factor, 2, %tta_address0;" in tactic.code


def test_what_a_descriptor_says_beside_its_sizes_is_part_of_the_cache_key() -> None:
    def job(padding: str, block: tuple[int, int] = (16, 64)) -> Job:
        def launch(x: Any, out: Any) -> None:
            source = TensorDescriptor.from_tensor(x, list(block), padding)
            target = TensorDescriptor.from_tensor(out, [16, 64])
            copy_kernel[1, 1](source, target, 16, 64)

        program = recorded(launch, info(ROWS, 512))
        return Job("", "triton", program, Target("sm_90"), {}, True)

    jobs = [job("zero"), job("nan"), job("zero", (32, 64)), job("zero")]
    first, *others, again = keys_of(jobs)
    assert first == again
    assert len({first, *others}) == 3


def test_an_output_that_is_only_loaded_is_refused() -> None:
    def launch(x: Any, out: Any) -> None:
        copy(out, x)

    with pytest.raises(UnsupportedKernelError, match="stores to input `x`, which an"):
        tactics(launch)

    def other(x: Any, out: Any) -> None:
        source = TensorDescriptor.from_tensor(out, [16, 64])
        half_kernel[1, 1](source, out, 16, 64)

    (tactic,) = tactics(other)
    assert "output 0 is loaded before it is stored to" in " ".join(tactic.notes)


def test_a_descriptor_that_the_kernel_ignores_takes_nothing() -> None:
    def launch(x: Any, out: Any) -> None:
        source = TensorDescriptor.from_tensor(x, [16, 64])
        ignoring_kernel[(1,)](source, out)

    (tactic,) = tactics(launch)
    assert tactic.error is None
    assert "tensormap" not in tactic.code
    assert tactic.shapes[0].hidden == ()


@triton.jit
def ignoring_kernel(source, out):
    tl.store(out, 1.0)


# --- Blocks that a hook sets ----------------------------------------------------------


def set_blocks(arguments: dict[str, Any]) -> None:
    for name in ("source", "target"):
        arguments[name].block_shape = [arguments["BM"], arguments["BN"]]


def tuned(hook: Callable[..., Any]) -> Callable[..., None]:
    blocks = ((16, 64), (32, 64))
    configs = [triton.Config({"BM": m, "BN": n}, pre_hook=hook) for m, n in blocks]
    kernel = triton.autotune(configs, key=[])(copy_kernel)

    def launch(x: Any, out: Any) -> None:
        made = [TensorDescriptor.from_tensor(t, [1, 1]) for t in (x, out)]
        m, n = x.shape
        kernel[lambda meta: (triton.cdiv(m, meta["BM"]), triton.cdiv(n, meta["BN"]))](
            *made
        )

    return launch


def test_each_configs_hook_sets_the_blocks_of_its_tactic() -> None:
    found = tactics(tuned(set_blocks))
    assert [tactic.config["BM"] for tactic in found] == [16, 32]
    for tactic in found:
        box = "box_dim.shared::cta.b1024.b32 [%tta_shared+128], 1,"
        assert f"{box} {tactic.config['BM']};" in tactic.code


def test_a_hook_that_writes_an_input_is_refused() -> None:
    def hook(arguments: dict[str, Any]) -> None:
        set_blocks(arguments)
        arguments["source"].base.zero_()

    with pytest.raises(RecordError, match=r"writes an input with aten\.zero_"):
        tactics(tuned(hook))


# --- On a GPU -------------------------------------------------------------------------


@triton.jit
def matmul_kernel(
    a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    tiles_n = tl.cdiv(N, BN)
    for tile in range(tl.program_id(0), tl.cdiv(M, BM) * tiles_n, tl.num_programs(0)):
        m, n = tile // tiles_n * BM, tile % tiles_n * BN
        total = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K, BK):
            total = tl.dot(a.load([m, k]), b.load([n, k]).T, total)
        c.store([m, n], total.to(tl.float16))


def matmul(a: Any, b: Any, out: Any, BM: int = 64, BN: int = 64, SMS: int = 0) -> None:
    """``out = a @ b.T``, of tensors whose last dimensions are split by 8."""
    a, b, out = (t.flatten(1) if t.dim() == 3 else t.flatten(2).flatten(0, 1)
                 for t in (a, b, out))  # fmt: skip
    (M, K), N, BK = a.shape, b.shape[0], 64
    blocks = triton.cdiv(M, BM) * triton.cdiv(N, BN)
    matmul_kernel[(min(SMS, blocks) if SMS else blocks,)](
        TensorDescriptor.from_tensor(a, [BM, BK]),
        TensorDescriptor.from_tensor(b, [BN, BK]),
        TensorDescriptor.from_tensor(out, [BM, BN]),
        *(M, N, K, BM, BN, BK),
    )


def matmul_meta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[0], 8)


CONFIGS = [
    {"BM": 64, "BN": 64, "num_stages": 2},
    {"BM": 128, "BN": 128, "num_stages": 3, "num_warps": 8},
    {"BM": 64, "BN": 64, "num_stages": 2, "SMS": 132},
    {"BM": 128, "BN": 256, "num_stages": 3, "num_warps": 8, "SMS": 132},
]


def matmul_tactics(*inputs: Any, **keywords: Any) -> Any:
    impl = tta.custom_plugin(tta.triton(matmul, CONFIGS), matmul_meta)
    trt_plugins.custom_op(
        "tma::mm", impl=impl, supports_dynamic_shapes=True, replace=True
    )
    return tta.dry_run("tma::mm", list(inputs), strict=True, **keywords)


def dynamic(rows_at_opt: int) -> list[torch_tensorrt.Input]:
    """M from 1 to 4112, N and K multiples of 8 from 8 to 1024."""
    a = {"min": (1, 1, 8), "opt": (rows_at_opt, 64, 8), "max": (4112, 128, 8)}
    b = {"min": (1, 8, 1, 8), "opt": (16, 8, 64, 8), "max": (128, 8, 128, 8)}
    return [
        torch_tensorrt.Input(
            **{f"{name}_shape": shape for name, shape in each.items()},
            dtype=torch.float16,
        )
        for each in (a, b)
    ]


def by_torch(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.flatten(1) @ b.flatten(2).flatten(0, 1).T).unflatten(1, (-1, 8))


def by_triton(config: dict[str, int]) -> Callable[..., torch.Tensor]:
    """The function's own launch, by Triton's JIT."""
    keywords = {k: v for k, v in config.items() if k in ("BM", "BN", "SMS")}

    def launch(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out = matmul_meta(a, b)
        matmul(a, b, out, **keywords)
        return out

    return launch


def test_a_matmul_with_dynamic_extents_is_one_binary() -> None:
    report = matmul_tactics(*dynamic(1000), target="sm_90,ptx_isa=9.0", execute=False)
    assert len(report.tactics) == len(CONFIGS)
    again = matmul_tactics(*dynamic(7), target="sm_90,ptx_isa=9.0", execute=False)
    assert [t.code for t in again.tactics] == [t.code for t in report.tactics]


def test_a_matmul_is_interpreted_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_JOBS", "2")  # the interpreter has processes of its own
    monkeypatch.setattr(interpretation, "MOST_SECONDS", 60.0)
    shapes = [torch.empty(70, 9, 8), torch.empty(3, 8, 9, 8)]
    inputs = [shape.to(torch.float16) for shape in shapes]
    report = matmul_tactics(*inputs, target="sm_90,ptx_isa=9.0", reference=by_torch)
    assert report.ok
    assert all(tactic.shapes[0].ok for tactic in report.tactics)


@needs_gpu
@pytest.mark.parametrize("rows", [1, 7, 64, 127, 128, 129, 1000, 4100])
def test_a_matmul_with_dynamic_extents_is_right(rows: int) -> None:
    report = matmul_tactics(*dynamic(rows), reference=by_torch)
    assert report.ok
    assert {s.name for s in report.tactics[0].shapes} == {"min", "opt", "max", "ragged"}


@needs_gpu
@pytest.mark.parametrize("index", range(len(CONFIGS)))
@pytest.mark.parametrize("rows", [1, 129, 4096])
def test_a_matmul_gives_the_bits_of_tritons_own_launch(index: int, rows: int) -> None:
    config = CONFIGS[index]
    stages = {k: v for k, v in config.items() if k.startswith("num_")}
    impl = tta.custom_plugin(tta.triton(matmul, [config]), matmul_meta)
    trt_plugins.custom_op(
        "tma::one", impl=impl, supports_dynamic_shapes=True, replace=True
    )

    def own(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            run = type(matmul_kernel).run
            patch.setattr(
                type(matmul_kernel), "run", lambda *a, **k: run(*a, **{**k, **stages})
            )
            return by_triton(config)(a, b)

    report = tta.dry_run(
        "tma::one", list(dynamic(rows)), reference=own, tolerance=0.0, strict=True
    )
    assert report.ok
