"""The report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from toolkit.report.document import Figure, Items, Matrix, Paragraph, Table, format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from toolkit.report.document import Part, Report

GENERATED: Final = (
    "Generated data. These recordings were made by this software with a planted signal. The "
    "numbers say nothing about people."
)


def format_markdown(report: Report) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : Report
        The report.

    Returns
    -------
    str
        The same text for the same report; figures are linked, not held.
    """
    parts = [f"# {report.title}", escape_markdown(report.study)]
    if report.generated:
        parts.append(f"> **{GENERATED}**")
    for section in report.sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts += [text for part in section.parts for text in _format_part(part)]
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    r"""Keep text from being read as markup.

    Parameters
    ----------
    text : str
        For example a name of the data.

    Returns
    -------
    str
        In one line, every mark escaped.

    Examples
    --------
    >>> escape_markdown("a|b<i>")
    'a\\|b\\<i\\>'
    """
    for mark in "\\`*_[]<>|#$~!&":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _format_part(part: Part) -> Iterator[str]:
    if isinstance(part, Paragraph):
        text = escape_markdown(part.text)
        yield f"**{text}**" if part.kind == "lead" else text
    elif isinstance(part, Items):
        yield "\n".join(f"- {escape_markdown(text)}" for text in part.texts)
    elif isinstance(part, Figure):
        yield f"![{escape_markdown(part.alt)}](figures/{part.stem}.svg)"
        yield f"*{escape_markdown(part.caption)}*"
    elif isinstance(part, Matrix):
        yield f"*{escape_markdown(part.caption)}*"
        yield _format_table(("true", *part.classes), _matrix_rows(part))
        yield f"![{escape_markdown(part.summary)}](figures/{part.name}.svg)"
    else:
        yield from _format_tabular(part)


def _format_tabular(table: Table) -> Iterator[str]:
    yield f"*{escape_markdown(table.caption)}*"
    numbers = [table.is_number(column) for column in range(len(table.header))]
    rows = ([cell.text for cell in row] for row in table.rows)
    yield _format_table(table.header, rows, numbers)
    if table.note:
        yield escape_markdown(table.note)


def _matrix_rows(matrix: Matrix) -> Iterator[list[str]]:
    for name, counts in zip(matrix.classes, matrix.counts.tolist(), strict=True):
        yield [name, *(format_share(count, sum(counts)) for count in counts)]


def _format_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[bool] = ()
) -> str:
    right = numbers or [False, *[True] * (len(header) - 1)]
    lines = [
        "| " + " | ".join(map(escape_markdown, header)) + " |",
        "|" + "".join(" ---: |" if number else " --- |" for number in right),
    ]
    lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join(lines)


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
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def escape_tex(text: str) -> str:
    r"""Keep text from being read as LaTeX.

    Examples
    --------
    >>> escape_tex("50%_a")
    '50\\%\\_a'
    """
    plain = " ".join(text.split())
    escaped = "".join(_TEX.get(mark, mark) for mark in plain)
    # Hyphens in a row become dashes; a bracket after a line's end is taken for its option.
    if "--" in plain:
        escaped = escaped.replace("-", "{-}")
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped


def escape_cell(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula.

    Examples
    --------
    >>> escape_cell("=1+1"), escape_cell("text")
    ("'=1+1", 'text')
    """
    return "'" + text if text.startswith(_FORMULA) else text


def format_table_csv(table: Table) -> str:
    """Write a table for a spreadsheet, with the numbers that are read elsewhere.

    Parameters
    ----------
    table : Table
        Any table; scores with intervals take three columns.

    Returns
    -------
    str
        UTF-8 text with LF line ends. Texts that a spreadsheet would compute get an
        apostrophe; the files that programs read (``scores.csv``, ``predictions/``) hold names
        as they are.

    Examples
    --------
    >>> from toolkit.report.document import Cell, make_table
    >>> table = make_table("t", "", ["system", "UAR"], [["text", Cell("0.5 [0.4, 0.6]", 0.5)]])
    >>> print(format_table_csv(table), end="")
    system,UAR,UAR low,UAR high
    text,0.5,0.4,0.6
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    wide = [
        any(_split_interval(row[column].text)[1] for row in table.rows)
        for column in range(len(table.header))
    ]
    header: list[str] = []
    for name, has_interval in zip(table.header, wide, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has_interval else [name]
    writer.writerow(map(escape_cell, header))
    for row in table.rows:
        cells: list[str] = []
        for cell, has_interval in zip(row, wide, strict=True):
            if cell.value is None:
                cells += [escape_cell(cell.text), *[""] * (2 * has_interval)]
                continue
            value, low, high = _split_interval(cell.text.replace(",", ""), keep=cell.text)
            cells += [value, low, high] if has_interval else [value]
        writer.writerow(cells)
    return text.getvalue()


def format_tables_tex(tables: Sequence[Table]) -> str:
    r"""Write tables for a paper, with the rules of ``booktabs``.

    Parameters
    ----------
    tables : sequence of Table
        Any tables.

    Returns
    -------
    str
        One ``table`` environment a table, labelled ``tab:<name>``.
    """
    lines = [r"% Needs \usepackage{booktabs,textcomp} and, for wide tables, {graphicx}."]
    for table in tables:
        columns = "".join("r" if table.is_number(i) else "l" for i in range(len(table.header)))
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_tex(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _tex_row(table.header),
            r"\midrule",
        ]
        body = [_tex_row([cell.text for cell in row]) for row in table.rows]
        if table.n_footers:
            body.insert(-table.n_footers, r"\midrule")
        lines += [*body, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tex_row(texts: Sequence[str]) -> str:
    return " & ".join(map(escape_tex, texts)) + r" \\"


def _split_interval(text: str, keep: str = "") -> tuple[str, str, str]:
    """Part ``0.5 [0.4, 0.6]`` into its three numbers; of another text the ends are empty."""
    value, bracket, ends = (keep or text).partition(" [")
    if not bracket or not ends.endswith("]"):
        return text, "", ""
    low, _, high = ends[:-1].partition(", ")
    return value, low, high
