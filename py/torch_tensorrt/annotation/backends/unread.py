# SPDX-License-Identifier: BSD-3-Clause

"""Which parameters the body of a kernel never reads.

An autotuner's key is often a parameter that is there for the key alone. Its value makes
no difference to the code, so it may follow a dynamic size.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from .._fingerprint import content_of

Text: TypeAlias = tuple[Callable[..., Any], str]  # a function and its source


@lru_cache(1024)
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
    return _Reader((function, source), called, ()).unread


class _Reader(ast.NodeVisitor):
    """Walks the body of a function, and the functions that it calls.

    Attributes:
        parameters: that a call may give by position.
        unread: parameters that were not read.
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
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        closure = {name: content_of(cell) for name, cell in cells}
        self._globals: Mapping[str, Any] = {**function.__globals__, **closure}
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
        named = dict(zip(reader.parameters, node.args, strict=False))
        named |= {k.arg: k.value for k in node.keywords if k.arg}
        return [value for name, value in named.items() if name in reader.unread]

    def _function(self, node: ast.expr) -> Text | None:
        """The function that an expression names."""
        path = []
        while isinstance(node, ast.Attribute):
            path.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self._named:
            return None  # a parameter may be any function
        value = self._globals.get(node.id)
        for name in reversed(path):
            value = getattr(value, name, None)
        return self._called(value)
