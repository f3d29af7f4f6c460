# SPDX-License-Identifier: BSD-3-Clause

"""CUDA C++ and PTX: launches caught in several libraries, compiled with NVRTC."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..._code.lowering import for_driver
from ..._code.ptx import parse
from ..._code.ptxas import find_ptxas, ptxas_versions
from ...errors import TargetError, ToolchainError
from .. import Backend, CompiledKernel, OnLaunch, Options, Program, Target, Toolchain
from ..abi import unsupported
from . import CUDASpec, cuda
from .entry import baked, only_entry, with_directives
from .kernel import Code
from .launch import GEOMETRY, BoundKernel, catching
from .libraries import standing_in
from .nvrtc import compile_source, library, toolkit_headers
from .signature import Signature, parameter_types


class CUDABackend(Backend):
    """Records calls of CUDA kernels, and compiles them with NVRTC."""

    def toolchain(self) -> Toolchain:
        """The versions of NVRTC, of the toolkit's headers, and of ``ptxas``."""
        try:
            version = library().version
        except ToolchainError:
            return Toolchain((), None)
        headers = ", ".join(version for _, version in toolkit_headers()) or "none"
        compiler = f"NVRTC {version}, headers {headers}, ptxas {ptxas_versions()}"
        return Toolchain((), compiler)

    def spec(self) -> CUDASpec:
        """The spec of an op whose own body launches the kernel, all else by default."""
        return cuda()

    @contextlib.contextmanager
    def intercept(
        self, on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Report the launches of this thread; other threads launch as usual."""
        keys = {} if overrides is None else dict(overrides)
        for name in CUDASpec.options:
            keys.pop(name, None)
        with standing_in(), catching(on_launch, keys):
            yield

    def warm_up(self) -> None:
        """Load NVRTC, and find the headers, before a process is forked."""
        library()
        toolkit_headers()

    def compile(
        self, program: Program, target: Target, options: Options, aligned: bool
    ) -> CompiledKernel:
        """Compile the program's launch, or take its PTX, for the target."""
        launch, bound = program.launch, program.launch.kernel
        assert isinstance(bound, BoundKernel) and launch.grid is not None
        code, name, ptxas = bound.code, launch.name, find_ptxas().path
        if code.is_ptx:
            text, entry, mangled = code.text, code.name, code.name
        else:
            compiled = compile_source(code, _architecture(code, target))
            text, entry, mangled = compiled.ptx, compiled.entry, compiled.signature
        text = only_entry(text, entry, name)
        arguments = launch.arguments[: -len(GEOMETRY)]
        given = {a.name: a.value for a in launch.arguments[-len(GEOMETRY) :]}  # type: ignore[union-attr]
        x, y, z, shared_memory = (int(given[key]) for key in GEOMETRY)
        block = (x, y, z)
        maxnreg = options.get("maxnreg", code.maxnreg)
        text = with_directives(text, block, maxnreg, options.get("min_blocks", 0))
        parsed = parse(text)
        _require_block(name, block, parsed.match["directives"], parsed.block)
        types = parameter_types(mangled, len(parsed.parameters))
        signature = Signature(
            program, aligned, parsed, types, arguments, bound.hosts, bound.library
        )
        text = baked(text, signature.constants, name)
        what = "it is" if code.is_ptx else "NVRTC emits"
        text, emitted = for_driver(text, target.ptx_isa, name, ptxas, what)
        return CompiledKernel(
            code=text,
            slots=tuple(signature.slots),
            extras=tuple(signature.extras),
            grid=launch.grid,
            block=block,
            shared_memory=shared_memory,
            ptxas=ptxas,
            retargeted=emitted,
            cluster=dict(launch.options)["cluster"],
            names=tuple(signature.names),
        )


def _architecture(code: Code, target: Target) -> str:
    """What NVRTC compiles for: the target, unless the user's options say another.

    Raises:
        TargetError: they name one that the target does not run.
    """
    asked = code.architecture or target.arch
    known = Target(asked)
    is_specific = known.arch[-1] in "af"
    if known.capability > target.capability or (
        is_specific and known.capability != target.capability
    ):
        raise TargetError(
            f"kernel {code.name}: its options name {asked}, and the target is "
            f"{target.arch}. Leave the architecture out: it is the target's."
        )
    return asked.replace("sm_", "compute_")


def _require_block(
    kernel: str,
    block: tuple[int, int, int],
    directives: str,
    declared: tuple[int, int, int] | None,
) -> None:
    """Raise where CUDA would not launch blocks of this shape.

    Raises:
        UnsupportedKernelError: the kernel's launch bounds are others.
    """
    if declared is None:
        return
    is_exact = ".reqntid" in directives
    fits = block == declared if is_exact else math.prod(block) <= math.prod(declared)
    if not fits:
        bound = "blocks of exactly" if is_exact else "at most"
        threads = "x".join(map(str, declared)) if is_exact else math.prod(declared)
        raise unsupported(
            kernel,
            f"it is launched in blocks of {'x'.join(map(str, block))} threads, and "
            f"declares {bound} {threads} (__launch_bounds__). Launch it like that.",
        )


BACKEND = CUDABackend
