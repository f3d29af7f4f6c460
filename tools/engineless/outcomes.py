# SPDX-License-Identifier: BSD-3-Clause

"""Run pytest, with or without this project's overlay, and say how each test ended.

    python tools/engineless/outcomes.py FILE with|without PYTEST-ARGUMENT ...

A line of FILE is a test, or a module that could not be collected, with its outcome and,
if that is an error, its type. The first line says which plugins package was imported. A
process that crashes has written what went before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

import pytest

PACKAGE = "torch_tensorrt.dynamo.conversion.plugins"


class Outcomes:
    """A plugin of pytest's that writes reports."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, *values: Any) -> None:
        print(json.dumps(values), file=self.file, flush=True)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(report.nodeid, "not collected", str(report.longrepr))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            error = crash.message.partition(":")[0] if crash else ""
            outcome = report.outcome if report.when == "call" else "error"
            self.write(report.nodeid, "skipped" if report.skipped else outcome, error)


def main() -> None:
    path, overlay, *arguments = sys.argv[1:]
    sys.path.pop(0)  # of this file, where tensorrt_libs has no libraries
    if overlay == "without":
        hooks = [f for f in sys.meta_path if type(f).__name__ != "OverlayFinder"]
        sys.meta_path[:] = hooks
    with Path(path).open("w") as file:
        outcomes = Outcomes(file)
        outcomes.write(__import__(PACKAGE, fromlist=["custom_op"]).__file__)
        raise SystemExit(pytest.main(arguments, plugins=[outcomes]))


if __name__ == "__main__":
    main()
