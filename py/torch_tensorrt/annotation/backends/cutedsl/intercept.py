# SPDX-License-Identifier: BSD-3-Clause

"""What CuTe DSL's entry points do while a launch is recorded: report it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cutlass.cute as cute
import torch
from cutlass.base_dsl.compiler import CompileCallable
from cutlass.base_dsl.dsl import BaseDSL
from cutlass.base_dsl.jit_executor import JitCompiledFunction, JitExecutor
from cutlass.base_dsl.typing import Integer, Numeric
from cutlass.cute import runtime, testing
from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction

from ..._record.address import Address
from ...errors import UnsupportedKernelError
from .. import OnLaunch
from . import launch
from .autotune import inspect_for
from .compiled import CompiledLater


class _ThisThread(threading.local):
    """Where this thread's launches are reported; None while it records nothing."""

    report: Callable[..., None] | None = None


_lock = threading.RLock()
_this_thread = _ThisThread()


@contextlib.contextmanager
def intercepting(
    on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Report the launches of this thread; other threads launch as usual.

    Args:
        overrides: of compile-time constants, by parameter name.
    """

    def report(function: Any, bound: Any, passed: Any, options: Any) -> None:
        on_launch(launch.read_launch(function, bound, passed, overrides or {}, options))

    def run(_dsl: Any, function: Any, *args: Any, **keywords: Any) -> None:
        signature = launch.signature_of(function)
        bound = launch.bind(function.__qualname__, signature, args, keywords)
        report(function, bound, (*args, *keywords.values()), {})

    def compile_later(*args: Any, **keywords: Any) -> CompiledLater:
        return CompiledLater(lambda: _this_thread.report, *args, **keywords)

    original_init = Integer.__init__

    def make_integer(self: Any, value: Any, **keywords: Any) -> None:
        """``Integer.__init__`` that takes torch's symbolic sizes as well."""
        init = Numeric.__init__ if isinstance(value, torch.SymInt) else original_init
        init(self, value, **keywords)

    original_ceil_div = cute.ceil_div

    def ceil_div(value: Any, divisor: Any, **keywords: Any) -> Any:
        """``cute.ceil_div``, also of torch's symbolic sizes."""
        if isinstance(value, torch.SymInt) or isinstance(divisor, torch.SymInt):
            return (value + divisor - 1) // divisor
        return original_ceil_div(value, divisor, **keywords)

    original_pointer = runtime._Pointer

    def make_pointer(address: Any, dtype: Any, *args: Any, **keywords: Any) -> Any:
        """``_Pointer``, which ``make_ptr`` returns, also of a tensor's address."""
        if type(address) is Address and address.tensor is not None:
            return launch.FakePointer(address.tensor, dtype)
        return original_pointer(address, dtype, *args, **keywords)

    compiled = [CudaDialectJitCompiledFunction, JitCompiledFunction, JitExecutor]
    if provider := sys.modules.get("cutlass.cutlass_dsl.tvm_ffi_provider"):
        compiled += [
            provider.TVMFFIJitCompiledFunction,
            provider.TVMFFIJitCompiledFunctionWithKwargs,
        ]
    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (BaseDSL, "_func", run),
        (CompileCallable, "_compile", compile_later),
        *((cls, "__call__", _refuse_compiled) for cls in compiled),
        (runtime, "load_module", _Loaded),
        (runtime, "_Pointer", make_pointer),
        (runtime, "_Tensor", launch.FakeTensor),
        (Integer, "__init__", make_integer),
        (cute, "ceil_div", ceil_div),
    ]
    with _lock, contextlib.ExitStack() as stack:
        tuner = inspect_for(on_launch, overrides, lambda: bool(_this_thread.report))
        stack.callback(setattr, testing, "inspect", testing.inspect)
        testing.inspect = tuner
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
        "the launch function. Where a library keeps what it compiled, in memory or in "
        "files, empty its cache, and register the op before it is called."
    )


class _Loaded:
    """A module of compiled launchers, which a library loads from a file."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass

    def __getitem__(self, name: str) -> Callable[..., None]:
        return _refuse_compiled

    __getattr__ = __getitem__
