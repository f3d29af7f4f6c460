# SPDX-License-Identifier: BSD-3-Clause

"""What ``data_ptr()`` answers while a function is recorded.

An engine decides where its tensors are when it runs. Until then three things are known
of an address: whether another tensor of the function has it, too; whether it is 0; and
the remainders that the promised alignment leaves. Nothing else may be asked, or the
answer would describe this process and not the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from ..errors import ArgumentError
from .recording import purpose, refuse, users_line

ALIGNMENT = 16  # bytes; what `aligned` promises of every tensor's start


class Address:
    """The address of a tensor's first element, as far as it is known.

    Attributes:
        tensor: that starts there; None where a storage was asked.
    """

    __slots__ = ("_bytes", "_is_empty", "_storage", "tensor")

    # Code asks what kind of argument it has, and must get the answer that it gets
    # outside: no replay can see the difference.
    __class__: Any = property(lambda self: int)

    def __init__(
        self,
        storage: torch.UntypedStorage,
        offset: int | torch.SymInt = 0,
        is_empty: Callable[[], bool] = lambda: False,
        tensor: torch.Tensor | None = None,
    ) -> None:
        """
        Args:
            storage: kept, so that no other gets its identity.
            offset: in bytes.
            is_empty: whether there is no element; a dynamic size may decide that.
        """
        self._storage = storage
        self._bytes = offset
        self._is_empty = is_empty
        self.tensor = tensor

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Address:
        """The address of a fake tensor."""
        offset = tensor.storage_offset() * tensor.element_size()
        storage = tensor.untyped_storage()
        return cls(storage, offset, lambda: bool(tensor.numel() == 0), tensor)

    def __eq__(self, other: object) -> bool:
        if type(other) is Address:
            if self._storage._cdata != other._storage._cdata:
                return self._is_empty() and other._is_empty()
            if self._is_empty() or other._is_empty():
                return self._is_empty() and other._is_empty()
            return bool(self._bytes == other._bytes)
        if isinstance(other, int | float) and other == 0:
            return self._is_empty()
        if isinstance(other, int | float | torch.SymInt | torch.SymFloat):
            _refuse("compares a tensor's address with a number")
        return False

    def __bool__(self) -> bool:
        return not self._is_empty()

    def __hash__(self) -> int:
        # Views of one tensor have one hash: their offsets may be equal at some shapes.
        return hash(0) if self._is_empty() else hash((Address, self._storage._cdata))

    def __mod__(self, divisor: Any) -> Any:
        promised = ALIGNMENT if purpose().aligned else 1
        if type(divisor) is not int or divisor <= 0 or promised % divisor:
            _refuse(f"takes a tensor's address modulo {divisor!r}")
        if type(self._bytes) is int and self._bytes % divisor == 0:
            return 0
        return 0 if self._is_empty() else self._bytes % divisor

    def __getattr__(self, name: str) -> Any:
        if hasattr(int, name):
            _refuse(f"asks for `{name}` of a tensor's address")
        raise AttributeError(f"'int' object has no attribute '{name}'")


def _refuse(what: str) -> NoReturn:
    if purpose().aligned:
        known = f"% {ALIGNMENT}, which the engine promises to be 0 at a tensor's start"
    else:
        known = "% 1, because the spec says aligned=False"
    refuse(
        ArgumentError(
            f"the launch function {what} at {users_line()}. An engine knows its "
            "addresses when it runs. A recorded one can be compared with those of "
            f"other tensors, hashed, and taken {known}; pass the tensor itself to the "
            "kernel."
        )
    )


def _refused(operation: str) -> Callable[..., NoReturn]:
    def method(self: Address, *args: Any) -> NoReturn:
        _refuse(operation)

    return method


_OPERATIONS = {
    "computes with a tensor's address": (
        *("add", "sub", "mul", "truediv", "floordiv", "divmod", "pow", "lshift"),
        *("rshift", "and", "or", "xor", "radd", "rsub", "rmul", "rtruediv"),
        *("rfloordiv", "rmod", "rdivmod", "rpow", "rlshift", "rrshift", "rand"),
        *("ror", "rxor", "neg", "pos", "abs", "invert", "round", "trunc", "floor"),
        "ceil",
    ),
    "orders tensors by their addresses": ("lt", "le", "gt", "ge"),
    "takes a tensor's address for a number": ("int", "index", "float", "complex"),
    "makes text of a tensor's address": ("str", "repr", "format"),
}
for _what, _names in _OPERATIONS.items():
    for _name in _names:
        setattr(Address, f"__{_name}__", _refused(_what))
