# SPDX-License-Identifier: BSD-3-Clause

"""Every public name says what it is, takes, and raises."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
from torch_tensorrt.annotation import _specs, errors
from torch_tensorrt.annotation._dry_run import report
from torch_tensorrt.annotation._explain.report import OpReport, Split

ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, (Exception, Warning))
}
CLASSES = {
    value.__name__: value
    for value in (
        *[getattr(tta, name) for name in tta.__all__],
        _specs.KernelSpec,
        report.TacticReport,
        report.ShapeReport,
        OpReport,
        Split,
        tta.testing.CheckReport,
        tta.testing.Failure,
    )
    if inspect.isclass(value)
}


def functions() -> Iterator[tuple[str, Any]]:
    for module in (tta, tta.testing, trt_plugins):
        for name in module.__all__:
            if inspect.isfunction(value := getattr(module, name)):
                yield name, value
    for name, cls in CLASSES.items():
        for method, value in vars(cls).items():
            if isinstance(value, classmethod):
                value = value.__func__
            inherited = any(hasattr(base, method) for base in cls.__mro__[1:])
            if inspect.isfunction(value) and not method.startswith("_") | inherited:
                yield f"{name}.{method}", value


FUNCTIONS = dict(functions())


def section(docstring: str, title: str) -> str:
    """What is indented under ``title:``, with the indentation removed."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", docstring + "\n", re.M)
    return textwrap.dedent(found[1]) if found else ""


def entries(docstring: str, title: str) -> dict[str, str]:
    """The names a section describes: ``a, b: what they are``."""
    found = re.findall(
        r"^([\w*, ]+):((?:.*\n)(?:\s+.*\n)*)", section(docstring, title), re.M
    )
    return {
        name.strip().lstrip("*"): text
        for names, text in found
        for name in names.split(",")
    }


def own_docstring(value: Any) -> str:
    """As written for ``value`` itself, and not made up by ``dataclass``."""
    text = value.__doc__ or ""
    assert not text.startswith(f"{getattr(value, '__name__', '')}("), "dataclass's own"
    return inspect.cleandoc(text)


def raised_in(function: Any) -> set[str]:
    """The errors of this package that the body itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    } & set(ERRORS)


def documented_errors(docstring: str) -> set[str]:
    """Those named under ``Raises``, and the classes they are of."""
    names = set(entries(docstring, "Raises"))
    return {
        name
        for name, cls in ERRORS.items()
        if any(issubclass(cls, ERRORS[base]) for base in names)
    }


def test_there_is_something_to_look_at() -> None:
    assert {"triton", "dry_run", "custom_op", "DryRunReport.to_html"} <= set(FUNCTIONS)
    assert {"Target", "TritonSpec", "ShapeReport"} <= set(CLASSES)
    everything = [*FUNCTIONS, *CLASSES, "errors", "testing", "__version__"]
    assert set(tta.__all__) <= set(everything)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_describes_its_arguments_and_they_are_typed(name: str) -> None:
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    wanted = {p for p in parameters if p not in ("self", "cls")}
    docstring = own_docstring(function)
    summary, _, _ = docstring.partition("\n")
    in_summary = set(re.findall(r"``(\w+)``", summary)) if "." in name else set()
    described = set(entries(docstring, "Args"))
    assert described <= wanted <= described | in_summary
    assert wanted <= set(function.__annotations__)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "." not in name])
def test_a_function_that_returns_something_says_what(name: str) -> None:
    function = FUNCTIONS[name]
    if function.__annotations__["return"] != "None":
        assert section(own_docstring(function), "Returns").strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_what_it_raises(name: str) -> None:
    docstring = own_docstring(FUNCTIONS[name])
    assert set(entries(docstring, "Raises")) <= set(ERRORS)
    assert raised_in(FUNCTIONS[name]) <= documented_errors(docstring)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_describes_its_fields(name: str) -> None:
    described: set[str] = set()
    own_docstring(CLASSES[name])
    for base in CLASSES[name].__mro__:
        docstring = inspect.cleandoc(base.__doc__ or "")
        described |= {*entries(docstring, "Attributes"), *entries(docstring, "Args")}
    fields = {field.name for field in dataclasses.fields(CLASSES[name])}
    assert {f for f in fields if not f.startswith("_")} <= described


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_describes_its_properties_and_what_making_one_raises(name: str) -> None:
    cls = CLASSES[name]
    for value in vars(cls).values():
        getter = getattr(value, "fget", getattr(value, "func", None))
        if getter is not None and not getter.__name__.startswith("_"):
            assert ": " not in own_docstring(getter)  # Sphinx would read "type: what"
            assert own_docstring(getter)
    if "__post_init__" in vars(cls):
        assert raised_in(cls.__post_init__) <= documented_errors(own_docstring(cls))


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_its_cause_and_is_in_the_tree(name: str) -> None:
    assert own_docstring(ERRORS[name])
    assert re.search(rf"\b{name}\b", errors.__doc__ or "")


def test_a_missing_argument_is_noticed() -> None:
    """Of the helpers above, on which all rests."""
    docstring = "What.\n\nArgs:\n    a, b: two.\n        More.\n    **c: more.\n\n"
    docstring += "Raises:\n    SpecError: if.\n"
    assert set(entries(docstring, "Args")) == {"a", "b", "c"}
    assert documented_errors(docstring) == {"SpecError"}
