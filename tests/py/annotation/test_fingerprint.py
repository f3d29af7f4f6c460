# SPDX-License-Identifier: BSD-3-Clause

"""Fingerprints: the same in every process, another for anything that is compiled."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import os
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import sympy
import torch
import triton.language as tl
import user_kernels

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import _fingerprint
from torch_tensorrt.annotation._fingerprint import (
    _Encoder,
    fingerprint,
    is_versioned,
    lasting_fingerprint,
)

MODULE = Path(user_kernels.__file__).read_text()

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
    "order of imports": (
        "import functools\nimport math",
        "import math\nimport functools",
    ),
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


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Imports a module from a file of the user's, whatever it is called."""

    def import_(name: str, text: str) -> None:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)

    return import_


HELPERS = """
    def one(n):
        return n + 1

    def two(n):
        return n * 2
    """
USES_BOTH = """
    import MODULE

    def first(n):
        return MODULE.one(n)

    def launch(x, out):
        return first(x) + MODULE.two(x)
    """


# The last three are also names of modules of the standard library.
@pytest.mark.parametrize("name", ["helpers", "trace", "profile", "code"])
@pytest.mark.parametrize("edit", [("n + 1", "n + 3"), ("n * 2", "n * 3")], ids=str)
def test_every_function_that_is_used_of_a_users_module_counts(
    name: str, edit: tuple[str, str], helpers: Callable[..., None], load: Loader
) -> None:
    """Also after another function of the same module was met."""
    launch = USES_BOTH.replace("MODULE", name)
    helpers(name, HELPERS)
    before = fingerprint(load(launch).launch)
    helpers(name, HELPERS.replace(*edit))
    assert fingerprint(load(launch).launch) != before


def test_what_is_not_used_of_a_users_module_does_not_count(
    helpers: Callable[..., None], load: Loader
) -> None:
    launch = "import helpers\ndef launch(x, out):\n    return helpers.one(x)\n"
    helpers("helpers", HELPERS)
    before = fingerprint(load(launch).launch)
    helpers("helpers", HELPERS.replace("n * 2", "n * 3"))
    assert fingerprint(load(launch).launch) == before


@pytest.mark.parametrize("module", ["trace", "os.path", "torch.nn", "triton.language"])
def test_the_version_of_a_known_package_stands_for_its_code(module: str) -> None:
    importlib.import_module(module)
    assert is_versioned(module)


@pytest.mark.parametrize("module", ["user_kernels", "kernels", "__main__", "", None])
def test_nothing_stands_for_the_code_of_a_users_module(module: str | None) -> None:
    assert not is_versioned(module)


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


class Count(int):
    """What users derive from numbers and text."""


class Count2(int): ...


class Ratio(float): ...


class Name(str): ...


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
    Count(1),
    Count(2),
    Count2(1),
    Ratio(1),
    Ratio(1.5),
    Name("1"),
    Name("2"),
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


n, m = sympy.symbols("n m", integer=True)


@pytest.mark.parametrize(
    ("one", "other"), [(n // m, m // n), (n**m, m**n), (n < m, m < n)], ids=str
)
def test_the_order_of_operands_counts(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("operation", [sympy.Add, sympy.Mul, sympy.Max], ids=str)
def test_the_order_of_terms_does_not_count(operation: Any) -> None:
    """sympy's may follow the hashes of the process."""
    one, other = (operation(*terms, evaluate=False) for terms in ((n, m), (m, n)))
    assert fingerprint(one) == fingerprint(other)


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


class Row(list[int]):
    scale = 1


def test_the_attributes_of_a_list_of_the_users_own_count() -> None:
    one, two, other = Row([1]), Row([1]), Row([1])
    other.scale = 2
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)


@dataclass(frozen=True)
class Tuning:
    hidden: int = field(repr=False)
    name: str = field(compare=False, default="")


def test_the_fields_of_a_dataclass_that_compare_count() -> None:
    assert fingerprint(Tuning(1, "a")) == fingerprint(Tuning(1, "b"))
    assert fingerprint(Tuning(1)) != fingerprint(Tuning(2))


def test_the_objects_of_a_language_are_told_by_their_text() -> None:
    half, single = map(lasting_fingerprint, (tl.float16, tl.float32))
    assert half != single
    assert half.obstacle == single.obstacle == ""


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


def test_a_closure_variable_may_have_no_value_yet() -> None:
    def outer(bind: bool) -> Callable[[], Any]:
        def inner() -> Any:
            return late

        if bind:
            late = 1
        return inner

    assert fingerprint(outer(False)) != fingerprint(outer(True))


def test_what_a_librarys_wrapper_holds_counts() -> None:
    library: dict[str, Any] = {"__name__": "torch.wrappers"}
    exec("def wrapped(f):\n    return lambda *args: f(*args)", library)
    one, other = (library["wrapped"](f) for f in (Launcher.launch, Launcher.other))
    assert one.__module__ == "torch.wrappers"
    assert fingerprint(one) != fingerprint(other)


def test_the_body_of_a_wrapper_with_a_librarys_name_counts(load: Loader) -> None:
    text = """
        import functools, torch

        @functools.wraps(torch.nn.functional.relu)
        def relu(x):
            return x * 2
        """
    one, other = load(text).relu, load(text.replace("2", "3")).relu
    assert one.__module__ == "torch.nn.functional"
    assert fingerprint(one) != fingerprint(other)


def test_a_function_of_a_file_that_is_being_edited_lasts_as_what_it_is(
    load: Loader,
) -> None:
    module = load("def launch(x):\n    return x\n")
    before = lasting_fingerprint(module.launch)
    with Path(str(module.__file__)).open("a") as file:
        file.write("\ndef (\n")
    after = lasting_fingerprint(module.launch)
    assert before.obstacle == after.obstacle == ""
    assert before != after


def test_what_a_function_imports_from_its_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("tta_package", "tta_package.helpers", "tta_package.launch")

    def digest(factor: int) -> str:
        folder = tmp_path / str(factor) / "tta_package"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "helpers.py").write_text(f"def scale(x):\n    return x * {factor}\n")
        (folder / "launch.py").write_text(
            "def launch(x):\n    from . import helpers\n    return helpers.scale(x)\n"
        )
        monkeypatch.syspath_prepend(folder.parent)
        *_, module = map(importlib.import_module, names)
        try:
            return fingerprint(module.launch)
        finally:
            for name in names:
                del sys.modules[name]

    assert digest(2) != digest(3)


def test_a_function_typed_in_without_source_differs_by_its_code(load: Loader) -> None:
    text = 'exec("def f(x): return x + 1")\nexec("def g(x): return x + 2")\n'
    module = load(text)
    module.g.__qualname__ = module.f.__qualname__
    assert fingerprint(module.f) != fingerprint(module.g)


def test_names_may_hold_more_than_ascii(load: Loader) -> None:
    module = load("größe = 3\ndef länge(x, out):\n    return x + größe\n")
    assert fingerprint(module.länge) == fingerprint(module.länge)


def test_an_assertion_that_pytest_rewrote_refers_to_nothing_of_pytests() -> None:
    def launch(x: Any) -> None:
        assert x == 1

    assert any(name.startswith("@pytest") for name in launch.__code__.co_names)
    encoder = _Encoder(as_it_runs=False)
    encoder.add(launch)
    assert encoder.tokens and not any("name=@" in t for t in encoder.tokens)


class Node:
    """Refers to all nodes there are."""

    nodes: ClassVar[list[Node]] = []

    def __init__(self) -> None:
        self.others = {1: Node.nodes, 2: frozenset(Node.nodes)}
        Node.nodes.append(self)


def test_objects_that_all_refer_to_one_another_are_visited_once() -> None:
    for _ in range(40):
        Node()
    assert fingerprint(Node()) == fingerprint(Node.nodes[-1])


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


TOO_MUCH = {"too deep": lambda: deep(200), "too long": lambda: [()] * 3000}


@pytest.mark.parametrize("make", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_refers_to_too_much_counts_as_itself(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fingerprint, "_MOST_VALUES", 2000)
    first, second = make(), make()
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)
    assert lasting_fingerprint(1, first).obstacle == (
        "a builtins.list, which refers to too much"
    )


def test_a_list_may_be_longer_than_anything_is_deep() -> None:
    rows = [(row,) for row in range(1000)]
    assert lasting_fingerprint(rows).obstacle == ""


def test_a_fingerprint_can_be_taken_where_the_stack_is_deep() -> None:
    value = deep(140)

    def below(frames: int) -> str:
        return below(frames - 1) if frames else fingerprint(value)

    frames = sys.getrecursionlimit() - len(inspect.stack()) - 100
    assert below(frames)


# --- What another process could not tell ----------------------------------------------


def test_a_digest_lasts_where_every_value_can_be_told() -> None:
    lasting = lasting_fingerprint(user_kernels.launch, {"BLOCK": 64}, torch.ones(2))
    assert lasting.obstacle == ""
    assert lasting == lasting_fingerprint(
        user_kernels.launch, {"BLOCK": 64}, torch.ones(2)
    )


def test_the_first_obstacle_is_named() -> None:
    nothing, lock = object(), threading.Lock()
    assert lasting_fingerprint([1, nothing, lock]).obstacle == "a builtins.object"
    assert "lock" in lasting_fingerprint(1, {"a": lock}).obstacle
    assert lasting_fingerprint(nothing) == lasting_fingerprint(nothing)
    assert lasting_fingerprint(nothing) != lasting_fingerprint(object())


class Unreadable:
    """An object whose fields cannot be read."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise LookupError("not now")


UNREADABLE: dict[str, tuple[Any, str]] = {
    "an object": (Unreadable(), "Unreadable, which raises LookupError"),
    "a tensor without values": (
        torch.empty(2, device="meta"),
        "a torch.Tensor, which raises NotImplementedError",
    ),
    "a sparse tensor": (
        torch.eye(3).to_sparse(),
        "a torch.Tensor, which raises RuntimeError",
    ),
    "a weak reference to nothing": (
        weakref.proxy(Launcher(1.0)),
        "which raises ReferenceError",
    ),
}


@pytest.mark.parametrize(("value", "obstacle"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_value_that_cannot_be_read_counts_as_itself(
    value: Any, obstacle: str
) -> None:
    assert lasting_fingerprint(1, value).obstacle.endswith(obstacle)
    assert fingerprint(value) == fingerprint(value)
    assert fingerprint(value) != fingerprint(1)


def test_code_inside_of_code_without_a_source_counts() -> None:
    def made(number: int) -> Any:
        names: dict[str, Any] = {}
        exec(f"def outer(x):\n    return (lambda y: y + {number})(x)", names)
        return names["outer"]

    assert fingerprint(made(2)) == fingerprint(made(2)) != fingerprint(made(3))
