# SPDX-License-Identifier: BSD-3-Clause

"""What a user's module may hold: the tests of fingerprints edit its text."""
# ruff: noqa

import enum
import functools
import math

import torch
import triton
import triton.language as tl

import torch_tensorrt.annotation as tta

SCALE: tl.constexpr = 2
LIMIT = 1024


class Mode(enum.Enum):
    FAST = 1


class Tile:
    BLOCK = 128


@triton.jit
def scaled(x, factor: tl.constexpr):
    return x * factor + 1


@triton.jit
def kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(out_ptr + offsets, scaled(x, SCALE), mask=offsets < n)


def blocks(n, BLOCK):
    return min(triton.cdiv(n, BLOCK), LIMIT)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **keywords):
        return function(*args, **{"BLOCK": 32, **keywords})

    return wrapper


def launch(x, out, BLOCK=256, *, mode=Mode.FAST):
    n = math.prod(x.shape)
    kernel[(blocks(n, BLOCK),)](x, out, n, BLOCK=BLOCK)


@decorated
def launch_decorated(x, out, BLOCK):
    launch(x, out, BLOCK)


def launch_tile(x, out):
    launch(x, out, Tile.BLOCK)


def make(block):
    @triton.jit
    def inner(x_ptr, out_ptr, BLOCK: tl.constexpr):
        offsets = tl.arange(0, BLOCK)
        tl.store(out_ptr + offsets, tl.load(x_ptr + offsets) + block)

    def launch(x, out):
        inner[(1,)](x, out, BLOCK=block)

    return launch


add, multiply = (lambda x, out: out.add_(1)), (lambda x, out: out.mul_(2))
meta = lambda x: x.new_empty(x.shape)
in_a_set = lambda x: torch.empty_like(x) if x.layout in {"a", "b", "c", "d"} else x
exec("def typed_in(x, out): return x + 1")

weight = torch.arange(6.0).reshape(2, 3)


def specs():
    return {
        "function": tta.triton(launch, [{"BLOCK": 64, "num_warps": 8}]),
        "decorated": tta.triton(launch_decorated),
        "class": tta.triton(launch_tile),
        "closure": tta.triton(make(16)),
        "lambda": tta.triton(add),
        "partial": tta.triton(functools.partial(launch, BLOCK=64)),
        "source-less": tta.triton(typed_in),
        "set": tta.custom_plugin(tta.triton(launch), meta_impl=in_a_set),
        "plugin": tta.custom_plugin(
            tta.triton(launch), meta, alpha=0.5, mode="fast", weight=weight
        ),
    }
