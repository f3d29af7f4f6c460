# SPDX-License-Identifier: BSD-3-Clause

"""The documentation's table of features is that of the tests."""

from __future__ import annotations

import os
from pathlib import Path

from features import render

DOCUMENT = Path(__file__).resolve().parents[2] / "docsrc" / "features.md"


def test_the_page_is_of_the_table() -> None:
    if os.environ.get("TTA_REFRESH_GOLDEN"):
        DOCUMENT.write_text(render())
    assert DOCUMENT.read_text() == render()
