# SPDX-License-Identifier: BSD-3-Clause

"""What the commands of ``python -m torch_tensorrt.annotation`` do."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import inspect
import pkgutil
import platform
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from . import _settings, backends
from ._compile.cache import kernel_cache
from ._compile.pool import worker_count
from ._dry_run import dry_run, plugin_of
from ._dry_run.report import DryRunReport
from ._explain import explain
from ._explain.report import ModelReport
from ._plugin import Plugin
from ._target import Target, current_target
from ._tensors import DTYPES, Extent, Range, TensorInfo
from .errors import (
    AnnotationError,
    DryRunError,
    TargetError,
    did_you_mean,
    place_of,
)

if TYPE_CHECKING:
    from .__main__ import Shape

OK, FAILED, USAGE = 0, 1, 2  # exit status


class UsageError(AnnotationError):
    """The command line is wrong; the message, of one line, tells what to write."""


def run(options: argparse.Namespace, program: str) -> int:
    """Run the command that was parsed; its exit status."""
    try:
        return _COMMANDS[options.command](options)
    except AnnotationError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError | TargetError) else FAILED


def _dry_run(options: argparse.Namespace) -> int:
    named = [Target.parse(text) for text in options.target]
    targets: list[Target | None] = [*named] or [None]
    arguments = _arguments(options)
    reference = options.reference and _reference(options)
    result, several = OK, len(targets) > 1
    for number, target in enumerate(targets):
        try:
            report = dry_run(
                options.op,
                **arguments,
                target=target,
                reference=reference,
                tolerance=options.tolerance,
                replay=options.replay,
                execute=False if options.compile_only else None,
                verbose=options.verbose,
            )
        except AnnotationError as error:
            if not several:
                raise
            print(f"{target and target.arch}: {error}", file=sys.stderr)
            result = FAILED
            continue
        if options.json == "-":
            print(report.to_json())
        else:
            if number:
                print()
            report.show()
        _write(report, options, f"-{report.target}" if several else "")
        result = result if report.ok else FAILED
    return result


def _write(
    report: DryRunReport | ModelReport, options: argparse.Namespace, suffix: str
) -> None:
    """Write the files that were asked for; the suffix tells those of targets apart."""
    forms = [(options.json, report.to_json)]
    if isinstance(report, DryRunReport):
        forms.append((options.html, report.to_html))
    for name, form in forms:
        if name in (None, "-"):
            continue
        path = Path(name)
        try:
            text = form()
            path.with_stem(f"{path.stem}{suffix}").write_text(text, encoding="utf-8")
        except OSError as error:
            what = f"{error.filename} cannot be written: {error.strerror}."
            raise UsageError(what) from error


def _compile(options: argparse.Namespace) -> int:
    targets = [Target.parse(text) for text in options.target]
    arguments = _arguments(options)
    result = OK
    for target in targets:
        try:
            report = dry_run(options.op, **arguments, target=target, execute=False)
        except AnnotationError as error:
            print(f"{target.arch}: {error}")
            result = FAILED
            continue
        tactics = [t for launch in report.launches for t in launch.tactics]
        good = sum(tactic.error is None for tactic in tactics)
        print(f"{target.arch}: {good} of {len(tactics)} tactics")
        for problem in report.problems:
            print(f"  {problem}")
            result = FAILED
    cache = kernel_cache(_settings.cache_folder())
    if cache.failure:
        raise AnnotationError(f"not all kernels were stored: {cache.failure}")
    print(f"kernel cache: {cache.root}")
    return result


def _cache(options: argparse.Namespace) -> int:
    cache = kernel_cache(_settings.cache_folder())
    if options.what == "clear":
        cache.clear()
    contents = cache.contents()
    counts = f"{contents.kernels} kernels, {contents.refusals} refusals"
    print(
        f"{cache.root}: {counts}, {contents.bytes / 1e6:.1f} MB; at most "
        f"{_settings.cache_size() / 1e6:.0f} MB ({_settings.CACHE_SIZE.name})"
    )
    return OK


def _env(_: argparse.Namespace) -> int:
    found = dict(_environment())
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value}")
    return OK


def _explain(options: argparse.Namespace) -> int:
    name, _, function = options.factory.rpartition(":")
    if not name:
        raise UsageError(f"{options.factory}: write a function as models.py:make.")
    make = getattr(_load(name), function, None)
    if not callable(make):
        raise UsageError(f"{name} has no function {function}.")
    takes_nothing = not any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(make).parameters.values()
    )
    made = make() if takes_nothing else None
    if not isinstance(made, tuple) or len(made) != 2:
        raise UsageError(
            f"{options.factory}: it must take nothing and return two things, the model "
            "and a list of its inputs."
        )
    model, inputs = made
    least = options.min_block_size
    settings = {} if least is None else {"min_block_size": least}
    report = explain(model, inputs, options.target, **settings)
    if options.json == "-":
        print(report.to_json())
    else:
        report.show()
    _write(report, options, "")
    return OK if report.ok else FAILED


_COMMANDS = {
    "dry-run": _dry_run,
    "compile": _compile,
    "explain": _explain,
    "cache": _cache,
    "env": _env,
}


# --- The environment ------------------------------------------------------------------

_DISTRIBUTIONS = (
    *("torch", "torch-tensorrt", "torch-tensorrt-annotation", "tensorrt"),
    *("cuda-bindings", "sympy"),
)
_MISSING = "not installed"


def _environment() -> Iterator[tuple[str, str]]:
    """Names and values of what is here."""
    yield "python", platform.python_version()
    versions = {name: _version(name) for name in _DISTRIBUTIONS}
    yield from versions.items()
    has_gpu = torch.cuda.is_available()
    yield "GPU", torch.cuda.get_device_name() if has_gpu else "none that torch sees"
    try:
        target = current_target()
        yield "target", f"{target.arch}, PTX ISA {target.ptx_isa or 'of the toolchain'}"
    except TargetError as error:
        yield "target", str(error)
    yield "kernel cache", str(_settings.cache_folder())
    yield "compiling processes", str(worker_count() or "none but this one")
    for setting in _settings.SETTINGS:
        yield setting.name, f"{setting.text() or 'not set'} ({setting.what})"
    for name in backends.names():
        yield f"compiles {name}", _language(name)
    runs = has_gpu and versions["cuda-bindings"] != _MISSING
    yield "runs kernels", "yes" if runs else "no: a GPU and cuda-bindings are needed"
    builds = "tensorrt_libs" in metadata.packages_distributions()
    yield "builds engines", "yes" if builds else "no: TensorRT's builder is needed"


def _version(name: str) -> str:
    for candidate in (name, f"{name}-cu13", f"{name}-cu12"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(candidate)
    return _MISSING


def _language(name: str) -> str:
    try:
        toolchain = backends.backend(name).toolchain()
    except Exception as error:  # a missing toolchain may raise anything
        return f"no: {' '.join(str(error).split())}"
    versions = ", ".join(" ".join(pair) for pair in toolchain.versions if pair[1])
    if toolchain.compiler is None:
        known = f" ({versions})" if versions else ""
        return f"no: its compiler is not installed; the cache serves{known}"
    return f"yes: {'; compiler '.join(filter(None, (versions, toolchain.compiler)))}"


# --- The op and its arguments ---------------------------------------------------------


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Import what registers the op; the inputs and attributes for a dry run of it."""
    _load(options.module)
    try:
        plugin = plugin_of(options.op)
    except DryRunError as error:
        raise UsageError(f"{options.module}: {error}") from error
    inputs = read_inputs(options, plugin)
    return {"inputs": inputs, "attributes": read_attributes(options, plugin)}


def _reference(options: argparse.Namespace) -> Any:
    """The function that is compared with; what registers the op is imported."""
    name: str = options.reference
    file = Path(options.module)
    module = file.stem if file.suffix == ".py" else options.module
    full = name if ":" in name else f"{module}:{name}"
    try:
        if callable(found := pkgutil.resolve_name(full)):
            return found
        raise ValueError("it is not a function")
    except (ImportError, AttributeError, ValueError) as error:
        what = f"--reference {name}: {error}. Write it as kernels:silu."
        raise UsageError(what) from error


def _load(name: str) -> ModuleType:
    path = Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise UsageError(f"the file {name} does not exist.")
    sys.path.insert(0, str(path.resolve().parent if is_file else Path.cwd()))
    try:
        if is_file:  # under the file's name, whatever other module has it
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None, "it ends in .py"
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
            return module
        return importlib.import_module(name)
    except Exception as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else ""
        if absent and f"{name}.".startswith(f"{absent}."):
            what = f"the module {name} does not exist; write a file as kernels.py."
        elif isinstance(error, AnnotationError):
            what = f"{place_of(error) or name}: {error}"
        else:
            traceback.print_exc()
            what = f"{name} cannot be imported: {type(error).__name__}: {error}"
        raise UsageError(what) from error


def read_inputs(options: argparse.Namespace, plugin: Plugin) -> list[TensorInfo | None]:
    """The op's tensors, in order; None for an optional one that is not given.

    Where an input has both, ``--input`` gives the opt of the ranges in ``--dynamic``.

    Raises:
        UsageError: what is given does not fit the op, or itself.
    """
    names = plugin.tensors
    given: dict[str, dict[str, Shape]] = {name: {} for name in names}
    for option, shapes in ("--input", options.input), ("--dynamic", options.dynamic):
        for shape in shapes:
            if shape.name not in given:
                raise UsageError(
                    f"the op has no tensor {shape.name}; it takes {_list(names)}."
                    + did_you_mean(shape.name, names)
                )
            if option in given[shape.name]:
                raise UsageError(f"{option} {shape.name}: it is given twice.")
            given[shape.name][option] = shape
    if missing := [n for n in names if not given[n] and n not in plugin.optional]:
        attributes = {name for name, _ in getattr(options, "attribute", ())}
        if wrong := [name for name in missing if name in attributes]:
            raise UsageError(
                f"--attribute {wrong[0]}: the op takes {wrong[0]} as a tensor, because "
                "the function that describes its outputs (meta_impl) does not "
                f"annotate it. Write def meta(x, {wrong[0]}: float) there, or int, "
                "bool or str."
            )
        each = " ".join(f"--input {name}=8x512:fp16" for name in missing)
        raise UsageError(
            f"{_list(missing)}: not given. Add {each}. If {missing[-1]} is a number, "
            "annotate it in the function that describes the outputs (meta_impl): "
            f"def meta(x, {missing[-1]}: float)."
        )
    return [_tensor(name, given[name]) if given[name] else None for name in names]


def _tensor(name: str, given: Mapping[str, Shape]) -> TensorInfo:
    """One tensor, from its shape under each option."""
    dtypes = {shape.dtype for shape in given.values() if shape.dtype is not None}
    known = {row.token.lower(): row.torch for row in DTYPES}
    torchs = {d: getattr(torch, d.removeprefix("torch."), None) for d in dtypes}
    found = {known.get(d.lower(), torchs[d]) for d in dtypes}
    if len(found) != 1 or not found <= {*known.values()}:
        got = f"got {_list(sorted(dtypes))}; the dtypes are {_list(known)}"
        raise UsageError(
            f"{name}: write one dtype, as {name}=8x512:fp16; {got}, or torch's names."
        )
    fixed = given.get("--input")
    if fixed is not None and any(len(extent) > 1 for extent in fixed.extents):
        raise UsageError(f"--input {name}: a range goes in --dynamic {name}=1..64x512.")
    if len({len(shape.extents) for shape in given.values()}) > 1:
        raise UsageError(f"{name}: --input and --dynamic differ in their dimensions.")
    extents: list[Extent] = []
    for axis, extent in enumerate((given.get("--dynamic") or given["--input"]).extents):
        low, high = extent[0], extent[-1]
        opt = fixed.extents[axis][0] if fixed else high
        opt = extent[1] if len(extent) == 3 else opt
        if not low <= opt <= high:
            raise UsageError(
                f"{name}: {low}..{opt}..{high} does not rise. A range is min..max or "
                "min..opt..max, and --input gives the opt."
            )
        extents.append(low if low == high else Range(low, opt, high))
    (dtype,) = found
    assert dtype is not None, "refused above"
    return TensorInfo(tuple(extents), dtype)


def read_attributes(options: argparse.Namespace, plugin: Plugin) -> dict[str, Any]:
    """The op's other arguments, of their own types.

    Raises:
        UsageError: one has another type, or is missing.
    """
    values: dict[str, Any] = {}
    kinds = plugin.attributes
    for name, text in options.attribute:
        if name not in kinds:
            if name in plugin.tensors:
                raise UsageError(
                    f"--attribute {name}: it is a tensor. Give it as --input "
                    f"{name}=8x512:fp16. If it is a number, annotate it in the "
                    f"function that describes the outputs: def meta(x, {name}: float)."
                )
            raise UsageError(
                f"the op has no attribute {name}; it takes {_list(kinds)}."
                + did_you_mean(name, kinds)
            )
        if name in values:
            raise UsageError(f"--attribute {name}: it is given twice.")
        kind, literal = kinds[name], text
        if kind.element is bool and text in ("true", "false"):
            literal = text.capitalize()
        try:
            is_text = kind.element is str or kind.is_torchs
            values[name] = kind.convert(text if is_text else ast.literal_eval(literal))
        except (ValueError, SyntaxError, TypeError) as error:
            what = f"--attribute {name}={text}: it must be of type {kind}."
            raise UsageError(what) from error
    if missing := [n for n in kinds if n not in {*values, *plugin.defaults}]:
        raise UsageError(f"{_list(missing)}: not given. Add --attribute NAME=VALUE.")
    return values


def _list(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"
