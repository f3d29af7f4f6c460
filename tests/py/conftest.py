"""Fixtures for all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_tensorrt.annotation._plugin import registered

# What tests of several directories use: kernels, models, the recording network.
for name in ("annotation", "annotation/integration", "plugins"):
    sys.path.insert(0, str(Path(__file__).parent / name))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a kernel cache of its own."""
    folder = tmp_path / "kernel-cache"
    monkeypatch.setenv("TTA_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def unregister() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    while registered:
        _, op = registered.popitem()
        op.undo()
