# SPDX-License-Identifier: BSD-3-Clause

"""Registering is all or nothing, wherever it fails.

An error is raised at the entry and at the return of every function of this package and
of the registries that registering, replacing or unregistering an op calls. After it,
all registries are as they were before.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest
import tensorrt as trt
import tensorrt.plugin as trtp
import torch
from kernels import launch_silu
from tensorrt.plugin._lib import QDP_CREATORS, QDP_REGISTRY

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _plugin
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.dynamo.conversion import _ConverterRegistry
from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_ATEN_CONVERTERS

OP = "atomic::silu"
FOLDERS = tuple(
    str(Path(inspect.getfile(module)).parent) for module in (trt_plugins, trtp)
)
FILES = {_plugin.__file__, _ConverterRegistry.__file__}
# What has returned from these is done.
DONE = {"custom_op", "unregister", "carry_out"}


class Fault(KeyboardInterrupt):
    """No handler of errors swallows it."""


class Point(NamedTuple):
    code: CodeType
    event: str

    @property
    def name(self) -> str:
        return self.code.co_name

    def __str__(self) -> str:
        folder_and_file = "/".join(Path(self.code.co_filename).parts[-2:])
        return f"{self.event} of {self.name} in {folder_and_file}"


@contextlib.contextmanager
def tracing(on_point: Callable[[Point], None]) -> Iterator[None]:
    """``on_point`` is called at each entry and return of what is looked at."""

    @functools.cache
    def is_looked_at(file: str) -> bool:
        return file in FILES or str(Path(file).parent) in FOLDERS

    def at_call(frame: FrameType, event: str, arg: Any) -> Any:
        if not is_looked_at(frame.f_code.co_filename):
            return None
        on_point(Point(frame.f_code, "call"))
        frame.f_trace_lines = False
        return at_return

    def at_return(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            on_point(Point(frame.f_code, "return"))
        return at_return

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        yield
    finally:
        sys.settrace(before)


def points_of(action: Callable[[], Any]) -> list[Point]:
    """Where ``action`` can be made to fail."""
    seen: dict[Point, None] = {}
    with tracing(lambda point: seen.setdefault(point)):
        action()
    return [p for p in seen if p.event == "call" or p.name not in DONE]


def fail_at(point: Point, action: Callable[[], Any]) -> None:
    def fail(reached: Point) -> None:
        if reached == point:
            raise Fault(str(point))

    with pytest.raises(Fault), tracing(fail):
        action()


def state() -> list[Any]:
    """All registries, as far as they know the op."""
    namespace, name = OP.split("::")
    definitions = (
        vars(getattr(trtp.op, namespace)) if namespace in vars(trtp.op) else {}
    )
    converters = [
        (str(key), len(found)) for key, found in DYNAMO_ATEN_CONVERTERS.items()
    ]
    return [
        [str(schema) for schema in torch._C._jit_get_schemas_for_operator(OP)],
        sorted(QDP_REGISTRY),
        sorted(QDP_CREATORS),
        trt.get_plugin_registry().get_creator(name, "1", namespace) is not None,
        name in definitions,
        converters,
        {op: entry.identity for op, entry in registered.items()},
    ]


def meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def register(block: int = 256, **options: Any) -> None:
    spec = tta.custom_plugin(
        tta.triton(launch_silu, [{"BLOCK": block}]), meta_impl=meta
    )
    trt_plugins.custom_op(OP, impl=spec, **options)


def replace() -> None:
    register(512, replace=True)


def unregister() -> None:
    tta.unregister(OP)


def require_works(block: int) -> None:
    (tactic,) = tta.dry_run(OP, [torch.empty(8)], "sm_90", execute=False).tactics
    assert tactic.config == {"BLOCK": block}
    assert torch.ops.atomic.silu.default in DYNAMO_ATEN_CONVERTERS


def test_a_failed_registration_leaves_nothing() -> None:
    register()
    unregister()
    before = state()
    points = points_of(register)
    unregister()
    assert len(points) > 60
    for point in points:
        fail_at(point, register)
        assert state() == before, str(point)
    register()
    require_works(256)


@pytest.mark.parametrize("action", [replace, unregister])
def test_after_a_failure_the_op_is_what_it_was(action: Callable[[], None]) -> None:
    register()
    points = points_of(action)
    register(replace=action is replace)
    before = state()
    assert len(points) > 5
    for point in points:
        fail_at(point, action)
        assert state() == before, str(point)
    require_works(256)
    action()
    assert state() != before


def test_threads_that_replace_an_op_take_turns() -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                register(256 * (1 + number % 2), replace=True)
                require_registered_completely()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    block = dict(registered[OP].plugin.spec.specs[0].configs[0])["BLOCK"]  # type: ignore[union-attr]
    require_works(block)


@pytest.mark.parametrize("action", [replace, unregister])
def test_who_replaces_an_op_waits_for_its_dry_run(action: Callable[[], None]) -> None:
    is_recorded, may_go_on = threading.Event(), threading.Event()

    def launch(x: Any, out: Any, BLOCK: int) -> None:
        if threading.current_thread() is dry_run:
            is_recorded.set()
            assert may_go_on.wait(60)
        launch_silu(x, out, BLOCK)

    def run() -> None:
        x = torch.empty(64, 7)
        report = tta.dry_run(OP, [x], "sm_90", execute=False)
        found.append([tactic.config for tactic in report.tactics if tactic.code])

    found: list[Any] = []
    dry_run, other = threading.Thread(target=run), threading.Thread(target=action)
    spec = tta.custom_plugin(tta.triton(launch, [{"BLOCK": 128}]), meta_impl=meta)
    trt_plugins.custom_op(OP, impl=spec)
    first = registered[OP]
    dry_run.start()
    try:
        assert is_recorded.wait(60)
        other.start()
        other.join(0.5)
        assert other.is_alive() and registered[OP] is first
    finally:
        may_go_on.set()
        dry_run.join()
        other.join()
    assert found == [[{"BLOCK": 128}]]
    assert registered.get(OP) is not first


def require_registered_completely() -> None:
    with _plugin.lock:
        found = state()
    assert all(found)
