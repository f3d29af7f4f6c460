# SPDX-License-Identifier: BSD-3-Clause

"""Build an environment from a wheelhouse, beside this interpreter's packages.

    python tools/offline/environment.py WHEELHOUSE DIR

Nothing is downloaded. DIR becomes a virtual environment that sees torch and triton of
this interpreter, the wheelhouse's packages, and this project where it lies.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engineless"))
import install as engineless

_OVERLAY = engineless.PROJECT / "overlay"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheelhouse", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    wheels = sorted(map(str, options.wheelhouse.glob("*.whl")))
    if not wheels:
        raise SystemExit(f"{options.wheelhouse} holds no wheel; make one elsewhere.")
    engineless.check_compiler()
    venv.create(options.directory, system_site_packages=True, symlinks=True)
    site = engineless.site_packages(options.directory)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
    command += ["--no-compile", "--target", str(site), "-qq", *wheels]
    subprocess.run(command, check=True)
    engineless.complete_site(site)
    # This interpreter may be a virtual environment itself; and what an install of the
    # project would leave: the overlay's registration at start-up.
    (site / "_outer_environment.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    (site / "_torch_tensorrt_annotation.pth").write_text(
        f"{_OVERLAY}\nimport _torch_tensorrt_annotation as o; o.register()\n"
    )
    print(f"{options.directory}: {engineless.SENTENCE}")


if __name__ == "__main__":
    main()
