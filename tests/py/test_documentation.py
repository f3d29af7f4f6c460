"""What the README and the examples show is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()


def run(script: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=script.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_python_runs_as_it_is(tmp_path: Path) -> None:
    for toolchain in ("cutlass", "cuda.tile"):
        pytest.importorskip(toolchain, reason=f"the README uses {toolchain}")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    output = run(script)
    assert len(blocks) == 3
    assert "my::silu for sm_90" in output
    assert "my::silu_of_either for sm_90" in output
    assert output.count("PTX ") == 4


@pytest.fixture(scope="module")
def demo() -> str:
    return run(PROJECT / "examples/dynamo/custom_plugin_triton.py")


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_the_demo_shows_distinct_tactics_for_each_architecture(
    demo: str, target: str
) -> None:
    if "a dry run instead" not in demo:
        pytest.skip("here the demo builds an engine")
    _, _, table = demo.partition(f"example::swiglu for {target}\n")
    rows = table[: table.index("└")]
    entries = re.findall(r"example__swiglu_t\d_\w+", rows)
    assert len(entries) == len(set(entries)) >= 3
    assert rows.count(f"│ {target} ") == len(entries)
    assert len(re.findall(r"PTX \d\.\d", rows)) == len(entries)
    for point in ("min 1x5632", "opt 512x5632", "max 4096x5632"):
        assert rows.count(point) == len(entries)
