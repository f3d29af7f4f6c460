# SPDX-License-Identifier: BSD-3-Clause

"""The table of features in cuTile."""

from __future__ import annotations

import cuda.tile as ct
import torch

TILE = 128


@ct.kernel
def double_kernel(x, out):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    if x.dtype == ct.bool_:
        y = tile == False  # noqa: E712
    elif x.dtype == ct.float8_e4m3fn:
        y = ct.astype(ct.astype(tile, ct.float32) * 2, x.dtype)
    else:
        y = tile + tile
    ct.store(out, index=(ct.bid(0),), tile=y)


@ct.kernel
def weighted_kernel(x, weight, out):
    row = ct.load(x, index=(ct.bid(0), ct.bid(1)), shape=(1, 16))
    factor = ct.load(weight, index=(ct.bid(1),), shape=(16,))
    ct.store(out, index=(ct.bid(0), ct.bid(1)), tile=row * factor)


@ct.kernel
def affine_kernel(x, out, scale: ct.Constant[float], shift: ct.Constant[int]):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(out, index=(ct.bid(0),), tile=ct.astype(tile * scale + shift, x.dtype))


@ct.kernel
def two_kernel(x, total, negative):
    tile = ct.load(x, index=(ct.bid(0),), shape=(TILE,))
    ct.store(total, index=(ct.bid(0),), tile=tile + tile)
    ct.store(negative, index=(ct.bid(0),), tile=ct.astype(-tile, negative.dtype))


@ct.kernel
def biased_kernel(x, bias, out):
    row = ct.load(x, index=(ct.bid(0), ct.bid(1)), shape=(1, 16))
    more = ct.load(bias, index=(ct.bid(1),), shape=(16,))
    ct.store(out, index=(ct.bid(0), ct.bid(1)), tile=row + more)


@ct.kernel
def difference_kernel(a, b, out):
    index = ct.bid(0), ct.bid(1)
    tile = ct.load(a, index=index, shape=(1, 32)) - ct.load(
        b, index=index, shape=(1, 32)
    )
    ct.store(out, index=index, tile=tile)


def launch_flat(kernel, tensors, *constants):
    flat = [tensor.reshape(-1) for tensor in tensors]
    grid = (ct.cdiv(flat[0].shape[0], TILE),)
    ct.launch(torch.cuda.current_stream(), grid, kernel, (*flat, *constants))


def double(x, out):
    launch_flat(double_kernel, (x, out))


def weighted(x, weight, out):
    grid = (x.shape[0], ct.cdiv(x.shape[1], 16))
    ct.launch(torch.cuda.current_stream(), grid, weighted_kernel, (x, weight, out))


def biased(x, bias, out):
    """cuTile takes no None: another kernel is launched without the bias."""
    if bias is None:
        double(x, out)
    else:
        grid = (x.shape[0], ct.cdiv(x.shape[1], 16))
        ct.launch(torch.cuda.current_stream(), grid, biased_kernel, (x, bias, out))


def affine(x, out, scale, shift):
    launch_flat(affine_kernel, (x, out), scale, shift)


def two(x, total, negative):
    launch_flat(two_kernel, (x, total, negative))


def difference(a, b, out):
    grid = (out.shape[0], ct.cdiv(out.shape[1], 32))
    ct.launch(torch.cuda.current_stream(), grid, difference_kernel, (a, b, out))


def halves(x, out):
    difference(*x.chunk(2, -1), out)


def packed(x, out):
    difference(x[0], x[1], out)


def stacked(x, out):
    launch_flat(two_kernel, (x, out[0], out[1]))


def hidden(x, total):
    two(x, total, torch.empty_like(x, dtype=torch.float32))
