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


def source(function: FunctionType) -> str:
    """What ``function`` does, whatever its file says by now."""
    code = written_code(function)
    if function.__name__ != "<lambda>":  # the lines of a lambda may hold several
        try:
            text = textwrap.dedent(inspect.getsource(code))
        except (OSError, TypeError):
            pass  # typed into an interpreter, or made by exec: the bytecode says it
        else:
            if _is_older_than_process(code.co_filename):
                return text
            # The file may say by now what the function does not do.
            return text + _bytecode(code)
    return _bytecode(code)


def written_code(function: FunctionType) -> CodeType:
    """The code as written; CuTe DSL puts its own in the place once it has traced it."""
    code: CodeType = getattr(function, "_original_code", function.__code__)
    return code


def _is_older_than_process(file: str) -> bool:
    try:
        return Path(file).stat().st_mtime < _process_start()
    except OSError:  # a notebook's cell, which is text in memory
        return True


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
