# SPDX-License-Identifier: BSD-3-Clause

"""torch ops as TensorRT plugins: descriptor, implementations and converter."""

from ._custom_op import custom_op
from ._generate_plugin import generate_plugin
from ._generate_plugin_converter import generate_plugin_converter

__all__ = ["custom_op", "generate_plugin", "generate_plugin_converter"]
