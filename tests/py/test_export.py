# SPDX-License-Identifier: BSD-3-Clause

"""``make export`` into a small checkout that is laid out as Torch-TensorRT's.

Its formatters and linters, which come from an index of packages, do not run here.
"""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import RunPython

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tools" / "export"))

import amend  # noqa: E402
import checkout  # noqa: E402
import files  # noqa: E402
import pages  # noqa: E402
import parts  # noqa: E402
import trial  # noqa: E402

SETUP = """
EXTRAS_REQUIRE = {
    "executorch": ["executorch"],
}
dynamo_packages = [
    "torch_tensorrt",
    "torch_tensorrt.dynamo.conversion.plugins",
]
dynamo_package_dir = {
    "torch_tensorrt": "py/torch_tensorrt",
    "torch_tensorrt.dynamo.conversion.plugins": "py/torch_tensorrt/dynamo/conversion/plugins",
}


def get_requirements():
    base_requirements = [
        "packaging>=23",
    ]
    return base_requirements + ["numpy"]
"""  # noqa: E501

PYPROJECT = """
[dependency-groups]
test = [
    "pytest>=9.0.3",
]

[tool.mypy]
strict = true

[[tool.mypy.overrides]]
module = "torch_tensorrt.fx.*"
ignore_errors = true

[tool.typos]
"""

SUITES = """
from types import SimpleNamespace


def Suite(name, **how):
    return SimpleNamespace(name=name, **how)


SUITES = [
    Suite("kernels", tier="l2", cwd="tests/py/kernels"),
    Suite("last", tier="l2"),
]
"""

CHECKOUT = {
    "setup.py": SETUP,
    "pyproject.toml": PYPROJECT,
    "tests/ci/suites.py": SUITES,
    "docsrc/py_api/index.rst": ".. toctree::\n\n   kernels\n   executorch\n",
    "docsrc/tutorials/extensibility/plugins/index.rst": ".. toctree::\n\n   plugins\n",
    "examples/dynamo/README.rst": "* :ref:`an_example`: An example",
    "py/torch_tensorrt/dynamo/conversion/plugins/__init__.py": "",
    "py/torch_tensorrt/dynamo/conversion/plugins/_custom_op.py": "",
}

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    return files.files()


@pytest.fixture(scope="module")
def text(content: Mapping[str, bytes]) -> dict[str, str]:
    return {path: data.decode() for path, data in content.items()}


@pytest.fixture(scope="module")
def numbers(text: Mapping[str, str]) -> dict[str, int]:
    return parts.parts(text)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the checkout, with other files."""

    def make(others: Mapping[str, str] = {}) -> Path:
        for path, text in {**CHECKOUT, **others}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        checkout.git(tmp_path, "init", "--quiet")
        for name in ("name", "email"):
            checkout.git(tmp_path, "config", f"user.{name}", "someone")
        checkout.git(tmp_path, "add", ".")
        checkout.git(tmp_path, "commit", "--quiet", "--message", "before")
        return tmp_path

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def test_files_that_list_things_list_ours_too(
    make: Make, content: Mapping[str, bytes]
) -> None:
    folder = make()
    checkout.export(folder, content)
    setup = runpy.run_path(str(folder / "setup.py"))
    packages = setup["dynamo_packages"]
    assert packages[:2] == [
        "torch_tensorrt",
        "torch_tensorrt.dynamo.conversion.plugins",
    ]
    assert sorted(packages) == sorted(setup["dynamo_package_dir"])
    assert {setup["dynamo_package_dir"][name] for name in packages[1:]} == {
        str(path.parent.relative_to(folder))
        for path in (folder / "py").rglob("__init__.py")
    }
    needed = setup["get_requirements"]()
    assert needed[0] == "packaging>=23" and "rich" in needed
    assert needed.count("numpy") == 1 and "packaging" not in needed
    assert {"executorch", "cutile", "cutedsl"} < set(setup["EXTRAS_REQUIRE"])
    suites = runpy.run_path(str(folder / "tests/ci/suites.py"))["SUITES"]
    assert [suite.name for suite in suites] == ["kernels", "annotation", "last"]
    assert (folder / suites[1].cwd / "conftest.py").is_file()
    pyproject = (folder / "pyproject.toml").read_text()
    assert '    "hypothesis",\n]' in pyproject
    assert pyproject.index("torch_tensorrt.annotation.*") < pyproject.index("typos")
    examples = (folder / "examples/dynamo/README.rst").read_text().splitlines()
    assert examples[0] == "* :ref:`an_example`: An example"
    titles = "A Triton kernel inside a TensorRT engine"
    assert f"* :ref:`custom_plugin_triton`: {titles}" in examples


def test_a_second_export_changes_nothing(
    make: Make, content: Mapping[str, bytes]
) -> None:
    folder = make()
    checkout.export(folder, content)
    first = tree(folder)
    checkout.export(folder, content)
    assert tree(folder) == first


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("setup.py", "", "setup.py: nothing in it is assigned to dynamo_packages."),
        ("setup.py", "dynamo_packages = 1", "dynamo_packages is neither a list nor"),
        ("setup.py", "dynamo_packages = []", "dynamo_packages does not end with a co"),
        ("pyproject.toml", "", "pyproject.toml: it has no dependency group named test"),
        ("tests/ci/suites.py", "", "suites.py: it has no Suite('kernels', ...)."),
        ("docsrc/py_api/index.rst", "", "index.rst: no line of it is kernels."),
    ],
)
def test_a_checkout_of_another_shape_is_refused(
    path: str, text: str, message: str, make: Make, content: Mapping[str, bytes]
) -> None:
    folder = make({path: text})
    with pytest.raises(amend.Unexpected) as caught:
        checkout.export(folder, content)
    assert message in str(caught.value)


def test_a_file_of_upstreams_that_ours_do_not_replace_is_refused(
    make: Make, content: Mapping[str, bytes]
) -> None:
    new = f"{files.LIBRARY[1]}/_new.py"
    folder = make({new: ""})
    with pytest.raises(amend.Unexpected, match=f"nothing here replaces {new}"):
        checkout.require_replaced(folder, content)


def test_tests_import_only_what_goes_along(text: Mapping[str, str]) -> None:
    ours = {path.stem for path in (PROJECT / "tests" / "py").rglob("*.py")}
    exported = {Path(path).stem for path in text if path.startswith(files.TESTS)}
    for path in text:
        if path.startswith(files.TESTS) and path.endswith(".py"):
            nodes = ast.walk(ast.parse(text[path]))
            names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
            assert not names & (ours - exported), path


# --- The stack ------------------------------------------------------------------------


def test_a_commit_imports_nothing_of_later_ones(
    text: Mapping[str, str], numbers: Mapping[str, int]
) -> None:
    assert set(numbers.values()) == set(range(len(parts.PARTS)))
    for path, number in numbers.items():
        if path.endswith(".py") and path != parts.PUBLIC:
            for other in parts.imports(path, text):
                assert numbers[other] <= number, (path, other)


def test_a_commit_has_the_public_names_of_its_modules(
    text: Mapping[str, str], numbers: Mapping[str, int]
) -> None:
    seen = []
    for number, _ in enumerate(parts.PARTS):
        present = {path for path in text if numbers[path] <= number}
        made = parts.public_names(text[parts.PUBLIC], present)
        (listed,) = (
            ast.literal_eval(node.value)
            for node in ast.parse(made).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
        )
        imported = set(parts.public({**text, parts.PUBLIC: made}))
        assert set(listed) - {"__version__"} <= imported
        seen.append(imported)
    triton = next(
        n for n, part in enumerate(parts.PARTS) if "triton" in part.toolchains
    )
    assert "triton" not in seen[triton - 1]
    assert {"triton", "dry_run"} < seen[triton] and "cutile" not in seen[triton]
    assert "explain" not in seen[-3] and "explain" in seen[-2]


def test_the_last_commit_is_the_whole_export(
    make: Make, content: Mapping[str, bytes]
) -> None:
    folder = make()
    checkout.export(folder, content)
    whole = tree(folder)
    checkout.stack(folder, content)
    assert tree(folder) == whole
    subjects = checkout.git(folder, "log", "--reverse", "--format=%s").splitlines()
    assert subjects == ["before", *(part.subject for part in parts.PARTS)]
    assert checkout.git(folder, "status", "--porcelain") == ""


def test_a_commit_is_tried_without_later_files_and_without_the_overlay(
    make: Make, run_python: RunPython
) -> None:
    folder = make()
    (folder / "py" / "later.py").touch()
    checkout.git(folder, "add", ".")
    checkout.git(folder, "commit", "--quiet", "--message", "later")
    with trial.tree(folder, "HEAD~1") as files:
        assert (files / "py/torch_tensorrt/_version.py").is_file()
        assert not (files / "py" / "later.py").exists()
        program = """
            import sys
            assert not [f for f in sys.meta_path if "Overlay" in type(f).__name__]
            assert "_torch_tensorrt_annotation" not in sys.modules
        """
        done = run_python(program, env={"PYTHONPATH": str(files / "py")})
        assert done.stderr == ""


# --- Pages ----------------------------------------------------------------------------

MARKDOWN = """\
# A page

Text with `code`s, **weight**, a [link](other.md#a-part), and a_name_ of 2*3.

## A part

1. one
2. two

   ```python
   x = 1
   ```

| | a |
|---|---|
| `b` | [c](https://example.org) |

```{image} _static/x.svg
:alt: A picture
```

:::{note}
A [part](#a-part).
:::
"""

RST = """\
.. default-domain:: py
.. highlight:: python

.. _annotation-page:

A page
======

Text with ``code``\\ s, **weight**, a :ref:`link <annotation-other-a-part>`, and a_name\\_ of 2\\*3.

.. _annotation-page-a-part:

A part
------

1. one
2. two

   .. code-block:: python

      x = 1

.. list-table::
   :header-rows: 1

   * -
     - a
   * - ``b``
     - `c <https://example.org>`__

.. image:: _static/x.svg
   :alt: A picture

.. note::

   A :ref:`part <annotation-page-a-part>`.
"""  # noqa: E501


def test_a_page_is_translated(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(MARKDOWN)
    made = pages.as_rst(
        tmp_path / "page.md", frozenset({"page#a-part", "other#a-part"})
    )
    assert [line.rstrip() for line in made.splitlines()] == RST.splitlines()


def test_the_reference_has_each_name_on_its_page(text: Mapping[str, str]) -> None:
    page = text[pages.API]
    name = "torch_tensorrt.annotation"
    assert f".. autofunction:: {name}.triton\n" in page
    assert f".. autoclass:: {name}.Target\n   :members:\n" in page
    assert f".. automodule:: {name}.errors\n   :members:\n" in page
    assert "autosummary" not in page


def test_what_has_no_translation_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("> a quotation\n")
    with pytest.raises(SystemExit, match="no translation of blockquote"):
        pages.as_rst(tmp_path / "page.md", frozenset())
