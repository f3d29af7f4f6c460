# SPDX-License-Identifier: BSD-3-Clause

"""What another process makes of a function, or a kernel, after a file was edited.

Each process is forked from this one, and imports the files anew.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from cache_tools import compile_one, job, key, no_compiler

from torch_tensorrt.annotation._fingerprint import lasting_fingerprint

in_a_fork = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a forked process cannot ask a GPU"
)


def in_a_process(function: Callable[[], Any], folder: Path) -> Any:
    """What ``function`` returns in a new process that imports from ``folder``."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        for path in folder.rglob("*.py"):
            sys.modules.pop(path.stem, None)  # the standard library's of this name
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        theirs.send(function())

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def digest() -> str:
    """Of the function ``launch`` in the file ``launcher.py``."""
    launch = importlib.import_module("launcher").launch
    launch(1)
    found = lasting_fingerprint(launch)
    assert found.obstacle == ""
    return found.digest


class Case(NamedTuple):
    """Files by name; in one of them, ``edit[0]`` becomes ``edit[1]``."""

    files: dict[str, str]
    edited: str
    edit: tuple[str, str]

    def write(self, folder: Path, after: bool) -> None:
        for name, text in self.files.items():
            path, text = folder / name, textwrap.dedent(text)
            if after and name == self.edited:
                assert text.count(self.edit[0]) == 1
                text = text.replace(*self.edit)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


SCALE = "def scale(n): return n * 2\n"


def launching(body: str, before: str = "") -> dict[str, str]:
    return {"launcher.py": f"{before}\ndef launch(x):\n    return {body}\n"}


def calling(body: str, before: str = "", name: str = "helpers", **files: str) -> Case:
    """A launch function, and an edit of the helper that it calls in the end."""
    others = {f"{file}.py": text for file, text in files.items()}
    file = f"{name.replace('.', '/')}.py"
    texts = launching(body, before) | {file: SCALE} | others
    return Case(texts, file, ("n * 2", "n * 3"))


def importing(statement: str, result: str) -> Case:
    """The same, where the launch function itself imports."""
    texts = {"launcher.py": f"def launch(x):\n    {statement}\n    return {result}\n"}
    return Case({**texts, "helpers.py": SCALE}, "helpers.py", ("n * 2", "n * 3"))


def holding(value: str, other: str = "") -> Case:
    """A default of a class of the user's; its value changes, or its method does."""
    base, _, arguments = value.partition("(")
    tiles = f"""
        import enum
        class Tile({base}):
            def __repr__(self): return "a tile"
            def block(self): return 128
        tile = Tile({arguments}
        """
    use = "from tiles import tile\ndef launch(x, t=tile): return t.block()\n"
    edit = (f"tile = Tile({arguments}", f"tile = Tile{other}")
    files = {"launcher.py": use, "tiles.py": tiles}
    return Case(files, "tiles.py", edit if other else ("128", "256"))


VALUES = {"int(1)": "(2)", "float(1.5)": "(2.5)", "str('a')": "('b')"}
VALUES |= {"list([1])": "([2])", "dict(a=1)": "(a=2)", "tuple([1])": "([2])"}
CASES = {
    "import": calling("helpers.scale(x)", "import helpers"),
    "import as": calling("h.scale(x)", "import helpers as h"),
    "from": calling("scale(x)", "from helpers import scale"),
    "from as": calling("s(x)", "from helpers import scale as s"),
    "all": calling("scale(x)", "from helpers import *"),
    "import within": importing("import helpers", "helpers.scale(x)"),
    "import as within": importing("import helpers as h", "h.scale(x)"),
    "from within": importing("from helpers import scale as s", "s(x)"),
    "a module's module": calling(
        *("middle.scale(x)", "import middle"),
        middle="import helpers\ndef scale(n): return helpers.scale(n) + 1",
    ),
    "another function of a module that was met": calling(
        *("one(x) + helpers.scale(x)", "import helpers\ndef one(n): return helpers.o"),
        helpers=f"o = 1\n{SCALE}",
    ),
    "a package's module": calling(
        *("tools.inner.scale(x)", "import tools.inner", "tools.helpers"),
        **{"tools/__init__": "", "tools/inner": "from .helpers import scale"},
    ),
    "a relative import within": calling(
        *("f(x)", "from tools.inner import f", "tools.helpers"),
        **{
            "tools/__init__": "",
            "tools/inner": "def f(n):\n from .helpers import scale\n return scale(n)",
        },
    ),
    "a sibling imported within": calling(
        *("f(x)", "from tools.inner import f", "tools.helpers"),
        **{
            "tools/__init__": "",
            "tools/inner": "def f(n):\n from . import helpers as h\n return h.scale(n)",
        },
    ),
    "a module as an argument": calling(
        "call(helpers, x)", "import helpers\ndef call(m, n): return m.scale(n)"
    ),
    "a name in text": calling("getattr(helpers, 'scale')(x)", "import helpers"),
    "an attribute that is a global as well": calling(
        "helpers.scale(scale(x))", "import helpers\ndef scale(n): return n"
    ),
    "wraps one of torch's": calling(
        *("scale(x)", "from helpers import scale"),
        helpers="import functools\nfrom torch.nn import functional\n"
        f"@functools.wraps(functional.silu)\n{SCALE}",
    ),
    "a cached helper": calling(
        *("scale(x)", "from helpers import scale"),
        helpers=f"import functools\n@functools.cache\n{SCALE}",
    ),
    "a property": calling(
        *("T().n", "from helpers import scale\nclass T:\n n = property(scale)"),
        helpers="def scale(self, n=1): return n * 2",
    ),
    **{
        f"a module named {name}": calling(f"{name}.scale(x)", f"import {name}", name)
        for name in ("trace", "profile", "code")
    },
    **{f"the value of {value}": holding(value, new) for value, new in VALUES.items()},
    **{
        f"the class of {value}": holding(value)
        for value in (*VALUES, "frozenset([1])", "complex(1j)", "object()")
    },
    "a method of an enumeration": Case(
        {
            "launcher.py": "from tiles import t\ndef launch(x, t=t): return t.block()",
            "tiles.py": """
                import enum
                class Tile(enum.Enum):
                    SMALL = 1
                    def block(self): return 128
                t = Tile.SMALL
                """,
        },
        *("tiles.py", ("128", "256")),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_edit_of_what_is_used_is_seen(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path, after=False)
    before, again = (in_a_process(digest, tmp_path) for _ in range(2))
    case.write(tmp_path, after=True)
    assert before == again != in_a_process(digest, tmp_path)


KERNEL = """
    import triton
    import triton.language as tl
    import middle

    @triton.jit
    def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=offsets < n)
        tl.store(out_ptr + offsets, middle.scale(x), mask=offsets < n)

    def launch(x, out):
        n = x.numel()
        kernel[(triton.cdiv(n, 256),)](x, out, n, BLOCK=256)
    """
JIT = "import triton, helpers\n@triton.jit\n"
IN_A_KERNEL = Case(
    {
        "launcher.py": KERNEL,
        "middle.py": f"{JIT}def scale(n): return helpers.scale(n) + 1\n",
        "helpers.py": f"import triton\n@triton.jit\n{SCALE}",
    },
    *("helpers.py", ("n * 2", "n * 3")),
)


@in_a_fork
def test_an_edit_of_what_a_kernel_uses_is_seen(tmp_path: Path) -> None:
    def of_kernel() -> str | None:
        return key(job(importlib.import_module("launcher").launch))

    IN_A_KERNEL.write(tmp_path, after=False)
    before, again = (in_a_process(of_kernel, tmp_path) for _ in range(2))
    IN_A_KERNEL.write(tmp_path, after=True)
    assert before == again != in_a_process(of_kernel, tmp_path)
    assert before is not None


@in_a_fork
@pytest.mark.usefixtures("fresh_cache")
def test_what_a_file_of_this_second_filled_is_found_when_it_is_old(
    tmp_path: Path,
) -> None:
    def compiled() -> str:
        return compile_one(job(importlib.import_module("launcher").launch)).digest

    def found() -> str:
        with no_compiler(pytest.MonkeyPatch()):
            return compiled()

    IN_A_KERNEL.write(tmp_path, after=False)
    cold = in_a_process(compiled, tmp_path)
    an_hour_ago = time.time() - 3600
    for path in tmp_path.glob("*.py"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    assert in_a_process(found, tmp_path) == cold
