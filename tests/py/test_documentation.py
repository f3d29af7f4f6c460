# SPDX-License-Identifier: BSD-3-Clause

"""What the README, the guides and the examples show is what happens."""

from __future__ import annotations

import ast
import contextlib
import html
import inspect
import io
import re
import runpy
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tensorrt as trt
import torch
import triton
from packaging.version import Version
from up_to_the_builder import (
    DEVICE,
    PluginLayer,
    layers_of,
    partition,
    plugin_layers,
)

import torch_tensorrt
from torch_tensorrt.annotation import __main__ as command_line
from torch_tensorrt.annotation import errors
from torch_tensorrt.annotation._plugin import registered
from torch_tensorrt.annotation.backends import GROUP, backend

PROJECT = Path(__file__).resolve().parents[2]
GUIDES = PROJECT / "docsrc"
PAGES = {page.name: page for page in (PROJECT / "README.md", *GUIDES.glob("*.md"))}
LIBRARY = Path(str(errors.__file__)).parent

# The first line of a block that does not run everywhere, and what it waits for.
BUILDER = "# needs a GPU and TensorRT's builder"
NEEDS = {
    "# needs a GPU": torch.cuda.is_available(),
    BUILDER: torch.cuda.is_available()
    and trt.get_builder_plugin_registry(trt.EngineCapability.STANDARD) is not None,
}
WAITING = {"deployment.md": 1, "dry_run.md": 2, "getting_started.md": 1}

# Shell commands that set up a machine; all others are run.
NOT_RUN = {"make demo", "make test", "pip install '.[triton]'"}

TOOLCHAINS = {
    "arguments.md": ["cuda.tile"],
    "cutedsl.md": ["cutlass"],
    "hardware.md": ["cutlass"],
    "cutile.md": ["cuda.tile"],
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, code, and the lines before the code."""

    language: str
    code: str
    line: int

    @property
    def need(self) -> str:
        first, _, _ = self.code.partition("\n")
        return first if first in NEEDS else ""

    @property
    def commands(self) -> list[str]:
        return self.code.replace("\\\n", " ").strip().splitlines()


def blocks(page: str) -> list[Block]:
    text = PAGES[page].read_text()
    found = re.finditer(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.M)
    return [
        Block(match[1], match[2], text[: match.start(2)].count("\n"))
        for match in found
        if not match[1].startswith("{")
    ]


KERNELS = next(b for b in blocks("getting_started.md") if b.language == "python").code
TOY = next(b for b in blocks("backends.md") if b.language == "python").code
FILES = {"kernels": KERNELS, "toy_ptx": TOY}  # modules that other blocks import


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with what the reader of a guide has: ``kernels.py``, and a language
    that another distribution brings."""
    for name, code in FILES.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "toy_ptx-1.0.dist-info").mkdir()
    points = tmp_path / "toy_ptx-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{GROUP}]\ntoy_ptx = toy_ptx:BACKEND\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules = dict(sys.modules)
    defined = set(torch._library.custom_ops.OPDEFS)
    for name in FILES:
        sys.modules.pop(name, None)  # that of the other tests
    backend.cache_clear()
    yield tmp_path
    for name in set(torch._library.custom_ops.OPDEFS) - defined:
        torch._library.custom_ops.OPDEFS.pop(name)._lib._destroy()
    for name in (*FILES, "page"):
        sys.modules.pop(name, None)
        if name in modules:
            sys.modules[name] = modules[name]


def run_page(page: str, folder: Path) -> None:
    """All blocks in order, Python's in one module; what is printed is as shown."""
    found = blocks(page)
    path = folder / "page.py"  # toolchains read sources: each line where it was
    path.write_text(as_module(found))
    module = types.ModuleType("page")
    module.__file__ = str(path)
    sys.modules["page"] = module
    printed = ""
    for block in found:
        if block.code in FILES.values() or (block.need and not NEEDS[block.need]):
            continue  # a file of its own, which other blocks import; or for elsewhere
        if block.language == "python":
            code = compile("\n" * block.line + block.code, str(path), "exec")
            printed = printed_by(lambda code=code: exec(code, vars(module)))
        elif block.language == "sh":
            printed = "".join(map(run_command, block.commands))
        elif block.language == "text" and printed:
            assert block.code.strip() in printed, f"{page}:{block.line}: {printed}"
            printed = ""


def as_module(found: list[Block]) -> str:
    lines: list[str] = []
    for block in found:
        if block.language == "python" and block.code not in FILES.values():
            lines += [""] * (block.line - len(lines)) + block.code.splitlines()
    return "\n".join(lines) + "\n"


def printed_by(function: Callable[[], object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        function()
    return output.getvalue()


def run_command(command: str) -> str:
    """Run ``[NAME=value] python -m torch_tensorrt.annotation ...`` in this process."""
    command, _, _ = command.partition("  #")
    if command.strip() in NOT_RUN:
        return ""
    before, program, arguments = command.partition(
        "python -m torch_tensorrt.annotation "
    )
    assert program, f"{command!r} is not run, and not listed in NOT_RUN"
    settings = dict(word.split("=", 1) for word in before.split())
    unregister_all()  # as in a process of its own
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        status = 0

        def run() -> None:
            nonlocal status
            status = command_line.main(shlex.split(arguments))

        printed = printed_by(run)
    unregister_all()
    assert status == 0, f"{command}: {printed}"
    return printed


def unregister_all() -> None:
    while registered:
        registered.popitem()[1].undo()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_block_of_a_page_runs_in_order(
    page: str, reader: Path, request: pytest.FixtureRequest
) -> None:
    if page == "cache.md":  # it may clear the cache, which other tests share
        request.getfixturevalue("fresh_cache")
    for toolchain in TOOLCHAINS.get(page, []):
        pytest.importorskip(toolchain, reason=f"{page} uses {toolchain}")
    run_page(page, reader)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_blocks_are_of_languages_that_are_checked(page: str) -> None:
    assert {b.language for b in blocks(page)} <= {"python", "sh", "text", "toml"}
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, page, "exec")


def test_few_blocks_wait_for_a_gpu_and_they_are_listed() -> None:
    waiting = {page: sum(bool(b.need) for b in blocks(page)) for page in PAGES}
    assert {page: count for page, count in waiting.items() if count} == WAITING


@pytest.mark.parametrize("page", ["deployment.md", "getting_started.md"])
@pytest.mark.skipif(NEEDS[BUILDER], reason="with the builder, the block itself is run")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_block_for_the_builder_runs_up_to_it(
    page: str, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-ins are for the GPU, the builder and what it builds: what it is handed
    is partitioned for real, into one engine with the plugin in it."""
    layers: list[PluginLayer] = []

    def compile_(model: Any, inputs: Any, min_block_size: int) -> Any:
        layers.extend(plugin_layers(model, inputs))
        return torch.empty_like

    def convert(program: Any, inputs: Any) -> bytes:
        layers.extend(layers_of(partition(program, inputs)))
        return b"an engine"

    trace = partial(torch_tensorrt.dynamo.trace, device=DEVICE)
    for cls in (torch.nn.Module, torch.Tensor):
        monkeypatch.setattr(cls, "cuda", lambda moved: moved.to(DEVICE))
    monkeypatch.setattr(torch_tensorrt, "compile", compile_)
    monkeypatch.setattr(torch_tensorrt.dynamo, "trace", trace)
    monkeypatch.setattr(
        torch_tensorrt.dynamo,
        "convert_exported_program_to_serialized_trt_engine",
        convert,
    )
    (block,) = (block for block in blocks(page) if block.need == BUILDER)
    exec(compile(block.code, page, "exec"), {})
    assert [(layer.op, layer.aot) for layer in layers] == [("my::silu", True)]


def test_a_page_that_shows_what_is_not_printed_fails(reader: Path) -> None:
    page = reader / "wrong.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    PAGES[page.name] = page
    try:
        with pytest.raises(AssertionError, match=r"wrong\.md:5: 1"):
            run_page(page.name, reader)
    finally:
        del PAGES[page.name]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = re.sub(
        r"^```.*?^```$|`[^`\n]*`", "", PAGES[page].read_text(), flags=re.S | re.M
    )
    links = re.findall(r"\]\(([^)#\s]+)", text)
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (PAGES[page].parent / link).exists()]
    assert not missing


# --- Troubleshooting ------------------------------------------------------------------

CLASSES = [
    name
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and cls.__module__ == errors.__name__
]


def entries() -> dict[str, str]:
    """Each section of the page by its heading."""
    text = (GUIDES / "troubleshooting.md").read_text()
    parts = re.split(r"^## (.*)\n", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_error_and_warning_has_an_entry_in_the_order_of_the_tree() -> None:
    assert len(CLASSES) > 15
    assert [name for name in entries() if name.isidentifier()] == CLASSES
    assert all(len(entries()[name].split()) > 15 for name in CLASSES)


def literals() -> Iterator[str]:
    """The texts of the library, what varies as ``…``."""
    for path in LIBRARY.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_that_are_explained_are_those_of_the_library() -> None:
    explained = [
        message
        for entry in entries().values()
        for message in re.findall(r"^\| `(.*?)` \|", entry, re.M)
    ]
    assert len(explained) > 40
    texts = [text.replace("`…`", "…") for text in literals()]
    patterns = [re.escape(m).replace("…", ".*") for m in explained]
    unknown = [
        message
        for message, pattern in zip(explained, patterns, strict=True)
        if not any(re.search(pattern, text, re.DOTALL) for text in texts)
    ]
    assert not unknown


@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.9"), reason="the picture is of Triton 3.9"
)
def test_the_picture_is_of_the_dry_run_of_today() -> None:
    draw = runpy.run_path(str(GUIDES / "dry_run_svg.py"))["draw"]
    pictures = (draw(), (GUIDES / "_static/dry_run.svg").read_text())
    drawn, committed = (words(picture) for picture in pictures)
    assert "BLOCK=2048," in drawn
    assert drawn == committed


def words(picture: str) -> list[str]:
    """What can be read in it, but for what follows the compiler's version."""
    texts = re.findall(r"<text [^>]*>(.*?)</text>", picture)
    visible = html.unescape(" ".join(texts)).replace("\xa0", " ")
    visible = re.sub(r"_[0-9a-f]{12}|PTX \d\.\d", "", visible)
    return [word for word in visible.split() if not word.isdigit()]
