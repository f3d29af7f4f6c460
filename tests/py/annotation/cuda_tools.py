# SPDX-License-Identifier: BSD-3-Clause

"""What tests of CUDA C++ share."""

from __future__ import annotations

import pytest

from torch_tensorrt.annotation.backends import backend

needs_nvrtc = pytest.mark.skipif(
    backend("cuda").toolchain().compiler is None, reason="NVRTC is not installed"
)
