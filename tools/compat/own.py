# SPDX-License-Identifier: BSD-3-Clause

"""A library's own launch: what an op is compared with, as far as it is determined.

A library may return an element that no kernel of it writes: what `torch.empty` found in
that place of the memory. So the own launch runs twice, and everything that it allocates
is filled with other bytes first. Elements that differ then are undetermined, and are
not compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torch_tensorrt.annotation._dry_run.case as one_launch
import torch_tensorrt.annotation._dry_run.steps as several_launches
from torch_tensorrt.annotation._dry_run.memory import (
    POISONS,
    Comparison,
    compare,
    errors_of,
    tolerance_of,
)

MOST = 1 / 8  # of an output's elements; where more are undetermined, little is compared

_ALLOCATE = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}


class Poisoned(TorchDispatchMode):
    """While entered, memory that this thread allocates is full of one byte."""

    def __init__(self, byte: int) -> None:
        super().__init__()
        self._byte = byte

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _ALLOCATE:
            memory = torch.empty(0, dtype=torch.uint8, device=made.device)
            memory.set_(made.untyped_storage()).fill_(self._byte)
        return made


class OwnLaunch:
    """A reference for ``dry_run``.

    Attributes:
        undetermined: the most elements, of all outputs, that it left so at a shape.
    """

    def __init__(self, body: Callable[..., Any], tolerance: float | None) -> None:
        self._body, self._tolerance = body, tolerance
        self.undetermined = 0

    def __call__(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """What the body returns; each tensor knows what of it is not determined.

        Raises:
            ValueError: too much of an output is not.
        """
        first, other = (self._run(byte, inputs) for byte in POISONS[:2])
        count = 0
        for index, (tensor, again) in enumerate(zip(first, other, strict=True)):
            # Sums of atomic additions may differ, within the tolerance.
            allowed = tolerance_of(tensor.dtype, self._tolerance)
            tensor.undetermined = errors_of(again, tensor) > allowed
            here = int(tensor.undetermined.sum())
            if here > MOST * tensor.numel():
                raise ValueError(
                    f"output {index}: two runs of its own launch, on memory that holds "
                    f"other bytes, differ in {here} of {tensor.numel()} elements."
                )
            count += here
        self.undetermined = max(self.undetermined, count)
        return first

    def _run(self, byte: int, inputs: Any) -> tuple[torch.Tensor, ...]:
        copies = [None if tensor is None else tensor.clone() for tensor in inputs]
        with Poisoned(byte):
            made = self._body(*copies)
        tensors = made if isinstance(made, tuple | list) else (made,)
        # A library may return one buffer twice, and a clone makes poisoned bools true.
        return tuple(copy.deepcopy(tensor.detach()) for tensor in tensors)


def compare_determined() -> None:
    """For the rest of this process, a dry run skips what the reference leaves open."""
    for module in (one_launch, several_launches):
        module.compare = _compare


def _compare(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None
) -> Comparison:
    mask = getattr(expected, "undetermined", None)
    if mask is not None and found.shape == mask.shape:
        found, expected = (
            torch.where(mask, torch.zeros_like(t), t) for t in (found, expected)
        )
    return compare(found, expected, tolerance)
