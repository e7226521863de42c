"""How Sphinx makes the site: these pages, the project's README files, and the API from its docstrings."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

project = "Video Prediction Policy on Ray"
author = "The Video Prediction Policy on Ray authors"

extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
exclude_patterns = ["api/*/modules.rst"]

myst_heading_anchors = 3
default_role = "code"  # docstrings name things in single backticks
napoleon_use_ivar = True  # else attributes are described twice
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
add_module_names = False
apidoc_separate_modules = True
apidoc_modules = [
    {"path": f"../{package}", "destination": f"api/{package}"} for package in ("schemas", "runtime", "pipelines", "vpp")
]

_PAGES = {"SECURITY": "security", "CHANGELOG": "changelog", "cluster/README": "cluster"}
"""Files outside of this folder, and the pages that include them."""
_LINK = re.compile(r"\]\((?:\.\./)?(?:docs/)?([\w/]+)\.(\w+)")


def _link_to_pages(_app: Sphinx, _path: object, _page: str, content: list[str]) -> None:
    """Links of included files lead to the pages here."""
    content[0] = _LINK.sub(lambda link: f"]({_PAGES.get(link[1], link[1])}.{link[2]}", content[0])


class _AttributesAsWritten:
    """Napoleon takes what stands before a colon in an attribute's docstring for its type; here it is a sentence."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def keep(self, _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        self._lines = lines.copy()

    def restore(self, _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        if what in ("attribute", "data", "property"):
            lines[:] = self._lines


def setup(app: Sphinx) -> None:
    """Connects what Sphinx calls."""
    attributes = _AttributesAsWritten()
    app.connect("include-read", _link_to_pages)
    app.connect("autodoc-process-docstring", attributes.keep, priority=400)  # Napoleon has 500
    app.connect("autodoc-process-docstring", attributes.restore, priority=600)
