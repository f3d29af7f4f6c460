# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL's matrix products with tensor maps, as TensorRT would launch them.

    python benchmarks/hardware_cutedsl.py compile DIR [--cutlass EXAMPLES]
    python benchmarks/hardware_cutedsl.py run DIR [--json FILE]

The first step needs CuTe DSL and no GPU. EXAMPLES is the folder examples/python/CuTeDSL
of CUTLASS, whose Hopper kernels are the fast ones; without it, the tests' small one is
compiled alone. The second step needs a Hopper GPU and no CuTe DSL, which may be on
another machine. Each kernel is compared, bit by bit, with a launch of CuTe DSL's own
PTX, with its attributes and with maps that the CUDA driver makes, and the maps that the
entry makes with the driver's. Times are beside that launch and cuBLAS.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import gzip
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import Contest, environment, finish
from hardware import (
    OWN,
    Figures,
    interleaved,
    largest_error,
    result,
    same_bits,
)

from torch_tensorrt.annotation._dry_run.execute import load

TARGET = "sm_90,cuda=13.0,sm_count=132"
MAP = 128  # bytes
SIZES = (4096, 8192)
SHAPES = [(1, 1, 1), (7, 3, 5), (129, 33, 9), (1001, 127, 65), (4111, 513, 513)]
MOST_ROWS, MOST_UNITS = 4112, 514  # a unit is eight elements, of N and K
TOLERANCE = 0.02
Dims = Sequence[Sequence[int]]


# --- Compiled -------------------------------------------------------------------------


def kernels(examples: Path | None) -> Iterator[tuple[str, Callable[..., None]]]:
    """Names, and functions of three torch matrices and a stream that launch."""
    from cutedsl_kernels import TmaGemm
    from cutlass import Float32
    from cutlass.cute.runtime import from_dlpack

    small = TmaGemm(cluster=2, blocks=132)
    yield "the tests' kernel", lambda *m, stream: small(*map(from_dlpack, m), stream)
    if examples is None:
        return
    plain = example(examples / "cute/hopper/kernel/dense_gemm/dense_gemm.py")
    more = example(examples / "cute/hopper/kernel/dense_gemm/dense_gemm_persistent.py")

    def as_batch(kernel: Callable[..., None], *most: int) -> Callable[..., None]:
        def launch(*matrices: torch.Tensor, stream: Any) -> None:
            kernel(*(from_dlpack(m.unsqueeze(2)) for m in matrices), *most, stream)

        return launch

    for rows, columns, cluster in ((128, 128, 1), (128, 256, 1), (128, 256, 2)):
        tile, shape = (rows, columns), (cluster, 1)
        name = f"CUTLASS's, {rows}x{columns}{', clusters of 2' * (cluster == 2)}"
        yield name, as_batch(plain.HopperWgmmaGemmKernel(Float32, tile, shape))
        if columns == 256:
            persistent = more.HopperWgmmaGemmPersistentKernel
            kernel = persistent(Float32, tile, shape, 1, True)
            yield f"{name}, persistent", as_batch(kernel, 132 // cluster)


def example(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"cutlass_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def launching(kernel: Callable[..., None]) -> Callable[..., None]:
    """The launch function: ``c = a @ b.T``, of tensors whose rows are split."""
    from cuda.bindings.driver import CUstream

    def launch(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        matrices = a.flatten(1), b.flatten(2).flatten(0, 1), c.flatten(1)
        stream = CUstream(torch.cuda.current_stream().cuda_stream)
        kernel(*matrices, stream=stream)

    return launch


def meta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[0], 8)


def profiles() -> Iterator[tuple[str, Sequence[Any], list[Dims]]]:
    """What is compiled for: a name, the inputs, and the shapes that are run."""
    from torch_tensorrt.annotation._tensors import Range, TensorInfo

    def info(*extents: Any) -> TensorInfo:
        return TensorInfo(extents, torch.float16)

    for size in SIZES:
        shape = dims(size, size // 8, size // 8)
        yield str(size), [info(*extents) for extents in shape], [shape]
    rows, units = Range(1, 1000, MOST_ROWS), Range(1, 64, MOST_UNITS)
    inputs = info(rows, units, 8), info(units, 8, units, 8)
    yield "dynamic", inputs, [dims(*shape) for shape in SHAPES]


def dims(m: int, n: int, k: int) -> Dims:
    return [[m, k, 8], [n, 8, k, 8]]


def compile_all(folder: Path, examples: Path | None) -> None:
    from compiled_elsewhere import SUFFIX, as_inputs, compile_op

    import torch_tensorrt.annotation as tta

    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, kernel) in enumerate(kernels(examples)):
        launch = launching(kernel)
        for profile, inputs, shapes in profiles():
            path = folder / f"{number}.{profile}{SUFFIX}"
            plugin = tta.custom_plugin(tta.cutedsl(launch), meta)
            report = compile_op(path, plugin, as_inputs(inputs), TARGET)
            (tactic,) = report.tactics
            code, launches = own_launches(launch, inputs, shapes)
            for one in launches if tactic.error is None else []:
                ours = tactic.at(*map(tuple, one["dims"]))
                fields = ("grid", "block", "extras", "shared_memory", "hidden")
                one["ours"] = {name: getattr(ours, name) for name in fields}
            own = {"name": name, "code": code, "launches": launches}
            data = json.dumps(own).encode()
            path.with_name(f"{number}.{profile}.own").write_bytes(gzip.compress(data))
            said = tactic.error or f"{tactic.registers} registers"
            print(f"{name}, {profile}: {said}", flush=True)


def own_launches(
    launch: Callable[..., None], inputs: Sequence[Any], shapes: Sequence[Dims]
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

    program = recorded(launch, *inputs, meta=meta)
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
    """A parameter: the fields of a map, or integers by offset and size."""
    import sympy

    from torch_tensorrt.annotation.backends.cutedsl.host import Address
    from torch_tensorrt.annotation.backends.cutedsl.tensor_maps import read
    from torch_tensorrt.annotation.backends.cutedsl.words import Word

    if isinstance(cells[0].value, Word):
        packed = read(cells, {})
        slot: Any = packed.address.object
        return {
            "tensor": f"{slot.kind.value} {slot.index}",
            "extents": [int(extent) for extent in packed.extents],
            "strides": [16 * int(units) for units in packed.strides],
            "box": packed.box,
            "type": packed.element_type,
            "swizzle": packed.swizzle,
        }
    assert not any(isinstance(cell.value, Address) for cell in cells.values())
    known = (each for each in cells.items() if isinstance(each[1].value, sympy.Basic))
    return [[at, cell.size, int(cell.value)] for at, cell in known]


# --- Its own launch -------------------------------------------------------------------

_driver: Any = None
_DRIVER_TYPES = {6: 6}  # from `.elemtype` to CUtensorMapDataType, of float16


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
                    number = value % 256**size
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


def run_all(folder: Path, figures: Figures) -> None:
    from compiled_elsewhere import SUFFIX, read

    paths = sorted(folder.glob("*.own"))
    if not paths:
        raise SystemExit(f"{folder} holds no kernels: compile them first.")
    by_work: dict[int, dict[str, Any]] = {}
    for path in paths:
        own = json.loads(gzip.decompress(path.read_bytes()))
        (tactic,) = read(path.with_suffix(SUFFIX)).tactics
        for how in own["launches"]:
            what = f"{own['name']}, {how['dims']}"
            try:
                row, launches = compare(own, how, tactic)
            except Exception as error:  # the others are worth having
                figures.note(what, error)
                continue
            if not row["bit_equal"] or not row["same_maps"]:
                figures.failed[what] = f"not the bits, or the maps, of {OWN}"
            if row["max_error"] > TOLERANCE:
                figures.failed[what] = f"{row['max_error']} from the reference"
            if path.stem.endswith("dynamic"):
                figures.dynamic.append(row)
            else:
                size = how["dims"][0][0]
                by_work.setdefault(size, {})[own["name"]] = row, launches
    for size, found in sorted(by_work.items()):
        timed(size, found, figures)


def compare(own: Any, how: Any, tactic: Any) -> tuple[dict[str, Any], Any]:
    """A row of figures, and both launches."""
    torch.manual_seed(0)
    a, b = (torch.randn(*d, device="cuda").half() for d in how["dims"])
    out, x, y = meta(a, b), a.flatten(1), b.flatten(2).flatten(0, 1)
    shape = SimpleNamespace(**how["ours"])
    hidden = [
        torch.full(extents, -1, dtype=torch.int32, device="cuda")
        for extents in shape.hidden
    ]
    kernel, inputs = load(tactic), [a.data_ptr(), b.data_ptr()]
    outputs = [tensor.data_ptr() for tensor in (out, *hidden)]

    def ours() -> None:
        kernel.launch(shape, inputs, outputs)

    tensors = {"input 0": a, "input 1": b, "output 0": out}
    its = OwnLaunch(own["code"], how, tensors)
    found, owns = result(ours, out), result(its, out)
    start = -hidden[0].data_ptr() % MAP
    end = start + MAP * len(its.maps)
    made = bytes(hidden[0].view(torch.uint8)[start:end].cpu().tolist())
    maps = [made[at : at + MAP // 2] for at in range(0, len(made), MAP)]
    m, n, k = x.shape[0], y.shape[0], x.shape[1]
    row = {
        "work": f"matmul fp16, {m} x {n} x {k}",
        "kernel": own["name"],
        "config": own["name"],
        "M, N, K": [m, n, k],
        "bit_equal": same_bits(found, owns),
        # What the driver keeps in the second half is its own.
        "same_maps": maps == [each[: MAP // 2] for each in its.maps],
        "max_error": largest_error(found.flatten(1), x.float() @ y.float().t()),
        "registers": tactic.registers,
        "shared_memory": tactic.shared_memory,
        "spills": tactic.spills,
    }
    return row, (ours, its, functools.partial(torch.mm, x, y.t(), out=found.flatten(1)))


def timed(size: int, found: Mapping[str, Any], figures: Figures) -> None:
    launches: dict[str, Any] = {}
    for name, (_, (ours, its, cublas)) in found.items():
        launches |= {name: ours, f"{name}, {OWN}": its, "cuBLAS": cublas}
    times = interleaved(launches)
    for name, (row, _) in found.items():
        row["us"], row["own_us"] = times[name], times[f"{name}, {OWN}"]
        figures.kernels.append(row)
        peers = {OWN: row["own_us"], "cuBLAS": times["cuBLAS"]}
        work, amount = f"{row['work']}: {name}", 2 * size**3
        contest = Contest(work, "TFLOP/s", amount, {name: row["us"]}, peers)
        figures.contests.append(contest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["compile", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cutlass", type=Path, help="examples/python/CuTeDSL of it")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    if options.step == "compile":
        compile_all(options.folder, options.cutlass)
        return
    from compiled_elsewhere import SUFFIX, compilers

    figures = Figures()
    first = next(iter(sorted(options.folder.glob(f"*{SUFFIX}"))), None)
    made = {} if first is None else {"compiled with": compilers(first)}
    run_all(options.folder, figures)
    versions = environment() | made
    if options.json is not None:
        figures.write(options.json, versions)
    finish(None, versions, figures.contests)
    figures.show()
    sys.exit(bool(figures.failed))


if __name__ == "__main__":
    main()
