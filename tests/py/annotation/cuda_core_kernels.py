# SPDX-License-Identifier: BSD-3-Clause

"""Kernels launched with ``cuda.core``, as its users write them; needs cuda-core."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import torch
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch
from cuda_kernels import SOURCE, cdiv

NAMES = Device, LaunchConfig, Program, ProgramOptions, launch, np, ctypes


@functools.cache
def compiled(arch: str, k: int) -> Any:
    options = ProgramOptions(std="c++17", arch=f"sm_{arch}", use_fast_math=True)
    name = f"shifted<float, {k}>"
    program = Program(SOURCE, "c++", options)
    return program.compile("cubin", name_expressions=(name,)).get_kernel(name)


def launch_cached(x, out, K=3):
    device = Device()
    device.set_current()
    stream = device.create_stream(torch.cuda.current_stream())
    n = x.numel()
    config = LaunchConfig(grid=cdiv(n, 128), block=128)
    numbers = (np.uint64(n), ctypes.c_float(0.5))
    kernel = compiled(device.arch, K)
    launch(stream, config, kernel, x.data_ptr(), out.data_ptr(), *numbers)


def launch_cooperative(x, out):
    launch_plain(x, out, is_cooperative=True)


def launch_plain(x, out, **asks):
    import cuda.core as core

    n = x.numel()
    program = core.Program(SOURCE, "c++", core.ProgramOptions(fma=False))
    kernel = program.compile("ptx").get_kernel("scaled")
    config = core.LaunchConfig(grid=(cdiv(n, 64),), block=(64, 1, 1), **asks)
    arguments = x.data_ptr(), out.data_ptr(), np.int32(n), np.float32(2)
    core.launch(core.Device().default_stream, config, kernel, *arguments)
