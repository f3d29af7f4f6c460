# SPDX-License-Identifier: BSD-3-Clause

"""Sphinx: ``make docs`` builds these pages into ``build/docs``.

It also runs the examples, whose output and pictures the gallery shows; with
``-D plot_gallery=0`` it does not.
"""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for _gallery and _thumbnails
(HERE / "_extra").mkdir(exist_ok=True)

project = "torch_tensorrt.annotation"
release = importlib.metadata.version("torch-tensorrt-annotation")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_*", "gallery/*.ipynb", "gallery/*.py", "gallery/*.json"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# In Markdown, `x` is code, not a reference: so it is in docstrings as well.
default_role = "code"

# A reference that leads nowhere is an error, but to what others document.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(collections|dataclasses|enum|pathlib|sympy|torch)\..*"),
    ("py:class", r"torch_tensorrt\.dynamo\.(_settings|conversion\._Conv).*"),
    # What only the library uses.
    ("py:class", r"torch_tensorrt\.annotation\._specs\.Fingerprinted"),
    ("py:class", r"torch_tensorrt\.annotation\._(record|tensors)\..*"),
    # Attributes that share a description: "shape, strides: of the view".
    ("py:class", "extras|names|shape|slots"),
]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples/dynamo",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/custom_plugin_",
    "ignore_pattern": r"engine_or_dry_run\.py",
    "copyfile_regex": r"first_kernel\.ipynb|engine_or_dry_run\.py",
    "within_subsection_order": "_gallery.order",
    "image_scrapers": ("_gallery.reports",),
    "reset_modules": ("_gallery.unregister",),
    "capture_repr": (),
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1_000,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_extra_path = ["_extra"]  # the reports of the gallery, each a page of its own
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}
html_sidebars = {"getting_started": [], "index": []}


def setup(app):
    import _thumbnails

    app.connect(
        "builder-inited", _thumbnails.replace, priority=900
    )  # after the gallery
