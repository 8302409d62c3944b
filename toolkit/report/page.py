"""The report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from toolkit.report.markdown import GENERATED
from toolkit.report.parts import Figure, Items, Matrix, Paragraph
from toolkit.report.words import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.report.parts import Part, Report

_TEMPLATES: Final = ("page.html", "parts.html")
_PIXELS_A_POINT: Final = 1.8
#: Shades of a confusion matrix's cells, from none to all of a true class.
N_SHADES: Final = 10


def format_page(report: Report, figures: Mapping[str, str]) -> str:
    """Write a report as one HTML file.

    Every name of the data is escaped by the template engine. A policy in the page's head
    forbids any request and any script but the one that sorts tables, whose hash it holds.

    Parameters
    ----------
    report : Report
        The report.
    figures : mapping of str to str
        Stem of every figure to its SVG.

    Returns
    -------
    str
        The same text for the same report and figures.

    Raises
    ------
    KeyError
        If a figure of the report was not drawn.
    """
    folder = files("toolkit.report") / "templates"
    style, script = (
        (folder / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js")
    )
    environment = Environment(
        loader=DictLoader(
            {name: (folder / name).read_text(encoding="utf-8") for name in _TEMPLATES}
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = format_share
    page = environment.get_template("page.html")
    return page.render(
        report=report,
        generated=GENERATED,
        # The two files are this package's own; everything else is escaped.
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        kind=_kind,
        image=lambda stem: _data_address(figures[stem]),
        width=lambda stem: _screen_width(figures[stem]),
        shade=_shade,
    )


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest())
    return "sha256-" + digest.decode("ascii")


def _kind(part: Part) -> str:
    """Name the macro that writes a part."""
    kinds = {Paragraph: "paragraph", Items: "items", Figure: "figure", Matrix: "matrix"}
    return kinds.get(type(part), "table")


def _data_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _screen_width(svg: str) -> int | None:
    """Show a figure somewhat larger than on paper; None if its size cannot be read."""
    found = re.search(r'<svg [^>]*?width="([0-9.]+)pt"', svg)
    return found and round(float(found[1]) * _PIXELS_A_POINT)


def _shade(count: int, total: int) -> int:
    return round(N_SHADES * count / total) if total else 0
