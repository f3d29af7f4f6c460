"""What a user's function sees while it is traced.

It runs on fake tensors, on a machine that may have no GPU, and its sizes are symbols.
Some of what such a function ordinarily calls cannot cope with that; for the time of the
trace it can.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import torch
import torch.fx.experimental._config as shape_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torch_tensorrt.annotation.errors import ArgumentError, RecordError

_lock = threading.RLock()
_tracing = threading.local()


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Around a trace. One thread traces at a time; the others are not affected.

    Raises:
        RecordError: this thread is tracing already.
    """
    if getattr(_tracing, "entered", False):
        raise RecordError(
            "a launch function, or fake kernel, records another while it is recorded "
            "itself. Register ops, and dry-run them, outside of it."
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock)
        # torch asks of a dynamic size whether it is 1 only where the code asks that.
        size_oblivious = {"backed_size_oblivious": True}
        stack.enter_context(shape_config.patch(size_oblivious))  # type: ignore[attr-defined]
        stack.enter_context(_patched(builtins, "min", _symbolic(min, torch.sym_min)))
        stack.enter_context(_patched(builtins, "max", _symbolic(max, torch.sym_max)))
        stack.enter_context(_patched(builtins, "divmod", _divmod(divmod)))
        if not torch.cuda.is_available():
            stack.enter_context(_patched(torch.cuda, "device", _NoDevice))
            stack.enter_context(_patched(torch.cuda, "current_stream", _NoStream))
        stack.enter_context(_quiet("torch._subclasses.fake_tensor"))
        stack.enter_context(_FakeTensors())
        _tracing.entered = True
        try:
            yield
        finally:
            _tracing.entered = False


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Shapes that are rejected are tried on purpose; torch logs each as an error."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _symbolic(builtin: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """``builtin`` that gives an expression of symbolic sizes and does not compare."""

    def choose(*args: Any, **kwargs: Any) -> Any:
        values = args[0] if len(args) == 1 else args
        is_list = isinstance(values, tuple | list) and not kwargs
        if is_list and any(isinstance(value, torch.SymInt) for value in values):
            return reduce(function, values)
        return builtin(*args, **kwargs)

    return choose


def _divmod(builtin: Callable[..., Any]) -> Any:
    """``divmod``, which torch's symbolic sizes do not have."""

    def both(a: Any, b: Any) -> Any:
        if isinstance(a, torch.SymInt) or isinstance(b, torch.SymInt):
            return a // b, a % b
        return builtin(a, b)

    return both


class _NoDevice(contextlib.nullcontext[None]):
    """``torch.cuda.device(...)`` where there is none."""


class _NoStream:
    """``torch.cuda.current_stream()`` where there is none."""

    cuda_stream = 0

    def __init__(self, device: Any = None) -> None:
        del device


class _FakeTensors(TorchFunctionMode):
    """What fake CUDA tensors cannot do, or do wrongly."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.data_ptr:
            raise ArgumentError(
                "the launch function asks for a tensor's address, which an engine "
                "does not know before it runs. Pass the tensor itself to the kernel."
            )
        if func is torch.Tensor.__getitem__ and torch.version.cuda is None:
            # A build of torch without CUDA cannot index a CUDA tensor, even a fake one.
            key = args[1] if isinstance(args[1], tuple) else (args[1],)
            if all(k is None or isinstance(k, _BASIC_INDEX) for k in key):
                return _index(args[0], list(key))
        return func(*args, **(kwargs or {}))


_BASIC_INDEX = (int, torch.SymInt, slice, type(Ellipsis))


def _index(tensor: torch.Tensor, key: list[Any]) -> torch.Tensor:
    if Ellipsis in key:
        at = key.index(Ellipsis)
        named = sum(k is not None for k in key) - 1
        key[at : at + 1] = [slice(None)] * (tensor.dim() - named)
    axis = 0
    for k in key:
        if k is None:
            tensor = tensor.unsqueeze(axis)
        elif isinstance(k, slice):
            tensor = torch.ops.aten.slice(tensor, axis, k.start, k.stop, k.step or 1)
        else:
            tensor = tensor.select(axis, k)
            continue
        axis += 1
    return tensor


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps which operators wrote, and which made, tensors while it is entered.

    An engine runs the kernel alone: it does nothing before, and initializes nothing.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._what = what
        self._guarded = {_storage(tensor) for tensor in tensors}
        self._writers: dict[int, str] = {}
        self._makers: dict[int, str] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        values = dict(kwargs or {})
        arguments = func._schema.arguments
        values |= dict(zip((a.name for a in arguments), args, strict=False))
        for argument in arguments:
            info, value = argument.alias_info, values.get(argument.name)
            if info is not None and info.is_write and isinstance(value, torch.Tensor):
                self._writers[_storage(value)] = str(func)
                if _storage(value) in self._guarded:
                    self._refuse_write(str(func))
        result = func(*args, **(kwargs or {}))
        is_fresh = all(r.alias_info is None for r in func._schema.returns)
        if isinstance(result, torch.Tensor) and is_fresh:
            self._makers[_storage(result)] = str(func)  # an address may come again
            self._writers.pop(_storage(result), None)
        return result

    def require_only_allocated(self, outputs: Iterable[torch.Tensor]) -> None:
        """Raise unless each output was allocated while entered, and left alone."""
        for index, output in enumerate(outputs):
            if writer := self._writers.get(_storage(output)):
                self._refuse_write(writer)
            maker = self._makers.get(_storage(output), "an input")
            if "empty" not in maker:
                raise RecordError(
                    f"{self._what}: output {index} comes from {maker}. An engine's "
                    "outputs are not initialized: allocate it with torch.empty and let "
                    "the kernel write all of it."
                )

    def _refuse_write(self, writer: str) -> None:
        raise RecordError(
            f"{self._what} writes a tensor with {writer} outside its kernel. An engine "
            "runs the kernel alone: do it in the kernel."
        )


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
