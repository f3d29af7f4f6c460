"""``custom_op``: one torch op into TensorRT, all steps or none."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx.node import Node

from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._plugin_spec import (
    CustomPluginSpec,
    normalize_impl_to_spec,
)
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._registry import RegisteredOp, registered
from torch_tensorrt.annotation._tactics import Plugin, record_tactic
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    DTypeError,
    RecordError,
    RegistrationError,
    SpecError,
    UnsupportedKernelError,
)
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterPriority
from torch_tensorrt.dynamo.conversion.plugins import _qdp, _torch_op
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin import (
    generate_plugin,
    register_descriptor,
)
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin_aot import register_aot
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin_converter import (
    forget_converter,
    generate_plugin_converter,
)
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema, split_name

_lock = threading.RLock()


def custom_op(
    op_name: str,
    capability_validator: Callable[[Node, CompilationSettings], bool] | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
    *,
    use_aot_if_available: bool = True,
    impl: Any = None,
    replace: bool = False,
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
    options = _ConverterOptions(
        capability_validator,
        priority,
        supports_dynamic_shapes,
        requires_output_allocator,
        use_aot_if_available,
    )
    if spec is not None:
        _require_supported(op_name, spec, options)
    identity = fingerprint(spec and spec.fingerprint, vars(options), _aot_register)
    with _lock:
        if _is_registered(op_name, identity, replace):
            return
        undo = contextlib.ExitStack()
        try:
            plugin = None
            if spec is None:
                generate_plugin(op_name)
                undo.callback(_qdp.forget, op_name)
            else:
                plugin = _register_impl(op_name, spec, undo)
            if _aot_register is not None:
                _aot_register()
            overload = OpSchema.of(op_name).overload
            converter = generate_plugin_converter(op_name, **vars(options))
            undo.callback(forget_converter, overload, converter)
            registered[op_name] = RegisteredOp(plugin, identity, _caller(), undo.close)
        except BaseException:
            undo.close()
            raise


@dataclass(frozen=True)
class _ConverterOptions:
    """The keywords of ``generate_plugin_converter``."""

    capability_validator: Callable[[Node, CompilationSettings], bool] | None
    priority: ConverterPriority
    supports_dynamic_shapes: bool
    requires_output_allocator: bool
    use_aot_if_available: bool


def _require_supported(
    op: str, spec: CustomPluginSpec, options: _ConverterOptions
) -> None:
    if spec.weights:
        raise SpecError(
            f"{op}: weight {spec.weights[0][0]!r}: weights are not supported. Pass the "
            "tensor to the op as an ordinary input."
        )
    if options.requires_output_allocator:
        raise SpecError(
            f"{op}: requires_output_allocator=True: an ahead-of-time kernel cannot "
            "size its outputs from data. Leave impl out to run the op's Python code."
        )


def _is_registered(op: str, identity: str, replace: bool) -> bool:
    """Whether nothing is left to do; makes room for what replaces something."""
    earlier = registered.get(op)
    if earlier is None:
        return False
    if earlier.identity == identity:
        return True
    if not replace:
        raise RegistrationError(
            f"{op}: registered at {earlier.location}, and now otherwise at "
            f"{_caller()}. Pass replace=True to put the new one in its place."
        )
    del registered[op]
    earlier.undo()
    return False


def _register_impl(
    op: str, spec: CustomPluginSpec, undo: contextlib.ExitStack
) -> Plugin:
    meta = None
    if not _torch_op.exists(op):
        library = _torch_op.define(op, spec)
        undo.callback(library._destroy)
        meta = spec.meta_impl
    schema = OpSchema.of(op, meta)
    attributes = tuple(schema.attributes)
    plugin = Plugin(op, spec, schema.meta, schema.tensors, attributes)
    _try_recording(plugin, schema)
    with _qdp.registering(op):
        register_descriptor(schema)
        register_aot(schema, plugin)
    undo.callback(_qdp.forget, op)
    return plugin


def _try_recording(plugin: Plugin, schema: OpSchema) -> None:
    """Raise now what TensorRT would only print later, as far as it can be known.

    Ranks and dtypes are not known yet. If a tactic records for some guess, it may be
    right; if it fails for every guess the op itself accepts, the first error is raised.
    """
    if schema.attributes:
        return
    for tactic in plugin.tactics:
        failure: AnnotationError | None = None
        for inputs in _torch_op.probes(len(schema.tensors)):
            try:
                infer_outputs(schema.meta, inputs, "the fake kernel")
            except AnnotationError:
                continue
            try:
                record_tactic(plugin, tactic, inputs, {})
            except (RecordError, UnsupportedKernelError, DTypeError) as error:
                failure = failure or error
            else:
                failure = None
                break
        if failure is not None and not _is_users(failure):
            raise failure


def _is_users(error: AnnotationError) -> bool:
    """Whether the launch function itself raised: it may want another rank or dtype."""
    return type(error) is RecordError


def _caller() -> str:
    """``file:line`` of the first frame outside this package."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(
        "torch_tensorrt."
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
