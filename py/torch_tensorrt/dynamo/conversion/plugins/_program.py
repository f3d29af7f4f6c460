# SPDX-License-Identifier: BSD-3-Clause

"""An op of several steps: a plugin for each launch, and torch's operations between.

TensorRT's plugin is one launch. So before Torch-TensorRT partitions a graph, each call
of such an op is replaced by what the op does: a call of ``ns::op_step0`` for its first
launch, torch's own operations, a call of ``ns::op_step1``, and so on. Each of these ops
is functional: what its launch writes, it returns.

This is a lowering pass, not a decomposition of torch's: those are applied beneath
functionalization, which has put ``auto_functionalized`` in the place of an op that
writes its inputs. The pass takes both apart.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._higher_order_ops import auto_functionalize
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node, map_arg
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_tensorrt.annotation import _plugin, _steps, errors
from torch_tensorrt.annotation._plugin import (
    Plugin,
    RegisteredOp,
    Request,
    StepPlugin,
    registered,
)
from torch_tensorrt.annotation._steps import Step, Structure, device_of, sizes_of
from torch_tensorrt.annotation._target import known_target
from torch_tensorrt.annotation._tensors import TensorInfo, extent_of
from torch_tensorrt.dynamo.lowering import get_decompositions
from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as passes

from . import _aliased_io, _launch, _qdp, _torch_op
from ._schema import OpSchema, overload_of

Values: TypeAlias = Mapping[str, Any]  # arguments of a call, by name
RegisterStep: TypeAlias = Callable[[OpSchema, StepPlugin, _qdp.Undo], None]


class StepOps:
    """The ops of an op's launches, which are made when a graph first needs them.

    Args:
        schema: of the op.
        strict: raise for a call that cannot be taken apart.
        register: registers the plugin of a launch, and its converter, with the steps
            back.
    """

    def __init__(
        self, schema: OpSchema, plugin: Plugin, strict: bool, register: RegisterStep
    ) -> None:
        self.schema, self.plugin, self.strict = schema, plugin, strict
        self._register = register
        self._names: dict[Step, str] = {}

    def undo(self) -> None:
        """Remove them all."""
        while self._names:
            _, name = self._names.popitem()
            if (op := registered.pop(name, None)) is not None:
                op.undo()

    def name(self, step: Step) -> str:
        """The op of a launch, registered."""
        with _plugin.lock:
            if step not in self._names:
                name = f"{self.schema.op}_step{step.index}"
                others = sum(known.startswith(name) for known in self._names.values())
                name += f"_{others + 1}" if others else ""
                self._define(name, step)
                self._names[step] = name
            return self._names[step]

    def _define(self, name: str, step: Step) -> None:
        parameters = self._parameters(step)
        weights = self.schema.weights
        meta = functools.partial(_meta, self, step)
        places = (step.reads.index(number) for number in step.aliased)
        aliased = tuple(len(self.schema.tensors) + place for place in places)
        schema = OpSchema.of(
            name,
            parameters,
            weights=weights,
            fake=meta,
            aliased=aliased,
            outputs_of=functools.partial(self.plugin.outputs_of, step),
        )
        if aliased:
            _aliased_io.feature()  # or there is no such plugin
            _aliased_io.install()
        plugin = StepPlugin(
            name,
            self.plugin.spec,
            schema.meta,
            schema.tensors,
            schema.attributes,
            schema.optional,
            schema.defaults,
            of=self.plugin,
            step=step,
        )
        undo = _qdp.Undo()
        try:
            returns = ", ".join(["Tensor"] * len(step.returned))
            fake = functools.partial(self._fake, step)
            run = functools.partial(self._run_launch, name, step)
            definition = f"{parameters} -> ({returns})"
            _torch_op.define_op(name, definition, fake, run, undo)
            self._register(schema, plugin, undo)
            location = f"a launch of {self.schema.op}"
            # There is no redo: a graph makes the ops anew.
            op = RegisteredOp(plugin, True, name, location, undo, lambda: None)
            registered[name] = op
        except BaseException:
            undo()
            raise

    def _parameters(self, step: Step) -> str:
        """The op's own, and the tensors between the launches."""
        declared = str(self.schema.overload._schema).partition("(")[2]
        declared = declared.rpartition(") ->")[0]
        declared = re.sub(r"Tensor\([^)]*\)", "Tensor", declared)
        names = [f"Tensor {buffer_name(number)}" for number in step.reads]
        keyword_only = [] if "*" in declared.split(", ") else ["*"]
        return f"({', '.join([declared, *(keyword_only if names else []), *names])})"

    def _fake(self, step: Step, *args: Any, **kwargs: Any) -> Any:
        """The outputs of a launch, in the extents of fake inputs."""
        given = {n: kwargs.pop(n) for n in map(buffer_name, step.reads)}
        values, attributes = self.schema.bind(args, kwargs)
        structure = self._with(step, self.structure(values, attributes), values)
        outputs = [
            torch.empty(
                [size(extent) for extent in self._buffer(structure, number).shape],
                dtype=self._buffer(structure, number).dtype,
                device=device_of(values),
            )
            for size in [sizes_of(values)]
            for number in step.outputs
        ]
        outputs += [torch.empty_like(given[buffer_name(n)]) for n in step.aliased]
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def _run_launch(self, name: str, step: Step, *args: Any, **kwargs: Any) -> Any:
        """Run a launch on CUDA, where a part of a graph stays in PyTorch.

        It takes the kernel of a graph's profile, or one for these shapes alone.
        """
        between = [kwargs.pop(buffer_name(number)) for number in step.reads]
        values, attributes = self.schema.bind(args, kwargs)
        device = device_of(values)
        weights = [w.detach().to(device) for _, w in self.plugin.spec.weights]
        with _plugin.lock:
            request = self._request(step, [*values, *weights], attributes)
            structure = self._with(step, self.plugin.structure(request), values)
            part = replace(request, inputs=step.part(structure.program).inputs)
            plugin: Any = registered[name].plugin
            made = _launch.launch(plugin, part, [*values, *between, *weights])
        return made if len(made) > 1 else made[0]

    def _with(
        self, step: Step, structure: Structure | None, values: Sequence[Any]
    ) -> Structure:
        """``structure``, which has this launch.

        Raises:
            UnsupportedKernelError: it has not.
        """
        if structure is None or step not in structure.steps:
            shapes = [v if v is None else list(v.shape) for v in values]
            raise errors.UnsupportedKernelError(
                f"{self.name(step)}: {self.schema.op} has other steps for inputs of "
                f"{shapes} than it was taken apart into. Compile the model once more."
            )
        return structure

    def _request(
        self, step: Step, tensors: Sequence[Any], attributes: Values
    ) -> Request:
        """The earlier request whose profile holds the tensors, or one for them."""
        infos = [None if tensor is None else _info_of(tensor) for tensor in tensors]
        own = Request.of(infos, attributes, known_target())
        for request, structure in self.plugin.structures.items():
            is_alike = replace(request, inputs=own.inputs) == own
            if is_alike and step in structure.steps and _launch.holds(request, tensors):
                return request
        return own

    @staticmethod
    def _buffer(structure: Structure, number: int) -> Any:
        return structure.program.hidden[number - len(structure.program.inputs)]

    def structure(self, values: Sequence[Any], attributes: Values) -> Structure | None:
        """How a call is taken apart; None where it is one launch.

        Args:
            values: the op's tensors, or None.

        Raises:
            AnnotationError: it cannot be.
        """
        inputs = tuple(None if value is None else _info_of(value) for value in values)
        inputs = (*inputs, *self.plugin.weight_infos)
        return self.plugin.structure(Request.of(inputs, attributes, known_target()))

    # --- The op in terms of them ------------------------------------------------------

    def run(
        self, structure: Structure, values: Sequence[Any], attributes: Values
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """What the op returns, and the new values of the inputs that it writes."""
        named = dict(zip(self.schema.tensors, values, strict=True)) | dict(attributes)

        def launch(step: Step, between: Mapping[int, torch.Tensor]) -> Any:
            op = overload_of(self.name(step))
            return op(**named, **{buffer_name(n): t for n, t in between.items()})

        return _steps.run(structure, values, launch)


def buffer_name(number: int) -> str:
    """The parameter of a launch's op for a tensor of the program."""
    return f"between{number}"


def _meta(ops: StepOps, step: Step, **named: Any) -> Any:
    """The outputs of a launch where TensorRT asks, which knows no profile."""
    between = [named.pop(buffer_name(number)) for number in step.reads]
    tensors = [named.pop(name) for name in ops.schema.tensors]
    return ops.plugin.buffers_of(step, tensors, between, named)


def _info_of(value: torch.Tensor) -> TensorInfo:
    """What a graph knows of a tensor."""
    return TensorInfo(tuple(map(extent_of, value.shape)), value.dtype)


# --- The pass -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call of an op in a graph.

    Attributes:
        arguments: nodes and constants, by name.
    """

    node: Node
    ops: StepOps
    arguments: Values


_DETACH = torch.ops.aten.detach.default


def take_apart(graph_module: GraphModule, settings: Any) -> GraphModule:
    """Replace each call of an op of several steps by its steps.

    A call on constants alone stays: the next passes compute it, with the op's own code.
    """
    constants = _constants(graph_module.graph)
    nodes = [node for node in graph_module.graph.nodes if node not in constants]
    return _taken_apart(graph_module, settings, nodes)


def take_apart_rest(graph_module: GraphModule, settings: Any) -> GraphModule:
    """Replace the calls on constants that are there after constants were folded."""
    constants = _constants(graph_module.graph)
    nodes = [node for node in graph_module.graph.nodes if node in constants]
    return _taken_apart(graph_module, settings, nodes)


def _taken_apart(
    graph_module: GraphModule, settings: Any, nodes: Sequence[Node]
) -> GraphModule:
    changed = False
    for node in nodes:
        if (call := _call_of(node)) is None:
            continue
        try:
            changed |= _replace(graph_module, call, settings)
        except errors.AnnotationError as error:
            if call.ops.strict:
                raise
            op = call.ops.schema.op
            errors.warn(f"{op}, node {node.name}: stays in PyTorch: {error}")
    if changed:
        graph_module.graph.eliminate_dead_code()
        graph_module.graph.lint()
        graph_module.recompile()
    return graph_module


def _constants(graph: Graph) -> set[Node]:
    """The nodes whose values are known, which Torch-TensorRT may compute."""
    found: set[Node] = set()
    for node in graph.nodes:
        is_pure = isinstance(node.target, OpOverload) and (
            torch.Tag.nondeterministic_seeded not in node.target.tags
        )
        if node.op == "get_attr" or (
            is_pure and found.issuperset(node.all_input_nodes)
        ):
            found.add(node)
    return found


_FUNCTIONALIZED = {
    auto_functionalize.auto_functionalized,
    auto_functionalize.auto_functionalized_v2,
}


def _call_of(node: Node) -> _Call | None:
    if node.op != "call_function":
        return None
    is_functionalized = node.target in _FUNCTIONALIZED
    target = node.args[0] if is_functionalized else node.target
    schema = getattr(target, "_schema", None)
    known = registered.get(schema.name) if schema is not None else None
    if known is None or not isinstance(known.steps, StepOps):
        return None
    if is_functionalized or schema is None:
        return _Call(node, known.steps, node.kwargs)
    names = (argument.name for argument in schema.arguments)
    arguments = dict(zip(names, node.args, strict=False)) | node.kwargs
    return _Call(node, known.steps, arguments)


def _replace(graph_module: GraphModule, call: _Call, settings: Any) -> bool:
    """Put the steps of a call in its place; whether there were several."""
    ops, node, graph = call.ops, call.node, graph_module.graph
    nodes = node.all_input_nodes
    facts = {n: n.meta["val"] for n in nodes}

    def known(given: Mapping[Node, Any]) -> dict[str, Any]:
        arguments: dict[str, Any] = map_arg(dict(call.arguments), given.__getitem__)
        return arguments

    values, attributes = ops.schema.bind((), _op_arguments(call, known(facts)))
    if (structure := ops.structure(values, attributes)) is None:
        return False
    _require_writes_apart(call, values)

    def traced(*given: Any) -> Any:
        return _in_steps(call, structure, known(dict(zip(nodes, given, strict=True))))

    with contextlib.ExitStack() as stack:
        if (mode := detect_fake_mode(list(facts.values()))) is not None:
            stack.enter_context(mode)
        stack.enter_context(enable_python_dispatcher())
        table = get_decompositions(settings.enable_experimental_decompositions)
        # torch's own makes an alias, at which functionalization of a view of another
        # dtype fails; a later pass removes the operation.
        table = {op: how for op, how in table.items() if op is not _DETACH}
        trace = make_fx(functionalize(traced, remove="mutations"), table)
        try:
            body = trace(*facts.values())
        except Exception as error:  # of functionalization, or of a decomposition
            what = f"{ops.schema.op}, taken apart"
            raise errors.as_ours(what, error, errors.UnsupportedKernelError) from error
    body.graph.eliminate_dead_code()
    for inner in body.graph.nodes:
        if inner.op == "get_attr":
            raise errors.UnsupportedKernelError(
                f"{ops.schema.op}: one of its torch operations takes a tensor from "
                "outside of the op. Pass it to the op."
            )
    places = (n for n in body.graph.nodes if n.op == "placeholder")
    with graph.inserting_before(node):
        results = graph.graph_copy(body.graph, dict(zip(places, nodes, strict=True)))
    results = results if isinstance(results, tuple | list) else (results,)
    users = list(node.users)
    if all(user.target is operator.getitem for user in users):
        for user in users:
            index: Any = user.args[1]
            user.replace_all_uses_with(results[index])
            graph.erase_node(user)
    else:
        node.replace_all_uses_with(results[0])
    graph.erase_node(node)
    return True


def _op_arguments(call: _Call, given: Values) -> dict[str, Any]:
    """The op's own arguments of a call; views of what torch keeps, regenerated."""
    arguments = dict(given)
    if call.node.target is not auto_functionalize.auto_functionalized_v2:
        return arguments
    bases = arguments.pop("_all_bases")
    made = _views(call, arguments)
    return arguments | {n: v and _regenerated(v, bases) for n, v in made.items()}


def _require_writes_apart(call: _Call, values: Sequence[Any]) -> None:
    """Raise unless the caller sees what the op writes, and each tensor of it once."""
    op, writable = call.ops.schema.op, sorted(call.ops.schema.writable)
    if writable and call.node.target not in _FUNCTIONALIZED:
        raise errors.UnsupportedKernelError(
            f"{op} writes its inputs, and the graph is not functionalized. Call "
            "run_decompositions() on what torch.export returns."
        )
    written = [(n, values[n]) for n in writable if values[n] is not None]
    for (i, one), (j, other) in itertools.combinations(written, 2):
        if not _are_apart(one, other):
            names = call.ops.schema.tensors
            raise errors.UnsupportedKernelError(
                f"{op}: arguments `{names[i]}` and `{names[j]}` may share memory, and "
                "the op writes both. A plugin writes a copy of each: pass tensors that "
                "do not overlap."
            )


def _are_apart(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether no element is in both tensors, as far as it is known.

    Two views of a tensor are apart if one ends before the other begins; also within
    each period of the strides of their outer axes, as ``x[:, :2]`` and ``x[:, 2:]``.
    """
    if one.untyped_storage()._cdata != other.untyped_storage()._cdata:
        return True
    known = statically_known_true
    for period in (None, *one.stride()):
        if period is not None and not known(period > 0):
            continue
        spans = []
        for tensor in (one, other):
            start = last = tensor.storage_offset()
            if period is not None:
                start = last = start % period
            for extent, stride in zip(tensor.shape, tensor.stride(), strict=True):
                if period is None or not known(stride % period == 0):
                    last += (extent - 1) * stride
            spans.append((start, last))
        (start, last), (others_start, others_last) = spans
        if period is not None and not (
            known(last < period) and known(others_last < period)
        ):
            continue
        if known(last < others_start) or known(others_last < start):
            return True
    return False


def _views(call: _Call, arguments: dict[str, Any]) -> dict[str, Any]:
    """How the tensors that the op writes lie in what torch keeps; drops these facts."""
    names, types = auto_functionalize.get_mutable_args(call.ops.schema.overload)
    views: dict[str, Any] = auto_functionalize.read_view_information_from_args(
        names, types, arguments, []
    )
    return views


_WHOLE = auto_functionalize.NotView, auto_functionalize.AliasViewInfo


def _regenerated(view: Any, bases: list[torch.Tensor]) -> torch.Tensor:
    """A view of one of the tensors that torch keeps."""
    base = bases[view.base_index]
    is_reshape = _is_reshape(view, base)
    made: torch.Tensor
    made = base.view(view.size) if is_reshape else view.regenerate_view(bases)
    return made


def _is_reshape(view: Any, base: torch.Tensor) -> bool:
    """Whether a view has all elements of a tensor, in their order.

    torch describes it by strides, which TensorRT does not have.
    """
    if not isinstance(view, auto_functionalize.AsStridedViewInfo):
        return False
    *strides, count = itertools.accumulate(reversed(view.size), operator.mul, initial=1)
    found = *reversed(view.stride), view.storage_offset, base.numel()
    wanted = *strides, 0, count
    same = (a == b for a, b in zip(found, wanted, strict=True))
    return base.is_contiguous() and all(map(statically_known_true, same))


def _in_steps(call: _Call, structure: Structure, given: Values) -> tuple[Any, ...]:
    """What a call returns: the op's results, then the new values of what it writes."""
    arguments = _op_arguments(call, given)
    values, attributes = call.ops.schema.bind((), arguments)
    returned, written = call.ops.run(structure, values, attributes)
    if call.node.target not in _FUNCTIONALIZED:
        return returned
    results = returned or (None,)
    if call.node.target is auto_functionalize.auto_functionalized:
        return (*results, *written)
    bases = list(given["_all_bases"])
    views = [view for view in _views(call, dict(given)).values() if view is not None]
    changed = (value for value in written if value is not None)
    for view, value in zip(views, changed, strict=True):
        base = bases[view.base_index]
        if isinstance(view, _WHOLE):  # and no other: writes are apart
            bases[view.base_index] = value
        elif _is_reshape(view, base):
            bases[view.base_index] = value.view(base.shape)
        else:
            bases[view.base_index] = base.clone()
            view.regenerate_view(bases).copy_(value)
    return (*results, *bases)


def take_apart_in_graphs() -> None:
    """Put :func:`take_apart` first among Torch-TensorRT's lowering passes, once.

    The rest is taken apart last, when constants were folded.
    """
    if take_apart not in passes.ATEN_POST_LOWERING_PASSES.passes:
        passes._aten_lowering_pass(index=0)(take_apart)
        passes._aten_lowering_pass(take_apart_rest)
