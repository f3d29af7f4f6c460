# SPDX-License-Identifier: BSD-3-Clause

"""``custom_op``: one torch op into TensorRT, all steps or none."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch._subclasses.fake_tensor import UnsupportedOperatorException
from torch.overrides import TorchFunctionMode

from torch_tensorrt.annotation import _plugin, _tensors, errors
from torch_tensorrt.annotation._fingerprint import fingerprint
from torch_tensorrt.annotation._plugin import Plugin, RegisteredOp, registered
from torch_tensorrt.annotation._record import infer_outputs
from torch_tensorrt.annotation._record.program import Output
from torch_tensorrt.annotation._specs import CustomPluginSpec, normalize_impl_to_spec
from torch_tensorrt.annotation._tensors import TensorInfo
from torch_tensorrt.annotation.errors import AnnotationError, SpecError
from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterPriority

from . import _qdp, _torch_op, _validators
from ._generate_plugin import register_descriptor, register_plugin
from ._generate_plugin_aot import register_aot
from ._generate_plugin_converter import (
    Validator,
    _generate_plugin_converter,
    restoring,
)
from ._program import StepOps, take_apart_in_graphs
from ._schema import OpSchema, split_name

_NO_FAKE = (UnsupportedOperatorException, NotImplementedError)


@errors.raised_here
def custom_op(
    op_name: str,
    capability_validator: Validator | None = None,
    priority: ConverterPriority = ConverterPriority.STANDARD,
    supports_dynamic_shapes: bool = False,
    requires_output_allocator: bool = False,
    *,
    use_aot_if_available: bool = True,
    aot_impl: Callable[..., Any] | None = None,
    autotune: Callable[..., Any] | None = None,
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
        aot_impl: gives TensorRT the kernel of an existing op, in TensorRT's own terms:
            ``aot_impl(*tensors, *attributes, outputs, tactic)`` returns the kernel's
            name, its PTX, ``KernelLaunchParams`` and ``SymIntExprs``.
        autotune: offers tactics: ``autotune(*tensors, *attributes, outputs)`` returns
            a list of ``AutoTuneCombination``.
        impl: the kernels to embed, in their own languages: ``tta.triton(launch_fn)``, a
            list of such, or ``tta.custom_plugin(...)``. Where torch does not know the
            op, it is defined from ``meta_impl`` and runs the first config on CUDA.
            Without ``impl`` and ``aot_impl`` the engine calls the op's Python
            implementation.
        replace: take the place of what was registered under this name before.
        strict: with ``impl``, raise for a node that no tactic can serve. Otherwise it
            stays in PyTorch, and the log says why.
        _aot_register: registers an ahead-of-time implementation of its own, between
            plugin and converter (``torch_tensorrt.kernels`` does).

    Raises:
        SpecError: the name, ``impl`` or a callback is malformed.
        RecordError: the launch function is wrong, whatever its inputs are.
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
    if impl is not None and (aot_impl or autotune) is not None:
        raise SpecError(
            f"{op_name}: impl= has kernels and tactics of its own. Pass impl=, or "
            "aot_impl= and autotune=, which are TensorRT's own functions."
        )
    spec = None if impl is None else normalize_impl_to_spec(impl)
    flags = supports_dynamic_shapes, requires_output_allocator, use_aot_if_available
    if spec is not None:
        _require_usable(op_name, spec, requires_output_allocator, use_aot_if_available)
    callbacks = aot_impl, autotune, _aot_register

    def own() -> list[Any]:
        """The caller's own functions, as they are now."""
        return list(map(_validators.closure_of, callbacks))

    options = (capability_validator, priority, *flags, strict, own())
    # Taken when the launch function was run: what it imports then counts.
    identify = functools.partial(fingerprint, spec, *options)
    location = _caller()

    def register(schema: OpSchema, plugin: Plugin | None, undo: _qdp.Undo) -> None:
        """Register a plugin and its converter, with the steps back."""
        with _qdp.registering(schema.op):
            undo.append(functools.partial(_qdp.forget, schema.op))
            if plugin is None:
                has_kernel = (aot_impl or _aot_register) is not None
                is_compiled = has_kernel and use_aot_if_available
                register_plugin(schema, aot_impl, autotune, is_compiled)
            else:
                _register(schema, plugin)
        if _aot_register is not None:
            _aot_register()
        accepts = capability_validator
        if plugin is not None:
            accepts = _validators.capability_of(plugin, schema, accepts, strict)

        def content() -> tuple[Any, ...]:
            """What an engine with this plugin is made of."""
            kernels = _validators.content_of(plugin) if plugin else ()
            return (use_aot_if_available, *own(), *kernels)

        accepts = _validators.digesting(schema, content, accepts)
        undo.append(restoring(schema.overload))
        namespace, name = split_name(schema.op)
        how = (accepts, priority, *flags, plugin, schema.aliased)
        _generate_plugin_converter(namespace, name, None, *how)

    def carry_out() -> None:
        """All steps; what was done is undone if one fails."""
        undo = _qdp.Undo()
        try:
            schema, plugin = _plugin_of(op_name, spec, undo)
            if plugin is None or not schema.writable:
                register(schema, plugin, undo)
            steps = None
            if plugin is not None:
                steps = StepOps(schema, plugin, strict, register)
                undo.append(steps.undo)
                take_apart_in_graphs()
            known = supports_dynamic_shapes, identify(), location
            op = RegisteredOp(plugin, *known, undo, carry_out, steps)
            registered[op_name] = op
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


def _register(schema: OpSchema, plugin: Plugin) -> None:
    """Register ``plugin``, which registers itself anew when its outputs change.

    A plugin object that TensorRT has keeps the outputs that it was made with.
    """
    hidden = plugin.hidden
    register_descriptor(schema, hidden)
    register_aot(schema, plugin, hidden)

    def prepare() -> None:
        with _plugin.lock:
            if plugin.hidden != hidden:
                _qdp.forget(schema.op)
                with _qdp.registering(schema.op):
                    _register(schema, plugin)

    plugin.prepare = prepare


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
    op: str, spec: CustomPluginSpec | None, undo: _qdp.Undo
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
    for kernel in spec.specs:
        count = len(schema.tensors)
        _tensors.names_of_formats(kernel.input_formats, count, len(weights), "input")
    arguments = schema.tensors, schema.attributes, schema.optional, schema.defaults
    plugin = Plugin(op, spec, schema.meta, *arguments, schema.writable)
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
    schema.require_free_names()


def _caller() -> str:
    """``file:line`` of the first frame outside this package."""
    frame, ours = sys._getframe(), "torch_tensorrt."
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(ours):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- What is tried at registration ----------------------------------------------------
#
# Nothing is known of the real inputs yet, so some are invented: to see how many outputs
# the fake kernel of a new op has, and to find early what is wrong with a launch
# function. Both may reject invented inputs with good reason, or treat them as no real
# input. So an error counts only if it holds for all inputs: the functions fail in the
# same way for known sizes and for symbols, and asked nothing that would tell inputs
# apart. Everything else is found with real shapes, by the dry run or the converter.

_Inputs: TypeAlias = tuple[TensorInfo | None, ...]
_EXTENT = 256  # divisible by what blocks and heads divide by
_ANY = _tensors.Range(0, _EXTENT, _tensors.INT32_MAX)
_RANKS = (2, 3, 1, 4, 5)
_DTYPES = (
    *(torch.float16, torch.float32, torch.bfloat16),
    *(torch.int32, torch.int8, torch.int64, torch.bool),
)
_MOST_GUESSES, _MOST_SYMBOLIC = 5000, 60


def _guesses(plugin: Plugin, schema: OpSchema) -> Iterator[_Inputs]:
    """Inputs of the plugin: of one rank, of two and of three; then of any size.

    Its optional tensors are given, and not given.
    """

    def of(count: int) -> Iterator[tuple[int, ...]]:
        for chosen in itertools.combinations(_RANKS, count):
            for ranks in itertools.product(chosen, repeat=len(plugin.tensors)):
                if len(set(ranks)) == count:
                    yield ranks

    def made(ranks: Sequence[int], dtype: Any, extent: Any) -> Iterator[_Inputs]:
        tensors = [TensorInfo((extent,) * rank, dtype) for rank in ranks]
        yield (*tensors, *plugin.weight_infos)
        if plugin.optional:
            named = zip(plugin.tensors, tensors, strict=True)
            required = (None if n in plugin.optional else t for n, t in named)
            yield (*required, *plugin.weight_infos)

    half, *_ = _DTYPES
    for ranks, dtype in itertools.product(of(1), _DTYPES):
        yield from made(ranks, dtype, _EXTENT)
    if schema.fake is None:
        return  # the op's schema says how many outputs there are
    for ranks in itertools.islice(itertools.chain(of(2), of(3)), _MOST_GUESSES):
        for guess in made(ranks, half, _EXTENT):
            if _is_likely(plugin, schema, guess):
                yield guess
    for ranks in itertools.islice(itertools.chain(of(1), of(2)), _MOST_SYMBOLIC):
        yield from made(ranks, half, _ANY)


def _is_likely(plugin: Plugin, schema: OpSchema, guess: _Inputs) -> bool:
    """Whether the fake kernel takes ``guess`` on no device, which is quickly found."""
    tensors = (
        t and torch.empty(t.at("opt"), dtype=t.dtype, device="meta") for t in guess
    )
    try:
        plugin.meta(*tensors, **schema.neutral_attributes)
    except Exception:
        return False
    return True


def _try_out(plugin: Plugin, schema: OpSchema) -> int | AnnotationError:
    """Try the plugin on invented inputs.

    Returns:
        The number of outputs, or why the fake kernel rejects every guess.

    Raises:
        RecordError: a launch function is wrong, whatever its inputs are.
        DataDependentError: the size of an output follows from a tensor's values.
        RegistrationError: an existing op has no fake kernel.
        SpecError: the fake kernel returns no tensor.
    """
    rejected: AnnotationError | None = None
    for guess in _guesses(plugin, schema):
        outputs = _outputs(plugin, schema, guess)
        if isinstance(outputs, AnnotationError):
            rejected = rejected or outputs
            continue
        _require_possible(plugin, schema, guess)
        _compare_with_meta(plugin, schema, guess, outputs)
        return len(outputs)
    assert rejected is not None, "there is always a guess"
    return rejected


def _outputs(
    plugin: Plugin, schema: OpSchema, inputs: _Inputs
) -> tuple[Output, ...] | AnnotationError:
    """The outputs that the fake kernel has for ``inputs``, or why it rejects them."""
    op, meta = plugin.op, functools.partial(plugin.meta, **schema.neutral_attributes)
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
        return plugin.in_names(error)
    if not found and not schema.writable:
        raise SpecError(f"{op}: the fake kernel returns no tensor; one is needed.")
    return found


def _compare_with_meta(
    plugin: Plugin, schema: OpSchema, inputs: _Inputs, outputs: tuple[Output, ...]
) -> None:
    """Warn where ``meta_impl`` has other outputs than an existing op's fake kernel."""
    op, impl = plugin.op, plugin.spec.meta_impl
    if impl is None or schema.fake is not None or schema.attributes:
        return
    with contextlib.suppress(AnnotationError):  # it rejects what is invented
        tensors = inputs[: len(schema.tensors)]
        said = infer_outputs(impl, tensors, "the meta function", False)
        if said != outputs:
            errors.warn(
                f"{op}: for inputs {inputs} meta_impl returns {said}, and the op's own "
                f"fake kernel {outputs}, which counts. Leave meta_impl out."
            )


def _require_possible(plugin: Plugin, schema: OpSchema, guess: _Inputs) -> None:
    """Raise an error of a launch function that holds for all inputs of the op."""
    if schema.attributes or schema.optional:
        return  # their values would be invented, too
    for spec in plugin.spec.specs:
        questions = _Questions()
        watched = dataclasses.replace(spec, launch_fn=questions.noting(spec.function))
        trial = dataclasses.replace(
            plugin,
            spec=dataclasses.replace(plugin.spec, specs=(watched,)),
            meta=questions.noting(plugin.meta),
        )
        if (found := _failure(trial, guess, _EXTENT)) is None:
            continue
        questions.asked = False
        again = _failure(trial, guess, _ANY)
        if type(again) is type(found) and not questions.asked:
            raise found


def _failure(
    plugin: Plugin, guess: _Inputs, extent: _tensors.Extent
) -> AnnotationError | None:
    """Why a config cannot be recorded, if that may be so for all inputs.

    Args:
        extent: of all dimensions of the op's tensors.
    """
    count = len(plugin.tensors)
    tensors = (t and TensorInfo((extent,) * len(t.shape), t.dtype) for t in guess)
    inputs = (*itertools.islice(tensors, count), *guess[count:])
    for tactic in plugin.programs(_plugin.Request.of(inputs, {}, None)):
        if isinstance(tactic.error, errors.UserCodeError):
            return None  # the function wants other inputs
        if isinstance(tactic.error, _OF_FUNCTIONS):
            return tactic.error
    return None


# Not of the dtypes and formats, which are invented.
_OF_FUNCTIONS = (
    errors.RecordError,
    errors.ToolchainError,
    errors.UnsupportedKernelError,
)


class _Questions(TorchFunctionMode):
    """Whether functions ask what their tensors are, which may decide what they do.

    An answer that is a tensor, or a symbol, tells nothing until it is asked something.
    """

    asked = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if not isinstance(answer, torch.Tensor | torch.SymInt | torch.device):
            self.asked = True
        return answer

    def noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, with its questions noted."""

        @functools.wraps(function)
        def noted(*args: Any, **keywords: Any) -> Any:
            given = (v for v in (*args, *keywords.values()) if torch.is_tensor(v))
            sizes: Any = (size for tensor in given for size in tensor.shape)
            symbols = (size.node for size in sizes if isinstance(size, torch.SymInt))
            guards = [node.shape_env.guards for node in itertools.islice(symbols, 1)]
            before = list(map(len, guards))
            try:
                with self:
                    return function(*args, **keywords)
            finally:
                self.asked |= before != list(map(len, guards))

        return noted
