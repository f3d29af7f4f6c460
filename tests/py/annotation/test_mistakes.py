# SPDX-License-Identifier: BSD-3-Clause

"""Ten mistakes of the first ten minutes. Each ends in a message with its remedy.

Two launches, which were the tenth, are an op of two steps now.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from torch_tensorrt.annotation import __main__ as command_line
from torch_tensorrt.annotation import unregister
from torch_tensorrt.annotation._plugin import registered

KERNEL = """
@triton.jit
def silu_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n).to(tl.float32)
    y = (x * tl.sigmoid(x)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, y, mask=offsets < n)
"""
LAUNCH = """
def launch_silu(x, out, BLOCK=256):
    n = x.numel()
    silu_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK)
"""
SPEC = 'tta.triton(launch_silu, configs=[{"BLOCK": 256}, {"BLOCK": 1024}])'
REGISTER = f"""
trt_plugins.custom_op(
    "my::silu",
    impl=tta.custom_plugin(
        {SPEC},
        meta_impl=lambda x: torch.empty_like(x),
    ),
    supports_dynamic_shapes=True,
)
"""
IMPORTS = """
import torch, triton, triton.language as tl
import torch_tensorrt.annotation as tta
import torch_tensorrt.dynamo.conversion.plugins as trt_plugins
"""
FILE = IMPORTS + KERNEL + LAUNCH + REGISTER


@dataclass(frozen=True)
class Mistake:
    """What a person changes in a file that works.

    Attributes:
        changes: texts of the file, and what is there instead.
        messages: what the output must hold, the remedy last.
        options: of the dry run, after the input.
    """

    changes: tuple[tuple[str, str], ...]
    messages: tuple[str, ...]
    options: tuple[str, ...] = ("--dynamic", "x=1..64x500")

    @property
    def file(self) -> str:
        text = FILE
        for old, new in self.changes:
            assert old in text, old
            text = text.replace(old, new)
        return text


MISTAKES = {
    "output first": Mistake(
        (("launch_silu(x, out,", "launch_silu(out, x,"),),
        (
            "kernel silu_kernel stores to input `x`",
            "launch_silu (kernels.py:13)",
            "takes the op's inputs first, and its outputs last",
        ),
    ),
    "wrong output shape": Mistake(
        (("torch.empty_like(x)", "x.new_empty(x.shape[0], x.shape[1] // 2)"),),
        (
            "0 of 2 tactics in bounds",
            "the kernel writes past the end of the tensor `out_ptr`, at kernels.py:11",
            "Or correct the output's shape in the function that describes it",
        ),
    ),
    "no mask": Mistake(
        ((", mask=offsets < n", ""),),
        (
            "the kernel reads past the end of the tensor `x_ptr`, at kernels.py:9",
            "Mask the load: tl.load(..., mask=offsets < n)",
        ),
    ),
    "a store without a mask": Mistake(
        ((", y, mask=offsets < n)", ", y)"),),
        (
            "the kernel writes past the end of the tensor `out_ptr`, at kernels.py:11",
            "Mask the store: tl.store(..., mask=offsets < n)",
        ),
    ),
    "fp16 into tl.sigmoid": Mistake(
        ((".to(tl.float32)", ""),),
        (
            "at kernels.py:10: Expected dtype ['fp32', 'fp64'] but got fp16",
            "y = (x * tl.sigmoid(x))",
            "Convert the value in the kernel: x.to(tl.float32)",
        ),
    ),
    "unannotated float": Mistake(
        (
            ("launch_silu(x, out,", "launch_silu(x, alpha, out,"),
            ("lambda x: ", "lambda x, alpha: "),
            ("(x, out, n,", "(x, out, n, alpha,"),
            ("out_ptr, n,", "out_ptr, n, alpha,"),
            ("y = (x *", "y = (alpha * x *"),
        ),
        (
            "--attribute alpha: the op takes alpha as a tensor",
            "Write def meta(x, alpha: float) there",
        ),
        ("--attribute", "alpha=0.5"),
    ),
    "misspelled key": Mistake(
        (('{"BLOCK": 1024}', '{"BLOCL": 1024}'),),
        ("kernels.py:20: triton: configs[1] names 'BLOCL'", "Did you mean BLOCK?"),
    ),
    "block of 1000": Mistake(
        (("1024", "1000"),),
        (
            "1 of 2 tactics compile",
            "with BLOCK=1000, at kernels.py:8: arange's range must be a power of 2",
            "Choose one, and mask what is beyond the size",
        ),
    ),
    "kernel instead of function": Mistake(
        (("triton(launch_silu", "triton(silu_kernel"),),
        (
            "kernels.py:20: triton: silu_kernel is a kernel",
            "Pass the Python function that launches it",
        ),
    ),
    "kernel with its grid instead of function": Mistake(
        (("triton(launch_silu", "triton(silu_kernel[(1,)]"),),
        (
            "kernels.py:20: triton: this is a kernel with its grid",
            "Pass a Python function that launches it: def launch(x, out): kernel[grid]",
        ),
    ),
    "function without its language": Mistake(
        ((SPEC, "launch_silu"),),
        (
            "kernels.py:19: custom_plugin: launch_silu is a function",
            "Pass tta.triton(launch_silu)",
        ),
    ),
    "next_power_of_2 of a dynamic size": Mistake(
        (("x.numel()", "x.numel(); BLOCK = triton.next_power_of_2(x.shape[1])"),),
        (
            "argument `BLOCK`: a compile-time constant that follows a dynamic size",
            "of x.shape[1]",
            "within the profile (64 <= x.shape[1] <= 8192): 64, 128, ",
            "launch_silu (kernels.py:13)",
            "make that dimension static; or pass one value that is enough for all, as "
            "the config key BLOCK",
        ),
        ("--dynamic", "x=1..64x64..8192"),
    ),
}
if torch.cuda.is_available():  # which finds it before the interpreter is asked
    found = (
        "output 0: the kernel writes outside of it",
        "Mask its stores by the output's size, or correct the output's shape",
    )
    for name in ("wrong output shape", "no mask", "a store without a mask"):
        MISTAKES[name] = replace(MISTAKES[name], messages=found)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests have a module of the file's name, too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = sys.modules.pop("kernels", None)
    yield
    sys.modules.pop("kernels", None)
    if known is not None:
        sys.modules["kernels"] = known


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_a_message_with_its_remedy(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTA_JOBS", "2")  # with 1, nothing is interpreted
    Path("kernels.py").write_text(MISTAKES[name].file)
    status = command_line.main(
        [
            *("dry-run", "kernels.py", "my::silu", "--input", "x=16x500:fp16"),
            *(*MISTAKES[name].options, "--target", "sm_90"),
        ]
    )
    if "my::silu" in registered:
        unregister("my::silu")
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    assert status != 0
    for message in MISTAKES[name].messages:
        assert message in said, f"{message!r} in {said!r}"
        if not torch.cuda.is_available():  # a GPU runs all shapes, with all tactics
            assert said.count(message) == 1, f"{message!r} in {said!r}"
    assert "Traceback" not in said
    assert "Bitwise" not in said and "d0_" not in said


LAUNCHED = "silu_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK)"
TWICE = "y = torch.empty_like(x)"
for tensors in ("x, y", "y, out"):
    TWICE += f"; {LAUNCHED.replace('x, out', tensors)}"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (FILE, "2 of 2 tactics compile"),
        (FILE.replace(LAUNCHED, TWICE), "my::silu: 2 launches for sm_90"),
    ],
    ids=["one launch", "two launches"],
)
def test_without_the_mistakes_the_file_works(
    file: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(file)
    command = ["dry-run", str(path), "my::silu", "--input", "x=16x500:fp16"]
    assert command_line.main([*command, "--target", "sm_90"]) == 0
    unregister("my::silu")
    assert said in capsys.readouterr().out


def test_a_traceback_has_the_users_line_and_none_of_the_librarys(
    tmp_path: Path,
) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(MISTAKES["misspelled key"].file)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False
    )
    _, _, trace = done.stderr.partition("Traceback")
    frames = [line for line in trace.splitlines() if line.startswith("  File ")]
    assert frames[0].startswith(f'  File "{path}", line 20')
    assert len(frames) == 2, textwrap.indent(trace, "  ")
    assert trace.count("Did you mean BLOCK?") == 1
