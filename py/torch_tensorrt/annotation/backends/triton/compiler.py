"""Triton kernels: launches caught at ``JITFunction.run``, compiled for any GPU."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch._library.triton import set_wrap_triton_enabled
from triton import __version__ as triton_version
from triton import knobs
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, ptx_get_version
from triton.compiler import ASTSource
from triton.compiler import compile as triton_compile
from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.jit import JITFunction

from torch_tensorrt.annotation import _ptx
from torch_tensorrt.annotation._launch import Launch, LaunchRecord
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends import CompiledKernel, Toolchain
from torch_tensorrt.annotation.backends._triton_launch import read_launch
from torch_tensorrt.annotation.backends._triton_signature import Signature
from torch_tensorrt.annotation.errors import (
    CompileError,
    TargetError,
    UnsupportedKernelError,
)

_MOST_THREADS = 1024  # "Technical Specifications", CUDA C++ programming guide
_recording = threading.RLock()


# Paths of tools in place of those that Triton brings, which its version stands for.
_TOOLS = {
    "ptxas": "TRITON_PTXAS_PATH",
    "ptxas_blackwell": "TRITON_PTXAS_BLACKWELL_PATH",
}


class TritonBackend:
    """Records ``kernel[grid](...)`` and compiles it with ``triton.compile``."""

    def toolchain(self) -> Toolchain:
        """Triton's version, and the settings that change what it compiles."""
        settings = {
            **get_cache_invalidating_env_vars(),
            "fp_fusion": knobs.language.default_fp_fusion,
            "override": knobs.compilation.override,
            "libdevice": knobs.nvidia.libdevice_path,
        }
        for tool, variable in _TOOLS.items():
            if os.environ.get(variable) or tool in vars(knobs.nvidia):
                settings[tool] = getattr(knobs.nvidia, tool).version
        pairs = sorted((name, str(value)) for name, value in settings.items())
        return Toolchain((("triton", triton_version), *pairs), compiler="")

    @contextlib.contextmanager
    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Report the launches of this thread; other threads launch as ever."""
        thread = threading.get_ident()
        original = {cls: cls.run for cls in (JITFunction, Autotuner, Heuristics)}

        def replacement(cls: type) -> Callable[..., Any]:
            def run(
                kernel: Any, *args: Any, grid: Any, warmup: bool, **keywords: Any
            ) -> Any:
                if threading.get_ident() != thread:
                    run = original[cls]
                    return run(kernel, *args, grid=grid, warmup=warmup, **keywords)
                if not warmup:
                    on_launch(read_launch(kernel, args, grid, keywords, overrides))
                return None

            return run

        # In the body of a torch.library.triton_op, wrap_triton is to call Triton.
        with _recording, set_wrap_triton_enabled(False):
            for cls in original:
                cls.run = replacement(cls)
            try:
                yield
            finally:
                for cls, run in original.items():
                    cls.run = run

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
        fact_set: str = "",
    ) -> CompiledKernel:
        del fact_set  # there is one: what Triton's own JIT would tell
        assert record.grid is not None, "a Triton launch has a grid"
        _require_known(target)
        signature = Signature.of(record, aligned)
        compiled = _compile(
            record, signature, target, {**dict(record.options), **options}
        )
        metadata = compiled.metadata
        _require_launchable(record, metadata, target)
        code = compiled.asm["ptx"]
        entry = _ptx.parse(code)
        # Triton's own parameters come last; they are unused, or it was refused above.
        scratch = len(entry.parameters) - len(signature.slots)
        return CompiledKernel(
            code=code,
            slots=(*signature.slots, *[Slot(Kind.UNUSED)] * scratch),
            extras=signature.extras,
            grid=record.grid,
            block=entry.block or (metadata.num_warps * 32, 1, 1),
            shared_memory=metadata.shared,
            ptxas=get_ptxas(target.capability).path,
            facts=signature.facts,
        )


# The oldest PTX ISA that has an architecture as Triton emits it, from 9.0 on with the
# architecture-specific instructions ("Target", PTX ISA manual).
_OLDEST_PTX = {
    75: 63, 80: 70, 86: 71, 87: 74, 89: 78, 90: 80,
    100: 86, 101: 86, 103: 88, 110: 90, 120: 87, 121: 88,
}  # fmt: skip


def _require_known(target: Target) -> None:
    known = _known_architectures(target.capability)
    if target.arch not in known:
        raise TargetError(
            f"target {target.arch} is not one that this Triton compiles for. It knows "
            f"{', '.join(known)}."
        )
    oldest = _OLDEST_PTX.get(target.capability)
    asked = target.ptx_version
    if asked is not None and (oldest is None or asked < oldest):
        since = "no version known here" if oldest is None else f"{oldest / 10}"
        raise TargetError(
            f"target {target.arch}: PTX ISA {target.ptx_isa} does not have it; "
            f"{since} is the oldest that does. A newer driver is needed."
        )


@cache
def _known_architectures(capability: int) -> tuple[str, ...]:
    text = subprocess.run(
        [get_ptxas(capability).path, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = set(re.findall(r"'(sm_\d+[af]?)'", text))
    usable = {a for a in found if int(a.removeprefix("sm_").rstrip("af")) >= 75}
    return tuple(sorted(usable, key=lambda a: (len(a.rstrip("af")), a)))


def _compile(
    record: LaunchRecord,
    signature: Signature,
    target: Target,
    options: dict[str, Any],
) -> Any:
    capability = target.capability
    newest = ptx_get_version(get_ptxas(capability).version)
    options["ptx_version"] = min(target.ptx_version or newest, newest)
    # Triton's JIT takes this default with a warning; the same default, said aloud.
    options.setdefault("enable_fp_fusion", knobs.language.default_fp_fusion)
    source = ASTSource(
        record.kernel,
        signature.types,
        {
            (record.kernel.arg_names.index(k),): v
            for k, v in signature.constants.items()
        },
        signature.hints,
    )
    try:
        return triton_compile(
            source, target=GPUTarget("cuda", capability, 32), options=options
        )
    except Exception as error:  # Triton raises whatever its passes raise
        raise CompileError(
            f"kernel {record.name}: Triton does not compile it for {target.arch} with "
            f"{_describe(options)}: {error}"
        ) from error


def _require_launchable(record: LaunchRecord, metadata: Any, target: Target) -> None:
    """Raise for whatever TensorRT's launch (grid, block, shared memory) leaves out."""
    scratch = "it needs scratch memory, which TensorRT does not allocate"
    refusals = {
        "global_scratch_size": (0, scratch),
        "profile_scratch_size": (0, scratch),
        "num_ctas": (1, "it launches clusters (num_ctas > 1)"),
        "launch_cooperative_grid": (False, "it is a cooperative launch"),
        "launch_pdl": (False, "it is a programmatic dependent launch"),
        "clc": (False, "it uses cluster launch control"),
    }
    for name, (harmless, reason) in refusals.items():
        value = getattr(metadata, name, harmless)
        if (value or harmless) != harmless:
            raise UnsupportedKernelError(
                f"kernel {record.name}: {reason} ({name}={value}). Write it, or choose "
                "a config, without."
            )
    if getattr(metadata, "tensordesc_meta", None):
        raise UnsupportedKernelError(
            f"kernel {record.name}: it takes tensor descriptors made on the host. Make "
            "them in the kernel, or load through pointers."
        )
    if metadata.num_warps * 32 > _MOST_THREADS:
        raise UnsupportedKernelError(
            f"kernel {record.name}: num_warps={metadata.num_warps} makes blocks of "
            f"{metadata.num_warps * 32} threads; CUDA launches {_MOST_THREADS} at most."
        )
    if metadata.shared > target.max_shared_memory:
        raise UnsupportedKernelError(
            f"kernel {record.name}: it asks for {metadata.shared} bytes of dynamic "
            f"shared memory; the limit is {target.max_shared_memory}. Take smaller "
            "blocks or fewer stages, or raise Target.max_shared_memory."
        )


def _describe(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
