"""Hooks of the documentation site (``mkdocs.yml``)."""

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles of docstrings, which Sphinx knows and Markdown prints."""
    return re.sub(r":(?:attr|class|data|exc|func|meth|mod|obj):(?=<code)", "", html)
