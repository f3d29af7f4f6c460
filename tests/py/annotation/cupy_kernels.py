# SPDX-License-Identifier: BSD-3-Clause

"""Kernels launched with CuPy, as its users write them; needs CuPy."""

from __future__ import annotations

import cupy
import numpy as np
import torch
from cuda_kernels import SOURCE, cdiv

NAME = "shifted<float, 7>"

raw = cupy.RawKernel(SOURCE, "scaled", options=("--fmad=false",))
module = cupy.RawModule(code=SOURCE, name_expressions=(NAME,))


def launch_raw(x, out):
    n = x.numel()
    with cupy.cuda.Stream.from_external(torch.cuda.current_stream()):
        arguments = (x.data_ptr(), cupy.from_dlpack(out), np.int32(n), np.float32(3))
        raw((cdiv(n, 128),), (128,), arguments)


def launch_module(x, out):
    n = x.numel()
    arguments = (cupy.asarray(x), out.data_ptr(), n, np.float32(3))
    module.get_function(NAME)((cdiv(n, 128),), (128,), arguments)


ADDED = {launch_raw: 0, launch_module: 7}
