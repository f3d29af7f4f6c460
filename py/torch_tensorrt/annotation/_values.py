"""What a value is made of, for a digest: one token, or other values."""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

# Their version stands for their code.
NAMED_PACKAGES = frozenset(
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
) | (sys.stdlib_module_names - {"__main__"})

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_DESCRIBED = (range, slice, torch.dtype, torch.device)
# What CuTe DSL makes of a launcher, and what stands in for it while it is recorded.
_COMPILED = frozenset({"JitCompiledFunction", "JitExecutor", "CompiledLater"})


def atom(value: Any) -> str | None:
    """A value that one token says."""
    kind = type(value)
    if kind in _SCALARS:
        return f"{kind.__name__}={value!r}"
    if isinstance(value, _DESCRIBED):
        return f"{kind.__name__}={value}"
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"numpy={kind.__name__}{value.dtype.str}{value.shape}{content}"
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, ModuleType):
        return f"module={value.__name__}"
    if _is_compiled(value):
        return f"compiled={qualified_name(type(value))}"
    if isinstance(value, BuiltinFunctionType) or is_named(value):
        return f"code={qualified_name(value)}"
    return None


def parts_of(value: Any) -> Sequence[Any] | None:
    """The values that make up another."""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        # A launch function keeps what it compiled; its source stands for that.
        lasting = [key for key in value if not _is_compiled(value[key])]
        return [(key, value[key]) for key in sorted(lasting, key=repr)]
    if isinstance(value, enum.Enum):
        return [value.name, value.value]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return None


def is_named(value: Any) -> bool:
    """Whether ``value`` is code that its package's version stands for."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] in NAMED_PACKAGES
    return isinstance(value, FunctionType) and package_of(value) in NAMED_PACKAGES


def _is_compiled(value: Any) -> bool:
    return any(base.__name__ in _COMPILED for base in type(value).__mro__)


def package_of(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def qualified_name(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "?")
    return f"{getattr(value, '__module__', '?')}.{name}"


def _tensor(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    content = hashlib.sha256(raw.data).hexdigest()
    return f"tensor={tensor.dtype}{tuple(tensor.shape)}{content}"
