# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL's matrix products and attention with tensor maps, as TensorRT launches them.

    python benchmarks/hardware_cutedsl.py compile DIR [--cutlass CHECKOUT]
    python benchmarks/hardware_cutedsl.py run DIR [--json FILE]

The first step needs CuTe DSL and no GPU. CHECKOUT is one of CUTLASS, whose examples for
Hopper are the fast kernels; without it, the tests' small ones are compiled alone. `make
kernels CUTLASS=CHECKOUT` does it, too. The second step needs a Hopper GPU and no CuTe
DSL, which may be on another machine. Each kernel is compared, bit by bit, with a launch
of CuTe DSL's own PTX, with its attributes and with maps that the CUDA driver makes, and
the maps that the entry makes with the driver's. Times are beside that launch, and
cuBLAS or torch's attention.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import gzip
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import Contest, environment
from hardware import (
    OWN,
    Figures,
    interleaved,
    largest_error,
    result,
    same_bits,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from torch_tensorrt.annotation._dry_run.execute import load

TARGET = "sm_90,cuda=13.0,sm_count=132"
MAP = 128  # bytes
TOLERANCE = 0.02  # of an error, relative to the element and the root mean square
FP16, FP8 = torch.float16, torch.float8_e4m3fn
EXAMPLES = "examples/python/CuTeDSL"  # of CUTLASS
DYNAMIC = "dynamic"  # the profile whose shapes are compared, and not timed
SMALL = "the tests' kernel"
Dims = Sequence[Sequence[int]]


# --- What is computed -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Work:
    """What several kernels compute, said without CuTe DSL.

    Attributes:
        title: what it is called at some extents.
        dtype: of the inputs.
        meta: makes the output.
        reference: the same by torch.
        peers: the same by others, which are timed.
        operations: floating-point operations at some extents.
    """

    title: Callable[[Dims], str]
    dtype: torch.dtype
    meta: Callable[..., torch.Tensor]
    reference: Callable[..., torch.Tensor]
    peers: Mapping[str, Callable[..., torch.Tensor]]
    operations: Callable[[Dims], int]


def sizes(dims: Dims) -> tuple[int, int, int]:
    """M, N and K of matrices whose rows are split into units of 16 bytes."""
    (m, units, unit), (n, wide, *_) = dims
    return m, n * wide, units * unit


def matrices(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return a.flatten(1), b.flatten(2).flatten(0, 1).t()


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.mm(*matrices(a, b))


@functools.cache
def one() -> torch.Tensor:
    """The scale of fp8 tensors, made before anything is timed."""
    return torch.ones((), device="cuda")


def fp8_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """cuBLAS's, which adds up as the tensor cores do: with fewer bits than fp32."""
    how: dict[str, Any] = {"out_dtype": FP16, "use_fast_accum": True}
    return torch._scaled_mm(*matrices(a, b), scale_a=one(), scale_b=one(), **how)


def batched_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.bmm(a, b.mT)


def numbered(x: torch.Tensor) -> torch.Tensor:
    return x + (torch.arange(x.shape[0], device=x.device) // 20).to(x.dtype)[:, None]


def attention(*tensors: torch.Tensor, causal: bool) -> torch.Tensor:
    of_heads = (tensor.transpose(1, 2) for tensor in tensors)
    return scaled_dot_product_attention(*of_heads, is_causal=causal).transpose(1, 2)


def cudnn_attention(*tensors: torch.Tensor, causal: bool) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return attention(*tensors, causal=causal)


def matmul(name: str, dtype: torch.dtype, cublas: Callable[..., torch.Tensor]) -> Work:
    return Work(
        lambda dims: f"matmul {name}, {' x '.join(map(str, sizes(dims)))}",
        dtype,
        lambda a, b: a.new_empty(a.shape[0], b.shape[0], b.shape[1], dtype=FP16),
        lambda a, b: product(a.float(), b.float()).unflatten(1, b.shape[:2]),
        {"cuBLAS": cublas},
        lambda dims: 2 * math.prod(sizes(dims)),
    )


def attending(causal: bool) -> Work:
    def torchs(*tensors: torch.Tensor) -> torch.Tensor:
        return attention(*tensors, causal=causal)

    return Work(
        lambda dims: f"attention fp16, {show(dims[0])}{', causal' * causal}",
        FP16,
        lambda q, k, v: torch.empty_like(q),
        torchs,
        {
            "torch's attention": torchs,
            "cuDNN's attention": functools.partial(cudnn_attention, causal=causal),
        },
        lambda dims: (2 if causal else 4) * math.prod(dims[0]) * dims[1][1],
    )


def show(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))


WORKS = {
    "matmul": matmul("fp16", FP16, product),
    "fp8 matmul": matmul("fp8", FP8, fp8_product),
    "batched matmul": Work(
        lambda dims: f"batched matmul fp16, {show(dims[0])} and {show(dims[1])}",
        FP16,
        lambda a, b: a.new_empty(a.shape[0], a.shape[1], b.shape[1]),
        batched_product,
        {"cuBLAS": batched_product},
        lambda dims: 2 * math.prod(dims[0]) * dims[1][1],
    ),
    "numbered groups": Work(
        lambda dims: f"numbers added to groups of 20 rows, {show(dims[0])}",
        FP16,
        lambda x: torch.empty_like(x),
        numbered,
        {},
        lambda dims: math.prod(dims[0]),
    ),
    "attention": attending(causal=False),
    "causal attention": attending(causal=True),
}


# --- Compiled -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a kernel is compiled for.

    Attributes:
        inputs: the extents of each; ranges where they are dynamic.
        shapes: the extents that it is run at.
    """

    name: str
    inputs: Sequence[Sequence[Any]]
    shapes: Sequence[Dims]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A launch function of torch tensors, and what it computes, of ``WORKS``."""

    name: str
    work: str
    launch: Callable[..., None]
    profiles: Sequence[Profile]


def kernels(examples: Path | None) -> Iterator[Kernel]:
    from cutedsl_kernels import TmaGemm, launch_tma_groups
    from cutlass import Float32
    from cutlass.cute.runtime import from_dlpack

    def of_matrices(kernel: Any, *most: Any, is_batch: bool = True) -> Any:
        def launch(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
            both = a.flatten(1), b.flatten(2).flatten(0, 1), c.flatten(1)
            passed = [m.unsqueeze(2) if is_batch else m for m in both]
            kernel(*map(from_dlpack, passed), *most, stream())

        return launch

    small = of_matrices(TmaGemm(cluster=2, blocks=132), is_batch=False)
    yield Kernel(SMALL, "matmul", small, products(8, 4096, 8192))
    changing = "the tests' kernel, which changes its maps"
    yield Kernel(changing, "numbered groups", launch_tma_groups, groups())
    if examples is None:
        return
    hopper = examples / "cute/hopper/kernel"
    plain = example(hopper / "dense_gemm/dense_gemm.py").HopperWgmmaGemmKernel
    module = example(hopper / "dense_gemm/dense_gemm_persistent.py")
    persistent = module.HopperWgmmaGemmPersistentKernel

    def batched(kernel: Any, *most: Any) -> Any:
        def launch(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
            passed = [from_dlpack(m.permute(1, 2, 0)) for m in (a, b, c)]
            kernel(*passed, *most, stream())

        return launch

    for rows, columns, cluster in ((128, 128, 1), (128, 256, 1), (128, 256, 2)):
        tile, shape = (rows, columns), (cluster, 1)
        name = f"CUTLASS's, {rows}x{columns}{', clusters of 2' * (cluster == 2)}"
        one_tile = plain(Float32, tile, shape)
        launch = of_matrices(one_tile)
        yield Kernel(name, "matmul", launch, products(8, 4096, 8192))
        if columns == 128:
            continue
        most = persistent(Float32, tile, shape, 1, True), 132 // cluster
        of_all = f"{name}, persistent"
        launch_all = of_matrices(*most)
        yield Kernel(of_all, "matmul", launch_all, products(8, 4096, 8192))
        if cluster == 1:
            yield Kernel(name, "fp8 matmul", launch, products(16, 8192))
            yield Kernel(name, "batched matmul", batched(one_tile), batches())
        else:
            yield Kernel(of_all, "fp8 matmul", launch_all, products(16, 8192)[:1])
            yield Kernel(of_all, "batched matmul", batched(*most), batches()[:1])
    sys.path.insert(0, str(examples))  # for the helpers that it imports
    fmha = example(hopper / "attention/fmha.py")
    for causal in (False, True):
        launch, profiles = attending_by(fmha, causal), sequences()[: 1 if causal else 2]
        work = "causal attention" if causal else "attention"
        yield Kernel("CUTLASS's, 64x128 a group", work, launch, profiles)


def stream() -> Any:
    from cuda.bindings.driver import CUstream

    return CUstream(torch.cuda.current_stream().cuda_stream)


def attending_by(fmha: Any, causal: bool) -> Callable[..., None]:
    """The launch function of CUTLASS's attention, whose heads are in the middle."""
    from cutlass import Float32, Int32
    from cutlass.cute.runtime import from_dlpack

    masks = fmha.fmha_utils.MaskEnum
    mask = masks.WINDOW_MASK if causal else masks.RESIDUAL_MASK
    make = fmha.HopperFusedMultiHeadAttentionForward
    kernel = make(Float32, Float32, (64, 128, 128), False, mask)

    def launch(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor
    ) -> None:
        scale, heads = 1 / math.sqrt(q.shape[3]), k.shape[2]
        sums = q.new_empty(*q.shape[:3], 1, dtype=torch.float32)

        def grouped(tensor: torch.Tensor) -> Any:
            groups = tensor.unflatten(2, (heads, tensor.shape[2] // heads))
            return from_dlpack(groups.permute(1, 4, 3, 2, 0), assumed_align=16)

        kernel(
            *map(grouped, (q, k, v, out, sums)),
            *(scale * math.log2(math.e), scale, 1.0),
            *(None, Int32(0) if causal else None),
            stream(),
        )

    return launch


def example(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"cutlass_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def products(unit: int, *squares: int) -> list[Profile]:
    """Square matrices, and those of any size in units of so many elements."""
    from torch_tensorrt.annotation._tensors import Range

    def dims(m: Any, n: Any, k: Any) -> Any:
        return [[m, k, unit], [n, unit, k, unit]]

    shapes = (dims(size, size // unit, size // unit) for size in squares)
    fixed = [Profile(str(shape[0][0]), shape, [shape]) for shape in shapes]
    rows, units = Range(1, 1000, 4112), Range(1, 64, 514)
    some = [(1, 1, 1), (7, 3, 5), (129, 33, 9), (1001, 127, 65), (4111, 513, 513)]
    return [
        *fixed,
        Profile(DYNAMIC, dims(rows, units, units), [dims(*shape) for shape in some]),
    ]


def groups() -> list[Profile]:
    from torch_tensorrt.annotation._tensors import Range

    shapes = [[[rows, 136]] for rows in (1, 20, 99, 1000)]
    return [Profile(DYNAMIC, [[Range(1, 100, 1000), 136]], shapes)]


def batches() -> list[Profile]:
    """Batches of one size, and of any count, and rows of the first."""
    from torch_tensorrt.annotation._tensors import Range

    def dims(count: Any, rows: Any) -> Any:
        return [[count, rows, 1024], [count, 2048, 1024]]

    whole, some = dims(16, 2048), dims(Range(1, 4, 16), Range(1, 1000, 2048))
    shapes = [dims(*shape) for shape in ((1, 1), (3, 129), (16, 2047))]
    return [Profile("batch", whole, [whole]), Profile(DYNAMIC, some, shapes)]


def sequences() -> list[Profile]:
    """One long sequence, and some of any length."""
    from torch_tensorrt.annotation._tensors import Range

    def dims(count: Any, rows: Any) -> Any:
        return [[count, rows, 16, 128]] * 3

    whole, some = dims(1, 8192), dims(Range(1, 1, 4), Range(1, 1000, 8192))
    shapes = [dims(*shape) for shape in ((1, 1), (2, 77), (1, 1000), (3, 129))]
    return [Profile("long", whole, [whole]), Profile(DYNAMIC, some, shapes)]


def compile_all(folder: Path, examples: Path | None) -> None:
    from compiled_elsewhere import SUFFIX, as_inputs, compile_op

    import torch_tensorrt.annotation as tta
    from torch_tensorrt.annotation._tensors import TensorInfo

    folder.mkdir(parents=True, exist_ok=True)
    for number, kernel in enumerate(kernels(examples)):
        work = WORKS[kernel.work]
        for profile in kernel.profiles:
            path = folder / f"{number}.{profile.name}{SUFFIX}"
            plugin = tta.custom_plugin(tta.cutedsl(kernel.launch), work.meta)
            inputs = [TensorInfo(tuple(e), work.dtype) for e in profile.inputs]
            report = compile_op(path, plugin, as_inputs(inputs), TARGET)
            (tactic,) = report.tactics
            code, launches = own_launches(kernel, inputs, profile.shapes)
            for one in launches if tactic.error is None else []:
                ours = tactic.at(*map(tuple, one["dims"]))
                fields = ("grid", "block", "extras", "shared_memory", "hidden")
                one["ours"] = {name: getattr(ours, name) for name in fields}
            own = {"name": kernel.name, "work": kernel.work, "code": code}
            own |= {"profile": profile.name, "launches": launches}
            data = json.dumps(own).encode()
            name = f"{number}.{profile.name}.own"
            path.with_name(name).write_bytes(gzip.compress(data))
            said = tactic.error or f"{tactic.registers} registers"
            print(f"{kernel.name}, {kernel.work}, {profile.name}: {said}", flush=True)


def own_launches(
    kernel: Kernel, inputs: Sequence[Any], shapes: Sequence[Dims]
) -> tuple[str, list[dict[str, Any]]]:
    """CuTe DSL's own code, and what its host code passes to it at each shape."""
    import sympy
    from cutedsl_tools import recorded

    from torch_tensorrt.annotation._code.ptxas import find_ptxas
    from torch_tensorrt.annotation._target import Target
    from torch_tensorrt.annotation._tensors import symbol
    from torch_tensorrt.annotation.backends import Parameters
    from torch_tensorrt.annotation.backends.cutedsl.compiler import compile_launcher
    from torch_tensorrt.annotation.backends.cutedsl.host import execute

    program = recorded(kernel.launch, *inputs, meta=WORKS[kernel.work].meta)
    parameters = Parameters(program, aligned=True)
    target = Target("sm_90", cuda="13.0")
    host = compile_launcher(parameters, target, find_ptxas(), None)
    found = []
    for shape in shapes:
        rule = {
            symbol(tensor, axis): sympy.Integer(extent)
            for tensor, extents in enumerate(shape)
            for axis, extent in enumerate(extents)
        }
        arguments = [
            value.xreplace(rule) if isinstance(value, sympy.Basic) else value
            for value in host.arguments
        ]
        at_shape = dataclasses.replace(host, arguments=arguments)
        (one,) = execute(at_shape, {}, "the launcher")
        cluster = [int(word) for word in one.attributes.get(4, (1, 1, 1))]
        found.append(
            {
                "dims": shape,
                "entry": one.kernel,
                "grid": [int(size) for size in one.grid],
                "block": [int(size) for size in one.block],
                "shared_memory": int(one.shared_memory),
                "cluster": cluster,
                "parameters": list(map(as_json, one.parameters)),
            }
        )
    return host.code, found


def as_json(cells: Mapping[int, Any]) -> Any:
    """A parameter: the fields of a map, or what is where; a tensor is its name."""
    import sympy

    from torch_tensorrt.annotation.backends.cutedsl.host import Address
    from torch_tensorrt.annotation.backends.cutedsl.tensor_maps import read
    from torch_tensorrt.annotation.backends.cutedsl.words import Word

    if isinstance(cells[0].value, Word):
        packed = read(cells, {})
        return {
            "tensor": named(packed.address),
            "extents": [int(extent) for extent in packed.extents],
            "strides": [16 * int(units) for units in packed.strides],
            "box": packed.box,
            "type": packed.element_type,
            "swizzle": packed.swizzle,
        }
    return [
        [at, cell.size, named(cell.value)]
        for at, cell in cells.items()
        if isinstance(cell.value, sympy.Basic | Address)
    ]


def named(value: Any) -> int | str:
    """A number; of an address, the tensor that it is the start of."""
    from torch_tensorrt.annotation.backends.cutedsl.host import Address

    if not isinstance(value, Address):
        return int(value)
    slot: Any = value.object
    return f"{slot.kind.value} {slot.index}"


# --- Its own launch -------------------------------------------------------------------

_driver: Any = None
_DRIVER_TYPES = {0: 0, 6: 6}  # from `.elemtype` to CUtensorMapDataType: bytes, float16


def call(function: str, *arguments: Any) -> None:
    global _driver
    _driver = _driver or ctypes.CDLL("libcuda.so.1")
    if status := getattr(_driver, function)(*arguments):
        name = ctypes.c_char_p()
        _driver.cuGetErrorName(status, ctypes.byref(name))
        raise RuntimeError(f"{function}: {(name.value or b'').decode() or status}")


class _Attribute(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint),
        ("pad", ctypes.c_uint),
        ("value", ctypes.c_uint * 16),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


def aligned(size: int) -> tuple[Any, int]:
    """Memory, and the first multiple of 64 in it."""
    memory = ctypes.create_string_buffer(size + 64)
    return memory, -(-ctypes.addressof(memory) // 64) * 64


def driver_map(fields: Mapping[str, Any], address: int) -> bytes:
    """The map that the CUDA driver makes, without the hint to the L2 cache."""
    _memory, at = aligned(MAP)
    rank, u64, u32 = len(fields["box"]), ctypes.c_uint64, ctypes.c_uint32
    call(
        "cuTensorMapEncodeTiled",
        *(ctypes.c_void_p(at), _DRIVER_TYPES[fields["type"]], rank),
        ctypes.c_void_p(address),
        (u64 * rank)(*fields["extents"]),
        (u64 * max(rank - 1, 1))(*fields["strides"]),
        (u32 * rank)(*fields["box"]),
        (u32 * rank)(*[1] * rank),
        *(0, fields["swizzle"], 0, 0),
    )
    return ctypes.string_at(at, MAP)


class OwnLaunch:
    """A launch of CuTe DSL's PTX with attributes, and with the driver's maps."""

    def __init__(
        self, code: str, how: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        torch.cuda.current_stream().synchronize()
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(module), code.encode() + b"\0")
        entry = how["entry"].encode()
        call("cuModuleGetFunction", ctypes.byref(self._function), module, entry)
        most = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        call("cuFuncSetAttribute", self._function, most, how["shared_memory"])
        self.maps, passed = [], []
        for parameter in how["parameters"]:
            if isinstance(parameter, dict):
                address = tensors[parameter["tensor"]].data_ptr()
                data = driver_map(parameter, address)
                self.maps.append(data)
            else:
                end = max((at + size for at, size, _ in parameter), default=1)
                values = bytearray(end)
                for at, size, value in parameter:
                    number = (
                        tensors[value].data_ptr()
                        if isinstance(value, str)
                        else value % 256**size
                    )
                    values[at : at + size] = number.to_bytes(size, "little")
                data = bytes(values)
            passed.append(data)
        self._memory = [aligned(len(data)) for data in passed]
        for (_, at), data in zip(self._memory, passed, strict=True):
            ctypes.memmove(at, data, len(data))
        addresses = [at for _, at in self._memory]
        self._parameters = (ctypes.c_void_p * len(addresses))(*addresses)
        self._attributes = (_Attribute * 1)()
        self._attributes[0].id = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        self._attributes[0].value[:3] = how["cluster"]
        self._config = _Config(
            (ctypes.c_uint * 3)(*how["grid"]),
            (ctypes.c_uint * 3)(*how["block"]),
            how["shared_memory"],
            0,
            self._attributes,
            int(how["cluster"] != [1, 1, 1]),
        )

    def __call__(self) -> None:
        self._config.stream = torch.cuda.current_stream().cuda_stream
        config = ctypes.byref(self._config)
        call("cuLaunchKernelEx", config, self._function, self._parameters, None)


# --- Compared -------------------------------------------------------------------------


def run_all(folder: Path, figures: Figures) -> Iterator[str]:
    """Compare and time, work by work; what each was."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("*.own")):
        own = json.loads(gzip.decompress(path.read_bytes()))
        groups.setdefault((own["work"], own["profile"]), []).append(path)
    if not groups:
        raise SystemExit(f"{folder} holds no kernels: compile them first.")
    for (work, profile), paths in groups.items():
        found: dict[str, Any] = {}
        for path in paths:
            for row, launches in compare_all(path, figures):
                found[row["kernel"]] = row, launches
                if profile == DYNAMIC:
                    figures.dynamic.append(row)
        if profile != DYNAMIC:
            # Slow kernels let the GPU run the next ones at a higher clock.
            fast = {name: of for name, of in found.items() if name != SMALL}
            timed(fast, figures)
        yield f"{work}, {profile}"


def compare_all(path: Path, figures: Figures) -> Iterator[tuple[dict[str, Any], Any]]:
    """What :func:`compare` says of a compiled kernel at each of its shapes."""
    from compiled_elsewhere import SUFFIX, read

    own = json.loads(gzip.decompress(path.read_bytes()))
    (tactic,) = read(path.with_suffix(SUFFIX)).tactics
    for how in own["launches"]:
        what = f"{WORKS[own['work']].title(how['dims'])}, {own['name']}"
        try:
            row, launches = compare(own, how, tactic)
        except Exception as error:  # the others are worth having
            figures.note(what, error)
            continue
        if not row["bit_equal"] or not row["same_maps"]:
            figures.failed[what] = f"not the bits, or the maps, of {OWN}"
        if row["max_error"] > TOLERANCE:
            figures.failed[what] = f"{row['max_error']} from the reference"
        yield row, launches


def compare(own: Any, how: Any, tactic: Any) -> tuple[dict[str, Any], Any]:
    """A row of figures, and what is timed: our launch, its own, and the peers."""
    torch.manual_seed(0)
    work, dims = WORKS[own["work"]], how["dims"]
    inputs = [torch.randn(*d, device="cuda").to(work.dtype) for d in dims]
    out, shape = work.meta(*inputs), SimpleNamespace(**how["ours"])
    hidden = [
        torch.full(extents, -1, dtype=torch.int32, device="cuda")
        for extents in shape.hidden
    ]
    kernel, addresses = load(tactic), [tensor.data_ptr() for tensor in inputs]
    outputs = [tensor.data_ptr() for tensor in (out, *hidden)]

    def ours() -> None:
        kernel.launch(shape, addresses, outputs)

    tensors = {f"input {i}": tensor for i, tensor in enumerate(inputs)}
    buffers = (out, *map(torch.empty_like, hidden[:-1]))
    tensors |= {f"output {i}": tensor for i, tensor in enumerate(buffers)}
    its = OwnLaunch(own["code"], how, tensors)
    found, owns = result(ours, out), result(its, out)
    row = {
        "work": work.title(dims),
        "kernel": own["name"],
        "config": own["name"],
        "dims": dims,
        "operations": work.operations(dims),
        "bit_equal": same_bits(found, owns),
        "same_maps": made_maps(hidden[-1], len(its.maps))
        == [each[: MAP // 2] for each in its.maps],
        "max_error": largest_error(found, work.reference(*inputs)),
        "registers": tactic.registers,
        "shared_memory": tactic.shared_memory,
        "spills": tactic.spills,
    }
    peers = {
        name: functools.partial(peer, *inputs) for name, peer in work.peers.items()
    }
    return row, (ours, its, peers)


def made_maps(scratch: torch.Tensor, count: int) -> list[bytes]:
    """The first block's; the driver keeps things of its own in their second half."""
    start = -scratch.data_ptr() % MAP
    memory = scratch.view(torch.uint8)[start : start + MAP * count]
    made = bytes(memory.cpu().tolist())
    return [made[at : at + MAP // 2] for at in range(0, len(made), MAP)]


def timed(found: Mapping[str, Any], figures: Figures) -> None:
    launches: dict[str, Any] = {}
    for name, (_, (ours, its, peers)) in found.items():
        launches |= {name: ours, f"{name}, {OWN}": its, **peers}
    times = interleaved(launches)
    for name, (row, (_, _, peers)) in found.items():
        row["us"], row["own_us"] = times[name], times[f"{name}, {OWN}"]
        figures.kernels.append(row)
        others = {OWN: row["own_us"]} | {peer: times[peer] for peer in peers}
        work, amount = f"{row['work']}: {name}", row["operations"]
        contest = Contest(work, "TFLOP/s", amount, {name: row["us"]}, others)
        figures.contests.append(contest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["compile", "run"])
    parser.add_argument("folder", type=Path)
    cutlass = os.environ.get("CUTLASS") or None
    parser.add_argument("--cutlass", default=cutlass, help="a checkout: its examples")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    if options.step == "compile":
        examples = options.cutlass and Path(options.cutlass) / EXAMPLES
        compile_all(options.folder, examples)
        if examples is None:
            print("without CUTLASS's kernels: --cutlass, or make kernels CUTLASS=dir")
        return
    from compiled_elsewhere import SUFFIX, compilers

    figures = Figures()
    first = next(iter(sorted(options.folder.glob(f"*{SUFFIX}"))), None)
    made = {} if first is None else {"compiled with": compilers(first)}
    versions = environment() | made
    for what in run_all(options.folder, figures):
        print(what, flush=True)
        if options.json is not None:  # a later one may end the process
            figures.write(options.json, versions)
    figures.end(versions)


if __name__ == "__main__":
    main()
