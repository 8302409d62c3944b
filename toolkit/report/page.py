"""The report in three formats: one self-contained HTML file, Markdown, a LaTeX table."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toolkit.report.document import (
    MINUS,
    Cell,
    Part,
    Report,
    Table,
    format_share,
)

_GENERATED: Final = (
    "Generated data. These recordings were made by this software with a planted signal. The "
    "numbers say nothing about people."
)


#: Screen pixels per point of a figure, which is shown somewhat larger than on paper.
_PIXELS_PER_POINT: Final = 1.6
#: Shades of a confusion matrix's cells, from none to all of a true class.
_N_SHADES: Final = 10
_TEMPLATES: Final = resources.files("toolkit.report") / "templates"


def format_markdown(report: Report) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : Report
        The report.

    Returns
    -------
    str
        Equal text for equal reports; figures are links to their SVG files.
    """
    # The engine escapes HTML only; the template's filter escapes Markdown.
    environment = _make_environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    page = environment.get_template("report.md")
    return page.render(report=report, generated=_GENERATED, kind_of=_kind_of)


def escape_markdown(text: str) -> str:
    """Escape every mark of Markdown in a text, and write it in one line."""
    for mark in "\\`*_[]<>|#$~!&":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def format_page(report: Report, figures: Mapping[str, str]) -> str:
    """Write a report as one HTML file.

    Every name of the data is escaped by the template engine. A policy in the page's head
    forbids any request, and any script but the page's own, by its hash.

    Parameters
    ----------
    report : Report
        The report.
    figures : mapping of str to str
        Stem of every figure to its SVG.

    Returns
    -------
    str
        Equal text for equal reports and figures.

    Raises
    ------
    KeyError
        If a figure of the report was not drawn.
    """
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8").strip()
        for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    page = _make_environment(autoescape=True).get_template("page.html")
    return page.render(
        report=report,
        generated=_GENERATED,
        # The two files are this package's own; everything else is escaped.
        style=Markup(style),
        script=Markup(script),
        policy=policy,
        kind_of=_kind_of,
        image=lambda stem: (
            "data:image/svg+xml;base64," + _encode(figures[stem].encode("utf-8"))
        ),
        width=lambda stem: _screen_width(figures[stem]),
        shade=lambda count, total: round(_N_SHADES * count / total) if total else 0,
    )


def _make_environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("toolkit.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"share": format_share, "minus": _set_minus, "number": _cell_text}
    return environment


def _set_minus(text: str) -> str:
    """Write the minus of decimal numbers as the mark that is as wide as a plus."""
    return re.sub(r"(?<![\w.])-(?=\d*\.\d)", MINUS, text)


def _cell_text(cell: Cell) -> str:
    # A name may look like a number, and stays as it is.
    return (
        cell.text if cell.value is None else re.sub(r"(?<![\w.])-(?=[\d.])", MINUS, cell.text)
    )


def _hash(text: str) -> str:
    return "sha256-" + _encode(hashlib.sha256(text.encode("utf-8")).digest())


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _kind_of(part: Part) -> str:
    """Name the branch of a template that writes a part."""
    return type(part).__name__.lower()


def _screen_width(svg: str) -> int | None:
    """Compute the width of a figure in pixels; None if its size cannot be read."""
    found = re.search(r'<svg [^>]*?width="([0-9.]+)pt"', svg)
    return found and round(float(found[1]) * _PIXELS_PER_POINT)


_TEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    '"': r"\textquotedbl{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
}


def _escape_tex(text: str) -> str:
    """Escape every mark of LaTeX in a text."""
    plain = " ".join(text.split())
    escaped = "".join(_TEX.get(mark, mark) for mark in plain)
    # LaTeX turns hyphens in a row into dashes, and a bracket after \\ into its option.
    if "--" in plain:
        escaped = escaped.replace("-", "{-}")
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped


def format_table_tex(table: Table) -> str:
    r"""Write a table of scores for one column of a paper, with the rules of ``booktabs``.

    Parameters
    ----------
    table : Table
        Scores; a column that is the same in every row is left out.

    Returns
    -------
    str
        A ``table`` environment labelled ``tab:<name>``, with intervals in a second line of
        each row. Names of up to 14 letters and four scores fit a column of 3.2 inches.
    """
    numbers = [k for k in range(1, len(table.header)) if table.is_number(k)]
    kept = [k for k in numbers if len({row[k].text for row in table.rows}) > 1] or numbers
    lines = [
        r"% Needs \usepackage{booktabs,textcomp}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_tex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(kept)}@{{}}}}",
        r"\toprule",
        _tex_row([_escape_tex(table.header[k]) for k in (0, *kept)]),
        r"\midrule",
    ]
    for row in table.rows:
        split = [row[k].text.partition(" ")[::2] for k in kept]
        values = [_tex_number(value) for value, _ in split]
        bold = [
            rf"\textbf{{{v}}}" if row[k].best else v for k, v in zip(kept, values, strict=True)
        ]
        lines.append(_tex_row([_escape_tex(row[0].text), *bold]))
        ends = [rf"{{\scriptsize {_tex_number(text)}}}" if text else "" for _, text in split]
        lines += [_tex_row(["", *ends])] if any(ends) else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_number(text: str) -> str:
    """Write numbers without a zero before their point, and a thin space between two."""
    return _escape_tex(_set_minus(re.sub(r"\b0(?=\.\d)", "", text))).replace(", ", r",\,")
