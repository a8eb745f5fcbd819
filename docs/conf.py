"""How Sphinx makes the site. `make docs` runs it; every warning is an error."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "rpclib"
version = release = version_of("rpclib-messaging")
copyright = "the rpclib authors, Apache-2.0"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
highlight_language = "text"
myst_heading_anchors = 3  # the anchors that a Git host makes, so that a link works in both places
nitpicky = True

html_theme = "furo"
html_title = "rpclib"
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("hex", TextLexer)  # the bytes of the envelope
    return {"parallel_read_safe": True}
