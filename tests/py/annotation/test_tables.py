# SPDX-License-Identifier: BSD-3-Clause

"""Tables that keep what a recording made, or what was made before it."""

from __future__ import annotations

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


def test_what_was_made_is_dropped_from_tables_and_names_are_kept() -> None:
    made, other = Kernel(), Kernel()
    with_dict = Entry(made)
    assert vars(with_dict) == {"kernel": made}
    plain = Plain(made)
    table = {
        1: made,
        2: (5, made),
        3: Entry(made),
        4: with_dict,
        5: Entry((Entry(made),)),
        6: other,
        7: ((((made,),),),),
        8: plain,
        "name": made,
    }
    drop([made])
    assert [*table] == [6, 7, 8, "name"]  # seven is too deep, and eight no table
    assert plain.kernel is made and with_dict.kernel is made


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
