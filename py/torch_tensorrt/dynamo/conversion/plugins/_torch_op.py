"""The torch op of a plugin that has none: schema, fake kernel and eager execution."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from torch_tensorrt.annotation._formats import empty_buffers, formats_of
from torch_tensorrt.annotation._kernel_spec import KernelSpec
from torch_tensorrt.annotation._plugin_spec import CustomPluginSpec
from torch_tensorrt.annotation._record import describe, infer_outputs
from torch_tensorrt.annotation._trace import as_tensors
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import AnnotationError, SpecError
from torch_tensorrt.dynamo.conversion.plugins._guesses import guesses
from torch_tensorrt.dynamo.conversion.plugins._schema import split_name


def _schema_types() -> dict[Any, str]:
    """Annotations, and what a torch schema calls them."""
    types: dict[Any, str] = {
        torch.Tensor: "Tensor",
        torch.Tensor | None: "Tensor?",
        inspect.Parameter.empty: "Tensor",
        str: "str",
    }
    for element in (float, int, bool):
        name = element.__name__
        types |= {element: name, element | None: f"{name}?"}
        for generic in (list, typing.List, Sequence, typing.Sequence):  # noqa: UP006
            several = generic[element]
            types |= {several: f"{name}[]", typing.Optional[several]: f"{name}[]?"}  # noqa: UP045
    return types


_SCHEMA_TYPES = _schema_types()


def exists(op: str) -> bool:
    """Whether torch knows ``op``."""
    namespace, name = split_name(op)
    return torch._C._jit_get_schemas_for_operator(f"{namespace}::{name}") != []


def body(op: str) -> Callable[..., Any]:
    """The Python function that runs ``op`` on CUDA.

    Raises:
        SpecError: it cannot be reached.
    """
    definition = torch._library.custom_ops.OPDEFS.get(op)
    functions = definition._backend_fns if definition else {}
    function = functions.get("cuda") or functions.get(None)
    while function is not None and function.__module__.startswith("torch."):
        # torch's own wrappers, of custom_op and of triton_op, keep it as `fn`
        function = inspect.getclosurevars(inspect.unwrap(function)).nonlocals.get("fn")
    if function is None:
        raise SpecError(
            f"{op}: its Python body cannot be reached. Define the op with "
            "torch.library.custom_op or triton_op, or pass the function that launches "
            "the kernel: tta.triton(launch_fn)."
        )
    found: Callable[..., Any] = function
    return found


def new_library(op: str) -> torch.library.Library:
    """An empty library for ``op``.

    Raises:
        SpecError: torch keeps the namespace to itself.
    """
    try:
        return torch.library.Library(split_name(op)[0], "FRAGMENT")  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise SpecError(
            f"{op}: torch does not take an op of this name: {error}"
        ) from error


def destroy(library: torch.library.Library) -> None:
    """Remove the op that ``library`` holds, now and not again later."""
    library._destroy()  # type: ignore[no-untyped-call]
    # Its finalizer, whenever that runs, would do the same to a later op of that name.
    library._op_defs.clear()
    library._op_impls.clear()


def define(library: torch.library.Library, op: str, spec: CustomPluginSpec) -> None:
    """Define ``op`` from the spec's ``meta_impl``; on CUDA it runs the first config.

    Args:
        library: is to hold the op; destroying it removes the op.

    Raises:
        SpecError: there is no ``meta_impl``, or its signature makes no schema.
    """
    if spec.meta_impl is None:
        raise SpecError(
            f"{op}: torch has no such op, so its outputs are unknown. Pass "
            "tta.custom_plugin(..., meta_impl=lambda x: torch.empty_like(x))."
        )
    namespace, name = split_name(op)
    schema = _schema(op, spec.meta_impl)
    try:
        library.define(name + schema)  # type: ignore[no-untyped-call]
        library.impl(name, _eager(op, spec, spec.meta_impl), "CUDA")  # type: ignore[no-untyped-call]
        torch.library.register_fake(op, spec.meta_impl, lib=library)
        getattr(getattr(torch.ops, namespace), name).default  # noqa: B018
    except (RuntimeError, ValueError, AttributeError) as error:
        raise SpecError(
            f"{op}: torch does not take an op {name}{schema}: {error}"
        ) from error


def _eager(
    op: str, spec: CustomPluginSpec, meta: Callable[..., Any]
) -> Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]:
    kernel = spec.specs[0]
    types = _argument_types(op, meta)
    tensors = {name for name, type_ in types.items() if type_.startswith("Tensor")}
    keywords = dict(spec.attributes) | kernel.launch_keywords(kernel.configs[0])
    weights = _on_device(spec)
    takes_stream = "stream" in inspect.signature(kernel.function).parameters

    def run(*args: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        bound = inspect.signature(meta).bind(*args)
        bound.apply_defaults()
        values = bound.arguments
        given = {n: v for n, v in values.items() if n in tensors}
        attributes = {n: v for n, v in values.items() if n not in given}
        result = meta(*args)
        outputs = as_tensors(result, "the meta function")
        inputs = [
            *(t if t is None else t.contiguous() for t in given.values()),
            *weights(outputs[0].device),
        ]
        if takes_stream:
            attributes["stream"] = torch.cuda.current_stream().cuda_stream
        outputs = _run(
            kernel, inputs, outputs, len(spec.weights), keywords | attributes
        )
        return outputs if isinstance(result, tuple | list) else outputs[0]

    return run


def _run(
    kernel: KernelSpec,
    inputs: Sequence[torch.Tensor | None],
    outputs: Sequence[torch.Tensor],
    num_weights: int,
    keywords: Mapping[str, Any],
) -> tuple[torch.Tensor, ...]:
    """Call the launch function as it is recorded; tensors like ``outputs``, written."""
    formats = (
        *formats_of(kernel.input_formats, inputs, num_weights, "input"),
        *formats_of(kernel.output_formats, outputs, 0, "output"),
    )
    fresh = [torch.empty(o.shape, dtype=o.dtype, device=o.device) for o in outputs]
    tensors = empty_buffers(formats, (*inputs, *fresh))
    for fmt, tensor, buffer in zip(formats, inputs, tensors, strict=False):
        if tensor is not None and buffer is not None and buffer is not tensor:
            fmt.pack(tensor, buffer.zero_())
    backend(kernel.backend).run(kernel.function, tensors, dict(keywords))
    written = list(zip(formats, tensors, strict=True))[len(inputs) :]
    return tuple(
        fmt.unpack(buffer, output.shape)
        for (fmt, buffer), output in zip(written, outputs, strict=True)
        if buffer is not None
    )


def _on_device(
    spec: CustomPluginSpec,
) -> Callable[[torch.device], tuple[torch.Tensor, ...]]:
    """The spec's weights, moved to each device once."""

    @cache
    def on(device: torch.device) -> tuple[torch.Tensor, ...]:
        return tuple(w.detach().to(device).contiguous() for _, w in spec.weights)

    return on


def _schema(op: str, meta: Callable[..., Any]) -> str:
    types = _argument_types(op, meta)
    parameters = inspect.signature(meta).parameters
    arguments = [f"{t} {name}{_default(parameters[name])}" for name, t in types.items()]
    count = _count_outputs(op, meta, len(types), _hints(op, meta).get("return"))
    returns = "Tensor" if count is None else f"({', '.join(['Tensor'] * count)})"
    return f"({', '.join(arguments)}) -> {returns}"


def _argument_types(op: str, meta: Callable[..., Any]) -> dict[str, str]:
    """The arguments of an op with this fake kernel, and their types in its schema."""
    try:
        signature = inspect.signature(meta)
    except ValueError as error:  # a builtin
        raise SpecError(
            f"{op}: the meta function {describe(meta)} has no signature to make a "
            "schema from. Wrap it: meta_impl=lambda x: torch.empty_like(x)."
        ) from error
    hints, types = _hints(op, meta), {}
    for parameter in signature.parameters.values():
        hint = hints.get(parameter.name, parameter.empty)
        is_bound = parameter.kind is parameter.KEYWORD_ONLY and hint is parameter.empty
        if is_bound and parameter.default is not parameter.empty:
            continue  # as functools.partial leaves it
        if hint not in _SCHEMA_TYPES or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise SpecError(
                f"{op}: parameter `{parameter}` of the meta function has no place in a "
                "schema. Use tensors; and float, int, bool, lists and optionals of "
                "them, or str, with an annotation."
            )
        types[parameter.name] = _SCHEMA_TYPES[hint]
    return types


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return ""
    value = list(value) if isinstance(value, tuple) else value
    return f"={json.dumps(value) if isinstance(value, str) else repr(value)}"


def _count_outputs(
    op: str, meta: Callable[..., Any], inputs: int, hint: Any
) -> int | None:
    """How many outputs ``meta`` returns in a tuple; None for a bare tensor."""
    if hint is torch.Tensor:
        return None
    if typing.get_origin(hint) is tuple and Ellipsis not in typing.get_args(hint):
        return len(typing.get_args(hint))
    reason: AnnotationError | None = None
    for guess in guesses(inputs):
        returned: list[Any] = []

        def observed(*tensors: Any, returned: list[Any] = returned) -> Any:
            returned.append(meta(*tensors))
            return returned[-1]

        try:
            infer_outputs(observed, guess, "the meta function")
        except AnnotationError as error:
            reason = reason or error
            continue
        return len(returned[0]) if isinstance(returned[0], tuple | list) else None
    raise SpecError(
        f"{op}: cannot tell how many outputs {describe(meta)} returns. Annotate it: "
        f"-> torch.Tensor, or -> tuple[torch.Tensor, torch.Tensor]. ({reason})"
    ) from reason


def _hints(op: str, meta: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(meta)
    except TypeError:  # an object without annotations: a partial, an instance
        return {}
    except NameError as error:
        raise SpecError(
            f"{op}: the meta function {describe(meta)} has an annotation that cannot "
            f"be read: {error}."
        ) from error
