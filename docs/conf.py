"""How Sphinx makes the documentation site of these pages.

    sphinx-build -W -n docs build/site

Nothing is written twice for it: reference pages are the docstrings, and the pictures of states are
those that docs/draw.py draws from the core's tables.
"""

from __future__ import annotations

from gearman_proto import __version__

project = "gearman-sansio"
author = "the gearman-sansio developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["build"]
nitpicky = True

# Pages are Markdown that code hosts show, too: so a picture is a plain block of ```mermaid.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Gearman for Python"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
