"""How Sphinx makes the documentation site of these pages.

    sphinx-build -W -n docs build/site

Nothing is written twice for it: reference pages are the docstrings, and the pictures of states are
those that docs/draw.py draws from the core's tables.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

from gearman_proto import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_INSIDE = (
    "Answer|BaseEngine|Callback|CallingNode|ConnectingEngine|Connector|End|ExcInfo|Fields|Function|"
    "JobQueue|LinkState|LoneRef|Place|QueuedJob|Requests|RequestRef|RequestsWait|"
    "StatusWait|UpdateStream|Updates|Waited|Wanted|WorkStream"
)

project = "gearman-sansio"
author = "The gearman-sansio authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["build"]
nitpicky = True
#: Single backticks in docstrings: a link where there is such a name, else code.
default_role = "py:obj"
nitpick_ignore_regex = [
    # Arguments and the like, in single backticks.
    ("py:obj", r"[\w.=*()]+"),
    # Type variables, and what is private.
    ("py:class", r"(.*\.)?(_\w+|[A-Z]|\w+T)"),
    # Aliases whose names say enough, and what engines have inside.
    ("py:class", rf"(.*\.)?({_INSIDE})"),
]

# Pages are Markdown that code hosts show, too: so a picture is a plain block of ```mermaid.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

# Both adapters have a class of this name; annotations that only type checkers read can't say which.
suppress_warnings = ["ref.python"]

# As high as it is.
mermaid_height = "auto"

# What is in a block without a language are screens and figures.
highlight_language = "none"

# What is copied of a screen are the commands.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "Gearman for Python"
html_theme_options = {"navigation_with_keys": True}

#: Debian's packages of documentation, or the sites themselves.
intersphinx_mapping = {
    "python": (
        "https://docs.python.org/3",
        ("/usr/share/doc/python3/html/objects.inv", None),
    ),
    "trio": (
        "https://trio.readthedocs.io/en/stable",
        ("/usr/share/doc/python-trio-doc/html/objects.inv", None),
    ),
}

# Adapters have the documentation of what they are made with in __init__, which they inherit.
autoclass_content = "both"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80


#: Names that annotations have without their modules, and libraries whose pages are plain.
_MODULES = {
    "ByteStream": "anyio.abc",
    "TaskStatus": "anyio.abc",
    "datetime": "datetime",
    "deque": "collections",
}
_PAGES = {
    "anyio": "https://anyio.readthedocs.io/en/stable/api.html#{}",
    "SearchStrategy": "https://hypothesis.readthedocs.io/en/latest/",
}


def find_elsewhere(
    _app: Sphinx, _env: BuildEnvironment, node: Any, content: nodes.Element
) -> nodes.Element | None:
    """Say where a name of another library is described, or give it the name that its pages have."""
    name = node["reftarget"]
    if module := _MODULES.get(name):
        name = node["reftarget"] = f"{module}.{name}"
    page = _PAGES.get(name.partition(".")[0])
    if page is None:
        return None
    reference = nodes.reference("", "", internal=False, refuri=page.format(name))
    reference += content
    return reference


def read_docstring(
    _app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Read a docstring in Google's style.

    The extension napoleon does that, too, but takes what stands before a colon in an attribute's
    first sentence for its type.
    """
    if what == "data":
        lines[:] = comment_of(name.rpartition(".")[2]) or lines
    what = "method" if what in {"attribute", "data", "property"} else what
    lines[:] = GoogleDocstring(lines, None, None, what, name, obj, options).lines()
    # How a job keeps an attribute is nothing that its type says.
    lines[:] = [re.sub(r"_Forwarded\[(.+)\]", r"\1", line) for line in lines]


def comment_of(name: str) -> list[str]:
    """What the core says of a name where it is assigned; a package that exports it does not."""
    for module in list(sys.modules):
        if module.startswith("gearman_proto."):
            comments = ModuleAnalyzer.for_module(module).find_attr_docs()
            if lines := comments.get(("", name)):
                return list(lines)
    return []


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_docstring)
    # Before the inventories of other sites are asked.
    app.connect("missing-reference", find_elsewhere, priority=400)
