"""What a user writes as configs and formats, as tuples that hash and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch_tensorrt.annotation.errors import SpecError

Config: TypeAlias = tuple[tuple[str, Any], ...]
Formats: TypeAlias = tuple[str, ...] | None


def is_configs(configs: Any) -> bool:
    """Whether it is a tuple, not empty, of tuples of (name, value) pairs."""
    return (
        isinstance(configs, tuple)
        and configs != ()
        and all(isinstance(config, tuple) for config in configs)
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
            for config in configs
            for pair in config
        )
    )


def as_configs(
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
    return tuple(
        _as_config(backend, number, config, keywords)
        for number, config in enumerate(configs)
    )


def _as_config(
    backend: str, number: int, config: Any, keywords: Mapping[str, Any]
) -> Config:
    if not isinstance(config, Mapping) or not all(isinstance(k, str) for k in config):
        raise SpecError(
            f"{backend}: configs[{number}] is {config!r}; it must be a dict from names "
            "to values."
        )
    return tuple(sorted({**keywords, **config}.items()))


def as_formats(formats: Any) -> Formats:
    """What a user wrote as formats: one or several, names or ``trt.TensorFormat``."""
    if formats is None:
        return None
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        formats = (formats,)
    return tuple(getattr(f, "name", None) or str(f) for f in formats)
