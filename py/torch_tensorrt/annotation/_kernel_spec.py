"""A launch function and its configs, of whatever kernel language."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch_tensorrt.annotation._configs import (
    Config,
    Formats,
    is_configs,
)
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._formats import require_known
from torch_tensorrt.annotation.errors import SpecError


class Fingerprinted:
    """Equal, and of equal hash in every process, where the fingerprints are."""

    def _identity(self) -> tuple[Any, ...]:
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of everything that decides what is compiled."""
        return fingerprint(type(self).__name__, *self._identity())

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
            it launches exactly one kernel. None: the op's own body.
        configs: each a tactic: sorted (name, value) pairs.
        input_formats: names of TensorRT tensor formats, one for each tensor or one for
            all; None is LINEAR.
        output_formats: as ``input_formats``.
        fact_sets: which of what is known of the arguments the compiler is told; each
            is a tactic, where it changes the kernel.
        returns_outputs: ``launch_fn`` is an op's body: it takes the op's arguments by
            name, and allocates and returns its outputs. Config keys then override the
            keywords of its launch.

    Raises:
        SpecError: the launch function cannot be one, or a config or format is wrong.
    """

    backend: ClassVar[str]
    package: ClassVar[str]  # of the toolchain: a kernel is an object of it
    call: ClassVar[str]  # how a kernel is launched, for messages
    option_names: ClassVar[frozenset[str]] = frozenset()

    launch_fn: Callable[..., Any] | None
    configs: tuple[Config, ...] = ((),)
    input_formats: Formats = None
    output_formats: Formats = None
    fact_sets: tuple[str, ...] = ("",)
    returns_outputs: bool = False

    def __post_init__(self) -> None:
        if self.launch_fn is not None:
            self._check_launch_fn(self.launch_fn)
        if not is_configs(self.configs):
            raise SpecError(
                f"{self.backend}: configs is {self.configs!r}; it must be a tuple, not "
                f"empty, of tuples of (name, value) pairs, as tta.{self.backend}() "
                "makes it."
            )
        seen: set[str] = set()
        for number, config in enumerate(self.configs):
            self._check_config(number, config)
            if (digest := fingerprint(config)) in seen:
                raise SpecError(
                    f"{self.backend}: configs[{number}] {dict(config)} is there twice."
                )
            seen.add(digest)
        for formats in (self.input_formats, self.output_formats):
            require_known(formats, self.backend)
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
        """The launch function, which registering has found if it was not given."""
        if self.launch_fn is None:
            raise SpecError(
                f"{self.backend}: no launch function. Only custom_op(op, impl=...) can "
                "do without, where the op's own body launches the kernel."
            )
        return self.launch_fn

    def launch_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the launch function takes."""
        if self.returns_outputs:
            return {}
        parameters = inspect.signature(self.function).parameters
        return {
            name: value
            for name, value in config
            if name in parameters or name not in self.option_names
        }

    def kernel_keywords(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that overrides keywords of the kernel's launch."""
        return dict(config) if self.returns_outputs else {}

    def options(self, config: Config) -> dict[str, Any]:
        """The part of ``config`` that the compiler takes."""
        return {name: value for name, value in config if name in self.option_names}

    def _check_launch_fn(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SpecError(
                f"{self.backend}: the launch function is {function!r}, which cannot be "
                "called. Pass the Python function that launches the kernel."
            )
        is_kernel = getattr(function, "_decorator_kind", "") == "kernel"  # CuTe DSL's
        if is_kernel or f"{type(function).__module__}.".startswith(f"{self.package}."):
            python = getattr(function, "_pyfunc", function)
            name = getattr(python, "__name__", "kernel")
            raise SpecError(
                f"{self.backend}: {name} is a kernel. Pass the Python function that "
                f"launches it: def launch(x, out): {self.call.format(name)}."
            )
        try:
            inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"{self.backend}: the launch function is {function!r}, which has no "
                "signature. Pass the Python function that launches the kernel."
            ) from error

    def _check_config(self, number: int, config: Config) -> None:
        for name, value in config:
            if name in self.option_names and type(value) is not int:
                raise SpecError(
                    f"{self.backend}: configs[{number}] has {name}={value!r}; it must "
                    "be an int."
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
            if name not in taken - {"stream"} and name not in self.option_names:
                valid = ", ".join([*optional, *sorted(self.option_names)])
                function = getattr(self.launch_fn, "__qualname__", self.launch_fn)
                raise SpecError(
                    f"{self.backend}: configs[{number}] names {name!r}, which neither "
                    f"{function} nor the compiler takes. Valid names: {valid}."
                )

    def _identity(self) -> tuple[Any, ...]:
        formats = (self.input_formats, self.output_formats)
        how = (self.fact_sets, self.returns_outputs)
        return self.launch_fn, self.configs, formats, how
