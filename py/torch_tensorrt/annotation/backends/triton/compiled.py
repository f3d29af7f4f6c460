# SPDX-License-Identifier: BSD-3-Clause

"""What ``kernel[grid](...)`` returns while it is recorded, and launches of it.

Wrappers keep what a launch returned, and launch that the next time: without the binding
of arguments, a launch costs less. It is a launch of the same ``JITFunction``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from weakref import WeakSet

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDAOptions
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime.jit import JITFunction

from ..._record.recording import is_running, purpose, refuse, target, users_line
from ..._record.tables import drop
from ...errors import ArgumentError, UnsupportedKernelError
from ..abi import unsupported

# Of the launch, and not of the compiler's state: a compiled kernel has all of them.
_OPTIONS = (
    *("num_warps", "num_stages", "num_ctas", "maxnreg", "enable_fp_fusion"),
    *("launch_cooperative_grid", "launch_pdl"),
)
_DEFAULTS = {
    name: field.default
    for name, field in CUDAOptions.__dataclass_fields__.items()
    if name in _OPTIONS
}
_LOW_LEVEL = 9  # arguments of CompiledKernel.run before the kernel's own


class Compiled:
    """A kernel that an engine will compile, once for each tactic.

    Outside of a recording it launches the kernel as Triton does: a table of the user's
    may still hold it.
    """

    def __init__(
        self,
        launched: Any,
        kernel: JITFunction[Any],
        options: Mapping[str, Any],
        constants: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """
        Args:
            launched: the kernel, or what decorates it.
            options: of the launch.
            constants: that the launch gave, and no size decides.
        """
        self.__launched = launched
        self.__kernel = kernel
        self.__options = dict(options)
        self.__constants = constants
        _alive.add(self)

    @property
    def name(self) -> str:
        """The name of the kernel."""
        return str(self.__kernel.__name__)

    @property
    def metadata(self) -> Metadata:
        """What is known before it is compiled."""
        return Metadata(self.name, self.__options)

    def _init_handles(self) -> None:
        """Nothing is loaded before the engine runs."""

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """A launch, which takes the kernel's arguments in order.

        Triton takes the constants from the compiled kernel: it passes over the
        arguments in their places, and those at the end may be missing. Before 3.3 none
        was an argument, and wrappers may still leave out all.
        """
        # An autotuner's choices belong to the launch; otherwise Triton has made one.
        launched = self.__launched if is_running() else self.__kernel

        def launch(*args: Any, stream: Any = None) -> Any:
            parameters, known = self.__kernel.params, self.__constants()
            given = [p for p in parameters if not p.is_constexpr]
            if len(args) != len(given):
                given = parameters[: len(args)]
            missing = [p for p in parameters if p not in given]
            if len(args) > len(given) or not all(p.is_constexpr for p in missing):
                self.__refuse(
                    f"with {len(args)} arguments. It takes {len(parameters)}, and only "
                    f"constants may be missing: {', '.join(self.__kernel.arg_names)}"
                )
            named = {p.name: value for p, value in zip(given, args, strict=True)}
            for name, value in named.items():
                compiled_in = known.get(name, value)
                if compiled_in is not value and compiled_in != value:
                    self.__refuse(
                        f"with {name}={value!r}. It was compiled with {compiled_in!r}, "
                        "which Triton does not change"
                    )
            named |= {p.name: known[p.name] for p in missing if p.name in known}
            return launched.run(grid=grid, warmup=False, **named, **self.__options)

        return launch

    def __refuse(self, what: str) -> NoReturn:
        refuse(
            ArgumentError(
                f"kernel {self.name}: what an earlier launch returned is launched at "
                f"{users_line()} {what}."
            )
        )

    @property
    def run(self) -> Callable[..., Any]:
        """The launch with everything that Triton has looked up before."""
        return lambda x, y, z, *args: self[x, y, z](*args[_LOW_LEVEL - 3 :])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.metadata, name)


class Metadata:
    """The part of a compiled kernel's metadata that does not take a compiler."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.warp_size = 32
        given = {**options, **purpose().options}
        for option, default in _DEFAULTS.items():
            setattr(self, option, given.get(option, default))

    @property
    def target(self) -> GPUTarget:
        """Triton's name of the target."""
        return GPUTarget("cuda", target("a kernel's target").capability, 32)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(sorted([*vars(self), "target"]))
        refuse(
            UnsupportedKernelError(
                f"kernel {self.name}: `{name}` of what its launch returned, at "
                f"{users_line()}, is not known before the kernel is compiled for the "
                f"target; {known} are. Decide by them, or pass the choices as "
                "configs, which TensorRT times."
            )
        )


_alive: WeakSet[Compiled] = WeakSet()  # what this recording's launches returned


def recompiled(compiled: CompiledKernel) -> Compiled:
    """What stands for a kernel that Triton compiled before the recording.

    Raises:
        UnsupportedKernelError: it was not compiled from a function.
    """
    if not isinstance(compiled.src, ASTSource):
        refuse(
            unsupported(
                compiled.name,
                "the launch function launches code that was not compiled from a "
                "function. Launch a @triton.jit function.",
            )
        )
    known = {option: getattr(compiled.metadata, option) for option in _DEFAULTS}
    options = {o: value for o, value in known.items() if value != _DEFAULTS[o]}
    kernel = compiled.src.fn
    constants = {
        kernel.params[index].name: value
        for (index, *_), value in compiled.src.constants.items()
        if kernel.params[index].is_constexpr
    }
    return Compiled(kernel, kernel, options, lambda: constants)


def drop_compiled() -> None:
    """Remove what was returned while recording from the tables that keep it."""
    drop(_alive)
    _alive.clear()
