# SPDX-License-Identifier: BSD-3-Clause

"""tools/fuzz.py finds what is wrong, and nothing is wrong with a few functions."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import IS_THOROUGH

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import fuzz
import fuzz_bodies

from torch_tensorrt.annotation._tensors import Range, TensorInfo


def test_random_bodies_compute_what_they_do_at_all_sizes() -> None:
    found = [
        fuzz_bodies.outcome(random.Random(seed), 10)
        for seed in range(50 if IS_THOROUGH else 6)
    ]
    assert not [text for word, text in found if word == "wrong"]
    assert sum(word.startswith("body right") for word, _ in found) > len(found) // 2


def test_random_functions_are_recorded_as_they_are() -> None:
    found = [fuzz.outcome(7, number, 20, 500, 0) for number in range(1, 13)]
    assert not [text for word, text in found if word == "wrong"]
    assert sum(word == "right" for word, _ in found) > len(found) // 3


SOURCE = """def launch(x, y, out):
    n, m = x.shape
    kernel[(n,)](x, {y}, x, out, p={p}, q=1, r=2, C=1, MODE=Mode.SUM)
"""


@pytest.mark.parametrize(
    "other",
    [{"y": "x[2:]", "p": "n"}, {"y": "x[1:]", "p": "n + 1"}],
    ids=["a pointer", "a number"],
)
def test_what_is_recorded_otherwise_is_wrong(other: dict[str, str]) -> None:
    infos = (
        TensorInfo((Range(4, 5, 6), 8), torch.float32),
        TensorInfo((4,), torch.float32),
    )
    case = fuzz.Case(SOURCE.format(y="x[1:]", p="n"), infos)
    program = case.recorded()
    assert isinstance(program, fuzz.Program)
    shapes = case.shapes(random.Random(0), 5)
    recorded = fuzz.values(program, case)
    assert case.difference(recorded, shapes) is None
    function = replace(case, source=SOURCE.format(**other))
    assert "are recorded as" in str(function.difference(recorded, shapes))
