# SPDX-License-Identifier: BSD-3-Clause

"""Steps that ask how TensorRT loads and launches code: hand-written PTX, no toolchain.

What an output holds is the answer: an address, a parameter, or the input by way of the
memory that is asked about.
"""

from __future__ import annotations

from typing import Any

import tensorrt.plugin as trtp
import torch
from ptx_language import MINE, through_cluster, through_shared
from raw import ARCH, Kernel, Plugin, assembled, sample
from steps import CAN_BUILD, CAPABILITY, HAS_GPU, STEPS, Bench, NotHere, Step, step

from torch_tensorrt.annotation._target import newest_ptx_isa
from torch_tensorrt.annotation._tensors import Range


def is_copy(bench: Bench, ask: str, plugin: Plugin) -> None:
    """Whether the plugin builds, and gives its input at several sizes."""

    def run() -> None:
        engine = plugin.engine()
        for size in (1000, 1, 4999, 129):
            x = sample(size)
            bench.same(ask, engine(x), x)

    bench.attempt(ask, run)


def says(
    bench: Bench,
    ask: str,
    plugin: Plugin,
    right: float,
    seen: str = "{:.0f}",
    x: torch.Tensor | None = None,
    runs: str = "",
    **how: bool,
) -> None:
    """Whether every element of the output is the number ``right``.

    Args:
        seen: in what words an element is told.
        x: the input; None for any.
        runs: what is answered as well, if the engine is built, and runs.
    """

    def run() -> None:
        engine = plugin.engine(**how)
        (y,) = engine(sample() if x is None else x)
        if runs:
            bench.answer(runs, True)
        found = y.unique().tolist()
        words = ", ".join(seen.format(each) for each in found[:5])
        bench.answer(ask, found == [right], words)

    bench.attempt(runs or ask, run)


@step(
    "a copy in PTX, with the number of elements as a 32-bit argument",
    runs="A kernel is launched with inputs, 32-bit arguments, outputs, in this order, "
    "and grid and arguments follow the shape.",
)
def ptx_copy(bench: Bench) -> None:
    is_copy(bench, "runs", Plugin("copy"))


@step(
    "an empty tensor",
    nothing="A plugin is not launched for an empty tensor, and that is no error.",
)
def ptx_empty(bench: Bench) -> None:
    def run() -> None:
        engine = Plugin("empty", sizes=Range(0, 1000, 5000)).engine()
        for size in (1000, 0, 129):
            x = sample(size)
            bench.same("nothing", engine(x), x)

    bench.attempt("nothing", run)


@step(
    "expressions of the shape",
    floor="// rounds down below zero.",
    ceiling="cdiv rounds up below zero.",
    wide="Products on the way to an argument have 64 bits.",
)
def ptx_expressions(bench: Bench) -> None:
    # Of 1000 elements; (function, what it gives)
    asked: dict[str, tuple[Any, int]] = {
        "floor": (lambda n: ((n - 2000) // 16,), -63),
        "ceiling": (lambda n: (_ceiling(n - 2000, 16),), -62),
        "wide": (lambda n: (n * 3_000_000 // 3_000_000,), 1000),
    }
    body = """
    ld.param.u32 %r4, [extra];
    cvt.rn.f32.s32 %f1, %r4;"""
    kernels = (Kernel(body, extras=("extra",)),)
    for ask, (function, right) in asked.items():
        plugin = Plugin(f"expression_{ask}", kernels, extras=function)
        says(bench, ask, plugin, right, f"{{:.0f}}, and right is {right}")


def _ceiling(value: Any, divisor: int) -> Any:
    return -(-value // divisor) if isinstance(value, int) else trtp.cdiv(value, divisor)


@step(
    "where TensorRT puts tensors",
    aligned="Tensors between layers are at multiples of 16 bytes.",
)
def ptx_alignment(bench: Bench) -> None:
    body = """
    or.b64 %rd5, %rd0, %rd1;
    and.b64 %rd5, %rd5, 15;
    cvt.rn.f32.u64 %f1, %rd5;"""
    plugin = Plugin("alignment", (Kernel(body),))
    says(bench, "aligned", plugin, 0, "{:.0f} bytes past one", between=True)


@step(
    "several tactics of one plugin",
    runs="Each tactic is asked for, and one of them is in the engine.",
    together="Tactics of one entry name do not collide.",
)
def ptx_tactics(bench: Bench) -> None:
    own = tuple(Kernel(entry=f"first_kernel_{i}") for i in range(3))
    is_copy(bench, "runs", Plugin("own_names", own))
    scaled = (f"    mul.f32 %f1, %f0, 0f{bits};" for bits in ("40000000", "40400000"))
    plugin = Plugin("one_name", tuple(Kernel(body=body) for body in scaled))

    def run() -> None:
        engine, x = plugin.engine(), sample()
        (y,) = engine(x)
        ratio = float((y / x).median())
        bench.answer("together", ratio in (2.0, 3.0), f"it computes x * {ratio}")

    bench.attempt("together", run)


@step(
    "a parameter that TensorRT does not pass",
    null="TensorRT passes null for trailing parameters that it knows nothing of.",
)
def ptx_null_parameter(bench: Bench) -> None:
    body = """
    ld.param.u64 %rd5, [more];
    setp.eq.s64 %p1, %rd5, 0;
    selp.f32 %f1, 0f3F800000, 0f40000000, %p1;"""
    plugin = Plugin("null_parameter", (Kernel(body, parameters=("more",)),))
    says(bench, "null", plugin, 1, "{:.0f}, which is 1 for null")


@step(
    "an architecture-specific target",
    runs="TensorRT loads code for a target such as sm_90a.",
    capability=9,
)
def ptx_specific_target(bench: Bench) -> None:
    is_copy(bench, "runs", Plugin("specific", (Kernel(target=f"{ARCH}a"),)))


@step(
    "a CUBIN in place of PTX",
    runs="TensorRT takes a CUBIN.",
)
def cubin(bench: Bench) -> None:
    code = assembled(Kernel())
    is_copy(bench, "runs", Plugin("cubin", code=code))


@step(
    "static shared memory over 48 KiB",
    little="TensorRT's loader takes a static array of 64 KiB.",
    all="TensorRT's loader takes a static array of 227 KiB (99 KiB from sm_120 on).",
    capability=9,
)
def ptx_static_shared_memory(bench: Bench) -> None:
    most = 101376 if CAPABILITY[0] == 12 else 232448
    for ask, size in (("little", 65536), ("all", most)):
        arrays = f".shared .align 1024 .b8 memory[{size}];"
        how = {"target": f"{ARCH}a", "arrays": arrays}
        kernel = Kernel(through_shared("memory", size), **how)
        is_copy(bench, ask, Plugin(f"static_{ask}", (kernel,)))


@step(
    "dynamic shared memory over 48 KiB",
    runs="TensorRT gives a launch more dynamic shared memory than 48 KiB.",
)
def ptx_dynamic_shared_memory(bench: Bench) -> None:
    size = 65536
    arrays = ".extern .shared .align 16 .b8 memory[];"
    kernel = Kernel(through_shared("memory", size), arrays=arrays, shared=size)
    is_copy(bench, "runs", Plugin("dynamic_memory", (kernel,)))


@step(
    "clusters",
    runs="TensorRT's launch makes the clusters that the code requires.",
    capability=9,
)
def ptx_clusters(bench: Bench) -> None:
    kernel = Kernel(
        through_cluster(2),
        arrays=MINE,
        directives=".explicitcluster\n.reqnctapercluster 2",
        blocks=2,
    )
    is_copy(bench, "runs", Plugin("clusters", (kernel,)))


HIDDEN = """
    ld.param.u64 %rd5, [hidden];
    add.s64 %rd6, %rd5, %rd2;
    @%p0 st.volatile.global.f32 [%rd6], %f0;
    and.b64 %rd7, %rd5, 127;
    cvt.rn.f32.u64 %f1, %rd7;"""


@step(
    "an output that the network does not use",
    accepted="TensorRT accepts a plugin output that nothing uses, and gives it memory.",
    aligned="Its address is a multiple of 128.",
)
def ptx_hidden_output(bench: Bench) -> None:
    plugin = Plugin("hidden", (Kernel(HIDDEN, parameters=("hidden",)),), hidden=True)
    says(bench, "aligned", plugin, 0, "{:.0f} bytes past one", runs="accepted")


@step(
    "hidden outputs of two contexts at the same time",
    apart="Each execution context has a hidden output of its own.",
)
def ptx_contexts(bench: Bench) -> None:
    body = """
    ld.param.u64 %rd5, [hidden];
    add.s64 %rd6, %rd5, %rd2;
    @%p0 st.volatile.global.f32 [%rd6], %f0;
    mov.u32 %r4, 0;
$again:
    nanosleep.u32 2000;
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p1, %r4, 50;
    @%p1 bra $again;
    mov.f32 %f1, %f0;
    @%p0 ld.volatile.global.f32 %f1, [%rd6];"""
    kernel = Kernel(body, parameters=("hidden",))

    def run() -> None:
        engine = Plugin("contexts", (kernel,), hidden=True).engine()
        contexts = [engine.trt.create_execution_context() for _ in range(2)]
        lanes = [(context, torch.cuda.Stream()) for context in contexts]
        for _ in range(20):
            x = [sample(4999) for _ in lanes]
            torch.cuda.synchronize()
            y = [engine.enqueue([t], *lane) for t, lane in zip(x, lanes, strict=True)]
            torch.cuda.synchronize()
            bench.same("apart", [out for (out,) in y], x)

    bench.attempt("apart", run)


@step(
    "a plugin that writes its input",
    one="The input and the aliased output of a kernel are one address.",
    kept="TensorRT keeps the identity layer in front of it: the network's input, "
    "which others may read, does not change.",
)
def ptx_aliased(bench: Bench) -> None:
    body = """
    setp.eq.s64 %p1, %rd0, %rd1;
    selp.f32 %f1, 0f3F800000, 0f40000000, %p1;"""

    def run() -> None:
        engine = Plugin("aliased", (Kernel(body),), aliased=True).engine()
        x = sample()
        before = x.clone()
        (y,) = engine(x)
        bench.answer("one", bool((y == 1).all()), f"1 if they are equal: {y[0]}")
        bench.same("kept", x, before, tolerance=0.0)

    bench.attempt("one", run)


@step(
    "two inputs in one buffer",
    bound="Two inputs of a network may be bound to one address.",
    twice="A tensor may be two inputs of a plugin.",
)
def ptx_one_buffer_twice(bench: Bench) -> None:
    body = """
    ld.param.u64 %rd5, [y];
    add.s64 %rd5, %rd5, %rd2;
    mov.f32 %f2, 0f00000000;
    @%p0 ld.global.f32 %f2, [%rd5];
    add.f32 %f1, %f0, %f2;"""
    kernel = Kernel(body, second=True)

    def bound() -> None:
        engine, x = Plugin("bound", (kernel,)).engine(), sample()
        bench.same("bound", engine(x, x), x + x)

    def twice() -> None:
        engine, x = Plugin("twice", (kernel,)).engine(twice=True), sample()
        bench.same("twice", engine(x), x + x)

    bench.attempt("bound", bound)
    bench.attempt("twice", twice)


@step(
    "a packed tensor format, and what is in its padding",
    zeros="Where TensorRT packs a tensor, the padding holds zeros.",
    bound="A packed input of the network reaches the plugin with its padding as it is.",
)
def ptx_padding(bench: Bench) -> None:
    # CHW32 of 3 channels: 32 lanes for each of 32 places, of which this is the last.
    body = """
    and.b32 %r4, %r3, 31;
    mul.wide.s32 %rd5, %r4, 128;
    add.s64 %rd5, %rd5, %rd0;
    mov.f32 %f1, 0f00000000;
    @%p0 ld.global.f32 %f1, [%rd5+124];"""
    shape, kernels = (1, 3, 4, 8), (Kernel(body),)
    how: Any = {"shape": shape, "packed": "CHW32"}
    device = "cuda" if HAS_GPU else "cpu"
    x = torch.randn(shape, device=device)
    says(bench, "zeros", Plugin("packs", kernels, **how), 0, x=x)
    buffer = torch.full((1, 1, 4, 8, 32), 7.0, device=device)
    plugin = Plugin("packed", kernels, **how)
    says(bench, "bound", plugin, 7, x=buffer, bound_packed=True)


@step(
    "many changes of a dynamic shape",
    leak="No memory is lost at a change of shape (NVIDIA/TensorRT issue 4849).",
)
def ptx_shape_changes(bench: Bench) -> None:
    engine, x = Plugin("changes").engine(), sample(5000)

    def free() -> int:
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    def change(times: int) -> None:
        for size in range(1, times + 1):
            engine(x[:size])

    change(200)  # what is allocated once is there now
    before = free()
    change(2000)
    lost = (before - free()) / 2000
    bench.answer("leak", lost < 1024, f"{lost:.0f} bytes at each of 2000 changes")


def _isa(version: str) -> Step:
    """A step for one PTX ISA: a driver that is too old may end the process."""

    def run(bench: Bench) -> None:
        if CAN_BUILD:
            driver = _driver()
            bench.note(f"the driver is of CUDA {driver}, and takes PTX ISA up to")
            bench.notes[-1] += f" {newest_ptx_isa(driver)}"
        name = f"isa_{version.replace('.', '_')}"
        is_copy(bench, "runs", Plugin(name, (Kernel(isa=version),)))

    return Step(
        f"ptx-isa-{version}",
        f"PTX ISA {version}",
        {"runs": f"TensorRT and this driver take PTX ISA {version}."},
        run,
    )


def _driver() -> tuple[int, int]:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise NotHere("cuda-bindings, which ask the driver for its version") from error
    _, version = runtime.cudaDriverGetVersion()
    return version // 1000, version % 1000 // 10


for _each in map(_isa, ("8.4", "8.8", "9.0", "9.1", "9.2", "9.3", "9.4")):
    STEPS[_each.name] = _each
