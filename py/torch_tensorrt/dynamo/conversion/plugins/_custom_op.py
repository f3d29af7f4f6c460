# SPDX-License-Identifier: BSD-3-Clause

"""``custom_op``: one torch op into TensorRT, all steps or none."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch._subclasses.fake_tensor import UnsupportedOperatorException

from torch_tensorrt.annotation import _plugin, _tensors, errors
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._plugin import Plugin, RegisteredOp, registered
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._specs import CustomPluginSpec, normalize_impl_to_spec
from torch_tensorrt.annotation._tensors import TensorInfo
from torch_tensorrt.annotation.errors import AnnotationError, SpecError
from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterPriority

from . import _qdp, _torch_op, _validators
from ._generate_plugin import register_descriptor
from ._generate_plugin_aot import register_aot
from ._generate_plugin_converter import Validator, generate_plugin_converter, restoring
from ._schema import OpSchema, split_name

_NO_FAKE = (UnsupportedOperatorException, NotImplementedError)
_RESERVED = frozenset({"outputs", "stream", "tactic"})


def custom_op(
    op_name: str,
    capability_validator: Validator | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
    *,
    use_aot_if_available: bool = True,
    impl: Any = None,
    replace: bool = False,
    strict: bool = False,
    _aot_register: Callable[[], None] | None = None,
) -> None:
    """Make every call of a torch op a TensorRT plugin layer.

    Args:
        op_name: ``"ns::name"``. Without ``impl`` an existing op, with a fake kernel.
        capability_validator: whether a node can be converted; None converts all.
        priority: HIGH goes before converters that exist for the op.
        supports_dynamic_shapes: convert nodes with dynamic input shapes, too.
        requires_output_allocator: the plugin's output sizes depend on data.
        use_aot_if_available: embed the ahead-of-time kernel where the plugin has one.
        impl: the kernels to embed: ``tta.triton(launch_fn)``, a list of such, or
            ``tta.custom_plugin(...)``. Where torch does not know the op, it is defined
            from ``meta_impl`` and runs the first config on CUDA. Without ``impl`` the
            engine calls the op's Python implementation.
        replace: take the place of what was registered under this name before.
        strict: with ``impl``, raise for a node that no tactic can serve. Otherwise it
            stays in PyTorch, and the log says why.
        _aot_register: registers an ahead-of-time implementation of its own, between
            plugin and converter (``torch_tensorrt.kernels`` does).

    Raises:
        SpecError: the name, or ``impl``, is malformed.
        RecordError: the launch function does not make exactly one usable launch.
        RegistrationError: the name is registered with something else.

    Calling it again with the same arguments does nothing. On an error nothing stays
    registered.

    Example::

        trt_plugins.custom_op(
            "my::silu",
            impl=tta.custom_plugin(
                tta.triton(launch_silu, configs=[{"BLOCK": 256}, {"BLOCK": 1024}]),
                meta_impl=lambda x: torch.empty_like(x)),
            supports_dynamic_shapes=True,
        )
    """
    split_name(op_name)
    spec = None if impl is None else normalize_impl_to_spec(impl)
    flags = supports_dynamic_shapes, requires_output_allocator, use_aot_if_available
    if spec is not None:
        _require_usable(op_name, spec, requires_output_allocator, use_aot_if_available)
    own_aot = functools.partial(_validators.closure_of, _aot_register)
    options = (capability_validator, priority, *flags, strict, own_aot())
    # Taken when the launch function was run: what it imports then counts.
    identify = functools.partial(fingerprint, spec, *options)
    location = _caller()

    def carry_out() -> None:
        """All steps; what was done is undone if one fails."""
        undo = _Undo()
        try:
            schema, plugin = _plugin_of(op_name, spec, undo)
            with _qdp.registering(op_name):
                undo.append(functools.partial(_qdp.forget, op_name))
                register_descriptor(schema)
                if plugin is not None:
                    register_aot(schema, plugin)
            if _aot_register is not None:
                _aot_register()
            accepts = capability_validator
            if plugin is not None:
                accepts = _validators.capability_of(plugin, schema, accepts, strict)

            def content() -> tuple[Any, ...]:
                """What an engine with this plugin is made of."""
                kernels = _validators.content_of(plugin) if plugin else ()
                return (use_aot_if_available, *own_aot(), *kernels)

            accepts = _validators.digesting(schema, content, accepts)
            undo.append(restoring(schema.overload))
            weights = plugin.weights if plugin else {}
            generate_plugin_converter(op_name, accepts, priority, *flags, weights)
            registered[op_name] = RegisteredOp(
                plugin, supports_dynamic_shapes, identify(), location, undo, carry_out
            )
        except BaseException:
            undo()
            registered.pop(op_name, None)
            raise

    with _plugin.lock:
        if (earlier := registered.get(op_name)) is None:
            carry_out()
        elif replace:
            with _plugin.kept_on_error(op_name):
                earlier.undo()
                carry_out()
        elif earlier.identity != identify():
            raise errors.RegistrationError(
                f"{op_name}: registered at {earlier.location}, and now otherwise at "
                f"{location}. Pass replace=True to put the new one in its place."
            )


class _Undo(list[Callable[[], None]]):
    """Steps back, each appended before what it undoes, so that no error comes between.

    Calling it takes every step, the last first, whatever one of them raises. A step
    does nothing where there is nothing to undo, so all of them can be taken again after
    an interruption. An ``ExitStack`` forgets its steps, so each call makes a new one.
    """

    def __call__(self) -> None:
        with contextlib.ExitStack() as stack:
            for step in self:
                stack.callback(step)


def _require_usable(
    op: str, spec: CustomPluginSpec, sizes_from_data: bool, uses_aot: bool
) -> None:
    for name, weight in spec.weights:
        if _tensors.DType.of(weight.dtype).torch == torch.uint8:
            raise SpecError(
                f"{op}: weight {name!r}: TensorRT has no constants of dtype uint8. "
                "Convert it to int8 or int32, or pass it to the op as an input."
            )
        if _tensors.stands_for_none(weight.dim(), weight.dtype):
            raise SpecError(f"{op}: weight {name!r}: {_tensors.TAKEN_FOR_NONE}")
    if not uses_aot and any(s.is_packed for s in spec.specs):
        raise SpecError(
            f"{op}: use_aot_if_available=False: the op's Python code takes row-major "
            "tensors, and a kernel is for packed ones. Leave out its formats."
        )
    if sizes_from_data:
        raise SpecError(
            f"{op}: requires_output_allocator=True: an ahead-of-time kernel cannot "
            "size its outputs from data. Leave impl out to run the op's Python code."
        )


def _plugin_of(
    op: str, spec: CustomPluginSpec | None, undo: _Undo
) -> tuple[OpSchema, Plugin | None]:
    """The plugin of an op, tried out. An op that torch does not know is defined."""
    if spec is None:
        return OpSchema.of(op), None
    spec = _with_bodies(op, spec)
    parameters = meta = None
    if not torch._C._jit_get_schemas_for_operator(op):
        parameters, meta = _torch_op.parameters_of(op, spec.meta_impl), spec.meta_impl
    weights = tuple(name for name, _ in spec.weights)
    schema = OpSchema.of(op, parameters, weights=weights, fake=meta)
    _require_distinct_names(schema, spec)
    arguments = schema.tensors, schema.attributes, schema.optional, schema.defaults
    plugin = Plugin(op, spec, schema.meta, *arguments)
    num_outputs = _try_out(plugin, schema)
    if parameters is not None:
        _torch_op.define(schema, spec, parameters, num_outputs, undo)
    return schema, plugin


def _with_bodies(op: str, spec: CustomPluginSpec) -> CustomPluginSpec:
    """``spec`` with the op's own body where no launch function was given."""
    if all(kernel.launch_fn for kernel in spec.specs):
        return spec
    if spec.weights:
        raise SpecError(
            f"{op}: weight {spec.weights[0][0]!r}: the op's own body takes the op's "
            "arguments alone. Pass the function that takes inputs, weights and outputs."
        )
    body: dict[str, Any] = {"launch_fn": _torch_op.body(op), "returns_outputs": True}
    specs = (k if k.launch_fn else dataclasses.replace(k, **body) for k in spec.specs)
    return dataclasses.replace(spec, specs=tuple(specs))


def _require_distinct_names(schema: OpSchema, spec: CustomPluginSpec) -> None:
    """The launch function gets all of these as keywords."""
    configured = {n for k in spec.specs for config in k.configs for n, _ in config}
    for name in (*schema.attributes, *set(schema.tensors) & set(schema.weights)):
        if name in configured | {*dict(spec.attributes), *schema.weights}:
            raise SpecError(
                f"{schema.op}: {name!r} is an argument of the op, and a config key, "
                "attribute or weight of the plugin as well. Rename one of them."
            )
    for name in (*schema.tensors, *schema.attributes, *schema.weights):
        if name in _RESERVED:
            raise SpecError(
                f"{schema.op}: an argument is named {name!r}, which TensorRT's plugins "
                "use themselves. Rename it."
            )


def _caller() -> str:
    """``file:line`` of the first frame outside this package."""
    frame, ours = sys._getframe(), "torch_tensorrt."
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(ours):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- What is tried at registration ----------------------------------------------------
#
# TensorRT prints what goes wrong inside its builder, and does not report it. So the
# launches are recorded here, on inputs that are guessed: nothing is known of the real
# ones yet. A fake kernel, and a launch function, may reject a guess with good reason.
# Where a guess is accepted and every config records, the search ends. What fails for
# all guesses is an error that no inputs can repair.

_Inputs: TypeAlias = tuple[TensorInfo | None, ...]
_EXTENT = 256  # divisible by what blocks and heads divide by
_RANKS = (2, 3, 1, 4)
_DTYPES = (
    *(torch.float16, torch.float32, torch.bfloat16),
    *(torch.int32, torch.int8, torch.int64, torch.bool),
)


def _guesses(plugin: Plugin, formats: _tensors.Formats) -> Iterator[_Inputs]:
    """Inputs of the plugin: with its optional tensors, and without them.

    Args:
        formats: that they must be able to have, one name for all or one for each.
            Where there are too few, recording says so.
    """
    count = len(plugin.tensors)
    names = (formats or ("LINEAR",)) * (1 if len(formats or ()) > 1 else count)
    each = [_tensors.FORMATS[name] for name in (*names, *["LINEAR"] * count)[:count]]
    for dtype, rank in itertools.product(_DTYPES, _RANKS):
        guess = {}
        for name, fmt in zip(plugin.tensors, each, strict=True):
            held = dtype if dtype in (fmt.dtypes or _DTYPES) else fmt.dtypes[0]
            guess[name] = TensorInfo((_EXTENT,) * max(rank, -fmt.channel), held)
        yield (*guess.values(), *plugin.weight_infos)
        if plugin.optional:
            required = (None if n in plugin.optional else t for n, t in guess.items())
            yield (*required, *plugin.weight_infos)


def _try_out(plugin: Plugin, schema: OpSchema) -> int | AnnotationError:
    """Record every kernel of the plugin for some guess.

    Returns:
        The number of outputs, or why the fake kernel rejects every guess.

    Raises:
        RecordError: see its subclasses.
        DataDependentError: the size of an output follows from a tensor's values.
        FormatError: no tensors have the formats that a kernel is for.
        RegistrationError: an existing op has no fake kernel.
        SpecError: ``meta_impl`` contradicts the fake kernel of an existing op.
    """
    result: int | AnnotationError | None = None
    attributes = schema.neutral_attributes
    outputs_for = functools.cache(functools.partial(_outputs, plugin, schema))
    for spec in plugin.spec.specs:
        failure = None
        for guess in _guesses(plugin, spec.input_formats):
            outputs = outputs_for(guess)
            if isinstance(outputs, AnnotationError):
                result = result or outputs
                continue
            result = outputs
            tactics = plugin.programs(_plugin.Request.of(guess, attributes, None))
            failed = [t.error for t in tactics if t.error and t.spec is spec]
            if not failed:
                break
            if not isinstance(failed[0], errors.UserCodeError):  # it wants other inputs
                failure = failure or failed[0]
        else:
            if failure is not None:
                raise failure
    assert result is not None, "there is always a guess"
    return result


def _outputs(
    plugin: Plugin, schema: OpSchema, inputs: _Inputs
) -> int | AnnotationError:
    """How many outputs the fake kernel has for ``inputs``, or why it rejects them.

    An existing op's own fake kernel counts; ``meta_impl`` must agree with it.
    """
    op, impl, attributes = plugin.op, plugin.spec.meta_impl, schema.neutral_attributes
    meta = functools.partial(plugin.meta, **attributes)
    try:
        found = infer_outputs(meta, inputs, f"{op}: the fake kernel", False)
    except errors.DataDependentError as error:
        raise errors.DataDependentError(f"{op}: {error}") from error
    except AnnotationError as error:
        cause = error.__cause__ and error.__cause__.__cause__
        if isinstance(cause, _NO_FAKE) or "no fake impl registered" in str(cause):
            raise errors.RegistrationError(
                f"{op}: the op has no fake kernel, so its outputs are unknown. "
                f"Register one: torch.library.register_fake({op!r})."
            ) from error
        return error
    if not found:
        raise SpecError(f"{op}: the fake kernel returns no tensor; one is needed.")
    if impl is not None and schema.fake is None and not attributes:
        with contextlib.suppress(errors.RecordError):
            tensors = inputs[: len(schema.tensors)]
            said = infer_outputs(impl, tensors, "the meta function", False)
            if said != found:
                raise SpecError(
                    f"{op}: for inputs {inputs} meta_impl returns {said}, and the op's "
                    f"own fake kernel {found}. Leave meta_impl out."
                )
    return len(found)
