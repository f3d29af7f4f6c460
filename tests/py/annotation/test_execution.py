"""On a GPU: every tactic, launched as an engine would, gives the right values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels import Case
from test_launch_abi import ALL, built, shapes

from torch_tensorrt.annotation._target import current_target

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here"
)


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
TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if not dtype.is_floating_point:
        return torch.randint(0, 9, shape, dtype=dtype, device="cuda")
    return torch.randn(shape, device="cuda").to(dtype)


def poisoned(like: torch.Tensor) -> torch.Tensor:
    return torch.full(like.shape, float("nan"), dtype=like.dtype, device="cuda")


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_every_tactic_gives_the_eager_result(case: Case, is_dynamic: bool) -> None:
    from driver import LoadedKernel

    inputs = case.dynamic if is_dynamic else case.static
    for launch in built(case, inputs, current_target()):
        kernel = LoadedKernel(launch)
        extras = len(launch.extras(shapes(inputs, 0)[0]))
        assert kernel.parameter_sizes() == (
            [8] * len(inputs) + [4] * extras + [8] * case.outputs
        )
        for extents in shapes(inputs, 4):
            tensors = [random(s, t.dtype) for s, t in zip(extents, inputs, strict=True)]
            before = [tensor.clone() for tensor in tensors]
            expected = REFERENCES[case.name](*tensors)
            expected = expected if isinstance(expected, tuple) else (expected,)
            metas = case.meta(*tensors)
            outputs = [
                poisoned(m) for m in (metas if isinstance(metas, tuple) else (metas,))
            ]
            kernel(tensors, outputs)
            torch.cuda.synchronize()
            for output, value in zip(outputs, expected, strict=True):
                tolerance = TOLERANCE[output.dtype]
                torch.testing.assert_close(
                    output, value.to(output.dtype), rtol=tolerance, atol=tolerance
                )
            for tensor, original in zip(tensors, before, strict=True):
                torch.testing.assert_close(tensor, original, rtol=0, atol=0)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_op_runs_eagerly_with_its_first_config(case: Case) -> None:
    built(case, case.static, current_target())
    op = getattr(torch.ops.abi, case.name)
    for extents in shapes(case.dynamic, 2):
        tensors = [
            random(s, t.dtype) for s, t in zip(extents, case.dynamic, strict=True)
        ]
        outputs, expected = op(*tensors), REFERENCES[case.name](*tensors)
        if not isinstance(expected, tuple):
            outputs, expected = (outputs,), (expected,)
        for output, value in zip(outputs, expected, strict=True):
            tolerance = TOLERANCE[output.dtype]
            torch.testing.assert_close(
                output, value.to(output.dtype), rtol=tolerance, atol=tolerance
            )
