# SPDX-License-Identifier: BSD-3-Clause

"""The command line, as a process: what it prints, writes, and exits with."""

from __future__ import annotations

import argparse
import io
import json
import re
import textwrap
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import RunPython
from warned import warned

import torch_tensorrt.annotation as tta
from torch_tensorrt.annotation import __main__ as command_line
from torch_tensorrt.annotation import _settings, backends
from torch_tensorrt.annotation._attributes import AttributeKind
from torch_tensorrt.annotation._cli import (
    FAILED,
    OK,
    USAGE,
    UsageError,
    read_attributes,
    read_inputs,
)

KERNELS = """
    import torch, triton, triton.language as tl
    import torch_tensorrt.annotation as tta
    import torch_tensorrt.dynamo.conversion.plugins as trt_plugins

    @triton.jit
    def kernel(x_ptr, out_ptr, n, alpha, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=offsets < n)
        tl.store(out_ptr + offsets, (x * alpha).to(x.dtype), mask=offsets < n)

    def launch(x, out, alpha=2.0, BLOCK=256):
        n = x.numel()
        kernel[(triton.cdiv(n, BLOCK),)](x, out, n, alpha, BLOCK=BLOCK)

    def meta(x: torch.Tensor, alpha: float) -> torch.Tensor:
        return torch.empty_like(x)

    blocks = [{"BLOCK": 256}, {"BLOCK": 1024}]
    trt_plugins.custom_op(
        "cli::scale",
        impl=tta.custom_plugin(tta.triton(launch, blocks), meta_impl=meta),
        supports_dynamic_shapes=True,
    )
    trt_plugins.custom_op(
        "cli::odd",
        impl=tta.custom_plugin(
            tta.triton(launch, [*blocks, {"BLOCK": 1000}]), meta_impl=meta
        ),
        supports_dynamic_shapes=True,
    )
    """
SCALE = ["cli::scale", "--attribute", "alpha=0.5"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that registers two ops; Triton refuses a block of 1000."""
    path = tmp_path / "scaling.py"
    path.write_text(textwrap.dedent(KERNELS))
    return path


def run(
    *arguments: str | Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status, output and errors of the command line in this process."""
    try:
        status = command_line.main(list(map(str, arguments)))
    except SystemExit as error:
        assert isinstance(error.code, int)
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_is_a_program_with_exit_codes(file: Path, run_python: RunPython) -> None:
    """The codes themselves are those of the tests below, in this process."""
    done = run_python(
        [
            *("-m", "torch_tensorrt.annotation", "dry-run", "scaling", "cli::odd"),
            *("--input", "x=8x512:fp16", "--attribute", "alpha=2.0"),
            *("--compile-only", "--target", "sm_90"),
        ],
        cwd=file.parent,
        fails=True,
    )
    assert done.returncode == FAILED
    assert "2 of 3 tactics compile for sm_90" in done.stdout
    assert "tactic 3 is left out: " in done.stdout


def test_a_dry_run_of_an_op_that_is_not_registered_is_wrong_usage(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, errors = run(
        *("dry-run", file, "cli::none", "--input", "x=8x512:fp16"), capsys=capsys
    )
    assert (status, output) == (USAGE, "")
    assert errors == (
        f"python -m torch_tensorrt.annotation: {file}: cli::none: not registered "
        "with kernels of its own. Call custom_op('cli::none', impl=tta.triton(...)) "
        "first. Registered: cli::scale, cli::odd.\n"
    )


def test_a_dry_run_writes_its_report(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, page = tmp_path / "report.json", tmp_path / "report.html"
    status, output, _ = run(
        *(
            "dry-run",
            file,
            *SCALE,
            "--input",
            "x=8x512:fp16",
            "--compile-only",
            "--replay",
            "9",
        ),
        *("--dynamic", "x=1..64x512", "--target", "sm_90,ptx_isa=8.5"),
        *("--json", data, "--html", page),
        capsys=capsys,
    )
    assert status == OK
    report = tta.DryRunReport.from_json(data.read_text())
    assert str(report).strip() == output.strip()
    assert [(s.name, s.dims) for s in report.tactics[0].shapes] == [
        ("min", ((1, 512),)),
        ("opt", ((8, 512),)),
        ("max", ((64, 512),)),
        ("ragged", ((43, 512),)),
    ]
    assert report.tactics[0].ptx_isa == "8.5"
    assert page.read_text() == report.to_html()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scaling:none", "has no attribute 'none'"),
        ("nowhere:silu", "No module named 'nowhere'"),
        ("scaling:blocks", "it is not a function"),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_reference_that_is_no_function_is_wrong_usage(
    file: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, errors = run(
        *("dry-run", file, *SCALE, "--input", "x=8x512:fp16", "--target", "sm_90"),
        *("--reference", name),
        capsys=capsys,
    )
    assert status == USAGE
    assert f"--reference {name}: " in errors and said in errors


def test_a_report_is_written_as_utf_8_whatever_the_locale(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(io, "text_encoding", lambda given, *_: given or "ascii")
    monkeypatch.setattr(tta.DryRunReport, "to_html", lambda self: "±")
    page = tmp_path / "report.html"
    status, _, errors = run(
        *("dry-run", file, *SCALE, "--input", "x=8x512:fp16", "--compile-only"),
        *("--target", "sm_90", "--html", page),
        capsys=capsys,
    )
    assert status == OK, errors
    assert page.read_text(encoding="utf-8") == "±"


def test_a_report_that_cannot_be_written_is_wrong_usage(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "nowhere" / "report.html"
    status, _, errors = run(
        *("dry-run", file, *SCALE, "--input", "x=8x512:fp16", "--compile-only"),
        *("--target", "sm_90", "--html", page),
        capsys=capsys,
    )
    assert status == USAGE
    assert f"{page} cannot be written: No such file" in errors


def test_a_report_may_go_to_the_screen_as_json(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(
        *("dry-run", file, *SCALE, "--input", "x=512:fp32", "--compile-only"),
        *("--target", "sm_80", "--json", "-"),
        capsys=capsys,
    )
    assert status == OK
    assert json.loads(output)["target"] == "sm_80"


def test_a_dry_run_is_made_for_every_target(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    status, output, errors = run(
        *("dry-run", file, *SCALE, "--input", "x=8x512:fp16", "--compile-only"),
        *("--target", "sm_80", "--target", "sm_10", "--target", "H100,cuda=13.0"),
        *("--html", page),
        capsys=capsys,
    )
    assert status == FAILED
    for target in ("sm_80", "sm_90"):
        assert f"2 of 2 tactics compile for {target}, drivers from CUDA 1" in output
        assert "cli::scale" in (tmp_path / f"report-{target}.html").read_text(
            encoding="utf-8"
        )
    assert errors.startswith("sm_10: ")


def test_verbose_shows_every_launch_with_floats_by_name(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["dry-run", file, *SCALE, "--input", "x=8x512:fp16", "--target", "sm_90"]
    _, output, _ = run(*command, "--compile-only", "--verbose", capsys=capsys)
    assert "n=4096, alpha=0.5" in output
    _, output, _ = run(*command, "--compile-only", capsys=capsys)
    assert "n=4096" not in output


MODEL = """
    import torch

    class Model(torch.nn.Module):
        def forward(self, x):
            return torch.ops.cli.scale(x, 0.5) + 1

    def make():
        return Model(), [torch.empty(8, 512, dtype=torch.float16)]
    """


@pytest.fixture
def model(file: Path) -> Path:
    """A file with a function that makes a model; two ops are registered."""
    path = file.with_name("models.py")
    path.write_text(textwrap.dedent(KERNELS) + textwrap.dedent(MODEL))
    return path


def test_a_model_of_a_file_is_explained(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = model.with_name("report.json")
    status, output, errors = run(
        *("explain", f"{model}:make", "--target", "sm_90"),
        *("--min-block-size", "1", "--json", report),
        capsys=capsys,
    )
    assert (status, errors) == (OK, "")
    assert output.startswith("1 of 1 custom op becomes plugin layers. TensorRT gets 2")
    assert json.loads(report.read_text())["ops"][0]["kernels"] == ["kernel"]


def test_a_model_with_ops_left_in_pytorch_fails(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(
        *("explain", f"{model}:make", "--target", "sm_90", "--json", "-"), capsys=capsys
    )
    assert status == FAILED
    assert "min_block_size=5" in json.loads(output)["ops"][0]["reason"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("make", "make: write a function as models.py:make"),
        ("FILE:none", "has no function none"),
        ("FILE:Model", "it must take nothing and return two things"),
    ],
)
def test_a_factory_that_is_none_is_wrong_usage(
    name: str, message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = name.replace("FILE", str(model))
    status, output, errors = run("explain", given, capsys=capsys)
    assert (status, output) == (USAGE, "")
    assert message in errors


def test_compile_fills_the_cache_for_every_target(
    file: Path, fresh_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(
        *("compile", file, *SCALE, "--input", "x=8x512:bf16"),
        *("--target", "sm_80", "--target", "sm_90"),
        capsys=capsys,
    )
    assert status == OK
    assert output.splitlines() == [
        "sm_80: 2 of 2 tactics",
        "sm_90: 2 of 2 tactics",
        f"kernel cache: {fresh_cache}",
    ]
    _, output, _ = run("cache", "info", capsys=capsys)
    assert output.startswith(f"{fresh_cache}: 4 kernels, 0 refusals, ")
    status, output, _ = run("cache", "clear", capsys=capsys)
    assert status == OK
    assert output == (
        f"{fresh_cache}: 0 kernels, 0 refusals, 0.0 MB; at most 2000 MB "
        "(TTA_CACHE_SIZE)\n"
    )


TWO_LAUNCHES = """
    def twice(x, out):
        between = torch.empty_like(x)
        launch(x, between)
        launch(between, out, alpha=3.0)

    trt_plugins.custom_op(
        "cli::twice",
        impl=tta.custom_plugin(
            tta.triton(twice, [{"num_warps": 2}, {}]),
            meta_impl=lambda x: torch.empty_like(x),
        ),
    )
"""


def test_compile_counts_the_tactics_of_all_launches(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + textwrap.dedent(TWO_LAUNCHES))
    given = "cli::twice", "--input", "x=8x512:fp16", "--target", "sm_90"
    status, output, _ = run("compile", file, *given, capsys=capsys)
    assert status == OK and output.startswith("sm_90: 4 of 4 tactics\n")
    status, output, _ = run("dry-run", file, *given, "--json", "-", capsys=capsys)
    assert status == OK
    assert [step["name"] for step in json.loads(output)["steps"]] == ["kernel"] * 2


def test_compile_says_what_is_left_out_and_goes_on(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(
        *("compile", file, "cli::odd", "--attribute", "alpha=0.5"),
        *("--input", "x=8x512:fp16", "--target", "sm_10", "--target", "sm_90"),
        capsys=capsys,
    )
    assert status == FAILED
    assert output.startswith("sm_10: ")
    assert "sm_90: 2 of 3 tactics\n  tactic 3 is left out: " in output


def test_compile_fails_where_the_kernels_cannot_be_stored(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocked = tmp_path / "a file" / "cache"
    blocked.parent.write_text("where the directory would be")
    monkeypatch.setenv("TTA_CACHE_DIR", str(blocked))
    with warned("cannot be"):
        status, output, errors = run(
            *("compile", file, *SCALE, "--input", "x=8x512:bf16", "--target", "sm_80"),
            capsys=capsys,
        )
    assert status == FAILED
    assert output == "sm_80: 2 of 2 tactics\n"
    assert f"not all kernels were stored: {blocked} cannot be" in errors


def test_env_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run("env", capsys=capsys)
    assert status == OK
    lines = output.splitlines()
    version = metadata.version("torch")
    assert any(line.split() == ["torch", version] for line in lines)
    assert any(line.startswith("compiles triton") and "yes" in line for line in lines)
    assert any(line.startswith("builds engines") for line in lines)


def test_env_asks_every_language_and_lists_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTA_JOBS", "3")
    monkeypatch.delenv("TTA_TARGET", raising=False)
    _, output, _ = run("env", capsys=capsys)
    found = dict(re.split("  +", line, maxsplit=1) for line in output.splitlines())
    for setting in _settings.SETTINGS:
        assert setting.what in found[setting.name]
    assert found["TTA_JOBS"].startswith("3 ")
    assert found["TTA_TARGET"].startswith("not set ")
    for name in backends.names():
        assert found[f"compiles {name}"].startswith(("yes", "no: "))


def test_env_says_why_a_language_does_not_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> Any:
        raise OSError("libdevice is\nnot here")

    monkeypatch.setattr(backends, "backend", broken)
    _, output, _ = run("env", capsys=capsys)
    assert re.search("compiles triton +no: libdevice is not here", output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dry-run", "none.py", "a::b"], "the file none.py does not exist."),
        (
            ["dry-run", "no_such_module", "a::b"],
            "the module no_such_module does not exist",
        ),
        (["dry-run", "FILE", "a::b"], "Registered: cli::scale, cli::odd."),
        (["dry-run", "FILE", *SCALE], "x: not given. Add --input x=8x512:fp16"),
        (["dry-run", "FILE", *SCALE, "--input", "x=8,5"], "x=8,5: write x=8x512:fp16"),
        (["dry-run", "FILE", *SCALE, "--attribute", "k"], "k: write NAME=VALUE"),
        (
            ["dry-run", "FILE", "cli::scale", "--input", "x=8:fp16"],
            "alpha: not given. Add --attribute NAME=VALUE",
        ),
        (["compile", "FILE", *SCALE, "--input", "x=8:fp16"], "--target"),
        (["cache"], "required: what"),
        (["tune"], "invalid choice: 'tune'"),
        ([], "required: COMMAND"),
        (
            ["dry-run", "FILE", *SCALE, "--input", "x=8:fp16", "--target", "hopper"],
            "not an architecture. Write one as 'sm_90'",
        ),
    ],
)
def test_wrong_usage_gets_one_line_that_says_what_to_write(
    arguments: list[str],
    message: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    status, output, errors = run(*given, capsys=capsys)
    assert status == USAGE
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("python -m torch_tensorrt.annotation")
    assert message in line


def test_a_file_that_raises_is_shown_with_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "raising.py"
    path.write_text("1 / 0\n")
    status, _, errors = run("dry-run", path, "a::b", capsys=capsys)
    assert status == USAGE
    assert "Traceback" in errors
    assert errors.splitlines()[-1].endswith("ZeroDivisionError: division by zero")


HELP = [[], ["dry-run"], ["compile"], ["cache"], ["env"]]


@pytest.mark.parametrize("command", HELP, ids=lambda command: " ".join(command))
def test_help_has_examples(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(*command, "--help", capsys=capsys)
    assert status == OK
    assert "dry-run kernels.py my::silu --input x=8x512:fp16" in output


# --- Inputs ---------------------------------------------------------------------------


def op_with(**arguments: Any) -> Any:
    """What the command line reads of a plugin."""
    return SimpleNamespace(
        **{"tensors": (), "optional": (), "defaults": {}, **arguments}
    )


def read(
    static: list[str],
    dynamic: list[str],
    names: str = "x",
    optional: Collection[str] = (),
) -> list[Any]:
    """The inputs that these options give."""
    command = ["dry-run", "file.py", "a::b"]
    for option, texts in (("--input", static), ("--dynamic", dynamic)):
        command += [part for text in texts for part in (option, text)]
    options = command_line.parser().parse_args(command)
    return read_inputs(options, op_with(tensors=names.split(), optional=optional))


def shapes(static: list[str], dynamic: list[str], names: str = "x") -> list[Any]:
    corners = ("min", "opt", "max")
    return [
        tuple(map(info.at, corners)) if info.is_dynamic else info.shape
        for info in read(static, dynamic, names)
    ]


def test_inputs_are_read_in_the_ops_order() -> None:
    assert shapes(["y=3:fp32", "x=8x512:fp16"], [], "x y") == [(8, 512), (3,)]


def test_the_opt_is_the_inputs_or_the_ranges_or_the_max() -> None:
    low, high = (1, 512), (64, 512)
    assert shapes(["x=8x512:fp16"], ["x=1..64x512"]) == [(low, (8, 512), high)]
    assert shapes([], ["x=1..16..64x512:fp16"]) == [(low, (16, 512), high)]
    assert shapes([], ["x=1..64x512:fp16"]) == [(low, high, high)]


def test_a_dtype_has_torchs_name_too() -> None:
    (info,) = read(["x=8:float16"], [])
    assert info.dtype == torch.float16
    (info,) = read(["x=8:fp16"], ["x=1..9:float16"])
    assert info.dtype == torch.float16
    names = {"half": torch.float16, "torch.half": torch.float16, "FP16": torch.float16}
    for name, dtype in (names | {"float": torch.float32, "long": torch.int64}).items():
        (info,) = read([f"x=8:{name}"], [])
        assert info.dtype == dtype


def test_an_argument_that_nobody_annotated_is_explained() -> None:
    plugin = op_with(tensors=("x", "alpha"), attributes={})
    options = argparse.Namespace(input=[], dynamic=[], attribute=[("alpha", "0.5")])
    with pytest.raises(UsageError, match=r"Write def meta\(x, alpha: float\)"):
        read_inputs(options, plugin)
    with pytest.raises(UsageError, match="alpha: it is a tensor"):
        read_attributes(options, plugin)


def test_a_range_of_one_extent_is_static() -> None:
    assert shapes([], ["x=8..8x512:fp16"]) == [(8, 512)]


@pytest.mark.parametrize(
    ("static", "dynamic", "message"),
    [
        (["x=8x512"], [], "write one dtype, as x=8x512:fp16; got nothing"),
        (["x=8:fp17"], [], "got fp17; the dtypes are fp32, fp16, bf16"),
        (["xs=8:fp17"], [], "no tensor xs; it takes x. Did you mean x?"),
        (["x=8:nn"], [], "got nn; the dtypes are fp32, fp16, bf16"),
        (["x=8:fp16", "x=9:fp16"], [], "--input x: it is given twice"),
        (["x=8:fp16"], ["x=1..9:fp32"], "write one dtype, as x=8x512:fp16; got fp16,"),
        (["x=1..8:fp16"], [], "a range goes in --dynamic x=1..64x512"),
        (["x=8x8:fp16"], ["x=1..9"], "--input and --dynamic differ in their dim"),
        (["x=10:fp16"], ["x=1..9"], "1..10..9 does not rise"),
        ([], ["x=9..1:fp16"], "9..1..1 does not rise"),
        (["z=8:fp16"], [], "the op has no tensor z; it takes x"),
    ],
)
def test_inputs_that_fit_nothing_are_refused(
    static: list[str], dynamic: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(static, dynamic)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["x=8xx:fp16", "x=1..2..3..4:fp16", "8:fp16", "x=-1"])
def test_a_malformed_shape_is_shown_with_one_that_is_right(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read([text], [])
    error = capsys.readouterr().err
    assert f"{text}: write x=8x512:fp16" in error
    assert "an extent is a number, or a range" in error


def test_a_scalar_has_an_empty_shape() -> None:
    assert shapes(["x=:fp16"], []) == [()]


def test_an_optional_tensor_may_be_left_out() -> None:
    assert read([], [], "x", {"x"}) == [None]


def test_attributes_have_the_ops_types() -> None:
    kinds = {
        "k": AttributeKind(int),
        "alpha": AttributeKind(float),
        "flag": AttributeKind(bool),
        "mode": AttributeKind(str),
        "sizes": AttributeKind(int, is_list=True),
    }
    texts = ["k=3", "alpha=2", "flag=true", "mode=a=b", "sizes=[1, 2]"]
    parts = [part for text in texts for part in ("--attribute", text)]
    options = command_line.parser().parse_args(["dry-run", "a.py", "a::b", *parts])
    assert read_attributes(options, op_with(attributes=kinds)) == {
        "k": 3, "alpha": 2.0, "flag": True, "mode": "a=b", "sizes": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("k", "2.5", "--attribute k=2.5: it must be of type int."),
        ("k", "__import__('os')", "it must be of type int."),
        ("j", "2", "the op has no attribute j; it takes k."),
    ],
)
def test_an_attribute_that_fits_nothing_is_refused(
    name: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_attributes(
            argparse.Namespace(attribute=[(name, text)]),
            op_with(attributes={"k": AttributeKind(int)}),
        )
    assert message in str(caught.value)


def test_an_attribute_given_twice_is_refused() -> None:
    options = argparse.Namespace(attribute=[("k", "1"), ("k", "2")])
    with pytest.raises(UsageError, match="--attribute k: it is given twice"):
        read_attributes(options, op_with(attributes={"k": AttributeKind(int)}))


def test_a_missing_attribute_is_named_unless_it_has_a_default() -> None:
    options, kinds = argparse.Namespace(attribute=[]), {"k": AttributeKind(int)}
    with pytest.raises(UsageError, match=r"k: not given. Add --attribute NAME=VALUE"):
        read_attributes(options, op_with(attributes=kinds))
    assert read_attributes(options, op_with(attributes=kinds, defaults={"k": 1})) == {}
