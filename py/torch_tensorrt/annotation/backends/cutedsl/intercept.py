# SPDX-License-Identifier: BSD-3-Clause

"""What CuTe DSL's entry points do while a launch is recorded: report it."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from cutlass.base_dsl.compiler import CompileCallable, _parse_compile_options_from_str
from cutlass.base_dsl.dsl import BaseDSL
from cutlass.base_dsl.jit_executor import JitCompiledFunction, JitExecutor
from cutlass.base_dsl.typing import Integer, Numeric
from cutlass.cute import runtime
from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction

from ...errors import ArgumentError, UnsupportedKernelError
from .. import OnLaunch
from . import launch


class _ThisThread(threading.local):
    """Where this thread's launches are reported; None while it records nothing."""

    report: Callable[..., None] | None = None


_lock = threading.RLock()
_this_thread = _ThisThread()

# Options of cute.compile that change the code; the others say where to leave it.
_OPTIONS = frozenset(
    {"OptLevel", "EnablePYIR", "FrontendNext", "DisableCuteExtCompile", "LinkLibraries"}
)


@contextlib.contextmanager
def intercepting(
    on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Report the launches of this thread; other threads launch as usual.

    Args:
        overrides: of compile-time constants, by parameter name.
    """

    def report(function: Any, args: Any, keywords: Any, options: Any) -> None:
        on_launch(
            launch.read_launch(function, args, keywords, overrides or {}, options)
        )

    def run(_dsl: Any, function: Any, *args: Any, **keywords: Any) -> None:
        report(function, args, keywords, {})

    original_init = Integer.__init__

    def make_integer(self: Any, value: Any, **keywords: Any) -> None:
        """``Integer.__init__`` that takes torch's symbolic sizes as well."""
        init = Numeric.__init__ if isinstance(value, torch.SymInt) else original_init
        init(self, value, **keywords)

    compiled = (CudaDialectJitCompiledFunction, JitCompiledFunction, JitExecutor)
    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (BaseDSL, "_func", run),
        (CompileCallable, "_compile", CompiledLater),
        *((cls, "__call__", _refuse_compiled) for cls in compiled),
        (runtime, "_Tensor", launch.FakeTensor),
        (Integer, "__init__", make_integer),
    ]
    with _lock, contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, _while_recording(replacement, original))
        stack.callback(setattr, _this_thread, "report", _this_thread.report)
        _this_thread.report = report
        yield


def _while_recording(replacement: Any, original: Any) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        chosen = replacement if _this_thread.report else original
        return chosen(*args, **keywords)

    return call


def _refuse_compiled(*args: Any, **keywords: Any) -> None:
    raise UnsupportedKernelError(
        "the launch function calls a launcher that was compiled before, and only its "
        "binary is left. Call the @cute.jit function itself, or call cute.compile in "
        "the launch function."
    )


class CompiledLater:
    """What ``cute.compile`` gives while a launch is recorded.

    A launch function may keep it: called later on, it compiles and launches.
    """

    def __init__(
        self, compiler: CompileCallable, function: Any, *args: Any, **keywords: Any
    ) -> None:
        self._compiler = compiler
        self._options = keywords.pop("options", None)
        self._given = function
        self._function, args = launch.undecorated(function, args)
        bound = inspect.signature(self._function).bind(*args, **keywords)
        bound.apply_defaults()
        static = launch.static_parameters(self._function) | {"self"}
        given = bound.arguments.items()
        self._fixed = {k: v for k, v in given if k in static or v is None}
        self._names = [name for name in bound.arguments if name not in self._fixed]
        self._real: Callable[..., Any] | None = None

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Nothing: the source of the launch function that keeps it stands for it."""
        return ()

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if len(args) > len(self._names):
            raise ArgumentError(
                f"launcher {self._function.__qualname__}: what cute.compile made of it "
                f"takes {', '.join(self._names)}; it was called with {len(args)} "
                "arguments."
            )
        positional = dict(zip(self._names, args, strict=False))
        arguments = {**self._fixed, **positional, **keywords}
        if report := _this_thread.report:
            options = _options(self._compiler, self._options)
            return report(self._function, (), arguments, options)
        if self._real is None:
            if self._given is not self._function:
                arguments.pop("self", None)  # which the method is bound to
            if self._options is not None:
                arguments["options"] = self._options
            self._real = self._compiler(self._given, **arguments)
        return self._real(*args, **keywords)


def _options(compiler: CompileCallable, text: Any) -> dict[str, Any]:
    """The options that change the code, by the name of their class."""
    chosen = compiler._compile_options
    if isinstance(text, str) and text:
        chosen = _parse_compile_options_from_str(text)
    return {
        cls.__name__: option.value
        for cls, option in chosen.options.items()
        if cls.__name__ in _OPTIONS and option.value != cls._default
    }
