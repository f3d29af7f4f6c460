"""``custom_op``: one torch op into TensorRT, all steps or none."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._plugin_spec import (
    CustomPluginSpec,
    normalize_impl_to_spec,
)
from torch_tensorrt.annotation._registry import (
    RegisteredOp,
    Undo,
    kept_on_error,
    lock,
    registered,
)
from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation._trace import TAKEN_FOR_NONE, is_absent
from torch_tensorrt.annotation.errors import RegistrationError, SpecError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterPriority
from torch_tensorrt.dynamo.conversion.plugins import _qdp, _torch_op
from torch_tensorrt.dynamo.conversion.plugins._capability import capability_of
from torch_tensorrt.dynamo.conversion.plugins._engine_cache import (
    closure_of,
    content_of,
    digesting,
)
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin import (
    generate_plugin,
    register_descriptor,
)
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin_aot import register_aot
from torch_tensorrt.dynamo.conversion.plugins._generate_plugin_converter import (
    converters_of,
    generate_plugin_converter,
    restore_converters,
)
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema, split_name
from torch_tensorrt.dynamo.conversion.plugins._try_out import try_out

_RESERVED = frozenset({"outputs", "stream", "tactic"})


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
            stays in PyTorch, with a ``FallbackWarning`` that says why.
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
    registration = _Registration(
        op_name, spec, options, strict, _aot_register, _caller()
    )
    with lock:
        earlier = registered.get(op_name)
        if earlier is not None and not replace:
            registration.require_same(earlier)
            return
        if earlier is None:
            registration.carry_out()
            return
        with kept_on_error(op_name):
            earlier.undo()
            registration.carry_out()


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
    for name, weight in spec.weights:
        if _dtypes.from_torch(weight.dtype).torch == torch.uint8:
            raise SpecError(
                f"{op}: weight {name!r}: TensorRT has no constants of dtype uint8. "
                "Convert it to int8 or int32, or pass it to the op as an input."
            )
        if is_absent(weight.dim(), weight.dtype):
            raise SpecError(f"{op}: weight {name!r}: {TAKEN_FOR_NONE}")
    if not options.use_aot_if_available and any(s.is_packed for s in spec.specs):
        raise SpecError(
            f"{op}: use_aot_if_available=False: the op's Python code takes row-major "
            "tensors, and a kernel is for packed ones. Leave out its formats."
        )
    if options.requires_output_allocator:
        raise SpecError(
            f"{op}: requires_output_allocator=True: an ahead-of-time kernel cannot "
            "size its outputs from data. Leave impl out to run the op's Python code."
        )


@dataclass(frozen=True)
class _Registration:
    """One call of ``custom_op``, checked."""

    op: str
    spec: CustomPluginSpec | None
    options: _ConverterOptions
    strict: bool
    aot_register: Callable[[], None] | None
    location: str

    @property
    def identity(self) -> str:
        spec = self.spec and self.spec.fingerprint
        how = vars(self.options) | {"strict": self.strict}
        return fingerprint(spec, how, closure_of(self.aot_register))

    def require_same(self, earlier: RegisteredOp) -> None:
        if earlier.identity != self.identity:
            raise RegistrationError(
                f"{self.op}: registered at {earlier.location}, and now otherwise at "
                f"{self.location}. Pass replace=True to put the new one in its place."
            )

    def carry_out(self) -> None:
        """All steps; what was done is undone if one fails."""
        undo = Undo()
        try:
            plugin = self._register(undo)
            registered[self.op] = RegisteredOp(
                plugin,
                self.options.supports_dynamic_shapes,
                self.identity,
                self.location,
                undo,
                self.carry_out,
            )
        except BaseException:
            undo()
            registered.pop(self.op, None)
            raise

    def _register(self, undo: Undo) -> Plugin | None:
        plugin, validator = None, self.options.capability_validator
        content: Callable[[], tuple[Any, ...]]
        if self.spec is None:
            _qdp.require_free(self.op)
            undo.add(_qdp.forget, self.op)
            generate_plugin(self.op)
            content = functools.partial(closure_of, self.aot_register)
        else:
            plugin = _register_impl(self.op, self.spec, undo)
            validator = capability_of(plugin, validator, self.strict)
            content = functools.partial(content_of, plugin)
        if self.aot_register is not None:
            self.aot_register()
        aot = self.options.use_aot_if_available
        validator = digesting(self.op, lambda: (aot, *content()), validator)
        options = dataclasses.replace(self.options, capability_validator=validator)
        overload = OpSchema.of(self.op).overload
        undo.add(restore_converters, overload, converters_of(overload))
        weights = plugin.weights if plugin else {}
        generate_plugin_converter(self.op, **vars(options), weights=weights)
        return plugin


def _register_impl(op: str, spec: CustomPluginSpec, undo: Undo) -> Plugin:
    spec = _with_bodies(op, spec)
    if is_new := not _torch_op.exists(op):
        library = _torch_op.new_library(op)
        undo.add(_torch_op.destroy, library)
        _torch_op.define(library, op, spec)
    weights = [name for name, _ in spec.weights]
    schema = OpSchema.of(op, spec.meta_impl if is_new else None, weights)
    _require_distinct_names(schema, spec)
    plugin = Plugin(
        op,
        spec,
        schema.meta,
        schema.tensors,
        schema.attributes,
        schema.optional,
        schema.default_attributes(),
    )
    try_out(plugin, schema)
    _qdp.require_free(op)
    undo.add(_qdp.forget, op)
    with _qdp.registering(op):
        register_descriptor(schema)
        register_aot(schema, plugin)
    return plugin


def _with_bodies(op: str, spec: CustomPluginSpec) -> CustomPluginSpec:
    """``spec`` with the op's own body where no launch function was given."""
    if spec.weights and any(kernel.launch_fn is None for kernel in spec.specs):
        raise SpecError(
            f"{op}: weight {spec.weights[0][0]!r}: the op's own body takes the op's "
            "arguments alone. Pass the function that takes inputs, weights and "
            "outputs: tta.triton(launch_fn)."
        )
    specs = tuple(
        dataclasses.replace(kernel, launch_fn=_torch_op.body(op), returns_outputs=True)
        if kernel.launch_fn is None
        else kernel
        for kernel in spec.specs
    )
    return dataclasses.replace(spec, specs=specs)


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
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(
        "torch_tensorrt."
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
