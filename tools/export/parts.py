# SPDX-License-Identifier: BSD-3-Clause

"""The commits of the stack, and which of them a file belongs to.

Imports in the library go one way. So each commit holds some modules, its roots, with
all that they import and earlier commits lack, and works without the commits after it. A
test belongs to the first commit that has everything it uses.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from files import LIBRARY, TESTS

ANNOTATION, PLUGINS = LIBRARY
PUBLIC = f"{ANNOTATION}/__init__.py"


@dataclass(frozen=True)
class Part:
    """A commit.

    Args:
        roots: patterns of the library's files.
        others: patterns of files outside of the library that belong to it, also where
            an earlier commit has all that they use.
        toolchains: modules that tests of this commit, or of later ones, import.
    """

    subject: str
    body: str
    roots: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    toolchains: tuple[str, ...] = ()


PARTS = (
    Part(
        "feat(annotation): record what a function launches",
        "Runs a launch function on fake tensors, and keeps its launches, sizes as\n"
        "expressions. It then runs the function on plain integers, and refuses a\n"
        "function that does something else there. Nothing uses it yet.",
        roots=(f"{ANNOTATION}/_record/*", f"{ANNOTATION}/_specs.py"),
        others=(f"{TESTS}/conftest.py",),
    ),
    Part(
        "feat(annotation): compile what was recorded, and try it",
        "The kernels of an op for a request of TensorRT's builder: compiled beside\n"
        "each other, cached, and checked by what their PTX does. The dry run makes\n"
        "the builder's calls, shows each tactic, and on a GPU runs and checks each.",
        roots=(f"{ANNOTATION}/_plugin.py", f"{ANNOTATION}/_dry_run/*"),
    ),
    Part(
        "refactor(plugins): custom_op takes launch functions",
        "custom_op(impl=...) embeds the kernels that a launch function launches.\n"
        "Without impl it registers the plugin that it did before. One descriptor\n"
        "serves both: outputs have dtypes of their own, and arguments may be lists\n"
        "and optional.",
        roots=(f"{PLUGINS}/*",),
    ),
    Part(
        "feat(annotation): Triton",
        "tta.triton(launch_fn): Triton kernels with their own launch functions.",
        roots=(f"{ANNOTATION}/backends/triton/*",),
        toolchains=("triton",),
    ),
    Part(
        "feat(annotation): more languages",
        "The other languages, each in a folder that no module outside of it names.",
        roots=(f"{ANNOTATION}/backends/*/*",),
        # These go through all languages.
        others=tuple(
            f"{TESTS}/test_{name}.py" for name in ("imports", "features", "golden")
        ),
        toolchains=("cuda.tile", "cutlass", "cuda.core"),
    ),
    Part(
        "feat(annotation): programs and models",
        "tta.explain and tta.adopt, the command line, and the tests of ops of several\n"
        "steps and of ops that write their inputs.",
        roots=(f"{ANNOTATION}/*",),
        others=(
            *(f"{TESTS}/*{name}*" for name in ("programs", "taken_apart", "steps")),
            f"{TESTS}/integration/*",
        ),
    ),
    Part(
        "docs(annotation): guides, reference and examples",
        "The examples run on any machine: with TensorRT and a GPU they build an\n"
        "engine, elsewhere they make a dry run.",
        others=("docsrc/*", "examples/*"),
    ),
)


def parts(files: Mapping[str, str]) -> dict[str, int]:
    """Path of each file -> the number of its commit."""
    imported = {path: imports(path, files) for path in files if path.endswith(".py")}
    found: dict[str, int] = {PUBLIC: 0}

    def add(path: str, number: int) -> None:
        if path not in found:
            found[path] = number
            for other in imported[path]:
                add(other, number)

    for number, part in enumerate(PARTS):
        for path in imported:
            if any(fnmatch(path, root) for root in part.roots):
                add(path, number)
    for number, part in enumerate(PARTS):
        for path in files:
            if any(fnmatch(path, pattern) for pattern in part.others):
                found.setdefault(path, number)

    modules = public(files)
    code = {p: re.sub("#.*", "", files[p]) for p in imported if p not in found}

    def needed(path: str, seen: frozenset[str] = frozenset()) -> int:
        """The first commit that has all that a test, or what it imports, uses."""
        if path not in code or path in seen:
            return found.get(path, 0)
        names = set(re.findall(r"\btta\.(\w+)", code[path])) & modules.keys()
        used = imported[path] | {modules[name] for name in names}
        if re.search(r"-m\W{1,6}torch_tensorrt\.annotation\b", code[path]):
            used.add(f"{ANNOTATION}/__main__.py")
        numbers = [needed(other, seen | {path}) for other in used]
        numbers += (
            number
            for number, part in enumerate(PARTS)
            for name in part.toolchains
            if re.search(rf"(import|from|importorskip\(.)\s*{name}\b", code[path])
        )
        return max(numbers, default=0)

    found.update({path: needed(path) for path in code})

    def users(path: str) -> list[int]:
        """The commits of tests that import a file; of data, that name it."""
        if path in imported:
            return [found[test] for test in code if path in imported[test]]
        names = "|".join(PurePosixPath(path).relative_to(TESTS).parts)
        return [
            found[test] for test in code if re.search(rf"\b({names})\b", code[test])
        ]

    for path in files:  # what tests use comes with the first that uses it
        is_test = PurePosixPath(path).name.startswith("test_")
        if path in code and not is_test:
            found[path] = max(found[path], min(users(path), default=0))
        elif path not in found:
            found[path] = min(users(path), default=0)
    return found


def public_names(text: str, present: Collection[str]) -> str:
    """``annotation/__init__.py`` without the names of modules that are absent."""
    named = public({**dict.fromkeys(present, ""), PUBLIC: text})
    gone = {name for name, path in named.items() if path not in present}
    lines = text.splitlines(keepends=True)
    nodes: list[ast.stmt | ast.expr] = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Assign(value=ast.List(elts=elements) | ast.Dict(keys=elements)):
                nodes += (e for e in elements if ast.literal_eval(e) in gone)
            case ast.ImportFrom() | ast.If():  # of imports for type checkers
                aliases = [a for a in ast.walk(node) if isinstance(a, ast.alias)]
                if aliases and all(alias.asname in gone for alias in aliases):
                    nodes.append(node)
    for node in nodes:
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = ""
    return "".join(lines)


def public(files: Mapping[str, str]) -> dict[str, str]:
    """The names in ``annotation/__init__.py``, and the modules they are of."""
    found = {}
    for node in ast.walk(ast.parse(files[PUBLIC])):
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                module = node.module or alias.name
                path = f"{ANNOTATION}/{module.replace('.', '/')}"
                is_package = f"{path}/__init__.py" in files
                path = f"{path}/__init__.py" if is_package else f"{path}.py"
                found[alias.asname or alias.name] = path
    return found


def imports(path: str, files: Mapping[str, str]) -> set[str]:
    """The files that a file imports, anywhere in its text, and their packages'."""
    package = PurePosixPath(path).parent.parts[1:]
    names = set()
    for node in ast.walk(ast.parse(files[path])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    found = set()
    for name in names:
        if name.startswith("torch_tensorrt."):
            words = ["py", *name.split(".")]
            for end in range(2, len(words) + 1):
                module = "/".join(words[:end])
                found |= {f"{module}.py", f"{module}/__init__.py"} & files.keys()
        elif path.startswith(TESTS) and "." not in name:
            found |= {test for test in files if test.endswith(f"/{name}.py")}
    return found - {path, PUBLIC}
