"""What the command line says of an op's inputs: ``x=8x512:fp16``, ``x=1..64x512``."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.annotation import _dtypes
from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._symbolic import Extent, Range
from torch_tensorrt.annotation.errors import SpecError

STATIC = "x=8x512:fp16"
DYNAMIC = "x=1..64x512"
_INPUT = re.compile(r"(?P<name>\w+)=(?P<shape>[\d.x]*)(?::(?P<dtype>\w+))?", re.ASCII)
_EXTENT = re.compile(r"\d+|\d+\.\.\d+(\.\.\d+)?", re.ASCII)
_NAMES = {token.lower(): token for token in _dtypes.TOKENS}


class UsageError(SpecError):
    """The command line is wrong; the message is one line that says what to write."""


@dataclass(frozen=True)
class ShapeArgument:
    """One ``NAME=SHAPE:DTYPE``; an extent is a tuple of min and max, or of three."""

    name: str
    extents: tuple[tuple[int, ...], ...]
    dtype: torch.dtype | None

    @classmethod
    def parse(cls, text: str, option: str, example: str) -> ShapeArgument:
        """Read it. Raises :class:`UsageError`."""
        match = _INPUT.fullmatch(text)
        if match is None:
            raise UsageError(f"{option} {text}: write it as {option} {example}.")
        parts = match["shape"].split("x") if match["shape"] else []
        if not all(_EXTENT.fullmatch(part) for part in parts):
            raise UsageError(
                f"{option} {text}: an extent is a number, or a range 1..64 or "
                f"1..8..64. Write it as {option} {example}."
            )
        return cls(
            match["name"],
            tuple(tuple(map(int, part.split(".."))) for part in parts),
            _dtype(match["dtype"], f"{option} {text}"),
        )


def read_inputs(
    static: Sequence[str],
    dynamic: Sequence[str],
    names: Sequence[str],
    optional: Collection[str] = (),
) -> list[Any]:
    """``torch_tensorrt.Input`` for each of the op's tensors, in order.

    None for an optional one of which nothing is said. Where an input has both,
    ``--input`` says the opt of what ``--dynamic`` says.

    Raises:
        UsageError: what is said does not fit the op, or itself.
    """
    given = _by_name(static, "--input", STATIC)
    ranges = _by_name(dynamic, "--dynamic", DYNAMIC)
    for name in (*given, *ranges):
        if name not in names:
            raise UsageError(f"the op has no tensor {name}; it takes {_list(names)}.")
    unsaid = [name for name in names if name not in given and name not in ranges]
    if missing := [name for name in unsaid if name not in optional]:
        raise UsageError(
            f"nothing is said of {_list(missing)}: add --input {missing[0]}=8x512:fp16."
        )
    return [
        None if name in unsaid else _input(name, given.get(name), ranges.get(name))
        for name in names
    ]


def read_attributes(
    texts: Sequence[str],
    kinds: Mapping[str, AttributeKind],
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The op's other arguments, each ``NAME=VALUE``; of those not said, the defaults.

    Raises:
        UsageError: one has another type, or is missing.
    """
    values = dict(defaults or {})
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in kinds:
            known = _list(list(kinds))
            raise UsageError(
                f"--attribute {text}: write NAME=VALUE; the op takes {known}."
            )
        values[name] = _value(text, value, kinds[name])
    missing = [name for name in kinds if name not in values]
    if missing:
        raise UsageError(
            f"nothing is said of {_list(missing)}: add --attribute {missing[0]}=VALUE."
        )
    return values


def _value(text: str, value: str, kind: AttributeKind) -> Any:
    if kind.element is str:
        return value
    if kind.element is bool and value in ("true", "false"):
        value = value.capitalize()
    try:
        return kind.convert(ast.literal_eval(value))
    except (ValueError, SyntaxError, TypeError) as error:
        raise UsageError(f"--attribute {text}: it must be of type {kind}.") from error


def _by_name(
    texts: Sequence[str], option: str, example: str
) -> dict[str, ShapeArgument]:
    found: dict[str, ShapeArgument] = {}
    for text in texts:
        argument = ShapeArgument.parse(text, option, example)
        if argument.name in found:
            raise UsageError(f"{option} {text}: {argument.name} is there twice.")
        found[argument.name] = argument
    return found


def _input(name: str, given: ShapeArgument | None, ranges: ShapeArgument | None) -> Any:
    import torch_tensorrt

    dtypes = [a.dtype for a in (given, ranges) if a is not None and a.dtype is not None]
    if len(set(dtypes)) != 1:
        said = "two dtypes are" if dtypes else "no dtype is"
        raise UsageError(
            f"{said} said of {name}: write --input {STATIC.replace('x=', f'{name}=')}."
        )
    shape = _shape(name, given, ranges)
    if not any(isinstance(extent, Range) for extent in shape):
        return torch_tensorrt.Input(shape=shape, dtype=dtypes[0])
    corners = {
        f"{which}_shape": tuple(
            getattr(e, which) if isinstance(e, Range) else e for e in shape
        )
        for which in ("min", "opt", "max")
    }
    return torch_tensorrt.Input(**corners, dtype=dtypes[0])


def _shape(
    name: str, given: ShapeArgument | None, ranges: ShapeArgument | None
) -> tuple[Extent, ...]:
    optimum = None
    if given is not None:
        if any(len(extent) > 1 for extent in given.extents):
            raise UsageError(f"--input {name}: a range goes in --dynamic {DYNAMIC}.")
        optimum = [extent[0] for extent in given.extents]
    extents = (ranges or given).extents  # type: ignore[union-attr]
    if optimum is not None and len(optimum) != len(extents):
        raise UsageError(
            f"--input and --dynamic say {len(optimum)} and {len(extents)} dimensions "
            f"of {name}."
        )
    return tuple(
        _extent(name, extent, optimum[axis] if optimum else None)
        for axis, extent in enumerate(extents)
    )


def _extent(name: str, extent: tuple[int, ...], optimum: int | None) -> Extent:
    low, high = extent[0], extent[-1]
    opt = extent[1] if len(extent) == 3 else high if optimum is None else optimum
    if not low <= opt <= high:
        raise UsageError(
            f"{name}: {low}..{opt}..{high} does not rise. A range is min..max or "
            "min..opt..max, and --input says the opt."
        )
    return low if low == high else Range(low, opt, high)


def _dtype(name: str | None, where: str) -> torch.dtype | None:
    if name is None:
        return None
    if name not in _NAMES:
        raise UsageError(f"{where}: no dtype {name}; there are {', '.join(_NAMES)}.")
    return _dtypes.from_token(_NAMES[name]).torch


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
