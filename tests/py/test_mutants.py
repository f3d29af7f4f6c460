# SPDX-License-Identifier: BSD-3-Clause

"""tools/mutants.py makes the mutants it describes, and tells what the tests notice."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import mutants

# The library of a small project: the overlay's directory is the one that is imported.
LIBRARY = """\
def clamp(x: int, low: int = 0) -> int:
    if x < low:
        return low
    return x
"""
TESTS = """\
from library import clamp

def test_a_small_number_is_clamped():
    assert clamp(-5) == 0
    assert clamp(2) == 2
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one module, which `tools/mutants.py` takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("a copy of the tree is what git lists")
    root = tmp_path / "project"
    for name, text in {"overlay/library.py": LIBRARY, "test_library.py": TESTS}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", root], check=True)
    monkeypatch.setattr(mutants, "PROJECT", root)
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit status of the script, or the error that it ends with."""
    monkeypatch.setattr(mutants.resource, "setrlimit", lambda *limit: None)
    monkeypatch.setattr(sys, "argv", ["mutants.py", *arguments])
    with pytest.raises(SystemExit) as raised:
        mutants.main()
    return raised.value.code


def changes(text: str) -> set[str]:
    """Everything that a mutant puts into ``text``."""
    return {ast.unparse(new) for _, new in mutants.mutations(ast.parse(text))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a < b", {"a <= b"}),
        ("x = a is b in c", {"a is not b in c", "a is b not in c"}),
        ("x = 7", {"8", "6"}),
        ("x = a + b * c", {"a - b * c", "b // c"}),
        ("x += a", {"x -= a"}),
        ("x = a and b", {"a or b"}),
        ("x = True", {"False"}),
        ("if a: pass", {"not a"}),
        ("if a == b: pass", {"a != b"}),
        ("if not a: pass", {"a"}),
        ("x = [y for y in z if y]", {"not y"}),
        ("def f(): return x", {"return None"}),
        ("raise x", {"pass"}),
    ],
)
def test_a_change_is_made(text: str, expected: set[str]) -> None:
    assert changes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "x: Literal[1]",
        "def f(x: Literal[1]) -> Literal[True]: pass",
        "@dataclass(frozen=True)\nclass C: pass",
        "x = f'{a + 1}'",
        "x = 'a' + b",
        "def f(): return None",
        "if TYPE_CHECKING:\n    x = 1",
    ],
)
def test_what_makes_no_difference_is_left_alone(text: str) -> None:
    assert changes(text) == set()


def test_a_mutant_is_the_text_with_one_change(project: Path) -> None:
    module = project / "module.py"
    module.write_text('s = "ä"  # ö\nx = a - (b + 1) * 2  # kept\n')
    texts = {m.text.splitlines()[1] for m in mutants.sample("module.py", 100, seed=0)}
    assert texts == {
        "x = a + (b + 1) * 2  # kept",
        "x = a - (b - 1) * 2  # kept",
        "x = a - (b + 1) // 2  # kept",
        "x = a - (b + 2) * 2  # kept",
        "x = a - (b + 0) * 2  # kept",
        "x = a - (b + 1) * 3  # kept",
        "x = a - (b + 1) * 1  # kept",
    }


def test_parentheses_are_added_where_precedence_asks_for_them(project: Path) -> None:
    (project / "module.py").write_text("x = a * b ** c\n")
    texts = {mutant.text for mutant in mutants.sample("module.py", 100, seed=0)}
    assert texts == {"x = a // b ** c\n", "x = a * (b * c)\n"}


def test_a_seed_chooses_the_mutants(project: Path) -> None:
    (project / "module.py").write_text("x = 1 + 2 < 3 * 4\n" * 9)
    first, again, other = (
        mutants.sample("module.py", 5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == 5


@pytest.mark.slow
def test_survivors_and_scores_are_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("overlay/*.py", "--tests", "test_library.py", "--threshold", "90")
    status = run(monkeypatch, *arguments, "--per-module", "3")
    output = capsys.readouterr().out
    # One of each kind: `x <= low` gives the same numbers, so no test can notice it.
    assert output.count(": killed: ") == 2
    assert "overlay/library.py:2: SURVIVED: x < low -> x <= low" in output
    assert "\n-    if x < low:\n+    if x <= low:\n" in output
    row = ["overlay/library.py", "3", "2", "1", "67%"]
    assert output.splitlines()[-1].split() == row
    assert status == 1
    assert (project / "overlay/library.py").read_text() == LIBRARY


@pytest.mark.slow
def test_tests_that_never_import_the_module_are_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "test_library.py").write_text("def test_nothing(): pass\n")
    error = run(monkeypatch, "overlay/*.py", "--tests", "test_library.py")
    assert "do not import it" in str(error)


def test_tests_that_fail_without_a_change_are_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "test_library.py").write_text("def test_nothing(): assert False\n")
    error = run(monkeypatch, "overlay/*.py", "--tests", "test_library.py")
    assert "the tests fail without a change" in str(error)


def test_a_glob_that_matches_nothing_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "matches no file" in str(run(monkeypatch, "overlay/nothing*.py"))


def test_every_default_module_has_tests_that_exist() -> None:
    for glob in (*mutants.MODULES, *(modules for modules, _ in mutants.TESTS)):
        assert any(mutants.PROJECT.glob(glob)), glob
        tests = mutants.tests_of(glob.replace("*", "name"))
        assert all((mutants.PROJECT / test).exists() for test in tests)
