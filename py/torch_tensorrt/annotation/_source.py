"""The text of a function, as it runs in this process."""

from __future__ import annotations

import functools
import inspect
import os
import textwrap
import time
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_CLOCKS_DIFFER = 1.0  # seconds, at most, of a file system and of the process table


def source(function: FunctionType) -> str:
    """The text of ``function``; its bytecode where it has none of its own."""
    code = written_code(function)
    if function.__name__ != "<lambda>":  # the lines of a lambda may hold several
        try:
            return textwrap.dedent(inspect.getsource(code))
        except (OSError, TypeError):
            pass  # typed into an interpreter, or made by exec: the bytecode says it
    return _bytecode(code)


def bytecode_if_edited(function: FunctionType) -> str:
    """The bytecode of ``function`` where its file may say by now what it does not do.

    That is, where the file is not older than this process.
    """
    code = written_code(function)
    try:
        edited = Path(code.co_filename).stat().st_mtime
    except OSError:  # a notebook's cell, which is text in memory
        return ""
    return "" if edited < _process_start() - _CLOCKS_DIFFER else _bytecode(code)


def written_code(function: FunctionType) -> CodeType:
    """The code as written; CuTe DSL puts its own in the place once it has traced it."""
    code: CodeType = getattr(function, "_original_code", function.__code__)
    return code


@functools.cache
def _process_start() -> float:
    """In seconds since the epoch."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5), starttime
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def _bytecode(code: CodeType) -> str:
    def constant(value: Any) -> str:
        if isinstance(value, CodeType):
            return _bytecode(value)
        return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)

    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames)
    constants = list(map(constant, code.co_consts))
    return repr((counts, code.co_flags, code.co_code.hex(), constants, names))
