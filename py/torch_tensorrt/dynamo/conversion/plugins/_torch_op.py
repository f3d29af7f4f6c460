# SPDX-License-Identifier: BSD-3-Clause

"""The torch op of a plugin that has none: schema, fake kernel and eager execution."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torch_tensorrt.annotation._record import as_tensors, describe
from torch_tensorrt.annotation._specs import CustomPluginSpec
from torch_tensorrt.annotation._tensors import empty_buffers, formats_of
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import AnnotationError, SpecError

from . import _qdp
from ._schema import OpSchema, overload_of, split_name

# torch asks `inspect` for the line that registers a fake kernel. To find the module of
# a file that it does not know, `inspect` resolves the paths of all that are imported.
inspect.modulesbyfile[__file__] = __name__


def body(op: str) -> Callable[..., Any]:
    """The Python function that runs ``op`` on CUDA.

    Raises:
        SpecError: it cannot be reached.
    """
    definition = torch._library.custom_ops.OPDEFS.get(op)
    functions = definition._backend_fns if definition else {}
    function: Callable[..., Any] | None = functions.get("cuda") or functions.get(None)
    while function is not None and function.__module__.startswith("torch."):
        # The wrappers that torch.library's decorators make keep it as `fn`.
        function = inspect.getclosurevars(inspect.unwrap(function)).nonlocals.get("fn")
    if function is None:
        raise SpecError(
            f"{op}: its Python body cannot be reached. Define the op with a decorator "
            "of torch.library, or pass the function that launches the kernel."
        )
    return function


def _destroy(library: torch.library.Library) -> None:
    """Remove the op that ``library`` holds, now and not again later."""
    library._destroy()  # type: ignore[no-untyped-call]
    # Its finalizer, whenever that runs, would do the same to a later op of that name.
    library._op_defs.clear()
    library._op_impls.clear()


def parameters_of(op: str, meta: Callable[..., Any] | None) -> str:
    """The parameters of an op with the fake kernel ``meta``: ``"(Tensor x, int k=2)"``.

    ``torch.library.infer_schema`` names the types. It refuses parameters without an
    annotation, which are tensors here. It refuses defaults that are lists, and does not
    escape quotes in text, so the defaults are added here.

    Raises:
        SpecError: there is no ``meta``, or its signature has no counterpart in torch.
    """
    if meta is None:
        raise SpecError(
            f"{op}: torch has no such op, so its outputs are unknown. Pass "
            "tta.custom_plugin(..., meta_impl=lambda x: torch.empty_like(x))."
        )
    try:
        signature = inspect.signature(meta)
    except ValueError as error:  # a builtin
        raise SpecError(
            f"{op}: the meta function {describe(meta)} has no signature to make a "
            "schema from. Wrap it: meta_impl=lambda x: torch.empty_like(x)."
        ) from error
    hints = _hints(op, meta)
    for name, hint in hints.items():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, enum.Enum):
                raise SpecError(
                    f"{op}, parameter `{name}` of the meta function {describe(meta)}: "
                    f"an operator takes no {part.__name__}. Declare it as int or str, "
                    f"call the op with its value, and make {part.__name__}({name}) of "
                    "it where it is used."
                )
    parameters = {
        name: p.replace(annotation=hints.get(name, torch.Tensor))
        for name, p in signature.parameters.items()
        # functools.partial leaves the keywords that it binds in this form.
        if name in hints or p.kind is not p.KEYWORD_ONLY or p.default is p.empty
    }

    def prototype() -> None: ...

    bare = [p.replace(default=p.empty) for p in parameters.values()]
    result = inspect.Signature(bare, return_annotation=None)
    prototype.__signature__ = result  # type: ignore[attr-defined]
    try:
        inferred = torch.library.infer_schema(prototype, mutates_args=())
    except ValueError as error:
        reason = str(error).partition(". ")[0].removeprefix("infer_schema(func): ")
        raise SpecError(
            f"{op}: the meta function's signature {signature} has no place in a "
            f"schema: {reason}. Use tensors; and float, int, bool, lists and optionals "
            "of them, or str, torch.dtype or torch.device, with an annotation."
        ) from error
    declarations = inferred.removesuffix(" -> ()")[1:-1].split(", ")
    return f"({', '.join(d + _default(d, parameters) for d in declarations)})"


def _default(declaration: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    """The default of a declaration such as ``"float[] sizes"``; ``"*"`` has none."""
    parameter = parameters.get(declaration.rpartition(" ")[2])
    if parameter is None or parameter.default is parameter.empty:
        return ""
    value = parameter.default
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):  # torch's parser does not know JSON's \\u
        return f"={json.dumps(value, ensure_ascii=False)}"
    if isinstance(value, torch.device):
        return f'="{value}"'
    if isinstance(value, torch.dtype):
        return f"={str(value).removeprefix('torch.')}"
    return f"={list(value) if isinstance(value, tuple) else value!r}"


def _hints(op: str, meta: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of ``meta``, without those of what a partial binds."""
    bound = getattr(meta, "keywords", {})
    try:
        hints = typing.get_type_hints(getattr(meta, "func", meta))
    except TypeError:  # an object without annotations, such as an instance
        return {}
    except NameError as error:
        raise SpecError(
            f"{op}: the meta function {describe(meta)} has an annotation that cannot "
            f"be read: {error}."
        ) from error
    return {name: hint for name, hint in hints.items() if name not in bound}


def define(
    schema: OpSchema,
    spec: CustomPluginSpec,
    parameters: str,
    num_outputs: int | AnnotationError,
    undo: _qdp.Undo,
) -> None:
    """Define an op with the spec's ``meta_impl``; on CUDA it runs the first config.

    Args:
        parameters: of :func:`parameters_of`.
        num_outputs: or the reason why only an annotation of ``meta_impl`` can say it.
        undo: gets the step that removes the op.

    Raises:
        SpecError: the number of outputs is unknown, or torch does not take the op.
    """
    meta, op = spec.meta_impl, schema.op
    assert meta is not None, "there would be no parameters"
    if isinstance(num_outputs, AnnotationError):
        hint = _hints(op, meta).get("return")
        hints = (hint,) if hint is torch.Tensor else typing.get_args(hint)
        if typing.get_origin(hint) not in (None, tuple) or {*hints} != {torch.Tensor}:
            raise SpecError(
                f"{op}: cannot tell how many outputs {describe(meta)} returns. "
                "Annotate it: -> torch.Tensor, or -> tuple[torch.Tensor, torch.Tensor]."
                f" ({num_outputs})"
            ) from num_outputs
        num_outputs = len(hints)

    def fake(*args: Any, **kwargs: Any) -> Any:
        return _as_returned(as_tensors(meta(*args, **kwargs), "the meta function"))

    returns = ", ".join(["Tensor"] * num_outputs)
    eager = _eager(schema, spec, meta)
    define_op(op, f"{parameters} -> ({returns})", fake, eager, undo)


def define_op(
    op: str,
    declaration: str,
    fake: Callable[..., Any],
    eager: Callable[..., Any],
    undo: _qdp.Undo,
) -> None:
    """Define an op that torch does not have.

    Args:
        declaration: ``"(Tensor x) -> (Tensor)"``.
        eager: runs it on CUDA.
        undo: gets the step that removes it.

    Raises:
        SpecError: torch does not take it.
    """
    namespace, name = split_name(op)
    try:
        library = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
        undo.append(functools.partial(_destroy, library))
        library.define(f"{name}{declaration}")  # type: ignore[no-untyped-call]
        library.impl(name, eager, "CUDA")  # type: ignore[no-untyped-call]
        torch.library.register_fake(op, fake, lib=library)
        overload_of(op)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise SpecError(
            f"{op}: torch does not take an op {name}{declaration}: {error}"
        ) from error


def _as_returned(outputs: tuple[torch.Tensor, ...]) -> Any:
    """Outputs as torch takes them: one is bare."""
    return outputs if len(outputs) > 1 else outputs[0]


def _eager(schema: OpSchema, spec: CustomPluginSpec, meta: Any) -> Callable[..., Any]:
    """Calls the launch function with the first config, as it is recorded."""
    kernel = spec.specs[0]
    keywords = dict(spec.attributes) | kernel.launch_keywords(kernel.configs[0])
    takes_stream = "stream" in inspect.signature(kernel.function).parameters

    @functools.lru_cache(8)  # the weights are moved once, until one is written to
    def weights(device: torch.device, versions: Any) -> tuple[torch.Tensor, ...]:
        del versions
        return tuple(w.detach().to(device).contiguous() for _, w in spec.weights)

    def run(*args: Any, **kwargs: Any) -> Any:
        given, attributes = schema.bind(args, kwargs)
        outputs = as_tensors(meta(*args, **kwargs), "the meta function")
        inputs: list[Any] = [t if t is None else t.contiguous() for t in given]
        versions = (w.is_inference() or w._version for _, w in spec.weights)
        inputs += weights(outputs[0].device, tuple(versions))
        formats = (
            *formats_of(kernel.input_formats, inputs, len(spec.weights), "input"),
            *formats_of(kernel.output_formats, outputs, 0, "output"),
        )
        fresh = [torch.empty(o.shape, dtype=o.dtype, device=o.device) for o in outputs]
        tensors: tuple[Any, ...] = empty_buffers(formats, (*inputs, *fresh))
        for fmt, tensor, buffer in zip(formats, inputs, tensors, strict=False):
            if buffer is not tensor:
                fmt.pack(tensor, buffer.zero_())
        with torch.cuda.device_of(outputs[0]):  # type: ignore[no-untyped-call]
            if takes_stream:
                attributes["stream"] = torch.cuda.current_stream().cuda_stream
            backend(kernel.backend).run(kernel.function, tensors, keywords | attributes)
        first = len(inputs)
        written = zip(formats[first:], tensors[first:], outputs, strict=True)
        return _as_returned(tuple(f.unpack(b, o.shape) for f, b, o in written))

    return run
