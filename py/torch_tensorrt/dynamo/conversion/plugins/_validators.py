# SPDX-License-Identifier: BSD-3-Clause

"""Whether a node can become a plugin layer, and which engines may hold it.

Torch-TensorRT asks validators about each node while it partitions the graph. One here
tries the plugin on what the graph knows of the node. Another tells the engine cache
what the plugin is made of.
"""

from __future__ import annotations

import inspect
import operator
import os
import uuid
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch._ops import OpOverload
from torch.fx import Graph
from torch.fx.node import Node, map_aggregate

from torch_tensorrt.annotation import _fingerprint, _tensors, errors
from torch_tensorrt.annotation._compile.job import CODE_GENERATION, toolchain_of
from torch_tensorrt.annotation._plugin import Plugin, Request, errors_of
from torch_tensorrt.annotation._target import known_target
from torch_tensorrt.dynamo._settings import CompilationSettings

from . import _generate_plugin_converter as nodes
from ._schema import OpSchema

_PROCESS = uuid.uuid4().hex


# --- Capability -----------------------------------------------------------------------


def capability_of(
    plugin: Plugin, schema: OpSchema, also: nodes.Validator | None, strict: bool
) -> nodes.Validator:
    """A validator that accepts a node that some tactic serves.

    Such a tactic has a kernel or, where no target is known, at least a program.
    """

    def require(node: Node) -> None:
        values, attributes = schema.bind(node.args, node.kwargs)
        inputs = [_info(schema, value) for value in values]
        request = Request.of(
            (*inputs, *plugin.weight_infos), attributes, known_target()
        )
        # Without a target nothing can be compiled; autotune will report that.
        ask = plugin.programs if request.target is None else plugin.kernels
        tactics = ask(request)
        if all(tactic.error for tactic in tactics):
            raise errors.UnsupportedKernelError(
                f"no tactic can serve it.{errors_of(tactics)}"
            )

    return nodes.validator(plugin.op, require, also, strict)


def _info(schema: OpSchema, value: Any) -> _tensors.TensorInfo | None:
    """What the graph knows of a tensor argument."""
    if value is None:
        return None
    known = nodes.known_tensor(value) if isinstance(value, Node) else value
    nodes.require_distinct(known)
    if not hasattr(known, "shape") or not isinstance(known.dtype, torch.dtype):
        raise errors.RegistrationError(
            f"{schema.op}: an argument is {known!r}; the graph does not say what "
            "tensor it is."
        )
    return _tensors.TensorInfo(tuple(map(_tensors.extent_of, known.shape)), known.dtype)


# --- The engine cache -----------------------------------------------------------------
#
# Torch-TensorRT's hash of a graph has the name of each op in it, but neither the op's
# arguments nor what its plugin is made of. It would serve an old engine, with the old
# numbers, after a kernel, a weight or an attribute changed. So where a cache is in use,
# the name says all of it: the node's target stays the same op, and its text ends with a
# digest. It is put there when Torch-TensorRT partitions the graph, the last thing that
# is done to every node before the hash; the order of lowering passes is not ours.


class DigestedOverload(OpOverload[..., Any]):
    """An op's overload that is equal to it, runs it, and has a digest in its text."""

    _digest: str

    @classmethod
    def of(cls, overload: OpOverload[..., Any], digest: str) -> DigestedOverload:
        made = cls.__new__(cls)
        vars(made).update(vars(overload), _digest=digest)
        return made

    def __str__(self) -> str:
        return f"{super().__str__()}[{self._digest}]"  # type: ignore[no-untyped-call]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpOverload) and other._op is self._op

    __hash__ = OpOverload.__hash__


def digesting(
    schema: OpSchema, content: Callable[[], Any], also: nodes.Validator | None
) -> nodes.Validator:
    """A validator that writes a digest into each node that ``also`` accepts.

    Args:
        content: what the plugin is made of at the time of the call. It is asked once
            for all nodes of a graph, because weights are large.
    """
    digests: WeakKeyDictionary[Graph, str] = WeakKeyDictionary()

    def validate(node: Node, settings: CompilationSettings) -> bool:
        if also is not None and not also(node, settings):
            return False
        if settings and (settings.cache_built_engines or settings.reuse_cached_engines):
            graph = node.graph
            if graph not in digests:
                digests[graph] = lasting_fingerprint(CODE_GENERATION, *content())
            digest = lasting_fingerprint(digests[graph], *_call(schema, node))
            node.target = DigestedOverload.of(schema.overload, digest)
        return True

    return validate


def content_of(plugin: Plugin) -> tuple[Any, ...]:
    """All that decides the kernels of ``plugin``, and its constants as they are now."""
    toolchains = [toolchain_of(kernel.backend) for kernel in plugin.spec.specs]
    return plugin.spec, toolchains, known_target()


def closure_of(function: Callable[..., Any] | None) -> tuple[Any, ...]:
    """``function`` with what it encloses, whichever package it is of."""
    if not inspect.isfunction(function):
        return (function,)
    return function, *(cell.cell_contents for cell in function.__closure__ or ())


def lasting_fingerprint(*values: Any) -> str:
    """A digest that no other process has where it could not tell ``values`` apart."""
    found = _fingerprint.lasting_fingerprint(*values)
    own = (_PROCESS, os.getpid()) if found.obstacle else ()
    return _fingerprint.fingerprint(found.digest, *own)


def _call(schema: OpSchema, node: Node) -> tuple[Any, ...]:
    """What a call gives its op, and which outputs are used.

    The hash sees neither which node an operand is, nor which output is used.
    """
    order = [n for n in node.graph.nodes if n in node.all_input_nodes]

    def operand(value: Any) -> Any:
        return (order.index(value), _facts(value)) if isinstance(value, Node) else value

    given = map_aggregate((node.args, node.kwargs), operand)
    used = [user.args[1] for user in node.users if user.target is operator.getitem]
    return str(schema.overload._schema), given, _facts(node), used


def _facts(node: Node) -> Any:
    """What the graph knows of a node's tensor, or tensors, as text."""
    return map_aggregate(nodes.known_tensor(node), _described)


def _described(known: Any) -> Any:
    if not hasattr(known, "shape"):
        return type(known).__name__
    ranges = list(map(_tensors.extent_of, known.shape))
    return str(known.dtype), repr(ranges), str(list(known.shape))
