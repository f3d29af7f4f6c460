# SPDX-License-Identifier: BSD-3-Clause

"""What the Triton kernels of the tests compute, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def gated(x: torch.Tensor, activation: Any) -> torch.Tensor:
    gate, up = x.float().chunk(2, -1)
    return activation(gate) * up  # type: ignore[no-any-return]


def add_rms_norm(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
    total = x.float() + residual.float()
    scale = torch.rsqrt((total**2).mean(-1, keepdim=True) + 1e-6)
    return total * scale * weight.float(), total


def rotary(x: Any, cos: Any, sin: Any) -> Any:
    first, second = x.float().chunk(2, -1)
    c, s = cos[None, :, None], sin[None, :, None]
    return torch.cat([first * c - second * s, second * c + first * s], -1)


REFERENCES: dict[str, Any] = {
    "layer_norm": lambda x, w, b: torch.nn.functional.layer_norm(
        x.float(), x.shape[-1:], w.float(), b.float(), 1e-5
    ),
    "add_rms_norm": add_rms_norm,
    "swiglu": lambda x: gated(x, torch.nn.functional.silu),
    "geglu": lambda x: gated(x, torch.nn.functional.gelu),
    "rotary": rotary,
    "swizzled_matmul": lambda a, b: a.float() @ b.float(),
    "cross_entropy": lambda x, labels: torch.nn.functional.cross_entropy(
        x.float(), labels, reduction="none"
    ),
    "dequantize": lambda q, scale: (q.view(*scale.shape, -1) * scale[..., None]).view(
        q.shape
    ),
    "permute": lambda x: x.permute(0, 2, 1, 3),
    "add": lambda x, y: x + y,
    "add_ragged": lambda x, y: x + y,
    "silu": lambda x: torch.nn.functional.silu(x.float()),
    "scale": lambda x: -x * 0.3,
    "tail": lambda x: (
        x * (1 + (x.numel() % 2 == 0)) + (x.numel() - 700) * (x.shape[0] > 20)
    ),
    "softmax": lambda x: torch.softmax(x.float(), -1),
    "rms_norm": lambda x, w: (
        x.float() * torch.rsqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-6) * w
    ),
    "transpose": lambda x: x.t(),
    "min_max": lambda x: (x.clamp(max=0).float(), x.clamp(min=0)),
    "square": lambda x, unused: x * x,
    "row_sum": lambda x: x.float().sum(-1),
    "matmul": lambda a, b: a.float() @ b.float(),
}


def in_dtypes_of(meta: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """``plain``, in the dtypes that the op's fake kernel gives."""

    def cast(*tensors: torch.Tensor, **attributes: Any) -> Any:
        metas = meta(*tensors, **attributes)
        values = plain(*tensors, **attributes)
        if not isinstance(metas, tuple):
            return values.to(metas.dtype)
        return tuple(v.to(m.dtype) for v, m in zip(values, metas, strict=True))

    return cast
