# SPDX-License-Identifier: BSD-3-Clause

"""custom_op: all steps or none, once, and whose op it is."""

from __future__ import annotations

import enum
import functools
import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035

import pytest
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
import triton
from kernels import BLOCKS, add_kernel, launch_add, launch_silu, silu_kernel
from network import with_sequences
from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY
from warned import not_warned, warned

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.errors import (
    AnnotationError,
    ArgumentError,
    DataDependentError,
    LaunchCountError,
    RegistrationError,
    SpecError,
)
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_ATEN_CONVERTERS
from torch_tensorrt.dynamo.conversion.plugins import _custom_op, _torch_op


def plugin(launch_fn: Callable[..., Any]) -> tta.CustomPluginSpec:
    return tta.custom_plugin(
        tta.triton(launch_fn), meta_impl=lambda x, y: torch.empty_like(x)
    )


def traces(op: str) -> list[str]:
    """Where ``op`` is known: torch, TensorRT's plugin registries, the converters."""
    namespace, name = op.split("::")
    found = []
    if torch._C._jit_get_schemas_for_operator(op):
        found.append("torch")
    if op in QDP_REGISTRY:
        found.append("QDP_REGISTRY")
    if op in QDP_CREATORS:
        found.append("QDP_CREATORS")
    if trt.get_plugin_registry().get_creator(name, "1", namespace) is not None:
        found.append("plugin registry")
    if hasattr(getattr(trtp.op, namespace, None), name):
        found.append("trtp.op")
    if any(
        op == str(getattr(key, "_name", "")).removesuffix(".default")
        for key in DYNAMO_ATEN_CONVERTERS
    ):
        found.append("converters")
    if op in registered:
        found.append("registered")
    return found


EVERYWHERE = [
    "torch",
    "QDP_REGISTRY",
    "QDP_CREATORS",
    "plugin registry",
    "trtp.op",
    "converters",
    "registered",
]


def silu_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def silu_spec(block: int = 256) -> tta.CustomPluginSpec:
    return tta.custom_plugin(
        tta.triton(launch_silu, [{"BLOCK": block}]), meta_impl=silu_meta
    )


def test_an_op_is_registered_everywhere() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    assert traces("reg::silu") == EVERYWHERE


def test_undoing_a_registration_leaves_nothing() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    registered.pop("reg::silu").undo()
    assert traces("reg::silu") == []


def test_an_op_can_be_registered_again_after_it_was_undone() -> None:
    for _ in range(2):
        trt_plugins.custom_op("reg::silu", impl=silu_spec())
        assert tta.dry_run("reg::silu", [torch.empty(8)], "sm_90").ok
        registered.pop("reg::silu").undo()


def test_an_op_is_unregistered_by_name() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    tta.unregister("reg::silu")
    assert traces("reg::silu") == []
    with pytest.raises(RegistrationError, match="reg::silu: not registered with"):
        tta.unregister("reg::silu")


@with_sequences
def test_a_new_op_has_the_schema_of_its_meta_function() -> None:
    def meta(
        x: torch.Tensor, y: torch.Tensor, alpha: float = 0.5, mode: str = "a b"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(x), torch.empty_like(y)

    def launch(x: Any, y: Any, out: Any, other: Any, alpha: float, mode: str) -> None:
        add_kernel[(1,)](out, other, 5, x, BLOCK=16)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::two", impl=spec)
    assert str(torch.ops.reg.two.default._schema) == (
        'reg::two(Tensor x, Tensor y, float alpha=0.5, str mode="a b") '
        "-> (Tensor, Tensor)"
    )


def test_the_number_of_outputs_is_tried_out_where_it_is_not_annotated() -> None:
    trt_plugins.custom_op("reg::add", impl=plugin(launch_add))
    schema = torch.ops.reg.add.default._schema
    assert str(schema) == "reg::add(Tensor x, Tensor y) -> Tensor"


def test_registering_runs_the_fake_kernel_a_few_times_and_one_guess_is_enough() -> None:
    seen: list[tuple[int, ...]] = []
    launched: list[int] = []

    def meta(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return torch.empty_like(x)

    def launch(x: Any, out: Any, BLOCK: int = 256) -> None:
        launched.append(BLOCK)
        launch_silu(x, out, BLOCK=BLOCK)

    spec = tta.custom_plugin(tta.triton(launch, BLOCKS), meta_impl=meta)
    trt_plugins.custom_op("reg::silu", impl=spec, supports_dynamic_shapes=True)
    assert len(seen) <= 15
    assert len(set(seen)) == 1
    assert {"BLOCK": launched[0]} in BLOCKS


def test_a_guess_that_the_fake_kernel_rejects_is_not_launched() -> None:
    ranks: list[int] = []

    def meta(x: torch.Tensor) -> torch.Tensor:
        _batch, _rows, _columns = x.shape
        return torch.empty_like(x)

    def launch(x: Any, out: Any) -> None:
        ranks.append(x.dim())
        launch_silu(x, out)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::silu", impl=spec)
    assert set(ranks) == {3}


def test_the_number_of_outputs_is_annotated_where_every_guess_is_rejected() -> None:
    def meta(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert x.dtype == torch.float64
        return torch.empty_like(x), torch.empty_like(x)

    def launch(x: Any, out: Any, other: Any) -> None:
        add_kernel[(1,)](out, other, 5, x, BLOCK=16)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::wide", impl=spec)
    assert len(torch.ops.reg.wide.default._schema.returns) == 2
    unknown = tta.custom_plugin(tta.triton(launch), meta_impl=lambda x: meta(x))
    with pytest.raises(SpecError, match=r"how many outputs .* returns.*AssertionError"):
        trt_plugins.custom_op("reg::wider", impl=unknown)


def convolved(x, weight, bias):  # type: ignore[no-untyped-def]
    (n, c, h, w), (k, d, r, s) = x.shape, weight.shape
    assert c == d and bias.shape == (k,)
    return x.new_empty(n, k, h - r + 1, w - s + 1)


def attended(q, k, v, mask, scale):  # type: ignore[no-untyped-def]
    if [t.dim() for t in (q, k, v, mask, scale)] != [4, 4, 4, 2, 1]:
        raise ValueError("ranks")
    return torch.empty_like(q), q.new_empty(q.shape[:3])


def three_d(x):  # type: ignore[no-untyped-def]
    batch, rows, columns = x.shape
    return x.new_empty(batch, columns, rows)


def of_large(x):  # type: ignore[no-untyped-def]
    if x.shape[0] < 5000 or x.shape[1] % 6:
        raise ValueError("too small")
    return torch.empty_like(x), torch.empty_like(x)


def of_width(x):  # type: ignore[no-untyped-def]
    assert x.shape[-1] == 4097
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("meta", "outputs"),
    [(convolved, 1), (attended, 2), (three_d, 1), (of_large, 2), (of_width, 1)],
)
def test_a_fake_kernel_for_some_shapes_alone_registers(meta: Any, outputs: int) -> None:
    """Also where nothing is annotated, and the ranks of the inputs differ."""

    def launch(*tensors: Any) -> None:
        add_kernel[(1,)](tensors[0], tensors[0], 5, tensors[-1], BLOCK=16)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::some", impl=spec)
    assert len(torch.ops.reg.some.default._schema.returns) == outputs


def test_a_launch_function_for_some_inputs_alone_registers() -> None:
    """It falls back, or does not fit, for those that registration invents."""

    def for_heads(x: Any, out: Any) -> None:
        if x.shape[-1] in (64, 128):
            launch_silu(x, out)

    def for_many(x: Any, out: Any) -> None:
        if x.numel() > 10**7:
            launch_silu(x, out)

    def for_ranks(x: Any, out: Any) -> None:
        launch_silu(x, out) if x.dim() == 7 else launch_silu(x.clone(), out)

    def for_static(x: Any, out: Any) -> None:
        size = triton.next_power_of_2(x.numel())
        silu_kernel[(1,)](out, x if size > 2**20 else x.clone(), 5, BLOCK=size)

    for launch in (for_heads, for_many, for_ranks, for_static):
        spec = tta.custom_plugin(tta.triton(launch), meta_impl=silu_meta)
        trt_plugins.custom_op("reg::some", impl=spec, replace=True)


def test_a_tuple_of_one_output_is_that_output() -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_silu), meta_impl=lambda x: (torch.empty_like(x),)
    )
    trt_plugins.custom_op("reg::silu", impl=spec)
    x = torch.empty(3, device="meta")
    assert torch.ops.reg.silu(x).shape == x.shape


def test_a_meta_function_without_outputs_is_refused() -> None:
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=lambda x: ())
    with pytest.raises(SpecError, match="returns no tensor"):
        trt_plugins.custom_op("reg::silu", impl=spec)
    assert traces("reg::silu") == []


def annotated(x, k: int, *, sizes: Sequence[int] = (2, 3), text: str = 'a "b" c'):  # type: ignore[no-untyped-def]
    return x.new_empty(k, *sizes)


def optional(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    a: Optional[List[float]] = None,  # noqa: UP006, UP045
    b: bool = True,
) -> Any:
    return torch.empty_like(x)


METAS: list[tuple[Callable[..., Any], str]] = [
    (
        annotated,
        "(Tensor x, SymInt k, *, SymInt[] sizes=[2, 3], "
        'str text="a \\"b\\" c") -> Tensor',
    ),
    (
        functools.partial(annotated, sizes=[1], text=""),
        "(Tensor x, SymInt k) -> Tensor",
    ),
    (
        optional,
        "(Tensor x, Tensor? y=None, float[]? a=None, bool b=True) -> Tensor",
    ),
    (lambda x, *, flag=True: torch.empty_like(x), "(Tensor x) -> Tensor"),
]


@with_sequences
@pytest.mark.parametrize(("meta", "schema"), METAS)
def test_torch_infers_the_schema_and_what_is_not_annotated_is_a_tensor(
    meta: Callable[..., Any], schema: str
) -> None:
    def launch(*tensors: Any, **attributes: Any) -> None:
        launch_silu(tensors[0], tensors[-1])

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::typed", impl=spec)
    assert str(torch.ops.reg.typed.default._schema) == f"reg::typed{schema}"


def test_a_default_may_hold_more_than_ascii() -> None:
    def meta(x: torch.Tensor, text: str = "é\n") -> torch.Tensor:
        return torch.empty_like(x)

    parameters = _torch_op.parameters_of("reg::accented", meta)
    declared = torch._C.parse_schema(f"reg::accented{parameters} -> Tensor")
    assert declared.arguments[1].default_value == "é\n"


def test_a_meta_function_without_a_signature_is_refused() -> None:
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=torch.empty_like)
    with pytest.raises(SpecError, match=r"empty_like has no signature.*lambda x: "):
        trt_plugins.custom_op("reg::silu", impl=spec)


def test_a_new_op_has_a_fake_kernel() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    x = torch.empty(3, 5, device="meta", dtype=torch.bfloat16)
    y = torch.ops.reg.silu(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def test_an_existing_torch_op_keeps_its_definition() -> None:
    library = torch.library.Library("reg", "FRAGMENT")
    library.define("known(Tensor x) -> Tensor")
    torch.library.register_fake("reg::known", torch.empty_like, lib=library)
    try:
        trt_plugins.custom_op("reg::known", impl=tta.triton(launch_silu))
        registered.pop("reg::known").undo()
        assert traces("reg::known") == ["torch"]
    finally:
        library._destroy()


def test_the_same_spec_twice_is_nothing_new() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    before = QDP_REGISTRY["reg::silu"]
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    assert QDP_REGISTRY["reg::silu"] is before
    assert len(DYNAMO_ATEN_CONVERTERS[torch.ops.reg.silu.default]) == 1


def test_a_launch_function_that_imports_a_module_twice_is_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first registration runs it, and the module is there from then on."""
    (tmp_path / "silu_blocks.py").write_text("BLOCK = 256\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def launch(x: Any, out: Any) -> None:
        import silu_blocks

        launch_silu(x, out, silu_blocks.BLOCK)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=silu_meta)
    try:
        for _ in range(2):
            trt_plugins.custom_op("reg::silu", impl=spec)
        sys.modules["silu_blocks"].BLOCK = 512
        with pytest.raises(RegistrationError, match="registered at"):
            trt_plugins.custom_op("reg::silu", impl=spec)
    finally:
        sys.modules.pop("silu_blocks", None)


def test_another_spec_under_the_same_name_is_refused_with_both_places() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    here = r"test_custom_op\.py:\d+"
    with pytest.raises(
        RegistrationError, match=f"registered at .*{here}, and now otherwise .*{here}"
    ):
        trt_plugins.custom_op("reg::silu", impl=silu_spec(block=512))
    assert traces("reg::silu") == EVERYWHERE


def test_another_spec_replaces_the_first_when_asked() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    trt_plugins.custom_op("reg::silu", impl=silu_spec(block=512), replace=True)
    (tactic,) = tta.dry_run("reg::silu", [torch.empty(1024)], "sm_90").tactics
    assert tactic.config == {"BLOCK": 512}
    assert len(DYNAMO_ATEN_CONVERTERS[torch.ops.reg.silu.default]) == 1


def test_a_replacement_that_fails_leaves_the_first_in_place() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    nothing = tta.custom_plugin(tta.triton(lambda x, out: None), meta_impl=silu_meta)
    with pytest.raises(LaunchCountError):
        trt_plugins.custom_op("reg::silu", impl=nothing, replace=True)
    assert traces("reg::silu") == EVERYWHERE
    assert tta.dry_run("reg::silu", [torch.empty(8)], "sm_90").ok


def test_what_is_left_of_a_failed_registration_does_not_harm_the_next() -> None:
    """An error keeps what failed alive, in a notebook until the next one."""
    nothing = tta.custom_plugin(tta.triton(lambda x, out: None), meta_impl=silu_meta)
    with pytest.raises(LaunchCountError) as caught:
        trt_plugins.custom_op("reg::silu", impl=nothing)
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    del caught
    gc.collect()
    assert torch.ops.reg.silu.default in DYNAMO_ATEN_CONVERTERS


def test_many_threads_register_once() -> None:
    errors: list[BaseException] = []

    def register() -> None:
        try:
            trt_plugins.custom_op("reg::silu", impl=silu_spec())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert traces("reg::silu") == EVERYWHERE
    assert len(DYNAMO_ATEN_CONVERTERS[torch.ops.reg.silu.default]) == 1


def launch_without_output(x: Any, y: Any, out: Any) -> None:
    add_kernel[(1,)](x, y, 5, x, BLOCK=16)


def launch_without_room(x: Any, y: Any) -> None:
    add_kernel[(1,)](x, x, 5, y, BLOCK=16)


BAD_LAUNCHES = {
    "takes no output": (
        launch_without_room,
        ArgumentError,
        r"takes \(x: .*, and would be called with 2 inputs, 1 outputs",
    ),
    "launches nothing": (lambda x, y, out: None, LaunchCountError, "no kernel"),
    "drops the output": (launch_without_output, ArgumentError, "output 0 of the meta"),
}


@pytest.mark.parametrize(
    ("launch_fn", "error", "message"), BAD_LAUNCHES.values(), ids=BAD_LAUNCHES
)
def test_a_bad_launch_function_is_refused_and_nothing_stays(
    launch_fn: Callable[..., Any], error: type[AnnotationError], message: str
) -> None:
    with pytest.raises(error, match=message):
        trt_plugins.custom_op("reg::bad", impl=plugin(launch_fn))
    assert traces("reg::bad") == []


@pytest.mark.parametrize("name", ["silu", "a::b::c", "::silu", "my::", "my::si-lu", ""])
def test_an_op_name_without_namespace_and_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="write a namespace and a name"):
        trt_plugins.custom_op(name, impl=silu_spec())


def test_a_new_op_needs_a_meta_function() -> None:
    with pytest.raises(SpecError, match=r"reg::silu: torch has no such op.*meta_impl="):
        trt_plugins.custom_op("reg::silu", impl=tta.triton(launch_silu))
    assert traces("reg::silu") == []


def test_without_impl_the_op_must_exist() -> None:
    with pytest.raises(RegistrationError, match=r"reg::none: torch has no such op"):
        trt_plugins.custom_op("reg::none")


def test_a_meta_function_that_makes_no_schema_is_refused() -> None:
    def rows(x: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        return x.new_empty(sizes)

    for meta in (lambda *xs: xs[0], lambda **xs: None, rows):
        spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
        with pytest.raises(SpecError, match="has no place in a schema"):
            trt_plugins.custom_op("reg::silu", impl=spec)
    assert traces("reg::silu") == []


class Mode(enum.IntEnum):
    FAST = 3


@pytest.mark.parametrize("annotation", [Mode, Optional[Mode], List[Mode]])  # noqa: UP006, UP045
def test_an_enum_is_refused_with_what_to_do(annotation: Any) -> None:
    def meta(x: torch.Tensor, mode: Any = Mode.FAST) -> torch.Tensor:
        return torch.empty_like(x)

    meta.__annotations__["mode"] = annotation
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
    with pytest.raises(SpecError, match=r"`mode` of .* as int or str.* Mode\(mode\)"):
        trt_plugins.custom_op("reg::silu", impl=spec)
    assert traces("reg::silu") == []


def test_the_default_of_an_int_may_be_an_enums() -> None:
    def meta(x: torch.Tensor, mode: int = Mode.FAST) -> torch.Tensor:
        return torch.empty_like(x)

    assert _torch_op.parameters_of("reg::silu", meta) == "(Tensor x, SymInt mode=3)"


def test_outputs_sized_from_data_are_refused() -> None:
    with pytest.raises(SpecError, match="requires_output_allocator=True"):
        trt_plugins.custom_op(
            "reg::silu", impl=silu_spec(), requires_output_allocator=True
        )


def test_something_that_is_not_a_spec_is_refused() -> None:
    with pytest.raises(SpecError, match=r"impl=123 is not a plugin"):
        trt_plugins.custom_op("reg::silu", impl=123)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["register_descriptor", "register_aot"])
def test_a_failure_around_a_step_leaves_nothing(
    step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(_custom_op, step)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if after:
            original(*args, **kwargs)
        raise MemoryError(step)

    monkeypatch.setattr(_custom_op, step, fail)
    with pytest.raises(MemoryError, match=step):
        trt_plugins.custom_op("reg::silu", impl=silu_spec())
    assert traces("reg::silu") == []


@pytest.mark.parametrize("step", ["_generate_plugin_converter", "RegisteredOp"])
def test_a_failure_in_the_last_steps_leaves_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError(step)

    monkeypatch.setattr(_custom_op, step, fail)
    with pytest.raises(MemoryError, match=step):
        trt_plugins.custom_op("reg::silu", impl=silu_spec())
    assert traces("reg::silu") == []


def test_a_failure_of_the_callers_own_aot_registration_leaves_nothing() -> None:
    def fail() -> None:
        raise MemoryError("aot")

    with pytest.raises(MemoryError, match="aot"):
        trt_plugins.custom_op("reg::silu", impl=silu_spec(), _aot_register=fail)
    assert traces("reg::silu") == []


def test_what_tensorrts_validators_refuse_is_refused_and_nothing_stays() -> None:
    with pytest.raises(RegistrationError, match="trt is a reserved namespace"):
        trt_plugins.custom_op("trt::silu", impl=silu_spec())
    assert traces("trt::silu") == []


def test_a_plugin_that_was_registered_elsewhere_is_not_touched() -> None:
    def describe(x: Any) -> Any:
        return x.like()

    describe.__annotations__ = {"x": trtp.TensorDesc, "return": trtp.TensorDesc}
    trtp.register("reg::taken")(describe)
    try:
        with pytest.raises(RegistrationError, match="TensorRT has a plugin of this na"):
            trt_plugins.custom_op("reg::taken", impl=silu_spec())
        assert QDP_REGISTRY["reg::taken"].register_func is describe
    finally:
        trt_plugins._custom_op._qdp.forget("reg::taken")


def test_replacing_takes_the_new_function_even_if_it_looks_the_same() -> None:
    trt_plugins.custom_op("reg::silu", impl=silu_spec())
    first = registered["reg::silu"].plugin
    trt_plugins.custom_op("reg::silu", impl=silu_spec(), replace=True)
    assert registered["reg::silu"].plugin is not first


def test_one_name_for_an_argument_and_a_config_key_is_refused() -> None:
    def meta(x: torch.Tensor, BLOCK: int) -> torch.Tensor:
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_silu, BLOCKS), meta_impl=meta)
    with pytest.raises(SpecError, match="'BLOCK' is an argument of the op, and a conf"):
        trt_plugins.custom_op("reg::silu", impl=spec)
    assert traces("reg::silu") == []


@pytest.mark.parametrize("name", ["outputs", "stream", "tactic"])
def test_an_argument_named_as_tensorrts_own_is_refused(name: str) -> None:
    namespace: dict[str, Any] = {"torch": torch}
    exec(f"def meta({name}): return torch.empty_like({name})", namespace)
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=namespace["meta"])
    with pytest.raises(SpecError, match=f"an argument is named '{name}'"):
        trt_plugins.custom_op("reg::silu", impl=spec)


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    made = torch.library.Library("reg", "FRAGMENT")
    yield made
    made._destroy()


def test_an_op_that_writes_its_argument_needs_kernels_of_its_own(
    library: torch.library.Library,
) -> None:
    library.define("writes(Tensor(a!) x) -> ()")
    with pytest.raises(RegistrationError, match="`x`: the op writes it in place"):
        trt_plugins.custom_op("reg::writes")


def test_an_op_that_returns_its_argument_is_refused(
    library: torch.library.Library,
) -> None:
    library.define("inplace(Tensor(a!) x) -> Tensor(a!)")
    with pytest.raises(RegistrationError, match="returns one of its arguments"):
        trt_plugins.custom_op("reg::inplace", impl=tta.triton(launch_silu))


def test_an_op_whose_output_is_sized_from_values_is_refused(
    library: torch.library.Library,
) -> None:
    library.define("unique(Tensor x) -> Tensor")

    def fake(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(torch.library.get_ctx().new_dynamic_size())

    torch.library.register_fake("reg::unique", fake, lib=library)
    with pytest.raises(DataDependentError, match="reg::unique: a size or an argument"):
        trt_plugins.custom_op("reg::unique", impl=tta.triton(launch_silu))


def test_torch_tensorrt_does_not_let_a_plugin_write_its_input_by_itself() -> None:
    """The reason for ``_aliased_io``; where this fails, it can go."""
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter

    assert "ALIASED_PLUGIN_IO" not in inspect.getsource(_TRTInterpreter)


def test_an_existing_op_without_a_fake_kernel_is_refused(
    library: torch.library.Library,
) -> None:
    library.define("nofake(Tensor x) -> Tensor")
    with pytest.raises(RegistrationError, match="reg::nofake: the op has no fake kern"):
        trt_plugins.custom_op("reg::nofake", impl=tta.triton(launch_silu))
    assert traces("reg::nofake") == ["torch"]


def test_a_meta_function_that_contradicts_the_op_does_not_count(
    library: torch.library.Library,
) -> None:
    library.define("known(Tensor x) -> Tensor")
    torch.library.register_fake("reg::known", torch.empty_like, lib=library)
    spec = tta.custom_plugin(tta.triton(launch_silu), lambda x: x.new_empty(1, 1))
    with warned("own fake kernel .* which counts. Leave meta_impl out"):
        trt_plugins.custom_op("reg::known", impl=spec)
    report = tta.dry_run("reg::known", [torch.empty(8)], "sm_90", execute=False)
    (tactic,) = report.tactics
    assert tactic.shapes[0].outputs == ((8,),)
    agreeing = tta.custom_plugin(tta.triton(launch_silu), lambda x: torch.empty_like(x))
    with not_warned():
        trt_plugins.custom_op("reg::known", impl=agreeing, replace=True)


def test_a_launch_for_one_dtype_or_size_alone_is_not_refused_at_registration() -> None:
    def for_int8(x: Any, out: Any) -> None:
        if x.dtype == torch.int8:
            launch_silu(x, out)

    def for_large(x: Any, out: Any) -> None:
        add_kernel[(x.shape[0] - 1000,)](x, x, 5, out, BLOCK=16)

    for name, launch in (("reg::int8", for_int8), ("reg::large", for_large)):
        spec = tta.custom_plugin(tta.triton(launch), meta_impl=silu_meta)
        trt_plugins.custom_op(name, impl=spec)


def test_what_is_wrong_for_invented_attributes_is_found_with_real_ones() -> None:
    def meta(x: torch.Tensor, alpha: float) -> torch.Tensor:
        return torch.empty_like(x)

    def launch(x: Any, out: Any, alpha: float) -> None:
        if alpha > 1:
            launch_silu(x, out)

    spec = tta.custom_plugin(tta.triton(launch), meta_impl=meta)
    trt_plugins.custom_op("reg::silu", impl=spec)
    x = torch.empty(8)
    assert tta.dry_run("reg::silu", [x], "sm_90", attributes={"alpha": 2.0}).ok
    with pytest.raises(LaunchCountError):
        tta.dry_run("reg::silu", [x], "sm_90", attributes={"alpha": 0.5})


def test_a_name_may_start_with_an_underscore() -> None:
    trt_plugins.custom_op("reg::_silu", impl=silu_spec())
    assert tta.dry_run("reg::_silu", [torch.empty(8)], "sm_90", execute=False).ok


@pytest.mark.parametrize("name", ["my::class", "my::__x", "my::\u00e9", None, 5])
def test_a_name_that_torch_cannot_have_is_refused(name: Any) -> None:
    with pytest.raises(SpecError, match="write a namespace and a name"):
        trt_plugins.custom_op(name, impl=silu_spec())


@pytest.mark.parametrize("name", ["my::name", "prim::silu"])
def test_a_name_that_torch_reserves_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="torch does not take an op"):
        trt_plugins.custom_op(name, impl=silu_spec())


def test_a_meta_function_with_an_unknown_annotation_is_refused() -> None:
    def meta(x: Unknown) -> torch.Tensor:  # type: ignore[name-defined]  # noqa: F821
        return torch.empty_like(x)

    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
    with pytest.raises(SpecError, match="annotation that cannot be read"):
        trt_plugins.custom_op("reg::silu", impl=spec)


def test_a_partial_may_be_a_meta_function() -> None:
    meta = functools.partial(lambda x, scale: torch.empty_like(x), scale=2)
    spec = tta.custom_plugin(tta.triton(launch_silu), meta_impl=meta)
    trt_plugins.custom_op("reg::silu", impl=spec)
    schema = torch.ops.reg.silu.default._schema
    assert str(schema) == "reg::silu(Tensor x) -> Tensor"
