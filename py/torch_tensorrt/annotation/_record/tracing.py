# SPDX-License-Identifier: BSD-3-Clause

"""Run a function on fake tensors, and keep the sizes it computes as expressions.

A dimension known at build time is a plain int there; a dynamic one is a symbol with the
profile's range, which decides what the function asks of it as far as it can. The
machine may have no GPU, and some functions that launch functions call do not take fake
tensors or symbolic sizes. Those are replaced while a function is traced.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import itertools
import logging
import math
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from multiprocessing.pool import Pool
from traceback import FrameSummary
from types import SimpleNamespace
from typing import Any, TypeAlias, TypeVar

import sympy
import torch
import torch.fx.experimental._config as shape_config
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    free_unbacked_symbols,
    uninteresting_files,
)
from torch.overrides import TorchFunctionMode
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

from .._sizes.canonical import cancelled
from .._sizes.expressions import on_ints
from .._sizes.to_tensorrt import expressible
from .._tensors import Range, TensorInfo, ranges_of, symbol
from ..errors import (
    AnnotationError,
    ArgumentError,
    DataDependentError,
    RecordError,
    place,
)
from .address import Address
from .device import QUESTIONS
from .recording import (
    begin_run,
    in_torch,
    refuse,
    refuse_later,
    running,
    users_line,
)
from .tables import Again, keep

T = TypeVar("T")
Modes: TypeAlias = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that the profile left open and one run took for true.

    Attributes:
        where: ``file:line in function`` that asked.
        is_torchs: torch asked of itself, in what a user's line called.
    """

    condition: sympy.Basic
    where: str
    is_torchs: bool

    @property
    def is_equality(self) -> bool:
        """Whether it says that two extents agree."""
        return isinstance(self.condition, sympy.Eq) and all(
            side.is_Symbol for side in self.condition.args
        )

    @property
    def constants(self) -> set[int]:
        """The numbers that the condition names."""
        return {int(number) for number in self.condition.atoms(sympy.Integer)}

    def negated(self) -> Guard:
        """The other answer to the same question."""
        return replace(self, condition=sympy.Not(self.condition))

    def holds(self, extents: Mapping[sympy.Symbol, int]) -> bool:
        """Whether it is true of these extents."""
        try:
            return bool(on_ints(self.condition)(extents))
        except ZeroDivisionError:
            return False


class Trace:
    """One run: the fake inputs, and a reading of the sizes computed from them.

    Attributes:
        inputs: contiguous fake CUDA tensors, one for each :class:`TensorInfo`; None for
            an input that is not given.
        outputs: what the fake kernel made of them; None as long as it was not asked.
        buffers: memory for the outputs, which all functions of this trace share.
        ranges: of the symbols.
    """

    def __init__(
        self,
        tensors: Sequence[TensorInfo | None],
        hints: Mapping[sympy.Symbol, int],
        plain: Modes | None = None,
    ) -> None:
        """
        Args:
            hints: extents that the run takes the dynamic dimensions to have.
            plain: make the fakes, with plain ints for sizes; None for symbols.
        """
        self.outputs: tuple[torch.Tensor, ...] | None = None
        self.buffers: tuple[torch.Tensor, ...] | None = None
        self.ranges = ranges_of(tensors)
        self._canonical: dict[sympy.Symbol, sympy.Symbol] = {}
        self._around: Callable[[], AbstractContextManager[None]] = nullcontext
        sizes: Mapping[sympy.Symbol, int | torch.SymInt] = hints
        if plain is None:
            self._env = ShapeEnv(specialize_zero_one=False, duck_shape=False)
            plain = FakeTensorMode(shape_env=self._env), FakeTensors()
            sizes = {
                s: self._symint(s, extent, hints[s])
                for s, extent in self.ranges.items()
            }
            self._around = _symbolic
        self._modes = plain
        with self._modes[0], self._modes[1]:
            self.inputs: tuple[torch.Tensor | None, ...] = tuple(
                None
                if tensor is None
                else torch.empty(
                    [
                        sizes[symbol(i, axis)] if isinstance(extent, Range) else extent
                        for axis, extent in enumerate(tensor.shape)
                    ],
                    dtype=tensor.dtype,
                    device="cuda",
                )
                for i, tensor in enumerate(tensors)
            )

    def _symint(
        self, name: sympy.Symbol, extent: Range, hint: int
    ) -> int | torch.SymInt:
        source = ConstantSource(name.name)
        internal = self._env.create_symbol(
            hint,
            source=source,
            dynamic_dim=DimDynamic.DYNAMIC,
            # torch takes sizes for positive, and simplifies max(n, 1) to n.
            positive=True if extent.min > 0 else None,
        )
        self._env.constrain_symbol_range(internal, extent.min, extent.max)
        self._canonical[internal] = name
        return self._env.create_symintnode(internal, hint=hint, source=source)

    def run(self, function: Callable[[Trace], T]) -> T:
        """``function`` of this trace, within :func:`tracing`."""
        try:
            return self._run_past_keys(function)
        except Again:
            pass
        while True:
            try:
                return self._run_past_keys(function)
            except Again:
                continue
            except Exception:  # it needs what a table held
                keep()
                return self._run_past_keys(function)

    def _run_past_keys(self, function: Callable[[Trace], T]) -> T:
        _keys.begin(next(_number))
        try:
            result = self._run(function)
            if _keys.are_kept():
                return result
        except AnnotationError:
            raise
        except Exception:
            if not _keys.asked:
                raise
        _keys.begin(None)  # once more: it looked up a size, and did not store it
        return self._run(function)

    def _run(self, function: Callable[[Trace], T]) -> T:
        begin_run()
        with self._around(), self._modes[0], self._modes[1]:
            return function(self)

    def expr(self, size: int | torch.SymInt | torch.SymBool | torch.SymFloat) -> Any:
        """The expression of a size, over the symbols of ``expressions.symbol``.

        Raises:
            DataDependentError: it does not follow from the inputs' extents alone.
        """
        if isinstance(size, torch.SymInt | torch.SymBool | torch.SymFloat):
            if free_unbacked_symbols(size):
                raise DataDependentError(
                    "a size or an argument depends on the values of a tensor. Before "
                    "the kernel runs, an engine knows extents only: allocate the "
                    "largest size, and let the kernel write how much of it counts."
                )
            return expressible(size.node.expr.xreplace(self._canonical), self.ranges)
        return sympy.Integer(operator.index(size))

    def guards(self) -> list[Guard]:
        """The conditions this run took for true, in the order it asked."""
        return [
            Guard(
                cancelled(guard.expr.xreplace(self._canonical), self.ranges),
                _where(guard.sloc.framework_loc),
                _is_torchs(guard.sloc.framework_loc),
            )
            for guard in self._env.guards
        ]

    def pinned(self) -> dict[sympy.Basic, sympy.Basic]:
        """The symbols that the conditions of this run replaced, and by what."""
        return {
            self._canonical[s]: value.xreplace(self._canonical)
            for s, value in self._env.replacements.items()
        }


def as_tensors(value: Any, what: str) -> tuple[torch.Tensor, ...]:
    """What an op, or its fake kernel, returned, as a tuple of tensors; none for None.

    Raises:
        ArgumentError: it is not a tensor, or tensors.
    """
    if value is None:
        return ()
    tensors = tuple(value) if isinstance(value, tuple | list) else (value,)
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentError(
                f"{what} returned {type(tensor).__name__}; it must return one tensor, "
                "or a tuple of tensors."
            )
    return tensors


def _where(frame: FrameSummary | str | None) -> str:
    if isinstance(frame, FrameSummary):
        return f"{place(frame.filename, frame.lineno or 0)} in {frame.name}"
    return str(frame)


def _is_torchs(frame: FrameSummary | str | None) -> bool:
    return not isinstance(frame, FrameSummary) or in_torch(frame.filename)


# --- What the function sees while it is traced ----------------------------------------

_THREADS = (
    (threading.Thread, "start"),
    (ThreadPoolExecutor, "submit"),
    # Of processes too: they would not see what is recorded either.
    *((Pool, name) for name in ("apply_async", "map", "map_async")),
    *((Pool, name) for name in ("imap", "imap_unordered", "starmap", "starmap_async")),
)
_lock = threading.RLock()


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Around the runs of a function. One thread traces at a time; others go on.

    Raises:
        RecordError: this thread is tracing already.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(running())
        stack.enter_context(_lock)
        uninteresting_files().add(__file__)  # a guard is at the line that calls this
        # torch asks of a dynamic size whether it is 1 only where the code asks that.
        size_oblivious = {"backed_size_oblivious": True}
        stack.enter_context(shape_config.patch(size_oblivious))  # type: ignore[attr-defined]
        if not torch.cuda.is_available():
            stack.enter_context(_patched(torch.cuda, "device", _NoDevice))
            stack.enter_context(_patched(torch.cuda, "current_stream", _no_stream))
        for owner, name, answer in QUESTIONS:
            answer = _in_this_thread(answer, getattr(owner, name, None))
            stack.enter_context(_patched(owner, name, answer))
        for owner, name in _THREADS:
            refuse = _in_this_thread(_refuse_thread, getattr(owner, name))
            stack.enter_context(_patched(owner, name, refuse))
        address = _in_this_thread(_storage_address, torch.UntypedStorage.data_ptr)
        stack.enter_context(_patched(torch.UntypedStorage, "data_ptr", address))
        stack.enter_context(_quiet("torch._subclasses.fake_tensor"))
        yield


@contextlib.contextmanager
def _symbolic() -> Iterator[None]:
    """Around a run whose sizes are symbols.

    Python asks a module's builtins of the process, so they are replaced in it; other
    threads get the builtin itself through the replacement.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, function in _REPLACED:
            original = getattr(owner, name, None)  # sizes lack `~`
            replacement = _in_this_thread(function, original)
            stack.enter_context(_patched(owner, name, replacement))
        yield


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if original is None else setattr(owner, name, original)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Rejected shapes are tried on purpose; torch logs each as an error."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _in_this_thread(
    replacement: Callable[..., Any], original: Any
) -> Callable[..., Any]:
    """``replacement``, which is given the original first, for this thread alone."""
    thread = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **kwargs)
        return replacement(original, *args, **kwargs)

    return call


def _choice(function: Callable[..., Any]) -> Callable[..., Any]:
    """``min`` or ``max`` that makes an expression of sizes and does not compare."""

    def choose(builtin: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        values = args[0] if len(args) == 1 else args
        is_list = isinstance(values, tuple | list) and not kwargs
        if is_list and any(isinstance(value, torch.SymInt) for value in values):
            return reduce(function, values)
        return builtin(*args, **kwargs)

    return choose


def _divmod(builtin: Callable[..., Any], a: Any, b: Any) -> Any:
    """``divmod``, which torch's symbolic sizes do not have."""
    if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
        return a // b, a % b
    return builtin(a, b)


def _log2(original: Callable[..., Any], value: Any) -> Any:
    is_size = isinstance(value, torch.SymInt | torch.SymFloat)
    return torch._sym_log2(value) if is_size else original(value)  # type: ignore[attr-defined]


def _len(builtin: Callable[..., Any], value: Any) -> Any:
    """``len``, which must be an int for Python, of a tensor."""
    is_tensor = isinstance(value, torch.Tensor) and value.dim() > 0
    return value.shape[0] if is_tensor else builtin(value)


def _floordiv(original: Callable[..., Any], a: Any, b: Any) -> Any:
    """torch merges ``(a // b) // -c`` into ``a // (-b * c)``, which is not the same."""
    is_merged = isinstance(a, torch.SymInt) and isinstance(a.node.expr, FloorDiv)
    if (isinstance(b, int) or is_merged) and b < 0:
        return -original(a - b - 1, -b)
    return original(a, b)


def _mod(original: Callable[..., Any], a: Any, b: Any) -> Any:
    if isinstance(b, int) and b < 0:
        return -original(-a, -b)
    return original(a, b)


def _counted(original: Callable[..., Any], *operands: Any) -> Any:
    """Arithmetic with a condition, which counts as 0 or 1; torch would decide it.

    Sizes of torch 2.11 do not take a plain ``True`` either.
    """
    return original(*map(_as_number, operands))


def _as_number(value: Any) -> Any:
    """``n % 4 != 0`` as what ``n / 4`` rounded up has more than rounded down."""
    if isinstance(value, bool):
        return int(value)
    condition = value.node.expr if isinstance(value, torch.SymBool) else None
    if not isinstance(condition, sympy.Ne | sympy.Eq):
        return value
    remainder, zero = condition.args
    if zero != 0 or not isinstance(remainder, Mod | PythonMod):
        return value
    base, divisor = remainder.args
    if not divisor.is_positive:
        return value
    rest = FloorDiv(base + divisor - 1, divisor) - FloorDiv(base, divisor)
    number = rest if isinstance(condition, sympy.Ne) else 1 - rest
    hint = int(value.node.hint)
    return value.node.shape_env.create_symintnode(number, hint=hint)


class Shape(tuple[Any, ...]):
    """A ``torch.Size``, which would make its ``numel()`` an int."""

    __slots__ = ()
    __class__: Any = property(lambda self: torch.Size)

    def numel(self) -> Any:
        return reduce(operator.mul, self, 1)

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return Shape(item) if isinstance(index, slice) else item


Size: TypeAlias = torch.SymInt | torch.SymBool


class _Keys(threading.local):
    """The sizes, and comparisons of sizes, that a run used as keys of tables.

    A function looks a size up for one of two reasons. Its table may hold values that it
    chooses by the size: then the size must be the int that Python looks for, which
    makes a guard. Or it is a cache, which holds what it made for the sizes that it met:
    then the size is as good a key as any, and a new one in each run. The two can be
    told apart afterwards: a cache has kept the key.
    """

    def __init__(self) -> None:  # in each thread
        self.begin(None)

    def begin(self, number: int | None) -> None:
        """A run begins.

        Args:
            number: no other run's; None: a size is looked up as the int.
        """
        self.number = number
        self.asked: dict[int, list[Size]] = {}

    def hash_of(self, size: Size) -> int:
        """The hash of a size that the user's code asks for."""
        if self.number is None:
            return hash(int(size))
        key = hash((self.number, str(size.node.expr)))
        self.asked.setdefault(key, []).append(size)
        return key

    def are_kept(self) -> bool:
        """Whether each of the keys is now in a table."""
        if not self.asked:
            return True
        kept = _in_tables([size for sizes in self.asked.values() for size in sizes])
        return all(kept & set(map(id, sizes)) for sizes in self.asked.values())


_keys, _number = _Keys(), itertools.count()
_DEEPEST_KEY = 4  # a size in a tuple in a tuple


def _in_tables(sizes: list[Size]) -> set[int]:
    """The identities of those that are in a key of a dict or set."""
    kept: set[int] = set()
    inside = {id(size): {id(size)} for size in sizes}  # what holds which of them
    holders: list[Any] = list(sizes)
    for _ in range(_DEEPEST_KEY):
        referrers = gc.get_referrers(*holders)
        outer: dict[int, set[int]] = {}
        for holder in referrers:
            is_dict = issubclass(type(holder), dict)
            if is_dict or type(holder) in (set, frozenset):
                # An OrderedDict hashes its keys when it is iterated over.
                keys = dict.__iter__(holder) if is_dict else holder
                kept.update(*(inside.get(id(key), set()) for key in keys))
            is_key = isinstance(holder, tuple | frozenset)
            if is_key and holder is not referrers:
                found = (inside.get(id(item), set()) for item in holder)
                outer.setdefault(id(holder), set()).update(*found)
        holders = [r for r in referrers if id(r) in outer]
        inside = outer
        if not holders:
            break
    return kept


def _hash(original: Callable[..., Any], size: Any) -> int:
    """What a table asks first; torch raises."""
    is_torchs = in_torch(sys._getframe(2).f_code.co_filename)
    return int(original(size)) if is_torchs else _keys.hash_of(size)


def _storage_address(original: Callable[..., Any], storage: Any) -> Any:
    """``untyped_storage().data_ptr()``, which is 0 of every fake."""
    is_torchs = in_torch(sys._getframe(2).f_code.co_filename)
    return original(storage) if is_torchs else Address(storage)


def _refuse_thread(*_: Any, **__: Any) -> None:
    refuse(
        RecordError(
            "the launch function hands work to another thread. A launch there would "
            "not be recorded: launch the kernel in the function itself."
        )
    )


# Replacements of Python's functions, and of methods of sizes, while sizes are symbols.
_REPLACED: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (builtins, "min", _choice(torch.sym_min)),
    (builtins, "max", _choice(torch.sym_max)),
    (builtins, "divmod", _divmod),
    (builtins, "len", _len),
    (math, "log2", _log2),
    (torch.SymInt, "__floordiv__", _floordiv),
    (torch.SymInt, "__mod__", _mod),
    (torch.SymInt, "__invert__", lambda original, a: -a - 1),
    (torch.SymInt, "__hash__", _hash),
    (torch.SymBool, "__hash__", _hash),
    # As a key finds it in a table; torch makes an equation that sympy does not.
    (torch.SymBool, "__eq__", lambda original, a, b: bool(a) == b),
    *(
        (cls, f"__{name}__", _counted)
        for cls in (torch.SymInt, torch.SymBool)
        for name in ("add", "radd", "sub", "rsub", "mul", "rmul")
    ),
)


class _NoDevice(contextlib.nullcontext[None]):
    """``torch.cuda.device(...)`` where there is none."""


def _no_stream(device: Any = None) -> Any:
    """``torch.cuda.current_stream()`` where there is none."""
    return SimpleNamespace(cuda_stream=0, device=device)


class FakeTensors(TorchFunctionMode):
    """What fake CUDA tensors cannot do, or do wrongly."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.data_ptr:
            return Address.of(args[0])
        # torch's own assignment asks whether leading extents of the value are 1.
        is_asked = not torch._C._has_cuda or func is torch.Tensor.__setitem__
        if is_asked and (how := _WITHOUT_CUDA.get(func)):
            result = how(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        try:
            result = func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if any(text in str(error) for text in _OF_FAKES):
                refuse_later(_swallowed(error))
            raise
        if func in _EXPANDING:
            result.strides_of_one = _strides_of_one(args[0], result)
        elif func is torch.Tensor.stride and hasattr(args[0], "strides_of_one"):
            known, more = args[0].stride(), args[0].strides_of_one
            strides = tuple(map(operator.add, known, more))
            return strides[args[1]] if len(args) > 1 else strides
        if type(result) is torch.Size and any(
            isinstance(n, torch.SymInt) for n in result
        ):
            return Shape(result)
        return result


# How errors begin that no tensor on a GPU raises.
_OF_FAKES = (
    "PyTorch is not linked with support for cuda devices",
    ".numpy() is not supported for tensor subclasses",
    "The tensor has a non-zero number of elements, but its data is not allocated",
)


def _swallowed(error: RuntimeError) -> RecordError:
    (reason, *_) = str(error).splitlines()
    return RecordError(
        f"the function swallows an error of a tensor without memory, at {users_line()}:"
        f" {reason.rstrip('.')}. A tensor on a GPU does not raise it, so what follows "
        "would be recorded wrongly. Leave the call out."
    )


_EXPANDING = {
    *(torch.Tensor.expand, torch.Tensor.expand_as, torch.Tensor.broadcast_to),
    torch.broadcast_to,
}


def _strides_of_one(tensor: torch.Tensor, expanded: torch.Tensor) -> list[Any]:
    """By how much torch understates the strides of an expanded tensor.

    An axis that is made longer has the stride 0, and one whose new size is 1 has that
    of a whole tensor. Of a symbol, torch takes for granted that it is not 1.
    """
    sizes, strides = expanded.shape, list(expanded.stride())
    more: list[Any] = [0] * expanded.dim()
    for axis in range(expanded.dim() - 2, -1, -1):
        size: Any = sizes[axis]
        own = axis - expanded.dim() + tensor.dim()
        is_symbol = isinstance(size, torch.SymInt)
        if is_symbol and size.node.shape_env.bound_sympy(size.node.expr).lower == 1:
            whole = sizes[axis + 1] * (strides[axis + 1] + more[axis + 1])
            if strides[axis] == 0:
                of_one = whole if own < 0 else tensor.stride(own)
                is_more = torch.sym_min(size - 1, 1)  # type: ignore[no-untyped-call]
                more[axis] = of_one * (1 - is_more)
    return more


# --- What a torch without CUDA cannot do with a CUDA tensor, not even a fake one ------

_BASIC_INDEX = (int, torch.SymInt, slice, type(Ellipsis))


def _getitem(tensor: torch.Tensor, key: Any) -> Any:
    if (found := _viewed(tensor, key)) is None:
        return NotImplemented
    view, indices = found
    return torch.ops.aten.index.Tensor(view, indices) if indices else view


def _setitem(tensor: torch.Tensor, key: Any, value: Any) -> Any:
    if (found := _viewed(tensor, key)) is None:
        return NotImplemented
    view, indices = found
    if indices:
        value = torch.as_tensor(value, dtype=view.dtype, device=view.device)
        return torch.ops.aten.index_put_.default(view, indices, value)
    if isinstance(value, torch.Tensor):
        return _copy(view, value)
    return torch.ops.aten.fill_.Scalar(view, value)


def _viewed(tensor: torch.Tensor, key: Any) -> tuple[Any, list[Any]] | None:
    """A view, and the tensors that index it; None where this is not known."""
    keys = list(key) if isinstance(key, tuple) else [key]
    are_tensors = [isinstance(k, torch.Tensor) and k.dtype != torch.bool for k in keys]
    is_mixed = any(are_tensors) and any(isinstance(k, int | torch.SymInt) for k in keys)
    are_known = (
        is_tensor or k is None or isinstance(k, _BASIC_INDEX)
        for k, is_tensor in zip(keys, are_tensors, strict=True)
    )
    if is_mixed or not all(are_known):
        return None
    if not any(are_tensors):
        return _index(tensor, keys), []
    if any(k is Ellipsis for k in keys):
        return None
    basic = [slice(None) if isinstance(k, torch.Tensor) else k for k in keys]
    indices = [k if isinstance(k, torch.Tensor) else None for k in keys]
    return _index(tensor, basic), indices


def _contiguous(tensor: torch.Tensor, **kwargs: Any) -> Any:
    if kwargs or tensor.is_contiguous():
        return NotImplemented
    how = {"memory_format": torch.contiguous_format}
    return torch.ops.aten.clone.default(tensor, **how)


def _new_tensor(tensor: torch.Tensor, data: Any, **kwargs: Any) -> Any:
    return torch.tensor(
        data, **{"dtype": tensor.dtype, "device": tensor.device, **kwargs}
    )


def _copy(tensor: torch.Tensor, source: torch.Tensor, *_: Any, **__: Any) -> Any:
    return torch.ops.aten.copy_.default(tensor, source)


def _to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    if device is None or device.type == tensor.device.type:
        return NotImplemented
    options = {"device": device, "dtype": dtype, "memory_format": memory_format}
    return torch.ops.aten._to_copy.default(tensor, **options)


_WITHOUT_CUDA: dict[Any, Callable[..., Any]] = {
    torch.Tensor.__getitem__: _getitem,
    torch.Tensor.__setitem__: _setitem,
    torch.Tensor.contiguous: _contiguous,
    torch.Tensor.copy_: _copy,
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.to: _to,
    torch.Tensor.cuda: lambda tensor, *_, **__: _to(tensor, torch.device("cuda")),
}


def _index(tensor: torch.Tensor, key: list[Any]) -> torch.Tensor:
    if Ellipsis in key:
        at = key.index(Ellipsis)
        named = sum(k is not None for k in key) - 1
        key[at : at + 1] = [slice(None)] * (tensor.dim() - named)
    axis = 0
    for k in key:
        if k is None:
            tensor = tensor.unsqueeze(axis)
        elif k == slice(None):
            pass
        elif isinstance(k, slice):
            tensor = torch.ops.aten.slice(tensor, axis, k.start, k.stop, k.step or 1)
        else:
            tensor = tensor.select(axis, k)
            continue
        axis += 1
    return tensor
