# SPDX-License-Identifier: BSD-3-Clause

"""``python -m torch_tensorrt.annotation``: the arguments that it takes.

Nothing but argparse is imported to read them, because importing torch_tensorrt takes
seconds. The overlay (``_torch_tensorrt_annotation.py``) has this file read them before
Python imports torch_tensorrt, so help and wrong usage are answered at once. ``_cli``
holds what the commands do.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

# The console script sets the name that it has.
_PROGRAM: str = globals().get("PROGRAM", "python -m torch_tensorrt.annotation")
_STATIC = "x=8x512:fp16"
_DYNAMIC = "x=1..64x512"
_TARGET = "as sm_90, sm_90,cuda=13.0 or H100"
_REPLAY = "shapes to run the launch function again at; else 500"
_RANGES = f"its profile, min..max or min..opt..max: {_DYNAMIC}"
_EXAMPLES = f"""\
examples:
  {_PROGRAM} dry-run kernels.py my::silu --input {_STATIC} --target sm_90
  {_PROGRAM} dry-run my.package my::silu --input {_STATIC} \\
      --dynamic {_DYNAMIC} --json report.json --html report.html
  {_PROGRAM} compile kernels.py my::silu --input {_STATIC} \\
      --target sm_80 --target sm_90,cuda=13.0
  {_PROGRAM} explain models.py:make --target sm_90
  {_PROGRAM} cache info
  {_PROGRAM} env

exit status: 0 all is well; 1 a tactic is left out or wrong, nothing could be
compiled, or custom ops stay in PyTorch; 2 wrong usage: an argument, a file or a
target
"""


class Shape(NamedTuple):
    """A ``NAME=SHAPE:DTYPE``; an extent has one number, min and max, or all three."""

    name: str
    extents: tuple[tuple[int, ...], ...]
    dtype: str | None


_EXTENT = r"\d+(?:\.\.\d+){0,2}"
_SHAPE = re.compile(rf"(\w+)=((?:{_EXTENT}(?:x{_EXTENT})*)?)(?::([\w.]+))?", re.ASCII)


def _shape(text: str) -> Shape:
    if (match := _SHAPE.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError(
            f"{text}: write {_STATIC}, or in --dynamic {_DYNAMIC}; an extent is a "
            "number, or a range 1..64 or 1..8..64"
        )
    name, extents, dtype = match.groups()
    parts = extents.split("x") if extents else []
    return Shape(name, tuple(tuple(map(int, p.split(".."))) for p in parts), dtype)


def _attribute(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=VALUE")
    return name, value


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, and ends every help with the examples."""

    def __init__(self, what: str = "", **rest: Any) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(epilog=_EXAMPLES, formatter_class=raw, **rest)
        self.description = f"{what[:1].upper()}{what[1:]}."

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


# Options that may be given several times: form, type and help of each.
_REPEATED: dict[str, tuple[str, Any, str]] = {
    "--input": ("NAME=SHAPE:DTYPE", _shape, f"a tensor of the op: {_STATIC}"),
    "--dynamic": ("NAME=RANGES", _shape, _RANGES),
    "--attribute": ("NAME=VALUE", _attribute, "another argument of the op"),
}


def parser() -> argparse.ArgumentParser:
    """What reads the arguments."""
    what = "kernels in TensorRT engines: try them, compile them"
    whole = _Parser(what, prog=_PROGRAM)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> _Parser:
        return commands.add_parser(name, help=what, what=what)

    dry = command("dry-run", "show what TensorRT would embed; run it on a GPU")
    fill = command("compile", "fill the kernel cache, for this machine or another")
    for each in (dry, fill):
        each.add_argument("module", metavar="FILE_OR_MODULE", help="registers the op")
        each.add_argument("op", metavar="OP", help="as my::silu")
        for option, (form, kind, what) in _REPEATED.items():
            options: dict[str, Any] = {"metavar": form, "type": kind, "help": what}
            each.add_argument(option, action="append", default=[], **options)
    what = f"{_TARGET}; else this GPU; may be given several times"
    dry.add_argument("--target", action="append", default=[], help=what)
    dry.add_argument("--verbose", action="store_true", help="show every launch")
    dry.add_argument("--compile-only", action="store_true", help="run nothing")
    what = "what to compare with, called as the op is; MODULE may be FILE's name"
    dry.add_argument("--reference", metavar="MODULE:FUNCTION", help=what)
    dry.add_argument("--tolerance", type=float, help="largest error; else the dtype's")
    dry.add_argument("--replay", type=int, default=500, metavar="N", help=_REPLAY)
    dry.add_argument("--json", metavar="FILE", help="write the report; -: print it")
    dry.add_argument("--html", metavar="FILE", help="write the report as a web page")
    what = f"{_TARGET}; may be given several times"
    fill.add_argument("--target", action="append", required=True, help=what)
    explain = command("explain", "show which custom ops of a model TensorRT can have")
    what = "a function that returns the model and its inputs, as models.py:make"
    explain.add_argument("factory", metavar="FILE_OR_MODULE:FUNCTION", help=what)
    explain.add_argument("--target", help=f"{_TARGET}; else this GPU")
    what = "operators an engine has at least; else Torch-TensorRT's own number"
    explain.add_argument("--min-block-size", type=int, metavar="N", help=what)
    what = "write the report; -: print it"
    explain.add_argument("--json", metavar="FILE", help=what)
    cache = command("cache", "show or clear the kernel cache (TTA_CACHE_DIR)")
    cache.add_argument("what", choices=("info", "clear"))
    command("env", "show what is installed here, and what works")
    return whole


def main(
    arguments: Sequence[str] | None = None,
    before_import: Callable[[], None] = lambda: None,
) -> int:
    """Run a command; its exit status.

    Args:
        before_import: is called once the arguments are known to be right.
    """
    options = parser().parse_args(arguments)
    before_import()
    from torch_tensorrt.annotation import _cli

    if overlay := sys.modules.get("_torch_tensorrt_annotation"):
        overlay.quiet.stop()
    return _cli.run(options, _PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
