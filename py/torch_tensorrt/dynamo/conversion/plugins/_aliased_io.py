# SPDX-License-Identifier: BSD-3-Clause

"""TensorRT's preview feature that lets a plugin write its inputs.

Torch-TensorRT makes the builder's configuration after the network, and does not turn
the feature on. So its method is wrapped, and turns the feature on for a network that
has such a plugin. No other network is affected.
"""

from __future__ import annotations

import functools
from typing import Any

from torch_tensorrt.annotation.errors import RegistrationError
from torch_tensorrt.dynamo.conversion._ConversionContext import ConversionContext
from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter

_MARK = "_aliased_plugin_io"


def allow(ctx: ConversionContext) -> None:
    """The network of ``ctx`` has a plugin that writes an input."""
    setattr(ctx, _MARK, True)


def install() -> None:
    """Wrap Torch-TensorRT's method, once."""
    original = TRTInterpreter._populate_trt_builder_config
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def populate(interpreter: Any, *args: Any, **kwargs: Any) -> Any:
        config = original(interpreter, *args, **kwargs)
        if getattr(interpreter.ctx, _MARK, False):
            config.set_preview_feature(feature(), True)
        return config

    setattr(populate, _MARK, True)
    TRTInterpreter._populate_trt_builder_config = populate


def feature() -> Any:
    """``trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03``.

    Raises:
        RegistrationError: this TensorRT has none.
    """
    import tensorrt as trt

    found = getattr(trt.PreviewFeature, "ALIASED_PLUGIN_IO_10_03", None)
    if found is None:
        raise RegistrationError(
            f"TensorRT {trt.__version__} has no ALIASED_PLUGIN_IO_10_03, which a "
            "plugin needs that writes its inputs. Install a newer TensorRT, or return "
            "a new tensor from the op."
        )
    return found
