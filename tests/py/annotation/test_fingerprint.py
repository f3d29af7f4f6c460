"""Fingerprints: the same in every process, another for anything that is compiled."""

from __future__ import annotations

import enum
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation._fingerprint import _Encoder, fingerprint

MODULE = """
import functools
import math
import enum

import torch
import triton
import triton.language as tl

import torch_tensorrt.annotation as tta

SCALE: tl.constexpr = 2
LIMIT = 1024


class Mode(enum.Enum):
    FAST = 1


class Tile:
    BLOCK = 128


@triton.jit
def scaled(x, factor: tl.constexpr):
    return x * factor + 1


@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, scaled(x, SCALE), mask=offsets < n)


def blocks(n, BLOCK):
    return min(triton.cdiv(n, BLOCK), LIMIT)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **keywords):
        return function(*args, **{"BLOCK": 32, **keywords})

    return wrapper


def launch(x, out, BLOCK=256, *, mode=Mode.FAST):
    n = math.prod(x.shape)
    kernel[(blocks(n, BLOCK),)](x, out, n, BLOCK=BLOCK)


@decorated
def launch_decorated(x, out, BLOCK):
    launch(x, out, BLOCK)


def launch_tile(x, out):
    launch(x, out, Tile.BLOCK)


def make(block):
    @triton.jit
    def inner(x_ptr, out_ptr, BLOCK: tl.constexpr):
        offsets = tl.arange(0, BLOCK)
        tl.store(out_ptr + offsets, tl.load(x_ptr + offsets) + block)

    def launch(x, out):
        inner[(1,)](x, out, BLOCK=block)

    return launch


add, multiply = (lambda x, out: out.add_(1)), (lambda x, out: out.mul_(2))
meta = lambda x: x.new_empty(x.shape)
in_a_set = lambda x: torch.empty_like(x) if x.layout in {"a", "b", "c", "d"} else x
exec("def typed_in(x, out): return x + 1")

weight = torch.arange(6.0).reshape(2, 3)


def specs():
    return {
        "function": tta.triton(launch, [{"BLOCK": 64, "num_warps": 8}]),
        "decorated": tta.triton(launch_decorated),
        "class": tta.triton(launch_tile),
        "closure": tta.triton(make(16)),
        "lambda": tta.triton(add),
        "partial": tta.triton(functools.partial(launch, BLOCK=64)),
        "source-less": tta.triton(typed_in),
        "set": tta.custom_plugin(tta.triton(launch), meta_impl=in_a_set),
        "plugin": tta.custom_plugin(
            tta.triton(launch), meta, alpha=0.5, mode="fast", weight=weight
        ),
    }
"""

CASES = (
    "function",
    "decorated",
    "class",
    "closure",
    "lambda",
    "partial",
    "source-less",
    "set",
    "plugin",
)


# --- Across processes -----------------------------------------------------------------


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes with other hash seeds say of the specs of ``MODULE``."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "user_kernels.py").write_text(MODULE)
    (folder / "report.py").write_text(
        "import json\nfrom user_kernels import specs, tta\n"
        "print(json.dumps({name: [spec.fingerprint, hash(spec),\n"
        "    tta.normalize_impl_to_spec(spec).op_name]\n"
        "    for name, spec in specs().items()}))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "report.py"],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    answers = []
    for process in running:
        output, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        answers.append(json.loads(output.splitlines()[-1]))
    return answers


@pytest.mark.parametrize("case", CASES)
def test_two_processes_agree_on_fingerprint_hash_and_op_name(
    case: str, processes: list[dict[str, Any]]
) -> None:
    first, second = processes
    assert first[case] == second[case]


def test_the_processes_were_asked_about_every_case(
    processes: list[dict[str, Any]],
) -> None:
    assert sorted(processes[0]) == sorted(CASES)
    assert len({tuple(answer) for answer in processes[0].values()}) == len(CASES)


# --- What changes a fingerprint, and what does not ------------------------------------

Loader = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    """Import a text as the module ``user_kernels``, each time from a new file."""

    def load(text: str) -> ModuleType:
        path = tmp_path_factory.mktemp("text") / "user_kernels.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("user_kernels", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def edited(old: str, new: str) -> str:
    assert MODULE.count(old) == 1
    return MODULE.replace(old, new)


@pytest.fixture(scope="module")
def unchanged(load: Loader) -> dict[str, str]:
    """The fingerprint of each of the specs of ``MODULE``."""
    return {name: spec.fingerprint for name, spec in load(MODULE).specs().items()}


# what changes: (which spec it changes, the text of MODULE, what takes its place)
CHANGES = {
    "kernel": ("function", "offsets < n)\n    tl", "offsets <= n)\n    tl"),
    "kernel's helper": ("function", "x * factor + 1", "x * factor + 2"),
    "kernel's constant": ("function", "constexpr = 2", "constexpr = 3"),
    "launch function": ("function", "math.prod(x.shape)", "x.numel()"),
    "helper": ("function", "min(triton", "max(triton"),
    "helper's global": ("function", "LIMIT = 1024", "LIMIT = 1024.0"),
    "default": ("function", "BLOCK=256, *", "BLOCK=255, *"),
    "enum": ("function", "FAST = 1", "SLOW = 1\n    FAST = 2"),
    "config": ("function", '"BLOCK": 64, "n', '"BLOCK": 65, "n'),
    "option": ("function", '"num_warps": 8', '"num_warps": 4'),
    "decorator": ("decorated", '"BLOCK": 32', '"BLOCK": 33'),
    "no decorator": ("decorated", "@decorated\n", ""),
    "class attribute": ("class", "BLOCK = 128", "BLOCK = 129"),
    "closure value": ("closure", "make(16)", "make(32)"),
    "kernel in a closure": ("closure", "+ block)", "- block)"),
    "lambda": ("lambda", "out.add_(1)", "out.add_(2)"),
    "lambda's constant": ("lambda", "out.add_(1)", "out.add_(1.0)"),
    "partial": ("partial", "partial(launch, BLOCK=64)", "partial(launch, BLOCK=65)"),
    "under a partial": ("partial", "x * factor + 1", "x * factor + 2"),
    "bytecode": ("source-less", "return x + 1", "return x + 2"),
    "meta": ("plugin", "x.new_empty(x.shape)", "x.new_zeros(x.shape)"),
    "attribute": ("plugin", "alpha=0.5", "alpha=0.25"),
    "text attribute": ("plugin", 'mode="fast"', 'mode="slow"'),
    "weight": ("plugin", "arange(6.0)", "arange(6.0).neg()"),
    "weight's shape": ("plugin", "reshape(2, 3)", "reshape(3, 2)"),
    "weight's dtype": ("plugin", "arange(6.0)", "arange(6.0).half()"),
}


@pytest.mark.parametrize(("case", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_a_change_changes_the_fingerprint(
    case: str, old: str, new: str, load: Loader, unchanged: dict[str, str]
) -> None:
    spec = load(edited(old, new)).specs()[case]
    assert spec.fingerprint != unchanged[case]


ELSEWHERE = {
    "another line": ("\nSCALE", "\n\n\nUNRELATED = 3\n\n\nSCALE"),
    "another function": ("class Tile:", "def other():\n    pass\n\n\nclass Tile:"),
    "order of imports": ("import math\nimport enum", "import enum\nimport math"),
}


@pytest.mark.parametrize(("old", "new"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_change_elsewhere_changes_nothing(
    old: str, new: str, load: Loader, unchanged: dict[str, str]
) -> None:
    specs = load(edited(old, new)).specs()
    assert {name: spec.fingerprint for name, spec in specs.items()} == unchanged


def test_a_function_may_be_indented_otherwise(load: Loader) -> None:
    plain = load("def launch(x, out):\n    return x\n").launch
    assert (before := fingerprint(plain))
    indented = load("if True:\n    def launch(x, out):\n        return x\n").launch
    assert fingerprint(indented) == before


def test_two_lambdas_on_one_line_differ(load: Loader) -> None:
    module = load(MODULE)
    assert fingerprint(module.add) != fingerprint(module.multiply)


def test_lambdas_with_other_parameters_differ() -> None:
    assert fingerprint(lambda a, b: a) != fingerprint(lambda a, *b: a)


def test_the_same_lambda_twice_is_the_same() -> None:
    assert fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)


@pytest.mark.parametrize("path", ["inner", "outer.nested"])
def test_a_helper_named_through_modules_counts(path: str, load: Loader) -> None:
    text = """
        from types import ModuleType
        def helper(n):
            return n + 1
        inner = ModuleType("user_package.inner")
        inner.compute = helper
        outer = ModuleType("user_package")
        outer.nested = inner
        def launch(x, out):
            return PATH.compute(x)
        """.replace("PATH", path)
    before = fingerprint(load(text).launch)
    assert fingerprint(load(text.replace("n + 1", "n + 2")).launch) != before


def test_formats_change_the_fingerprint() -> None:
    def launch(x: Any, out: Any) -> None: ...

    kinds = [
        tta.triton(launch),
        tta.triton(launch, input_formats="LINEAR"),
        tta.triton(launch, output_formats="LINEAR"),
    ]
    assert len({kind.fingerprint for kind in kinds}) == 3


# --- Values ---------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


DISTINCT: list[Any] = [
    None,
    1,
    1.0,
    True,
    "1",
    b"1",
    1 + 0j,
    Number.ONE,
    Color.RED,
    0,
    0.0,
    -0.0,
    False,
    "",
    (),
    [],
    {},
    (1,),
    [1],
    {1: 1},
    {True: 1},
    {1: True},
    ((1,), 2),
    ((1, 2),),
    torch.float16,
    torch.device("cpu"),
    torch.tensor(1),
    torch.tensor(1.0),
    torch.tensor([1.0]),
    torch.tensor(True),
    torch.empty(0),
    torch.empty(0, 2),
    int,
    len,
    os,
    os.path,
]


def test_values_of_any_other_kind_or_type_differ() -> None:
    assert len({fingerprint(value) for value in DISTINCT}) == len(DISTINCT)


def test_values_do_not_run_into_one_another() -> None:
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint("a", "", "b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="order in a dict"),
        pytest.param([[1], [1]], [[1]] * 2, id="one list twice"),
        pytest.param(float("nan"), float("nan"), id="nan"),
        pytest.param(torch.ones(2, 3), torch.ones(3, 2).t(), id="strides"),
        pytest.param(torch.ones(2), torch.nn.Parameter(torch.ones(2)), id="gradient"),
        pytest.param(np.int64(4), np.int64(4), id="NumPy scalar"),
        pytest.param(np.arange(3), np.arange(3), id="NumPy array"),
        pytest.param({"a", "b"}, {"b", "a"}, id="set"),
        pytest.param(torch.Size([2, 3]), torch.Size([2, 3]), id="torch's shape"),
        pytest.param(range(3), range(0, 3), id="range"),
    ],
)
def test_values_that_mean_the_same_are_the_same(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.int64(4), np.int64(5)),
        (np.int64(4), np.int32(4)),
        (np.arange(3), np.arange(3) * 2),
        ({1, 2}, {1, 3}),
    ],
    ids=repr,
)
def test_values_of_other_libraries_and_sets_differ_by_content(
    one: Any, other: Any
) -> None:
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.bool])
def test_a_weight_of_any_dtype_has_a_fingerprint(dtype: torch.dtype) -> None:
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert fingerprint(zeros.to(dtype)) != fingerprint(ones.to(dtype))


# --- Objects --------------------------------------------------------------------------


class Launcher:
    def __init__(self, alpha: float, fn: Callable[..., Any] | None = None) -> None:
        self.alpha = alpha
        if fn is not None:
            self.fn = fn

    def launch(self, x: Any, out: Any) -> None: ...

    def other(self, x: Any, out: Any) -> None: ...


def test_a_bound_method_is_the_same_each_time() -> None:
    launcher = Launcher(0.5)
    assert fingerprint(launcher.launch) == fingerprint(launcher.launch)


def test_methods_of_one_object_differ() -> None:
    launcher = Launcher(0.5)
    assert fingerprint(launcher.launch) != fingerprint(launcher.other)


def test_an_object_that_is_gone_is_not_taken_for_its_successor() -> None:
    """Addresses are used again: a kernel of the first would be taken for the second's.

    ``replace=True`` in a loop over launchers is all it takes.
    """
    digests = set()
    for alpha in range(20):
        digests.add(fingerprint(Launcher(alpha).launch))
    assert len(digests) == 20


def test_the_attributes_of_an_object_that_holds_a_function_count() -> None:
    one, two = Launcher(1.0, print), Launcher(2.0, print)
    assert fingerprint(one) != fingerprint(two)


# --- Functions that need care ---------------------------------------------------------


def test_a_function_that_names_itself_has_a_fingerprint() -> None:
    def outer() -> Callable[..., Any]:
        def countdown(n: int) -> int:
            return n and countdown(n - 1)

        return countdown

    assert fingerprint(outer()) == fingerprint(outer())


def test_functions_that_name_each_other_have_fingerprints(load: Loader) -> None:
    text = """
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        """
    before = fingerprint(load(text).even)
    assert fingerprint(load(text.replace("n != 0", "n > 0")).even) != before


def test_a_closure_variable_without_a_value_yet_is_no_error() -> None:
    def outer(bind: bool) -> Callable[[], Any]:
        def inner() -> Any:
            return late

        if bind:
            late = 1
        return inner

    assert fingerprint(outer(False)) != fingerprint(outer(True))


def test_a_function_typed_in_without_source_differs_by_its_code(load: Loader) -> None:
    text = 'exec("def f(x): return x + 1")\nexec("def g(x): return x + 2")\n'
    module = load(text)
    module.g.__qualname__ = module.f.__qualname__
    assert fingerprint(module.f) != fingerprint(module.g)


def test_a_non_ascii_name_is_no_error(load: Loader) -> None:
    module = load("größe = 3\ndef länge(x, out):\n    return x + größe\n")
    assert fingerprint(module.länge) == fingerprint(module.länge)


def test_an_assertion_that_pytest_rewrote_refers_to_nothing_of_pytests() -> None:
    def launch(x: Any) -> None:
        assert x == 1

    assert any(name.startswith("@pytest") for name in launch.__code__.co_names)
    assert not any("name=@" in token for token in _Encoder().tokens(launch))


class Node:
    """Refers to all nodes there are."""

    nodes: ClassVar[list[Node]] = []

    def __init__(self) -> None:
        self.others = {1: Node.nodes, 2: frozenset(Node.nodes)}
        Node.nodes.append(self)


def test_what_refers_to_too_much_counts_as_itself() -> None:
    for _ in range(12):
        Node()
    first, second = Node(), Node()
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)
