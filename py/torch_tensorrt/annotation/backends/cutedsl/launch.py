# SPDX-License-Identifier: BSD-3-Clause

"""The call of a CuTe DSL launcher: what each of its arguments is.

A launcher is a ``@cute.jit`` function, or a method that is one. It may take tensors,
numbers, tuples of those, a stream, and whatever else is compiled in. Its arguments are
taken apart: tensors and numbers become the recorded launch's, and templates say how to
put them together again when the launcher is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_origin

import cutlass
import cutlass.cute as cute
import torch
from cuda.bindings import driver
from cutlass.base_dsl.typing import Constexpr, Numeric

from ..._specs import Fingerprinted
from ..._tensors import DType
from ...errors import ArgumentError, DTypeError
from .. import CaughtLaunch

_PLAIN = (bool, int, float, str, type(None), torch.SymInt)  # constants as they are
_ITEM = "item"  # in place of the annotation, for what is in a tuple
_NUMBERS = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)

# CuTe DSL's classes by torch's names, without underscores and capitals.
_ELEMENT_TYPES = {
    name.lower(): kind
    for name, kind in vars(cutlass).items()
    if isinstance(kind, type) and issubclass(kind, Numeric)
} | {"bool": cutlass.Boolean}


def element_type(dtype: torch.dtype) -> type[Numeric]:
    """CuTe DSL's class for the elements of a torch tensor.

    Raises:
        DTypeError: TensorRT, or CuTe DSL, has none.
    """
    name = DType.of(dtype).name.replace("_", "")
    kind: type[Numeric] | None = _ELEMENT_TYPES.get(name)
    if kind is None:
        raise DTypeError(f"dtype {dtype} has no counterpart in CuTe DSL.")
    return kind


@dataclass(frozen=True)
class Leaf:
    """One argument of the recorded launch.

    Attributes:
        kind: CuTe DSL's class of the number, or of the tensor's elements; None for a
            constant that is passed as it is, and for an integer in a tuple, which may
            be a static extent.
    """

    index: int
    kind: type[Numeric] | None = None


STREAM = None  # the CUDA stream, which an engine chooses
Template: TypeAlias = "Leaf | tuple[Template, ...] | None"


@dataclass(frozen=True, eq=False)
class Fixed(Fingerprinted):
    """An object that is compiled in; equal where its content is, in every process."""

    value: Any


@dataclass(frozen=True, eq=False)
class Launcher(Fingerprinted):
    """A launcher, and how to call it again.

    Attributes:
        function: the function that ``@cute.jit`` decorates.
        parameters: (name, which arguments of the recorded launch make it up).
    """

    function: Callable[..., Any]
    parameters: tuple[tuple[str, Template], ...]


class FakeTensor(cute.Tensor):  # type: ignore[misc]
    """What ``from_dlpack`` gives while a launch is recorded.

    Which extents are dynamic, and what divides them, comes from the profile alone.
    """

    def __init__(self, tensor: Any, *args: Any, **keywords: Any) -> None:
        # The rest is an alignment, which is the plugin's promise.
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentError(
                f"from_dlpack of a {type(tensor).__name__}: an engine passes the op's "
                "tensors alone."
            )
        self.tensor = tensor
        self.element_type = element_type(tensor.dtype)

    def _unchanged(self, *args: Any, **keywords: Any) -> FakeTensor:
        return self

    mark_layout_dynamic = mark_compact_shape_dynamic = _unchanged

    element_type: Any = None  # a plain attribute, which a user may set
    dtype = property(lambda self: self.element_type)
    memspace = cute.AddressSpace.gmem
    shape = property(lambda self: tuple(self.tensor.shape))
    stride = property(lambda self: tuple(self.tensor.stride()))
    leading_dim = property(lambda self: cute.leading_dim(self.shape, self.stride))
    # Which raises, and says what to do.
    iterator = data_ptr = property(lambda self: self.tensor.data_ptr())

    def __str__(self) -> str:
        return f"Tensor<{self.tensor.dtype}, {self.shape}:{self.stride}>"

    def _refuse(self, *args: Any) -> Any:
        raise ArgumentError(
            "the launch function reads or writes a tensor's elements outside its "
            "kernel. An engine runs the kernel alone: do it there."
        )

    __getitem__ = __setitem__ = fill = layout = _refuse


def is_launcher(function: Any) -> bool:
    """Whether calling ``function`` is calling what ``@cute.jit`` decorates."""
    return getattr(inspect.unwrap(_routine(function)), "_decorator_kind", "") == "jit"


def _routine(function: Any) -> Any:
    """``function``, or the method that calling an object calls."""
    is_object = callable(function) and not inspect.isroutine(function)
    return function.__call__ if is_object else function


def undecorated(function: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The function that ``@cute.jit`` decorates, and what it is called with.

    Raises:
        ArgumentError: ``function`` is not a launcher.
    """
    if not is_launcher(function):
        raise ArgumentError(
            f"{getattr(function, '__qualname__', function)} is compiled by CuTe DSL, "
            "and is not a @cute.jit function. Decorate the function that launches the "
            "kernel with it."
        )
    function = _routine(function)
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
) -> CaughtLaunch:
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
    static = static_parameters(function)
    if unknown := [key for key in overrides if key not in static]:
        raise ArgumentError(
            f"launcher {name}: the config sets {unknown[0]!r}, which is not among its "
            f"Constexpr parameters: {', '.join(sorted(static)) or 'it has none'}."
        )
    bound.arguments.update(overrides)
    reader = _Reader(name)
    parameters = tuple(
        (key, reader.read(key, value, signature.parameters[key].annotation))
        for key, value in bound.arguments.items()
    )
    return CaughtLaunch(
        kernel=Launcher(function, parameters),
        name=name,
        grid=None,
        arguments=tuple(reader.leaves),
        options=options,
        passes_layouts=True,
    )


@dataclass
class _Reader:
    """Takes arguments apart; the leaves become the recorded launch's arguments."""

    launcher: str
    leaves: list[tuple[str, Any, bool]] = field(default_factory=list)

    def read(self, name: str, value: Any, annotation: Any) -> Template:
        if _is_constexpr(annotation):
            return self._constant(name, value)
        if isinstance(value, FakeTensor):
            return self._leaf(name, value.tensor, value.element_type)
        if isinstance(value, torch.Tensor):
            return self._leaf(name, value, element_type(value.dtype))
        if _is_stream(name, value, annotation):
            return STREAM
        if isinstance(value, tuple | list):
            items = enumerate(value)
            return tuple(self.read(f"{name}[{i}]", one, _ITEM) for i, one in items)
        if isinstance(value, Numeric):
            return self._leaf(name, value.value, type(value))
        if isinstance(value, _NUMBERS):
            return self._leaf(name, value, _number_type(value, annotation))
        if isinstance(value, cute.Pointer):
            raise ArgumentError(
                f"launcher {self.launcher}, argument `{name}`: an address, which an "
                "engine does not know before it runs. Pass the tensor."
            )
        return self._constant(name, value)

    def _constant(self, name: str, value: Any) -> Leaf:
        plain = value if isinstance(value, _PLAIN) else Fixed(value)
        return self._leaf(name, plain, None, fixed=True)

    def _leaf(self, name: str, value: Any, kind: Any, fixed: bool = False) -> Leaf:
        self.leaves.append((name, value, fixed))
        return Leaf(len(self.leaves) - 1, kind)


def _is_constexpr(annotation: Any) -> bool:
    return annotation is Constexpr or get_origin(annotation) is Constexpr


def _number_type(value: Any, annotation: Any) -> Any:
    """The type of a number in the launcher, as declared or by CuTe DSL's rules."""
    if annotation is _ITEM and not isinstance(value, float):
        return None
    if isinstance(annotation, type) and issubclass(annotation, Numeric):
        return annotation
    if isinstance(value, bool | torch.SymBool):
        return cutlass.Boolean
    is_float = isinstance(value, float | torch.SymFloat)
    return cutlass.Float32 if is_float else cutlass.Int32


def _is_stream(name: str, value: Any, annotation: Any) -> bool:
    if isinstance(value, driver.CUstream) or annotation is driver.CUstream:
        return True
    return type(value).__name__ == "_FakeStream" or (name == "stream" and value == 0)
