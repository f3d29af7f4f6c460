# SPDX-License-Identifier: BSD-3-Clause

"""The recording in progress on this thread: what it is for, and what it refused."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from .._target import Target
from ..errors import AnnotationError, RecordError, TargetError, place

_PACKAGE = Path(__file__).parent.parent
_OURS = (
    f"{_PACKAGE}{os.sep}",
    f"{_PACKAGE.parent / 'dynamo' / 'conversion' / 'plugins'}{os.sep}",
)


@dataclass(frozen=True)
class Purpose:
    """What a function is recorded for.

    Attributes:
        target: the GPU; None where none is known.
        aligned: every tensor starts at a multiple of 16 bytes.
        options: compiler options of the config, which go before those of the launch.
        launch: the one that an autotuner's choice is of; None for the only one.
    """

    target: Target | None = None
    aligned: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    launch: int | None = None


class _Recording(threading.local):
    def __init__(self) -> None:  # in each thread
        self.is_running = False
        self.asked_target = False
        self.purpose = Purpose()
        self.refusals: list[AnnotationError] = []
        self.runs = self.launches = 0


_recording = _Recording()


def purpose() -> Purpose:
    """What this thread records for."""
    return _recording.purpose


@contextlib.contextmanager
def recorded_for(purpose: Purpose) -> Iterator[None]:
    """Around a recording: what it is for."""
    before, _recording.purpose = _recording.purpose, purpose
    try:
        yield
    finally:
        _recording.purpose = before


def target(what: str) -> Target:
    """The GPU that this thread records for.

    Args:
        what: what the user's code asks for, for the error.

    Raises:
        TargetError: none is known.
    """
    _recording.asked_target = True
    if _recording.purpose.target is None:
        refuse(
            TargetError(
                f"the launch function asks for {what} at {users_line()}, and there is "
                "no target to answer for. Name one: dry_run(..., target='sm_90'), or "
                "TTA_TARGET=sm_90 in the environment."
            )
        )
    return _recording.purpose.target


@dataclass
class Notice:
    """Whether some of the recordings within a block asked for the target."""

    was_asked: bool = False


@contextlib.contextmanager
def noticing_target() -> Iterator[Notice]:
    """Around recordings: the notice is right once the block is over."""
    before, _recording.asked_target = _recording.asked_target, False
    notice = Notice()
    try:
        yield notice
    finally:
        notice.was_asked = _recording.asked_target
        _recording.asked_target |= before


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Around the runs of a function.

    Raises:
        RecordError: this thread is within another.
    """
    if _recording.is_running:
        raise RecordError(
            "a launch function, or fake kernel, records another while it is recorded "
            "itself. Register ops, and dry-run them, outside of it."
        )
    _recording.is_running = True
    try:
        yield
    finally:
        _recording.is_running = False


def is_running() -> bool:
    """Whether this thread runs a function to record it."""
    return _recording.is_running


# --- Refusals -------------------------------------------------------------------------


def begin_run() -> None:
    """Another run begins."""
    _recording.refusals, _recording.launches = [], 0
    _recording.runs += 1


def count_launch() -> None:
    """The run has made a launch."""
    _recording.launches += 1


def next_launch() -> tuple[int, int]:
    """The run in progress, and the number of its next launch."""
    return _recording.runs, _recording.launches


def is_chosen_for() -> bool:
    """Whether an autotuner's choice, if there is one, is of the run's next launch."""
    return _recording.purpose.launch in (None, _recording.launches)


def refuse(error: AnnotationError) -> NoReturn:
    """Raise an error within the user's function, which may swallow it."""
    refuse_later(error)
    raise error


def refuse_later(error: AnnotationError) -> None:
    """Refuse the user's function, if it swallows what its own code raises now."""
    if _recording.is_running:
        _recording.refusals.append(error)


def raise_refusals() -> None:
    """Raise the first refusal that the function swallowed."""
    for error in _recording.refusals:
        raise error


def users_line(others: tuple[str, ...] = ()) -> str:
    """``file:line in function`` of the innermost call that is the user's own.

    Args:
        others: beginnings of file names that are not the user's either.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if is_users(file) and not file.startswith(others):
            break
        frame = frame.f_back
    where = place(frame.f_code.co_filename, frame.f_lineno)
    return f"{where} in {frame.f_code.co_name}"


def raised_at(error: BaseException) -> str:
    """``file:line in function`` of the user's where an error was raised, or passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_users(frame.filename)] or frames
    return f"{place(own[-1].filename, own[-1].lineno or 0)} in {own[-1].name}"


def is_users(filename: str) -> bool:
    """Whether a file is neither torch's nor this package's."""
    return not (in_torch(filename) or filename.startswith(_OURS))


def in_torch(filename: str) -> bool:
    """Whether a file is torch's."""
    return filename.startswith(f"{torch.__path__[0]}{os.sep}")
