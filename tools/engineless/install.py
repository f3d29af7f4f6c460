# SPDX-License-Identifier: BSD-3-Clause

"""Build the environment that this project's demo and tests run in.

    python tools/engineless/install.py .venv     # what `make setup` runs
    python tools/engineless/install.py --site DIR
    python tools/engineless/install.py --site DIR --release 2.12

Where this interpreter already has Torch-TensorRT and a TensorRT that can build
engines, `.venv` only adds this project to it. Anywhere else it becomes the
engineless environment: see README.md beside this file.

`--site DIR` installs nothing from an index. It completes a directory that holds
the packages already (see README.md) so that they import. With `--release` it first
installs those of another Torch-TensorRT there, and nothing of what they share.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]

SENTENCE = (
    "engineless environment: the real Torch-TensorRT, bindings and plugin registry; "
    "no TensorRT builder, so engines cannot be built here"
)

TORCH = "torch==2.13.0"

# Torch-TensorRT, and a TensorRT that it asks for; the last one is the newest.
RELEASES = {
    "2.11": ("2.11.0", "10.15.1.29"),
    "2.12": ("2.12.0", "10.16.1.11"),
    "2.13": ("2.13.0", "11.0.0.114"),
    "2.14": ("2.14.0", "11.1.0.106"),
    "2.14-newest": ("2.14.0", "11.4.0.106"),
}
RELEASE = "2.13"

# Pure-Python packages that a machine with a GPU build of torch may lack. Torch-TensorRT
# needs dllist, this library the others. tools/offline/wheelhouse.py collects them.
PURE_PYTHON = (
    "dllist",
    "pebble",
    "platformdirs",
)

# What the packages below need and torch does not bring, and what builds an sdist.
SUPPORT = (
    *PURE_PYTHON,
    "filelock",
    "numpy",
    "packaging",
    "psutil",
    "setuptools>=77",
    "typing-extensions",
    "wheel",
)

# Without its dependencies: a CUDA build of torch asks for its own version of triton.
TRITON = (
    'triton==3.9.0; python_version >= "3.11"',
    'triton==3.8.0; python_version < "3.11"',  # the last one for Python 3.10
)

# CuTe DSL, in the flavour that emits the newer PTX ISAs. It does not ask for torch.
CUTE_DSL = "nvidia-cutlass-dsl[cu13]==4.8.1"

# cuTile and its compiler, which needs no GPU to compile for one. Its PTX is the
# toolkit's, so that is pinned too.
CUTILE = ("cuda-tile[tileiras]==1.7.0", "cuda-toolkit==13.4.3")

# NVRTC, of the same toolkit, and the library whose launches tests record. It asks for
# nothing that is not here.
CUDA = ("cuda-toolkit[nvrtc]==13.4.3", "cuda-core==1.2.2")

# TensorRT's own headers (of 10.14), which no package of NVIDIA's on PyPI has: the C++
# example is compiled against them. Nothing of this package is imported.
HEADERS = "kernel-lens==2.0.1"

# Library, and the macro that selects its part of nvinfer_stub.c.
STUBS = {
    "libnvinfer": "NVINFER",
    "libnvinfer_plugin": "NVINFER_PLUGIN",
    "libnvonnxparser": "NVONNXPARSER",
}
LEAN_PACKAGE = "tensorrt_lean_libs"
LEAN_RUNTIME = "libnvinfer_lean"

# Run in a process of its own: a broken TensorRT may not only raise but crash.
HAS_BUILDER = """
import torch_tensorrt, tensorrt
standard = tensorrt.EngineCapability.STANDARD
raise SystemExit(tensorrt.get_builder_plugin_registry(standard) is None)
"""


def main() -> None:
    options = parse_arguments()
    try:
        if options.site:
            if options.release:
                install_release(sys.executable, options.release, options.site)
            complete_site(options.site)
        else:
            build_environment(options.venv)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        raise SystemExit(f"failed, with the reason above: {command}") from None


def build_environment(directory: Path) -> None:
    check_python()
    if has_builder(sys.executable):
        beside_tensorrt(directory)
        print(f"{directory}: the TensorRT of {sys.executable}, which builds engines")
    else:
        check_compiler()
        engineless(directory)
        print(f"{directory}: {SENTENCE}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("venv", nargs="?", type=Path, help="environment to build")
    where.add_argument("--site", type=Path, metavar="DIR", help="complete DIR only")
    parser.add_argument("--release", choices=RELEASES, help="install it in DIR first")
    options = parser.parse_args()
    if options.release and not options.site:
        parser.error("--release goes with --site")
    return options


def check_python() -> None:
    other = "Name another with `make setup PYTHON=python3.12`."
    if sys.version_info < (3, 10):  # noqa: UP036  (this is where it is checked)
        version = sys.version.split()[0]
        raise SystemExit(
            f"Python {version} is too old: 3.10 or later is needed. {other}"
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise SystemExit(
            f"{sys.executable} has no ensurepip, which a virtual environment needs; on "
            f"Debian and Ubuntu, the package python3-venv brings it. {other}"
        )


def check_compiler() -> None:
    if shutil.which("gcc") is None:
        raise SystemExit("gcc is not on the PATH; the stub of libnvinfer needs it.")


def has_builder(python: str) -> bool:
    """Whether `python` imports Torch-TensorRT and a TensorRT that has a builder."""
    probe = subprocess.run([python, "-c", HAS_BUILDER], capture_output=True)
    return probe.returncode == 0


def beside_tensorrt(directory: Path) -> None:
    """Create an environment that sees this interpreter's packages, and add to it."""
    venv.create(directory, system_site_packages=True, symlinks=True, with_pip=True)
    if sys.prefix != sys.base_prefix:
        # `system_site_packages` means the base interpreter's; this one is a venv.
        outer = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (site_packages(directory) / "_outer_environment.pth").write_text(outer)
    pip(directory / "bin" / "python", "install", "setuptools>=77", "wheel", CUTE_DSL)
    install_project(directory)


def engineless(directory: Path) -> None:
    """Create an environment with everything of TensorRT that PyPI has."""
    venv.create(directory, symlinks=True, with_pip=True)
    python = directory / "bin" / "python"
    pip(python, "install", TORCH, CUTE_DSL, *SUPPORT, *CUTILE, *CUDA)
    pip(python, "install", "--no-deps", *TRITON, HEADERS)
    install_release(python, RELEASE)
    complete_site(site_packages(directory))
    install_project(directory)


def install_project(directory: Path) -> None:
    # pip changes nothing that is installed already, so torch stays what it is.
    python = directory / "bin" / "python"
    pip(python, "install", "--no-build-isolation", "--editable", f"{PROJECT}[dev]")


def install_release(
    python: Path | str, release: str, target: Path | None = None
) -> None:
    """Install a Torch-TensorRT and its TensorRT, without what they depend on.

    They ask for TensorRT's builder library, which is not on PyPI.
    """
    where = ("--target", target, "--upgrade") if target else ()
    pip(python, "install", "--no-deps", *where, *release_wheels(release))
    sdist = release_sdist(release)
    pip(python, "install", "--no-deps", "--no-build-isolation", *where, sdist)


def release_wheels(release: str = RELEASE) -> tuple[str, ...]:
    """The packages of a release that PyPI has as wheels."""
    torch_tensorrt, tensorrt = RELEASES[release]
    return (
        f"torch-tensorrt=={torch_tensorrt}",
        f"tensorrt-cu13-bindings=={tensorrt}",
        f"tensorrt-lean-cu13-libs=={tensorrt}",
    )


def release_sdist(release: str = RELEASE) -> str:
    """`import tensorrt`: pure Python over the bindings, and only an sdist on PyPI."""
    return f"tensorrt-cu13=={RELEASES[release][1]}"


def pip(python: Path | str, *arguments: object) -> None:
    print("pip", *arguments, flush=True)
    # Twice quiet: without pip's warnings, with its errors.
    quiet = ("-qq", "--disable-pip-version-check")
    subprocess.run([python, "-m", "pip", *map(str, arguments), *quiet], check=True)


def site_packages(directory: Path) -> Path:
    """The directory where the environment `directory` keeps its packages."""
    base = str(directory.resolve())
    variables = {"base": base, "platbase": base}
    return Path(sysconfig.get_path("purelib", scheme="posix_prefix", vars=variables))


def complete_site(site: Path) -> None:
    """Make the packages in `site` import without TensorRT's own libraries."""
    runtime = lean_runtime(site)
    remove_cpp_runtime(site)
    libraries = site / "tensorrt_libs"
    shutil.copytree(HERE / "tensorrt_libs", libraries, dirs_exist_ok=True)
    for name, macro in STUBS.items():
        compile_stub(libraries / f"{name}.so{runtime.suffix}", macro, runtime)


def lean_runtime(site: Path) -> Path:
    """TensorRT's library in `site`; its suffix is the major version."""
    for library in (site / LEAN_PACKAGE).glob(f"{LEAN_RUNTIME}.so.*"):
        return library
    raise SystemExit(
        f"{site / LEAN_PACKAGE / LEAN_RUNTIME}.so is missing: install the package "
        f"tensorrt-lean-cu13-libs=={RELEASES[RELEASE][1]} there first."
    )


def remove_cpp_runtime(site: Path) -> None:
    """Without these files, Torch-TensorRT does not ask for CUDA and libnvinfer."""
    for library in (site / "torch_tensorrt" / "lib").glob("*.so"):
        library.unlink()


def compile_stub(library: Path, macro: str, runtime: Path) -> None:
    command = [
        "gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", f"-D{macro}",
        str(HERE / "nvinfer_stub.c"), "-o", str(library), f"-Wl,-soname,{library.name}",
    ]  # fmt: skip
    if macro == "NVINFER":
        # With it, the lean runtime's symbols are libnvinfer's too.
        command += [
            "-Wl,--no-as-needed",  # the stub itself uses none of them
            f"-L{runtime.parent}",
            f"-l:{runtime.name}",
            f"-Wl,-rpath,$ORIGIN/../{LEAN_PACKAGE}",
        ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
