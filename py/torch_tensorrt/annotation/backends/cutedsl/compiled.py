# SPDX-License-Identifier: BSD-3-Clause

"""What ``cute.compile`` gives while a launch is recorded, and how it is called.

A library compiles once for each of its own keys, with placeholders for tensors, keeps
the result, and calls it with other tensors. CuTe DSL binds such a call to what is left
of the launcher's signature: without ``Constexpr`` parameters and ``self``, and without
streams that TVM-FFI takes from the environment. An argument that was None keeps its
place. The invariant: a call binds as CuTe DSL binds it, and what it passes is of the
form that was compiled for. What else CuTe DSL would take, it would compute wrongly.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import torch
from cutlass.base_dsl.compiler import (
    CompileCallable,
    CompileOptions,
    EnableTVMFFI,
    _parse_compile_options_from_str,
)
from cutlass.base_dsl.dsl import BaseDSL
from cutlass.base_dsl.jit_executor import ExecutionArgs
from cutlass.base_dsl.runtime.jit_arg_adapters import is_arg_annotation_constexpr
from cutlass.base_dsl.typing import Float, Integer, Numeric
from cutlass.cute.runtime import _FakeStream, _FakeTensor
from cutlass.cute.typing import SymInt

from . import launch

# Options of cute.compile that change the code; the others say where to leave it.
_OPTIONS = frozenset(
    {"OptLevel", "EnablePYIR", "FrontendNext", "DisableCuteExtCompile", "LinkLibraries"}
)
_BYTE = 8  # bits; tensors of smaller elements have other extents in torch


class CompiledLater:
    """A launcher that was compiled: called later on, it compiles and launches.

    Args:
        reporting: gives what takes launches, or None where none are recorded.
        compiler: ``cute.compile``, with its options.
        given: the launcher.
        *args, **keywords: placeholders, or what it is called with first.

    Attributes:
        execution_args: as CuTe DSL has it.
    """

    def __init__(
        self,
        reporting: Callable[[], Callable[..., None] | None],
        compiler: CompileCallable,
        given: Any,
        *args: Any,
        **keywords: Any,
    ) -> None:
        self._reporting, self._compiler, self._given = reporting, compiler, given
        names = {"options", "is_experimental", "trace_finalize_hooks"}
        self._options = {n: keywords.pop(n) for n in names & keywords.keys()}
        self._function, args = launch.undecorated(given, args)
        self._name = self._function.__qualname__
        signature = launch.signature_of(self._function)
        self._bound = launch.bind(self._name, signature, args, keywords)
        self.execution_args = ExecutionArgs(signature, self._name)
        self._chosen = _compile_options(compiler, self._options.get("options"))
        # Which checks extents, and takes some streams from the environment.
        BaseDSL._lazy_initialize_dsl(self._function)
        settings = self._function._dsl_object.envar
        asked = self._chosen.options[EnableTVMFFI].value
        self._is_tvm_ffi = bool(asked or settings.enable_tvm_ffi)
        takes = self.execution_args.signature.parameters.values()
        kept = [p for p in takes if not self._is_from_environment(p.name)]
        self._takes = signature.replace(parameters=kept)
        self._real: Callable[..., Any] | None = None

    def _is_from_environment(self, name: str) -> bool:
        value = self._bound.arguments.get(name)
        is_stream = isinstance(value, _FakeStream) and value.use_tvm_ffi_env_stream
        return is_stream and self._is_tvm_ffi

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Nothing: the source of the launch function that keeps it stands for it."""
        return ()

    def to(self, device: Any = None) -> CompiledLater:
        """Itself: an engine has one device."""
        return self

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        call = launch.bind(self._name, self._takes, args, keywords)
        if report := self._reporting():
            self._require_same_forms(call)
            signature = self._bound.signature
            arguments = OrderedDict({**self._bound.arguments, **call.arguments})
            bound = inspect.BoundArguments(signature, arguments)
            passed = (*args, *keywords.values())
            return report(self._function, bound, passed, _code_options(self._chosen))
        if self._real is None:
            self._real = self._compile(call)
        return self._real(*args, **keywords)

    def _compile(self, call: inspect.BoundArguments) -> Callable[..., Any]:
        """For the placeholders; for this call's tensors, where there were others."""
        compiled = OrderedDict(self._bound.arguments)
        for name, value in call.arguments.items():
            if any(isinstance(leaf, torch.Tensor) for _, leaf, _ in self._leaves(name)):
                compiled[name] = value
        bound = inspect.BoundArguments(self._bound.signature, compiled)
        is_bound = self._given is not self._function and "self" in compiled
        args = bound.args[1:] if is_bound else bound.args
        options = {**bound.kwargs, **self._options}
        return self._compiler(self._given, *args, **options)  # type: ignore[no-any-return]

    def _leaves(self, name: str) -> list[tuple[str, Any, bool]]:
        """What the argument that was compiled for is made of."""
        reader = launch.Reader(self._name)
        parameter = self._takes.parameters[name]
        reader.read(name, self._bound.arguments[name], parameter.annotation)
        return reader.leaves

    def _require_same_forms(self, call: inspect.BoundArguments) -> None:
        """Raise where an argument has another form than the one compiled for.

        Raises:
            ValueError: as CuTe DSL raises for the user's inputs, where it checks them.
        """
        extents: dict[int, Any] = {}  # by placeholder
        for name, value in call.arguments.items():
            annotation = self._takes.parameters[name].annotation
            value = call.arguments[name] = _completed(
                self._bound.arguments[name], value
            )
            compiled, called = (launch.Reader(self._name) for _ in range(2))
            wanted = compiled.read(name, self._bound.arguments[name], annotation)
            if (
                isinstance(wanted, launch.Leaf)
                and annotation is inspect.Parameter.empty
            ):
                value = call.arguments[name] = _as_kind(value, wanted.kind)
            found = called.read(name, value, annotation)
            constants = [
                [
                    (path, type(leaf), leaf)
                    for path, leaf, fixed in reader.leaves
                    if fixed
                ]
                for reader in (compiled, called)
            ]
            if wanted != found or constants[0] != constants[1]:
                one, other = (_show(reader.leaves) for reader in (compiled, called))
                raise self._refused(
                    name, f"it is compiled for {one}, and called with {other}"
                )
            for (path, one, _), (_, other, _) in zip(
                compiled.leaves, called.leaves, strict=True
            ):
                if isinstance(one, _FakeTensor) and one.element_type.width >= _BYTE:
                    self._require_layout(path, one, other, extents)

    def _require_layout(
        self, name: str, wanted: Any, found: torch.Tensor, extents: dict[int, Any]
    ) -> None:
        """Raise where a tensor is not of the layout that was compiled for.

        Args:
            extents: those found for placeholders, which TVM-FFI wants to be equal.

        """
        for what, sizes, given in (
            ("extent", wanted.shape, found.shape),
            ("stride", wanted.stride, found.stride()),
        ):
            if len(sizes) != len(given):
                why = (
                    f"it is compiled for {len(sizes)} dimensions, and has {len(given)}"
                )
                raise self._refused(name, why)
            for axis, (size, number) in enumerate(zip(sizes, given, strict=True)):
                if isinstance(size, SymInt):
                    divisor = size.divisibility
                    if divisor > 1 and number % divisor != 0:
                        why = f"{what} {axis} is compiled for multiples of {divisor}"
                        raise self._refused(name, f"{why}, and is {number}")
                    first = extents.setdefault(id(size), number)
                    if self._is_tvm_ffi and number != first:
                        other = f"its placeholder is {first} elsewhere"
                        raise self._refused(name, f"{what} {axis} is {number}, {other}")
                elif isinstance(size, int) and number != size:
                    why = f"{what} {axis} is compiled for {size}, and is {number}"
                    raise self._refused(name, why)

    def _refused(self, name: str, why: str) -> ValueError:
        return ValueError(
            f"launcher {self._name}, argument `{name}`: {why}. Compile it for each "
            "form that it is called with."
        )


def _completed(compiled: Any, called: Any) -> Any:
    """A NamedTuple or dataclass of a call, with what it was compiled for.

    Libraries pass None for its ``Constexpr`` fields, which are compiled in, and plain
    numbers where a type was compiled for.
    """
    cls = type(called)
    if type(compiled) is not cls or not launch.is_record(called):
        return called
    names = [f.name for f in fields(cls)] if is_dataclass(cls) else cls._fields
    hints, values = get_type_hints(cls), {}
    for name in names:
        one, value = getattr(compiled, name), getattr(called, name)
        if value is None and is_arg_annotation_constexpr(
            hints.get(name), name, 1, None
        ):
            value = one
        elif isinstance(value, int | float) and isinstance(one, Numeric):
            value = _as_kind(value, type(one))
        values[name] = _completed(one, value)
    return cls(**values)


def _as_kind(value: Any, kind: Any) -> Any:
    """A plain number of the type that was compiled for, where nothing declares it."""
    is_integer = isinstance(value, int | torch.SymInt) and not isinstance(value, bool)
    base = Integer if is_integer else Float
    is_number = is_integer or isinstance(value, float)
    is_such = isinstance(kind, type) and issubclass(kind, base)
    return kind(value) if is_number and is_such else value


def _show(leaves: list[tuple[str, Any, bool]]) -> str:
    """Leaves of an argument, for messages."""
    shown = []
    for _, leaf, is_fixed in leaves:
        if isinstance(leaf, _FakeTensor):
            shown.append(f"a tensor of {leaf.element_type.__name__}")
        elif isinstance(leaf, torch.Tensor):
            shown.append(f"a tensor of {leaf.dtype}")
        elif is_fixed:
            shown.append(repr(leaf))
        else:
            shown.append("a number")
    return ", ".join(shown) or "a stream"


def _compile_options(compiler: CompileCallable, text: Any) -> CompileOptions:
    """Those of ``cute.compile[...]``, or of the text that takes their place."""
    if isinstance(text, str) and text:
        return _parse_compile_options_from_str(text)
    return compiler._compile_options


def _code_options(options: CompileOptions) -> dict[str, Any]:
    """The options that change the code, by the name of their class."""
    return {
        cls.__name__: option.value
        for cls, option in options.options.items()
        if cls.__name__ in _OPTIONS and option.value != cls._default
    }
