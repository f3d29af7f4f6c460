# SPDX-License-Identifier: BSD-3-Clause

"""What the overlay adds to the command line: a script, answers at once, less noise."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunPython

import _torch_tensorrt_annotation as overlay
import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import __main__ as command_line
from torch_tensorrt.annotation._cli import USAGE

HELP = [[], ["dry-run"], ["compile"], ["cache"], ["env"]]


def test_the_console_script_is_the_same_program(run_python: RunPython) -> None:
    """Its help comes before torch_tensorrt is imported, which takes seconds."""
    code = "import sys, _torch_tensorrt_annotation as o; sys.argv = ['tta', {}]; "
    done = run_python(
        code.format("'--help'")
        + "import atexit, resource; atexit.register(lambda: print('\\nimported', "
        "'torch' in sys.modules)); o.main()"
    )
    assert "usage: tta " in done.stdout and "exit status: 0 all is well" in done.stdout
    assert done.stdout.endswith("imported False\n")
    done = run_python(code.format("'env'") + "sys.exit(o.main())")
    assert "compiles triton" in done.stdout and "Traceback" not in done.stderr
    assert "modelopt" not in done.stderr and "experimental" not in done.stdout


def test_beside_nothing_the_console_script_says_what_is_missing() -> None:
    code = "import sys; sys.path.insert(0, sys.argv.pop()); "
    code += "import _torch_tensorrt_annotation as o; sys.exit(o.main())"
    folder = str(Path(overlay.__file__).parent)
    command = [sys.executable, "-I", "-S", "-c", code, "env", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "tta: torch-tensorrt is not installed here" in done.stderr
    assert "pip install torch-tensorrt" in done.stderr


def test_what_imports_print_is_left_out_and_the_rest_is_not(
    run_python: RunPython,
) -> None:
    done = run_python(
        """
        import os, _torch_tensorrt_annotation as overlay
        with overlay.quiet:
            os.write(2, b"Please install modelopt library\\nsomething else\\n")
            os.write(1, b"on standard output\\n")
        print("after")
        """
    )
    assert done.stdout == "after\n"
    assert done.stderr == "something else\non standard output\n"


def children_cpu() -> float:
    """Seconds that the processes this one has waited for took."""
    now = os.times()
    return now.children_user + now.children_system


@pytest.mark.parametrize("command", HELP, ids=lambda command: " ".join(command))
def test_help_is_there_at_once_and_is_the_parsers_own(
    command: list[str], monkeypatch: pytest.MonkeyPatch, run_python: RunPython
) -> None:
    """Importing torch_tensorrt takes seconds."""
    monkeypatch.setenv("COLUMNS", "80")
    before = children_cpu()
    done = run_python(["-m", "torch_tensorrt.annotation", *command, "--help"])
    assert children_cpu() - before < 0.5
    expected = io.StringIO()
    with contextlib.redirect_stdout(expected), contextlib.suppress(SystemExit):
        command_line.parser().parse_args([*command, "--help"])
    assert done.stdout == expected.getvalue()


@pytest.mark.parametrize("module", ["pytest", "torch_tensorrt.annotation.__main__"])
def test_other_modules_arguments_are_not_read(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", module, "--help"])
    finder = overlay.OverlayFinder(str(Path(tta.__file__).parents[2]))
    assert finder.find_spec("torch_tensorrt") is None


def test_wrong_usage_is_an_error_at_once(run_python: RunPython) -> None:
    before = children_cpu()
    command = ["-m", "torch_tensorrt.annotation", "dry-run", "kernels.py"]
    done = run_python(command, fails=True)
    assert children_cpu() - before < 0.5
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "the following arguments are required: OP" in done.stderr
