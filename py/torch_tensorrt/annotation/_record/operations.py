# SPDX-License-Identifier: BSD-3-Clause

"""What a launch function does with torch while it is recorded, beside its launches.

Views cost nothing in an engine, and allocations are TensorRT's. Every other operation
is a step of its own between the launches, and stays a torch operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import sympy
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.fx.experimental.symbolic_shapes import (
    free_unbacked_symbols,
    statically_known_true,
)
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from .._sizes.expressions import shown
from ..errors import ArgumentError, DataDependentError, RecordError
from .program import (
    CaughtDescriptor,
    CaughtLaunch,
    Constant,
    Keywords,
    Operation,
    OpOverload,
    View,
)
from .recording import refuse, users_line

# Equal for tensors that are the same memory; as long as torch learns nothing of sizes.
_Geometry: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class CaughtOperation:
    """An operation as torch dispatched it, while the function is still running.

    Attributes:
        arguments: by name; those that were not given are left out.
        written: the storages that it writes.
        results: the tensors that it makes.
        where: ``file:line in function`` of the user's that calls it.
    """

    op: OpOverload
    arguments: Mapping[str, Any]
    written: tuple[int, ...]
    results: tuple[torch.Tensor, ...]
    where: str

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its arguments, in the order of a program's :class:`Operation`."""
        return _tensors_of(dict(sorted(self.arguments.items())))


@dataclass(frozen=True)
class _Made:
    """Where a storage comes from.

    Attributes:
        maker: the operation.
        tensor: all of it, contiguous where that can be; it keeps the storage, or its
            identity would come again.
        order: the axes of what was made, as they lie in memory; None: in their order.
        is_allocated: the operation does nothing more.
    """

    maker: str
    tensor: torch.Tensor
    order: tuple[int, ...] | None = None
    is_allocated: bool = False

    @property
    def is_uninitialized(self) -> bool:
        sizes = self.tensor.shape
        return self.is_allocated or any(type(s) is int and s == 0 for s in sizes)

    @property
    def is_as_given(self) -> bool:
        """Whether no operation of torch's decides how it lies in memory."""
        return self.is_uninitialized or self.maker.startswith("input ")


@dataclass(frozen=True)
class _ViewOf:
    """How a tensor came to be a view of another.

    Attributes:
        arguments: of the operation, beside ``base``.
        index: of the tensor among the operation's results.
    """

    tensor: torch.Tensor
    base: torch.Tensor
    op: Any
    arguments: Mapping[str, Any]
    index: int


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the steps of a function while entered: launches, and torch's operations.

    Attributes:
        what: how errors name the function.
        steps: in order.
    """

    def __init__(self, what: str) -> None:
        """
        Args:
            what: how errors name the function.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.what = what
        self._guarded: set[int] = set()
        self._given: list[torch.Tensor] = []
        self._made: dict[int, _Made] = {}
        self._views: dict[int, list[_ViewOf]] = {}
        self.steps: list[CaughtLaunch | CaughtOperation] = []

    def begin(
        self,
        inputs: Sequence[torch.Tensor | None],
        outputs: Sequence[torch.Tensor | None],
        writable: frozenset[int],
    ) -> None:
        """The function is called now.

        Args:
            outputs: buffers that it is handed, or would be.
            writable: the inputs that it may write, by number.
        """
        self._given = [t for t in (*inputs, *outputs) if t is not None]
        with torch._C.DisableTorchFunction():
            for index, tensor in enumerate(inputs):
                if tensor is not None:
                    storage = storage_of(tensor)
                    self._made[storage] = _Made(f"input {index}", tensor)
                    if index not in writable:
                        self._guarded.add(storage)
            for tensor in outputs:
                if tensor is not None:
                    made = _Made("empty", tensor, is_allocated=True)
                    self._made[storage_of(tensor)] = made

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        how = _kind_of(func)
        if how.reshapes:
            return self._reshape(func, how, args, kwargs or {})
        if not how.writes:
            result = self._result(func, args, kwargs or {})
            if func is torch.ops.aten.slice.Tensor and free_unbacked_symbols(result):
                result = _sliced(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():  # what follows reads tensors, often
            if not how.writes and how.allocates:
                made = _Made(str(func), result, is_allocated=True)
                self._made[storage_of(result)] = made
                return result
            given = {**dict(zip(how.names, args, strict=False)), **(kwargs or {})}
            written = [
                storage_of(tensor)
                for name in how.writes
                for tensor in _tensors_of(given.get(name))
            ]
            if self._guarded.intersection(written):
                self._refuse_write(func)
        if how.writes:
            result = self._result(func, args, kwargs or {})
        with torch._C.DisableTorchFunction():
            self._note(func, how, given, written, _tensors_of(result))
        return result

    def _result(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if _is_of_values(error, func, args):
                self._refuse_values(func)
            raise

    def _note(
        self,
        func: Any,
        how: _Kind,
        given: Mapping[str, Any],
        written: Sequence[int],
        results: Sequence[torch.Tensor],
    ) -> None:
        if func in _CONSTANTS and (maker := _constant(*given.values())) is not None:
            func, given = maker
        known = [storage_of(result) in self._made for result in results]
        if not how.writes and (how.is_silent or (any(known) and not how.says_views)):
            self._refuse_unsaid(func, how)
        if not how.writes and results and all(known):
            self._note_views(func, given, results)
            return
        new = () if how.writes else tuple(results)
        is_allocated = _kind_of(func).allocates
        for tensor in new:
            made = _Made(str(func), tensor, is_allocated=is_allocated)
            self._made[storage_of(tensor)] = made
        if how.writes or not all(
            self._made[storage_of(t)].is_uninitialized for t in new
        ):
            step = func, given, tuple(written), new, users_line()
            self.steps.append(CaughtOperation(*step))

    def _reshape(
        self,
        func: Any,
        how: _Kind,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Change which view of its memory a tensor is.

        What was done before was done with another view: that takes the tensor's place
        in all that is kept. The tensor is a view of it from now on. torch reshapes its
        own results so, in the product of a vector and a matrix.
        """
        tensor, view = args[0], _VIEWS.get(func)
        with torch._C.DisableTorchFunction():
            if view is None or any(tensor is given for given in self._given):
                self._refuse_reshape(func, view)
            before = torch.ops.aten.alias.default(tensor)
        result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            self.steps = _with(before, tensor, self.steps)
            self._made = _with(before, tensor, self._made)
            self._views = _with(before, tensor, self._views)
            given = dict(zip(how.names, (before, *args[1:]), strict=False))
            self._note_views(view, {**given, **kwargs}, [tensor])
        return result

    def _note_views(
        self, func: Any, given: Mapping[str, Any], results: Sequence[torch.Tensor]
    ) -> None:
        """Keep how tensors came to be views of another."""
        arguments = func._schema.arguments
        name = arguments[0].name
        base = given.get(name)
        if not isinstance(base, torch.Tensor):
            return  # nothing reads such a view without being refused
        others = {n: value for n, value in given.items() if n != name}
        if func is torch.ops.aten.as_strided.default:
            # It takes any part of the memory. Whatever view it is of, keep it as one of
            # the whole, and only where an engine's memory is the same.
            made, (result,) = self._made[storage_of(base)], results
            base, dtype = made.tensor, base.dtype
            is_dense = base.is_contiguous() and base.storage_offset() == 0
            if not (made.is_as_given and is_dense and base.dtype == dtype):
                return
            others["storage_offset"] = result.storage_offset()
        if len(results) > 1:
            func = _Nth(func)
        for index, result in enumerate(results):
            self._add_view(_ViewOf(result, base, func, others, index))

    def _add_view(self, view: _ViewOf) -> None:
        self._views.setdefault(storage_of(view.tensor), []).append(view)

    @property
    def launches(self) -> list[CaughtLaunch]:
        """The steps that are launches."""
        return [step for step in self.steps if isinstance(step, CaughtLaunch)]

    def made(self, tensor: torch.Tensor, where: str) -> _Made:
        """Where the storage of ``tensor`` comes from.

        Raises:
            ArgumentError: from outside of the function.
        """
        found = self._made.get(storage_of(tensor))
        if found is None:
            raise self._foreign(tensor, where)
        return found

    def settle(self, tensor: torch.Tensor) -> None:
        """Let the whole of what a kernel gets be in the order of its memory."""
        made = self._made.get(storage_of(tensor))
        if made is None or (order := _order_of(made.tensor)) is None:
            return
        whole = made.tensor.permute(order)
        self._made[storage_of(tensor)] = replace(made, tensor=whole, order=order)
        given = {"dims": [order.index(axis) for axis in range(len(order))]}
        permute = torch.ops.aten.permute.default
        self._add_view(_ViewOf(made.tensor, whole, permute, given, 0))

    def require_dense(self, tensor: torch.Tensor, where: str) -> None:
        """Raise unless a kernel of an engine would find ``tensor`` as it is here.

        Raises:
            ArgumentError: it is not the function's own, or not as an engine has it.
        """
        if tensor.device.type != "cuda":
            raise self._foreign(tensor, where)
        buffer = self.made(tensor, where).tensor
        if not buffer.is_contiguous() or buffer.storage_offset() != 0:
            raise ArgumentError(
                f"{where}: a buffer with strides {list(buffer.stride())}. An engine's "
                "buffers are contiguous: allocate it so, and pass a view of it; or "
                "call contiguous() on what torch made."
            )

    def is_whole(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` is all of a buffer that torch did not initialize.

        It may have other extents, as after ``squeeze`` or ``view``.
        """
        made = self._made.get(storage_of(tensor))
        if made is None or not made.is_uninitialized:
            return False
        whole = made.tensor
        is_dense = whole.is_contiguous() and whole.storage_offset() == 0
        if not is_dense or _geometry(tensor) == _geometry(whole):
            return is_dense
        is_reshaped = tensor.dtype == whole.dtype and _count(tensor) == _count(whole)
        return is_reshaped and tensor.is_contiguous()

    def view(
        self, tensor: torch.Tensor, number: int, read: Callable[[Any], Any]
    ) -> View:
        """``tensor``, of the program's tensor ``number``, as a view of the whole of it.

        Args:
            read: what an integer is in a program.

        Raises:
            ArgumentError: nobody saw how it was made.
        """
        made = self.made(tensor, self.what)
        path: list[tuple[OpOverload, Keywords]] = []
        views = self._views.get(storage_of(tensor), [])
        while (sought := _geometry(tensor)) != _geometry(made.tensor):
            same = (v for v in views if _geometry(v.tensor) == sought)
            found = next((v for v in same if _geometry(v.base) != sought), None)
            if found is None:
                raise ArgumentError(
                    f"{self.what}: a tensor of shape {list(tensor.shape)} and strides "
                    f"{list(tensor.stride())} shares the memory of {made.maker}, in a "
                    "way that torch does not tell. Use torch's view operations."
                )
            tensor, func = found.base, found.op
            arguments = _keywords(found.arguments, read, _no_tensor)
            if isinstance(func, _Nth):
                nth = _NTH, Constant(_NTH, found.index)
                func, arguments = func.op, (*arguments, nth)
            path.append((func, arguments))
        return View(number, tuple(reversed(path)))

    def _foreign(self, tensor: torch.Tensor, where: str) -> ArgumentError:
        found = self._made.get(storage_of(tensor))
        maker = found.maker if found else "outside of the function"
        return ArgumentError(
            f"{where}: a tensor of shape {list(tensor.shape)} that is neither an "
            f"input nor an output; it comes from {maker}, on {tensor.device}. An "
            "engine has what its plugins are given. Pass the tensors that the "
            "function was given, or tensors that torch makes from them on their "
            "device."
        )

    def _refuse_values(self, reader: Any) -> None:
        refuse(
            DataDependentError(
                f"{self.what} asks for the values of a tensor with {reader}, at "
                f"{users_line()}, which an engine does not know before it runs. Ask "
                "inside the kernel; for a size, allocate the largest."
            )
        )

    def _refuse_reshape(self, func: Any, view: Any) -> NoReturn:
        instead = "Allocate another tensor."
        if view is not None:
            instead = f"Use what {view} returns."
        refuse(
            RecordError(
                f"{self.what} changes the shape or memory of a tensor in place with "
                f"{func} at {users_line()}. An engine's tensors keep both. {instead}"
            )
        )

    def _refuse_unsaid(self, op: Any, how: _Kind) -> None:
        does = (
            "returns nothing" if how.is_silent else "returns memory of another tensor"
        )
        refuse(
            RecordError(
                f"{self.what} calls {op} at {users_line()}. It {does}, and its schema "
                "does not say what it writes, so an engine would leave it out. Declare "
                "it (mutates_args of torch.library.custom_op), or call it outside of "
                "the function."
            )
        )

    def _refuse_write(self, writer: Any) -> None:
        refuse(
            RecordError(
                f"{self.what} writes an input with {writer} at {users_line()}. The op "
                "does not say so: declare it (mutates_args of torch.library.custom_op),"
                " or write a copy."
            )
        )


_NTH = "nth of the results"


@dataclass(frozen=True)
class _Nth:
    """A view operation that returns several tensors."""

    op: OpOverload


@dataclass(frozen=True)
class _Kind:
    """What an operator's schema says of it.

    Attributes:
        names: of its arguments.
        writes: those that it writes.
        allocates: it makes one tensor, and does not initialize it.
        says_views: results that share an argument's memory are declared so.
        is_silent: it takes tensors, and says neither that it makes nor writes any.
        reshapes: it changes the shape or memory of a tensor, in place.
    """

    names: tuple[str, ...]
    writes: tuple[str, ...]
    allocates: bool
    says_views: bool
    is_silent: bool
    reshapes: bool


# torch's own schemas say all that they write, and `prim::device` only reads.
_TORCHS = frozenset({"aten", "prim", "prims"})

_ALLOCATING = frozenset(
    {
        *("aten::empty", "aten::empty_like", "aten::empty_permuted"),
        *("aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
        *("prims::empty", "prims::empty_permuted", "prims::empty_strided"),
    }
)


@lru_cache(maxsize=1024)
def _kind_of(func: Any) -> _Kind:
    declared, is_empty = func._schema.arguments, func._schema.name in _ALLOCATING
    infos = ((a.name, a.alias_info) for a in declared)
    writes = tuple(n for n, info in infos if info is not None and info.is_write)
    allocates = is_empty and [str(r.type) for r in func._schema.returns] == ["Tensor"]
    returns = func._schema.returns
    is_torchs = func.namespace in _TORCHS
    takes_tensors = any("Tensor" in str(argument.type) for argument in declared)
    # An op of torch.distributed returns what it can be waited for with.
    makes_none = all(str(r.type).startswith("__torch__.") for r in returns)
    return _Kind(
        names=tuple(a.name for a in declared),
        writes=writes,
        allocates=allocates,
        says_views=is_torchs or all(r.alias_info is not None for r in returns),
        is_silent=not is_torchs and takes_tensors and makes_none,
        reshapes=torch.Tag.inplace_view in func.tags
        and func is not torch.ops.aten.detach_.default,
    )


# What returns a view, for each operation that makes its argument one.
_VIEWS: dict[Any, OpOverload] = {
    torch.ops.aten.t_.default: torch.ops.aten.t.default,
    torch.ops.aten.transpose_.default: torch.ops.aten.transpose.int,
    torch.ops.aten.swapaxes_.default: torch.ops.aten.swapaxes.default,
    torch.ops.aten.swapdims_.default: torch.ops.aten.swapdims.default,
    torch.ops.aten.squeeze_.default: torch.ops.aten.squeeze.default,
    torch.ops.aten.squeeze_.dim: torch.ops.aten.squeeze.dim,
    torch.ops.aten.squeeze_.dims: torch.ops.aten.squeeze.dims,
    torch.ops.aten.unsqueeze_.default: torch.ops.aten.unsqueeze.default,
    torch.ops.aten.as_strided_.default: torch.ops.aten.as_strided.default,
}


def _with(new: torch.Tensor, old: torch.Tensor, value: Any) -> Any:
    """``value`` with a tensor in place of another, within all that is kept."""
    if value is old:
        return new
    if isinstance(value, tuple | list):
        items = [_with(new, old, item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: _with(new, old, item) for key, item in value.items()}
    if isinstance(value, _KEPT):
        named = ((f.name, getattr(value, f.name)) for f in fields(value))
        return replace(value, **{name: _with(new, old, v) for name, v in named})
    return value


_KEPT = (CaughtDescriptor, CaughtLaunch, CaughtOperation, _Made, _ViewOf)


def _is_of_values(error: RuntimeError, func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation failed because a tensor without memory has no values.

    A fake tensor says so. What a meta tensor says depends on the operation: there, all
    that may be meant counts, and the replay on fake tensors decides.
    """
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return True
    if any(isinstance(tensor, FakeTensor) for tensor in args):
        return False
    is_of_values = any(tag in _OF_VALUES for tag in func.tags)
    return is_of_values or isinstance(error, NotImplementedError)


_OF_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


# --- Reading operations ---------------------------------------------------------------


def read_operation(
    caught: CaughtOperation,
    view: Callable[[torch.Tensor], View],
    number: Callable[[torch.Tensor], int],
    read: Callable[[Any], Any],
    operations: Operations,
) -> Operation:
    """The step of a program.

    Args:
        view: what a tensor is in the program.
        number: that of a tensor which the operation makes.
        read: what an integer is in the program.
        operations: which caught it.

    Raises:
        RecordError: an engine could not do the same.
        DataDependentError: its result, or an argument, depends on values of tensors.
    """
    where = f"{operations.what}, {caught.op} at {caught.where}"
    if torch.Tag.nondeterministic_seeded in caught.op.tags:
        raise RecordError(
            f"{where}: random numbers, which are others in an engine. Pass them in."
        )
    if torch.Tag.data_dependent_output in caught.op.tags:
        raise DataDependentError(
            f"{where}: it reads the values of a tensor, which an engine does not know "
            "before it runs."
        )

    def known(value: Any) -> Any:
        if isinstance(value, torch.SymFloat):
            expr = read(value)
            if not expr.is_number:
                raise RecordError(
                    f"{where}: a float that follows a dynamic size ({shown(expr)}). "
                    "Compute it in the kernel, or make the dimension static."
                )
            return Constant("", float(expr))
        return read(value)

    arguments = _keywords(caught.arguments, known, view)
    results = tuple(map(number, caught.results))
    orders = tuple(operations.made(t, where).order for t in caught.results)
    return Operation(caught.op, arguments, results, orders)


# Every tensor of an engine is on its GPU, in the layout that it has.
_OF_DEVICES = frozenset({"device", "layout", "pin_memory", "non_blocking"})


def _keywords(
    arguments: Mapping[str, Any],
    read: Callable[[Any], Any],
    view: Callable[[torch.Tensor], Any],
) -> Keywords:
    def known(name: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return view(value)
        if isinstance(value, list | tuple):
            return tuple(known(name, item) for item in value)
        if isinstance(value, bool) or not isinstance(
            value, int | torch.SymInt | torch.SymFloat | torch.SymBool
        ):
            return Constant(name, value)
        return read(value)

    return tuple(
        (name, known(name, value))
        for name, value in sorted(arguments.items())
        if name not in _OF_DEVICES
    )


def _no_tensor(tensor: torch.Tensor) -> Any:
    raise ArgumentError(
        f"a view that is indexed by a tensor of shape {list(tensor.shape)}"
    )


def called(
    op: OpOverload,
    arguments: Keywords,
    size: Callable[[Any], Any],
    tensor: Callable[[View], torch.Tensor],
    device: torch.device,
    first: torch.Tensor | None = None,
) -> Any:
    """What an operation returns.

    Args:
        size: the value of an expression.
        tensor: the value of a view.
        device: of the tensors.
        first: the tensor that a view operation is of.
    """

    def value(item: Any) -> Any:
        if isinstance(item, View):
            return tensor(item)
        if isinstance(item, Constant):
            return item.value
        if isinstance(item, tuple):
            return [value(each) for each in item]
        return size(item)

    named = {name: value(item) for name, item in arguments}
    nth = named.pop(_NTH, None)
    declared = [a.name for a in op._schema.arguments]
    if first is not None:
        named[declared[0]] = first
    if "device" in declared and not any(
        isinstance(v, torch.Tensor) for v in named.values()
    ):
        named["device"] = device
    result = op(**named)
    return result if nth is None else result[nth]


# --- Tensors --------------------------------------------------------------------------


_CONSTANTS = {
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift_fresh_copy.default,
}


def _constant(tensor: torch.Tensor) -> tuple[OpOverload, dict[str, Any]] | None:
    """What makes a tensor of ``torch.tensor(...)``, if it has one element at most."""
    size = list(tensor.shape)
    if tensor.numel() == 0:
        given = {"size": size, "dtype": tensor.dtype}
        return torch.ops.aten.empty.memory_format, given
    if tensor.numel() > 1 or tensor.is_meta:
        return None
    with no_dispatch():
        value = tensor.item()
    given = {"size": size, "fill_value": value, "dtype": tensor.dtype}
    return torch.ops.aten.full.default, given


def _order_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The axes by falling stride, if memory is dense in that order, and in no other."""
    if tensor.is_contiguous() or tensor.storage_offset() != 0:
        return None
    strides = [_hint(stride) for stride in tensor.stride()]
    order = tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))
    return order if tensor.permute(order).is_contiguous() else None


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _sliced(
    tensor: torch.Tensor,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> torch.Tensor:
    """A slice, by arithmetic alone.

    torch makes up a size that nothing is known of, where it does not know the order of
    the bounds; before 2.13, also where it does not know whether they are clamped.
    """
    size = tensor.shape[dim]

    def bound(index: Any, default: Any) -> Any:
        if index is None or (isinstance(index, int) and index == sys.maxsize):
            return default
        if statically_known_true(index >= 0):
            return torch.sym_min(index, size)  # type: ignore[no-untyped-call]
        if statically_known_true(index < 0):
            return torch.sym_max(0, index + size)  # type: ignore[no-untyped-call]
        is_negative = torch.sym_max(0, torch.sym_min(1, -index))  # type: ignore[no-untyped-call]
        from_start = torch.sym_min(index + size * is_negative, size)  # type: ignore[no-untyped-call]
        return torch.sym_max(0, from_start)  # type: ignore[no-untyped-call]

    first, last = bound(start, 0), bound(end, size)
    length = torch.sym_max(0, last - first)  # type: ignore[no-untyped-call]
    sizes, strides = list(tensor.shape), list(tensor.stride())
    offset = tensor.storage_offset() + first * strides[dim]
    sizes[dim], strides[dim] = (length + step - 1) // step, strides[dim] * step
    return tensor.as_strided(sizes, strides, offset)


def storage_of(tensor: torch.Tensor) -> int:
    """The identity of a tensor's memory."""
    return int(tensor.untyped_storage()._cdata)


def _geometry(tensor: torch.Tensor) -> _Geometry:
    sizes = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
    known = (s if isinstance(s, int) else str(s.node.expr) for s in sizes)
    return storage_of(tensor), tensor.dtype, tensor.dim(), *known


def _count(tensor: torch.Tensor) -> sympy.Expr:
    """The number of elements, as an expression: to ask torch would make a guard."""
    sizes = (s if isinstance(s, int) else s.node.expr for s in tensor.shape)
    return sympy.expand(sympy.prod(sizes))


def _tensors_of(value: Any) -> list[torch.Tensor]:
    """A tensor, or the tensors of a list, or of named arguments."""
    return list(_each_tensor(value))


def _each_tensor(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _each_tensor(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _each_tensor(item)
