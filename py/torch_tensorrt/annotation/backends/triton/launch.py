# SPDX-License-Identifier: BSD-3-Clause

"""One ``kernel[grid](...)``, as Triton's JIT would bind its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.types import py_sym_types
from triton import knobs
from triton._utils import canonicalize_dtype
from triton.backends.nvidia.compiler import CUDAOptions
from triton.runtime.autotuner import Autotuner
from triton.runtime.autotuner import Config as TritonConfig
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from ..._record.address import Address
from ..._record.recording import purpose
from ..._specs import Config
from ..._tensors import DTYPES
from ...errors import ArgumentError
from .. import CaughtLaunch
from ..abi import unsupported
from ..unread import Text, unread
from . import without_defaults
from .compiled import Compiled
from .constants import are_sizes
from .descriptors import caught


@dataclass(frozen=True)
class Bound:
    """A launch of a kernel, through the decorators it may have.

    Attributes:
        choices: of an autotuner; the first was taken.
        changed: the arguments that a config changes.
        returned: what launching, or compiling, the kernel returns.
    """

    kernel: JITFunction[Any]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    choices: tuple[Config, ...]
    changed: Sequence[str]
    returned: Compiled


def bind(
    launched: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    is_launch: bool,
) -> Bound:
    """Bind the arguments of a launch, or of a compilation.

    Args:
        overrides: replace keywords; None takes an autotuner's first choice.

    Raises:
        ArgumentError: the arguments do not fit the kernel.
        UnsupportedKernelError: an engine cannot do what a decorator asks for.
    """
    kernel, choices, decorators = _unwrapped(launched, overrides)
    if overrides is None:
        overrides = dict(choices[0]) if choices else {}
    arguments, options, changed = _bind(kernel, args, keywords, overrides)
    for hook in _hooks(launched) if is_launch else ():
        hook({**arguments, **options})  # which sets the blocks of descriptors
    # What a heuristic sees: no defaults, and a config of an autotuner outside of it.
    seen = {**dict(zip(kernel.arg_names, args, strict=False)), **keywords}
    seen |= {} if choices else overrides
    for decorator in decorators:
        if isinstance(decorator, Autotuner):
            seen |= decorator.best_config.all_kwargs()
            continue
        for name, function in decorator.values.items():
            seen[name] = function(dict(seen))
            (arguments if name in kernel.arg_names else options)[name] = seen[name]

    def constants() -> dict[str, Any]:
        # What a config overrides stays in: another launch is to notice it, too.
        arguments, _, _ = _bind(kernel, args, keywords, {})
        declared = {p.name for p in kernel.params if p.is_constexpr}
        return {
            name: value
            for name, value in arguments.items()
            if name in declared and not isinstance(value, py_sym_types)
        }

    returned = Compiled(launched, kernel, options, constants)
    return Bound(kernel, arguments, options, choices, changed, returned)


def read_launch(bound: Bound, grid: Any) -> CaughtLaunch:
    """The launch with this grid.

    Raises:
        ArgumentError: the arguments, or the grid, do not fit the kernel.
    """
    kernel, arguments, options = bound.kernel, bound.arguments, dict(bound.options)
    if missing := [name for name in kernel.arg_names if name not in arguments]:
        raise ArgumentError(
            f"kernel {kernel.__name__}: launched without {', '.join(missing)}."
        )
    if callable(grid):
        grid = grid(dict(arguments))
    elif bound.changed:  # by a config, which only a grid that is a function can follow
        changed = ", ".join(bound.changed)
        raise ArgumentError(
            f"kernel {kernel.__name__}: the config sets {changed}, and the "
            f"grid {grid!r} does not follow it. Write the grid as a function: "
            "kernel[lambda meta: (triton.cdiv(n, meta['BLOCK']),)](...)."
        )
    if not isinstance(grid, tuple | list):
        raise ArgumentError(
            f"kernel {kernel.__name__}: the grid is {grid!r}; write it as a tuple: "
            "kernel[(blocks,)](...)."
        )
    # Triton multiplies the grid: each program is a cluster of so many blocks.
    num_ctas = {**options, **purpose().options}.get("num_ctas", 1)
    if num_ctas != 1:
        options["num_ctas"] = num_ctas
        grid = (grid[0] * num_ctas, *grid[1:])
    if kernel.debug or knobs.runtime.debug:
        options.setdefault("debug", True)
    constants = {p.name for p in kernel.params if p.is_constexpr}
    dropped = constants & unread(kernel.fn, kernel.src, _text_of)
    sizes = are_sizes(kernel.fn, kernel.src) - dropped
    return CaughtLaunch(
        kernel=kernel,
        name=kernel.__name__,
        grid=tuple(grid),
        arguments=tuple(
            (
                parameter.name,
                None
                if parameter.name in dropped
                else _as_tensor(arguments[parameter.name]),
                parameter.is_constexpr
                and not _is_size(arguments[parameter.name], parameter.name, sizes),
            )
            for parameter in kernel.params
        ),
        options=options,
        choices=bound.choices,
    )


def _is_size(value: Any, name: str, sizes: frozenset[str]) -> bool:
    """Whether a constant may be an argument, for the kernel does the same with one."""
    return name in sizes and (type(value) is int or isinstance(value, torch.SymInt))


def _text_of(called: Any) -> Text | None:
    """What Triton parses of a function that a kernel calls."""
    return (called.fn, called.src) if isinstance(called, JITFunction) else None


def _as_tensor(value: Any) -> Any:
    """The tensor behind an object that Triton takes for one; other values as they are.

    Such an object has a ``dtype``, torch's or Triton's, and a ``data_ptr()``.
    """
    if isinstance(value, TensorDescriptor):
        return caught(value, _as_tensor)
    if isinstance(value, torch.Tensor) or not hasattr(value, "data_ptr"):
        return value
    address = value.data_ptr()
    if type(address) is not Address or address.tensor is None:
        return value
    named = {canonicalize_dtype(row.name): row.torch for row in DTYPES}
    dtype, tensor = value.dtype, address.tensor
    if not isinstance(dtype, torch.dtype):
        dtype = named.get(canonicalize_dtype(dtype))
    if dtype is None:
        return value
    return tensor if dtype == tensor.dtype else tensor.view(dtype)


def undecorated(kernel: Any) -> JITFunction[Any]:
    """The kernel under its decorators."""
    while not isinstance(kernel, JITFunction):
        kernel = kernel.fn
    return kernel


def _unwrapped(
    kernel: Any, overrides: Mapping[str, Any] | None
) -> tuple[JITFunction[Any], tuple[Config, ...], list[Any]]:
    """The kernel under its decorators, the autotuner's configs, and the decorators."""
    choices: tuple[Config, ...] = ()
    decorators: list[Any] = []  # the outermost first
    while not isinstance(kernel, JITFunction):
        if isinstance(kernel, Autotuner):
            choices = _choices(kernel)
            kernel.best_config = _best(kernel, overrides)
        decorators.append(kernel)
        kernel = kernel.fn
    if kernel.pre_run_hooks:
        raise unsupported(
            kernel.__name__,
            "it has a pre-run hook, which an engine does not run. Remove the hook, or "
            "do its work in the kernel.",
        )
    return kernel, choices, decorators


def _choices(tuner: Autotuner) -> tuple[Config, ...]:
    """The configs of an autotuner; TensorRT times them in its place."""
    asks = {
        "prune_configs_by": tuner.early_config_prune or tuner.perf_model,
        "reset_to_zero": tuner.reset_to_zero,
        "restore_value": tuner.restore_value,
        "pre_hook": tuner.user_defined_pre_hook,
        "post_hook": tuner.user_defined_post_hook,
    }
    for what, is_asked in asks.items():
        if is_asked:
            raise unsupported(
                tuner.base_fn.__name__,
                f"@triton.autotune with {what}, which TensorRT's autotuner does not "
                "do. Launch the kernel without it, and pass the configs that remain as "
                "tta.triton(..., configs=[...]).",
            )
    return tuple(_as_config(config) for config in tuner.configs)


def _best(tuner: Autotuner, overrides: Mapping[str, Any] | None) -> Any:
    """The config that is recorded, which wrappers ask an autotuner for."""
    for config in tuner.configs:
        if overrides is None or dict(_as_config(config)) == dict(overrides):
            return config
    own = inspect.signature(TritonConfig).parameters
    options = {k: v for k, v in (overrides or {}).items() if k in own}
    others = {k: v for k, v in (overrides or {}).items() if k not in own}
    return TritonConfig(others, **options)


def _hooks(kernel: Any) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """What the chosen configs of autotuners do before the launch."""
    while not isinstance(kernel, JITFunction):
        if isinstance(kernel, Autotuner) and kernel.best_config.pre_hook:
            yield kernel.best_config.pre_hook
        kernel = kernel.fn


def _as_config(config: Any) -> Config:
    """A ``triton.Config`` as pairs."""
    return tuple(sorted(without_defaults(config.all_kwargs()).items()))


def _bind(
    kernel: JITFunction[Any],
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Arguments, compiler options, and which arguments a config changes."""
    parameters = kernel.signature.parameters
    given = {k: v for k, v in keywords.items() if k in parameters}
    bound = kernel.signature.bind_partial(*args, **given)
    bound.apply_defaults()
    arguments, changed = dict(bound.arguments), []
    options = {k: v for k, v in keywords.items() if k not in parameters}
    for name, value in overrides.items():
        before = arguments.get(name, value)
        if before is not value and before != value:
            changed.append(name)
        (arguments if name in parameters else options)[name] = value
    for name in options:
        if name not in CUDAOptions.__dataclass_fields__:
            raise ArgumentError(
                f"kernel {kernel.__name__}: launched with {name}=, which neither the "
                f"kernel nor Triton takes. The kernel's: {', '.join(parameters)}."
            )
    return arguments, options, changed
