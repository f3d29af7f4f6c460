# SPDX-License-Identifier: BSD-3-Clause

"""CuTe DSL kernels: launchers caught at their call, compiled for any GPU."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import cutlass.cute as cute
import torch
from cuda.bindings.driver import CUstream
from cutlass.base_dsl import Arch, compiler
from cutlass.base_dsl.dsl import BaseDSL
from cutlass.cute.runtime import from_dlpack

from ..._code.ptxas import Assembler, find_ptxas, ptxas_versions
from ...errors import CompileError, TargetError, reasons
from .. import (
    Backend,
    CompiledKernel,
    OnLaunch,
    Options,
    Parameters,
    Program,
    Target,
    Toolchain,
)
from ..abi import ALIGNMENT, unsupported
from . import CuTeDSLSpec, entry
from .arguments import HostArguments
from .host import Host, execute
from .intercept import intercepting
from .launch import is_launcher

_SETTINGS = "CUTE_DSL_"  # how its environment variables begin
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_compiling = threading.RLock()  # CuTe DSL's compiler is not thread-safe


class CuTeDSLBackend(Backend):
    """Records calls of ``@cute.jit`` launchers; compiles with ``cute.compile``."""

    def toolchain(self) -> Toolchain:
        """CuTe DSL's version and settings, and the assemblers to choose from."""
        version = ("nvidia-cutlass-dsl", metadata.version("nvidia-cutlass-dsl"))
        variables = sorted(os.environ.items())
        settings = (pair for pair in variables if pair[0].startswith(_SETTINGS))
        return Toolchain((version, *settings), compiler=ptxas_versions())

    def intercept(
        self, on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[None]:
        """Report the launches of this thread, and launch nothing."""
        return intercepting(on_launch, overrides)

    def spec(self) -> CuTeDSLSpec:
        """The spec of an op whose own body launches the kernel, all else by default."""
        return CuTeDSLSpec.of(None)

    def run(
        self,
        launch_fn: Callable[..., Any],
        tensors: Sequence[torch.Tensor | None],
        keywords: Mapping[str, Any],
    ) -> None:
        """Call a launch function on a GPU, with the op's inputs and outputs.

        A launcher gets CuTe tensors of static layout, as it does for static shapes in
        an engine.
        """
        given: Iterable[Any] = tensors
        if is_launcher(launch_fn):
            given = map(_cute_tensor, tensors)
            if "stream" in keywords:
                keywords = {**keywords, "stream": CUstream(keywords["stream"])}
        launch_fn(*given, **keywords)

    def compile(
        self, program: Program, target: Target, options: Options, aligned: bool
    ) -> CompiledKernel:
        """Compile the program's launcher; see what it launches; bind that kernel.

        Args:
            options: ``arch`` in place of the target's.

        Raises:
            CompileError: CuTe DSL refuses the kernel.
            UnsupportedKernelError: TensorRT cannot launch the result.
            ArgumentError: TensorRT cannot pass an argument.
            TargetError: CuTe DSL does not know the target.
        """
        name, ptxas = program.launch.name, find_ptxas()
        parameters = Parameters(program, aligned)
        with _compiling:
            host = compile_launcher(parameters, target, ptxas, options.get("arch"))
            launches = execute(host, program.ranges, name)
        return entry.bind(host.code, launches, parameters, ptxas.path)


BACKEND = CuTeDSLBackend


def _cute_tensor(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    is_aligned = tensor.data_ptr() % ALIGNMENT == 0
    return from_dlpack(tensor, ALIGNMENT if is_aligned else None)


# --- A launcher, compiled -------------------------------------------------------------


def compile_launcher(
    parameters: Parameters, target: Target, ptxas: Assembler, arch: str | None
) -> Host:
    """The recorded launcher for ``target``. Not thread-safe, as the compiler is not.

    Where it does not compile for static extents, it is compiled for dynamic ones, which
    libraries mark all extents as. What the host code computes of them is known anyway.

    Args:
        parameters: of the kernel; the facts that the compiler gets are added to it.
        arch: what to compile for, in place of the target's.

    Raises:
        CompileError: CuTe DSL refuses it.
        TargetError: CuTe DSL does not know the target.
        ArgumentError: an argument cannot be passed by TensorRT.
    """
    told, arguments = list(parameters.told), HostArguments(parameters)
    try:
        return _compile(parameters, arguments, target, ptxas, arch)
    except CompileError as error:
        if not arguments.compiled_in:
            raise
        parameters.told[:] = told
        arguments = HostArguments(parameters, is_static=False)
        with contextlib.suppress(CompileError):
            return _compile(parameters, arguments, target, ptxas, arch)
        raise error


def _compile(
    parameters: Parameters,
    arguments: HostArguments,
    target: Target,
    ptxas: Assembler,
    arch: str | None,
) -> Host:
    launch = parameters.program.launch
    function = launch.kernel.function
    signature = inspect.signature(function)
    builders = {
        name: arguments.builder(template) for name, template in launch.kernel.parameters
    }

    def host(*values: Any) -> None:
        built: Any = {name: build(values) for name, build in builders.items()}
        call = inspect.BoundArguments(signature, built)
        BaseDSL._preprocess_and_replace_code(function)
        function._dsl_object._func(function, *call.args, **call.kwargs)

    chosen = [getattr(compiler, name)(value) for name, value in launch.options]
    chosen += _target_options(target, ptxas, arch)
    with tempfile.TemporaryDirectory(prefix="tta-") as folder:
        chosen += [compiler.KeepPTX(True), compiler.DumpDir(folder)]
        try:
            BaseDSL._lazy_initialize_dsl(function)
            # cute.jit's, or cute.experimental.jit's: a launcher compiles in its own.
            decorate = type(function._dsl_object).jit(preprocess=False)
            compiled = cute.compile[tuple(chosen)](decorate(host), *arguments.samples)
        except Exception as error:  # CuTe DSL raises whatever its passes raise
            raise _refused(launch.name, target, error) from error
        if not (paths := list(Path(folder).glob("*.ptx"))):
            why = "its launcher launches no kernel. It must launch one."
            raise unsupported(launch.name, why)
        code = paths[0].read_text()
    return Host(code, compiled.ir_module, compiled.function_name, arguments.values)


def _target_options(target: Target, ptxas: Assembler, arch: str | None) -> list[Any]:
    known = [member.to_string() for member in Arch]
    wanted = arch or target.arch
    if wanted.rstrip("af") != target.arch.rstrip("af"):
        raise TargetError(
            f"target {target.arch}: the spec says arch={arch!r}, another GPU's."
        )
    if wanted not in known:
        raise TargetError(
            f"target {wanted} is not one that this CuTe DSL compiles for. It knows "
            f"{', '.join(known)}."
        )
    # As CuTe DSL does for the GPU it runs on; settle() takes the `a` off if it can.
    specific = f"{target.arch}a"
    chosen = specific if arch is None and specific in known else wanted
    version = min(target.ptx_version or ptxas.ptx_version, ptxas.ptx_version)
    return [
        compiler.GPUArch(chosen),
        compiler.ExtraCompilerOpts(f"ptx-version=+ptx{version}"),
    ]


def _refused(name: str, target: Target, error: Exception) -> Exception:
    text = _COLORS.sub("", reasons(error)).strip()
    if "ptx-version-target" in text or "required PTX version" in text:
        return TargetError(
            f"target {target.arch}: this CuTe DSL cannot emit PTX ISA {target.ptx_isa} "
            "for it. Its cu13 flavour emits 8.6 and newer: a newer driver is needed."
        )
    return CompileError(
        f"launcher {name}: CuTe DSL does not compile it for {target.arch}: {text}"
    )
