"""One ``ct.launch(...)``: caught while a function is recorded, and read."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import cuda.tile as ct
import torch
from cuda.tile._annotated_function import (
    HeterogeneousTupleNode,
    HomogeneousTupleNode,
    LeafAnnotationNode,
)
from cuda.tile._compiler_options import CompilerOptions

from torch_tensorrt.annotation._launch import Launch
from torch_tensorrt.annotation._values import NAMED_PACKAGES
from torch_tensorrt.annotation.errors import ArgumentError, UnsupportedKernelError

Tree: TypeAlias = "tuple[Tree, ...] | None"  # of a parameter's value; None is a leaf

_recording = threading.RLock()
_OPTIONS = frozenset(CompilerOptions.__dataclass_fields__)
_WITHOUT_LAUNCHES = NAMED_PACKAGES - {"cuda"}  # thousands of modules


@dataclass(frozen=True)
class BoundKernel:
    """A kernel, and how the recorded arguments make up its parameters.

    Attributes:
        kernel: the ``ct.kernel``.
        trees: for each parameter, the tuples that its arguments were taken from.
        annotations: of each argument.
    """

    kernel: Any
    trees: tuple[Tree, ...]
    annotations: tuple[Any, ...]


@contextlib.contextmanager
def launches_replaced(on_launch: Callable[..., None]) -> Iterator[None]:
    """While entered, ``ct.launch`` of this thread calls ``on_launch`` instead.

    Its arguments are those of ``ct.launch``. Launches of other threads are made.
    """
    with _recording:
        thread, active, original = threading.get_ident(), True, ct.launch

        def launch(*args: Any, **keywords: Any) -> None:
            # Who imports it while it is in place keeps it.
            if active and threading.get_ident() == thread:
                on_launch(*args, **keywords)
            else:
                original(*args, **keywords)

        places = list(_places(original))
        for module, name in places:
            setattr(module, name, launch)
        try:
            yield
        finally:
            active = False
            for module, name in places:
                setattr(module, name, original)


def _places(function: Any) -> Iterator[tuple[Any, str]]:
    """The modules that hold ``function``, by the name they give it."""
    for full_name, module in tuple(sys.modules.items()):
        package = full_name.partition(".")[0]
        if package in _WITHOUT_LAUNCHES or not isinstance(module, ModuleType):
            continue
        # Not module.__dict__, which makes a lazy module load.
        names = ModuleType.__getattribute__(module, "__dict__")
        for name, value in tuple(names.items()):
            if value is function:
                yield module, name


def read_launch(
    overrides: Mapping[str, Any] | None,
    grid: Any,
    kernel: Any,
    kernel_args: Any,
    programmatic_dependent_launch: bool = False,
) -> Launch:
    """The launch of ``kernel_args`` bound to the kernel's parameters.

    Args:
        overrides: kernel parameters and compiler options of a config.

    Raises:
        ArgumentError: the arguments do not fit the kernel.
        UnsupportedKernelError: an engine cannot launch it so.
    """
    if not isinstance(kernel, ct.kernel):
        raise ArgumentError(
            f"ct.launch of {kernel!r}, which is not a kernel. Decorate it: @ct.kernel."
        )
    function = kernel._annotated_function
    name = function.pyfunc.__name__
    if programmatic_dependent_launch:
        raise UnsupportedKernelError(
            f"kernel {name}: a programmatic dependent launch, which TensorRT does not "
            "make. Launch it without."
        )
    if not isinstance(grid, tuple | list):
        raise ArgumentError(
            f"kernel {name}: the grid is {grid!r}; write it as a tuple: "
            "ct.launch(stream, (blocks,), kernel, (x, ...))."
        )
    names = tuple(function.pysig.parameters)
    if not isinstance(kernel_args, tuple) or len(kernel_args) != len(names):
        given = len(kernel_args) if isinstance(kernel_args, tuple) else kernel_args
        raise ArgumentError(
            f"kernel {name}: it takes a tuple of {len(names)} arguments, "
            f"{', '.join(names)}; it was launched with {given}."
        )
    _require_the_grids(name, dict(zip(names, kernel_args, strict=True)), overrides)
    parameters = zip(names, kernel_args, function.parameter_annotations, strict=True)
    flat = [leaf for parameter in parameters for leaf in _leaves(*parameter)]
    trees = tuple(_tree(value) for value in kernel_args)
    return Launch(
        kernel=BoundKernel(kernel, trees, tuple(note for *_, note in flat)),
        name=name,
        grid=tuple(grid),
        arguments=tuple((path, value, note.constant) for path, value, note in flat),
        options={},
        passes_layouts=True,
    )


def _require_the_grids(
    kernel: str, arguments: Mapping[str, Any], overrides: Mapping[str, Any] | None
) -> None:
    """Raise where a config would change arguments that the grid was computed with."""
    for key, value in (overrides or {}).items():
        if key in _OPTIONS:
            continue
        if key not in arguments:
            raise ArgumentError(
                f"kernel {kernel}: the config sets {key!r}, which neither the kernel "
                f"nor ct.kernel takes. Valid names: {', '.join(sorted(_OPTIONS))}."
            )
        given = arguments[key]
        is_same = type(given) is type(value) and given == value
        if isinstance(given, torch.Tensor) or not is_same:
            raise ArgumentError(
                f"kernel {kernel}: the config sets {key}={value!r}, and the op's body "
                f"computes its grid with {given!r}. Give tta.cutile() a function that "
                f"takes {key} as a keyword, and launches the kernel with it."
            )


def _tree(value: Any) -> Tree:
    return tuple(_tree(item) for item in value) if isinstance(value, tuple) else None


def _leaves(path: str, value: Any, note: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each value within tuples, with its own annotation."""
    if not isinstance(value, tuple):
        if not isinstance(note, LeafAnnotationNode):
            raise ArgumentError(f"kernel argument `{path}`: {value!r} is no tuple.")
        yield path, value, note
        return
    if isinstance(note, HeterogeneousTupleNode):
        notes = note.items
    else:
        each = note.each if isinstance(note, HomogeneousTupleNode) else note
        notes = (each,) * len(value)
    if len(notes) != len(value):
        raise ArgumentError(
            f"kernel argument `{path}`: a tuple of {len(value)}, and the kernel "
            f"declares one of {len(notes)}."
        )
    for index, (item, item_note) in enumerate(zip(value, notes, strict=True)):
        yield from _leaves(f"{path}[{index}]", item, item_note)
