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
    metadata = "Metadata-Version: 2.1\nName: ptx-language\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata)
    points = f"[{backends.GROUP}]\nptx = ptx_language:PTXBackend\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(folder))
    backends.backend.cache_clear()


# --- Kernels --------------------------------------------------------------------------

_FRAME = """
.version {isa}
.target {target}
.address_size 64
{arrays}
.visible .entry {name}({parameters})
.reqntid 128
{directives}
{{
    .reg .pred %p<4>;
    .reg .f32 %f<8>;
    .reg .b32 %r<12>;
    .reg .b64 %rd<16>;
    ld.param.u32 %r0, [n];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.s32 %r3, %r1, 128, %r2;
    setp.lt.s32 %p0, %r3, %r0;
    ld.param.u64 %rd0, [x];
    ld.param.u64 %rd1, [out];
    mul.wide.s32 %rd2, %r3, 4;
    add.s64 %rd3, %rd0, %rd2;
    add.s64 %rd4, %rd1, %rd2;
    mov.f32 %f0, 0f00000000;
    @%p0 ld.global.f32 %f0, [%rd3];
{body}
    @%p0 st.global.f32 [%rd4], %f1;
    ret;
}}
"""


def text(
    name: str,
    body: str,
    arrays: str = "",
    parameters: Sequence[str] = ("u64 x", "u64 out", "u32 n"),
    directives: str = "",
    target: str = "sm_90",
    isa: str = "8.0",
) -> str:
    """A kernel of float32 tensors in blocks of 128 threads, an element a thread.

    Args:
        body: from ``%f0``, the element of x, to ``%f1``, that of out. It finds the
            addresses of both tensors in ``%rd0`` and ``%rd1``, the element's offset in
            ``%rd2``, the block in ``%r1``, and the thread in ``%r2``.
    """
    return _FRAME.format(
        name=name,
        body=body,
        arrays=arrays,
        parameters=", ".join(f".param .{each}" for each in parameters),
        directives=directives,
        isa=isa,
        target=target,
    )


def through_shared(array: str, size: int, source: str = "%f0") -> str:
    """The body of a copy by way of the last of an array's ``size`` bytes."""
    return f"""
    mov.u32 %r4, {array};
    mad.lo.s32 %r5, %r2, 4, %r4;
    add.s32 %r5, %r5, {(size - 512) // 4 * 4};
    st.shared.f32 [%r5], {source};
    bar.sync 0;
    ld.shared.f32 %f1, [%r5];"""


def through_cluster(size: int) -> str:
    """The body of a copy by way of the next block's array ``mine`` of 512 bytes."""
    return f"""
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
    ld.shared::cluster.f32 %f1, [%r8];
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;"""


MINE = ".shared .align 4 .b8 mine[512];"


def shared(size: int, static: int = 0, target: int = 90) -> PTXKernel:
    """out = x, by way of the last bytes of ``size`` bytes of dynamic shared memory.

    Args:
        static: bytes of static shared memory, whose last it uses too.
    """
    arrays = ".extern .shared .align 16 .b8 dynamic[];"
    body = through_shared("dynamic", size)
    if size + static > 48 * 1024:  # less may be dynamic, in any launch
        body += """
    and.b32 %r6, %r4, 1023;
    setp.ne.u32 %p1, %r6, 0;
    @%p1 trap;"""
    if static:
        arrays += f"\n.shared .align 4 .b8 fixed[{static}];"
        body += through_shared("fixed", static, "%f1")
    how = {"target": f"sm_{target}", "isa": "8.0" if target >= 90 else "7.0"}
    return PTXKernel("shared", text("shared", body, arrays, **how), size)


def clustered(size: int, directives: str = "") -> PTXKernel:
    """out = x, by way of the shared memory of the next block of the cluster."""
    body = through_cluster(size)
    code = text("clustered", body, MINE, directives=directives)
    return PTXKernel("clustered", code, cluster=(size, 1, 1))


def scratched(size: int = 512, grid_is_known: bool = True) -> PTXKernel:
    """out = x, by way of the block's slice of scratch memory, some time later."""
    body = f"""
    ld.param.u64 %rd5, [memory];
    and.b64 %rd6, %rd5, 127;
    setp.ne.u64 %p1, %rd6, 0;
    @%p1 trap;
    mul.wide.u32 %rd7, %r1, {size};
    add.s64 %rd5, %rd5, %rd7;
    mul.wide.u32 %rd7, %r2, 4;
    add.s64 %rd5, %rd5, %rd7;
    st.volatile.global.f32 [%rd5], %f0;
    mov.u32 %r4, 0;
$again:
    nanosleep.u32 2000;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 20;
    @%p1 bra $again;
    bar.sync 0;
    ld.volatile.global.f32 %f1, [%rd5];"""
    parameters = ("u64 x", "u64 out", "u32 n", "u64 memory")
    code = text("scratched", body, parameters=parameters)
    return PTXKernel("scratched", code, scratch=(size,), grid_is_known=grid_is_known)


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
