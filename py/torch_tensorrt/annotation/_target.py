# SPDX-License-Identifier: BSD-3-Clause

"""What to compile for: this machine's GPU, or one that is named."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import InitVar, dataclass, replace
from functools import cache
from importlib import metadata
from itertools import product

import torch

from . import _settings
from .errors import TargetError

_override: ContextVar[Target | None] = ContextVar("tta_target", default=None)

# CUDA version -> the newest PTX ISA its driver and assembler take ("Release Notes"
# table of the PTX ISA manual; ptxas 13.4 takes 9.4). Each row is a major version, from
# its minor version 0.
_PTX_ISA = {
    **{(12, n): f"8.{isa}" for n, isa in enumerate((0, 1, 2, 3, 4, 5, 5, 6, 7, 8))},
    **{(13, n): f"9.{n}" for n in range(5)},
}


# The oldest PTX ISA that has an architecture, from sm_90 on with the instructions that
# only it has ("Target", PTX ISA manual).
OLDEST_PTX = {
    75: 63, 80: 70, 86: 71, 87: 74, 89: 78, 90: 80,
    100: 86, 101: 86, 103: 88, 110: 90, 120: 87, 121: 88,
}  # fmt: skip

# Product -> its architecture and number of multiprocessors (NVIDIA's data sheets and
# architecture white papers), under a name as `_known_product` writes it.
_PRODUCTS: dict[str, tuple[str, int | None]] = {
    **{"T4": ("sm_75", 40), "A100": ("sm_80", 108), "A30": ("sm_80", 56)},
    **{"A10": ("sm_86", 72), "A10G": ("sm_86", 80), "A40": ("sm_86", 84)},
    **{"RTX A6000": ("sm_86", 84), "RTX 3090": ("sm_86", 82)},
    **{"L4": ("sm_89", 58), "L40": ("sm_89", 142), "L40S": ("sm_89", 142)},
    **{"RTX 6000 ADA": ("sm_89", 142), "RTX 4090": ("sm_89", 128)},
    **{"H100": ("sm_90", None), "H100 SXM": ("sm_90", 132)},
    **{"H100 PCIE": ("sm_90", 114), "H100 NVL": ("sm_90", 132)},
    **{"H200": ("sm_90", 132), "GH200": ("sm_90", 132)},
    **{"B200": ("sm_100", 148), "RTX 5090": ("sm_120", 170)},
}


# The shared memory that any launch gives a block, in bytes. CUDA gives more dynamic
# memory only to kernels with an attribute ("Technical Specifications per Compute
# Capability", CUDA C++ programming guide, which also says what a GPU has at most).
SHARED_MEMORY = 49152
# What static arrays may take, by compute capability: as much as ptxas 13.4 takes for
# the architecture-specific target. For other targets it takes 48 KiB, and ptxas 12
# takes 48 KiB for all. The driver of CUDA 13.0 loaded and launched as much for sm_90.
# Older drivers and other GPUs were not tried.
_STATIC_SHARED_MEMORY = {
    **dict.fromkeys((90, 100, 103, 110), 227 * 1024),
    **dict.fromkeys((120, 121), 99 * 1024),
}
STATIC_DRIVER = (13, 0)  # the oldest CUDA whose driver is known to load them


@dataclass(frozen=True)
class Target:
    """A GPU architecture, and the limits of its code.

    Args:
        arch: compute capability as ``nvcc`` writes it: ``"sm_90"``. A suffix, as in
            ``"sm_90a"``, asks for the architecture-specific instruction set; without
            it that set is used only where the kernel needs it.
        ptx_isa: newest PTX ISA the driver loads, as ``"8.5"`` ("Release Notes" of the
            PTX ISA manual). None: code is for the oldest driver that the installed
            TensorRT supports and that has the architecture.
        max_shared_memory: dynamic shared memory that TensorRT's launch gives a block,
            in bytes, for people who know more of it: a kernel then keeps its dynamic
            memory. None: 49152, which CUDA gives any launch; a kernel that asks for
            more gets it as a static array, up to :attr:`shared_memory`.
        sm_count: the number of multiprocessors, for launch functions that ask for it,
            as those of persistent kernels do; None where it is not known.
        name: what the driver calls the GPU, ``"NVIDIA H100 80GB HBM3"``, for launch
            functions that look configs up by it; None where it is not known.
        cuda: the driver's CUDA version, as ``nvidia-smi`` prints it: ``"13.0"``. It
            sets ``ptx_isa``.

    Raises:
        TargetError: a field is malformed.
    """

    arch: str
    ptx_isa: str | None = None
    max_shared_memory: int | None = None
    sm_count: int | None = None
    name: str | None = None
    cuda: InitVar[str | None] = None

    def __post_init__(self, cuda: str | None) -> None:
        if not re.fullmatch(r"sm_[0-9]{2,3}[af]?", str(self.arch)):
            raise TargetError(
                f"target {self.arch!r}: not an architecture. Write one as 'sm_90'. "
                f"Products that are known: {', '.join(_PRODUCTS)}."
            )
        if cuda is not None:
            known = re.fullmatch(r"([0-9]{1,2})\.([0-9]+)", str(cuda))
            if known is None or self.ptx_isa is not None:
                raise TargetError(
                    f"target {self.arch}: cuda is {cuda!r}, ptx_isa {self.ptx_isa!r}. "
                    "Name one of them: cuda='13.0', the driver's version as nvidia-smi "
                    "prints it, or ptx_isa='8.5'."
                )
            isa_of_driver = newest_ptx_isa((int(known[1]), int(known[2])))
            object.__setattr__(self, "ptx_isa", isa_of_driver)
        isa = self.ptx_isa
        if isa is not None and not re.fullmatch(r"[0-9]+\.[0-9]", str(isa)):
            raise TargetError(
                f"target {self.arch}: PTX ISA {self.ptx_isa!r} is not a version. "
                "Write it as '8.5'."
            )
        for name in ("max_shared_memory", "sm_count"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise TargetError(
                    f"target {self.arch}: {name} is {value!r}; it must be an int, and "
                    "above 0."
                )

    @property
    def capability(self) -> int:
        """Compute capability as one number, 90 for ``sm_90a``."""
        return int(self.arch.removeprefix("sm_").rstrip("af"))

    @property
    def most_shared_memory(self) -> int | None:
        """Bytes that a block's static arrays may take; None where no way is known."""
        return _STATIC_SHARED_MEMORY.get(self.capability)

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory that a block has in an engine."""
        if self.max_shared_memory is not None:
            return self.max_shared_memory
        isa = newest_ptx_isa(STATIC_DRIVER)
        if (self.ptx_version or 0) < int(isa.replace(".", "")):
            return SHARED_MEMORY
        return self.most_shared_memory or SHARED_MEMORY

    @property
    def least_ptx_isa(self) -> str:
        """The PTX ISA that every driver knows which may run an engine for it.

        It is the target's, or that of the oldest driver of the installed TensorRT.
        """
        of_tensorrt = newest_ptx_isa((_tensorrts_cuda(), 0))
        return min(self.ptx_isa or of_tensorrt, of_tensorrt, key=float)

    @property
    def ptx_version(self) -> int | None:
        """The PTX ISA as compilers take it, 85 for ``"8.5"``; None as ``ptx_isa``."""
        return None if self.ptx_isa is None else int(self.ptx_isa.replace(".", ""))

    @classmethod
    def parse(cls, text: str) -> Target:
        """A target from text, as ``TTA_TARGET`` holds it.

        Args:
            text: ``"sm_90"``, or with settings ``"sm_90,cuda=13.0"``; or a product,
                ``"H100 SXM"``, which also says ``sm_count``.

        Raises:
            TargetError: it cannot be read.
        """
        arch, *settings = (part.strip() for part in text.split(","))
        arch, sm_count = _known_product(arch) or (arch, None)
        target = cls(arch, sm_count=sm_count)
        for setting in settings:
            name, _, value = setting.partition("=")
            if name == "ptx_isa":
                target = replace(target, ptx_isa=value)
            elif name == "cuda":
                target = replace(target, cuda=value)
            elif name == "max_shared_memory" and value.isascii() and value.isdigit():
                target = replace(target, max_shared_memory=int(value))
            elif name == "sm_count" and value.isascii() and value.isdigit():
                target = replace(target, sm_count=int(value))
            elif name == "name" and value:
                target = replace(target, name=value)
            else:
                raise TargetError(
                    f"target {text!r}: cannot read {setting!r}. Known settings: "
                    "cuda=13.0, ptx_isa=8.5, max_shared_memory=49152, sm_count=132, "
                    "name=NVIDIA H100 80GB HBM3."
                )
        return target


def _known_product(name: str) -> tuple[str, int | None] | None:
    """Architecture and number of multiprocessors, of a name as people, or its driver,
    write it: ``NVIDIA H100 80GB HBM3``."""
    left_out = r"NVIDIA|GEFORCE|TESLA|\b(\d+GB|HBM\w*|GENERATION)\b|[-_]"
    name = " ".join(re.sub(left_out, " ", name.upper().replace("-", " ")).split())
    form = re.sub(r" (SXM\d?|PCIE)$", "", name)
    return _PRODUCTS.get(name) or _PRODUCTS.get(form)


def as_target(target: Target | str) -> Target:
    """A :class:`Target`, or the text of one."""
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        raise TargetError(f"target {target!r}: pass a Target, or text as 'sm_90'.")
    return Target.parse(target)


@contextlib.contextmanager
def compiling_for(target: Target | str | None) -> Iterator[None]:
    """Inside the block, :func:`current_target` is ``target`` (None changes nothing)."""
    token = _override.set(_override.get() if target is None else as_target(target))
    try:
        yield
    finally:
        _override.reset(token)


def current_target() -> Target:
    """The target in force: the block's, then ``TTA_TARGET``, then the current GPU.

    Raises:
        TargetError: there is none of these.
    """
    if (override := _override.get()) is not None:
        return _for_a_driver(override)
    if text := _settings.TARGET.text():
        return _for_a_driver(Target.parse(text))
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties()
        return Target(
            f"sm_{gpu.major}{gpu.minor}",
            ptx_isa=_driver_ptx_isa(),
            sm_count=gpu.multi_processor_count,
            name=gpu.name,
        )
    raise TargetError(
        "no target to compile for: there is no GPU here. Name one: "
        f"dry_run(..., target='sm_90'), or {_settings.TARGET.name}=sm_90 in the "
        "environment."
    )


def _for_a_driver(target: Target) -> Target:
    """The target with the PTX ISA of the oldest driver that may run its engines."""
    if target.ptx_isa is not None:
        return target
    oldest = newest_ptx_isa((_tensorrts_cuda(), 0))
    needed = OLDEST_PTX.get(target.capability, 0)
    isa = max(int(oldest.replace(".", "")), needed)
    return replace(target, ptx_isa=f"{isa // 10}.{isa % 10}")


@cache
def _tensorrts_cuda() -> int:
    """The CUDA major version of the installed TensorRT: drivers from its .0 run it."""
    for major, part in product((12, 13), ("", "-bindings", "-libs")):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(f"tensorrt-cu{major}{part}")
            return major
    return int((torch.version.cuda or "12").partition(".")[0])


def known_target() -> Target | None:
    """:func:`current_target`; None where there is none."""
    with contextlib.suppress(TargetError):
        return current_target()
    return None


def runs_here(target: Target) -> bool:
    """Whether this machine has a GPU that runs code for ``target``."""
    if not torch.cuda.is_available():
        return False
    major, minor = torch.cuda.get_device_capability()
    here = 10 * major + minor
    # A suffix ties code to one architecture (a), or to its family (f).
    oldest = {"a": here, "f": 10 * major}.get(target.arch[-1], 0)
    return oldest <= target.capability <= here


@cache
def _driver_ptx_isa() -> str:
    version = ctypes.c_int()
    if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
        raise TargetError("the CUDA driver does not say its version. Name a target.")
    return newest_ptx_isa((version.value // 1000, version.value % 1000 // 10))


def newest_ptx_isa(cuda: tuple[int, int]) -> str:
    """The newest PTX ISA that this version of CUDA is known to take.

    Raises:
        TargetError: it is too old.
    """
    if cuda < min(_PTX_ISA):
        raise TargetError(f"this is CUDA {cuda[0]}.{cuda[1]}; 12.0 or newer is needed.")
    return _PTX_ISA[max(pair for pair in _PTX_ISA if pair <= cuda)]


def version_of(ptx_isa: str) -> tuple[int, ...]:
    """A PTX ISA as numbers: ``(8, 5)`` of ``"8.5"``."""
    return tuple(map(int, ptx_isa.split(".")))


def oldest_driver(ptx_isa: tuple[int, ...]) -> str:
    """The oldest drivers that load code of a PTX ISA, as ``nvidia-smi`` names them."""
    for (major, minor), isa in _PTX_ISA.items():
        if version_of(isa) >= ptx_isa:
            return f"CUDA {major}.{minor}"
    return f"PTX ISA {ptx_isa[0]}.{ptx_isa[1]}"
