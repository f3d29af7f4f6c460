"""Load and launch a tactic's code through the CUDA driver, as an engine would."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from cuda.bindings import driver

from torch_tensorrt.annotation._builder import BuiltLaunch


def _check(result: tuple[object, ...]) -> object:
    if result[0] != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {result[0]}")
    return result[1] if len(result) > 1 else None


class LoadedKernel:
    """The entry of a :class:`BuiltLaunch` on the current device."""

    def __init__(self, launch: BuiltLaunch) -> None:
        torch.cuda.current_stream()  # makes torch's context current
        self._launch = launch
        self._module = _check(driver.cuModuleLoadData(launch.code.encode() + b"\0"))
        self._function = _check(
            driver.cuModuleGetFunction(self._module, launch.entry.encode())
        )

    def parameter_sizes(self) -> list[int]:
        """Bytes of each parameter, as the driver knows them."""
        sizes: list[int] = []
        while True:
            status, _, size = driver.cuFuncGetParamInfo(self._function, len(sizes))
            if status != driver.CUresult.CUDA_SUCCESS:
                return sizes
            sizes.append(size)

    def __call__(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> None:
        """Launch with TensorRT's arguments: inputs, extras, outputs."""
        extents = tuple(tuple(tensor.shape) for tensor in inputs)
        values = (
            *[tensor.data_ptr() for tensor in inputs],
            *self._launch.extras(extents),
            *[tensor.data_ptr() for tensor in outputs],
        )
        types = (
            *[ctypes.c_void_p] * len(inputs),
            *[ctypes.c_int32] * (len(values) - len(inputs) - len(outputs)),
            *[ctypes.c_void_p] * len(outputs),
        )
        _check(
            driver.cuLaunchKernel(
                self._function,
                *self._launch.grid(extents),
                *self._launch.block(extents),
                self._launch.shared_memory(extents),
                torch.cuda.current_stream().cuda_stream,
                (values, types),
                0,
            )
        )
