"""The kernel languages: one small class each, behind one protocol."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from torch_tensorrt.annotation._launch import Grid, Launch, LaunchRecord
from torch_tensorrt.annotation._ptx import Slot
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.errors import ToolchainError


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel in its toolchain's own parameter order.

    Attributes:
        code: PTX; beside a ``cubin`` only to read.
        slots: for each parameter of the entry, what TensorRT is to pass.
        extras: the expressions of the extra arguments, by index.
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        shared_memory: dynamic shared memory, in bytes.
        ptxas: path of the toolchain's assembler.
        facts: what the compiler was told, for people.
        retargeted: the PTX ISA that the compiler emitted, where the code was lowered
            from it to that of the driver.
        cubin: what goes out in place of PTX, in base64, its entry named
            ``_cubin.PLACEHOLDER``; empty where PTX does.
    """

    code: str
    slots: tuple[Slot, ...]
    extras: tuple[Any, ...]
    grid: Grid
    block: tuple[int, int, int]
    shared_memory: int
    ptxas: str
    facts: str
    retargeted: str = ""
    cubin: str = ""


@dataclass(frozen=True)
class Toolchain:
    """What of a kernel language decides the code; found without compiling.

    Attributes:
        versions: of what recording needs anyway, and settings: (name, value) pairs.
        compiler: version of what only compiling needs; None where it is not installed,
            so that what any version of it compiled elsewhere serves here.
    """

    versions: tuple[tuple[str, str], ...]
    compiler: str | None


class Backend(Protocol):
    """One kernel language."""

    def toolchain(self) -> Toolchain:
        """What compiles here; no process is started to find out."""

    def intercept(
        self,
        on_launch: Callable[[Launch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> AbstractContextManager[None]:
        """While entered, launches of this thread are reported and not made.

        Args:
            overrides: keywords of the launch, in place of what it says; None lets an
                autotuner take its first choice.
        """

    def run(
        self,
        launch_fn: Callable[..., Any],
        tensors: Sequence[torch.Tensor | None],
        keywords: Mapping[str, Any],
    ) -> None:
        """Call a launch function on a GPU, with the op's inputs and outputs.

        Args:
            tensors: None for an optional input that is not given.
        """

    def compile(
        self,
        record: LaunchRecord,
        target: Target,
        options: Mapping[str, Any],
        aligned: bool,
        fact_set: str = "",
    ) -> CompiledKernel:
        """Compile the recorded launch, with no GPU needed.

        Args:
            options: compiler options of the config; they override the launch's.
            aligned: every tensor starts at a multiple of 16 bytes.
            fact_set: which facts to tell, one of the spec's ``fact_sets``.

        Raises:
            RedundantTactic: this fact set says nothing here that another does not.
            CompileError: the toolchain refuses the kernel.
            UnsupportedKernelError: TensorRT cannot launch what it makes.
            TargetError: it does not know the target.
        """


_CLASSES = {
    "cutedsl": ("torch_tensorrt.annotation.backends.cutedsl", "CuTeDSLBackend"),
    "cutile": ("torch_tensorrt.annotation.backends.cutile", "CuTileBackend"),
    "triton": ("torch_tensorrt.annotation.backends.triton", "TritonBackend"),
}
NAMES = tuple(_CLASSES)


def backend(name: str) -> Backend:
    """The backend of a spec's ``backend`` name; its toolchain is imported here.

    Raises:
        ToolchainError: the toolchain is not installed, or is not one that is known.
    """
    module, cls = _CLASSES[name]
    try:
        found = getattr(importlib.import_module(module), cls)
    except ImportError as error:
        raise ToolchainError(
            f"{name}: {error}. Install it: "
            f"pip install 'torch-tensorrt-annotation[{name}]'."
        ) from error
    result: Backend = found()
    return result
