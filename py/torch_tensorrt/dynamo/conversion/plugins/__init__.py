# SPDX-License-Identifier: BSD-3-Clause

"""torch ops as TensorRT plugins: descriptor, implementations and converter."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._custom_op import custom_op as custom_op
    from ._generate_plugin import generate_plugin as generate_plugin
    from ._generate_plugin_converter import (
        generate_plugin_converter as generate_plugin_converter,
    )

__all__ = ["custom_op", "generate_plugin", "generate_plugin_converter"]


def __getattr__(name: str) -> object:
    """A public name, imported when it is first used.

    ``import torch_tensorrt`` imports this package, also for those who have no plugin.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"._{name}", __name__), name)
    globals()[name] = value
    return value
