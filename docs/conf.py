"""Sphinx settings; `make docs` builds the pages."""

import vlmrm_fast

project = "vlmrm-fast"
copyright = "2026, the vlmrm-fast authors"  # noqa: A001  (the name that Sphinx reads)
release = vlmrm_fast.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "vlmrm-fast"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build"]
