# SPDX-License-Identifier: BSD-3-Clause

"""custom_op(aot_impl=, autotune=): functions in TensorRT's own terms."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from network import convert, nodes, tensor
from tensorrt.plugin._lib import QDP_REGISTRY
from torch_ops import torch_op
from warned import not_warned, warned

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._code.loaded import LoadedKernel
from torch_tensorrt.annotation._dry_run.builder import build
from torch_tensorrt.annotation._plugin import Request
from torch_tensorrt.annotation._tensors import Range, TensorInfo
from torch_tensorrt.annotation.errors import RegistrationError, SpecError
from torch_tensorrt.dynamo._settings import CompilationSettings
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
from torch_tensorrt.dynamo.conversion.plugins import _generate_plugin

OP = "conv::scale"
ENTRY = """\
.visible .entry scale(
    .param .u64 x,
    .param .u32 n,
    .param .u64 out
)
{
    .reg .pred %past;
    .reg .b32 %r<6>;
    .reg .b64 %a<6>;
    .reg .f32 %f<3>;
    ld.param.u64 %a1, [x];
    ld.param.u32 %r1, [n];
    ld.param.u64 %a2, [out];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.s32 %past, %r5, %r1;
    @%past bra done;
    mul.wide.s32 %a3, %r5, 4;
    add.s64 %a4, %a1, %a3;
    add.s64 %a5, %a2, %a3;
    ld.global.f32 %f1, [%a4];
    mul.f32 %f2, %f1, 0fALPHA;
    st.global.f32 [%a5], %f2;
done:
    ret;
}
"""
HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
OTHER = ".visible .entry other(.param .u32 n)\n{\n    ret;\n}\n"
PTX = HEADER + OTHER + ENTRY.replace("ALPHA", "40000000")
BLOCKS = {1: 128, 2: 256}


def scale_meta(x: torch.Tensor, alpha: float) -> torch.Tensor:
    return torch.empty_like(x)


def launch(x: Any, block: int = 128, code: Any = PTX, name: Any = "scale") -> list[Any]:
    """What ``aot_impl`` returns for the kernel above."""
    n = x.shape_expr.numel()
    params = trtp.KernelLaunchParams(trtp.cdiv(n, block), block_x=block)
    extras = trtp.SymIntExprs(1)
    extras[0] = trtp.SymInt32(n)
    return [name, code, params, extras]


def scale_aot(x: Any, alpha: float, outputs: Any, tactic: int) -> Any:
    factor = struct.pack(">f", alpha).hex()
    code = HEADER + OTHER + ENTRY.replace("ALPHA", factor)
    return tuple(launch(x, BLOCKS[tactic], code.encode()))


def scale_autotune(x: Any, alpha: Any, outputs: Any) -> Any:
    return [trtp.AutoTuneCombination("FP32, FP32", "LINEAR", list(BLOCKS))]


@pytest.fixture
def op() -> Iterator[str]:
    schema = "scale(Tensor x, float alpha) -> Tensor"
    with torch_op(schema, scale_meta, "conv") as op:
        yield op


def built(extent: Any = 1000, alpha: float = 2.0) -> list[Any]:
    """The launches that TensorRT's builder gets."""
    known: Any = SimpleNamespace(op=OP, attributes={"alpha": AttributeKind(float)})
    inputs = [TensorInfo((extent,), torch.float32)]
    return build(known, Request.of(inputs, {"alpha": alpha}, None))


def test_each_tactic_is_launched_as_the_callbacks_say(op: str) -> None:
    trt_plugins.custom_op(
        op,
        aot_impl=scale_aot,
        autotune=scale_autotune,
        supports_dynamic_shapes=True,
    )
    with not_warned():
        first, second = built(Range(1, 100, 1000), alpha=3.0)
    assert (first.tactic, second.tactic) == (1, 2)
    assert (first.at((1000,)).grid, second.at((1000,)).grid) == ((8, 1, 1), (4, 1, 1))
    assert second.at((7,)).block == (256, 1, 1)
    assert second.at((7,)).extras == (7,)
    assert first.entry == "scale"
    assert "0f40400000" in first.code


def test_a_node_becomes_an_ahead_of_time_layer(op: str) -> None:
    class Scale(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.conv.scale(x, 0.5)

    DYNAMO_CONVERTERS.set_compilation_settings(CompilationSettings())
    trt_plugins.custom_op(op, aot_impl=scale_aot, autotune=scale_autotune)
    (node,) = nodes(Scale(), torch.randn(8))
    layer, _ = convert(node, tensor("x"), 0.5)
    assert layer.aot
    assert layer.plugin.attrs["alpha"] == np.array([0.5])


def test_generate_plugin_takes_them_too(op: str) -> None:
    trt_plugins.generate_plugin(op, aot_impl=scale_aot, autotune=scale_autotune)
    assert [tactic.tactic for tactic in built()] == [1, 2]


def test_without_autotune_there_is_the_default_tactic(op: str) -> None:
    def aot(x: Any, outputs: Any, tactic: int) -> Any:
        return launch(x)

    trt_plugins.custom_op(op, aot_impl=aot)
    (only,) = built()
    assert only.tactic == 0


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (float, 2.0),
        (Any, 2.0),
        (None, np.array([2.0])),
        (npt.NDArray[np.float64], np.array([2.0])),
        (np.ndarray[Any, np.dtype[np.float64]], np.array([2.0])),
    ],
)
def test_an_attribute_comes_as_its_parameter_is_annotated(
    op: str, annotation: Any, expected: Any
) -> None:
    given = []

    def aot(x: Any, alpha: Any, outputs: Any, tactic: int) -> Any:
        given.append(alpha)
        return launch(x)

    aot.__annotations__ = {} if annotation is None else {"alpha": annotation}
    trt_plugins.custom_op(op, aot_impl=aot)
    built()
    assert type(given[0]) is type(expected)
    assert given[0] == expected


def test_it_gets_what_it_declares_by_name(op: str) -> None:
    def aot(outputs: Any, *, x: Any, **rest: Any) -> Any:
        assert sorted(rest) == ["alpha", "tactic"]
        return launch(x)

    trt_plugins.custom_op(op, aot_impl=aot)
    assert built()


def takes_y(x: Any, alphq: Any, outputs: Any) -> Any: ...
def takes_a_default(x: Any, outputs: Any, block: int = 3) -> Any: ...
def takes_any_number(*args: Any) -> Any: ...
def takes_float32(x: Any, alpha: npt.NDArray[np.float32]) -> Any: ...
def takes_nonsense(x: Any, alpha: Nonsense) -> Any: ...  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (takes_y, r"`alphq: Any` is not an argument .* Did you mean alpha\?"),
        (takes_a_default, "`block: int = 3` is not an argument of the op. TensorRT "),
        (takes_any_number, r"`\*args: Any` is not an argument of the op"),
        (takes_float32, r"passes an array of float64. .*npt.NDArray\[np.float64\]"),
        (takes_nonsense, "its signature cannot be read: name 'Nonsense' is not defi"),
        ("scale", "aot_impl='scale' is not a function"),
    ],
)
def test_a_function_of_something_else_is_refused_at_registration(
    op: str, function: Any, message: str
) -> None:
    named = getattr(function, "__name__", "scale")
    with pytest.raises(SpecError, match=message) as caught:
        trt_plugins.custom_op(op, aot_impl=function)
    assert named in str(caught.value)
    assert op not in QDP_REGISTRY


def test_an_op_with_a_tensor_that_may_be_none_takes_no_callbacks() -> None:
    schema = "maybe(Tensor x, Tensor? y=None) -> Tensor"
    with (
        torch_op(schema, lambda x, y: torch.empty_like(x), "conv") as op,
        pytest.raises(SpecError, match=r"`y` of the op may be None.*Use impl="),
    ):
        trt_plugins.custom_op(op, autotune=scale_autotune)


def returning(**changed: Any) -> Callable[..., Any]:
    """An ``aot_impl`` that returns a launch in which something is wrong."""

    def aot(x: Any, outputs: Any, tactic: int) -> Any:
        given = dict(zip("ncle", launch(x), strict=True))
        for key, change in changed.items():
            given[key] = change(given[key])
        return tuple(given.values())

    return aot


def with_grid(grid: Any) -> Callable[[Any], Any]:
    def changed(params: Any) -> Any:
        params.grid_x = grid
        return params

    return changed


def of_three(x: Any, outputs: Any, tactic: int) -> Any:
    return tuple(launch(x)[:3])


def raising(x: Any, outputs: Any, tactic: int) -> Any:
    raise KeyError("no such block")


def of_nothing(x: Any, outputs: Any, tactic: int) -> Any:
    return None


CUBIN = b"\x7fELF\xff\xfe"
RETURNED = {
    "three values": (of_three, r"of_three \(.*\) returned a tuple of 3 values. Return"),
    "nothing": (
        of_nothing,
        "of_nothing .* returned a NoneType. Return .name of the ke",
    ),
    "no name": (returning(n=lambda _: None), "a NoneType for the kernel's name. Ret"),
    "a cubin": (returning(c=lambda _: CUBIN), "bytes that are not text for the PTX"),
    "no launch": (returning(l=lambda _: 3), "returned a int for the launch parameters"),
    "NumPy": (
        returning(l=with_grid(np.int64(3))),
        "grid_x is neither an int nor .*int",
    ),
    "a list": (returning(e=list), "returned a list for the extra arguments"),
    "shapes": (
        returning(e=lambda e: trtp.SymIntExprs.from_tuple([e[0] + 1])),
        "a SymIntExpr for extra argument 0; make it a tensorrt.plugin.SymInt32",
    ),
}


@pytest.mark.parametrize("case", RETURNED)
def test_what_tensorrt_cannot_use_is_refused_with_what_to_return(
    op: str, case: str
) -> None:
    function, message = RETURNED[case]
    trt_plugins.custom_op(op, aot_impl=function)
    with pytest.raises(SpecError, match=message) as caught:
        built()
    assert str(caught.value).startswith(f"{OP}: aot_impl ")


def test_a_callback_that_raises_is_named_with_its_line(op: str) -> None:
    trt_plugins.custom_op(op, aot_impl=raising)
    line = raising.__code__.co_firstlineno
    places = rf"\(.*:{line}\) raised KeyError: 'no such block' \(.*:{line + 1}\)"
    with pytest.raises(errors.UserCodeError, match=f"raising {places}"):
        built()


# From the text of the kernel to what is wrong with it.
KERNELS = {
    "another name": (("entry scale(", "entry scala("), "scale is not a visible entry"),
    "one fewer": ((".param .u32 n,\n", ""), "takes 2 parameters, and TensorRT pass"),
    "64 bits": (("u32 n,", "u64 n,"), "declares .*u64 n` where TensorRT passes extra"),
    "a float": (("u32 n,", "f32 n,"), "where .* extra argument 0, a 32-bit integer"),
    "swapped": (
        ("[x];\n    ld.param.u32 %r1, [n];\n    ld.param.u64 %a2, [out]",
         "[out];\n    ld.param.u32 %r1, [n];\n    ld.param.u64 %a2, [x]"),
        "stores to input `x`, which an engine does not let it change",
    ),
    "no store": (("st.global.f32 [%a5], %f2;", ""), "never stores to output 0, which"),
    "one more": (
        ("u64 out\n)\n{", "u64 out,\n.param .u32 more\n)\n{ ld.param.u32 %r4, [more];"),
        "takes `.param .u32 more` as well, and TensorRT passes 3 arguments: input `x`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNELS)
def test_a_kernel_that_does_not_take_what_tensorrt_passes_is_refused(
    op: str, case: str
) -> None:
    (old, new), message = KERNELS[case]
    assert old in PTX
    wrong = PTX.replace(old, new)
    trt_plugins.custom_op(op, aot_impl=returning(c=lambda _: wrong))
    with pytest.raises(errors.UnsupportedKernelError, match=message):
        built()


@pytest.mark.parametrize(("version", "pads"), [("10.15.1.29", False), ("11.0.0", True)])
def test_parameters_that_it_does_not_use_may_follow_where_tensorrt_pads(
    op: str, version: str, pads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = PTX.replace("u64 out\n", "u64 out,\n    .param .u64 scratch\n")
    trt_plugins.custom_op(op, aot_impl=returning(c=lambda _: more))
    monkeypatch.setattr("tensorrt.__version__", version)
    if pads:
        assert built()
    else:
        with pytest.raises(errors.UnsupportedKernelError, match="scratch` as well"):
            built()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sm_75", "kernel scale is for sm_80, and the GPU is sm_75"),
        ("sm_90,ptx_isa=7.8", "is in PTX ISA 8.0, and the driver takes 7.8 at most"),
    ],
)
def test_code_for_a_newer_gpu_or_driver_is_refused(
    op: str, target: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_TARGET", target)
    trt_plugins.custom_op(op, aot_impl=returning())
    with pytest.raises(errors.UnsupportedKernelError, match=message):
        built()


def offering(*arguments: Any) -> Callable[..., Any]:
    def autotune(x: Any, outputs: Any) -> Any:
        return [trtp.AutoTuneCombination(*arguments)]

    return autotune


OFFERED = {
    "nothing": (
        lambda x, outputs: [],
        r"returned \[\]. Return a list of tensorrt",
    ),
    "no list": (lambda x, outputs: "FP32", "returned 'FP32'. Return a list of"),
    "no combination": (lambda x, outputs: [3], "returned a list with 3. Return a list"),
    "too few": (offering("FP32"), "has 1 types, and the plugin 2 inputs and outputs"),
    "unknown": (offering("FP23, FP23"), "which TensorRT does not take: .*FP23"),
    "tactic 0": (
        offering("FP32, FP32", "LINEAR", [0]),
        "tactic 0, which is not a positive",
    ),
    "raises": (lambda x, outputs: {}["a"], "raised KeyError: 'a'"),
}


@pytest.mark.parametrize("case", OFFERED)
def test_a_wrong_autotune_is_warned_of_and_no_kernel_is_launched(
    op: str, case: str
) -> None:
    function, message = OFFERED[case]
    trt_plugins.custom_op(op, aot_impl=scale_aot, autotune=function)
    kinds = SpecError, errors.UserCodeError
    with warned(message), pytest.raises(kinds, match=message) as caught:
        built()
    assert re.match(rf"{OP}: autotune .*{function.__name__}", str(caught.value))


@pytest.mark.parametrize("how", [{}, {"aot_impl": scale_aot}])
def test_the_python_code_is_offered_row_major_tensors_alone(
    op: str, how: dict[str, Any]
) -> None:
    autotune = offering("FP32, FP32", "LINEAR, CHW32")
    options = how | {"use_aot_if_available": False}
    trt_plugins.custom_op(op, autotune=autotune, **options)
    asked = ([None], {"alpha": 1.0}, [None])
    with warned("the op's Python code takes row-major tensors"):
        assert QDP_REGISTRY[op].autotune_func(*asked[0], np.ones(1), [None]) == []
    packed = SimpleNamespace(format=trt.TensorFormat.CHW32)
    with pytest.raises(errors.FormatError, match="has the format CHW32"):
        _generate_plugin._as_torch(packed)


def test_kernels_come_from_impl_or_from_callbacks(op: str) -> None:
    with pytest.raises(SpecError, match="Pass impl=, or aot_impl= and autotune="):
        trt_plugins.custom_op(op, impl=tta.triton(), autotune=scale_autotune)


def test_the_same_callbacks_can_be_registered_again_and_others_not(op: str) -> None:
    for _ in range(2):
        trt_plugins.custom_op(op, aot_impl=scale_aot)
    with pytest.raises(RegistrationError, match="and now otherwise"):
        trt_plugins.custom_op(op, aot_impl=scale_aot, autotune=scale_autotune)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_what_is_embedded_computes_the_op(op: str) -> None:
    trt_plugins.custom_op(op, aot_impl=scale_aot, autotune=scale_autotune)
    x = torch.randn(1000, device="cuda")
    for tactic in built(alpha=-1.5):
        out = torch.full_like(x, float("nan"))
        kernel = LoadedKernel(tactic.code, tactic.entry)
        kernel.launch(tactic.at((1000,)), [x.data_ptr()], [out.data_ptr()])
        torch.cuda.synchronize()
        torch.testing.assert_close(out, x * -1.5)
