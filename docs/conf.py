"""How Sphinx makes the documentation site of these pages.

    sphinx-build -W -n docs build/site

It needs no network. Without one, and without Debian's packages python3-doc and python-trio-doc,
names of Python and trio have no links.

Nothing is written twice for it: reference pages are the docstrings, and docs/draw.py draws the
pictures from the code.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

from gearman_proto import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_INSIDE = (
    "Answer|AnyLink|Around|Asked|BaseEngine|Callback|CallingNode|CancelWait|Columns|ConnectingEngine|Connector|End|"
    "ExcInfo|Fields|Function|GrabWait|JobQueue|Lifespan|LinkState|LoneRef|Place|QueuedJob|Requests|RequestRef|"
    "RequestsWait|Result|ResultsWait|StatusWait|UpdateSubscription|Updates|Waited|Wanted|WorkSubscription"
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
]
exclude_patterns = ["build"]
nitpicky = True
#: Single backticks in docstrings: a link where there is such a name, else code.
default_role = "py:obj"
nitpick_ignore_regex = [
    # Arguments and the like, in single backticks.
    ("py:obj", r"[\w.=*()]+"),
    # Type variables and private names.
    ("py:class", r"(.*\.)?(_\w+|[A-Z]|\w+T)"),
    # Aliases whose names say enough, and what engines have inside.
    ("py:class", rf"(.*\.)?({_INSIDE})"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Both adapters have a class of this name; annotations that only type checkers read can't say which.
suppress_warnings = ["ref.python"]

# Blocks without a language contain screens and figures.
highlight_language = "none"

# The copy button copies only the commands of a screen.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "Gearman for Python"
html_theme_options = {"navigation_with_keys": True}

#: The sites of other projects, and where Debian's packages of documentation have their inventories.
_SITES = {
    "python": ("https://docs.python.org/3", "/usr/share/doc/python3/html/objects.inv"),
    "trio": (
        "https://trio.readthedocs.io/en/stable",
        "/usr/share/doc/python-trio-doc/html/objects.inv",
    ),
}


def can_be_reached(url: str) -> bool:
    """Return whether there is such a page, and a network."""
    try:
        with urllib.request.urlopen(url, timeout=10):  # noqa: S310 - the sites above
            return True
    except OSError:
        return False


#: The inventories that can be read here. Names of the other sites are not linked.
intersphinx_mapping = {
    name: (site, local if Path(local).exists() else None)
    for name, (site, local) in _SITES.items()
    if Path(local).exists() or can_be_reached(f"{site}/objects.inv")
}

# The adapters inherit __init__, whose docstring documents their arguments.
autoclass_content = "both"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80


#: Minimum number of sections of a page that gets a table of contents.
LONG = 8
#: The table. The theme would warn about it without this class.
_CONTENTS = """\
:::{contents} On this page
:local:
:depth: 1
:class: this-will-duplicate-information-and-it-is-still-useful-here
:::
"""

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
    library = name.partition(".")[0]
    page = _PAGES.get(library)
    if page is None:
        site = "python" if library in sys.stdlib_module_names else library
        is_unlinked = site in _SITES and site not in intersphinx_mapping
        return content if is_unlinked else None
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
    """Return the comment of a name in the core module that assigns it."""
    for module in list(sys.modules):
        if module.startswith("gearman_proto."):
            comments = ModuleAnalyzer.for_module(module).find_attr_docs()
            if lines := comments.get(("", name)):
                return list(lines)
    return []


def add_dark_pictures(_app: Sphinx, document: nodes.document) -> None:
    """Add the dark form of each picture, which the dark theme shows instead of the light one.

    The pages name only the light forms, since they are Markdown that code hosts show, too.
    """
    for image in list(document.findall(nodes.image)):
        if image["uri"].endswith("-light.svg"):
            dark = image.deepcopy()
            dark["uri"] = image["uri"].replace("-light.svg", "-dark.svg")
            image["classes"].append("only-light")
            dark["classes"].append("only-dark")
            image.parent.insert(image.parent.index(image) + 1, dark)


def add_contents(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Add a table of contents to long pages.

    The theme shows one of its own only in wide windows.
    """
    title, _, text = source[0].partition("\n")
    if title.startswith("# ") and text.count("\n## ") >= LONG:
        source[0] = f"{title}\n\n{_CONTENTS}\n{text}"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    # Before Sphinx collects the images, in its own handler of this event.
    app.connect("doctree-read", add_dark_pictures, priority=0)
    app.connect("autodoc-process-docstring", read_docstring)
    # Before the inventories of other sites are asked.
    app.connect("missing-reference", find_elsewhere, priority=400)
