# SPDX-License-Identifier: BSD-3-Clause

"""Adds the overlay's files to what pyproject.toml declares.

The wheel gets, beside the module `_torch_tensorrt_annotation`:
- `torch_tensorrt_annotation.pth`, the line that registers the overlay when the
  interpreter starts (an editable wheel gets it too);
- `_torch_tensorrt_annotation_files/`, the library. It is no package, and lies
  outside `torch_tensorrt/`, which belongs to another distribution.
- `torch_tensorrt-stubs/`, the library again, for type checkers, which do not follow
  the overlay: a partial stub package (PEP 561).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LIBRARY = Path("py")
FILES = "_torch_tensorrt_annotation_files"
PTH = "torch_tensorrt_annotation.pth"
STUBS = "torch_tensorrt-stubs"

# With a file in it, pip removes the directory when it uninstalls; without one, it
# would leave the empty directories of the tree.
NOTE = """\
The library of torch-tensorrt-annotation. _torch_tensorrt_annotation.py, beside this
directory, makes it importable as torch_tensorrt.annotation and
torch_tensorrt.dynamo.conversion.plugins.
"""

# Silent when the module is gone, as when an editable install's repository is.
PTH_LINE = (
    "import importlib.machinery; "
    "importlib.machinery.PathFinder.find_spec('_torch_tensorrt_annotation') and "
    "__import__('_torch_tensorrt_annotation').register()\n"
)


class build_overlay(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # The directory whose contents become the editable wheel's.
            install = self.distribution.get_command_obj("install")
            write_pth(Path(install.install_purelib))
        else:
            copy_library(Path(self.build_lib) / FILES)
            write_stubs(Path(self.build_lib) / STUBS)
            write_pth(Path(self.build_lib))


def write_pth(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PTH).write_text(PTH_LINE)


def copy_library(destination: Path) -> None:
    shutil.rmtree(destination, ignore_errors=True)  # left by an earlier build
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(LIBRARY, destination, ignore=leave_out)
    (destination / "README.txt").write_text(NOTE)


def write_stubs(destination: Path) -> None:
    shutil.rmtree(destination, ignore_errors=True)
    library = LIBRARY / "torch_tensorrt"
    for source in library.rglob("*.py"):
        stub = destination / source.relative_to(library).with_suffix(".pyi")
        stub.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, stub)
    # The rest of torch_tensorrt is looked for where it is.
    (destination / "py.typed").write_text("partial\n")


setup(cmdclass={"build_py": build_overlay})
