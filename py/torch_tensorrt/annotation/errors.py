# SPDX-License-Identifier: BSD-3-Clause

"""Everything this package raises, and how it warns.

AnnotationError
├── SpecError            what the user handed over is wrong: a config, a name, a format
├── ToolchainError       a kernel language, or its compiler, is not installed
├── TargetError          there is no GPU to compile for, or no compiler knows it
├── DTypeError           TensorRT, or a kernel, does not take this dtype
├── FormatError          a tensor cannot have the format its kernel expects
├── RecordError          the launch function could not be turned into launches
│   ├── UserCodeError        it raised, or the op's fake kernel did
│   ├── LaunchCountError     it launched no kernel
│   ├── ArgumentError        it passed the kernel something an engine cannot pass
│   ├── DataDependentError   a size depends on the values of a tensor
│   └── DynamicControlFlowError  it branches on a size that the profile leaves open
├── CompileError         the toolchain refused the kernel
├── UnsupportedKernelError   it compiled, but TensorRT cannot launch the result
├── PTXError             the compiled text is not what was expected
├── RegistrationError    the op cannot be registered, or is registered differently
│   ├── UnknownOpError       torch has no such op
│   ├── PluginMissingError   TensorRT has no plugin of that name, or does not add it
│   └── UnavailableError     this TensorRT has no plugins of the kind that is needed
├── CheckError           an op fails a check of testing.check
├── DryRunError          the plugin could not be driven as TensorRT's builder does
└── LaunchError          a DryRunError: the CUDA driver does not load a kernel

Warnings go to the logger ``torch_tensorrt.annotation``.
"""

import contextlib
import copy
import difflib
import functools
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

_LOGGER = logging.getLogger("torch_tensorrt.annotation")
_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)


class AnnotationError(Exception):
    """Base of every error of ``torch_tensorrt.annotation``."""


class SpecError(AnnotationError, ValueError):
    """A spec is wrong in itself, whatever it is used for."""


class ToolchainError(AnnotationError):
    """A kernel language or its compiler is missing, or is not known."""


class TargetError(AnnotationError):
    """There is no GPU to compile for, or the one named is not known."""


class DTypeError(AnnotationError, TypeError):
    """TensorRT, or the kernel's language, does not have this dtype."""


class FormatError(AnnotationError, ValueError):
    """A tensor cannot have the format that a kernel is registered for."""


class RecordError(AnnotationError):
    """A launch function could not be turned into launches."""


class UserCodeError(RecordError):
    """A launch function, or a fake kernel, raised on the shapes it was tried on."""


class LaunchCountError(RecordError):
    """A launch function launched no kernel."""


class ArgumentError(RecordError):
    """A launch function passes a kernel something that an engine cannot pass."""


class DataDependentError(RecordError):
    """A size, or an argument, depends on the values of a tensor."""


class DynamicControlFlowError(RecordError):
    """A launch function or fake kernel branches on a size the profile leaves open."""


class CompileError(AnnotationError):
    """The toolchain refused the kernel."""


class UnsupportedKernelError(AnnotationError):
    """The kernel compiled, but TensorRT has no way to launch the result."""


class PTXError(AnnotationError):
    """A PTX entry is not what its compiler was expected to emit."""


class RegistrationError(AnnotationError, ValueError):
    """An op cannot be registered, or is registered with something else."""


# Torch-TensorRT's own plugin functions raise the second base of each.


class UnknownOpError(RegistrationError, AttributeError):
    """torch has no op of this name."""


class PluginMissingError(RegistrationError, AssertionError):
    """TensorRT has no plugin of this name, or did not add it to a network."""


class UnavailableError(RegistrationError, NotImplementedError):
    """The installed TensorRT has no usable Quick Deployable Plugins."""


class CheckError(AnnotationError, AssertionError):
    """An op fails a check; ``report`` is the :class:`.testing.CheckReport`."""

    def __init__(self, report: object) -> None:
        super().__init__(str(report))
        self.report = report


class DryRunError(AnnotationError):
    """A registered plugin could not be driven as TensorRT's builder does."""


class LaunchError(DryRunError):
    """The CUDA driver does not load, or launch, a kernel."""


def as_ours(
    what: str, error: Exception, kind: type[AnnotationError] = CompileError
) -> AnnotationError:
    """``error``, or one of ours that stands for an unexpected one.

    TensorRT ends the process for an exception in autotune, so no other may leave.
    """
    if isinstance(error, AnnotationError):
        return error
    result = kind(
        f"{what}: unexpected {type(error).__name__}: {error}. Please report this."
    )
    result.__cause__ = error
    return result


def to_raise(error: AnnotationError) -> AnnotationError:
    """A copy of an error that is kept.

    What is raised refers to every frame on its way, and so to a caller's tensors.
    """
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)


_LIBRARY = [
    f"{Path(__file__).parent}{os.sep}",
    f"{Path(__file__).parents[1] / 'dynamo' / 'conversion' / 'plugins'}{os.sep}",
]


P = ParamSpec("P")
T = TypeVar("T")


def raised_here(function: Callable[P, T]) -> Callable[P, T]:
    """A public function whose errors have no frames of this package in a traceback.

    The message is what counts, and the user's own line is just above it. What asks for
    a report keeps its frames.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except AnnotationError as error:
            if "lease report this" in str(error):
                raise
            raise error.with_traceback(None)  # noqa: B904  its cause is known

    return call


def place_of(error: BaseException) -> str:
    """``file:line`` of the innermost call, on the way to an error, that is a user's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((*_LIBRARY, "<"))]
    return place(own[-1].filename, own[-1].lineno or 0) if own else ""


def place(filename: str, line: int) -> str:
    """``file:line``; the file as seen from the current directory, if it is below."""
    with contextlib.suppress(ValueError, OSError):
        filename = str(Path(filename).relative_to(Path.cwd()))
    return f"{filename}:{line}"


def chain(error: BaseException) -> list[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    found = [error]
    while True:
        hidden = None if error.__suppress_context__ else error.__context__
        cause = error.__cause__ or hidden
        if cause is None or cause in found:
            return found
        found.append(error := cause)


def reasons(error: BaseException) -> str:
    """What an error and its causes say, each thing once."""
    told: list[str] = []
    for each in chain(error):
        text = str(each).strip() or type(each).__name__
        if not any(text in other for other in told):
            told.append(text)
    return "\n".join(told)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence with the known name that is closest to a wrong one; or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def in_names(error: AnnotationError, names: Sequence[str]) -> AnnotationError:
    """The error with sizes as a user writes them: ``x.shape[1]``, and not ``d0_1``.

    A toolchain's error quotes source code, and stays as it is.
    """
    if isinstance(error, CompileError):
        return error
    text = sizes_in_names(str(error), names)
    if text == str(error):
        return error
    named = to_raise(error)
    named.args = (text, *error.args[1:])
    return named


def sizes_in_names(text: str, names: Sequence[str]) -> str:
    """``text``, in which ``d0_1`` is dimension 1 of the first of ``names``."""

    def named(match: re.Match[str]) -> str:
        tensor, axis = map(int, match.groups())
        return f"{names[tensor]}.shape[{axis}]" if tensor < len(names) else match[0]

    return re.sub(r"\bd(\d+)_(\d+)\b", named, text)


def warn(message: str) -> None:
    """Log a warning: an exception must not leave, and a warning would not be seen.

    An exception in autotune ends the process, one in a validator ends partitioning, and
    a problem with the cache must not stop a build. Where warnings are errors, one is an
    exception; elsewhere Torch-TensorRT hands Python's warnings to a logger without a
    handler.
    """
    if (collected := _collected.get()) is None:
        _LOGGER.warning(message)
    else:
        collected.append(message)


@contextlib.contextmanager
def collecting() -> Iterator[list[str]]:
    """Inside, the warnings of this thread are in the list, and are not logged."""
    messages: list[str] = []
    token = _collected.set(messages)
    try:
        yield messages
    finally:
        _collected.reset(token)
