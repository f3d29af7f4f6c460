"""A CUBIN's parameters in TensorRT's order, its code as it was."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import pytest
import torch

pytest.importorskip("cuda.tile", reason="cuTile is not installed")

from cutile_kernels import launch_matmul, launch_relu

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _cubin
from torch_tensorrt.annotation._ptx import Kind, Slot
from torch_tensorrt.annotation.errors import PTXError, UnsupportedKernelError

MATMUL = {Kind.INPUT: 2, Kind.EXTRA: 12, Kind.OUTPUT: 1}


@cache
def report(code: str) -> tta.DryRunReport:
    impl = tta.custom_plugin(
        tta.cutile(launch_matmul, tiles=(64, 64, 32)),
        meta_impl=lambda a, b: a.new_empty(a.shape[0], b.shape[1]),
    )
    trt_plugins.custom_op("cubin::matmul", impl=impl, replace=True)
    tensors = [torch.empty(256, 256, dtype=torch.float16)] * 2
    return tta.dry_run("cubin::matmul", tensors, f"sm_90,code={code}", execute=False)


def facts(made: tta.DryRunReport) -> list[str]:
    return [tactic.facts.partition(":")[0] for tactic in made.tactics]


def cubin() -> tuple[str, bytes]:
    tactic = report("cubin").tactics[-1]
    assert isinstance(tactic.code, bytes)
    return tactic.entry, tactic.code


def parameters(image: bytes) -> list[tuple[int, int]]:
    """(offset in the constant bank, size) of each parameter, by ordinal."""
    (info,) = (s for s in _cubin.sections(image) if s.name.startswith(b".nv.info."))
    found: dict[int, tuple[int, int]] = {}
    for _, value in _cubin._attributes(info, 0x45):
        _, ordinal, offset, size, _ = struct.unpack("<IHHHH", value)
        found[ordinal] = (offset, size)
    return [found[ordinal] for ordinal in sorted(found)]


def test_tensor_maps_are_tried_where_a_cubin_may_go_out() -> None:
    assert facts(report("cubin")) == ["vector16", "async8", "strides", "tma"]
    assert facts(report("ptx")) == ["vector16", "async8", "strides"]


def test_only_the_kernel_with_tensor_maps_is_a_cubin() -> None:
    forms = [type(tactic.code) for tactic in report("cubin").tactics]
    assert forms == [str, str, str, bytes]


def test_the_parameters_are_inputs_then_extras_then_outputs() -> None:
    _, image = cubin()
    sizes = [size for _, size in parameters(image)]
    assert sizes == [8] * 2 + [4] * 12 + [8]
    # Where they lie is what it was: array after array.
    offsets = [offset for offset, _ in parameters(image)]
    assert offsets == [0, 24, 8, 12, 16, 20, 32, 36, 40, 44, 56, 60, 64, 68, 48]


def test_the_entry_is_named_in_every_table() -> None:
    entry, image = cubin()
    assert len(entry) == len(_cubin.PLACEHOLDER)
    assert entry.startswith("cubin__matmul_t4_")
    assert _cubin.PLACEHOLDER.encode() not in image
    assert f".text.{entry}".encode() in {s.name for s in _cubin.sections(image)}


def test_a_name_that_is_too_long_keeps_both_ends() -> None:
    name = "a" * 60 + "_t1_" + "b" * 20
    assert len(_cubin.padded(name)) == len(_cubin.PLACEHOLDER)
    assert _cubin.padded(name).endswith("b" * 20)


def test_the_machine_code_is_what_it_was() -> None:
    entry, image = cubin()
    back = image.replace(entry.encode(), _cubin.PLACEHOLDER.encode())
    slots = [Slot(kind, i) for kind in Kind for i in range(MATMUL.get(kind, 0))]
    again = _cubin.reorder(back, slots, MATMUL, entry)
    assert again == image


@pytest.mark.parametrize(
    "slots",
    [
        [Slot(Kind.INPUT, 0)],
        [Slot(Kind.INPUT, 0)] * 2 + [Slot(Kind.EXTRA, i) for i in range(13)],
    ],
    ids=["too few", "one twice"],
)
def test_arguments_without_a_parameter_of_their_own_are_refused(slots: Any) -> None:
    _, image = cubin()
    with pytest.raises(UnsupportedKernelError, match=r"Target\(code='ptx'\)"):
        _cubin.reorder(image, slots, MATMUL, "entry")


def test_parameters_of_other_sizes_are_refused() -> None:
    _, image = cubin()
    slots = [Slot(kind, i) for kind in Kind for i in range(MATMUL.get(kind, 0))]
    with pytest.raises(PTXError, match="not as told"):
        _cubin.reorder(image, slots[::-1][:1] + slots[:-1], MATMUL, "entry")


def test_what_is_no_cubin_is_refused() -> None:
    with pytest.raises(PTXError, match="did not write a CUBIN"):
        _cubin.reorder(b"PTX", [], dict.fromkeys(MATMUL, 0), "entry")


def test_a_report_with_a_cubin_is_read_back_from_json() -> None:
    made = report("cubin")
    assert tta.DryRunReport.from_json(made.to_json()).tactics[-1].code == cubin()[1]
    assert "CUBIN" in str(made)


def test_tensor_maps_alone_are_no_tactic_where_ptx_goes_out() -> None:
    impl = tta.custom_plugin(
        tta.cutile(launch_relu, fact_sets="tma"), lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("cubin::relu", impl=impl, replace=True)
    with pytest.raises(UnsupportedKernelError, match=r"Target\(code='cubin'\)"):
        tta.dry_run("cubin::relu", [torch.empty(3, 5)], "sm_90", execute=False)


def test_a_kernel_without_tma_loads_has_no_cubin() -> None:
    impl = tta.custom_plugin(
        tta.cutile(launch_relu), meta_impl=lambda x: torch.empty_like(x)
    )
    trt_plugins.custom_op("cubin::relu", impl=impl, replace=True)
    made = tta.dry_run(
        "cubin::relu", [torch.empty(3, 5)], "sm_80,code=cubin", execute=False
    )
    assert "tma" not in facts(made)
