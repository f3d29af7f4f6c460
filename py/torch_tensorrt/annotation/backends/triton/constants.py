# SPDX-License-Identifier: BSD-3-Clause

"""Compile-time constants that are arguments in an engine, for they follow the shape.

People declare numbers of rows and lengths of sequences as ``tl.constexpr``. A kernel
mostly does with them what it could do with an argument: ``offsets < n``,
``range(0, n, BLOCK)``, ``row * n``. That it does the same is not assumed, but proved:
Triton's front end makes the kernel's IR with the argument, and with some constants in
the range of the profile. They must be equal, with the argument in place of the
constant. The front end decides by a constant without a trace, and by an argument with
an operation: a branch, a product, a conversion. So nothing was decided by the constant.
"""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from ..._record.program import Scalar
from ..._sizes.facts import bounds
from ..._sizes.values import needs_one_value
from ..._tensors import Ranges
from .signature import Signature

Values: TypeAlias = dict[str, int]

_CALLS = ("range", "tl.range", "tl.minimum", "tl.maximum")
_SHAPES = 2  # that are compared
_MOST_TRIED = 64  # whose values may be those of other constants


@lru_cache(1024)
def are_sizes(function: Callable[..., Any], source: str) -> frozenset[str]:
    """Names of the parameters that may be arguments, as far as the text says it.

    Each is compared with something else than a number, bounds a loop, is added or
    multiplied, or is the most or the least of something, and nothing else.

    Args:
        source: what Triton parses.
    """
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    used: set[int] = set()
    body = ast.Module(definition.body, [])
    for node in ast.walk(body):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            is_size = not any(isinstance(o, ast.Constant) for o in operands)
        elif isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
            is_size = isinstance(node.op, ast.Mult | ast.Add | ast.Sub)
        elif isinstance(node, ast.Call):
            operands = node.args
            is_size = ast.unparse(node.func) in _CALLS
        else:
            continue
        if is_size:
            used |= {id(o) for o in operands if isinstance(o, ast.Name)}
    names = [node for node in ast.walk(body) if isinstance(node, ast.Name)]
    others = {node.id for node in names if id(node) not in used}
    return frozenset({node.id for node in names} - others)


def require_same(signature: Signature, target: GPUTarget, options: Any) -> None:
    """Raise unless arguments do the same as the constants that they stand for.

    Raises:
        ArgumentError: the kernel needs the constants.
    """
    launch, ranges = signature.program.launch, signature.program.ranges
    stand_ins = signature.stand_ins
    names = launch.kernel.arg_names

    def made(values: Values) -> str:
        types = {**signature.types, **dict.fromkeys(values, "constexpr")}
        constants = {**signature.constants, **values}
        indexed = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(launch.kernel, types, indexed)  # hints are for what follows
        return _ir(source, target, options)

    passed = [a.name for a in launch.arguments if a.name not in signature.constants]
    general = made({})
    wanted = _with_arguments(general, {passed.index(s.name): s.name for s in stand_ins})
    chosen = list(itertools.islice(_samples(stand_ins, ranges, general), _SHAPES))
    if chosen and all(_with_constants(made(v), v) == wanted for v in chosen):
        return
    for stand_in in stand_ins:
        why = needs_one_value(stand_in.name, stand_in.expr, ranges)
        raise signature.refused(stand_in.name, why)


def _ir(source: ASTSource, target: GPUTarget, options: Mapping[str, Any]) -> str:
    """What the front end makes of a kernel."""
    backend = make_backend(target)
    parsed = backend.parse_options(dict(options))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(parsed)
    modules = backend.get_module_map()
    module = source.make_ir(target, parsed, functions, modules, context)
    return str(module.str_nodebug())


def _samples(stand_ins: list[Scalar], ranges: Ranges, general: str) -> Iterator[Values]:
    """Values that the constants may have, which no other constant has."""
    generator = random.Random(0)
    spans = {s.name: bounds(s.expr, ranges) for s in stand_ins}
    taken = set(map(int, re.findall(r"constant (?:dense<)?(-?\d+)", general)))
    for _ in range(_MOST_TRIED):
        values = {name: generator.randint(*span) for name, span in spans.items()}
        if len({*values.values()} - taken) == len(values):
            taken |= {*values.values()}
            yield values


# --- IR as text, with names that do not count its operations --------------------------

_NAME = re.compile(r"%[\w$.-]+")


def _with_arguments(code: str, names: Mapping[int, str]) -> list[str]:
    """The lines, with arguments of the kernel by the names of what they stand for."""
    known = {f"%arg{number}": f"%={name}" for number, name in names.items()}
    head, *lines = _lines(code)
    entry = next(line for line in lines if line.startswith("tt.func public"))
    for argument in known:
        declared = f"{argument}: i32"
        shorter = re.sub(rf", {declared}|{declared}(?:, )?", "", entry)
        lines[lines.index(entry)] = entry = shorter
    return _renamed([head, *lines], known)


def _with_constants(code: str, values: Values) -> list[str]:
    """The lines, with constants by the names of what they are the values of."""
    known: dict[str, str] = {}
    lines = []
    for line in _lines(code):
        for name, value in values.items():
            scalar = re.fullmatch(rf"(%\S+) = arith\.constant {value} : i32", line)
            tensor = re.fullmatch(
                rf"(%\S+) = arith\.constant dense<{value}> : (tensor<\S+xi32>)", line
            )
            if scalar:
                known[scalar[1]] = f"%={name}"
                break
            if tensor:
                line = f"{tensor[1]} = tt.splat %={name} : i32 -> {tensor[2]}"
        else:
            lines.append(line)
    return _renamed(lines, known)


def _lines(code: str) -> list[str]:
    return [line.strip() for line in code.splitlines()]


def _renamed(lines: list[str], known: Mapping[str, str]) -> list[str]:
    """The lines with values numbered in their order, in each function anew.

    Args:
        known: names of the kernel's own, which is the first function.
    """
    numbered: dict[str, str] = {}
    is_kernel, result = True, []

    def rename(match: re.Match[str]) -> str:
        name = match[0]
        if is_kernel and name in known:
            return known[name]
        return numbered.setdefault(name, f"%{len(numbered)}")

    for line in lines:
        if line.startswith("tt.func"):
            is_kernel, numbered = line.startswith("tt.func public"), {}
        result.append(_NAME.sub(rename, line))
    return result
