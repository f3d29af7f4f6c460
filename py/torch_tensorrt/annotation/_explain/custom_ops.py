# SPDX-License-Identifier: BSD-3-Clause

"""The custom ops that a model calls: found, tried, and counted in what is partitioned.

Torch-TensorRT's own steps do the work, in the order of ``torch_tensorrt.compile``:
export, lowering, partitioning. The calls are read off the exported graph, where an op
that writes its inputs is not functionalized yet; the layers off the partitioned one.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch._higher_order_ops import auto_functionalize
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node, map_arg

import torch_tensorrt
from torch_tensorrt.dynamo import partitioning
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion._ConverterRegistry import (
    DYNAMO_ATEN_CONVERTERS,
)
from torch_tensorrt.dynamo.conversion.plugins import _torch_op, custom_op
from torch_tensorrt.dynamo.conversion.plugins._schema import OpSchema
from torch_tensorrt.dynamo.lowering import (
    _decompositions,
    get_decompositions,
    post_lowering,
    pre_export_lowering,
)

from .. import _plugin, backends, errors
from .._plugin import Request, StepPlugin, registered, unregister
from .._record import Call, record
from .._record.program import CaughtLaunch
from .._record.recording import Purpose, raised_at
from .._specs import KernelSpec
from .._target import known_target
from .._tensors import TensorInfo, extent_of
from ..errors import AnnotationError
from .report import SMALLER_BLOCKS, ModelReport, OpReport, Split

Values = Mapping[str, Any]


def explain(
    model: Any, inputs: list[Any], kwarg_inputs: Values, settings: Values
) -> ModelReport:
    """See :func:`torch_tensorrt.annotation.explain`."""
    with _quietly(), contextlib.ExitStack() as forgotten:
        program = _exported(model, inputs, kwarg_inputs)
        ops = _custom_ops(program)
        parts = now = _partition(program, settings)
        options = _options(program)
        tried: dict[str, str | AnnotationError | None] = {}
        for op in ops:
            tried[op.name] = result = _registered(op, options)
            if isinstance(result, str):
                forgotten.callback(unregister, op.name)
        if any(isinstance(result, str) for result in tried.values()):
            parts = _partition(program, settings)
        reports = [_report(op, tried[op.name], parts, "possible") for op in ops]
    then = None if parts is now else parts.split
    return ModelReport(tuple(reports), _target_name(), now.split, then)


def adopt(
    model: Any, inputs: list[Any], kwarg_inputs: Values, options: Values
) -> ModelReport:
    """See :func:`torch_tensorrt.annotation.adopt`."""
    with _quietly():
        program = _exported(model, inputs, kwarg_inputs)
        options = {**_options(program), **options}
        reports = [
            _report(op, _registered(op, options), None, "adopted")
            for op in _custom_ops(program)
        ]
    return ModelReport(tuple(reports), _target_name())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings that the report stands for; no other thread registers."""
    with _plugin.lock, errors.collecting() as said, warnings.catch_warnings():
        # torch's, about code of its own and of Torch-TensorRT's.
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        finally:
            others = [m for m in dict.fromkeys(said) if "stays in PyTorch" not in m]
    for message in others:
        errors.warn(message)


def _target_name() -> str:
    target = known_target()
    return target.arch if target is not None else ""


# --- The graph, and how it is divided -------------------------------------------------


def _exported(model: Any, inputs: list[Any], kwarg_inputs: Values) -> ExportedProgram:
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise errors.SpecError(
            f"the model is {type(model).__name__}; pass a torch.nn.Module, or a "
            "torch.export.ExportedProgram."
        )
    weights = (tensor.device for tensor in model.parameters())
    anywhere = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = next(weights, anywhere)
    given = {"kwarg_inputs": dict(kwarg_inputs), "device": device}
    try:
        program: ExportedProgram = torch_tensorrt.dynamo.trace(model, inputs, **given)
    except AnnotationError:
        raise
    except Exception as error:  # the model's own, or torch's about it
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise errors.SpecError(
            "torch cannot export the model, so torch_tensorrt.compile would fail too: "
            f"{type(error).__name__} at {raised_at(error)}: {reason.rstrip('.')}. "
            "Change the model until torch.export.export(model, inputs) works."
        ) from error
    return program


def _options(program: ExportedProgram) -> dict[str, Any]:
    """Of ``custom_op``, as the inputs ask for."""
    places = (n for n in program.graph.nodes if n.op == "placeholder")
    given = (node.meta.get("val") for node in places)
    return {"supports_dynamic_shapes": any(map(_is_dynamic, given))}


def _is_dynamic(value: Any) -> bool:
    sizes = getattr(value, "shape", ())
    return any(isinstance(size, torch.SymInt) for size in sizes)


@dataclass(frozen=True)
class _Parts:
    """A partitioned model.

    Attributes:
        inside: what each engine calls.
        outside: what stays in PyTorch.
    """

    inside: tuple[tuple[Node, ...], ...]
    outside: tuple[Node, ...]
    settings: CompilationSettings

    @cached_property
    def layers(self) -> Counter[str]:
        """Of the ops and launches that are plugin layers, by the op."""
        ops = (_plugin_op(node) for engine in self.inside for node in engine)
        return Counter(filter(None, ops))

    @cached_property
    def left(self) -> Counter[str]:
        """Of the calls, and steps of calls, of each custom op that stay in PyTorch."""
        return Counter(_plugin_op(n) or _op_name(_called(n)) for n in self.outside)

    @cached_property
    def split(self) -> Split:
        in_engines = sum(map(len, self.inside))
        total = in_engines + len(self.outside)
        left = Counter(str(_called(node)) for node in self.outside)
        return Split(total, in_engines, len(self.inside), dict(left.most_common()))


def _partition(program: ExportedProgram, settings: Values) -> _Parts:
    """What ``torch_tensorrt.compile`` builds engines of, and leaves to PyTorch.

    Its own dry run does the same, but prints a report, and wants a GPU as soon as
    something stays in PyTorch.
    """
    try:
        chosen = CompilationSettings(**settings)
    except TypeError as error:
        what = f"explain: a setting is not one of Torch-TensorRT's: {error}."
        raise errors.SpecError(what) from error
    with _without_gpu():
        graph_module = _lowered(program, chosen)
    before = DYNAMO_CONVERTERS.compilation_settings or CompilationSettings()
    DYNAMO_CONVERTERS.set_compilation_settings(chosen)
    try:
        return _divided(graph_module, chosen)
    finally:
        DYNAMO_CONVERTERS.set_compilation_settings(before)


@contextlib.contextmanager
def _without_gpu() -> Iterator[None]:
    """Inside, decompositions allocate on the CPU where there is no GPU."""
    found = _decompositions.default_device
    if not torch.cuda.is_available():
        _decompositions.default_device = lambda: torch.device("cpu")
    try:
        yield
    finally:
        _decompositions.default_device = found


def _lowered(program: ExportedProgram, settings: CompilationSettings) -> GraphModule:
    lowered = copy.copy(program)
    lowered._graph_module = copy.deepcopy(program.graph_module)  # passes change it
    lowered = pre_export_lowering(lowered, settings)
    names = inspect.signature(get_decompositions).parameters
    table = get_decompositions(*(getattr(settings, name) for name in names))
    graph_module = lowered.run_decompositions(table).module()
    result: GraphModule = post_lowering(graph_module, settings)
    return result


def _divided(graph_module: GraphModule, settings: CompilationSettings) -> _Parts:
    excluded, least = settings.torch_executed_ops, settings.min_block_size
    good, total = partitioning.get_graph_converter_support(graph_module, excluded)
    if good == 0 or good < least:  # Torch-TensorRT leaves the graph alone
        return _Parts((), _operators(graph_module), settings)
    how = {
        "min_block_size": least,
        "torch_executed_ops": excluded,
        "require_full_compilation": settings.require_full_compilation,
    }
    if settings.use_fast_partitioner:
        whole = good == total
        parts, _ = partitioning.fast_partition(graph_module, **how, skip_fusion=whole)
    else:
        parts, _ = partitioning.global_partition(graph_module, **how)
    inside, outside = [], [*_operators(parts)]
    for node in parts.graph.nodes:
        if node.op == "call_module":
            called = _operators(parts.get_submodule(str(node.target)))
            if "_run_on_acc" in str(node.target):
                inside.append(called)
            else:
                outside += called
    return _Parts(tuple(inside), tuple(outside), settings)


def _operators(graph_module: Any) -> tuple[Node, ...]:
    return tuple(
        node
        for node in graph_module.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    )


# --- The custom ops in it -------------------------------------------------------------

_TORCHS_OWN = frozenset({"aten", "higher_order", "prim", "prims", "torchvision"})
_FUNCTIONALIZED = (
    auto_functionalize.auto_functionalized,
    auto_functionalize.auto_functionalized_v2,
)


@dataclass(frozen=True)
class _Op:
    """A custom op of a model, and its calls."""

    overload: OpOverload[..., Any]
    calls: tuple[Node, ...]

    @property
    def name(self) -> str:
        return _op_name(self.overload)

    @cached_property
    def body(self) -> Callable[..., Any] | AnnotationError:
        """Its Python function, or why it cannot be reached."""
        try:
            return _torch_op.body(self.name)
        except AnnotationError as error:
            return error

    @cached_property
    def place(self) -> str:
        """``file:line`` of its body."""
        function = inspect.unwrap(self.body) if callable(self.body) else None
        code = getattr(function, "__code__", None)
        return errors.place(code.co_filename, code.co_firstlineno) if code else ""

    @cached_property
    def used_at(self) -> str:
        """The innermost line of the model's that leads to the first call."""
        trace = str(self.calls[0].meta.get("stack_trace") or "")
        lines = re.findall(r'^\s*File "(.+)", line (\d+)', trace, re.M)
        return errors.place(lines[-1][0], int(lines[-1][1])) if lines else ""

    def is_converted(self) -> bool:
        """Whether Torch-TensorRT has a converter for it."""
        return bool(DYNAMO_ATEN_CONVERTERS.get(self.overload))


def _custom_ops(program: ExportedProgram) -> list[_Op]:
    calls: dict[OpOverload[..., Any], list[Node]] = {}
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            target = _called(node)
            if isinstance(target, OpOverload) and target.namespace not in _TORCHS_OWN:
                calls.setdefault(target, []).append(node)
    return [_Op(overload, tuple(nodes)) for overload, nodes in calls.items()]


def _called(node: Node) -> Any:
    """The op that a node calls, functionalized or not."""
    return node.args[0] if node.target in _FUNCTIONALIZED else node.target


def _op_name(target: Any) -> str:
    """``ns::op``, and the overload where it is not the default one."""
    name = str(getattr(getattr(target, "_schema", None), "name", target))
    overload = getattr(target, "_overloadname", "default")
    return name if overload == "default" else f"{name}.{overload}"


def _plugin_op(node: Node) -> str:
    """The registered op that a node calls, or calls a launch of."""
    known = registered.get(name := _op_name(_called(node)))
    if known is None:
        return ""
    return known.plugin.of.op if isinstance(known.plugin, StepPlugin) else name


def _arguments(schema: OpSchema, call: Node) -> dict[str, Any]:
    """The arguments of a call by name, as the graph knows them."""
    if call.target not in _FUNCTIONALIZED:
        names = (argument.name for argument in schema.arguments)
        given = dict(zip(names, call.args, strict=False)) | call.kwargs
    else:
        given = dict(call.kwargs)
    known = dict(map_arg(given, lambda node: node.meta["val"]))
    if call.target is not auto_functionalize.auto_functionalized_v2:
        return known
    bases = known.pop("_all_bases")
    views = auto_functionalize.read_view_information_from_args(
        *auto_functionalize.get_mutable_args(schema.overload), known, []
    )
    made = {n: view and view.regenerate_view(bases) for n, view in views.items()}
    return known | made


def _request(schema: OpSchema, call: Node, weights: Sequence[TensorInfo]) -> Request:
    values, attributes = schema.bind((), _arguments(schema, call))
    infos = (
        v if v is None else TensorInfo(tuple(map(extent_of, v.shape)), v.dtype)
        for v in values
    )
    return Request.of((*infos, *weights), attributes, known_target())


# --- Registering ----------------------------------------------------------------------


def _registered(op: _Op, options: Values) -> str | AnnotationError | None:
    """Register an op, if it can be and is not.

    Returns:
        The line of code that does the same; or why it cannot be; or None, where
        Torch-TensorRT converts it already.
    """
    if op.name in registered or op.is_converted():
        return None
    try:
        if isinstance(op.body, AnnotationError):
            raise op.body
        spec = _spec_of(op, op.body)
        custom_op(op.name, impl=spec, **options)
        with contextlib.ExitStack() as undo:
            undo.callback(unregister, op.name)
            failures = [_failure(op, call) for call in op.calls]
            if all(failures) and failures[0] is not None:
                raise errors.to_raise(failures[0])
            undo.pop_all()
    except AnnotationError as error:
        return error
    given = "".join(f", {n}={v!r}" for n, v in options.items() if v is not False)
    return f'trt_plugins.custom_op("{op.name}", impl=tta.{spec.backend}(){given})'


def _failure(op: _Op, call: Node) -> AnnotationError | None:
    """Why a call of a registered op stays in PyTorch; None if it need not."""
    plugin = registered[op.name].plugin
    if plugin is None:
        return None
    try:
        request = _request(OpSchema.of(op.name), call, plugin.weight_infos)
        if plugin.structure(request) is not None:
            return None
        ask = plugin.programs if request.target is None else plugin.kernels
        failures = [tactic.error for tactic in ask(request)]
        return failures[0] if all(failures) else None
    except AnnotationError as error:
        return error


def _kernels(op: _Op) -> tuple[str, ...]:
    """Names of the kernels that a call launches, of one that can be a plugin."""
    plugin = registered[op.name].plugin
    for call in op.calls:
        if plugin is not None and _failure(op, call) is None:
            request = _request(OpSchema.of(op.name), call, plugin.weight_infos)
            programs = (tactic.program for tactic in plugin.programs(request))
            launches = next(p for p in programs if p is not None).launches
            return tuple(launch.name for launch in launches)
    return ()


class _EveryLanguage:
    """Catches launches in all languages that are installed.

    Attributes:
        specs: of those whose launches it caught.
        watched: names of all whose launches it would catch.
        missing: names of those that are not installed.
    """

    def __init__(self) -> None:
        self.specs: dict[str, KernelSpec] = {}
        self.watched: list[str] = []
        self.missing: list[str] = []

    @contextlib.contextmanager
    def intercept(
        self,
        on_launch: Callable[[CaughtLaunch], None],
        overrides: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        def caught(name: str, spec: KernelSpec, launch: CaughtLaunch) -> None:
            self.specs[name] = spec
            on_launch(launch)

        with contextlib.ExitStack() as stack:
            for name in backends.names():
                try:
                    language = backends.backend(name)
                except Exception:  # a missing toolchain may raise anything
                    self.missing.append(name)
                    continue
                if (spec := language.spec()) is not None:
                    self.watched.append(name)
                    note = partial(caught, name, spec)
                    stack.enter_context(language.intercept(note, overrides))
            yield


def _spec_of(op: _Op, body: Callable[..., Any]) -> KernelSpec:
    """A spec of the language whose kernels the body launches.

    Raises:
        LaunchCountError: it launches none, or those of several languages.
        AnnotationError: it cannot be run on fake tensors so far.
    """
    schema, languages = OpSchema.of(op.name), _EveryLanguage()
    request = _request(schema, op.calls[0], ())
    call = Call(
        request.attributes,
        names=schema.tensors,
        writable=schema.writable,
        purpose=Purpose(known_target()),
    )
    meta, failure = partial(schema.meta, **request.attributes), None
    try:
        record(languages, body, meta, request.inputs, call, somewhere=True)
    except AnnotationError as error:
        failure = error
    if len(languages.specs) == 1:
        (spec,) = languages.specs.values()
        return spec  # registration has the same error again, if it is one
    if languages.specs:
        raise errors.LaunchCountError(
            f"{op.name}: its body launches kernels in {' and '.join(languages.specs)}; "
            "those of a plugin are in one language. Make it an op for each."
        )
    if failure is not None and not isinstance(failure, errors.LaunchCountError):
        raise failure
    absent = ", ".join(languages.missing)
    absent = f" Not installed: {absent}." if absent else ""
    raise errors.LaunchCountError(
        f"{op.name}: its body launches no kernel in {', '.join(languages.watched)}, so "
        f"there is none to embed.{absent}"
    )


# --- What is reported -----------------------------------------------------------------


def _report(
    op: _Op, result: str | AnnotationError | None, parts: _Parts | None, new: str
) -> OpReport:
    """What became of an op.

    Args:
        result: of :func:`_registered`.
        parts: None where nothing was partitioned.
        new: the outcome of an op that was registered.
    """
    report = OpReport(
        op.name, len(op.calls), "converter", place=op.place, used_at=op.used_at
    )
    if isinstance(result, AnnotationError):
        report = replace(report, outcome="pytorch", left=len(op.calls))
        return _with_reason(report, result)
    left = parts.left[op.name] if parts is not None else 0
    if op.name not in registered:
        return _by_partitioner(op, replace(report, left=left), parts)
    failures = [_failure(op, call) for call in op.calls]
    failure = next(filter(None, failures), None)
    kernels = _kernels(op)
    if parts is None:
        left = len(op.calls) - failures.count(None)
        layers = failures.count(None) * len(kernels)
    else:
        layers = parts.layers[op.name]
    report = replace(
        report,
        outcome=new if isinstance(result, str) else "plugin",
        kernels=kernels,
        layers=layers,
        left=left,
        registration=result or "",
    )
    if failure is not None:
        return _with_reason(report, failure)
    return _by_partitioner(op, report, parts)


def _with_reason(report: OpReport, error: AnnotationError) -> OpReport:
    text = str(error).removeprefix(f"{report.op}: ")
    sentence, end, _ = " ".join(text.split()).partition(". ")
    return replace(report, reason=sentence + end.strip(), error=text)


def _by_partitioner(op: _Op, report: OpReport, parts: _Parts | None) -> OpReport:
    """With why Torch-TensorRT leaves an op in PyTorch that it could convert."""
    if parts is None or (report.layers and not report.left):
        return report
    if not report.layers and not report.left and report.outcome != "converter":
        reason = (
            "its result is not used, or it is called in a branch or a loop of the "
            "graph, which Torch-TensorRT does not convert."
        )
        return replace(report, left=report.calls, reason=reason, error=reason)
    known = registered.get(op.name)
    operands = (n.meta.get("val") for call in op.calls for n in call.all_input_nodes)
    excluded = {*parts.settings.torch_executed_ops}
    if known is not None and not known.dynamic and any(map(_is_dynamic, operands)):
        reason = (
            "it is registered without supports_dynamic_shapes=True, and has inputs of "
            "dynamic shape here."
        )
    elif excluded & {op.overload, DYNAMO_CONVERTERS.qualified_name_or_str(op.overload)}:
        reason = "torch_executed_ops names it."
    else:
        least = parts.settings.min_block_size
        reason = (
            "Torch-TensorRT's partitioner leaves it there: an engine has at least "
            f"min_block_size={least} operators."
        )
        return replace(report, reason=reason, error=f"{reason} {SMALLER_BLOCKS}")
    return replace(report, reason=reason, error=reason)
