# SPDX-License-Identifier: BSD-3-Clause

"""Which parameters the body of a kernel never reads.

An autotuner's key is often a parameter that is there for the key alone. Its value makes
no difference to the code, so it may follow a dynamic size.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from .._fingerprint import content_of

Text: TypeAlias = tuple[Callable[..., Any], str]  # a function and its source


def unread(
    function: Callable[..., Any],
    source: str,
    called: Callable[[Any], Text | None] = lambda value: None,
) -> frozenset[str]:
    """Names of the parameters whose values nothing in the kernel looks at.

    A parameter that is only passed on to a function that does not read it is unread.

    Args:
        source: what the compiler parses.
        called: the text of what kernels call, as far as the language says it.
    """
    known = _known(function, source, called)
    if not (
        known and all(_value(f, path) is value for f, path, value in known[0].meanings)
    ):
        known[:] = [_Reader((function, source), called, ())]
    return known[0].unread


@lru_cache(1024)
def _known(*key: Any) -> list[_Reader]:
    """The reader of a kernel, once there is one. What the kernel calls may change."""
    return []


def _value(function: Callable[..., Any], path: Sequence[str]) -> Any:
    """What ``a.b`` means in a function."""
    name, *attributes = path
    code = function.__code__
    if name in code.co_freevars:
        value = content_of((function.__closure__ or ())[code.co_freevars.index(name)])
    else:
        value = function.__globals__.get(name)
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return value


class _Reader(ast.NodeVisitor):
    """Walks the body of a function, and the functions that it calls.

    Attributes:
        parameters: that a call may give by position.
        unread: parameters that were not read.
        meanings: what the names of called functions meant: function, path and value.
    """

    def __init__(
        self,
        text: Text,
        called: Callable[[Any], Text | None],
        callers: tuple[Any, ...],
    ) -> None:
        """
        Args:
            callers: functions that are being walked; a recursion reads everything.
        """
        function, source = text
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.FunctionDef)
        self.meanings: list[tuple[Callable[..., Any], list[str], Any]] = []
        self._called = called
        self._callers = (*callers, function)
        self._read: set[str] = set()
        arguments = definition.args
        self.parameters = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        self._named = {*self.parameters, *(a.arg for a in arguments.kwonlyargs)}
        for statement in definition.body:
            self.visit(statement)
        self.unread = frozenset(self._named - self._read)

    def visit_Name(self, node: ast.Name) -> None:
        self._read.add(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        ignored = self._ignored(node)
        for value in (*node.args, *(k.value for k in node.keywords)):
            if not (isinstance(value, ast.Name) and value in ignored):
                self.visit(value)

    def _ignored(self, node: ast.Call) -> list[ast.expr]:
        """The arguments of a call that the function called does not read."""
        called = self._function(node.func)
        is_plain = not any(isinstance(a, ast.Starred) for a in node.args)
        if called is None or called[0] in self._callers or not is_plain:
            return []
        reader = _Reader(called, self._called, self._callers)
        self.meanings += reader.meanings
        named = dict(zip(reader.parameters, node.args, strict=False))
        named |= {k.arg: k.value for k in node.keywords if k.arg}
        return [value for name, value in named.items() if name in reader.unread]

    def _function(self, node: ast.expr) -> Text | None:
        """The function that an expression names."""
        path: list[str] = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self._named:
            return None  # a parameter may be any function
        path.insert(0, node.id)
        value = _value(self._callers[-1], path)
        self.meanings.append((self._callers[-1], path, value))
        return self._called(value)
