# SPDX-License-Identifier: BSD-3-Clause

"""What a kernel runs on at one shape, and the check of what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from .._record import as_tensors
from .._record.address import ALIGNMENT
from .._tensors import absent
from ..errors import DryRunError
from .memory import GuardedTensor, compare
from .report import Dims, ShapeReport, TacticReport

MakeInputs: TypeAlias = Callable[[Dims], Sequence[torch.Tensor | None]]


class Case:
    """Inputs of one shape, in every format, and what the op makes of them.

    Args:
        reference: what the op should make of the inputs; None where nobody knows.
    """

    def __init__(
        self,
        tactic: TacticReport,
        shape: ShapeReport,
        weights: Sequence[torch.Tensor],
        make_inputs: MakeInputs | None,
        reference: Callable[..., Any] | None,
        device: str = "cuda",
    ) -> None:
        dtypes, self._device = tactic.torch_dtypes, device
        dims = shape.dims[: len(shape.dims) - len(weights)]
        made = make_inputs(dims) if make_inputs else random_inputs(dims, dtypes, device)
        tensors = [None if t is None else t.to(device) for t in (*made, *weights)]
        given = [None if t is None else (tuple(t.shape), t.dtype) for t in tensors]
        pairs = zip(shape.dims, dtypes, strict=False)
        wanted = [None if dims is None else (dims, dtype) for dims, dtype in pairs]
        if given != wanted:
            raise DryRunError(
                f"dry run at {shape.name}: the inputs and weights are {given}, and the "
                f"kernels were compiled for {wanted}. Let make_inputs make those."
            )
        self._expected: Sequence[torch.Tensor] = ()
        if reference is not None:
            copies = (None if t is None else t.clone() for t in tensors[: len(dims)])
            self._expected = as_tensors(reference(*copies), "the reference")
            if len(self._expected) != len(shape.outputs):
                raise DryRunError(
                    f"the reference gives {len(self._expected)} tensors; the kernel "
                    f"has {len(shape.outputs)} outputs. Return one tensor for each."
                )
        # TensorRT has a constant in place of None.
        self._originals = [absent().to(device) if t is None else t for t in tensors]

    def tensors(
        self,
        tactic: TacticReport,
        shape: ShapeReport,
        hidden: Sequence[tuple[Sequence[int], torch.dtype]],
        poison: int,
    ) -> tuple[list[GuardedTensor], list[GuardedTensor], list[GuardedTensor]]:
        """The inputs as a tactic gets them; and its outputs and hidden buffers, new
        ones in poison. An output that is an input, too, is one buffer in both places.

        Hidden buffers have the alignment that TensorRT promises, and no more.

        Args:
            hidden: extents and dtypes of the hidden buffers.
        """
        extents = (*(t.shape for t in self._originals), *shape.outputs)
        kinds = zip(extents, tactic.torch_dtypes, tactic.formats, strict=True)
        count = len(self._originals)
        new = list(kinds)[: count + len(shape.outputs) - len(tactic.aliased)]
        made = [GuardedTensor(*kind, poison, self._device) for kind in new]
        made += [made[index] for index in tactic.aliased]
        for tensor, original in zip(made[:count], self._originals, strict=True):
            tensor.write(original)
        where = "LINEAR", poison, self._device, ALIGNMENT
        buffers = [GuardedTensor(*buffer, *where) for buffer in hidden]
        return made[:count], made[count:], buffers

    def check(
        self,
        inputs: Sequence[GuardedTensor],
        outputs: Sequence[GuardedTensor],
        hidden: Sequence[GuardedTensor],
        tolerance: float | None,
    ) -> tuple[float | None, list[str]]:
        """The largest error, if there is a reference, and everything that is wrong."""
        errors, problems = list[float](), []
        for index, expected in enumerate(self._expected):
            error, wrong = compare(outputs[index].tensor, expected, tolerance)
            errors.append(error)
            if wrong:
                problems.append(f"output {index}: {wrong}")
        read = {i: tensor for i, tensor in enumerate(inputs) if tensor not in outputs}
        for index, tensor in read.items():
            if not tensor.holds(self._originals[index]):
                problems.append(f"input {index}: the kernel writes into it")
        buffers = (
            ("output", dict(enumerate(outputs))),
            ("input", read),
            ("hidden buffer", dict(enumerate(hidden))),
        )
        for what, tensors in buffers:
            for index, tensor in tensors.items():
                if not tensor.is_intact:
                    remedy = _REMEDIES.get(what, "")
                    problems.append(
                        f"{what} {index}: the kernel writes outside of it{remedy}"
                    )
        return max(errors, default=None), problems


_REMEDIES = {
    "output": ". Mask its stores by the output's size, or correct the output's shape "
    "in the function that describes it (meta_impl)",
    "hidden buffer": ". Mask its stores by the buffer's size, or correct its shape "
    "where the launch function allocates it",
}


def random_inputs(
    shapes: Dims, dtypes: Sequence[torch.dtype], device: str = "cuda"
) -> list[torch.Tensor | None]:
    """Normally distributed floats; bytes and bools of any value; other integers, which
    may be indices, from 0 to less than every extent; None where the shape is None."""
    smallest = min([extent for shape in shapes for extent in shape or ()], default=1)

    def random(shape: tuple[int, ...] | None, dtype: torch.dtype) -> Any:
        if shape is None:
            return None
        if dtype.is_floating_point:
            return torch.randn(shape, device=device).to(dtype)
        if dtype == torch.bool or dtype.itemsize > 1:
            start, end = 0, 2 if dtype == torch.bool else max(1, smallest)
        else:
            start, end = torch.iinfo(dtype).min, torch.iinfo(dtype).max + 1
        return torch.randint(start, end, shape, device=device).to(dtype)

    return list(map(random, shapes, dtypes))
