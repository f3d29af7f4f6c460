"""TensorRT's tensor formats: the dtypes each holds, and how it lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_tensorrt.annotation._configs import Formats
from torch_tensorrt.annotation.errors import FormatError, SpecError


@dataclass(frozen=True)
class Format:
    """A ``trt.TensorFormat``; its documentation is the source of all but HWC's uint8.

    Attributes:
        channel: the axis of the channels, from the end.
        vector: channels are padded to a multiple of it.
        is_last: all channels are innermost (HWC); otherwise groups of ``vector`` are
            (CHW), and their number takes the place of the channels.
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
                f"is {tensor.dtype}. Convert it before the op, or choose another "
                "format."
            )
        if tensor.dim() < -self.channel:
            raise FormatError(
                f"{where}: TensorRT's format {self.name} needs {-self.channel} "
                f"dimensions or more, and the tensor has {tensor.dim()}. Name a format "
                "for each tensor: ('" + self.name + "', 'LINEAR')."
            )

    def buffer_shape(self, shape: Sequence[Any]) -> tuple[Any, ...]:
        """The extents of a tensor of ``shape`` as it lies in memory, row-major.

        Ints, or sizes of a trace: of channels it makes ``(C + n - 1) // n``.
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
            groups = (padded.shape[axis] // self.vector, self.vector)
            padded = torch.unflatten(padded, axis, groups)
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


def _table() -> dict[str, Format]:
    fp32, fp16, bf16 = torch.float32, torch.float16, torch.bfloat16
    int8, fp8 = torch.int8, torch.float8_e4m3fn
    channels_last = (fp32, fp16, bf16, int8, torch.int64, torch.uint8)
    rows = (
        Format("LINEAR"),
        Format("CHW2", -3, 2, False, (fp16, bf16)),
        Format("CHW4", -3, 4, False, (int8,)),
        Format("CHW16", -3, 16, False, (fp16,)),
        Format("CHW32", -3, 32, False, (fp32, fp16, int8)),
        Format("CDHW32", -4, 32, False, (fp16, int8)),
        Format("HWC", -3, 1, True, channels_last),
        Format("HWC8", -3, 8, True, (fp16, bf16)),
        Format("HWC16", -3, 16, True, (fp16, int8, fp8)),
        Format("DHWC", -4, 1, True, (fp32,)),
        Format("DHWC8", -4, 8, True, (fp16, bf16)),
    )
    return {row.name: row for row in rows}


FORMATS = _table()
LINEAR = FORMATS["LINEAR"]


def require_known(names: Formats, where: str) -> None:
    """Raise :class:`SpecError` unless every name is a format's."""
    for name in names or ():
        if name not in FORMATS:
            raise SpecError(
                f"{where}: no such format: {name!r}. TensorRT's are "
                f"{', '.join(FORMATS)}; those of DLA are not supported."
            )


def formats_of(
    names: Formats, tensors: Sequence[torch.Tensor | None], weights: int, what: str
) -> tuple[Format, ...]:
    """The format of each tensor, of which the last ``weights`` are constants.

    None is LINEAR.

    One name is for all but the constants, which are row-major unless they are named.

    Raises:
        FormatError: a tensor cannot have its format, or there are not as many.
    """
    given = len(tensors) - weights
    if names is not None and len(names) == 1:
        names = names * given
    formats = [FORMATS[name] for name in names or ("LINEAR",) * given]
    if len(formats) == given:
        formats += [LINEAR] * weights
    if len(formats) != len(tensors):
        raise FormatError(
            f"{what}_formats names {len(formats)} formats, and there are "
            f"{len(tensors)} {what}s. Name one for all, or one for each."
        )
    for index, tensor in enumerate(tensors):
        if tensor is None:
            formats[index] = LINEAR
        else:
            formats[index].check(tensor, f"{what} {index}")
    return tuple(formats)


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
