# SPDX-License-Identifier: BSD-3-Clause

"""``TensorDescriptor`` arguments: how they are recorded, and what a kernel takes.

Triton compiles a descriptor to a tensor map, and the extents and strides again as
numbers; for GPUs without a tensor memory accelerator, to a pointer in the map's place.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sympy
import torch
import triton
from triton.backends.nvidia.driver import make_tensordesc_arg
from triton.tools.tensor_descriptor import TensorDescriptor

from ..._code.tensor_maps import Size, TensorMap
from ..._record import recording
from ..._record.program import CaughtDescriptor, Descriptor
from .. import Target
from ..abi import unsupported

_DEFAULTS = {"padding": "zero", "round_f32_to_tf32": False}  # of options, by name
_FILLS = {"zero": 0, "nan": 1}
_TF32 = 11  # of `.elemtype`
# Triton copies to `.shared::cta` with bulk tensor copies: "cp.async.bulk.tensor", PTX
# ISA manual. GPUs before this one get pointers.
_FIRST_ISA, _FIRST_GPU = 86, 90
_MADE_AT = "_tta_made_at"
_FOLDER = f"{Path(triton.__file__).parent}{os.sep}"
# Neither Triton nor the generated methods of a dataclass are the user's code.
users_line = partial(recording.users_line, (_FOLDER, "<string>"))


def described(original: Callable[[Any], None], descriptor: TensorDescriptor) -> None:
    """In place of ``TensorDescriptor.__post_init__`` while a function is recorded.

    Triton asserts what a tensor map needs. Of a symbolic size that would be a branch:
    the launch asks whether it holds at every shape, and knows the argument's name.
    """
    setattr(descriptor, _MADE_AT, users_line())
    sizes = (*descriptor.shape, *descriptor.strides)
    if not any(isinstance(size, torch.SymInt) for size in sizes):
        original(descriptor)


def caught(
    descriptor: TensorDescriptor, as_tensor: Callable[[Any], Any]
) -> CaughtDescriptor | TensorDescriptor:
    """A descriptor as it is recorded.

    Args:
        as_tensor: gives the tensor behind what stands for one.
    """
    tensor = as_tensor(descriptor.base)
    if not isinstance(tensor, torch.Tensor):
        return descriptor
    given = {name: getattr(descriptor, name, d) for name, d in _DEFAULTS.items()}
    return CaughtDescriptor(
        tensor,
        tuple(descriptor.shape),
        tuple(descriptor.strides),
        tuple(descriptor.block_shape),
        tuple((n, given[n]) for n in sorted(given) if given[n] != _DEFAULTS[n]),
        getattr(descriptor, _MADE_AT, ""),
    )


def decomposed(descriptor: Descriptor) -> list[sympy.Basic]:
    """What follows the address where a kernel takes no map: sizes and flags."""
    argument = SimpleNamespace(
        base=descriptor,
        shape=descriptor.shape,
        strides=descriptor.strides,
        **_options(descriptor),
    )
    others = len(inspect.signature(make_tensordesc_arg).parameters) - 1
    address, *rest = make_tensordesc_arg(argument, *[None] * others)
    assert address is descriptor, "Triton passes the address first"
    return [sympy.Integer(int(r)) if isinstance(r, bool) else r for r in rest]


def _options(descriptor: Descriptor) -> dict[str, Any]:
    return _DEFAULTS | dict(descriptor.options)


def require_maps(kernel: str, target: Target) -> None:
    """Raise where Triton does not compile descriptors for the target's driver.

    Raises:
        UnsupportedKernelError: it takes too old a PTX ISA.
    """
    isa = target.ptx_version
    if target.capability >= _FIRST_GPU and isa is not None and isa < _FIRST_ISA:
        raise unsupported(
            kernel,
            f"it takes tensor descriptors, which need PTX ISA {_FIRST_ISA / 10}; the "
            f"target's driver takes {target.ptx_isa}. Name a newer one, or use "
            "pointers.",
        )


def tensor_map(
    kernel: str,
    descriptor: Descriptor,
    meta: Mapping[str, Any],
    size: Callable[[sympy.Basic], Size],
) -> TensorMap:
    """What the driver would be asked to make of a descriptor.

    Args:
        meta: what Triton's compiler says of it.
        size: gives an extent or stride in a kernel.

    Raises:
        UnsupportedKernelError: it is of a kind that is not understood.
    """
    item_size = descriptor.dtype.itemsize
    if meta["fp4_padded"] or meta.get("is_im2col") or meta["elem_size"] != item_size:
        raise unsupported(
            kernel,
            f"argument `{descriptor.name}` is a tensor descriptor of a kind that an "
            f"entry does not make ({dict(meta)}). Make it in the kernel, with "
            "tl.make_tensor_descriptor, or use pointers.",
        )
    options = _options(descriptor)
    *outer, _ = descriptor.strides
    return TensorMap(
        extents=tuple(map(size, reversed(descriptor.shape))),
        strides=tuple(map(size, reversed(outer))),
        box=tuple(reversed(meta["block_size"])),
        item_size=item_size,
        element_type=_TF32 if options["round_f32_to_tf32"] else meta["elem_type"],
        swizzle=meta["swizzle"],
        fill=_FILLS[options["padding"]],
    )
