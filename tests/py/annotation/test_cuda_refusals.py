# SPDX-License-Identifier: BSD-3-Clause

"""What CUDA C++ kernels cannot be in an engine, and mistakes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled_elsewhere import as_inputs
from cuda_kernels import cdiv
from cuda_tools import needs_nvrtc
from kernels import info

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._tensors import Range
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    SpecError,
)

HEAD = "const float* x, float* out, int n"
BODY = "int i = threadIdx.x; if (i < n) out[i] = x[i];"
PLAIN = f'extern "C" __global__ void k({HEAD}) {{ {BODY} }}'


def refusal(launch: Any, dtype: torch.dtype = torch.float32, **how: Any) -> str:
    """The error of an op with this launch function, or spec."""
    spec = launch if isinstance(launch, tta.CUDASpec) else tta.cuda(launch, **how)
    plugin = tta.custom_plugin(spec, lambda x: torch.empty_like(x))
    inputs = as_inputs([info(Range(7, 8, 9), dtype=dtype)])
    with pytest.raises(AnnotationError) as raised:
        trt_plugins.custom_op("cu::op", impl=plugin, supports_dynamic_shapes=True)
        tta.dry_run("cu::op", inputs, target="sm_90,cuda=13.4", execute=False)
    return str(raised.value)


def of(
    source: str, *args: Callable[[Any], Any] | Any, block: Any = 32, **options: Any
) -> Callable[..., None]:
    """Launches the kernel ``k`` with x, out, n and more; functions get n."""
    kernel = tta.CUDAKernel(source, "k", **options)

    def launch(x, out):
        n = x.numel()
        given = [a(n) if callable(a) else a for a in args]
        threads = block(n) if callable(block) else block
        kernel((cdiv(n, 32),), threads, (x, out, n, *given))

    return launch


def by_torch(declared: str, value: Any) -> Callable[..., None]:
    """Launches the kernel with one more parameter as torch does."""

    def launch(x, out):
        kernel = torch.cuda._compile_kernel(with_parameter(declared), "k")
        kernel((1, 1, 1), (32, 1, 1), [x, out, x.numel(), value])

    return launch


def with_parameter(declared: str) -> str:
    return PLAIN.replace("int n", f"int n, {declared}")


RECORDED = {
    "block": (of(PLAIN, block=lambda n: n), "`block.x`: a compile-time constant that"),
    "float": (of(with_parameter("float f"), lambda n: n * 0.5), "float that is not"),
    "text": (of(PLAIN, "text"), "str 'text' is not what CUDAKernel passes"),
    "options": (of(PLAIN, options=["-rdc=true"]), "option -rdc=true is not for PTX"),
    "include": (of(f"#include HEADER\n{PLAIN}"), "does not name its header"),
    "grid": (lambda x, out: KERNEL((1, 1, 1, 1), 32, (x, out, 1)), "4 dimensions"),
    "macro": (lambda x, out: KERNEL(1, 32, (x, out, 1), N=x.numel()), "is compiled in"),
    "name": (lambda x, out: NAMED(1, 32, (x, out, 1)), "launched without T"),
}
KERNEL = tta.CUDAKernel(PLAIN, "k")
NAMED = tta.CUDAKernel(PLAIN, "k<{T}>")


@pytest.mark.parametrize("mistake", RECORDED)
def test_a_launch_that_no_engine_can_make_is_refused(mistake: str) -> None:
    launch, said = RECORDED[mistake]
    assert said in refusal(launch)


COMPILED = {
    "count": (
        of(PLAIN, 1),
        "takes 3 arguments (float*, float*, int), and was launched",
    ),
    "pointer": (of(with_parameter("float* p"), 5), "takes float* there, and the"),
    "number": (of(with_parameter("int p"), None), "takes int there, and the launch"),
    "real": (
        of(with_parameter("int p"), 0.5),
        "takes int there, and the launch passes",
    ),
    "bool": (of(with_parameter("bool p"), 2), "reaches 2 within the profile"),
    "negative": (of(with_parameter("unsigned p"), -1), "reaches -1 within the profile"),
    "torch's float": (by_torch("float p", 0.5), "passes it as float64, 8 bytes, and"),
    "torch's int": (by_torch("float p", 1), "passes it as int32, 4 bytes, and the"),
    "size": (of(with_parameter("float f"), lambda n: n), "let the kernel take an int"),
    "wide": (of(with_parameter("int p"), 2**40), "which int of 4 bytes does not hold"),
    "struct": (
        of(with_parameter("int4 p"), 1),
        "an object of 16 bytes, passed by value",
    ),
    "constant": (
        of(f"__constant__ float t[4];\n{PLAIN.replace('x[i]', 'x[i] + t[i]')}"),
        "it uses t, a variable of the module (__constant__)",
    ),
    "counter": (
        of(f"__device__ int c;\n{PLAIN.replace('x[i]', 'atomicAdd(&c, 1)')}"),
        "it uses c, a variable of the module (__device__)",
    ),
    "state": (
        of(f"__device__ int c[2] = {{1}};\n{PLAIN.replace('x[i]', 'c[i % 2]++')}"),
        "it changes c, a variable of the module (__device__), or may",
    ),
    "bounds": (
        of(PLAIN.replace("void k", "void __launch_bounds__(32) k"), block=(8, 8)),
        "blocks of 8x8x1 threads, and declares at most 32",
    ),
    "newer": (
        of(PLAIN, options=["-arch=sm_100"]),
        "options name sm_100, and the target",
    ),
    "syntax": (of(PLAIN.replace("x[i]", "y[i]")), 'identifier "y" is undefined'),
    "missing": (of(PLAIN.replace("void k", "void other")), 'identifier "k" is undef'),
}


@needs_nvrtc
@pytest.mark.parametrize("mistake", COMPILED)
def test_a_kernel_that_does_not_fit_its_launch_is_refused(mistake: str) -> None:
    launch, said = COMPILED[mistake]
    assert said in refusal(launch)


@needs_nvrtc
def test_a_tensor_of_another_type_is_refused() -> None:
    said = refusal(of(PLAIN), torch.float16)
    assert "argument `x`: the kernel takes float*, and the tensor holds float16" in said


@needs_nvrtc
def test_ready_ptx_has_its_own_refusals() -> None:
    ptx = ".version 8.0\n.target sm_80\n.visible .entry k(.param .u64 a)\n{ ret; }\n"

    def launch(kernel, x, out):
        kernel(1, 32, (x,), BLOCK=1)

    assert "neither macros nor template" in refusal(tta.ptx(ptx, "k", launch))

    def launch_plain(kernel, x, out):
        kernel(1, 32, (x, out))

    said = refusal(tta.ptx(ptx, "other", launch_plain))
    assert "there is no entry other; there is: k" in said


def test_a_kernel_that_torch_compiled_before_is_refused() -> None:
    kernel = torch.cuda._utils._CudaKernel(None, None)
    said = refusal(lambda x, out: kernel((1, 1, 1), (32, 1, 1), [x, out, 1]))
    assert "compiled by torch before the recording" in said
    assert "tta.CUDAKernel(source, name)" in said


def test_configs_of_an_ops_own_body_are_refused() -> None:
    @torch.library.custom_op("cu::own", mutates_args=())
    def own(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        KERNEL(1, 32, (x, out, x.numel()))
        return out

    own.register_fake(torch.empty_like)
    with pytest.raises(ArgumentError, match="config sets BLOCK, and the op's body"):
        trt_plugins.custom_op("cu::own", impl=tta.cuda(configs=[{"BLOCK": 1}]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tta.cuda(KERNEL), "k is a kernel. Pass the Python function"),
        (lambda: tta.CUDAKernel("no.cu", "k"), "there is no file no.cu"),
        (lambda: tta.CUDAKernel(3, "k"), "source is a int"),
        (lambda: tta.CUDAKernel(PLAIN, "k", "-O3"), "are lists"),
        (lambda: tta.ptx(PLAIN, "k", 3), "cannot be called"),
        (lambda: tta.cuda(lambda x, out: None, [{"B": 1}]), "names 'B'"),
    ],
)
def test_a_wrong_spec_says_what_to_do(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()
