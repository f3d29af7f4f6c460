# SPDX-License-Identifier: BSD-3-Clause

"""What the cuTile kernels of the tests compute, in PyTorch; needs no cuTile."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-6)
    return x.float() * scale * weight.float()


def linear_gelu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    y = functional.linear(x.float(), weight.float(), bias.float())
    return functional.gelu(y, approximate="tanh")


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q.float(), k.float(), v.float())


def permute(x: torch.Tensor) -> torch.Tensor:
    """The first head of each half of the heads."""
    heads = x.shape[2]
    return x[:, :, :: heads // 2]


CUTILE_REFERENCES: dict[str, Any] = {
    "relu": lambda x: functional.relu(x),
    "reglu": lambda gate, up: functional.relu(gate.float()) * up.float(),
    "rms_norm": rms_norm,
    "softmax": lambda x: torch.softmax(x.float(), -1),
    "matmul": lambda a, b: a.float() @ b.float(),
    "matmul_tails": lambda a, b: a.float() @ b.float(),
    "transpose": lambda x: x.t(),
    "linear_gelu": linear_gelu,
    "batch_matmul": lambda a, b: a.float() @ b.float(),
    "attention": attention,
    "scale": lambda x: -x * 0.3,
    "permute": permute,
    "min_max": lambda x: (x.float().clamp(max=0), x.clamp(min=0)),
}
