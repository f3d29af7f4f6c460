"""The ops registered in this process: what each is, where it was, how to undo it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation.errors import RegistrationError


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
lock = threading.RLock()  # held while an op is registered, or forgotten


def unregister(op: str) -> None:
    """Undo ``custom_op``: the torch op it defined, the plugin and the converter.

    Args:
        op: ``"ns::name"``.

    Raises:
        RegistrationError: it is not registered.
    """
    with lock:
        if op not in registered:
            raise RegistrationError(
                f"{op}: not registered with custom_op. Registered: "
                f"{', '.join(registered) or 'none'}."
            )
        registered.pop(op).undo()
