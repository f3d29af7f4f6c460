# SPDX-License-Identifier: BSD-3-Clause

"""The environment variables: one table, and what is wrong in them is said."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from torch_tensorrt.annotation import _settings
from torch_tensorrt.annotation._settings import SETTINGS, cache_folder, cache_size
from torch_tensorrt.annotation.errors import SpecError

LIBRARY = Path(str(_settings.__file__)).parent
JOBS, CACHE_SIZE = "TTA_JOBS", "TTA_CACHE_SIZE"


def setting(name: str) -> _settings.Setting:
    (found,) = (setting for setting in SETTINGS if setting.name == name)
    return found


def test_every_setting_is_in_the_table_once() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    declared = [v for v in vars(_settings).values() if isinstance(v, _settings.Setting)]
    assert set(declared) == set(SETTINGS)


def test_no_other_module_names_a_variable_of_this_project() -> None:
    """They ask the table; docstrings and messages may name one."""
    for path in LIBRARY.rglob("*.py"):
        if path.name == "_settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith("TTA_"), (path, node.lineno)


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
def test_an_empty_value_counts_as_unset(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "")
    assert setting(name).text() == setting(name).default
    monkeypatch.setenv(name, "value")
    assert setting(name).text() == "value"


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("0.5", 0.5), (" 3 ", 3)])
def test_a_number_above_zero_is_read(
    text: str, number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOBS, text)
    assert setting(JOBS).positive() == number


@pytest.mark.parametrize("text", ["no", "0", "-1", "nan", "inf", "1e999", "2 jobs"])
def test_a_value_that_is_not_a_number_above_zero_is_refused_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOBS, text)
    with pytest.raises(SpecError, match=f"TTA_JOBS='{text}'.*write a number above 0"):
        setting(JOBS).positive()


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 5 * 10**8), ("2GB", 2 * 10**9), ("1.5 k", 1500), ("12", 12), ("", None)],
)
def test_a_size_is_read_as_people_write_it(
    text: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_SIZE, text)
    assert cache_size() == (2 * 10**9 if size is None else size)


@pytest.mark.parametrize("text", ["much", "-1", "1PB", "nan", "1.GB", "GB"])
def test_a_value_that_is_not_a_size_is_refused_by_name(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_SIZE, text)
    with pytest.raises(SpecError, match=f"TTA_CACHE_SIZE='{text}': not a size"):
        cache_size()


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTA_CACHE_DIR", "~/here")
    assert cache_folder() == Path.home() / "here"
    monkeypatch.delenv("TTA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/torch_tensorrt/annotation")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/torch_tensorrt/annotation"
