"""Sphinx's configuration of `make docs`, and of rosdoc2, which reads it where it lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

project = "robot_vision"
author = "The robot_vision authors"
copyright = author
(release,) = re.findall(
    r'__version__ = "(.*)"', (ROOT / "robot_vision" / "__init__.py").read_text()
)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "sphinx_rtd_theme"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"


def _quote_code(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Docstrings quote code as Markdown does."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _quote_code)
