"""Fixtures for the tests of torch_tensorrt.annotation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from torch_tensorrt.annotation._registry import registered


@pytest.fixture(autouse=True)
def unregister() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    while registered:
        _, op = registered.popitem()
        op.undo()
