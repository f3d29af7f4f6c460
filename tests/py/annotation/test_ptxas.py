# SPDX-License-Identifier: BSD-3-Clause

"""Which ``ptxas`` there are, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tensorrt.annotation._code.ptxas import ptxas_versions


def test_a_ptxas_right_in_a_folder_of_sys_path_has_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a PYTHONPATH that names CUDA's ``bin``."""
    program = tmp_path / "ptxas"
    program.write_text("#!/bin/sh\necho 'compilation tools, release 12.8, V12.8.93'\n")
    program.chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "none"))
    assert "CUDA 12.8" in str(ptxas_versions.__wrapped__())
