"""Load and launch compiled code through the CUDA driver, as an engine does."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from torch_tensorrt.annotation.errors import DryRunError

_WITHOUT_OPTING_IN = 49152  # dynamic shared memory a block may have, in bytes


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DryRunError(
            "running kernels needs the CUDA driver's Python bindings: "
            "pip install cuda-bindings."
        ) from error
    return driver


def _check(result: tuple[Any, ...], what: str) -> Any:
    if result[0] != _driver().CUresult.CUDA_SUCCESS:
        raise DryRunError(f"{what}: the CUDA driver says {result[0].name}.")
    return result[1] if len(result) > 1 else None


class LoadedKernel:
    """One entry of a module, on the current device.

    Raises:
        DryRunError: the driver does not load the code.
    """

    def __init__(self, code: str | bytes, entry: str) -> None:
        torch.cuda.current_stream().synchronize()  # makes torch's context current
        image = code.encode() + b"\0" if isinstance(code, str) else code
        driver = _driver()
        self._entry = entry
        self._module = _check(driver.cuModuleLoadData(image), f"loading {entry}")
        found = driver.cuModuleGetFunction(self._module, entry.encode())
        self._function = _check(found, f"finding {entry}")

    def parameter_sizes(self) -> list[int]:
        """Bytes of each parameter, as the driver knows them."""
        driver = _driver()
        sizes: list[int] = []
        while True:
            status, _, size = driver.cuFuncGetParamInfo(self._function, len(sizes))
            if status != driver.CUresult.CUDA_SUCCESS:
                return sizes
            sizes.append(size)

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        shared_memory: int,
        pointers: tuple[Sequence[int], Sequence[int]],
        extras: Sequence[int],
    ) -> None:
        """Launch on torch's current stream with TensorRT's arguments.

        Args:
            grid, block: along x, y and z.
            shared_memory: dynamic, in bytes.
            pointers: addresses of the inputs, and of the outputs.
            extras: the 32-bit integers between them.
        """
        driver = _driver()
        if shared_memory > _WITHOUT_OPTING_IN:
            attribute = driver.CUfunction_attribute
            _check(
                driver.cuFuncSetAttribute(
                    self._function,
                    attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    shared_memory,
                ),
                f"{self._entry} with {shared_memory} bytes of shared memory",
            )
        inputs, outputs = pointers
        types = [ctypes.c_void_p] * len(inputs) + [ctypes.c_int32] * len(extras)
        types += [ctypes.c_void_p] * len(outputs)
        _check(
            driver.cuLaunchKernel(
                self._function,
                *grid,
                *block,
                shared_memory,
                torch.cuda.current_stream().cuda_stream,
                ((*inputs, *extras, *outputs), tuple(types)),
                0,
            ),
            f"launching {self._entry}",
        )
