# SPDX-License-Identifier: BSD-3-Clause

"""A kernel language whose kernels are PTX text, and kernels that need a special launch.

``install`` makes it known as pip would. Each kernel takes x, out and n, both float32,
in blocks of 128 threads, and is right only if it gets what it needs.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv

from torch_tensorrt.annotation import backends

_recording = threading.local()


@dataclass(frozen=True)
class PTXKernel:
    """A kernel, and what its launch asks for.

    Attributes:
        scratch: bytes a block; the parameter follows the others.
        grid_is_known: the program says the grid, and not the compiled kernel alone.
    """

    name: str
    text: str
    shared_memory: int = 0
    cluster: tuple[int, int, int] = (1, 1, 1)
    scratch: tuple[int, ...] = ()
    grid_is_known: bool = True

    def launch(self, blocks: Any, *arguments: Any) -> None:
        _recording.on_launch(
            backends.CaughtLaunch(
                kernel=self,
                name=self.name,
                grid=(blocks,) if self.grid_is_known else None,
                arguments=tuple(
                    (f"argument {i}", value, False) for i, value in enumerate(arguments)
                ),
                options={},
            )
        )


@dataclass(frozen=True, eq=False)
class PTXSpec(backends.KernelSpec):
    backend: ClassVar[str] = "ptx"
    packages: ClassVar[tuple[str, ...]] = ()
    call: ClassVar[str] = "{}.launch(blocks, x, out, n)"
    options: ClassVar[Mapping[str, type]] = {}


def ptx(launch_fn: Callable[..., Any], **keywords: Any) -> PTXSpec:
    return PTXSpec.of(launch_fn, None, keywords=keywords)


class PTXBackend(backends.Backend):
    def toolchain(self) -> backends.Toolchain:
        return backends.Toolchain((("ptx", "1.0"),), compiler="")

    @contextlib.contextmanager
    def intercept(
        self, on_launch: backends.OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        _recording.on_launch = on_launch
        try:
            yield
        finally:
            del _recording.on_launch

    def compile(
        self, program: Any, target: Any, options: Any, aligned: bool
    ) -> backends.CompiledKernel:
        kernel = program.launch.kernel
        parameters = backends.Parameters(program, aligned)
        for argument in program.launch.arguments:
            if isinstance(argument, backends.Pointer):
                parameters.add_pointer(argument)
            else:
                parameters.add_extra(argument.expr)
        for size in kernel.scratch:
            parameters.add_scratch(size)
        grid = program.launch.grid
        if grid is None:  # as many blocks as the extra says
            (blocks,) = parameters.extras
            grid = (FloorDiv(blocks + 127, 128), sympy.S.One, sympy.S.One)
        return backends.CompiledKernel(
            code=kernel.text,
            slots=tuple(parameters.slots),
            extras=tuple(parameters.extras),
            grid=grid,
            block=(128, 1, 1),
            shared_memory=kernel.shared_memory,
            ptxas=backends.find_ptxas().path,
            scratch=tuple(parameters.scratch),
            cluster=kernel.cluster,
        )


def install(folder: Path, monkeypatch: Any) -> None:
    """Let the entry points name it, below ``folder``."""
    info = folder / "ptx_language-1.0.dist-info"
    info.mkdir()
    text = "Metadata-Version: 2.1\nName: ptx-language\nVersion: 1.0\n"
    (info / "METADATA").write_text(text)
    points = f"[{backends.GROUP}]\nptx = ptx_language:PTXBackend\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(folder))
    backends.backend.cache_clear()


# --- Kernels --------------------------------------------------------------------------

_FRAME = """
.version {version}
.target sm_{target}
.address_size 64
{arrays}
.visible .entry {name}(
    .param .u64 x_ptr, .param .u64 out_ptr, .param .u32 n{parameters}
)
.reqntid 128
{{
    .reg .pred %p<3>;
    .reg .f32 %f<3>;
    .reg .b32 %r<12>;
    .reg .b64 %rd<8>;
    ld.param.u32 %r0, [n];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.s32 %r3, %r1, 128, %r2;
    setp.lt.s32 %p0, %r3, %r0;
    ld.param.u64 %rd0, [x_ptr];
    ld.param.u64 %rd1, [out_ptr];
    mul.wide.s32 %rd2, %r3, 4;
    add.s64 %rd0, %rd0, %rd2;
    add.s64 %rd1, %rd1, %rd2;
    mov.f32 %f0, 0f00000000;
    @%p0 ld.global.f32 %f0, [%rd0];
{body}
    @%p0 st.global.f32 [%rd1], %f1;
    ret;
}}
"""


def _text(
    name: str, body: str, arrays: str = "", parameters: str = "", target: int = 90
) -> str:
    version = "8.0" if target >= 90 else "7.0"
    return _FRAME.format(
        name=name,
        body=body,
        arrays=arrays,
        parameters=parameters,
        version=version,
        target=target,
    )


def shared(size: int, static: int = 0, target: int = 90) -> PTXKernel:
    """out = x, by way of the last bytes of ``size`` bytes of dynamic shared memory.

    Args:
        static: bytes of static shared memory, whose last it uses too.
    """
    arrays = ".extern .shared .align 16 .b8 dynamic[];"
    body = f"""
    mov.u32 %r4, dynamic;
    and.b32 %r5, %r4, 1023;
    setp.ne.u32 %p1, %r5, 0;
    @%p1 trap;
    mad.lo.s32 %r6, %r2, 4, %r4;
    add.s32 %r6, %r6, {(size - 512) // 4 * 4};
    st.shared.f32 [%r6], %f0;
    bar.sync 0;
    ld.shared.f32 %f1, [%r6];"""
    if static:
        arrays += f"\n.shared .align 4 .b8 fixed[{static}];"
        body += f"""
    mov.u32 %r7, fixed;
    mad.lo.s32 %r7, %r2, 4, %r7;
    add.s32 %r7, %r7, {static - 512};
    st.shared.f32 [%r7], %f1;
    bar.sync 0;
    ld.shared.f32 %f1, [%r7];"""
    if size + static <= 48 * 1024:  # which dynamic memory of any launch may have
        body = body.replace("@%p1 trap;", "")
    return PTXKernel("shared", _text("shared", body, arrays, target=target), size)


def clustered(size: int, directives: str = "") -> PTXKernel:
    """out = x, by way of the shared memory of the next block of the cluster."""
    body = f"""
    mov.u32 %r4, mine;
    mad.lo.s32 %r4, %r2, 4, %r4;
    mov.u32 %r5, %cluster_ctarank;
    mov.u32 %r6, %cluster_nctarank;
    setp.ne.u32 %p1, %r6, {size};
    @%p1 trap;
    add.u32 %r7, %r5, 1;
    rem.u32 %r7, %r7, %r6;
    mapa.shared::cluster.u32 %r8, %r4, %r7;
    st.shared::cluster.f32 [%r8], %f0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    add.u32 %r7, %r5, 1;
    rem.u32 %r7, %r7, %r6;
    mapa.shared::cluster.u32 %r8, %r4, %r7;
    ld.shared::cluster.f32 %f1, [%r8];
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;"""
    text = _text("clustered", body, ".shared .align 4 .b8 mine[512];")
    text = text.replace(".reqntid 128", f".reqntid 128\n{directives}")
    return PTXKernel("clustered", text, cluster=(size, 1, 1))


def scratched(size: int = 512, grid_is_known: bool = True) -> PTXKernel:
    """out = x, by way of the block's slice of scratch memory, some time later."""
    body = f"""
    ld.param.u64 %rd3, [memory];
    and.b64 %rd4, %rd3, 127;
    setp.ne.u64 %p1, %rd4, 0;
    @%p1 trap;
    mul.wide.u32 %rd5, %r1, {size};
    add.s64 %rd3, %rd3, %rd5;
    mul.wide.u32 %rd5, %r2, 4;
    add.s64 %rd3, %rd3, %rd5;
    st.volatile.global.f32 [%rd3], %f0;
    mov.u32 %r4, 0;
$again:
    nanosleep.u32 2000;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 20;
    @%p1 bra $again;
    bar.sync 0;
    ld.volatile.global.f32 %f1, [%rd3];"""
    text = _text("scratched", body, parameters=", .param .u64 memory")
    return PTXKernel("scratched", text, scratch=(size,), grid_is_known=grid_is_known)


def launching(kernel: PTXKernel, per_cluster: bool = True) -> Callable[..., None]:
    """A launch function; its grid is a multiple of the cluster, ``per_cluster``."""

    def launch(x: torch.Tensor, out: torch.Tensor) -> None:
        n, size = x.numel(), kernel.cluster[0] if per_cluster else 1
        blocks = (n + 128 * size - 1) // (128 * size) * size
        kernel.launch(blocks, x, out, n)

    return launch


def copies(kernels: Sequence[PTXKernel]) -> list[Any]:
    """A spec for each kernel."""
    return [ptx(launching(kernel)) for kernel in kernels]
