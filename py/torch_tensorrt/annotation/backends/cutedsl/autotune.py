# SPDX-License-Identifier: BSD-3-Clause

"""What ``autotune_jit`` would choose from, in place of timing it.

CuTe DSL wraps the launcher in a function of its own, which looks for the best kernel in
a table that it keeps on the launcher, and fills the table by compiling and timing. It
first asks for the launcher's signature, with ``inspect``. So while launches are
recorded, its module has another ``inspect``, which lays a table that has every key.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from .. import OnLaunch
from . import launch

_TABLES = ("_best_kernel", "_best_config")


class _EveryKey(dict[Any, Any]):
    """A table with one value for all keys in one thread; for others, ``beneath``."""

    def __init__(
        self, beneath: dict[Any, Any], value: Any, is_ours: Callable[[], bool]
    ) -> None:
        super().__init__()
        self.beneath, self._value, self._is_ours = beneath, value, is_ours

    def keys(self) -> Any:
        return self if self._is_ours() else self.beneath.keys()

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: Any) -> Any:
        return self._value if self._is_ours() else self.beneath[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.beneath[key] = value


def inspect_for(
    report: OnLaunch, overrides: Mapping[str, Any] | None, is_ours: Callable[[], bool]
) -> SimpleNamespace:
    """``inspect`` for CuTe DSL's autotuner.

    Args:
        report: gets the launch.
        overrides: what to launch with; None takes the first choice.
        is_ours: whether this thread records launches.
    """

    def signature(function: Any, **how: Any) -> inspect.Signature:
        if hasattr(function, "_autotune_params") and is_ours():
            tables = {name: getattr(function, name) for name in _TABLES}

            def call(*args: Any, **keywords: Any) -> None:
                for name, table in tables.items():
                    setattr(function, name, table)
                report(_read_launch(function, args, keywords, overrides))

            for name, table in tables.items():
                setattr(function, name, _EveryKey(table, call, is_ours))
        return inspect.signature(function, **how)

    return SimpleNamespace(**{**vars(inspect), "signature": signature})


def _read_launch(
    function: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
) -> Any:
    """The launch with one choice, which are all combinations of its parameters'."""
    values = sorted(function._autotune_params.items())
    choices = tuple(
        tuple(zip(dict(values), chosen, strict=True))
        for chosen in itertools.product(*dict(values).values())
    )
    given = {**dict(choices[0]), **keywords} if overrides is None else overrides
    function, args = launch.undecorated(function, args)
    signature = launch.signature_of(function)
    bound = launch.bind(function.__qualname__, signature, args, {**keywords, **given})
    passed = (*args, *keywords.values())
    return launch.read_launch(function, bound, passed, choices=choices)
