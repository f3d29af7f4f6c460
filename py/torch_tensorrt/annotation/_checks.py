"""What must hold of a launch, whatever language its kernel is written in."""

from __future__ import annotations

from torch_tensorrt.annotation._launch import Grid, LaunchRecord
from torch_tensorrt.annotation._symbolic import bounds
from torch_tensorrt.annotation.errors import ArgumentError

_GRID_LIMITS = (2**31 - 1, 65535, 65535)  # "Technical Specifications", CUDA C++ guide


def check_outputs_written(recorded: LaunchRecord) -> None:
    """Every output must reach the kernel: nothing else in an engine fills it."""
    passed = {getattr(argument, "tensor", None) for argument in recorded.arguments}
    first = len(recorded.inputs)
    for index in range(len(recorded.outputs.tensors)):
        if first + index not in passed:
            raise ArgumentError(
                f"kernel {recorded.name}: output {index} of the meta function is not "
                "an argument of the launch, so nothing would write it. Let the meta "
                "function return what the launch function takes after the inputs."
            )


def check_grid(recorded: LaunchRecord, grid: Grid) -> None:
    """Raise where CUDA would not launch ``grid`` for some shape of the profile."""
    for axis, size, limit in zip("xyz", grid, _GRID_LIMITS, strict=True):
        lower, upper = bounds(size, recorded.ranges)
        if lower < 1 or upper > limit:
            raise ArgumentError(
                f"kernel {recorded.name}: the grid's {axis}, {size}, runs from {lower} "
                f"to {upper} within the profile; CUDA launches 1 to {limit} blocks "
                "there. Narrow the profile, or change the grid."
            )
