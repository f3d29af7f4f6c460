"""What CuTe DSL's entry points do while a launch is recorded: report it."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cutlass
import cutlass.cute as cute
import torch
from cutlass.base_dsl.compiler import CompileCallable, _parse_compile_options_from_str
from cutlass.base_dsl.dsl import BaseDSL
from cutlass.base_dsl.jit_executor import JitCompiledFunction, JitExecutor
from cutlass.base_dsl.typing import Integer, Numeric
from cutlass.cute import runtime
from cutlass.cutlass_dsl.cuda_jit_executor import CudaDialectJitCompiledFunction

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._launch import Launch
from torch_tensorrt.annotation.backends._cutedsl_launch import (
    TensorLike,
    read_launch,
    static_parameters,
    undecorated,
)
from torch_tensorrt.annotation.errors import ArgumentError, UnsupportedKernelError

_lock = threading.RLock()
_this_thread = threading.local()  # .report, while it records

# Options of cute.compile that change the code; the others say where to leave it.
OPTIONS = frozenset(
    {"OptLevel", "EnablePYIR", "FrontendNext", "DisableCuteExtCompile", "LinkLibraries"}
)


@contextlib.contextmanager
def intercepting(
    on_launch: Callable[[Launch], None], overrides: Mapping[str, Any]
) -> Iterator[None]:
    """Report the launches of this thread; other threads launch as ever.

    Args:
        overrides: of compile-time constants, by parameter name.
    """
    thread = threading.get_ident()

    def report(
        function: Any, args: tuple[Any, ...], keywords: Any, options: Any
    ) -> None:
        on_launch(read_launch(function, args, keywords, overrides, options))

    def run(dsl: Any, function: Any, *args: Any, **keywords: Any) -> None:
        del dsl
        report(function, args, keywords, {})

    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (BaseDSL, "_func", run),
        (CompileCallable, "_compile", CompiledLater),
        (CudaDialectJitCompiledFunction, "__call__", _refuse_compiled),
        (JitCompiledFunction, "__call__", _refuse_compiled),
        (JitExecutor, "__call__", _refuse_compiled),
        (runtime, "_Tensor", FakeTensor),
        (Integer, "__init__", _make_integer(Integer.__init__)),
    ]
    with _lock, contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, _only_in(thread, replacement, original))
        _this_thread.report = report
        stack.callback(delattr, _this_thread, "report")
        yield


def _only_in(
    thread: int, replacement: Callable[..., Any], original: Callable[..., Any]
) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        is_mine = threading.get_ident() == thread
        return (replacement if is_mine else original)(*args, **keywords)

    return call


def _make_integer(original: Callable[..., None]) -> Callable[..., None]:
    """``Integer.__init__`` that takes torch's symbolic sizes as well."""

    def init(self: Any, value: Any, **keywords: Any) -> None:
        if isinstance(value, torch.SymInt):
            Numeric.__init__(self, value)
        else:
            original(self, value, **keywords)

    return init


def _refuse_compiled(*args: Any, **keywords: Any) -> None:
    raise UnsupportedKernelError(
        "the launch function calls a launcher that was compiled before, of which only "
        "the binary is left. Call the @cute.jit function itself, or call cute.compile "
        "in the launch function."
    )


class FakeTensor(TensorLike):
    """What ``from_dlpack`` gives while a launch is recorded.

    Which extents are dynamic, and what divides them, comes from the profile alone.
    """

    def __init__(self, tensor: Any, *args: Any, **keywords: Any) -> None:
        del args, keywords  # the alignment is the plugin's promise
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentError(
                f"from_dlpack of a {type(tensor).__name__}: an engine passes the op's "
                "tensors alone."
            )
        self.tensor = tensor
        self._type = getattr(cutlass, _dtypes.from_torch(tensor.dtype).cutedsl)

    def mark_layout_dynamic(self, *args: Any, **keywords: Any) -> FakeTensor:
        return self

    def mark_compact_shape_dynamic(self, *args: Any, **keywords: Any) -> FakeTensor:
        return self

    @property
    def element_type(self) -> Any:
        return self._type

    @element_type.setter
    def element_type(self, new_type: Any) -> None:
        self._type = new_type

    @property
    def dtype(self) -> Any:
        return self._type

    @property
    def memspace(self) -> Any:
        return cute.AddressSpace.gmem

    @property
    def shape(self) -> Any:
        return tuple(self.tensor.shape)

    @property
    def stride(self) -> Any:
        return tuple(self.tensor.stride())

    @property
    def leading_dim(self) -> Any:
        return cute.leading_dim(self.shape, self.stride)

    def __str__(self) -> str:
        return f"Tensor<{self.tensor.dtype}, {self.shape}:{self.stride}>"

    @property
    def iterator(self) -> Any:
        return self.tensor.data_ptr()  # which raises, and says what to do

    data_ptr = iterator

    def _refuse(self, *args: Any) -> Any:
        raise ArgumentError(
            "the launch function reads or writes a tensor's elements outside its "
            "kernel. An engine runs the kernel alone: do it there."
        )

    __getitem__ = __setitem__ = fill = layout = _refuse


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
        self._function, args = undecorated(function, args)
        bound = inspect.signature(self._function).bind(*args, **keywords)
        bound.apply_defaults()
        static = static_parameters(self._function) | {"self"}
        given = bound.arguments.items()
        self._fixed = {k: v for k, v in given if k in static or v is None}
        self._names = [name for name in bound.arguments if name not in self._fixed]
        self._real: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if len(args) > len(self._names):
            raise ArgumentError(
                f"launcher {self._function.__qualname__}: what cute.compile made of it "
                f"takes {', '.join(self._names)}; it was called with {len(args)} "
                "arguments."
            )
        given = {**dict(zip(self._names, args, strict=False)), **keywords}
        arguments = {**self._fixed, **given}
        report = getattr(_this_thread, "report", None)
        if report is not None:
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
        if cls.__name__ in OPTIONS and option.value != cls._default
    }
