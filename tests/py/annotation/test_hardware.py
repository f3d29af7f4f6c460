# SPDX-License-Identifier: BSD-3-Clause

"""Shared memory over 48 KiB, clusters and scratch memory, under a plain launch.

Each limit has a test on either side. The kernels of ``ptx_language`` are right only if
they get what they ask for; those of Triton are matrix products as people write them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ptx_language
import pytest
import torch
import triton
import triton.language as tl
from compiled_elsewhere import as_inputs
from ptx_language import PTXKernel, clustered, copies, launching, ptx, scratched, shared

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import backends
from torch_tensorrt.annotation._code.ptx import parse
from torch_tensorrt.annotation._compile.cache import from_json, to_json
from torch_tensorrt.annotation._dry_run.execute import load
from torch_tensorrt.annotation._dry_run.memory import POISONS, GuardedTensor
from torch_tensorrt.annotation._plugin import Request, registered
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import TensorInfo
from torch_tensorrt.annotation.errors import (
    ArgumentError,
    PTXError,
    UnsupportedKernelError,
)

HAS_GPU = torch.cuda.is_available()
on_hopper = pytest.mark.skipif(
    not HAS_GPU or torch.cuda.get_device_capability()[0] < 9,
    reason="there is no Hopper GPU here",
)
HOPPER = "sm_90,ptx_isa=9.0"  # a driver of CUDA 13.0
MOST = 232448  # bytes of shared memory that a block of Hopper has
STATIC = torch.empty(1000)
DYNAMIC = torch_tensorrt.Input(
    min_shape=(1,), opt_shape=(1000,), max_shape=(5000,), dtype=torch.float32
)


@pytest.fixture(autouse=True)
def _ptx_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ptx_language.install(tmp_path, monkeypatch)
    yield
    backends.backend.cache_clear()


def like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def register(specs: Any, meta: Any = like) -> None:
    trt_plugins.custom_op(
        "hw::op",
        impl=tta.custom_plugin(specs, meta_impl=meta),
        supports_dynamic_shapes=True,
        replace=True,
    )


def dry_run(
    *kernels: PTXKernel, x: Any = STATIC, target: str | Target = HOPPER, **how: Any
) -> tta.DryRunReport:
    register(copies(kernels))
    return tta.dry_run("hw::op", [x], target, **{"execute": False, **how})


def only(report: tta.DryRunReport) -> Any:
    (tactic,) = report.tactics
    return tactic


# --- Shared memory --------------------------------------------------------------------


@pytest.mark.parametrize("size", [48 * 1024 + 1, MOST])
def test_dynamic_memory_over_48_kib_is_static_and_the_launch_asks_for_none(
    size: int,
) -> None:
    tactic = only(dry_run(shared(size)))
    assert f".shared .align 1024 .b8 dynamic[{size}];" in tactic.code
    assert tactic.target == "sm_90a"
    assert tactic.shared_memory == size
    assert tactic.shapes[0].shared_memory == 0


def test_dynamic_memory_up_to_48_kib_stays_dynamic() -> None:
    tactic = only(dry_run(shared(48 * 1024), target="sm_90"))
    assert ".extern .shared" in tactic.code
    assert tactic.target == "sm_90"
    assert tactic.shared_memory == tactic.shapes[0].shared_memory == 48 * 1024


def test_static_and_dynamic_memory_count_together() -> None:
    (both, fits) = dry_run(shared(40_000, 9153), shared(40_000, 9152)).tactics
    assert both.shapes[0].shared_memory == 0
    assert both.shared_memory >= 49153
    assert fits.shapes[0].shared_memory == 40_000
    assert fits.shared_memory == 49152


@pytest.mark.parametrize(
    ("kernel", "target", "why"),
    [
        (shared(MOST + 1), HOPPER, r"232449 bytes .*; sm_90 has 232448\. Take small"),
        (shared(MOST, 1024), HOPPER, r"233472 bytes .*; sm_90 has 232448"),
        (shared(49153), "sm_90,ptx_isa=8.8", r"CUDA 13\.0 or newer .* PTX ISA 8\.8"),
        (shared(49153, target=80), "sm_80,ptx_isa=9.0", "no way to more is known on"),
        (shared(101_377, target=80), "sm_120,ptx_isa=9.0", "sm_120 has 101376"),
    ],
    ids=["GPU", "GPU and static", "driver", "before Hopper", "sm_120"],
)
def test_what_is_too_large_is_refused_with_the_reason(
    kernel: PTXKernel, target: str, why: str
) -> None:
    with pytest.raises(UnsupportedKernelError, match=f"kernel shared: .*{why}"):
        dry_run(kernel, target=target)


def test_a_tactic_that_takes_a_newer_driver_is_left_out_and_others_stay() -> None:
    target = "sm_90,cuda=12.9"
    small, large = dry_run(shared(1024), shared(49153), target=target).tactics
    assert small.error is None
    assert "a driver of CUDA 13.0 or newer (PTX ISA 9.0)" in str(large.error)


def test_code_that_only_such_a_driver_loads_needs_no_name_of_it() -> None:
    kernel = shared(MOST)
    newer = PTXKernel(
        "shared", kernel.text.replace(".version 8.0", ".version 9.0"), MOST
    )
    assert only(dry_run(newer, target="sm_90")).shared_memory == MOST
    with pytest.raises(UnsupportedKernelError, match=r"to take PTX ISA 8\.8"):
        dry_run(newer, target="sm_90,ptx_isa=8.8")


def test_the_override_keeps_dynamic_memory_as_it_is() -> None:
    target = Target("sm_80", max_shared_memory=100_000)
    tactic = only(dry_run(shared(100_000, target=80), target=target))
    assert ".extern .shared" in tactic.code
    assert tactic.shapes[0].shared_memory == 100_000
    with pytest.raises(UnsupportedKernelError, match="max_shared_memory is 100000"):
        dry_run(shared(100_001, target=80), target=target)


def test_a_launch_with_shared_memory_that_no_kernel_declares_is_refused() -> None:
    kernel = clustered(2)
    with pytest.raises(PTXError, match=r"launched with 50000 bytes .* declares none"):
        dry_run(PTXKernel("clustered", kernel.text, 50000, kernel.cluster))


# --- Clusters -------------------------------------------------------------------------


@pytest.mark.parametrize("x", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_shape_of_a_cluster_is_in_the_entry(size: int, x: Any) -> None:
    tactic = only(dry_run(clustered(size), x=x, target="sm_90"))
    assert parse(tactic.code).cluster == (size, 1, 1)
    assert f".reqnctapercluster {size}, 1, 1" in tactic.code
    assert all(shape.grid[0] % size == 0 for shape in tactic.shapes)


def test_a_cluster_that_the_code_alone_declares_counts() -> None:
    declared = clustered(2, ".reqnctapercluster 2\n")
    kernel = PTXKernel("clustered", declared.text)
    register(ptx(launching(declared)))
    assert only(dry_run(declared)).code.count(".reqnctapercluster") == 1
    with pytest.raises(ArgumentError, match=r"clusters of 2x1x1 .* a multiple of 2"):
        dry_run(kernel, x=torch.empty(300))


def test_two_shapes_of_clusters_are_refused() -> None:
    with pytest.raises(PTXError, match=r"of \(2, 1, 1\) blocks, .*cluster 4"):
        dry_run(clustered(2, ".reqnctapercluster 4\n"))


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.empty(300), r"the grid's x, 3, is not known to be a multiple of 2"),
        (
            DYNAMIC,
            r"the grid's x, .*x.shape.*, is not known to be a multiple of 2 at ev",
        ),
    ],
    ids=["static", "dynamic"],
)
def test_a_grid_that_is_not_a_multiple_of_the_cluster_is_refused(
    x: Any, why: str
) -> None:
    register(ptx(launching(clustered(2), per_cluster=False)))
    with pytest.raises(ArgumentError, match=why):
        tta.dry_run("hw::op", [x], HOPPER, execute=False)


def test_a_grid_of_a_multiple_that_is_not_written_as_one_will_do() -> None:
    register(ptx(launching(clustered(2), per_cluster=False)))
    report = tta.dry_run("hw::op", [torch.empty(512)], HOPPER, execute=False)
    assert only(report).shapes[0].grid == (4, 1, 1)


@pytest.mark.parametrize(
    ("size", "target", "why"),
    [
        (16, HOPPER, "clusters of 16x1x1 blocks; 8 are possible"),
        (2, "sm_89", r"clusters of 2x1x1 blocks, which sm_89 does not have: Hopper"),
    ],
)
def test_a_cluster_that_is_not_possible_is_refused(
    size: int, target: str, why: str
) -> None:
    with pytest.raises(UnsupportedKernelError, match=why):
        dry_run(clustered(size), target=target)


# --- Scratch memory -------------------------------------------------------------------


def words(tactic: Any) -> dict[str, Any]:
    return {shape.name: shape.hidden for shape in tactic.shapes}


@pytest.mark.parametrize("is_known", [True, False], ids=["recorded", "compiled"])
def test_scratch_memory_is_a_hidden_output_as_large_as_the_grid(is_known: bool) -> None:
    """And 128 bytes more, which the entry needs to round its address up."""
    tactic = only(dry_run(scratched(512, is_known), x=DYNAMIC, target="sm_90"))
    sizes = {"min": 1, "opt": 8, "max": 40, "ragged": 27}
    assert words(tactic) == {
        name: ((128 * blocks + 32,),) for name, blocks in sizes.items()
    }
    assert re.search(r"\[(\w+)\];\s+add\.s64 %rd5, %rd5, 127;", tactic.code)
    assert "and.b64 %rd5, %rd5, -128;" in tactic.code


def test_bytes_of_a_block_are_rounded_up_to_words() -> None:
    assert words(only(dry_run(scratched(10), x=STATIC))) == {"static": ((8 * 3 + 32,),)}


def test_tactics_share_the_largest() -> None:
    report = dry_run(scratched(512), scratched(1024), shared(1024), x=STATIC)
    assert [words(t)["static"] for t in report.tactics] == [((8 * 256 + 32,),)] * 3


def test_a_kernel_compiled_for_one_profile_leaves_room_in_another() -> None:
    dry_run(scratched(grid_is_known=False), x=DYNAMIC)
    for extent in (10, 9000):
        x = torch_tensorrt.Input(
            min_shape=(1,), opt_shape=(2,), max_shape=(extent,), dtype=torch.float32
        )
        report = tta.dry_run("hw::op", [x], HOPPER, execute=False, replay=20)
        found = words(only(report))
        assert found["max"][0][0] >= -(-extent // 128) * 128 + 32


def test_the_grid_of_a_branch_has_room_or_is_refused() -> None:
    kernel = scratched()

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        n = x.numel()
        blocks = (n + 127) // 128
        kernel.launch(blocks * 3 if 30 <= n <= 50 else blocks, x, out, n)

    register(ptx(launch))
    with pytest.raises(
        UnsupportedKernelError, match=r"needs scratch memory of .* before it has a prof"
    ):
        middle = torch_tensorrt.Input(
            min_shape=(30,), opt_shape=(40,), max_shape=(50,), dtype=torch.float32
        )
        tta.dry_run("hw::op", [middle], HOPPER, execute=False)
    report = tta.dry_run("hw::op", [torch.empty(40)], HOPPER, execute=False)
    assert words(only(report)) == {"static": ((3 * 128 + 32,),)}


def test_a_kernel_has_scratch_memory_beside_buffers_of_the_function() -> None:
    kernel = scratched()
    text = kernel.text.replace(".param .u32 n,", ".param .u64 mine, .param .u32 n,")
    text = text.replace(
        "ret;", "ld.param.u64 %rd6, [mine];\nst.global.f32 [%rd6], %f1;\nret;"
    )

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        both = PTXKernel("scratched", text, scratch=kernel.scratch)
        mine = x.new_empty(x.numel(), 2)
        both.launch((x.numel() + 127) // 128, x, out, mine, x.numel())

    register(ptx(launch))
    report = tta.dry_run("hw::op", [DYNAMIC], HOPPER, execute=False)
    assert words(only(report))["max"] == ((5000, 2), (40 * 128 + 32,))


def compiled(kernel: PTXKernel) -> Any:
    """What TensorRT gets for 1000 elements, as the plugin has it."""
    register(ptx(launching(kernel)))
    inputs = [TensorInfo((1000,), torch.float32)]
    plugin = registered["hw::op"].plugin
    (tactic,) = plugin.kernels(Request.of(inputs, {}, Target("sm_90")))
    return tactic.kernel


def test_what_is_done_with_scratch_memory_is_no_note() -> None:
    kernel = compiled(scratched())
    assert kernel.effects["scratch 0"] == "stored, loaded"
    assert kernel.notes == ()


# --- Triton's kernels, compiled -------------------------------------------------------

B = torch.empty(512, 256, dtype=torch.float16)
A = torch_tensorrt.Input(
    min_shape=(1, 512),
    opt_shape=(1000, 512),
    max_shape=(2048, 512),
    dtype=torch.float16,
)
OF_A = {"static": torch.empty(1024, 512, dtype=torch.float16), "dynamic": A}


@triton.jit
def pointers(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depths = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x = tl.load(a + rows[:, None] * K + k + depths, rows[:, None] < M, 0.0)
        y = tl.load(b + (k + depths[:, None]) * N + columns, columns < N, 0.0)
        acc = tl.dot(x, y, acc)
    mask = (rows[:, None] < M) & (columns < N)
    tl.store(c + rows[:, None] * N + columns, acc.to(tl.float16), mask)


@triton.jit
def descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    a = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    b = tl.make_tensor_descriptor(b, [K, N], [N, 1], [BK, BN])
    c = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(a.load([row, k]), b.load([k, column]), acc)
    c.store([row, column], acc.to(tl.float16))


def launch_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    BM: int = 128,
    BN: int = 128,
    kernel: Any = pointers,
    **options: int,
) -> None:
    (M, K), N = a.shape, b.shape[1]
    grid = (triton.cdiv(M, BM), triton.cdiv(N, BN))
    kernel[grid](a, b, c, M, N, K, BM, BN, BK=64, **options)


def launch_descriptors(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    BM: int = 128,
    BN: int = 128,
    **options: int,
) -> None:
    def allocate(size: int, alignment: int, stream: Any) -> torch.Tensor:
        return torch.empty(size, dtype=torch.int8, device="cuda")

    triton.set_allocator(allocate)
    launch_matmul(a, b, c, BM, BN, descriptors, **options)


MATMULS = {  # launch function and config; more than 48 KiB, but for the last
    "pointers": (launch_matmul, {"num_stages": 3}),
    "large": (launch_matmul, {"BN": 256, "num_stages": 4, "num_warps": 8}),
    "clusters": (launch_matmul, {"num_ctas": 2, "num_stages": 3, "num_warps": 4}),
    "descriptors": (launch_descriptors, {"num_stages": 3, "num_warps": 4}),
    "both": (launch_descriptors, {"num_ctas": 2, "num_stages": 2, "BM": 64}),
}


def matmul(name: str, a: Any, **how: Any) -> tta.DryRunReport:
    launch, config = MATMULS[name]
    register(tta.triton(launch, [config]), lambda a, b: a.new_empty(len(a), b.shape[1]))
    return tta.dry_run("hw::op", [a, B], HOPPER, strict=True, **how)


@pytest.mark.parametrize("a", OF_A.values(), ids=OF_A)
@pytest.mark.parametrize("name", MATMULS)
def test_a_matrix_product_of_tritons_compiles(name: str, a: Any) -> None:
    tactic = only(matmul(name, a, execute=False))
    _, config = MATMULS[name]
    rows = [
        triton.cdiv(s.dims[0][0], config.get("BM", 128)) * config.get("num_ctas", 1)
        for s in tactic.shapes
    ]
    columns = 256 // config.get("BN", 128)
    assert [s.grid for s in tactic.shapes] == [(n, columns, 1) for n in rows]
    assert all(shape.shared_memory == 0 for shape in tactic.shapes) or name == "both"
    assert (tactic.shared_memory > 49152) == (name != "both")
    hidden = [(96 * n * columns + 32,) for n in rows]  # three maps of 128 bytes
    has_scratch = name in ("descriptors", "both")
    found = [shape.hidden for shape in tactic.shapes]
    assert found == [(each,) if has_scratch else () for each in hidden]


@triton.autotune([triton.Config({}, num_ctas=n) for n in (1, 2)], key=["n"])
@triton.jit
def tuned_kernel(x, out, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(x + offsets, offsets < n), offsets < n)


def test_choices_of_an_autotuner_may_be_clusters() -> None:
    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        n = x.numel()
        tuned_kernel[(triton.cdiv(n, 512),)](x, out, n, BLOCK=512)

    register(tta.triton(launch))
    report = tta.dry_run("hw::op", [DYNAMIC], HOPPER, strict=True, execute=False)
    clusters = [parse(tactic.code).cluster for tactic in report.tactics]
    assert clusters == [None, (2, 1, 1)]
    assert [t.shapes[2].grid for t in report.tactics] == [(10, 1, 1), (20, 1, 1)]


@pytest.mark.parametrize("target", ["sm_90,ptx_isa=8.8", "sm_80,ptx_isa=9.0"])
def test_a_matrix_product_of_tritons_is_refused_elsewhere(target: str) -> None:
    launch, config = MATMULS["pointers"]
    register(tta.triton(launch, [config]), lambda a, b: a.new_empty(len(a), b.shape[1]))
    with pytest.raises(UnsupportedKernelError, match=r"bytes of shared memory for a"):
        tta.dry_run("hw::op", [A, B], target, execute=False)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_kernels_of_cute_dsl_get_what_they_ask_for(kind: str) -> None:
    pytest.importorskip("cutlass", reason="CuTe DSL is not installed")
    from cutedsl_kernels import LARGE_CASES

    found = {}
    for case in LARGE_CASES:  # test_cutedsl_tensor_maps.py has the others
        register(case.kernel, case.meta)
        inputs = as_inputs(getattr(case, kind))
        report = tta.dry_run("hw::op", inputs, HOPPER, strict=True, execute=False)
        for tactic in report.tactics:
            entry = parse(tactic.code)
            shared = tactic.shared_memory, tactic.shapes[-1].shared_memory
            grids = [shape.grid[0] for shape in tactic.shapes]
            found[case.name, str(tactic.config)] = shared, entry.cluster, grids
    large, small = [1, 4, 25, 17], [2, 4, 26, 18]
    of_kind = slice(1, 2) if kind == "static" else slice(4)
    assert found == {
        ("cute_large_shared", "{'KIB': 64}"): ((65536, 0), None, large[of_kind]),
        ("cute_large_shared", "{'KIB': 227}"): ((MOST, 0), None, large[of_kind]),
        ("cute_clustered", "{}"): ((0, 0), (2, 1, 1), small[of_kind]),
    }


# --- Interpreted, and kept ------------------------------------------------------------


@triton.jit
def unmasked_kernel(x, out, programs, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(x + offsets) * tl.num_programs(0) / programs)


@pytest.mark.parametrize("num_ctas", [1, 2])
def test_a_program_is_interpreted_once_however_many_blocks_it_is(num_ctas: int) -> None:
    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        unmasked_kernel[(4,)](x, out, 4, BLOCK=256)

    register(tta.triton(launch, [{"num_ctas": num_ctas}]))
    x = torch.empty(1024)
    report = tta.dry_run("hw::op", [x], "sm_90", reference=torch.clone, execute=None)
    assert report.ok, str(report)
    assert only(report).shapes[0].grid == (4 * num_ctas, 1, 1)


def test_a_kernel_with_scratch_memory_is_cached() -> None:
    kernel = compiled(scratched(768))
    again = from_json(json.loads(json.dumps(to_json(kernel))))
    assert again == kernel
    assert again.scratch == (768,)


# --- On a GPU -------------------------------------------------------------------------


@on_hopper
@pytest.mark.parametrize(
    "kernel",
    [
        *(shared(size) for size in (48 * 1024, 48 * 1024 + 1024, MOST - 1024, MOST)),
        *(shared(40_000, 20_000), *map(clustered, (2, 4, 8)), scratched()),
    ],
    ids=lambda kernel: f"{kernel.name} {kernel.shared_memory} {kernel.cluster[0]}",
)
@pytest.mark.parametrize("x", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_plain_launch_gives_a_kernel_what_it_asks_for(
    kernel: PTXKernel, x: Any
) -> None:
    report = dry_run(kernel, x=x, reference=torch.clone, strict=True, execute=True)
    assert all(shape.max_error == 0 for shape in only(report).shapes)


@on_hopper
@pytest.mark.parametrize("a", OF_A.values(), ids=OF_A)
@pytest.mark.parametrize("name", MATMULS)
def test_a_matrix_product_of_tritons_is_right_on_the_gpu(name: str, a: Any) -> None:
    report = matmul(name, a, reference=torch.matmul, execute=True)
    assert all(shape.ok for shape in only(report).shapes)


@on_hopper
@pytest.mark.parametrize("name", MATMULS)
def test_a_plain_launch_computes_what_the_launch_function_does(name: str) -> None:
    """Bit by bit: it is the same code."""
    launch, config = MATMULS[name]

    def fixed(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        launch(a, b, c, **config)

    register(tta.triton(fixed), lambda a, b: a.new_empty(len(a), b.shape[1]))
    report = tta.dry_run("hw::op", [A, B], HOPPER, tolerance=0.0, execute=True)
    assert report.ok, str(report)


@on_hopper
def test_hidden_buffers_have_the_alignment_that_tensorrt_promises_and_no_more() -> None:
    buffer = GuardedTensor((8,), torch.int32, "LINEAR", POISONS[0], shift=16).buffer
    assert buffer.data_ptr() % 32 == 16


@on_hopper
@pytest.mark.parametrize("name", ["hand-written", "descriptors"])
def test_two_launches_at_once_have_a_buffer_each(name: str) -> None:
    """Rounds of two launches on two streams, with other inputs, and as they overlap."""
    if name == "descriptors":
        report = matmul(name, torch.empty(1024, 512).half(), execute=False)
        made = [
            torch.randn(2, *s, device="cuda").half() for s in ((1024, 512), B.shape)
        ]
        cases = [[tensor[i] for tensor in made] for i in range(2)]
        expected = [a @ b for a, b in cases]
    else:
        report = dry_run(scratched(), x=torch.empty(128 * 128))
        cases = [[torch.randn(128 * 128, device="cuda")] for _ in range(2)]
        expected = [x for (x,) in cases]
    tactic = only(report)
    kernel, (shape,) = load(tactic), tactic.shapes
    streams = [torch.cuda.Stream() for _ in cases]
    outputs = [torch.empty_like(each) for each in expected]
    (words,) = shape.hidden
    buffers = [
        GuardedTensor(words, torch.int32, "LINEAR", 0xFF, shift=16) for _ in cases
    ]
    torch.cuda.synchronize()
    for _ in range(50):
        for output, buffer in zip(outputs, buffers, strict=True):
            output.fill_(float("nan"))
            buffer.buffer.fill_(-1)
        torch.cuda.synchronize()
        for stream, inputs, output, buffer in zip(
            streams, cases, outputs, buffers, strict=True
        ):
            with torch.cuda.stream(stream):
                addresses = [tensor.data_ptr() for tensor in inputs]
                into = [output.data_ptr(), buffer.buffer.data_ptr()]
                kernel.launch(shape, addresses, into)
        torch.cuda.synchronize()
        for output, right in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, right, rtol=1e-2, atol=1e-2)
        assert all(buffer.is_intact for buffer in buffers)
