"""Compile a recorded launcher, called with addresses and extents, with no GPU."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cutlass.cute as cute
from cutlass.base_dsl import Arch, compiler
from cutlass.base_dsl.dsl import BaseDSL

from torch_tensorrt.annotation._launch import LaunchRecord
from torch_tensorrt.annotation._ptx import Slot
from torch_tensorrt.annotation._ptxas import Assembler
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.backends._cutedsl_arguments import HostArguments
from torch_tensorrt.annotation.backends._cutedsl_memory import Value
from torch_tensorrt.annotation.errors import (
    CompileError,
    TargetError,
    UnsupportedKernelError,
)

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Compiled:
    """A launcher as CuTe DSL compiles it.

    Attributes:
        code: PTX.
        module, function: the host launcher.
        arguments: its arguments, in terms of the extents.
        tensors: which tensor starts at an argument that is an address.
        facts: what the compiler was told, for people.
    """

    code: str
    module: Any
    function: str
    arguments: tuple[Value, ...]
    tensors: Mapping[str, Slot]
    facts: str


def compile_launcher(
    record: LaunchRecord,
    target: Target,
    assembler: Assembler,
    options: Mapping[str, Any],
    aligned: bool,
) -> Compiled:
    """The recorded launcher for ``target``. Not thread-safe, as the compiler is not.

    Args:
        options: ``arch`` in place of the target's; classes of compile options by name.
        aligned: every tensor starts at a multiple of 16 bytes.

    Raises:
        CompileError: CuTe DSL refuses it.
        TargetError: CuTe DSL does not know the target.
        ArgumentError: an argument cannot be passed by TensorRT.
    """
    arguments = HostArguments(record, aligned)
    launcher = cute.jit(preprocess=False)(_host(record, arguments))
    chosen = _options(record, options)
    chosen += _target_options(target, assembler, options.get("arch"))
    with tempfile.TemporaryDirectory(prefix="tta-") as folder:
        chosen += [compiler.KeepPTX(True), compiler.DumpDir(folder)]
        try:
            compiled = cute.compile[tuple(chosen)](launcher, *arguments.samples)
        except Exception as error:  # CuTe DSL raises whatever its passes raise
            raise _refused(record, target, error) from error
        paths = list(Path(folder).glob("*.ptx"))
        if not paths:
            raise UnsupportedKernelError(
                f"launcher {record.name}: it launches no kernel. It must launch one."
            )
        code = paths[0].read_text()
    return Compiled(
        code=code,
        module=compiled.ir_module,
        function=compiled.function_name,
        arguments=tuple(arguments.values),
        tensors=arguments.tensors,
        facts=" ".join(arguments.told),
    )


def _host(record: LaunchRecord, arguments: HostArguments) -> Callable[..., None]:
    """A host function that calls the launcher."""
    function = record.kernel.function.value
    signature = inspect.signature(function)
    builders = {
        name: arguments.builder(template) for name, template in record.kernel.parameters
    }

    def host(*values: Any) -> None:
        built: Any = {name: build(values) for name, build in builders.items()}
        call = inspect.BoundArguments(signature, built)
        BaseDSL._preprocess_and_replace_code(function)
        function._dsl_object._func(function, *call.args, **call.kwargs)

    return host


def _options(record: LaunchRecord, options: Mapping[str, Any]) -> list[Any]:
    """The launch's own options, and the config's in place of them."""
    return [
        getattr(compiler, name)(value)
        for name, value in {**dict(record.options), **options}.items()
        if name != "arch"
    ]


def _target_options(
    target: Target, assembler: Assembler, arch: str | None
) -> list[Any]:
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
    # As CuTe DSL does for a GPU at hand; settle() takes the `a` off if it can.
    specific = wanted if wanted != target.arch else f"{wanted}a"
    chosen = specific if arch is None and specific in known else wanted
    version = min(target.ptx_version or assembler.ptx_version, assembler.ptx_version)
    return [
        compiler.GPUArch(chosen),
        compiler.ExtraCompilerOpts(f"ptx-version=+ptx{version}"),
    ]


def _refused(record: LaunchRecord, target: Target, error: Exception) -> Exception:
    text = _COLORS.sub("", str(error)).strip()
    if "ptx-version-target" in text or "required PTX version" in text:
        return TargetError(
            f"target {target.arch}: this CuTe DSL cannot emit PTX ISA {target.ptx_isa} "
            "for it. Its cu13 flavour emits 8.6 and newer: a newer driver is needed."
        )
    return CompileError(
        f"launcher {record.name}: CuTe DSL does not compile it for {target.arch}: "
        f"{text}"
    )
