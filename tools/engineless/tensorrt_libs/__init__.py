# SPDX-License-Identifier: BSD-3-Clause

"""The engineless environment's stand-in for the package of TensorRT's libraries.

TensorRT's bindings import this package before they load, so that the libraries
they link against are in the process already; the loader matches them by soname.
Here `libnvinfer` is the lean runtime plus stubs, and nothing can build an engine.

`import torch_tensorrt` asks for the current CUDA device. This module is imported
before it does, so it is also the place that answers where there is no device.
`torch.cuda.is_available()` is left alone and stays False.
"""

import ctypes
from pathlib import Path

import torch

LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")


def _load_libraries() -> None:
    for name in LIBRARIES:
        (library,) = Path(__file__).parent.glob(f"{name}.so.*")
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _answer_without_a_device() -> None:
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    torch.cuda.current_device = lambda: 0
    if not hasattr(torch._C, "_CudaDeviceProperties"):  # a CPU build of torch
        torch._C._CudaDeviceProperties = type("_CudaDeviceProperties", (), {})


_load_libraries()
if not torch.cuda.is_available():
    _answer_without_a_device()
