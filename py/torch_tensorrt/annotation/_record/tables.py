# SPDX-License-Identifier: BSD-3-Clause

"""Tables of the user's that keep what a launch returned, or what a search found.

Launch functions cache both by dtype and shape. A recording makes both up. Another
recording takes another config, and a table would hand out that of the first one; and a
launch outside of a recording needs the real thing. So what a recording made is dropped
from the tables after it.

The other way round, a table may hold what launches before the recording returned, for
the shapes that they had. A function would then do something else at these shapes than
at others: launch the config that its autotuner has chosen for them. So while it is
recorded, the tables are without it, and the function does what it does the first time.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any

_DEEPEST = 3  # tuples and dataclasses, from a table to what they hold


def drop(made: Iterable[Any]) -> None:
    """Remove objects that a recording made from the tables that keep them.

    Names, of variables and attributes, are left alone.
    """
    values = [*made]
    known = set(map(id, values))
    for table in _tables(values):
        _drop(table, known)


def _tables(values: list[Any]) -> list[dict[Any, Any]]:
    """The dicts that hold them, themselves or in tuples and dataclasses.

    Each search for referrers walks all objects of the process, so there is one for all
    objects of a level, and one for all dicts of attributes.
    """
    found: dict[int, dict[Any, Any]] = {}
    seen, held = set(map(id, values)), values
    alive: list[Any] = []  # ids stay unique while what they name lives
    for _ in range(_DEEPEST + 1):
        holders = gc.get_referrers(*held) if held else []
        # isinstance runs some objects' own code.
        dicts = (h for h in holders if issubclass(type(h), dict))
        tables = [table for table in dicts if id(table) not in found]
        found.update((id(table), table) for table in tables)
        if attributes := [*filter(_is_attributes, tables)]:
            holders += gc.get_referrers(*attributes)
        held = [h for h in holders if _is_open(h) and id(h) not in seen]
        seen.update(map(id, held))
        alive += held
    return [*found.values()]


def _is_open(holder: Any) -> bool:
    """Whether a table that holds it holds what is in it."""
    cls = type(holder)
    is_ours = cls.__module__.startswith(__name__.partition("._record")[0])
    return (issubclass(cls, tuple) or is_dataclass(cls)) and not is_ours


def _is_attributes(table: dict[Any, Any]) -> bool:
    """Whether it may be an object's ``__dict__``: few have one that is not a module."""
    keys = [*dict.__iter__(table)]
    return "__builtins__" not in keys and all(type(key) is str for key in keys)


def _drop(table: dict[Any, Any], made: set[int]) -> None:
    """Remove what was made, and symbolic sizes as keys: recordings made them."""
    items = list(dict.items(table))  # an OrderedDict's own would hash symbolic sizes
    if not any(_holds(v, made) and not isinstance(key, str) for key, v in items):
        return
    table.clear()
    for key, value in items:
        if isinstance(key, str) or not _holds(value, made):
            with contextlib.suppress(TypeError):  # as symbolic sizes raise
                table[key] = value


def _holds(value: Any, made: set[int], depth: int = 0) -> bool:
    """Whether it is one of the objects, or a tuple or dataclass with one."""
    if id(value) in made:
        return True
    items: Iterable[Any] = ()
    if issubclass(type(value), tuple):
        items = value
    elif is_dataclass(type(value)):
        items = getattr(value, "__dict__", {}).values()
    return depth < _DEEPEST and any(_holds(i, made, depth + 1) for i in items)


class Again(BaseException):
    """A run ends, for tables no longer hold what they held when it began."""


class _Taken(threading.local):
    """What was taken out of tables in this thread.

    Attributes:
        entries: the table, the key, the value.
        elsewhere: objects that were in no table, and are not looked for again.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[dict[Any, Any], Any, Any]] = []
        self.elsewhere: list[Any] = []
        self.is_wanted = True


_taken = _Taken()


def take_out(value: Any) -> None:
    """Take an object, older than the recording, out of the tables that keep it.

    Raises:
        Again: a table held it.
    """
    if not _taken.is_wanted or any(known is value for known in _taken.elsewhere):
        return
    held = [
        (table, key, item)
        for table in _tables([value])
        for key, item in list(dict.items(table))
        if not isinstance(key, str) and _holds(item, {id(value)})
    ]
    if not held:
        _taken.elsewhere.append(value)
        return
    for table, key, _ in held:
        del table[key]
    _taken.entries += held
    raise Again


def put_back() -> None:
    """Give the tables what was taken out of them, unless they have it anew."""
    for table, key, value in _taken.entries:
        table.setdefault(key, value)
    _taken.entries.clear()


def keep() -> None:
    """Put it back, and leave it there: the function does not run without it."""
    put_back()
    _taken.is_wanted = False


@contextlib.contextmanager
def cold() -> Iterator[None]:
    """Around a recording: what was taken out is put back in the end."""
    _taken.is_wanted = True
    try:
        yield
    finally:
        put_back()
        _taken.elsewhere.clear()
