# SPDX-License-Identifier: BSD-3-Clause

"""Tensors as TensorRT's plugins take them: extents, dtypes and memory formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import sympy
import torch

from .errors import DTypeError, FormatError, SpecError

MAX_RANK = 8  # nvinfer1::Dims::MAX_DIMS
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Range:
    """The extents one dynamic dimension may have: an optimization profile's entry."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.opt <= self.max:
            raise SpecError(
                f"dimension range min={self.min}, opt={self.opt}, max={self.max}: "
                "must be 0 <= min <= opt <= max."
            )


Extent: TypeAlias = int | Range
# An extent that TensorRT does not tell a plugin's descriptor. Like torch.export, this
# assumes that a dynamic dimension does not broadcast (2 or more). Usual numbers of
# heads and groups divide the hint.
UNKNOWN = Range(2, 192, INT32_MAX)


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor at build time: its extents and its dtype."""

    shape: tuple[Extent, ...]
    dtype: torch.dtype

    def at(self, which: str) -> tuple[int, ...]:
        """The extents at the profile's ``"min"``, ``"opt"`` or ``"max"``."""
        return tuple(
            getattr(e, which) if isinstance(e, Range) else e for e in self.shape
        )

    @property
    def is_dynamic(self) -> bool:
        return any(isinstance(extent, Range) for extent in self.shape)

    def holds(self, extents: Sequence[int]) -> bool:
        """Whether the profile has these extents."""
        ends = zip(self.at("min"), extents, self.at("max"), strict=False)
        is_within = all(least <= extent <= most for least, extent, most in ends)
        return len(extents) == len(self.shape) and is_within


def extent_of(size: int | torch.SymInt) -> Extent:
    """A size of a graph's tensor: known, or the range that the graph knows of it."""
    if isinstance(size, int):
        return size
    node = size.node
    known = node.shape_env.bound_sympy(node.expr)
    low, high = max(0, int(known.lower)), int(min(known.upper, INT32_MAX))
    hint = node.hint if node.has_hint() else low
    return low if low == high else Range(low, min(max(hint, low), high), high)


def of_any_size(info: TensorInfo | None, hint: int = UNKNOWN.opt) -> TensorInfo | None:
    """``info`` as a plugin's descriptor knows it: without the profile."""
    if info is None:
        return None
    any_extent = replace(UNKNOWN, opt=hint)
    shape = (any_extent if isinstance(e, Range) else e for e in info.shape)
    return TensorInfo(tuple(shape), info.dtype)


Ranges: TypeAlias = Mapping[sympy.Symbol, Range]


@cache  # sympy checks the assumptions of a symbol each time that it is made
def symbol(tensor: int, axis: int) -> sympy.Symbol:
    """The extent of input ``tensor`` along ``axis``, as long as it is not known."""
    return sympy.Symbol(f"d{tensor}_{axis}", integer=True, nonnegative=True)


def by_symbol(shapes: Iterable[Iterable[Any] | None]) -> dict[sympy.Symbol, Any]:
    """The extents of inputs by their symbols; None is an input that is not given."""
    return {
        symbol(i, axis): extent
        for i, shape in enumerate(shapes)
        for axis, extent in enumerate(() if shape is None else shape)
    }


def ranges_of(inputs: Sequence[TensorInfo | None]) -> dict[sympy.Symbol, Range]:
    """The symbol of each dynamic dimension, with its range."""
    extents = by_symbol(None if t is None else t.shape for t in inputs)
    return {s: extent for s, extent in extents.items() if isinstance(extent, Range)}


# --- None -----------------------------------------------------------------------------
#
# A plugin has a fixed number of inputs, so TensorRT needs a tensor where the op is
# given None. It gets a constant that nothing reads, of a kind that no op is ever called
# with. Only the code that faces TensorRT knows this; everywhere else None is None.

ABSENT = TensorInfo((1,) * MAX_RANK, torch.bool)
TAKEN_FOR_NONE = (
    f"a bool tensor of {MAX_RANK} dimensions stands for None in a plugin. Reshape it."
)


def stands_for_none(rank: int, dtype: torch.dtype) -> bool:
    """Whether a plugin takes such a tensor for None. TensorRT may not know extents."""
    return (rank, dtype) == (MAX_RANK, ABSENT.dtype)


def to_plugin(info: TensorInfo | None) -> TensorInfo:
    """The tensor that TensorRT is given for ``info``."""
    return ABSENT if info is None else info


def from_plugin(info: TensorInfo) -> TensorInfo | None:
    """The op's tensor behind the one that TensorRT has."""
    return None if stands_for_none(len(info.shape), info.dtype) else info


def absent() -> torch.Tensor:
    """The constant that a plugin is given in place of None."""
    return torch.zeros(ABSENT.at("opt"), dtype=ABSENT.dtype)


# --- dtypes ---------------------------------------------------------------------------

_TorchDType: TypeAlias = torch.dtype  # a field below has torch's name


@dataclass(frozen=True)
class DType:
    """One element type under each of its names.

    Attributes:
        tensorrt: the member of ``trt.DataType``.
        token: what ``trtp.AutoTuneCombination`` calls it.
    """

    torch: _TorchDType
    tensorrt: str
    token: str

    @classmethod
    def of(cls, dtype: _TorchDType) -> DType:
        """The row of a torch dtype.

        Raises:
            DTypeError: TensorRT has none.
        """
        return _row(dtype, "torch", f"dtype {dtype} has no counterpart in TensorRT")

    @classmethod
    def of_tensorrt(cls, dtype: Any) -> DType:
        """The row of a ``trt.DataType``.

        Raises:
            DTypeError: torch has none.
        """
        return _row(dtype.name, "tensorrt", f"TensorRT's {dtype} has none in torch")

    @classmethod
    def of_token(cls, token: str) -> DType:
        """The row of what ``AutoTuneCombination`` calls a dtype."""
        return _row(token, "token", f"{token!r} is not a dtype")

    @property
    def name(self) -> str:
        """torch's name: ``"float16"``."""
        return str(self.torch).removeprefix("torch.")

    def to_tensorrt(self) -> Any:
        """The ``trt.DataType``."""
        import tensorrt as trt

        return getattr(trt.DataType, self.tensorrt)


# The only table of dtypes. A language knows its own names for them.
DTYPES = (
    DType(torch.float32, "FLOAT", "FP32"),
    DType(torch.float16, "HALF", "FP16"),
    DType(torch.bfloat16, "BF16", "BF16"),
    DType(torch.float8_e4m3fn, "FP8", "FP8"),
    DType(torch.int64, "INT64", "INT64"),
    DType(torch.int32, "INT32", "INT32"),
    DType(torch.int8, "INT8", "INT8"),
    DType(torch.uint8, "UINT8", "UINT8"),
    DType(torch.bool, "BOOL", "BOOL"),
)


def _row(value: Any, column: str, complaint: str) -> DType:
    for row in DTYPES:
        if getattr(row, column) == value:
            return row
    names = ", ".join(row.name for row in DTYPES)
    raise DTypeError(f"{complaint}. Convert to one of {names} before the op.")


# --- formats --------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """A ``trt.TensorFormat``. Its documentation is the source of all but HWC's uint8.

    Attributes:
        channel: the axis of the channels, counted from the end; 0: row-major.
        vector: channels are padded to a multiple of it.
        is_last: all channels are innermost (HWC). Otherwise groups of ``vector`` are
            (CHW), and the number of groups takes the place of the channels.
        dtypes: what it can hold; empty for everything.
    """

    name: str
    channel: int = 0
    vector: int = 1
    is_last: bool = False
    dtypes: tuple[torch.dtype, ...] = ()

    def check(self, tensor: torch.Tensor, where: str) -> None:
        """Raise :class:`FormatError` if ``tensor`` cannot have this format."""
        if self.dtypes and tensor.dtype not in self.dtypes:
            valid = ", ".join(str(d).removeprefix("torch.") for d in self.dtypes)
            raise FormatError(
                f"{where}: TensorRT's format {self.name} holds {valid}, and the tensor "
                f"is {tensor.dtype}. Convert it before the op, or take another format."
            )
        if tensor.dim() < -self.channel:
            raise FormatError(
                f"{where}: TensorRT's format {self.name} needs {-self.channel} "
                f"dimensions or more, and the tensor has {tensor.dim()}. Name a format "
                "for each tensor: ('" + self.name + "', 'LINEAR')."
            )

    def buffer_shape(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        """The extents of a tensor of ``shape`` as it lies in memory, row-major.

        Takes ints, or sizes of a trace: it makes ``(C + n - 1) // n`` of channels.
        """
        if not self.channel:
            return tuple(shape)
        axis = len(shape) + self.channel
        groups = (shape[axis] + self.vector - 1) // self.vector
        before, after = shape[:axis], shape[axis + 1 :]
        if self.is_last:
            return (*before, *after, groups * self.vector)
        return (*before, groups, *after, self.vector)

    def pack(self, tensor: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
        """Write ``tensor`` into ``buffer``; the padding stays as it is."""
        if not self.channel:
            return buffer.copy_(tensor)
        padded = self._padded(buffer, tensor.dim()).clone()
        axis = tensor.dim() + self.channel
        padded.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
        if not self.is_last:
            padded = torch.unflatten(padded, axis, (-1, self.vector))
            axis += 1
        return buffer.copy_(padded.movedim(axis, -1))

    def unpack(self, buffer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The tensor of ``shape`` that lies in ``buffer``; a view where it can be."""
        if not self.channel:
            return buffer
        axis = len(shape) + self.channel
        padded = self._padded(buffer, len(shape))
        return padded.narrow(axis, 0, shape[axis]).contiguous()

    def _padded(self, buffer: torch.Tensor, rank: int) -> torch.Tensor:
        """``buffer`` with its axes in the tensor's order, padding included."""
        axis = rank + self.channel
        if self.is_last:
            return buffer.movedim(-1, axis)
        return buffer.movedim(-1, axis + 1).flatten(axis, axis + 1)


_FP32, _FP16, _BF16 = torch.float32, torch.float16, torch.bfloat16
_INT64, _INT8, _UINT8, _FP8 = torch.int64, torch.int8, torch.uint8, torch.float8_e4m3fn
LINEAR = Format("LINEAR")

# The only table of formats. Those of DLA (CHW16 among them) are left out: TensorRT runs
# no plugin of ours there.
FORMATS = {
    row.name: row
    for row in (
        LINEAR,
        Format("CHW2", -3, 2, False, (_FP16, _BF16)),
        Format("CHW4", -3, 4, False, (_INT8,)),
        Format("CHW32", -3, 32, False, (_FP32, _FP16, _INT8)),
        Format("CDHW32", -4, 32, False, (_FP16, _INT8)),
        Format("HWC", -3, 1, True, (_FP32, _FP16, _BF16, _INT8, _INT64, _UINT8)),
        Format("HWC8", -3, 8, True, (_FP16, _BF16)),
        Format("HWC16", -3, 16, True, (_FP16, _INT8, _FP8)),
        Format("DHWC", -4, 1, True, (_FP32,)),
        Format("DHWC8", -4, 8, True, (_FP16, _BF16)),
    )
}

Formats: TypeAlias = tuple[str, ...] | None  # as a spec names them; None: all LINEAR


def as_formats(formats: Any, where: str) -> Formats:
    """What a user wrote as formats: one or several, names or ``trt.TensorFormat``.

    Raises:
        SpecError: TensorRT has no format of this name.
    """
    if formats is None:
        return None
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        formats = (formats,)
    names = tuple(getattr(f, "name", None) or str(f) for f in formats)
    for name in names:
        if name not in FORMATS:
            raise SpecError(
                f"{where}: no such format: {name!r}. TensorRT's are "
                f"{', '.join(FORMATS)}; those of DLA are not supported."
            )
    return names


def formats_of(
    names: Formats, tensors: Sequence[torch.Tensor | None], weights: int, what: str
) -> tuple[Format, ...]:
    """The format of each tensor; the last ``weights`` of them are constants.

    None is LINEAR. A single name applies to all but the constants, which are row-major
    unless they are named.

    Raises:
        FormatError: a tensor cannot have its format, or the numbers do not match.
    """
    given = len(tensors) - weights
    named = names_of_formats(names, given, weights, what)
    formats = [FORMATS[name] for name in named]
    for index, tensor in enumerate(tensors):
        if tensor is None:
            formats[index] = LINEAR
        else:
            formats[index].check(tensor, f"{what} {index}")
    return tuple(formats)


def names_of_formats(
    names: Formats, given: int, weights: int, what: str
) -> tuple[str, ...]:
    """The name of each tensor's format: of those that are given, then of constants.

    Raises:
        FormatError: the numbers do not match.
    """
    if names is None or len(names) == 1:
        names = (names or ("LINEAR",)) * given
    if len(names) == given:
        names += ("LINEAR",) * weights
    if len(names) != given + weights:
        raise FormatError(
            f"{what}_formats names {len(names)} formats, and there are "
            f"{given + weights} {what}s. Name one for all, or one for each."
        )
    return names


def empty_buffers(
    formats: Sequence[Format], tensors: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, ...]:
    """What a launch function is handed for ``tensors``: themselves if all are LINEAR.

    Otherwise new memory, which knows the tensor's own extents as ``logical_shape``.
    """
    if all(fmt is LINEAR for fmt in formats):
        return tuple(tensors)

    def buffer(fmt: Format, tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        shape = fmt.buffer_shape(tensor.shape)
        empty = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
        empty.logical_shape = tensor.shape  # type: ignore[attr-defined]
        return empty

    return tuple(map(buffer, formats, tensors))
