# SPDX-License-Identifier: BSD-3-Clause

"""The functions that TensorRT calls for a kernel: ``aot_impl`` and ``autotune``.

They are this package's, for ``impl=``, or a user's. A user's function is called with
the arguments that it declares, and what it returns is checked: TensorRT checks little,
and prints what goes wrong inside its calls instead of raising it. The code is embedded
as it is. But its entry is read, because TensorRT's order of arguments is its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.version import Version

from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._attributes import array_dtype
from torch_tensorrt.annotation._code import ptx
from torch_tensorrt.annotation._code.effects import NEVER_STORED, STORED, effects
from torch_tensorrt.annotation._record import describe
from torch_tensorrt.annotation._target import Target, known_target, version_of
from torch_tensorrt.annotation.errors import SpecError, UnsupportedKernelError

from ._schema import OpSchema

_LAUNCH = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")
_RETURN = {
    "aot_impl": (
        "Return (name of the kernel, its PTX, tensorrt.plugin.KernelLaunchParams, "
        "tensorrt.plugin.SymIntExprs)."
    ),
    "autotune": "Return a list of tensorrt.plugin.AutoTuneCombination.",
}


def register(
    schema: OpSchema,
    aot_impl: Callable[..., Any] | None,
    autotune: Callable[..., list[Any]] | None,
    hidden: int = 0,
) -> None:
    """Register an ahead-of-time implementation and an autotune function.

    Args:
        aot_impl: from descriptors, attributes, descriptors of outputs, and a tactic, to
            what TensorRT embeds.
        autotune: from the same without a tactic to combinations.
        hidden: how many outputs of the plugin follow those of the op.
    """
    import tensorrt.plugin as trtp

    op, desc = schema.op, trtp.TensorDesc
    outputs = schema.outputs(desc, hidden)
    if autotune is not None:
        offer = functools.partial(_offered, op, autotune)
        combinations = list[trtp.AutoTuneCombination]
        adapted = schema.adapter("autotune", offer, desc, combinations, outputs=outputs)
        trtp.autotune(op)(adapted)
    if aot_impl is not None:
        launch = tuple[
            str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs
        ]
        how = {"outputs": outputs, "tactic": int}
        trtp.aot_impl(op)(schema.adapter("aot_impl", aot_impl, desc, launch, **how))


def _offered(
    op: str, autotune: Callable[..., list[Any]], *args: Any, **kwargs: Any
) -> list[Any]:
    """TensorRT calls this twice, and ends the process if it raises."""
    try:
        return autotune(*args, **kwargs)
    except Exception as error:  # there is no target, or something unexpected
        ours = str(errors.as_ours("autotune", error))
        errors.warn(ours if ours.startswith(op) else f"{op}: {ours}")
        return []


# --- A user's -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Callback:
    """A function of the user's, for one op.

    Attributes:
        role: ``"aot_impl"`` or ``"autotune"``.
        function: the user's.
        arrays: attributes that it gets as TensorRT has them, as one-element arrays.
        declared: what it takes; None: everything.
    """

    role: str
    schema: OpSchema
    function: Callable[..., Any]
    arrays: frozenset[str]
    declared: frozenset[str] | None

    @classmethod
    def of(cls, role: str, schema: OpSchema, function: Any) -> _Callback:
        """A callback.

        Raises:
            SpecError: it is not a function, or not one of this op's arguments.
        """
        trailing = ("outputs", "tactic") if role == "aot_impl" else ("outputs",)
        expected = (*schema.tensors, *schema.attributes, *trailing)
        contract = f"TensorRT calls it as {role}({', '.join(expected)})."
        if not callable(function):
            raise SpecError(f"{schema.op}: {role}={function!r} is not a function.")
        what = f"{schema.op}: {role} {describe(function)}"
        for name in sorted(schema.optional):
            raise SpecError(
                f"{what}: argument `{name}` of the op may be None, which TensorRT "
                "cannot say. Use impl=, or an op without it."
            )
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except Exception as error:  # a builtin, or whatever an annotation raises
            raise SpecError(
                f"{what}: its signature cannot be read: {error}. {contract}"
            ) from error
        arrays = {name for name, kind in schema.attributes.items() if kind.is_scalar}
        takes_all = False
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_all = True
            elif name not in expected or parameter.kind not in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                near = errors.did_you_mean(name, expected)
                raise SpecError(
                    f"{what}: parameter `{parameter}` is not an argument of the op. "
                    f"{contract}{near}"
                )
            elif name in arrays and parameter.annotation is not parameter.empty:
                found = array_dtype(parameter.annotation)
                known = array_dtype(schema.attributes[name].annotation)
                if found is None:
                    arrays.discard(name)
                elif found is not known:
                    raise SpecError(
                        f"{what}: parameter `{parameter}`, where TensorRT passes an "
                        f"array of {known.__name__}. Annotate it as "
                        f"npt.NDArray[np.{known.__name__}]."
                    )
        declared = None if takes_all else frozenset(parameters)
        return cls(role, schema, function, frozenset(arrays), declared)

    def __str__(self) -> str:
        return f"{self.schema.op}: {self.role} {describe(self.function)}"

    def __call__(
        self, descs: Sequence[Any], attributes: Mapping[str, Any], **trailing: Any
    ) -> Any:
        """What the user's function returns.

        Raises:
            UserCodeError: it raises.
        """
        named = dict(zip(self.schema.inputs, descs, strict=True)) | trailing
        for name, value in attributes.items():
            kind = self.schema.attributes[name]
            named[name] = kind.encode(value) if name in self.arrays else value
        if self.declared is not None:
            named = {n: value for n, value in named.items() if n in self.declared}
        try:
            return self.function(**named)
        except errors.AnnotationError:
            raise
        except Exception as error:
            raise errors.UserCodeError(
                f"{self} raised {type(error).__name__}: {error} "
                f"({errors.place_of(error)})"
            ) from error

    def wrong(self, why: str) -> SpecError:
        """The error for what it returned."""
        return SpecError(f"{self} returned {why}. {_RETURN[self.role]}")


def autotune_of(
    schema: OpSchema, function: Any, is_compiled: bool
) -> Callable[..., list[Any]]:
    """The user's autotune function; it raises only this package's errors.

    Args:
        is_compiled: whether engines embed a kernel, and no Python code.

    Raises:
        SpecError: it is not a function of the op's arguments.
    """
    callback = _Callback.of("autotune", schema, function)

    def autotune(descs: Any, attributes: Any, outputs: Any) -> list[Any]:
        import tensorrt.plugin as trtp

        returned = callback(descs, attributes, outputs=outputs)
        if isinstance(returned, trtp.AutoTuneCombination):
            returned = [returned]
        if not isinstance(returned, list | tuple) or not returned:
            raise callback.wrong(repr(returned))
        for each in returned:
            if not isinstance(each, trtp.AutoTuneCombination):
                raise callback.wrong(f"a list with {each!r}")
            _require_sound(callback, each, len(descs) + len(outputs), is_compiled)
        return list(returned)

    return autotune


def _require_sound(
    callback: _Callback, combination: Any, count: int, is_compiled: bool
) -> None:
    """Raise for a combination at which TensorRT would end the process."""
    types, formats = combination.io_types, combination.layouts
    text = f"AutoTuneCombination({', '.join(map(str, types))!r}, {formats})"
    if len(types) != count:
        raise callback.wrong(
            f"{text}, which has {len(types)} types, and the plugin {count} inputs and "
            "outputs"
        )
    try:
        expanded = combination._get_combinations()  # as TensorRT does
    except Exception as error:
        raise callback.wrong(
            f"{text}, which TensorRT does not take: {error}"
        ) from error
    tactics = combination._tactics
    for tactic in tactics if tactics is not None else ():
        if type(tactic) is not int or tactic < 1:
            raise callback.wrong(
                f"{text} with tactic {tactic!r}, which is not a positive int"
            )
    packed = {f.name for each in expanded for f in each.layouts} - {"LINEAR"}
    if packed and not is_compiled:
        raise callback.wrong(
            f"{text}, and the op's Python code takes row-major tensors. Offer LINEAR "
            "alone, or pass aot_impl="
        )


def aot_impl_of(
    schema: OpSchema, function: Any, autotune: Callable[..., Any] | None
) -> Callable[..., Any]:
    """The user's ahead-of-time implementation; it raises only this package's errors.

    Args:
        autotune: of :func:`autotune_of`.

    Raises:
        SpecError: it is not a function of the op's arguments.
    """
    callback = _Callback.of("aot_impl", schema, function)

    def aot_impl(descs: Any, attributes: Any, outputs: Any, tactic: int) -> Any:
        if tactic == 0 and autotune is not None:
            # The default one: autotune offered none, or it failed and does so again.
            autotune(descs, attributes, outputs)
        returned = callback(descs, attributes, outputs=outputs, tactic=tactic)
        entry, text, params, extras = _launch(callback, returned)
        _require_entry(callback, entry, text, len(extras), len(outputs))
        return entry, text, params, extras

    return aot_impl


def _launch(callback: _Callback, returned: Any) -> tuple[str, str, Any, Any]:
    """What an ``aot_impl`` returned: a launch that TensorRT takes."""
    import tensorrt.plugin as trtp

    if not isinstance(returned, tuple | list) or len(returned) != 4:
        count = f" of {len(returned)} values" if isinstance(returned, tuple) else ""
        raise callback.wrong(f"a {type(returned).__name__}{count}")
    entry, code, params, extras = returned
    texts = []
    for name, value in (("the kernel's name", entry), ("the PTX", code)):
        try:
            texts.append(value.decode() if isinstance(value, bytes) else value)
        except UnicodeDecodeError as error:
            raise callback.wrong(f"bytes that are not text for {name}") from error
        if not isinstance(texts[-1], str):
            raise callback.wrong(f"a {type(value).__name__} for {name}")
    if not isinstance(params, trtp.KernelLaunchParams):
        raise callback.wrong(f"a {type(params).__name__} for the launch parameters")
    for name in _LAUNCH:
        if getattr(params, name)._expr is None:
            raise callback.wrong(
                f"launch parameters whose {name} is neither an int nor an expression "
                "of TensorRT's; convert NumPy's numbers with int()"
            )
    if not isinstance(extras, trtp.SymExprs):
        raise callback.wrong(f"a {type(extras).__name__} for the extra arguments")
    for index, extra in enumerate(extras):
        if not isinstance(extra, trtp.SymInt32) or extra._expr is None:
            raise callback.wrong(
                f"a {type(extra).__name__} for extra argument {index}; make it a "
                "tensorrt.plugin.SymInt32, of an int or an expression"
            )
    return texts[0], texts[1], params, extras


# --- The entry ------------------------------------------------------------------------


def _require_entry(
    callback: _Callback, name: str, text: str, extras: int, outputs: int
) -> None:
    """Raise unless the kernel takes what TensorRT passes, and writes its outputs.

    Raises:
        PTXError: the code cannot be read.
        UnsupportedKernelError: it does not.
    """
    for why in _objections(callback.schema, name, text, extras, outputs):
        raise UnsupportedKernelError(f"{callback}: kernel {name} {why}")


def _objections(
    schema: OpSchema, name: str, text: str, extras: int, outputs: int
) -> Iterator[str]:
    alone = _alone(text, name)
    if alone is None:
        yield "is not a visible entry of the PTX that it returned."
        return
    entry, done = ptx.parse(alone), effects(alone)
    passed = [(f"input `{argument}`", "64") for argument in schema.inputs]
    passed += [(f"extra argument {i}", "32") for i in range(extras)]
    passed += [(f"output {i}", "64") for i in range(outputs)]
    words = ", ".join(what for what, _ in passed)
    if len(entry.parameters) < len(passed):
        yield (
            f"takes {len(entry.parameters)} parameters, and TensorRT passes "
            f"{len(passed)}: {words}."
        )
        return
    for (what, bits), parameter in zip(passed, entry.parameters, strict=False):
        if parameter.type not in {f"u{bits}", f"s{bits}", f"b{bits}"}:
            yield (
                f"declares `{parameter}` where TensorRT passes {what}, "
                f"{'an address' if bits == '64' else 'a 32-bit integer'}. TensorRT "
                f"passes {words}."
            )
        effect = done.get(parameter.name)
        if what.startswith("input") and effect is not None and STORED in effect:
            yield (
                f"stores to {what}, which an engine does not let it change. TensorRT "
                f"passes {words}."
            )
        if what.startswith("output") and effect in NEVER_STORED:
            yield (
                f"never stores to {what}, which would hold whatever was in its memory "
                f"before. TensorRT passes {words}."
            )
    if (target := known_target()) is not None:
        if Target(entry.target).capability > target.capability:
            yield f"is for {entry.target}, and the GPU is {target.arch}."
        newest = target.ptx_isa or entry.version
        if version_of(entry.version) > version_of(newest):
            yield (
                f"is in PTX ISA {entry.version}, and the driver takes {newest} at "
                "most. Let its compiler emit an older one."
            )
    body = alone[entry.match.end() :]
    for parameter in entry.parameters[len(passed) :]:
        if ptx.identifier(parameter.name).search(body) or not _pads():
            yield (
                f"takes `{parameter}` as well, and TensorRT passes {len(passed)} "
                f"arguments: {words}."
            )


def _alone(text: str, name: str) -> str | None:
    """The module without its other entries; None where it does not have this one."""
    plain, has_it = ptx.without_comments(text), False
    for match in reversed(list(ptx.ENTRY.finditer(plain))):
        if match["name"] == name:
            has_it = True
        else:
            end = ptx.closing_brace(plain, match.end()) + 1
            plain = plain[: match.start()] + plain[end:]
    return plain if has_it else None


def _pads() -> bool:
    """Whether TensorRT passes null for parameters that follow its own."""
    import tensorrt as trt

    return Version(trt.__version__).release[:2] >= (10, 16)
