# SPDX-License-Identifier: BSD-3-Clause

"""What changes in files that Torch-TensorRT has already.

Each function takes a file's text and returns it with what is added, or as it is where
that is there already. It refuses a file that does not have the place to add to. Python
files are read as syntax trees, so that their layout does not matter.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence

Amended = Callable[[str], str]


class Unexpected(Exception):
    """A file of the checkout is not as this tool expects it."""


def setup(
    packages: Sequence[str],
    requirements: Sequence[str],
    extras: Mapping[str, Sequence[str]],
) -> Amended:
    """``setup.py`` with the packages, what they need, and the extras."""

    def amended(text: str) -> str:
        text = _extended(text, "dynamo_packages", dict.fromkeys(packages))
        folders = {p: f'"py/{p.replace(".", "/")}"' for p in packages}
        text = _extended(text, "dynamo_package_dir", folders)
        needed = {r: None for r in requirements if not _is_named(r, text)}
        text = _extended(text, "base_requirements", needed)
        named = {name: _list(values) for name, values in extras.items()}
        return _extended(text, "EXTRAS_REQUIRE", named)

    return amended


def pyproject(test_requirements: Sequence[str], mypy: str) -> Amended:
    """``pyproject.toml`` with what the tests need, and a section for mypy."""

    def amended(text: str) -> str:
        group = re.search(r"^test = \[\n(.*?)^\]\n", text, re.MULTILINE | re.DOTALL)
        if group is None:
            raise Unexpected("it has no dependency group named test")
        new = [r for r in test_requirements if f'"{_name(r)}' not in group[1]]
        lines = "".join(f'    "{requirement}",\n' for requirement in new)
        text = text[: group.end(1)] + lines + text[group.end(1) :]
        if mypy in text:
            return text
        if "[tool.mypy]\n" not in text:
            raise Unexpected("it has no section [tool.mypy]")
        overrides = list(re.finditer(r"^\[tool\.(?!mypy)", text, re.MULTILINE))
        after = text.index("[tool.mypy]\n")
        end = next((m.start() for m in overrides if m.start() > after), len(text))
        return text[:end] + mypy + "\n" + text[end:]

    return amended


def suites(after: str, name: str, suite: str) -> Amended:
    """``tests/ci/suites.py`` with ``suite`` after the one named ``after``."""

    def amended(text: str) -> str:
        found = {
            node.args[0].value: node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "Suite"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
        if name in found:
            return text
        if after not in found:
            raise Unexpected(f"it has no Suite({after!r}, ...)")
        return _with_lines(text, found[after].end_lineno, suite)

    return amended


def toctree(after: str, entries: Sequence[str]) -> Amended:
    """A page with ``entries`` after the entry ``after`` of a table of contents."""

    def amended(text: str) -> str:
        lines = text.splitlines(keepends=True)
        places = [n for n, line in enumerate(lines, 1) if line.strip() == after]
        if not places:
            raise Unexpected(f"no line of it is {after}")
        new = [entry for entry in entries if f"   {entry}\n" not in lines]
        return _with_lines(text, places[-1], "".join(f"   {e}\n" for e in new))

    return amended


def ending_with(lines: Sequence[str]) -> Amended:
    """A page with ``lines`` at its end."""

    def amended(text: str) -> str:
        new = [line for line in lines if line not in text.splitlines()]
        return "\n".join([text.rstrip("\n"), *new]) + "\n"

    return amended


def _extended(text: str, name: str, entries: Mapping[str, str | None]) -> str:
    """``text`` with ``entries`` in the list or dict that ``name`` is assigned.

    Args:
        entries: keys, and the source of their values; None in a list.
    """
    node, known = _assigned(text, name)
    added = [
        " " * (node.col_offset + 4) + f'"{key}"' + (f": {v}" if v else "") + ",\n"
        for key, v in entries.items()
        if key not in known
    ]
    assert node.value.end_lineno is not None
    extended = _with_lines(text, node.value.end_lineno - 1, "".join(added))
    try:
        _, now = _assigned(extended, name)
    except SyntaxError:
        now = set()
    if now != known | set(entries):
        raise Unexpected(f"{name} does not end with a comma, and a line of its own")
    return extended


def _assigned(text: str, name: str) -> tuple[ast.Assign, set[object]]:
    """Where a list or dict is assigned to ``name``, and its elements or keys."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name
            for target in node.targets
        ):
            break
    else:
        raise Unexpected(f"nothing in it is assigned to {name}")
    keys: Sequence[ast.expr | None]
    match node.value:
        case ast.List(elts=keys) | ast.Dict(keys=keys):
            return node, {key.value for key in keys if isinstance(key, ast.Constant)}
    raise Unexpected(f"{name} is neither a list nor a dict")


def _with_lines(text: str, after: int | None, added: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:after], added, *lines[after:]])


def _list(values: Sequence[str]) -> str:
    return "".join(["[\n", *(f'        "{value}",\n' for value in values), "    ]"])


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return match[0]


def _is_named(requirement: str, text: str) -> bool:
    """Whether ``text`` has a requirement of the same name."""
    name = re.escape(_name(requirement))
    return re.search(rf'"{name}["<>=!~\[]', text) is not None
