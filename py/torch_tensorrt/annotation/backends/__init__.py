# SPDX-License-Identifier: BSD-3-Clause

"""The kernel languages. Everything that writing one takes is imported from here.

A language is a folder here, or a package elsewhere that names its backend class in the
entry-point group ``torch_tensorrt.annotation.backends``. It has a :class:`KernelSpec`
of its own, which a user hands over, and a :class:`Backend`, which records and compiles.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, Protocol, TypeAlias

import torch

from .._code.ptx import Kind, Slot
from .._code.ptxas import find_ptxas
from .._record.program import CaughtLaunch, Constant, Launch, Pointer, Program, Scalar
from .._specs import KernelSpec
from .._target import Target
from ..errors import ToolchainError
from .abi import CompiledKernel, Parameters

__all__ = [
    "Backend",
    "CaughtLaunch",
    "CompiledKernel",
    "Constant",
    "Interpreter",
    "KernelSpec",
    "Kind",
    "Launch",
    "OnLaunch",
    "Options",
    "OutOfBoundsError",
    "Parameters",
    "Pointer",
    "Program",
    "Scalar",
    "Slot",
    "Target",
    "Toolchain",
    "backend",
    "find_ptxas",
    "names",
]

GROUP = "torch_tensorrt.annotation.backends"  # of entry points

OnLaunch: TypeAlias = Callable[[CaughtLaunch], None]
Options: TypeAlias = Mapping[str, Any]  # of a compiler, by name


@dataclass(frozen=True)
class Toolchain:
    """What of a kernel language decides the code; found without compiling.

    Attributes:
        versions: of what recording needs anyway, and settings: (name, value) pairs.
        compiler: version of what only compiling needs; None where it is not installed,
            in which case a kernel that any version compiled elsewhere serves.
    """

    versions: tuple[tuple[str, str], ...]
    compiler: str | None


class OutOfBoundsError(Exception):
    """An interpreted kernel accesses memory outside of its tensors."""


class Interpreter(Protocol):
    """Runs a program's launch on the CPU.

    It is called in a process of its own, which ends afterwards. Any exception but
    ``OutOfBoundsError`` means that it cannot run this kernel, and why.
    """

    def __call__(
        self,
        program: Program,
        grid: tuple[int, ...],
        extras: Sequence[int],
        tensors: Sequence[torch.Tensor],
        aligned: bool,
    ) -> None:
        """
        Args:
            grid, extras: what TensorRT would launch it with.
            tensors: as they lie in memory, inputs first.
            aligned: every tensor starts at a multiple of 16 bytes.

        Raises:
            OutOfBoundsError: the kernel accesses memory outside of its tensors. It may
                be the cause of another exception.
        """


class Backend(Protocol):
    """One kernel language. A class that derives from this needs no ``run`` of its own
    where a launch function takes torch's tensors, and no ``interpreter`` where there
    is none. Without ``spec`` of its own, ``adopt`` does not try the language."""

    def toolchain(self) -> Toolchain:
        """What compiles here; no process is started to find out."""

    def spec(self) -> KernelSpec | None:
        """The spec of an op whose own body launches the kernel, all else by default."""
        return None

    def intercept(
        self, on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[None]:
        """While entered, launches of this thread are reported and not made.

        Args:
            overrides: keywords of the launch, in place of its own; None lets an
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
        launch_fn(*tensors, **keywords)

    def warm_up(self) -> None:
        """Find out what each compiling process would, before it is forked."""

    def compile(
        self, program: Program, target: Target, options: Options, aligned: bool
    ) -> CompiledKernel:
        """Compile the program's launch, with no GPU needed.

        Args:
            options: compiler options of the config; they override the launch's.
            aligned: every tensor starts at a multiple of 16 bytes.

        Raises:
            CompileError: the toolchain refuses the kernel.
            UnsupportedKernelError: TensorRT cannot launch the result.
            TargetError: the toolchain does not know the target.
        """

    @property
    def interpreter(self) -> Interpreter | None:
        """What runs launches on the CPU; None where the language has no such thing."""
        return None


_OWN = frozenset(m.name for m in pkgutil.iter_modules(__path__) if m.ispkg)


def names() -> tuple[str, ...]:
    """The languages there are: the folders here, and those of other packages."""
    return tuple(sorted(_OWN | metadata.entry_points(group=GROUP).names))


@cache
def backend(name: str) -> Backend:
    """The backend of a spec's ``backend`` name; its toolchain is imported here.

    Other packages are not asked for a language that is a folder here: that reads the
    metadata of every installed distribution.

    Raises:
        ToolchainError: the toolchain is not installed, or the language is not known.
    """
    try:
        if name in _OWN:
            found = importlib.import_module(f"{__name__}.{name}.compiler").BACKEND
        elif points := metadata.entry_points(group=GROUP, name=name):
            found = points[name].load()
        else:
            raise ToolchainError(
                f"{name}: no such kernel language; there are {', '.join(names())}."
            )
    except ImportError as error:
        raise ToolchainError(
            f"{name}: {error}. Install it: "
            f"pip install 'torch-tensorrt-annotation[{name}]'."
        ) from error
    result: Backend = found()
    return result
