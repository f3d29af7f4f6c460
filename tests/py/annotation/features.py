# SPDX-License-Identifier: BSD-3-Clause

"""The table of features: rows in ``feature_references``, a module for each column.

A column has a launch function for each kind that the rows name; a cell is a row's
inputs, given to a column's launch function. Another row needs one entry there, and a
launch function here and there only if no kind of kernel does yet.
"""

from __future__ import annotations

import functools
from importlib import import_module

from feature_references import BACKENDS, FEATURES
from kernels import Case

import torch_tensorrt.annotation as tta

HEAD = """# What works in which language

Rendered from the tests, which compile every cell without a GPU and execute it on one: `TTA_REFRESH_GOLDEN=1 python -m pytest tests/py/test_feature_table.py`.
"""  # noqa: E501


def case(backend: str, name: str) -> Case:
    """One cell; the backend's language is imported here."""
    feature = FEATURES[name]
    launch = getattr(import_module(f"features_{backend}"), feature.launch)
    return Case(
        name,
        getattr(tta, backend)(
            launch, input_formats=feature.format, output_formats=feature.format
        ),
        feature.meta,
        feature.inputs,
        outputs=2 if feature.launch == "two" else 1,
        keywords=feature.keywords,
        arguments=feature.arguments,
    )


def cases(backend: str) -> list[Case]:
    """All cells of a column that are not refused."""
    return [
        case(backend, name)
        for name, feature in FEATURES.items()
        if backend not in feature.refused
    ]


cutile, cutedsl = (functools.partial(cases, name) for name in ("cutile", "cutedsl"))


def render() -> str:
    """The table, for the documentation."""
    lines = [
        "| | " + " | ".join(BACKENDS.values()) + " |",
        "|---" * (1 + len(BACKENDS)) + "|",
    ]
    for feature in FEATURES.values():
        cells = (
            f"refused: `{feature.refused[backend].error.__name__}`"
            if backend in feature.refused
            else "yes"
            for backend in BACKENDS
        )
        lines.append(f"| {feature.title} | " + " | ".join(cells) + " |")
    return HEAD + "\n" + "\n".join(lines) + "\n"
