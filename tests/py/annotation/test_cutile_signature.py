# SPDX-License-Identifier: BSD-3-Clause

"""What cuTile's compiler is told of the arguments: nothing that is not proved."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from kernels import info

from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import Range, symbol
from torch_tensorrt.annotation.backends.cutile import FACT_SETS
from torch_tensorrt.annotation.errors import ArgumentError, DTypeError

ct = pytest.importorskip("cuda.tile")

import cutile_kernels as kernels  # noqa: E402
from cutile_tools import (  # noqa: E402
    DYNAMIC,
    annotated_kernel,
    assert_passes_tensorrts_arguments,
    compiled,
    constraints,
    copy_kernel,
    recorded,
)


def facts_of_reglu(extent: int | Range, columns: int, **keywords: Any) -> set[str]:
    inputs = info(extent, columns)
    facts = compiled(kernels.launch_reglu, inputs, inputs, **keywords).facts
    return {fact for fact in facts.split() if fact.startswith("gate")}


def test_vector16_holds_the_facts_up_to_16_bytes() -> None:
    assert facts_of_reglu(DYNAMIC, 24) == {
        "gate%16",
        "gate.shape[0]%8",
        "gate.strides[0]=1",
    }
    assert facts_of_reglu(DYNAMIC, 6) == {
        "gate%16",
        "gate.shape[0]%2",
        "gate.strides[0]=1",
    }


def test_async8_holds_the_facts_up_to_8_bytes() -> None:
    assert facts_of_reglu(DYNAMIC, 24, facts="async8") == {
        "gate%8",
        "gate.shape[0]%4",
        "gate.strides[0]=1",
    }


def test_strides_holds_constant_strides_alone() -> None:
    assert facts_of_reglu(64, 64, facts="strides") == {"gate.strides[0]=1"}


def test_constants_are_facts_and_nothing_else_is_called_constant() -> None:
    assert facts_of_reglu(4, 8) == {"gate%16", "gate.shape[0]=32", "gate.strides[0]=1"}
    assert facts_of_reglu(DYNAMIC, 7) == {"gate%16", "gate.strides[0]=1"}


def test_without_the_alignment_promise_addresses_are_not_facts() -> None:
    assert facts_of_reglu(4, 8, aligned=False) == {
        "gate.shape[0]=32",
        "gate.strides[0]=1",
    }


@pytest.mark.parametrize(
    ("start", "divisors"),
    [(0, (16, 8, 1, 16)), (4, (8, 8, 1, 8)), (9, (2, 2, 1, 2))],
)
def test_the_address_of_a_view_is_aligned_as_its_offset_is(
    start: int, divisors: tuple[int, ...]
) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        flat = x.view(-1)[start:]
        ct.launch(0, (1,), kernels.relu_kernel, (out.view(-1), flat, 64))

    program = recorded(launch_fn, info(DYNAMIC, 30))
    told = [
        constraints(program, facts)[1].base_addr_divisible_by for facts in FACT_SETS
    ]
    assert tuple(told) == divisors


def test_the_row_stride_of_a_dynamic_row_is_not_a_fact() -> None:
    inputs = info(DYNAMIC, Range(1, 48, 333), dtype=torch.float32)
    facts = compiled(
        kernels.launch_transpose,
        inputs,
        meta=lambda x: x.new_empty(x.shape[1], x.shape[0]),
    ).facts
    assert facts == "vector16: x%16 x.strides[1]=1 out%16 out.strides[1]=1"


def test_inputs_may_be_one_tensor_and_outputs_may_not() -> None:
    launch = recorded(kernels.launch_reglu, info(DYNAMIC, 8), info(DYNAMIC, 8))
    gate, up, out, _ = constraints(launch)
    assert gate.alias_groups == up.alias_groups == ("inputs",)
    assert out.alias_groups == ()


def test_an_array_that_is_passed_twice_may_be_itself() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        flat = x.reshape(-1)
        ct.launch(0, (1,), kernels.reglu_kernel, (flat, out.view(-1), out.view(-1), 64))

    x, up, out, _ = constraints(recorded(launch_fn, info(DYNAMIC, 8)))
    assert x.alias_groups == ()
    assert up.alias_groups == out.alias_groups == ("output0",)


def test_two_views_of_an_output_may_be_one_memory() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        low, high = out.view(-1).chunk(2)
        ct.launch(0, (1,), kernels.reglu_kernel, (x.view(-1), low, high, 64))

    _, low, high, _ = constraints(recorded(launch_fn, info(DYNAMIC, 8)))
    assert low.alias_groups == high.alias_groups == ("output0",)


def test_only_an_expanded_view_may_overlap_itself() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        rows = x.expand(out.shape)
        ct.launch(0, (1, 1), kernels.transpose_kernel, (rows, out.t(), 8, 8))

    launch = recorded(
        launch_fn, info(8), meta=lambda x: x.new_empty(x.shape[0], x.shape[0])
    )
    expanded, transposed, *_ = constraints(launch)
    assert expanded.may_alias_internally
    assert expanded.stride_constant == (0, 1)
    assert not transposed.may_alias_internally


@pytest.mark.parametrize(("rows", "overlaps"), [(1, False), (2, True)])
def test_an_axis_of_one_element_reaches_nothing(rows: int, overlaps: bool) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        expanded = x.as_strided((rows, x.shape[0]), (0, 1))
        ct.launch(0, (1, 1), kernels.transpose_kernel, (expanded, out, 8, 8))

    expanded, *_ = constraints(recorded(launch_fn, info(8)))
    assert expanded.may_alias_internally is overlaps


@pytest.mark.parametrize("case", kernels.CUTILE_CASES, ids=lambda case: case.name)
def test_no_view_of_the_kernels_overlaps_itself(case: Any) -> None:
    keywords = case.kernel.launch_keywords(case.kernel.configs[0])

    def launch_fn(*tensors: Any, stream: Any = None) -> None:
        extra = {"stream": 0} if case.name == "reglu" else {}
        case.kernel.launch_fn(*tensors, **keywords, **extra)

    launch = recorded(launch_fn, *case.dynamic, meta=case.meta)
    arrays = [c for c in constraints(launch) if hasattr(c, "ndim")]
    assert arrays
    assert not any(array.may_alias_internally for array in arrays)


def launch_annotated(x: Any, out: Any) -> None:
    ct.launch(0, (1,), annotated_kernel, (x, out, 0.1, x.numel(), True))


def test_scalars_have_the_types_that_the_launch_gives_them() -> None:
    x, _, alpha, n, negate = constraints(recorded(launch_annotated, info(DYNAMIC)))
    assert x.index_dtype == ct.int64
    assert (alpha.dtype, n.dtype, negate.dtype) == (ct.float32, ct.int64, ct.bool_)


def test_scalars_go_as_32_bits() -> None:
    result = compiled(launch_annotated, info(DYNAMIC))
    _, _, _, _, alpha, n, negate = result.extras
    assert int(alpha) == 0x3DCCCCCD  # 0.1 in IEEE 754 binary32
    assert n == symbol(0, 0)
    assert int(negate) == 1
    assert_passes_tensorrts_arguments(result, inputs=1)


def launch_value(value: Any) -> Any:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), copy_kernel, (x, out, value(x)))

    return launch_fn


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (lambda x: 5, ct.int32),
        (lambda x: x.shape[0], ct.int32),
        (lambda x: x.shape[0] > 4, ct.bool_),
        (lambda x: False, ct.bool_),
        (lambda x: 0.5, ct.float32),
    ],
)
def test_a_scalar_without_annotation_has_the_type_of_its_value(
    value: Any, dtype: Any
) -> None:
    *_, what = constraints(recorded(launch_value(value), info(DYNAMIC)))
    assert what.dtype == dtype


def test_a_value_of_no_type_that_can_be_passed_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"`what`: cuTile does not take str 'tanh'"):
        constraints(recorded(launch_value(lambda x: "tanh"), info(DYNAMIC)))


def test_an_extent_that_passes_32_bits_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), kernels.relu_kernel, (out.view(-1), x.view(-1), 64))

    with pytest.raises(
        ArgumentError, match=r"`out.shape\[0\]`: 4096\*d0_0 reaches 4294"
    ):
        compiled(launch_fn, info(Range(1, 2, 2**20), 4096))


def test_a_scalar_that_passes_32_bits_is_refused() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), copy_kernel, (x, out, x.shape[0] * 2**20))

    with pytest.raises(ArgumentError, match=r"`what`: 1048576\*d0_0 reaches 4294967"):
        compiled(launch_fn, info(Range(1, 2, 4096)))


@ct.kernel
def nested_kernel(inputs, out, tiles: tuple[ct.Constant[int], ...], scales):
    total = ct.zeros((tiles[0],), dtype=ct.float32)
    for index in ct.static_iter(range(2)):
        tile = ct.load(inputs[index], index=(ct.bid(0),), shape=(tiles[0],))
        total = total + ct.astype(tile, ct.float32) * scales[index]
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(total, out.dtype))


def test_tuples_of_arrays_and_scalars_are_passed_item_by_item() -> None:
    def launch_fn(x: Any, y: Any, out: Any) -> None:
        scales = (0.5, 2.0)
        ct.launch(0, (1,), nested_kernel, ((x, y), out, (64,), scales))

    program = recorded(launch_fn, info(64), info(DYNAMIC))
    assert [a.name for a in program.launch.arguments] == [
        *("inputs[0]", "inputs[1]", "out", "tiles[0]", "scales[0]", "scales[1]")
    ]
    result = compiled(launch_fn, info(64), info(DYNAMIC))
    assert result.extras[:2] == (64, 1)
    assert result.extras[2] == symbol(1, 0)
    assert_passes_tensorrts_arguments(result, inputs=2)


@ct.kernel
def static_kernel(
    x: Annotated[ct.Array, ct.ArrayAnnotation(static_shape_dims=(-1,))], out: Any
) -> None:
    tile = ct.load(x, index=(ct.bid(0), 0), shape=(1, x.shape[1]))
    ct.store(out, index=(ct.bid(0), 0), tile=tile)


def launch_static(x: Any, out: Any) -> None:
    ct.launch(0, (x.shape[0],), static_kernel, (x, out))


@pytest.mark.parametrize("facts", FACT_SETS)
def test_an_extent_that_the_kernel_declares_static_is_always_a_fact(facts: str) -> None:
    told = compiled(launch_static, info(DYNAMIC, 64), facts=facts).facts
    assert told.startswith(f"{facts}: ")
    assert "x.shape[1]=64" in told.split()


def test_an_extent_that_the_kernel_declares_static_must_be() -> None:
    with pytest.raises(
        ArgumentError, match=r"`x.shape\[1\]`: it is declared static, and"
    ):
        compiled(launch_static, info(4, DYNAMIC))


@pytest.mark.parametrize(
    ("axis", "known"),
    [
        (-3, (None, None)),  # cuTile itself refuses an axis that there is not
        (-2, (4, None)),
        (-1, (None, 64)),
        (0, (4, None)),
        (1, (None, 64)),
        (2, (None, None)),
    ],
)
def test_an_axis_that_is_declared_static_is_counted_from_either_end(
    axis: int, known: tuple[int | None, ...]
) -> None:
    def kernel(x, out):
        pass

    declared = ct.ArrayAnnotation(static_shape_dims=(axis,))
    kernel.__annotations__ = {"x": Annotated[ct.Array, declared]}
    decorated = ct.kernel(kernel)

    def launch_fn(x: Any, out: Any) -> None:
        ct.launch(0, (1,), decorated, (x, out))

    x, _ = constraints(recorded(launch_fn, info(4, 64)), "strides")
    assert x.shape_constant == known


def test_a_dtype_that_cutile_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ct, "uint8")
    with pytest.raises(DTypeError, match=r"torch\.uint8: cuTile has none"):
        constraints(recorded(kernels.launch_relu, info(8, dtype=torch.uint8)))


@ct.kernel
def decode_kernel(x, out, TILE: ct.Constant[int]):  # type: ignore[no-untyped-def]
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(tile, out.dtype))


@pytest.mark.parametrize(
    ("dtype", "arch", "converted"),
    [
        ("float8_e5m2", "sm_90", "e5m2x2"),
        ("float8_e8m0fnu", "sm_100", "ue8m0x2"),  # spellchecker:disable-line
    ],
)
def test_a_view_has_a_dtype_that_tensorrt_lacks(
    dtype: str, arch: str, converted: str
) -> None:
    def launch_fn(x: Any, out: Any) -> None:
        scaled = x.view(getattr(torch, dtype)).view(-1)
        grid = (ct.cdiv(x.numel(), 128),)
        ct.launch(0, grid, decode_kernel, (scaled, out.view(-1), 128))

    result = compiled(
        launch_fn,
        info(8, 64, dtype=torch.uint8),
        meta=lambda x: torch.empty_like(x, dtype=torch.float32),
        target=Target(arch),
    )
    assert converted in result.code


def test_strides_beyond_what_intervals_bound_are_not_taken_for_negative() -> None:
    """A torch stride is never negative, whatever interval arithmetic can prove."""

    def launch_fn(x: Any, out: Any) -> None:
        n = x.shape[0]
        rows = out.view(-1).as_strided((1, 1), (n * n - n + 1, 1))
        ct.launch(0, (1, 1), kernels.transpose_kernel, (x.view(-1, 1), rows, 8, 8))

    program = recorded(launch_fn, info(DYNAMIC))
    _, rows, *_ = constraints(program)
    assert rows.stride_lower_bound_incl == (0, None)
