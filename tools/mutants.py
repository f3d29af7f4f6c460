# SPDX-License-Identifier: BSD-3-Clause

"""Mutation testing: change the library one expression at a time, and run its tests.

    python tools/mutants.py                       # every module in MODULES
    python tools/mutants.py 'py/torch_tensorrt/annotation/_sizes/*.py' --per-module 50
    python tools/mutants.py py/.../facts.py --tests tests/py/annotation/test_facts.py
    make mutants MUTANTS="--seed 1 --threshold 80"

A mutant is a module with one change: another comparison or arithmetic operator, a
constant that is off by one, a negated condition, `and` for `or`, `return None`, a
`raise` that is gone, True for False. A mutant that no test notices survives, and its
diff is printed: the tests miss something, or the change makes no difference.

Each mutant runs in a copy of the tree, never in the tree itself. The overlay finds the
library beside itself, so the copy's `overlay/` comes first in PYTHONPATH. Two checks
make sure that the result means something: the tests must pass without a change, and
they must fail when the module only raises. Otherwise they do not import the copy.

The same seed gives the same mutants. A mutant takes about as long as its tests.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import difflib
import itertools
import os
import queue
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

PROJECT = Path(__file__).resolve().parents[1]

# What is mutated by default: the modules that decide whether a number is right.
MODULES = (
    "py/torch_tensorrt/annotation/_record/*.py",
    "py/torch_tensorrt/annotation/_sizes/*.py",
    "py/torch_tensorrt/annotation/_code/*.py",
    "py/torch_tensorrt/annotation/_steps.py",
    "py/torch_tensorrt/annotation/_dry_run/steps.py",
    "py/torch_tensorrt/dynamo/conversion/plugins/_program.py",
    "py/torch_tensorrt/dynamo/conversion/plugins/_callbacks.py",
    "py/torch_tensorrt/annotation/backends/*/signature*.py",
    "py/torch_tensorrt/annotation/backends/triton/constants.py",
    "py/torch_tensorrt/annotation/backends/triton/descriptors.py",
    "py/torch_tensorrt/annotation/backends/unread.py",
    "py/torch_tensorrt/annotation/backends/cutile/host_maps.py",
    "py/torch_tensorrt/annotation/backends/cutedsl/arguments.py",
    "py/torch_tensorrt/annotation/backends/cutedsl/tensor_maps.py",
    "py/torch_tensorrt/annotation/backends/cutedsl/words.py",
    "py/torch_tensorrt/annotation/backends/cuda/entry.py",
    "py/torch_tensorrt/annotation/backends/cuda/headers.py",
    "py/torch_tensorrt/annotation/backends/cuda/scalars.py",
    # The key of a cached kernel, and whether an entry is what was written.
    "py/torch_tensorrt/annotation/_fingerprint.py",
    "py/torch_tensorrt/annotation/_compile/job.py",
    "py/torch_tensorrt/annotation/_compile/cache.py",
)

# Modules, and the pytest arguments of the tests that must notice a change in them. The
# first row that matches counts. Arguments with a `*` are expanded in the tree; put the
# fastest tests first, because pytest stops at the first failure.
TESTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "py/torch_tensorrt/annotation/_record/address.py",
        ("tests/py/annotation/test_addresses.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_record/device.py",
        ("tests/py/annotation/test_devices.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_record/tables.py",
        (
            "tests/py/annotation/test_tables.py",
            "tests/py/annotation/test_triton_wrappers.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_record/descriptor.py",
        ("tests/py/annotation/test_tensor_descriptors.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_record/operations.py",
        (
            "tests/py/annotation/test_views.py",
            "tests/py/annotation/test_programs.py",
            "tests/py/test_fuzz.py",
            "tests/py/plugins/test_op_bodies.py",
            "tests/py/plugins/test_taken_apart*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_steps.py",
        (
            "tests/py/annotation/test_programs.py",
            "tests/py/test_fuzz.py",
            "tests/py/plugins/test_taken_apart*.py",
            "tests/py/annotation/test_dry_run_steps.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_dry_run/steps.py",
        ("tests/py/annotation/test_dry_run_steps.py",),
    ),
    (
        "py/torch_tensorrt/dynamo/conversion/plugins/_program.py",
        ("tests/py/plugins/test_taken_apart*.py",),
    ),
    (
        "py/torch_tensorrt/dynamo/conversion/plugins/_callbacks.py",
        ("tests/py/plugins/test_callbacks.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_sizes/values.py",
        ("tests/py/annotation/test_constants.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/unread.py",
        ("tests/py/annotation/test_constants.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/triton/constants.py",
        ("tests/py/annotation/test_constants.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cutile/host_maps.py",
        ("tests/py/annotation/test_cutile_tma.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cutedsl/words.py",
        (
            "tests/py/annotation/test_cutedsl_arithmetic.py",
            "tests/py/annotation/test_cutedsl_tensor_maps.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cutedsl/tensor_maps.py",
        ("tests/py/annotation/test_cutedsl_tensor_maps.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_code/packed_maps.py",
        (
            "tests/py/annotation/test_cutedsl_tensor_maps.py",
            "tests/py/annotation/test_cutile_tma.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_code/lowering.py",
        (
            "tests/py/annotation/test_cutile_ptx.py",
            "tests/py/annotation/test_cuda_backend.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_record/*.py",
        (
            "tests/py/annotation/test_record*.py",
            "tests/py/annotation/test_replay*.py",
            "tests/py/annotation/test_views.py",
            "tests/py/annotation/test_addresses.py",
            "tests/py/annotation/test_triton_wrappers.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_sizes/*.py",
        (
            "tests/py/annotation/test_record_equalities.py",
            "tests/py/annotation/test_encoding*.py",
            "tests/py/annotation/test_symbolic*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_code/effects.py",
        ("tests/py/annotation/test_effects*.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_code/tensor_maps.py",
        ("tests/py/annotation/test_tensor_maps.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_code/kernel.py",
        (
            "tests/py/annotation/test_effects*.py",
            "tests/py/annotation/test_plugin.py",
            "tests/py/annotation/test_hidden_outputs.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_hidden.py",
        (
            "tests/py/annotation/test_hidden_outputs.py",
            "tests/py/annotation/test_hardware.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_code/*.py",
        ("tests/py/annotation/test_ptx*.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/abi.py",
        (
            "tests/py/annotation/test_hardware.py",
            "tests/py/annotation/test_views.py",
            "tests/py/annotation/test_triton_signature*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/backends/triton/signature*.py",
        (
            "tests/py/annotation/test_views.py",
            "tests/py/annotation/test_triton_signature*.py",
            "tests/py/annotation/test_triton_backend*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/backends/triton/descriptors.py",
        ("tests/py/annotation/test_tensor_descriptors.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cutile/signature*.py",
        ("tests/py/annotation/test_cutile_signature*.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cutedsl/arguments.py",
        (
            "tests/py/annotation/test_cutedsl_arguments*.py",
            "tests/py/annotation/test_cutedsl_backend*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/backends/cuda/*.py",
        ("tests/py/annotation/test_cuda_*.py",),
    ),
    (
        "py/torch_tensorrt/annotation/backends/*/signature*.py",
        (
            "tests/py/annotation/test_*_signature*.py",
            "tests/py/annotation/test_*_launch_abi*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_fingerprint.py",
        (
            "tests/py/annotation/test_fingerprint*.py",
            "tests/py/annotation/test_cache_keys*.py",
        ),
    ),
    (
        "py/torch_tensorrt/annotation/_compile/job.py",
        ("tests/py/annotation/test_cache_keys*.py",),
    ),
    (
        "py/torch_tensorrt/annotation/_compile/cache.py",
        (
            "tests/py/annotation/test_eviction*.py",
            "tests/py/annotation/test_cache.py",
        ),
    ),
)

# A mutant may loop and allocate until it is stopped. Other tests need less than this.
MEMORY = 8 << 30  # bytes for each process
LEAST_TIMEOUT = 30.0  # seconds

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
# Whose exchange is the negation already.
NEGATIONS = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# Left alone, because a change there makes no difference or says nothing of the code:
# annotations are never evaluated, and most decorators are `@dataclass(frozen=True)`.
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list"}
# zip(strict=True) asserts what the code around it makes true.
SKIPPED_KEYWORDS = {"strict"}

# A node, and what replaces it.
Change: TypeAlias = "tuple[ast.expr | ast.stmt, ast.AST]"


@dataclass(frozen=True)
class Mutant:
    """A module's text after one change."""

    module: str
    line: int
    change: str
    text: str

    def diff(self, original: str) -> str:
        lines = difflib.unified_diff(
            original.splitlines(keepends=True),
            self.text.splitlines(keepends=True),
            f"a/{self.module}",
            f"b/{self.module}",
        )
        return "".join(lines)


def main() -> None:
    options = parse_arguments()
    modules = expand(options.modules or MODULES)
    sampled = {m: sample(m, options.per_module, options.seed) for m in modules}
    if options.list:
        for mutant in itertools.chain(*sampled.values()):
            print(mutant.diff(source(mutant.module)), end="")
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, hard))  # and of what this starts
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        runner = Runner(Path(folder), options)
        survivors = {m: runner.survivors(m, mutants) for m, mutants in sampled.items()}
    report(sampled, survivors)
    scores = {m: score(sampled[m], survivors[m]) for m in modules}
    raise SystemExit(any(found < options.threshold for found in scores.values()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("modules", nargs="*", metavar="GLOB", help="modules, from the project's root")
    add("--tests", help="pytest arguments, instead of those in the table TESTS")
    add("--per-module", type=int, default=20, metavar="N", help="default: 20")
    add("--seed", type=int, default=0, help="which mutants are taken (default: 0)")
    add("--jobs", type=int, default=1, help="mutants tested at a time (default: 1)")
    add("--timeout", type=float, help="seconds; default: 5 times the tests' time")
    add("--threshold", type=float, default=0.0, metavar="PERCENT",
        help="fail when a module has fewer mutants killed (default: 0)")  # fmt: skip
    add("--list", action="store_true", help="print the mutants and run nothing")
    return parser.parse_args()


def expand(globs: Sequence[str]) -> list[str]:
    """The files that ``globs`` match, each once. One that matches none is an error."""
    found: dict[str, None] = {}
    for glob in globs:
        paths = sorted(str(p.relative_to(PROJECT)) for p in PROJECT.glob(glob))
        if not paths:
            raise SystemExit(f"mutants.py: {glob} matches no file in {PROJECT}")
        found.update(dict.fromkeys(paths))
    return list(found)


def tests_of(module: str) -> list[str]:
    """The pytest arguments that the table TESTS has for ``module``."""
    for glob, arguments in TESTS:
        if fnmatch(module, glob):
            return [a for each in arguments for a in expand_argument(each)]
    raise SystemExit(
        f"mutants.py: TESTS has no row for {module}; add one, or pass --tests"
    )


def expand_argument(argument: str) -> list[str]:
    return expand([argument]) if "*" in argument else [argument]


def source(module: str) -> str:
    return (PROJECT / module).read_text(encoding="utf-8")


# Making mutants.


def sample(module: str, count: int, seed: int) -> list[Mutant]:
    """At most ``count`` mutants of ``module``, in the order of their lines."""
    text = source(module)
    tree = ast.parse(text)
    made: dict[str, Mutant] = {}
    for node, replacement in shuffled(mutations(tree), f"{seed} {module}"):
        if len(made) == count:
            break
        # The text must mean what the change means: precedence can ask for parentheses,
        # and positions inside of a string are not reliable before Python 3.12.
        expected = ast.dump(copy.deepcopy(tree, {id(node): replacement}))
        for pattern in ("{}", "({})"):
            mutated = splice(text, node, pattern.format(ast.unparse(replacement)))
            if ast.dump(parsed_or_empty(mutated)) == expected:
                change = f"{ast.unparse(node)} -> {ast.unparse(replacement)}"
                made[mutated] = Mutant(module, node.lineno, first_line(change), mutated)
                break
    return sorted(made.values(), key=lambda mutant: mutant.line)


def shuffled(changes: Iterable[Change], seed: str) -> list[Change]:
    """``changes`` in a random order, in which the kinds of change take turns."""
    kinds: dict[str, list[Change]] = {}
    for node, replacement in changes:
        kinds.setdefault(type(replacement).__name__, []).append((node, replacement))
    generator = random.Random(seed)
    for kind in kinds.values():
        generator.shuffle(kind)
    rounds = itertools.zip_longest(*kinds.values())
    return [change for turn in rounds for change in turn if change]


def mutations(tree: ast.Module) -> Iterator[Change]:
    """Pairs of a node and what replaces it."""
    for node in code(tree):
        match node:
            case ast.Compare(left, operators, comparators):
                for i, operator in enumerate(operators):
                    swapped = COMPARISONS[type(operator)]()
                    changed = [*operators[:i], swapped, *operators[i + 1 :]]
                    yield node, ast.Compare(left, changed, comparators)
            case ast.Constant(bool(value)):
                yield node, ast.Constant(not value)
            case ast.Constant(int(value)):
                yield node, expression(str(value + 1))
                yield node, expression(str(value - 1))
            case ast.BinOp(left, operator, right):
                is_text = any(map(is_string, (left, right)))
                if (swap := ARITHMETIC.get(type(operator))) and not is_text:
                    yield node, ast.BinOp(left, swap(), right)
            case ast.AugAssign(target, operator, right):
                if (swap := ARITHMETIC.get(type(operator))) and not is_string(right):
                    yield node, ast.AugAssign(target, swap(), right)
            case ast.BoolOp(operator, values):
                other = ast.Or() if isinstance(operator, ast.And) else ast.And()
                yield node, ast.BoolOp(other, values)
            case ast.UnaryOp(ast.Not(), operand):
                yield node, operand
            case ast.Return(value) if value and ast.unparse(value) != "None":
                yield node, ast.Return(ast.Constant(None))
            case ast.Raise():
                yield node, ast.Pass()
        for condition in conditions(node):
            if not has_negation(condition):
                yield condition, ast.UnaryOp(ast.Not(), condition)


def has_negation(condition: ast.expr) -> bool:
    """Whether another mutant is ``condition`` negated."""
    match condition:
        case ast.UnaryOp(ast.Not()):
            return True
        case ast.Compare(ops=[operator]):
            return isinstance(operator, NEGATIONS)
    return False


def code(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and what is below it, in the order of the text."""
    if isinstance(node, ast.JoinedStr):
        return  # a message, mostly
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.keyword) and node.arg in SKIPPED_KEYWORDS:
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field not in SKIPPED_FIELDS:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from code(child)


def conditions(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.If(test) | ast.While(test) | ast.IfExp(test) | ast.Assert(test):
            return [test]
        case ast.comprehension(ifs=ifs):
            return ifs
    return []


def is_string(node: ast.expr) -> bool:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return is_text or isinstance(node, ast.JoinedStr)


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def splice(text: str, node: ast.expr | ast.stmt, new: str) -> str:
    """``text`` with ``new`` for ``node``, and everything else as it was."""
    lines = text.encode().splitlines(keepends=True)  # columns count bytes
    starts = [0, *itertools.accumulate(map(len, lines))]
    assert node.end_lineno is not None and node.end_col_offset is not None
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    return b"".join((text.encode()[:begin], new.encode(), text.encode()[end:])).decode()


def parsed_or_empty(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def first_line(text: str) -> str:
    head, newline, _ = text.partition("\n")
    return head[:70] + ("..." if newline or len(head) > 70 else "")


# Running them.


class Runner:
    """Copies of the tree, in each of which one mutant at a time is tested."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._seconds: dict[tuple[str, ...], float] = {}
        self._trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(options.jobs):
            tree = folder / f"tree{number}"
            copy_tree(tree)
            self._trees.put(tree)

    def survivors(self, module: str, mutants: Sequence[Mutant]) -> list[Mutant]:
        """Those of ``mutants``, all of ``module``, that no test notices."""
        if not mutants:
            return []
        given = self._options.tests
        tests = tuple(shlex.split(given) if given else tests_of(module))
        timeout = self._options.timeout or max(LEAST_TIMEOUT, 5 * self._baseline(tests))
        raises = "raise ImportError('the self-check of tools/mutants.py')\n"
        if self._passes(module, raises, tests, timeout):
            raise SystemExit(
                f"mutants.py: the tests pass although {module} only raises, so they do "
                f"not import it, or not from the copy: {shlex.join(tests)}"
            )
        print(f"{module}: the tests notice when it only raises", flush=True)

        def survives(mutant: Mutant) -> bool:
            survived = self._passes(module, mutant.text, tests, timeout)
            outcome = "SURVIVED" if survived else "killed"
            print(f"{module}:{mutant.line}: {outcome}: {mutant.change}", flush=True)
            return survived

        with ThreadPoolExecutor(self._options.jobs) as pool:
            outcomes = list(pool.map(survives, mutants))
        return list(itertools.compress(mutants, outcomes))

    def _baseline(self, tests: tuple[str, ...]) -> float:
        """Seconds that ``tests`` take on the tree as it is, where they must pass."""
        if tests not in self._seconds:
            started = time.monotonic()
            tree = self._trees.get()
            status, output = self._pytest(tree, tests, timeout=None)
            self._trees.put(tree)
            if status != 0:
                raise SystemExit(
                    f"{output}\nmutants.py: with the output above, the tests fail "
                    f"without a change: {shlex.join(tests)}"
                )
            self._seconds[tests] = time.monotonic() - started
        return self._seconds[tests]

    def _passes(
        self, module: str, text: str, tests: Sequence[str], timeout: float
    ) -> bool:
        """Whether the tests pass with ``text`` as ``module``."""
        tree = self._trees.get()
        original = (tree / module).read_bytes()
        try:
            (tree / module).write_text(text, encoding="utf-8")
            status, _ = self._pytest(tree, tests, timeout)
        finally:
            (tree / module).write_bytes(original)
            self._trees.put(tree)
        return status in (0, 5)  # 5: every test was skipped, or none was found

    def _pytest(
        self, tree: Path, tests: Sequence[str], timeout: float | None
    ) -> tuple[int | None, str]:
        """The exit status, None where the time was up; and the output."""
        options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
        path = os.pathsep.join(
            filter(None, (str(tree / "overlay"), os.environ.get("PYTHONPATH")))
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=tree,
            # No bytecode: its time stamps would take a mutant for the one before it.
            env={
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONDONTWRITEBYTECODE": "1",
                "TTA_TEST_SAMPLED": "no",  # any test may be the one that notices
                "TMPDIR": str(self._folder),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, ""
        else:
            return process.returncode, output
        finally:
            # With the processes that the tests started, which may outlive pytest.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def copy_tree(destination: Path) -> None:
    """Copy what git tracks, and what it would; caches and builds stay behind."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True)
    for name in set(filter(None, listed.stdout.decode().split("\0"))):
        if (PROJECT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, destination / name)


# Telling what came of it.


def score(mutants: Sequence[Mutant], survivors: Sequence[Mutant]) -> float:
    """Percent of ``mutants`` that were killed; 100 where there are none."""
    return 100 * (1 - len(survivors) / len(mutants)) if mutants else 100.0


def report(
    sampled: dict[str, list[Mutant]], survivors: dict[str, list[Mutant]]
) -> None:
    for module, mutants in survivors.items():
        for mutant in mutants:
            print(f"\n{mutant.diff(source(module))}", end="")
    width = max(map(len, sampled))
    print(f"\n{'module':{width}}  mutants  killed  survived")
    for module, mutants in sampled.items():
        total, left = len(mutants), len(survivors[module])
        percent = f"{score(mutants, survivors[module]):3.0f}%" if total else ""
        print(f"{module:{width}}  {total:7}  {total - left:6}  {left:8}  {percent}")


if __name__ == "__main__":
    main()
