"""Compare every element of an output with what it should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Relative to the element and to the output's root mean square together, since sums of
# many terms cancel: a few units in the last place of the dtype, after float32 sums.
TOLERANCES = {
    torch.float32: 1e-4,
    torch.float16: 4e-3,
    torch.bfloat16: 2e-2,
    torch.float8_e4m3fn: 0.15,
}


@dataclass(frozen=True)
class Comparison:
    """How far a tensor is from the expected one.

    Attributes:
        max_error: the largest; infinite where one is NaN and the other is not.
        message: empty where every element is within the tolerance.
    """

    max_error: float
    message: str


def compare(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None
) -> Comparison:
    """Compare two tensors; integers and bools exactly.

    The error of an element is ``|found - expected| / (|expected| + rms(expected))``.

    Args:
        tolerance: the largest error allowed; None for ``TOLERANCES``' of the dtype.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return Comparison(
            float("inf"),
            f"the reference is {expected.dtype} {list(expected.shape)}, the output "
            f"{found.dtype} {list(found.shape)}",
        )
    if found.numel() == 0:
        return Comparison(0.0, "")
    if tolerance is None:
        tolerance = TOLERANCES.get(found.dtype, 0.0)
    errors = _errors(found, expected)
    wrong = errors > tolerance
    max_error = float(errors.max())
    count = int(wrong.sum())
    if not count:
        return Comparison(max_error, "")
    first = int(wrong.reshape(-1).to(torch.uint8).argmax())
    index = torch.unravel_index(torch.tensor(first), found.shape)
    where = ", ".join(str(int(i)) for i in index)
    return Comparison(
        max_error,
        f"{count} of {found.numel()} elements are wrong, the first at [{where}]: "
        f"{_value(found, first)} instead of {_value(expected, first)}",
    )


def _errors(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if not found.dtype.is_floating_point:
        return (found.view(_bits(found)) != expected.view(_bits(expected))).double()
    f, e = found.float(), expected.float()
    finite = torch.where(e.isfinite(), e, 0.0)
    rms = finite.double().square().mean().sqrt().float()
    errors = (f - e).abs() / (finite.abs() + rms).clamp(min=torch.finfo(f.dtype).tiny)
    same = (f == e) | (f.isnan() & e.isnan())
    return torch.where(same, 0.0, torch.where(errors.isnan(), float("inf"), errors))


def _bits(tensor: torch.Tensor) -> torch.dtype:
    """A poisoned bool is neither true nor false: compare its byte."""
    return torch.uint8 if tensor.dtype == torch.bool else tensor.dtype


def _value(tensor: torch.Tensor, position: int) -> str:
    return str(tensor.reshape(-1)[position].view(_bits(tensor)).item())
