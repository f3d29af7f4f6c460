"""The ops registered in this process: what each is, where it was, how to undo it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_tensorrt.annotation._tactics import Plugin


@dataclass(frozen=True)
class RegisteredOp:
    """One op.

    Attributes:
        plugin: its ahead-of-time plugin; None where only its Python implementation is
            registered.
        identity: digest of what it was registered with.
        location: ``file:line`` of the call.
        undo: removes it from every registry.
        redo: registers it again after that.
    """

    plugin: Plugin | None
    identity: str
    location: str
    undo: Callable[[], None]
    redo: Callable[[], RegisteredOp]


registered: dict[str, RegisteredOp] = {}
