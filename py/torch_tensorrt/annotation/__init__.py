# SPDX-License-Identifier: BSD-3-Clause

"""Kernels written in Python, embedded in TensorRT engines ahead of time.

Hand over the function that launches your kernel; every config is a tactic::

    import torch
    import torch_tensorrt.annotation as tta
    import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
    from kernels import launch_silu  # launch_silu(x, out, BLOCK=256)

    trt_plugins.custom_op(
        "mine::silu",
        impl=tta.custom_plugin(
            tta.triton(launch_silu, configs=[{"BLOCK": 256}, {"BLOCK": 1024}]),
            meta_impl=lambda x: torch.empty_like(x)),
        supports_dynamic_shapes=True,
    )
    print(tta.dry_run("mine::silu", [torch.empty(8, 4096)], target="sm_90"))

``torch_tensorrt.compile`` then makes each call of ``torch.ops.mine.silu`` a plugin
layer.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import errors as errors

if TYPE_CHECKING:
    from . import testing as testing
    from ._dry_run import dry_run as dry_run
    from ._dry_run.execute import execute as execute
    from ._dry_run.program_report import ProgramReport as ProgramReport
    from ._dry_run.report import DryRunReport as DryRunReport
    from ._explain import adopt as adopt
    from ._explain import explain as explain
    from ._explain.report import ModelReport as ModelReport
    from ._plugin import unregister as unregister
    from ._specs import CustomPluginSpec as CustomPluginSpec
    from ._specs import custom_plugin as custom_plugin
    from ._specs import normalize_impl_to_spec as normalize_impl_to_spec
    from ._target import Target as Target
    from .backends.cuda import CUDAKernel as CUDAKernel
    from .backends.cuda import CUDASpec as CUDASpec
    from .backends.cuda import cuda as cuda
    from .backends.cuda import ptx as ptx
    from .backends.cutedsl import CuTeDSLSpec as CuTeDSLSpec
    from .backends.cutedsl import cutedsl as cutedsl
    from .backends.cutile import CuTileSpec as CuTileSpec
    from .backends.cutile import cutile as cutile
    from .backends.triton import TritonSpec as TritonSpec
    from .backends.triton import triton as triton

__version__ = "0.2.0.dev0"

# Where the public names are. Each is imported when it is first used: importing
# torch_tensorrt imports this package, also for those who need nothing of it.
_MODULES = {
    "CUDAKernel": "backends.cuda",
    "CUDASpec": "backends.cuda",
    "CuTeDSLSpec": "backends.cutedsl",
    "CuTileSpec": "backends.cutile",
    "CustomPluginSpec": "_specs",
    "DryRunReport": "_dry_run.report",
    "ModelReport": "_explain.report",
    "ProgramReport": "_dry_run.program_report",
    "Target": "_target",
    "TritonSpec": "backends.triton",
    "adopt": "_explain",
    "cuda": "backends.cuda",
    "custom_plugin": "_specs",
    "cutedsl": "backends.cutedsl",
    "cutile": "backends.cutile",
    "dry_run": "_dry_run",
    "execute": "_dry_run.execute",
    "explain": "_explain",
    "normalize_impl_to_spec": "_specs",
    "ptx": "backends.cuda",
    "triton": "backends.triton",
    "unregister": "_plugin",
}

__all__ = [
    "CUDAKernel",
    "CUDASpec",
    "CuTeDSLSpec",
    "CuTileSpec",
    "CustomPluginSpec",
    "DryRunReport",
    "ModelReport",
    "ProgramReport",
    "Target",
    "TritonSpec",
    "__version__",
    "adopt",
    "cuda",
    "custom_plugin",
    "cutedsl",
    "cutile",
    "dry_run",
    "errors",
    "execute",
    "explain",
    "normalize_impl_to_spec",
    "ptx",
    "testing",
    "triton",
    "unregister",
]


def __getattr__(name: str) -> object:
    """The public name ``name`` of ``_MODULES``, or the module :mod:`.testing`."""
    if name == "testing":
        return import_module(".testing", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
