# SPDX-License-Identifier: BSD-3-Clause

"""Sphinx: ``make docs`` builds these pages into ``build/docs``."""

import importlib.metadata

project = "torch_tensorrt.annotation"
release = importlib.metadata.version("torch-tensorrt-annotation")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# In Markdown, `x` is code, not a reference: so it is in docstrings as well.
default_role = "code"

# A reference that leads nowhere is an error, but to what others document.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(collections|torch|dataclasses)\..*"),
    ("py:class", r"torch_tensorrt\.dynamo\.(_settings|conversion\._Conv).*"),
]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["_static"]
