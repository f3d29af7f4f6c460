# SPDX-License-Identifier: BSD-3-Clause

"""What a user hands over: a launch function with its configs, and the plugin they make.

A kernel language derives its own spec from :class:`KernelSpec`, in its own folder.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import torch

from ._fingerprint import describe_language, fingerprint
from ._tensors import Formats, as_formats
from .errors import SpecError, did_you_mean, raised_here

Spec = TypeVar("Spec", bound="KernelSpec")
Config: TypeAlias = tuple[tuple[str, Any], ...]  # sorted (name, value) pairs


class Fingerprinted:
    """A dataclass whose equality and hash come from its fields' fingerprint."""

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of everything that decides what is compiled."""
        return fingerprint(type(self).__qualname__, *self.fingerprint_parts())

    def fingerprint_parts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprinted):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return int(self.fingerprint[:15], 16)


@dataclass(frozen=True, eq=False)
class KernelSpec(Fingerprinted):
    """A launch function, and the configurations of it that are worth timing.

    Attributes:
        launch_fn: ``launch_fn(*inputs, *weights, *outputs, **config_and_attributes)``;
            it launches one kernel or more. None: the op's own body.
        configs: each is a tactic: sorted (name, value) pairs. Equal ones are one.
        input_formats: names of TensorRT tensor formats, one for each tensor or one for
            all; None is LINEAR.
        output_formats: as ``input_formats``.
        returns_outputs: ``launch_fn`` is an op's body: it takes the op's arguments by
            name, and allocates and returns its outputs. Config keys then override the
            keywords of its launch.

    A language's own spec sets ``backend``, its name; ``packages``, the top-level
    packages of its toolchain; ``call``, how a kernel is launched, for messages; and
    ``options``, the config keys that are its compiler's, with their types.

    Raises:
        SpecError: the launch function cannot be one, or a config or format is wrong.
    """

    backend: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    call: ClassVar[str]
    options: ClassVar[Mapping[str, type]] = {}

    launch_fn: Callable[..., Any] | None
    configs: tuple[Config, ...] = ((),)
    input_formats: Formats = None
    output_formats: Formats = None
    returns_outputs: bool = False

    def __init_subclass__(cls) -> None:
        describe_language(cls.packages, cls.object_parts)

    @classmethod
    def of(
        cls: type[Spec],
        launch_fn: Callable[..., Any] | None,
        configs: Any = None,
        input_formats: Any = None,
        output_formats: Any = None,
        keywords: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Spec:
        """The spec of what a user writes.

        Args:
            launch_fn: what launches the kernel; None where the op's own body does.
            configs: a list of dicts; None for one config, the defaults.
            input_formats, output_formats: one format or several, names or members of
                ``trt.TensorFormat``.
            keywords: config keys that hold in every config.
            **fields: of the language's own spec.

        Raises:
            SpecError: a config is not a dict, or a format is not TensorRT's.
        """
        return cls(
            launch_fn,
            _as_configs(cls.backend, configs, keywords or {}),
            as_formats(input_formats, cls.backend),
            as_formats(output_formats, cls.backend),
            **fields,
        )

    @staticmethod
    def object_parts(value: Any) -> tuple[Any, ...] | None:
        """What tells an object of the toolchain's packages from others.

        None: its ``repr`` does. Nothing, ``()``: it is something compiled, which a
        launch function keeps and its source stands for.
        """
        return None

    def __post_init__(self) -> None:
        if self.launch_fn is not None:
            self._check_launch_fn(self.launch_fn)
        try:
            names = [name for config in self.configs for name, _ in config]
            is_sound = self.configs != () and all(isinstance(n, str) for n in names)
        except (TypeError, ValueError):
            is_sound = False
        if not is_sound or not isinstance(self.configs, tuple):
            raise SpecError(
                f"{self.backend}: configs is {self.configs!r}; it must be a tuple, not "
                f"empty, of tuples of (name, value) pairs, as tta.{self.backend}() "
                "makes it."
            )
        for number, config in enumerate(self.configs):
            self._check_config(number, config)
        distinct = {fingerprint(config): config for config in self.configs}
        object.__setattr__(self, "configs", tuple(distinct.values()))
        if type(self.returns_outputs) is not bool:
            raise SpecError(
                f"{self.backend}: returns_outputs is {self.returns_outputs!r}; it must "
                "be True or False."
            )
        if self.is_packed and (self.launch_fn is None or self.returns_outputs):
            raise SpecError(
                f"{self.backend}: the op's own body takes row-major tensors. Pass the "
                "function that launches a kernel for these formats: "
                f"tta.{self.backend}(launch_fn, ...)."
            )

    @property
    def is_packed(self) -> bool:
        """Whether some tensor has a format other than LINEAR."""
        names = (*(self.input_formats or ()), *(self.output_formats or ()))
        return not set(names) <= {"LINEAR"}

    @property
    def function(self) -> Callable[..., Any]:
        """The launch function. Registration finds it if it was not given."""
        if self.launch_fn is None:
            raise SpecError(
                f"{self.backend}: no launch function. Only custom_op(op, impl=...) can "
                "do without, where the op's own body launches the kernel."
            )
        return self.launch_fn

    def chooses(self, config: Config) -> bool:
        """Whether ``config`` takes the place of an autotuner's choices."""
        return bool(config)

    def launch_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the launch function takes."""
        if self.returns_outputs:
            return {}
        others = {*self.options} - {*inspect.signature(self.function).parameters}
        return {name: value for name, value in config if name not in others}

    def kernel_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that overrides keywords of the kernel's launch."""
        return dict(config) if self.returns_outputs else {}

    def compiler_options(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the compiler takes."""
        return {name: value for name, value in config if name in self.options}

    def _check_launch_fn(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SpecError(
                f"{self.backend}: the launch function is {function!r}, which cannot be "
                "called. Pass the Python function that launches the kernel."
            )
        if self.is_kernel(function):
            made_of = (function, *(self.object_parts(function) or ()))
            names = (part.__name__ for part in made_of if hasattr(part, "__name__"))
            name = next(names, "kernel")
            raise SpecError(
                f"{self.backend}: {name} is a kernel. Pass the Python function that "
                f"launches it: def launch(x, out): {self.call.format(name)}."
            )
        module = getattr(function, "__module__", None) or ""
        is_lambda = getattr(function, "__name__", "") == "<lambda>"
        if is_lambda and module.partition(".")[0] in self.packages:
            call = self.call.format("kernel")
            raise SpecError(
                f"{self.backend}: this is a kernel with its grid, without arguments. "
                f"Pass a Python function that launches it: def launch(x, out): {call}."
            )
        try:
            inspect.signature(function)
        except (TypeError, ValueError) as error:
            name = getattr(function, "__qualname__", repr(function))
            raise SpecError(
                f"{self.backend}: the launch function is {name}, which has no "
                "signature. Pass the Python function that launches the kernel."
            ) from error

    @classmethod
    def is_kernel(cls, function: Callable[..., Any]) -> bool:
        """Whether ``function`` is a kernel, and not what launches one."""
        return type(function).__module__.partition(".")[0] in cls.packages

    def _check_config(self, number: int, config: Config) -> None:
        for name, value in config:
            if type(value) is not (wanted := self.options.get(name, type(value))):
                raise SpecError(
                    f"{self.backend}: configs[{number}] has {name}={value!r}; it must "
                    f"be of type {wanted.__name__}."
                )
        if self.launch_fn is None or self.returns_outputs:
            return  # the kernel's own parameters, known when it is launched
        parameters = inspect.signature(self.launch_fn).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        taken = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
        optional = [
            p.name
            for p in parameters
            if p.default is not p.empty or p.kind is p.KEYWORD_ONLY
        ]
        for name, _ in config:
            if name not in (taken - {"stream"}) | {*self.options}:
                valid = ", ".join([*optional, *sorted(self.options)])
                function = getattr(self.launch_fn, "__qualname__", self.launch_fn)
                raise SpecError(
                    f"{self.backend}: configs[{number}] names {name!r}, which neither "
                    f"{function} nor the compiler takes."
                    f"{did_you_mean(name, [*optional, *self.options])} Valid names: "
                    f"{valid}."
                )


def _as_configs(
    backend: str, configs: Any, keywords: Mapping[str, Any]
) -> tuple[Config, ...]:
    """What a user wrote as ``configs`` and keywords, with names sorted."""
    if configs is None:
        configs = [{}]
    if isinstance(configs, Mapping | str) or not isinstance(configs, Sequence):
        raise SpecError(
            f"{backend}: configs is {configs!r}; it must be a list of dicts, one for "
            "each tactic: configs=[{'BLOCK': 256}, {'BLOCK': 1024}]."
        )
    if not configs:
        raise SpecError(f"{backend}: configs is empty. Leave it out for one tactic.")
    for number, config in enumerate(configs):
        is_dict = isinstance(config, Mapping)
        if not is_dict or not all(isinstance(key, str) for key in config):
            raise SpecError(
                f"{backend}: configs[{number}] is {config!r}; it must be a dict from "
                "names to values."
            )
    return tuple(tuple(sorted({**keywords, **config}.items())) for config in configs)


@dataclass(frozen=True, eq=False)
class CustomPluginSpec(Fingerprinted):
    """Everything that makes a plugin, whatever op it is registered for.

    Attributes:
        specs: the kernels; the configs of all of them are the op's tactics.
        meta_impl: fake kernel of the op: fake inputs to fake outputs; None where the op
            exists in torch and has its own.
        attributes: (name, value) keywords of every launch function.
        weights: (name, tensor) constants, between the inputs and the outputs.
        aligned: promise that every tensor starts at a multiple of 16 bytes. TensorRT's
            own do; an engine input bound to a sliced view may not.

    Raises:
        SpecError: a field is of the wrong kind, or a name is there twice.
    """

    specs: tuple[KernelSpec, ...]
    meta_impl: Callable[..., Any] | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    weights: tuple[tuple[str, torch.Tensor], ...] = ()
    aligned: bool = True

    def __post_init__(self) -> None:
        for spec in self.specs:
            if inspect.isfunction(spec):
                raise SpecError(
                    f"custom_plugin: {spec.__qualname__} is a function, and the "
                    "language of its kernel is not known. Pass "
                    f"tta.triton({spec.__qualname__}), or tta.cutile, tta.cutedsl or "
                    "tta.cuda."
                )
        if not self.specs or not all(isinstance(s, KernelSpec) for s in self.specs):
            raise SpecError(
                f"custom_plugin: {self.specs!r} is not a kernel spec, or a list of "
                "them. Make one with tta.triton(launch_fn)."
            )
        if type(self.aligned) is not bool:
            raise SpecError(
                f"custom_plugin: aligned is {self.aligned!r}; it must be True or False."
            )
        if self.meta_impl is not None and not callable(self.meta_impl):
            raise SpecError(
                f"custom_plugin: meta_impl is {self.meta_impl!r}; it must be a "
                "function from the op's inputs to its (empty) outputs."
            )
        configured = {n for s in self.specs for c in s.configs for n, _ in c}
        for name, _ in (*self.attributes, *self.weights):
            if name in configured:
                raise SpecError(
                    f"custom_plugin: {name!r} is both an attribute and a config key."
                )

    @cached_property
    def op_name(self) -> str:
        """A name for this plugin, the same in every process."""
        function = getattr(self.specs[0].launch_fn, "__name__", "plugin")
        return f"tta::{re.sub(r'[^0-9A-Za-z_]', '', function)}_{self.fingerprint[:16]}"


@raised_here
def custom_plugin(
    spec: KernelSpec | Sequence[KernelSpec],
    meta_impl: Callable[..., Any] | None = None,
    *,
    aligned: bool = True,
    **attributes: Any,
) -> CustomPluginSpec:
    """A plugin made of one kernel spec, or of several that compute the same.

    Args:
        spec: what ``tta.triton``, ``tta.cutile``, ``tta.cutedsl`` or ``tta.cuda``
            returned, or a list of such; the configs of all are the op's tactics.
        meta_impl: from the op's inputs (fake tensors) to its outputs, as in
            ``lambda x: torch.empty_like(x)``. May be left out for an op that torch
            already knows.
        aligned: promise that every tensor starts at a multiple of 16 bytes, as
            TensorRT's own and torch's do. False gives up vector loads.
        **attributes: tensors, and NumPy arrays, are weights: constants of the engine,
            passed to every launch function between the inputs and the outputs, in this
            order; they must not change afterwards. Everything else is passed by name.

    Returns:
        The plugin, for ``custom_op(op, impl=...)``.

    Raises:
        SpecError: an argument is of the wrong kind.
    """
    specs = tuple(spec) if isinstance(spec, Sequence) else (spec,)
    given = {n: _as_weight(n, v) for n, v in attributes.items()}
    weights = {n: v for n, v in given.items() if isinstance(v, torch.Tensor)}
    scalars = tuple((n, attributes[n]) for n in sorted({*attributes} - {*weights}))
    return CustomPluginSpec(specs, meta_impl, scalars, tuple(weights.items()), aligned)


def _as_weight(name: str, value: Any) -> Any:
    """A NumPy array as the tensor that it is a weight by; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    try:
        return torch.tensor(value)
    except TypeError as error:
        raise SpecError(
            f"custom_plugin: weight {name!r}: torch has no tensor for an array of "
            f"dtype {value.dtype}. Convert it."
        ) from error


def normalize_impl_to_spec(impl: Any) -> CustomPluginSpec:
    """The plugin spec of anything that ``custom_op(impl=...)`` accepts.

    Args:
        impl: a plugin spec (returned as it is), a kernel spec, or a list of them.

    Returns:
        The plugin spec.

    Raises:
        SpecError: it is something else.
    """
    if isinstance(impl, CustomPluginSpec):
        return impl
    if isinstance(impl, KernelSpec | list | tuple) or inspect.isfunction(impl):
        given: Any = impl
        return custom_plugin(given)
    raise SpecError(
        f"impl={impl!r} is not a plugin. Pass tta.triton(launch_fn), or "
        "tta.custom_plugin(...)."
    )
