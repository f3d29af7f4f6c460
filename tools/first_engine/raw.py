# SPDX-License-Identifier: BSD-3-Clause

"""Plugins in TensorRT's own terms, of kernels in PTX, and networks of one such layer.

They ask how TensorRT loads and launches code, without anything of this library between.
The kernels take inputs, the number of elements, and outputs, all float32 and flat.
"""

import inspect
import subprocess
import tempfile
from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ptx_language
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from steps import (
    CAN_BUILD,
    CAPABILITY,
    HAS_GPU,
    LOG,
    Engine,
    NotBuilt,
    Runs,
    UpToTheBuilder,
)

from torch_tensorrt.annotation._code.loaded import LoadedKernel
from torch_tensorrt.annotation._dry_run.builder import dimensions, expression_builder
from torch_tensorrt.annotation._tensors import FORMATS, Range
from torch_tensorrt.annotation.backends import find_ptxas
from torch_tensorrt.annotation.errors import LaunchError

ARCH = f"sm_{CAPABILITY[0]}{CAPABILITY[1]}"
OLDEST_ISA = "8.0" if CAPABILITY <= (9, 0) else "8.8"
SIZES = Range(1, 1000, 5000)


@dataclass(frozen=True)
class Kernel:
    """PTX, and what its launch asks for.

    Attributes:
        body: from ``%f0``, the element of x, to ``%f1``, that of the output.
        extras: names of the 32-bit arguments after the number of elements.
        parameters: names of the pointers after the output.
        second: whether there is a second input, ``y``.
        shared: bytes of dynamic shared memory.
        blocks: the grid is a multiple of it.
    """

    body: str = "    mov.f32 %f1, %f0;"
    entry: str = "first_kernel"
    isa: str = OLDEST_ISA
    target: str = ARCH
    arrays: str = ""
    directives: str = ""
    extras: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    second: bool = False
    shared: int = 0
    blocks: int = 1

    @property
    def text(self) -> str:
        pointers = ["x", *(["y"] if self.second else [])]
        named = [f"u64 {name}" for name in pointers]
        named += [f"u32 {name}" for name in ("n", *self.extras)]
        named += [f"u64 {name}" for name in ("out", *self.parameters)]
        how = self.directives, self.target, self.isa
        return ptx_language.text(self.entry, self.body, self.arrays, named, *how)


def assembled(kernel: Kernel) -> bytes:
    """What ``ptxas`` makes of a kernel.

    Raises:
        NotBuilt: it refuses the kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.with_suffix(".ptx").write_text(kernel.text)
        command = [find_ptxas().path, f"-arch={kernel.target}"]
        command += [f"{path}.ptx", "-o", f"{path}.cubin"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise NotBuilt(f"ptxas: {done.stderr.strip()}")
        return path.with_suffix(".cubin").read_bytes()


@dataclass(frozen=True)
class Plugin:
    """A plugin of float32 tensors.

    Attributes:
        tactics: a kernel each.
        hidden: whether it has a second output, of which the network uses nothing.
        aliased: whether its output is its input.
        code: what is handed over in place of the kernel's PTX.
        shape: of its tensors, if they are static.
        packed: TensorRT's name of the format of its inputs.
        extras: from the number of elements to the kernels' extras: TensorRT's
            expressions, and ints in a rehearsal.
        sizes: of its tensors, if they are dynamic.
    """

    name: str
    tactics: tuple[Kernel, ...] = (Kernel(),)
    hidden: bool = False
    aliased: bool = False
    code: bytes | None = None
    shape: tuple[int, ...] = ()
    packed: str = "LINEAR"
    extras: Callable[[Any], tuple[Any, ...]] = lambda n: ()
    sizes: Range = SIZES

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "y") if self.tactics[0].second else ("x",)

    def register(self) -> None:
        """Let TensorRT know it, with the decorators of ``tensorrt.plugin``."""
        op, desc = f"first::{self.name}", trtp.TensorDesc
        outputs = tuple[desc, desc] if self.hidden else tuple[desc]

        def adapted(function: Any, returns: Any, **more: Any) -> Any:
            kinds = dict.fromkeys(self.inputs, desc) | more
            how = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters = [
                inspect.Parameter(name, how, annotation=kind)
                for name, kind in kinds.items()
            ]
            signature = inspect.Signature(parameters, return_annotation=returns)
            function.__signature__ = signature
            return function

        def describe(x: Any, *_: Any) -> Any:
            made = x.aliased() if self.aliased else x.like()
            return (made, x.like()) if self.hidden else (made,)

        def autotune(*args: Any) -> Any:
            inputs, outputs = len(self.inputs), 1 + self.hidden
            formats = [self.packed] * inputs + ["LINEAR"] * outputs
            each = ", ".join(["FP32"] * len(formats)), ", ".join(formats)
            numbers = list(range(1, 1 + len(self.tactics)))
            return [trtp.AutoTuneCombination(*each, numbers)]

        def launch(x: Any, *rest: Any) -> Any:
            kernel = self.tactics[max(rest[-1], 1) - 1]
            n, params = x.shape_expr[0], trtp.KernelLaunchParams()
            for axis in range(1, len(self.shape)):
                n = n * x.shape_expr[axis]
            params.grid_x = trtp.cdiv(n, 128 * kernel.blocks) * kernel.blocks
            params.block_x, params.shared_mem = 128, kernel.shared
            extras = [trtp.SymInt32(extra) for extra in (n, *self.extras(n))]
            extras = trtp.SymIntExprs.from_tuple(extras)
            return kernel.entry, self.code or kernel.text.encode(), params, extras

        trtp.register(op)(adapted(describe, outputs))
        combinations = list[trtp.AutoTuneCombination]
        trtp.autotune(op)(adapted(autotune, combinations, outputs=outputs))
        code = str | bytes
        returns = tuple[code, code, trtp.KernelLaunchParams, trtp.SymIntExprs]
        trtp.aot_impl(op)(adapted(launch, returns, outputs=outputs, tactic=int))

    def _up_to_the_builder(self) -> None:
        """Make the builder's calls on the plugin object, and assemble its code."""
        creator = trt.get_plugin_registry().get_creator(self.name, "1", "first")
        when = trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.STRICT_AOT
        fields = trt.PluginFieldCollection([])
        plugin = creator.create_plugin(self.name, "first", fields, *when)
        count = len(self.inputs)
        extents = self.shape or (self.sizes,)
        ranks = [len(extents)] * count
        plugin.get_output_data_types([trt.DataType.FLOAT] * count, ranks)
        sizes = [dimensions(index, extents) for index in range(count)]
        plugin.get_output_shapes(sizes, [], expression_builder())
        descs = []
        for _ in range(count + plugin.get_num_outputs()):
            desc = trt.DynamicPluginTensorDesc()
            desc.desc.type, desc.desc.dims = trt.DataType.FLOAT, self.shape or (-1,)
            ends = self.sizes.min, self.sizes.opt, self.sizes.max
            desc.min, desc.opt, desc.max = (self.shape or (size,) for size in ends)
            descs.append(desc)
        offered = plugin.get_supported_format_combinations(descs, count)
        for desc, kind in zip(descs, offered, strict=True):
            desc.desc.type, desc.desc.format = kind.type, kind.format
        plugin.configure_plugin(descs[:count], descs[count:])
        for tactic in plugin.get_valid_tactics():
            plugin.set_tactic(tactic)
            holders: Any = SimpleNamespace(), UserDict()
            asked = sizes, descs, count
            plugin.get_launch_params(*asked, *holders, expression_builder())
            kinds = [d.desc for d in descs]
            entry, code = plugin.get_kernel(kinds[:count], kinds[count:])
            if self.code is None:
                assert f".entry {entry}(" in code.decode()
        known = find_ptxas().ptx_version
        for kernel in self.tactics:
            if int(kernel.isa.replace(".", "")) <= known:
                assembled(kernel)

    def engine(
        self, twice: bool = False, bound_packed: bool = False, between: bool = False
    ) -> Runs:
        """An engine of a network with this plugin alone, behind an identity layer
        where its input is written.

        Args:
            twice: both inputs of the plugin are the same tensor of the network.
            bound_packed: the network's inputs are in the plugin's format as well.
            between: the plugin is between layers of TensorRT's own, which give the
                absolute value.

        Raises:
            NotBuilt: TensorRT built nothing.
            UpToTheBuilder: there is no builder, and no GPU for a rehearsal.
        """
        self.register()
        if not CAN_BUILD:
            self._up_to_the_builder()
            if HAS_GPU and self.code is None:
                return Rehearsal(self, twice, bound_packed)
            raise UpToTheBuilder(f"plugin first::{self.name}, {ARCH}")
        builder = trt.Builder(LOG)
        network, config = builder.create_network(0), builder.create_builder_config()
        profile = builder.create_optimization_profile()
        names = self.inputs[:1] if twice else self.inputs
        shape = self.shape or (-1,)
        tensors = [network.add_input(name, trt.float32, shape) for name in names]
        if not self.shape:
            ends = [(getattr(self.sizes, which),) for which in ("min", "opt", "max")]
            for name in names:
                profile.set_shape(name, *ends)
            config.add_optimization_profile(profile)
        for tensor in tensors if bound_packed else ():
            format_ = getattr(trt.TensorFormat, self.packed)
            tensor.allowed_formats = 1 << int(format_)
        given = tensors * 2 if twice else list(tensors)
        if between:
            layers = [network.add_unary(t, trt.UnaryOperation.ABS) for t in given]
            given = [layer.get_output(0) for layer in layers]
        if self.aliased:
            feature = trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03
            config.set_preview_feature(feature, True)
            given[0] = network.add_identity(given[0]).get_output(0)
        create = getattr(trtp.op.first, self.name)
        layer = network.add_plugin(create(*given), aot=True)
        if layer is None:
            raise NotBuilt(f"the layer is not added: {'; '.join(LOG.errors)}")
        if between:
            layer = network.add_unary(layer.get_output(0), trt.UnaryOperation.ABS)
        network.mark_output(layer.get_output(0))
        blob = builder.build_serialized_network(network, config)
        if blob is None:
            raise NotBuilt("; ".join(LOG.errors) or "no engine, and no message")
        return Engine(bytes(blob))


class Rehearsal(Runs):
    """The first kernel of a plugin under a plain launch, as TensorRT's is taken to be.

    A GPU without TensorRT's builder tries the steps in this way. It shows that a
    kernel does what a step believes; what TensorRT does, it does not show.
    """

    def __init__(self, plugin: Plugin, twice: bool, bound_packed: bool) -> None:
        self._plugin, self._twice, self._is_packed = plugin, twice, bound_packed
        kernel, self.trt = plugin.tactics[0], self
        try:
            self._loaded = LoadedKernel(kernel.text, kernel.entry)
        except LaunchError as error:
            raise NotBuilt(str(error)) from error

    def create_execution_context(self) -> dict[str, torch.Tensor]:
        """The buffers of a context, by the kernel's parameter."""
        return {}

    def enqueue(
        self, tensors: Sequence[torch.Tensor], context: Any, stream: Any
    ) -> list[torch.Tensor]:
        plugin, kernel = self._plugin, self._plugin.tactics[0]
        shape = plugin.shape or tuple(tensors[0].shape)
        given = list(tensors) * (1 + self._twice)
        if plugin.packed != "LINEAR" and not self._is_packed:
            layout = FORMATS[plugin.packed]
            buffer = torch.zeros(layout.buffer_shape(shape), device="cuda")
            given = [layout.pack(given[0], buffer)]
        if plugin.aliased:
            given[0] = given[0].clone()
        out = given[0] if plugin.aliased else torch.empty(shape, device="cuda")
        if plugin.hidden:
            context["hidden"] = torch.empty(shape, device="cuda")
        n = out.numel()
        blocks = -(-n // (128 * kernel.blocks)) * kernel.blocks
        launch = SimpleNamespace(
            grid=(blocks, 1, 1),
            block=(128, 1, 1),
            extras=(n, *plugin.extras(n)),
            shared_memory=kernel.shared,
        )
        more = [context.get(name) for name in kernel.parameters]
        after = [0 if t is None else t.data_ptr() for t in more]
        torch.cuda.synchronize()
        if n == 0:
            return [out]
        try:
            with torch.cuda.stream(stream):
                addresses = [t.data_ptr() for t in given]
                self._loaded.launch(launch, addresses, [out.data_ptr(), *after])
        except LaunchError as error:
            raise NotBuilt(str(error)) from error
        context["inputs"] = given  # as long as the launch may run
        return [out]


def sample(size: int = 1000) -> torch.Tensor:
    return torch.randn(size, device="cuda")
