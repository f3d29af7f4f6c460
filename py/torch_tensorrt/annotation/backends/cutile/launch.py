# SPDX-License-Identifier: BSD-3-Clause

"""One ``ct.launch(...)``: caught while a function is recorded, and read."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import cuda.tile as ct
import torch
from cuda.tile import tune

from ..._fingerprint import is_versioned
from ..._record.program import Keywords
from ..._record.recording import is_chosen_for, next_launch
from ..._record.tables import cold, drop, take_out
from ...errors import ArgumentError
from .. import CaughtLaunch, OnLaunch
from ..abi import unlaunchable
from ..unread import unread
from . import CuTileSpec

Notes: TypeAlias = "Any | tuple[Notes, ...]"  # of one value; of a tuple's items

_recording = threading.RLock()


@dataclass(frozen=True)
class BoundKernel:
    """A kernel, and how the recorded arguments make up its parameters.

    Attributes:
        kernel: the ``ct.kernel``. ``replace_hints`` makes another one at each call.
        parameters: for each parameter, the annotation of its value; for a tuple, those
            of its items. Each annotation belongs to one recorded argument, in order.
        function, options: what the kernel is made of.
    """

    kernel: Any = field(compare=False)
    parameters: tuple[Notes, ...]
    function: Any = field(init=False)
    options: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", self.kernel._pyfunc)
        object.__setattr__(self, "options", self.kernel._compiler_options)

    def __str__(self) -> str:
        return f"{self.function.__name__} with {self.options}"


@contextlib.contextmanager
def caught_launches(
    on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """While entered, ``ct.launch`` of this thread reports, and launches nothing.

    ``ct.tune.exhaustive_search`` times nothing, and finds the first config the best.
    Code may hold either function under any name (``from cuda.tile import launch``), so
    it is replaced in every module that holds it. Other threads call the functions.

    Args:
        overrides: parameters of the kernel that a config sets, or the config that a
            search finds.
    """
    with _recording, cold():
        thread, active, search = threading.get_ident(), True, Search(overrides or {})
        originals = ct.launch, tune.exhaustive_search
        initialize = ct.kernel.__init__

        def launch(*args: Any, **keywords: Any) -> None:
            # A module that is imported meanwhile keeps this function for good.
            if active and threading.get_ident() == thread:
                on_launch(_read_launch(search, *args, **keywords))
            else:
                originals[0](*args, **keywords)

        def exhaustive_search(search_space: Any, *args: Any, **keywords: Any) -> Any:
            if active and threading.get_ident() == thread:
                return search.best_of(search_space)
            return originals[1](search_space, *args, **keywords)

        def of_search(kernel: ct.kernel, *args: Any, **keywords: Any) -> None:
            initialize(kernel, *args, **keywords)
            search.kernels[id(kernel)] = kernel
            if search.made and threading.get_ident() == thread:
                search.made.append(kernel)  # with the hints that were found

        replaced = list(_places(originals))
        replacements = dict(zip(originals, (launch, exhaustive_search), strict=True))
        for module, name, original in replaced:
            setattr(module, name, replacements[original])
        ct.kernel.__init__ = of_search
        try:
            yield
        finally:
            active = False
            ct.kernel.__init__ = initialize
            drop(search.made)
            for module, name, original in replaced:
                setattr(module, name, original)


class Search:
    """What ``ct.tune.exhaustive_search`` would choose from; TensorRT times it instead.

    What is searched counts for the run's next launch. A function may keep what was
    found, and search in one run only. It may search for several kernels and launch the
    fastest: the config that is wanted is faster than all others.

    Attributes:
        overrides: of the kernel's parameters, unless a search takes them.
        made: what tables may keep: results, and kernels with their hints.
        kernels: made since the recording began, by ``id``; they live as long as it.
    """

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        self.overrides = overrides
        self.made: list[Any] = []
        self.kernels: dict[int, ct.kernel] = {}
        self._wanted = tuple(sorted(overrides.items()))
        self._asked: dict[tuple[int, int], list[Keywords]] = {}  # by run and launch
        self._known: dict[int, tuple[Keywords, ...]] = {}  # by launch

    def best_of(self, space: Sequence[Any]) -> tune.TuningResult[Any]:
        """The result of a search, which finds the config that is wanted, or the first.

        Where nothing is wanted, it is the first config of the launch's first search.
        """
        configs = tuple(map(_as_pairs, space))
        asked = self._asked.setdefault(next_launch(), [])
        asked += [config for config in configs if config not in asked]
        wanted = self._wanted if self._wanted and is_chosen_for() else asked[0]
        is_wanted = wanted in configs
        index = configs.index(wanted) if is_wanted else 0
        if is_wanted and is_chosen_for():
            self.overrides = {}
        config = _copy(space[index])  # a table of the user's may hold the config itself
        best = tune.Measurement(
            config=config,
            mean_us=0.0 if is_wanted else 1.0,
            num_samples=0,
            error_margin_us=0.0,
        )
        result = tune.TuningResult(best=best, successes=(best,), failures=())
        self.made += [result, best, *([] if config is space[index] else [config])]
        return result

    def require_new(self, kernel: ct.kernel) -> None:
        """Take a kernel that an earlier search found out of the tables that keep it.

        A search did not make one that a module has under its name.

        Raises:
            Again: a table held it.
        """
        function = kernel._pyfunc
        is_global = function.__globals__.get(function.__name__) is kernel
        if id(kernel) not in self.kernels and not is_global:
            take_out(kernel)

    def choices(self) -> tuple[Keywords, ...]:
        """The configs, as sorted pairs, that the launch to be made was searched in."""
        run, launch = next_launch()
        if asked := self._asked.pop((run, launch), None):
            self._known[launch] = tuple(asked)
        return self._known.get(launch, ())


def _as_pairs(config: Any) -> Keywords:
    """A config of a search as sorted pairs, whatever it is."""
    if isinstance(config, Mapping):
        values = dict(config)
    elif is_dataclass(config):
        values = {f.name: getattr(config, f.name) for f in fields(config)}
    elif isinstance(config, tuple) and hasattr(config, "_asdict"):
        values = config._asdict()
    elif isinstance(config, SimpleNamespace):
        values = vars(config)
    else:
        values = {"config": config}
    return tuple(sorted(values.items()))


def _copy(config: Any) -> Any:
    """A config as an object of its own, where that is possible."""
    if isinstance(config, tuple) and hasattr(config, "_make"):
        return config._make(config)
    return copy.copy(config)


def _places(functions: Sequence[Any]) -> Iterator[tuple[Any, str, Any]]:
    """The modules that hold one of ``functions``, the name each gives it, and which.

    Packages whose version stands for their code make no launches, and have thousands of
    modules, so they are skipped; all but ``cuda``, where the functions come from.
    """
    wanted = set(map(id, functions))
    for full_name, module in tuple(sys.modules.items()):
        is_cuda = full_name.partition(".")[0] == "cuda"
        if isinstance(module, ModuleType) and (is_cuda or not is_versioned(full_name)):
            # Not module.__dict__, which makes a lazy module load.
            names = ModuleType.__getattribute__(module, "__dict__")
            for name, value in tuple(names.items()):
                if id(value) in wanted:
                    yield module, name, value


def _read_launch(
    search: Search,
    stream: Any,
    grid: Any,
    kernel: Any,
    kernel_args: Any,
    /,
    programmatic_dependent_launch: bool = False,
) -> CaughtLaunch:
    """The launch of ``kernel_args``, each bound to a parameter of the kernel.

    Raises:
        ArgumentError: the arguments do not fit the kernel.
        UnsupportedKernelError: TensorRT cannot launch it this way.
    """
    if not isinstance(kernel, ct.kernel):
        raise ArgumentError(
            f"ct.launch of {kernel!r}, which is not a kernel. Decorate it: @ct.kernel."
        )
    search.require_new(kernel)
    function = kernel._annotated_function
    name, names = function.pyfunc.__name__, tuple(function.pysig.parameters)
    if programmatic_dependent_launch:
        raise unlaunchable(name, "it is a programmatic dependent launch")
    if not isinstance(grid, tuple | list):
        raise ArgumentError(
            f"kernel {name}: the grid is {grid!r}; write it as a tuple: "
            "ct.launch(stream, (blocks,), kernel, (x, ...))."
        )
    if not isinstance(kernel_args, tuple) or len(kernel_args) != len(names):
        given = len(kernel_args) if isinstance(kernel_args, tuple) else kernel_args
        raise ArgumentError(
            f"kernel {name}: it takes a tuple of {len(names)} arguments, "
            f"{', '.join(names)}; it was launched with {given}."
        )
    overrides = search.overrides if is_chosen_for() else {}
    _require_unchanged(name, dict(zip(names, kernel_args, strict=True)), overrides)
    bound = zip(names, kernel_args, function.parameter_annotations, strict=True)
    arguments: list[tuple[str, Any, bool]] = []
    parameters = tuple(_add_arguments(arguments, *each) for each in bound)
    dropped = _unread(function.pyfunc)
    for index, (path, value, is_constant) in enumerate(arguments):
        if is_constant and path in dropped:
            arguments[index] = path, _zero(value), True
    return CaughtLaunch(
        kernel=BoundKernel(kernel, parameters),
        name=name,
        grid=tuple(grid),
        arguments=tuple(arguments),
        options={},
        choices=search.choices(),
        passes_layouts=True,
    )


def _unread(function: Callable[..., Any]) -> frozenset[str]:
    """Parameters that the body of a kernel never reads, if it has a source."""
    if hasattr(function, "__wrapped__"):
        return frozenset()  # inspect would show another function
    source = _source(function.__code__)
    return unread(function, source) if source else frozenset()


@lru_cache(1024)
def _source(code: CodeType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(code))
    except (OSError, SyntaxError):
        return ""


def _zero(value: Any) -> Any:
    """What stands for a number that the kernel never reads."""
    if isinstance(value, bool | torch.SymBool):
        return False
    return 0 if isinstance(value, int | torch.SymInt) else value


def _require_unchanged(
    kernel: str, arguments: Mapping[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Raise where a config would change arguments that the grid was computed with."""
    for key, value in overrides.items():
        if key not in arguments:
            raise ArgumentError(
                f"kernel {kernel}: the config sets {key!r}, which neither the kernel "
                f"nor ct.kernel takes. Valid names: {', '.join(CuTileSpec.options)}. "
                "If ct.tune.exhaustive_search chooses it, the launch function has kept "
                "what an earlier search found, or searches among other configs here."
            )
        given = arguments[key]
        is_tensor = isinstance(given, torch.Tensor)
        if is_tensor or type(given) is not type(value) or given != value:
            raise ArgumentError(
                f"kernel {kernel}: the config sets {key}={value!r}, and the op's body "
                f"computes its grid with {given!r}. Give tta.cutile() a function that "
                f"takes {key} as a keyword, and launches the kernel with it."
            )


def _add_arguments(
    arguments: list[tuple[str, Any, bool]], path: str, value: Any, note: Any
) -> Notes:
    """Add a value, or each item of a tuple, to ``arguments``. Returns their notes."""
    if not isinstance(value, tuple):
        if not hasattr(note, "constant"):
            raise ArgumentError(
                f"kernel argument `{path}`: the kernel declares a tuple, got {value!r}."
            )
        arguments.append((path, value, note.constant))
        return note
    # tuple[int, float] has a note for each item. tuple[int, ...] has the same note for
    # all of them, and so does a tuple that the kernel does not annotate.
    items = getattr(note, "items", (getattr(note, "each", note),) * len(value))
    if len(items) != len(value):
        raise ArgumentError(
            f"kernel argument `{path}`: a tuple of {len(value)}, and the kernel "
            f"declares one of {len(items)}."
        )
    return tuple(
        _add_arguments(arguments, f"{path}[{index}]", *pair)
        for index, pair in enumerate(zip(value, items, strict=True))
    )
