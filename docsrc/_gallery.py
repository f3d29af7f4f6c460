# SPDX-License-Identifier: BSD-3-Clause

"""How the gallery shows the examples: their order, and their reports as pictures."""

import io
import sys
from pathlib import Path

from rich.console import Console
from sphinx_gallery.scrapers import figure_rst

# Where conf.py's html_extra_path takes the reports' own pages from.
PAGES = Path(__file__).parent / "_extra" / "reports"

# From one kernel to a model; the examples of one subject are together.
ORDER = (
    *("triton", "existing_op", "library", "autotuned", "dynamic_shapes"),
    *("weights_attributes", "packed_format", "two_launches", "in_place"),
    *("attention", "fp8_gemm", "cutile", "cutedsl", "cuda", "several_backends"),
    "llm_block",
)

_shown = []


def order(file_name):
    """Sort examples; those that ``ORDER`` does not name come last."""
    name = Path(file_name).stem.removeprefix("custom_plugin_")
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def unregister(gallery_conf, file_name):
    """Forget the ops of the example before, and keep what the next one shows."""
    from torch_tensorrt import annotation as tta
    from torch_tensorrt.annotation._plugin import registered

    while registered:
        registered.popitem()[1].undo()
    for report in (tta.DryRunReport, tta.ProgramReport, tta.ModelReport):
        report.show = _keep


def _keep(report):
    """In place of ``report.show()``."""
    _shown.append(report)
    if not report.ok:  # the example ends, and the build with it
        print(report, file=sys.stderr)


def reports(block, block_variables, gallery_conf):
    """A picture of each report that a block of code showed, and a link to its page."""
    found = []
    for report in _shown:
        picture = Path(next(block_variables["image_path_iterator"])).with_suffix(".svg")
        name = getattr(report, "op", "tta.explain(model, inputs)")
        console = Console(record=True, file=io.StringIO(), width=80)
        console.print(report)
        console.save_svg(str(picture), title=name, unique_id=picture.stem)
        found.append(figure_rst([picture], gallery_conf["src_dir"], report.verdict))
        if hasattr(report, "to_html"):
            PAGES.mkdir(parents=True, exist_ok=True)
            (PAGES / f"{picture.stem}.html").write_text(report.to_html())
            page = f"../reports/{picture.stem}.html"
            found.append(f"`Every launch and all code of {name} <{page}>`__\n")
    _shown.clear()
    return "\n".join(found)
