# SPDX-License-Identifier: BSD-3-Clause

"""The call of a CuTe DSL launcher: what each of its arguments is.

A launcher is a ``@cute.jit`` function, or a method that is one. It may take tensors,
numbers, tuples of those, a stream, and whatever else is compiled in. Its arguments are
taken apart: tensors and numbers become the recorded launch's, and templates say how to
put them together again when the launcher is compiled.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, get_type_hints

import cutlass
import cutlass.cute as cute
import torch
from cuda.bindings import driver
from cuda.bindings import runtime as cuda_runtime
from cutlass.base_dsl.runtime.jit_arg_adapters import is_arg_annotation_constexpr
from cutlass.base_dsl.typing import Numeric
from cutlass.cute.runtime import _FakeStream, _FakeTensor
from cutlass.cute.typing import SymInt

from ..._fingerprint import fingerprint
from ..._record.program import Keywords
from ..._specs import Fingerprinted
from ...errors import ArgumentError, DTypeError
from .. import CaughtLaunch

_PLAIN = (bool, int, float, str, type(None), torch.SymInt)  # constants as they are
_ITEM = "item"  # in place of the annotation, for what is in a tuple
_NUMBERS = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)
_STREAMS = (driver.CUstream, cuda_runtime.cudaStream_t, _FakeStream, torch.cuda.Stream)

# CuTe DSL's classes by torch's names, without underscores and capitals.
_ELEMENT_TYPES = {
    name.lower(): kind
    for name, kind in vars(cutlass).items()
    if isinstance(kind, type) and issubclass(kind, Numeric)
} | {"bool": cutlass.Boolean}


def element_type(dtype: torch.dtype) -> type[Numeric]:
    """CuTe DSL's class for the elements of a torch tensor.

    A view may have a dtype that TensorRT lacks, such as an 8-bit float of uint8.

    Raises:
        DTypeError: CuTe DSL has none.
    """
    name = str(dtype).removeprefix("torch.").replace("_", "")
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
        is_address: the tensor's address alone is passed, not its layout.
    """

    index: int
    kind: type[Numeric] | None = None
    is_address: bool = False


@dataclass(frozen=True)
class Record:
    """A NamedTuple or dataclass, made anew of what its fields are made of."""

    cls: type
    fields: tuple[tuple[str, Template], ...]


STREAM = None  # the CUDA stream, which an engine chooses
Template: TypeAlias = "Leaf | Record | tuple[Template, ...] | None"


class Fixed(Fingerprinted):
    """An object that is compiled in, as it is now; equal where its content is.

    A launcher may write to its ``self``, which a library keeps for other shapes, too.
    So that is copied, and what is compared is read at once. The class's own state, as
    the counters of a cache, is not compared.
    """

    def __init__(self, value: Any, is_self: bool = False) -> None:
        self._copies = is_self
        self._value = copy.copy(value) if is_self else value
        content = vars(value) if is_self else value
        self._content = type(value), fingerprint(content)

    @property
    def value(self) -> Any:
        """What the launcher gets."""
        return copy.copy(self._value) if self._copies else self._value

    def fingerprint_parts(self) -> tuple[Any, ...]:
        return (self._value,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        return repr(self._value)


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

    def mark_layout_dynamic(self, leading_dim: int | None = None) -> FakeTensor:
        return self

    def mark_compact_shape_dynamic(
        self, mode: int, stride_order: Any = None, divisibility: int = 1
    ) -> FakeTensor:
        # The compiler gets this fact, as any, where the profile proves it. As in CuTe
        # DSL, the function fails where it does not hold.
        if divisibility > 1 and self.shape[mode] % divisibility != 0:
            raise ValueError(
                f"mark_compact_shape_dynamic: extent {mode} is {self.shape[mode]}, and "
                f"is marked as a multiple of {divisibility}."
            )
        return self

    element_type: Any = None  # a plain attribute, which a user may set
    dtype = property(lambda self: self.element_type)
    memspace = cute.AddressSpace.gmem
    shape = property(lambda self: tuple(self.tensor.shape))
    stride = property(lambda self: tuple(self.tensor.stride()))
    leading_dim = property(lambda self: cute.leading_dim(self.shape, self.stride))
    iterator = property(lambda self: FakePointer(self.tensor, self.element_type))
    # Which raises, and says what to do.
    data_ptr = property(lambda self: self.tensor.data_ptr())

    def __str__(self) -> str:
        return f"Tensor<{self.tensor.dtype}, {self.shape}:{self.stride}>"

    def _refuse(self, *args: Any) -> Any:
        raise ArgumentError(
            "the launch function reads or writes a tensor's elements outside its "
            "kernel. An engine runs the kernel alone: do it there."
        )

    __getitem__ = __setitem__ = fill = layout = _refuse

    def __c_pointers__(self) -> Any:
        raise ArgumentError(
            "the launch function asks for the memory behind a tensor's handle "
            "(__c_pointers__), to write an address there itself. An engine knows its "
            "addresses when it runs: pass what from_dlpack returns for each tensor."
        )


class FakePointer(cute.Pointer):  # type: ignore[misc]
    """The address of a tensor, as ``iterator`` and ``make_ptr`` give it while a launch
    is recorded."""

    memspace = cute.AddressSpace.gmem
    dtype = value_type = property(lambda self: self._dtype)

    def __init__(self, tensor: torch.Tensor, dtype: type[Numeric]) -> None:
        self.tensor, self._dtype = tensor, dtype

    def _refuse(self, *args: Any) -> Any:
        raise ArgumentError(
            "the launch function computes with a tensor's address, which an engine "
            "does not know before it runs. Pass a view, or offset it in the kernel."
        )

    __add__ = __sub__ = toint = align = _refuse


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


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Of a function that is not decorated."""
    return inspect.signature(function, eval_str=True)


def constants_of(signature: inspect.Signature) -> frozenset[str]:
    """Names of the parameters that are compiled in: ``Constexpr``, and ``self``."""
    parameters = enumerate(signature.parameters.values())
    return frozenset(
        p.name
        for index, p in parameters
        if is_arg_annotation_constexpr(p.annotation, p.name, index, None)
    )


def bind(
    launcher: str,
    signature: inspect.Signature,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
) -> inspect.BoundArguments:
    """The arguments of a call, and defaults for the others.

    Raises:
        ArgumentError: they do not fit the signature.
    """
    try:
        bound = signature.bind(*args, **keywords)
    except TypeError as error:
        raise ArgumentError(f"launcher {launcher}{signature}: {error}.") from error
    bound.apply_defaults()
    return bound


def read_launch(
    function: Callable[..., Any],
    bound: inspect.BoundArguments,
    passed: Sequence[Any],
    overrides: Mapping[str, Any] = MappingProxyType({}),
    options: Mapping[str, Any] = MappingProxyType({}),
    choices: tuple[Keywords, ...] = (),
) -> CaughtLaunch:
    """The launch that calling ``function``, which is not decorated, would make.

    Args:
        bound: its arguments.
        passed: the arguments as the launch function gives them.
        overrides: take the place of compile-time constants, by name.
        options: of ``cute.compile``.
        choices: of an autotuner; ``bound`` holds one of them.

    Raises:
        ArgumentError: the arguments do not fit.
    """
    name, signature = function.__qualname__, bound.signature
    static = constants_of(signature)
    if unknown := [key for key in overrides if key not in static]:
        valid = ", ".join(sorted(static - {"self"}))
        raise ArgumentError(
            f"launcher {name}: the config sets {unknown[0]!r}, which is not among its "
            f"Constexpr parameters: {valid or 'it has none'}."
        )
    reader, parameters = Reader(name), []
    for key, value in {**bound.arguments, **overrides}.items():
        annotation = signature.parameters[key].annotation
        template = reader.read(key, value, annotation, is_constant=key in static)
        parameters.append((key, template))
    for key, value, _ in reader.leaves:
        if isinstance(value, cute.Pointer):
            raise ArgumentError(
                f"launcher {name}, argument `{key}`: an address, which an engine does "
                "not know before it runs. Pass the tensor, or its pointer."
            )
    _require_all_bound(name, passed, reader.leaves)
    return CaughtLaunch(
        kernel=Launcher(function, tuple(parameters)),
        name=name,
        grid=None,
        arguments=tuple(reader.leaves),
        options=options,
        choices=choices,
        passes_layouts=True,
    )


def _require_all_bound(
    launcher: str, passed: Sequence[Any], leaves: Sequence[tuple[str, Any, bool]]
) -> None:
    """Raise unless the launcher gets each tensor that it is passed, as often.

    A tensor that goes to a stream, or is dropped, makes a kernel that computes
    something else.
    """
    given = Counter(_storage(tensor) for tensor in _tensors_in(passed))
    bound = [tensor for _, tensor, _ in leaves if isinstance(tensor, torch.Tensor)]
    if given != Counter(map(_storage, bound)):
        names = ", ".join(n for n, t, _ in leaves if isinstance(t, torch.Tensor))
        raise ArgumentError(
            f"launcher {launcher}: it is passed {given.total()} tensors, and its "
            f"parameters take {len(bound)} ({names or 'none'}). Pass tensors as "
            "arguments that are not Constexpr, alone or in tuples, NamedTuples and "
            "dataclasses."
        )


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors that an argument is or holds."""
    if isinstance(value, FakeTensor | FakePointer):
        yield value.tensor
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, Mapping):
        yield from _tensors_in(list(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _tensors_in([getattr(value, f.name) for f in fields(value)])


def is_record(value: Any) -> bool:
    """Whether it is a user's NamedTuple or dataclass, not one of CuTe DSL's own."""
    cls = type(value)
    is_named_tuple = isinstance(value, tuple) and hasattr(cls, "_fields")
    is_own = cls.__module__.partition(".")[0] == "cutlass"
    return (is_named_tuple or is_dataclass(cls)) and not is_own


@dataclass
class Reader:
    """Takes arguments apart; the leaves become the recorded launch's arguments.

    Attributes:
        leaves: (name, value, is compiled in).
    """

    launcher: str
    leaves: list[tuple[str, Any, bool]] = field(default_factory=list)

    @property
    def constants(self) -> list[tuple[str, type, Any]]:
        """The leaves that are compiled in; ``1``, ``1.0`` and ``True`` differ."""
        return [(n, type(value), value) for n, value, fixed in self.leaves if fixed]

    def read(
        self, name: str, value: Any, annotation: Any, is_constant: bool = False
    ) -> Template:
        """How the argument ``name`` is made of the leaves that are added for it."""
        if is_constant:
            return self._constant(name, value)
        if self._is_stream(name, value, annotation):
            return STREAM
        if isinstance(value, FakeTensor):
            return self._leaf(name, value.tensor, value.element_type)
        if isinstance(value, _FakeTensor):
            return self._leaf(name, value, value.element_type)
        if isinstance(value, torch.Tensor):
            return self._leaf(name, value, element_type(value.dtype))
        if is_record(value):
            return self._record(name, value)
        if isinstance(value, tuple | list):
            items = enumerate(value)
            return tuple(self.read(f"{name}[{i}]", one, _ITEM) for i, one in items)
        if isinstance(value, Numeric):
            return self._leaf(name, value.value, type(value))
        if isinstance(value, (*_NUMBERS, SymInt)):
            return self._leaf(name, value, _number_type(value, annotation))
        if isinstance(value, cute.Pointer):
            leaf = self._leaf(name, getattr(value, "tensor", value), value.dtype)
            return replace(leaf, is_address=True)
        return self._constant(name, value)

    def _record(self, name: str, value: Any) -> Record:
        """A NamedTuple or dataclass; one that says itself what it passes to the
        kernel, as libraries' own do, keeps its plain values."""
        cls, members = type(value), []
        is_own = hasattr(cls, "__get_mlir_types__")
        hints = get_type_hints(cls)
        declared = {f.name: f.init for f in fields(cls)} if is_dataclass(cls) else {}
        for key in declared or cls._fields:
            path, member, hint = f"{name}.{key}", getattr(value, key), hints.get(key)
            if not declared.get(key, True):
                raise ArgumentError(
                    f"launcher {self.launcher}, argument `{path}`: a field that "
                    f"{cls.__qualname__} does not take. Declare it without init=False."
                )
            is_constant = is_arg_annotation_constexpr(hint, key, 1, None) or (
                is_own and isinstance(member, _PLAIN)
            )
            members.append((key, self.read(path, member, hint, is_constant)))
        return Record(cls, tuple(members))

    def _is_stream(self, name: str, value: Any, annotation: Any) -> bool:
        is_default = name == "stream" and type(value) is int and value == 0
        if isinstance(value, _STREAMS) or is_default:
            return True
        is_declared = annotation is driver.CUstream
        # torch.cuda.current_stream() is another object where there is no GPU.
        handle = getattr(value, "cuda_stream", value)
        if is_declared and not isinstance(handle, int | None):
            raise ArgumentError(
                f"launcher {self.launcher}, argument `{name}`: it is declared as a "
                f"stream, and gets a {type(value).__name__}."
            )
        return is_declared

    def _constant(self, name: str, value: Any) -> Leaf:
        is_self = name == "self" and type(getattr(value, "__dict__", None)) is dict
        plain = value if isinstance(value, _PLAIN) else Fixed(value, is_self)
        return self._leaf(name, plain, None, fixed=True)

    def _leaf(self, name: str, value: Any, kind: Any, fixed: bool = False) -> Leaf:
        self.leaves.append((name, value, fixed))
        return Leaf(len(self.leaves) - 1, kind)


def _number_type(value: Any, annotation: Any) -> Any:
    """The type of a number in the launcher, as declared or by CuTe DSL's rules."""
    if annotation is _ITEM and not isinstance(value, float):
        return None
    if isinstance(annotation, type) and issubclass(annotation, Numeric):
        return annotation
    if isinstance(value, SymInt):
        return cutlass.Int32 if value.width == 32 else cutlass.Int64
    if isinstance(value, bool | torch.SymBool):
        return cutlass.Boolean
    is_float = isinstance(value, float | torch.SymFloat)
    return cutlass.Float32 if is_float else cutlass.Int32
