# SPDX-License-Identifier: BSD-3-Clause

"""Try every op: a process for each, since a library may crash or hang.

``python tools/compat`` does this, and more: see ``__main__.py``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from typing import Any

import torch
import triton

import torch_tensorrt
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

from . import gpu, packages
from .case import Case
from .own import OwnLaunch, compare_determined
from .verdict import Outcome

MODES = ("static", "dynamic")
MOST_CONFIGS = 3  # of an autotuner's, evenly spaced: libraries bring up to a hundred
KEYWORDS = {"cutile": {"fact_sets": "strides"}}  # of a spec; the others triple the time


def run_all(
    cases: Sequence[Case],
    limit_s: float,
    executes: bool,
    jobs: int,
    stop_after_s: float,
) -> Iterator[tuple[Case, dict[str, dict[str, Any]]]]:
    """The outcome of each case, in the order in which they are done.

    Args:
        limit_s: for a mode of an op that has no larger limit itself.
        jobs: ops to try at a time.
        stop_after_s: no op starts later.
    """
    end = time.monotonic() + stop_after_s

    def run_in_time(case: Case) -> dict[str, dict[str, Any]] | None:
        return run(case, limit_s, executes) if time.monotonic() < end else None

    with ThreadPoolExecutor(jobs) as pool:  # each op has a process of its own
        running = {pool.submit(run_in_time, case): case for case in cases}
        for done in as_completed(running):
            if (outcomes := done.result()) is not None:
                yield running[done], outcomes
            else:
                print(f"{running[done].id}: not tried, for want of time", flush=True)


def run(case: Case, limit_s: float, executes: bool) -> dict[str, dict[str, Any]]:
    """The outcome of each mode, as ``results.json`` has it."""
    # A fork does not wait for torch to be imported, but CUDA does not survive one.
    context: Any = multiprocessing.get_context("spawn" if executes else "fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(case, executes, sending))
    process.start()
    sending.close()
    limit_s = max(limit_s, case.limit_s)
    results = {mode: _result(receiving, process, limit_s) for mode in MODES}
    process.join()
    return results


def _result(receiving: Connection, process: Any, limit_s: float) -> dict[str, Any]:
    try:
        if receiving.poll(limit_s):
            result: dict[str, Any] = receiving.recv()
            return result
        failure = f"it took more than {limit_s:.0f} seconds"
        os.killpg(process.pid, signal.SIGKILL)  # what it started, too
    except EOFError:
        process.join()
        failure = f"the process ended with exit code {process.exitcode}"
    return Outcome.failed(failure).to_json()


def _try(case: Case, executes: bool, sending: Connection) -> None:
    """In the child: load the library, register the op, dry-run it both ways."""
    os.setsid()
    logs = packages.FOLDER.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = os.open(logs / f"{case.op[8:]}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        body = _load(case)
        op = _register(case, body)
    except Exception as error:
        outcome = Outcome.of(error)
        for _ in MODES:
            sending.send(outcome.to_json())
        return
    for mode in MODES:
        try:
            outcome = _dry_run(case, op, body, mode, executes)
        except Exception as error:
            outcome = Outcome.of(error)
        sending.send(outcome.to_json())


def _load(case: Case) -> Callable[..., Any]:
    packages.use()
    gpu.answer(case.language)
    _limit_configs(case.language)
    with gpu.importing():
        return case.load()


def _limit_configs(language: str) -> None:
    """For the rest of this process, take a few configs of an autotuner's."""
    original = triton.runtime.Autotuner.__init__

    def with_few_configs(self: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        self.configs = _few(self.configs)

    triton.runtime.Autotuner.__init__ = with_few_configs
    if language == "cutile":
        from cuda.tile import tune

        from torch_tensorrt.annotation.backends.cutile.launch import Search

        search, best_of = tune.exhaustive_search, Search.best_of

        def search_few(space: Sequence[Any], *arguments: Any, **keywords: Any) -> Any:
            return search(_few(space), *arguments, **keywords)

        tune.exhaustive_search = search_few
        Search.best_of = lambda self, space: best_of(self, _few(space))


def _few(configs: Sequence[Any]) -> Sequence[Any]:
    return configs[:: -(-len(configs) // MOST_CONFIGS)]


def _register(case: Case, body: Callable[..., Any]) -> str:
    if isinstance(body, torch._ops.OpOverload):
        op = body._schema.name
    else:
        op = case.op
        torch.library.custom_op(op, body, mutates_args=case.mutates, schema=case.schema)
        torch.library.register_fake(op, case.fake)
    spec = getattr(tta, case.language)(**KEYWORDS.get(case.language, {}))
    trt_plugins.custom_op(op, impl=spec, supports_dynamic_shapes=True)
    return op


def _dry_run(
    case: Case, op: str, body: Callable[..., Any], mode: str, executes: bool
) -> Outcome:
    ranges = case.sizes
    if mode == "static":
        ranges = {name: (opt, opt, opt) for name, (_, opt, _) in ranges.items()}
    elif not case.is_dynamic:
        return Outcome.none()
    low, opt, high = ({n: r[i] for n, r in ranges.items()} for i in range(3))
    inputs = [
        torch_tensorrt.Input(
            min_shape=tensor.shape(low),
            opt_shape=tensor.shape(opt),
            max_shape=tensor.shape(high),
            dtype=tensor.dtype,
        )
        if tensor.shape(low) != tensor.shape(high)
        else torch.empty(tensor.shape(opt), dtype=tensor.dtype, device="meta")
        for tensor in case.inputs.values()
    ]
    own = OwnLaunch(body, case.tolerance) if executes and not case.mutates else None
    compare_determined()
    report = tta.dry_run(
        op,
        inputs,
        gpu.TARGET,
        tolerance=case.tolerance,
        execute=executes,
        reference=own,
        make_inputs=lambda dims: [
            tensor.random(shape)
            for tensor, shape in zip(case.inputs.values(), dims, strict=True)
        ],
    )
    return Outcome.of_report(report, own.undetermined if own else 0)
