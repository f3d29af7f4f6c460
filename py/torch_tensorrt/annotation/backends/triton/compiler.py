# SPDX-License-Identifier: BSD-3-Clause

"""Triton kernels: launches caught at ``JITFunction.run``, compiled for any GPU."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from torch._library.triton import set_wrap_triton_enabled
from triton import __version__ as triton_version
from triton import knobs
from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, ptx_get_version
from triton.compiler import ASTSource
from triton.compiler import CompiledKernel as TritonKernel
from triton.compiler import compile as triton_compile
from triton.compiler.errors import CompilationError
from triton.runtime.autotuner import Autotuner, Heuristics
from triton.runtime.cache import triton_key
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from ..._code.ptx import SCRATCH_ALIGNMENT, Kind, Slot, parse
from ..._code.ptxas import output_of
from ..._code.tensor_maps import parameters
from ..._record.program import Descriptor
from ..._record.recording import is_chosen_for
from ..._record.tables import cold, take_out
from ..._target import OLDEST_PTX
from ...errors import AnnotationError, CompileError, TargetError, chain, place, reasons
from .. import (
    Backend,
    CompiledKernel,
    Interpreter,
    OnLaunch,
    Options,
    Program,
    Target,
    Toolchain,
)
from ..abi import require_cluster, unlaunchable, unsupported
from . import TritonSpec
from .compiled import Compiled, drop_compiled, recompiled
from .constants import require_same
from .descriptors import described, require_maps
from .driver import answering_for_target
from .launch import bind, read_launch, undecorated
from .signature import Signature

_recording = threading.RLock()


# Tools in place of those that Triton brings, and whose version Triton's stands for.
_TOOLS = {
    "ptxas": "TRITON_PTXAS_PATH",
    "ptxas_blackwell": "TRITON_PTXAS_BLACKWELL_PATH",
}


class TritonBackend(Backend):
    """Records ``kernel[grid](...)`` and compiles it with ``triton.compile``."""

    def toolchain(self) -> Toolchain:
        """Triton's version, and the settings that change what it compiles."""
        settings = {
            **get_cache_invalidating_env_vars(),
            "fp_fusion": knobs.language.default_fp_fusion,
            "override": knobs.compilation.override,
            "libdevice": knobs.nvidia.libdevice_path,
        }
        for tool, variable in _TOOLS.items():
            if os.environ.get(variable) or tool in vars(knobs.nvidia):
                settings[tool] = getattr(knobs.nvidia, tool).version
        pairs = sorted((name, str(value)) for name, value in settings.items())
        return Toolchain((("triton", triton_version), *pairs), compiler="")

    def spec(self) -> TritonSpec:
        """The spec of an op whose own body launches the kernel, all else by default."""
        return TritonSpec.of(None)

    def warm_up(self) -> None:
        """Triton's key hashes all of its code; a fork inherits it."""
        triton_key()

    @contextlib.contextmanager
    def intercept(
        self, on_launch: OnLaunch, overrides: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Report the launches of this thread; other threads launch as usual."""
        thread = threading.get_ident()
        launched, compiled_before = set[Any](), set[Any]()

        def run(
            original: Callable[..., Any],
            kernel: Any,
            *args: Any,
            grid: Any,
            warmup: bool,
            **keywords: Any,
        ) -> Any:
            if threading.get_ident() != thread:
                return original(kernel, *args, grid=grid, warmup=warmup, **keywords)
            launched.add(undecorated(kernel))
            chosen = overrides if is_chosen_for() else None
            bound = bind(kernel, args, keywords, chosen, is_launch=not warmup)
            if not warmup:
                on_launch(read_launch(bound, grid))
            return bound.returned

        def before(compiled: TritonKernel) -> Compiled:
            stand_in = recompiled(compiled)
            compiled_before.add(compiled.src.fn)
            take_out(compiled)
            return stand_in

        def again(original: Any, compiled: TritonKernel, grid: Any) -> Any:
            if threading.get_ident() != thread:
                return original(compiled, grid)
            return before(compiled)[grid]

        def again_low_level(original: Any, compiled: TritonKernel) -> Any:
            if threading.get_ident() != thread:
                return original.fget(compiled)
            return before(compiled).run

        def initialize(original: Any, compiled: TritonKernel) -> None:
            if threading.get_ident() != thread:
                original(compiled)

        def describe(original: Any, descriptor: TensorDescriptor) -> None:
            if threading.get_ident() != thread:
                original(descriptor)
            else:
                described(original, descriptor)

        # In the body of a torch.library.triton_op, wrap_triton is to call Triton.
        with (
            _recording,
            set_wrap_triton_enabled(False),
            answering_for_target(),
            contextlib.ExitStack() as stack,
        ):
            # Other autotuners derive from Triton's: TensorRT's takes their place, too.
            for cls in _deriving(JITFunction, Autotuner, Heuristics):
                _replace(stack, cls, "run", run)
            _replace(stack, TensorDescriptor, "__post_init__", describe)
            _replace(stack, TritonKernel, "__getitem__", again)
            _replace(stack, TritonKernel, "run", again_low_level)
            _replace(stack, TritonKernel, "_init_handles", initialize)
            stack.enter_context(cold())
            stack.callback(drop_compiled)
            yield
            if missing := compiled_before - launched:
                raise unsupported(
                    missing.pop().__name__,
                    "the launch function launches it after an earlier launch, and "
                    "something else the first time. Launch the same in both cases.",
                )

    def compile(
        self, program: Program, target: Target, options: Options, aligned: bool
    ) -> CompiledKernel:
        launch = program.launch
        assert launch.grid is not None, "a Triton launch has a grid"
        _require_known(target)
        signature = Signature(program, aligned)
        cluster = (dict(launch.options).get("num_ctas", 1), 1, 1)
        options = {**dict(launch.options), **options}
        assert options.get("num_ctas", 1) == cluster[0], "the grid was recorded for it"
        require_cluster(launch.name, cluster, target)
        if any(isinstance(a, Descriptor) for a in launch.arguments):
            require_maps(launch.name, target)
        compiled = _compile(signature, target, options)
        metadata = compiled.metadata
        for name, (harmless, why) in _REFUSED.items():
            value = getattr(metadata, name, harmless)
            if (value or harmless) != harmless:
                raise unlaunchable(launch.name, why.format(value))
        code = compiled.asm["ptx"]
        maps = signature.expand(code, metadata)
        # Triton's own parameters come last: scratch memory, and the profiler's.
        own = len(parameters(code)) - len(signature.slots)
        if metadata.global_scratch_size:
            if SCRATCH_ALIGNMENT % (alignment := metadata.global_scratch_align):
                raise unsupported(
                    launch.name,
                    f"its scratch memory is aligned to {alignment} bytes; an engine's "
                    f"is to {SCRATCH_ALIGNMENT}. Please report this, with the kernel.",
                )
            signature.add_scratch(metadata.global_scratch_size)
            own -= 1
        signature.slots += [Slot(Kind.UNUSED)] * own
        code, shared = signature.with_maps(code, maps)
        entry = parse(code)
        return CompiledKernel(
            code=code,
            slots=tuple(signature.slots),
            extras=tuple(signature.extras),
            grid=launch.grid,
            block=entry.block or (metadata.num_warps * 32, 1, 1),
            shared_memory=max(metadata.shared, shared),
            ptxas=get_ptxas(target.capability).path,
            facts=" ".join(signature.told),
            scratch=tuple(signature.scratch),
            cluster=cluster,
            names=tuple(signature.names),
        )

    @property
    def interpreter(self) -> Interpreter:
        """Triton's own, whose import takes longer than all that recording needs."""
        from .interpret import interpret

        return interpret


BACKEND = TritonBackend


def _deriving(*classes: type) -> list[type]:
    """The classes, and those that derive from them, with a ``run`` of their own."""
    found: list[Any] = list(classes)
    for cls in found:
        found += [c for c in cls.__subclasses__() if c not in found]
    return [cls for cls in found if "run" in vars(cls)]


def _replace(
    stack: contextlib.ExitStack, cls: Any, name: str, method: Callable[..., Any]
) -> None:
    """Put ``method``, which gets the original first, in its place."""
    original = vars(cls)[name]

    def replacement(*args: Any, **keywords: Any) -> Any:
        return method(original, *args, **keywords)

    is_property = isinstance(original, property)
    setattr(cls, name, property(replacement) if is_property else replacement)
    stack.callback(setattr, cls, name, original)


def _require_known(target: Target) -> None:
    known = _known_architectures(get_ptxas(target.capability).path)
    if target.arch not in known:
        raise TargetError(
            f"target {target.arch} is not one that this Triton compiles for. It knows "
            f"{', '.join(known)}."
        )
    oldest, asked = OLDEST_PTX.get(target.capability), target.ptx_version
    if asked is not None and (oldest is None or asked < oldest):
        since = "no version known here" if oldest is None else f"{oldest / 10}"
        raise TargetError(
            f"target {target.arch}: PTX ISA {target.ptx_isa} does not have it; "
            f"{since} is the oldest that does. A newer driver is needed."
        )


@cache
def _known_architectures(ptxas: str) -> tuple[str, ...]:
    text = output_of(ptxas, "--help")
    found = set(re.findall(r"'(sm_\d+[af]?)'", text))
    usable = {a for a in found if Target(a).capability >= 75}
    return tuple(sorted(usable, key=lambda a: (len(a.rstrip("af")), a)))


def _compile(signature: Signature, target: Target, options: dict[str, Any]) -> Any:
    launch, capability = signature.program.launch, target.capability
    newest = ptx_get_version(get_ptxas(capability).version)
    options["ptx_version"] = min(target.ptx_version or newest, newest)
    # Triton's JIT takes this default with a warning; this is the same default.
    options.setdefault("enable_fp_fusion", knobs.language.default_fp_fusion)
    names = launch.kernel.arg_names
    constants = {(names.index(k),): v for k, v in signature.constants.items()}
    source = ASTSource(launch.kernel, signature.types, constants, signature.hints)
    gpu = GPUTarget("cuda", capability, 32)
    try:
        if signature.stand_ins:
            require_same(signature, gpu, options)
        with _up_to_ptx():
            return triton_compile(source, target=gpu, options=options)
    except AnnotationError:
        raise
    except Exception as error:  # Triton raises whatever its passes raise
        known = {"ptx_version", "enable_fp_fusion"}
        values = {**signature.constants, **options}
        chosen = ", ".join(f"{n}={v}" for n, v in values.items() if n not in known)
        what = (
            f"kernel {launch.name}: Triton does not compile it for {target.arch}"
            f"{chosen and ' with '}{chosen}"
        )
        if isinstance(error, CompilationError):  # all of it is in the message
            raise CompileError(f"{what}{_explained(error, launch.kernel)}") from None
        raise CompileError(f"{what}: {reasons(error)}") from error


@contextlib.contextmanager
def _up_to_ptx() -> Iterator[None]:
    """Around a compilation on this thread: Triton does not assemble the PTX.

    That takes a seventh of the time, and the PTX is assembled anyway once TensorRT's
    parameters are in it. Triton asks its hook for a part of its cache's key first, so
    that nobody else finds what has no CUBIN. A Triton that does not ask assembles.
    """
    thread, has_key = threading.get_ident(), False
    users = getattr(knobs.runtime, "add_stages_inspection_hook", None)

    def hook(*asked: Any) -> Any:
        nonlocal has_key
        answer = users(*asked) if users else ("", "")
        if threading.get_ident() != thread:
            return answer
        if not asked:
            has_key = True
            return tuple(f"{part}-up-to-ptx" for part in answer)
        _, stages, *_ = asked
        if has_key and not knobs.compilation.dump_ir:  # a dump reads the CUBIN
            stages["cubin"] = lambda code, metadata: b""
        return answer

    knobs.runtime.add_stages_inspection_hook = hook
    try:
        yield
    finally:
        knobs.runtime.add_stages_inspection_hook = users


def _explained(error: CompilationError, kernel: Any) -> str:
    """Where a kernel is wrong, why, and the line of it.

    Triton raises an error for each function on the way to the culprit. The line is the
    innermost one of the user's own functions.
    """
    causes = chain(error)
    compiling = [e for e in causes if isinstance(e, CompilationError)]
    why = str(causes[-1])
    if isinstance(causes[-1], CompilationError):
        why = str(compiling[-1].error_message or compiling[-1])
    functions = [kernel, *kernel.fn.__globals__.values()]
    own = [f for f in functions if isinstance(f, JITFunction)]
    for culprit in reversed(compiling):
        function = next((f for f in own if f.src == culprit.src), None)
        row = getattr(culprit.node, "lineno", None)
        if function is not None and row is not None:
            lines = (line.lstrip() for line in function.raw_src)
            start = next(n for n, x in enumerate(lines) if x.startswith("def "))
            first = function.starting_line_number + start
            where = place(inspect.getsourcefile(function.fn) or "", first + row - 1)
            line, column = function.src.splitlines()[row - 1], culprit.node.col_offset
            hint = next((h for text, h in _HINTS.items() if text in why), "")
            return f", at {where}: {why}{hint}\n{line}\n{' ' * column}^"
    return f": {reasons(error)}"


# What to do about messages of Triton's that do not say it.
_HINTS = {
    "Expected dtype": ". Convert the value in the kernel: x.to(tl.float32)",
    "must be a power of 2": ". Choose one, and mask what is beyond the size",
}

# Metadata of what TensorRT's launch (grid, block, shared memory) leaves out: the value
# that is harmless, and what any other means.
_REFUSED = {
    "launch_cooperative_grid": (False, "it is a cooperative launch"),
    "launch_pdl": (False, "it is a programmatic dependent launch"),
    "clc": (False, "it uses cluster launch control"),
    "profile_scratch_size": (0, "it needs {} bytes of scratch memory to be profiled"),
}
