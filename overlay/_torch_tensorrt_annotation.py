# SPDX-License-Identifier: BSD-3-Clause

"""The import hook of the `torch-tensorrt-annotation` distribution.

It resolves exactly two packages, and with them their submodules, to this
distribution's files, and leaves every file of `torch-tensorrt` as it is. A line
in `torch_tensorrt_annotation.pth` calls `register` when the interpreter starts,
so this module imports nothing that the interpreter has not imported by then.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec

PACKAGES = (
    "torch_tensorrt.annotation",
    "torch_tensorrt.dynamo.conversion.plugins",
)
OLDEST_TESTED = (2, 11)
NEWEST_TESTED = (2, 14)

_HERE = os.path.dirname(os.path.abspath(__file__))
_INSTALLED = os.path.join(_HERE, "_torch_tensorrt_annotation_files")
_REPOSITORY = os.path.join(os.path.dirname(_HERE), "py")


class OverlayFinder:
    """A meta-path finder for `PACKAGES`, in the tree `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._version_checked = False

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> ModuleSpec | None:
        if fullname == "torch_tensorrt":
            _read_command_line(self.root)
        if fullname not in PACKAGES:
            return None
        from importlib.util import spec_from_file_location

        if not self._version_checked:
            self._version_checked = True
            _warn_if_untested()
        directory = os.path.join(self.root, *fullname.split("."))
        return spec_from_file_location(
            fullname,
            os.path.join(directory, "__init__.py"),
            submodule_search_locations=[directory],
        )


def register() -> None:
    """Put the finder before all others, once."""
    if not any(isinstance(finder, OverlayFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, OverlayFinder(_root()))


def main() -> int:
    """The console script `tta`: as `python -m torch_tensorrt.annotation`."""
    import runpy
    from importlib.machinery import PathFinder

    if PathFinder.find_spec("torch_tensorrt") is None:
        print(
            "tta: torch-tensorrt is not installed here, and this extends it. Install "
            "it with TensorRT and a CUDA build of torch: pip install torch-tensorrt.",
            file=sys.stderr,
        )
        return 2
    run = runpy.run_path(_main_file(_root()), {"PROGRAM": "tta"})["main"]
    return int(run(before_import=quiet.start))


def _root() -> str:
    return _INSTALLED if os.path.isdir(_INSTALLED) else _REPOSITORY


def _main_file(root: str) -> str:
    return os.path.join(root, *PACKAGES[0].split("."), "__main__.py")


def _read_command_line(root: str) -> None:
    """Read the arguments of `python -m torch_tensorrt.annotation`, if that was started.

    Python imports `torch_tensorrt`, which takes seconds, before it looks for the module
    that `-m` names. This is the last moment before that. The parser answers `--help`
    and wrong usage, and ends the process. Otherwise the import goes on, and `__main__`
    reads the arguments again.

    While Python looks for the module, `sys.argv` holds "-m" and the arguments, and
    `sys.orig_argv` ends with the module's name and the arguments (both are documented).
    """
    argv = getattr(sys, "argv", [])
    if argv[:1] != ["-m"]:
        return
    if sys.orig_argv[-len(argv)].removeprefix("-m") != PACKAGES[0]:
        return
    import runpy

    runpy.run_path(_main_file(root))["parser"]().parse_args(argv[1:])
    quiet.start()


class _Quiet:
    """Leaves out what imports always print; for the command line and the examples.

    From `start` to `stop`, the standard streams go to a file. Then all of it is printed
    to standard error, except the lines in `LEFT_OUT`. So it is where the process ends
    in between.
    """

    LEFT_OUT = (
        b"Please install modelopt library",
        b"This pytorch build does not support CUDA",
        b"is not currently supported for TRT-LLM plugins",
        b"provided through tensorrt.plugin module is experimental",
    )

    def __init__(self) -> None:
        self._streams: dict[int, int] = {}  # where each stream went before

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        import atexit
        import tempfile

        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        for stream in (1, 2):
            self._streams[stream] = os.dup(stream)
            os.dup2(self._file.fileno(), stream)
        atexit.register(self.stop)

    def stop(self) -> None:
        import ctypes

        if not self._streams:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)  # what native code has printed
        for stream, before in self._streams.items():
            os.dup2(before, stream)
            os.close(before)
        self._streams.clear()
        self._file.seek(0)
        for line in self._file:
            if not any(text in line for text in self.LEFT_OUT):
                os.write(2, line)
        self._file.close()


quiet = _Quiet()


def _warn_if_untested() -> None:
    found = _installed_version()
    if OLDEST_TESTED <= _release(found) <= NEWEST_TESTED:
        return
    import warnings

    oldest, newest = (
        ".".join(map(str, release)) for release in (OLDEST_TESTED, NEWEST_TESTED)
    )
    warnings.warn(
        f"torch-tensorrt-annotation is tested with torch-tensorrt {oldest} to "
        f"{newest}, and found {found}. It may not work: install a tested version of "
        "torch-tensorrt, or look for a newer torch-tensorrt-annotation.",
        UserWarning,
        stacklevel=3,
    )


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch-tensorrt")
    except PackageNotFoundError:
        return "an unknown version"


def _release(version: str) -> tuple[int, ...]:
    """The major and minor number in `version`; empty where it has none."""
    numbers = version.split(".")[:2]
    return tuple(map(int, numbers)) if all(n.isdigit() for n in numbers) else ()
