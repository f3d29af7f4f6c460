"""The command line: ``python -m torch_tensorrt.annotation``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch_tensorrt.annotation._cache import cache_folder, kernel_cache
from torch_tensorrt.annotation._cli_env import describe
from torch_tensorrt.annotation._cli_inputs import (
    DYNAMIC,
    STATIC,
    UsageError,
    read_attributes,
    read_inputs,
)
from torch_tensorrt.annotation._dry_run import dry_run
from torch_tensorrt.annotation._eviction import parse_size, size_limit
from torch_tensorrt.annotation._registry import registered
from torch_tensorrt.annotation._report import DryRunReport
from torch_tensorrt.annotation._tactics import Plugin
from torch_tensorrt.annotation._target import Target
from torch_tensorrt.annotation.errors import AnnotationError, SpecError, TargetError

OK, FAILED, USAGE = 0, 1, 2
_PROGRAM = "python -m torch_tensorrt.annotation"

_EXAMPLES = f"""\
examples:
  {_PROGRAM} dry-run kernels.py my::silu --input {STATIC} --target sm_90
  {_PROGRAM} dry-run my.package my::silu --input {STATIC} \\
      --dynamic {DYNAMIC} --json report.json --html report.html
  {_PROGRAM} compile kernels.py my::silu --input {STATIC} \\
      --target sm_80 --target sm_90,ptx_isa=8.5
  {_PROGRAM} cache info
  {_PROGRAM} cache clear --older-than 30 --keep 500MB
  {_PROGRAM} env

exit status: 0 all is well; 1 a tactic failed, or is wrong; 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (UsageError, TargetError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return USAGE
    except AnnotationError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return FAILED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Kernels in TensorRT engines: try them, compile them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    dry = command(
        "dry-run", _dry_run, "show what TensorRT would embed; run it on a GPU"
    )
    _add_dry_run(dry)
    compiling = command(
        "compile", _compile, "fill the kernel cache, for this machine or another"
    )
    _add_op(compiling)
    compiling.add_argument(
        "--target", action="append", required=True, help="may be given several times"
    )
    cache = command("cache", _cache, "show or clear the kernel cache (TTA_CACHE_DIR)")
    cache.add_argument("what", choices=("info", "clear"))
    cache.add_argument(
        "--keep",
        type=_size,
        metavar="SIZE",
        help="clear: leave what was used last, as 500MB",
    )
    cache.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="clear: only what was not used for so many days",
    )
    command("env", _env, "show what is installed here, and what works")
    return parser


def _size(text: str) -> int:
    try:
        return parse_size(text, "--keep")
    except SpecError as error:
        message = f"{text!r} is no size, as 500MB or 2GB"
        raise argparse.ArgumentTypeError(message) from error


def _add_dry_run(dry: argparse.ArgumentParser) -> None:
    _add_op(dry)
    dry.add_argument("--target", help="as sm_90 or sm_90,ptx_isa=8.5; else this GPU")
    dry.add_argument("--compile-only", action="store_true", help="run nothing")
    dry.add_argument("--tolerance", type=float, help="largest error; else the dtype's")
    dry.add_argument("--json", metavar="FILE", help="write the report; -: print it")
    dry.add_argument("--html", metavar="FILE", help="write the report as a web page")
    dry.add_argument("--plot", metavar="FILE", help="draw the times (needs matplotlib)")


def _add_op(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("module", metavar="FILE_OR_MODULE", help="it registers the op")
    parser.add_argument("op", metavar="OP", help="as my::silu")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE:DTYPE",
        help=f"a tensor of the op: {STATIC}",
    )
    parser.add_argument(
        "--dynamic",
        action="append",
        default=[],
        metavar="NAME=RANGES",
        help=f"its profile, min..max or min..opt..max: {DYNAMIC}",
    )
    parser.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another argument of the op",
    )


def _dry_run(options: argparse.Namespace) -> int:
    plugin = _plugin(options)
    report = dry_run(
        plugin.op,
        _inputs(options, plugin),
        options.target,
        attributes=_attributes(options, plugin),
        tolerance=options.tolerance,
        execute=False if options.compile_only else None,
    )
    print(report.to_json() if options.json == "-" else report)
    if options.json not in (None, "-"):
        _write(options.json, report.to_json())
    if options.html:
        _write(options.html, report.to_html())
    if options.plot:
        report.plot().figure.savefig(options.plot)
    return OK if report.ok else FAILED


def _compile(options: argparse.Namespace) -> int:
    targets = [Target.parse(text) for text in options.target]
    plugin = _plugin(options)
    inputs = _inputs(options, plugin)
    attributes = _attributes(options, plugin)
    result = OK
    for target in targets:
        try:
            report = dry_run(
                plugin.op, inputs, target, attributes=attributes, execute=False
            )
        except AnnotationError as error:
            print(f"{target.arch}: {error}")
            result = FAILED
            continue
        _print_compiled(target, report)
        result = result if report.ok else FAILED
    print(f"kernel cache: {cache_folder()}")
    return result


def _print_compiled(target: Target, report: DryRunReport) -> None:
    good = [tactic for tactic in report.tactics if tactic.error is None]
    print(f"{target.arch}: {len(good)} of {len(report.tactics)} tactics")
    for tactic in report.tactics:
        if tactic.error is not None:
            print(f"  tactic {tactic.tactic} is left out: {tactic.error}")


def _cache(options: argparse.Namespace) -> int:
    cache = kernel_cache(cache_folder())
    limits = (options.keep, options.older_than)
    if options.what == "clear" and limits == (None, None):
        cache.clear()
    elif options.what == "clear":
        days = options.older_than
        cache.evict(options.keep, None if days is None else 86400 * days)
    elif limits != (None, None):
        raise UsageError("--keep and --older-than are of cache clear.")
    contents = cache.contents()
    counts = f"{contents.kernels} kernels, {contents.refusals} refusals"
    print(
        f"{cache.root}: {counts}, {contents.bytes / 1e6:.1f} MB; at most "
        f"{size_limit() / 1e6:.0f} MB (TTA_CACHE_SIZE)"
    )
    return OK


def _env(options: argparse.Namespace) -> int:
    del options
    pairs = list(describe())
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")
    return OK


def _plugin(options: argparse.Namespace) -> Plugin:
    _load(options.module)
    known = registered.get(options.op)
    if known is None or known.plugin is None:
        there = ", ".join(name for name, op in registered.items() if op.plugin)
        raise UsageError(
            f"{options.module} does not register {options.op} with kernels of its own; "
            f"it registers {there or 'nothing'}."
        )
    return known.plugin


def _attributes(options: argparse.Namespace, plugin: Plugin) -> dict[str, Any]:
    return read_attributes(options.attribute, plugin.attributes, plugin.defaults)


def _inputs(options: argparse.Namespace, plugin: Plugin) -> list[Any]:
    return read_inputs(options.input, options.dynamic, plugin.tensors, plugin.optional)


def _load(name: str) -> None:
    """Import a module, or the file of one, which registers its ops."""
    path = Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise UsageError(f"there is no file {name}.")
    folder = path.resolve().parent if is_file else Path.cwd()
    sys.path.insert(0, str(folder))
    if not is_file and _find(name) is None:
        raise UsageError(f"there is no module {name}; a file is named as kernels.py.")
    try:
        if is_file:
            _import_file(path)
        else:
            importlib.import_module(name)
    except Exception as error:
        traceback.print_exc()
        raise UsageError(
            f"{name} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _find(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _import_file(path: Path) -> None:
    """Under the file's name, whatever other module has it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
