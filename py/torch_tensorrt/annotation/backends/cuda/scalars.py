# SPDX-License-Identifier: BSD-3-Clause

"""Numbers that the host gives a size: ``np.int32(n)``, ``ctypes.c_int(n)``.

Both need the value of ``n``, which a recording has as a symbol. So in the user's
modules NumPy and ctypes are replaced, for the time of a recording, by ones whose types
take symbols as well.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

_SYMBOLIC = torch.SymInt | torch.SymBool | torch.SymFloat

# NumPy's names -> the types of C.
_NAMES = {
    "int8": ctypes.c_int8, "int16": ctypes.c_int16,
    "int32": ctypes.c_int32, "int64": ctypes.c_int64,
    "uint8": ctypes.c_uint8, "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32, "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float, "float64": ctypes.c_double, "bool": ctypes.c_bool,
}  # fmt: skip

# What a parameter of PTX takes, where nothing more is known of it; and the above.
CTYPES: dict[str, Any] = {
    **_NAMES,
    **{"u8": ctypes.c_uint8, "b8": ctypes.c_uint8, "s8": ctypes.c_int8},
    **{"u16": ctypes.c_uint16, "b16": ctypes.c_uint16, "s16": ctypes.c_int16},
    **{"u32": ctypes.c_uint32, "b32": ctypes.c_uint32, "s32": ctypes.c_int32},
    **{"u64": ctypes.c_uint64, "b64": ctypes.c_uint64, "s64": ctypes.c_int64},
    **{"f32": ctypes.c_float, "f64": ctypes.c_double},
}

# What a library makes of Python's own numbers; CUDAKernel asks the kernel.
_PYTHONS = {
    "": {bool: "", int: "", float: ""},
    "torch": {bool: "int32", int: "int32", float: "float64"},
    "CuPy": {bool: "bool", int: "int64", float: "float64"},
    "cuda.core": {bool: "bool", int: "int64", float: "float64"},
}
_TAKE_SIZED = ("", "CuPy", "cuda.core")  # NumPy's numbers, and those of ctypes


class Sized:
    """A symbol with the size that the host gives it.

    Attributes:
        value: the symbol.
        host: NumPy's name of the type.
    """

    def __init__(self, value: Any, host: str) -> None:
        self.value, self.host = value, host

    def as_float(self) -> Any:
        """The symbol as a float."""
        return torch.sym_float(self.value)  # type: ignore[no-untyped-call]

    def __index__(self) -> int:
        return int(self.value)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.value)


def host_type(value: Any, library: str) -> str | None:
    """The type that a library gives an argument, as NumPy names it.

    None where the library does not take it; empty where the kernel decides.
    """
    kinds = _PYTHONS[library]
    if isinstance(value, bool | torch.SymBool):
        return kinds[bool]
    if isinstance(value, torch.SymFloat) or type(value) is float:
        return kinds[float]
    if isinstance(value, torch.SymInt) or type(value) is int:
        return kinds[int]
    name = _sized(value) if library in _TAKE_SIZED else None
    return "" if name and not library else name


def _sized(value: Any) -> str | None:
    """The type of a number with a size; None for anything else."""
    if isinstance(value, Sized):
        return value.host
    if isinstance(value, np.generic):
        name = value.dtype.name
        return name if name in _NAMES else None
    return next((n for n, kind in _NAMES.items() if isinstance(value, kind)), None)


def _taking_symbols(original: Any, host: str) -> Any:
    """A type of NumPy or ctypes that takes symbols as well."""

    class Meta(type(original)):  # type: ignore[misc]
        def __call__(cls, *args: Any, **keywords: Any) -> Any:
            if args and isinstance(args[0], _SYMBOLIC):
                return Sized(args[0], host)
            return original(*args, **keywords)

        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, original)

        def __eq__(cls, other: Any) -> bool:
            return other is cls or other is original

        def __hash__(cls) -> int:
            return hash(original)

    return Meta(original.__name__, (original,), {})


@cache
def stand_ins() -> tuple[tuple[Any, Any], ...]:
    """What is replaced in the user's modules, and by what."""
    kinds = {getattr(np, name): name for name in _NAMES if name != "bool"}
    kinds |= {kind: name for name, kind in _NAMES.items()}
    types = {kind: _taking_symbols(kind, name) for kind, name in kinds.items()}
    modules = [(module, _Module(module, types)) for module in (np, ctypes)]
    return *types.items(), *modules


class _Module(ModuleType):
    """A module with some members replaced."""

    def __init__(self, module: ModuleType, members: dict[Any, Any]) -> None:
        super().__init__(module.__name__)
        self.__dict__["_module"] = module
        self.__dict__["_members"] = members

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["_module"], name)
        try:
            return self.__dict__["_members"].get(value, value)
        except TypeError:  # it cannot be hashed
            return value
