# SPDX-License-Identifier: BSD-3-Clause

"""Which ``ptxas`` there are, wherever they lie; and what is assembled with one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from triton.backends.nvidia.compiler import get_ptxas

from torch_tensorrt.annotation._code import ptxas
from torch_tensorrt.annotation._code.ptx import parse
from torch_tensorrt.annotation._code.ptxas import Assembled, Assembler
from torch_tensorrt.annotation.errors import (
    CompileError,
    TargetError,
    UnsupportedKernelError,
)

PTXAS = get_ptxas(90).path
FAILING = "exit 3"
Add = Callable[[str, str], str]

# The cached functions without their cache.
find_ptxas = ptxas.find_ptxas.__wrapped__
ptxas_versions = ptxas.ptxas_versions.__wrapped__


def printing(version: str) -> str:
    return f"echo 'Cuda compilation tools, release {version}, V{version}.93'"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Puts a program at a path below the only folder of ``sys.path``."""
    monkeypatch.setattr(sys, "path", ["", str(tmp_path)])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))

    def make(path: str, does: str) -> str:
        program = tmp_path / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
        return str(program)

    return make


def install(folder: Path, package: str, version: str) -> None:
    """The metadata of an installed package."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    (info / "METADATA").write_text(text)


# --- The one that is taken ------------------------------------------------------------


@pytest.mark.parametrize("newest", range(4))
def test_the_newest_ptxas_is_taken_wherever_it_lies(newest: int, add: Add) -> None:
    places = [
        "bin/ptxas",
        "cuda/bin/ptxas",
        "nvidia/cu13/bin/ptxas",
        "triton/backends/nvidia/bin/ptxas-blackwell",
    ]
    older = ["12.9", "13.0", "12.8"]
    found = {
        place: add(place, printing("13.1" if at == newest else older[at % 3]))
        for at, place in enumerate(places)
    }
    assert find_ptxas() == Assembler(found[places[newest]], 91)


def test_a_file_that_cannot_be_executed_is_not_taken(add: Add) -> None:
    Path(add("cuda/bin/ptxas", FAILING)).chmod(0o644)
    path = add("nvidia/cuda_nvcc/bin/ptxas", printing("12.8"))
    assert find_ptxas() == Assembler(path, 87)


def test_without_a_ptxas_the_error_says_what_to_install(add: Add) -> None:
    with pytest.raises(CompileError, match="Install nvidia-cuda-nvcc, or set CUDA_HO"):
        find_ptxas()
    assert ptxas_versions() is None


def test_a_ptxas_that_fails_is_an_error(add: Add) -> None:
    add("cuda/bin/ptxas", f"{printing('13.0')}; {FAILING}")
    with pytest.raises(subprocess.CalledProcessError):
        find_ptxas()


def test_a_ptxas_that_does_not_say_its_version_is_older_than_any(add: Add) -> None:
    add("cuda/bin/ptxas", "echo hello")
    assert ptxas_versions() == "CUDA 0.0"
    with pytest.raises(TargetError, match=r"12\.0 or newer"):
        find_ptxas()
    path = add("bin/ptxas", printing("12.0"))
    assert find_ptxas() == Assembler(path, 80)


# --- Their versions, for the key of a cached kernel -----------------------------------


def test_packages_say_their_versions_and_are_not_started(
    add: Add, tmp_path: Path
) -> None:
    add("nvidia/cu13/bin/ptxas", FAILING)
    install(tmp_path, "nvidia-cuda-nvcc", "13.4.1")
    add("nvidia/cuda_nvcc/bin/ptxas", FAILING)
    install(tmp_path, "nvidia-cuda-nvcc-cu12", "12.8.93")
    add("triton/backends/nvidia/bin/ptxas", FAILING)
    add("triton/backends/nvidia/bin/ptxas-blackwell", FAILING)
    install(tmp_path, "triton", "3.4.0")
    assert ptxas_versions() == (
        "nvidia-cuda-nvcc 13.4.1, nvidia-cuda-nvcc-cu12 12.8.93, triton 3.4.0"
    )


def test_a_package_without_metadata_is_started(add: Add) -> None:
    add("nvidia/cu13/bin/ptxas", printing("13.0"))
    assert ptxas_versions() == "CUDA 13.0"


def test_a_ptxas_of_the_system_is_started(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "site-packages")])
    add("cuda/bin/ptxas", printing("12.8"))
    assert ptxas_versions() == "CUDA 12.8"


def test_a_ptxas_right_in_a_folder_of_sys_path_has_a_version(add: Add) -> None:
    """As with a PYTHONPATH that names CUDA's ``bin``."""
    folder = Path(add("bin/ptxas", printing("12.8"))).parent
    sys.path.insert(0, str(folder))
    assert ptxas_versions() == "CUDA 12.8"


# --- The architecture that code is assembled for --------------------------------------

PLAIN = "st.global.b32 [%rd1], 7;"
SPECIFIC = "setmaxnreg.inc.sync.aligned.u32 64;"  # of sm_90a alone
SHARED = """.shared .b8 tile[65536];
    mov.b64 %rd0, tile;
    st.global.b64 [%rd1], %rd0;"""


def entry(body: str, target: str) -> str:
    return f"""
.version 8.0
.target {target}
.address_size 64
.visible .entry kernel(.param .u64 out) .reqntid 128
{{
    .reg .b64 %rd<2>;
    ld.param.b64 %rd1, [out];
    {body}
    ret;
}}
"""


def test_code_is_settled_for_the_plain_architecture_where_that_is_enough() -> None:
    text, assembled = ptxas.settle(entry(PLAIN, "sm_90a"), "sm_90", PTXAS)
    assert text == entry(PLAIN, "sm_90")
    assert assembled.cubin.startswith(b"\x7fELF")
    assert assembled.spills == assembled.static_shared_memory == 0


@pytest.mark.parametrize(
    ("body", "emitted", "arch"),
    [
        (SPECIFIC, "sm_90a", "sm_90"),  # refused without the `a`
        (PLAIN, "sm_90a", "sm_90a"),  # asked for
        (PLAIN, "sm_90", "sm_90"),
        (PLAIN, "sm_80", "sm_90"),  # another one
        (PLAIN, "sm_90a", "sm_80"),
    ],
)
def test_other_code_is_settled_as_emitted(body: str, emitted: str, arch: str) -> None:
    emission = entry(body, emitted)
    text, assembled = ptxas.settle(emission, arch, PTXAS)
    assert text == emission
    assert assembled == ptxas.assemble(emission, PTXAS, emitted)


def test_code_that_takes_the_same_is_equal_whatever_its_bytes() -> None:
    """Bytes name the source, and differ between two runs."""
    assert Assembled(b"one", 8, 0, 0) == Assembled(b"two", 8, 0, 0)
    assert Assembled(b"one", 8, 0, 0) != Assembled(b"one", 9, 0, 0)


def test_too_much_static_shared_memory_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        UnsupportedKernelError, match=r"needs 65536 bytes .* sm_80 has 49152 for"
    ):
        ptxas.settle(entry(SHARED, "sm_80"), "sm_80", PTXAS)


# --- Shared memory over 48 KiB --------------------------------------------------------

DYNAMIC = ".reg .b32 %r<2>;\n\tmov.u32 %r1, memory;\n\tst.shared.u32 [%r1], %r1;"
LARGE = 232448  # what a block of Hopper has


def with_dynamic(body: str = DYNAMIC, arch: str = "sm_90") -> str:
    array = ".extern .shared .align 16 .b8 memory[];\n.visible"
    return entry(body, arch).replace(".visible", array, 1)


@pytest.mark.parametrize("arch", ["sm_90", "sm_90a"])
def test_static_memory_is_checked_for_the_architecture_that_has_it(arch: str) -> None:
    text, size = ptxas.with_static_shared(with_dynamic(arch=arch), LARGE, 0)
    assert (parse(text).target, size) == ("sm_90a", LARGE)


def test_one_byte_more_than_there_is_is_refused() -> None:
    with pytest.raises(UnsupportedKernelError, match=r"needs 232449 .* has 232448"):
        ptxas.with_static_shared(with_dynamic(), LARGE + 1, 0)


def test_static_memory_alone_needs_no_other_array() -> None:
    text = entry(SHARED, "sm_90")
    found, size = ptxas.with_static_shared(text, 0, 65536)
    assert (found, size) == (text.replace("sm_90", "sm_90a"), 65536)


def test_an_assembler_that_takes_48_kib_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it would take is then a bound."""
    monkeypatch.setattr(ptxas, "find_ptxas", lambda: ptxas.Assembler("/nowhere", 89))
    text, size = ptxas.with_static_shared(with_dynamic(), 100_000, 100)
    assert ".b8 memory[100000];" in text
    assert size == 101_024
