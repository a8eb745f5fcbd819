"""How Sphinx makes the site. `make docs` runs it; every warning is an error."""

from __future__ import annotations

import re
from enum import Enum
from importlib.metadata import version as version_of
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "rpclib"
version = release = version_of("rpclib-messaging")
copyright = "the rpclib authors, Apache-2.0"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc"]
highlight_language = "text"
myst_heading_anchors = 3  # the anchors that a Git host makes, so that a link works in both places
autodoc_member_order = "bysource"
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # `name` in a docstring is a link if the name is documented, and code if not
    (
        "py:class",
        r"(collections|re|logging|_?asyncio)\..*|rpclib\.errors\._Error|BaseModel|Settings|rpclib\.serving\.endpoints\.F",
    ),  # other projects', and type variables
]

html_theme = "furo"
html_title = "rpclib"
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def without_constructor(app: Sphinx, what: str, name: str, item: object, *rest: object) -> tuple[str, None] | None:
    """No arguments behind the name of a class that nobody calls: a protocol or an enumeration."""
    if isinstance(item, type) and (issubclass(item, Enum) or getattr(item, "_is_protocol", False)):
        return "", None
    return None


def with_links(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """The path of a page in a docstring becomes a link to the page."""
    lines[:] = [re.sub(r"\bdocs/([\w/-]+)\.md\b", r":doc:`/\1`", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("hex", TextLexer)  # the bytes of the envelope
    app.connect("autodoc-process-signature", without_constructor)
    app.connect("autodoc-process-docstring", with_links)
    return {"parallel_read_safe": True}
