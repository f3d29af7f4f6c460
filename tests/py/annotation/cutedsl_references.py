# SPDX-License-Identifier: BSD-3-Clause

"""What the CuTe DSL kernels of the tests compute, in torch: needs no CuTe DSL."""

from __future__ import annotations

from typing import Any

import torch


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-6)
    return (x.float() * scale * weight.float()).to(x.dtype)


def _scalars(x: torch.Tensor, factor: float) -> torch.Tensor:
    rows, columns = x.shape
    is_even = x.numel() % 2 == 0
    return x * factor + float(rows > 20) + float(rows * columns * is_even)


def _groups(x: torch.Tensor, rows: int = 20) -> torch.Tensor:
    numbers = torch.arange(x.shape[0], device=x.device) // rows
    return (x.float() + numbers[:, None]).to(x.dtype)


REFERENCES: dict[str, Any] = {
    "cute_silu": lambda x: torch.nn.functional.silu(x.float()).to(x.dtype),
    "cute_hadamard": lambda x, y: x * y,
    "cute_add": _add,
    "cute_wide_add": _add,
    "cute_rms_norm": _rms_norm,
    "cute_softmax": lambda x: torch.softmax(x.float(), -1).to(x.dtype),
    "cute_matmul": lambda a, b: a @ b.t(),
    "cute_transpose": lambda x: x.t().contiguous(),
    "cute_min_max": lambda x: (x.float().clamp(max=0), x.clamp(min=0)),
    "cute_scalars": lambda x: _scalars(x, 0.1),
}
HARDWARE_REFERENCES: dict[str, Any] = {
    "cute_large_shared": lambda x: x * 2,
    "cute_clustered": lambda x: x * 2,
    "cute_tma_copy": lambda x: x,
    "cute_tma_gemm": lambda a, b: (a.flatten(1) @ b.flatten(1).t()).unflatten(
        1, (-1, 8)
    ),
    "cute_tma_groups": _groups,
}
