# SPDX-License-Identifier: BSD-3-Clause

"""Ops that torch has for the length of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.dynamo.conversion.plugins import _qdp


@contextmanager
def torch_op(
    schema: str, fake: Callable[..., Any], namespace: str = "gen"
) -> Iterator[str]:
    """A torch op of this schema while entered; what was made of it is removed.

    The fake kernel is of the overload that the schema names.
    """
    library = torch.library.Library(namespace, "FRAGMENT")
    library.define(schema)
    overload = f"{namespace}::{schema.partition('(')[0]}"
    torch.library.register_fake(overload, fake, lib=library)
    op = overload.partition(".")[0]
    try:
        yield op
    finally:
        if (known := registered.pop(op, None)) is not None:
            known.undo()
        _qdp.forget(op)
        library._destroy()
