# SPDX-License-Identifier: BSD-3-Clause

"""Build the first engines, from the simplest to the hardest, and report what holds.

    python tools/first_engine/run.py [--only NAME ...] [--out DIR]

`make first-engine` does that. Each step is a process of its own with a time limit, so a
crash ends that step alone. DIR gets report.txt, report.json, and each step's output.
Without TensorRT's builder, or without a GPU, a step goes as far as the builder, and the
report says what it would ask; with a GPU, hand-written kernels are rehearsed with
plain launches. The exit status is 1 if a step failed, crashed or ran out
of time; an assumption that does not hold is a result.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steps import CAN_BUILD, HAS_BUILDER, HAS_GPU, PROJECT, STEPS, Step, carry_out

for _steps in ("loader", "engines"):  # the simplest first
    importlib.import_module(_steps)

WELL = ("done", "up to the builder", "not here")


def environment() -> dict[str, Any]:
    """Versions, GPU and driver."""
    import platform

    import tensorrt
    import torch

    import torch_tensorrt
    import torch_tensorrt.annotation as tta

    found: dict[str, Any] = {
        "torch_tensorrt.annotation": tta.__version__,
        "torch_tensorrt": torch_tensorrt.__version__,
        "tensorrt": tensorrt.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "builder": HAS_BUILDER,
        "gpu": torch.cuda.get_device_name() if HAS_GPU else None,
    }
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    try:
        from cuda.bindings import runtime

        _, version = runtime.cudaDriverGetVersion()
        if version:
            found["driver"] = f"CUDA {version // 1000}.{version % 1000 // 10}"
    except (ImportError, RuntimeError):  # not installed, or without libcuda
        found["driver"] = None
    if HAS_GPU and (program := shutil.which("nvidia-smi")):
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True)
        found["nvidia-smi"] = " ".join(done.stdout.split())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=STEPS, default=[])
    parser.add_argument("--out", type=Path, default=PROJECT / "build/first_engine")
    parser.add_argument("--list", action="store_true", help="print the steps")
    options = parser.parse_args(arguments)
    chosen = [STEPS[name] for name in options.only or STEPS]
    if options.list:
        print("\n".join(f"{each.name}: {each.title}" for each in chosen))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TTA_CACHE_DIR", str(options.out / "kernel-cache"))
    if not CAN_BUILD:
        os.environ.setdefault("TTA_TARGET", "sm_90")
    found: dict[str, Any] = {"environment": environment(), "steps": []}
    print(_head(found["environment"]), flush=True)
    for each in chosen:
        found["steps"].append(run(each, options.out))
        print(as_text(found["steps"][-1]), flush=True)
        text = [_head(found["environment"]), *map(as_text, found["steps"])]
        (options.out / "report.txt").write_text("\n".join(text) + "\n")
        (options.out / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nIn {options.out}: report.txt, report.json")
    return int(any(step["outcome"] not in WELL for step in found["steps"]))


def run(step: Step, directory: Path) -> dict[str, Any]:
    """What came of a step, which runs in a process of its own."""
    result, output = (directory / f"{step.name}.{kind}" for kind in ("json", "txt"))
    result.unlink(missing_ok=True)
    # A process that has used CUDA cannot be forked, and importing torch_tensorrt uses
    # it where there is a GPU. Elsewhere, a fork saves that import.
    context = multiprocessing.get_context("spawn" if HAS_GPU else "fork")
    start = time.monotonic()
    process = context.Process(target=_child, args=(step.name, result, output))
    process.start()
    process.join(step.seconds)
    ended = ""
    if process.is_alive():
        process.kill()
        process.join()
        ended = f"stopped after {step.seconds} s"
    elif process.exitcode:
        code = process.exitcode
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        ended = f"the process ended: {name}"
    told = json.loads(result.read_text()) if result.exists() else {}
    found = {"answers": {}, "notes": [], "told": "", **told}
    if ended or not told:
        found |= {"outcome": "ended", "told": ended or "the process left no result"}
    unknown = [ask for ask in step.asks if ask not in found["answers"]]
    return {
        "name": step.name,
        "title": step.title,
        "outcome": found["outcome"],
        "told": found["told"],
        "seconds": round(time.monotonic() - start, 1),
        "asks": dict(step.asks),
        "answers": found["answers"],
        "unanswered": unknown,
        "notes": found["notes"],
        "output": output.name,
    }


def _child(name: str, result: Path, output: Path) -> None:
    """In the process of a step: what it and native code print goes to a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        stream.flush()
        os.dup2(file, number)
    carry_out(name, result)


# --- The report -----------------------------------------------------------------------


def _head(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{n} {v}" for n, v in environment.items() if v is not None)
    return f"First engine. {versions}"


def as_text(found: Mapping[str, Any]) -> str:
    """A step for people: what holds, what does not, and what nobody knows still."""
    told = f": {found['told']}" if found["told"] else ""
    lines = [
        f"{found['name']}: {found['title']} ({found['seconds']} s)",
        f"  {found['outcome']}{told}",
    ]
    for ask, sentence in found["asks"].items():
        answer = found["answers"].get(ask)
        if answer is None:
            would = "would ask" if found["outcome"] in WELL[1:] else "unanswered"
            lines.append(f"  {would}: {sentence}")
            continue
        verdict = "holds" if answer["holds"] else "DOES NOT HOLD"
        seen = f" ({answer['seen']})" if answer["seen"] else ""
        lines.append(f"  {verdict}: {sentence}{seen}")
    lines += [f"  note: {note}" for note in found["notes"]]
    how: dict[str, Any] = {"subsequent_indent": "    ", "break_long_words": False}
    return "\n" + "\n".join(textwrap.fill(line, 88, **how) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
