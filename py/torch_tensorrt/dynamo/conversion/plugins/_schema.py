"""A torch op's schema as TensorRT's plugin API wants it: tensors, then attributes."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._trace import absent
from torch_tensorrt.annotation.errors import RegistrationError, SpecError


@dataclass(frozen=True)
class OpSchema:
    """A torch op with one overload.

    Attributes:
        op: ``"ns::name"``.
        overload: what is converted.
        fake: the fake kernel, if it need not be reached through the overload.
        tensors: names of the tensor arguments.
        optional: of those, the ones that may be None.
        attributes: the other arguments' names and kinds.
        weights: names of constants that the plugin takes after the op's tensors.
    """

    op: str
    overload: Any
    fake: Callable[..., Any] | None
    tensors: tuple[str, ...]
    attributes: Mapping[str, AttributeKind]
    weights: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        op: str,
        fake: Callable[..., Any] | None = None,
        weights: Sequence[str] = (),
    ) -> OpSchema:
        """The schema of a registered op.

        Raises:
            SpecError: ``op`` is no name.
            RegistrationError: no such op, or one of its types has no counterpart.
        """
        namespace, name = split_name(op)
        try:
            overload = getattr(getattr(torch.ops, namespace), name).default
        except AttributeError as error:
            raise RegistrationError(
                f"{op}: torch has no such op (or it has no default overload). Define "
                "it with torch.library.custom_op, or give impl= with a meta_impl."
            ) from error
        tensors: list[str] = []
        optional: set[str] = set()
        attributes: dict[str, AttributeKind] = {}
        for argument in overload._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                raise RegistrationError(
                    f"{op}, argument `{argument.name}`: the op writes it in place. "
                    "TensorRT lets a plugin do so only as a preview feature, "
                    "ALIASED_PLUGIN_IO_10_03, which Torch-TensorRT does not turn on. "
                    "Return a new tensor instead."
                )
            if argument.type.isSubtypeOf(torch._C.OptionalType(_TENSOR)):
                tensors.append(argument.name)
                if not argument.type.isSubtypeOf(_TENSOR):
                    optional.add(argument.name)
            else:
                attributes[argument.name] = _attribute_kind(op, argument)
        if not set(tensors) - optional:
            raise RegistrationError(
                f"{op}: a plugin needs at least one tensor input that is not optional."
            )
        return cls(
            op,
            overload,
            fake,
            tuple(tensors),
            attributes,
            tuple(weights),
            frozenset(optional),
        )

    def default_attributes(self) -> dict[str, Any]:
        """The attributes that have a default, and it."""
        return {
            argument.name: self.attributes[argument.name].convert(
                argument.default_value
            )
            for argument in self.overload._schema.arguments
            if argument.name in self.attributes and argument.has_default_value()
        }

    def neutral_attributes(self) -> dict[str, Any]:
        """A value for each attribute: its default, or the kind's own."""
        neutral = {name: kind.neutral() for name, kind in self.attributes.items()}
        return neutral | self.default_attributes()

    @property
    def num_outputs(self) -> int:
        return len(self.overload._schema.returns)

    def outputs(self, kind: Any) -> Any:
        """The annotation of the outputs: a tuple of exactly as many of ``kind``."""
        return tuple[(kind,) * self.num_outputs]  # type: ignore[misc]

    def meta(self, *tensors: torch.Tensor | None, **attributes: Any) -> Any:
        """The op's outputs for the plugin's (fake) inputs, and attributes by name."""
        names = (*self.tensors, *self.weights)
        named = dict(list(zip(names, tensors, strict=True))[: len(self.tensors)])
        return (self.fake or self.overload)(**named, **attributes)

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """A call's tensor values in order, and its attribute values by name.

        In place of None is a tensor that stands for it.
        """
        arguments = self.overload._schema.arguments
        values = {a.name: a.default_value for a in arguments if a.has_default_value()}
        values |= dict(zip((a.name for a in arguments), args, strict=False))
        values |= kwargs
        missing = [a.name for a in arguments if a.name not in values]
        if missing:
            raise RegistrationError(f"{self.op}: called without {', '.join(missing)}.")
        attributes = {
            name: self._constant(name, kind, values[name])
            for name, kind in self.attributes.items()
        }
        given = (values[name] for name in self.tensors)
        return [absent() if value is None else value for value in given], attributes

    def _constant(self, name: str, kind: AttributeKind, value: Any) -> Any:
        try:
            return kind.convert(value)
        except (TypeError, ValueError) as error:
            raise RegistrationError(
                f"{self.op}, argument `{name}`: {value!r}; it must be a {kind} that is "
                "known when the engine is built. Pass what varies at run time as a "
                "tensor."
            ) from error

    def signature(
        self, tensor: Any, trailing: Mapping[str, Any], returns: Any
    ) -> inspect.Signature:
        """``(tensors..., weights..., attributes..., trailing...) -> returns``."""
        annotations = {
            **dict.fromkeys((*self.tensors, *self.weights), tensor),
            **{name: kind.annotation for name, kind in self.attributes.items()},
            **trailing,
        }
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [inspect.Parameter(n, kind, annotation=a) for n, a in annotations.items()],
            return_annotation=returns,
        )

    def split(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
        """A callback's arguments: inputs, attributes as Python values, the rest."""
        inputs = (*self.tensors, *self.weights)
        names = [*inputs, *self.attributes]
        named = dict(zip(names, args, strict=False)) | dict(kwargs)
        return (
            tuple(named[name] for name in inputs),
            {name: k.decode(named[name]) for name, k in self.attributes.items()},
            args[len(names) :],
        )


def split_name(op: str) -> tuple[str, str]:
    """``"ns::name"`` in two.

    Raises:
        SpecError: it is not of that form.
    """
    parts = op.split("::") if isinstance(op, str) else []
    if len(parts) != 2 or not all(map(_is_name, parts)):
        raise SpecError(
            f"op name {op!r}: write a namespace and a name, both ASCII identifiers, as "
            "in 'my::silu'."
        )
    return parts[0], parts[1]


def _is_name(text: str) -> bool:
    is_word = text.isascii() and text.isidentifier() and not keyword.iskeyword(text)
    return is_word and not text.startswith("_")


_TENSOR = torch._C.TensorType.get()
_ELEMENTS = (
    (torch._C.FloatType.get(), float),
    (torch._C.IntType.get(), int),
    (torch._C.BoolType.get(), bool),
    (torch._C.StringType.get(), str),
)


def _attribute_kind(op: str, argument: Any) -> AttributeKind:
    inner, shape = argument.type, {}
    for kind, name in (("OptionalType", "is_optional"), ("ListType", "is_list")):
        if inner.kind() == kind:
            inner, shape[name] = inner.getElementType(), True
    try:
        for element, python in _ELEMENTS:
            if inner.isSubtypeOf(element):
                return AttributeKind(python, **shape)
    except SpecError as error:
        raise RegistrationError(f"{op}, argument `{argument.name}`: {error}") from error
    raise RegistrationError(
        f"{op}, argument `{argument.name}`: type {argument.type} cannot be a plugin "
        "attribute. Use Tensor, float, int, bool or str, or a list or optional of the "
        "numbers."
    )
