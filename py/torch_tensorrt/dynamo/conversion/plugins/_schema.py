# SPDX-License-Identifier: BSD-3-Clause

"""A torch op's schema as TensorRT's plugin API wants it: tensors, then attributes."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._record.program import Output
from torch_tensorrt.annotation._tensors import TensorInfo
from torch_tensorrt.annotation.errors import (
    RegistrationError,
    SpecError,
    UnknownOpError,
)


@dataclass(frozen=True)
class OpSchema:
    """One overload of a torch op.

    Attributes:
        op: ``"ns::name"``.
        arguments: as torch parsed them.
        weights: names of the constants that follow the op's tensors among the plugin's
            inputs.
        fake: the fake kernel, where this package defines the op.
        aliased: inputs of the plugin that it writes, and returns after its outputs.
        outputs_of: from the inputs, and whether their extents are known, to the outputs
            that are not aliased, where a recording has them; None where none has.
        overload_name: of the overload.
    """

    op: str
    arguments: tuple[Any, ...]
    weights: tuple[str, ...] = ()
    fake: Callable[..., Any] | None = None
    aliased: tuple[int, ...] = ()
    outputs_of: (
        Callable[[Sequence[TensorInfo | None], bool], tuple[Output, ...] | None] | None
    ) = None
    overload_name: str = "default"

    @classmethod
    def of(cls, op: str, parameters: str | None = None, **fields: Any) -> OpSchema:
        """The schema of an op.

        Args:
            parameters: of an op that is not defined yet, as ``"(Tensor x)"``.
            **fields: ``weights``, ``fake``, ``aliased``, ``outputs_of`` and
                ``overload_name``.

        Raises:
            SpecError: ``op`` is not a name, or torch cannot parse the parameters.
            UnknownOpError: torch has no such op.
            RegistrationError: one of its types, of an argument or of what it returns,
                has no counterpart in TensorRT.
        """
        if parameters is None:
            declared = overload_of(op, fields.get("overload_name", "default"))._schema
        else:
            try:
                declared = torch._C.parse_schema(f"{op}{parameters} -> ()")
            except RuntimeError as error:
                raise SpecError(f"{op}: torch rejects the schema: {error}") from error
        returned = [str(result.type) for result in declared.returns]
        schema = cls(op, tuple(declared.arguments), **fields)
        if any(result.alias_info is not None for result in declared.returns):
            raise RegistrationError(
                f"{op}: the op returns one of its arguments. Return nothing in its "
                "place: who calls the op has the argument."
            )
        is_fixed = {*returned} <= {"Tensor"} and (returned or schema.writable)
        if parameters is None and not is_fixed:
            raise RegistrationError(
                f"{op}: the op returns {', '.join(returned) or 'nothing'}, and a "
                "plugin returns a fixed number of tensors. Return a Tensor, or a tuple "
                "of them."
            )
        if len(schema.attributes) + len(schema.optional) == len(schema.arguments):
            raise RegistrationError(
                f"{op}: a plugin needs at least one tensor input that is not optional."
            )
        return schema

    @cached_property
    def overload(self) -> Any:
        """The op, once it is defined."""
        return overload_of(self.op, self.overload_name)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensor arguments."""
        optional = torch._C.OptionalType(_TENSOR)
        return tuple(a.name for a in self.arguments if a.type.isSubtypeOf(optional))

    @cached_property
    def optional(self) -> frozenset[str]:
        """Those of the tensors that may be None."""
        required = (a.name for a in self.arguments if a.type.isSubtypeOf(_TENSOR))
        return frozenset(self.tensors) - {*required}

    @cached_property
    def writable(self) -> frozenset[int]:
        """The tensors that the op says it writes, by number."""
        infos = {a.name: a.alias_info for a in self.arguments}
        named = ((i, infos[name]) for i, name in enumerate(self.tensors))
        return frozenset(i for i, info in named if info is not None and info.is_write)

    def require_functional(self) -> None:
        """Raise unless the op leaves its inputs alone.

        Raises:
            RegistrationError: it writes one of them.
        """
        for index in sorted(self.writable):
            raise RegistrationError(
                f"{self.op}, argument `{self.tensors[index]}`: the op writes it in "
                "place, which takes a kernel that is compiled ahead of time. Pass "
                "impl=, or return a new tensor instead."
            )

    def require_free_names(self) -> None:
        """Raise unless TensorRT leaves the names of the arguments to plugins.

        Raises:
            SpecError: one is a name that TensorRT uses.
        """
        for name in (*self.tensors, *self.attributes, *self.weights):
            if name in _RESERVED:
                raise SpecError(
                    f"{self.op}: an argument is named {name!r}, which TensorRT's "
                    "plugins use themselves. Rename it."
                )

    @cached_property
    def attributes(self) -> dict[str, AttributeKind]:
        """Names and kinds of the other arguments."""
        others = (a for a in self.arguments if a.name not in self.tensors)
        return {a.name: _attribute_kind(self.op, a) for a in others}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The attributes that have a default, and the default."""
        kinds, given = self.attributes, self._given
        return {n: kind.convert(given[n]) for n, kind in kinds.items() if n in given}

    @cached_property
    def _given(self) -> dict[str, Any]:
        """The arguments that have a default, and the default."""
        having = (a for a in self.arguments if a.has_default_value())
        return {a.name: a.default_value for a in having}

    @property
    def neutral_attributes(self) -> dict[str, Any]:
        """A value for each attribute: its default, or the kind's own."""
        neutral = {name: kind.neutral() for name, kind in self.attributes.items()}
        return neutral | self.defaults

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the plugin's inputs."""
        return self.tensors + self.weights

    @property
    def num_outputs(self) -> int:
        return len(self.overload._schema.returns)

    def outputs(self, kind: Any, hidden: int = 0) -> Any:
        """The annotation of the outputs: a tuple of exactly as many of ``kind``.

        Args:
            hidden: how many the plugin has and the op does not return.
        """
        return tuple[(kind,) * (self.num_outputs + hidden)]  # type: ignore[misc]

    def meta(self, /, *tensors: torch.Tensor | None, **attributes: Any) -> Any:
        """The op's outputs for the plugin's (fake) inputs, and attributes by name."""
        named = dict(zip(self.tensors, tensors, strict=False))
        return (self.fake or self.overload)(**named, **attributes)

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """A call's tensor values in order, and its attribute values by name."""
        names = [argument.name for argument in self.arguments]
        values = {**self._given, **dict(zip(names, args, strict=False)), **kwargs}
        if missing := [name for name in names if name not in values]:
            raise RegistrationError(f"{self.op}: called without {', '.join(missing)}.")
        attributes = {}
        for name, kind in self.attributes.items():
            try:
                attributes[name] = kind.convert(values[name])
            except (TypeError, ValueError) as error:
                raise RegistrationError(
                    f"{self.op}, argument `{name}`: {values[name]!r}; it must be a "
                    f"{kind} that is known when the engine is built. Pass what varies "
                    "at run time as a tensor."
                ) from error
        return [values[name] for name in self.tensors], attributes

    def adapter(
        self,
        role: str,
        function: Callable[..., Any],
        tensor: Any,
        returns: Any,
        **trailing: Any,
    ) -> Callable[..., Any]:
        """A callback for TensorRT that calls ``function(inputs, attributes, ...)``.

        TensorRT's validators want a name, and the signature ``(tensors..., weights...,
        attributes..., trailing...)``. ``function`` gets attributes as Python values,
        and what is trailing by name.
        """
        annotations = dict.fromkeys(self.inputs, tensor)
        annotations |= {n: kind.annotation for n, kind in self.attributes.items()}
        annotations |= trailing

        def adapted(*args: Any, **kwargs: Any) -> Any:
            named = dict(zip(annotations, args, strict=False)) | kwargs
            inputs = tuple(named.pop(name) for name in self.inputs)
            kinds = self.attributes.items()
            attributes = {name: kind.decode(named.pop(name)) for name, kind in kinds}
            return function(inputs, attributes, **named)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(name, kind, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        name = f"{role}_{self.op.replace('::', '_')}"
        adapted.__name__ = adapted.__qualname__ = name
        signature = inspect.Signature(parameters, return_annotation=returns)
        adapted.__signature__ = signature  # type: ignore[attr-defined]
        return adapted


def split_name(op: str) -> tuple[str, str]:
    """``"ns::name"`` in two.

    Raises:
        SpecError: it is not of that form.
    """
    found = re.fullmatch(_NAME, op, re.ASCII) if isinstance(op, str) else None
    if found is None or any(map(keyword.iskeyword, found.groups())):
        raise SpecError(
            f"op name {op!r}: write a namespace and a name, both ASCII identifiers, as "
            "in 'my::silu'."
        )
    return found[1], found[2]


def overload_of(op: str, overload: str = "default") -> Any:
    """An overload of an op.

    Raises:
        UnknownOpError: torch has none of this name.
    """
    namespace, name = split_name(op)
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError as error:
        raise UnknownOpError(
            f"{op}: torch has no such op (or it has no {overload} overload). Define it "
            "with torch.library.custom_op, or give impl= with a meta_impl."
        ) from error


_NAME = r"([A-Za-z]\w*)::(_?[A-Za-z]\w*)"
_RESERVED = frozenset({"outputs", "stream", "tactic"})
_TENSOR = torch._C.TensorType.get()
_ELEMENTS: dict[str, type] = {
    **{"FloatType": float, "IntType": int, "BoolType": bool, "StringType": str},
    **{"SymIntType": int, "SymBoolType": bool, "ScalarTypeType": torch.dtype},
    "DeviceObjType": torch.device,
    "MemoryFormatType": torch.memory_format,
}


def _attribute_kind(op: str, argument: Any) -> AttributeKind:
    inner, shape = argument.real_type, {}  # `type` calls a dtype an int
    for kind, name in (("OptionalType", "is_optional"), ("ListType", "is_list")):
        if inner.kind() == kind:
            inner, shape[name] = inner.getElementType(), True
    element = _ELEMENTS.get(inner.kind())
    if element is None or (element is str and shape):
        raise RegistrationError(
            f"{op}, argument `{argument.name}`: type {argument.real_type} cannot be a "
            "plugin attribute. Use Tensor, float, int, bool or str, or a torch.dtype, "
            "torch.device or torch.memory_format; or a list or optional of these, but "
            "not of str. Pass an enum by its value, or as a keyword of custom_plugin."
        )
    return AttributeKind(element, **shape)
