"""The ops registered in this process: what each is, where it was, how to undo it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation.errors import RegistrationError


class Undo:
    """Steps back, the last first; each does nothing where there is nothing to undo.

    Where one is interrupted, all of them can be taken again.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def add(self, step: Callable[..., None], *args: Any) -> None:
        """Before what it undoes is done, so that no error comes between."""
        self._steps.append(functools.partial(step, *args))

    def __call__(self) -> None:
        for step in reversed(self._steps):
            step()


@dataclass(frozen=True)
class RegisteredOp:
    """One op.

    Attributes:
        plugin: its ahead-of-time plugin; None where only its Python implementation is
            registered.
        dynamic: whether nodes of dynamic shape are converted.
        identity: digest of what it was registered with.
        location: ``file:line`` of the call.
        undo: removes it from every registry.
        redo: puts it into ``registered``, and every registry, again after that.
    """

    plugin: Plugin | None
    dynamic: bool
    identity: str
    location: str
    undo: Undo
    redo: Callable[[], None]


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
        with kept_on_error(op):
            registered[op].undo()
            del registered[op]


@contextlib.contextmanager
def kept_on_error(name: str) -> Iterator[None]:
    """Around what takes an op's place, or undoes it: on an error it is there again."""
    op = registered[name]
    try:
        yield
    except BaseException:
        if registered.get(name, op) is op:
            op.undo()
            op.redo()
        raise
