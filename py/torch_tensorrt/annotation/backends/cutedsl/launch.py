"""The call of a CuTe DSL launcher: what each of its arguments is.

A launcher is a ``@cute.jit`` function, or a method that is one. It may take tensors,
numbers, tuples of those, a stream, and whatever else is compiled in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, get_origin

import cutlass.cute as cute
import torch
from cuda.bindings import driver
from cutlass.base_dsl.typing import Constexpr, Numeric

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._launch import Launch
from torch_tensorrt.annotation.errors import ArgumentError

_NUMBERS = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)


@dataclass(frozen=True)
class Leaf:
    """One argument of the record; ``type`` names CuTe's, where it was given one."""

    index: int
    type: str | None = None


@dataclass(frozen=True)
class Stream:
    """The CUDA stream, which an engine chooses."""


Template: TypeAlias = "Leaf | Stream | tuple[Template, ...]"


@dataclass(frozen=True)
class Fixed:
    """An object that is compiled in; equal where its content is, in every process."""

    value: Any

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        return hash(self._fingerprint)


@dataclass(frozen=True)
class Launcher:
    """A launcher, and how to call it again.

    Attributes:
        function: the function that ``@cute.jit`` decorates.
        parameters: (name, which arguments of the record make it up).
    """

    function: Fixed
    parameters: tuple[tuple[str, Template], ...]


class TensorLike(cute.Tensor):  # type: ignore[misc]
    """What stands in for a CuTe tensor while a launch is recorded.

    Attributes:
        tensor: the fake tensor it was made of.
    """

    tensor: torch.Tensor


def is_launcher(function: Any) -> bool:
    """Whether calling ``function`` is calling what ``@cute.jit`` decorates."""
    if not inspect.isroutine(function) and callable(function):
        function = function.__call__
    return getattr(inspect.unwrap(function), "_decorator_kind", None) == "jit"


def undecorated(function: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The function that ``@cute.jit`` decorates, and what it is called with.

    Raises:
        ArgumentError: ``function`` is no launcher.
    """
    if not is_launcher(function):
        raise ArgumentError(
            f"{getattr(function, '__qualname__', function)} is compiled by CuTe DSL, "
            "and is no @cute.jit function. Decorate the function that launches the "
            "kernel with it."
        )
    if not inspect.isroutine(function):
        function = function.__call__  # an object; the method is bound to it
    if inspect.ismethod(function):
        function, args = function.__func__, (function.__self__, *args)
    return inspect.unwrap(function), args


def static_parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters that are declared ``Constexpr``."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return frozenset(p.name for p in parameters if _is_constexpr(p.annotation))


def read_launch(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    overrides: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Launch:
    """The launch that calling ``function``, which is not decorated, would make.

    Args:
        overrides: take the place of compile-time constants, by name.
        options: of ``cute.compile``.

    Raises:
        ArgumentError: the arguments do not fit.
    """
    name = function.__qualname__
    signature = inspect.signature(function, eval_str=True)
    try:
        bound = signature.bind(*args, **keywords)
    except TypeError as error:
        raise ArgumentError(f"launcher {name}{signature}: {error}.") from error
    bound.apply_defaults()
    bound.arguments.update(_checked(function, overrides))
    reader = _Reader(name)
    parameters = tuple(
        (key, reader.read(key, value, signature.parameters[key].annotation))
        for key, value in bound.arguments.items()
    )
    return Launch(
        kernel=Launcher(Fixed(function), parameters),
        name=name,
        grid=None,
        arguments=tuple(reader.leaves),
        options=options,
        passes_layouts=True,
    )


def _checked(
    function: Callable[..., Any], overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    """``overrides``, all of them compile-time constants of ``function``."""
    static = static_parameters(function)
    for name in overrides:
        if name not in static:
            raise ArgumentError(
                f"launcher {function.__qualname__}: the config sets {name!r}, which is "
                "none of its Constexpr parameters: "
                f"{', '.join(sorted(static)) or 'it has none'}."
            )
    return overrides


@dataclass
class _Reader:
    """Takes arguments apart; the leaves become the record's arguments."""

    launcher: str
    leaves: list[tuple[str, Any, bool]] = field(default_factory=list)

    def read(self, name: str, value: Any, annotation: Any) -> Template:
        if _is_constexpr(annotation):
            return self._constant(name, value)
        if isinstance(value, TensorLike):
            return self._tensor(name, value)
        if isinstance(value, torch.Tensor):
            return self._leaf(name, value)
        if _is_stream(name, value, annotation):
            return Stream()
        if isinstance(value, tuple | list):
            return tuple(
                self.read(f"{name}[{i}]", item, int) for i, item in enumerate(value)
            )
        if isinstance(value, Numeric):
            return self._leaf(name, value.value, type(value).__name__)
        if isinstance(value, _NUMBERS):
            return self._leaf(name, value, _number_type(value, annotation))
        if isinstance(value, cute.Pointer):
            raise ArgumentError(
                f"launcher {self.launcher}, argument `{name}`: an address, which an "
                "engine does not know before it runs. Pass the tensor."
            )
        return self._constant(name, value)

    def _tensor(self, name: str, value: TensorLike) -> Leaf:
        usual = _dtypes.from_torch(value.tensor.dtype).cutedsl
        given = value.element_type.__name__
        return self._leaf(name, value.tensor, None if given == usual else given)

    def _constant(self, name: str, value: Any) -> Leaf:
        is_plain = isinstance(value, bool | int | float | str | None | torch.SymInt)
        return self._leaf(name, value if is_plain else Fixed(value), is_constant=True)

    def _leaf(
        self, name: str, value: Any, type_: str | None = None, is_constant: bool = False
    ) -> Leaf:
        self.leaves.append((name, value, is_constant))
        return Leaf(len(self.leaves) - 1, type_)


def _is_constexpr(annotation: Any) -> bool:
    return annotation is Constexpr or get_origin(annotation) is Constexpr


def _number_type(value: Any, annotation: Any) -> str | None:
    """The type a number has in the launcher: what is declared, or CuTe DSL's own."""
    if isinstance(annotation, type) and issubclass(annotation, Numeric):
        return annotation.__name__
    if annotation is int and not isinstance(value, float):
        return None  # within a tuple, a constant stays one: a static extent
    if isinstance(value, bool | torch.SymBool):
        return "Boolean"
    return "Float32" if isinstance(value, float | torch.SymFloat) else "Int32"


def _is_stream(name: str, value: Any, annotation: Any) -> bool:
    if isinstance(value, driver.CUstream) or annotation is driver.CUstream:
        return True
    return type(value).__name__ == "_FakeStream" or (name == "stream" and value == 0)
