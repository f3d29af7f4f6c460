# SPDX-License-Identifier: BSD-3-Clause

"""What cuTile's own search would choose from, as tactics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

ct = pytest.importorskip("cuda.tile")

from cuda.tile.tune import exhaustive_search  # noqa: E402
from cutile_kernels import relu_kernel  # noqa: E402
from cutile_tools import DYNAMIC, like, recorded  # noqa: E402
from kernels import info  # noqa: E402

import torch_tensorrt.annotation as tta  # noqa: E402
from torch_tensorrt.annotation._record import Call, record  # noqa: E402
from torch_tensorrt.annotation._record.program import Constant, Launch  # noqa: E402
from torch_tensorrt.annotation._record.recording import Purpose  # noqa: E402
from torch_tensorrt.annotation.backends import backend  # noqa: E402
from torch_tensorrt.annotation.errors import (  # noqa: E402
    ArgumentError,
    RecordError,
)
from torch_tensorrt.dynamo.conversion import plugins as trt_plugins  # noqa: E402


@ct.kernel
def copy_kernel(out, x, TILE: ct.Constant[int]):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(out, index=(ct.bid(0),), tile=tile)


class Choice(NamedTuple):
    tile: int
    occupancy: int


SPACES: dict[str, list[Any]] = {
    "dicts": [{"tile": 128, "occupancy": 2}, {"tile": 256, "occupancy": 4}],
    "tuples": [Choice(128, 2), Choice(256, 4)],
    "numbers": [128, 256],
}


def tile_of(config: Any) -> int:
    if isinstance(config, dict):
        return int(config["tile"])
    return int(getattr(config, "tile", config))


def searching(space: Any, search: Any = None) -> Callable[..., None]:
    """A launch function that launches what a search finds."""

    def launch_fn(x: Any, out: Any) -> None:
        stream, flat, count = torch.cuda.current_stream(), x.view(-1), x.numel()
        result = (search or exhaustive_search)(
            space(x) if callable(space) else space,
            stream,
            lambda config: (ct.cdiv(count, tile_of(config)),),
            relu_kernel,
            lambda config: (out.view(-1), flat, tile_of(config)),
            quiet=True,
        )
        tile = tile_of(result.best.config)
        grid = (ct.cdiv(count, tile),)
        ct.launch(stream, grid, relu_kernel, (out.view(-1), flat, tile))

    return launch_fn


@pytest.mark.parametrize("kind", SPACES)
def test_the_configs_of_a_search_are_tactics(kind: str) -> None:
    spec = tta.cutile(searching(SPACES[kind]), fact_sets="strides")
    impl = tta.custom_plugin(spec, meta_impl=lambda x: torch.empty_like(x))
    op = f"cutile_tune::{kind}"
    trt_plugins.custom_op(op, impl=impl)
    report = tta.dry_run(op, [torch.empty(8, 64)], target="sm_90", execute=False)
    assert report.ok
    assert [t.shapes[0].grid for t in report.tactics] == [(4, 1, 1), (2, 1, 1)]
    shown = []
    for tactic in report.tactics:
        assert tactic.config.pop("facts") == "strides"
        shown.append(tactic.config)
    assert shown == [pairs_of(config) for config in SPACES[kind]]


def pairs_of(config: Any) -> dict[str, Any]:
    if isinstance(config, Choice):
        return config._asdict()
    return config if isinstance(config, dict) else {"config": config}


def test_a_search_under_any_name_is_not_made() -> None:
    def by_module(*args: Any, **keywords: Any) -> Any:
        return ct.tune.exhaustive_search(*args, **keywords)

    before = exhaustive_search
    for search in (None, by_module):
        program = recorded(searching(SPACES["dicts"], search), info(DYNAMIC, 30))
        assert len(program.launch.choices) == 2
    assert ct.tune.exhaustive_search is exhaustive_search is before


def test_a_function_may_keep_what_it_found() -> None:
    kept: list[Any] = []

    def search(*args: Any, **keywords: Any) -> Any:
        if not kept:
            kept.append(ct.tune.exhaustive_search(*args, **keywords))
        return kept[0]

    program = recorded(searching([128, 256], search), info(DYNAMIC, 30))
    assert program.launch.choices == ((("config", 128),), (("config", 256),))


def caching(cache: dict[Any, Any], space: Any) -> Callable[..., None]:
    """A launch function that keeps what a search finds."""

    def launch_fn(x: Any, out: Any) -> None:
        stream, flat, count = torch.cuda.current_stream(), x.view(-1), x.numel()
        key = count, x.dtype
        if key not in cache:
            result = exhaustive_search(
                space,
                stream,
                lambda config: (ct.cdiv(count, tile_of(config)),),
                relu_kernel,
                lambda config: (out.view(-1), flat, tile_of(config)),
            )
            best = result.best.config
            cache[key] = best, relu_kernel.replace_hints(occupancy=2)
        config, kernel = cache[key]
        tile = tile_of(config)
        ct.launch(stream, (ct.cdiv(count, tile),), kernel, (out.view(-1), flat, tile))

    return launch_fn


CACHED: list[list[Any]] = [
    SPACES["tuples"],
    SPACES["dicts"],
    [SimpleNamespace(tile=128), SimpleNamespace(tile=256)],
]


@pytest.mark.parametrize("space", CACHED, ids=["tuples", "dicts", "namespaces"])
@pytest.mark.parametrize("rows", [8, DYNAMIC], ids=["static", "dynamic"])
def test_a_cache_of_what_was_found_is_looked_through(
    space: list[Any], rows: Any
) -> None:
    cache: dict[Any, Any] = {}
    users = {(0, "users"): space[0]}
    launch_fn = caching(cache, space)
    choices = recorded(launch_fn, info(rows, 30)).launch.choices
    assert len(choices) == 2
    for choice, tile in zip(choices, (128, 256), strict=True):
        assert cache == {}
        call = Call(overrides=dict(choice))
        found = record(backend("cutile"), launch_fn, like, [info(rows, 30)], call)
        assert found.launch.arguments[2] == Constant("TILE", tile)
        assert found.launch.kernel.options.occupancy == 2
    assert users == {(0, "users"): space[0]}


def test_what_a_search_found_before_is_not_looked_at() -> None:
    """As in a process that runs the op, and then compiles it."""
    found = SimpleNamespace(tile=512), relu_kernel.replace_hints(occupancy=4)
    before = {(240, torch.float16): found}
    cache = dict(before)
    launch_fn = caching(cache, CACHED[2])
    choices = recorded(launch_fn, info(DYNAMIC, 30)).launch.choices
    assert choices == ((("tile", 128),), (("tile", 256),))
    assert cache == before


@pytest.mark.parametrize(
    "with_hints",
    [relu_kernel.replace_hints, functools.partial(ct.kernel, relu_kernel._pyfunc)],
    ids=["replaced", "made"],
)
def test_a_cache_of_the_kernels_that_were_found_is_looked_through(
    with_hints: Any,
) -> None:
    class Entry(NamedTuple):
        kernel: Any

    hinted: dict[Any, Entry] = {}
    cache: dict[Any, Any] = {}

    def launch_fn(x: Any, out: Any) -> None:
        args = out.view(-1), x.view(-1), 256
        if x.dtype not in cache:
            result = exhaustive_search(
                SPACE, None, lambda _: (1,), relu_kernel, lambda _: args
            )
            occupancy = result.best.config.occupancy
            if occupancy not in hinted:
                hinted[occupancy] = Entry(with_hints(occupancy=occupancy))
            cache[x.dtype] = hinted[occupancy].kernel
        ct.launch(torch.cuda.current_stream(), (1,), cache[x.dtype], args)

    SPACE = [SimpleNamespace(occupancy=2), SimpleNamespace(occupancy=4)]
    ran = {torch.float16: with_hints(occupancy=8)}  # before it is recorded
    for before in ({}, {}, ran):
        cache |= before
        for choice in recorded(launch_fn, info(8, 30)).launch.choices:
            call = Call(overrides=dict(choice))
            found = record(backend("cutile"), launch_fn, like, [info(8, 30)], call)
            assert dict(choice) == {"occupancy": found.launch.kernel.options.occupancy}
            assert cache == before


def test_the_kernel_that_several_searches_find_fastest_is_launched() -> None:
    def launch_fn(x: Any, out: Any) -> None:
        flat, best = (out.view(-1), x.view(-1)), None
        for kernel, tiles in ((relu_kernel, [64, 128]), (copy_kernel, [128, 256])):
            space = [
                {"kernel": kernel._pyfunc.__name__, "tile": tile} for tile in tiles
            ]
            result = exhaustive_search(
                space, None, lambda _: (1,), kernel, lambda c: (*flat, c["tile"])
            )
            if best is None or result.best.mean_us < best[0]:
                best = result.best.mean_us, kernel, result.best.config["tile"]
        _, kernel, tile = best
        ct.launch(0, (1,), kernel, (*flat, tile))

    choices = recorded(launch_fn, info(8, 30)).launch.choices
    found = []
    for choice in choices:
        call = Call(overrides=dict(choice))
        launch = record(backend("cutile"), launch_fn, like, [info(8, 30)], call).launch
        found.append((launch.name, launch.arguments[2]))
    assert found == [
        *(("relu_kernel", Constant("TILE", tile)) for tile in (64, 128)),
        *(("copy_kernel", Constant("TILE", tile)) for tile in (128, 256)),
    ]


def test_each_launch_has_the_choices_of_its_own_search() -> None:
    def launch_fn(x: torch.Tensor, out: torch.Tensor) -> None:
        between, count = torch.empty_like(x), x.numel()

        def search(kernel: Any, source: Any, result: Any, tiles: list[int]) -> None:
            flat = result.view(-1), source.view(-1)
            best = exhaustive_search(
                tiles, None, lambda _: (1,), kernel, lambda tile: (*flat, tile)
            ).best.config
            ct.launch(0, (ct.cdiv(count, best),), kernel, (*flat, best))

        search(relu_kernel, x, between, [64, 128])
        search(copy_kernel, between, out, [128, 256])

    program = recorded(launch_fn, info(DYNAMIC, 30))
    steps = [step for step in program.steps if isinstance(step, Launch)]
    choices = [[dict(choice)["config"] for choice in step.choices] for step in steps]
    assert choices == [[64, 128], [128, 256]]
    for number, chosen in enumerate([(128, 128), (64, 256)]):
        config, purpose = {"config": chosen[number]}, Purpose(launch=number)
        call = Call(overrides=config, purpose=purpose)
        found = record(
            backend("cutile"), launch_fn, like, [info(DYNAMIC, 30)], call
        ).steps
        tiles = [s.arguments[2].value for s in found if isinstance(s, Launch)]  # type: ignore[union-attr]
        assert tuple(tiles) == chosen


def test_a_search_that_follows_the_shape_is_refused() -> None:
    def space(x: Any) -> list[int]:
        return [128, 256] if x.shape[0] > 20 else [128]

    with pytest.raises(RecordError):
        recorded(searching(space), info(DYNAMIC, 30))


def test_a_config_that_no_search_has_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"exhaustive_search .* other configs"):
        call = Call(overrides={"config": 512})
        record(backend("cutile"), searching([128, 256]), like, [info(8, 30)], call)


def test_a_search_outside_of_a_recording_is_made() -> None:
    with pytest.raises(ValueError, match="Search space is empty"):
        exhaustive_search([], None, None, relu_kernel, None)
