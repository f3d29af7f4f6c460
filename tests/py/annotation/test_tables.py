# SPDX-License-Identifier: BSD-3-Clause

"""Tables that keep what a recording made, or what was made before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from torch_tensorrt.annotation._record.tables import Again, cold, drop, keep, take_out


class Kernel:
    """What a launch returns."""


@dataclass
class Entry:
    """What a user keeps in a table."""

    kernel: Any


class Plain:
    """What is no table, and no dataclass."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel


def with_dict(made: Kernel) -> Entry:
    entry = Entry(made)
    assert vars(entry) == {"kernel": made}  # now it has one
    return entry


HELD: dict[str, Callable[[Kernel], Any]] = {
    "itself": lambda made: made,
    "in a tuple": lambda made: (5, made),
    "in an object": Entry,
    "in an object with a dict": with_dict,
    "in three": lambda made: Entry((Entry(made),)),
}


@pytest.mark.parametrize("hold", HELD.values(), ids=list(HELD))
def test_what_was_made_is_dropped_from_tables(hold: Callable[[Kernel], Any]) -> None:
    made = Kernel()
    table = {1: hold(made), 2: 3}
    drop([made])
    assert table == {2: 3}


def test_names_are_kept_and_what_is_no_table() -> None:
    made = Kernel()
    deep, plain = ((((made,),),),), Plain(made)
    table = {1: deep, 2: plain, "name": made}
    before = dict(table)
    drop([made])
    assert table == before and plain.kernel is made


def test_a_table_that_holds_itself_is_looked_through() -> None:
    made = Kernel()
    entry = Entry(None)
    entry.kernel = entry
    table = {1: entry, 2: made}
    drop([made])
    assert [*table] == [1]


def test_what_is_older_is_taken_out_and_put_back() -> None:
    old = Kernel()
    table: dict[Any, Any] = {1: old, 2: Entry(old), "name": old, 3: 3}
    before = dict(table)
    with cold():
        with pytest.raises(Again):
            take_out(old)
        assert [*table] == ["name", 3]
        table[1] = "anew"
        take_out(old)  # no table has it any more
    assert table == before | {1: "anew"}


def test_what_is_kept_is_not_taken_out_again() -> None:
    old = Kernel()
    table = {1: old}
    with cold():
        with pytest.raises(Again):
            take_out(old)
        keep()
        take_out(old)
        assert table == {1: old}
    with cold(), pytest.raises(Again):
        take_out(old)
    assert table == {1: old}
