# SPDX-License-Identifier: BSD-3-Clause

"""Warnings of the package, which go to its logger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch_tensorrt.annotation import errors


@contextmanager
def warned(match: str) -> Iterator[list[str]]:
    """Inside, some warning matches."""
    with errors.collecting() as messages:
        yield messages
    assert any(re.search(match, message) for message in messages), messages


@contextmanager
def not_warned() -> Iterator[None]:
    """Inside, nothing is warned of."""
    with errors.collecting() as messages:
        yield
    assert messages == []
