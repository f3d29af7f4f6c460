# SPDX-License-Identifier: BSD-3-Clause

"""What stands for a library's kernels, and their like, while a function is recorded."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NoReturn, TypeAlias
from weakref import WeakSet

import torch

from ..._record.recording import refuse, users_line
from ..._record.tables import drop
from ...errors import ArgumentError
from .kernel import Code
from .launch import Call, is_catching, launched

# How a variable is set, what it holds, and what it holds during a recording.
Swap: TypeAlias = tuple[Callable[[Any], None], Any, Any]

made: WeakSet[Any] = WeakSet()  # by recordings


def attribute(owner: Any, name: str, new: Any) -> Swap:
    """An attribute, and what stands for it."""
    return partial(setattr, owner, name), getattr(owner, name), new


def nothing(*_: Any, **__: Any) -> None:
    """What a library does with the GPU, in a recording."""


class Kernel:
    """A kernel of a library's, with its source.

    Outside of a recording it is the library's own, where the user's code holds it.
    """

    library = ""

    def __init__(self, code: Code, original: Callable[[], Any]) -> None:
        """
        Args:
            original: makes what stands for it outside of a recording.
        """
        self._code, self._make = code, original
        made.add(self)

    @cached_property
    def _original(self) -> Any:
        return self._make()

    def _launch(self, grid: Any, block: Any, args: Any, shared_memory: Any) -> bool:
        """Report a launch, where this thread records; whether it does."""
        args = tuple(args or ())
        return launched(
            Call(self._code, grid, block, args, shared_memory, library=self.library)
        )

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


class Stream(contextlib.nullcontext[None]):
    """A stream of a library's, on which nothing runs."""

    ptr = handle = 0
    sync = synchronize = nothing

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @classmethod
    def from_external(cls, _: Any) -> Stream:
        """One of torch's."""
        return cls()

    from_handle = from_external

    def use(self) -> Stream:
        """Nothing runs."""
        return self


def forget(*classes: type) -> None:
    """Remove what was compiled before from the tables that keep it.

    A cached function of the user's would give it back, and it has no source. It is
    compiled again where it is needed.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        drop([each for each in gc.get_objects() if type(each) in classes])


def refuse_compiled(kernel: str, library: str) -> NoReturn:
    """Refuse a launch of what was compiled before the recording."""
    refuse(
        ArgumentError(
            f"kernel {kernel}: launched at {users_line()}, it was compiled by "
            f"{library} before the recording, for the GPU of that moment, and its "
            "source is not known any more. Compile it within the launch function, or "
            "make it tta.CUDAKernel(source, name), which is called as kernel(grid, "
            "block, args)."
        )
    )


def in_recordings(original: Any, stand_in: Any) -> Any:
    """``stand_in`` while this thread records, the original otherwise."""

    class Either(type):
        def __call__(cls, *args: Any, **keywords: Any) -> Any:
            return (stand_in if is_catching() else original)(*args, **keywords)

        def __getattr__(cls, name: str) -> Any:
            is_known = is_catching() and hasattr(stand_in, name)
            return getattr(stand_in if is_known else original, name)

        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, original) or type(value) is stand_in

    return Either(original.__name__, (), {})
