# SPDX-License-Identifier: BSD-3-Clause

"""Kernels of torch, CuPy and ``cuda.core``, while a function is recorded.

Each library compiles a kernel for the GPU of the machine, and keeps no source of what
it compiled. So its functions that compile are replaced: what they return keeps the
source, and reports its launches. CuPy's kernels keep their source themselves, and are
replaced where the user's code holds them.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import cached_property
from pathlib import Path
from types import CellType, ModuleType, SimpleNamespace
from typing import Any, NoReturn
from weakref import WeakSet

import torch
import torch.cuda._utils as torch_utils

from ..._fingerprint import is_versioned
from ..._record.device import Properties, capability
from ..._record.recording import refuse, users_line
from ..._record.tables import drop
from ...errors import ArgumentError, UnsupportedKernelError
from ..abi import unlaunchable
from . import scalars
from .kernel import Code, CUDAKernel
from .launch import Call, is_catching, launched

_LIBRARIES = ("cupy", "cuda.core", "cuda.core.experimental")
_lock = threading.RLock()
_made: WeakSet[Any] = WeakSet()  # by recordings


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """While entered, kernels of this thread's that the libraries make are reported."""
    with _lock, contextlib.ExitStack() as stack:
        stand_ins: dict[int, Any] = {}
        for members in (_torch(), _cupy(), _cuda_core()):
            for owner, name, new in members:
                stand_ins[id(getattr(owner, name))] = new
                stack.enter_context(_replaced(owner, name, new))
        for holder, key, new in [*_held_by_users(stand_ins), *_kernels_of_cupy()]:
            stack.callback(holder.__setitem__, key, holder[key])
            holder[key] = new
        try:
            yield
        finally:
            drop(_made)  # cuda.core launches nothing but its own


@contextlib.contextmanager
def _replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _held_by_users(
    stand_ins: dict[int, Any],
) -> Iterator[tuple[MutableMapping[str, Any], str, Any]]:
    """Names in the user's modules that mean something replaced.

    Numbers with a size are replaced only beside kernels: other code may rely on what
    the types are.
    """
    numbers = {id(original): new for original, new in scalars.stand_ins()}
    libraries = {*stand_ins, *map(id, filter(None, map(sys.modules.get, _LIBRARIES)))}
    for full_name, module in tuple(sys.modules.items()):
        if not isinstance(module, ModuleType) or is_versioned(full_name):
            continue
        names = ModuleType.__getattribute__(module, "__dict__")
        values = tuple(names.items())
        has_kernels = any(
            id(value) in libraries or type(value) is CUDAKernel for _, value in values
        )
        known = {**numbers, **stand_ins} if has_kernels else stand_ins
        for name, value in values:
            if id(value) in known:
                yield names, name, known[id(value)]


class _Kernel:
    """A kernel of a library's, with its source.

    Outside of a recording it is the library's own, where the user's code holds it.
    """

    library = ""

    def __init__(self, code: Code, original: Callable[[], Any]) -> None:
        """
        Args:
            original: makes what stands for it outside of a recording.
        """
        self._code, self._make = code, original
        _made.add(self)

    @cached_property
    def _original(self) -> Any:
        return self._make()

    def _launch(self, grid: Any, block: Any, args: Any, shared_memory: Any) -> bool:
        """Report a launch, where this thread records; whether it does."""
        args = tuple(args or ())
        return launched(
            Call(self._code, grid, block, args, shared_memory, library=self.library)
        )

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


def _forget(*classes: type) -> None:
    """Remove what was compiled before from the tables that keep it.

    A cached function of the user's would give it back, and it has no source. It is
    compiled again where it is needed.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        drop([each for each in gc.get_objects() if type(each) in classes])


def _refuse_compiled(kernel: str, library: str) -> NoReturn:
    refuse(
        ArgumentError(
            f"kernel {kernel}: launched at {users_line()}, it was compiled by "
            f"{library} before the recording, for the GPU of that moment, and its "
            "source is not known any more. Compile it within the launch function, or "
            "make it tta.CUDAKernel(source, name), which is called as kernel(grid, "
            "block, args)."
        )
    )


# --- torch.cuda._compile_kernel -------------------------------------------------------


class _TorchKernel(_Kernel):
    """What ``torch.cuda._compile_kernel`` returns."""

    library = "torch"

    def __call__(
        self,
        grid: Any = (1, 1, 1),
        block: Any = (1, 1, 1),
        args: Sequence[Any] | None = None,
        shared_mem: Any = 0,
        stream: Any = None,
    ) -> None:
        if not self._launch(grid, block, args, shared_mem):
            self._original(grid, block, args, shared_mem, stream)

    def set_shared_memory_config(self, shared_mem_bytes: int) -> None:
        """An engine gets as much as a launch asks for."""
        if not is_catching():
            self._original.set_shared_memory_config(shared_mem_bytes)


def _torch() -> Iterator[tuple[Any, str, Any]]:
    """What is replaced of torch: an owner, a name, and what stands for it."""
    kernels = torch_utils._CudaKernel
    _forget(kernels)
    for name in ("_compile_kernel", "compile_kernel"):
        if (original := getattr(torch.cuda, name, None)) is not None:
            yield torch.cuda, name, _compiling(original)
    call = kernels.__call__

    def again(kernel: Any, *args: Any, **keywords: Any) -> Any:
        if is_catching():
            _refuse_compiled("of torch.cuda._compile_kernel", "torch")
        return call(kernel, *args, **keywords)

    yield kernels, "__call__", again


def _compiling(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def compile_kernel(*args: Any, **keywords: Any) -> Any:
        if not is_catching():
            return original(*args, **keywords)
        bound = signature.bind(*args, **keywords)
        bound.apply_defaults()
        given = dict(bound.arguments)
        text, name = given.pop("kernel_source"), given.pop("kernel_name")
        options = [*(given.pop("nvcc_options") or ()), *_flags_of_torch()]
        if (architecture := given.pop("compute_capability")) is not None:
            options.append(f"-arch=sm_{architecture}")
        code = Code.of(text, name, options, given.pop("cuda_include_dirs") or ())
        if others := [key for key, value in given.items() if value]:
            why = f"compiled with {', '.join(others)}, which is not known here"
            refuse(ArgumentError(f"kernel {name}: {why}. Put it into the source."))
        return _TorchKernel(code, lambda: original(*args, **keywords))

    return compile_kernel


def _flags_of_torch() -> list[str]:
    """What torch adds to the options that a kernel is given."""
    names = ("_get_gpu_rtc_compatible_flags", "_get_nvrtc_compatible_flags")
    functions = (getattr(torch_utils, name, None) for name in names)
    return list(next(known for known in functions if known)())


# --- CuPy -----------------------------------------------------------------------------

# What CuPy adds to the options that a kernel is given.
_CUPYS = ("-ftz=true", "--device-as-default-execution-space")


class _CuPyKernel(_Kernel):
    """A ``cupy.RawKernel``, or a function of a ``RawModule``."""

    library = "CuPy"
    max_dynamic_shared_size_bytes = 0  # an engine gets what a launch asks for

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: Any = 0
    ) -> None:
        if not self._launch(grid, block, args, shared_mem):
            self._original(grid, block, args, shared_mem=shared_mem)

    def compile(self, log_stream: Any = None) -> None:
        """It is compiled for the target, and later."""


class _CuPyModule:
    """A ``cupy.RawModule``."""

    def __init__(self, make: Callable[..., Any], options: dict[str, Any]) -> None:
        self._make, self._options = make, options

    def get_function(self, name: str) -> _CuPyKernel:
        """A kernel of it."""
        options = self._options
        code = _code_of_cupy(name, **{k: v for k, v in options.items() if k in _READ})
        return _CuPyKernel(code, lambda: self._make(**options).get_function(name))

    def compile(self, log_stream: Any = None) -> None:
        """It is compiled for the target, and later."""

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


_READ = ("code", "path", "options", "backend", "enable_cooperative_groups", "jitify")


def _code_of_cupy(
    name: str,
    code: str | None = None,
    path: str | None = None,
    options: Sequence[str] = (),
    backend: str = "nvrtc",
    enable_cooperative_groups: bool = False,
    jitify: bool = False,
) -> Code:
    asks = {
        "backend='nvcc'": backend != "nvrtc",
        "jitify=True": jitify,
        "a CUBIN": path is not None and not str(path).endswith(".ptx"),
    }
    for what, is_asked in asks.items():
        if is_asked:
            why = f"it is made with {what}. Make it of CUDA C++ with NVRTC, or of PTX."
            refuse(UnsupportedKernelError(f"kernel {name}: {why}"))
    if enable_cooperative_groups:
        refuse(unlaunchable(name, "it is launched cooperatively"))
    if path is not None:
        return Code(Path(path).read_text(), name, is_ptx=True)
    return Code.of(code or "", name, [*options, *_CUPYS])


class _CuPyStream(contextlib.nullcontext[None]):
    """A ``cupy.cuda.Stream``, or ``ExternalStream``, on which nothing runs."""

    ptr = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @staticmethod
    def from_external(_: Any) -> _CuPyStream:
        """One of torch's."""
        return _CuPyStream()

    def synchronize(self) -> None:
        """Nothing runs."""

    def use(self) -> _CuPyStream:
        """Nothing runs."""
        return self


class Array:
    """A CuPy array that shares a tensor's memory.

    Attributes:
        tta_tensor: that tensor.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tta_tensor = tensor

    @property
    def data(self) -> Any:
        """With the address, as ``.ptr``."""
        return SimpleNamespace(ptr=self.tta_tensor.data_ptr())

    @property
    def size(self) -> Any:
        """The number of its elements."""
        return self.tta_tensor.numel()

    @property
    def shape(self) -> Any:
        """The tensor's."""
        return self.tta_tensor.shape

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return self.tta_tensor.dim()

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.tta_tensor.element_size()


def _cupy() -> Iterator[tuple[Any, str, Any]]:
    """What is replaced of CuPy, where it is imported."""
    if (cupy := sys.modules.get("cupy")) is None:
        return
    kernel, module = cupy.RawKernel, cupy.RawModule

    def raw_kernel(
        code: str, name: str, options: Any = (), *args: Any, **keywords: Any
    ) -> Any:
        def make() -> Any:
            return kernel(code, name, options, *args, **keywords)

        if not is_catching():
            return make()
        read = {k: v for k, v in keywords.items() if k in _READ}
        if args:
            read["backend"] = args[0]
        return _CuPyKernel(
            _code_of_cupy(name, code=code, options=options, **read), make
        )

    def raw_module(**options: Any) -> Any:
        return _CuPyModule(module, options) if is_catching() else module(**options)

    def shared(original: Callable[..., Any]) -> Callable[..., Any]:
        def convert(value: Any, *args: Any, **keywords: Any) -> Any:
            if is_catching() and isinstance(value, torch.Tensor):
                return Array(value)
            return original(value, *args, **keywords)

        return convert

    yield cupy, "RawKernel", raw_kernel
    yield cupy, "RawModule", raw_module
    yield cupy, "asarray", shared(cupy.asarray)
    yield cupy, "from_dlpack", shared(cupy.from_dlpack)
    for name in ("Stream", "ExternalStream"):
        original = getattr(cupy.cuda, name)
        yield cupy.cuda, name, _in_recordings(original, _CuPyStream)


def _kernels_of_cupy() -> Iterator[tuple[Any, Any, Any]]:
    """Where the user's code holds kernels of CuPy's; with what stands for them."""
    if (cupy := sys.modules.get("cupy")) is None:
        return
    raw = sys.modules["cupy._core.raw"]
    for value in [
        v for v in gc.get_objects() if type(v) in (raw.RawKernel, raw.RawModule)
    ]:
        stand_in = _standing_for(cupy, value)
        for holder in gc.get_referrers(value):
            if type(holder) is dict:
                for key in [key for key, held in holder.items() if held is value]:
                    yield holder, key, stand_in
            elif type(holder) is CellType:
                yield _Cell(holder), 0, stand_in


class _Cell:
    """A variable of a closure, as a table."""

    def __init__(self, cell: CellType) -> None:
        self._cell = cell

    def __getitem__(self, key: int) -> Any:
        return self._cell.cell_contents

    def __setitem__(self, key: int, value: Any) -> None:
        self._cell.cell_contents = value


def _standing_for(cupy: ModuleType, value: Any) -> Any:
    """A call of CuPy's kernel, or module, that is made when it is used."""
    names = ("code", "options", "backend", "enable_cooperative_groups")
    read = {name: getattr(value, name) for name in names}
    read["path"] = value.file_path
    if hasattr(value, "get_function"):
        return _CuPyModule(lambda **_: value, read)
    return _CuPyKernel(_code_of_cupy(value.name, **read), lambda: value)


# --- cuda.core ------------------------------------------------------------------------


class _CoreKernel(_Kernel):
    """A ``cuda.core.Kernel``."""

    library = "cuda.core"

    def launch(self, config: Any, args: Sequence[Any]) -> None:
        """What ``cuda.core.launch`` does with it."""
        name = self._code.base
        for asks in ("is_cooperative", "programmatic_stream_serialization"):
            if getattr(config, asks, False):
                refuse(unlaunchable(name, f"it is launched with {asks}"))
        cluster = config.cluster or (1, 1, 1)
        call = Call(
            self._code,
            config.grid,
            config.block,
            args,
            config.shmem_size or 0,
            cluster,
            self.library,
        )
        (x, y, z), _, (cx, cy, cz) = call.sizes
        # Its grid is in clusters.
        if not launched(Call(**{**vars(call), "grid": (x * cx, y * cy, z * cz)})):
            refuse(
                ArgumentError(
                    f"kernel {name}: made while its launch function was recorded, and "
                    "launched outside. Make it anew."
                )
            )


_Capability = namedtuple("_Capability", "major minor")


class _Device:
    """A ``cuda.core.Device``: the target."""

    def __init__(self, device_id: Any = None) -> None:
        self.device_id = 0

    @property
    def compute_capability(self) -> Any:
        """The target's."""
        return _Capability(*capability())

    @property
    def arch(self) -> str:
        """The target's, as ``"90"``."""
        return "".join(map(str, capability()))

    @property
    def name(self) -> str:
        """The target's."""
        return str(Properties().name)

    @property
    def properties(self) -> Any:
        """Those of the target."""
        return _Properties()

    def set_current(self, *_: Any) -> None:
        """Nothing runs."""

    def sync(self) -> None:
        """Nothing runs."""

    def create_stream(self, *_: Any, **__: Any) -> Any:
        """A stream that nothing runs on."""
        return _Stream()

    default_stream = property(create_stream)


class _Properties:
    """What ``Device.properties`` has, by torch's names and by those of its own."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(Properties(), _TORCHS.get(name, name))


_TORCHS = {
    "multiprocessor_count": "multi_processor_count",
    "max_shared_memory_per_block": "shared_memory_per_block",
    "max_shared_memory_per_block_optin": "shared_memory_per_block_optin",
    "max_threads_per_multiprocessor": "max_threads_per_multi_processor",
    "max_registers_per_multiprocessor": "regs_per_multiprocessor",
}


class _Stream:
    """A ``cuda.core.Stream``."""

    handle = 0

    @staticmethod
    def from_handle(_: Any) -> _Stream:
        """A stream that nothing runs on."""
        return _Stream()

    def sync(self) -> None:
        """Nothing runs."""


class _Program:
    """A ``cuda.core.Program``."""

    def __init__(self, code: Any, code_type: str, options: Any = None) -> None:
        self._text = code.decode() if isinstance(code, bytes) else str(code)
        self._kind = str(code_type).lower()
        self._options = [] if options is None else _as_nvrtc(options)
        if self._kind not in ("c++", "ptx"):
            why = "Write it in CUDA C++, or pass PTX."
            what = f"cuda.core.Program of {code_type} at {users_line()}"
            refuse(UnsupportedKernelError(f"{what}: an engine has PTX. {why}"))

    def compile(self, *_: Any, **__: Any) -> _ObjectCode:
        """The code, which is compiled for the target, and later."""
        return _ObjectCode(self._text, self._options, self._kind == "ptx")

    def close(self) -> None:
        """Nothing is held."""


class _ObjectCode:
    """A ``cuda.core.ObjectCode``."""

    def __init__(self, text: str, options: Sequence[str], is_ptx: bool) -> None:
        self._text, self._options, self._is_ptx = text, options, is_ptx
        _made.add(self)

    @staticmethod
    def from_ptx(module: Any, **_: Any) -> _ObjectCode:
        """Ready PTX: its text as bytes, or a path."""
        text = (
            module.decode() if isinstance(module, bytes) else Path(module).read_text()
        )
        return _ObjectCode(text.rstrip("\0"), (), True)

    def get_kernel(self, name: Any) -> _CoreKernel:
        """A kernel of it."""
        name = name.decode() if isinstance(name, bytes) else name
        if self._is_ptx:
            code = Code(self._text, name, is_ptx=True)
        else:
            code = Code.of(self._text, name, self._options)
        return _CoreKernel(code, lambda: None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        what = f"`{name}` of a cuda.core.ObjectCode at {users_line()}"
        why = "It is compiled for the target, and later. Use get_kernel(name)."
        refuse(ArgumentError(f"{what} is not known while recording. {why}"))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What a launch function keeps: its source stands for it."""
        return ()


def _as_nvrtc(options: Any) -> list[str]:
    """NVRTC's options of a ``ProgramOptions``."""
    return [option.decode() for option in options.as_bytes("nvrtc")]


def _cuda_core() -> Iterator[tuple[Any, str, Any]]:
    """What is replaced of ``cuda.core``, where it is imported."""
    for module in map(sys.modules.get, _LIBRARIES[1:]):
        if module is None:
            continue
        _forget(module.Kernel, module.ObjectCode)
        for name, stand_in in (
            ("Device", _Device),
            ("Program", _Program),
            ("ObjectCode", _ObjectCode),
            ("Stream", _Stream),
        ):
            yield module, name, _in_recordings(getattr(module, name), stand_in)
        yield module, "ProgramOptions", _options(module.ProgramOptions)
        yield module, "LaunchConfig", _in_recordings(module.LaunchConfig, _config)
        yield module, "launch", _launching(module.launch)


def _in_recordings(original: Any, stand_in: Any) -> Any:
    """``stand_in`` while this thread records, the original otherwise."""

    class Either(type):
        def __call__(cls, *args: Any, **keywords: Any) -> Any:
            return (stand_in if is_catching() else original)(*args, **keywords)

        def __getattr__(cls, name: str) -> Any:
            is_known = is_catching() and hasattr(stand_in, name)
            return getattr(stand_in if is_known else original, name)

        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, original) or type(value) is stand_in

    return Either(original.__name__, (), {})


def _config(
    grid: Any = None,
    cluster: Any = None,
    block: Any = None,
    shmem_size: Any = None,
    **asks: Any,
) -> Any:
    return SimpleNamespace(
        grid=grid, cluster=cluster, block=block, shmem_size=shmem_size, **asks
    )


def _options(original: Any) -> Callable[..., Any]:
    def options(*args: Any, **keywords: Any) -> Any:
        if is_catching() and len(args) < 2 and keywords.get("arch") is None:
            keywords["arch"] = f"sm_{_Device().arch}"
        return original(*args, **keywords)

    return options


def _launching(original: Callable[..., Any]) -> Callable[..., Any]:
    def launch(stream: Any, config: Any, kernel: Any, *args: Any) -> None:
        if isinstance(kernel, _CoreKernel):
            kernel.launch(config, args)
        elif is_catching():
            _refuse_compiled("of cuda.core", "cuda.core")
        else:
            original(stream, config, kernel, *args)

    return launch
