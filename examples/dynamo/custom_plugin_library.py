# SPDX-License-Identifier: BSD-3-Clause

"""
.. _custom_plugin_library:

A public library's norm, in one line
====================================

Kernel libraries come with functions that allocate, choose a block size and launch. Here
``rms_norm`` of `conch <https://pypi.org/project/conch-triton-kernels>`__ goes into an
engine as it is: no line of it is copied or changed. An op calls it, and
``impl=tta.triton()`` is all that TensorRT needs.
"""

# %%
# The op
# ------
# ``pip install conch-triton-kernels`` brings the library, which nothing else here
# needs.

import inspect

import torch
from engine_or_dry_run import show

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

try:
    from conch.ops.normalization.rms_norm import rms_norm as rms_norm_of_conch
except ImportError:
    raise SystemExit("This needs conch: pip install conch-triton-kernels") from None


@torch.library.custom_op("library::rms_norm", mutates_args=())
def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rms_norm_of_conch(x, weight, 1e-6)


rms_norm.register_fake(lambda x, weight: torch.empty_like(x))

# %%
# One line
# --------

trt_plugins.custom_op(
    "library::rms_norm", impl=tta.triton(), supports_dynamic_shapes=True
)

# %%
# An engine, or a dry run
# -----------------------

WIDTH = 1024


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(WIDTH))
        self.linear = torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(rms_norm(x, self.weight))


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    return (x.float() * scale).to(x.dtype) * weight


def origin(report) -> str:
    tactic = report.tactics[0]
    launch = tactic.at((37, WIDTH), (WIDTH,))
    lines = len(inspect.getsource(inspect.getmodule(rms_norm_of_conch)).splitlines())
    return (
        f"For 37 rows, TensorRT would launch {launch.grid[0]} blocks of "
        f"{launch.block[0]} threads: what conch's own function launches. None of the "
        f"{lines} lines of {rms_norm_of_conch.__module__} was changed."
    )


if __name__ == "__main__":
    model = Block().half().eval()
    rows = torch_tensorrt.Input(
        min_shape=(2, WIDTH),
        opt_shape=(64, WIDTH),
        max_shape=(4096, WIDTH),
        dtype=torch.float16,
    )
    weight = torch_tensorrt.Input((WIDTH,), dtype=torch.float16)
    show(
        model,
        lambda x: x + model.linear(plain(x, model.weight)),
        [rows],
        lambda target: tta.dry_run(
            "library::rms_norm", [rows, weight], target, reference=plain
        ),
        summary=origin,
    )
