# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL kernels and launchers in the styles people write them, each as a case."""

from __future__ import annotations

import math
from typing import Any

import cutlass
import cutlass.cute as cute
import torch
from cuda.bindings.driver import CUstream
from cutlass import Constexpr, Float32, Int32
from cutlass.cute.nvgpu import cpasync, warp, warpgroup
from cutlass.cute.runtime import from_dlpack
from cutlass.memory import SmemAllocator
from cutlass.tensor_utils import LayoutEnum, TensorMapManager, TensorMapUpdateMode
from cutlass.utils import hopper_helpers
from kernels import Case, info

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._tensors import Range

ROWS = Range(1, 8, 64)
WARP = 32

# --- One element a thread, over the product of the extents ----------------------------


@cute.jit
def flattened(tensor: cute.Tensor):
    return cute.make_tensor(tensor.iterator, cute.make_layout(math.prod(tensor.shape)))


@cute.jit
def thread_index():
    x, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    width, _, _ = cute.arch.block_dim()
    return block * width + x


@cute.kernel
def silu_kernel(x: cute.Tensor, out: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        value = x[i].to(Float32)
        out[i] = (value / (1.0 + cute.math.exp(-value))).to(out.element_type)


@cute.jit
def launch_silu(x: cute.Tensor, out: cute.Tensor, BLOCK: Constexpr = 256):
    n = math.prod(x.shape)
    silu_kernel(flattened(x), flattened(out)).launch(
        grid=((n + BLOCK - 1) // BLOCK, 1, 1), block=(BLOCK, 1, 1)
    )


@cute.kernel
def hadamard_kernel(out: cute.Tensor, x: cute.Tensor, y: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        out[i] = x[i] * y[i]


@cute.jit
def hadamard_jit(x: cute.Tensor, y: cute.Tensor, out: cute.Tensor, BLOCK: Constexpr):
    n = math.prod(x.shape)
    hadamard_kernel(flattened(out), flattened(x), flattened(y)).launch(
        grid=(cute.ceil_div(n, BLOCK), 1, 1), block=(BLOCK, 1, 1)
    )


def launch_hadamard(x, y, out, BLOCK=128):
    """A Python function that compiles for its tensors, and launches."""
    tensors = [from_dlpack(tensor) for tensor in (x, y, out)]
    cute.compile(hadamard_jit, *tensors, BLOCK)(*tensors)


# --- Vectorized, with tails -----------------------------------------------------------


@cute.kernel
def add_kernel(
    x: cute.Tensor,
    y: cute.Tensor,
    out: cute.Tensor,
    coordinates: cute.Tensor,
    shape: cute.Shape,
    layout: cute.Layout,
):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    tile = ((None, None), block)
    composed = [cute.composition(t[tile], layout) for t in (x, y, out, coordinates)]
    mine_x, mine_y, mine_out, mine = (t[thread, None] for t in composed)
    inside = cute.make_rmem_tensor(mine.shape, cutlass.Boolean)
    for i in cutlass.range_constexpr(cute.size(inside)):
        inside[i] = cute.elem_less(mine[i], shape)
    first, second, total = (cute.make_fragment_like(mine_x) for _ in range(3))
    cute.basic_copy_if(inside, mine_x, first)
    cute.basic_copy_if(inside, mine_y, second)
    total.store(first.load() + second.load())
    cute.basic_copy_if(inside, total, mine_out)


@cute.jit
def add_jit(x: cute.Tensor, y: cute.Tensor, out: cute.Tensor, stream: CUstream):
    per_thread = 128 // x.element_type.width
    tiler, layout = cute.make_layout_tv(
        cute.make_ordered_layout((4, 32), order=(1, 0)),
        cute.make_ordered_layout((4, per_thread), order=(1, 0)),
    )
    coordinates = cute.make_identity_tensor(x.shape)
    tiles = [cute.zipped_divide(t, tiler) for t in (x, y, out, coordinates)]
    add_kernel(*tiles, x.shape, layout).launch(
        grid=(cute.size(tiles[0], mode=[1]), 1, 1), block=(128, 1, 1), stream=stream
    )


_compiled_adds: dict[torch.dtype, Any] = {}


def launch_add(x, y, out):
    """A Python function that keeps what it compiled, for any shape."""
    tensors = [
        from_dlpack(tensor, assumed_align=16).mark_layout_dynamic(leading_dim=1)
        for tensor in (x, y, out)
    ]
    stream = CUstream(torch.cuda.current_stream().cuda_stream)
    if x.dtype not in _compiled_adds:
        _compiled_adds[x.dtype] = cute.compile(add_jit, *tensors, stream)
    _compiled_adds[x.dtype](*tensors, stream)


@cute.kernel
def wide_add_kernel(x: cute.Tensor, y: cute.Tensor, out: cute.Tensor):
    i = thread_index()
    if i < cute.size(x, mode=[1]):
        mine = (None, i)
        out[mine].store(x[mine].load() + y[mine].load())


@cute.jit
def launch_wide_add(
    x: cute.Tensor, y: cute.Tensor, out: cute.Tensor, BLOCK: Constexpr = 256
):
    """Vectors of 16 bytes, which the divisibility of the size alone allows."""
    flat = [
        cute.make_tensor(t.iterator, cute.make_layout(cute.size(t)))
        for t in (x, y, out)
    ]
    tiler = (128 // x.element_type.width,)
    tiles = [cute.zipped_divide(t, tiler) for t in flat]
    count = cute.size(tiles[0], mode=[1])
    wide_add_kernel(*tiles).launch(
        grid=(cute.ceil_div(count, BLOCK), 1, 1), block=(BLOCK, 1, 1)
    )


# --- Reductions within a warp and a block ---------------------------------------------


@cute.jit
def block_reduce(value: Float32, operation: Constexpr, identity: Constexpr):
    """The reduction over a block, in every thread of it."""
    thread, _, _ = cute.arch.thread_idx()
    width, _, _ = cute.arch.block_dim()
    partial = SmemAllocator().allocate_tensor(Float32, cute.make_layout(WARP), 16)
    value = cute.arch.warp_reduction(value, operation)
    if thread % WARP == 0:
        partial[thread // WARP] = value
    cute.arch.sync_threads()
    value = Float32(identity)
    if thread % WARP < width // WARP:
        value = partial[thread % WARP]
    return cute.arch.warp_reduction(value, operation)


@cute.kernel
def rms_norm_kernel(
    x: cute.Tensor,
    weight: cute.Tensor,
    out: cute.Tensor,
    eps: Float32,
    THREADS: Constexpr,
):
    """Each thread keeps its vectors of a row in registers; x is read once."""
    thread, _, _ = cute.arch.thread_idx()
    row, _, _ = cute.arch.block_idx()
    vectors = cute.size(x, mode=[1, 1])
    rounds = cute.ceil_div(vectors, THREADS)
    total = Float32(0.0)
    kept = []
    for step in cutlass.range_constexpr(rounds):
        index = thread + step * THREADS
        inside = cutlass.min(index, vectors - 1)
        values = x[None, (row, inside)].load().to(Float32)
        squares = (values * values).reduce(cute.ReductionOp.ADD, 0.0, 0)
        total += squares if index < vectors else Float32(0.0)
        kept.append(values)
    total = block_reduce(total, lambda a, b: a + b, 0.0)
    columns = vectors * cute.size(x, mode=[0])
    scale = cute.math.rsqrt(total / columns + eps)
    for step in cutlass.range_constexpr(rounds):
        index = thread + step * THREADS
        if index < vectors:
            scaled = kept[step] * scale * weight[None, (0, index)].load().to(Float32)
            out[None, (row, index)].store(scaled.to(out.element_type))


@cute.jit
def launch_rms_norm(
    x: cute.Tensor,
    weight: cute.Tensor,
    out: cute.Tensor,
    eps: Float32 = 1e-6,
    THREADS: Constexpr = 128,
    *,
    stream: CUstream,
):
    """For a static number of columns, which vectors of 16 bytes divide."""
    tiler = (1, 128 // x.element_type.width)
    row = cute.make_tensor(
        weight.iterator, cute.make_layout((1, weight.shape[0]), stride=(0, 1))
    )
    tiles = [cute.zipped_divide(t, tiler) for t in (x, row, out)]
    rms_norm_kernel(*tiles, eps, THREADS).launch(
        grid=(x.shape[0], 1, 1), block=(THREADS, 1, 1), stream=stream
    )


@cute.kernel
def softmax_kernel(x: cute.Tensor, out: cute.Tensor, THREADS: Constexpr):
    thread, _, _ = cute.arch.thread_idx()
    row, _, _ = cute.arch.block_idx()
    columns = x.shape[1]
    largest = -Float32.inf
    for i in range(thread, columns, THREADS):
        largest = cute.arch.fmax(largest, x[row, i].to(Float32))
    largest = block_reduce(largest, cute.arch.fmax, -math.inf)
    total = Float32(0.0)
    for i in range(thread, columns, THREADS):
        total += cute.math.exp(x[row, i].to(Float32) - largest)
    total = block_reduce(total, lambda a, b: a + b, 0.0)
    for i in range(thread, columns, THREADS):
        value = cute.math.exp(x[row, i].to(Float32) - largest) / total
        out[row, i] = value.to(out.element_type)


@cute.jit
def launch_softmax(x: cute.Tensor, out: cute.Tensor, THREADS: Constexpr = 128):
    softmax_kernel(x, out, THREADS).launch(
        grid=(x.shape[0], 1, 1), block=(THREADS, 1, 1)
    )


# --- A matrix product on tensor cores, pipelined with cp.async ------------------------


class Gemm:
    """``c = a @ b.T`` of row-major matrices; K is a multiple of the tile's."""

    def __init__(self, tile=(64, 64, 32), stages=3):
        self.tile, self.stages, self.threads = tile, stages, 128

    @cute.jit
    def __call__(
        self, a: cute.Tensor, b: cute.Tensor, c: cute.Tensor, stream: CUstream
    ):
        BM, BN, BK = self.tile
        swizzled = cute.make_composed_layout(
            cute.make_swizzle(2, 3, 3), 0, cute.make_layout((8, BK), stride=(BK, 1))
        )
        staged_a = cute.tile_to_shape(swizzled, (BM, BK, self.stages), (0, 1, 2))
        staged_b = cute.tile_to_shape(swizzled, (BN, BK, self.stages), (0, 1, 2))
        copy = cute.make_tiled_copy_tv(
            cute.make_copy_atom(
                cpasync.CopyG2SOp(), a.element_type, num_bits_per_copy=128
            ),
            cute.make_layout((self.threads * 8 // BK, BK // 8), stride=(BK // 8, 1)),
            cute.make_layout((1, 8)),
        )
        mma = cute.make_tiled_mma(
            warp.MmaF16BF16Op(a.element_type, Float32, (16, 8, 16)),
            (2, 2, 1),
            permutation_mnk=(32, 32, 16),
        )
        self.kernel(a, b, c, staged_a, staged_b, copy, mma).launch(
            grid=(cute.ceil_div(c.shape[0], BM), cute.ceil_div(c.shape[1], BN), 1),
            block=(self.threads, 1, 1),
            stream=stream,
        )

    @cute.kernel
    def kernel(
        self,
        a: cute.Tensor,
        b: cute.Tensor,
        c: cute.Tensor,
        staged_a: cute.ComposedLayout,
        staged_b: cute.ComposedLayout,
        copy: cute.TiledCopy,
        mma: cute.TiledMma,
    ):
        BM, BN, BK = self.tile
        thread, _, _ = cute.arch.thread_idx()
        m, n, _ = cute.arch.block_idx()
        allocator = SmemAllocator()
        shared_a = allocator.allocate_tensor(a.element_type, staged_a, 16)
        shared_b = allocator.allocate_tensor(b.element_type, staged_b, 16)
        mine = copy.get_slice(thread)
        from_a = mine.partition_S(cute.local_tile(a, (BM, BK), (m, None)))
        from_b = mine.partition_S(cute.local_tile(b, (BN, BK), (n, None)))
        to_a, to_b = mine.partition_D(shared_a), mine.partition_D(shared_b)
        inside_a = self.rows_inside(mine, a, (BM, BK), m)
        inside_b = self.rows_inside(mine, b, (BN, BK), n)
        tiles = a.shape[1] // BK

        for stage in cutlass.range_constexpr(self.stages - 1):
            here, there = (None, None, None, stage), (None, None, None, stage)
            cute.copy(copy, from_a[here], to_a[there], pred=inside_a)
            cute.copy(copy, from_b[here], to_b[there], pred=inside_b)
            cute.arch.cp_async_commit_group()

        slice_ = mma.get_slice(thread)
        part_c = slice_.partition_C(cute.local_tile(c, (BM, BN), (m, n)))
        part_a = mma.make_fragment_A(slice_.partition_A(shared_a[None, None, 0]))
        part_b = mma.make_fragment_B(slice_.partition_B(shared_b[None, None, 0]))
        sums = mma.make_fragment_C(part_c)
        sums.fill(0.0)
        load = cute.make_copy_atom(warp.LdMatrix8x8x16bOp(False, 4), a.element_type)
        load_a = cute.make_tiled_copy_A(load, mma)
        load_b = cute.make_tiled_copy_B(load, mma)
        source_a = load_a.get_slice(thread).partition_S(shared_a)
        source_b = load_b.get_slice(thread).partition_S(shared_b)
        target_a, target_b = load_a.retile(part_a), load_b.retile(part_b)

        for tile in range(tiles):
            cute.arch.cp_async_wait_group(self.stages - 2)
            cute.arch.sync_threads()
            ahead = tile + self.stages - 1
            if ahead < tiles:
                here = (None, None, None, ahead)
                there = (None, None, None, ahead % self.stages)
                cute.copy(copy, from_a[here], to_a[there], pred=inside_a)
                cute.copy(copy, from_b[here], to_b[there], pred=inside_b)
            cute.arch.cp_async_commit_group()
            stage = tile % self.stages
            for k in cutlass.range_constexpr(BK // 16):
                block = (None, None, k)
                cute.copy(load_a, source_a[(*block, stage)], target_a[block])
                cute.copy(load_b, source_b[(*block, stage)], target_b[block])
                cute.gemm(mma, sums, part_a[block], part_b[block], sums)

        corners = cute.local_tile(cute.make_identity_tensor(c.shape), (BM, BN), (m, n))
        places = slice_.partition_C(corners)
        for i in cutlass.range_constexpr(cute.size(sums)):
            if cute.elem_less(places[i], c.shape):
                part_c[i] = sums[i].to(c.element_type)

    @cute.jit
    def rows_inside(self, mine, matrix, tile: Constexpr, block):
        """For each row that this thread copies, whether the matrix has it."""
        whole = cute.make_identity_tensor(matrix.shape)
        places = mine.partition_S(cute.local_tile(whole, tile, (block, None)))
        _, rows, columns, _ = places.shape
        inside = cute.make_rmem_tensor(
            cute.make_layout((1, rows, columns), stride=(0, 1, 0)), cutlass.Boolean
        )
        for row in cutlass.range_constexpr(rows):
            inside[0, row, 0] = places[(0, 0), row, 0, 0][0] < matrix.shape[0]
        return inside


# --- Through shared memory, with a shape and a number as arguments --------------------


@cute.kernel
def transpose_kernel(
    x: cute.Tensor, out: cute.Tensor, rows: Int32, columns: Int32, TILE: Constexpr
):
    tx, ty, _ = cute.arch.thread_idx()
    bx, by, _ = cute.arch.block_idx()
    layout = cute.make_layout((TILE, TILE), stride=(TILE + 1, 1))
    tile = SmemAllocator().allocate_tensor(x.element_type, layout, 16)
    for step in cutlass.range_constexpr(0, TILE, 8):
        row, column = by * TILE + ty + step, bx * TILE + tx
        if row < rows and column < columns:
            tile[ty + step, tx] = x[row, column]
    cute.arch.sync_threads()
    for step in cutlass.range_constexpr(0, TILE, 8):
        row, column = bx * TILE + ty + step, by * TILE + tx
        if row < columns and column < rows:
            out[row, column] = tile[tx, ty + step]


@cute.jit
def transpose_jit(
    x: cute.Tensor, shape: cute.Shape, rows: Int32, out: cute.Tensor, TILE: Constexpr
):
    blocks = (cute.ceil_div(shape[1], TILE), cute.ceil_div(rows, TILE), 1)
    transpose_kernel(x, out, rows, shape[1], TILE).launch(
        grid=blocks, block=(TILE, 8, 1)
    )


def launch_transpose(x, out, TILE=32):
    x_, out_ = from_dlpack(x), from_dlpack(out)
    transpose_jit(x_, tuple(x.shape), Int32(x.shape[0]), out_, TILE)


# --- Two outputs, of different types --------------------------------------------------


@cute.kernel
def min_max_kernel(low: cute.Tensor, x: cute.Tensor, high: cute.Tensor):
    i = thread_index()
    if i < cute.size(x):
        value = x[i].to(Float32)
        low[i] = cute.arch.fmin(value, Float32(0.0))
        high[i] = cute.arch.fmax(value, Float32(0.0)).to(high.element_type)


@cute.jit
def launch_min_max(x: cute.Tensor, low: cute.Tensor, high: cute.Tensor):
    blocks = cute.ceil_div(math.prod(x.shape), 256)
    min_max_kernel(flattened(low), flattened(x), flattened(high)).launch(
        grid=(blocks, 1, 1), block=(256, 1, 1)
    )


# --- Arguments of every kind ----------------------------------------------------------


@cute.kernel
def scalars_kernel(
    n: cutlass.Int64,
    x: cute.Tensor,
    shape: cute.Shape,
    factor: Float32,
    is_long: cutlass.Boolean,
    out: cute.Tensor,
    rows: cutlass.Int16,
    is_even: cutlass.Boolean,
):
    i = thread_index()
    if i < n:
        value = x[i] * factor
        if is_long and rows > 20:
            value += Float32(1.0)
        if is_even:
            value += Float32(shape[0][0] * shape[1])
        out[i] = value


@cute.jit
def scalars_jit(
    n: Int32,
    x: cute.Tensor,
    shape: cute.Shape,
    factor: Float32,
    out: cute.Tensor,
    is_even: cutlass.Boolean,
    stream,
    width: Constexpr = 64,
):
    rows = x.shape[0]
    scalars_kernel(
        cutlass.Int64(n),
        flattened(x),
        shape,
        factor,
        rows > 20,
        flattened(out),
        cutlass.Int16(rows),
        is_even,
    ).launch(grid=(cute.ceil_div(n, width), 1, 1), block=(width, 1, 1), stream=stream)


def launch_scalars(x, out, factor=0.1):
    n, rows = x.numel(), x.shape[0]
    stream = CUstream(torch.cuda.current_stream().cuda_stream)
    scalars_jit(
        n,
        from_dlpack(x).mark_compact_shape_dynamic(mode=0),
        ((rows, 3), x.shape[1]),
        factor,
        from_dlpack(out).mark_compact_shape_dynamic(mode=0),
        n % 2 == 0,
        stream,
    )


# --- More than a plain launch gives ---------------------------------------------------


@cute.kernel
def large_shared_kernel(x: cute.Tensor, out: cute.Tensor, COUNT: Constexpr):
    """By way of the last elements of more than 48 KiB of shared memory."""
    i = thread_index()
    thread, _, _ = cute.arch.thread_idx()
    width, _, _ = cute.arch.block_dim()
    layout = cute.make_layout(COUNT)
    memory = SmemAllocator().allocate_tensor(Float32, layout, 1024)
    mine = COUNT - width + thread
    if i < cute.size(x):
        memory[mine] = x[i].to(Float32)
    cute.arch.sync_threads()
    if i < cute.size(x):
        out[i] = (memory[mine] * 2.0).to(out.element_type)


@cute.jit
def launch_large_shared(x: cute.Tensor, out: cute.Tensor, KIB: Constexpr = 64):
    large_shared_kernel(flattened(x), flattened(out), KIB * 256).launch(
        grid=(cute.ceil_div(math.prod(x.shape), 256), 1, 1),
        block=(256, 1, 1),
        smem=KIB * 1024,
    )


@cute.kernel
def clustered_kernel(x: cute.Tensor, out: cute.Tensor):
    """Right only in clusters, whose size is a factor."""
    i = thread_index()
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    if i < cute.size(x):
        factor = cute.arch.cluster_size().to(Float32)
        out[i] = (x[i].to(Float32) * factor).to(out.element_type)


@cute.jit
def launch_clustered(x: cute.Tensor, out: cute.Tensor, SIZE: Constexpr = 2):
    clusters = cute.ceil_div(math.prod(x.shape), 256 * SIZE)
    clustered_kernel(flattened(x), flattened(out)).launch(
        grid=(clusters * SIZE, 1, 1), block=(256, 1, 1), cluster=(SIZE, 1, 1)
    )


# --- Tensor maps ----------------------------------------------------------------------


def row_major(tile, swizzle=0):
    """The layout of a tile in shared memory."""
    layout = cute.make_ordered_layout(tile, order=tuple(reversed(range(len(tile)))))
    if swizzle:
        layout = cute.make_composed_layout(cute.make_swizzle(swizzle, 4, 3), 0, layout)
    return layout


@cute.kernel
def tma_copy_kernel(
    load: cute.CopyAtom,
    x: cute.Tensor,
    store: cute.CopyAtom,
    out: cute.Tensor,
    kind: Constexpr,
    tile: Constexpr,
    swizzle: Constexpr,
):
    """A tile a block, into shared memory and out of it again, without registers."""
    rank = len(tile)
    allocator = SmemAllocator()
    shared = allocator.allocate_tensor(kind, row_major(tile, swizzle), 1024)
    barrier = allocator.allocate_array(cutlass.Int64, 1)
    thread, _, _ = cute.arch.thread_idx()
    block = cute.arch.block_idx()
    where = (*(0,) * (rank - 3), *reversed(block[: min(rank, 3)]))
    if thread == 0:
        cute.arch.mbarrier_init(barrier, 1)
    cute.arch.mbarrier_init_fence()
    cute.arch.sync_threads()
    one = cute.make_layout(1)
    whole = cute.group_modes(shared, 0, rank)
    from_x = cute.group_modes(cute.local_tile(x, tile, where), 0, rank)
    to_out = cute.group_modes(cute.local_tile(out, tile, where), 0, rank)
    loaded, source = cpasync.tma_partition(load, 0, one, whole, from_x)
    stored, target = cpasync.tma_partition(store, 0, one, whole, to_out)
    with cute.arch.elect_one():
        size = cute.size(tile) * kind.width // 8
        cute.arch.mbarrier_arrive_and_expect_tx(barrier, size)
    cute.copy(load, source, loaded, tma_bar_ptr=barrier)
    cute.arch.mbarrier_wait(barrier, 0)
    cute.copy(store, stored, target)
    cute.arch.cp_async_bulk_commit_group()
    cute.arch.cp_async_bulk_wait_group(0)


@cute.jit
def launch_tma_copy(
    x: cute.Tensor,
    out: cute.Tensor,
    TILE: Constexpr = (16, 16),
    SWIZZLE: Constexpr = 0,
):
    layout = row_major(TILE, SWIZZLE)
    loading, storing = (
        cpasync.CopyBulkTensorTileG2SOp(),
        cpasync.CopyBulkTensorTileS2GOp(),
    )
    load = cpasync.make_tiled_tma_atom(loading, x, layout, TILE)
    store = cpasync.make_tiled_tma_atom(storing, out, layout, TILE)
    tiles = [cute.ceil_div(n, t) for n, t in zip(x.shape, TILE, strict=True)]
    tma_copy_kernel(*load, *store, x.element_type, TILE, SWIZZLE).launch(
        grid=(*reversed([1, 1, *tiles][-3:]),), block=(32, 1, 1)
    )


@cute.kernel
def tma_groups_kernel(
    load: cute.CopyAtom,
    whole_x: cute.Tensor,
    store: cute.CopyAtom,
    whole_out: cute.Tensor,
    x: cute.Tensor,
    out: cute.Tensor,
    maps: cute.Tensor,
    tile: Constexpr,
    group: Constexpr,
):
    """Adds its number to each group of rows. A block changes the maps to its group's,
    which end where that ends; the last tile of a group is only a part of one."""
    allocator = SmemAllocator()
    kind = x.element_type
    shared = allocator.allocate_tensor(kind, row_major(tile), 1024)
    barrier = allocator.allocate_array(cutlass.Int64, 1)
    thread, _, _ = cute.arch.thread_idx()
    column, row, number = cute.arch.block_idx()
    across, down, _ = cute.arch.grid_dim()
    block = (number * down + row) * across + column
    manager = TensorMapManager(TensorMapUpdateMode.GMEM, 128)
    mine = [manager.get_tensormap_ptr(maps[block, i, None].iterator) for i in (0, 1)]
    manager.init_tensormap_from_atom(load, mine[0], 0)
    manager.init_tensormap_from_atom(store, mine[1], 0)
    manager.fence_tensormap_initialization()
    if thread == 0:
        cute.arch.mbarrier_init(barrier, 1)
    cute.arch.mbarrier_init_fence()
    cute.arch.sync_threads()
    rows, columns = x.shape
    first = number * group
    count = cutlass.min(rows - first, group)
    if row * tile[0] < count:
        layout = cute.make_layout((count, columns), stride=(columns, 1))
        groups = [
            cute.make_tensor(
                cute.make_ptr(
                    kind,
                    (t.iterator + first * columns).toint(),
                    cute.AddressSpace.gmem,
                    assumed_align=16,
                ),
                layout,
            )
            for t in (x, out)
        ]
        manager.update_tensormap(groups, (load, store), mine, 0, (None, None))
        manager.fence_tensormap_update(mine[0])
        manager.fence_tensormap_update(mine[1])
        one, there = cute.make_layout(1), (row, column)
        tiled = cute.group_modes(shared, 0, 2)
        from_x = cute.group_modes(cute.local_tile(whole_x, tile, there), 0, 2)
        to_out = cute.group_modes(cute.local_tile(whole_out, tile, there), 0, 2)
        loaded, source = cpasync.tma_partition(load, 0, one, tiled, from_x)
        kept, target = cpasync.tma_partition(store, 0, one, tiled, to_out)
        generic = cute.AddressSpace.generic
        if thread < WARP:
            with cute.arch.elect_one():
                size = cute.size(tile) * kind.width // 8
                cute.arch.mbarrier_arrive_and_expect_tx(barrier, size)
            cute.copy(
                load,
                source,
                loaded,
                tma_bar_ptr=barrier,
                tma_desc_ptr=manager.get_tensormap_ptr(mine[0], generic),
            )
        cute.arch.mbarrier_wait(barrier, 0)
        for i in range(thread, cute.size(tile), 2 * WARP):
            at = (i // tile[1], i % tile[1])
            shared[at] = (shared[at].to(Float32) + number.to(Float32)).to(kind)
        cute.arch.fence_proxy("async.shared", space="cta")
        cute.arch.sync_threads()
        if thread < WARP:
            cute.copy(
                store,
                kept,
                target,
                tma_desc_ptr=manager.get_tensormap_ptr(mine[1], generic),
            )
            cute.arch.cp_async_bulk_commit_group()
            cute.arch.cp_async_bulk_wait_group(0)


@cute.jit
def tma_groups_jit(
    x: cute.Tensor,
    out: cute.Tensor,
    maps: cute.Tensor,
    TILE: Constexpr,
    GROUP: Constexpr,
):
    layout = row_major(TILE)
    loading, storing = (
        cpasync.CopyBulkTensorTileG2SOp(),
        cpasync.CopyBulkTensorTileS2GOp(),
    )
    load = cpasync.make_tiled_tma_atom(loading, x, layout, TILE)
    store = cpasync.make_tiled_tma_atom(storing, out, layout, TILE)
    tma_groups_kernel(*load, *store, x, out, maps, TILE, GROUP).launch(
        grid=(
            cute.ceil_div(x.shape[1], TILE[1]),
            -(-GROUP // TILE[0]),
            cute.ceil_div(x.shape[0], GROUP),
        ),
        block=(2 * WARP, 1, 1),
    )


def launch_tma_groups(x, out, TILE=(16, 64), GROUP=20):
    """A kernel that changes its maps while it runs, in memory of the launch."""
    down = (x.shape[0] + GROUP - 1) // GROUP * -(-GROUP // TILE[0])
    blocks = down * ((x.shape[1] + TILE[1] - 1) // TILE[1])
    maps = x.new_empty(blocks, 2, 16, dtype=torch.int64)
    tma_groups_jit(*map(from_dlpack, (x, out, maps)), TILE, GROUP)


class TmaGemm:
    """``c = a @ b.T`` of row-major matrices of any size, on Hopper's tensor cores.

    A block computes tiles of ``c``, one after the other where the blocks are fewer; it
    loads and stores all of them with tensor maps.

    Args:
        cluster: blocks of one.
        blocks: at most so many; None for one a tile.
    """

    def __init__(self, tile=(64, 64, 64), cluster=1, blocks=None):
        self.tile, self.cluster, self.blocks = tile, cluster, blocks

    @cute.jit
    def __call__(
        self, a: cute.Tensor, b: cute.Tensor, c: cute.Tensor, stream: CUstream
    ):
        BM, BN, BK = self.tile
        kind, rows = a.element_type, LayoutEnum.ROW_MAJOR
        major = rows.sm90_mma_major_mode()
        staged_a = hopper_helpers.make_smem_layout_a(rows, self.tile, kind, 1)
        staged_b = hopper_helpers.make_smem_layout_b(rows, self.tile, kind, 1)
        mma = hopper_helpers.make_trivial_tiled_mma(
            kind, kind, major, major, Float32, (1, 1, 1), (64, BN)
        )
        load, store = (
            cpasync.CopyBulkTensorTileG2SOp(),
            cpasync.CopyBulkTensorTileS2GOp(),
        )
        one = (None, None, 0)
        load_a = cpasync.make_tiled_tma_atom(
            load, a, cute.slice_(staged_a, one), (BM, BK)
        )
        load_b = cpasync.make_tiled_tma_atom(
            load, b, cute.slice_(staged_b, one), (BN, BK)
        )
        store_c = cpasync.make_tiled_tma_atom(store, c, row_major((BM, BN)), (BM, BN))
        down, across = cute.ceil_div(c.shape[0], BM), cute.ceil_div(c.shape[1], BN)
        blocks = cute.round_up(down * across, self.cluster)
        if cutlass.const_expr(self.blocks is not None):
            blocks = cutlass.min(blocks, self.blocks)
        width = cute.fast_divmod_create_divisor_v2(across)
        self.kernel(
            *(*load_a, *load_b, *store_c),
            *(mma, staged_a, staged_b, width, down * across, kind),
        ).launch(
            grid=(blocks, 1, 1),
            block=(128, 1, 1),
            cluster=(self.cluster, 1, 1),
            stream=stream,
        )

    @cute.kernel
    def kernel(
        self,
        load_a: cute.CopyAtom,
        a: cute.Tensor,
        load_b: cute.CopyAtom,
        b: cute.Tensor,
        store: cute.CopyAtom,
        c: cute.Tensor,
        mma: cute.TiledMma,
        staged_a: cute.ComposedLayout,
        staged_b: cute.ComposedLayout,
        width: cute.FastDivmodDivisorV2,
        tiles: Int32,
        kind: Constexpr,
    ):
        BM, BN, BK = self.tile
        thread, _, _ = cute.arch.thread_idx()
        block, _, _ = cute.arch.block_idx()
        blocks, _, _ = cute.arch.grid_dim()
        allocator = SmemAllocator()
        shared_a, shared_b = (
            allocator.allocate_tensor(kind, s.outer, 1024, swizzle=s.inner)
            for s in (staged_a, staged_b)
        )
        shared_c = allocator.allocate_tensor(kind, row_major((BM, BN)), 1024)
        barrier = allocator.allocate_array(cutlass.Int64, 1)
        if thread == 0:
            cute.arch.mbarrier_init(barrier, 1)
        cute.arch.mbarrier_init_fence()
        cute.arch.sync_threads()
        one = cute.make_layout(1)
        grouped = [cute.group_modes(s, 0, 2) for s in (shared_a, shared_b, shared_c)]
        mine = mma.get_slice(thread)
        part_a = mma.make_fragment_A(mine.partition_A(shared_a))
        part_b = mma.make_fragment_B(mine.partition_B(shared_b))
        part_c = mine.partition_C(shared_c)
        sums = mma.make_fragment_C(part_c.shape)
        phase = Int32(0)
        for tile in range(block, tiles, blocks):
            m, n = divmod(tile, width)
            tiled = [
                cute.group_modes(cute.local_tile(a, (BM, BK), (m, None)), 0, 2),
                cute.group_modes(cute.local_tile(b, (BN, BK), (n, None)), 0, 2),
                cute.group_modes(cute.local_tile(c, (BM, BN), (m, n)), 0, 2),
            ]
            to_a, from_a = cpasync.tma_partition(load_a, 0, one, grouped[0], tiled[0])
            to_b, from_b = cpasync.tma_partition(load_b, 0, one, grouped[1], tiled[1])
            kept, target = cpasync.tma_partition(store, 0, one, grouped[2], tiled[2])
            mma.set(warpgroup.Field.ACCUMULATE, False)
            for step in range(cute.ceil_div(a.shape[1], BK)):
                if thread < WARP:
                    with cute.arch.elect_one():
                        size = (BM + BN) * BK * kind.width // 8
                        cute.arch.mbarrier_arrive_and_expect_tx(barrier, size)
                    cute.copy(
                        load_a, from_a[None, step], to_a[None, 0], tma_bar_ptr=barrier
                    )
                    cute.copy(
                        load_b, from_b[None, step], to_b[None, 0], tma_bar_ptr=barrier
                    )
                cute.arch.mbarrier_wait(barrier, phase)
                phase = phase ^ 1
                warpgroup.fence()
                for k in cutlass.range_constexpr(cute.size(part_a, mode=[2])):
                    here = (None, None, k, 0)
                    cute.gemm(mma, sums, part_a[here], part_b[here], sums)
                    mma.set(warpgroup.Field.ACCUMULATE, True)
                warpgroup.commit_group()
                warpgroup.wait_group(0)
                cute.arch.sync_threads()
            for i in cutlass.range_constexpr(cute.size(sums)):
                part_c[i] = sums[i].to(kind)
            cute.arch.fence_proxy("async.shared", space="cta")
            cute.arch.sync_threads()
            if thread < WARP:
                cute.copy(store, kept, target)
                cute.arch.cp_async_bulk_commit_group()
                cute.arch.cp_async_bulk_wait_group(0, read=True)
            cute.arch.sync_threads()
        cute.arch.cp_async_bulk_wait_group(0)


def launch_tma_gemm(a, b, c, CLUSTER=1, BLOCKS=None):
    """The last dimension of `a` and `b` is split in two, whatever their rows."""
    stream = CUstream(torch.cuda.current_stream().cuda_stream)
    matrices = [from_dlpack(matrix.flatten(1)) for matrix in (a, b, c)]
    TmaGemm(cluster=CLUSTER, blocks=BLOCKS)(*matrices, stream)


BLOCKS = [{"BLOCK": 128}, {"BLOCK": 512}]
THREADS = [{"THREADS": 64}, {"THREADS": 256}]

CUTEDSL_CASES = [
    Case(
        "cute_silu",
        tta.cutedsl(launch_silu, BLOCKS),
        lambda x: torch.empty_like(x),
        (info(ROWS, 3, 100, dtype=torch.bfloat16),),
    ),
    Case(
        "cute_hadamard",
        tta.cutedsl(launch_hadamard, BLOCKS),
        lambda x, y: torch.empty_like(x),
        (info(ROWS, 30), info(ROWS, 30)),
    ),
    Case(
        "cute_add",
        tta.cutedsl(launch_add),
        lambda x, y: torch.empty_like(x),
        (info(ROWS, Range(1, 100, 777)), info(ROWS, Range(1, 100, 777))),
    ),
    Case(
        "cute_wide_add",
        tta.cutedsl(launch_wide_add, BLOCKS),
        lambda x, y: torch.empty_like(x),
        (info(ROWS, 4096), info(ROWS, 4096)),
    ),
    Case(
        "cute_rms_norm",
        tta.cutedsl(launch_rms_norm, THREADS, eps=1e-6),
        lambda x, weight: torch.empty_like(x),
        (info(ROWS, 512, dtype=torch.bfloat16), info(512, dtype=torch.bfloat16)),
    ),
    Case(
        "cute_softmax",
        tta.cutedsl(launch_softmax, THREADS),
        lambda x: torch.empty_like(x),
        (info(ROWS, Range(1, 100, 1000)),),
    ),
    Case(
        "cute_matmul",
        tta.cutedsl(Gemm()),
        lambda a, b: a.new_empty(a.shape[0], b.shape[0]),
        (info(Range(1, 64, 300), 256), info(136, 256)),
    ),
    Case(
        "cute_transpose",
        tta.cutedsl(launch_transpose, [{"TILE": 32}, {"TILE": 16}]),
        lambda x: x.new_empty(x.shape[1], x.shape[0]),
        (info(ROWS, Range(1, 48, 333), dtype=torch.float32),),
    ),
    Case(
        "cute_min_max",
        tta.cutedsl(launch_min_max),
        lambda x: (torch.empty_like(x, dtype=torch.float32), torch.empty_like(x)),
        (info(ROWS, 3, 7),),
        outputs=2,
    ),
    Case(
        "cute_scalars",
        tta.cutedsl(launch_scalars, factor=0.1),
        lambda x: torch.empty_like(x),
        (info(ROWS, 25, dtype=torch.float32),),
    ),
]
LARGE_CASES = [  # for Hopper and newer alone, as are those below
    Case(
        "cute_large_shared",
        tta.cutedsl(launch_large_shared, [{"KIB": 64}, {"KIB": 227}]),
        lambda x: torch.empty_like(x),
        (info(ROWS, 100),),
    ),
    Case(
        "cute_clustered",
        tta.cutedsl(launch_clustered),
        lambda x: torch.empty_like(x),
        (info(ROWS, 100),),
    ),
]
TMA_CASES = [
    Case(
        "cute_tma_copy",
        tta.cutedsl(launch_tma_copy, [{"TILE": (8, 2, 8)}]),
        lambda x: torch.empty_like(x),
        (info(ROWS, Range(1, 4, 9), 24),),
    ),
    Case(
        "cute_tma_gemm",
        tta.cutedsl(launch_tma_gemm, [{"BLOCKS": None}, {"CLUSTER": 2}, {"BLOCKS": 6}]),
        lambda a, b: a.new_empty(a.shape[0], b.shape[0] // 8, 8),
        (
            info(Range(1, 64, 300), Range(1, 4, 40), 8),
            info(136, Range(1, 4, 40), 8),
        ),
    ),
    Case(
        "cute_tma_groups",
        tta.cutedsl(launch_tma_groups),
        lambda x: torch.empty_like(x),
        (info(Range(1, 100, 300), 136),),
    ),
]
HARDWARE_CASES = [*LARGE_CASES, *TMA_CASES]
