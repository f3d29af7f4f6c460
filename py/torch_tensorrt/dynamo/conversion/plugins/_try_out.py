"""Record a plugin's launches before anything is known of its inputs, to fail early.

What TensorRT is told too late, inside its builder, it prints and does not report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch._subclasses.fake_tensor import UnsupportedOperatorException

from torch_tensorrt.annotation._kernel_spec import KernelSpec
from torch_tensorrt.annotation._launch import Outputs
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation._trace import ABSENT, TensorInfo
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    DataDependentError,
    RegistrationError,
    SpecError,
    UserCodeError,
)
from torch_tensorrt.dynamo.conversion.plugins._guesses import guesses
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema


def try_out(plugin: Plugin, schema: OpSchema) -> None:
    """Raise what no inputs can repair, for each kernel of the plugin.

    If its tactics record for some guess, they may be right. If they fail for every
    guess that the op, and the launch function's own code, accept, the first error is
    raised.

    Raises:
        RecordError: see its subclasses.
        DataDependentError: the size of an output follows from a tensor's values.
        FormatError: no tensors have the formats that a kernel is for.
        RegistrationError: an existing op has no fake kernel.
        SpecError: ``meta_impl`` contradicts the fake kernel of an existing op.
    """
    for formats in dict.fromkeys(spec.input_formats for spec in plugin.spec.specs):
        accepted: list[tuple[TensorInfo, ...]] = []
        for guess in guesses(len(schema.tensors), formats):
            for inputs in _with_and_without(plugin, guess):
                outputs = _outputs(plugin, schema, inputs)
                if outputs is not None:
                    _require_agreement(plugin, schema, inputs, outputs)
                    accepted.append(inputs)
        for spec in plugin.spec.specs:
            if spec.input_formats == formats:
                _try_spec(plugin, schema, spec, accepted)


def _with_and_without(
    plugin: Plugin, guess: tuple[TensorInfo, ...]
) -> Iterator[tuple[TensorInfo, ...]]:
    """The plugin's inputs: with the op's optional ones, and without them."""
    yield (*guess, *plugin.weight_infos)
    if plugin.optional:
        named = zip(plugin.tensors, guess, strict=True)
        required = (ABSENT if n in plugin.optional else info for n, info in named)
        yield (*required, *plugin.weight_infos)


def _try_spec(
    plugin: Plugin,
    schema: OpSchema,
    spec: KernelSpec,
    accepted: Sequence[tuple[TensorInfo, ...]],
) -> None:
    attributes = schema.neutral_attributes()
    failure: AnnotationError | None = None
    for inputs in accepted:
        try:
            for tactic in plugin.tactics(inputs, attributes):
                if tactic.spec is spec:
                    plugin.record(tactic, inputs, attributes)
        except AnnotationError as error:
            is_users = isinstance(error, UserCodeError)  # it wants other inputs
            failure = failure or (None if is_users else error)
        else:
            return
    if failure is not None:
        raise failure


def _outputs(
    plugin: Plugin, schema: OpSchema, inputs: tuple[TensorInfo, ...]
) -> Outputs | None:
    """What the fake kernel makes of ``inputs``; None where it rejects them."""
    attributes = schema.neutral_attributes()
    try:
        return infer_outputs(
            lambda *tensors: plugin.meta(*tensors, **attributes),
            inputs,
            f"{schema.op}: the fake kernel",
        )
    except UserCodeError as error:
        cause = error.__cause__ and error.__cause__.__cause__
        if isinstance(
            cause, UnsupportedOperatorException | NotImplementedError
        ) or "no fake impl registered" in str(cause):
            raise RegistrationError(
                f"{schema.op}: the op has no fake kernel, so its outputs are unknown. "
                f"Register one: torch.library.register_fake({schema.op!r})."
            ) from error
        return None
    except DataDependentError as error:
        raise DataDependentError(f"{schema.op}: {error}") from error
    except AnnotationError:
        return None


def _require_agreement(
    plugin: Plugin, schema: OpSchema, inputs: tuple[TensorInfo, ...], outputs: Outputs
) -> None:
    """An existing op's fake kernel counts; ``meta_impl`` must say the same."""
    meta = plugin.spec.meta_impl
    if meta is None or schema.attributes:
        return
    try:
        tensors = inputs[: len(schema.tensors)]
        found = infer_outputs(meta, tensors, "the meta function")
    except AnnotationError:
        return
    if found != outputs:
        raise SpecError(
            f"{schema.op}: for inputs {inputs} meta_impl returns {found.tensors}, and "
            f"the op's own fake kernel {outputs.tensors}. Leave meta_impl out."
        )
