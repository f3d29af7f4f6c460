# SPDX-License-Identifier: BSD-3-Clause

"""What has to be the same in every process: digests, keys, names and code.

Another process, with another hash seed and a cache of its own, runs this file, and must
give the answers that :func:`answers` gives here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":  # in the other process
    sys.path[:0] = os.environ["TEST_FOLDERS"].split(os.pathsep)

import pytest
import torch
import user_kernels
from cache_tools import job, key
from conftest import FOLDERS, TESTS, RunPython
from kernels import BLOCKS, launch_silu
from test_encoding import EXPRESSIONS
from test_engine_cache import target_of_a_call

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._plugin import Plugin, Request
from torch_tensorrt.annotation._sizes.expressions import encode
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation._tensors import TensorInfo

HAS_CUTEDSL = importlib.util.find_spec("cutlass") is not None


def answers() -> dict[str, Any]:
    """What is asked of both processes, as JSON has it."""
    found = {f"spec: {name}": of_spec(s) for name, s in user_kernels.specs().items()}
    found["cache key"] = [key(job()), key(job(user_kernels.launch))]
    found["JSON of expressions"] = [encode(expr) for expr in EXPRESSIONS]
    found["kernels"] = kernels()
    found["call in a graph"] = target_of_a_call()
    if HAS_CUTEDSL:
        from test_cutedsl_cache import all_keys

        found["cache keys of CuTe DSL"] = all_keys()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def of_spec(spec: Any) -> list[Any]:
    op_name = tta.normalize_impl_to_spec(spec).op_name
    return [spec.fingerprint, hash(spec), op_name]


def kernels() -> list[Any]:
    """Number, name and code of a plugin's kernels."""
    meta = torch.empty_like
    spec = tta.custom_plugin(tta.triton(launch_silu, BLOCKS), meta_impl=meta)
    plugin = Plugin("test::silu", spec, meta, ["x"], {})
    request = Request.of((TensorInfo((8, 512), torch.float32),), {}, Target("sm_90"))
    found = []
    for tactic in plugin.kernels(request):
        assert tactic.kernel is not None, tactic.error
        kernel = tactic.kernel
        found.append([tactic.number, kernel.entry, kernel.digest, kernel.code])
    return found


@pytest.fixture(scope="module")
def here() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTA_TARGET", "sm_90")
        yield answers()


@pytest.fixture(scope="module")
def there(
    run_python: RunPython, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("another process")
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {
        "TEST_FOLDERS": os.pathsep.join([str(TESTS), *sorted(FOLDERS)]),
        "TTA_TARGET": "sm_90",
        "PYTHONHASHSEED": seed,
        "HOME": str(folder),
        "TTA_CACHE_DIR": str(folder / "cache"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    done = run_python([__file__], env=environment, cwd=folder)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_both_were_asked_about_every_kind_of_spec(here: dict[str, Any]) -> None:
    kinds = [name for name in here if name.startswith("spec: ")]
    assert len(kinds) == 9
    assert len({tuple(here[kind]) for kind in kinds}) == 9


@pytest.mark.parametrize("name", [f"spec: {name}" for name in user_kernels.specs()])
def test_a_spec_has_the_same_fingerprint_hash_and_op_name(
    name: str, here: dict[str, Any], there: dict[str, Any]
) -> None:
    assert there[name] == here[name]


def test_a_kernel_has_the_same_key(here: dict[str, Any], there: dict[str, Any]) -> None:
    assert there["cache key"] == here["cache key"]
    assert None not in here["cache key"]


def test_an_expression_has_the_same_json(
    here: dict[str, Any], there: dict[str, Any]
) -> None:
    assert there["JSON of expressions"] == here["JSON of expressions"]


def test_a_kernel_has_the_same_number_name_and_code(
    here: dict[str, Any], there: dict[str, Any]
) -> None:
    assert there["kernels"] == here["kernels"]
    assert here["kernels"][0][1].startswith("test__silu_t1_")


def test_the_engine_cache_of_torch_tensorrt_sees_the_same_call(
    here: dict[str, Any], there: dict[str, Any]
) -> None:
    assert there["call in a graph"] == here["call in a graph"]
    assert here["call in a graph"].startswith("ec.op.default[")


@pytest.mark.skipif(not HAS_CUTEDSL, reason="CuTe DSL is not installed")
def test_a_kernel_of_cute_dsl_has_the_same_key(
    here: dict[str, Any], there: dict[str, Any]
) -> None:
    keys = here["cache keys of CuTe DSL"]
    assert there["cache keys of CuTe DSL"] == keys
    assert None not in keys
    assert len(set(keys)) == len(keys) > 5


if __name__ == "__main__":
    print(json.dumps(answers()))
