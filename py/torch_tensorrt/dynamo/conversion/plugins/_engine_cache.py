"""What Torch-TensorRT's engine cache is to know of a plugin's call.

Its hash sees an op's name, and neither its arguments nor what its plugin is made of, so
another kernel, weight or attribute would be served from an old engine. Where a cache is
in use, the name therefore says it: the node's target is the same op, and its text has a
digest more.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch._ops import OpOverload
from torch.fx.node import Node, map_aggregate

from torch_tensorrt.annotation._fingerprint import fingerprint, stable_fingerprint
from torch_tensorrt.annotation._job import own_source
from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation._target import current_target
from torch_tensorrt.annotation.backends import backend
from torch_tensorrt.annotation.errors import TargetError, ToolchainError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion.plugins._capability import Validator, extent
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema

_PROCESS = uuid.uuid4().hex


class DigestedOverload(OpOverload[..., Any]):
    """An op's overload that is equal to it, runs it, and has a digest in its text."""

    _digest: str

    @classmethod
    def of(cls, overload: OpOverload[..., Any], digest: str) -> DigestedOverload:
        made = cls.__new__(cls)
        vars(made).update(vars(overload), _digest=digest)
        return made

    def __str__(self) -> str:
        text: str = super().__str__()  # type: ignore[no-untyped-call]
        return f"{text}[{self._digest}]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpOverload) and other._op is self._op

    __hash__ = OpOverload.__hash__


def digesting(
    op: str, content: Callable[[], tuple[Any, ...]], validator: Validator | None
) -> Validator:
    """``validator``, after which a node that it takes says what its engine will hold.

    Partitioning is the last that is done to every node before the hash; lowering passes
    come earlier, in an order that is not ours.

    Args:
        content: what the plugin is made of at the time of the call.
        validator: None takes every node.
    """
    schema = OpSchema.of(op)

    def validate(node: Node, settings: CompilationSettings) -> bool:
        if validator is not None and not validator(node, settings):
            return False
        if settings and (settings.cache_built_engines or settings.reuse_cached_engines):
            code = (own_source(), own_source(Path(__file__).parent))
            digest = lasting_fingerprint(code, content(), _call(schema, node))
            node.target = DigestedOverload.of(schema.overload, digest)
        return True

    return validate


def content_of(plugin: Plugin) -> tuple[Any, ...]:
    """All that decides the kernels of ``plugin``, and its constants.

    The weights are read each time: whoever changes one in place gets another engine.
    """
    spec = plugin.spec
    kernels = tuple(
        (kernel.backend, _toolchain(kernel.backend), *kernel._identity())
        for kernel in spec.specs
    )
    how = (spec.meta_impl, spec.attributes, spec.aligned)
    return kernels, how, plugin.weights, _target()


def closure_of(function: Callable[..., Any] | None) -> tuple[Any, ...]:
    """``function`` with what it encloses, whichever package it is of."""
    if not inspect.isfunction(function):
        return (function,)
    return function, *(cell.cell_contents for cell in function.__closure__ or ())


def lasting_fingerprint(*values: Any) -> str:
    """A digest for what outlives the process; where another process could not tell
    ``values`` from others, no other process has it."""
    process = (_PROCESS, os.getpid())
    return stable_fingerprint(*values) or fingerprint(process, *values)


def _call(schema: OpSchema, node: Node) -> tuple[Any, ...]:
    """What a call gives its op, and what is taken of it.

    The hash does not see which node an operand is, nor which output is used.
    """
    order = [n for n in node.graph.nodes if n in node.all_input_nodes]

    def operand(value: Any) -> Any:
        return (order.index(value), _known(value)) if isinstance(value, Node) else value

    given = map_aggregate((node.args, node.kwargs), operand)
    used = [user.args[1] for user in node.users if user.target is operator.getitem]
    return str(schema.overload._schema), given, _known(node), used


def _known(node: Node) -> Any:
    """What the graph knows of a node's tensor, or tensors."""
    return map_aggregate(node.meta.get("val", node.meta.get("tensor_meta")), _tensor)


def _tensor(known: Any) -> Any:
    if not hasattr(known, "shape"):
        return type(known).__name__
    ranges = [extent(size) for size in known.shape]
    return str(known.dtype), repr(ranges), str(list(known.shape))


def _toolchain(name: str) -> str:
    try:
        return repr(backend(name).toolchain())
    except ToolchainError:  # its tactics are left out of the engine
        return "not installed"


def _target() -> str | None:
    with contextlib.suppress(TargetError):  # said when an engine is built for one
        return repr(current_target())
    return None
