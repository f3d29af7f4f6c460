"""cuTile kernels: launches caught at ``ct.launch``, compiled for any GPU."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_tensorrt.annotation import _ptx
from torch_tensorrt.annotation._cubin import PLACEHOLDER
from torch_tensorrt.annotation._launch import Launch, LaunchRecord
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import CompiledKernel, Toolchain
from torch_tensorrt.annotation.backends._cutile_launch import (
    launches_replaced,
    read_launch,
)
from torch_tensorrt.annotation.backends._cutile_ptx import (
    as_plain_kernel,
    at_version,
    embedded_ptx,
    require_no_cluster,
    require_self_contained,
    without_hidden,
)
from torch_tensorrt.annotation.backends._cutile_signature import FACT_SETS, Signature
from torch_tensorrt.annotation.backends._cutile_toolchain import (
    compile_cubin,
    ptxas,
    require_known,
    toolchain,
)
from torch_tensorrt.annotation.errors import (
    CompileError,
    PTXError,
    RedundantTactic,
    UnsupportedKernelError,
)


class CuTileBackend:
    """Records ``ct.launch(...)`` and compiles it with ``tileiras``."""

    def toolchain(self) -> Toolchain:
        return toolchain()

    @contextlib.contextmanager
    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Report the launches of this thread; other threads launch as ever."""

        def report(
            stream: Any, grid: Any, kernel: Any, kernel_args: Any, /, **keywords: Any
        ) -> None:
            del stream
            on_launch(read_launch(overrides, grid, kernel, kernel_args, **keywords))

        with launches_replaced(report):
            yield

    def run(
        self,
        launch_fn: Callable[..., Any],
        tensors: Sequence[torch.Tensor | None],
        keywords: Mapping[str, Any],
    ) -> None:
        """Call a launch function on a GPU, with the op's inputs and outputs."""
        launch_fn(*tensors, **keywords)

    def compile(
        self,
        record: LaunchRecord,
        target: Target,
        options: Mapping[str, Any],
        aligned: bool,
        fact_set: str = "strides",
    ) -> CompiledKernel:
        assert record.grid is not None, "a cuTile launch has a grid"
        arch = require_known(target)
        kernel = _with_options(record, options)
        _require_no_cluster(record, kernel, arch)
        signature = Signature.of(record, aligned, FACT_SETS[fact_set])
        if fact_set == "tma":
            return _with_tensor_maps(record, kernel, signature, target, arch)
        tma = FACT_SETS[fact_set].tma
        cubin = compile_cubin(kernel, record.name, signature.parameters, arch, tma)
        code = embedded_ptx(cubin)
        require_self_contained(code, record.name)
        code = as_plain_kernel(code)
        emitted = _ptx.parse(code)
        block = _block(emitted, record)
        is_newer = _is_newer(emitted.version, target)
        if is_newer:
            assert target.ptx_isa is not None
            code = at_version(code, target.ptx_isa, record.name, ptxas())
        return CompiledKernel(
            code=code,
            slots=signature.slots,
            extras=signature.extras,
            grid=record.grid,
            block=block,
            shared_memory=0,  # static, all of it
            ptxas=ptxas(),
            facts=f"{fact_set}: {signature.facts}",
            retargeted=emitted.version if is_newer else "",
        )


def _with_tensor_maps(
    record: LaunchRecord, kernel: Any, signature: Signature, target: Target, arch: str
) -> CompiledKernel:
    """The kernel as a CUBIN: its tensor maps are made for nothing else.

    Raises:
        RedundantTactic: PTX is asked for, or the kernel makes no TMA loads.
    """
    assert record.grid is not None, "a cuTile launch has a grid"
    if target.code != "cubin":
        raise RedundantTactic(
            f"kernel {record.name}: the fact set 'tma' makes tensor maps, which only a "
            "CUBIN can hold. Compile for Target(code='cubin'), which is experimental."
        )
    cubin = compile_cubin(
        kernel, record.name, signature.parameters, arch, tma=True, symbol=PLACEHOLDER
    )
    code = embedded_ptx(cubin)
    readable, has_maps = without_hidden(code)
    if not has_maps:
        raise RedundantTactic(f"kernel {record.name}: it makes no TMA loads.")
    require_no_cluster(code, record.name)
    return CompiledKernel(
        code=code,
        slots=signature.slots,
        extras=signature.extras,
        grid=record.grid,
        block=_block(_ptx.parse(readable), record),
        shared_memory=0,
        ptxas=ptxas(),
        facts=f"tma: {signature.facts}",
        cubin=base64.b64encode(cubin).decode(),
    )


def _block(entry: _ptx.Entry, record: LaunchRecord) -> tuple[int, int, int]:
    if entry.block is None:
        raise PTXError(f"kernel {record.name}: cuTile's code names no block size.")
    return entry.block


def _with_options(record: LaunchRecord, options: Mapping[str, Any]) -> Any:
    """The kernel, with compiler options of the config in place of its own."""
    try:
        return record.kernel.kernel.replace_hints(**options)
    except (TypeError, ValueError) as error:
        raise CompileError(
            f"kernel {record.name}: cuTile does not take {dict(options)}: {error}."
        ) from error


def _require_no_cluster(record: LaunchRecord, kernel: Any, arch: str) -> None:
    hints = kernel._compiler_options.hints_by_target()
    ctas = {**hints["default"], **hints.get(arch, {})}["num_ctas"]
    if ctas not in (None, 1):
        raise UnsupportedKernelError(
            f"kernel {record.name}: it launches clusters (num_ctas={ctas}), which "
            "TensorRT does not. Write it, or choose a config, with num_ctas=1."
        )


def _is_newer(version: str, target: Target) -> bool:
    if target.ptx_version is None:
        return False
    return int(version.replace(".", "")) > target.ptx_version
