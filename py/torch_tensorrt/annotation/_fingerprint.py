"""One digest for functions, kernels and values, the same in every process.

A function is its source text with everything that text refers to: defaults, closure
values, and the globals it names, helpers and kernels included, down to the packages
whose version stands for their code.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

_NAMED_PACKAGES = frozenset(
    [
        "torch",
        "torch_tensorrt",
        "tensorrt",
        "triton",
        "numpy",
        "sympy",
        "cuda",
        "cutlass",
    ]
)


def fingerprint(*values: Any) -> str:
    """A hex digest of ``values``; ``1``, ``1.0`` and ``True`` differ.

    A value of a kind that cannot be told across processes counts as itself alone: the
    digest then holds in this process only.
    """
    digest = hashlib.sha256()
    for token in _Encoder().tokens(values):
        digest.update(f"{len(token)}:{token}".encode())
    return digest.hexdigest()


class _Encoder:
    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay unique while what they name lives

    def tokens(self, value: Any) -> Iterator[str]:
        kind = type(value)
        if value is None or kind in (bool, int, float, str, bytes, complex):
            yield f"{kind.__name__}={value!r}"
        elif kind in (tuple, list):
            yield f"{kind.__name__}[{len(value)}]"
            for item in value:
                yield from self.tokens(item)
        elif isinstance(value, Mapping):
            yield f"mapping[{len(value)}]"
            for key in sorted(value, key=repr):
                yield from self.tokens(key)
                yield from self.tokens(value[key])
        elif isinstance(value, enum.Enum | torch.dtype | torch.device):
            yield f"{kind.__name__}={value}"
        elif isinstance(value, torch.Tensor):
            yield _tensor_token(value)
        elif isinstance(value, ModuleType):
            yield f"module={value.__name__}"
        elif isinstance(value, type | BuiltinFunctionType) or _is_named(value):
            yield f"name={_qualified_name(value)}"
        else:
            yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        if (earlier := self._seen.get(id(value))) is not None:
            yield f"again={earlier}"
            return
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        inner = getattr(value, "fn", None)  # a JITFunction, an Autotuner, ...
        if isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, MethodType):
            yield from self.tokens((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            yield from self.tokens((value.func, value.args, dict(value.keywords)))
        elif callable(inner):
            settings = [getattr(value, name, None) for name in _KERNEL_SETTINGS]
            yield f"kernel={_qualified_name(type(value))}"
            yield from self.tokens((inner, str(settings)))
        elif type(value).__module__.partition(".")[0] == "triton":
            yield f"triton={type(value).__name__}={value!r}"
        else:
            yield f"object={_qualified_name(type(value))}@{id(value)}"

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield f"function={_qualified_name(function)}"
        yield _source(function)
        cells = function.__closure__ or ()
        yield from self.tokens(function.__defaults__)
        yield from self.tokens(function.__kwdefaults__)
        yield from self.tokens([cell.cell_contents for cell in cells])
        names = sorted(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                value = function.__globals__[name]
                yield f"global={name}"
                yield from self.tokens(value)
                if isinstance(value, ModuleType) and not _is_named(value):
                    for attribute in names:
                        if hasattr(value, attribute):
                            yield from self.tokens(getattr(value, attribute))


_KERNEL_SETTINGS = (
    "configs",
    "values",
    "do_not_specialize",
    "do_not_specialize_on_alignment",
    "noinline",
)


def _is_named(value: Any) -> bool:
    """Whether ``value`` is code that its package's version stands for."""
    if not isinstance(value, FunctionType | ModuleType):
        return False
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    package = (module or "").partition(".")[0]
    return package in _NAMED_PACKAGES or package in sys.stdlib_module_names - {
        "__main__"
    }


def _qualified_name(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "?")
    return f"{getattr(value, '__module__', '?')}.{name}"


def _source(function: FunctionType) -> str:
    if function.__name__ != "<lambda>":  # the lines of a lambda may hold several
        try:
            return textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError):
            pass  # typed into an interpreter, or made by exec: the bytecode says it
    return _bytecode(function.__code__)


def _bytecode(code: CodeType) -> str:
    constants = [
        _bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts
    ]
    return repr((code.co_code.hex(), constants, code.co_names, code.co_varnames))


def _names(code: CodeType) -> set[str]:
    nested = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*nested)


def _tensor_token(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    content = hashlib.sha256(raw.data).hexdigest()
    return f"tensor={tensor.dtype}{tuple(tensor.shape)}{content}"
