# SPDX-License-Identifier: BSD-3-Clause

"""A kernel that the CUDA driver has loaded, launched with TensorRT's arguments."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from .._target import SHARED_MEMORY
from ..errors import LaunchError


class Sizes(Protocol):
    """How a kernel is launched.

    Attributes:
        grid: blocks along x, y and z.
        block: threads along x, y and z.
        extras: the 32-bit arguments between inputs and outputs.
        shared_memory: dynamic, in bytes a block.
    """

    @property
    def grid(self) -> tuple[int, ...]: ...
    @property
    def block(self) -> tuple[int, ...]: ...
    @property
    def extras(self) -> tuple[int, ...]: ...
    @property
    def shared_memory(self) -> int: ...


def driver() -> Any:
    """The CUDA driver's functions.

    Raises:
        LaunchError: its Python bindings are not installed.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise LaunchError(
            "running kernels needs the CUDA driver's Python bindings: pip install "
            "cuda-bindings. A dry run without them: execute=False."
        ) from error
    return driver


class LoadedKernel:
    """One entry of a module, on the current device.

    Raises:
        LaunchError: the driver has no Python bindings, or does not load the code.
    """

    def __init__(self, code: str, entry: str) -> None:
        torch.cuda.current_stream().synchronize()  # makes torch's context current
        self._driver, self._entry = driver(), entry
        module = self._call("cuModuleLoadData", code.encode() + b"\0")
        unload = weakref.finalize(self, self._driver.cuModuleUnload, module)
        unload.atexit = False  # the context may be gone
        self._function = self._call("cuModuleGetFunction", module, entry.encode())

    def require_parameters(self, passed: Sequence[int]) -> None:
        """Raise unless its parameters take so many bytes each.

        Raises:
            LaunchError: they do not.
        """
        if (sizes := list(self._parameter_sizes())) != list(passed):
            raise LaunchError(
                f"{self._entry}: its parameters take {sizes} bytes; TensorRT would "
                f"pass {list(passed)}."
            )

    def _parameter_sizes(self) -> Iterator[int]:
        """Bytes of each parameter, as the driver knows them."""
        for index in itertools.count():
            found = self._driver.cuFuncGetParamInfo(self._function, index)
            if found[0] != self._driver.CUresult.CUDA_SUCCESS:
                return
            yield found[2]

    def launch(
        self, sizes: Sizes, inputs: Sequence[int], outputs: Sequence[int]
    ) -> None:
        """Launch on torch's current stream with TensorRT's arguments.

        It is a plain launch, as TensorRT's is taken to be. More than 48 KiB of dynamic
        shared memory has only a kernel for a target whose ``max_shared_memory`` says
        that TensorRT does more.

        Args:
            inputs, outputs: their addresses, those of hidden outputs last; the extras
                go between them.

        Raises:
            LaunchError: the driver does not launch it.
        """
        pointer, extra = (ctypes.c_void_p,), (ctypes.c_int32,)
        types = pointer * len(inputs) + extra * len(sizes.extras)
        types += pointer * len(outputs)
        self.launch_as_is(
            (*sizes.grid, *sizes.block),
            sizes.shared_memory,
            torch.cuda.current_stream().cuda_stream,
            ((*inputs, *sizes.extras, *outputs), types),
        )

    def launch_as_is(
        self,
        sizes: tuple[int, ...],
        shared_memory: int,
        stream: int,
        arguments: tuple[tuple[Any, ...], tuple[Any, ...]],
    ) -> None:
        """Launch with arguments in the kernel's own order.

        Args:
            sizes: blocks along x, y and z, then threads.
            shared_memory: dynamic, in bytes a block.
            stream: its handle.
            arguments: the values, and the types of ctypes that they get.

        Raises:
            LaunchError: the driver does not launch it.
        """
        if shared_memory > SHARED_MEMORY:
            attribute = self._driver.CUfunction_attribute
            most = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call("cuFuncSetAttribute", self._function, most, shared_memory)
        how = *sizes, shared_memory, stream, arguments, 0
        self._call("cuLaunchKernel", self._function, *how)

    def _call(self, function: str, *arguments: Any) -> Any:
        """What a function of the driver returns beside its status."""
        status, *values = getattr(self._driver, function)(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            said = f"{status.name} ({int(status)}): {text.decode()}"
            if status == self._driver.CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
                said += (
                    ". The code needs a newer driver. Compile it for this one: name "
                    "the CUDA version that nvidia-smi prints, "
                    "Target('sm_90', cuda='13.0')"
                )
            raise LaunchError(
                f"{self._entry}: {function}: the CUDA driver reports {said}."
            )
        return values[0] if values else None
