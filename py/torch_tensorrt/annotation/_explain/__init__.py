# SPDX-License-Identifier: BSD-3-Clause

"""Which custom ops of a model become plugin layers; all that can be, registered.

What does it needs ``torch_tensorrt.dynamo.conversion.plugins``, whose import needs this
package, so it is imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import errors
from .._target import Target, compiling_for
from .report import ModelReport


@errors.raised_here
def explain(
    model: Any,
    inputs: Sequence[Any],
    target: Target | str | None = None,
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ModelReport:
    """What becomes of a model's custom ops, and what of the model TensorRT gets.

    The model is exported, lowered and partitioned by Torch-TensorRT. No engine is
    built, so neither a GPU nor TensorRT's builder is needed. An op that is not
    registered is registered on trial, and forgotten again.

    Args:
        model: a module, or a ``torch.export.ExportedProgram``.
        inputs: as for ``torch_tensorrt.compile``: tensors, or ``torch_tensorrt.Input``
            with a static shape or a min/opt/max profile.
        target: a :class:`Target`, or text such as ``"sm_90"``; None for ``TTA_TARGET``
            or the current GPU. Without any of these, kernels are only recorded, and
            ops of several launches cannot be tried.
        kwarg_inputs: inputs of the model by name.
        **settings: of ``torch_tensorrt.compile``, such as ``min_block_size``.

    Returns:
        For each op whether it becomes plugin layers, how many, and their kernels;
        which call would register it; or why it stays in PyTorch.

    Raises:
        SpecError: the inputs are not a list, the model cannot be exported, or
            Torch-TensorRT has no such setting.
        AnnotationError: of an op that is registered with ``strict=True``, and cannot
            become plugin layers.

    Example::

        print(tta.explain(model, [torch.empty(8, 4096)], target="sm_90"))
    """
    from . import custom_ops

    with compiling_for(target):
        return custom_ops.explain(
            model, _sequence(inputs), kwarg_inputs or {}, settings
        )


@errors.raised_here
def adopt(
    model: Any,
    inputs: Sequence[Any],
    target: Target | str | None = None,
    *,
    kwarg_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> ModelReport:
    """Register every custom op of a model whose own body launches kernels.

    Each is registered as ``custom_op(op, impl=...)`` does, with the language of the
    kernels that its body launches, and alone: where one cannot be, the others are.
    :func:`unregister` undoes it. An op stays unregistered if no call of it in this
    model can become plugin layers.

    Args:
        model: a module, or a ``torch.export.ExportedProgram``.
        inputs: as for ``torch_tensorrt.compile``: tensors, or ``torch_tensorrt.Input``
            with a static shape or a min/opt/max profile.
        target: a :class:`Target`, or text such as ``"sm_90"``; None for ``TTA_TARGET``
            or the current GPU.
        kwarg_inputs: inputs of the model by name.
        **options: of ``custom_op``. ``supports_dynamic_shapes`` is True by default if
            some input is dynamic.

    Returns:
        For each op whether it is registered, or why not.

    Raises:
        SpecError: the inputs are not a list, or the model cannot be exported.

    Example::

        tta.adopt(model, inputs)
        trt_model = torch_tensorrt.compile(model, inputs=inputs)
    """
    from . import custom_ops

    with compiling_for(target):
        given = model, _sequence(inputs), kwarg_inputs or {}
        return custom_ops.adopt(*given, options)


def _sequence(inputs: Any) -> list[Any]:
    if not isinstance(inputs, list | tuple):
        raise errors.SpecError(f"inputs is {type(inputs).__name__}; pass a list.")
    return list(inputs)
